//! Files that are not what they were: cut and written anew, or written to after they had been read to
//! their end; and what is said of files that are gone.

use std::fs;

use nop_collector::Fault;
use thyme_agent::metrics::LossReason;

use crate::node::{
    Agent, Node, Record, append, compress, cri, cri_partial, lines, rotate, start_with_closed,
    wait_until,
};

const UNAVAILABLE: Fault = Fault::HttpStatus { status: 503, retry_after: None };

fn bodies(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name} {number:04}")).collect()
}

/// Scenario: row 47. A file is cut and written anew, at once: to its old length, then beyond it, and
/// then so that a line that had no end yet is cut in its middle.
/// Guarantees: each time it is read from its start, every line once and whole; nothing is malformed.
#[test]
fn a_file_written_anew_to_its_length_or_beyond_is_read_anew() {
    let node = Node::new();
    let container = node.container("a");
    let live = container.join("0.log");
    append(&live, lines("old", 10));
    let agent = node.start();
    node.wait_records(10);
    let truncations = |count| {
        wait_until("it is seen", || agent.metrics.truncated_files.get() == count);
    };
    fs::write(&live, lines("new", 10)).unwrap();
    assert_eq!(bodies(&node.wait_records(10)), numbered("new", 10));
    truncations(1);
    fs::write(&live, lines("big", 500)).unwrap();
    assert_eq!(bodies(&node.wait_records(500)), numbered("big", 500));
    truncations(2);
    append(&live, cri("without an end").trim_end());
    let torn = lines("mid", 501) + &cri("the last");
    fs::write(&live, torn).unwrap();
    let mut expected = numbered("mid", 501);
    expected.push("the last".to_owned());
    assert_eq!(bodies(&node.wait_records(502)), expected);
    truncations(3);
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.malformed_lines.get(), metrics.lost_files.get()), (0, 0));
}

/// Scenario: row 47. The agent is stopped; meanwhile a file is cut and written anew: to its old length,
/// with the same first kilobyte, and beyond; another one only grows.
/// Guarantees: the first is read from its start, the other is resumed.
#[test]
fn a_file_written_anew_while_no_agent_runs_is_read_anew() {
    let node = Node::new();
    let (container, other) = (node.container("a"), node.container("b"));
    let live = container.join("0.log");
    let head = lines("head", 40);
    append(&live, head.clone() + &lines("old", 10));
    append(&other.join("0.log"), lines("same", 10));
    let agent = node.start();
    node.wait_records(60);
    agent.stop();
    for (name, count) in [("new", 10), ("big", 30)] {
        fs::write(&live, head.clone() + &lines(name, count)).unwrap();
        append(&other.join("0.log"), cri("more"));
        let agent = node.start();
        let mut found = bodies(&node.wait_records(40 + count + 1));
        found.retain(|body| body != "more");
        assert_eq!(found, [numbered("head", 40), numbered(name, count)].concat());
        assert_eq!(agent.metrics.truncated_files.get(), 1);
        agent.stop();
    }
}

/// The same node's agent with another sink: what an agent that has ended had under way may still come to the first.
fn start_with_sink(node: &Node, sink: &Node, exporter: &str) -> Agent {
    let [first, second] = [node, sink].map(|one| one.collector.http_addr().to_string());
    node.start_yaml(&node.yaml(exporter, "workers: 1").replace(&first, &second))
}

/// Scenario: rows 47 and 48. A file is cut and written anew when all of it was read, and the sink, which answers 503,
/// has acknowledged nothing; then the agent is stopped. With a spool, and without one.
/// Guarantees: with a spool the next start sends the old lines, too; without one the bytes that end with the agent
/// are counted by it. The next one counts nothing more.
#[test]
fn what_is_under_way_of_a_file_that_is_cut_is_kept_or_counted() {
    for has_spool in [true, false] {
        let (node, sink) = (Node::new(), Node::new());
        let live = node.container("a").join("0.log");
        let old = lines("old", 500);
        append(&live, &old);
        node.collector.faults().always(UNAVAILABLE);
        let storage = if has_spool { ", storage: file_storage" } else { "" };
        let exporter =
            format!("compression: none\n    sending_queue: {{num_consumers: 1{storage}}}");
        let agent = node.start_with(&exporter, "shutdown_timeout: 100ms");
        wait_until("it is read", || agent.metrics.queued_request.get().0 == 500);
        fs::write(&live, lines("new", 10)).unwrap();
        wait_until("it is seen", || agent.metrics.truncated_files.get() == 1);
        let (report, metrics) = agent.stop();
        let lost = if has_spool { 0 } else { old.len() as u64 };
        assert_eq!((report.lost_bytes, metrics.lost(LossReason::Shutdown).get()), (lost, lost));
        let agent = start_with_sink(&node, &sink, &exporter);
        let mut expected = numbered("new", 10);
        if has_spool {
            expected.extend(numbered("old", 500));
        }
        let mut found = bodies(&sink.wait_records(expected.len()));
        let (_, metrics) = agent.stop();
        found.extend(bodies(&sink.take_records()));
        found.sort();
        assert!(found == expected, "{has_spool}: {} of {}", found.len(), expected.len());
        assert_eq!(metrics.lost_files.get(), 0);
    }
}

