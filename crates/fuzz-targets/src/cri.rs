//! CRI lines: the parser finds what a naive one finds, whose times jiff reads.

use thyme_core::cri::{
    CriLine, CriParser, ODD_TIME_BYTES_MAX, OddlyTimed, Stream, TAGS_BYTES_MAX, parse_oddly_timed,
};

/// Parses each line with one parser, as a file's lines are.
pub(crate) fn check(data: &[u8]) {
    let mut parser = CriParser::default();
    for line in data.split(|&byte| byte == b'\n') {
        let found = parser.parse(line);
        assert_eq!(found, naive_line(line, naive_time), "{}", line.escape_ascii());
        if found.is_none() {
            let expected = naive_line(line, naive_odd_time).map(|line_found| OddlyTimed {
                line: line_found,
                time: line.split(|&byte| byte == b' ').next().unwrap_or_default(),
            });
            assert_eq!(parse_oddly_timed(line), expected, "{}", line.escape_ascii());
        }
    }
}

/// The oracle.
fn naive_line(line: &[u8], read_time: fn(&[u8]) -> Option<u64>) -> Option<CriLine<'_>> {
    let mut parts = line.splitn(4, |&byte| byte == b' ');
    let (time, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let body = parts.next();
    let first_tag = tags.split(|&byte| byte == b':').next()?;
    let is_known = first_tag == b"F" || first_tag == b"P";
    if !is_known && (body.is_none() || tags.len() > TAGS_BYTES_MAX) {
        return None;
    }
    let time_unix_nano = read_time(time)?;
    Some(CriLine { time_unix_nano, stream, tags, body: body.unwrap_or_default() })
}

/// What a record carries of a time that [`naive_time`] refuses, though it has the form of one.
pub(crate) fn naive_odd_time(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= ODD_TIME_BYTES_MAX)?;
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let rest = shape.strip_prefix("0000-00-00T00:00:00")?;
    let offset = match rest.strip_prefix('.') {
        Some(fraction) if fraction.starts_with('0') => fraction.trim_start_matches('0'),
        Some(_) => return None,
        None => rest,
    };
    if !["Z", "+00:00", "-00:00"].contains(&offset) {
        return None;
    }
    if &text[17..19] != "60" {
        return Some(0);
    }
    let clamped = format!("{}:59.999999999{}", &text[..16], &text[text.len() - offset.len()..]);
    Some(naive_time(clamped.as_bytes()).unwrap_or(0))
}

/// A time as RFC 3339 has it, from 1970 on, without leap seconds; digits past the ninth are cut.
pub(crate) fn naive_time(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (second, rest) = text.split_at_checked(19)?;
    let shape =
        |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let second_shape: String = shape(second);
    if second_shape != "0000-00-00T00:00:00" || second[..4] < *"1970" || second.ends_with(":60") {
        return None;
    }
    let (fraction, offset) = rest.split_at(rest.find(['Z', '+', '-'])?);
    let digits = match fraction.strip_prefix('.') {
        Some("") => return None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits,
        None if fraction.is_empty() => "0",
        _ => return None,
    };
    let digits = &digits[..digits.len().min(9)];
    let offset_shape: String = shape(offset);
    let is_offset = match offset_shape.as_str() {
        "Z" => true,
        "+00:00" | "-00:00" => offset[1..3] <= *"23" && offset[4..6] <= *"59",
        _ => false,
    };
    if !is_offset {
        return None;
    }
    let instant: jiff::Timestamp = format!("{second}.{digits}{offset}").parse().ok()?;
    u64::try_from(instant.as_nanosecond()).ok()
}
