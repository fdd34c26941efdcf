//! The spool on disk: append-only segments, which of their records are done, and the order in which
//! they are read again. It must not know the sink or the workers; whoever owns it decides when.
//!
//! ```text
//! spool/<number>.segment   records, see `segment`; removed once all of them are done
//! spool/cursor             which records are done, replaced by renaming
//! spool/<number>.damaged   a segment in which something could not be read, kept for a human
//! ```
//!
//! A record is done when the sink has it, or nobody wants it any more. The cursor may be behind:
//! then records are sent twice. It is never ahead.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::segment::{self, Found, HEADER_BYTES, Header};
use crate::{
    checkpoint::frame,
    limits::{SPOOL_DAMAGED_BYTES_MAX, SPOOL_SEGMENT_BYTES},
    tail::acknowledge::Acknowledged,
    world::{StateDisk, StateFile},
};

pub(super) const DIRECTORY: &str = "spool";
const CURSOR: &str = "spool/cursor";
const CURSOR_NEW: &str = "spool/cursor.new";
pub(super) const SEGMENT_SUFFIX: &str = ".segment";
const DAMAGED_SUFFIX: &str = ".damaged";
const CURSOR_MAGIC: &str = "thyme-spool 1";

/// Ids beyond this are none of ours, but bytes that look like a header.
const ID_MAX: u64 = 1 << 62;

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh<'a> {
    pub(super) body: &'a [Bytes],
    /// Its id, body length and checksum are filled in.
    pub(super) header: Header,
}

/// A record that was read again.
#[derive(Debug)]
pub(super) enum Entry {
    /// As it was kept.
    Whole(Header, Vec<u8>),
    /// Its body is not what its header says; it is done now.
    Damaged(Header),
}

/// Why a record was not appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// The budget is used up.
    Full,
    /// The disk failed, or is full.
    Disk(io::Error),
}

/// What was there at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Spool records that are not done.
    pub(super) requests: u64,
    /// Log records in them.
    pub(super) records: u64,
    /// Bytes of the files that they came from.
    pub(super) source_bytes: u64,
    /// Bytes that are no whole record: what was being written at the end, or damage.
    pub(super) unreadable_bytes: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// First and last id; `None` while it holds nothing.
    ids: Option<(u64, u64)>,
    /// Something in it could not be read.
    is_damaged: bool,
}

/// The segment that is written to.
struct Active {
    file: Box<dyn StateFile>,
    /// Ids that were appended since the last sync.
    unsynced: Vec<u64>,
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    segment: u64,
    offset: u64,
}

/// The spool on disk.
pub(super) struct Store {
    disk: Arc<dyn StateDisk>,
    bytes_max: u64,
    /// Oldest first; the last one is the active one, if there is one.
    segments: VecDeque<Segment>,
    active: Option<Active>,
    /// The segment that is read, open.
    reading: Option<(u64, Box<dyn StateFile>)>,
    position: Position,
    done: Acknowledged,
    is_cursor_stale: bool,
    next_id: u64,
    next_segment: u64,
    /// Segments kept for a human, oldest first: name and bytes.
    damaged: VecDeque<(String, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    done_below: u64,
    done: Vec<(u64, u64)>,
}

impl Store {
    /// Opens what is there.
    ///
    /// # Errors
    /// When the directory can't be made or read. Damage is no error.
    pub(super) fn open(disk: Arc<dyn StateDisk>, bytes_max: u64) -> io::Result<(Self, Recovered)> {
        disk.make_directory(DIRECTORY)?;
        let cursor = load_cursor(&*disk);
        let is_cursor_lost = cursor.is_none();
        let mut store = Self {
            done: cursor.unwrap_or_default(),
            disk,
            bytes_max,
            segments: VecDeque::new(),
            active: None,
            reading: None,
            position: Position::default(),
            is_cursor_stale: false,
            next_id: 0,
            next_segment: 1,
            damaged: VecDeque::new(),
        };
        store.next_id = store.done.beyond().last().map_or(store.done.prefix(), |last| last.1);
        let mut recovered = Recovered::default();
        let (mut segments, mut damaged) = (Vec::new(), Vec::new());
        for name in store.disk.names(DIRECTORY)? {
            let number = |suffix| name.strip_suffix(suffix)?.parse::<u64>().ok();
            segments.extend(number(SEGMENT_SUFFIX));
            damaged.extend(number(DAMAGED_SUFFIX));
        }
        segments.sort_unstable();
        damaged.sort_unstable();
        let newest = segments.iter().chain(&damaged).max();
        store.next_segment = newest.map_or(1, |newest| newest + 1);
        for number in damaged {
            let name = damaged_name(number);
            let bytes = store.disk.open(&name)?.length()?;
            store.damaged.push_back((name, bytes));
        }
        let last = segments.last().copied();
        for number in segments {
            store.recover(number, Some(number) == last, &mut recovered)?;
        }
        if is_cursor_lost {
            // Ids begin anew. Were the old cursor read again one day, it would take them for done.
            store.write_cursor_as(true)?;
        }
        store.remove_done();
        store.position =
            Position { segment: store.segments.front().map_or(0, |one| one.number), offset: 0 };
        Ok((store, recovered))
    }

