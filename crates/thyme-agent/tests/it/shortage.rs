//! What a node runs out of: disk, permissions, watches, memory. The real binary must go on, say
//! what is missing, and lose nothing.

use std::{
    fs::{self, File, Permissions},
    io::{BufWriter, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    sync::Arc,
    time::Instant,
};

use nop_collector::Fault;
use rustix::process::Signal;
use thyme_core::{
    manifest::ManifestLine,
    stamp::{STAMP_BYTES, Stamp},
};

use crate::{
    namespace::{Namespace, fill},
    node::{Node, append, cri, rotate, wait_until},
    program::{Program, Setup, program, skipped},
    stage::Stage,
};

/// An agent within a namespace.
fn start_in(namespace: &Namespace, config: &Path) -> Program {
    let mut command = namespace.command(Path::new(program().get_program()));
    Program::spawn(command.arg("--config").arg(config))
}

/// Scenario: row 19. The disk of the state directory is full before the first start; it gets room,
/// and is filled again under load; the agent is killed while it is full, and started again; then
/// there is room.
/// Guarantees: it always starts, delivers on while no checkpoint can be written, says so and stays
/// healthy; checkpoints go on as soon as there is room, so that an orderly end is repeated by
/// nothing; nothing is lost.
#[test]
fn a_full_disk_stops_checkpoints_only() {
    let stage = Stage::new(2, &Setup::default());
    let state = stage.node.path("state");
    let Some(namespace) =
        Namespace::with_small_disk("a_full_disk_stops_checkpoints_only", &state, 1)
    else {
        return;
    };
    let disk = namespace.path(&state);
    let filler = fill(&disk);
    let mut agent = start_in(&namespace, &stage.config);
    stage.wait_for_more(500, &mut agent);
    assert!(agent.metric("thyme_checkpoint_errors") > 0);
    agent.line("a checkpoint can't be written");
    assert!(agent.health().starts_with("HTTP/1.1 200 "));
    fs::remove_file(&filler).unwrap();
    stage.wait("a checkpoint is written", &mut agent, |agent| {
        agent.metric("thyme_checkpoint_writes") > 0
    });

    let filler = fill(&disk);
    let errors = agent.metric("thyme_checkpoint_errors");
    stage.wait("a checkpoint fails", &mut agent, |agent| {
        agent.metric("thyme_checkpoint_errors") > errors
    });
    stage.wait_for_more(500, &mut agent);
    agent.kill();
    let mut agent = start_in(&namespace, &stage.config);
    stage.wait_for_more(500, &mut agent);
    fs::remove_file(&filler).unwrap();
    let writes = agent.metric("thyme_checkpoint_writes");
    stage.wait("checkpoints are written again", &mut agent, |agent| {
        agent.metric("thyme_checkpoint_writes") > writes + 1
    });
    agent.stop();
    let duplicated = stage.node.collector.report().duplicated;
    let last = start_in(&namespace, &stage.config);
    assert_eq!(stage.end(last).duplicated, duplicated);
}

/// The program as the DaemonSet's user, who may not read all files; any other user may not either.
pub(crate) fn without_privileges(node: &Node) -> Command {
    if !rustix::process::geteuid().is_root() {
        return program();
    }
    // Neither the test's directory nor that of the build need be accessible to that user.
    let copy = node.path("thyme-agent");
    fs::copy(program().get_program(), &copy).unwrap();
    fs::set_permissions(node.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(node.path("state")).unwrap();
    std::os::unix::fs::chown(node.path("state"), Some(65_534), Some(0)).unwrap();
    let mut command = Command::new(copy);
    command.uid(65_534).gid(0);
    command
}

/// Scenario: the agent's user may not read a container's files, rotated one included, and the files
/// of another are made so while it runs; then all may be read by its group.
/// Guarantees: it says which files it can't open and counts them, reads what it may, and reads the
/// others from their start when it may.
#[test]
fn unreadable_files_are_said_and_read_later() {
    let node = Node::new();
    let may = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let (closed, open) = (node.container("closed"), node.container("open"));
    append(&closed.join("0.log"), cri("rotated"));
    let rotated = rotate(&closed, "20260101-000000");
    append(&closed.join("0.log"), cri("live"));
    append(&open.join("0.log"), cri("open"));
    for file in [&rotated, &closed.join("0.log")] {
        // Root's 0600, as seen by others; without root, one's own file that one may not read.
        may(file, if rustix::process::geteuid().is_root() { 0o600 } else { 0o000 });
    }
    let config = Setup::default().write(&node);
    let mut agent = Program::spawn(without_privileges(&node).arg("--config").arg(&config));
    assert_eq!(node.wait_records(1)[0].text(), "open");
    let line = agent.line("cannot open a log file");
    assert!(line.contains("closed") && line.contains("denied"), "{line}");
    let errors = agent.metric("thyme_files_errors");
    assert!(errors >= 2, "{errors}");
    for file in [&rotated, &closed.join("0.log")] {
        may(file, 0o640);
    }
    let texts: Vec<_> = node.wait_records(2).iter().map(|record| record.text()).collect();
    assert_eq!(texts, ["rotated", "live"]);
    agent.stop();
    assert!(node.take_records().is_empty());
}

/// Scenario: row 32. A user may have four watches, fewer than there are directories; then no
/// instance of inotify at all; under load and rotation.
/// Guarantees: it is said, scans find every file, nothing is lost, and the agent doesn't spin.
#[test]
fn without_watches_scans_find_everything() {
    const TEST: &str = "without_watches_scans_find_everything";
    for (limit, said) in [
        ("echo 4 > /proc/sys/user/max_inotify_watches", "no watch on a directory"),
        ("echo 0 > /proc/sys/user/max_inotify_instances", "no inotify instance: new files"),
    ] {
        let Some(namespace) = Namespace::of_user(TEST, limit) else { return };
        let stage = Stage::new(4, &Setup::default());
        let mut agent = start_in(&namespace, &stage.config);
        agent.line(said);
        stage.wait_for_more(2000, &mut agent);
        assert!(agent.health().starts_with("HTTP/1.1 200 "));
        let (start, used) = (Instant::now(), agent.cpu_time());
        stage.wait_for_more(2000, &mut agent);
        let share = (agent.cpu_time() - used).as_secs_f64() / start.elapsed().as_secs_f64();
        assert!(share < 0.8, "{share} of a processor for a few thousand lines");
        stage.end(agent);
    }
}

/// Scenario: row 32. The agent stands still while more happens in its directories than the kernel
/// remembers, pods that are new among it. There are no scans but those that an overflow asks for.
/// Guarantees: the overflow is counted, and the new pods are found and read.
#[test]
fn an_overflow_of_events_is_made_good() {
    let events_max = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let events_max: u32 = events_max.trim().parse().unwrap();
    if events_max > 200_000 {
        skipped("an_overflow_of_events_is_made_good", "this kernel remembers too many events");
        return;
    }
    let node = Node::new();
    let container = node.container("old");
    append(&container.join("0.log"), cri("old"));
    let config = Setup::default().write(&node);
    let yaml = fs::read_to_string(&config).unwrap();
    fs::write(&config, yaml.replace("scan_interval: 1s", "scan_interval: 1h")).unwrap();
    let mut agent = Program::start(&config);
    node.wait_records(1);
    agent.signal(Signal::STOP);
    wait_until("all threads stand still", || agent.is_stopped());
    // Two events each, the file is made, and removed: twice as many as are remembered.
    for _ in 0..events_max {
        let path = container.join("passing");
        File::create(&path).unwrap();
        fs::remove_file(path).unwrap();
    }
    for pod in 0..10 {
        append(&node.container(&format!("new-{pod}")).join("0.log"), cri("new"));
    }
    agent.signal(Signal::CONT);
    let records = node.wait_records(10);
    assert!(records.iter().all(|record| record.text() == "new"));
    assert!(agent.metric("thyme_watch_overflows") > 0);
    agent.stop();
}

/// Bytes of each file of the flood, and how many containers have one.
const FLOOD_BYTES: u64 = 24 << 20;
const FLOOD_FILES: u32 = 8;

/// The limit that the process gets for memory of its own, in KiB: less than the flood. (Its address
/// space says nothing: the allocator reserves 64 MiB of it for each thread.)
const DATA_KIB: u64 = 160 * 1024;

/// What it may use of it; its budgets add up to about 50 MiB.
const MEMORY_BYTES_MAX: u64 = 96 << 20;

/// The series of repeated attempts.
const RETRIES: &str = "thyme_exporter_send_retries{exporter=\"otlp_http\"}";

/// Fills a container's file with stamped lines of a kibibyte.
fn flood(node: &Node, pod: u32) -> ManifestLine {
    let file = File::create(node.container(&format!("flood-{pod}")).join("0.log")).unwrap();
    let mut file = BufWriter::new(file);
    let lines = FLOOD_BYTES / 1024;
    let mut bytes = 0;
    for sequence in 0..lines {
        let end = sequence + 1 == lines;
        let stamp = Stamp { run: 7, writer: pod, sequence, time_unix_nano: 1, end };
        let mut text = [0; STAMP_BYTES];
        stamp.write(&mut text);
        // Hard to compress, so that requests are as large in memory as their text.
        let mut noise = sequence.wrapping_add(u64::from(pod) << 32) | 1;
        let body: String = (0..60)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                format!("{noise:016x}")
            })
            .collect();
        let body = format!("{body} stamp={}", std::str::from_utf8(&text).unwrap());
        bytes += body.len() as u64;
        file.write_all(cri(&body).as_bytes()).unwrap();
    }
    file.flush().unwrap();
    let stream = "stdout".to_owned();
    ManifestLine {
        run: 7,
        writer: pod,
        stream,
        first: 0,
        last: lines - 1,
        lines,
        bytes,
        path: None,
    }
}

