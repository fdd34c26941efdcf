//! A group's turn: one read of its oldest unfinished file, parsed into the open batch.

use std::{ops::Range, sync::atomic::Ordering, time::Instant};

use thyme_core::cri::{CriParser, Stream};

use super::{
    Worker, WorkerState,
    group::{Group, TailedFile},
};
use crate::{
    batch::Batch,
    encode::EncodeError,
    limits::{
        CHARACTER_WAIT, HOLE_BYTES_MIN, IDLE_AFTER, LINE_HEADER_BYTES, POLL_INTERVAL_MIN,
        READ_BYTES, READ_BYTES_WANTED, ROTATION_GRACE, UNTERMINATED_LINE_WAIT,
        UNWATCHED_CHECK_INTERVAL,
    },
    metrics::{LossReason, Metrics},
    parse::{
        self, Chunk, Flush, ParseCounts, Stop, parse_lines,
        unended::{end_line, parse_piece, room_for_end, room_for_piece, whole_bytes},
    },
    queue::FileRange,
    tail::{
        gzip::GzipEnd,
        identity::{Front, Head},
        source::Source,
    },
    world::Clock,
};

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to read now.
    Again,
    /// The next turn is then.
    At(Instant),
    /// A watch, or the upkeep, will say when there is more.
    Idle,
}

/// What a read gave.
enum Read {
    /// So many bytes were taken into records or open partial lines.
    Taken(u64),
    /// There are no bytes, or only so many of a line without its newline.
    End { rest_bytes: usize },
    /// There is more, but no request may be made before others are settled.
    Blocked,
    /// The file was written anew: it begins again.
    Anew,
    /// The file can't be read, now or ever.
    Failed,
}

impl Worker {
    /// Reads once from the group's oldest file that isn't finished.
    pub(super) fn read_turn(&mut self, number: u32, now: Instant) -> Result<Progress, EncodeError> {
        let Some(id) = self.oldest_unfinished(number) else {
            self.has_caught_up(number, now);
            return Ok(self.rest(number, now));
        };
        if self.is_late(number, id) {
            self.read_turn_of_late(number, id, now)
        } else {
            self.read_turn_of(number, id, now)
        }
    }

    pub(super) fn read_turn_of(
        &mut self,
        number: u32,
        id: u32,
        now: Instant,
    ) -> Result<Progress, EncodeError> {
        if !self.may_decode(number, id) {
            // Those that decompress now are in the ring as well, and end.
            return Ok(Progress::Again);
        }
        if let Some(progress) = self.reopen_parked(number, id, now) {
            return Ok(progress);
        }
        let read = match self.read_file(number, id)? {
            // A truncated file begins anew: what it holds now is read at once.
            Read::End { .. } if self.was_truncated(number, id)? => return Ok(Progress::Again),
            read => read,
        };
        match read {
            Read::Taken(bytes) => {
                self.note_growth(id);
                Ok(self.pace(number, id, bytes, now))
            }
            Read::End { rest_bytes } => {
                self.has_caught_up(number, now);
                self.note_end(number, id, rest_bytes);
                self.at_end(number, id, now)
            }
            // The budget is looked at before the next turn.
            Read::Blocked | Read::Anew => Ok(Progress::Again),
            Read::Failed => {
                self.release_decoder(id);
                Ok(self.try_again(number, now))
            }
        }
    }

    pub(super) fn oldest_unfinished(&self, number: u32) -> Option<u32> {
        let files = &self.groups.get(&number)?.files;
        let is_next = |file: &TailedFile| !file.is_finished() && !file.is_awaited;
        files.iter().copied().find(|id| self.files.get(id).is_some_and(|file| is_next(file)))
    }

    /// Notes that all that there is of the group has been read.
    fn has_caught_up(&mut self, number: u32, now: Instant) {
        if let Some(group) = self.groups.get_mut(&number) {
            group.caught_up_at = now;
        }
    }

