//! Files that are damaged, full of holes, or still being written.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::node::{Node, Record, append, compress, cri, cri_partial, rotate, wait_until};

fn bodies(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

fn lines(count: usize) -> String {
    (0..count).map(|number| cri(&format!("line {number}"))).collect()
}

/// Makes an archive of these lines.
fn archive(container: &Path, time: &str, text: &str) -> std::path::PathBuf {
    append(&container.join("0.log"), text);
    let archive = compress(&rotate(container, time));
    append(&container.join("0.log"), "");
    archive
}

/// Scenario: row 50. Archives that are cut, damaged near their end, or have zeros or text behind them, as
/// `gzip` finds them on disk.
/// Guarantees: every line that `gzip -dc` gives comes. Damage is counted as a lost file; zeros are padding,
/// text is counted in bytes.
#[test]
fn an_error_at_the_end_takes_nothing_that_came_before() {
    const LINES: usize = 3_000;
    let node = Node::new();
    let text = lines(LINES);
    let (cut, zeros, trailer, damaged) =
        (node.container("a"), node.container("b"), node.container("c"), node.container("d"));
    let path = archive(&cut, "20260101-000000", &text);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
    // Nobody writes it any more.
    let written = SystemTime::now() - thyme_agent::limits::CUT_ARCHIVE_WAIT;
    File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
    let path = archive(&zeros, "20260101-000000", &text);
    append(&path, [0; 700]);
    let path = archive(&trailer, "20260101-000000", &text);
    append(&path, "appended by hand");
    let path = archive(&damaged, "20260101-000000", &text);
    let size_at = fs::metadata(&path).unwrap().len() - 4;
    File::options().write(true).open(&path).unwrap().write_all_at(&[0xff; 4], size_at).unwrap();

    let agent = node.start();
    let records = node.wait_records(4 * LINES);
    for pod in ["a", "b", "c", "d"] {
        let of_pod = records.iter().filter(|one| one.resource["k8s.pod.name"] == pod);
        assert!(of_pod.map(Record::text).eq((0..LINES).map(|number| format!("line {number}"))));
    }
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 2);
    assert_eq!(metrics.lost(thyme_agent::metrics::LossReason::ArchiveTrailer).get(), 16);
    assert_eq!(metrics.file_errors.get(), 2);
}

/// Reads on until a pod has so many lines.
fn lines_of_pods(node: &Node, records: &mut Vec<Record>, expected: [(&str, usize); 2]) {
    let count = |records: &[Record], pod: &str| {
        records.iter().filter(|one| one.resource["k8s.pod.name"] == pod).count()
    };
    wait_until(&format!("{expected:?}"), || {
        records.extend(node.take_records());
        expected.iter().all(|(pod, lines)| count(records, pod) >= *lines)
    });
}

/// Scenario: row 50. Beside live files two archives are written under their own names, in pieces: they are found
/// when one has no byte yet and the other a third. One has its rest while the agent runs, the other while none
/// does. The live files are written to meanwhile.
/// Guarantees: the live files don't wait; each line comes once, and none is malformed.
#[test]
fn an_archive_that_is_still_being_written_is_read_on() {
    const LINES: usize = 3_000;
    let node = Node::new();
    let other = Node::new();
    let text: String = (0..LINES).map(|one| cri(&format!("{:x}", one * one * 7919))).collect();
    let made = archive(&other.container("z"), "20260101-000000", &text);
    let bytes = fs::read(made).unwrap();
    let containers = ["a", "b"].map(|pod| node.container(pod));
    containers.iter().for_each(|one| append(&one.join("0.log"), cri("live")));
    let agent = node.start();
    let mut records = node.wait_records(2);
    let [first, second] = containers.each_ref().map(|one| one.join("0.log.20260101-000000.gz"));
    let (begin, rest) = bytes.split_at(bytes.len() / 3);
    append(&first, "");
    append(&second, begin);
    wait_until("the begun archive is read", || agent.metrics.archive_bytes.get() > 10_000);
    containers.iter().for_each(|one| append(&one.join("0.log"), cri("meanwhile")));
    lines_of_pods(&node, &mut records, [("a", 2), ("b", 200)]);
    bytes.chunks(bytes.len() / 8 + 1).for_each(|piece| append(&first, piece));
    lines_of_pods(&node, &mut records, [("a", LINES + 2), ("b", 200)]);
    agent.stop();
    records.extend(node.take_records());
    append(&second, rest);
    let agent = node.start();
    lines_of_pods(&node, &mut records, [("a", LINES + 2), ("b", LINES + 2)]);
    agent.stop();
    let mut expected: Vec<String> =
        (0..LINES).map(|one| format!("{:x}", one * one * 7919)).collect();
    expected.extend(["live".to_owned(), "meanwhile".to_owned()]);
    expected.sort();
    for pod in ["a", "b"] {
        let of_pod = records.iter().filter(|one| one.resource["k8s.pod.name"] == pod);
        let mut found: Vec<String> = of_pod.map(Record::text).collect();
        found.sort();
        assert_eq!(found, expected, "{pod}");
    }
}