/// Scenario: row 21. A flood of log data, nearly as large as the memory that the process may have,
/// while the sink takes requests and never answers; then the sink is well again.
/// Guarantees: reading stops at the budget, memory stays below a third of the limit then and while
/// all is delivered, and nothing is lost.
#[test]
fn a_stalled_sink_under_a_flood_keeps_memory_bounded() {
    let node = Arc::new(Node::without_copies());
    let manifest: Vec<_> = (0..FLOOD_FILES).map(|pod| flood(&node, pod)).collect();
    let lines: u64 = manifest.iter().map(|line| line.lines).sum();
    node.collector.add_manifest(manifest).unwrap();
    node.collector.faults().always(Fault::Stall);
    let config = Setup { exporter: "timeout: 2s", ..Setup::default() }.write(&node);
    let limited = format!("ulimit -d {DATA_KIB}; exec \"$0\" --config \"$1\"");
    let mut command = Command::new("sh");
    let mut agent =
        Program::spawn(command.args(["-c", &limited]).arg(program().get_program()).arg(&config));
    // Attempts end, and begin again one at a time, while nothing more is read.
    let mut read = 0;
    let mut retries = 0;
    wait_until("reading stands still over many attempts", || {
        let now = agent.metric("thyme_conservation_read_records");
        if now != read {
            (read, retries) = (now, agent.metric(RETRIES));
        }
        read > 0 && agent.metric(RETRIES) >= retries + 3
    });
    assert!(read < lines / 2, "{read} of {lines} lines were read");
    let stalled = agent.memory_peak_bytes();
    assert!(stalled < MEMORY_BYTES_MAX, "{stalled} bytes");
    node.collector.faults().clear();
    wait_until("everything arrives", || node.collector.report().lost == Some(0));
    let delivered = agent.memory_peak_bytes();
    assert!(delivered < MEMORY_BYTES_MAX, "{delivered} bytes");
    agent.stop();
    assert_eq!(node.collector.report().received, lines);
}

/// Scenario: row 39. The limit of open files is 200, fewer than the agent keeps for itself.
/// Guarantees: it ends with 1 and says what the limit is and what it needs, instead of waiting for
/// descriptors that never come.
#[test]
fn a_limit_that_leaves_no_log_file_open_ends_the_start() {
    let node = Node::new();
    let config = Setup::default().write(&node);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 200; exec \"$@\"", "sh"]).arg(program().get_program());
    let mut agent = Program::spawn(command.arg("--config").arg(&config));
    let line = agent.line("the limit of open files is 200");
    assert!(line.contains("256"), "{line}");
    assert_eq!(agent.exit_code(), Some(1));
}
