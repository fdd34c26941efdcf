//! Files that count as read, and what becomes of them after that: what `start_at: end` passes over, late
//! lines, damaged archives.

use std::{fs, path::Path, time::Duration};

use nop_collector::Fault;
use thyme_agent::metrics::LossReason;

use crate::{
    node::{
        Agent, Node, Record, append, compress, cri, cri_partial, lines, rotate, start_with_closed,
        wait_until,
    },
    program::{Program, write_config},
};

fn bodies(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

fn start_at_end(node: &Node) -> Agent {
    // A file that is as old as the tick in which the agent starts may be new.
    std::thread::sleep(Duration::from_millis(30));
    let yaml = node.yaml("compression: zstd", "workers: 1");
    node.start_yaml(&yaml.replace("start_at: beginning", "start_at: end"))
}

/// Writes to the live file until the agent follows it, and has all that was written so.
fn wait_until_followed(node: &Node, container: &Path) {
    let mut found = Vec::new();
    wait_until("the live file is followed", || {
        append(&container.join("0.log"), cri("follow"));
        found.extend(bodies(&node.take_records()));
        !found.is_empty()
    });
    append(&container.join("0.log"), cri("followed"));
    wait_until("all is there", || {
        found.extend(bodies(&node.take_records()));
        found.last().is_some_and(|body| body == "followed")
    });
    assert!(found[..found.len() - 1].iter().all(|body| body == "follow"), "{found:?}");
}

/// Writes to the live file until the agent has it, and gives back that this alone was read.
fn only_the_live_line_comes(node: &Node, agent: &Agent, container: &Path, body: &str) {
    let before = agent.metrics.read.get().1;
    append(&container.join("0.log"), cri(body));
    assert_eq!(bodies(&node.wait_records(1)), [body]);
    assert_eq!(agent.metrics.read.get().1 - before, cri(body).len() as i64);
}

/// Scenario: the agent starts for the first time, with `start_at: end`, beside a rotated file and an archive.
/// At the next rotation the rotated file is compressed.
/// Guarantees: nothing of them is read, nor said to be unread or late; only new lines come.
#[test]
fn what_start_at_end_passed_over_is_not_read_when_it_is_compressed() {
    let node = Node::new();
    let container = node.container("a");
    let live = container.join("0.log");
    append(&live, lines("oldest", 500));
    compress(&rotate(&container, "20260101-000000"));
    append(&live, lines("old", 500));
    let rotated = rotate(&container, "20260101-000010");
    append(&live, lines("passed over", 500));
    let agent = start_at_end(&node);
    wait_until_followed(&node, &container);
    only_the_live_line_comes(&node, &agent, &container, "first");
    compress(&rotated);
    rotate(&container, "20260101-000020");
    only_the_live_line_comes(&node, &agent, &container, "second");
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.late_files.get(), metrics.lost_files.get()), (0, 0));
}

/// Scenario: as above, and the agent starts again while the rotated file is plain; then that is removed while
/// no agent runs. Another one is written to late.
/// Guarantees: nothing of them is read at any start, and nothing is lost; the late line comes.
#[test]
fn what_start_at_end_passed_over_is_not_read_at_a_restart() {
    let node = Node::new();
    let container = node.container("a");
    let live = container.join("0.log");
    append(&live, lines("oldest", 500));
    compress(&rotate(&container, "20260101-000000"));
    append(&live, lines("older", 500));
    let gone = rotate(&container, "20260101-000010");
    append(&live, lines("old", 500));
    let late = rotate(&container, "20260101-000020");
    append(&live, cri("passed over"));
    let agent = start_at_end(&node);
    wait_until_followed(&node, &container);
    only_the_live_line_comes(&node, &agent, &container, "first");
    agent.stop();
    let agent = start_at_end(&node);
    only_the_live_line_comes(&node, &agent, &container, "second");
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.late_files.get(), metrics.read.get().0), (0, 1));
    fs::remove_file(gone).unwrap();
    append(&late, cri("late"));
    let agent = start_at_end(&node);
    assert_eq!(bodies(&node.wait_records(1)), ["late"]);
    only_the_live_line_comes(&node, &agent, &container, "third");
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
}

