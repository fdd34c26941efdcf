//! Writers that were late: a rotated file that was read to its end and closed may be written to all the
//! same, and be compressed then. Closed files are looked at now and then; an archive says itself how
//! much it holds.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    path::Path,
    sync::Arc,
    time::Instant,
};

use thyme_core::cri::Stream;

use super::{Worker, group::TailedFile, turn::Progress};
use crate::{
    encode::EncodeError,
    limits::{LATE_LOOK_INTERVAL, UPKEEP_INTERVAL},
    parse::partial::Partials,
    tail::source::{Archive, Source},
    world::{Entry, LogFile, Opened},
};

/// Bytes at the end of a `.gz` that say how many it holds, modulo 2^32 (RFC 1952, ISIZE).
const LENGTH_BYTES: u64 = 4;

/// How many times its own length deflate can hold at most.
const DEFLATE_RATIO_MAX: u64 = 1032;

/// Open lines by file, with the file's group.
pub(super) type LateLines = BTreeMap<u32, (u32, Partials)>;

/// How many bytes an archive says that it holds, modulo 2^32; of several members, the last. One that is cut
/// says anything: where that can't be, it is taken for as long as it is on disk.
pub(super) fn archived_bytes(file: &dyn LogFile) -> io::Result<u64> {
    let mut length = [0; LENGTH_BYTES as usize];
    let bytes = file.length()?;
    let start = bytes.saturating_sub(LENGTH_BYTES);
    if file.fill_at(&mut length, start)? < length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let says = u64::from(u32::from_le_bytes(length));
    Ok(if says > bytes.saturating_mul(DEFLATE_RATIO_MAX) { bytes } else { says })
}

/// Whether an archive holds more than was read of its plain file. One that is damaged, or has something
/// behind it, says so whatever it holds: then it is decompressed.
pub(super) fn holds_more(file: &dyn LogFile, read_bytes: u64) -> bool {
    archived_bytes(file).is_ok_and(|bytes| may_be_more(bytes, read_bytes))
        // One that can't be read now is read later.
        && Archive::holds_beyond(file, read_bytes).unwrap_or(true)
}

/// Whether an archive that says this holds something else than was read. Beyond 4 GiB it may say less, though it
/// holds more.
fn may_be_more(says: u64, read_bytes: u64) -> bool {
    says as u32 != read_bytes as u32
}