    /// When the group is read next, after a read that found `bytes`.
    fn pace(&mut self, number: u32, id: u32, bytes: u64, now: Instant) -> Progress {
        let (Some(group), Some(file)) = (self.groups.get_mut(&number), self.files.get_mut(&id))
        else {
            return Progress::Idle;
        };
        group.last_growth = now;
        file.end_since = None;
        if bytes >= READ_BYTES as u64 / 2 || matches!(file.source, Some(Source::Archive(_))) {
            group.next_poll = now;
            return Progress::Again;
        }
        group.caught_up_at = now;
        // Twice as long or half as long, until a read finds about what it should.
        let interval = if bytes < READ_BYTES_WANTED / 2 {
            group.poll_interval * 2
        } else if bytes > READ_BYTES_WANTED * 2 {
            group.poll_interval / 2
        } else {
            group.poll_interval
        };
        group.poll_interval = interval.clamp(POLL_INTERVAL_MIN, group.poll_interval_max);
        group.next_poll = now + group.poll_interval;
        Progress::At(group.next_poll)
    }

    /// Notes where a file ends now. An unfinished line before it that has grown is waited for anew.
    fn note_end(&mut self, number: u32, id: u32, rest_bytes: usize) {
        let (Some(group), Some(file)) = (self.groups.get_mut(&number), self.files.get_mut(&id))
        else {
            return;
        };
        if file.end_since.is_some() && file.rest_bytes == rest_bytes {
            return;
        }
        // Later than the turn's begin: what is waited for was there when it was read.
        let now = self.clock.now();
        file.end_since = Some(now);
        file.rest_bytes = rest_bytes;
        if rest_bytes > 0 {
            group.last_growth = now;
        }
    }

    /// At the end of a file: turn to its successor, let an unfinished line go, or wait.
    fn at_end(&mut self, number: u32, id: u32, now: Instant) -> Result<Progress, EncodeError> {
        if let Some(progress) = self.await_rest_of_archive(number, id, now) {
            return Ok(progress);
        }
        let Some(group) = self.groups.get_mut(&number) else { return Ok(Progress::Idle) };
        let Some(file) = self.files.get_mut(&id) else { return Ok(Progress::Idle) };
        let end_since = *file.end_since.get_or_insert(now);
        let at_end_for = now.saturating_duration_since(end_since);
        let has_ended = group.files.last() != Some(&id) || !file.is_present;
        // An archive's end is final, unless its rest is awaited.
        let is_over =
            matches!(&file.source, Some(Source::Archive(archive)) if archive.end().is_some());
        // A line that is being written is one line, also when its file is renamed meanwhile.
        let grace = if file.rest_bytes > 0 { UNTERMINATED_LINE_WAIT } else { ROTATION_GRACE };
        if is_over || (has_ended && at_end_for >= grace) {
            self.finish_file(number, id, now)?;
            return Ok(Progress::Again);
        }
        if has_ended {
            group.next_poll = now + ROTATION_GRACE;
            return Ok(Progress::At(group.next_poll));
        }
        let is_final = at_end_for >= CHARACTER_WAIT;
        if at_end_for >= UNTERMINATED_LINE_WAIT && !self.take_unterminated(number, id, is_final)? {
            return Ok(Progress::Again);
        }
        Ok(self.rest(number, now))
    }

    /// Waits longer for the next growth, and in the end for a watch.
    fn rest(&mut self, number: u32, now: Instant) -> Progress {
        let Some(group) = self.groups.get_mut(&number) else { return Progress::Idle };
        let has_open_line = group.lines.partials.queued().0 > 0;
        if now.duration_since(group.last_growth) < IDLE_AFTER || has_open_line {
            group.poll_interval = (group.poll_interval * 2).min(group.poll_interval_max);
            group.next_poll = now + group.poll_interval;
            return Progress::At(group.next_poll);
        }
        if !group.is_watched {
            group.is_watched = self.idle.arm(&group.path(), number);
            if group.is_watched {
                // What was written before the watch raises no event: one more look.
                group.next_poll = now;
                return Progress::At(now);
            }
        }
        if !group.is_watched {
            self.attention.unwatched.insert(number);
        }
        Progress::Idle
    }

