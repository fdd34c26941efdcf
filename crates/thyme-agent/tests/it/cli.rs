//! The program from outside: arguments, messages, signals and exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    process::Signal,
};
use tempfile::TempDir;

use crate::{
    node::{Node, cri, wait_until},
    program::{Program, Setup, address, fetch, program},
};

fn output(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A configuration of files in `directory`, for a sink that does not answer.
fn configuration(directory: &Path) -> PathBuf {
    let text = format!(
        "\
receivers:
  filelog:
    include: ['{directory}/*.log']
    start_at: beginning
exporters:
  otlp:
    endpoint: http://127.0.0.1:1
    compression: none
extensions:
  health_check:
    endpoint: 127.0.0.1:0
  thyme:
    shutdown_timeout: 1h
service:
  extensions: [health_check, thyme]
  pipelines:
    logs:
      receivers: [filelog]
      exporters: [otlp]
  telemetry:
    metrics:
      readers: [{{pull: {{exporter: {{prometheus: {{port: 0}}}}}}}}]
",
        directory = directory.display()
    );
    let path = directory.join("agent.yaml");
    fs::write(&path, text).unwrap();
    path
}

/// Waits until that many records wait for the sink.
fn wait_for_unsettled_records(agent: &mut Program, records: u64) {
    wait_until("records are unsettled", || {
        agent.metric("thyme_conservation_queued_records{stage=\"request\"}") == records
    });
}

/// Scenario: `--version`, and no arguments at all.
/// Guarantees: the version with the commit alone on stdout; help and exit code 2.
#[test]
fn version_and_help() {
    let version = output(&["--version"]);
    let said = text(&version.stdout);
    let expected = concat!("thyme-agent ", env!("CARGO_PKG_VERSION"), " (commit ");
    assert!(said.starts_with(expected) && said.ends_with(")\n"), "{said}");
    assert_eq!((said.lines().count(), version.status.code()), (1, Some(0)));
    let nothing = output(&[]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("--config <FILE>"), "{}", text(&nothing.stderr));
}

/// Scenario: a good configuration, in each way to name it.
/// Guarantees: `validate` says OK and exits with 0.
#[test]
fn validate_accepts_a_good_configuration() {
    let directory = TempDir::new().unwrap();
    let path = configuration(directory.path()).display().to_string();
    let ways: [&[&str]; 3] = [
        &["validate", "--config", &path],
        &["validate", &format!("--config={path}")],
        &["validate", "--config", &format!("file:{path}")],
    ];
    for arguments in ways {
        let checked = output(arguments);
        assert_eq!(text(&checked.stdout), "OK\n", "{}", text(&checked.stderr));
        assert_eq!(checked.status.code(), Some(0));
    }
}

/// Scenario: a configuration with two faults, checked and run; and one that doesn't exist.
/// Guarantees: every fault stands on stderr with file, line and key; exit code 1.
#[test]
fn a_bad_configuration_is_explained() {
    let directory = TempDir::new().unwrap();
    let path = configuration(directory.path());
    let bad = fs::read_to_string(&path).unwrap().replace("start_at", "startat");
    fs::write(&path, bad.replace("compression: none", "compression: lzma")).unwrap();
    let path = path.display().to_string();
    let expected = format!(
        "{path}:4: receivers::filelog::startat: unknown key, the nearest known one is `start_at`\n\
         {path}:8: exporters::otlp::compression: expected one of none, gzip, zstd, found `lzma`\n"
    );
    let ways: [&[&str]; 2] = [&["validate", "--config", &path], &["--config", &path]];
    for arguments in ways {
        let refused = output(arguments);
        assert_eq!(text(&refused.stderr), expected);
        assert_eq!((text(&refused.stdout).as_str(), refused.status.code()), ("", Some(1)));
    }
    let missing = output(&["--config", "/nonexistent.yaml"]);
    assert_eq!(
        text(&missing.stderr),
        "/nonexistent.yaml: No such file or directory (os error 2)\n"
    );
    assert_eq!(missing.status.code(), Some(1));
}

/// Scenario: authorities that are none, a certificate and a token whose files are not there, checked
/// and run.
/// Guarantees: `validate` refuses what the start refuses, in the same words, with line and key.
#[test]
fn validate_refuses_what_the_start_would_refuse() {
    let directory = TempDir::new().unwrap();
    let path = configuration(directory.path());
    let good = fs::read_to_string(&path).unwrap();
    let cases = [
        ("tls: {ca_pem: hello}", "agent.yaml:9: exporters::otlp::tls::ca_pem: "),
        ("tls: {ca_file: /nonexistent}", "agent.yaml:9: exporters::otlp::tls::ca_file: "),
        (
            "tls: {insecure_skip_verify: true, cert_file: /nonexistent, key_pem: k}",
            "agent.yaml:9: exporters::otlp::tls::cert_file: ",
        ),
        ("tls: {ca_file: /dev/zero}", "expected a regular file"),
        ("headers: {Content-Type: x}", "agent.yaml:9: exporters::otlp::headers::Content-Type: "),
        (
            "auth: {authenticator: bearertokenauth}",
            "agent.yaml:11: extensions::bearertokenauth::filename: ",
        ),
    ];
    for (key, expected) in cases {
        let text = good
            .replace("http://127.0.0.1:1", "https://127.0.0.1:1")
            .replace("compression: none", &format!("compression: none\n    {key}"))
            .replace("extensions:\n", "extensions:\n  bearertokenauth: {filename: /nonexistent}\n")
            .replace("[health_check,", "[bearertokenauth, health_check,");
        fs::write(&path, text).unwrap();
        let config = path.to_str().unwrap();
        let checked = output(&["validate", "--config", config]);
        let started = output(&["--config", config]);
        assert!(text_of(&checked).contains(expected), "{key}: {}", text_of(&checked));
        assert_eq!(text_of(&checked), text_of(&started));
        assert_eq!((checked.status.code(), started.status.code()), (Some(1), Some(1)));
    }
}

fn text_of(output: &Output) -> String {
    text(&output.stderr)
}

/// Scenario: the configuration is a FIFO that nobody writes to, a device that never ends, or a
/// directory.
/// Guarantees: refused at once, with its path and what it is.
#[test]
fn a_configuration_is_a_regular_file() {
    let directory = TempDir::new().unwrap();
    let fifo = directory.path().join("agent.yaml");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    for (path, what) in
        [(fifo.to_str().unwrap(), "a FIFO"), ("/dev/zero", "a device"), ("/", "a directory")]
    {
        for arguments in [&["validate", "--config", path][..], &["--config", path]] {
            let refused = output(arguments);
            let expected = format!("{path}: it is {what}, expected a regular file\n");
            assert_eq!(text(&refused.stderr), expected);
            assert_eq!(refused.status.code(), Some(1));
        }
    }
}

/// Scenario: under the name of each file of the state stands a directory or a FIFO; the state's directory
/// is a file, or is missing.
/// Guarantees: the start ends at once, with line and key, the path, what it is and what was expected.
#[test]
fn an_odd_state_directory_is_told_at_its_key() {
    let directory = TempDir::new().unwrap();
    let path = configuration(directory.path());
    let state = directory.path().join("state");
    let extension = format!("extensions:\n  file_storage: {{directory: {}}}\n", state.display());
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("extensions:\n", &extension)
        .replace("[health_check,", "[file_storage, health_check,")
        .replace("    start_at:", "    storage: file_storage\n    start_at:")
        .replace("none\n", "none\n    sending_queue: {storage: file_storage}\n");
    fs::write(&path, text).unwrap();
    let told = || {
        let started = output(&["--config", path.to_str().unwrap()]);
        assert_eq!(started.status.code(), Some(1));
        let said = text_of(&started);
        let key = "extensions::file_storage::directory: ";
        said.lines().find_map(|line| Some(line.split_once(key)?.1.to_owned())).expect(&said)
    };
    assert!(told().contains("make it, or set `create_directory: true`"), "{}", told());
    fs::write(&state, "").unwrap();
    assert!(told().contains("it is a file, expected a directory"), "{}", told());
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    let names = ["lock", "checkpoints", "checkpoints.synced", "journal.000004", "spool"];
    for name in names.into_iter().chain(["spool/000000000003.segment"]) {
        let odd = state.join(name);
        fs::create_dir_all(odd.parent().unwrap()).unwrap();
        let _made = fs::remove_dir_all(&odd);
        rustix::fs::mkfifoat(rustix::fs::CWD, &odd, rustix::fs::Mode::RWXU).unwrap();
        let said = told();
        assert!(said.starts_with(&format!("{}: ", odd.display())), "{name}: {said}");
        assert!(said.contains("it is a FIFO, expected a "), "{name}: {said}");
        fs::remove_file(&odd).unwrap();
        if name != "spool" {
            fs::create_dir(&odd).unwrap();
            let said = told();
            assert!(said.starts_with(&format!("{}: ", odd.display())), "{name}: {said}");
            assert!(said.contains("it is a directory, expected a regular file"), "{name}: {said}");
            fs::remove_dir(&odd).unwrap();
        }
        let _gone = fs::remove_dir_all(state.join("spool"));
    }
}

/// Scenario: an agent without files, SIGHUP, then SIGTERM.
/// Guarantees: it serves health and metrics, ignores the first and drains at the second with 0.
#[test]
fn a_signal_drains() {
    let directory = TempDir::new().unwrap();
    let mut agent = Program::start(&configuration(directory.path()));
    let health = agent.line("listening for the health check");
    let metrics = agent.line("listening for Prometheus");
    agent.line("started");
    assert!(fetch(address(&health), "/").starts_with("HTTP/1.1 200 "));
    let page = fetch(address(&metrics), "/metrics");
    assert!(page.contains("otelcol_exporter_queue_capacity{"), "{page}");
    agent.signal(Signal::HUP);
    agent.line("SIGHUP is ignored");
    agent.signal(Signal::TERM);
    agent.line("everything read is settled");
    assert_eq!(agent.exit_code(), Some(0));
}

/// Scenario: an agent with nothing to read and no `storage`, whose limit of open files is less than the default
/// of `open_files_max`; a file comes.
/// Guarantees: it says where it sends, that nothing matches `include`, that positions are not kept, and then
/// what it found, each once; a limit that nobody set is no warning.
#[test]
fn a_start_says_what_it_reads() {
    let directory = TempDir::new().unwrap();
    let path = configuration(directory.path());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("shutdown_timeout: 1h", "scan_interval: 1s")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 2000; exec \"$@\"", "sh"]).arg(program().get_program());
    let mut agent = Program::spawn(command.arg("--config").arg(&path));
    let limit = agent.line("the system allows fewer open files");
    assert!(limit.contains(" INFO ") && limit.contains("limit=2000"), "{limit}");
    let started = agent.line("started");
    assert!(started.contains("exporter=\"otlp\" endpoint=\"http://127.0.0.1:1\""), "{started}");
    let storage = agent.line("without `storage` on its receivers");
    assert!(storage.contains(" INFO "), "{storage}");
    let nothing = agent.line("no file matches `include` yet");
    assert!(nothing.contains(" WARN ") && nothing.contains("receiver=file_log"), "{nothing}");
    fs::write(directory.path().join("a.log"), "one\n").unwrap();
    let found = agent.line("found log files");
    assert!(found.contains("receiver=file_log files=1 directories=1 positions=0"), "{found}");
    let said = agent.log();
    let times = |part: &str| said.iter().filter(|line| line.contains(part)).count();
    assert_eq!((times("no file matches"), times("found log files")), (1, 1), "{said:?}");
    let is_warning = |line: &String| line.contains(" WARN ") && line.contains("open files");
    assert!(!said.iter().any(is_warning), "{said:?}");
}

