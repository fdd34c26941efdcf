//! CRI log lines, as containerd and CRI-O write them and the kubelet reads them:
//! `RFC3339NANO STREAM TAGS CONTENT\n` (kubernetes/kubernetes, `pkg/kubelet/kuberuntime/logs`).
//!
//! Parsing never fails in the sense of losing a line: what is not CRI is `None`, and the caller
//! passes the line on raw.

use memchr::memchr;

/// Which stream of the container a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name in a CRI line, in `log.iostream` and in the manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Its place in an array of two.
    #[inline(always)]
    pub const fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }

    /// The stream of that name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"stdout" => Some(Self::Stdout),
            b"stderr" => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// One physical line, borrowed from the buffer that it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CriLine<'a> {
    /// When the runtime read it, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// Where it came from.
    pub stream: Stream,
    /// The tags as written, with colons between them: `F` or `P`, unless a runtime has others.
    pub tags: &'a [u8],
    /// Every byte between the blank after the tags and the newline, unchanged.
    pub body: &'a [u8],
}

impl CriLine<'_> {
    /// Whether more of the same record follows: the first tag is `P`. Any other is a whole line, as
    /// the kubelet reads it (kubernetes/kubernetes, `pkg/kubelet/kuberuntime/logs`).
    #[inline]
    pub fn is_partial(&self) -> bool {
        matches!(self.tags, [b'P'] | [b'P', b':', ..])
    }
}

/// Parses the lines of one file; remembers the last second, since neighbours share it.
#[derive(Debug)]
pub struct CriParser {
    /// `YYYY-MM-DDTHH:MM:SS` of the last line that was parsed the long way.
    second_text: [u8; SECOND_BYTES],
    /// The same instant in seconds since the epoch, as if its offset were `Z`.
    second_unix: u64,
}

/// Length of `YYYY-MM-DDTHH:MM:SS`.
const SECOND_BYTES: usize = 19;

impl Default for CriParser {
    fn default() -> Self {
        Self { second_text: *b"1970-01-01T00:00:00", second_unix: 0 }
    }
}

impl CriParser {
    /// Parses one line without its newline; `None` when it isn't CRI.
    // Every line comes here: how many other callers there are must not decide whether it is a call.
    #[inline(always)]
    pub fn parse<'a>(&mut self, line: &'a [u8]) -> Option<CriLine<'a>> {
        let (time_unix_nano, rest) = self.parse_time(line)?;
        let (stream, tags, body) = parse_behind_time(rest)?;
        Some(CriLine { time_unix_nano, stream, tags, body })
    }

    /// Parses the RFC 3339 time that `text` begins with, and returns what follows it.
    #[inline(always)]
    pub fn parse_time<'a>(&mut self, text: &'a [u8]) -> Option<(u64, &'a [u8])> {
        let second: &[u8; SECOND_BYTES] = text.first_chunk()?;
        if *second != self.second_text {
            self.second_unix = parse_second(second)?;
            self.second_text = *second;
        }
        let (nanos, rest) = parse_fraction(&text[SECOND_BYTES..])?;
        let (offset_seconds, rest) = parse_offset(rest)?;
        let seconds = self.second_unix.checked_add_signed(-offset_seconds)?;
        Some((seconds.checked_mul(1_000_000_000)?.checked_add(u64::from(nanos))?, rest))
    }
}

/// Longest tags but `F` and `P`, and what a runtime adds to these, in bytes. A line without tags would
/// begin with a longer word now and then, which is not to be taken out of its body.
pub const TAGS_BYTES_MAX: usize = 32;

