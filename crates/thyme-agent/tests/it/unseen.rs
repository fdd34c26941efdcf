//! Starts at which something can't be seen that was read before: what was not seen is not gone.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nop_collector::Fault;
use thyme_agent::metrics::LossReason;

use crate::{
    node::{Node, append, cri, wait_until},
    program::{Program, Setup, write_config},
    shortage::without_privileges,
};

/// A configuration with one more root, whose file shows how far discovery has come.
fn with_marker(node: &Node, yaml: &str) -> String {
    fs::create_dir_all(node.path("marker")).unwrap();
    let pods = format!("include: [{}/*/*/*.log", node.path("pods").display());
    assert!(yaml.contains(&pods));
    yaml.replace(&pods, &format!("{pods}, {}/*.log", node.path("marker").display()))
}

/// Adds a line to the marker and waits for it, and for nothing else.
fn mark(node: &Node, text: &str) {
    append(&node.path("marker/m.log"), cri(text));
    let records = node.wait_records(1);
    assert_eq!(records.iter().map(|one| one.text()).collect::<Vec<_>>(), [text]);
}

/// Three pods of ten lines each.
fn pods(node: &Node) -> Vec<PathBuf> {
    let pods: Vec<_> = ["a", "b", "c"].iter().map(|pod| node.container(pod)).collect();
    for pod in &pods {
        append(&pod.join("0.log"), (0..10).map(|line| cri(&line.to_string())).collect::<String>());
    }
    pods
}

/// Scenario: row 40. The agent starts while the root of its pattern is missing, then while it is there
/// and empty, then with an `include` that leaves the files out; each time it ends and starts again
/// with all as it was.
/// Guarantees: reading goes on where it was; nothing comes twice, and nothing counts as lost.
#[test]
fn what_is_missing_at_a_start_is_not_gone() {
    let node = Node::new();
    let all = with_marker(&node, &node.yaml("compression: zstd", "workers: 1"));
    let narrow = all.replace("/*/*/*.log", "/*/other/*.log");
    let pods = pods(&node);
    let agent = node.start_yaml(&all);
    node.wait_records(30);
    mark(&node, "begun");
    agent.stop();
    let (root, aside) = (node.path("pods"), node.path("aside"));
    for round in ["missing", "empty", "narrow"] {
        if round != "narrow" {
            fs::rename(&root, &aside).unwrap();
        }
        if round == "empty" {
            fs::create_dir(&root).unwrap();
        }
        let agent = node.start_yaml(if round == "narrow" { &narrow } else { &all });
        mark(&node, round);
        let (_, metrics) = agent.stop();
        assert_eq!(metrics.lost_files.get(), 0, "{round}");
        if round == "empty" {
            fs::remove_dir(&root).unwrap();
        }
        if round != "narrow" {
            fs::rename(&aside, &root).unwrap();
        }
        for pod in &pods {
            append(&pod.join("0.log"), cri(round));
        }
        let agent = node.start_yaml(&all);
        let records = node.wait_records(3);
        assert!(records.iter().all(|one| one.text() == round), "{round}: {records:?}");
        mark(&node, "again");
        agent.stop();
    }
}

/// Scenario: row 40. The root appears only while the agent runs, with files that an earlier life of
/// it has read.
/// Guarantees: they are resumed.
#[test]
fn a_root_that_comes_late_is_resumed() {
    let node = Node::new();
    let yaml = with_marker(&node, &node.yaml("compression: zstd", "workers: 1"));
    let pods = pods(&node);
    let agent = node.start_yaml(&yaml);
    node.wait_records(30);
    agent.stop();
    fs::rename(node.path("pods"), node.path("aside")).unwrap();
    let agent = node.start_yaml(&yaml);
    mark(&node, "begun");
    append(
        &node.path("aside").join(pods[0].strip_prefix(node.path("pods")).unwrap()).join("0.log"),
        cri("late"),
    );
    fs::rename(node.path("aside"), node.path("pods")).unwrap();
    assert_eq!(node.wait_records(1)[0].text(), "late");
    mark(&node, "ended");
    agent.stop();
}

