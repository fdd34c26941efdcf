//! Open partial lines: the fragments of a record whose end hasn't been read. They belong to no
//! batch, so a checkpoint never passes them.

use std::time::Instant;

use thyme_core::cri::Stream;

use super::{cut::unfinished_bytes, suffix::Marker, uid::FileDigits};
use crate::queue::FileRange;

/// When a line was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineTime<'a> {
    /// As a record carries it, nanoseconds since the Unix epoch; 0 is unknown.
    pub unix_nano: u64,
    /// As the line has it, where that is another time, or none that a record can carry.
    pub odd: Option<&'a [u8]>,
}

/// Where a fragment stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// What it covers: its line, or nothing where more of that is to come.
    pub range: FileRange,
    /// Where a record begins that begins with it.
    pub start: u64,
    /// The file, where records carry an identity.
    pub file: Option<FileDigits>,
}

/// Where a character begins whose end has not come.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    /// Which of [`Partial::ranges`] its first byte stands in.
    range: usize,
    /// Where in the file.
    offset: u64,
    file: Option<FileDigits>,
}

/// A record that is being put together.
#[derive(Debug, Default)]
pub struct Partial {
    /// Time of its first fragment, as in the Collector.
    pub time_unix_nano: u64,
    /// That time as written, where a record can't carry it; else empty.
    odd_time: Vec<u8>,
    /// Tags of its first fragment, as in the Collector; empty for docker's.
    tags: Vec<u8>,
    docker: bool,
    /// Its fragments so far, joined.
    pub body: Vec<u8>,
    /// What `body` covers, over one or more files; not empty.
    pub ranges: Vec<FileRange>,
    /// Offset of its first byte in the file of its first fragment.
    pub start: u64,
    /// The file of its first fragment, where records carry an identity.
    pub file: Option<FileDigits>,
    /// Bytes of the record that already left as pieces.
    pub emitted_bytes: u64,
    /// Set while `body` ends within a character, and the file has that byte by byte.
    unfinished: Option<Unfinished>,
    /// Bytes of its lines when it was last looked at, and since when there have been so many.
    last_look: Option<(u64, Instant)>,
}

impl Partial {
    /// How its record is marked.
    pub fn marker(&self) -> Marker<'_> {
        if self.docker { Marker::Docker } else { Marker::Tags(&self.tags) }
    }

    /// The time of its first fragment as written, where a record can't carry it.
    pub fn odd_time(&self) -> Option<&[u8]> {
        Some(&self.odd_time[..]).filter(|time| !time.is_empty())
    }

    fn begin(&mut self, time: LineTime<'_>, marker: Marker<'_>, place: Place) {
        self.time_unix_nano = time.unix_nano;
        self.odd_time.clear();
        self.odd_time.extend_from_slice(time.odd.unwrap_or_default());
        (self.start, self.file) = (place.start, place.file);
        self.unfinished = None;
        self.last_look = None;
        self.docker = marker == Marker::Docker;
        self.tags.clear();
        if let Marker::Tags(tags) = marker {
            self.tags.extend_from_slice(tags);
        }
    }

    /// Notes whether it ends within a character, after a fragment of `added_bytes`.
    fn note_end(&mut self, added_bytes: usize, place: Place) {
        let unfinished = unfinished_bytes(&self.body);
        let Place { range, file, .. } = place;
        if unfinished == 0 || range.start == range.end {
            // A limit was cut at: within a character only where the text isn't UTF-8.
            self.unfinished = None;
        } else if unfinished <= added_bytes {
            // Only CRI's body can end so; it stands before the newline as it is.
            let offset = range.end - 1 - unfinished as u64;
            self.unfinished = Some(Unfinished { range: self.ranges.len() - 1, offset, file });
        }
    }

    /// The beginning of a character at its end.
    fn unfinished(&self) -> &[u8] {
        let bytes = self.unfinished.map_or(0, |_| unfinished_bytes(&self.body));
        &self.body[self.body.len() - bytes..]
    }

    /// Splits the beginning of a character off its end, with what covers that; `None` where there is none, or
    /// nothing else.
    pub(super) fn split_unfinished(&mut self) -> Option<Box<Self>> {
        let Unfinished { range, offset, file } = self.unfinished?;
        let at = self.body.len() - self.unfinished().len();
        if at == 0 {
            return None;
        }
        let mut rest = Box::new(Self {
            time_unix_nano: self.time_unix_nano,
            odd_time: self.odd_time.clone(),
            tags: self.tags.clone(),
            docker: self.docker,
            body: self.body.split_off(at),
            ranges: self.ranges.split_off(range),
            start: offset,
            file,
            emitted_bytes: self.emitted_bytes + at as u64,
            unfinished: Some(Unfinished { range: 0, offset, file }),
            last_look: None,
        });
        let first = &mut rest.ranges[0];
        self.ranges.push(FileRange { end: offset, ..*first });
        first.start = offset;
        self.unfinished = None;
        Some(rest)
    }

    /// Bytes of the files that it holds back.
    pub fn source_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