/// Scenario: an agent with records that its sink doesn't take, and two signals.
/// Guarantees: the second one ends it at once, with the exit code that shells expect.
#[test]
fn a_second_signal_ends_at_once() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("a.log"), "one\ntwo\n").unwrap();
    let mut agent = Program::start(&configuration(directory.path()));
    wait_for_unsettled_records(&mut agent, 2);
    agent.signal(Signal::INT);
    agent.line("a second signal stops at once");
    agent.signal(Signal::TERM);
    assert_eq!(agent.exit_code(), Some(143));
}

/// Scenario: an agent with records that its sink doesn't take, and a short deadline to drain.
/// Guarantees: it ends by itself with 0, and says how many records it leaves behind.
#[test]
fn a_deadline_ends_the_drain() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("a.log"), "one\ntwo\n").unwrap();
    let path = configuration(directory.path());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("shutdown_timeout: 1h", "shutdown_timeout: 200ms")).unwrap();
    let mut agent = Program::start(&path);
    wait_for_unsettled_records(&mut agent, 2);
    agent.signal(Signal::TERM);
    let line = agent.line("without `storage` the next start knows nothing of it");
    assert!(line.contains("requests=1 records=2"), "{line}");
    assert_eq!(agent.exit_code(), Some(0));
}

/// Scenario: row 49. As before, and the file is removed once its records have been read.
/// Guarantees: the last line of the log says that they are lost, and how much that is.
#[test]
fn a_stop_says_what_is_lost() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("a.log");
    fs::write(&log, "one\ntwo\n").unwrap();
    let path = configuration(directory.path());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("shutdown_timeout: 1h", "shutdown_timeout: 200ms")).unwrap();
    let mut agent = Program::start(&path);
    wait_for_unsettled_records(&mut agent, 2);
    fs::remove_file(log).unwrap();
    agent.signal(Signal::TERM);
    let line = agent.line("what deleted files still held is lost");
    assert!(line.contains("records=2") && line.contains("lost_bytes=8"), "{line}");
    assert_eq!(agent.exit_code(), Some(0));
}

