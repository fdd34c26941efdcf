//! The process as the kernel sees it, read from `/proc/self` when somebody asks.

use std::{fs, time::Instant};

/// Ticks a second in `/proc/*/stat`: part of Linux' ABI on each architecture that thyme is for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the process' own figures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    started: Instant,
}

impl Process {
    /// Uptime counts from here.
    pub(super) fn starting_now() -> Self {
        Self { started: Instant::now() }
    }

    /// Seconds since the start.
    pub(super) fn uptime_seconds(self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// User and system time of all threads, in seconds; `None` where `/proc` can't be read.
    pub(super) fn cpu_seconds(self) -> Option<f64> {
        cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Resident memory in bytes; `None` where `/proc` can't be read.
    pub(super) fn resident_bytes(self) -> Option<u64> {
        resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)
    }
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name in brackets may hold spaces and brackets itself; utime and stime are the twelfth
    // and thirteenth fields after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a `stat` line with a hostile process name, a `status` file, and both of this
    /// process.
    /// Guarantees: the right fields are taken, and the kernel's own files can be read.
    #[test]
    fn figures_are_read_from_proc() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15\n";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("12 (a) S 1"), None);
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident_bytes("Threads: 1\n"), None);
        let process = Process::starting_now();
        assert!(process.cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
        assert!(process.resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
