//! The texts of a time: a CRI header's, and those that applications write. The second's text is
//! kept, since neighbouring lines share it. Times are given, never read from a clock.

use thyme_core::cri::TimestampWriter;

use super::buffer::{Buffer, Piece};
use super::digits::PADDED;

/// Most bytes that [`TimeText::cri`] needs reserved.
pub(crate) const CRI_BYTES_MAX: usize = 32;

/// Length of `YYYY-MM-DDTHH:MM:SS`.
const SECOND_BYTES: usize = 19;

/// One instant in the forms that lines need.
#[derive(Debug)]
pub struct TimeText {
    /// The second that the texts below show, since the Unix epoch.
    second_unix: u64,
    /// Nanoseconds of the instant within its second.
    nanos: u32,
    /// `YYYY-MM-DDTHH:MM:SS.`, then room for nine digits and `Z`.
    rfc3339: [u8; CRI_BYTES_MAX],
    /// `YYYY-MM-DD HH:MM:SS.`
    plain: Piece<24>,
    /// `DD/Mon/YYYY:HH:MM:SS +0000`
    access: Piece<32>,
}

impl Default for TimeText {
    fn default() -> Self {
        let mut text = Self {
            second_unix: 0,
            nanos: 0,
            rfc3339: [0; CRI_BYTES_MAX],
            plain: Piece::new(b""),
            access: Piece::new(b""),
        };
        text.set_second(0);
        text
    }
}

impl TimeText {
    /// Moves to an instant, in nanoseconds since the Unix epoch.
    #[inline]
    pub fn set(&mut self, unix_nano: u64) {
        let second = unix_nano / 1_000_000_000;
        self.nanos = (unix_nano % 1_000_000_000) as u32;
        if second != self.second_unix {
            self.set_second(second);
        }
    }

    #[cold]
    fn set_second(&mut self, second_unix: u64) {
        self.second_unix = second_unix;
        let second = second_text(second_unix);
        self.rfc3339[..SECOND_BYTES].copy_from_slice(&second);
        self.rfc3339[SECOND_BYTES] = b'.';
        let mut plain = *b"YYYY-MM-DD HH:MM:SS.";
        plain[..10].copy_from_slice(&second[..10]);
        plain[11..SECOND_BYTES].copy_from_slice(&second[11..]);
        self.plain = Piece::new(&plain);
        self.access = Piece::new(&access_text(&second));
    }

    /// Appends the time of a CRI line as containerd writes it: RFC 3339 in UTC, nanoseconds,
    /// trailing zeros dropped. [`TimestampWriter`] is the reference.
    #[inline]
    pub(crate) fn cri(&self, out: &mut Buffer) {
        let mut text = self.rfc3339;
        let (micros, nanos) = (self.nanos / 1_000, self.nanos % 1_000);
        let groups = [micros / 1_000, micros % 1_000, nanos];
        let (places, _) = text[SECOND_BYTES + 1..].as_chunks_mut();
        for (place, group) in places.iter_mut().zip(groups) {
            *place = PADDED[group as usize];
        }
        let mut length = 29;
        if !nanos.is_multiple_of(10) {
            text[length] = b'Z';
        } else {
            while matches!(text[length - 1], b'0' | b'.') && length > SECOND_BYTES {
                length -= 1;
            }
            text[length] = b'Z';
        }
        out.cut(&text, length + 1);
    }

    /// Appends `YYYY-MM-DDTHH:MM:SS.mmm`.
    #[inline]
    pub(crate) fn rfc3339_millis(&self, out: &mut Buffer) {
        out.cut(&self.rfc3339, SECOND_BYTES + 1);
        out.array(self.millis());
    }

    /// Appends `YYYY-MM-DD HH:MM:SS.mmm`.
    #[inline]
    pub(crate) fn plain_millis(&self, out: &mut Buffer) {
        out.piece(&self.plain);
        out.array(self.millis());
    }

    /// Appends `DD/Mon/YYYY:HH:MM:SS +0000`.
    #[inline]
    pub(crate) fn access(&self, out: &mut Buffer) {
        out.piece(&self.access);
    }

    #[inline]
    fn millis(&self) -> &'static [u8; 3] {
        &PADDED[self.nanos as usize / 1_000_000]
    }
}

/// `YYYY-MM-DDTHH:MM:SS` of a second since the Unix epoch.
pub(crate) fn second_text(second_unix: u64) -> [u8; SECOND_BYTES] {
    let mut text = Vec::with_capacity(CRI_BYTES_MAX);
    TimestampWriter::default().write(second_unix * 1_000_000_000, &mut text);
    *text.first_chunk().expect("an RFC 3339 time is longer than its date and second")
}

/// `DD/Mon/YYYY:HH:MM:SS +0000` from `YYYY-MM-DDTHH:MM:SS`.
fn access_text(second: &[u8; SECOND_BYTES]) -> [u8; 26] {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = usize::from(second[5] - b'0') * 10 + usize::from(second[6] - b'0') - 1;
    let mut text = *b"DD/Mon/YYYY:HH:MM:SS +0000";
    text[0..2].copy_from_slice(&second[8..10]);
    text[3..6].copy_from_slice(&MONTHS[month * 3..][..3]);
    text[7..11].copy_from_slice(&second[0..4]);
    text[12..20].copy_from_slice(&second[11..19]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Buffer)) -> String {
        let mut out = Buffer::default();
        out.reserve(64);
        write(&mut out);
        String::from_utf8(out.written().to_vec()).unwrap()
    }

    proptest! {
        /// Scenario: any instant until 2200, also with zeros at the end of its fraction.
        /// Guarantees: the CRI time equals what thyme-core's writer makes (the oracle), whatever
        /// instant was shown before.
        #[test]
        fn cri_times_are_containerds(
            before: u32, seconds in 0_u64..7_258_118_400, nanos in 0_u64..1_000_000_000,
            zeros in 0_u32..10,
        ) {
            let unit = 10_u64.pow(zeros);
            let instant = seconds * 1_000_000_000 + nanos / unit * unit;
            let mut text = TimeText::default();
            text.set(u64::from(before) * 1_000_000_000);
            text.set(instant);
            let mut oracle = Vec::new();
            TimestampWriter::default().write(instant, &mut oracle);
            prop_assert_eq!(written(|out| text.cri(out)), String::from_utf8(oracle).unwrap());
        }
    }

    /// Scenario: one instant in every form.
    /// Guarantees: each form reads as its applications write it.
    #[test]
    fn forms() {
        let mut text = TimeText::default();
        text.set(1_709_251_199_007_500_000);
        assert_eq!(written(|out| text.rfc3339_millis(out)), "2024-02-29T23:59:59.007");
        assert_eq!(written(|out| text.plain_millis(out)), "2024-02-29 23:59:59.007");
        assert_eq!(written(|out| text.access(out)), "29/Feb/2024:23:59:59 +0000");
    }
}
