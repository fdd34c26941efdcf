//! What fails again and again: said by name once an interval, and how often it fails beside that.

use std::{collections::HashSet, hash::Hash, time::Instant};

use crate::limits::{COMPLAINT_INTERVAL, COMPLAINTS_NAMED_MAX};

/// What was complained about, each by a key of its own.
#[derive(Debug)]
pub struct Complaints<K> {
    /// Said, and failing since; at most [`COMPLAINTS_NAMED_MAX`] within [`COMPLAINT_INTERVAL`].
    named: HashSet<K>,
    /// When the first of `named` was said.
    named_since: Option<Instant>,
    /// Failures that were not said.
    unsaid: u64,
    /// When `unsaid` was said last, or began to grow.
    since: Option<Instant>,
}

impl<K> Default for Complaints<K> {
    fn default() -> Self {
        Self { named: HashSet::new(), named_since: None, unsaid: 0, since: None }
    }
}

impl<K: Eq + Hash> Complaints<K> {
    /// Something has failed; `true` when it is to be said by its name.
    pub fn is_news(&mut self, key: K, now: Instant) -> bool {
        if self.named_since.is_none_or(|since| now >= since + COMPLAINT_INTERVAL) {
            // Some may be gone, which nobody says; others are not to be hidden by them.
            self.named.clear();
            self.named_since = Some(now);
        }
        if self.named.contains(&key) || self.named.len() >= COMPLAINTS_NAMED_MAX {
            self.unsaid += 1;
            self.since.get_or_insert(now);
            return false;
        }
        self.named.insert(key)
    }

    /// It works again.
    pub fn is_well(&mut self, key: &K) {
        if !self.named.is_empty() {
            self.named.remove(key);
        }
    }

    /// Failures since the last time that were not said, once in [`COMPLAINT_INTERVAL`].
    pub fn take_unsaid(&mut self, now: Instant) -> Option<u64> {
        self.since.filter(|since| now.duration_since(*since) >= COMPLAINT_INTERVAL)?;
        self.since = None;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Scenario: one thing fails at each of many looks, then a hundred do; one is well again and
    /// fails anew.
    /// Guarantees: each is named once, up to a number; all else is counted and told once a minute.
    #[test]
    fn repeated_failures_are_said_once() {
        let mut complaints = Complaints::default();
        let begin = Instant::now();
        let said = (0..50).filter(|_| complaints.is_news(0, begin)).count();
        assert_eq!(said, 1);
        assert_eq!(complaints.take_unsaid(begin + Duration::from_secs(59)), None);
        assert_eq!(complaints.take_unsaid(begin + COMPLAINT_INTERVAL), Some(49));
        assert_eq!(complaints.take_unsaid(begin + COMPLAINT_INTERVAL * 2), None);
        let said = (0..100).filter(|key| complaints.is_news(*key, begin)).count();
        assert_eq!(said, COMPLAINTS_NAMED_MAX - 1);
        complaints.is_well(&0);
        assert!(complaints.is_news(0, begin));
        assert_eq!(
            complaints.take_unsaid(begin + COMPLAINT_INTERVAL),
            Some(101 - COMPLAINTS_NAMED_MAX as u64)
        );
    }

    /// Scenario: as many things as are named fail and are then gone, which nobody says; after an interval
    /// another one fails, again and again.
    /// Guarantees: it is named, once an interval.
    #[test]
    fn what_is_gone_hides_nothing() {
        let mut complaints = Complaints::default();
        let begin = Instant::now();
        assert!((0..COMPLAINTS_NAMED_MAX).all(|key| complaints.is_news(key, begin)));
        assert!(!complaints.is_news(COMPLAINTS_NAMED_MAX, begin));
        for interval in 1..4 {
            let now = begin + COMPLAINT_INTERVAL * interval;
            let said = (0..50).filter(|_| complaints.is_news(COMPLAINTS_NAMED_MAX, now)).count();
            assert_eq!(said, 1);
        }
    }
}
