//! The program as a process, and what it says.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::export::PATIENCE;

/// A running program; killed when a test ends early.
pub(crate) struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// What it said so far, as far as it was listened to.
    pub(crate) seen: Vec<String>,
}

impl Program {
    pub(crate) fn start(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thyme-agent"));
        command.arg("--config").arg(config).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits until its log says something.
    pub(crate) fn says(&mut self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {part:?} in {:#?}", self.seen)
            };
            self.seen.push(line);
            if self.seen.last().unwrap().contains(part) {
                return;
            }
        }
    }

    /// Stops it as Kubernetes does, and returns its whole log.
    pub(crate) fn stop(mut self) -> Vec<String> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.seen.extend(self.lines.iter());
        std::mem::take(&mut self.seen)
    }

    /// The most memory that it ever had, bytes.
    pub(crate) fn peak_rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