/// Scenario: the same without a spool, and the agent is killed: the next one begins with the state of then.
/// Guarantees: it counts what ended with it, as lost while no agent ran; a line that was open in the new content goes
/// on there.
#[test]
fn what_was_under_way_of_a_file_that_was_cut_is_counted_by_the_next_start() {
    let (node, sink) = (Node::new(), Node::new());
    let live = node.container("a").join("0.log");
    let old = lines("old", 500);
    append(&live, &old);
    node.collector.faults().always(UNAVAILABLE);
    let agent = node.start_with("compression: none", "workers: 1, shutdown_timeout: 100ms");
    wait_until("it is read", || agent.metrics.queued_request.get().0 == 500);
    let new = lines("new", 10) + &cri_partial("stdout", "begun ");
    fs::write(&live, &new).unwrap();
    wait_until("it is seen", || agent.metrics.truncated_files.get() == 1);
    let (state, then) = (node.path("state"), node.path("then"));
    let length = format!("\"length\":{}}}", new.len());
    wait_until("the state has the new content", || {
        let mut files = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
        files.any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(&length)))
    });
    fs::create_dir(&then).unwrap();
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, then.join(path.file_name().unwrap())).unwrap();
    }
    agent.stop();
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&then, &state).unwrap();
    let agent = start_with_sink(&node, &sink, "compression: none");
    assert_eq!(bodies(&sink.wait_records(10)), numbered("new", 10));
    wait_until("it is counted", || {
        agent.metrics.lost(LossReason::NoAgent).get() == old.len() as u64
    });
    // Longer than a file is waited for that has a successor.
    std::thread::sleep(std::time::Duration::from_millis(300));
    append(&live, cri("ended"));
    assert_eq!(bodies(&sink.wait_records(1)), ["begun ended"]);
    agent.stop();
}

/// Scenario: row 47. A rotated file was read to its end and closed; then it is written anew, longer.
/// Guarantees: the new content is read, and nothing counts as lost.
#[test]
fn a_closed_file_that_is_written_anew_loses_nothing() {
    let node = Node::new();
    let container = node.container("a");
    let (agent, rotated) = start_with_closed(&node, &container);
    fs::write(&rotated, lines("c", 60)).unwrap();
    assert_eq!(bodies(&node.wait_records(60)), numbered("c", 60));
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.truncated_files.get(), metrics.lost_files.get()), (1, 0));
}

/// Scenario: row 47. A line is open when its file is cut and written anew.
/// Guarantees: it leaves as it is, and does not go on in the new content.
#[test]
fn an_open_line_ends_where_its_file_was_cut() {
    let node = Node::new();
    let container = node.container("a");
    let live = container.join("0.log");
    append(&live, cri("one") + &cri_partial("stdout", "begun"));
    let agent = node.start();
    node.wait_records(1);
    wait_until("the fragment is read", || agent.metrics.queued_partial.get().0 == 1);
    fs::write(&live, cri("other") + &cri("another line") + &cri("and one more")).unwrap();
    let found = bodies(&node.wait_records(4));
    assert_eq!(found, ["begun", "other", "another line", "and one more"]);
    agent.stop();
}

