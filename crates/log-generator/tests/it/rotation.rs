//! The kubelet's rotation under a running writer: test part K of failure-modes.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::logs::{content, count, files};
use crate::process::{Running, manifest, report, wait_until};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn archives(root: &Path) -> Vec<PathBuf> {
    let is_archive = |path: &PathBuf| path.file_name().is_some_and(|name| name != "0.log");
    files(root).into_iter().filter(is_archive).collect()
}

/// Scenario: failure-modes.md rows 1 and 4: three pods write for a few seconds while their files are
/// rotated every second, with room for all archives; then the writing is stopped.
/// Guarantees: over archives, compressed or not, and live files every line is there once, as the
/// manifest says; names are the kubelet's, and the newest archive of each pod is plain.
#[test]
fn rows_1_and_4_every_line_once_over_all_archives() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let arguments = ["--pods", "3", "--rate", "3000", "--stderr-share", "0.1"];
    let rotation = ["--rotate-size", "20KiB", "--rotate-files", "1000", "--rotate-interval", "1s"];
    let running = Running::start(&[&["--out", text(root)], &arguments[..], &rotation[..]].concat());
    running.wait_for("log_generator_rotations_total", 9.0);
    let (status, body) = running.request("POST", "/stop");
    assert_eq!(status, 200);
    wait_until("compression", || {
        archives(root).iter().filter(|path| text(path).ends_with(".gz")).count() >= 6
            && !archives(root).iter().any(|path| text(path).ends_with(".tmp"))
    });
    let report = running.terminate();
    assert_eq!(count(root).manifest(), manifest(&body));
    assert_eq!((&report["archives_removed"], &report["rotation_errors"]), (&0.into(), &0.into()));
    assert_eq!(archives(root).len() as u64, report["rotations"].as_u64().unwrap());
    let mut pods_with_plain = BTreeSet::new();
    for path in archives(root) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (time, ending) = name.strip_prefix("0.log.").unwrap().split_at(15);
        assert!(time.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'-',
            _ => byte.is_ascii_digit(),
        }));
        assert!(matches!(ending, "" | ".gz"), "{name}");
        if ending.is_empty() {
            assert!(pods_with_plain.insert(path.parent().unwrap().to_owned()), "one plain a pod");
        }
    }
    assert_eq!(pods_with_plain.len(), 3);
    assert!(pods_with_plain.iter().all(|pod| pod.join("0.log").exists()), "reopened to the last");
}

/// Scenario: rotations with room for three files a container.
/// Guarantees: never more archives than that allows, and the oldest are those that went.
#[test]
fn the_oldest_archives_go() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let rotation = ["--rotate-size", "10KiB", "--rotate-files", "3", "--rotate-interval", "300ms"];
    let running =
        Running::start(&[&["--out", text(root), "--rate", "2000"], &rotation[..]].concat());
    running.wait_for("log_generator_rotations_total", 4.0);
    let stored: u64 = running.metric("log_generator_archives_removed_total") as u64;
    assert!(stored >= 2);
    running.request("POST", "/stop");
    wait_until("compression", || !files(root).iter().any(|path| text(path).ends_with(".tmp")));
    assert!(archives(root).len() <= 2, "{:?}", archives(root));
    running.terminate();
}

/// Scenario: failure-modes.md row 8: every line is cut into fragments, and the rotation comes
/// between a `P` and its `F`.
/// Guarantees: each archive ends with a `P` line, its `F` begins the next file, and joined over the
/// files every line is there once.
#[test]
fn row_8_rotation_between_partials() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let lines = ["--rate", "200", "--size", "20000..40000", "--rotate-between-partials"];
    let rotation = ["--rotate-size", "1", "--rotate-files", "1000", "--rotate-interval", "500ms"];
    let running = Running::start(&[&["--out", text(root)], &lines[..], &rotation[..]].concat());
    running.wait_for("log_generator_rotations_total", 2.0);
    let (_, body) = running.request("POST", "/stop");
    running.terminate();
    assert_eq!(count(root).manifest(), manifest(&body));
    let partial_ends = archives(root).iter().filter(|path| ends_with_partial(path)).count();
    assert!(partial_ends >= 1, "{partial_ends}");
}

fn ends_with_partial(path: &Path) -> bool {
    let bytes = content(path);
    let last = bytes.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap();
    last.windows(10).any(|window| window == b" stdout P ")
}

/// Scenario: rotation is switched off.
/// Guarantees: the live file grows, whatever its size.
#[test]
fn rotation_off() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--rate", "0", "--lines", "50000", "--rotate-size", "0"];
    let start = std::time::Instant::now();
    let report = report(&[&["--out", text(directory.path())], &arguments[..]].concat());
    assert_eq!(report["rotations"], 0);
    assert_eq!(files(directory.path()).len(), 1);
    assert!(start.elapsed() < Duration::from_secs(30), "threads end with the writer");
}
