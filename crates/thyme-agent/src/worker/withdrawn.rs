//! Checkpoints and archives whose files are not there when their directory is looked at: what is lost with
//! them, and what of them is still to be known.

use std::{ffi::OsStr, sync::Arc, time::Instant};

use super::{Charge, Worker, group::TailedFile};
use crate::{
    checkpoint::{FileCheckpoint, FileKey},
    discover::{Gone, Missed, pattern::LogName},
    metrics::LossReason,
    tail::{
        acknowledge::Acknowledged,
        ending::{Ending, Endings},
        identity::{Front, Head, Inode},
        uid::FileUid,
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
    /// with that; of an archive of a file that the group has, with what can't be read of that one. What was
    /// live may have become any archive, but one only.
    pub(super) fn count_missed(
        &mut self,
        number: u32,
        missed: &[Missed],
        live: &Arc<OsStr>,
        resume: &mut Resume,
    ) {
        let may_be_archived = |(_, one): &&(FileKey, FileCheckpoint)| {
            !one.is_gap() && one.name == one.live && one.lost_bytes() > 0
        };
        let mut live_checkpoints = resume.iter().filter(may_be_archived).count();
        for missed in missed.iter().filter(|missed| missed.bytes > 0) {
            let Missed { name, inode, was_plain, born, bytes } = missed;
            let Some(LogName { plain, compressed, .. }) = LogName::parse(name) else { continue };
            let is_it = |one: &FileCheckpoint| {
                let is_longer = !was_plain || *bytes >= one.offset;
                (one.inode == inode.inode && is_longer) || (compressed && *one.name == *plain)
            };
            if let Some((_, one)) = resume.iter_mut().find(|(_, one)| is_it(one)) {
                if *was_plain {
                    // It may have grown since.
                    one.length = one.length.max(*bytes);
                }
                continue;
            }
            if self.claim_missed(number, plain, live, *was_plain) {
                continue;
            }
            if !was_plain && live_checkpoints > 0 {
                live_checkpoints -= 1;
                continue;
            }
            // Messages name groups that there are.
            let Some(group) = self.groups.get(&number) else {
                debug_assert!(false, "a group that there is not has lost a file");
                continue;
            };
            self.state.miss(Gone {
                receiver: group.key.receiver,
                directory: Arc::clone(&group.key.directory),
                name: name.as_os_str().into(),
                inode: inode.inode,
                born: *born,
                head: Head::default(),
                ending: (0, Ending::default()),
                length: *bytes,
                lost_bytes: *bytes,
                reason: LossReason::NotOpened,
                said: "a log file was deleted before it could be opened",
            });
        }
    }

    /// Whether what could not be opened is a file that the group has, rotated or compressed. What was only seen
    /// as an archive may be what was live: then that has its name from now on.
    fn claim_missed(
        &mut self,
        number: u32,
        plain: &OsStr,
        live: &Arc<OsStr>,
        was_plain: bool,
    ) -> bool {
        let ids = self.group_files(number);
        let has_name = |id: &u32| self.files.get(id).is_some_and(|file| *file.name == *plain);
        if *plain != **live && ids.iter().any(has_name) {
            return true;
        }
        let was_live = |id: &&u32| {
            let file = self.files.get(*id);
            file.is_some_and(|file| !file.is_gap && !file.is_present && file.name == *live)
        };
        let Some(id) = ids.iter().find(was_live).filter(|_| !was_plain) else { return false };
        if let Some(file) = self.files.get_mut(id) {
            file.name = plain.into();
        }
        true
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
            let group = self.groups.get(&number).filter(|_| checkpoint.lost_bytes() > 0);
            if let Some(group) = group {
                self.state.miss(Gone::of(group.key.receiver, &checkpoint));
            }
            // What was no file on disk then either was not the newest of its log.
            let newest_from = if checkpoint.is_gap() { 0 } else { self.restored_below };
            let offset = checkpoint.offset;
            let uids = (checkpoint.uid, checkpoint.former_uid);
            let gap = gap_of((key, number), checkpoint.name, offset, uids, now);
            self.insert_file_from(newest_from, number, gap, now);
        }
    }
}

/// What was read of a file that is truncated and is not settled, if anything is: its bytes are under way, and nowhere
/// else. Like a file without a name it is urgent.
pub(super) fn unsettled_of(file: &TailedFile, now: Instant) -> Option<TailedFile> {
    let (place, uids) = ((file.key, file.group), (file.uid, file.former_uid));
    (!file.is_settled()).then(|| TailedFile {
        acknowledged: file.acknowledged.clone(),
        ..gap_of(place, Arc::clone(&file.name), file.offset, uids, now)
    })
}

/// What is left of a file that vanished while no agent ran, or was truncated: so much was read of it. Its checkpoint
/// is no file's: if it comes to light after all, because it could only not be opened, it is read.
fn gap_of(
    (key, group): (FileKey, u32),
    name: Arc<OsStr>,
    offset: u64,
    (uid, former_uid): (Option<FileUid>, Option<FileUid>),
    now: Instant,
) -> TailedFile {
    TailedFile {
        key,
        group,
        name,
        inode: Inode { device: 0, inode: key },
        born: None,
        front: Front::default(),
        head: Head { bytes: u32::MAX, crc32: 0 },
        source: None,
        offset,
        skipped_from: offset,
        acknowledged: Acknowledged::new(offset, &[]),
        endings: Endings::default(),
        length: offset,
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
        uid,
        former_uid,
        charge: Charge::default(),
    }
}
