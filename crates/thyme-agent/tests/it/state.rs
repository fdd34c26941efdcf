//! The state directory between two starts: whose positions they are when names, devices or versions
//! have changed meanwhile.

use std::{fs, time::Duration};

use nop_collector::Fault;

use crate::node::{Node, Record, append, compress, cri, cri_partial, rotate, wait_until};

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|number| cri(&format!("line {number}"))).collect()
}

/// The configuration with two receivers that read the same files, and other names than usual.
fn yaml_of_two(node: &Node, receivers: [&str; 2], exporter: &str) -> String {
    let yaml = node.yaml("compression: none", "workers: 1");
    let start = yaml.find("  filelog:").unwrap();
    let end = yaml.find("processors:").unwrap();
    let receiver = yaml[start..end].to_owned();
    let both: String = receivers.iter().map(|name| receiver.replacen("filelog", name, 1)).collect();
    let yaml = yaml.replacen(&receiver, &both, 1);
    let named = format!("receivers: [{}, {}]", receivers[0], receivers[1]);
    yaml.replace("receivers: [filelog]", &named).replace("otlp_http", exporter)
}

/// Scenario: row 42. Two receivers read one file; at the next start they stand in another order and
/// one of them by the older name of its type, at the one after that all names have changed, the
/// exporter's too.
/// Guarantees: each receiver sends each line once, whatever it is called; nothing counts as lost.
#[test]
fn two_receivers_of_one_file_keep_two_positions() {
    const LINES: u32 = 200;
    let node = Node::new();
    let live = node.container("a").join("0.log");
    let starts = [
        (["filelog/a", "file_log/b"], "otlp_http"),
        (["file_log/b", "file_log/a"], "otlp_http"),
        (["file_log/c", "file_log/d"], "otlp_http/other"),
    ];
    for (number, (receivers, exporter)) in (0u32..).zip(starts) {
        append(&live, lines(number * LINES..(number + 1) * LINES));
        let agent = node.start_yaml(&yaml_of_two(&node, receivers, exporter));
        let records = node.wait_records(2 * LINES as usize);
        let mut texts: Vec<String> =
            records.iter().map(|record| record.text().to_owned()).collect();
        texts.sort();
        let expected = (number * LINES..(number + 1) * LINES).map(|line| format!("line {line}"));
        let mut expected: Vec<String> = expected.flat_map(|line| [line.clone(), line]).collect();
        expected.sort();
        assert_eq!(texts, expected, "start {number}");
        let (_, metrics) = agent.stop();
        assert_eq!(metrics.lost_files.get(), 0);
        assert!(node.take_records().is_empty());
    }
}

/// Scenario: row 45. Two receivers read one file. One of them is left out for one run, in which lines are
/// written, and is there again.
/// Guarantees: it goes on where it was, and nothing comes twice to either.
#[test]
fn a_receiver_that_is_left_out_for_one_run_keeps_its_positions() {
    let node = Node::new();
    let live = node.container("a").join("0.log");
    let both = yaml_of_two(&node, ["filelog/x", "filelog/y"], "otlp_http");
    let (start, end) = (both.find("  filelog/y:").unwrap(), both.find("processors:").unwrap());
    let alone = format!("{}{}", &both[..start], &both[end..])
        .replace("receivers: [filelog/x, filelog/y]", "receivers: [filelog/x]");
    append(&live, lines(0..20));
    let agent = node.start_yaml(&both);
    node.wait_records(40);
    wait_until("all is settled", || agent.metrics.queued_request.get() == (0, 0));
    agent.stop();
    let agent = node.start_yaml(&alone);
    append(&live, lines(20..30));
    node.wait_records(10);
    agent.stop();
    assert!(node.take_records().is_empty());
    let agent = node.start_yaml(&both);
    // Those that one of them had not read yet, and what is new to both.
    let texts: Vec<String> = node.wait_records(10).iter().map(|one| one.text()).collect();
    assert_eq!(texts, (20..30).map(|number| format!("line {number}")).collect::<Vec<_>>());
    append(&live, lines(30..31));
    node.wait_records(2);
    let (_, metrics) = agent.stop();
    assert!(node.take_records().is_empty(), "something came twice");
    assert_eq!(metrics.lost_files.get(), 0);
}

