//! The stamp: run, writer, sequence number and write time inside a line's own text, so that it
//! survives any agent. Written by log-generator, read by nop-collector.
//!
//! Its form is fixed: 49 bytes, lower-case hexadecimal,
//! `rrrrrrrr-wwwwwwww-ssssssssssss-tttttttttttttttt-m`, where the last byte is `e` on a writer's
//! last line. Text kinds end in ` stamp=…`, JSON kinds in `,"stamp":"…"}`.

use memchr::memmem;

/// Length of the stamp itself, in bytes.
pub const STAMP_BYTES: usize = 49;

/// What stands before the stamp in a line of text; the stamp ends the line.
pub const TEXT_PREFIX: &[u8] = b" stamp=";

/// What stands before the stamp in a line of JSON; `"}` follows and ends the line.
pub const JSON_PREFIX: &[u8] = b",\"stamp\":\"";

/// The largest sequence number that fits its twelve digits.
pub const SEQUENCE_MAX: u64 = (1 << 48) - 1;

/// Punctuation that may stand between the word `stamp` and its value: `=`, `:`, quotes, blanks and
/// the backslashes of a body that somebody wrapped in JSON.
const GLUE_BYTES_MAX: usize = 12;

/// Identity and write time of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// One start of the generator.
    pub run: u32,
    /// One stream of one container within the run.
    pub writer: u32,
    /// Position in the writer's lines, from zero, at most [`SEQUENCE_MAX`].
    pub sequence: u64,
    /// When the line was written, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// Whether this is the writer's last line.
    pub end: bool,
}

impl Stamp {
    /// Writes the fixed form.
    pub fn write(&self, out: &mut [u8; STAMP_BYTES]) {
        debug_assert!(self.sequence <= SEQUENCE_MAX);
        write_hex(u64::from(self.run), &mut out[0..8]);
        out[8] = b'-';
        write_hex(u64::from(self.writer), &mut out[9..17]);
        out[17] = b'-';
        write_hex(self.sequence, &mut out[18..30]);
        out[30] = b'-';
        write_hex(self.time_unix_nano, &mut out[31..47]);
        out[47] = b'-';
        out[48] = if self.end { b'e' } else { b'm' };
    }

    /// Finds the stamp of a line: at its two usual places first, then after the last `stamp`
    /// anywhere, since other agents trim, wrap and escape bodies.
    #[inline]
    pub fn find(body: &[u8]) -> Option<Self> {
        let end = body.len();
        if end >= STAMP_BYTES + 2 {
            if body[end - 1] == b'}'
                && let Some(stamp) = Self::parse(&body[end - 2 - STAMP_BYTES..end - 2])
            {
                return Some(stamp);
            }
            if let Some(stamp) = Self::parse(&body[end - STAMP_BYTES..]) {
                return Some(stamp);
            }
        }
        Self::search(body)
    }

    #[cold]
    fn search(body: &[u8]) -> Option<Self> {
        let at = memmem::rfind(body, b"stamp")? + b"stamp".len();
        let glue = body[at..]
            .iter()
            .take(GLUE_BYTES_MAX)
            .take_while(|byte| matches!(byte, b'=' | b':' | b'"' | b'\\' | b' '))
            .count();
        let start = at + glue;
        Self::parse(body.get(start..start + STAMP_BYTES)?)
    }

    /// Parses exactly the fixed form.
    #[inline]
    fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; STAMP_BYTES] = text.try_into().ok()?;
        if text[8] != b'-' || text[17] != b'-' || text[30] != b'-' || text[47] != b'-' {
            return None;
        }
        let end = match text[48] {
            b'e' => true,
            b'm' => false,
            _ => return None,
        };
        Some(Self {
            run: u32::try_from(read_hex(&text[0..8])?).ok()?,
            writer: u32::try_from(read_hex(&text[9..17])?).ok()?,
            sequence: read_hex(&text[18..30])?,
            time_unix_nano: read_hex(&text[31..47])?,
            end,
        })
    }
}

/// Value of each hexadecimal digit, lower case only; 0xff marks every other byte.
const HEX_VALUE: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit as usize] as usize] = digit;
        digit += 1;
    }
    table
};

#[inline]
fn write_hex(mut value: u64, out: &mut [u8]) {
    for slot in out.iter_mut().rev() {
        *slot = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
    }
}

#[inline]
fn read_hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    let mut invalid = 0_u8;
    for &digit in digits {
        let nibble = HEX_VALUE[usize::from(digit)];
        invalid |= nibble & 0xf0;
        value = value << 4 | u64::from(nibble & 0xf);
    }
    (invalid == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(stamp: &Stamp) -> Vec<u8> {
        let mut out = [0; STAMP_BYTES];
        stamp.write(&mut out);
        out.to_vec()
    }

    proptest! {
        /// Scenario: any stamp, in text, in JSON, trimmed, wrapped and escaped by another agent.
        /// Guarantees: it is found again, equal, and equals what `format!` writes (the oracle).
        #[test]
        fn every_form_is_found_again(
            run: u32, writer: u32, sequence in 0..=SEQUENCE_MAX, time_unix_nano: u64, end: bool,
            before in "[ -~]{0,80}",
        ) {
            let stamp = Stamp { run, writer, sequence, time_unix_nano, end };
            let fixed = text(&stamp);
            let oracle = format!(
                "{run:08x}-{writer:08x}-{sequence:012x}-{time_unix_nano:016x}-{}",
                if end { 'e' } else { 'm' }
            );
            prop_assert_eq!(std::str::from_utf8(&fixed).unwrap(), &oracle);
            for body in [
                format!("{before} stamp={oracle}"),
                format!("{{\"msg\":1,\"stamp\":\"{oracle}\"}}"),
                format!("{before} stamp={oracle} \t trailing"),
                format!("{{\"log\":\"{{\\\"stamp\\\":\\\"{oracle}\\\"}}\\n\"}}"),
            ] {
                prop_assert_eq!(Stamp::find(body.as_bytes()), Some(stamp), "{}", body);
            }
        }

        /// Scenario: arbitrary bytes.
        /// Guarantees: looking for a stamp never panics.
        #[test]
        fn arbitrary_bytes_are_harmless(body: Vec<u8>) {
            let _found = Stamp::find(&body);
        }
    }

    /// Scenario: a stamp whose digits were cut or altered.
    /// Guarantees: it is not taken for another stamp.
    #[test]
    fn damaged_stamps_are_not_found() {
        let stamp = Stamp { run: 1, writer: 2, sequence: 3, time_unix_nano: 4, end: false };
        let fixed = String::from_utf8(text(&stamp)).unwrap();
        for body in [
            format!("x stamp={}", &fixed[..48]),
            format!("x stamp={}", fixed.replace('m', "x")),
            format!("x stamp={}", fixed.replacen('0', "G", 1)),
            format!("x stamp={}", fixed.to_uppercase()),
        ] {
            assert_eq!(Stamp::find(body.as_bytes()), None, "{body}");
        }
    }
}
