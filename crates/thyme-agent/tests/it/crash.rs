//! The real binary dies, at every named point and around its end by signals; its next lives must
//! bring every line of the manifest.

use std::{
    os::unix::process::ExitStatusExt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use nop_collector::Fault;
use rustix::process::Signal;
use thyme_agent::{failpoint::POINTS, metrics::LossReason};

use crate::{
    node::{Node, append, cri, wait_until},
    program::{Program, Setup, skipped},
    stage::Stage,
};

/// Points that are tried at the same time.
const THREADS: usize = 4;

/// How often the sink may go away before a point is passed, and for how many attempts it does.
const OUTAGES_MAX: u32 = 10;
const ATTEMPTS_AWAY: u64 = 40;

/// Lives that may find too few files.
const LIVES_MAX: usize = 20;

/// Requests of each life that the sink takes and forgets.
const STALLED: usize = 4;

/// Whether a point is passed only after SIGTERM.
fn is_of_drain(point: &str) -> bool {
    point.starts_with("drain_") || matches!(point, "workers_ended" | "spool_ended")
}

/// Whether a point is passed only while the spool is in use.
fn is_of_spool(point: &str) -> bool {
    let is_passed_always = point == "spool_ended";
    let is_the_workers = matches!(point, "batch_sent_to_spool" | "request_copied");
    is_the_workers || (point.starts_with("spool_") && !is_passed_always)
}

/// How often a point is passed before the process dies there. Some are passed once in a life or
/// once a second.
fn counts(point: &str) -> &'static [u32] {
    match point {
        "spool_recovered" => &[1, 1],
        _ if is_of_drain(point) => &[1],
        "file_resumed" => &[1, 2],
        "journal_synced" => &[1, 2],
        // At the start; the next snapshot comes when the journal is old or long, or at the end.
        "journal_removed" | "journal_created" => &[1, 1],
        _ if point.starts_with("checkpoint_") || point.starts_with("link_") => &[1, 1],
        _ if is_of_spool(point) => &[1, 1, 1],
        _ => &[1, 4, 15],
    }
}

/// A life that leaves requests in the spool.
fn leave_spooled(stage: &Stage) {
    let mut agent = Program::start(&stage.config);
    stage.wait("the spool is used", &mut agent, |_| stage.has_spooled());
    agent.kill();
}

/// The sink goes away and comes back until the agent has ended.
fn go_and_come(stage: &Stage, agent: &mut Program) {
    let faults = stage.node.collector.faults();
    for _ in 0..OUTAGES_MAX {
        // The spool is drained, and the kubelet deletes what has arrived.
        let wanted = stage.deleted() + 2;
        stage.wait("archives are deleted, or it ends", agent, |agent| {
            agent.has_ended() || stage.deleted() >= wanted
        });
        // Nothing arrives: archives with requests under way come to be at risk.
        let wanted = faults.applied() + ATTEMPTS_AWAY;
        faults.always(Fault::Stall);
        stage.wait("attempts fail, or it ends", agent, |agent| {
            agent.has_ended() || faults.applied() >= wanted
        });
        faults.clear();
        if agent.has_ended() {
            return;
        }
    }
}

/// Lives until one meets the point: how many files of its checkpoints a life finds again is chance, since those that
/// were empty are begun anew, and those that have arrived may be deleted.
fn live_again(stage: &Stage, mut agent: Program, armed: &str) -> Program {
    for _ in 0..LIVES_MAX {
        let wanted = stage.received() + 500;
        stage.wait("it ends, or has found all files", &mut agent, |agent| {
            agent.has_ended() || stage.received() >= wanted
        });
        if agent.has_ended() {
            break;
        }
        agent.stop();
        agent = Program::start_armed(&stage.config, armed);
    }
    agent
}

