//! Files that were read and settled give their descriptors up while others wait for one, those first
//! that have been quiet longest: they are *parked*. A watch or a look at its length says when one has
//! grown; then it is opened again, beneath its root, and must be the file that it was.

use std::{ffi::OsString, sync::Arc, time::Instant};

use super::{
    Worker,
    group::{TailedFile, Turn},
    snapshot::into_archive,
    turn::Progress,
};
use crate::{
    discover::Gone,
    limits::{ROOT_LOOK_INTERVAL, UNWATCHED_CHECK_INTERVAL},
    metrics::LossReason,
    tail::{descriptors::is_shortage, source::Source},
    world::{Looked, Opened},
};

impl TailedFile {
    /// Whether all that is known of it has been read and settled, and it may go on.
    fn may_park(&self) -> bool {
        let is_at_end = self.end_since.is_some() && self.continuation.is_none();
        let is_plain = matches!(self.source, Some(Source::Plain(_)));
        is_plain && is_at_end && self.may_wait()
    }

    /// Whether it can be opened again, and nothing of it is under way.
    fn may_wait(&self) -> bool {
        self.is_present && !self.is_finished() && self.is_settled()
    }
}

impl Worker {
    /// Parked files that have grown wait like those that were never open, and are shown with them. All that
    /// wait ask at once: one at a time, each would wait for all before it.
    pub(super) fn ask_for_descriptors(&mut self) {
        let files = &self.files;
        self.attention.waiting.retain(|id| files.get(id).is_some_and(|file| file.is_parked));
        let waiting = self.attention.waiting.len();
        let shown = std::mem::replace(&mut self.attention.waiting_shown, waiting as i64);
        if waiting as i64 != shown {
            self.metrics.unopened_files.add_gauge(waiting as i64 - shown);
        }
        if waiting > 0 {
            self.descriptors.want(waiting as u64);
        }
    }

    /// Closes as many files as are waited for, as far as there are any to close.
    pub(super) fn give_up_descriptors(&mut self, now: Instant) {
        if self.descriptors.wanted() == 0 {
            return;
        }
        let groups = self.groups.iter().filter(|(_, group)| group.turn != Turn::Ready);
        let mut quiet: Vec<_> =
            groups.map(|(number, group)| (group.last_growth, *number)).collect();
        quiet.sort_unstable();
        for (_, number) in quiet {
            if self.descriptors.wanted() == 0 {
                return;
            }
            let given_up =
                self.park_behind(number).unwrap_or_else(|| u64::from(self.park(number, now)));
            self.descriptors.give_up(given_up);
        }
    }

    /// Where a group waits for a descriptor to read on in its oldest file, it holds none for those behind
    /// that one; `None` where it doesn't wait.
    fn park_behind(&mut self, number: u32) -> Option<u64> {
        let oldest = self.oldest_unfinished(number)?;
        self.files.get(&oldest).filter(|file| file.is_parked)?;
        let mut given_up = 0;
        for id in self.group_files(number) {
            let Some(file) = self.files.get_mut(&id) else { continue };
            if file.source.is_none() || !file.may_wait() {
                continue;
            }
            // Should it be gone before it can be opened again, so much is lost of it.
            file.look_again();
            (file.source, file.is_parked) = (None, true);
            self.note_growth(id);
            given_up += 1;
        }
        Some(given_up)
    }

    /// Closes a group's last file, if nothing of it is unread, and no line is open. It is the live one, or
    /// a rotated one whose successor waits for a descriptor.
    fn park(&mut self, number: u32, now: Instant) -> bool {
        let unfinished = self.oldest_unfinished(number);
        let Some(group) = self.groups.get_mut(&number) else { return false };
        // What waits in an older file has its turn, which an idle group has not.
        let last = group.files.last().filter(|id| unfinished == Some(**id));
        let Some(file) = last.and_then(|id| self.files.get_mut(id)) else { return false };
        let has_open_line = group.lines.partials.queued().0 > 0;
        if has_open_line || !file.may_park() {
            return false;
        }
        if !group.is_watched {
            group.is_watched = self.idle.arm(&group.path(), number);
        }
        // What was written before the watch raises no event.
        let length = file.source.as_ref().and_then(|source| source.file().length().ok());
        if length != Some(file.offset) {
            if group.turn == Turn::Idle {
                self.activate(number, now);
            }
            return false;
        }
        file.source = None;
        file.is_parked = true;
        group.turn = Turn::Idle;
        if !group.is_watched {
            self.attention.unwatched.insert(number);
        }
        true
    }

    /// Whether a parked file has another length than was read of it. What is more counts as lost if it is gone
    /// before it could be read, which may take as long as there is no room for it.
    pub(super) fn has_parked_grown(&mut self, number: u32) -> bool {
        let Some(group) = self.groups.get(&number) else { return false };
        let Some(id) = group.files.last().copied() else { return false };
        let live = self.files.get_mut(&id);
        let Some(file) = live.filter(|file| file.is_parked) else { return false };
        let path = group.key.directory.join(&*file.name);
        let Ok(looked) = self.tree.look_at(&path) else { return false };
        let has_grown = looked.bytes != file.offset;
        if file.has_number(looked.inode, looked.born_unix_nanos) {
            file.length = file.length.max(looked.bytes);
            self.note_growth(id);
            if has_grown {
                self.attention.waiting.insert(id);
            }
        }
        has_grown
    }

