//! The spool on disk: append-only segments, which of their records are done, and the order in which
//! they are read again. It must not know the sink or the workers; whoever owns it decides when.
//!
//! ```text
//! spool/<number>.segment   records, see `segment`; removed once all of them are done
//! spool/cursor             which records are done, replaced by renaming
//! spool/<number>.damaged   a segment in which something could not be read, kept for a human
//! ```
//!
//! Nothing is removed before the cursor says that it is done, where it can be written: what was kept, is not done and
//! stands nowhere is missing.
//!
//! A record is done when the sink has it, or nobody wants it any more. The cursor may be behind:
//! then records are sent twice. It is never ahead.
//!
//! A number belongs to one record: what has a number that was seen before is a copy, and is passed
//! over, by the look at the start as by reading. So both agree on what there is, and what reading
//! does not find of it is known to be lost.

mod damaged;
mod read;

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    cursor::{self, Known},
    recover::{self, Recovered},
    segment::{HEADER_BYTES, Header},
};
use crate::{
    checkpoint::CheckpointError,
    limits::SPOOL_SEGMENT_BYTES,
    tail::acknowledge::Acknowledged,
    world::{StateDisk, StateFile},
};

pub(super) const DIRECTORY: &str = "spool";
pub(super) const SEGMENT_SUFFIX: &str = ".segment";
const DAMAGED_SUFFIX: &str = ".damaged";

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh<'a> {
    pub(super) body: &'a [Bytes],
    /// What it covers, see `covers`.
    pub(super) note: &'a [u8],
    /// Its id, body length and checksum are filled in.
    pub(super) header: Header,
    /// Whether it is a copy of a request that another has, and is not to be read in this life.
    pub(super) is_copy: bool,
}

/// Spool records, and what is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// So many.
    pub(super) requests: u64,
    /// Log records in them.
    pub(super) records: u64,
    /// Bytes of the files that they came from.
    pub(super) source_bytes: u64,
}

impl Sum {
    pub(super) fn of(header: &Header) -> Self {
        let Header { records, source_bytes, .. } = *header;
        Self { requests: 1, records, source_bytes }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            records: self.records.saturating_add(other.records),
            source_bytes: self.source_bytes.saturating_add(other.source_bytes),
        }
    }

    /// What is left without `other`; `None` where that is not in it.
    fn minus(self, other: Self) -> Option<Self> {
        Some(Self {
            requests: self.requests.checked_sub(other.requests)?,
            records: self.records.checked_sub(other.records)?,
            source_bytes: self.source_bytes.checked_sub(other.source_bytes)?,
        })
    }
}

/// A record that was read again.
#[derive(Debug)]
pub(super) enum Entry {
    /// As it was kept.
    Whole(Header, Vec<u8>),
    /// So much is not on disk any more as it was kept; it is done now.
    Lost(Lost),
}

/// What can't be read again.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) sum: Sum,
    /// The segment that held it.
    pub(super) path: PathBuf,
}

/// Why a record was not appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// The budget is used up.
    Full,
    /// The disk failed, or is full.
    Disk(io::Error),
}

/// A segment on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    /// Least and greatest id; `None` while it holds nothing.
    pub(super) ids: Option<(u64, u64)>,
    /// What of it is to be read, and was not yet.
    pub(super) unread: Sum,
    /// Something in it could not be read.
    pub(super) is_damaged: bool,
    /// Something to be read in it could not be read, and is tried again.
    pub(super) is_put_off: bool,
    pub(super) failures: Failures,
}

/// How often a segment could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    /// Rounds in which it failed, each but the first with something read since the one before.
    rounds: u32,
    /// The last round of them.
    round: u64,
    /// What had been read by then, see [`Store::reads`].
    reads: u64,
}

/// The segment that is written to.
struct Active {
    file: Box<dyn StateFile>,
    /// Where the room ends that it has on disk, written to or not.
    reserved_bytes: u64,
    /// What was appended since the last sync: ids, and what of it is to be read.
    unsynced: Vec<(u64, Sum)>,
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
    /// How often what was put off was tried again.
    round: u64,
    /// Bodies that were read whole.
    reads: u64,
    /// Ids that are done by now, or were read and given to whoever asked: none of them is read again.
    passed: Acknowledged,
    /// What the next cursor says.
    known: Known,
    is_cursor_stale: bool,
    next_id: u64,
    next_segment: u64,
    /// Segments kept for a human, oldest first: name and bytes.
    damaged: VecDeque<(String, u64)>,
}