/// Scenario: row 50. An archive without a byte, and half of one, are found just after they were written, and
/// stay as they are.
/// Guarantees: they are lost, but not before they had time to be written. What comes after that is read as well.
#[test]
fn an_archive_that_stays_cut_off_is_lost_after_a_while() {
    let node = Node::new();
    let [empty, half] = ["a", "b"].map(|pod| node.container(pod));
    let path = archive(&half, "20260101-000000", &lines(500));
    let bytes = fs::read(&path).unwrap();
    append(&empty.join("0.log"), "");
    let begun = Instant::now();
    append(&empty.join("0.log.20260101-000000.gz"), "");
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let agent = node.start();
    wait_until("both are lost", || agent.metrics.lost_files.get() == 2);
    assert!(begun.elapsed() >= thyme_agent::limits::CUT_ARCHIVE_WAIT);
    agent.stop();
    let read = node.take_records().len();
    fs::write(&path, &bytes).unwrap();
    let agent = node.start();
    // The line at the cut came in two pieces.
    node.wait_records(501 - read);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
}

/// Scenario: row 52. More archives than are decompressed at a time, in as many containers, of several
/// reads each; some have two.
/// Guarantees: each line comes once, in the order of its container.
#[test]
fn archives_wait_for_a_decoder() {
    const PODS: usize = 3 * thyme_agent::limits::DECODERS_MAX;
    const LINES: usize = 7_000;
    let node = Node::new();
    let text = lines(LINES);
    for pod in 0..PODS {
        let container = node.container(&format!("p{pod}"));
        archive(&container, "20260101-000000", &text);
        if pod % 5 == 0 {
            archive(&container, "20260101-000010", &cri("second"));
        }
    }
    let in_order = "compression: none\n    sending_queue: {num_consumers: 1}";
    let agent = node.start_with(in_order, "workers: 1");
    let seconds = PODS.div_ceil(5);
    let records = node.wait_records(PODS * LINES + seconds);
    assert_eq!(records.len(), PODS * LINES + seconds);
    for pod in 0..PODS {
        let name = format!("p{pod}");
        let of_pod = records.iter().filter(|one| one.resource["k8s.pod.name"] == name);
        let second = (pod % 5 == 0).then(|| "second".to_owned());
        let expected = (0..LINES).map(|number| format!("line {number}")).chain(second);
        assert!(of_pod.map(Record::text).eq(expected), "{name}");
    }
    agent.stop();
}

/// Appends the pieces with a pause after each; fails when the machine was too slow for the test to mean
/// anything.
fn write_slowly(path: &Path, pieces: &[&str], pause: Duration) -> bool {
    let mut is_in_time = true;
    for piece in pieces {
        append(path, *piece);
        let begun = Instant::now();
        std::thread::sleep(pause);
        is_in_time &= begun.elapsed() < thyme_agent::limits::UNTERMINATED_LINE_WAIT;
    }
    is_in_time
}

/// Scenario: row 51. After a silence that is longer than an unfinished line is waited for, a line is
/// written in pieces, with pauses that are shorter: of CRI and of docker, and a fragment's end. One of the
/// files is rotated meanwhile.
/// Guarantees: each is one record without a mark, and none is malformed.
#[test]
fn a_line_that_is_being_written_is_one_record() {
    let node = Node::new();
    let (plain, docker, chain, rotated) =
        (node.container("a"), node.container("b"), node.container("c"), node.container("d"));
    let containers = [&plain, &docker, &chain, &rotated].map(|one| one.join("0.log"));
    for path in &containers {
        append(path, cri("before"));
    }
    let agent = node.start();
    assert_eq!(node.wait_records(4).len(), 4);
    std::thread::sleep(thyme_agent::limits::UNTERMINATED_LINE_WAIT.mul_f64(1.3));
    let line = cri("i am not a full line");
    let (begin, end) = line.split_at(35);
    let (middle, end) = end.split_at(5);
    let log = r#"{"log":"i am not a full line\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}"#;
    append(&containers[2], cri_partial("stdout", "i am not "));
    let pause = Duration::from_millis(550);
    let fragment = cri("a full line");
    let is_in_time = std::thread::scope(|threads| {
        let writers = [
            threads.spawn(|| write_slowly(&containers[0], &[begin, middle, end], pause)),
            threads.spawn(|| {
                write_slowly(&containers[1], &[&log[..9], &log[9..40], &log[40..], "\n"], pause)
            }),
            threads
                .spawn(|| write_slowly(&containers[2], &[&fragment[..30], &fragment[30..]], pause)),
            threads.spawn(|| {
                let begun = write_slowly(&containers[3], &[begin], Duration::from_millis(200));
                let archive = rotate(&rotated, "20260101-000000");
                append(&containers[3], "");
                std::thread::sleep(Duration::from_millis(300));
                append(&archive, &line[35..]);
                begun
            }),
        ];
        writers.into_iter().map(|one| one.join().unwrap()).fold(true, |all, one| all & one)
    });
    if !is_in_time {
        // The machine paused for longer than a line is waited for: nothing is shown.
        return;
    }
    let records = node.wait_records(4);
    assert_eq!(bodies(&records), ["i am not a full line"; 4]);
    assert!(records.iter().all(|one| !one.attributes.keys().any(|key| key.starts_with("thyme."))));
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.malformed_lines.get(), metrics.split_records.get()), (0, 0));
}