/// Scenario: row 40. At a start the agent's user may not read one pod's directory, nor another's
/// file, nor, the next time, the root; then it may again, while the agent runs or at its next start.
/// Guarantees: it says so once for each, and goes on where it was; nothing comes twice.
#[test]
fn what_may_not_be_read_for_a_while_is_resumed() {
    let node = Node::new();
    let pods = pods(&node);
    let config = Setup::default().write(&node);
    let yaml = with_marker(&node, &fs::read_to_string(&config).unwrap());
    fs::write(&config, yaml.replace("scan_interval: 1s", "scan_interval: 100ms")).unwrap();
    let may = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let start = || Program::spawn(without_privileges(&node).arg("--config").arg(&config));
    let agent = start();
    node.wait_records(30);
    mark(&node, "begun");
    agent.stop();
    for (round, closed) in
        [("pods", vec![pods[0].clone(), pods[1].join("0.log")]), ("root", vec![node.path("pods")])]
    {
        let modes: Vec<_> =
            closed.iter().map(|path| fs::metadata(path).unwrap().permissions().mode()).collect();
        closed.iter().for_each(|path| may(path, 0o000));
        let mut agent = start();
        mark(&node, round);
        agent.line("cannot");
        let errors = agent.metric("thyme_files_errors");
        wait_until("many scans find it closed", || {
            agent.metric("thyme_files_errors") > errors + 20
        });
        let said = agent.log().iter().filter(|line| line.contains("cannot ")).count();
        assert!(said <= closed.len(), "{said} lines: {:#?}", agent.log());
        if round == "root" {
            agent.stop();
            closed.iter().zip(&modes).for_each(|(path, mode)| may(path, *mode));
            agent = start();
        } else {
            closed.iter().zip(&modes).for_each(|(path, mode)| may(path, *mode));
        }
        for pod in &pods {
            append(&pod.join("0.log"), cri(round));
        }
        let records = node.wait_records(3);
        assert!(records.iter().all(|one| one.text() == round), "{round}: {records:?}");
        mark(&node, "ended");
        assert_eq!(agent.metric("thyme_files_lost"), 0);
        agent.stop();
    }
}

/// Scenario: rows 40 and 48. Pods are deleted while no agent runs: two of them with lines that the sink
/// had not taken, one read to its end.
/// Guarantees: files that are known to have held more are counted, once, with their bytes; the
/// checkpoints of all of them are forgotten.
#[test]
fn pods_that_were_deleted_meanwhile_are_counted_and_forgotten() {
    let node = Node::new();
    let pods = pods(&node);
    let ended = node.container("ended");
    append(&ended.join("0.log"), cri("all of it"));
    let agent = node.start_with("compression: zstd", "shutdown_timeout: 200ms");
    node.wait_records(31);
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    let more = cri("more than was taken");
    for pod in &pods[..2] {
        append(&pod.join("0.log"), &more);
    }
    wait_until("it was read", || agent.metrics.queued_request.get().0 == 2);
    agent.stop();
    node.collector.faults().clear();
    for pod in pods[..2].iter().chain([&ended]) {
        fs::remove_dir_all(pod.parent().unwrap()).unwrap();
    }
    // The first agent's exporter lives on in this process, and may deliver what it had.
    let agent = node.start();
    wait_until("the loss is counted", || agent.metrics.lost_files.get() == 2);
    let lost = agent.metrics.lost(LossReason::NoAgent).get();
    assert_eq!(lost, 2 * more.len() as u64);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 2);
    let agent = node.start();
    append(&pods[2].join("0.log"), cri("more"));
    wait_until("it comes", || node.take_records().iter().any(|one| one.text() == "more"));
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    let state: Vec<u8> = fs::read_dir(node.path("state"))
        .unwrap()
        .filter_map(|file| fs::read(file.unwrap().path()).ok())
        .flatten()
        .collect();
    let state = String::from_utf8_lossy(&state);
    assert!(state.contains("ns_c_"), "{state}");
    let last = state.rsplit("thyme-checkpoints").next().unwrap();
    assert!(!last.contains("ns_a_") && !last.contains("ns_ended_"), "{last}");
}