/// Whether an earlier start has left anything in its spool.
///
/// # Errors
/// When that can't be found out.
pub fn has_segments(disk: &dyn StateDisk) -> Result<bool, CheckpointError> {
    match disk.names(DIRECTORY) {
        Ok(names) => Ok(names.iter().any(|name| name.ends_with(SEGMENT_SUFFIX))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(disk, DIRECTORY, "cannot read")(error)),
    }
}

/// What could not be done with a file of the spool.
fn failed(
    disk: &dyn StateDisk,
    name: &str,
    action: &'static str,
) -> impl FnOnce(io::Error) -> CheckpointError + use<> {
    let path = disk.path(name);
    move |error| CheckpointError::io(&path, action)(error)
}

impl Store {
    /// Opens what is there.
    ///
    /// # Errors
    /// When the directory can't be made or read. Damage is no error.
    pub(super) fn open(
        disk: Arc<dyn StateDisk>,
        bytes_max: u64,
    ) -> Result<(Self, Recovered), CheckpointError> {
        let at = Arc::clone(&disk);
        let failed = |name: &str, action| failed(&*at, name, action);
        disk.make_directory(DIRECTORY).map_err(failed(DIRECTORY, "cannot create"))?;
        // A loss of power must not take the directory away, with what is synced in it.
        disk.sync_directory("").map_err(failed("", "cannot sync"))?;
        let cursor = cursor::load(&*disk);
        let is_cursor_lost = cursor.is_none();
        let mut store = Self {
            known: cursor.unwrap_or_default(),
            disk,
            bytes_max,
            segments: VecDeque::new(),
            active: None,
            reading: None,
            position: Position::default(),
            round: 0,
            reads: 0,
            passed: Acknowledged::default(),
            is_cursor_stale: false,
            next_id: 0,
            next_segment: 1,
            damaged: VecDeque::new(),
        };
        let done = &store.known.done;
        store.next_id = done.beyond().last().map_or(done.prefix(), |last| last.1);
        // What a record that is gone had settled must not hold for another one of its number.
        store.next_id = store.next_id.max(store.known.parts.next_id()).max(store.known.kept_below);
        let (mut segments, mut damaged) = (Vec::new(), Vec::new());
        for name in store.disk.names(DIRECTORY).map_err(failed(DIRECTORY, "cannot read"))? {
            let number = |suffix| name.strip_suffix(suffix)?.parse::<u64>().ok();
            segments.extend(number(SEGMENT_SUFFIX));
            damaged.extend(number(DAMAGED_SUFFIX));
        }
        segments.sort_unstable();
        damaged.sort_unstable();
        let newest = segments.iter().chain(&damaged).max();
        store.next_segment = newest.map_or(1, |newest| newest.saturating_add(1));
        for number in damaged {
            let name = damaged_name(number);
            let length = store.disk.open(&name).and_then(|file| file.length());
            store.damaged.push_back((name.clone(), length.map_err(failed(&name, "cannot open"))?));
        }
        let (recovered, ending) = store.look_through(&segments)?;
        store.next_id = store.next_id.max(ending.next_id);
        store.is_cursor_stale = ending.close_gaps(&mut store.known.done, store.next_id);
        store.passed = store.known.done.clone();
        let is_damaged = |one: &&Segment| one.is_damaged;
        let damaged = store.segments.iter().filter(is_damaged).map(|one| one.number);
        let news =
            damaged.filter(|number| !store.known.damaged.contains(number)).collect::<Vec<_>>();
        if is_cursor_lost {
            // Ids begin anew. Were the old cursor read again one day, it would take them for done.
            store.known.damaged.extend(news);
            store.write_cursor_as(true).map_err(failed(cursor::NAME, "cannot write"))?;
        } else if !news.is_empty() {
            // What is counted now is not to be counted by each further start.
            store.known.damaged.extend(news);
            store.is_cursor_stale = store.write_cursor().is_err();
        }
        store.remove_done();
        store.prune_damaged();
        Ok((store, recovered))
    }