/// The open records of one container, at most one a stream. Most containers never have one, so that
/// each lies apart.
#[derive(Debug, Default)]
pub struct Partials {
    open: [Option<Box<Partial>>; 2],
    /// Bytes of each stream's record that have left, while more of it may follow.
    emitted_bytes: [u64; 2],
    /// A buffer to use again.
    spare: Option<Box<Partial>>,
}

/// A spare buffer larger than this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 64 * 1024;

impl Partials {
    /// Whether the stream's next line goes on with a record, be it open or partly gone.
    #[inline]
    pub fn is_midway(&self, stream: Stream) -> bool {
        self.open[stream.index()].is_some() || self.emitted_bytes[stream.index()] > 0
    }

    /// Whether the stream has an open record.
    pub fn is_open(&self, stream: Stream) -> bool {
        self.open[stream.index()].is_some()
    }

    /// Whether any stream has an open record.
    #[inline]
    pub fn is_any_open(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Bytes of its body so far.
    pub fn open_bytes(&self, stream: Stream) -> usize {
        self.open[stream.index()].as_ref().map_or(0, |open| open.body.len())
    }

    /// The beginning of a character that the stream's open record ends with.
    pub(super) fn unfinished(&self, stream: Stream) -> &[u8] {
        self.open[stream.index()].as_ref().map_or(&[], |open| open.unfinished())
    }

    /// Whether that is all that is open of the stream.
    pub fn is_within_character(&self, stream: Stream) -> bool {
        let unfinished = self.unfinished(stream).len();
        unfinished > 0 && unfinished == self.open_bytes(stream)
    }

    /// Since when the stream's open record has not grown, as far as calls of this have seen.
    pub fn quiet_since(&mut self, stream: Stream, now: Instant) -> Option<Instant> {
        let open = self.open[stream.index()].as_mut()?;
        let bytes = open.source_bytes();
        let last_look = open.last_look.filter(|(seen, _)| *seen == bytes);
        let (_, since) = *open.last_look.insert(last_look.unwrap_or((bytes, now)));
        Some(since)
    }

    /// Memory that the open records hold, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.open.iter().flatten().map(|open| open.body.capacity()).sum()
    }

    /// Whether an open line holds bytes of this file.
    pub fn cover(&self, file: u32) -> bool {
        self.open.iter().flatten().any(|open| open.ranges.iter().any(|range| range.file == file))
    }

    /// Open records and the bytes of the files that they hold back.
    pub fn queued(&self) -> (i64, i64) {
        let open = self.open.iter().flatten();
        open.fold((0, 0), |(records, bytes), one| (records + 1, bytes + one.source_bytes() as i64))
    }

    pub(super) fn append(
        &mut self,
        stream: Stream,
        time: LineTime<'_>,
        marker: Marker<'_>,
        body: &[u8],
        place: Place,
    ) {
        let emitted_bytes = std::mem::take(&mut self.emitted_bytes[stream.index()]);
        let spare = &mut self.spare;
        let open = self.open[stream.index()].get_or_insert_with(|| {
            let mut fresh = spare.take().unwrap_or_default();
            fresh.begin(time, marker, place);
            fresh.emitted_bytes = emitted_bytes;
            fresh
        });
        open.body.extend_from_slice(body);
        let range = place.range;
        match open.ranges.last_mut() {
            Some(last) if last.file == range.file && last.end == range.start => {
                last.end = range.end;
            }
            _ => open.ranges.push(range),
        }
        open.note_end(body.len(), place);
    }

    /// How far the stream's record got that has left in part, in bytes of its body; it is forgotten.
    pub fn take_emitted(&mut self, stream: Stream) -> u64 {
        std::mem::take(&mut self.emitted_bytes[stream.index()])
    }

    /// The stream's next line goes on with a record of which so many bytes have left.
    pub fn go_on(&mut self, stream: Stream, emitted_bytes: u64) {
        self.emitted_bytes[stream.index()] = emitted_bytes;
    }

    /// It goes on with what was split off what has left.
    pub(super) fn go_on_with(&mut self, stream: Stream, rest: Box<Partial>) {
        self.emitted_bytes[stream.index()] = 0;
        self.open[stream.index()] = Some(rest);
    }

    /// What has left in part goes on nowhere.
    pub fn forget_pieces(&mut self) {
        self.emitted_bytes = [0; 2];
    }

    pub(super) fn take(&mut self, stream: Stream) -> Option<Box<Partial>> {
        self.open[stream.index()].take()
    }

    /// Keeps the buffer of a record that left; when more of it may follow, remembers how far it got.
    pub(super) fn put_back(&mut self, stream: Stream, mut left: Box<Partial>, more_follows: bool) {
        let emitted = left.emitted_bytes + left.body.len() as u64;
        self.emitted_bytes[stream.index()] = if more_follows { emitted } else { 0 };
        if left.body.capacity() <= SPARE_BYTES_MAX {
            left.body.clear();
            left.ranges.clear();
            self.spare = Some(left);
        }
    }
}