/// Scenario: rows 11 and 51. A fragment; after most of the time that its end is waited for, the first half of
/// that is written, and the rest when the time is over, after a pause that is short for a line.
/// Guarantees: they are one record without a mark.
#[test]
fn a_chain_waits_for_a_fragment_that_is_being_written() {
    let node = Node::new();
    let path = node.container("a").join("0.log");
    append(&path, cri_partial("stdout", "begun "));
    let agent = node.start();
    wait_until("the fragment is read", || agent.metrics.queued_partial.get().0 == 1);
    let read_at = Instant::now();
    let wait = thyme_agent::limits::PARTIAL_LINE_WAIT;
    std::thread::sleep(wait - Duration::from_millis(350));
    let end = cri("ended");
    append(&path, &end[..40]);
    let is_in_time = read_at.elapsed() < wait - Duration::from_millis(100);
    std::thread::sleep(Duration::from_millis(800));
    append(&path, &end[40..]);
    if !is_in_time || read_at.elapsed() > wait + Duration::from_millis(600) {
        // The machine paused for too long: nothing is shown.
        return;
    }
    let records = node.wait_records(1);
    assert_eq!(bodies(&records), ["begun ended"]);
    assert!(!records[0].attributes.keys().any(|key| key.starts_with("thyme.")));
    agent.stop();
}

/// Scenario: row 63. A hole of 64 MiB before a line, as a crash or a writer that goes on at its old offset
/// leaves it, another one within a line, and NULs at the end.
/// Guarantees: a hole is no record. The line behind it is read, and what stood before it; all is
/// acknowledged, and the NULs are counted.
#[test]
fn a_hole_is_no_record() {
    const HOLE: u64 = 64 << 20;
    let node = Node::new();
    let path = node.container("a").join("0.log");
    let first = cri("first");
    append(&path, &first);
    let file = File::options().write(true).open(&path).unwrap();
    let torn = "2026-01-02T03:04:05Z stdout F torn";
    let begins = first.len() as u64 + HOLE;
    file.write_all_at((cri("second") + torn).as_bytes(), begins).unwrap();
    let torn_end = begins + cri("second").len() as u64 + torn.len() as u64;
    file.write_all_at(cri("third").as_bytes(), torn_end + HOLE).unwrap();
    let end = torn_end + HOLE + cri("third").len() as u64 + 5;
    file.set_len(end).unwrap();
    let agent = node.start();
    let mut records = Vec::new();
    wait_until("all is acknowledged", || {
        records.extend(node.take_records());
        agent.metrics.acknowledged.get().1 == end as i64
    });
    records.extend(node.take_records());
    assert_eq!(bodies(&records), ["first", "second", "torn", "third"]);
    assert!(records.iter().all(|one| one.attributes["log.iostream"] == "stdout"));
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.skipped_nuls.get(), 2 * HOLE + 5);
    assert_eq!(metrics.malformed_lines.get(), 0);
}

/// Scenario: a file begins with a byte order mark and is no container's; a pod's path is none that
/// Kubernetes could have made.
/// Guarantees: the mark is in no body, the path is counted.
#[test]
fn a_mark_is_no_text_and_a_refused_path_is_counted() {
    let node = Node::new();
    append(&node.container("Pod").join("0.log"), "\u{feff}first\n\u{feff}second\n");
    let yaml = node.yaml("compression: none", "workers: 1");
    let raw = yaml.replace("    operators: [{type: container}]\n", "");
    let agent = node.start_yaml(&raw);
    assert_eq!(bodies(&node.wait_records(2)), ["first", "\u{feff}second"]);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.refused_paths.get(), 0);
    fs::remove_dir_all(node.path("state")).unwrap();
    let agent = node.start_yaml(&yaml);
    assert_eq!(bodies(&node.wait_records(2)), ["first", "\u{feff}second"]);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.refused_paths.get(), 1);
}