    /// A file could not be read. A group that only rests would not be looked at again before its live
    /// file grows.
    fn try_again(&mut self, number: u32, now: Instant) -> Progress {
        let Some(group) = self.groups.get_mut(&number) else { return Progress::Idle };
        group.next_poll = now + UNWATCHED_CHECK_INTERVAL;
        Progress::At(group.next_poll)
    }

    /// The file was read to its end, and nothing more will be written to it.
    fn finish_file(&mut self, number: u32, id: u32, now: Instant) -> Result<(), EncodeError> {
        if !self.take_unterminated(number, id, true)? {
            return Ok(());
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.finished_at = Some(now);
            if let Some(begun) = file.continuation.take()
                && let Some(group) = self.groups.get_mut(&number)
            {
                // Of a fragment that lacks its newline the rest is the next file's.
                begun.end(&mut group.lines.partials);
            }
            self.attention.ending.insert(id);
            if let Some(Source::Archive(archive)) = &file.source {
                file.cut_at = archive.cut_at();
                // What it said of its length may be wrong.
                file.length = file.offset;
            }
            report_archive_end(&self.metrics, file);
        }
        if self.files.get(&id).is_some_and(|file| file.is_last) {
            self.end_open_lines(number)?;
        }
        if self.is_successor_finished(number, id) {
            // What goes on with an open line was acknowledged before a restart.
            self.flush_open_lines(number)?;
        }
        crate::failpoint::hit("file_finished");
        self.publish(&[id]);
        Ok(())
    }

    /// Whether the file after this one needs no reading, as its checkpoint said.
    fn is_successor_finished(&self, number: u32, id: u32) -> bool {
        let Some(group) = self.groups.get(&number) else { return false };
        let next = group.files.iter().skip_while(|other| **other != id).nth(1);
        next.and_then(|next| self.files.get(next)).is_some_and(|file| file.is_finished())
    }

    /// Reads what is there and parses its complete lines.
    fn read_file(&mut self, number: u32, id: u32) -> Result<Read, EncodeError> {
        self.end_interrupted_lines(number, id)?;
        let Some(filled) = self.fill(number, id) else { return Ok(Read::Failed) };
        // After the read: what was read may be of the file that is there now.
        if filled > 0 {
            match self.was_rewritten(id) {
                Ok(false) => {}
                Ok(true) => {
                    self.begin_anew(number, id)?;
                    return Ok(Read::Anew);
                }
                Err(_) => return Ok(Read::Failed),
            }
            if let Some(file) = self.files.get_mut(&id) {
                file.length = file.length.max(file.offset + filled as u64);
            }
        }
        crate::failpoint::hit("file_read");
        // At a file's end, what looks like a hole may still be written.
        let is_more = filled >= READ_BYTES;
        let mut at = self.skip_before_line(number, id, filled, is_more);
        loop {
            let (consumed, stop) = self.parse(number, id, at, filled);
            at += consumed;
            if stop == Stop::NoNewline {
                break;
            }
            if self.is_closing_blocked() {
                self.give_back(id, at, filled);
                return Ok(Read::Blocked);
            }
            self.close_batch()?;
        }
        if at == 0 && filled >= self.line_bytes_max(number) {
            // A line that is longer than may be waited for leaves in pieces.
            at = self.parse_unterminated(number, id, filled, false)?;
        }
        crate::failpoint::hit("lines_parsed");
        self.give_back(id, at, filled);
        if at > 0
            && let Some(file) = self.files.get_mut(&id)
        {
            file.rest_bytes = filled - at;
        }
        Ok(if at == 0 { Read::End { rest_bytes: filled } } else { Read::Taken(at as u64) })
    }

