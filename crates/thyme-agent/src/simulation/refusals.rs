//! What the sink refuses, which of it the agent may give up for that, and what its books must say of
//! what it heard. The rules are the documentation's, not the code's.

use std::collections::HashMap;

use super::{truth::Piece, world::World};
use crate::{
    export::simulated::Answer,
    metrics::{DropReason, Metrics},
};

/// What the sink has said to this life of the agent.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The latest attempt that it accepted, by the time when it began.
    accepted: Option<u64>,
    /// The first attempt of each line that it refused.
    first: HashMap<usize, u64>,
    /// Single records that the sink refuses before it has accepted anything, by their attempt: it
    /// may do so before its answer is there.
    undecided: HashMap<u64, Vec<Vec<Piece>>>,
    /// Records, by what the agent heard of them.
    acknowledged: i64,
    rejected: i64,
    rejected_in_part: i64,
}

/// What a sink must have accepted before its refusal of a single record counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Something.
    Ever,
    /// Something that was sent after it refused this record first.
    Since,
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
    /// the sink has accepted others.
    pub(super) fn note_refusal(&mut self, records: &[Vec<Piece>], proof: Proof) {
        let refusals = &mut self.sink.refusals;
        let mut first = self.sink.attempts;
        for piece in records.iter().flatten() {
            first = first.min(*refusals.first.entry(piece.line).or_insert(self.sink.attempts));
        }
        let is_proved = match proof {
            Proof::Ever => refusals.accepted.is_some(),
            Proof::Since => refusals.accepted.is_some_and(|accepted| accepted > first),
        };
        if records.len() == 1 && is_proved {
            self.refuse(records);
        } else if records.len() == 1 && proof == Proof::Ever {
            refusals.undecided.insert(self.sink.attempts, records.to_vec());
        }
    }

    /// The agent hears the answer to an attempt with so many records.
    pub(super) fn heard(&mut self, attempt: u64, answer: &Answer, records: i64) {
        let refusals = &mut self.sink.refusals;
        refusals.count(answer, records);
        if let Some(records) = refusals.undecided.remove(&attempt)
            && refusals.accepted.is_some()
        {
            self.refuse(&records);
        }
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
    /// that, and not as acknowledged.
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
    }
}
