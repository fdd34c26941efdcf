//! Rotates log files as the kubelet's `container_log_manager` does: looks at their sizes at an
//! interval, removes surplus archives, renames `0.log` to `0.log.YYYYMMDD-HHMMSS` and has it reopened,
//! and compresses the archives but the newest to `.gz`.
//!
//! Two things differ from the kubelet on purpose. Compression has a thread of its own, at the lowest
//! priority, so archives may wait for it while files go on being rotated: the kubelet's worker would
//! let the live file grow instead. And where an archive of the same second exists, the rotation waits
//! for the next check; the kubelet would overwrite that archive.
//!
//! Never writes to a log file, and never blocks who does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::archive::{Archive, archive_suffix, archives};
use self::compress::Queue;
use crate::metrics::{Metrics, add};

pub mod archive;
pub mod compress;

/// When and how far logs are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A live file of at least this size is rotated at the next check, in bytes.
    pub size_bytes: u64,
    /// Files of a container at most, the live one included.
    pub files_max: u32,
    /// Time between two checks.
    pub interval: Duration,
}

/// A log file that is rotated.
#[derive(Clone, Debug)]
pub struct RotatedLog {
    /// Path of the live file.
    pub live: PathBuf,
    /// Set to ask the writer to reopen the live file; the writer clears it when it has.
    pub reopen: Arc<AtomicBool>,
}

/// The kubelet's part in the life of log files.
#[derive(Debug)]
pub struct Rotator {
    logs: Arc<[RotatedLog]>,
    policy: Policy,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

impl Rotator {
    /// A rotator of these logs, which hands archives over to `queue` by the index of their log.
    pub fn new(
        logs: Arc<[RotatedLog]>,
        policy: Policy,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { logs, policy, queue, metrics }
    }

    /// Checks all logs at the policy's interval until the sender of `stop` is gone.
    pub fn run(&self, stop: &Receiver<()>) {
        while stop.recv_timeout(self.policy.interval) == Err(RecvTimeoutError::Timeout) {
            self.check(unix_seconds());
        }
    }

    /// Checks all logs once. A log that fails is counted and tried again at the next check.
    pub fn check(&self, now_unix_seconds: u64) {
        for (index, log) in self.logs.iter().enumerate() {
            match self.check_log(log, now_unix_seconds) {
                Ok(true) => {
                    add(&self.metrics.rotations, 1);
                    self.queue.push(index);
                }
                Ok(false) => {}
                Err(error) => self.metrics.note_rotation_error(&log.live, &error),
            }
        }
    }

    /// Rotates one log if it is large enough; says whether it did.
    fn check_log(&self, log: &RotatedLog, now_unix_seconds: u64) -> io::Result<bool> {
        // The runtime hasn't reopened the file since the last rotation.
        if log.reopen.load(Ordering::Acquire) {
            return Ok(false);
        }
        let size_bytes = match fs::metadata(&log.live) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                log.reopen.store(true, Ordering::Release);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if size_bytes < self.policy.size_bytes {
            return Ok(false);
        }
        self.remove_surplus(&log.live)?;
        let rotated = archive_path(&log.live, now_unix_seconds);
        if Archive::at(&rotated).exists()? {
            return Ok(false);
        }
        fs::rename(&log.live, &rotated)?;
        log.reopen.store(true, Ordering::Release);
        Ok(true)
    }

    /// Removes the oldest archives, so that with the live file and the one that it is about to become
    /// there are no more than the policy allows.
    fn remove_surplus(&self, live: &Path) -> io::Result<()> {
        let archives = archives(live)?;
        let kept = self.policy.files_max.saturating_sub(2) as usize;
        for archive in &archives[..archives.len().saturating_sub(kept)] {
            archive.remove()?;
            add(&self.metrics.archives_removed, 1);
        }
        Ok(())
    }
}

/// The name that a live file takes when it is rotated.
fn archive_path(live: &Path, now_unix_seconds: u64) -> PathBuf {
    let mut path = live.as_os_str().to_owned();
    path.push(archive_suffix(now_unix_seconds));
    PathBuf::from(path)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::compress::Compressor;
    use super::*;
    use flate2::read::GzDecoder;
    use std::collections::BTreeSet;
    use std::io::Read as _;

    struct Fixture {
        directory: tempfile::TempDir,
        rotator: Rotator,
        compressor: Compressor,
        log: RotatedLog,
    }

    fn fixture(files_max: u32) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let live = directory.path().join("0.log");
        let log = RotatedLog { live, reopen: Arc::default() };
        let logs: Arc<[RotatedLog]> = Arc::from([log.clone()]);
        let (queue, metrics) = (Arc::new(Queue::new(1)), Arc::new(Metrics::default()));
        let policy = Policy { size_bytes: 10, files_max, interval: Duration::from_secs(1) };
        let rotator =
            Rotator::new(Arc::clone(&logs), policy, Arc::clone(&queue), Arc::clone(&metrics));
        Fixture { directory, rotator, compressor: Compressor::new(logs, queue, metrics), log }
    }

