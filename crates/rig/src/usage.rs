//! Processor time, memory and open files of a process group, from `/proc`. Only numbers are taken here; what
//! they mean for a run is decided elsewhere.

use rustix::process::Pid;
use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Unit of times in `/proc/PID/stat`: Linux shows user space 100 ticks a second, whatever the kernel
/// counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the kernel adds to the name of a file that has none any more, proc_pid_fd(5).
const DELETED: &[u8] = b" (deleted)";

/// What a process group has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time, in seconds: of all threads, and of all children that were waited for.
    pub cpu_seconds: f64,
    /// Resident memory now, in bytes, summed over the processes; shared pages count once for each.
    pub rss_bytes: u64,
    /// Largest resident memory of each process so far, summed, in bytes. Exact for one process, an
    /// upper bound for several. A process that has ended no longer says it.
    pub rss_peak_bytes: u64,
}

/// Adds up the processes of a group, zombies included: an ended leader that nobody waited for yet
/// still says its time.
///
/// Processes that come or go meanwhile are counted or not; nothing fails. One that left the group
/// (a daemon) is not seen.
pub fn group_usage(group: Pid) -> Usage {
    let mut total = Usage::default();
    for (pid, stat) in processes(group) {
        total.cpu_seconds += stat.cpu_ticks as f64 / TICKS_PER_SECOND;
        if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            total.rss_bytes += parse_status_kib(&status, "VmRSS:") << 10;
            total.rss_peak_bytes += parse_status_kib(&status, "VmHWM:") << 10;
        }
    }
    total
}

/// How many descriptors the processes of a group have. Cheap where the kernel (since Linux 6.2) says
/// the number.
pub fn descriptors(group: Pid) -> usize {
    let count = |(pid, _)| {
        let directory = format!("/proc/{pid}/fd");
        match fs::metadata(&directory).map(|metadata| metadata.len()) {
            Ok(0) => fs::read_dir(&directory).map_or(0, |entries| entries.count()),
            Ok(number) => number as usize,
            Err(_ended) => 0,
        }
    };
    processes(group).into_iter().map(count).sum()
}

/// How many files below a directory the processes of a group hold open, deleted ones included.
/// Costs a system call for each descriptor.
pub fn open_files(group: Pid, below: &Path) -> usize {
    held_files(group, below).count()
}

/// The same for those that have no name any more.
pub fn deleted_files(group: Pid, below: &Path) -> usize {
    held_files(group, below).filter(|file| file.as_os_str().as_bytes().ends_with(DELETED)).count()
}

/// Files below a directory that the processes of a group hold open, by the names that they have, or
/// had when they were deleted. Costs a system call for each descriptor.
pub fn held_files(group: Pid, below: &Path) -> impl Iterator<Item = PathBuf> {
    let descriptors = processes(group)
        .into_iter()
        .filter_map(|(pid, _)| fs::read_dir(format!("/proc/{pid}/fd")).ok())
        .flat_map(|entries| entries.flatten());
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(move |file| file != below && file.starts_with(below))
}

/// The processes of a group.
fn processes(group: Pid) -> Vec<(i32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let stat_of = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parse_stat(&text)?))
    };
    let group = group.as_raw_nonzero().get();
    pids.filter_map(stat_of).filter(|(_, stat)| stat.group == group).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    group: i32,
    cpu_ticks: u64,
}

/// Fields of `/proc/PID/stat` as proc(5) numbers them, from one: 5 is the process group; 14 to 17
/// are user and system time, own and of waited-for children.
fn parse_stat(text: &str) -> Option<Stat> {
    const FIRST_AFTER_NAME: usize = 3;
    // The second field is the name in brackets, and the name may hold anything.
    let (_, after_name) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - FIRST_AFTER_NAME);
    let mut cpu_ticks = 0_u64;
    for number in 14..=17 {
        cpu_ticks += field(number)?.parse::<u64>().ok()?;
    }
    Some(Stat { group: field(5)?.parse().ok()?, cpu_ticks })
}

/// A line such as `VmRSS: 1234 kB`; a zombie has none, and counts as nothing.
fn parse_status_kib(status: &str, key: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::process::CommandExt,
        process::{Command, Stdio},
    };

    /// Scenario: a process whose name holds blanks and brackets.
    /// Guarantees: the fields after the name are found; the four times are added.
    #[test]
    fn stat_is_read_behind_a_hostile_name() {
        let text = "42 (a) b (c) S 1 77 77 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(text), Some(Stat { group: 77, cpu_ticks: 127 }));
        assert_eq!(parse_stat("42 (cut"), None);
        assert_eq!(parse_stat("42 (cut) S 1"), None);
    }

    /// Scenario: the status of a living process and of a zombie.
    /// Guarantees: kibibytes are read; what is missing counts as nothing.
    #[test]
    fn status_lines_are_optional() {
        assert_eq!(parse_status_kib("Name:\tx\nVmRSS:\t    1234 kB\n", "VmRSS:"), 1234);
        assert_eq!(parse_status_kib("Name:\tx\n", "VmRSS:"), 0);
    }

    /// Scenario: this test's own process group.
    /// Guarantees: it uses memory, and its peak is not below its present use.
    #[test]
    fn the_own_group_is_seen() {
        let usage = group_usage(rustix::process::getpgrp());
        assert!(usage.rss_bytes > 0);
        assert!(usage.rss_peak_bytes >= usage.rss_bytes);
    }

    /// Scenario: two processes of a group of their own hold a directory, three files in it, of which one is
    /// deleted, and one elsewhere. (Of this test's own group others are forked meanwhile, which hold a copy of
    /// every descriptor for a moment.)
    /// Guarantees: all files are counted, the deleted one also by itself; the directory is not, nor are
    /// files elsewhere.
    #[test]
    fn open_files_are_counted_by_place() {
        let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let create = |directory: &Path, name: &str| fs::File::create(directory.join(name)).unwrap();
        let held = ["a", "b", "c"].map(|name| create(here.path(), name));
        let count = held.len();
        let [a, b, c] = held;
        let sleep = |group: i32| {
            let mut command = Command::new("sleep");
            command.arg("1000").process_group(group);
            command
        };
        let mut first = sleep(0).stdin(a).stdout(b).stderr(c).spawn().unwrap();
        let itself = fs::File::open(here.path()).unwrap();
        let other = create(elsewhere.path(), "d");
        let group = Pid::from_child(&first);
        let mut second = sleep(group.as_raw_nonzero().get())
            .stdin(itself)
            .stdout(other)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        fs::remove_file(here.path().join("b")).unwrap();
        let below = here.path().canonicalize().unwrap();
        let found = (open_files(group, &below), deleted_files(group, &below), descriptors(group));
        for child in [&mut first, &mut second] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!((found.0, found.1), (count, 1));
        // What cargo leaves open is inherited.
        assert!(found.2 >= 6);
    }
}
