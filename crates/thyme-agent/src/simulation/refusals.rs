//! What the sink refuses, which of it the agent may give up for that, and what its books must say of
//! what it heard. The rules are the documentation's, not the code's.

use std::collections::HashMap;

use super::{truth::Piece, world::World};
use crate::{
    export::simulated::Answer,
    metrics::{DropReason, Metrics},
};

/// Failures of a single record, with something accepted between each two of them, and nanoseconds since the first,
/// before it may give way to others.
const FAILURES_MIN: u32 = 4;
const FAILING_NANOS_MIN: u64 = 60_000_000_000;

/// How a single record has failed alone.
#[derive(Clone, Copy, Debug)]
struct Failing {
    since: u64,
    last_attempt: u64,
    failures: u32,
}

/// What the sink has said to this life of the agent.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The latest attempt that it accepted, by the time when it began.
    accepted: Option<u64>,
    /// The first attempt of each line that it refused in a single record.
    first: HashMap<usize, u64>,
    /// Lines that failed in a single record.
    failing: HashMap<usize, Failing>,
    /// Records that were settled without having arrived, and that gave way therefore.
    gave_way: i64,
    /// Records, by what the agent heard of them.
    acknowledged: i64,
    rejected: i64,
    rejected_in_part: i64,
}

impl Refusals {
    fn count(&mut self, answer: &Answer, records: i64) {
        match *answer {
            Answer::Accepted { rejected_records } => {
                self.rejected += rejected_records as i64;
                self.acknowledged += records - rejected_records as i64;
            }
            Answer::RejectedInPart { rejected_records } => {
                self.rejected_in_part += rejected_records as i64;
                self.acknowledged += records - rejected_records as i64;
            }
            _ => {}
        }
    }
}

impl World {
    /// The sink accepts something of the attempt that begins now.
    pub(super) fn note_acceptance(&mut self) {
        self.sink.refusals.accepted = Some(self.sink.attempts);
    }

    /// The sink refuses the attempt that begins now. A single record may be missing for that, where
    /// the sink has refused it alone before and has accepted something that was sent after that.
    pub(super) fn note_refusal(&mut self, records: &[Vec<Piece>]) {
        if records.len() != 1 {
            return;
        }
        let (refusals, now) = (&mut self.sink.refusals, self.sink.attempts);
        let firsts = records.iter().flatten().map(|piece| piece.line);
        let first = firsts.map(|line| *refusals.first.entry(line).or_insert(now)).min();
        if refusals.accepted > first.or(Some(now)) {
            self.refuse(records);
        }
    }

    /// The sink fails on the attempt that begins now, whatever it says.
    pub(super) fn note_failure(&mut self, records: &[Vec<Piece>]) {
        if records.len() != 1 {
            return;
        }
        let (attempt, now) = (self.sink.attempts, self.now);
        let (accepted, failing) = (self.sink.refusals.accepted, &mut self.sink.refusals.failing);
        for piece in records.iter().flatten() {
            let first = Failing { since: now, last_attempt: 0, failures: 0 };
            let one = failing.entry(piece.line).or_insert(first);
            one.failures += u32::from(one.failures == 0 || accepted > Some(one.last_attempt));
            one.last_attempt = attempt;
        }
    }

    /// These records are settled. One that has not arrived may have given way to others, where it failed alone
    /// often enough, for long enough, while others were accepted. That a bound of what waits was near is for the
    /// tests of `export::aside` to show.
    pub(super) fn note_settled(&mut self, records: &[Vec<Piece>]) {
        let now = self.now;
        let is_proved =
            |one: &Failing| one.failures >= FAILURES_MIN && now - one.since >= FAILING_NANOS_MIN;
        for record in records {
            let is_missing = record.iter().any(|piece| {
                !self.truth.has_come(piece) && !self.truth.lines[piece.line].is_refused
            });
            let mut failing =
                record.iter().filter_map(|piece| self.sink.refusals.failing.get(&piece.line));
            if is_missing && failing.any(is_proved) {
                self.sink.refusals.gave_way += 1;
                self.refuse(std::slice::from_ref(record));
            }
        }
    }

    /// The agent hears the answer to an attempt with so many records.
    pub(super) fn heard(&mut self, answer: &Answer, records: i64) {
        self.sink.refusals.count(answer, records);
    }

    /// The sink does not take these records.
    pub(super) fn refuse(&mut self, records: &[Vec<Piece>]) {
        for piece in records.iter().flatten() {
            self.truth.lines[piece.line].is_refused = true;
        }
    }

    /// Whether a record among these is one that the sink never takes.
    pub(super) fn is_poisonous(&self, records: &[Vec<Piece>]) -> bool {
        let odds = self.plan.poison_odds as usize;
        odds > 0 && records.iter().flatten().any(|piece| piece.line % odds == odds - 1)
    }

    /// With everything settled, the agent's books say what it heard: what was rejected counts as
    /// that, and not as acknowledged; and what gave way counts.
    pub(super) fn check_books(&mut self, metrics: &Metrics) {
        let booked = (
            metrics.acknowledged.get().0,
            metrics.dropped(DropReason::PartialSuccess).get().0,
            metrics.dropped(DropReason::RejectedInPart).get().0,
        );
        let Refusals { acknowledged, rejected, rejected_in_part, .. } = self.sink.refusals;
        let heard = (acknowledged, rejected, rejected_in_part);
        if booked != heard {
            self.truth.fail(|| {
                format!(
                    "acknowledged, rejected and rejected in part are {booked:?} records in the \
                     books, but the sink said {heard:?}"
                )
            });
        }
        // Where the record is sure to be the cause, it counts as rejected.
        let counted = metrics.dropped(DropReason::NeverTaken).get().0
            + metrics.dropped(DropReason::Rejected).get().0;
        let gave_way = self.sink.refusals.gave_way;
        if gave_way > counted {
            self.truth.fail(|| format!("{gave_way} records gave way, and {counted} are counted"));
        }
    }
}