    /// Takes up segments, the oldest first, with what is in them.
    fn look_through(
        &mut self,
        numbers: &[u64],
    ) -> Result<(Recovered, recover::Ending), CheckpointError> {
        let mut look = recover::Look::new(&self.known);
        for number in numbers {
            let name = segment_name(*number);
            let failed = |action| failed(&*self.disk, &name, action);
            let file = self.disk.open(&name).map_err(failed("cannot open"))?;
            let is_last = Some(number) == numbers.last();
            let found = look.through(&self.disk.path(&name), *number, file, is_last);
            self.segments.push_back(found.map_err(failed("cannot read"))?);
        }
        Ok(look.end())
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
            note_bytes: u32::try_from(fresh.note.len()).unwrap_or(0),
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
            .and_then(|()| fresh.body.iter().try_for_each(|chunk| active.file.append(chunk)))
            .and_then(|()| active.file.append(fresh.note));
        crate::failpoint::hit("spool_record_written");
        if let Err(error) = appended {
            // The disk may have all of it, and it may stay: no other record gets its number.
            active.unsynced.push((id, Sum::default()));
            self.next_id += 1;
            self.abandon_active();
            return Err(AppendError::Disk(error));
        }
        let to_be_read = if fresh.is_copy { Sum::default() } else { Sum::of(&header) };
        active.unsynced.push((id, to_be_read));
        segment.bytes += record_bytes;
        segment.ids = Some((segment.ids.map_or(id, |ids| ids.0), id));
        self.next_id += 1;
        Ok(id)
    }

    /// An active segment with room for a record of so many bytes, for which the budget has room. What is
    /// reserved is on disk like what is written, and never more than the budget.
    fn make_room(&mut self, record_bytes: u64) -> io::Result<()> {
        let used = self.segments.back().map_or(0, |segment| segment.bytes);
        let left = self.bytes_max.saturating_sub(self.bytes());
        if let Some(active) = &mut self.active
            && (used == 0 || used + record_bytes <= SPOOL_SEGMENT_BYTES)
        {
            let end = used + record_bytes;
            if end > active.reserved_bytes {
                let room = SPOOL_SEGMENT_BYTES.min(used + left).max(end);
                active.file.reserve(room)?;
                active.reserved_bytes = room;
            }
            return Ok(());
        }
        self.seal()?;
        let number = self.next_segment;
        let name = segment_name(number);
        let room = SPOOL_SEGMENT_BYTES.min(left).max(record_bytes);
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
        self.segments.push_back(Segment { number, ..Segment::default() });
        self.active = Some(Active { file, reserved_bytes: room, unsynced: Vec::new() });
        crate::failpoint::hit("spool_segment_reserved");
        Ok(())
    }

    /// What was appended is kept, and nothing is written to the active segment any more.
    fn seal(&mut self) -> io::Result<()> {
        self.sync()?;
        self.retire();
        Ok(())
    }

    /// Nothing is written to the active segment any more: what is behind its last record, and the room
    /// that it has not used, is given back.
    fn retire(&mut self) {
        if let (Some(mut active), Some(segment)) = (self.active.take(), self.segments.back()) {
            // What fails here is made good by the next start, or when the segment is removed.
            let _kept = active.file.truncate(segment.bytes);
        }
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
        for (id, kept) in active.unsynced.drain(..) {
            self.known.kept_below = id + 1;
            self.is_cursor_stale = true;
            if let Some(segment) = self.segments.back_mut() {
                segment.unread = segment.unread.plus(kept);
            }
        }
        Ok(())
    }

    /// The active segment failed: what of it was not synced is taken for not written, whatever the
    /// disk has of it.
    fn abandon_active(&mut self) {
        let Some(active) = &self.active else { return };
        for (id, _) in &active.unsynced {
            self.known.done.add(*id, *id + 1);
            self.passed.add(*id, *id + 1);
            self.is_cursor_stale = true;
        }
        self.retire();
        self.remove_done();
    }