    /// After a restart, acknowledged bytes are not read again. An open line whose next fragment is
    /// among them must not go on with a fragment of another line: it leaves without its end.
    fn end_interrupted_lines(&mut self, number: u32, id: u32) -> Result<(), EncodeError> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (Some(group), Some(file)) = (self.groups.get(&number), self.files.get(&id)) else {
                return Ok(());
            };
            let skipped = file.skipped_from..file.acknowledged.skip(file.offset);
            let is_midway = !skipped.is_empty() && group.lines.partials.is_midway(stream);
            if is_midway && may_hold_line_of(file, skipped, stream) {
                self.flush_stream(number, stream, Flush::Ended)?;
                if let Some(group) = self.groups.get_mut(&number) {
                    group.lines.partials.take_emitted(stream);
                }
            }
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.skipped_from = file.acknowledged.skip(file.offset);
        }
        Ok(())
    }

    fn line_bytes_max(&self, number: u32) -> usize {
        let body = self.groups.get(&number).map_or(0, |group| group.lines.body_bytes_max);
        (body + LINE_HEADER_BYTES).max(READ_BYTES)
    }

    /// Fills the buffer from the file's offset on; grows it when it holds no newline. `None`: the
    /// file can't be read.
    fn fill(&mut self, number: u32, id: u32) -> Option<usize> {
        let bytes_max = self.line_bytes_max(number);
        let file = self.files.get_mut(&id)?;
        let offset = file.acknowledged.skip(file.offset);
        if offset > std::mem::replace(&mut file.offset, offset) {
            // What follows is no rest of the line before, of which a later piece was acknowledged.
            file.continuation = None;
        }
        let limit = file
            .acknowledged
            .next_start(file.offset)
            .map_or(usize::MAX, |start| usize::try_from(start - file.offset).unwrap_or(usize::MAX));
        let source = file.source.as_mut()?;
        let mut filled = 0;
        let mut wanted = READ_BYTES;
        loop {
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            let buffer = &mut self.buffer[..wanted.min(limit)];
            let kept = filled;
            filled = match source.fill(buffer, kept, file.offset) {
                Ok(filled) => filled,
                Err(error) => {
                    self.metrics.file_errors.increment();
                    if self.complaints.is_news(id, self.clock.now()) {
                        tracing::warn!(file = ?file.name, %error, "cannot read a log file");
                    }
                    return None;
                }
            };
            self.complaints.is_well(&id);
            let is_short = filled < buffer.len() || filled == kept;
            if is_short || wanted >= bytes_max || memchr::memchr(b'\n', &buffer[kept..]).is_some() {
                return Some(filled);
            }
            // An archive gives its bytes once only.
            source.give_back(&buffer[..filled]);
            wanted = (wanted * 2).min(bytes_max);
        }
    }

    /// Takes what belongs to no line at the beginning of the buffer, and returns how much it is. Unless
    /// `is_final`, nothing is taken that reaches to the buffer's end.
    fn skip_before_line(&mut self, number: u32, id: u32, filled: usize, is_final: bool) -> usize {
        let (Some(group), Some(file)) = (self.groups.get_mut(&number), self.files.get_mut(&id))
        else {
            return 0;
        };
        let bytes = &self.buffer[..filled];
        let mut skipped = parse::bytes_before_line(bytes, file.offset);
        if file.continuation.is_some() {
            // Within a line, only a hole ends it.
            skipped = parse::leading_nuls(bytes);
            if skipped < HOLE_BYTES_MIN {
                return 0;
            }
        }
        if skipped == 0 || (skipped == filled && !is_final) {
            return 0;
        }
        file.continuation = None;
        let range = FileRange { file: id, start: file.offset, end: file.offset + skipped as u64 };
        let mut booking = Booking::begin(group, &mut self.batch, number, &*self.clock);
        booking.counts.skipped_nuls =
            bytes[..skipped].iter().filter(|byte| **byte == 0).count() as u64;
        booking.batch.cover(range);
        booking.end(&self.metrics, skipped);
        note_consumed(file, &bytes[..skipped], &self.state, &self.metrics);
        skipped
    }

    /// Parses the buffer from `at` on, and books what became of it.
    fn parse(&mut self, number: u32, id: u32, at: usize, filled: usize) -> (usize, Stop) {
        self.name_file(number, id);
        let (Some(group), Some(file)) = (self.groups.get_mut(&number), self.files.get_mut(&id))
        else {
            return (0, Stop::NoNewline);
        };
        let bytes = &self.buffer[at..filled];
        let complete = memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1);
        if complete == 0 {
            return (0, Stop::NoNewline);
        }
        let utf8 = simdutf8::basic::from_utf8(&bytes[..complete]).is_ok();
        let mut booking = Booking::begin(group, &mut self.batch, number, &*self.clock);
        let mut head_bytes = 0;
        if let Some(begun) = file.continuation {
            let end = memchr::memchr(b'\n', bytes).unwrap_or(complete - 1);
            if booking.batch.is_full_for_all(room_for_end(end, &booking.group.lines)) {
                booking.end(&self.metrics, 0);
                return (0, Stop::BatchFull);
            }
            file.continuation = None;
            head_bytes = end + 1;
            let bytes = &bytes[..head_bytes];
            let chunk = Chunk { bytes, file: id, offset: file.offset, utf8: false };
            end_line(chunk, begun, &mut booking.group.lines, booking.batch, &mut booking.counts);
        }
        let (mut consumed, mut stop) = (head_bytes, Stop::NoNewline);
        // In spans, so that the end of a part of a request settles some of them.
        while consumed < complete && stop == Stop::NoNewline {
            let bytes = &bytes[consumed..complete];
            let bytes = &bytes[..span_end(bytes, booking.batch.span_bytes)];
            let chunk = Chunk { bytes, file: id, offset: file.offset + consumed as u64, utf8 };
            booking.batch.mark();
            let taken;
            (taken, stop) =
                parse_lines(chunk, &mut booking.group.lines, booking.batch, &mut booking.counts);
            consumed += taken;
        }
        booking.end(&self.metrics, consumed);
        if group.lines.partials.is_any_open() {
            self.attention.with_partials.insert(number);
        }
        note_consumed(file, &bytes[..consumed], &self.state, &self.metrics);
        (consumed, stop)
    }

    /// Lets the beginning of a line go that has waited long enough, if there is one; `false` when
    /// more of it has come meanwhile, or nothing can be read: the file's turn comes again. Unless that
    /// `is_final`, the beginning of a character at its end stays.
    fn take_unterminated(
        &mut self,
        number: u32,
        id: u32,
        is_final: bool,
    ) -> Result<bool, EncodeError> {
        let mut waited_for = self.files.get(&id).map(|file| file.rest_bytes);
        loop {
            let Some(filled) = self.fill(number, id) else { return Ok(false) };
            if filled == 0 {
                return Ok(true);
            }
            let has_grown = waited_for.take().is_some_and(|bytes| bytes != filled);
            let may_be_another = !matches!(self.was_rewritten(id), Ok(false));
            if has_grown
                || may_be_another
                || memchr::memchr(b'\n', &self.buffer[..filled]).is_some()
            {
                self.give_back(id, 0, filled);
                return Ok(false);
            }
            let taken = self.parse_unterminated(number, id, filled, is_final)?;
            self.give_back(id, taken, filled);
            if taken == 0 {
                return Ok(true);
            }
        }
    }

    fn parse_unterminated(
        &mut self,
        number: u32,
        id: u32,
        filled: usize,
        is_final: bool,
    ) -> Result<usize, EncodeError> {
        let skipped = self.skip_before_line(number, id, filled, true);
        if skipped > 0 {
            return Ok(skipped);
        }
        // What stands before a hole is all that there will be of its line.
        let nuls = self.buffer[..filled].iter().rev().take_while(|byte| **byte == 0).count();
        let mut filled = if nuls >= HOLE_BYTES_MIN { filled - nuls } else { filled };
        if !(is_final || nuls >= HOLE_BYTES_MIN)
            && let (Some(group), Some(file)) = (self.groups.get_mut(&number), self.files.get(&id))
        {
            let is_begun = file.continuation.is_some();
            filled = whole_bytes(&self.buffer[..filled], is_begun, &mut group.lines);
            if filled == 0 {
                return Ok(0);
            }
        }
        if let (Some(group), Some(file)) = (self.groups.get(&number), self.files.get(&id)) {
            let is_begun = file.continuation.is_some();
            let room = room_for_piece(&self.buffer[..filled], is_begun, &group.lines);
            if self.batch.is_full_for_all(room) {
                self.close_batch()?;
            }
        }
        self.name_file(number, id);
        let (Some(group), Some(file)) = (self.groups.get_mut(&number), self.files.get_mut(&id))
        else {
            return Ok(0);
        };
        let bytes = &self.buffer[..filled];
        let chunk = Chunk { bytes, file: id, offset: file.offset, utf8: false };
        let mut booking = Booking::begin(group, &mut self.batch, number, &*self.clock);
        let (consumed, line) = parse_piece(
            chunk,
            file.continuation,
            &mut booking.group.lines,
            booking.batch,
            &mut booking.counts,
        );
        booking.end(&self.metrics, consumed);
        if group.lines.partials.is_any_open() {
            self.attention.with_partials.insert(number);
        }
        file.continuation = Some(line);
        note_consumed(file, &bytes[..consumed], &self.state, &self.metrics);
        Ok(consumed)
    }

    fn give_back(&mut self, id: u32, taken: usize, filled: usize) {
        if let Some(source) = self.files.get_mut(&id).and_then(|file| file.source.as_mut()) {
            source.give_back(&self.buffer[taken..filled]);
        }
    }
}

