//! Open-loop pacing: how many lines are due at a time, and how long to wait for the next. Arithmetic
//! only; time is an argument.

use std::time::Duration;

use crate::limits::{CATCH_UP, LATE_AFTER, SLEEP_MAX, TICK};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// When lines are due, and when the writing is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Lines a second over all containers; 0 means as fast as possible.
    rate: u64,
    /// Lines in all, where that is known: `--lines`, or the rate times the duration.
    lines: Option<u64>,
    duration: Option<Duration>,
}

impl Pace {
    /// The pace of `rate` lines a second until `lines` are written or `duration` is over, whichever
    /// comes first; without either it never ends.
    pub fn new(rate: u64, lines: Option<u64>, duration: Option<Duration>) -> Self {
        let timed =
            duration.filter(|_| rate > 0).map(|duration| lines_after(rate, duration.as_nanos()));
        let lines = match (lines, timed) {
            (Some(lines), Some(timed)) => Some(lines.min(timed)),
            (lines, timed) => lines.or(timed),
        };
        Self { rate, lines, duration }
    }

    /// Lines in all, where that is known.
    pub fn lines(&self) -> Option<u64> {
        self.lines
    }

    /// How many lines should have been written after `elapsed`.
    pub fn due(&self, elapsed: Duration) -> u64 {
        let due =
            if self.rate == 0 { u64::MAX } else { lines_after(self.rate, elapsed.as_nanos()) };
        due.min(self.lines.unwrap_or(u64::MAX))
    }

    /// How many lines have been due for so long that they are late.
    pub fn late(&self, elapsed: Duration, written: u64) -> u64 {
        match self.rate {
            0 => 0,
            _ => self.due(elapsed.saturating_sub(LATE_AFTER)).saturating_sub(written),
        }
    }

    /// Whether all lines are written.
    pub fn is_complete(&self, written: u64) -> bool {
        self.lines == Some(written)
    }

    /// Whether the time is over: lines that are late then are caught up with for a while only.
    pub fn is_over(&self, elapsed: Duration) -> bool {
        let grace = if self.rate == 0 { Duration::ZERO } else { CATCH_UP };
        self.duration.is_some_and(|duration| elapsed >= duration + grace)
    }

    /// How long to sleep when all due lines are written: to the next line, but at least to the end
    /// of this tick, so that lines go out in batches, and never so long that a stop has to wait.
    pub fn wait(&self, elapsed: Duration, written: u64) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let next_nanos = (u128::from(written) + 1) * NANOS_PER_SECOND / u128::from(self.rate);
        let wait_nanos = next_nanos.saturating_sub(elapsed.as_nanos());
        let wait = Duration::from_nanos(u64::try_from(wait_nanos).unwrap_or(u64::MAX));
        wait.clamp(TICK, SLEEP_MAX)
    }
}

fn lines_after(rate: u64, nanos: u128) -> u64 {
    u64::try_from(u128::from(rate) * nanos / NANOS_PER_SECOND).unwrap_or(u64::MAX)
}

/// The lines of container `index` when `lines` are dealt out to `containers` one after the other,
/// beginning with container `first`.
pub fn share(lines: u64, containers: u64, first: u64, index: u64) -> u64 {
    let position = (index + containers - first) % containers;
    lines / containers + u64::from(position < lines % containers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Scenario: any rate, looked at at any times, with or without stalls.
        /// Guarantees: after a look everything due is written, and the total never leaves the exact
        /// line `rate x time` by a whole line.
        #[test]
        fn the_total_follows_the_clock(
            rate in 1_u64..2_000_000, steps in prop::collection::vec(0_u64..3_000_000_000, 1..50),
        ) {
            let pace = Pace::new(rate, None, None);
            let (mut elapsed, mut written) = (0, 0);
            for step in steps {
                elapsed += step;
                written += pace.due(Duration::from_nanos(elapsed)) - written;
                let exact = u128::from(rate) * u128::from(elapsed);
                let total = u128::from(written) * NANOS_PER_SECOND;
                prop_assert!(total <= exact && exact - total < NANOS_PER_SECOND);
            }
        }

        /// Scenario: lines are dealt out in batches of any size, each going on where the last ended.
        /// Guarantees: every container gets what it would have got in one deal.
        #[test]
        fn deals_are_fair(
            containers in 1_u64..50, batches in prop::collection::vec(0_u64..500, 1..20),
        ) {
            let mut dealt = vec![0; containers as usize];
            let mut first = 0;
            for &batch in &batches {
                for (index, dealt) in dealt.iter_mut().enumerate() {
                    *dealt += share(batch, containers, first, index as u64);
                }
                first = (first + batch) % containers;
            }
            let total: u64 = batches.iter().sum();
            for (index, &dealt) in dealt.iter().enumerate() {
                prop_assert_eq!(dealt, share(total, containers, 0, index as u64));
            }
        }
    }

    /// Scenario: a duration, a number of lines, both, and neither.
    /// Guarantees: the smaller of the two ends the run, and the rest is caught up with for a while.
    #[test]
    fn ends() {
        let second = Duration::from_secs(1);
        assert_eq!(Pace::new(1_000, None, Some(3 * second)).lines(), Some(3_000));
        assert_eq!(Pace::new(1_000, Some(10), Some(3 * second)).lines(), Some(10));
        assert_eq!(Pace::new(0, None, Some(second)).lines(), None);
        let pace = Pace::new(1_000, None, Some(second));
        assert_eq!(pace.due(5 * second), 1_000);
        assert!(pace.is_complete(1_000) && !pace.is_complete(999));
        assert!(!pace.is_over(second) && pace.is_over(second + CATCH_UP));
        assert!(Pace::new(0, None, Some(second)).is_over(second));
        assert!(!Pace::new(1_000, None, None).is_over(1_000 * second));
    }

    /// Scenario: a writer that is half a second behind, one that is a tick behind, one without a rate.
    /// Guarantees: only lines that have been due for longer than usual are late.
    #[test]
    fn late_lines() {
        let pace = Pace::new(1_000, None, None);
        let late_millis = 1_000 - LATE_AFTER.as_millis() as u64;
        assert_eq!(pace.late(Duration::from_secs(1), 500), late_millis - 500);
        assert_eq!(pace.late(Duration::from_secs(1), 995), 0);
        assert_eq!(Pace::new(0, None, None).late(Duration::from_secs(1), 0), 0);
    }

    /// Scenario: fast and slow rates with everything due written.
    /// Guarantees: the sleep reaches to the next line within the limits of a tick and of a stop.
    #[test]
    fn waits() {
        let elapsed = Duration::from_secs(1);
        assert_eq!(Pace::new(50_000, None, None).wait(elapsed, 50_000), TICK);
        assert_eq!(Pace::new(1, None, None).wait(elapsed, 1), SLEEP_MAX);
        let wait = Pace::new(100, None, None).wait(elapsed, 100);
        assert_eq!(wait, Duration::from_millis(10));
        assert_eq!(Pace::new(0, None, None).wait(elapsed, 1), Duration::ZERO);
    }
}
