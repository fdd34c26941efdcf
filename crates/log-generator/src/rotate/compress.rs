//! Compresses archives on one thread at the lowest priority: plain file, `.tmp`, `.gz`, and only then
//! the plain file goes. Leaves the newest archive of each log plain, as the kubelet does.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::setpriority_process;

use super::RotatedLog;
use super::archive::{Archive, archives, remove_if_there, unfinished};
use crate::metrics::{Metrics, add};

/// Read from a plain archive at once, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// The lowest priority that an ordinary thread can have.
const NICE_LOWEST: i32 = 19;

/// Logs whose archives wait to be compressed: each at most once, so never more than there are logs.
#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Waiting {
    logs: VecDeque<usize>,
    /// Whether a log is in `logs`, by index.
    queued: Vec<bool>,
}

impl Queue {
    /// An empty queue for that many logs.
    pub fn new(logs: usize) -> Self {
        let waiting = Waiting { logs: VecDeque::with_capacity(logs), queued: vec![false; logs] };
        Self {
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Adds a log unless it waits already.
    pub fn push(&self, log: usize) {
        let mut waiting = self.lock();
        if !std::mem::replace(&mut waiting.queued[log], true) {
            waiting.logs.push_back(log);
            self.changed.notify_one();
        }
    }

    /// Ends the compression: what is being compressed is given up, and its plain file stays.
    pub fn close(&self) {
        // Taken so that a thread that is about to wait can't miss the call.
        let _waiting = self.lock();
        self.closed.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn try_pop(&self) -> Option<usize> {
        Self::take(&mut self.lock())
    }

    /// The next log; waits for one, and returns `None` once the queue is closed.
    fn pop(&self) -> Option<usize> {
        let mut waiting = self.lock();
        loop {
            if self.is_closed() {
                return None;
            }
            if let Some(log) = Self::take(&mut waiting) {
                return Some(log);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take(waiting: &mut Waiting) -> Option<usize> {
        let log = waiting.logs.pop_front()?;
        waiting.queued[log] = false;
        Some(log)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works off the queue.
#[derive(Debug)]
pub struct Compressor {
    logs: Arc<[RotatedLog]>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

impl Compressor {
    /// A compressor of the archives of these logs.
    pub fn new(logs: Arc<[RotatedLog]>, queue: Arc<Queue>, metrics: Arc<Metrics>) -> Self {
        Self { logs, queue, metrics }
    }

    /// Compresses at the lowest priority until the queue is closed.
    pub fn run(&self) {
        // `None` means the calling thread. To lower a priority needs no right, and where a sandbox
        // forbids it all the same, archives are compressed at the usual one.
        let _lowered = setpriority_process(None, NICE_LOWEST);
        while let Some(log) = self.queue.pop() {
            self.compress_log(&self.logs[log]);
        }
    }

    /// Compresses what waits and returns.
    pub fn work_off(&self) {
        while let Some(log) = self.queue.try_pop() {
            self.compress_log(&self.logs[log]);
        }
    }

    fn compress_log(&self, log: &RotatedLog) {
        let result = remove_leftovers(log).and_then(|()| {
            let archives = archives(&log.live)?;
            let older = archives.len().saturating_sub(1);
            archives[..older].iter().try_for_each(|archive| self.compress(archive))
        });
        if let Err(error) = result {
            self.metrics.note_rotation_error(&log.live, &error);
        }
    }

    /// Compresses one archive unless it is compressed, gone, or the queue is closed.
    fn compress(&self, archive: &Archive) -> io::Result<()> {
        let plain = match File::open(archive.plain()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            plain => plain?,
        };
        let temporary = archive.temporary();
        let complete = match self.copy(plain, &temporary) {
            Ok(complete) => complete,
            Err(error) => {
                remove_if_there(&temporary)?;
                return Err(error);
            }
        };
        // The rotator may have removed the archive as the oldest one meanwhile.
        if !complete || !archive.plain().try_exists()? {
            return remove_if_there(&temporary);
        }
        fs::rename(&temporary, archive.compressed())?;
        remove_if_there(archive.plain())?;
        add(&self.metrics.archives_compressed, 1);
        Ok(())
    }

    /// Compresses a file into another of the same mode; false when the queue was closed before the
    /// end.
    fn copy(&self, mut plain: File, temporary: &std::path::Path) -> io::Result<bool> {
        let mode = plain.metadata()?.permissions().mode();
        let output = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(temporary)?;
        let mut encoder = GzEncoder::new(output, Compression::fast());
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            if self.queue.is_closed() {
                return Ok(false);
            }
            match plain.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => encoder.write_all(&chunk[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        encoder.finish()?;
        Ok(true)
    }
}

/// Removes what a killed process left: temporary files, and plain files that have their `.gz`. Only
/// this thread makes either, so there is nothing else that they could be.
fn remove_leftovers(log: &RotatedLog) -> io::Result<()> {
    for archive in unfinished(&log.live)? {
        remove_if_there(&archive.temporary())?;
    }
    for archive in archives(&log.live)? {
        if archive.compressed().try_exists()? {
            remove_if_there(archive.plain())?;
        }
    }
    Ok(())
}
