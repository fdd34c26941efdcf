//! How others see a worker: where messages go, how much it has to read, whether it is alive.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;

use crate::{
    checkpoint::FileKey,
    discover::{Gone, Snapshot},
};

/// What a worker is told.
#[derive(Debug)]
pub enum WorkerMessage {
    /// The files of a group, as they are now.
    Snapshot(Snapshot),
    /// Their directories are out of sight: look which open files have no name any more.
    AskForDeleted,
    /// Stop reading, send what was read, and end.
    Stop,
}

/// Gives each file a number for its checkpoint, over all workers.
#[derive(Debug, Default)]
pub struct KeySource(AtomicU64);

impl KeySource {
    /// A number that was never given before.
    pub fn next(&self) -> FileKey {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// All that were given so far are below it.
    pub fn given_below(&self) -> FileKey {
        self.0.load(Ordering::Relaxed)
    }
}

/// When a thread last gave a sign of life.
#[derive(Debug)]
pub struct Heartbeat {
    started: Instant,
    /// Milliseconds between `started` and the last sign of life.
    last_beat_ms: AtomicU64,
}

impl Heartbeat {
    /// A thread that starts now.
    pub fn new(now: Instant) -> Self {
        Self { started: now, last_beat_ms: AtomicU64::new(0) }
    }

    /// A sign of life.
    pub fn beat(&self) {
        let age = self.started.elapsed().as_millis();
        self.last_beat_ms.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Time since the last sign of life.
    pub fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last_beat_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

/// What a worker shows of itself.
#[derive(Debug)]
pub struct WorkerState {
    heartbeat: Heartbeat,
    /// The moment, see [`monotonic_ms`], since which it has waited for settlements; 0 while it
    /// doesn't.
    waits_since_ms: AtomicU64,
    /// Why it can't go on.
    failure: Mutex<Option<&'static str>>,
    /// Bytes of files that it was given and has not read; what was written since does not count.
    unread_bytes: AtomicU64,
    /// Bytes that it has read.
    pub read_bytes: AtomicU64,
    /// Groups that it has been given and that are there.
    groups: AtomicU64,
    /// What it misses, until it is known whether that is elsewhere.
    gone: Mutex<Vec<Gone>>,
    /// Requests that were not settled when it ended.
    pub unsettled_requests: AtomicU64,
}

impl WorkerState {
    /// A worker that starts now.
    pub fn new(now: Instant) -> Self {
        Self {
            heartbeat: Heartbeat::new(now),
            waits_since_ms: AtomicU64::new(0),
            failure: Mutex::new(None),
            unread_bytes: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            gone: Mutex::default(),
            unsettled_requests: AtomicU64::new(0),
        }
    }

    /// A sign of life.
    pub fn beat(&self) {
        self.heartbeat.beat();
    }

    /// Time since the last sign of life.
    pub fn beat_age(&self) -> Duration {
        self.heartbeat.age()
    }

    /// Says whether it waits for settlements from now on.
    pub fn set_waiting(&self, waits: bool) {
        self.waits_since_ms.store(if waits { monotonic_ms() } else { 0 }, Ordering::Relaxed);
    }

    /// Since when it has waited for settlements, without a moment in which there were none to
    /// wait for; see [`monotonic_ms`].
    pub fn waits_since_ms(&self) -> Option<u64> {
        Some(self.waits_since_ms.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// Says for good that it can't go on.
    pub fn fail(&self, why: &'static str) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Misses a file, for discovery to find it or to count it as lost.
    pub fn miss(&self, gone: Gone) {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).push(gone);
    }

    /// What it has missed since the last call.
    pub fn take_gone(&self) -> Vec<Gone> {
        std::mem::take(&mut *self.gone.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why it can't go on, if it can't.
    pub fn failure(&self) -> Option<&'static str> {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds of a clock that nobody sets, from some moment on; never 0.
pub fn monotonic_ms() -> u64 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(ORIGIN.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// A worker as discovery sees it.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// Where its messages go; never full.
    pub messages: Sender<WorkerMessage>,
    /// What it shows of itself.
    pub state: Arc<WorkerState>,
}

impl WorkerHandle {
    /// Bytes that it has yet to read, and groups that it has.
    pub fn load(&self) -> (u64, u64) {
        let unread = self.state.unread_bytes.load(Ordering::Relaxed);
        (unread, self.state.groups.load(Ordering::Relaxed))
    }

    /// Notes that it was given a group.
    pub fn adopted(&self) {
        self.state.groups.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a group that it was given is gone.
    pub fn released(&self) {
        self.state.groups.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What of a file is unread, as part of its worker's load: until it is read, or the file is let go.
#[derive(Debug, Default)]
pub struct Charge {
    of: Option<Arc<WorkerState>>,
    bytes: u64,
}

impl Charge {
    /// Adds to a worker's load.
    pub fn new(worker: &Arc<WorkerState>, bytes: u64) -> Self {
        worker.unread_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { of: Some(Arc::clone(worker)), bytes }
    }

    /// So many bytes were read.
    pub fn read(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if let Some(worker) = self.of.as_ref().filter(|_| bytes > 0) {
            worker.unread_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.read(self.bytes);
    }
}
