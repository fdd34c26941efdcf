//! The text of a record's identity, `log.record.uid`: which file, where in it. It is the same
//! whenever the same bytes are read, and never the same for others, so that a sink can tell a
//! record that comes again from one that looks alike.
//!
//! One whole line is `<file>-<offset>`: the line ends where its newline is, so its start says all.
//! Where a record begins and ends may depend on the moment for all others (joined fragments, pieces
//! of a long line, lines without their newline), so theirs is `<file>-<offset>-<CRC-32 of the
//! body>`: what was cut otherwise the second time is never taken for what came the first time.
//!
//! `tail/uid.rs` says how a file gets its own.

/// The attribute (OpenTelemetry semantic conventions, `log.record.uid`).
pub const UID_ATTRIBUTE: &str = "log.record.uid";

/// Hexadecimal digits of a file's identity.
pub const FILE_DIGITS: usize = 24;

/// Hexadecimal digits of an offset: it repeats after 256 TiB.
pub const OFFSET_DIGITS: usize = 12;

/// Hexadecimal digits of a body's CRC-32.
const CRC_DIGITS: usize = 8;

/// Length of a whole line's identity.
pub const LINE_UID_BYTES: usize = FILE_DIGITS + 1 + OFFSET_DIGITS;

/// Length of any other record's identity.
pub const CUT_UID_BYTES: usize = LINE_UID_BYTES + 1 + CRC_DIGITS;

/// A file's identity as text.
pub type FileDigits = [u8; FILE_DIGITS];

/// The lowest digits of a number, lower case.
#[inline]
pub fn hex<const DIGITS: usize>(value: u64) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (index, digit) in digits.iter_mut().enumerate() {
        let nibble = (value >> (4 * (DIGITS - 1 - index))) as u8 & 0xf;
        *digit = nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    }
    digits
}

/// Identity of a record that is not one whole line.
pub fn cut_uid(file: FileDigits, offset: u64, body: &[u8]) -> [u8; CUT_UID_BYTES] {
    let mut uid = [b'-'; CUT_UID_BYTES];
    uid[..FILE_DIGITS].copy_from_slice(&file);
    uid[FILE_DIGITS + 1..LINE_UID_BYTES].copy_from_slice(&hex::<OFFSET_DIGITS>(offset));
    let crc32 = u64::from(crc32fast::hash(body));
    uid[LINE_UID_BYTES + 1..].copy_from_slice(&hex::<CRC_DIGITS>(crc32));
    uid
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Scenario: any number.
        /// Guarantees: its lowest digits are those that the standard library writes.
        #[test]
        fn digits_are_those_of_the_standard_library(value: u64) {
            prop_assert_eq!(hex::<16>(value).to_vec(), format!("{value:016x}").into_bytes());
            let low = value & 0xffff_ffff_ffff;
            prop_assert_eq!(hex::<12>(value).to_vec(), format!("{low:012x}").into_bytes());
        }
    }
}
