//! Checkpoints and archives whose files are not there when their directory is looked at: what is lost with
//! them, and what of them is still to be known.

use std::{ffi::OsStr, sync::Arc, time::Instant};

use super::{Charge, Worker, group::TailedFile};
use crate::{
    checkpoint::{FileCheckpoint, FileKey},
    discover::{Missed, pattern::LogName},
    metrics::LossReason,
    tail::{
        acknowledge::Acknowledged,
        ending::Endings,
        identity::{Head, Inode},
    },
};

/// A file that no checkpoint knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// On this device.
    Plain(u64),
    Archive,
}

/// What a checkpoint said, until its file is found.
pub(super) type Resume = Vec<(FileKey, FileCheckpoint)>;

impl Worker {
    /// Counts files that are gone and could not be opened. What is known of one by a checkpoint is counted
    /// with that; an archive of a file that was parked, with what was unread of that one. What was live may
    /// have become any archive, but one only.
    pub(super) fn count_missed(
        &self,
        missed: &[Missed],
        live: &OsStr,
        resume: &Resume,
        mut ended: Vec<Arc<OsStr>>,
    ) {
        let may_be_archived =
            |one: &&(FileKey, FileCheckpoint)| one.1.name == one.1.live && one.1.lost_bytes() > 0;
        let mut live_checkpoints = resume.iter().filter(may_be_archived).count();
        for Missed { name, inode, bytes } in missed.iter().filter(|missed| missed.bytes > 0) {
            let parsed = LogName::parse(name).filter(|parsed| parsed.compressed);
            let plain = parsed.map(|parsed| parsed.plain);
            let is_it = |one: &FileCheckpoint| {
                one.inode == inode.inode || plain.is_some_and(|plain| *one.name == *plain)
            };
            if resume.iter().any(|(_, one)| is_it(one)) {
                continue;
            }
            let parked = plain.and_then(|plain| {
                let same = ended.iter().position(|ended| **ended == *plain);
                same.or_else(|| ended.iter().position(|ended| **ended == *live))
            });
            if let Some(parked) = parked {
                ended.swap_remove(parked);
                continue;
            }
            if plain.is_some() && live_checkpoints > 0 {
                live_checkpoints -= 1;
                continue;
            }
            self.metrics.lost_files.increment();
            self.metrics.lost(LossReason::NotOpened).add(*bytes);
            tracing::warn!(?name, bytes, "a log file was deleted before it could be opened");
        }
    }

    /// Checkpoints of files that were empty: nothing of such a file is known but its number, which its
    /// archive does not have, and which is another one on another device. Each is taken for one of those
    /// that were `begun` now and that it may be; as a gap it would cut a line that goes on there.
    pub(super) fn forget_empty(&self, resume: &mut Resume, mut begun: Vec<Begun>) {
        let mut forgotten = Vec::new();
        resume.retain(|(key, checkpoint)| {
            let may_be = |one: &Begun| match one {
                Begun::Archive => true,
                Begun::Plain(device) => *device != checkpoint.device,
            };
            let is_empty = checkpoint.head_bytes == 0;
            let place = begun.iter().position(may_be).filter(|_| is_empty);
            forgotten.extend(place.map(|place| {
                begun.swap_remove(place);
                (*key, None)
            }));
            place.is_none()
        });
        if let Some(checkpoints) = &self.checkpoints
            && !forgotten.is_empty()
        {
            checkpoints.publish(forgotten);
        }
    }

    /// Checkpoints whose files are gone: what they are known to have held and had not acknowledged can't
    /// be read any more. They are kept as gaps for as long as a file before them may end with an open line.
    pub(super) fn withdraw(&mut self, number: u32, resume: Resume, now: Instant) {
        for (key, checkpoint) in resume {
            let lost = checkpoint.lost_bytes();
            if lost > 0 {
                self.metrics.lost_files.increment();
                self.metrics.lost(LossReason::NoAgent).add(lost);
                tracing::warn!(
                    directory = ?checkpoint.directory, name = ?checkpoint.name, bytes = lost,
                    "a log file was deleted while no agent ran; its unread rest is lost"
                );
            }
            self.insert_file(number, gap_of(key, number, &checkpoint, now), now);
        }
    }
}

/// What is left of a file that vanished while no agent ran. Its checkpoint is no file's: if it comes to
/// light after all, because it could only not be opened, it is read.
fn gap_of(key: FileKey, group: u32, checkpoint: &FileCheckpoint, now: Instant) -> TailedFile {
    TailedFile {
        key,
        group,
        name: Arc::clone(&checkpoint.name),
        inode: Inode { device: 0, inode: key },
        head: Head { bytes: u32::MAX, crc32: 0 },
        source: None,
        offset: checkpoint.offset,
        skipped_from: checkpoint.offset,
        acknowledged: Acknowledged::new(checkpoint.offset, &[]),
        endings: Endings::default(),
        length: checkpoint.offset,
        published_length: 0,
        is_growth_noted: false,
        modified_unix_nanos: 0,
        is_compressed: false,
        is_awaited: false,
        cut_at: None,
        continuation: None,
        is_present: false,
        is_at_risk: false,
        end_since: None,
        rest_bytes: 0,
        finished_at: Some(now),
        is_late: false,
        is_last: false,
        is_gap: true,
        is_parked: false,
        uid: checkpoint.uid,
        former_uid: checkpoint.former_uid,
        charge: Charge::default(),
    }
}
