//! Files that are renamed to a name that the receiver includes too, as logrotate and loggers do.

use std::{fs, path::Path};

use nop_collector::Fault;
use thyme_agent::metrics::LossReason;

use crate::{
    node::{Node, append, wait_until},
    program::{Program, write_config},
    unseen::state_says,
};

/// A receiver of lines as they are, in a directory of its own.
fn yaml(node: &Node, include: &str) -> String {
    let yaml = node.yaml("compression: none", "workers: 2");
    let include = node.path(include).display().to_string();
    let pods = node.path("pods").display().to_string();
    yaml.replace(&format!("{pods}/*/*/*.log"), &include)
        .replace("    operators: [{type: container}]\n", "")
}

fn texts(node: &Node, count: usize) -> Vec<String> {
    let records = node.wait_records(count);
    let mut texts: Vec<String> = records.iter().map(|record| record.text().to_owned()).collect();
    texts.sort();
    texts
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("line {number:04}\n")).collect()
}

fn expected(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("line {number:04}")).collect()
}

/// Scenario: row 41. A logger renames its file to a dated name that the pattern matches and begins a new
/// one: while the agent runs, then while it is stopped, with lines that it has not read in both files.
/// Guarantees: each line comes once, with the name of the live file; nothing counts as lost.
#[test]
fn a_file_with_a_new_name_that_matches_is_the_same_file() {
    let node = Node::new();
    let directory = node.path("logs");
    fs::create_dir(&directory).unwrap();
    let live = directory.join("app.log");
    let yaml = yaml(&node, "logs/*.log");
    append(&live, lines(0..3));
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&node, 3), expected(0..3));
    fs::rename(&live, directory.join("app-2026-01-02.log")).unwrap();
    append(&live, lines(3..4));
    assert_eq!(texts(&node, 1), expected(3..4));
    // Its writer has not closed it yet.
    append(&directory.join("app-2026-01-02.log"), lines(4..5));
    assert_eq!(texts(&node, 1), expected(4..5));
    agent.stop();
    append(&live, lines(5..7));
    fs::rename(&live, directory.join("app-2026-01-03.log")).unwrap();
    append(&live, lines(7..9));
    let agent = node.start_yaml(&yaml);
    let records = node.wait_records(4);
    let mut bodies: Vec<String> = records.iter().map(|record| record.text().to_owned()).collect();
    bodies.sort();
    assert_eq!(bodies, expected(5..9));
    for record in records {
        assert_eq!(record.attributes["log.file.name"], "app.log");
    }
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty());
}

/// `app.log.2` is removed, `app.log.1` and `app.log` take the next number.
fn rotate(directory: &Path) {
    let name = |number: u32| match number {
        0 => directory.join("app.log"),
        number => directory.join(format!("app.log.{number}")),
    };
    let _first = fs::remove_file(name(3));
    for number in (0..3).rev() {
        if name(number).exists() {
            fs::rename(name(number), name(number + 1)).unwrap();
        }
    }
}

/// Scenario: row 41. logrotate numbers its files, and the pattern matches all of them; the number of a
/// file that is removed is often that of the new one. The agent runs, or is stopped, at rotations.
/// Guarantees: each line comes once.
#[test]
fn numbered_files_that_match_are_read_once() {
    const LINES: u32 = 50;
    let node = Node::new();
    let directory = node.path("logs");
    fs::create_dir(&directory).unwrap();
    let yaml = yaml(&node, "logs/app.log*");
    let mut agent = node.start_yaml(&yaml);
    for round in 0..12 {
        let range = round * LINES..(round + 1) * LINES;
        append(&directory.join("app.log"), lines(range.clone()));
        if round % 4 == 3 {
            agent.stop();
            rotate(&directory);
            agent = node.start_yaml(&yaml);
        }
        assert_eq!(texts(&node, LINES as usize), expected(range), "round {round}");
        wait_until("it is settled", || agent.metrics.queued_request.get() == (0, 0));
        if round % 4 != 3 {
            rotate(&directory);
        }
    }
    agent.stop();
    assert!(node.take_records().is_empty());
}

/// Scenario: row 68. The pattern matches the live file only. It is renamed to a name that no pattern
/// matches: while the agent runs, then once it is killed with lines unread, then twice more. Each time lines
/// come late, also when the agent has closed the file.
/// Guarantees: each line comes once, with the name of the live file; nothing counts as lost. Another file of
/// such a name is not read.
#[test]
fn a_late_line_in_a_file_whose_new_name_no_pattern_matches_is_read() {
    let node = Node::new();
    let directory = node.path("logs");
    fs::create_dir(&directory).unwrap();
    let (live, first) = (directory.join("app.log"), directory.join("app.log.1"));
    let yaml = yaml(&node, "logs/app.log");
    append(&live, lines(0..3));
    append(&directory.join("app.log.9"), "of nobody\n");
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&node, 3), expected(0..3));
    fs::rename(&live, &first).unwrap();
    append(&live, lines(3..4));
    assert_eq!(texts(&node, 1), expected(3..4));
    wait_until("the renamed file is closed", || agent.metrics.open_files.get() == 1);
    append(&first, lines(4..5));
    assert_eq!(texts(&node, 1), expected(4..5));
    agent.stop();
    append(&live, lines(5..7));
    append(&first, lines(7..8));
    fs::rename(&first, directory.join("app.log.2")).unwrap();
    fs::rename(&live, &first).unwrap();
    append(&live, lines(8..9));
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&node, 4), expected(5..9));
    append(&first, lines(9..10));
    let records = node.wait_records(1);
    assert_eq!(records[0].text(), "line 0009");
    assert_eq!(records[0].attributes["log.file.name"], "app.log");
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty());
}

