//! Whose turn it is. Groups that have something to read stand in a ring and are read in turn; groups
//! that have to wait are kept by the time when they are due, so that however many there are, only those
//! that are due cost anything. It must not know what a group is.
//!
//! Fair by bytes, as a deficit round-robin: what a group reads in its turn beyond its share, since a
//! long line has to be read as a whole, it owes, and it is passed over until that is made good.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    time::Instant,
};

use crate::limits::{LENGTH_INTERVAL, READ_BYTES};

/// What a group may read in a turn, in bytes, without owing anything.
const SHARE_BYTES: u64 = READ_BYTES as u64;

/// The order of turns.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Groups to be read, the next one first.
    ring: VecDeque<u32>,
    /// Groups that wait. A group that is to be read at another time has a second entry: whoever takes
    /// one asks whether it still holds.
    waiting: BinaryHeap<Reverse<(Instant, u32)>>,
    /// What groups have read beyond their share, in bytes; never zero.
    debts: HashMap<u32, u64>,
}

impl Schedule {
    /// The group has its turn after all others that have one.
    pub(super) fn enqueue(&mut self, group: u32) {
        self.ring.push_back(group);
    }

    /// The group has its turn then.
    pub(super) fn wait_until(&mut self, due: Instant, group: u32) {
        self.waiting.push(Reverse((due, group)));
    }

    /// The group that waits for the earliest time, and that time; it stays where it is.
    pub(super) fn earliest(&self) -> Option<(Instant, u32)> {
        self.waiting.peek().map(|Reverse(entry)| *entry)
    }

    /// Groups whose turn was due [`LENGTH_INTERVAL`] ago and has not come, or which have more to read; some
    /// that wait for another time.
    pub(super) fn overdue(&self, now: Instant) -> impl Iterator<Item = u32> {
        let is_overdue = move |due: Instant| now.saturating_duration_since(due) >= LENGTH_INTERVAL;
        let waiting = self.waiting.iter().filter(move |Reverse((due, _))| is_overdue(*due));
        self.ring.iter().copied().chain(waiting.map(|Reverse((_, group))| *group))
    }

    /// Takes the entry away that [`Schedule::earliest`] tells.
    pub(super) fn drop_earliest(&mut self) {
        self.waiting.pop();
    }

    /// How many turns a round has: one for each group in the ring.
    pub(super) fn round(&self) -> usize {
        self.ring.len()
    }

    /// The next group that is to be read; `None` when it is passed over for what it owes.
    pub(super) fn next(&mut self) -> Option<u32> {
        let group = self.ring.pop_front()?;
        match self.debts.get_mut(&group) {
            Some(debt) if *debt >= SHARE_BYTES => {
                *debt -= SHARE_BYTES;
                self.ring.push_back(group);
                None
            }
            _ => Some(group),
        }
    }

    /// The group has read so much in its turn, and has more.
    pub(super) fn go_on(&mut self, group: u32, read_bytes: u64) {
        let debt = self.debts.remove(&group).unwrap_or(0);
        let debt = (debt + read_bytes).saturating_sub(SHARE_BYTES);
        if debt > 0 {
            self.debts.insert(group, debt);
        }
        self.enqueue(group);
    }

    /// The group has nothing more to read for now: what it owes is forgiven.
    pub(super) fn rest(&mut self, group: u32) {
        self.debts.remove(&group);
    }

    /// Whether a group is in the ring.
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes turns until `bytes_max` are read, as a budget that is used up ends them; says what each
    /// read. A group reads what `of` says and always has more.
    fn read(schedule: &mut Schedule, bytes_max: u64, of: impl Fn(u32) -> u64) -> HashMap<u32, u64> {
        let mut read = HashMap::new();
        let mut total = 0;
        while total < bytes_max {
            if let Some(group) = schedule.next() {
                let bytes = of(group);
                total += bytes;
                *read.entry(group).or_insert(0) += bytes;
                schedule.go_on(group, bytes);
            }
        }
        read
    }

    /// Scenario: row 30. One group floods beside 2,000 that have a line each time; the budget is used up
    /// after a few reads of the flood each time, again and again, always before all have had their turn.
    /// Guarantees: turns go on where they stopped, so that nobody has two more of them than anybody else.
    #[test]
    fn a_flood_does_not_keep_the_quiet_from_their_turn() {
        const FLOOD: u32 = 7;
        let mut schedule = Schedule::default();
        (0..2_001).for_each(|group| schedule.enqueue(group));
        let bytes_of = |group| if group == FLOOD { SHARE_BYTES } else { 200 };
        let mut turns: HashMap<u32, u64> = HashMap::new();
        for _ in 0..1_000 {
            for (group, bytes) in read(&mut schedule, 50_000, bytes_of) {
                *turns.entry(group).or_insert(0) += bytes / bytes_of(group);
            }
        }
        let least = turns.values().min().unwrap();
        let most = turns.values().max().unwrap();
        assert_eq!(turns.len(), 2_001);
        assert!(*least > 50 && most - least <= 1, "{least} to {most} turns");
    }

    /// Scenario: row 30. A group whose lines are 4 MiB long, read as a whole, beside three whose reads
    /// are of the usual size.
    /// Guarantees: over time all have read about as many bytes, within one long line.
    #[test]
    fn long_lines_are_paid_for() {
        const LONG_BYTES: u64 = 4 << 20;
        let mut schedule = Schedule::default();
        (0..4).for_each(|group| schedule.enqueue(group));
        let of = |group| if group == 0 { LONG_BYTES } else { SHARE_BYTES };
        let read = read(&mut schedule, 1 << 30, of);
        let least = read.values().min().unwrap();
        let most = read.values().max().unwrap();
        assert!(most - least <= LONG_BYTES + SHARE_BYTES, "{read:?}");
    }

    /// Scenario: groups wait for times out of order, one of them for two times.
    /// Guarantees: they come by their times, and the second entry is there to be dropped.
    #[test]
    fn those_that_wait_come_by_their_time() {
        let now = Instant::now();
        let at = |ms| now + std::time::Duration::from_millis(ms);
        let mut schedule = Schedule::default();
        for (ms, group) in [(30, 1), (10, 2), (20, 3), (40, 2)] {
            schedule.wait_until(at(ms), group);
        }
        let mut order = Vec::new();
        while let Some(entry) = schedule.earliest() {
            order.push(entry);
            schedule.drop_earliest();
        }
        assert_eq!(order, [(at(10), 2), (at(20), 3), (at(30), 1), (at(40), 2)]);
        assert!(schedule.is_empty() && schedule.round() == 0);
    }
}
