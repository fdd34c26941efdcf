//! Identities of records, over everything that happens to files and agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::node::{Agent, Node, Record, append, compress, cri, cri_partial, rotate, wait_until};

const CONTAINER: &str = "    operators: [{type: container}]\n";

fn start(node: &Node, is_container: bool) -> Agent {
    let yaml = node
        .yaml("compression: zstd", "workers: 1, record_uid: true")
        .replace("start_at: beginning", "start_at: beginning\n    max_log_size: 1KiB");
    let yaml = if is_container { yaml } else { yaml.replace(CONTAINER, "") };
    node.start_yaml(&yaml)
}

fn uid(record: &Record) -> String {
    record.attributes["log.record.uid"].clone()
}

/// Identities and bodies, without order; each identity once.
fn by_uid(records: &[Record]) -> BTreeMap<String, String> {
    let found: BTreeMap<_, _> = records.iter().map(|one| (uid(one), one.text())).collect();
    assert_eq!(found.len(), records.len(), "an identity came twice: {records:#?}");
    found
}

fn docker(body: &str) -> String {
    let time = "2026-01-02T03:04:05.678901234Z";
    format!("{{\"log\":\"{body}\\n\",\"stream\":\"stderr\",\"time\":\"{time}\"}}\n")
}

/// One of each kind of line, all of the file `name`.
fn all_kinds(name: &str) -> String {
    [
        cri(name),
        docker(&format!("docker {name}")),
        docker(&format!("docker {name}")),
        format!("malformed {name}\n"),
        cri("the same in each file"),
        cri(&"long ".repeat(500)),
        cri_partial("stderr", "joined ") + &cri("here").replace("stdout", "stderr"),
    ]
    .concat()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Scenario: rows 4, 8, 12 and 15. Two pods write lines of all kinds into two files, one line of
/// them joined over both. All of it is delivered, but as after a kill nothing of that is in a
/// checkpoint. Meanwhile files were rotated, and one was compressed.
/// Guarantees: everything comes again under the identity that it had, and no two records have the
/// same.
#[test]
fn identities_survive_a_kill_without_any_checkpoint() {
    let node = Node::new();
    for pod in ["a", "b"] {
        let container = node.container(pod);
        append(&container.join("0.log"), all_kinds("one") + &cri_partial("stdout", "begun "));
        rotate(&container, "20260101-000000");
        append(&container.join("0.log"), cri("ended") + &all_kinds("two"));
    }
    // Seven lines of a file are nine records, as the long one is three; and the joined one.
    let count = 2 * (2 * 9 + 1);
    let agent = start(&node, true);
    let first = by_uid(&node.wait_records(count));
    agent.stop();
    assert!(first.values().any(|body| body == "begun ended"));
    fs::remove_dir_all(node.path("state")).unwrap();
    for pod in ["a", "b"] {
        let container = node.container(pod);
        compress(&container.join("0.log.20260101-000000"));
        rotate(&container, "20260101-000010");
        append(&container.join("0.log"), cri("three"));
    }
    let agent = start(&node, true);
    let mut again = node.wait_records(count + 2);
    agent.stop();
    again.retain(|record| record.text() != "three");
    assert_eq!(by_uid(&again), first);
}

/// Scenario: row 15. Lines without a time are delivered, and the agent is killed before their
/// acknowledgement is in a checkpoint; only the beginning of the file is. The file is rotated and
/// compressed before the next start.
/// Guarantees: the lines come again under their identities, which the checkpoint has kept: they
/// can't be derived from an archive.
#[test]
fn identities_of_plain_text_are_kept_in_the_checkpoint() {
    let node = Node::new();
    let container = node.container("a");
    append(&container.join("0.log"), "equal\n");
    let agent = start(&node, false);
    let mut first = node.wait_records(1);
    let state = node.path("state");
    wait_until("the identity is kept", || {
        // It is in the snapshot, or in the journal of what has changed since.
        let files = fs::read_dir(&state).into_iter().flatten().filter_map(Result::ok);
        files
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .any(|text| text.contains("\"uid\""))
    });
    let early = node.path("early");
    copy_directory(&state, &early);
    append(&container.join("0.log"), "equal\nequal\n");
    first.extend(node.wait_records(2));
    agent.stop();
    let first = by_uid(&first);
    fs::remove_dir_all(&state).unwrap();
    copy_directory(&early, &state);
    compress(&rotate(&container, "20260101-000000"));
    let agent = start(&node, false);
    wait_until("the file is read", || agent.metrics.read.get().0 >= 2);
    let again = by_uid(&node.wait_records(2));
    agent.stop();
    assert!(again.keys().all(|uid| first.contains_key(uid)), "{again:?} of {first:?}");
}

/// Scenario: rows 5, 6 and 7. The same lines come from two pods, after a restart of the container,
/// after a rotation, and twice after the file was truncated in place; with a runtime's format and as
/// plain text. Then the file is deleted and written anew, perhaps with the same inode.
/// Guarantees: every record has an identity of its own.
#[test]
fn equal_lines_are_told_apart() {
    for is_container in [true, false] {
        let node = Node::new();
        let (container, other) = (node.container("a"), node.container("b"));
        let line = cri("equal");
        let live = container.join("0.log");
        let agent = start(&node, is_container);
        let mut records = Vec::new();
        for path in [live.clone(), container.join("1.log"), other.join("0.log")] {
            append(&path, line.repeat(5));
            records.extend(node.wait_records(5));
        }
        for lines in [4, 3] {
            fs::write(&live, line.repeat(lines)).unwrap();
            records.extend(node.wait_records(lines));
        }
        assert_eq!(agent.metrics.truncated_files.get(), 2);
        rotate(&container, "20260101-000000");
        append(&live, line.repeat(5));
        records.extend(node.wait_records(5));
        fs::remove_file(&live).unwrap();
        append(&live, line.repeat(6));
        records.extend(node.wait_records(6));
        agent.stop();
        assert_eq!(by_uid(&records).len(), 33);
    }
}

/// Scenario: the default configuration.
/// Guarantees: no record carries an identity; the one that asks for it sends nothing else besides.
#[test]
fn identities_are_opt_in() {
    let mut found = Vec::new();
    for wants_uid in [false, true] {
        let node = Node::new();
        append(&node.container("a").join("0.log"), all_kinds("one"));
        let agent = if wants_uid { start(&node, true) } else { node.start() };
        let records = node.wait_records(if wants_uid { 9 } else { 7 });
        agent.stop();
        found.push(records);
    }
    let keys = |records: &[Record]| -> BTreeSet<String> {
        records[0].attributes.keys().cloned().collect()
    };
    let (plain, mut with) = (keys(&found[0]), keys(&found[1]));
    assert!(found[0].iter().all(|record| !record.attributes.contains_key("log.record.uid")));
    assert!(with.remove("log.record.uid"));
    assert_eq!(plain, with);
}
