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

/// Scenario: row 39. All files are read, and most of them closed for want of descriptors. Then the sink
/// refuses everything, so that no file that is open can be given up, and each file gets another line.
/// Guarantees: all that wait to be read on are shown to wait, until they are read.
#[test]
fn files_that_wait_to_be_opened_again_are_shown() {
    let node = Node::new();
    let pods = pods(&node);
    let all = |text: &str| pods.iter().for_each(|pod| append(&pod.join("0.log"), cri(text)));
    all("first");
    let agent = node.start_with("compression: zstd", &format!("open_files_max: {OPEN_FILES_MAX}"));
    expect_from_all(&node, &pods, "first");
    wait_until("all are settled", || agent.metrics.queued_request.get() == (0, 0));
    wait_until("no file waits", || agent.metrics.unopened_files.get() == 0);
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    all("second");
    let waiting = PODS as u64 - OPEN_FILES_MAX;
    wait_until("the others wait", || agent.metrics.unopened_files.get() == waiting);
    node.collector.faults().clear();
    expect_from_all(&node, &pods, "second");
    wait_until("no file waits", || agent.metrics.unopened_files.get() == 0);
    agent.stop();
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

/// A receiver of lines as they are, whatever their files in one directory are called.
fn in_one_directory(node: &Node, start_at: &str) -> String {
    let yaml = node.yaml("compression: none", &format!("open_files_max: {OPEN_FILES_MAX}"));
    let pods = node.path("pods").display().to_string();
    let logs = node.path("logs");
    fs::create_dir_all(&logs).unwrap();
    yaml.replace(&format!("{pods}/*/*/*.log"), &logs.join("*.log").display().to_string())
        .replace("    operators: [{type: container}]\n", "")
        .replace("start_at: beginning", &format!("start_at: {start_at}"))
}

/// Waits for one record of each of these texts, and for nothing else.
fn expect_each(node: &Node, texts: impl Iterator<Item = String>) {
    let mut expected: Vec<String> = texts.collect();
    let mut found: Vec<String> =
        node.wait_records(expected.len()).iter().map(crate::node::Record::text).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

/// Scenario: row 39. 40 files in one directory, of which 16 may be open, are renamed: to names that match
/// while most of them wait for a descriptor; again when most are closed; then, grown, to names that no
/// pattern matches, and so while the agent is stopped, and back to names that match.
/// Guarantees: each line comes once, and nothing counts as lost.
#[test]
fn files_that_are_renamed_while_they_are_not_open_are_the_same_files() {
    let node = Node::new();
    let yaml = in_one_directory(&node, "beginning");
    let at = |pod: usize, name: &str| node.path("logs").join(format!("{pod}{name}"));
    let all = |name: &str, text: &str| {
        (0..PODS).for_each(|pod| append(&at(pod, name), format!("{text} {pod}\n")));
    };
    let rename = |from: &str, to: &str| {
        (0..PODS).for_each(|pod| fs::rename(at(pod, from), at(pod, to)).unwrap());
    };
    let expect = |text: &str| expect_each(&node, (0..PODS).map(|pod| format!("{text} {pod}")));
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    all("-a.log", "first");
    let agent = node.start_yaml(&yaml);
    let waiting = PODS as u64 - OPEN_FILES_MAX * 7 / 8;
    wait_until("the others wait", || agent.metrics.unopened_files.get() == waiting);
    rename("-a.log", "-b.log");
    all("-b.log", "second");
    node.collector.faults().clear();
    expect_each(&node, (0..PODS).flat_map(|pod| [format!("first {pod}"), format!("second {pod}")]));
    wait_until("all are settled", || agent.metrics.queued_request.get() == (0, 0));
    rename("-b.log", "-c.log");
    all("-c.log", "third");
    expect("third");
    wait_until("all are settled", || agent.metrics.queued_request.get() == (0, 0));
    all("-c.log", "fourth");
    rename("-c.log", "-d.old");
    expect("fourth");
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    rename("-d.old", "-e.old");
    all("-e.old", "fifth");
    let agent = node.start_yaml(&yaml);
    expect("fifth");
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    rename("-e.old", "-f.log");
    all("-f.log", "sixth");
    let agent = node.start_yaml(&yaml);
    expect("sixth");
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty(), "something came twice");
}

/// Scenario: row 39. The first start, with `start_at: end`, beside 40 files of which 16 may be open; the sink
/// refuses everything, so that most wait for a descriptor while all are written to.
/// Guarantees: what was there before comes never, what was written since comes once.
#[test]
fn what_is_written_to_a_file_that_waits_is_not_passed_over() {
    let node = Node::new();
    let yaml = in_one_directory(&node, "end");
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    let at = |pod: usize| node.path("logs").join(format!("{pod}.log"));
    (0..PODS).for_each(|pod| append(&at(pod), "old\n"));
    // A file that is as old as the tick in which the agent starts may be new.
    std::thread::sleep(std::time::Duration::from_millis(30));
    let agent = node.start_yaml(&yaml);
    let waiting = PODS as u64 - OPEN_FILES_MAX * 7 / 8;
    wait_until("the others wait", || agent.metrics.unopened_files.get() == waiting);
    (0..PODS).for_each(|pod| append(&at(pod), format!("new {pod}\n")));
    node.collector.faults().clear();
    expect_each(&node, (0..PODS).map(|pod| format!("new {pod}")));
    agent.stop();
    assert!(node.take_records().is_empty());
}

/// Scenario: row 39. As above, and most of the files have names that no pattern matches before they could be
/// opened for the first time.
/// Guarantees: each line comes once, and nothing counts as lost.
#[test]
fn files_that_are_renamed_before_they_could_be_opened_are_read() {
    let node = Node::new();
    let yaml = in_one_directory(&node, "beginning");
    let at = |pod: usize, name: &str| node.path("logs").join(format!("{pod}{name}"));
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    (0..PODS).for_each(|pod| append(&at(pod, ".log"), format!("first {pod}\n")));
    let agent = node.start_yaml(&yaml);
    let waiting = PODS as u64 - OPEN_FILES_MAX * 7 / 8;
    wait_until("the others wait", || agent.metrics.unopened_files.get() == waiting);
    (0..PODS).for_each(|pod| fs::rename(at(pod, ".log"), at(pod, ".log.1")).unwrap());
    node.collector.faults().clear();
    expect_each(&node, (0..PODS).map(|pod| format!("first {pod}")));
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty(), "something came twice");
}