/// Scenario: row 46. A rotated file was read to its end and closed; a line is written to it, and it is
/// compressed: while the agent runs, and while it does not.
/// Guarantees: the line is read from the archive, once; nothing else comes again.
#[test]
fn a_late_line_is_read_from_the_archive() {
    let node = Node::new();
    let container = node.container("a");
    let (agent, rotated) = start_with_closed(&node, &container);
    append(&rotated, cri("late"));
    compress(&rotated);
    assert_eq!(bodies(&node.wait_records(1)), ["late"]);
    assert_eq!(agent.metrics.late_files.get(), 1);
    let rotated = rotate(&container, "20260101-000010");
    append(&container.join("0.log"), lines("c", 20));
    node.wait_records(20);
    wait_until("the rotated file is closed", || agent.metrics.open_files.get() == 1);
    agent.stop();
    append(&rotated, cri("later"));
    compress(&rotated);
    append(&container.join("0.log"), cri("live"));
    let agent = node.start();
    assert_eq!(bodies(&node.wait_records(2)), ["later", "live"]);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
}

/// Scenario: row 48. Files are opened while they are empty, and fill while nothing can be sent; they are
/// rotated and compressed, and the agent ends without having read them. Another one is removed unread.
/// Guarantees: after the restart all lines of what is there come; the removed one alone is counted as
/// lost, with its bytes, when the agent ends, and not again by the next one.
#[test]
fn only_what_is_gone_is_counted_as_lost() {
    let node = Node::new();
    let (flood, quiet, gone) = (node.container("a"), node.container("b"), node.container("c"));
    for container in [&quiet, &gone] {
        append(&container.join("0.log"), "");
    }
    node.collector.faults().always(UNAVAILABLE);
    let budget = "request_bytes_max: 128KiB, in_flight_bytes_max: 256KiB, shutdown_timeout: 100ms";
    let yaml = node.yaml("compression: none", budget);
    let yaml = yaml.replace("start_at: beginning", "start_at: beginning\n    max_log_size: 32KiB");
    let agent = node.start_yaml(&yaml);
    wait_until("the empty files are open", || agent.metrics.open_files.get() == 2);
    append(&flood.join("0.log"), lines("flood", 40_000));
    wait_until("the budget is used up", || agent.metrics.queued_request.get().1 > 100_000);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let read_before = agent.metrics.read.get();
    append(&quiet.join("0.log"), lines("quiet", 20));
    let unread = lines("gone", 20);
    append(&gone.join("0.log"), &unread);
    compress(&rotate(&quiet, "20260101-000000"));
    fs::remove_dir_all(&gone).unwrap();
    let (report, metrics) = agent.stop();
    assert_eq!(metrics.read.get(), read_before, "nothing of them was read");
    let lost = unread.len() as u64;
    assert_eq!((report.lost_bytes, metrics.lost_files.get()), (lost, 1));
    assert_eq!(metrics.lost(LossReason::Shutdown).get(), lost);
    assert!(report.unsettled_records > 0);
    node.take_records();
    node.collector.faults().clear();
    let agent = node.start();
    let mut found = std::collections::BTreeSet::new();
    wait_until("all lines come", || {
        found.extend(bodies(&node.take_records()));
        found.len() >= 40_020
    });
    assert!(numbered("quiet", 20).iter().all(|body| found.contains(body)));
    assert!(!found.iter().any(|body| body.starts_with("gone")));
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
}

/// Scenario: row 48. A live file fills while nothing can be sent. When the agent stops it is removed, and
/// an archive that nobody has looked at is beside it: of lines that came later.
/// Guarantees: the archive is not taken for the file; what was in the file is counted when the agent ends.
#[test]
fn an_archive_of_another_file_stands_for_nothing() {
    let node = Node::new();
    let (flood, gone) = (node.container("a"), node.container("b"));
    append(&gone.join("0.log"), "");
    node.collector.faults().always(UNAVAILABLE);
    let budget = "request_bytes_max: 128KiB, in_flight_bytes_max: 256KiB, shutdown_timeout: 100ms";
    let yaml = node.yaml("compression: none", budget);
    let yaml = yaml.replace("start_at: beginning", "start_at: beginning\n    max_log_size: 32KiB");
    let agent = node.start_yaml(&yaml);
    wait_until("the empty file is open", || agent.metrics.open_files.get() == 1);
    append(&flood.join("0.log"), lines("flood", 40_000));
    wait_until("the budget is used up", || agent.metrics.queued_request.get().1 > 100_000);
    let unread = lines("gone", 20);
    append(&gone.join("0.log"), &unread);
    let later = gone.join("0.log.20260101-000010");
    append(&later, lines("later", 20));
    compress(&later);
    fs::remove_file(gone.join("0.log")).unwrap();
    let (report, metrics) = agent.stop();
    assert_eq!((report.lost_bytes, metrics.lost_files.get()), (unread.len() as u64, 1));
}

