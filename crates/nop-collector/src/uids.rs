//! Which identities (`log.record.uid`) came, and on which lines: what a sink that keeps the first
//! record of each identity would remove, and what it would remove wrongly.
//!
//! Only so many of the latest identities are remembered, since a receiver's memory is bounded. What
//! comes twice because of a crash or a lost acknowledgement comes within seconds.

use hashbrown::HashMap;

use crate::limits::UIDS_REMEMBERED_MIN;

/// One stamped record that carried an identity, as hashes of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Of the identity.
    pub(crate) uid: u64,
    /// Of the line: its run, writer and sequence number.
    pub(crate) line: u64,
}

/// What the identities said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UidCounts {
    /// Stamped records with an identity.
    pub(crate) records: u64,
    /// Those whose identity had come before, on the same line.
    pub(crate) repeated: u64,
    /// Those whose identity had come before, on another line.
    pub(crate) collisions: u64,
    /// Identities that are not remembered any more.
    pub(crate) forgotten: u64,
}

impl UidCounts {
    /// Adds another replica's.
    pub(crate) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.repeated += other.repeated;
        self.collisions += other.collisions;
        self.forgotten += other.forgotten;
    }
}

/// Line by identity; identities come from outside, so that the hash is seeded.
type Lines = HashMap<u64, u64, foldhash::fast::RandomState>;

/// The identities that are remembered.
#[derive(Debug)]
pub(crate) struct Uids {
    pub(crate) counts: UidCounts,
    /// At most `generation_max` of the latest.
    recent: Lines,
    /// As many from before these.
    older: Lines,
    generation_max: usize,
}

impl Default for Uids {
    fn default() -> Self {
        Self::remembering(UIDS_REMEMBERED_MIN)
    }
}

impl Uids {
    /// Remembers at least so many, at most twice as many.
    fn remembering(generation_max: usize) -> Self {
        let (recent, older) = (Lines::default(), Lines::default());
        Self { counts: UidCounts::default(), recent, older, generation_max }
    }

    /// Takes what one request's records carried, in their order.
    pub(crate) fn see(&mut self, sightings: &[Sighting]) {
        for one in sightings {
            self.counts.records += 1;
            match self.recent.get(&one.uid).or_else(|| self.older.get(&one.uid)) {
                Some(line) if *line == one.line => self.counts.repeated += 1,
                Some(_) => self.counts.collisions += 1,
                None => self.remember(*one),
            }
        }
    }

    fn remember(&mut self, one: Sighting) {
        if self.recent.len() >= self.generation_max {
            std::mem::swap(&mut self.recent, &mut self.older);
            self.counts.forgotten += self.recent.len() as u64;
            self.recent.clear();
        }
        self.recent.insert(one.uid, one.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Scenario: identities on lines, in any order and number, fewer than are remembered.
        /// Guarantees: what is repeated and what collides is what a plain map, the oracle, says.
        #[test]
        fn counts_are_those_of_a_plain_map(
            requests in prop::collection::vec(
                prop::collection::vec((0..40_u64, 0..3_u64), 0..30), 0..6),
        ) {
            let mut uids = Uids::remembering(40);
            let mut oracle = BTreeMap::new();
            let mut expected = UidCounts::default();
            for request in &requests {
                let sightings: Vec<_> =
                    request.iter().map(|&(uid, line)| Sighting { uid, line }).collect();
                uids.see(&sightings);
                for &(uid, line) in request {
                    expected.records += 1;
                    let first = *oracle.entry(uid).or_insert((line, true));
                    oracle.insert(uid, (first.0, false));
                    expected.repeated += u64::from(!first.1 && first.0 == line);
                    expected.collisions += u64::from(!first.1 && first.0 != line);
                }
            }
            prop_assert_eq!(uids.counts, expected);
        }
    }

    /// Scenario: more identities come than are remembered; then the latest come again, and the first.
    /// Guarantees: memory is bounded; the latest are known, the first are not and were counted as
    /// forgotten.
    #[test]
    fn only_the_latest_are_remembered() {
        let mut uids = Uids::remembering(10);
        let one = |uid| Sighting { uid, line: uid };
        uids.see(&(0..35).map(one).collect::<Vec<_>>());
        assert_eq!(uids.recent.len() + uids.older.len(), 15);
        assert_eq!(uids.counts.forgotten, 20);
        uids.see(&[one(34), one(20), one(0), one(19)]);
        assert_eq!((uids.counts.repeated, uids.counts.collisions), (2, 0));
    }
}