/// Changes what the snapshot says, as if it had always said so.
fn rewrite_snapshot(node: &Node, change: impl FnOnce(&str) -> String) {
    let path = node.path("state/checkpoints");
    let text = fs::read_to_string(&path).unwrap();
    let content = change(text.split_once('\n').unwrap().1);
    let (crc32, bytes) = (crc32fast::hash(content.as_bytes()), content.len());
    let snapshot = format!("thyme-checkpoints 1 crc32={crc32:08x} bytes={bytes}\n{content}");
    fs::write(path, snapshot).unwrap();
}

/// Scenario: row 43. The node is started again, and gives the disk with the logs another device
/// number; a file was rotated and compressed before that.
/// Guarantees: every file goes on where it was, and nothing counts as lost.
#[test]
fn files_on_another_device_number_go_on_where_they_were() {
    let node = Node::new();
    let container = node.container("a");
    let live = container.join("0.log");
    append(&live, lines(0..100));
    let agent = node.start();
    node.wait_records(100);
    rotate(&container, "20260101-000000");
    append(&live, lines(100..200));
    node.wait_records(100);
    agent.stop();
    rewrite_snapshot(&node, |content| {
        assert!(content.contains("\"device\":"), "{content}");
        content.replace("\"device\":", "\"device\":9")
    });
    append(&live, lines(200..210));
    let agent = node.start();
    let records = node.wait_records(10);
    assert_eq!(records.len(), 10);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty());
}

/// Scenario: row 8. A file was rotated within a line, and its successor was still empty when the agent
/// ended. Before the next start that is written to, and is rotated and compressed; or the disk gets
/// another device number.
/// Guarantees: the line is whole. A file of which nothing was known but that it was there is the one
/// that is found, not one that vanished between the line's beginning and its end.
#[test]
fn a_line_goes_on_in_a_file_that_was_empty_at_the_end() {
    for is_compressed in [true, false] {
        let node = Node::new();
        let container = node.container("a");
        let live = container.join("0.log");
        append(&live, cri("one") + &cri_partial("stdout", "begun, "));
        let agent = node.start();
        node.wait_records(1);
        rotate(&container, "20260101-000000");
        wait_until("the successor is known", || agent.metrics.open_files.get() == 2);
        agent.stop();
        append(&live, cri("ended"));
        if is_compressed {
            compress(&rotate(&container, "20260101-000010"));
        } else {
            rewrite_snapshot(&node, |content| content.replace("\"device\":", "\"device\":9"));
        }
        let agent = node.start();
        let records = node.wait_records(1);
        assert_eq!(records[0].text(), "begun, ended", "{is_compressed}: {records:?}");
        let (_, metrics) = agent.stop();
        assert_eq!(metrics.lost_files.get(), 0);
        assert!(node.take_records().is_empty());
        let state = fs::read_to_string(node.path("state/checkpoints")).unwrap();
        assert_eq!(state.lines().count(), if is_compressed { 4 } else { 3 }, "{state}");
    }
}

/// Scenario: row 8. The first look finds a rotated file that ends within a line, an archive that goes on
/// with it, and an empty live file. The sink takes nothing; the agent ends, and the live file goes with
/// its container.
/// Guarantees: after the next start the line is whole: what vanished was the youngest, also where it had
/// been found before the archive.
#[test]
fn a_live_file_that_vanishes_cuts_no_line_before_it() {
    let node = Node::new();
    let container = node.container("a");
    let live = container.join("0.log");
    append(&live, cri("one") + &cri_partial("stdout", "begun, "));
    rotate(&container, "20260101-000000");
    append(&live, cri("ended"));
    compress(&rotate(&container, "20260101-000010"));
    node.collector.faults().always(Fault::Stall);
    let agent = node.start_with("compression: none", "workers: 1, shutdown_timeout: 100ms");
    wait_until("all is known", || agent.metrics.open_files.get() == 3);
    wait_until("a request is stalled", || node.collector.faults().applied() > 0);
    agent.stop();
    fs::remove_file(live).unwrap();
    node.collector.faults().clear();
    let agent = node.start();
    let bodies: Vec<_> = node.wait_records(2).iter().map(Record::text).collect();
    assert_eq!(bodies, ["one", "begun, ended"]);
    agent.stop();
}

