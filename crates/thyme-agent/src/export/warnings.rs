//! Keeps the log readable while the sink is in trouble: about each topic at most one line in its
//! interval. It decides when, not what, is said.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    limits::{REMINDER_INTERVAL, WARNING_INTERVAL},
    outcome::{Cause, Oddity},
};

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// An attempt failed and is tried again.
    Retry(Cause),
    /// An attempt succeeded after one that failed.
    Recovery,
    /// Records were dropped because retrying is limited.
    GivenUp,
    /// The sink rejected a request.
    Rejected,
    /// The sink rejected a part of a request.
    PartialSuccess,
    /// A request was too large and is halved.
    Halved,
    /// A single record was too large.
    DeadLettered,
    /// An address of the sink is left out.
    Address,
    /// The name can't be resolved.
    Resolve,
    /// An old connection can't be replaced.
    Renewal,
    /// The sink refuses everything.
    Refusing,
    /// The sink never takes some records, and takes others.
    Held,
    /// Such records were given up.
    GaveWay,
    /// An answer that no OTLP server gives.
    Oddity(Oddity),
}

impl Topic {
    const COUNT: usize = 21;

    const fn index(self) -> usize {
        match self {
            Self::Retry(cause) => cause as usize,
            Self::GivenUp => 7,
            Self::Rejected => 8,
            Self::PartialSuccess => 9,
            Self::Halved => 10,
            Self::DeadLettered => 11,
            Self::Address => 12,
            Self::Resolve => 13,
            Self::Recovery => 14,
            Self::Renewal => 15,
            Self::Refusing => 16,
            Self::Held => 17,
            Self::GaveWay => 18,
            Self::Oddity(oddity) => 19 + oddity as usize,
        }
    }

    const fn interval(self) -> Duration {
        match self {
            Self::Refusing | Self::Held => REMINDER_INTERVAL,
            // What nobody can do anything about is said once.
            Self::Oddity(_) => Duration::MAX,
            _ => WARNING_INTERVAL,
        }
    }
}

const _: () = assert!(Cause::Fault as usize == 6, "the topics of retries come first");
const _: () = assert!(Topic::Oddity(Oddity::Body).index() + 1 == Topic::COUNT);

/// When something was last said about each topic.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    topics: [Mutex<Said>; Topic::COUNT],
}

#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    /// How often nothing was said since then.
    suppressed: u64,
}

impl Warnings {
    /// Calls `warn` with the number of suppressed warnings before it, unless it is too soon.
    pub(super) fn about(&self, topic: Topic, warn: impl FnOnce(u64)) {
        if let Some(suppressed) = self.suppressed_until(topic, Instant::now()) {
            warn(suppressed);
        }
    }

    fn suppressed_until(&self, topic: Topic, now: Instant) -> Option<u64> {
        let mut said = self.topics[topic.index()].lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < topic.interval()) {
            said.suppressed += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: two topics, one of them a thousand times within the interval.
    /// Guarantees: each is said once, and the next time says how often it was not.
    #[test]
    fn once_an_interval_and_topic() {
        let warnings = Warnings::default();
        let now = Instant::now();
        assert_eq!(warnings.suppressed_until(Topic::Retry(Cause::Busy), now), Some(0));
        assert_eq!(warnings.suppressed_until(Topic::Rejected, now), Some(0));
        for _ in 0..1000 {
            assert_eq!(warnings.suppressed_until(Topic::Rejected, now), None);
        }
        let later = now + WARNING_INTERVAL;
        assert_eq!(warnings.suppressed_until(Topic::Rejected, later), Some(1000));
    }

    /// Scenario: D24: answers of either kind that no OTLP server gives, for a day.
    /// Guarantees: each kind is said once.
    #[test]
    fn what_nobody_can_mend_is_said_once() {
        let warnings = Warnings::default();
        let now = Instant::now();
        for topic in [Topic::Oddity(Oddity::Status), Topic::Oddity(Oddity::Body)] {
            assert_eq!(warnings.suppressed_until(topic, now), Some(0));
            let later = now + Duration::from_secs(24 * 3600);
            assert_eq!(warnings.suppressed_until(topic, later), None);
        }
    }
}