/// Scenario: a rotated file was read to its end before a restart; then a line is written to it.
/// Guarantees: the line comes.
#[test]
fn a_late_line_of_a_file_that_was_finished_before_a_restart_is_read() {
    let node = Node::new();
    let container = node.container("a");
    let (agent, rotated) = start_with_closed(&node, &container);
    agent.stop();
    let agent = node.start();
    only_the_live_line_comes(&node, &agent, &container, "live");
    append(&rotated, cri("late"));
    assert_eq!(bodies(&node.wait_records(1)), ["late"]);
    assert_eq!(agent.metrics.late_files.get(), 1);
    agent.stop();
}

/// Writes over the length that an archive says it holds, as one that is cut says anything.
fn say_length(archive: &Path, bytes: u32) {
    let mut content = fs::read(archive).unwrap();
    let at = content.len() - 4;
    content[at..].copy_from_slice(&bytes.to_le_bytes());
    fs::write(archive, content).unwrap();
}

/// Scenario: a rotated file was read to its end; its archive is damaged and says that it holds more. Another
/// damaged archive was never read in any other form. The agent starts again beside both.
/// Guarantees: the first is no late file and no loss. The second is read as far as can be, and counted as
/// lost once, not at each start; nothing of either is said to be at risk.
#[test]
fn the_length_that_a_damaged_archive_says_is_not_believed() {
    let node = Node::new();
    let (container, other) = (node.container("a"), node.container("b"));
    append(&container.join("0.log"), lines("a", 20));
    append(&other.join("0.log"), lines("b", 20));
    let damaged = compress(&rotate(&other, "20260101-000000"));
    say_length(&damaged, lines("b", 20).len() as u32 + 1_000);
    let agent = node.start();
    node.wait_records(40);
    wait_until("the damage is seen", || agent.metrics.lost_files.get() == 1);
    let rotated = rotate(&container, "20260101-000000");
    only_the_live_line_comes(&node, &agent, &container, "live");
    wait_until("the rotated file is closed", || agent.metrics.open_files.get() == 2);
    // It appears as it is.
    let content = fs::read(&rotated).unwrap();
    let archive = compress(&rotated);
    let hidden = node.path("archive");
    fs::rename(&archive, &hidden).unwrap();
    say_length(&hidden, content.len() as u32 + 70);
    fs::rename(&hidden, &archive).unwrap();
    rotate(&container, "20260101-000010");
    only_the_live_line_comes(&node, &agent, &container, "more");
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.late_files.get(), metrics.lost_files.get()), (0, 1));
    let agent = node.start();
    only_the_live_line_comes(&node, &agent, &container, "last");
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.lost_files.get(), metrics.file_errors.get()), (0, 0));
    assert_eq!(metrics.bytes_at_risk.get(), 0);
    fs::remove_file(damaged).unwrap();
    let agent = node.start();
    only_the_live_line_comes(&node, &agent, &container, "the end");
    assert_eq!(agent.metrics.lost(LossReason::NoAgent).get(), 0);
    agent.stop();
}

/// Scenario: while a line of the live file is open, fragments are written to a rotated file, more than one
/// read takes, and their end.
/// Guarantees: each is one record.
#[test]
fn a_late_line_in_fragments_is_one_record_over_several_reads() {
    let node = Node::new();
    let container = node.container("a");
    let live = container.join("0.log");
    append(&live, lines("a", 20));
    let yaml = node.yaml("compression: zstd", "workers: 1");
    let agent = node.start_yaml(
        &yaml.replace("start_at: beginning", "start_at: beginning\n    max_log_size: 1MiB"),
    );
    node.wait_records(20);
    let rotated = rotate(&container, "20260101-000000");
    append(&live, cri("live"));
    node.wait_records(1);
    wait_until("the rotated file is closed", || agent.metrics.open_files.get() == 1);
    append(&live, cri_partial("stdout", "begun "));
    wait_until("the fragment is read", || agent.metrics.queued_partial.get().0 == 1);
    let fragment = "x".repeat(16 << 10);
    let late = cri_partial("stdout", &fragment).repeat(40) + &cri("end");
    append(&rotated, late);
    let mut found = bodies(&node.wait_records(1));
    append(&live, cri("ended"));
    found.extend(bodies(&node.wait_records(1)));
    found.sort_by_key(String::len);
    assert_eq!(found[0], "begun ended");
    assert!(found[1] == fragment.repeat(40) + "end", "{} bytes", found[1].len());
    agent.stop();
}

