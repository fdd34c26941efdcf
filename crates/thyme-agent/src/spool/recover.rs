//! The look through the segments at a start: which records there are, each number once, what is no
//! record, and what is missing. It says what is wrong, by path and place; it must not read bodies.

use std::{io, path::Path};

use super::{
    cursor::{ID_MAX, Known},
    segment::{self, Found, Header},
    store::{Segment, Sum},
};
use crate::{tail::acknowledge::Acknowledged, world::StateFile};

/// Log records, or bytes of files, that no request has.
const CONTENT_MAX: u64 = 1 << 48;

/// What was there at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Spool records that are not done.
    pub(super) unread: Sum,
    /// Bytes that are no whole record: what was being written at the end, or damage.
    pub(super) unreadable_bytes: u64,
    /// Records whose number another one has, which came before.
    pub(super) copies: u64,
    /// Records that are gone, so far as that can be known: at least so many.
    pub(super) lost_requests: u64,
}

/// What a segment holds that should not be there.
#[derive(Clone, Copy, Debug, Default)]
struct Oddities {
    damaged_places: u64,
    damaged_bytes: u64,
    /// Where the first of all is.
    first_offset: Option<u64>,
    copies: u64,
    disordered: u64,
}

/// The look, segment by segment, in the order in which they will be read.
pub(super) struct Look<'a> {
    known: &'a Known,
    seen: Acknowledged,
    /// Least and greatest id of each segment.
    ranges: Vec<(u64, u64)>,
    /// Damaged places, and those of them that no number before and behind tells the content of.
    damaged_places: u64,
    open_places: u64,
    recovered: Recovered,
}

impl<'a> Look<'a> {
    pub(super) fn new(known: &'a Known) -> Self {
        Self {
            known,
            seen: Acknowledged::default(),
            ranges: Vec::new(),
            damaged_places: 0,
            open_places: 0,
            recovered: Recovered::default(),
        }
    }

    /// Looks through a segment's headers. What was being written to the last one when the agent ended
    /// is cut off.
    pub(super) fn through(
        &mut self,
        path: &Path,
        number: u64,
        mut file: Box<dyn StateFile>,
        is_last: bool,
    ) -> io::Result<Segment> {
        let mut segment = Segment { number, bytes: file.length()?, ..Segment::default() };
        let mut odd = Oddities::default();
        let (mut offset, mut last_id) = (0, None);
        loop {
            let (end, is_damage) = match segment::look(&*file, offset, segment.bytes)? {
                Found::End => break,
                Found::Nothing { end, is_torn: true } if is_last => {
                    let torn_bytes = end - offset;
                    self.recovered.unreadable_bytes += torn_bytes;
                    tracing::info!(
                        path = %path.display(), offset, torn_bytes,
                        "the spool's last write was cut short, as the end of a process does it; it is \
                         removed, and what was not kept yet is read again or was sent; requests that were kept \
                         and are gone are told as missing"
                    );
                    file.truncate(offset)?;
                    segment.bytes = offset;
                    break;
                }
                Found::Nothing { end, .. } => (end, true),
                Found::Record(header) => {
                    let end = offset + header.record_bytes();
                    let is_damage = !self.take(&header, &mut segment, &mut odd, &mut last_id);
                    (end, is_damage)
                }
            };
            if is_damage {
                odd.damaged_places += 1;
                odd.damaged_bytes += end - offset;
                let is_open = last_id.is_none() || end == segment.bytes;
                self.open_places += u64::from(is_open && !self.known.damaged.contains(&number));
            }
            if is_damage || odd.copies + odd.disordered > 0 {
                odd.first_offset.get_or_insert(offset);
            }
            offset = end;
        }
        if is_last {
            // A life that was killed has left room behind its last record; what fails only keeps it.
            let _kept = file.truncate(segment.bytes);
            // What a life has written and not synced goes on as kept, and must not be missing one day.
            let _synced = file.sync();
        }
        self.ranges.extend(segment.ids);
        self.note(path, number, &odd);
        segment.is_damaged = odd.first_offset.is_some();
        self.recovered.unread = self.recovered.unread.plus(segment.unread);
        Ok(segment)
    }