    pub(super) fn is_done(&self, id: u64) -> bool {
        self.known.done.skip(id) > id
    }

    /// So much of a record is settled; nothing of it has been before that is not among it.
    pub(super) fn advance(&mut self, id: u64, settled: Acknowledged) {
        if !self.is_done(id) && settled != Acknowledged::default() {
            self.known.parts.set(id, settled);
            self.is_cursor_stale = true;
        }
    }

    /// A record that was kept as a copy is to be read after all: nobody else has its request now.
    pub(super) fn adopt(&mut self, header: &Header) {
        let rest = self.known.parts.rest_of(header);
        let id = header.id;
        let holds = |segment: &&mut Segment| {
            segment.ids.is_some_and(|(first, last)| first <= id && id <= last)
        };
        let Some(segment) = self.segments.iter_mut().rev().find(holds) else { return };
        segment.unread = segment.unread.plus(rest);
        if segment.number <= self.position.segment {
            // Reading may have passed over it; what was read before is passed over now.
            self.position = Position { segment: segment.number, offset: 0 };
        }
    }

    /// What of a record is settled.
    pub(super) fn settled_of(&self, id: u64) -> Acknowledged {
        self.known.parts.of(id)
    }

    /// A record is done.
    pub(super) fn finish(&mut self, id: u64) {
        self.known.done.add(id, id + 1);
        self.passed.add(id, id + 1);
        self.known.parts.forget(id);
        self.is_cursor_stale = true;
        self.remove_done();
    }

    /// Removes segments whose records are all done.
    fn remove_done(&mut self) {
        let mut at = 0;
        while let Some(segment) = self.segments.get(at) {
            let is_done =
                segment.ids.is_none_or(|(first, last)| self.known.done.skip(first) > last);
            let is_active = self.active.is_some() && at + 1 == self.segments.len();
            let is_empty = segment.bytes == 0;
            if is_done && !is_empty && self.is_cursor_stale {
                // A start must not take what is removed for lost. Where it can't be written, what makes room is
                // removed all the same.
                let _written = self.write_cursor();
            }
            if !is_done || (is_active && self.empty_active()) {
                at += 1;
                continue;
            }
            if is_active {
                self.retire();
            }
            if let Some(segment) = self.segments.remove(at) {
                self.put_away(&segment);
                if self.is_cursor_stale {
                    // On a disk that was full there may be room now.
                    let _written = self.write_cursor();
                }
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
        active.reserved_bytes = 0;
        (segment.bytes, segment.ids) = (0, None);
        (segment.is_put_off, segment.failures) = (false, Failures::default());
        if self.position.segment == segment.number {
            self.position.offset = 0;
        }
        true
    }

    /// Nothing will be written any more.
    pub(super) fn close(&mut self) {
        self.retire();
        self.remove_done();
    }

    fn put_away(&mut self, segment: &Segment) {
        if self.reading.as_ref().is_some_and(|(open, _)| *open == segment.number) {
            self.reading = None;
        }
        let name = segment_name(segment.number);
        self.known.damaged.remove(&segment.number);
        if segment.is_damaged {
            let aside = damaged_name(segment.number);
            if self.disk.rename(&name, &aside).is_ok() {
                self.damaged.push_back((aside, segment.bytes));
                self.prune_damaged();
            }
        } else {
            // One that can't be removed is removed at the next start, when its records are done.
            let _left = self.disk.remove(&name);
            crate::failpoint::hit("spool_segment_removed");
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
        self.known.parts.forget_done(&self.known.done);
        cursor::write(&*self.disk, &self.known, is_synced)?;
        self.is_cursor_stale = false;
        Ok(())
    }
}

fn segment_name(number: u64) -> String {
    format!("{DIRECTORY}/{number:012}{SEGMENT_SUFFIX}")
}

fn damaged_name(number: u64) -> String {
    format!("{DIRECTORY}/{number:012}{DAMAGED_SUFFIX}")
}

const _: () = assert!(HEADER_BYTES as u64 * 1024 < SPOOL_SEGMENT_BYTES);
