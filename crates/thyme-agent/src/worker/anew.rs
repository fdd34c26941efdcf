//! Files that were cut, and perhaps written anew: they begin again from their start, as other files.
//!
//! A file that is shorter than what was read of it was cut. One that was written to since is compared
//! with what was read: the bytes in front of the place where reading goes on, and the first ones.

use std::{collections::BTreeSet, io, sync::Arc, time::Instant};

use super::{Charge, Worker, group::TailedFile, withdrawn::unsettled_of};
use crate::{
    encode::EncodeError,
    limits::GAPS_MAX,
    metrics::LossReason,
    tail::{
        acknowledge::Acknowledged,
        ending::Endings,
        identity::{Front, Head},
        source::Source,
    },
};

impl Worker {
    /// The directory of a group is gone, and this is the last file that it had: what its lines end with
    /// goes on in none of another directory.
    pub(super) fn end_with(&mut self, number: u32, last: Option<u32>) -> Result<(), EncodeError> {
        let last = last.and_then(|id| self.files.get_mut(&id));
        match last.filter(|file| !file.is_finished() && !file.is_late) {
            Some(file) => file.is_last = true,
            None => self.end_open_lines(number)?,
        }
        Ok(())
    }

    /// Whether the file is another one than what is known of it says; then it begins anew. To be asked
    /// at its end, and while it has to wait; it notes how long the file is by then.
    pub(super) fn was_truncated(&mut self, number: u32, id: u32) -> Result<bool, EncodeError> {
        let Some(file) = self.files.get_mut(&id) else { return Ok(false) };
        let Some(Source::Plain(open)) = &file.source else { return Ok(false) };
        let Ok(state) = open.state() else { return Ok(false) };
        if state.bytes < file.offset {
            return Ok(self.begin_anew(number, id)?.is_some());
        }
        if file.modified_unix_nanos != state.modified_unix_nanos {
            match is_another(file) {
                Ok(false) => {}
                Ok(true) => return Ok(self.begin_anew(number, id)?.is_some()),
                // It is compared at the next look.
                Err(_) => return Ok(false),
            }
            // Of one that was resumed only the head was known.
            file.front = file.front.or_read(&**open).unwrap_or(file.front);
        }
        file.modified_unix_nanos = state.modified_unix_nanos;
        self.note_length(id, state.bytes);
        Ok(false)
    }

