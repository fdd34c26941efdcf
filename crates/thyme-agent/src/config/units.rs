//! Durations in Go's syntax and byte sizes in the Collector's.
//!
//! Both are pure functions from text; ranges and error messages are the reader's affair.

use std::time::Duration;

/// Parses `1m30s`, `200ms`, `1.5h` or a bare `0`, as Go's `time.ParseDuration` does; `None` for
/// anything else, for negative durations and for what doesn't fit 64 bits of nanoseconds.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos_total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, after) = split_where(after, |c| c.is_ascii_digit() || c == '.');
        let nanos = decimal_times(number, nanos_of_unit(unit)?)?;
        nanos_total = nanos_total.checked_add(nanos)?;
        rest = after;
    }
    (!text.is_empty()).then_some(Duration::from_nanos(nanos_total))
}

fn nanos_of_unit(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A duration as [`parse_duration`] reads it: the largest units first, none that is zero.
pub(super) fn format_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    let units: [(&str, u128); 6] = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let mut out = String::new();
    for (unit, size) in units {
        if nanos >= size {
            out.push_str(&format!("{}{unit}", nanos / size));
            nanos %= size;
        }
    }
    out
}

/// Parses `1MiB`, `16 kb`, `3.5MiB` or a plain number of bytes: `k`, `m`, `g` with `b` (powers of
/// 1000) or `ib` (powers of 1024), in either case; `None` for anything else.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_where(text, |c| !c.is_ascii_digit() && c != '.');
    let unit = unit.trim_start().to_ascii_lowercase();
    let size = match unit.as_str() {
        "" => 1,
        "kb" => 1_000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        "tb" => 1_000_000_000_000,
        "tib" => 1 << 40,
        _ => return None,
    };
    decimal_times(number, size)
}

/// A number of bytes as [`parse_bytes`] reads it, in the largest binary unit that divides it.
pub(super) fn format_bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fitting = units.iter().find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    fitting.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// `digits[.digits] * size`, the rest below one unit cut off; `None` without any digit, with a
/// second point, or when it doesn't fit.
fn decimal_times(number: &str, size: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let (mut parts, mut divisor) = (0_u128, 1_u128);
    // Eighteen digits are finer than any unit; more would only overflow.
    for digit in fraction.chars().take(18) {
        parts = parts * 10 + u128::from(digit.to_digit(10)?);
        divisor *= 10;
    }
    let share = u64::try_from(u128::from(size) * parts / divisor).ok()?;
    whole.checked_mul(size)?.checked_add(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scenario: durations that Go's parser takes and refuses.
    /// Guarantees: the same ones are taken, with the same value; negative ones are refused.
    #[test]
    fn durations_are_gos() {
        let ms = |text| parse_duration(text).map(|duration| duration.as_nanos());
        assert_eq!(ms("200ms"), Some(200_000_000));
        assert_eq!(ms("1m30s"), Some(90_000_000_000));
        assert_eq!(ms("1.5h"), Some(5_400_000_000_000));
        assert_eq!(ms(".5s"), Some(500_000_000));
        assert_eq!(ms("1.s"), Some(1_000_000_000));
        assert_eq!(ms("0"), Some(0));
        assert_eq!(ms("0s"), Some(0));
        assert_eq!(ms("5\u{b5}s"), Some(5_000));
        assert_eq!(ms("1h0m0.000000001s"), Some(3_600_000_000_001));
        for refused in
            ["", "5", "s", "1d", "-1s", "1s ", " 1s", "1 s", ".s", "1..5s", "5h3", "6000000h"]
        {
            assert_eq!(parse_duration(refused), None, "{refused:?}");
        }
    }

    /// Scenario: byte sizes as the Collector's documentation writes them.
    /// Guarantees: decimal and binary units differ, case doesn't matter, fractions work.
    #[test]
    fn byte_sizes_are_the_collectors() {
        assert_eq!(parse_bytes("1MiB"), Some(1 << 20));
        assert_eq!(parse_bytes("1kb"), Some(1000));
        assert_eq!(parse_bytes("1 KiB"), Some(1024));
        assert_eq!(parse_bytes("3.5MiB"), Some(3_670_016));
        assert_eq!(parse_bytes("4096"), Some(4096));
        assert_eq!(parse_bytes("0"), Some(0));
        for refused in ["", "MiB", "1M", "1 MiB x", "-1", "1.2.3kb", "99999999tib", "1e3"] {
            assert_eq!(parse_bytes(refused), None, "{refused:?}");
        }
    }

    proptest! {
        /// Scenario: any duration and any size, written out.
        /// Guarantees: reading it gives the same value.
        #[test]
        fn what_is_written_is_read(nanos in any::<u64>(), bytes in any::<u64>()) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Some(bytes));
        }

        /// Scenario: arbitrary text.
        /// Guarantees: neither parser panics.
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ignored = (parse_duration(&text), parse_bytes(&text));
        }
    }
}