    /// Looks through a segment's headers. What follows its last whole record was being written when
    /// the agent ended, and is cut off.
    fn recover(&mut self, number: u64, is_last: bool, recovered: &mut Recovered) -> io::Result<()> {
        let mut file = self.disk.open(&segment_name(number))?;
        let mut found = Segment { number, bytes: file.length()?, ids: None, is_damaged: false };
        let mut offset = 0;
        loop {
            match segment::look(&*file, offset, found.bytes)? {
                Found::End => break,
                Found::Record(header) if is_plausible(&header, found.ids) => {
                    found.ids = Some((found.ids.map_or(header.id, |ids| ids.0), header.id));
                    self.next_id = self.next_id.max(header.id + 1);
                    offset += header.record_bytes();
                    if !self.is_done(header.id) {
                        recovered.requests += 1;
                        recovered.records += header.records;
                        recovered.source_bytes += header.source_bytes;
                    }
                }
                Found::Record(header) => {
                    recovered.unreadable_bytes += header.record_bytes();
                    found.is_damaged = true;
                    offset += header.record_bytes();
                }
                Found::Damage { end } => {
                    recovered.unreadable_bytes += end - offset;
                    if is_last && end == found.bytes {
                        file.truncate(offset)?;
                        found.bytes = offset;
                        break;
                    }
                    found.is_damaged = true;
                    offset = end;
                }
            }
        }
        self.segments.push_back(found);
        Ok(())
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        let damaged: u64 = self.damaged.iter().map(|one| one.1).sum();
        self.segments.iter().map(|one| one.bytes).sum::<u64>() + damaged
    }

    /// Appends a record; it is kept only once [`Store::sync`] has returned.
    pub(super) fn append(&mut self, fresh: &Fresh<'_>) -> Result<u64, AppendError> {
        let id = self.next_id;
        let body_bytes: usize = fresh.body.iter().map(Bytes::len).sum();
        let mut crc32 = crc32fast::Hasher::new();
        fresh.body.iter().for_each(|chunk| crc32.update(chunk));
        let header = Header {
            id,
            body_bytes: u32::try_from(body_bytes)
                .map_err(|_| AppendError::Disk(io::ErrorKind::FileTooLarge.into()))?,
            body_crc32: crc32.finalize(),
            ..fresh.header
        };
        let record_bytes = header.record_bytes();
        if self.bytes() + record_bytes > self.bytes_max {
            return Err(AppendError::Full);
        }
        self.make_room(record_bytes).map_err(AppendError::Disk)?;
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) else {
            return Err(AppendError::Disk(io::ErrorKind::NotFound.into()));
        };
        let appended = active
            .file
            .append(&header.encode())
            .inspect(|()| crate::failpoint::hit("spool_header_written"))
            .and_then(|()| fresh.body.iter().try_for_each(|chunk| active.file.append(chunk)));
        crate::failpoint::hit("spool_record_written");
        if let Err(error) = appended {
            self.abandon_active();
            return Err(AppendError::Disk(error));
        }
        active.unsynced.push(id);
        segment.bytes += record_bytes;
        segment.ids = Some((segment.ids.map_or(id, |ids| ids.0), id));
        self.next_id += 1;
        Ok(id)
    }

