//! Files that rotate, vanish and are compressed while they are read.

use std::{fs, path::Path};

use nop_collector::Fault;

use crate::node::{Node, Record, append, compress, cri, cri_partial, rotate, wait_until};

fn bodies(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

fn lines(range: std::ops::Range<u32>) -> String {
    numbered(range).iter().map(|body| cri(body)).collect()
}

/// Scenario: row 1. A file is rotated three times while the agent isn't running, and once more
/// while it is.
/// Guarantees: every line comes once, oldest file first, under the live file's path. One consumer keeps the
/// order on arrival.
#[test]
fn rotated_files_are_read_oldest_first() {
    let node = Node::new();
    let container = node.container("a");
    for (number, time) in
        ["20260101-000000", "20260101-000010", "20260101-000020"].iter().enumerate()
    {
        let number = number as u32 * 100;
        append(&container.join("0.log"), lines(number..number + 100));
        rotate(&container, time);
    }
    append(&container.join("0.log"), lines(300..400));
    let agent = node.start_yaml(&node.yaml("sending_queue: {num_consumers: 1}", ""));
    let mut records = node.wait_records(400);
    rotate(&container, "20260101-000030");
    append(&container.join("0.log"), lines(400..500));
    records.extend(node.wait_records(100));
    assert_eq!(bodies(&records), numbered(0..500));
    let live = container.join("0.log").display().to_string();
    assert!(records.iter().all(|record| record.attributes["log.file.path"] == live));
    agent.stop();
}

/// Scenario: row 2. The sink refuses everything while files are rotated, compressed and deleted.
/// Guarantees: what was in them comes all the same, once and in order, when the sink is back.
#[test]
fn files_compressed_and_deleted_during_an_outage() {
    const LINES: u32 = 20_000;
    let node = Node::new();
    let container = node.container("a");
    let refuse = Fault::HttpStatus { status: 503, retry_after: None };
    node.collector.faults().always(refuse);
    // The smallest budget, so that reading stops within the first file.
    let budget = "request_bytes_max: 128KiB, in_flight_bytes_max: 1MiB";
    let one_at_a_time = "compression: none\n    sending_queue: {num_consumers: 1}";
    let yaml = node.yaml(one_at_a_time, budget);
    let short_lines = "start_at: beginning\n    max_log_size: 32KiB";
    let agent = node.start_yaml(&yaml.replace("start_at: beginning", short_lines));
    let mut rotated = Vec::new();
    for number in 0..5 {
        append(&container.join("0.log"), lines(number * LINES..number * LINES + LINES));
        let files = u64::from(number) + 1;
        wait_until("the live file is open", || agent.metrics.open_files.get() >= files);
        if number < 4 {
            rotated.push(rotate(&container, &format!("20260101-00000{number}")));
        }
    }
    compress(&rotated[1]);
    let archive = compress(&rotated[2]);
    fs::remove_file(archive).unwrap();
    fs::remove_file(&rotated[0]).unwrap();
    assert!(agent.metrics.read.get().0 < i64::from(LINES), "reading goes on without a budget");
    node.collector.faults().clear();
    let records = node.wait_records(5 * LINES as usize);
    assert!(bodies(&records) == numbered(0..5 * LINES), "not each line once, in order");
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
}

/// Scenario: rows 2 and 4. The agent stops in the middle of a file, which is rotated and compressed
/// before it starts again; another archive had been read to its end.
/// Guarantees: reading goes on within the archive; nothing comes twice.
#[test]
fn an_archive_is_resumed_where_its_plain_file_was_left() {
    let node = Node::new();
    let container = node.container("a");
    append(&container.join("0.log"), lines(0..50));
    let agent = node.start();
    let mut records = node.wait_records(50);
    let first = rotate(&container, "20260101-000000");
    append(&container.join("0.log"), lines(50..150));
    records.extend(node.wait_records(100));
    agent.stop();
    append(&container.join("0.log"), lines(150..3000));
    compress(&first);
    let second = rotate(&container, "20260101-000010");
    compress(&second);
    append(&container.join("0.log"), lines(3000..3010));
    let agent = node.start();
    records.extend(node.wait_records(2860));
    assert_eq!(bodies(&records), numbered(0..3010));
    assert_eq!(agent.metrics.archive_bytes.get(), lines(150..3000).len() as u64);
    agent.stop();
    let agent = node.start();
    append(&container.join("0.log"), lines(3010..3011));
    assert_eq!(bodies(&node.wait_records(1)), numbered(3010..3011));
    agent.stop();
}

/// Scenario: row 8. The kubelet rotates between the fragments of a line, on both streams at once.
/// Guarantees: each stream's line is whole.
#[test]
fn a_line_is_joined_across_a_rotation() {
    let node = Node::new();
    let container = node.container("a");
    let agent = node.start();
    append(
        &container.join("0.log"),
        cri_partial("stdout", "out-1 ") + &cri_partial("stderr", "err-1 "),
    );
    wait_until("the fragments are read", || agent.metrics.queued_partial.get().0 == 2);
    rotate(&container, "20260101-000000");
    append(&container.join("0.log"), cri("out-2").replace("stdout", "stderr") + &cri("out-2"));
    let mut found = bodies(&node.wait_records(2));
    found.sort();
    assert_eq!(found, ["err-1 out-2", "out-1 out-2"]);
    agent.stop();
}

/// Scenario: rows 8 and 15. The agent stops while a line is open whose other stream went on, and a
/// rotation follows.
/// Guarantees: after the restart the line is whole, and the other stream's lines don't come twice.
#[test]
fn an_open_line_survives_a_restart() {
    let node = Node::new();
    let container = node.container("a");
    let agent = node.start();
    append(&container.join("0.log"), cri_partial("stderr", "begun ") + &cri("one") + &cri("two"));
    assert_eq!(bodies(&node.wait_records(2)), ["one", "two"]);
    agent.stop();
    rotate(&container, "20260101-000000");
    append(&container.join("0.log"), cri("three") + &cri("ended").replace("stdout", "stderr"));
    let agent = node.start();
    assert_eq!(bodies(&node.wait_records(2)), ["three", "begun ended"]);
    agent.stop();
}

/// Scenario: row 7. A file is truncated in place and written anew; another starts empty.
/// Guarantees: the new content is read from its start, and the truncation is counted.
#[test]
fn a_truncated_file_is_read_anew() {
    let node = Node::new();
    let (container, empty) = (node.container("a"), node.container("b"));
    append(&container.join("0.log"), lines(0..10));
    append(&empty.join("0.log"), "");
    let agent = node.start();
    node.wait_records(10);
    fs::write(container.join("0.log"), cri("anew")).unwrap();
    assert_eq!(bodies(&node.wait_records(1)), ["anew"]);
    append(&empty.join("0.log"), cri("first"));
    assert_eq!(bodies(&node.wait_records(1)), ["first"]);
    assert_eq!(agent.metrics.truncated_files.get(), 1);
    agent.stop();
}

/// Scenario: row 6. Two pods write the same bytes.
/// Guarantees: both are read.
#[test]
fn equal_files_of_two_pods_are_both_read() {
    let node = Node::new();
    for pod in ["a", "b"] {
        append(&node.container(pod).join("0.log"), lines(0..100));
    }
    let agent = node.start();
    assert_eq!(node.wait_records(200).len(), 200);
    agent.stop();
}

/// Scenario: row 33. Pods come, write and are deleted at once, root directory included.
/// Guarantees: a missing root is waited for, and every line of a pod that was seen comes.
#[test]
fn short_lived_pods_are_read() {
    let node = Node::new();
    let agent = node.start();
    std::thread::sleep(std::time::Duration::from_millis(50));
    for number in 0..20 {
        let container = node.container(&format!("p{number}"));
        append(&container.join("0.log"), lines(0..10));
        let opened = number + 1;
        wait_until("the file is read", || agent.metrics.read.get().0 >= opened * 10);
        fs::remove_dir_all(container.parent().unwrap()).unwrap();
    }
    assert_eq!(node.wait_records(200).len(), 200);
    agent.stop();
}

/// Whether this process, and so the agent in it, has the file open.
fn is_open(path: &Path) -> bool {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let mut open = descriptors.filter_map(|one| fs::read_link(one.unwrap().path()).ok());
    open.any(|link| link == path)
}

/// Scenario: row 33. Pods live for 50 ms, write at their beginning and at their end, and are deleted
/// as soon as somebody has their file open, read or not. No scan comes within the test.
/// Guarantees: a watch finds each of them, and every line comes.
#[test]
fn a_pod_of_fifty_milliseconds_is_read() {
    const PODS: usize = 40;
    let node = Node::new();
    append(&node.container("first").join("0.log"), cri("first"));
    let agent = node.start_yaml(
        &node
            .yaml("compression: zstd", "workers: 1")
            .replace("scan_interval: 1s", "scan_interval: 1h"),
    );
    // The root is watched from here on.
    node.wait_records(1);
    for number in 0..PODS {
        let container = node.container(&format!("p{number}"));
        let live = fs::canonicalize(&container).unwrap().join("0.log");
        append(&live, lines(0..5));
        // The pod's life.
        std::thread::sleep(std::time::Duration::from_millis(50));
        append(&live, lines(5..10));
        wait_until("the file is open", || is_open(&live));
        fs::remove_dir_all(container.parent().unwrap()).unwrap();
    }
    let mut found = bodies(&node.wait_records(10 * PODS));
    found.sort();
    let mut expected: Vec<_> = (0..PODS).flat_map(|_| numbered(0..10)).collect();
    expected.sort();
    assert!(found == expected, "not each line once");
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
}

/// Scenario: row 10. A container ends after a fragment, and after a line without its newline.
/// Guarantees: both leave after a while, the fragment marked as partial.
#[test]
fn ended_lines_leave() {
    let node = Node::new();
    let container = node.container("a");
    let line = cri("no newline");
    append(&container.join("0.log"), cri_partial("stderr", "fragment") + line.trim_end());
    let agent = node.start();
    let records = node.wait_records(2);
    assert_eq!(bodies(&records), ["no newline", "fragment"]);
    assert!(!records[0].attributes.contains_key("thyme.chunk.offset"));
    assert_eq!(records[1].attributes["thyme.partial"], "true");
    assert_eq!(records[1].attributes["log.iostream"], "stderr");
    agent.stop();
}

/// Scenario: row 10. A container ends within a fragment: its last one lacks its newline. Another one ends with
/// a whole fragment and such a one.
/// Guarantees: the first leaves marked as partial; of the second the whole fragment leaves as a piece, and what
/// stands behind it as another, marked.
#[test]
fn a_fragment_without_its_newline_leaves_marked() {
    let node = Node::new();
    let fragment = cri_partial("stdout", "fragment");
    append(&node.container("a").join("0.log"), fragment.trim_end());
    let agent = node.start();
    let records = node.wait_records(1);
    assert_eq!(bodies(&records), ["fragment"]);
    assert_eq!(records[0].attributes["thyme.partial"], "true");
    let second = cri_partial("stdout", "another") + fragment.trim_end();
    append(&node.container("b").join("0.log"), second);
    let records = node.wait_records(2);
    assert_eq!(bodies(&records), ["another", "fragment"]);
    let marks = |record: &Record, name: &str| record.attributes.get(name).cloned();
    assert_eq!(marks(&records[0], "thyme.partial"), None);
    assert_eq!(marks(&records[1], "thyme.partial").as_deref(), Some("true"));
    assert_eq!(marks(&records[1], "thyme.chunk.offset").as_deref(), Some("7"));
    agent.stop();
}

/// Scenario: row 11. Lines pause for longer than they are waited for, once or twice: of CRI on both streams, of
/// docker, and with a fragment that lacked its newline when it left. Then they end, and whole lines follow.
/// Guarantees: what comes after a pause is a piece that says where it begins; what follows the end is a whole
/// line again.
#[test]
fn what_comes_after_a_pause_follows_as_a_piece() {
    let node = Node::new();
    let file = |pod: &str| node.container(pod).join("0.log");
    let [both, docker, unended] = ["both", "docker", "unended"].map(file);
    let stderr = |line: String| line.replace("stdout", "stderr");
    let object = |log: &str| {
        let time = "2026-01-01T00:00:00Z";
        serde_json::json!({"log": log, "stream": "stdout", "time": time}).to_string() + "\n"
    };
    let agent = node.start();
    append(&both, cri_partial("stdout", "out 1 ") + &cri_partial("stderr", "err ab"));
    append(&docker, object("docker "));
    append(&unended, cri_partial("stdout", "unended").trim_end());
    let told = |count: usize| {
        let records = node.wait_records(count);
        let attribute = |record: &Record, name: &str| record.attributes.get(name).cloned();
        let mut told: Vec<_> = records
            .iter()
            .map(|record| {
                let offset = attribute(record, "thyme.chunk.offset").unwrap_or_default();
                let is_partial = attribute(record, "thyme.partial").is_some();
                format!("{}|{offset}|{}", record.text(), if is_partial { "partial" } else { "" })
            })
            .collect();
        told.sort();
        told
    };
    let begun = ["docker ||partial", "err ab||partial", "out 1 ||partial", "unended||partial"];
    assert_eq!(told(4), begun);
    append(&both, cri_partial("stdout", "out 2 "));
    assert_eq!(told(1), ["out 2 |6|partial"]);
    append(&both, cri("out 3") + &stderr(cri("cd")) + &cri("out") + &stderr(cri("err")));
    append(&docker, object("3\n") + &object("whole\n"));
    append(&unended, format!(" yet\n{}{}", cri("no more"), cri("next")));
    let ended = [
        " yet|7|",
        "3|7|",
        "cd|6|",
        "err||",
        "next||",
        "no more|11|",
        "out 3|12|",
        "out||",
        "whole||",
    ];
    assert_eq!(told(9), ended);
    agent.stop();
}

/// Scenario: row 10, while the other stream goes on. A container's stderr ends in a fragment, its
/// stdout writes on without a pause.
/// Guarantees: the fragment leaves all the same, marked as partial.
#[test]
fn an_ended_line_leaves_beside_a_busy_stream() {
    let node = Node::new();
    let container = node.container("a");
    append(&container.join("0.log"), cri_partial("stderr", "fragment"));
    let agent = node.start();
    wait_until("the fragment leaves", || {
        append(&container.join("0.log"), cri("busy"));
        let records = node.take_records();
        records
            .iter()
            .any(|one| one.text() == "fragment" && one.attributes["thyme.partial"] == "true")
    });
    agent.stop();
}
