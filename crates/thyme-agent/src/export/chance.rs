//! Chance for jitter: agents that start together must not act together. Not for secrets.

use std::{collections::hash_map::RandomState, hash::BuildHasher};

/// 64 random bits.
pub(super) fn bits() -> u64 {
    // Each `RandomState` has other keys, seeded by the operating system.
    RandomState::new().hash_one(0_u64)
}

/// A random number from 0 up to, but not including, 1.
pub(super) fn share() -> f64 {
    /// Bits that an `f64` holds exactly.
    const PRECISION: u32 = 53;
    (bits() >> (u64::BITS - PRECISION)) as f64 / (1_u64 << PRECISION) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: 10,000 draws.
    /// Guarantees: all in range, none a tenth off the mean, hardly any twice.
    #[test]
    fn spread_over_the_range() {
        let draws: Vec<f64> = (0..10_000).map(|_| share()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