    /// Opens a file again that is to be read and was parked; what comes of that where it can't be.
    pub(super) fn reopen_parked(&mut self, number: u32, id: u32, now: Instant) -> Option<Progress> {
        let is_compressed = self.files.get(&id).filter(|file| file.is_parked)?.is_compressed;
        let opened = self.open_closed(id);
        let file = self.files.get_mut(&id)?;
        let wait = match opened {
            Ok(Some((opened, _))) if is_compressed => {
                self.adopt(id, Some(opened), true);
                return None;
            }
            Ok(Some((opened, is_same))) => {
                file.source = Some(Source::Plain(opened.file));
                file.is_parked = false;
                if is_same {
                    return None;
                }
                // A compressor that fails ends the worker at its next batch.
                let _anew = self.begin_anew(number, id);
                return Some(Progress::Again);
            }
            Err(error) => {
                let mut waiting = id;
                if self.look_at_parked(number).contains(&id) {
                    // What it holds now is another content, of which nothing was read.
                    waiting = self.begin_anew(number, id).ok().flatten().unwrap_or(id);
                    self.look_at_parked(number);
                }
                if is_shortage(&error) {
                    self.attention.waiting.insert(waiting);
                }
                if is_shortage(&error) { ROOT_LOOK_INTERVAL } else { UNWATCHED_CHECK_INTERVAL }
            }
            // It has another name by now: discovery will say which.
            Ok(None) => UNWATCHED_CHECK_INTERVAL,
        };
        let group = self.groups.get_mut(&number)?;
        group.next_poll = now + wait;
        Some(Progress::At(group.next_poll))
    }

    /// Notes how long the parked files of a group are by now: they may be gone before they can be opened.
    /// Returns those that are shorter than what was read of them.
    pub(super) fn look_at_parked(&mut self, number: u32) -> Vec<u32> {
        let mut cut = Vec::new();
        let directory = self.directory_of(number).to_owned();
        for id in self.group_files(number) {
            let is_waiting = |file: &&mut Box<TailedFile>| {
                file.is_parked && file.is_present && !file.is_compressed
            };
            let Some(file) = self.files.get_mut(&id).filter(is_waiting) else { continue };
            // Another file may have its name by now, or none.
            let looked = self.tree.look_at(&directory.join(&*file.name));
            let is_it = |one: &Looked| file.has_number(one.inode, one.born_unix_nanos);
            let Some(looked) = looked.ok().filter(is_it) else { continue };
            if looked.bytes < file.offset {
                cut.push(id);
            }
            file.length = file.length.max(looked.bytes);
            self.note_growth(id);
        }
        cut
    }

    /// A parked file was found again, open: perhaps compressed meanwhile.
    pub(super) fn adopt(&mut self, id: u32, opened: Option<Opened>, compressed: bool) {
        let Some(file) = self.files.get_mut(&id).filter(|file| file.is_parked) else { return };
        let Some(opened) = opened else { return };
        file.take_number_of(&opened);
        let source = Source::Plain(opened.file);
        file.source = Some(if compressed { into_archive(source) } else { source });
        file.end_since = None;
        file.is_parked = false;
    }

    /// A file that was live and is shown no more may be an archive by now that can't be opened yet: until
    /// it can, the file is not forgotten, or the archive would be taken for a new one.
    pub(super) fn keep_what_may_be_archived(&mut self, number: u32, unopened: &[OsString]) {
        let Some(group) = self.groups.get(&number) else { return };
        let live = Arc::clone(&group.key.live);
        let ids = self.group_files(number);
        let is_known = |name: &OsString| {
            ids.iter().filter_map(|id| self.files.get(id)).any(|file| *file.name == **name)
        };
        if unopened.iter().all(is_known) {
            return;
        }
        for id in ids {
            let was_live = |file: &&mut Box<TailedFile>| file.name == live && !file.is_gap;
            if let Some(file) = self.files.get_mut(&id).filter(was_live) {
                file.is_present = true;
            }
        }
    }

    /// Parked files of a group that its directory, which was seen whole, does not show any more: nobody can open
    /// them again.
    pub(super) fn end_parked(&mut self, number: u32, now: Instant) {
        for id in self.group_files(number) {
            let is_gone = |file: &&mut Box<TailedFile>| file.is_parked && !file.is_present;
            let Some(file) = self.files.get_mut(&id).filter(is_gone) else { continue };
            file.is_parked = false;
            file.finished_at = Some(now);
            self.attention.ending.insert(id);
            let bytes = file.unread_bytes();
            let gone = self.groups.get(&number).map(|group| Gone {
                receiver: group.key.receiver,
                directory: Arc::clone(&group.key.directory),
                name: Arc::clone(&file.name),
                inode: file.inode.inode,
                born: file.born,
                head: file.head,
                ending: (file.offset, file.endings.at(file.offset).unwrap_or_default()),
                length: file.length,
                lost_bytes: bytes,
                reason: LossReason::NotOpened,
                said: "a log file was deleted before it could be opened again",
            });
            // It is counted once: the next start knows of nothing more in it.
            file.length = file.offset;
            if let Some(gone) = gone.filter(|_| bytes > 0) {
                self.state.miss(gone);
            }
        }
    }
}
