//! Which sizes a sink refuses, learned from its answers, so that not each request of such a size costs
//! one attempt more. It only saves attempts: what is not known here is found by halving.
//!
//! A refusal may be about one large record rather than the request. So one of fewer bytes than were
//! accepted teaches nothing, and an acceptance of more than was refused forgets all.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    bisect::Part,
    limits::{REFUSED_SIZE_AGE_MAX, REFUSED_SIZE_BYTES_MIN},
    outcome::Outcome,
};

/// Shared by all consumers of a sink.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    known: Mutex<Option<Known>>,
}

/// Bytes before compression, since the first refusal.
#[derive(Debug)]
struct Known {
    /// When that was.
    since: Instant,
    /// The smallest that was refused.
    refused: usize,
    /// The largest that was accepted.
    accepted: usize,
}

impl Sizes {
    /// Whether a part is as large as one that was refused of late.
    pub(super) fn is_refused(&self, part: &Part, now: Instant) -> bool {
        let known = self.lock(now);
        let is_known = known.as_ref().is_some_and(|known| part.uncompressed_bytes >= known.refused);
        is_known && part.records > 1
    }

    /// Learns from what came of an attempt.
    pub(super) fn learn(&self, part: &Part, outcome: &Outcome, now: Instant) {
        let bytes = part.uncompressed_bytes;
        let mut known = self.lock(now);
        match outcome {
            Outcome::TooLarge(_) | Outcome::TooLargeForNow(_) => {
                let is_about_all = part.records > 1 && bytes >= REFUSED_SIZE_BYTES_MIN;
                let accepted = known.as_ref().map_or(0, |known| known.accepted);
                if is_about_all && bytes > accepted {
                    let new = || Known { since: now, refused: bytes, accepted: 0 };
                    let known = known.get_or_insert_with(new);
                    known.refused = known.refused.min(bytes);
                }
            }
            Outcome::Accepted { .. } => {
                known.take_if(|known| bytes >= known.refused);
                if let Some(known) = &mut *known {
                    known.accepted = known.accepted.max(bytes);
                }
            }
            _ => {}
        }
    }

    fn lock(&self, now: Instant) -> MutexGuard<'_, Option<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.take_if(|one| now.saturating_duration_since(one.since) >= REFUSED_SIZE_AGE_MAX);
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Compression, export::outcome::Quote};

    const KIB: usize = 1024;

    fn part(kib: usize) -> Part {
        let (body, compression) = (vec![], Compression::None);
        Part {
            body,
            body_bytes: 0,
            uncompressed_bytes: kib * KIB,
            records: 9,
            first: 0,
            refusals: 0,
            proof: Default::default(),
            is_held: false,
            compression,
        }
    }

    fn too_large() -> Outcome {
        Outcome::TooLarge(Quote::default())
    }

    fn accepted() -> Outcome {
        Outcome::Accepted { rejected_records: 0, said: Quote::default() }
    }

    /// Scenario: a sink with a limit on sizes, which is raised.
    /// Guarantees: sizes that were refused are known, smaller ones are tried; all is forgotten with
    /// an acceptance of as much, or after five minutes.
    #[test]
    fn a_refused_size_is_known_for_a_while() {
        let (sizes, now) = (Sizes::default(), Instant::now());
        let knows = |kib| sizes.is_refused(&part(kib), now);
        assert!(!knows(1000));
        sizes.learn(&part(800), &too_large(), now);
        sizes.learn(&part(400), &accepted(), now);
        sizes.learn(&part(600), &too_large(), now);
        assert_eq!([599, 600, 900].map(knows), [false, true, true]);
        assert!(!sizes.is_refused(&Part { records: 1, ..part(900) }, now));
        sizes.learn(&part(700), &accepted(), now);
        assert!(!knows(900));
        sizes.learn(&part(800), &too_large(), now);
        assert!(knows(800));
        assert!(!sizes.is_refused(&part(800), now + REFUSED_SIZE_AGE_MAX));
    }

    /// Scenario: one record is too large, and each part that has it is refused down to that record;
    /// it is the last or the first of its request.
    /// Guarantees: no size is taken for the limit of which another was accepted.
    #[test]
    fn a_large_record_is_no_limit_on_requests() {
        let now = Instant::now();
        let (last, first) = (Sizes::default(), Sizes::default());
        last.learn(&part(1024), &too_large(), now);
        first.learn(&part(1024), &too_large(), now);
        for kib in [512, 256, 128, 64, 32] {
            last.learn(&part(kib), &accepted(), now);
            last.learn(&part(kib), &too_large(), now);
            first.learn(&part(kib), &too_large(), now);
        }
        for kib in [32, 64, 128, 256, 512] {
            first.learn(&part(kib), &accepted(), now);
        }
        assert!(!last.is_refused(&part(1023), now) && last.is_refused(&part(1024), now));
        assert!(!first.is_refused(&part(1024), now));
    }
}
