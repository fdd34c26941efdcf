//! Signs of life of one connection: what its requests may conclude from each other.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Signs of one connection, shared by its requests.
#[derive(Debug)]
pub(super) struct Signs {
    opened: Instant,
    /// Microseconds from there to the last byte that left.
    moved_us: AtomicU64,
    /// Microseconds from there to the last answer that was read to its end; 0 before the first.
    answered_us: AtomicU64,
}

impl Default for Signs {
    /// Those of a connection that has just been opened.
    fn default() -> Self {
        let (moved_us, answered_us) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { opened: Instant::now(), moved_us, answered_us }
    }
}

impl Signs {
    /// A byte of a request has left.
    pub(super) fn moved(&self) {
        self.moved_us.store(self.age_us(), Ordering::Relaxed);
    }

    /// An answer has been read to its end.
    pub(super) fn answered(&self) {
        self.answered_us.store(self.age_us().max(1), Ordering::Relaxed);
    }

    /// Time since a byte of a request left last.
    pub(super) fn stillness(&self) -> Duration {
        let moved = Duration::from_micros(self.moved_us.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(moved)
    }

    /// Whether an answer has come ever.
    pub(super) fn has_served(&self) -> bool {
        self.answered_us.load(Ordering::Relaxed) > 0
    }

    /// Whether an answer has come since then.
    pub(super) fn has_served_since(&self, then: Instant) -> bool {
        let answered = Duration::from_micros(self.answered_us.load(Ordering::Relaxed));
        self.has_served() && self.opened + answered >= then
    }

    fn age_us(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