/// Name of a file's archive.
pub(super) fn with_gz(plain: &OsStr) -> OsString {
    let mut name = plain.to_os_string();
    name.push(".gz");
    name
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

    /// The directory of a group, for logs: a file's name alone says nothing of its pod.
    pub(super) fn directory_of(&self, group: u32) -> &Path {
        self.groups.get(&group).map_or(Path::new(""), |group| &group.key.directory)
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

    /// Whether a closed file is in its directory no more, neither plain nor compressed. Another file may have its
    /// name by now, and perhaps its number, and it another name; where another has its name, an archive may be
    /// it, whatever that one's name.
    pub(super) fn is_unlinked(&mut self, id: u32) -> bool {
        let Some(file) = self.files.get(&id) else { return false };
        let (group, plain) = (file.group, Arc::clone(&file.name));
        let (is_compressed, inode) = (file.is_compressed, file.inode.inode);
        let compressed = with_gz(&plain);
        let is_absent = [&*plain, &*compressed].into_iter().all(|name| {
            let opened = self.open_again(group, name);
            opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        });
        if is_compressed {
            return is_absent;
        }
        let Some(directory) = self.groups.get(&group).map(|group| &group.key.directory) else {
            return false;
        };
        let entries = match self.tree.entries(directory) {
            Ok(entries) => entries,
            Err(error) => return error.kind() == io::ErrorKind::NotFound,
        };
        let is_archive = |entry: &Entry| entry.name.as_encoded_bytes().ends_with(b".gz");
        let mut same = entries.iter().filter(|entry| entry.inode == inode);
        (is_absent || !entries.iter().any(is_archive))
            && !same.any(|entry| self.may_be(id, &entry.name))
    }

    /// Whether a closed plain file may have this name, as far as what it begins with says.
    fn may_be(&mut self, id: u32, name: &OsStr) -> bool {
        let Some(group) = self.files.get(&id).map(|file| file.group) else { return false };
        match (self.open_again(group, name), self.files.get(&id)) {
            (Ok(Some(opened)), Some(file)) => {
                let is_head = || file.head.matches(&*opened.file).unwrap_or(true);
                file.has_number_of(&opened) && opened.bytes >= file.offset && is_head()
            }
            (Err(error), _) => error.kind() != io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Opens a file again that was closed; of a plain one, also whether it still is what was read, as far
    /// as its length and its first bytes say. `None` where another file has its name.
    pub(super) fn open_closed(&mut self, id: u32) -> io::Result<Option<(Opened, bool)>> {
        let Some(file) = self.files.get(&id) else { return Ok(None) };
        let name = if file.is_compressed { with_gz(&file.name) } else { (*file.name).into() };
        let group = file.group;
        let opened = self.open_again(group, &name)?;
        let Some(file) = self.files.get(&id) else { return Ok(None) };
        let opened = opened.filter(|opened| file.is_compressed || file.has_number_of(opened));
        Ok(opened.map(|opened| {
            let is_same = file.is_compressed
                || (opened.bytes >= file.offset
                    && file.head.matches(&*opened.file).unwrap_or(true));
            (opened, is_same)
        }))
    }

    fn look_for_late_write(&mut self, id: u32) {
        let may_grow = |file: &TailedFile| {
            let is_closed = file.is_finished() && file.source.is_none();
            file.is_present && is_closed && (!file.is_compressed || file.cut_at.is_some())
        };
        let Some(file) = self.files.get(&id).filter(|file| may_grow(file)) else {
            self.attention.closed.remove(&id);
            return;
        };
        let (group, offset, cut_at) = (file.group, file.offset, file.cut_at);
        // What has no such name any more, discovery finds under another one, or gone.
        let Ok(Some((opened, is_same))) = self.open_closed(id) else { return };
        if let Some(cut_at) = cut_at {
            if opened.bytes > cut_at {
                let bytes = archived_bytes(&*opened.file).unwrap_or(0);
                self.reopen(id, Source::Archive(Box::new(Archive::new(opened.file))), bytes);
            }
            return;
        }
        if opened.bytes != offset || !is_same {
            // What another content holds is no part of this one.
            let bytes = if is_same { opened.bytes } else { offset };
            self.reopen(id, Source::Plain(opened.file), bytes);
        }
        if !is_same {
            self.put_anew(group, id);
        }
    }

    /// A closed file was compressed: its archive may hold more than was read.
    pub(super) fn take_archive_of(&mut self, id: u32, opened: Option<Opened>) {
        let Some(file) = self.files.get(&id) else { return };
        let Some(opened) = opened.filter(|_| file.source.is_none() && file.is_finished()) else {
            return;
        };
        if holds_more(&*opened.file, file.offset) {
            let bytes = archived_bytes(&*opened.file).unwrap_or(0);
            if let Some(file) = self.files.get_mut(&id) {
                // The number of its plain file may have another by now.
                file.take_number_of(&opened);
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
        file.cut_at = None;
        let group = file.group;
        self.attention.closed.remove(&id);
        self.metrics.late_files.increment();
        self.publish(&[id]);
        self.activate(group, now);
    }

    /// Whether lines of a file are no part of lines of its successors, because these were begun before it
    /// was written to. One that has none by now is read like any other.
    pub(super) fn is_late(&mut self, number: u32, id: u32) -> bool {
        let Some(file) = self.files.get_mut(&id).filter(|file| file.is_late) else { return false };
        let group = self.groups.get(&number);
        file.is_late = group.is_some_and(|group| group.files.last() != Some(&id));
        file.is_late
    }

    /// A turn of a late file: lines that its successors have open wait, and its own end in it.
    pub(super) fn read_turn_of_late(
        &mut self,
        number: u32,
        id: u32,
        now: Instant,
    ) -> Result<Progress, EncodeError> {
        let own = self.late_lines.remove(&id).map(|(_, lines)| lines);
        let waiting = self.swap_lines(number, own.unwrap_or_default());
        let progress = self.read_turn_of(number, id, now)?;
        let held = self.groups.get(&number).map_or(0, |group| group.lines.partials.held_bytes());
        let is_over = self.files.get(&id).is_none_or(|file| file.is_finished());
        if is_over || self.held_by_late_lines() + held > self.config.partial_bytes_max / 2 {
            self.end_open_lines(number)?;
        }
        let own = self.swap_lines(number, waiting);
        if [Stream::Stdout, Stream::Stderr].into_iter().any(|stream| own.is_midway(stream)) {
            self.late_lines.insert(id, (number, own));
        }
        Ok(progress)
    }

    pub(super) fn swap_lines(&mut self, number: u32, lines: Partials) -> Partials {
        let group = self.groups.get_mut(&number);
        group.map_or_else(Partials::default, |group| {
            std::mem::replace(&mut group.lines.partials, lines)
        })
    }

    /// Memory that open lines of late files hold.
    pub(super) fn held_by_late_lines(&self) -> usize {
        self.late_lines.values().map(|(_, lines)| lines.held_bytes()).sum()
    }

    /// Lets open lines go of late files that are read no more.
    pub(super) fn end_late_lines(&mut self) -> Result<(), EncodeError> {
        let is_over = |id: &&u32| {
            let file = self.files.get(*id);
            file.is_none_or(|file| file.is_finished() || !file.is_late)
        };
        let over: Vec<u32> = self.late_lines.keys().filter(is_over).copied().collect();
        over.into_iter().try_for_each(|id| self.end_lines_of_late(id))
    }

    /// Lets all open lines of late files go.
    pub(super) fn end_all_late_lines(&mut self) -> Result<(), EncodeError> {
        let all: Vec<u32> = self.late_lines.keys().copied().collect();
        all.into_iter().try_for_each(|id| self.end_lines_of_late(id))
    }

    fn end_lines_of_late(&mut self, id: u32) -> Result<(), EncodeError> {
        let Some((number, own)) = self.late_lines.remove(&id) else { return Ok(()) };
        let waiting = self.swap_lines(number, own);
        self.end_open_lines(number)?;
        self.swap_lines(number, waiting);
        Ok(())
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
        let border = 1 << 32;
        assert!(may_be_more(10, border - 10) && !may_be_more(10, border + 10));
        for short in [&b""[..], b"abc"] {
            assert!(!holds_more(&file(short), 0));
        }
    }

    /// Scenario: archives that say that they hold more than they do: what deflate can hold, or not.
    /// Guarantees: what can't be is not believed, and neither holds more than was read of it; one that
    /// really does holds more.
    #[test]
    fn an_archive_that_says_anything_holds_what_can_be_decompressed() {
        let archive = |says: u32| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&[b'x'; 70_000]).unwrap();
            let mut bytes = encoder.finish().unwrap();
            let at = bytes.len() - 4;
            bytes[at..].copy_from_slice(&says.to_le_bytes());
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            (file, bytes.len() as u64)
        };
        let (file, on_disk) = archive(u32::MAX);
        assert_eq!(archived_bytes(&file).unwrap(), on_disk);
        let (file, _) = archive(80_000);
        assert_eq!(archived_bytes(&file).unwrap(), 80_000);
        assert!(!holds_more(&file, 70_000) && holds_more(&file, 69_999));
    }
}
