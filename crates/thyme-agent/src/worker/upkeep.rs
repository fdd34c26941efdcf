//! What isn't urgent: partial lines that nobody ends, files that linger, idle files whose watch
//! may have missed an event, groups that are gone.

use std::{collections::BTreeSet, time::Instant};

use thyme_core::cri::Stream;

use super::{
    Worker,
    group::{TailedFile, Turn},
    turn::Booking,
};
use crate::{
    encode::EncodeError,
    limits::{
        CHARACTER_WAIT, GAPS_MAX, HIDDEN_TIME_MAX, IDLE_CHECK_INTERVAL, LINGER_TIME,
        PARTIAL_LINE_WAIT, UNWATCHED_CHECK_INTERVAL,
    },
    parse::{Flush, flush_partial},
    tail::{idle_watch::Woken, source::Source},
};

/// What needs to be looked after now and then, so that upkeep costs nothing for everything else.
#[derive(Debug, Default)]
pub(super) struct Attention {
    /// Groups with an open partial line; some whose line has left.
    pub(super) with_partials: BTreeSet<u32>,
    /// Groups that are idle without a watch.
    pub(super) unwatched: BTreeSet<u32>,
    /// Groups that had no file left.
    pub(super) empty: BTreeSet<u32>,
    /// Files that were read to their end, or are gone from their directory.
    pub(super) ending: BTreeSet<u32>,
    /// Files that were read to their end and closed; some that are compressed or gone by now.
    pub(super) closed: BTreeSet<u32>,
    /// Archives that are cut off and may still be written.
    pub(super) awaited: BTreeSet<u32>,
    /// Parked files that have grown and wait for a descriptor; some that have one by now.
    pub(super) waiting: BTreeSet<u32>,
    /// How many of them are shown to wait.
    pub(super) waiting_shown: i64,
    /// The closed file that was looked at last.
    pub(super) last_closed: u32,
    /// Files that were read since their lengths were looked at last, each once.
    pub(super) grown: Vec<u32>,
    /// When their lengths are looked at next.
    pub(super) next_length_look: Option<Instant>,
    /// Files that were read in the time before that, and how long they were known to be.
    pub(super) grown_before: Vec<(u32, u64)>,
}

impl Worker {
    /// Looks after everything once.
    pub(super) fn upkeep(&mut self, now: Instant) -> Result<(), EncodeError> {
        self.flush_ended_partials(now)?;
        self.keep_partials_within_budget()?;
        self.close_lingering(now);
        self.end_late_lines()?;
        self.look_for_late_writes();
        self.look_at_cut_archives(now);
        self.publish_lengths(now)?;
        self.look_after_deleted(now);
        self.ask_for_descriptors();
        self.give_up_descriptors(now);
        self.check_idle(now);
        if let Some(failures) = self.complaints.take_unsaid(now) {
            tracing::warn!(failures, "log files still cannot be read");
        }
        debug_assert!(self.has_decoders_within_limit());
        let empty: Vec<u32> = self.attention.empty.iter().copied().collect();
        for number in empty {
            self.forget_group(number);
        }
        Ok(())
    }

    /// Lets go of partial lines whose end isn't waited for any longer.
    fn flush_ended_partials(&mut self, now: Instant) -> Result<(), EncodeError> {
        let mut ended = Vec::new();
        self.attention.with_partials.retain(|number| {
            self.groups.get(number).is_some_and(|group| group.lines.partials.is_any_open())
        });
        for number in &self.attention.with_partials {
            let is_line_begun = self.oldest_unfinished(*number).is_some_and(|id| {
                let file = self.files.get(&id);
                file.is_some_and(|file| file.rest_bytes > 0)
            });
            let Some(group) = self.groups.get_mut(number) else { continue };
            for stream in [Stream::Stdout, Stream::Stderr] {
                // The next fragment may stand in what hasn't been read yet, or is being written.
                let quiet_since = group.lines.partials.quiet_since(stream, now);
                let is_within_character = group.lines.partials.is_within_character(stream);
                let wait = if is_within_character { CHARACTER_WAIT } else { PARTIAL_LINE_WAIT };
                if !is_line_begun
                    && quiet_since.is_some_and(|since| group.caught_up_at >= since + wait)
                {
                    ended.push((*number, stream));
                }
            }
        }
        for (number, stream) in ended {
            self.flush_stream(number, stream, Flush::Paused)?;
        }
        Ok(())
    }