    /// Takes a record in; `false` where it can't be one.
    fn take(
        &mut self,
        header: &Header,
        segment: &mut Segment,
        odd: &mut Oddities,
        last_id: &mut Option<u64>,
    ) -> bool {
        let id = header.id;
        if id >= ID_MAX || header.records > CONTENT_MAX || header.source_bytes > CONTENT_MAX {
            return false;
        }
        if self.seen.skip(id) > id {
            odd.copies += 1;
            return true;
        }
        odd.disordered += u64::from(last_id.is_some_and(|last| id < last));
        *last_id = Some(id);
        self.seen.add(id, id + 1);
        let (first, last) = segment.ids.unwrap_or((id, id));
        segment.ids = Some((first.min(id), last.max(id)));
        if self.known.done.skip(id) == id {
            segment.unread = segment.unread.plus(self.known.parts.rest_of(header));
        }
        true
    }

    /// Says and counts what is odd, once in the life of a segment.
    fn note(&mut self, path: &Path, number: u64, odd: &Oddities) {
        let Some(offset) = odd.first_offset else { return };
        if self.known.damaged.contains(&number) {
            tracing::info!(
                path = %path.display(),
                "a segment of the spool is damaged, as an earlier start has said and counted"
            );
            return;
        }
        let path = path.display();
        let Oddities { damaged_places, damaged_bytes, copies, disordered, .. } = *odd;
        self.recovered.unreadable_bytes += damaged_bytes;
        self.recovered.copies += copies;
        self.damaged_places += damaged_places;
        if damaged_places > 0 {
            tracing::error!(
                %path, offset, damaged_places, damaged_bytes,
                "a segment of the spool is damaged: expected a request, which begins with `thymeS1` \
                 and a checksum; what stands there instead is lost, the segment is kept as \
                 spool/*.damaged"
            );
        }
        if copies + disordered > 0 {
            tracing::warn!(
                %path, offset, copies, disordered,
                "a segment of the spool is not as it was written: it holds requests a second time, \
                 which are not sent again, or in another order; it is kept as spool/*.damaged"
            );
        }
    }

    /// What was found in all; from now on whatever has not been found is done, and numbers go on
    /// behind what was.
    pub(super) fn end(mut self) -> (Recovered, Ending) {
        let missing = self.missing();
        // Where the cursor says what was kept, what stood in a damaged place is among the missing.
        let places = if self.known.kept_below > 0 { 0 } else { self.open_places };
        let lost = (missing.count() + places).max(self.damaged_places);
        if lost > 0 {
            tracing::error!(
                requests_at_least = lost,
                numbers = %listed(&missing),
                "requests are missing in the spool, whole segments perhaps; how many records they held is \
                 not known"
            );
        }
        self.recovered.lost_requests = lost;
        let next_id = self.seen.beyond().last().map_or(self.seen.prefix(), |last| last.1);
        (self.recovered, Ending { seen: self.seen, next_id })
    }

    /// Ids that neither stand anywhere nor are done, of those that the cursor says to be kept, and of the ranges
    /// of segments, which have no gaps.
    fn missing(&self) -> Acknowledged {
        let mut expected = Acknowledged::new(self.known.kept_below, &[]);
        self.ranges.iter().for_each(|&(first, last)| expected.add(first, last + 1));
        let mut found = self.known.done.clone();
        ranges(&self.seen).for_each(|(start, end)| found.add(start, end));
        let mut missing = Acknowledged::default();
        for (start, end) in ranges(&expected) {
            let mut id = found.skip(start);
            while id < end {
                let next = found.next_start(id).map_or(end, |next| next.min(end));
                missing.add(id, next);
                id = found.skip(next);
            }
        }
        missing
    }
}

/// Ids as ranges.
fn ranges(ids: &Acknowledged) -> impl Iterator<Item = (u64, u64)> {
    let first = Some((0, ids.prefix())).filter(|first| first.1 > 0);
    first.into_iter().chain(ids.beyond().iter().copied())
}

/// The first of some ids, as text.
fn listed(ids: &Acknowledged) -> String {
    const RANGES_MAX: usize = 8;
    let listed = ranges(ids).take(RANGES_MAX).map(|(start, end)| format!("{start}-{}", end - 1));
    let more = if ranges(ids).count() > RANGES_MAX { ", and more" } else { "" };
    listed.collect::<Vec<_>>().join(", ") + more
}

/// What follows from the look.
pub(super) struct Ending {
    seen: Acknowledged,
    /// The next id, so far as the segments say.
    pub(super) next_id: u64,
}

impl Ending {
    /// What has not been seen below `next_id` is done: nobody has it any more, and a segment must not
    /// wait for it. Returns whether that is news.
    pub(super) fn close_gaps(&self, done: &mut Acknowledged, next_id: u64) -> bool {
        let before = done.clone();
        let mut from = self.seen.prefix();
        for &(start, end) in self.seen.beyond() {
            done.add(from, start);
            from = end;
        }
        done.add(from, next_id);
        *done != before
    }
}
