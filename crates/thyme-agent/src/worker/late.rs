//! Writers that were late: a rotated file that was read to its end and closed may be written to all the
//! same, and be compressed then. Closed files are looked at now and then; an archive says itself how
//! much it holds.

use std::{ffi::OsStr, io, path::Path, sync::Arc};

use super::{Worker, group::TailedFile};
use crate::{
    limits::{LATE_LOOK_INTERVAL, UPKEEP_INTERVAL},
    tail::source::{Archive, Source},
    world::{LogFile, Opened},
};

/// Bytes at the end of a `.gz` that say how many it holds, modulo 2^32 (RFC 1952, ISIZE).
const LENGTH_BYTES: u64 = 4;

/// How many bytes an archive says that it holds, modulo 2^32; of several members, the last.
pub(super) fn archived_bytes(file: &dyn LogFile) -> io::Result<u32> {
    let mut length = [0; LENGTH_BYTES as usize];
    let start = file.length()?.saturating_sub(LENGTH_BYTES);
    let mut filled = 0;
    while filled < length.len() {
        match file.read_at(&mut length[filled..], start + filled as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(u32::from_le_bytes(length))
}

/// Whether an archive says that it holds more than was read of its plain file. One that is damaged, or
/// has something behind it, says anything.
pub(super) fn holds_more(file: &dyn LogFile, read_bytes: u64) -> bool {
    archived_bytes(file).is_ok_and(|bytes| bytes > read_bytes as u32)
}

impl Worker {
    /// Looks at the closed files whose turn it is, so that all of them have one within
    /// [`LATE_LOOK_INTERVAL`].
    pub(super) fn look_for_late_writes(&mut self) {
        let looks = LATE_LOOK_INTERVAL.as_millis() / UPKEEP_INTERVAL.as_millis();
        let closed = &self.attention.closed;
        let count = closed.len().div_ceil(looks as usize);
        let last = self.attention.last_closed;
        let due: Vec<u32> =
            closed.range(last + 1..).chain(closed.range(..=last)).take(count).copied().collect();
        for id in due {
            self.attention.last_closed = id;
            self.look_for_late_write(id);
        }
    }

    /// Opens the file of this name in the directory of a group.
    pub(super) fn open_again(&mut self, group: u32, name: &OsStr) -> io::Result<Option<Opened>> {
        let Some(group) = self.groups.get(&group) else { return Ok(None) };
        let path = group.key.directory.join(name);
        let root = self.roots[group.key.receiver].iter().find(|root| path.starts_with(root));
        let Some(root) = root else { return Ok(None) };
        let relative = path.strip_prefix(root).unwrap_or(Path::new(""));
        self.descriptors.open(&mut *self.tree, root, relative)
    }

    /// Whether a closed file is in its directory no more, neither plain nor compressed.
    pub(super) fn is_unlinked(&mut self, id: u32) -> bool {
        let Some(file) = self.files.get(&id) else { return false };
        let (group, plain) = (file.group, Arc::clone(&file.name));
        let mut compressed = plain.to_os_string();
        compressed.push(".gz");
        [&*plain, &*compressed].into_iter().all(|name| {
            let opened = self.open_again(group, name);
            opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        })
    }

    fn look_for_late_write(&mut self, id: u32) {
        let is_closed_plain = |file: &TailedFile| {
            file.is_present && !file.is_compressed && file.is_finished() && file.source.is_none()
        };
        let Some(file) = self.files.get(&id).filter(|file| is_closed_plain(file)) else {
            self.attention.closed.remove(&id);
            return;
        };
        let (inode, offset) = (file.inode, file.offset);
        let (group, name) = (file.group, Arc::clone(&file.name));
        // What has no such name any more, discovery finds under another one, or gone.
        let Ok(Some(opened)) = self.open_again(group, &name) else { return };
        if opened.inode == inode && opened.bytes != offset {
            self.reopen(id, Source::Plain(opened.file), opened.bytes);
        }
    }

    /// A closed file was compressed: its archive may hold more than was read.
    pub(super) fn take_archive_of(&mut self, id: u32, opened: Option<Opened>) {
        let Some(file) = self.files.get(&id) else { return };
        let Some(opened) = opened.filter(|_| file.source.is_none() && file.is_finished()) else {
            return;
        };
        if holds_more(&*opened.file, file.offset) {
            let bytes = archived_bytes(&*opened.file).map_or(0, u64::from);
            if let Some(file) = self.files.get_mut(&id) {
                // The number of its plain file may have another by now.
                file.inode = opened.inode;
            }
            self.reopen(id, Source::Archive(Box::new(Archive::new(opened.file))), bytes);
        }
    }

    /// Reads on in a file that was closed.
    fn reopen(&mut self, id: u32, source: Source, bytes: u64) {
        let now = self.clock.now();
        let Some(file) = self.files.get_mut(&id) else { return };
        tracing::debug!(file = ?file.name, read = file.offset, bytes, "a rotated file was written to late");
        file.source = Some(source);
        file.length = file.length.max(bytes);
        file.finished_at = None;
        file.end_since = None;
        file.is_late = true;
        let group = file.group;
        self.attention.closed.remove(&id);
        self.metrics.late_files.increment();
        self.publish(&[id]);
        self.activate(group, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Scenario: row 46. An archive of a file of 70,000 bytes; files too short to be one.
    /// Guarantees: it says how much it holds without being decompressed; the others hold nothing.
    #[test]
    fn an_archive_says_what_it_holds() {
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        };
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[b'x'; 70_000]).unwrap();
        let archive = file(&encoder.finish().unwrap());
        assert!(!holds_more(&archive, 70_000) && holds_more(&archive, 69_999));
        for short in [&b""[..], b"abc"] {
            assert!(!holds_more(&file(short), 0));
        }
    }
}
