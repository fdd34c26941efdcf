//! Starts at which something can't be seen that was read before: what was not seen is not gone.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    node::{Node, append, cri, wait_until},
    program::{Program, Setup},
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

/// Scenario: row 40. Pods are deleted while no agent runs, one of them read to its end and rotated,
/// with nothing in its live file.
/// Guarantees: files that may have held more are counted, once; their checkpoints are forgotten.
#[test]
fn pods_that_were_deleted_meanwhile_are_counted_and_forgotten() {
    let node = Node::new();
    let pods = pods(&node);
    let agent = node.start();
    node.wait_records(30);
    agent.stop();
    for pod in &pods[..2] {
        fs::remove_dir_all(pod.parent().unwrap()).unwrap();
    }
    let agent = node.start();
    wait_until("the loss is counted", || agent.metrics.lost_files.get() == 2);
    agent.stop();
    let agent = node.start();
    append(&pods[2].join("0.log"), cri("more"));
    assert_eq!(node.wait_records(1)[0].text(), "more");
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
    assert!(!last.contains("ns_a_"), "{last}");
}