/// Where the first span of these whole lines ends: behind a line, and with all of them where little is
/// left.
fn span_end(lines: &[u8], span_bytes: u64) -> usize {
    let span_bytes = usize::try_from(span_bytes).unwrap_or(usize::MAX);
    if lines.len() / 2 < span_bytes {
        return lines.len();
    }
    let end = memchr::memchr(b'\n', &lines[span_bytes - 1..]);
    end.map_or(lines.len(), |newline| span_bytes + newline)
}

/// Whether a line of the stream stands in these bytes of a file, as far as that can be told.
fn may_hold_line_of(file: &TailedFile, range: Range<u64>, stream: Stream) -> bool {
    let Some(Source::Plain(open)) = &file.source else { return true };
    let bytes = range.end - range.start;
    if bytes > READ_BYTES as u64 {
        return true;
    }
    let mut buffer = vec![0; bytes as usize];
    if !open.read_at(&mut buffer, range.start).is_ok_and(|read| read as u64 == bytes) {
        return true;
    }
    let mut parser = CriParser::default();
    // A line that isn't CRI may be docker's, of any stream.
    buffer
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .any(|line| parser.parse(line).is_none_or(|found| found.stream == stream))
}

/// Notes what was read of a file: how far it was read, and its head as long as that grows.
fn note_consumed(file: &mut TailedFile, consumed: &[u8], state: &WorkerState, metrics: &Metrics) {
    state.read_bytes.fetch_add(consumed.len() as u64, Ordering::Relaxed);
    if matches!(file.source, Some(Source::Archive(_))) {
        metrics.archive_bytes.add(consumed.len() as u64);
    }
    let is_plain = matches!(file.source, Some(Source::Plain(_)));
    if file.offset == 0 {
        // What a plain file began with when it was opened may have been truncated since.
        let head = Head::of(consumed);
        if is_plain {
            file.front = Front::of(consumed);
        }
        file.head = if is_plain { head } else { file.head.longest(head) };
    } else if file.offset <= u64::from(file.head.bytes)
        && let Some(Source::Plain(open)) = &file.source
    {
        file.head = file.head.grown(&**open).unwrap_or(file.head);
    }
    if is_plain {
        file.endings.advance(file.offset, consumed);
    }
    file.offset += consumed.len() as u64;
    file.length = file.length.max(file.offset);
    file.skipped_from = file.offset;
    file.charge.read(consumed.len() as u64);
    file.end_since = None;
}

