//! CRI files of pods: rate, layout, manifest, seeds and failures.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use thyme_core::cri::CriParser;
use thyme_core::stamp::Stamp;

use crate::logs::{content, count, files};
use crate::process::{Running, command, finished, manifest, report};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Scenario: two seconds at 3,000 lines a second over seven pods, a fifth on stderr.
/// Guarantees: exactly 6,000 lines in the time asked for, dealt out evenly, in the kubelet's layout
/// with the runtime's mode, as the manifest and the report say.
#[test]
fn an_exact_rate() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("pods");
    let stored = directory.path().join("manifest");
    let report = report(&[
        "--out",
        text(&root),
        "--pods",
        "7",
        "--rate",
        "3000",
        "--duration",
        "2",
        "--kind",
        "mixed",
        "--stderr-share",
        "0.2",
        "--manifest",
        text(&stored),
    ]);
    assert_eq!((&report["lines"], &report["end"]), (&6_000.into(), &"complete".into()));
    let elapsed = report["elapsed_seconds"].as_f64().unwrap();
    assert!((1.98..3.5).contains(&elapsed), "{elapsed}");
    let written = count(&root).manifest();
    assert_eq!(written, manifest(&fs::read_to_string(&stored).unwrap()));
    let mut by_pod = HashMap::new();
    let mut stderr = 0;
    for line in &written {
        *by_pod.entry(line.writer / 2).or_insert(0) += line.lines;
        stderr += if line.stream == "stderr" { line.lines } else { 0 };
    }
    assert!(by_pod.len() == 7 && by_pod.values().all(|lines| (857..=858).contains(lines)));
    assert!((1_000..1_400).contains(&stderr), "{stderr}");
    for path in files(&root) {
        let relative = path.strip_prefix(&root).unwrap();
        assert!(text(relative).starts_with("load_app-") && relative.ends_with("app/0.log"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
}

/// Scenario: the process is stopped for a while in the midst of a run.
/// Guarantees: the late lines are caught up with, all containers alike, and the rate over the whole
/// time is exact; stamps tell when lines were written, not when they were due.
#[test]
fn late_lines_are_caught_up_with() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(&[
        "--out",
        text(directory.path()),
        "--pods",
        "3",
        "--rate",
        "2000",
        "--lines",
        "6000",
        "--linger",
    ]);
    running.wait_for("log_generator_lines_total", 500.0);
    running.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(700));
    running.signal(Signal::CONT);
    running.wait_for("log_generator_lines_total", 6_000.0);
    crate::process::wait_until("the end", || running.metric("log_generator_writing") == 0.0);
    let report = running.terminate();
    let achieved = report["rate_achieved_lines_per_second"].as_f64().unwrap();
    assert!((1_600.0..2_010.0).contains(&achieved), "{achieved}");
    assert!(report["late_lines_max"].as_u64().unwrap() > 1_000);
    let lines = count(directory.path()).manifest();
    assert!(lines.iter().all(|line| line.lines == 2_000));
    let times: Vec<u64> = stamps(&files(directory.path())[0]).map(|s| s.time_unix_nano).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest > 600_000_000, "the pause shows in the stamps: {longest}");
}

/// Scenario: bodies around and above the limit of fragments.
/// Guarantees: read back and joined, every line is there with a size in the range; times in the
/// stamps are close to those of the CRI lines.
#[test]
fn long_lines_in_fragments() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--rate", "0", "--lines", "200", "--size", "100..60000"];
    let report = report(&[&["--out", text(directory.path())], &arguments[..]].concat());
    assert_eq!(report["lines"], 200);
    let written = count(directory.path()).manifest();
    assert_eq!((written[0].lines, &written[0].bytes.into()), (200, &report["body_bytes"]));
    let bytes = content(&files(directory.path())[0]);
    let mut parser = CriParser::default();
    let lines = bytes.split(|&byte| byte == b'\n').filter_map(|line| parser.parse(line));
    let partial = lines.filter(|line| line.is_partial()).count();
    assert!(partial > 100, "{partial}");
}