    /// Notes how long a file is that goes on as it was. What it was known to hold behind that was cut off.
    fn note_length(&mut self, id: u32, bytes: u64) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let before = file.unread_bytes();
        let former = std::mem::replace(&mut file.length, bytes.max(file.offset));
        if file.length == former {
            return;
        }
        // Whoever finds it next knows it by its head.
        if let Some(Source::Plain(open)) = &file.source {
            file.head = file.head.grown(&**open).unwrap_or(file.head);
        }
        let lost = before.saturating_sub(file.unread_bytes());
        let (name, is_cut) = (Arc::clone(&file.name), lost > 0);
        self.note_growth(id);
        if is_cut {
            self.count_lost(&name, lost, LossReason::Truncated, self.clock.now());
            // It is counted once: the next start knows of no more in it.
            self.publish(&[id]);
        }
    }

    /// Looks at the files of groups that have something to read and had no turn of late, because no request
    /// may be made, or others take theirs: they may be cut, or deleted while no agent runs, before they can
    /// be read.
    pub(super) fn look_at_overdue(&mut self, now: Instant) -> Result<(), EncodeError> {
        let overdue: BTreeSet<u32> = self.schedule.overdue(now).collect();
        for number in overdue {
            let oldest = self.oldest_unfinished(number);
            if let Some(id) = oldest
                && !self.is_late(number, id)
            {
                self.was_truncated(number, id)?;
            }
            for id in self.group_files(number).into_iter().filter(|id| Some(*id) != oldest) {
                self.look_at_next(id);
            }
        }
        Ok(())
    }

    /// Notes how long a file is that has others before it. If it was written anew, that is seen in its turn.
    fn look_at_next(&mut self, id: u32) {
        let Some(file) = self.files.get(&id).filter(|file| !file.is_finished()) else { return };
        let Some(Source::Plain(open)) = &file.source else { return };
        if let Ok(state) = open.state()
            && state.bytes >= file.offset
            && state.bytes != file.length
            && matches!(is_another(file), Ok(false))
        {
            self.note_length(id, state.bytes);
        }
    }

    /// Whether what stands in front of the place of reading is not what was read there.
    pub(super) fn was_rewritten(&self, id: u32) -> io::Result<bool> {
        self.files.get(&id).map_or(Ok(false), |file| is_rewritten(file))
    }

    /// Puts a new file in the place of one that was truncated, so that what the sink still has to
    /// acknowledge of the old content can't be taken for the new. Lines that were open go on nowhere. What was read and
    /// is not settled stays as a file before it, under the old number. Returns the new file's number.
    pub(super) fn begin_anew(&mut self, number: u32, id: u32) -> Result<Option<u32>, EncodeError> {
        self.end_open_lines(number)?;
        Ok(self.put_anew(number, id))
    }

    /// The same of a file that has no open lines.
    pub(super) fn put_anew(&mut self, number: u32, id: u32) -> Option<u32> {
        let now = self.clock.now();
        let mut file = self.files.remove(&id)?;
        let (name, lost) = (Arc::clone(&file.name), file.unread_bytes());
        if lost > 0 {
            self.count_lost(&name, lost, LossReason::Truncated, now);
        }
        let rest = self.has_place_for_gap(number).then(|| unsettled_of(&file, now)).flatten();
        // What the spool has of the old content is no part of the new.
        let former = std::mem::replace(&mut file.key, self.keys.next());
        self.metrics.truncated_files.increment();
        tracing::warn!(
            directory = %self.directory_of(number).display(),
            file = ?file.name,
            read = file.offset,
            lost,
            "a log file was truncated: it is read anew"
        );
        file.offset = 0;
        file.skipped_from = 0;
        file.acknowledged = Acknowledged::default();
        file.endings = Endings::default();
        file.length = 0;
        file.is_growth_noted = false;
        (file.head, file.front) = (Head::default(), Front::default());
        file.charge = Charge::default();
        file.continuation = None;
        file.end_since = None;
        file.rest_bytes = 0;
        file.former_uid = file.uid.take().or(file.former_uid);
        self.next_number += 1;
        let next = self.next_number;
        self.files.insert(next, file);
        if let Some(group) = self.groups.get_mut(&number)
            && let Some(at) = group.files.iter().position(|place| *place == id)
        {
            let kept = rest.is_some().then_some(id);
            group.files.splice(at..=at, kept.into_iter().chain([next]));
        }
        match rest {
            Some(rest) => {
                self.files.insert(id, Box::new(rest));
                self.attention.ending.insert(id);
                self.publish(&[id, next]);
                self.assess(number);
            }
            None => self.publish_instead_of(former, next),
        }
        Some(next)
    }

    /// Whether a group may have one more file that is nowhere but under way.
    fn has_place_for_gap(&self, number: u32) -> bool {
        let group = self.groups.get(&number);
        let files = group.into_iter().flat_map(|group| &group.files);
        files.filter(|id| self.files.get(id).is_some_and(|file| file.is_gap)).count() < GAPS_MAX
    }
}

/// Compares both ends of what was read, since either may be alike in two contents. Of a checkpoint with bytes
/// beyond its prefix only the head is known.
fn is_rewritten(file: &TailedFile) -> io::Result<bool> {
    let Some(Source::Plain(open)) = &file.source else { return Ok(false) };
    if let Some((place, ending)) = file.endings.up_to(file.offset)
        && !ending.matches(&**open, place)?
    {
        return Ok(true);
    }
    match file.front.matches(&**open)? {
        Some(begins_so) => Ok(!begins_so),
        None => Ok(!file.head.matches(&**open)?),
    }
}

/// The same, by all that is known of how it begins: for looks that are seldom.
fn is_another(file: &TailedFile) -> io::Result<bool> {
    let Some(Source::Plain(open)) = &file.source else { return Ok(false) };
    Ok(is_rewritten(file)? || !file.head.matches(&**open)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{tail::identity::Inode, worker::snapshot::new_file, world::Opened};
    use std::{ffi::OsStr, io::Write, sync::Arc};

    /// Scenario: row 47. A file was resumed from a checkpoint that knows no ending of its prefix, because
    /// bytes behind it were acknowledged before it; before its first read it is cut and written anew.
    /// Guarantees: that is seen by its first bytes, and no line is read from its middle.
    #[test]
    fn a_file_that_is_resumed_without_an_ending_is_known_by_its_head() {
        let opened = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            let inode = Inode { device: 1, inode: 7 };
            Opened { file: Box::new(file), inode, bytes: content.len() as u64, through: None }
        };
        for (content, is_anew) in [(&b"one\ntwo\nthree\n"[..], false), (b"two\none\nthree\n", true)]
        {
            let mut file = new_file(1, 1, opened(content), Arc::from(OsStr::new("0.log")));
            file.head = Head::of(b"one\ntwo\n");
            assert_eq!(is_rewritten(&file).unwrap(), is_anew, "nothing was read of it");
            file.acknowledged = Acknowledged::new(0, &[(4, 8)]);
            assert_eq!(is_rewritten(&file).unwrap(), is_anew, "only bytes beyond its start");
            file.offset = 4;
            assert_eq!(is_rewritten(&file).unwrap(), is_anew);
        }
    }
}