    /// An active segment with room for a record of so many bytes.
    fn make_room(&mut self, record_bytes: u64) -> io::Result<()> {
        let used = self.segments.back().map_or(0, |segment| segment.bytes);
        let room = SPOOL_SEGMENT_BYTES.min(self.bytes_max).max(record_bytes);
        if let Some(active) = &mut self.active
            && (used == 0 || used + record_bytes <= SPOOL_SEGMENT_BYTES)
        {
            return if used == 0 { active.file.reserve(room) } else { Ok(()) };
        }
        self.seal()?;
        let number = self.next_segment;
        let name = segment_name(number);
        let mut file = self.disk.create(&name)?;
        crate::failpoint::hit("spool_segment_created");
        // Half a record because of a full disk would be of no use to anybody.
        if let Err(error) = file.reserve(room).and_then(|()| self.disk.sync_directory(DIRECTORY)) {
            drop(file);
            // What can't be removed is empty, and goes at the next start.
            let _left = self.disk.remove(&name);
            return Err(error);
        }
        self.next_segment += 1;
        self.segments.push_back(Segment { number, bytes: 0, ids: None, is_damaged: false });
        self.active = Some(Active { file, unsynced: Vec::new() });
        crate::failpoint::hit("spool_segment_reserved");
        Ok(())
    }

    /// Nothing is written to the active segment any more; its unused room is given back.
    fn seal(&mut self) -> io::Result<()> {
        self.sync()?;
        if let (Some(mut active), Some(segment)) = (self.active.take(), self.segments.back()) {
            // What fails here only keeps room that is free again when the segment is removed.
            let _kept = active.file.truncate(segment.bytes);
        }
        Ok(())
    }

