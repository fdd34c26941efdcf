//! When the agent started for the first time, on disk until every file that was there then has a
//! checkpoint: `start_at` holds for those files, also if that start was cut short.

use std::sync::atomic::{AtomicBool, Ordering};

use super::store;
use crate::world::StateDisk;

/// The file; nanoseconds since the Unix epoch.
pub(super) const NAME: &str = "first_start";

/// When the agent started for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStart {
    /// In nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
    /// Whether that is this start, and not one before it that did not get far.
    pub is_this: bool,
}

impl FirstStart {
    /// It is this start, and nobody is to know of it later.
    pub fn now(unix_nanos: u64) -> Self {
        Self { unix_nanos, is_this: true }
    }

    /// Reads what an earlier start noted, or notes this one if it is the first. `None`: the first start is
    /// over, or nobody knows, since checkpoints are damaged.
    pub fn recall(disk: &dyn StateDisk, is_first: bool, unix_nanos: u64) -> Option<Self> {
        let names = disk.names("").unwrap_or_default();
        if names.iter().any(|name| name.ends_with(".corrupt")) {
            return None;
        }
        let noted = disk.read(NAME).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(unix_nanos) = noted.and_then(|noted| noted.trim().parse().ok()) {
            return Some(Self { unix_nanos, is_this: is_first });
        }
        if !is_first {
            return None;
        }
        if let Err(error) = store::write_synced(disk, NAME, format!("{unix_nanos}\n").as_bytes()) {
            tracing::warn!(%error, "if this start is cut short, the next one reads all files from their start");
        }
        Some(Self::now(unix_nanos))
    }
}

/// Whether the first start is over, which discovery knows and the writer of checkpoints notes.
#[derive(Debug, Default)]
pub(super) struct FirstStartEnd(AtomicBool);

impl FirstStartEnd {
    pub(super) fn is_due(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set_due(&self, is_due: bool) {
        self.0.store(is_due, Ordering::Release);
    }
}

/// All checkpoints are on disk that the first start has made.
pub(super) fn end(disk: &dyn StateDisk) {
    // One that stays is tried again by the next start.
    let _stays = disk.remove(NAME);
}
