//! Files that were cut, and perhaps written anew: they begin again from their start, as other files.
//!
//! A file that is shorter than what was read of it was cut. One that was written to since is compared
//! with what was read: the bytes in front of the place where reading goes on, and the first ones.

use std::io;

use super::{Charge, Worker, group::TailedFile};
use crate::{
    encode::EncodeError,
    tail::{acknowledge::Acknowledged, ending::Endings, identity::Head, source::Source},
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

    /// Whether the file is another one than what was read of it says; then it begins anew. To be asked
    /// at its end.
    pub(super) fn was_truncated(&mut self, number: u32, id: u32) -> Result<bool, EncodeError> {
        let Some(file) = self.files.get_mut(&id) else { return Ok(false) };
        let Some(Source::Plain(open)) = &file.source else { return Ok(false) };
        let Ok(state) = open.state() else { return Ok(false) };
        file.length = file.length.max(state.bytes);
        if state.bytes < file.offset {
            return self.begin_anew(number, id);
        }
        if file.offset > 0 && file.modified_unix_nanos != state.modified_unix_nanos {
            match (file.head.matches(&**open), is_rewritten(file)) {
                (Ok(true), Ok(false)) => {}
                (Ok(_), Ok(_)) => return self.begin_anew(number, id),
                // It is compared at the next look.
                _ => return Ok(false),
            }
        }
        file.modified_unix_nanos = state.modified_unix_nanos;
        Ok(false)
    }

    /// Whether what stands in front of the place of reading is not what was read there.
    pub(super) fn was_rewritten(&self, id: u32) -> io::Result<bool> {
        self.files.get(&id).map_or(Ok(false), |file| is_rewritten(file))
    }

    /// Puts a new file in the place of one that was truncated, so that what the sink still has to
    /// acknowledge of the old content can't be taken for the new. Lines that were open go on nowhere.
    pub(super) fn begin_anew(&mut self, number: u32, id: u32) -> Result<bool, EncodeError> {
        self.end_open_lines(number)?;
        Ok(self.put_anew(number, id))
    }

    /// The same of a file that has no open lines.
    pub(super) fn put_anew(&mut self, number: u32, id: u32) -> bool {
        let Some(mut file) = self.files.remove(&id) else { return false };
        // What the spool has of the old content is no part of the new.
        let former = std::mem::replace(&mut file.key, self.keys.next());
        self.metrics.truncated_files.increment();
        tracing::warn!(
            directory = %self.directory_of(number).display(),
            file = ?file.name,
            read = file.offset,
            "a log file was truncated: it is read anew"
        );
        file.offset = 0;
        file.skipped_from = 0;
        file.acknowledged = Acknowledged::default();
        file.endings = Endings::default();
        file.length = 0;
        file.is_growth_noted = false;
        file.head = Head::default();
        file.charge = Charge::default();
        file.continuation = None;
        file.end_since = None;
        file.rest_bytes = 0;
        file.former_uid = file.uid.take().or(file.former_uid);
        self.next_number += 1;
        let next = self.next_number;
        self.files.insert(next, file);
        if let Some(group) = self.groups.get_mut(&number) {
            let place = group.files.iter_mut().find(|place| **place == id);
            if let Some(place) = place {
                *place = next;
            }
        }
        self.publish_instead_of(former, next);
        true
    }
}

fn is_rewritten(file: &TailedFile) -> io::Result<bool> {
    let Some(Source::Plain(open)) = &file.source else { return Ok(false) };
    let Some((place, ending)) = file.endings.up_to(file.offset) else {
        // A checkpoint with bytes beyond its prefix says of what stands before only how it begins.
        let has_read = file.offset > 0 || !file.acknowledged.beyond().is_empty();
        return Ok(has_read && !file.head.matches(&**open)?);
    };
    Ok(!ending.matches(&**open, place)?)
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
            assert!(!is_rewritten(&file).unwrap(), "nothing was read of it");
            file.acknowledged = Acknowledged::new(0, &[(4, 8)]);
            assert_eq!(is_rewritten(&file).unwrap(), is_anew, "only bytes beyond its start");
            file.offset = 4;
            assert_eq!(is_rewritten(&file).unwrap(), is_anew);
        }
    }
}
