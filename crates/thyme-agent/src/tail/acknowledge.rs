//! Which bytes of a file the sink has acknowledged: a contiguous prefix, and ranges beyond it.

/// Acknowledged bytes of one file.
///
/// Requests settle in any order and open partial lines hold bytes back, so ranges beyond the prefix
/// exist for a while. They are few: at most one for each outstanding request and open line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Every byte below is acknowledged.
    prefix: u64,
    /// Beyond the prefix, ascending, disjoint and not adjacent.
    beyond: Vec<(u64, u64)>,
}

impl Acknowledged {
    /// As a checkpoint left it; ranges that don't ascend are left out.
    pub fn new(prefix: u64, ranges: &[(u64, u64)]) -> Self {
        let mut acknowledged = Self { prefix, beyond: Vec::new() };
        for &(start, end) in ranges {
            acknowledged.add(start, end);
        }
        acknowledged
    }

    /// Every byte below this is acknowledged.
    pub fn prefix(&self) -> u64 {
        self.prefix
    }

    /// How many are acknowledged.
    pub fn count(&self) -> u64 {
        self.prefix + self.beyond.iter().map(|(start, end)| end - start).sum::<u64>()
    }

    /// How many below `end` are acknowledged.
    pub fn count_below(&self, end: u64) -> u64 {
        let beyond = self.beyond.iter().take_while(|range| range.0 < end);
        self.prefix.min(end) + beyond.map(|range| range.1.min(end) - range.0).sum::<u64>()
    }

    /// The same where everything that `left_out` has is not counted, as if it had never been there.
    pub fn without(&self, left_out: &Self) -> Self {
        let moved = |at: u64| at - left_out.count_below(at);
        let mut acknowledged = Self::default();
        for &(start, end) in [(0, self.prefix)].iter().chain(&self.beyond) {
            acknowledged.add(moved(start), moved(end));
        }
        acknowledged
    }

    /// Whether all of `start..end` is.
    pub fn contains(&self, start: u64, end: u64) -> bool {
        start >= end || self.skip(start) >= end
    }

    /// Whether any of `start..end` is.
    pub fn touches(&self, start: u64, end: u64) -> bool {
        start < end
            && (self.skip(start) > start || self.next_start(start).is_some_and(|at| at < end))
    }

    /// Acknowledged ranges beyond the prefix, ascending.
    pub fn beyond(&self) -> &[(u64, u64)] {
        &self.beyond
    }

    /// Adds `start..end`.
    pub fn add(&mut self, mut start: u64, mut end: u64) {
        if start >= end || end <= self.prefix {
            return;
        }
        if start > self.prefix {
            // All ranges that touch the new one become one with it.
            let first = self.beyond.partition_point(|range| range.1 < start);
            let last = self.beyond.partition_point(|range| range.0 <= end);
            if first < last {
                start = start.min(self.beyond[first].0);
                end = end.max(self.beyond[last - 1].1);
            }
            self.beyond.splice(first..last, [(start, end)]);
            return;
        }
        self.prefix = end;
        let reached = self.beyond.partition_point(|range| range.0 <= self.prefix);
        for range in self.beyond.drain(..reached) {
            self.prefix = self.prefix.max(range.1);
        }
    }

    /// How far from `offset` the bytes are acknowledged already, so that reading may skip them;
    /// `offset` itself when it is not.
    pub fn skip(&self, offset: u64) -> u64 {
        if offset < self.prefix {
            return self.prefix;
        }
        let next = self.beyond.partition_point(|range| range.1 <= offset);
        match self.beyond.get(next) {
            Some(range) if range.0 <= offset => range.1,
            _ => offset,
        }
    }

    /// Where the next acknowledged range beyond `offset` begins, if there is one.
    pub fn next_start(&self, offset: u64) -> Option<u64> {
        let next = self.beyond.partition_point(|range| range.0 < offset);
        self.beyond.get(next).map(|range| range.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Scenario: ranges acknowledged in any order, overlapping and adjacent.
        /// Guarantees: prefix, ranges beyond and skips are those of a plain set of bytes.
        #[test]
        fn ranges_behave_like_a_set(ranges in prop::collection::vec((0..60_u64, 0..12_u64), 0..30)) {
            let mut acknowledged = Acknowledged::default();
            let mut set = [false; 80];
            for &(start, bytes) in &ranges {
                acknowledged.add(start, start + bytes);
                set[start as usize..(start + bytes) as usize].fill(true);
            }
            let prefix = set.iter().position(|byte| !byte).unwrap();
            prop_assert_eq!(acknowledged.prefix(), prefix as u64);
            let mut from_ranges = [false; 80];
            from_ranges[..prefix].fill(true);
            let mut before = prefix as u64;
            for &(start, end) in acknowledged.beyond() {
                prop_assert!(start > before && end > start);
                before = end;
                from_ranges[start as usize..end as usize].fill(true);
            }
            prop_assert_eq!(from_ranges, set);
            // Every second range is left out.
            let (mut left_out, mut rest) = (Acknowledged::default(), Vec::new());
            for &(start, bytes) in ranges.iter().step_by(2) {
                left_out.add(start, start + bytes);
            }
            for (at, is_set) in (0..).zip(set) {
                if !left_out.contains(at, at + 1) {
                    rest.push(is_set);
                }
            }
            let moved = acknowledged.without(&left_out);
            for (at, is_set) in (0..).zip(rest) {
                prop_assert_eq!(moved.contains(at, at + 1), is_set);
            }
            for offset in 0..79 {
                let skipped = (offset..80).find(|&at| !set[at]).unwrap();
                prop_assert_eq!(acknowledged.skip(offset as u64), skipped as u64);
            }
            prop_assert_eq!(acknowledged.count(), set.iter().filter(|byte| **byte).count() as u64);
            for (start, end) in (0..79).flat_map(|start| (start..80).map(move |end| (start, end))) {
                let of = &set[start..end];
                let (start, end) = (start as u64, end as u64);
                prop_assert_eq!(acknowledged.contains(start, end), of.iter().all(|byte| *byte));
                prop_assert_eq!(acknowledged.touches(start, end), of.contains(&true));
            }
            let again = Acknowledged::new(acknowledged.prefix(), acknowledged.beyond());
            prop_assert_eq!(again, acknowledged);
        }
    }
}