/// Stream, tags and body.
#[inline(always)]
fn parse_behind_time(rest: &[u8]) -> Option<(Stream, &[u8], &[u8])> {
    let stream = match rest.get(..8)? {
        b" stdout " => Stream::Stdout,
        b" stderr " => Stream::Stderr,
        _ => return None,
    };
    let rest = &rest[8..];
    // The usual single-letter tag first; anything else is looked for.
    let (tags, body) = match rest {
        [b'F' | b'P', b' ', body @ ..] => (&rest[..1], body),
        [b'F' | b'P'] => (rest, &rest[1..]),
        _ => parse_unusual_tags(rest)?,
    };
    Some((stream, tags, body))
}

#[cold]
fn parse_unusual_tags(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    if let [b'F' | b'P', b':', ..] = rest {
        let end = memchr(b' ', rest).unwrap_or(rest.len());
        return Some((&rest[..end], rest.get(end + 1..).unwrap_or_default()));
    }
    let end = memchr(b' ', &rest[..rest.len().min(TAGS_BYTES_MAX + 1)])?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// Longest time that [`parse_oddly_timed`] takes, in bytes.
pub const ODD_TIME_BYTES_MAX: usize = 64;

/// A line whose time has the form of RFC 3339, but is no instant that a record can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OddlyTimed<'a> {
    /// The line. Its time is the last nanosecond before a leap second, and else 0: unknown.
    pub line: CriLine<'a>,
    /// The time as written.
    pub time: &'a [u8],
}

/// Parses a line that [`CriParser::parse`] refuses because of its time: before 1970, after 2554, in a
/// month of 31 days that has 30, in a leap second.
#[cold]
pub fn parse_oddly_timed(line: &[u8]) -> Option<OddlyTimed<'_>> {
    let end = memchr(b' ', &line[..line.len().min(ODD_TIME_BYTES_MAX + 1)])?;
    let (time, rest) = line.split_at(end);
    let time_unix_nano = odd_time(time)?;
    let (stream, tags, body) = parse_behind_time(rest)?;
    Some(OddlyTimed { line: CriLine { time_unix_nano, stream, tags, body }, time })
}

/// What a record carries of a time that [`CriParser::parse_time`] refuses: the last nanosecond before a
/// leap second, or 0; `None` when it has not even the form of a time.
pub fn odd_time(text: &[u8]) -> Option<u64> {
    let mut second: [u8; SECOND_BYTES] = *text.first_chunk()?;
    let is_of_form = |(found, form): (&u8, &u8)| {
        if *form == b'0' { found.is_ascii_digit() } else { found == form }
    };
    let has_form = second.iter().zip(b"0000-00-00T00:00:00").all(is_of_form);
    let (_, offset) = parse_fraction(&text[SECOND_BYTES..])?;
    let has_offset = match offset {
        b"Z" => true,
        [b'+' | b'-', rest @ ..] => rest.len() == 5 && rest.iter().zip(b"00:00").all(is_of_form),
        _ => false,
    };
    if !has_form || !has_offset || text.len() > ODD_TIME_BYTES_MAX {
        return None;
    }
    if second[17..] != *b"60" {
        return Some(0);
    }
    second[17..].copy_from_slice(b"59");
    let before = parse_second(&second)
        .zip(parse_offset(offset))
        .and_then(|(seconds, (offset, _))| seconds.checked_add_signed(-offset))
        .and_then(|seconds| seconds.checked_mul(1_000_000_000)?.checked_add(999_999_999));
    Some(before.unwrap_or(0))
}

/// `.123456789` or nothing; digits past the ninth are cut, as Go's parser does.
#[inline]
fn parse_fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some((b'.', digits)) = text.split_first() else { return Some((0, text)) };
    let mut nanos = 0_u32;
    let mut count = 0;
    while let Some(digit) = digits.get(count).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        if count < 9 {
            nanos = nanos * 10 + u32::from(digit);
        }
        count += 1;
    }
    if count == 0 {
        return None;
    }
    if count < 9 {
        nanos *= POWERS_OF_TEN[9 - count];
    }
    Some((nanos, &digits[count..]))
}

