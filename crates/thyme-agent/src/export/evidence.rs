//! What a sink's acceptances prove about its refusals. A sink that refuses everything is the wrong
//! one, or wrongly set up: its word says nothing about the records. Only where it takes others in
//! between, a record that it refuses is given up. Forgotten at the end of the process, which is the
//! safe side.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::limits::GIVEN_UP_IN_A_ROW_MAX;

/// Acceptances that are remembered with their sizes.
const LATEST_MAX: usize = 32;

/// Shared by all consumers of a sink.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Attempts begun so far.
    attempts: AtomicU64,
    /// The one of those accepted that was begun last; 0 while there is none.
    accepted: AtomicU64,
    /// Requests accepted so far.
    accepted_requests: AtomicU64,
    /// Of those accepted last: when they were begun, and their bytes.
    latest: Mutex<VecDeque<(Moment, usize)>>,
    /// Records given up on the sink's word since it accepted something.
    given_up: AtomicU64,
}

/// A moment between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// So many attempts before it.
    pub(super) const fn before(self, attempts: usize) -> Self {
        Self(self.0.saturating_sub(attempts as u64))
    }
}

impl Evidence {
    /// An attempt begins.
    pub(super) fn begin(&self) -> Moment {
        Moment(self.attempts.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The sink accepted something of the attempt that was begun then.
    pub(super) fn accepted(&self, begun: Moment, bytes: usize) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.truncate(LATEST_MAX - 1);
        latest.push_front((begun, bytes));
        drop(latest);
        self.accepted.fetch_max(begun.0, Ordering::Relaxed);
        self.accepted_requests.fetch_add(1, Ordering::Relaxed);
        self.given_up.store(0, Ordering::Relaxed);
    }

    /// Now, after every attempt so far.
    pub(super) fn now(&self) -> Moment {
        Moment(self.attempts.load(Ordering::Relaxed))
    }

    /// How often the sink has accepted something.
    pub(super) fn accepted_requests(&self) -> u64 {
        self.accepted_requests.load(Ordering::Relaxed)
    }

    /// Whether it ever has.
    pub(super) fn has_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed) > 0
    }

    /// Whether it has accepted an attempt that was begun after `moment`. The answer to one that was
    /// begun before may be older than the refusal that came then.
    pub(super) fn has_accepted_since(&self, moment: Moment) -> bool {
        self.accepted.load(Ordering::Relaxed) > moment.0
    }

    /// Whether it has accepted an attempt that was begun after `moment`, and that had as many bytes.
    pub(super) fn has_accepted_as_much(&self, moment: Moment, bytes: usize) -> bool {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().any(|(begun, accepted)| *begun > moment && *accepted >= bytes)
    }

    /// Takes the right to give up so many records on the sink's word, unless that would be too many
    /// since it accepted something.
    pub(super) fn may_give_up(&self, records: u64) -> bool {
        let take = |given_up: u64| {
            (given_up < GIVEN_UP_IN_A_ROW_MAX).then(|| given_up.saturating_add(records))
        };
        self.given_up.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: an attempt is refused; one that was begun before it is accepted, then one that was
    /// begun after.
    /// Guarantees: only the second is evidence against what was refused.
    #[test]
    fn an_old_acceptance_proves_nothing() {
        let evidence = Evidence::default();
        let (old, _refused) = (evidence.begin(), evidence.begin());
        let refused_at = evidence.now();
        evidence.accepted(old, 9);
        assert!(evidence.has_accepted() && !evidence.has_accepted_since(refused_at));
        let new = evidence.begin();
        evidence.accepted(new, 9);
        assert!(evidence.has_accepted_since(refused_at));
        assert!(!evidence.has_accepted_since(evidence.now()));
    }

    /// Scenario: records are given up one by one; then the sink accepts something.
    /// Guarantees: there is an end to it until then.
    #[test]
    fn what_is_given_up_in_a_row_has_an_end() {
        let evidence = Evidence::default();
        for _ in 0..2 {
            let given_up = (0..).take_while(|_| evidence.may_give_up(1)).count();
            assert_eq!(given_up as u64, GIVEN_UP_IN_A_ROW_MAX);
            evidence.accepted(evidence.begin(), 9);
        }
    }
}
