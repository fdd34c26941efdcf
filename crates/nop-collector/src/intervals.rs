//! A set of sequence numbers as sorted intervals. A stream that arrives in order stays one
//! interval, and appending to it is the fast path.

/// The numbers from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// Smallest number.
    pub(crate) first: u64,
    /// Largest number, at least `first`.
    pub(crate) last: u64,
}

impl Interval {
    /// How many numbers it holds.
    pub(crate) const fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// How many numbers two intervals share.
    fn shared(self, other: Self) -> u64 {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        if first <= last { last - first + 1 } else { 0 }
    }
}

/// The set would need more intervals than it may have; nothing was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Numbers below `u64::MAX`, as few intervals as possible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intervals {
    /// Ascending, and at least one number lies between any two neighbours.
    list: Vec<Interval>,
}

impl Intervals {
    /// Adds an interval, and returns how many of its numbers are new. `intervals_max` bounds how
    /// many intervals the set may have.
    #[inline]
    pub(crate) fn insert(&mut self, new: Interval, intervals_max: usize) -> Result<u64, Full> {
        debug_assert!(new.first <= new.last && new.last < u64::MAX);
        if let Some(tail) = self.list.last_mut()
            && new.first == tail.last + 1
        {
            tail.last = new.last;
            return Ok(new.len());
        }
        self.insert_anywhere(new, intervals_max)
    }

    fn insert_anywhere(&mut self, new: Interval, intervals_max: usize) -> Result<u64, Full> {
        // Those that overlap or adjoin the new one: everything in between becomes one interval.
        let start = self.list.partition_point(|interval| interval.last + 1 < new.first);
        let end =
            start + self.list[start..].partition_point(|interval| interval.first <= new.last + 1);
        let touched = &self.list[start..end];
        let (Some(head), Some(tail)) = (touched.first(), touched.last()) else {
            if self.list.len() >= intervals_max {
                return Err(Full);
            }
            self.list.insert(start, new);
            return Ok(new.len());
        };
        let known: u64 = touched.iter().map(|interval| interval.shared(new)).sum();
        let union = Interval { first: new.first.min(head.first), last: new.last.max(tail.last) };
        self.list[start] = union;
        self.list.drain(start + 1..end);
        Ok(new.len() - known)
    }

    /// How many numbers of `range` the set holds.
    pub(crate) fn count_within(&self, range: Interval) -> u64 {
        let start = self.list.partition_point(|interval| interval.last < range.first);
        self.list[start..]
            .iter()
            .take_while(|interval| interval.first <= range.last)
            .map(|interval| interval.shared(range))
            .sum()
    }

    /// The smallest number of `range` that the set holds.
    pub(crate) fn first_within(&self, range: Interval) -> Option<u64> {
        let at = self.list.partition_point(|interval| interval.last < range.first);
        let first = self.list.get(at)?.first.max(range.first);
        (first <= range.last).then_some(first)
    }

    /// The intervals in ascending order.
    pub(crate) fn as_slice(&self) -> &[Interval] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Scenario: intervals arrive in any order, overlapping and repeated.
        /// Guarantees: the set holds exactly their numbers (a plain set is the oracle), says how
        /// many were new, counts within any range and finds its first, and has no needless interval.
        #[test]
        fn same_numbers_as_a_plain_set(
            inserts in prop::collection::vec((0..200_u64, 0..12_u64), 0..60),
            range in (0..220_u64, 0..100_u64),
        ) {
            let mut set = Intervals::default();
            let mut oracle = BTreeSet::new();
            for (first, extra) in inserts {
                let new = Interval { first, last: first + extra };
                let before = oracle.len();
                oracle.extend(new.first..=new.last);
                prop_assert_eq!(set.insert(new, usize::MAX), Ok((oracle.len() - before) as u64));
            }
            let numbers: Vec<u64> =
                set.as_slice().iter().flat_map(|one| one.first..=one.last).collect();
            prop_assert_eq!(numbers, oracle.iter().copied().collect::<Vec<_>>());
            let fewest = set.as_slice().windows(2).all(|pair| pair[0].last + 1 < pair[1].first);
            prop_assert!(fewest);
            let range = Interval { first: range.0, last: range.0 + range.1 };
            let expected = oracle.range(range.first..=range.last).count() as u64;
            prop_assert_eq!(set.count_within(range), expected);
            let first = oracle.range(range.first..=range.last).next().copied();
            prop_assert_eq!(set.first_within(range), first);
        }
    }

    /// Scenario: a set of two intervals at a limit of two.
    /// Guarantees: a third is refused, what extends or joins the two is not.
    #[test]
    fn the_limit_refuses_only_what_needs_another_interval() {
        let mut set = Intervals::default();
        let mut insert = |first, last| set.insert(Interval { first, last }, 2);
        assert_eq!(insert(0, 1), Ok(2));
        assert_eq!(insert(10, 11), Ok(2));
        assert_eq!(insert(20, 20), Err(Full));
        assert_eq!(insert(5, 5), Err(Full));
        assert_eq!(insert(12, 13), Ok(2));
        assert_eq!(insert(1, 11), Ok(8));
        assert_eq!(insert(20, 20), Ok(1));
    }
}