/// Scenario: row 68. A rotated file has a name that no pattern matches, and lines that the sink has not
/// accepted; the agent is killed, and the file removed.
/// Guarantees: they count as lost.
#[test]
fn a_file_whose_name_no_pattern_matches_is_counted_when_it_is_gone() {
    let node = Node::new();
    let directory = node.path("logs");
    fs::create_dir(&directory).unwrap();
    let (live, first) = (directory.join("app.log"), directory.join("app.log.1"));
    let yaml = yaml(&node, "logs/app.log");
    let config = write_config(&node, &yaml);
    append(&live, lines(0..3));
    let agent = Program::start(&config);
    texts(&node, 3);
    let settled = format!("\"offset\":{}", lines(0..3).len());
    wait_until("it is settled", || state_says(&node, &settled));
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    append(&live, lines(3..5));
    fs::rename(&live, &first).unwrap();
    append(&live, lines(5..6));
    wait_until("its new name is known", || state_says(&node, "\"app.log.1\""));
    agent.kill();
    fs::remove_file(&first).unwrap();
    node.collector.faults().clear();
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&node, 1), expected(5..6));
    wait_until("it is counted", || agent.metrics.lost_files.get() == 1);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost(LossReason::NoAgent).get(), lines(3..5).len() as u64);
}

/// Scenario: row 69. A file with two names that match from the start; a rotation by link and unlink; a second
/// name that lasts, given while the agent runs and while it is stopped.
/// Guarantees: each line comes once, and after the first name is gone the file is followed by its other one.
#[test]
fn a_file_with_several_names_is_read_once() {
    let node = Node::new();
    let directory = node.path("logs");
    fs::create_dir(&directory).unwrap();
    let at = |name: &str| directory.join(name);
    let yaml = yaml(&node, "logs/*.log");
    append(&at("app.log"), lines(0..3));
    fs::hard_link(at("app.log"), at("second.log")).unwrap();
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&node, 3), expected(0..3));
    fs::hard_link(at("app.log"), at("app-1.log")).unwrap();
    fs::remove_file(at("app.log")).unwrap();
    append(&at("app.log"), lines(3..5));
    assert_eq!(texts(&node, 2), expected(3..5));
    append(&at("second.log"), lines(5..6));
    assert_eq!(texts(&node, 1), expected(5..6));
    agent.stop();
    fs::hard_link(at("app.log"), at("a.log")).unwrap();
    append(&at("a.log"), lines(6..7));
    fs::remove_file(at("second.log")).unwrap();
    append(&at("app-1.log"), lines(7..8));
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&node, 2), expected(6..8));
    append(&at("app.log"), lines(8..9));
    assert_eq!(texts(&node, 1), expected(8..9));
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty(), "something came twice");
}

/// Scenario: row 76. The pattern matches what logrotate compresses too: the archive is empty at first, then
/// its content comes, and the plain file is removed. A file of such a name that holds text is there, too.
/// Guarantees: the archive is not read, and counted once; the text is.
#[test]
fn what_logrotate_compresses_is_not_read_as_text() {
    let node = Node::new();
    let directory = node.path("logs");
    fs::create_dir(&directory).unwrap();
    let at = |name: &str| directory.join(name);
    let yaml = yaml(&node, "logs/app.log*");
    append(&at("app.log"), lines(0..3));
    append(&at("app.log.text.gz"), lines(3..4));
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&node, 4), expected(0..4));
    fs::rename(at("app.log"), at("app.log.1")).unwrap();
    append(&at("app.log.1.gz"), "");
    append(&at("app.log"), lines(4..5));
    assert_eq!(texts(&node, 1), expected(4..5));
    append(&at("app.log.1.gz"), b"\x1f\x8b\x08 and what follows\n");
    fs::remove_file(at("app.log.1")).unwrap();
    wait_until("it is refused", || agent.metrics.refused_files.get() == 1);
    append(&at("app.log"), lines(5..6));
    assert_eq!(texts(&node, 1), expected(5..6));
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.refused_files.get(), metrics.lost_files.get()), (1, 0));
    assert!(node.take_records().is_empty());
}

/// Scenario: row 76. While no agent runs, logrotate's archive gets the number of a file that the state knows,
/// as ext4 gives a number away again at once.
/// Guarantees: the archive is not read, and counted once.
#[test]
fn an_archive_with_the_number_of_a_known_file_is_not_read_as_text() {
    let node = Node::new();
    let directory = node.path("logs");
    fs::create_dir(&directory).unwrap();
    let at = |name: &str| directory.join(name);
    let yaml = yaml(&node, "logs/app*");
    append(&at("app.log"), lines(0..3));
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&node, 3), expected(0..3));
    agent.stop();
    fs::rename(at("app.log"), at("app-other.gz")).unwrap();
    fs::write(at("app-other.gz"), b"\x1f\x8b\x08 and what follows\n").unwrap();
    append(&at("app.log"), lines(3..4));
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&node, 1), expected(3..4));
    wait_until("it is refused", || agent.metrics.refused_files.get() == 1);
    agent.stop();
    assert!(node.take_records().is_empty());
}
