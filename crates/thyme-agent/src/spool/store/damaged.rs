//! Segments in which something could not be read, which are kept for a human within a bound. What can't be
//! read at present is not removed: nobody knows what it holds.

use std::io;

use super::Store;
use crate::limits::{SPOOL_DAMAGED_BUDGET_SHARE, SPOOL_DAMAGED_BYTES_MAX};

const READ_BYTES: usize = 64 * 1024;

impl Store {
    /// Removes the oldest damaged segments beyond the bound.
    pub(super) fn prune_damaged(&mut self) {
        let bytes_max = SPOOL_DAMAGED_BYTES_MAX.min(self.bytes_max / SPOOL_DAMAGED_BUDGET_SHARE);
        let mut excess =
            self.damaged.iter().map(|one| one.1).sum::<u64>().saturating_sub(bytes_max);
        let mut at = 0;
        while excess > 0
            && let Some((name, bytes)) = self.damaged.get(at)
        {
            if self.can_be_read(name, *bytes).is_err() || self.disk.remove(name).is_err() {
                at += 1;
                continue;
            }
            excess = excess.saturating_sub(*bytes);
            self.damaged.remove(at);
        }
    }

    fn can_be_read(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = self.disk.open(name)?;
        let (mut buffer, mut offset) = (vec![0; READ_BYTES], 0);
        while offset < bytes {
            match file.read_at(&mut buffer, offset)? {
                0 => break,
                read => offset += read as u64,
            }
        }
        Ok(())
    }
}
