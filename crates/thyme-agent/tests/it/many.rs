//! More files than may be open.

use std::{collections::BTreeMap, fs, path::PathBuf};

use nop_collector::Fault;
use thyme_agent::metrics::LossReason;

use crate::node::{Node, append, compress, cri, rotate, wait_until};

/// The fewest that can be configured.
const OPEN_FILES_MAX: u64 = 16;

const PODS: usize = 40;

fn pods(node: &Node) -> Vec<PathBuf> {
    (0..PODS).map(|pod| node.container(&format!("p{pod}"))).collect()
}

/// Waits for one record of each pod with this text, and for nothing else.
fn expect_from_all(node: &Node, pods: &[PathBuf], text: &str) {
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for record in node.wait_records(pods.len()) {
        assert_eq!(record.text(), text);
        *found.entry(record.attributes["log.file.path"].clone()).or_default() += 1;
    }
    assert_eq!(found.len(), pods.len());
    assert!(found.values().all(|count| *count == 1), "{found:?}");
}

/// Scenario: row 39. 40 containers, of which 16 files may be open; all have a line, then all get
/// another one; all are rotated, and half of the archives compressed, while no descriptor of most of
/// them is held; then the agent starts again.
/// Guarantees: all have their turn; each line comes once, never more files are open than may be, and
/// nothing counts as lost.
#[test]
fn more_files_than_may_be_open_have_their_turn() {
    let node = Node::new();
    let pods = pods(&node);
    let all = |text: &str| pods.iter().for_each(|pod| append(&pod.join("0.log"), cri(text)));
    all("first");
    let limit = format!("open_files_max: {OPEN_FILES_MAX}");
    let agent = node.start_with("compression: zstd", &limit);
    expect_from_all(&node, &pods, "first");
    assert!(agent.metrics.open_files.get() <= OPEN_FILES_MAX);
    all("second");
    expect_from_all(&node, &pods, "second");
    wait_until("all are settled", || agent.metrics.queued_request.get() == (0, 0));
    for (number, pod) in pods.iter().enumerate() {
        append(&pod.join("0.log"), cri("third"));
        let rotated = rotate(pod, "20260101-000000");
        if number % 2 == 0 {
            compress(&rotated);
        }
    }
    expect_from_all(&node, &pods, "third");
    all("fourth");
    expect_from_all(&node, &pods, "fourth");
    assert!(agent.metrics.open_files.get() <= OPEN_FILES_MAX);
    wait_until("no file waits", || agent.metrics.unopened_files.get() == 0);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert_eq!(metrics.open_files.get(), 0);
    let agent = node.start_with("compression: zstd", &limit);
    all("fifth");
    expect_from_all(&node, &pods, "fifth");
    agent.stop();
    assert!(node.take_records().is_empty(), "something came twice");
}

/// Scenario: row 39. The sink refuses everything, so that no file that is open can be given up; of the
/// others, three are deleted.
/// Guarantees: these are counted, with their bytes and the reason; the rest comes when the sink is
/// back.
#[test]
fn files_that_are_deleted_before_they_could_be_opened_are_counted() {
    let node = Node::new();
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    let pods = pods(&node);
    let line = cri("line");
    pods.iter().for_each(|pod| append(&pod.join("0.log"), &line));
    let agent = node.start_with("compression: zstd", &format!("open_files_max: {OPEN_FILES_MAX}"));
    // An eighth is kept for files that are to be read on.
    let waiting = PODS as u64 - OPEN_FILES_MAX * 7 / 8;
    wait_until("the others wait", || agent.metrics.unopened_files.get() == waiting);
    let is_open = |pod: &&PathBuf| {
        let live = fs::canonicalize(pod.join("0.log")).unwrap();
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let mut open = descriptors.filter_map(|one| fs::read_link(one.unwrap().path()).ok());
        open.any(|link| link == live)
    };
    let unopened: Vec<_> = pods.iter().filter(|pod| !is_open(pod)).take(3).collect();
    unopened.iter().for_each(|pod| fs::remove_dir_all(pod.parent().unwrap()).unwrap());
    wait_until("they are counted", || agent.metrics.lost_files.get() == 3);
    assert_eq!(agent.metrics.lost(LossReason::NotOpened).get(), 3 * line.len() as u64);
    node.collector.faults().clear();
    node.wait_records(PODS - 3);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 3);
    assert!(node.take_records().is_empty(), "something came twice");
}