    impl Fixture {
        /// Writes a live file as a new one, as the writer does when it is asked to reopen.
        fn write(&self, text: &str) {
            fs::write(&self.log.live, text).unwrap();
            self.log.reopen.store(false, Ordering::Release);
        }

        fn names(&self) -> BTreeSet<String> {
            let names = fs::read_dir(self.directory.path()).unwrap();
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }

        fn assert_names(&self, names: &[&str]) {
            let expected: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(self.names(), expected);
        }
    }

    /// 2024-02-29T23:59:50Z.
    const NOW: u64 = 1_709_251_190;

    /// Scenario: a live file grows over the limit four times, with room for three files in all.
    /// Guarantees: the kubelet's names; the newest archive stays plain, older ones become `.gz` with
    /// the same content, the oldest go; the writer is asked to reopen each time.
    #[test]
    fn the_kubelets_steps() {
        let fixture = fixture(3);
        fixture.write("short");
        fixture.rotator.check(NOW);
        fixture.assert_names(&["0.log"]);
        for (round, second) in (0..4).zip([NOW, NOW + 5, NOW + 10, NOW + 15]) {
            fixture.write(&format!("the text of round {round}"));
            fixture.rotator.check(second);
            assert!(fixture.log.reopen.load(Ordering::Acquire));
            assert!(!fixture.log.live.exists());
            fixture.compressor.work_off();
        }
        fixture.write("new");
        fixture.assert_names(&["0.log", "0.log.20240301-000000.gz", "0.log.20240301-000005"]);
        let archive = fixture.directory.path().join("0.log.20240301-000000.gz");
        let mut text = String::new();
        GzDecoder::new(fs::File::open(archive).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "the text of round 2");
        assert_eq!(fixture.rotator.metrics.rotations.load(Ordering::Relaxed), 4);
        assert_eq!(fixture.rotator.metrics.archives_removed.load(Ordering::Relaxed), 2);
        assert_eq!(fixture.rotator.metrics.archives_compressed.load(Ordering::Relaxed), 3);
    }

    /// Scenario: the compressor doesn't get to run during three rotations, then does.
    /// Guarantees: plain archives wait for it, and then all but the newest are compressed.
    #[test]
    fn archives_wait_for_compression() {
        let fixture = fixture(10);
        for second in [NOW, NOW + 1, NOW + 2] {
            fixture.write("the text of a round");
            fixture.rotator.check(second);
        }
        fixture.assert_names(&[
            "0.log.20240229-235950",
            "0.log.20240229-235951",
            "0.log.20240229-235952",
        ]);
        fixture.compressor.work_off();
        fixture.assert_names(&[
            "0.log.20240229-235950.gz",
            "0.log.20240229-235951.gz",
            "0.log.20240229-235952",
        ]);
    }

    /// Scenario: two rotations fall into one second; then the writer is slow to reopen.
    /// Guarantees: no archive is overwritten, and a file that isn't reopened isn't touched.
    #[test]
    fn one_rotation_a_second() {
        let fixture = fixture(10);
        fixture.write("the text of a round");
        fixture.rotator.check(NOW);
        fixture.write("the text of another");
        fixture.rotator.check(NOW);
        fixture.assert_names(&["0.log", "0.log.20240229-235950"]);
        fixture.log.reopen.store(true, Ordering::Release);
        fixture.rotator.check(NOW + 1);
        fixture.assert_names(&["0.log", "0.log.20240229-235950"]);
        fixture.log.reopen.store(false, Ordering::Release);
        fixture.rotator.check(NOW + 2);
        fixture.assert_names(&["0.log.20240229-235950", "0.log.20240229-235952"]);
    }

    /// Scenario: somebody else has removed the live file.
    /// Guarantees: the writer is asked to make a new one.
    #[test]
    fn a_missing_file_is_reopened() {
        let fixture = fixture(3);
        fixture.rotator.check(NOW);
        assert!(fixture.log.reopen.load(Ordering::Acquire));
        assert_eq!(fixture.rotator.metrics.rotation_errors.load(Ordering::Relaxed), 0);
    }

    /// Scenario: an earlier process was killed while it compressed, and right after.
    /// Guarantees: temporary files and plain files that have their `.gz` are cleaned up.
    #[test]
    fn leftovers_are_removed() {
        let fixture = fixture(10);
        for name in ["20240101-000000", "20240101-000000.gz", "20240101-000001.tmp"] {
            fs::write(fixture.directory.path().join(format!("0.log.{name}")), "left").unwrap();
        }
        fs::write(fixture.directory.path().join("0.log.keep"), "not an archive").unwrap();
        fixture.write("the text of a round");
        fixture.rotator.check(NOW);
        fixture.compressor.work_off();
        fixture.assert_names(&["0.log.20240101-000000.gz", "0.log.20240229-235950", "0.log.keep"]);
    }
}