const POWERS_OF_TEN: [u32; 9] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// `Z` or `±HH:MM`, in seconds east of Greenwich.
#[inline]
fn parse_offset(text: &[u8]) -> Option<(i64, &[u8])> {
    match text {
        [b'Z', rest @ ..] => Some((0, rest)),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2, rest @ ..] => {
            let hours = two_digits(&[*h1, *h2])?;
            let minutes = two_digits(&[*m1, *m2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            Some((if *sign == b'-' { -seconds } else { seconds }, rest))
        }
        _ => None,
    }
}

/// Seconds since the epoch of `YYYY-MM-DDTHH:MM:SS`, year 1970 or later.
fn parse_second(text: &[u8; SECOND_BYTES]) -> Option<u64> {
    let separators = [text[4], text[7], text[10], text[13], text[16]];
    if separators != *b"--T::" {
        return None;
    }
    let year = two_digits(&text[0..2])? * 100 + two_digits(&text[2..4])?;
    let month = two_digits(&text[5..7])?;
    let day = two_digits(&text[8..10])?;
    let (hour, minute, second) =
        (two_digits(&text[11..13])?, two_digits(&text[14..16])?, two_digits(&text[17..19])?);
    let valid = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 59;
    if !valid {
        return None;
    }
    let days = days_since_epoch(year, month, day);
    Some(days * 86_400 + u64::from(hour * 3600 + minute * 60 + second))
}

fn two_digits(text: &[u8]) -> Option<u32> {
    let tens = text[0].wrapping_sub(b'0');
    let ones = text[1].wrapping_sub(b'0');
    (tens < 10 && ones < 10).then(|| u32::from(tens * 10 + ones))
}

const fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a valid date (Howard Hinnant's `days_from_civil`).
const fn days_since_epoch(year: u32, month: u32, day: u32) -> u64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted / 400;
    let year_of_era = shifted % 400;
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    era as u64 * 146_097 + day_of_era as u64 - 719_468
}

/// Year, month and day of a count of days since 1970-01-01 (Howard Hinnant's `civil_from_days`).
const fn date_of(days: u64) -> (u32, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year as u32, month as u32, day as u32)
}

/// Writes times as containerd does: RFC 3339 in UTC with nanoseconds, trailing zeros dropped.
#[derive(Debug)]
pub struct TimestampWriter {
    second_unix: u64,
    second_text: [u8; SECOND_BYTES],
}

impl Default for TimestampWriter {
    fn default() -> Self {
        Self { second_unix: 0, second_text: *b"1970-01-01T00:00:00" }
    }
}

impl TimestampWriter {
    /// Appends the time: Go's `time.RFC3339Nano`, 20 to 30 bytes.
    #[inline]
    pub fn write(&mut self, unix_nano: u64, out: &mut Vec<u8>) {
        let second = unix_nano / 1_000_000_000;
        if second != self.second_unix {
            self.second_text = format_second(second);
            self.second_unix = second;
        }
        out.extend_from_slice(&self.second_text);
        let mut fraction = unix_nano % 1_000_000_000;
        if fraction != 0 {
            let mut digits = *b".000000000";
            for slot in digits[1..].iter_mut().rev() {
                *slot = b'0' + (fraction % 10) as u8;
                fraction /= 10;
            }
            let end = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
            out.extend_from_slice(&digits[..end]);
        }
        out.push(b'Z');
    }
}