/// Whether the state directory says this of any file.
pub(crate) fn state_says(node: &Node, what: &str) -> bool {
    let state = fs::read_dir(node.path("state")).unwrap();
    let texts = state.filter_map(|one| fs::read(one.unwrap().path()).ok());
    texts.into_iter().any(|text| String::from_utf8_lossy(&text).contains(what))
}

/// Scenario: row 48. The sink refuses everything. A file grows and is read, nothing of that is acknowledged;
/// the agent is killed, and the file deleted before the next start.
/// Guarantees: what was read of it counts as lost, to the byte.
#[test]
fn growth_that_was_never_acknowledged_is_counted_when_its_file_is_gone() {
    let node = Node::new();
    let live = node.container("a").join("0.log");
    let config = write_config(&node, &node.yaml("compression: zstd", "workers: 1"));
    append(&live, cri("settled"));
    let agent = Program::start(&config);
    node.wait_records(1);
    let settled = fs::metadata(&live).unwrap().len();
    wait_until("it is settled", || state_says(&node, &format!("\"offset\":{settled},")));
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    append(&live, cri(&"x".repeat(12_345)));
    let length = fs::metadata(&live).unwrap().len();
    wait_until("its length is known", || state_says(&node, &format!("\"length\":{length}")));
    agent.kill();
    fs::remove_file(&live).unwrap();
    node.collector.faults().clear();
    let agent = node.start();
    wait_until("it is counted", || agent.metrics.lost_files.get() == 1);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost(LossReason::NoAgent).get(), length - settled);
}

/// Scenario: rows 40 and 68. The sink refuses everything, and four files grow; the agent is killed. Before the next
/// start the directory of one is moved, one is moved to another directory while a new file takes its name, of
/// one that has a second name elsewhere the first is removed, and one is deleted.
/// Guarantees: all lines of the first three come, and only the deleted one counts as lost, to the byte.
#[test]
fn what_was_moved_to_another_directory_meanwhile_is_not_lost() {
    let node = Node::new();
    let config = write_config(&node, &node.yaml("compression: zstd", "workers: 1"));
    let directories = ["whole", "single", "linked", "deleted"].map(|pod| node.container(pod));
    let lives = directories.clone().map(|directory| directory.join("0.log"));
    let length = |path: &Path| fs::metadata(path).unwrap().len();
    for (number, live) in lives.iter().enumerate() {
        append(live, cri(&"x".repeat(100 + number)));
    }
    let agent = Program::start(&config);
    node.wait_records(4);
    let settled = lives.clone().map(|live| length(&live));
    for settled in &settled {
        wait_until("it is settled", || state_says(&node, &format!("\"offset\":{settled},")));
    }
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    for (number, live) in lives.iter().enumerate() {
        append(live, cri(&format!("unread {number} {}", "y".repeat(1_000 + number))));
        let length = length(live);
        wait_until("its length is known", || state_says(&node, &format!("\"length\":{length}")));
    }
    agent.kill();
    let lost = length(&lives[3]) - settled[3];
    let others = ["whole-2", "single-2", "linked-2"].map(|pod| node.container(pod));
    fs::rename(&directories[0], &others[0]).unwrap();
    fs::rename(&lives[1], others[1].join("0.log")).unwrap();
    append(&lives[1], cri("new"));
    fs::hard_link(&lives[2], others[2].join("0.log")).unwrap();
    fs::remove_file(&lives[2]).unwrap();
    fs::remove_file(&lives[3]).unwrap();
    node.collector.faults().clear();
    let agent = node.start();
    let mut texts = Vec::new();
    wait_until("all lines that are there come", || {
        texts.extend(node.take_records().iter().map(|one| one.text()));
        let unread = (0..3).map(|number| format!("unread {number} "));
        unread.chain(["new".to_owned()]).all(|text| texts.iter().any(|one| one.starts_with(&text)))
    });
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 1);
    assert_eq!(metrics.lost(LossReason::NoAgent).get(), lost);
}
