//! Lines on stdout: nothing but lines, whatever happens.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::logs::count_raw;
use crate::process::{command, finished, manifest};

/// Scenario: a thousand lines of each kind as fast as possible.
/// Guarantees: stdout holds these lines and nothing else, stderr nothing at all, the manifest is
/// exact, and the last line is the end.
#[test]
fn only_lines() {
    for kind in ["random", "json", "access", "mixed"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifest");
        let output = finished(&[
            "--rate",
            "0",
            "--lines",
            "1000",
            "--kind",
            kind,
            "--writer",
            "77",
            "--manifest",
            path.to_str().unwrap(),
        ]);
        assert!(output.status.success() && output.stderr.is_empty());
        let written = count_raw(&output.stdout).manifest();
        assert_eq!((written[0].lines, written[0].writer), (1_000, 77));
        assert_eq!(manifest(&fs::read_to_string(path).unwrap()), written);
    }
}

/// Scenario: who reads takes one line and goes, as `head -1` does.
/// Guarantees: a quiet end with status 0.
#[test]
fn a_closed_pipe() {
    let mut child = command(&["--rate", "0"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
}

/// Scenario: stdout is a full disk.
/// Guarantees: a bad status, a manifest that claims nothing, and still nothing on stderr, which
/// would be a log too.
#[test]
fn a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manifest");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = command(&["--lines", "10", "--manifest", path.to_str().unwrap()]);
    let output = command.stdout(full).spawn().unwrap().wait_with_output().unwrap();
    assert!(!output.status.success() && output.stderr.is_empty());
    assert_eq!(fs::read_to_string(path).unwrap(), "");
}

/// Scenario: an endless run gets SIGTERM, and another SIGINT.
/// Guarantees: one more line, the end, then status 0 and an exact manifest.
#[test]
fn a_signal_ends_it_properly() {
    for signal in [Signal::TERM, Signal::INT] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifest");
        let arguments = ["--rate", "500", "--manifest", path.to_str().unwrap()];
        let mut child = command(&arguments).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        stdout.read_until(b'\n', &mut lines).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        stdout.read_to_end(&mut lines).unwrap();
        assert!(child.wait().unwrap().success());
        let stored = manifest(&fs::read_to_string(path).unwrap());
        assert_eq!(stored, count_raw(&lines).manifest());
    }
}

/// Scenario: nobody reads the pipe, so the writer can't go on; two SIGTERM come.
/// Guarantees: the process ends all the same, and its status says that lines are missing.
#[test]
fn a_stuck_pipe_does_not_hold_the_process() {
    let mut child = command(&["--rate", "0"]).stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    // The second signal must not merge with the first, which is taken within a moment.
    while child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(50));
        kill_process(pid, Signal::TERM).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

/// Scenario: options that concern files, with stdout.
/// Guarantees: they are refused before the first line, with a usage error that names them.
#[test]
fn options_without_meaning() {
    let output = finished(&["--rotate-files", "3"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--rotate-files"));
}