fn format_second(second_unix: u64) -> [u8; SECOND_BYTES] {
    let (year, month, day) = date_of(second_unix / 86_400);
    let of_day = (second_unix % 86_400) as u32;
    let mut out = *b"0000-00-00T00:00:00";
    let fields = [
        (0, year / 100),
        (2, year % 100),
        (5, month),
        (8, day),
        (11, of_day / 3600),
        (14, of_day / 60 % 60),
        (17, of_day % 60),
    ];
    for (at, value) in fields {
        out[at] = b'0' + (value / 10) as u8;
        out[at + 1] = b'0' + (value % 10) as u8;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The oracle: jiff's parser of the same text.
    fn jiff_nanos(text: &str) -> Option<u64> {
        let instant: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(instant.as_nanosecond()).ok()
    }

    proptest! {
        /// Scenario: any instant from 1970 to 2200, written as containerd writes it.
        /// Guarantees: the text is Go's RFC3339Nano (jiff is the oracle) and parses back, whatever
        /// was parsed before it.
        #[test]
        fn times_survive_the_round_trip(nanos in 0_u64..7_258_118_400_000_000_000, other: u32) {
            let mut text = Vec::new();
            TimestampWriter::default().write(nanos, &mut text);
            let text = String::from_utf8(text).unwrap();
            let oracle = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap().to_string();
            prop_assert_eq!(&text, &oracle);
            let mut parser = CriParser::default();
            let mut before = Vec::new();
            TimestampWriter::default().write(u64::from(other) * 1_000_000_000, &mut before);
            parser.parse_time(&before).unwrap();
            prop_assert_eq!(parser.parse_time(text.as_bytes()), Some((nanos, &b""[..])));
        }

        /// Scenario: times with offsets and one to nine digits of fraction.
        /// Guarantees: they denote the instant that jiff says.
        #[test]
        fn offsets_are_honoured(
            seconds in 100_000_u64..4_000_000_000, digits in "[0-9]{1,9}",
            hours in 0..24_i32, minutes in 0..60_i32, east: bool,
        ) {
            let second = String::from_utf8(format_second(seconds).to_vec()).unwrap();
            let sign = if east { '+' } else { '-' };
            let text = format!("{second}.{digits}{sign}{hours:02}:{minutes:02}");
            let parsed = CriParser::default().parse_time(text.as_bytes()).map(|(nanos, _)| nanos);
            prop_assert_eq!(parsed, jiff_nanos(&text), "{}", text);
        }

        /// Scenario: arbitrary bytes, and CRI lines with a byte changed.
        /// Guarantees: parsing never panics, and what it returns lies inside the line.
        #[test]
        fn arbitrary_bytes_are_harmless(mut line: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let _parsed = CriParser::default().parse(&line);
            line.splice(0..0, *b"2024-02-29T23:59:59.123456789Z stdout F ");
            let index = at.index(line.len());
            line[index] = byte;
            if let Some(parsed) = CriParser::default().parse(&line) {
                prop_assert!(line.ends_with(parsed.body));
            }
        }
    }

    /// Scenario: the forms that runtimes write, and near misses.
    /// Guarantees: each is read as the kubelet reads it, or refused.
    #[test]
    fn known_forms() {
        let mut parser = CriParser::default();
        let mut parse = |line: &'static str| {
            parser.parse(line.as_bytes()).map(|line| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (line.time_unix_nano, line.stream, text(line.tags), text(line.body))
            })
        };
        let time = 1_709_251_199_500_000_000;
        let owned =
            |tags: &str, body: &str| Some((time, Stream::Stdout, tags.to_owned(), body.to_owned()));
        assert_eq!(parse("2024-02-29T23:59:59.5Z stdout F  a b "), owned("F", " a b "));
        assert_eq!(parse("2024-02-29T23:59:59.5Z stdout P x"), owned("P", "x"));
        assert_eq!(parse("2024-02-29T23:59:59.5Z stdout F "), owned("F", ""));
        assert_eq!(parse("2024-02-29T23:59:59.5Z stdout F"), owned("F", ""));
        assert_eq!(parse("2024-02-29T23:59:59.5Z stdout P:tag x"), owned("P:tag", "x"));
        assert_eq!(parse("2024-03-01T01:59:59.5+02:00 stdout F x"), owned("F", "x"));
        assert_eq!(parse("2024-02-29T23:59:59.5Z stdout X x"), owned("X", "x"));
        assert_eq!(parse("2024-02-29T23:59:59.5Z stdout PF:P x y"), owned("PF:P", "x y"));
        assert_eq!(parse("2024-02-29T23:59:59.5Z stdout  x"), owned("", "x"));
        let long = "2024-02-29T23:59:59.5Z stdout F:456789012345678901234567890123 x";
        assert_eq!(parse(long), owned("F:456789012345678901234567890123", "x"));
        for line in [
            "",
            "2024-02-29T23:59:59.5Z stdout X",
            "2024-02-29T23:59:59.5Z stdout ",
            "2024-02-29T23:59:59.5Z stdout 123456789012345678901234567890123 x",
            "2024-02-30T23:59:59.5Z stdout F x",
            "2024-02-29T23:59:59.Z stdout F x",
            "2024-02-29T23:59:59.5 stdout F x",
            "2024-02-29T23:59:59.5Z stdin F x",
            "2024-02-29T23:59:59.5Z  stdout F x",
            "2024-02-29 23:59:59.5Z stdout F x",
            "1969-12-31T23:59:59Z stdout F x",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    /// Scenario: first tags that the kubelet may come to know, and the two that it knows.
    /// Guarantees: only `P` says that more follows.
    #[test]
    fn any_first_tag_but_p_is_a_whole_line() {
        let is_partial = |tags: &str| {
            let line = format!("2024-02-29T23:59:59.5Z stderr {tags} x");
            CriParser::default().parse(line.as_bytes()).unwrap().is_partial()
        };
        assert!(["P", "P:", "P:F", "P:x:y"].into_iter().all(is_partial));
        assert!(!["F", "F:P", "X", "PP", "p", "X:P", ""].into_iter().any(is_partial));
    }

    /// Scenario: times that RFC 3339 can write, and a record can't carry; times that have not its form.
    /// Guarantees: the former lose nothing but their time: it is the end of the second before a leap
    /// second, or unknown. The latter are no times.
    #[test]
    fn a_time_out_of_range_leaves_stream_tag_and_body() {
        for (time, unix_nano) in [
            ("1969-12-31T23:59:59.5Z", 0),
            ("0000-00-00T00:00:00Z", 0),
            ("9999-12-31T23:59:59.999999999Z", 0),
            ("2554-07-22T00:00:00Z", 0),
            ("2024-02-30T23:59:59Z", 0),
            ("2024-13-01T24:61:61Z", 0),
            ("2024-01-01T00:00:00+24:00", 0),
            ("1970-01-01T00:00:00+00:01", 0),
            ("2016-12-31T23:59:60Z", 1_483_228_799_999_999_999),
            ("2017-01-01T01:59:60.25+02:00", 1_483_228_799_999_999_999),
            ("1969-12-31T23:59:60Z", 0),
        ] {
            let text = format!("{time} stderr P body ");
            assert_eq!(CriParser::default().parse(text.as_bytes()), None, "{time}");
            let found = parse_oddly_timed(text.as_bytes()).unwrap();
            assert_eq!(found.time, time.as_bytes());
            let line = CriLine {
                time_unix_nano: unix_nano,
                stream: Stream::Stderr,
                tags: b"P",
                body: b"body ",
            };
            assert_eq!(found.line, line, "{time}");
        }
        let digits = "0".repeat(ODD_TIME_BYTES_MAX);
        let long = format!("1969-12-31T23:59:59.{digits}Z");
        for time in [
            "",
            "now",
            "1969-12-31 23:59:59Z",
            "1969-12-31T23:59:59",
            "1969-12-31T23:59:59.Z",
            "1969-12-31T23:59:59+0100",
            "1969-12-31T23:59:5xZ",
            "1969-12-31T23:59:59Zx",
            &long,
        ] {
            assert_eq!(odd_time(time.as_bytes()), None, "{time}");
            let line = format!("{time} stdout F x");
            assert_eq!(parse_oddly_timed(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse_oddly_timed(b"1969-12-31T23:59:59Z stdin F x"), None);
    }
}
