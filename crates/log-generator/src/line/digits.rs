//! Decimal and hexadecimal digits from tables, without division per digit.

use super::buffer::{Buffer, Piece};

/// 0 to 999 without leading zeros.
static DECIMAL: [Piece<4>; 1_000] = {
    let mut table = [Piece::new(b""); 1_000];
    let mut number = 0;
    while number < 1_000 {
        let digits = padded(number);
        table[number] = match number {
            0..10 => Piece::new(&[digits[2]]),
            10..100 => Piece::new(&[digits[1], digits[2]]),
            _ => Piece::new(&digits),
        };
        number += 1;
    }
    table
};

/// 000 to 999.
pub(crate) static PADDED: [[u8; 3]; 1_000] = {
    let mut table = [[0; 3]; 1_000];
    let mut number = 0;
    while number < 1_000 {
        table[number] = padded(number);
        number += 1;
    }
    table
};

const fn padded(number: usize) -> [u8; 3] {
    [b'0' + (number / 100) as u8, b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

/// Appends a number below a thousand million.
#[inline]
pub(crate) fn decimal(number: u32, out: &mut Buffer) {
    debug_assert!(number < 1_000_000_000);
    let (thousands, ones) = (number / 1_000, number % 1_000);
    if thousands == 0 {
        out.piece(&DECIMAL[ones as usize]);
    } else {
        if thousands < 1_000 {
            out.piece(&DECIMAL[thousands as usize]);
        } else {
            out.piece(&DECIMAL[(thousands / 1_000) as usize]);
            out.array(&PADDED[(thousands % 1_000) as usize]);
        }
        out.array(&PADDED[ones as usize]);
    }
}

/// The eight lower-case hexadecimal digits of a number, all at once.
#[inline]
pub(crate) const fn hexadecimal(number: u32) -> [u8; 8] {
    // Spread the eight nibbles over eight bytes, then turn each byte into its digit.
    let mut nibbles = number as u64;
    nibbles = (nibbles & 0xffff_0000) << 16 | (nibbles & 0xffff);
    nibbles = (nibbles & 0x0000_ff00_0000_ff00) << 8 | (nibbles & 0x0000_00ff_0000_00ff);
    nibbles = (nibbles & 0x00f0_00f0_00f0_00f0) << 4 | (nibbles & 0x000f_000f_000f_000f);
    let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * (b'a' - b'0' - 10) as u64).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Scenario: any number.
        /// Guarantees: its digits are those of `format!` (the oracle).
        #[test]
        fn digits_are_right(decimal_number in 0_u32..1_000_000_000, shift in 0_u32..30, hex: u32) {
            for number in [decimal_number, decimal_number >> shift] {
                let mut out = Buffer::default();
                out.reserve(64);
                decimal(number, &mut out);
                prop_assert_eq!(out.written().to_vec(), number.to_string().into_bytes());
            }
            prop_assert_eq!(hexadecimal(hex).to_vec(), format!("{hex:08x}").into_bytes());
        }
    }
}
