//! Reading the spool again: records in the order in which they stand on disk, each once.
//!
//! What is not as it was written is lost, and said to be. What can't be read is *put off*: reading goes on
//! behind it, and comes back. A failure says of the data nothing at first: there may be too many open files,
//! or the disk may be away. Only where the disk fails at a place round after round, while others are read
//! between any two of them, is what stands there lost.

use std::{io, mem};

use rustix::io::Errno;

use super::{
    super::segment::{self, Found, Header},
    Entry, Failures, Lost, Position, Store, Sum, segment_name,
};
use crate::{limits::SPOOL_UNREADABLE_ROUNDS_MAX, world::StateFile};

/// What disks give out as a whole.
const BLOCK_BYTES: u64 = 4096;

impl Store {
    /// Reads the next record that is not done, in the order in which they stand on disk. `is_copy`
    /// says of an id that its request is with somebody else.
    ///
    /// # Errors
    /// When it can't be read; the next call tries again, and [`Store::pass_over`] goes on behind it.
    pub(in crate::spool) fn read_next(
        &mut self,
        is_copy: &dyn Fn(u64) -> bool,
    ) -> io::Result<Option<Entry>> {
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
            let found = if offset < length {
                segment::look(self.open_for_reading(number)?, offset, length)?
            } else {
                Found::End
            };
            match found {
                Found::End => {
                    let segment = &self.segments[at];
                    if segment.unread != Sum::default() && !segment.is_put_off {
                        return Ok(Some(Entry::Lost(self.give_up_rest(at))));
                    }
                    if at + 1 == self.segments.len() {
                        return Ok(None);
                    }
                    self.position = Position { segment: number + 1, offset: 0 };
                }
                Found::Nothing { end, .. } => {
                    self.segments[at].is_damaged = true;
                    self.position.offset = end;
                }
                Found::Record(header) => {
                    if let Some(entry) = self.read_record(at, header, is_copy)? {
                        return Ok(Some(entry));
                    }
                }
            }
        }
    }

    /// Reads the record at the place of reading, if it is to be read, and goes on behind it.
    fn read_record(
        &mut self,
        at: usize,
        header: Header,
        is_copy: &dyn Fn(u64) -> bool,
    ) -> io::Result<Option<Entry>> {
        let Position { segment: number, offset } = self.position;
        let after = offset + header.record_bytes();
        let is_passed = self.passed.skip(header.id) > header.id;
        if is_passed || self.is_done(header.id) || is_copy(header.id) {
            self.position.offset = after;
            return Ok(None);
        }
        let Some(rest) = self.segments[at].unread.minus(self.known.parts.rest_of(&header)) else {
            // It was not there when this segment was looked through or written.
            self.segments[at].is_damaged = true;
            self.position.offset = after;
            return Ok(None);
        };
        let body = segment::read_body(self.open_for_reading(number)?, offset, &header)?;
        self.reads += 1;
        self.position.offset = after;
        self.segments[at].unread = rest;
        self.passed.add(header.id, header.id + 1);
        Ok(Some(match body {
            Some(body) => Entry::Whole(header, body),
            None => Entry::Lost(self.give_up_record(at, &header)),
        }))
    }

    /// Whether the segment at the place of reading has been passed over before.
    pub(in crate::spool) fn has_failed_here(&self) -> bool {
        let segment = self.segments.iter().find(|one| one.number == self.position.segment);
        segment.is_some_and(|one| one.failures.rounds > 0)
    }

    /// Goes on behind what could not be read, as near as can be, and puts it off; returns it if it is
    /// given up. Says in `error` where that was.
    pub(in crate::spool) fn pass_over(&mut self, error: &io::Error) -> Option<Lost> {
        // A file handle may be why.
        self.reading = None;
        let Position { segment: number, offset } = self.position;
        let at = self.segments.iter().position(|one| one.number == number)?;
        let length = self.segments[at].bytes;
        let file = self.open_for_reading(number).ok();
        let record = match file.map(|file| segment::look(file, offset, length)) {
            Some(Ok(Found::Record(header))) => Some(header),
            // It can be read by now.
            Some(Ok(_)) => return None,
            Some(Err(_)) | None => None,
        };
        self.position.offset = match (&record, file) {
            (Some(header), _) => offset + header.record_bytes(),
            (None, Some(file)) => next_readable(file, offset, length),
            (None, None) => length,
        };
        let is_given_up = may_be_the_data(error) && self.count_failure(at);
        let segment = &mut self.segments[at];
        if !is_given_up {
            segment.is_put_off = true;
            return None;
        }
        segment.is_damaged = true;
        // Of what has no header the end of the segment tells.
        let header = record?;
        segment.unread = segment.unread.minus(self.known.parts.rest_of(&header))?;
        Some(self.give_up_record(at, &header))
    }

    /// Counts a failure to read a segment, once in a round; returns whether that makes enough.
    fn count_failure(&mut self, at: usize) -> bool {
        let Failures { rounds, round, reads } = self.segments[at].failures;
        if rounds == 0 || round < self.round && reads < self.reads {
            self.segments[at].failures =
                Failures { rounds: rounds + 1, round: self.round, reads: self.reads };
        }
        self.segments[at].failures.rounds >= SPOOL_UNREADABLE_ROUNDS_MAX
    }

    /// Reading goes back to what was put off.
    pub(in crate::spool) fn try_again(&mut self) {
        self.round += 1;
        let mut first = None;
        for segment in &mut self.segments {
            if mem::take(&mut segment.is_put_off) {
                first.get_or_insert(segment.number);
            }
        }
        if let Some(number) = first {
            self.position = self.position.min(Position { segment: number, offset: 0 });
        }
    }

    /// Records that are to be read.
    pub(in crate::spool) fn unread_requests(&self) -> u64 {
        self.segments.iter().map(|one| one.unread.requests).sum()
    }

    /// A record that was to be read is lost, and done.
    fn give_up_record(&mut self, at: usize, header: &Header) -> Lost {
        self.segments[at].is_damaged = true;
        let number = self.segments[at].number;
        let rest = self.known.parts.rest_of(header);
        self.finish(header.id);
        self.lost(number, rest)
    }

    fn lost(&self, segment: u64, sum: Sum) -> Lost {
        Lost { sum, path: self.disk.path(&segment_name(segment)) }
    }

    /// What a segment should hold and reading has not found is done, copies in it too.
    fn give_up_rest(&mut self, at: usize) -> Lost {
        let segment = &mut self.segments[at];
        segment.is_damaged = true;
        let (number, sum) = (segment.number, mem::take(&mut segment.unread));
        if let Some((first, last)) = segment.ids {
            let mut id = self.passed.skip(first);
            while id <= last {
                let end = self.passed.next_start(id).map_or(last + 1, |next| next.min(last + 1));
                self.known.done.add(id, end);
                self.passed.add(id, end);
                id = self.passed.skip(end);
            }
            self.is_cursor_stale = true;
        }
        self.remove_done();
        self.lost(number, sum)
    }

    /// Ranges of numbers that reading passes over.
    #[cfg(test)]
    pub(in crate::spool) fn passed_ranges(&self) -> usize {
        self.passed.beyond().len()
    }

    /// What is read now, as a file.
    pub(in crate::spool) fn reading_path(&self) -> std::path::PathBuf {
        self.disk.path(&segment_name(self.position.segment))
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
}

/// Where a record begins behind a place that can't be read; `length` where none is found.
fn next_readable(file: &dyn StateFile, offset: u64, length: u64) -> u64 {
    let mut skipped_bytes = BLOCK_BYTES;
    loop {
        let from = (offset + skipped_bytes) / BLOCK_BYTES * BLOCK_BYTES;
        if from >= length {
            return length;
        }
        if let Ok(found) = segment::next_header(file, from, length) {
            return found;
        }
        skipped_bytes *= 2;
    }
}

/// Whether an error may be because of what stands on the disk. Most are not: there are too many open files,
/// too little memory, or no rights.
fn may_be_the_data(error: &io::Error) -> bool {
    use Errno as E;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(E::IO | E::NODATA | E::BADMSG | E::UCLEAN | E::ILSEQ | E::NOENT))
}