/// Says how an archive ended, if it is not as it should.
fn report_archive_end(metrics: &Metrics, file: &TailedFile) {
    let Some(Source::Archive(archive)) = &file.source else { return };
    let end = archive.end();
    match end {
        Some(GzipEnd::Damaged { .. } | GzipEnd::Cut) => {
            let (cause, rest_bytes) = match end {
                Some(GzipEnd::Damaged { cause, rest_bytes }) => (&**cause, *rest_bytes),
                _ => ("unexpected end of file", 0),
            };
            metrics.file_errors.increment();
            metrics.lost_files.increment();
            // How much was in it, nobody knows: what it takes on disk is the least.
            metrics.lost(LossReason::DamagedArchive).add(rest_bytes);
            tracing::warn!(
                file = ?file.name, read = file.offset, rest_bytes, cause,
                "an archive is damaged or cut off: what stands before that was read"
            );
        }
        Some(GzipEnd::Trailer { bytes }) => {
            metrics.lost(LossReason::ArchiveTrailer).add(*bytes);
            tracing::warn!(
                file = ?file.name, bytes,
                "what follows the end of an archive is not compressed: it is not read"
            );
        }
        Some(GzipEnd::Whole) | None => {}
    }
}

/// Books a call of the parser: what was read, and where it is queued.
pub(super) struct Booking<'a> {
    pub(super) group: &'a mut Group,
    pub(super) batch: &'a mut Batch,
    pub(super) counts: ParseCounts,
    partial_before: (i64, i64),
    batch_before: (u64, u64),
    now: Instant,
}