/// Scenario: the address of the health check is taken, and there are lines to read and a sink that
/// takes them.
/// Guarantees: the agent ends with 1 and says file, line, key, address and why, and the sink got
/// nothing: a restart after the other would send it all again.
#[test]
fn a_taken_address_stops_the_start_before_anything_is_sent() {
    let node = Node::new();
    fs::write(node.container("pod").join("0.log"), cri("one")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = taken.local_addr().unwrap().to_string();
    let path = Setup::default().write(&node);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("endpoint: 127.0.0.1:0", &format!("endpoint: {endpoint}"), 1))
        .unwrap();
    let mut agent = Program::start(&path);
    agent.line(&format!(
        "agent.yaml:2: extensions::health_check::endpoint: can't listen on {endpoint} for the \
         health check: "
    ));
    assert_eq!(agent.exit_code(), Some(1));
    assert_eq!(node.take_records(), []);
    assert!(!node.path("state").exists());
}

/// Scenario: failure mode 61: stderr is a pipe that is full and that nobody reads, while the agent
/// is started, reads new files and is told to stop.
/// Guarantees: lines arrive and it ends with 0: its own log waits for nobody.
#[test]
fn a_stderr_that_nobody_reads_stops_neither_reading_nor_the_end() {
    let node = Node::new();
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[b'x'; 4096]).is_ok() {}
    while rustix::io::write(&writer, b"x").is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    let path = Setup::default().write(&node);
    let verbose = fs::read_to_string(&path)
        .unwrap()
        .replace("telemetry: {", "telemetry: {logs: {level: debug}, ");
    fs::write(&path, verbose).unwrap();
    let mut child = program().arg("--config").arg(&path).stderr(writer).spawn().unwrap();
    for pod in ["a", "b", "c"] {
        fs::write(node.container(pod).join("0.log"), cri(pod)).unwrap();
        // What can't be followed is said, by the thread that finds files.
        std::os::unix::fs::symlink("/nowhere", node.container(pod).join("1.log")).unwrap();
        node.wait_records(1);
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let mut status = None;
    wait_until("the agent ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}

/// Scenario: an init container prepares a state directory twice, then one that is a file.
/// Guarantees: 0 and a line that says what was done; otherwise 1 and what is wrong with which path.
#[test]
fn a_state_directory_is_prepared() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("state");
    let owner = [
        rustix::process::geteuid().as_raw().to_string(),
        rustix::process::getegid().as_raw().to_string(),
    ];
    let prepare = |path: &Path| {
        let path = path.to_str().unwrap();
        output(&["prepare-state", "--directory", path, "--uid", &owner[0], "--gid", &owner[1]])
    };
    for done in ["was handed over", "is as it should be"] {
        let ended = prepare(&directory);
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        assert!(text(&ended.stdout).contains(done), "{}", text(&ended.stdout));
    }
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let ended = prepare(&file);
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).contains("file: is no directory"), "{}", text(&ended.stderr));
}
