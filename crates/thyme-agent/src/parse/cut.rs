//! Where text is cut: a piece of it ends with a character, wherever the text is UTF-8.

/// Where to cut a body that may have `bytes_max` bytes: not inside a UTF-8 sequence, if it is one.
pub(super) fn piece_end(body: &[u8], bytes_max: usize) -> usize {
    if body.len() <= bytes_max {
        return body.len();
    }
    let lowest = bytes_max.saturating_sub(3).max(1);
    (lowest..=bytes_max).rev().find(|&at| !is_continuation(body[at])).unwrap_or(bytes_max)
}

/// How many bytes at the end of `text` begin a character that does not end there; at most 3.
pub(super) fn unfinished_bytes(text: &[u8]) -> usize {
    let end = &text[text.len().saturating_sub(3)..];
    let Some(begin) = end.iter().rposition(|byte| !is_continuation(*byte)) else { return 0 };
    let begun = std::str::from_utf8(&end[begin..]);
    // No `error_len`: more bytes can make it a character.
    if begun.is_err_and(|error| error.error_len().is_none()) { end.len() - begin } else { 0 }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Scenario: any bytes, often the beginnings and ends of characters.
        /// Guarantees: what is called unfinished is the shortest beginning of a character that nothing
        /// but its end can follow, as the standard library says; nothing else is.
        #[test]
        fn unfinished_characters_are_those_of_the_standard_library(
            text in prop::collection::vec(
                prop_oneof![any::<u8>(), 0x80..=0xbf_u8, 0xc0..=0xff_u8, Just(b'a')], 0..8,
            ),
        ) {
            let is_unfinished = |begin: &usize| {
                let begun = std::str::from_utf8(&text[*begin..]);
                begun.is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
            };
            let begin = (0..text.len()).rev().find(is_unfinished).unwrap_or(text.len());
            prop_assert_eq!(unfinished_bytes(&text), text.len() - begin);
        }
    }
}
