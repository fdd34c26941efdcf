//! What the spool shows of itself to the workers. It must not decide anything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the spool shows of itself.
#[derive(Debug, Default)]
pub struct SpoolStatus {
    /// Requests that it has and the exporter has not yet. While there are any, workers read nothing
    /// but what is at risk, so that the spool is drained first.
    pub(super) backlog: AtomicU64,
    pub(super) is_full: AtomicBool,
}

impl SpoolStatus {
    /// Whether requests are in it that the exporter has not been given yet.
    pub fn has_backlog(&self) -> bool {
        self.backlog.load(Ordering::Relaxed) > 0
    }

    /// Whether it takes nothing at present, for want of room or because of the disk.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}