/// Scenario: the sink takes nothing; a file without a name is closed with its rest unread because it holds
/// more than all such files may. The agent starts again.
/// Guarantees: what was not read is counted as lost once.
#[test]
fn what_a_budget_closed_is_not_lost_again_at_the_next_start() {
    let node = Node::new();
    let container = node.container("a");
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    let budget = "request_bytes_max: 128KiB, in_flight_bytes_max: 256KiB, shutdown_timeout: 100ms, \
                  deleted_files_bytes_max: 1MiB, workers: 1";
    let yaml = node.yaml("compression: none", budget);
    let yaml = yaml.replace("start_at: beginning", "start_at: beginning\n    max_log_size: 32KiB");
    let agent = node.start_yaml(&yaml);
    append(&container.join("0.log"), lines("a", 60_000));
    wait_until("it is read", || agent.metrics.queued_request.get().1 > 100_000);
    fs::remove_dir_all(&container).unwrap();
    wait_until("it is closed", || agent.metrics.lost(LossReason::DeletedFilesBudget).get() > 0);
    // Killed: nothing is said of it at the end.
    let checkpoint = node.path("state");
    let copy = node.path("copy");
    let mut last = Vec::new();
    wait_until("its checkpoint is written", || {
        let now = snapshot_of(&checkpoint);
        let is_settled = now == last;
        last = now;
        std::thread::sleep(Duration::from_millis(700));
        is_settled
    });
    copy_tree(&checkpoint, &copy);
    agent.stop();
    fs::remove_dir_all(&checkpoint).unwrap();
    fs::rename(&copy, &checkpoint).unwrap();
    let agent = node.start_yaml(&yaml);
    wait_until("its checkpoint is withdrawn", || agent.metrics.lost_files.get() == 1);
    // What was read and not settled is lost with the agent, but nothing that was counted before.
    assert!(agent.metrics.lost(LossReason::NoAgent).get() < 1_000_000);
    agent.stop();
}

fn snapshot_of(directory: &Path) -> Vec<u8> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files.iter().flat_map(|path| fs::read(path).unwrap_or_default()).collect()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &name);
        } else {
            fs::copy(&path, name).unwrap();
        }
    }
}

/// Scenario: the first start, with `start_at: end`, is killed once the state is there, without any file;
/// before the next one a file is renamed to a name that matches, and lines are written to a new one.
/// Guarantees: what was there at the first start comes never, what was written since comes once. Once the first
/// start is over, nothing of it is left in the state.
#[test]
fn what_was_there_at_a_first_start_that_was_cut_short_is_passed_over() {
    let node = Node::new();
    let logs = node.path("logs");
    fs::create_dir(&logs).unwrap();
    let pods = node.path("pods").display().to_string();
    let yaml = node
        .yaml("compression: none", "workers: 1")
        .replace(&format!("{pods}/*/*/*.log"), &logs.join("*.log").display().to_string())
        .replace("    operators: [{type: container}]\n", "")
        .replace("start_at: beginning", "start_at: end");
    let config = write_config(&node, &yaml);
    append(&logs.join("app.log"), "old\n".repeat(100));
    append(&logs.join("other.log"), "old\n".repeat(100));
    // A file that is as old as the tick in which the agent starts may be new.
    std::thread::sleep(Duration::from_millis(30));
    let mut agent = Program::start_armed(&config, "checkpoint_directory_synced:1");
    agent.status();
    fs::rename(logs.join("app.log"), logs.join("app-1.log")).unwrap();
    append(&logs.join("app.log"), "new\n");
    let agent = node.start_yaml(&yaml);
    assert_eq!(bodies(&node.wait_records(1)), ["new"]);
    append(&logs.join("app-1.log"), "late\n");
    assert_eq!(bodies(&node.wait_records(1)), ["late"]);
    wait_until("it is over", || !node.path("state").join("first_start").exists());
    agent.stop();
    assert!(node.take_records().is_empty());
}