/// Scenario: row 45. The snapshot is one that the agent before the journal wrote, without names of
/// receivers and exporters.
/// Guarantees: files go on where they were, and the receiver's name is there at the end.
#[test]
fn the_state_of_an_older_agent_is_taken_over() {
    let node = Node::new();
    let live = node.container("a").join("0.log");
    append(&live, lines(0..100));
    let agent = node.start();
    node.wait_records(100);
    agent.stop();
    rewrite_snapshot(&node, |content| {
        let strip = |line: &str| {
            let (_, rest) = line.split_once("\"receiver\":\"file_log\",").unwrap();
            let (known, _) = rest.split_once(",\"positions\"").unwrap();
            format!("{{{known}}}\n")
        };
        content.lines().map(strip).collect()
    });
    append(&live, lines(100..110));
    let agent = node.start();
    assert_eq!(node.wait_records(10).len(), 10);
    wait_until("it is settled", || agent.metrics.acknowledged.get().0 == 10);
    agent.stop();
    let text = fs::read_to_string(node.path("state/checkpoints")).unwrap();
    assert!(text.contains("\"receiver\":\"file_log\""), "{text}");
}

/// Scenario: an agent of before noted files that were rotated at its first start, with
/// `start_at: end`, as finished at 0; one of them has been compressed since.
/// Guarantees: the next agent takes them as read, too; what is written from then on comes.
#[test]
fn files_that_an_older_agent_took_as_read_stay_so() {
    let node = Node::new();
    let container = node.container("a");
    let live = container.join("0.log");
    append(&live, lines(0..100));
    let older = rotate(&container, "20260101-000000");
    append(&live, lines(100..200));
    crate::node::rotate(&container, "20260101-000001");
    append(&live, lines(200..300));
    // A file that is as old as the tick in which the agent starts may be new.
    std::thread::sleep(Duration::from_millis(30));
    let yaml = node.yaml("compression: none", "workers: 1").replace("beginning", "end");
    let agent = node.start_yaml(&yaml);
    wait_until("all files are known", || {
        let state = fs::read_to_string(node.path("state/checkpoints")).unwrap_or_default();
        let names = journal_and(&node, state);
        names.contains("20260101-000000") && names.contains("20260101-000001")
    });
    agent.stop();
    assert!(node.take_records().is_empty(), "nothing of what was there is read");
    rewrite_snapshot(&node, |content| {
        let before = |line: &str| {
            let mut file: serde_json::Value = serde_json::from_str(line).unwrap();
            if file["finished"] == true {
                for key in ["length", "tail_bytes", "tail_crc32", "positions"] {
                    file.as_object_mut().unwrap().remove(key);
                }
                file["offset"] = 0.into();
            }
            format!("{file}\n")
        };
        let text: String = content.lines().map(before).collect();
        assert_eq!(text.matches("\"finished\":true").count(), 2, "{text}");
        text
    });
    crate::node::compress(&older);
    append(&live, lines(300..310));
    let agent = node.start_yaml(&yaml);
    let records = node.wait_records(10);
    let texts: Vec<_> = records.iter().map(|record| record.text().to_owned()).collect();
    assert_eq!(texts, (300..310).map(|line| format!("line {line}")).collect::<Vec<_>>());
    wait_until("it is settled", || agent.metrics.acknowledged.get().0 == 10);
    agent.stop();
    assert!(node.take_records().is_empty());
}

/// The snapshot and what the journals say.
fn journal_and(node: &Node, mut state: String) -> String {
    for entry in fs::read_dir(node.path("state")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("journal.") {
            state += &fs::read_to_string(entry.path()).unwrap_or_default();
        }
    }
    state
}
