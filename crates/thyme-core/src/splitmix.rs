//! splitmix64: numbers that follow from a seed. Not for secrets.

/// What the state grows by for each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number that follows `state`: neighbouring states become unrelated numbers.
#[inline]
pub const fn scramble(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(STEP);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The next number of a generator, whose state moves on.
#[inline]
pub const fn next(state: &mut u64) -> u64 {
    let number = scramble(*state);
    *state = state.wrapping_add(STEP);
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the numbers that the generator's authors publish for the seed 1234567.
    /// Guarantees: it is splitmix64.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut state = 1_234_567;
        let numbers = [next(&mut state), next(&mut state), next(&mut state)];
        let expected =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(numbers, expected);
    }
}
