//! Chance that a seed repeats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thyme_core::splitmix;

/// Draws moments and choices.
#[derive(Debug)]
pub struct Moments {
    state: u64,
}

impl Moments {
    /// From a seed; the same seed draws the same.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A seed that nobody has chosen.
    pub fn random_seed() -> u64 {
        // Below 2^63 nanoseconds until the year 2262.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }

    /// A time between two bounds, uniformly.
    pub fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        min + max.saturating_sub(min).mul_f64(share)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        // A product of two halves of 64 bits: its upper half is below the bound.
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    fn next(&mut self) -> u64 {
        splitmix::next(&mut self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: many gaps from one seed, twice, and from another seed.
    /// Guarantees: within bounds, spread over them, the same for the same seed only.
    #[test]
    fn moments_are_random_and_repeatable() {
        let (min, max) = (Duration::from_millis(300), Duration::from_secs(3));
        let gaps = |seed| {
            let mut moments = Moments::new(seed);
            (0..1000).map(|_| moments.between(min, max)).collect::<Vec<_>>()
        };
        let first = gaps(1);
        assert_eq!(first, gaps(1));
        assert_ne!(first, gaps(2));
        assert!(first.iter().all(|gap| (min..=max).contains(gap)));
        let mean = first.iter().sum::<Duration>() / 1000;
        assert!((1.5..1.8).contains(&mean.as_secs_f64()), "{mean:?}");
    }

    /// Scenario: many numbers below three.
    /// Guarantees: each comes about as often as the others, and none beyond.
    #[test]
    fn numbers_are_spread_below_their_bound() {
        let mut moments = Moments::new(7);
        let mut counts = [0; 3];
        (0..3_000).for_each(|_| counts[moments.below(3) as usize] += 1);
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }
}