/// Scenario: two runs of one seed at different paces, and one of another seed.
/// Guarantees: the same names and the same texts, other ones for the other seed.
#[test]
fn seeds_are_reproducible() {
    let run = |seed: &str, rate: &str| {
        let directory = tempfile::tempdir().unwrap();
        let out = ["--out", text(directory.path()), "--pods", "2", "--stderr-share", "0.3"];
        report(&[&out[..], &["--seed", seed, "--rate", rate, "--lines", "300"]].concat());
        let text_of = |path: std::path::PathBuf| {
            let name = path.strip_prefix(directory.path()).unwrap().to_owned();
            let bytes = content(&path);
            let mut parser = CriParser::default();
            let lines = bytes.split(|&byte| byte == b'\n').filter_map(|line| parser.parse(line));
            let bodies: Vec<Vec<u8>> = lines
                .map(|line| {
                    let stamp = Stamp::find(line.body).unwrap();
                    let time = format!("{:016x}", stamp.time_unix_nano);
                    String::from_utf8_lossy(line.body).replace(&time, "time").into_bytes()
                })
                .collect();
            (name, bodies)
        };
        files(directory.path()).into_iter().map(text_of).collect::<Vec<_>>()
    };
    let one = run("5", "0");
    assert_eq!(one, run("5", "2000"));
    assert_ne!(one, run("6", "0"));
}

/// Scenario: a run adds to the files of an earlier one of the same seed and run id, and then one
/// file is a full disk.
/// Guarantees: the failure names the file and ends the run with a bad status; the manifest holds
/// what the other files got and nothing for this one.
#[test]
fn a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("pods");
    let stored = directory.path().join("manifest");
    let arguments = ["--out", text(&root), "--pods", "3", "--seed", "1", "--rate", "0"];
    report(&[&arguments[..], &["--lines", "0"]].concat());
    let full = files(&root).remove(1);
    fs::remove_file(&full).unwrap();
    symlink("/dev/full", &full).unwrap();
    let output =
        finished(&[&arguments[..], &["--lines", "3000", "--manifest", text(&stored)]].concat());
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains(text(&full)) && stderr.contains("space"), "{stderr}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["end"], &report["write_errors"]), (&"error".into(), &1.into()));
    fs::remove_file(&full).unwrap();
    let written = count(&root).unfinished_manifest();
    assert_eq!(written, manifest(&fs::read_to_string(&stored).unwrap()));
    assert_eq!(written.iter().map(|line| line.lines).sum::<u64>(), report["lines"]);
}

fn stamps(path: &Path) -> impl Iterator<Item = Stamp> {
    let bytes = content(path);
    let stamps: Vec<Stamp> = bytes.split(|&byte| byte == b'\n').filter_map(Stamp::find).collect();
    stamps.into_iter()
}

/// Scenario: forty pods start within two seconds, live for 50 ms each, and their directories go half
/// a second after their end; another run leaves the directories.
/// Guarantees: each pod writes its share and ends each writer; directories come, and in the end none
/// is left; where they stay, they hold what the manifest says.
#[test]
fn pods_come_and_go() {
    let churn = ["--pods", "40", "--rate", "200", "--duration", "2", "--lifetime", "50ms"];
    let directory = tempfile::tempdir().unwrap();
    let gone = directory.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let stored = directory.path().join("manifest");
    let arguments = ["--out", text(&gone), "--removed-after", "500ms"];
    let stored_in = ["--manifest", text(&stored)];
    let running = command(&[&arguments[..], &stored_in, &churn].concat()).spawn().unwrap();
    let watched = std::thread::spawn(move || running.wait_with_output().unwrap());
    let mut most = 0;
    while !watched.is_finished() {
        most = most.max(fs::read_dir(&gone).unwrap().count());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(watched.join().unwrap().status.success());
    assert!(most > 0, "directories are there for a while");
    assert_eq!(fs::read_dir(&gone).unwrap().count(), 0);
    let written = manifest(&fs::read_to_string(&stored).unwrap());
    assert_eq!(written.iter().map(|line| line.lines).collect::<Vec<_>>(), [10; 40]);

    let stay = directory.path().join("stay");
    report(&[&["--out", text(&stay)][..], &stored_in, &churn].concat());
    assert_eq!(count(&stay).manifest(), manifest(&fs::read_to_string(&stored).unwrap()));
}
