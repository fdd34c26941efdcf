//! What the program prints: no secret, and no line that somebody else wrote.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::symlink,
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    authority::Authority,
    node::{append, cri, wait_until},
};

/// The word that every secret holds here.
const MARKER: &str = "hunter2";

/// What a sink says that wants to be taken for the agent.
const FORGED: &str = "no\n2026-01-01T00:00:00Z ERROR thyme_agent: forged\r\x1b[2K";

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_thyme-agent"))
}

/// A sink that refuses each request in its own words, over HTTP/1.1. It lives as long as the test's
/// process.
fn rude_sink() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while matches!(stream.read(&mut request), Ok(1..)) {
                    let length = FORGED.len();
                    let head = format!("HTTP/1.1 403 No\r\ncontent-length: {length}\r\n\r\n");
                    stream.write_all((head + FORGED).as_bytes()).ok();
                }
            });
        }
    });
    address
}

/// A configuration with a secret wherever one may be.
fn yaml(directory: &std::path::Path, sink: SocketAddr, level: &str, encoding: &str) -> String {
    let authority = Authority::new();
    let (certificate, key) = authority.issue();
    let indented = |pem: &str| pem.trim().replace('\n', "\n        ");
    format!(
        "extensions:
  bearertokenauth: {{token: token-{MARKER}}}
receivers:
  filelog:
    include: ['{directory}/*.log']
    start_at: beginning
    operators: [{{type: container}}]
processors:
  batch: {{timeout: 10ms}}
exporters:
  otlp_http:
    endpoint: http://{sink}
    compression: none
    headers: {{x-key: header-{MARKER}}}
    auth: {{authenticator: bearertokenauth}}
    retry_on_failure: {{initial_interval: 10ms, max_interval: 20ms}}
    tls:
      ca_pem: |
        # {MARKER}
        {ca}
      cert_pem: |
        # {MARKER}
        {certificate}
      key_pem: |
        # {MARKER}
        {key}
service:
  extensions: [bearertokenauth]
  pipelines:
    logs: {{receivers: [filelog], processors: [batch], exporters: [otlp_http]}}
  telemetry:
    logs: {{level: {level}, encoding: {encoding}}}
    metrics:
      readers:
        - pull: {{exporter: {{prometheus: {{port: 0}}}}}}
        - periodic:
            interval: 50
            exporter:
              otlp:
                protocol: http/protobuf
                endpoint: http://{sink}/v1/metrics
                headers: {{x-key: reader-{MARKER}}}
",
        directory = directory.display(),
        ca = indented(&authority.pem),
        certificate = indented(&certificate),
        key = indented(&key),
    )
}

/// All that a process printed, and whether it went well.
fn printed(output: &Output) -> (String, bool) {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    (text, output.status.success())
}

/// Runs the program until it said `part`, and returns its whole log.
fn log_until(config: &std::path::Path, part: &str) -> String {
    let log = config.with_extension("err");
    let mut command = program();
    command.arg("--config").arg(config).stderr(fs::File::create(&log).unwrap());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    wait_until(part, || {
        let ended = child.try_wait().unwrap();
        let said = fs::read_to_string(&log).unwrap();
        assert!(ended.is_none(), "{said}");
        said.contains(part)
    });
    // A second signal ends it at once: this sink never takes anything.
    for _ in 0..2 {
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        wait_until("the signal is taken", || {
            child.try_wait().unwrap().is_some()
                || fs::read_to_string(&log).unwrap().contains("a second signal stops at once")
        });
    }
    child.wait().unwrap();
    fs::read_to_string(&log).unwrap()
}

/// Scenario: a configuration with a marker in every secret is validated, whole and broken, then
/// run with the most talkative log in both encodings, against a sink that refuses everything.
/// Guarantees: nothing that is printed holds the marker.
#[test]
fn the_program_prints_no_secret() {
    let sink = rude_sink();
    for encoding in ["console", "json"] {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("agent.yaml");
        let text = yaml(directory.path(), sink, "debug", encoding);
        fs::write(&config, &text).unwrap();
        let validate = || program().arg("validate").arg("--config").arg(&config).output().unwrap();
        assert_eq!(printed(&validate()), ("OK\n".to_owned(), true));
        for (from, to) in [
            ("token-", "\"\\n\" "),
            ("x-key: header-", "'x key': header-"),
            ("header-hunter2", "\"hunter2\\n\""),
            ("key_pem: |", "key_pem: '"),
            ("compression: none", "compression: 'none"),
        ] {
            assert!(text.contains(from), "{from}");
            fs::write(&config, text.replace(from, to)).unwrap();
            let (said, went_well) = printed(&validate());
            assert!(!went_well && !said.contains(MARKER), "{said}");
        }

        fs::write(&config, &text).unwrap();
        append(&directory.path().join("0.log"), cri("a line"));
        let log = log_until(&config, "refuses the credentials");
        assert!(!log.contains(MARKER) && !log.contains("PRIVATE KEY"), "{log}");
    }
}

/// Scenario: a symbolic link whose name holds a line of a log and a terminal's escapes lies among
/// the logs, and the sink refuses everything in words of the same kind.
/// Guarantees: both are in the agent's log, and each of its lines begins as the agent's do.
#[test]
fn names_and_words_cannot_forge_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("agent.yaml");
    fs::write(&config, yaml(directory.path(), rude_sink(), "info", "console")).unwrap();
    let name = "evil\n2026-01-01T00:00:00Z ERROR thyme_agent: forged\x1b[2K.log";
    symlink("/etc/hostname", directory.path().join(name)).unwrap();
    append(&directory.path().join("0.log"), cri("a line"));
    let log = log_until(&config, "refuses the credentials");
    assert!(log.contains("evil\\") && log.matches("forged").count() >= 2, "{log}");
    for line in log.lines() {
        assert!(!line.starts_with("2026-01-01"), "{line}");
        let (time, _) = line.split_once(' ').unwrap_or_default();
        assert!(time.ends_with('Z') && time.contains('T'), "{line}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}