    /// Lets go of all partial lines.
    pub(super) fn flush_all_partials(&mut self) -> Result<(), EncodeError> {
        let numbers: Vec<u32> = self.groups.keys().copied().collect();
        for number in numbers {
            self.flush_partials(number, Flush::Ended)?;
        }
        self.end_all_late_lines()
    }

    /// As long as open partial lines hold more memory than they may, the largest leave in pieces.
    fn keep_partials_within_budget(&mut self) -> Result<(), EncodeError> {
        let held_late = self.held_by_late_lines();
        loop {
            let held = self.attention.with_partials.iter().map(|number| {
                let group = self.groups.get(number);
                (group.map_or(0, |group| group.lines.partials.held_bytes()), *number)
            });
            let (total, largest) = held.fold((held_late, (0, 0)), |(total, largest), one| {
                (total + one.0, largest.max(one))
            });
            if total <= self.config.partial_bytes_max || largest.0 == 0 {
                return Ok(());
            }
            self.flush_partials(largest.1, Flush::Piece)?;
        }
    }

    /// Lets go of a group's open lines.
    pub(super) fn flush_open_lines(&mut self, number: u32) -> Result<(), EncodeError> {
        self.flush_partials(number, Flush::Released)
    }

    /// Lets go of a group's open lines, which go on nowhere.
    pub(super) fn end_open_lines(&mut self, number: u32) -> Result<(), EncodeError> {
        self.flush_partials(number, Flush::Ended)?;
        if let Some(group) = self.groups.get_mut(&number) {
            group.lines.partials.forget_pieces();
        }
        Ok(())
    }

    fn flush_partials(&mut self, number: u32, flush: Flush) -> Result<(), EncodeError> {
        self.flush_stream(number, Stream::Stdout, flush)?;
        self.flush_stream(number, Stream::Stderr, flush)
    }

    pub(super) fn flush_stream(
        &mut self,
        number: u32,
        stream: Stream,
        flush: Flush,
    ) -> Result<(), EncodeError> {
        let Some(group) = self.groups.get(&number) else { return Ok(()) };
        if !group.lines.partials.is_open(stream) {
            return Ok(());
        }
        let body_bytes = group.lines.partials.open_bytes(stream);
        if self.batch.is_full_for(group.lines.suffixes.record_bytes_max(body_bytes)) {
            self.close_batch()?;
        }
        let Some(group) = self.groups.get_mut(&number) else { return Ok(()) };
        let mut booking = Booking::begin(group, &mut self.batch, number, &*self.clock);
        let lines = &mut booking.group.lines;
        flush_partial(stream, lines, booking.batch, &mut booking.counts, flush);
        booking.end(&self.metrics, 0);
        Ok(())
    }

    /// Closes files that were finished a while ago, unless their writer was late.
    fn close_lingering(&mut self, now: Instant) {
        let (mut late, mut groups, mut closed) = (Vec::new(), Vec::new(), 0);
        let is_wanted = self.descriptors.wanted() > 0;
        let may_close = |file: &TailedFile, finished_at| {
            let linger = if is_hidden(file) { HIDDEN_TIME_MAX } else { LINGER_TIME };
            is_wanted || now.duration_since(finished_at) >= linger
        };
        self.attention.ending.retain(|id| {
            let Some(file) = self.files.get_mut(id) else { return false };
            let Some(finished_at) = file.finished_at else {
                // It is gone, and still read; or it goes on, and is no longer looked after.
                return !file.is_present;
            };
            if file.source.is_some() {
                if has_grown(file) {
                    file.finished_at = None;
                    file.is_late = true;
                    late.push(file.group);
                } else if may_close(file, finished_at) {
                    file.source = None;
                    closed += 1;
                    self.attention.closed.insert(*id);
                    groups.push(file.group);
                }
                return true;
            }
            if !file.is_present && file.is_settled() {
                groups.push(file.group);
            }
            // A closed file that its directory shows needs nothing until that changes.
            !file.is_present
        });
        self.descriptors.give_up(closed);
        for number in late {
            self.activate(number, now);
        }
        groups.sort_unstable();
        groups.dedup();
        for number in groups {
            self.forget_vanished(number);
        }
    }

