//! Counts, rates and sizes as people write and read them: `50k`, `10MiB`, `1,234,567`.

/// Parses a count or a rate: `50000`, `50_000`, `50,000`, `50k`, `1.5M` or `2G`.
///
/// # Errors
/// Says what is expected, or that the number is too large for `T`.
pub fn parse_count<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    const EXPECTED: &str = "expected a whole number, such as 50000, 50k or 1.5M";
    let text = text.trim();
    let (number, zeros) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 3),
        Some(b'M') => (&text[..text.len() - 1], 6),
        Some(b'G') => (&text[..text.len() - 1], 9),
        _ => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.replace(['_', ','], "");
    // A fraction moves into the unit's zeros, and has to fit there.
    if fraction.len() > zeros || (number.contains('.') && fraction.is_empty()) {
        return Err(EXPECTED.to_owned());
    }
    let digits = format!("{whole}{fraction}{}", "0".repeat(zeros - fraction.len()));
    if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EXPECTED.to_owned());
    }
    let count: Option<u64> = digits.parse().ok();
    count.and_then(|count| T::try_from(count).ok()).ok_or_else(|| "too large".to_owned())
}

/// The same for what can't be nothing.
///
/// # Errors
/// As [`parse_count`], and for 0.
pub fn parse_count_from_1<T: TryFrom<u64> + Default + PartialEq>(text: &str) -> Result<T, String> {
    let count = parse_count(text)?;
    if count == T::default() { Err("must be at least 1".to_owned()) } else { Ok(count) }
}

/// Parses a size: `1000`, `64KiB`, `10MiB`, `1GiB`; also `Ki`, and `K` or `KB` for thousands.
///
/// # Errors
/// Says what is expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|byte: char| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_bytes: u64 = match unit.trim_start().trim_end_matches(['B', 'b']) {
        "" => 1,
        "K" | "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err("expected a number of bytes, KiB, MiB or GiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number first".to_owned())?;
    number.checked_mul(unit_bytes).ok_or_else(|| "too large".to_owned())
}

/// The same for what can't be nothing.
///
/// # Errors
/// As [`parse_bytes`], and for 0.
pub fn parse_bytes_from_1(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("must be at least 1 byte".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A size in the largest unit that it fills, as a figure and its unit.
pub fn in_bytes(bytes: u64) -> (String, &'static str) {
    let (shift, unit) = match bytes {
        0..0x400 => return (bytes.to_string(), "bytes"),
        0x400..0x10_0000 => (10, "KiB"),
        0x10_0000..0x4000_0000 => (20, "MiB"),
        _ => (30, "GiB"),
    };
    (format!("{:.1}", bytes as f64 / (1_u64 << shift) as f64), unit)
}

/// A time of so many milliseconds in a sensible unit, as a figure and its unit.
pub fn in_time(milliseconds: f64) -> (String, &'static str) {
    match milliseconds {
        ..10.0 => (format!("{milliseconds:.2}"), "ms"),
        ..1_000.0 => (format!("{milliseconds:.0}"), "ms"),
        _ => (format!("{:.2}", milliseconds / 1e3), "s"),
    }
}

/// A size in words.
pub fn size(bytes: u64) -> String {
    let (figure, unit) = in_bytes(bytes);
    format!("{figure} {unit}")
}

/// A time of so many milliseconds in words.
pub fn time(milliseconds: f64) -> String {
    let (figure, unit) = in_time(milliseconds);
    format!("{figure} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: counts as people write them, and what is none.
    /// Guarantees: thousands and millions are understood, fractions where they come to a whole
    /// number; everything else is refused in words.
    #[test]
    fn counts_have_thousands_and_millions() {
        for (text, count) in [
            ("0", 0),
            ("50000", 50_000),
            ("50_000", 50_000),
            ("50,000", 50_000),
            ("50k", 50_000),
            ("50K", 50_000),
            ("1.5M", 1_500_000),
            ("2G", 2_000_000_000),
            (" 7 ", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in ["", "k", "1.5", "1.", ".5k", "1.2345k", "-1", "5m", "5kk", "1e3", "fast", "é"]
        {
            let error = parse_count::<u64>(text).unwrap_err();
            assert!(error.starts_with("expected a whole number"), "{text}: {error}");
        }
        for text in ["18446744073709551616", "18446744073709552k"] {
            assert_eq!(parse_count::<u64>(text), Err("too large".to_owned()), "{text}");
        }
        assert_eq!(parse_count::<u32>("5G"), Err("too large".to_owned()));
        assert_eq!(parse_count_from_1::<u32>("0"), Err("must be at least 1".to_owned()));
        assert_eq!(parse_count_from_1::<u32>("2k"), Ok(2_000));
    }

    /// Scenario: sizes with and without units.
    /// Guarantees: binary units and thousands; nothing overflows.
    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("7", 7), ("0", 0), ("10MiB", 10 << 20), ("10Mi", 10 << 20), ("64 KB", 64_000)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1TB", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_bytes_from_1("0"), Err("must be at least 1 byte".to_owned()));
        assert_eq!(parse_bytes_from_1("4KiB"), Ok(4096));
    }

    /// Scenario: numbers around the groups' borders.
    /// Guarantees: a comma before each full group of three, none at the front.
    #[test]
    fn digits_are_grouped() {
        let cases =
            [(0, "0"), (999, "999"), (1000, "1,000"), (50_000, "50,000"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    /// Scenario: sizes and times from tiny to large.
    /// Guarantees: three or four digits that mean something, in the unit that fits.
    #[test]
    fn units_follow_the_magnitude() {
        for (bytes, text) in
            [(1023, "1023 bytes"), (1536, "1.5 KiB"), (20 << 20, "20.0 MiB"), (3 << 30, "3.0 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
        for (milliseconds, text) in [(0.25, "0.25 ms"), (122.4, "122 ms"), (12_345.0, "12.35 s")] {
            assert_eq!(time(milliseconds), text);
        }
    }
}