/// Scenario: row 1. A rotated file that ends within a line is found when its successor has been read, as
/// one that could not be opened in time is. Then the successor goes on.
/// Guarantees: the line leaves at once and as it is; what the successor goes on with is not joined to it.
#[test]
fn a_file_that_is_opened_late_does_not_go_on_in_its_successor() {
    let node = Node::new();
    let container = node.container("a");
    let live = container.join("0.log");
    append(&live, cri("one"));
    let agent = node.start();
    assert_eq!(bodies(&node.wait_records(1)), ["one"]);
    let elsewhere = node.container("b").join("hidden");
    append(&elsewhere, cri("zero") + &cri_partial("stdout", "begun"));
    fs::rename(&elsewhere, container.join("0.log.20260101-000000")).unwrap();
    assert_eq!(bodies(&node.wait_records(2)), ["zero", "begun"]);
    append(&live, cri("two"));
    assert_eq!(bodies(&node.wait_records(1)), ["two"]);
    agent.stop();
}

/// Scenario: row 49. The spool can take nothing, the sink answers 503, and a file without a name was
/// read into the open batch and requests, when the agent is told to stop.
/// Guarantees: what was read is not said to be settled: the bytes that go with the agent are counted and
/// reported, and the books balance.
#[test]
fn a_shutdown_says_what_it_leaves() {
    let node = Node::new();
    let container = node.container("a");
    node.collector.faults().always(UNAVAILABLE);
    let exporter =
        "compression: none\n    sending_queue: {num_consumers: 1, storage: file_storage}";
    let thyme = "request_bytes_max: 128KiB, in_flight_bytes_max: 1MiB, spool_bytes_max: 32MiB, \
                 shutdown_timeout: 300ms";
    let yaml = node.yaml(exporter, thyme);
    let yaml = yaml.replace("start_at: beginning", "start_at: beginning\n    max_log_size: 32KiB");
    let agent = node.start_yaml(&yaml);
    let text: String =
        (0..400_000).map(|number| cri(&format!("line {number} {:0>100}", number))).collect();
    append(&container.join("0.log"), &text);
    wait_until("it is open", || agent.metrics.queued_request.get().1 > 100_000);
    fs::remove_dir_all(&container).unwrap();
    wait_until("the spool is full", || agent.metrics.spool_full.get() == 1);
    let (report, metrics) = agent.stop();
    let kept = metrics.queued_spool.get().1 as u64;
    assert!(report.spooled_records > 0 && report.unsettled_records > 0, "{report:?}");
    assert!(report.lost_bytes > 0, "{report:?}");
    // What is under way when it stops may be in the spool as a copy as well.
    let accounted = report.lost_bytes + kept;
    let secured = metrics.queued_request.get().1 as u64;
    let written = text.len() as u64;
    assert!(accounted <= written && accounted + secured >= written, "{report:?}, {kept} kept");
}

/// Scenario: a receiver has no `storage`, a line of one file is open, and another file is deleted right
/// before the agent stops: it has its rest read first.
/// Guarantees: the open line leaves all the same.
#[test]
fn a_deleted_file_keeps_no_open_line_back_at_a_stop() {
    let node = Node::new();
    let (container, other) = (node.container("a"), node.container("b"));
    append(&container.join("0.log"), cri("one") + &cri_partial("stdout", "begun"));
    append(&other.join("0.log"), cri("two"));
    let yaml = node.yaml("compression: none", "workers: 1");
    let agent = node.start_yaml(&yaml.replace("    storage: file_storage\n", ""));
    node.wait_records(2);
    wait_until("the fragment is read", || agent.metrics.queued_partial.get().0 == 1);
    append(&other.join("0.log"), cri("three"));
    fs::remove_file(other.join("0.log")).unwrap();
    let (report, _) = agent.stop();
    assert_eq!((report.open_lines, report.unsettled_records), (0, 0));
    let mut found = bodies(&node.wait_records(2));
    found.sort_unstable();
    assert_eq!(found, ["begun", "three"]);
}