/// Lives of one agent that end at one point, one after the other.
fn die_at(point: &str, grpc: bool) {
    let exporter = "timeout: 400ms\n    sending_queue: {storage: file_storage}";
    let thyme = "workers: 1, container_log_max_files: 5";
    let stage = Stage::new(2, &Setup { grpc, exporter, thyme });
    // So that the next life finds a checkpoint of each container's live file.
    let mut agent = Program::start(&stage.config);
    stage.wait_for_more(500, &mut agent);
    agent.stop();
    let faults = stage.node.collector.faults();
    for count in counts(point) {
        let armed = format!("{point}:{count}");
        // These requests fail by their time-out, while later ones succeed and checkpoints are
        // written: what is read, sent and acknowledged lies far apart when the end comes.
        faults.next(STALLED, Fault::Stall);
        if is_of_spool(point) {
            faults.always(Fault::Stall);
            stage.wait_for_archives_at_risk();
            if point != "batch_sent_to_spool" {
                leave_spooled(&stage);
                faults.clear();
            }
        }
        let mut agent = Program::start_armed(&stage.config, &armed);
        if is_of_drain(point) {
            stage.wait_for_more(500, &mut agent);
            agent.signal(Signal::TERM);
        } else if is_of_spool(point) {
            go_and_come(&stage, &mut agent);
        } else if point == "file_resumed" {
            agent = live_again(&stage, agent, &armed);
        }
        let status = agent.status();
        assert_eq!(status.signal(), Some(9), "{armed}: {status} {:#?}", agent.log());
    }
    let last = Program::start(&stage.config);
    stage.end(last);
}

/// Scenario: rows 1, 2, 4, 8, 15, 16 and 17. For each named point, in turn with gRPC and HTTP: the
/// process is killed there under load, several times after another number of passings, while files
/// are rotated, compressed and deleted, lines in fragments among them; for those of the spool, while
/// the sink comes and goes. Then it lives on.
/// Guarantees: every point was met, and every line of the manifest arrived, in one piece.
#[test]
fn a_kill_at_any_named_point_loses_nothing() {
    if !cfg!(debug_assertions) {
        skipped("a_kill_at_any_named_point_loses_nothing", "release builds have no points");
        return;
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((number, point)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    POINTS.get(number).map(|point| (number, point))
                } {
                    die_at(point, number % 2 == 0);
                }
            });
        }
    });
}

/// Whether a file of the state knows a log file of this length.
fn is_length_known(node: &Node, bytes: usize) -> bool {
    let known = format!("\"length\":{bytes}");
    let state = std::fs::read_dir(node.path("state")).into_iter().flatten().flatten();
    state
        .filter_map(|entry| std::fs::read(entry.path()).ok())
        .any(|file| file.windows(known.len()).any(|window| window == known.as_bytes()))
}

/// Scenario: row 48. The sink does not answer, so that no request may be made any more. A file that had been
/// read to its end grows meanwhile; the agent is killed, and the file's directory is removed.
/// Guarantees: the state knows how long it was: the next start counts what was in it, and that alone.
#[test]
fn what_files_grow_by_while_nothing_is_read_is_counted() {
    let node = Node::new();
    let config = Setup { exporter: "compression: none", ..Setup::default() }.write(&node);
    let (container, other) = (node.container("a"), node.container("b"));
    append(&container.join("0.log"), cri("one"));
    let mut agent = Program::start(&config);
    node.wait_records(1);
    node.collector.faults().always(Fault::Stall);
    // More than may be in flight.
    let many: String = (0..30_000).map(|number| cri(&format!("{number:1000}"))).collect();
    append(&other.join("0.log"), &many);
    wait_until("nothing more is read", || {
        let read = |agent: &mut Program| agent.metric("thyme_conservation_read_records");
        let before = read(&mut agent);
        std::thread::sleep(Duration::from_millis(200));
        before > 1 && read(&mut agent) == before
    });
    let more: String = (0..50).map(|number| cri(&format!("more {number}"))).collect();
    append(&container.join("0.log"), &more);
    let length = cri("one").len() + more.len();
    wait_until("the state knows of it", || is_length_known(&node, length));
    agent.kill();
    std::fs::remove_dir_all(container.parent().unwrap()).unwrap();
    node.collector.faults().clear();
    let agent = node.start_yaml(&std::fs::read_to_string(config).unwrap());
    wait_until("it is counted", || agent.metrics.lost_files.get() > 0);
    wait_until("the rest has come", || agent.metrics.acknowledged.get().0 >= 30_000);
    let (_, metrics) = agent.stop();
    let lost = metrics.lost(LossReason::NoAgent).get();
    assert_eq!((metrics.lost_files.get(), lost), (1, more.len() as u64));
}