    /// Keeps all that was appended: it survives a loss of power from now on.
    ///
    /// # Errors
    /// When it is not known to be kept. All of it must be appended again then; it will not be read.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.unsynced.is_empty() {
            return Ok(());
        }
        if let Err(error) = active.file.sync() {
            self.abandon_active();
            return Err(error);
        }
        crate::failpoint::hit("spool_synced");
        active.unsynced.clear();
        Ok(())
    }

    /// The active segment failed: what of it was not synced is taken for not written, whatever the
    /// disk has of it.
    fn abandon_active(&mut self) {
        let Some(mut active) = self.active.take() else { return };
        for id in &active.unsynced {
            self.done.add(*id, *id + 1);
            self.is_cursor_stale = true;
        }
        if let Some(segment) = self.segments.back() {
            let _cut_at_next_start = active.file.truncate(segment.bytes);
        }
        self.remove_done();
    }

    /// Reads the next record that is not done, in the order in which they were kept.
    ///
    /// # Errors
    /// When it can't be read; the next call tries again.
    pub(super) fn read_next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let Some(at) = self.segments.iter().position(|one| one.number >= self.position.segment)
            else {
                return Ok(None);
            };
            let (number, length) = (self.segments[at].number, self.segments[at].bytes);
            if number != self.position.segment {
                self.position = Position { segment: number, offset: 0 };
            }
            let offset = self.position.offset;
            let found = segment::look(self.open_for_reading(number)?, offset, length)?;
            match found {
                Found::End if at + 1 == self.segments.len() => return Ok(None),
                Found::End => self.position = Position { segment: number + 1, offset: 0 },
                Found::Damage { end } => {
                    self.segments[at].is_damaged = true;
                    self.position.offset = end;
                }
                Found::Record(header) => {
                    if self.is_done(header.id) || header.id >= self.next_id {
                        self.position.offset += header.record_bytes();
                        continue;
                    }
                    let file = self.open_for_reading(number)?;
                    let body = segment::read_body(file, offset, &header)?;
                    self.position.offset += header.record_bytes();
                    return Ok(Some(self.take_entry(at, header, body)));
                }
            }
        }
    }

    fn take_entry(&mut self, at: usize, header: Header, body: Option<Vec<u8>>) -> Entry {
        match body {
            Some(body) => Entry::Whole(header, body),
            None => {
                self.segments[at].is_damaged = true;
                self.finish(header.id);
                Entry::Damaged(header)
            }
        }
    }

    /// Gives up on what stands at the place of reading, after it could not be read: the rest of its
    /// segment is skipped. Returns what was skipped, so far as its headers can be read.
    pub(super) fn skip_segment(&mut self) -> Vec<Header> {
        let Position { segment: number, mut offset } = self.position;
        if self.segments.back().is_some_and(|last| last.number == number) {
            // Nobody would read what is appended to it from now on.
            let _given_back = self.seal();
        }
        let mut skipped = Vec::new();
        if let Some(at) = self.segments.iter().position(|one| one.number == number) {
            self.segments[at].is_damaged = true;
            let (length, ids) = (self.segments[at].bytes, self.segments[at].ids);
            if let Ok(file) = self.disk.open(&segment_name(number)) {
                while let Ok(Found::Record(header)) = segment::look(&*file, offset, length) {
                    offset += header.record_bytes();
                    if !self.is_done(header.id) {
                        skipped.push(header);
                    }
                }
            }
            // What has no readable header can't be sent either.
            if let (Some((_, last)), false) = (ids, at + 1 == self.segments.len()) {
                let first = skipped.first().map_or(last, |header| header.id);
                self.done.add(first, last + 1);
            }
            for header in &skipped {
                self.done.add(header.id, header.id + 1);
            }
            self.is_cursor_stale = true;
        }
        self.position = Position { segment: number + 1, offset: 0 };
        self.remove_done();
        skipped
    }

    fn open_for_reading(&mut self, number: u64) -> io::Result<&dyn StateFile> {
        if self.reading.as_ref().is_none_or(|(open, _)| *open != number) {
            self.reading = Some((number, self.disk.open(&segment_name(number))?));
        }
        match &self.reading {
            Some((_, file)) => Ok(&**file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn is_done(&self, id: u64) -> bool {
        self.done.skip(id) > id
    }

    /// A record is done.
    pub(super) fn finish(&mut self, id: u64) {
        self.done.add(id, id + 1);
        self.is_cursor_stale = true;
        self.remove_done();
    }

    /// Removes segments whose records are all done.
    fn remove_done(&mut self) {
        let mut at = 0;
        while let Some(segment) = self.segments.get(at) {
            let is_done = segment.ids.is_none_or(|(first, last)| self.done.skip(first) > last);
            let is_active = self.active.is_some() && at + 1 == self.segments.len();
            if !is_done || (is_active && self.empty_active()) {
                at += 1;
                continue;
            }
            if is_active {
                self.active = None;
            }
            if let Some(segment) = self.segments.remove(at) {
                self.put_away(&segment);
            }
        }
    }

    /// Makes the active segment, all of whose records are done, an empty one to be written to again:
    /// a pod's end must not cost a new file each time. `false` where that can't be.
    fn empty_active(&mut self) -> bool {
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) else {
            return false;
        };
        if segment.bytes == 0 {
            return true;
        }
        if segment.is_damaged || active.file.truncate(0).is_err() {
            return false;
        }
        crate::failpoint::hit("spool_segment_emptied");
        (segment.bytes, segment.ids) = (0, None);
        if self.position.segment == segment.number {
            self.position.offset = 0;
        }
        true
    }

    /// Nothing will be written any more.
    pub(super) fn close(&mut self) {
        self.active = None;
        self.remove_done();
    }

    fn put_away(&mut self, segment: &Segment) {
        if self.reading.as_ref().is_some_and(|(open, _)| *open == segment.number) {
            self.reading = None;
        }
        let name = segment_name(segment.number);
        if segment.is_damaged {
            let aside = damaged_name(segment.number);
            if self.disk.rename(&name, &aside).is_ok() {
                self.damaged.push_back((aside, segment.bytes));
            }
        } else {
            // One that can't be removed is removed at the next start, when its records are done.
            let _left = self.disk.remove(&name);
            crate::failpoint::hit("spool_segment_removed");
        }
        let damaged_bytes_max = SPOOL_DAMAGED_BYTES_MAX.min(self.bytes_max / 4);
        while self.damaged.iter().map(|one| one.1).sum::<u64>() > damaged_bytes_max {
            let Some((oldest, _)) = self.damaged.pop_front() else { break };
            let _left = self.disk.remove(&oldest);
        }
    }

    /// Whether [`Store::write_cursor`] has something to write.
    pub(super) fn is_cursor_stale(&self) -> bool {
        self.is_cursor_stale
    }

    /// Writes down which records are done.
    ///
    /// # Errors
    /// When it can't be written: after a restart more records come twice.
    pub(super) fn write_cursor(&mut self) -> io::Result<()> {
        self.write_cursor_as(false)
    }

    fn write_cursor_as(&mut self, is_synced: bool) -> io::Result<()> {
        let cursor = Cursor { done_below: self.done.prefix(), done: self.done.beyond().to_vec() };
        let content = serde_json::to_vec(&cursor).map_err(io::Error::other)?;
        let mut file = self.disk.create(CURSOR_NEW)?;
        crate::failpoint::hit("spool_cursor_created");
        file.append(&frame::seal(CURSOR_MAGIC, &content))?;
        crate::failpoint::hit("spool_cursor_written");
        if is_synced {
            file.sync()?;
        }
        drop(file);
        self.disk.rename(CURSOR_NEW, CURSOR)?;
        if is_synced {
            self.disk.sync_directory(DIRECTORY)?;
        }
        crate::failpoint::hit("spool_cursor_renamed");
        self.is_cursor_stale = false;
        Ok(())
    }
}

/// What is done; nothing where the cursor is missing or damaged, so that all is sent again.
#[cfg(test)]
pub(crate) fn read_cursor(disk: &dyn StateDisk) -> Acknowledged {
    load_cursor(disk).unwrap_or_default()
}

/// What is done; `None` where the cursor is there and can't be read.
fn load_cursor(disk: &dyn StateDisk) -> Option<Acknowledged> {
    let bytes = match disk.read(CURSOR) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some(Acknowledged::default());
        }
        Err(error) => {
            tracing::warn!(%error, "the spool's cursor can't be read: what it holds is sent again");
            return None;
        }
    };
    let done = decode_cursor(&bytes);
    if done.is_none() {
        tracing::error!("the spool's cursor is damaged: what the spool holds is sent again");
    }
    done
}

fn decode_cursor(bytes: &[u8]) -> Option<Acknowledged> {
    let content = frame::open(CURSOR_MAGIC, bytes).ok()?;
    let cursor: Cursor = serde_json::from_slice(content).ok()?;
    Some(Acknowledged::new(cursor.done_below, &cursor.done))
}

/// Ids ascend within a segment; bytes of a body that look like a header give themselves away.
fn is_plausible(header: &Header, ids: Option<(u64, u64)>) -> bool {
    header.id < ID_MAX && ids.is_none_or(|(_, last)| header.id > last)
}

fn segment_name(number: u64) -> String {
    format!("{DIRECTORY}/{number:012}{SEGMENT_SUFFIX}")
}

fn damaged_name(number: u64) -> String {
    format!("{DIRECTORY}/{number:012}{DAMAGED_SUFFIX}")
}

const _: () = assert!(HEADER_BYTES as u64 * 1024 < SPOOL_SEGMENT_BYTES);