impl<'a> Booking<'a> {
    pub(super) fn begin(
        group: &'a mut Group,
        batch: &'a mut Batch,
        number: u32,
        clock: &dyn Clock,
    ) -> Self {
        group.lines.suffixes.set_observed_time(clock.unix_nanos());
        batch.begin_segment(number, group.resource.len());
        Self {
            partial_before: group.lines.partials.queued(),
            batch_before: (batch.record_count, batch.source_bytes),
            group,
            batch,
            counts: ParseCounts::default(),
            now: clock.now(),
        }
    }

    pub(super) fn end(self, metrics: &Metrics, consumed: usize) {
        let Self { group, batch, counts, partial_before, batch_before, now } = self;
        batch.end_segment();
        let partial = group.lines.partials.queued();
        let partial = (partial.0 - partial_before.0, partial.1 - partial_before.1);
        let queued = (
            (batch.record_count - batch_before.0) as i64,
            (batch.source_bytes - batch_before.1) as i64,
        );
        // A batch ages from its first byte on.
        if queued.1 > 0 && batch.opened_at.is_none() {
            batch.opened_at = Some(now);
        }
        let together = metrics.together();
        metrics.read.add(counts.records as i64, consumed as i64);
        metrics.queued_partial.add(partial.0, partial.1);
        metrics.queued_batch.add(queued.0, queued.1);
        drop(together);
        metrics.malformed_lines.add(counts.malformed);
        metrics.invalid_utf8_bodies.add(counts.invalid_utf8);
        metrics.split_records.add(counts.split);
        metrics.skipped_nuls.add(counts.skipped_nuls);
        debug_assert_eq!(counts.records as i64, partial.0 + queued.0);
        debug_assert_eq!(consumed as i64, partial.1 + queued.1);
    }
}
