//! The spool's cursor: which records are done, of those that are in part, which log records in them are,
//! and how many records were kept. It may be behind, and then requests come twice; it is never ahead. What it
//! says to be kept and not to be done stands in a segment, or is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use serde::{Deserialize, Serialize};

use super::{segment::Header, store::Sum};
use crate::{
    checkpoint::frame, limits::SPOOL_CURSOR_RANGES_MAX, queue::unsettled,
    tail::acknowledge::Acknowledged, world::StateDisk,
};

pub(super) const NAME: &str = "spool/cursor";
const NAME_NEW: &str = "spool/cursor.new";
const MAGIC: &str = "thyme-spool 1";

/// Ids beyond this are none of ours, but bytes that look like some.
pub(super) const ID_MAX: u64 = 1 << 62;

/// Of records that are not done: which of the log records in them are settled, by their place.
#[derive(Debug, Default)]
pub(super) struct Parts(BTreeMap<u64, Acknowledged>);

impl Parts {
    /// What of a record is still to be sent.
    pub(super) fn rest_of(&self, header: &Header) -> Sum {
        let Some(settled) = self.0.get(&header.id) else { return Sum::of(header) };
        let (records, source_bytes) =
            unsettled(header.records, header.source_bytes, settled.count());
        Sum { requests: 1, records, source_bytes }
    }

    /// So much of a record is settled.
    pub(super) fn set(&mut self, id: u64, settled: Acknowledged) {
        self.0.insert(id, settled);
    }

    /// What of a record is settled.
    pub(super) fn of(&self, id: u64) -> Acknowledged {
        self.0.get(&id).cloned().unwrap_or_default()
    }

    /// A record is done.
    pub(super) fn forget(&mut self, id: u64) {
        self.0.remove(&id);
    }

    /// Forgets records that are done.
    pub(super) fn forget_done(&mut self, done: &Acknowledged) {
        self.0.retain(|id, _| done.skip(*id) == *id);
    }

    /// Behind all records that it knows of.
    pub(super) fn next_id(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(id, _)| id.saturating_add(1))
    }

    fn write(&self) -> Vec<CursorPart> {
        let write = |(id, settled): (&u64, &Acknowledged)| {
            let beyond = settled.beyond().iter().take(SPOOL_CURSOR_RANGES_MAX);
            CursorPart { id: *id, below: settled.prefix(), beyond: beyond.copied().collect() }
        };
        self.0.iter().map(write).collect()
    }
}

/// What a cursor says.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) done: Acknowledged,
    pub(super) parts: Parts,
    /// Records below this were kept, or are done; 0 where a version wrote it that does not say so.
    pub(super) kept_below: u64,
    /// Segments whose damage an earlier start has counted.
    pub(super) damaged: BTreeSet<u64>,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    done_below: u64,
    done: Vec<(u64, u64)>,
    #[serde(default)]
    kept_below: u64,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    damaged: BTreeSet<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<CursorPart>,
}

#[derive(Serialize, Deserialize)]
struct CursorPart {
    id: u64,
    below: u64,
    beyond: Vec<(u64, u64)>,
}

/// What is done; nothing where the cursor is missing or damaged, so that all is sent again.
#[cfg(any(test, feature = "simulation"))]
pub(crate) fn read_cursor(disk: &dyn StateDisk) -> (Acknowledged, BTreeMap<u64, Acknowledged>) {
    let Known { done, parts: Parts(parts), .. } = load(disk).unwrap_or_default();
    (done, parts)
}

/// What is done; `None` where the cursor is there and can't be read.
pub(super) fn load(disk: &dyn StateDisk) -> Option<Known> {
    let bytes = match disk.read(NAME) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some(Known::default());
        }
        Err(error) => {
            tracing::warn!(%error, "the spool's cursor can't be read: what it holds is sent again");
            return None;
        }
    };
    let known = decode(&bytes);
    if known.is_none() {
        tracing::error!("the spool's cursor is damaged: what the spool holds is sent again");
    }
    known
}

/// Writes down what is done, by renaming.
///
/// # Errors
/// When it can't be written: after a restart more records come twice.
pub(super) fn write(
    disk: &dyn StateDisk,
    Known { done, parts, kept_below, damaged }: &Known,
    is_synced: bool,
) -> io::Result<()> {
    let cursor = Cursor {
        done_below: done.prefix(),
        done: done.beyond().to_vec(),
        kept_below: *kept_below,
        damaged: damaged.clone(),
        parts: parts.write(),
    };
    let content = serde_json::to_vec(&cursor).map_err(io::Error::other)?;
    let mut file = disk.create(NAME_NEW)?;
    crate::failpoint::hit("spool_cursor_created");
    file.append(&frame::seal(MAGIC, &content))?;
    crate::failpoint::hit("spool_cursor_written");
    if is_synced {
        file.sync()?;
    }
    drop(file);
    disk.rename(NAME_NEW, NAME)?;
    if is_synced {
        disk.sync_directory(super::store::DIRECTORY)?;
    }
    crate::failpoint::hit("spool_cursor_renamed");
    Ok(())
}

fn decode(bytes: &[u8]) -> Option<Known> {
    let content = frame::open(MAGIC, bytes).ok()?;
    let cursor: Cursor = serde_json::from_slice(content).ok()?;
    let part = |one: CursorPart| (one.id, Acknowledged::new(one.below, &one.beyond));
    let parts = Parts(cursor.parts.into_iter().map(part).collect());
    let done = Acknowledged::new(cursor.done_below, &cursor.done);
    let kept_below = cursor.kept_below.min(ID_MAX);
    Some(Known { done, parts, kept_below, damaged: cursor.damaged })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a cursor of a version that said neither what is kept nor what was damaged.
    /// Guarantees: it is read, and says of no request that it must be there, and of no damage that it was counted.
    #[test]
    fn a_cursor_that_does_not_say_what_is_kept_is_read() {
        let content = br#"{"done_below":3,"done":[[5,6]]}"#;
        let known = decode(&frame::seal(MAGIC, content)).unwrap();
        assert_eq!((known.done, known.kept_below), (Acknowledged::new(3, &[(5, 6)]), 0));
        assert!(known.damaged.is_empty());
    }
}