    /// Forgets files that are read, settled and gone from their directory, and have no file before
    /// them whose last line is open: read again after a crash, it would go on in what stands behind. Where
    /// the directory was not seen whole, they may be there: they would be taken for new ones.
    pub(super) fn forget_vanished(&mut self, number: u32) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        let mut gone = Vec::new();
        let is_done = |file: &TailedFile| file.is_finished() && file.is_settled();
        let mut may_go = !group.is_partly_seen;
        let mut kept = 0;
        group.files.retain(|id| {
            let file = self.files.get(id);
            let is_vanished = file
                .is_none_or(|file| !file.is_present && file.source.is_none() && file.is_settled());
            let is_gone = is_vanished && (may_go || kept >= GAPS_MAX);
            kept += usize::from(is_vanished && !is_gone);
            may_go &= file.is_none_or(|file| is_done(file));
            if is_gone && let Some(file) = self.files.remove(id) {
                gone.push((file.key, None));
            }
            !is_gone
        });
        if group.files.is_empty() {
            self.attention.empty.insert(number);
        }
        if let Some(checkpoints) = &self.checkpoints
            && !gone.is_empty()
        {
            checkpoints.publish(gone);
            crate::failpoint::hit("file_forgotten");
        }
    }

    /// Forgets a group without files, once no open batch refers to it.
    fn forget_group(&mut self, number: u32) {
        let is_in_batch = self.batch.segments.iter().any(|segment| segment.container == number);
        let has_open_line =
            self.groups.get(&number).is_some_and(|group| group.lines.partials.queued().0 > 0);
        let has_files = self.groups.get(&number).is_some_and(|group| !group.files.is_empty());
        if has_files {
            self.attention.empty.remove(&number);
        }
        let awaits_files = self.groups.get(&number).is_some_and(|group| !group.resume.is_empty());
        if is_in_batch || has_open_line || has_files || awaits_files {
            return;
        }
        self.attention.empty.remove(&number);
        self.attention.unwatched.remove(&number);
        if let Some(group) = self.groups.remove(&number) {
            self.numbers.remove(&group.key);
            self.idle.disarm(number);
        }
    }

    /// Takes up idle files that a watch says were written to.
    pub(super) fn wake(&mut self, woken: Woken) {
        let numbers = match woken {
            Woken::Group(number) => {
                self.idle.disarm(number);
                vec![number]
            }
            Woken::All => self.idle.disarm_all(),
        };
        let now = self.clock.now();
        for number in numbers {
            if let Some(group) = self.groups.get_mut(&number) {
                group.is_watched = false;
                group.last_growth = now;
            }
            // By how much is noted: it may be gone when its turn comes.
            self.has_parked_grown(number);
            self.activate(number, now);
        }
    }

    /// Looks at idle files: seldom at those that are watched, often at those that can't be.
    fn check_idle(&mut self, now: Instant) {
        let is_full = now.duration_since(self.last_idle_check) >= IDLE_CHECK_INTERVAL;
        if is_full {
            self.last_idle_check = now;
        }
        let mut due: Vec<u32> = if is_full {
            self.groups.keys().copied().collect()
        } else {
            self.attention.unwatched.iter().copied().collect()
        };
        due.sort_unstable();
        for number in due {
            let Some(group) = self.groups.get_mut(&number) else { continue };
            let is_due = is_full || now >= group.next_poll + UNWATCHED_CHECK_INTERVAL;
            if group.turn != Turn::Idle || !is_due {
                continue;
            }
            group.next_poll = now;
            let live = group.files.last().and_then(|id| self.files.get(id));
            if live.is_some_and(|file| has_grown(file)) || self.has_parked_grown(number) {
                if let Some(group) = self.groups.get_mut(&number) {
                    group.last_growth = now;
                }
                self.activate(number, now);
            }
        }
    }
}

/// Whether an open file has a name, but none in its directory: that may come back.
fn is_hidden(file: &TailedFile) -> bool {
    let has_name = |one: &Source| one.file().state().is_ok_and(|state| state.has_name);
    !file.is_present && file.source.as_ref().is_some_and(has_name)
}

/// Whether an open plain file holds bytes that were not read, or fewer than were read, or perhaps
/// others.
fn has_grown(file: &TailedFile) -> bool {
    match &file.source {
        Some(Source::Plain(open)) => open.state().is_ok_and(|state| {
            let is_same = state.modified_unix_nanos == file.modified_unix_nanos;
            state.bytes != file.offset || (file.offset > 0 && !is_same)
        }),
        _ => false,
    }
}