/// Scenario: row 48. The sink does not answer, and a file of which a checkpoint knows the length is removed
/// with its directory: what of it is under way is copied to the spool. The agent is killed when that is
/// synced, before a checkpoint says so.
/// Guarantees: the next life sends every line from the spool, once, and counts none of them as lost.
#[test]
fn what_the_spool_has_is_not_counted_as_lost() {
    const LINES: u32 = 50;
    if !cfg!(debug_assertions) {
        skipped("what_the_spool_has_is_not_counted_as_lost", "release builds have no points");
        return;
    }
    let node = Node::new();
    let exporter = "sending_queue: {storage: file_storage}";
    let config = Setup { exporter, ..Setup::default() }.write(&node);
    // A root without an entry would show nothing as gone.
    let (container, _other) = (node.container("a"), node.container("b"));
    let lines: String = (0..LINES).map(|number| cri(&format!("line {number}"))).collect();
    append(&container.join("0.log"), &lines);
    node.collector.faults().always(Fault::Stall);
    let mut agent = Program::start_armed(&config, "spool_told:1");
    wait_until("a checkpoint knows the length", || is_length_known(&node, lines.len()));
    wait_until("the lines are under way", || node.collector.faults().applied() > 0);
    std::fs::remove_dir_all(container.parent().unwrap()).unwrap();
    assert_eq!(agent.status().signal(), Some(9));
    node.collector.faults().clear();
    let agent = node.start_yaml(&std::fs::read_to_string(config).unwrap());
    wait_until("the spool is drained", || agent.metrics.acknowledged.get().0 >= i64::from(LINES));
    let (_, metrics) = agent.stop();
    let lost: u64 = metrics.lost_bytes.iter().map(|bytes| bytes.get()).sum();
    assert_eq!((metrics.lost_files.get(), lost), (0, 0));
    let state = std::fs::read_to_string(node.path("state/checkpoints")).unwrap();
    assert!(!state.contains("ns_a_"), "the file was not found to be gone: {state}");
    assert_eq!(node.take_records().len(), LINES as usize);
}

/// Scenario: row 29. SIGTERM under load, again and again, with a sink that answers.
/// Guarantees: each life ends within its time with exit code 0, no line is lost, and none comes
/// twice.
#[test]
fn an_orderly_end_under_load_repeats_nothing() {
    let stage = Stage::new(2, &Setup { grpc: true, ..Setup::default() });
    for _ in 0..5 {
        let mut agent = Program::start(&stage.config);
        stage.wait_for_more(1000, &mut agent);
        let log = agent.stop();
        assert!(log.iter().any(|line| line.contains("everything read is settled")), "{log:#?}");
    }
    let last = Program::start(&stage.config);
    let report = stage.end(last);
    assert_eq!((report.duplicated, report.unstamped), (0, 0));
}

/// Scenario: row 29. SIGTERM under load while the sink doesn't answer; when the grace period is
/// over, SIGKILL, as the kubelet does it. Then a drain that ends by its own deadline.
/// Guarantees: the next lives bring every line.
#[test]
fn a_kill_after_the_grace_period_loses_nothing() {
    for thyme in ["workers: 1, shutdown_timeout: 1h", "workers: 1, shutdown_timeout: 300ms"] {
        let exporter = "timeout: 1s";
        let stage = Stage::new(2, &Setup { exporter, thyme, ..Setup::default() });
        let mut agent = Program::start(&stage.config);
        stage.wait_for_more(500, &mut agent);
        stage.node.collector.faults().always(Fault::Stall);
        let stalled = stage.node.collector.faults().applied() + 1;
        let faults = stage.node.collector.faults();
        stage.wait("a request is stalled", &mut agent, |_| faults.applied() >= stalled);
        agent.signal(Signal::TERM);
        agent.line("a second signal stops at once");
        if thyme.ends_with("1h") {
            // The grace period; that the agent outlives it is what is looked at.
            std::thread::sleep(Duration::from_millis(500));
            agent.kill();
        } else {
            assert_eq!(agent.exit_code(), Some(0));
            agent.line("the next start reads the unsettled again");
        }
        stage.node.collector.faults().clear();
        let last = Program::start(&stage.config);
        stage.end(last);
    }
}
