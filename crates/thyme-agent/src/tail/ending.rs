//! What a file held just before the places up to which it was read: whether it still does tells a file
//! that goes on from one that was cut and written anew, whatever its length is. It must not know what
//! the bytes mean.

use std::io;

use crate::world::LogFile;

/// Bytes that an ending covers at least, where so many were read.
const ENDING_BYTES: usize = 256;

/// Bytes that an ending covers at most.
const ENDING_BYTES_MAX: usize = 1024;

/// Places of a file whose endings are remembered.
const PLACES_MAX: usize = 8;

/// Hash of the bytes in front of a place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// How many bytes it covers; 0 says nothing.
    pub bytes: u32,
    /// Their CRC-32 (ISO-HDLC).
    pub crc32: u32,
}

impl Ending {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u32, crc32: crc32fast::hash(bytes) }
    }

    /// The same with these bytes behind it.
    fn then(self, read: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new_with_initial_len(self.crc32, u64::from(self.bytes));
        hasher.update(read);
        Self { bytes: self.bytes + read.len() as u32, crc32: hasher.finalize() }
    }

    /// Whether the file has these bytes in front of `offset`.
    pub fn matches(self, file: &dyn LogFile, offset: u64) -> io::Result<bool> {
        let bytes = self.bytes as usize;
        if bytes == 0 {
            return Ok(true);
        }
        let mut buffer = [0; ENDING_BYTES_MAX];
        let (Some(start), Some(buffer)) =
            (offset.checked_sub(u64::from(self.bytes)), buffer.get_mut(..bytes))
        else {
            // No ending is as long: nobody made it.
            return Ok(true);
        };
        let filled = file.fill_at(buffer, start)?;
        Ok(filled == bytes && crc32fast::hash(buffer) == self.crc32)
    }
}

/// The endings of a file at the places up to which it was read, the last ones only.
#[derive(Debug, Default)]
pub struct Endings {
    places: Vec<(u64, Ending)>,
    /// Where reading has come to last, and the part of the ending there that follows its first bytes. From
    /// a hash no bytes can be taken away: as soon as this one covers enough, it is the ending.
    next: (u64, Ending),
}

impl Endings {
    /// Of a file that is resumed at a place whose ending is known.
    pub fn resumed(offset: u64, ending: Ending) -> Self {
        let places = if ending.bytes == 0 { Vec::new() } else { vec![(offset, ending)] };
        Self { places, next: (offset, Ending::default()) }
    }

    /// The ending in front of `offset`, if it is remembered.
    pub fn at(&self, offset: u64) -> Option<Ending> {
        self.places.iter().rev().find(|(place, _)| *place == offset).map(|(_, ending)| *ending)
    }

    /// The last place up to `offset` whose ending is remembered, and that ending. Reading may have gone on
    /// behind bytes that were acknowledged before a restart and are not read again.
    pub fn up_to(&self, offset: u64) -> Option<(u64, Ending)> {
        self.places.iter().rev().find(|(place, _)| *place <= offset).copied()
    }

    /// Reading has gone on from `offset` by these bytes.
    pub fn advance(&mut self, offset: u64, read: &[u8]) {
        if read.is_empty() {
            return;
        }
        let (ending, next) = self.follow(offset, read);
        if self.places.len() == PLACES_MAX {
            // Those that are left are as far apart as before, in proportion.
            let mut number = 0;
            self.places.retain(|_| {
                number += 1;
                number % 2 == 0
            });
        }
        let place = offset + read.len() as u64;
        self.places.push((place, ending));
        self.next = (place, next);
    }

    /// The ending behind these bytes, and the part of it that may be the next one.
    fn follow(&self, offset: u64, read: &[u8]) -> (Ending, Ending) {
        if read.len() >= ENDING_BYTES {
            return (Ending::of(&read[read.len() - ENDING_BYTES..]), Ending::default());
        }
        let before = self.at(offset).unwrap_or_default();
        let (place, next) = self.next;
        let next = if place == offset { next.then(read) } else { Ending::of(read) };
        // The second holds for what another version has left.
        let is_long = before.bytes as usize + read.len() > ENDING_BYTES_MAX;
        if next.bytes as usize >= ENDING_BYTES || is_long {
            return (next, Ending::default());
        }
        (before.then(read), next)
    }

    /// Nobody asks for places before this one any more, but for the last of them where its own ending is
    /// not remembered.
    pub fn forget_before(&mut self, offset: u64) {
        let first = self.up_to(offset).map_or(offset, |(place, _)| place);
        self.places.retain(|(place, _)| *place >= first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    proptest! {
        /// Scenario: row 47. A file is read in pieces of any length, with a restart between two of them; one of
        /// its bytes is another then.
        /// Guarantees: the last place covers 256 bytes, or all there are. What is remembered of each place matches
        /// the file that was read, and the last place no file in which one of the bytes that it covers is another,
        /// nor one that is shorter.
        #[test]
        fn endings_tell_another_file(
            pieces in prop::collection::vec(1..400_usize, 1..30),
            flipped in any::<prop::sample::Index>(),
            restart in any::<prop::sample::Index>(),
        ) {
            let bytes: usize = pieces.iter().sum();
            let mut content: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
            let mut endings = Endings::default();
            let mut at = 0;
            let restart = restart.index(pieces.len());
            for (number, piece) in pieces.into_iter().enumerate() {
                if let Some(ending) = endings.at(at as u64).filter(|_| number == restart) {
                    endings = Endings::resumed(at as u64, ending);
                }
                endings.advance(at as u64, &content[at..at + piece]);
                at += piece;
            }
            let file = |content: &[u8]| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(content).unwrap();
                file
            };
            let same = file(&content);
            prop_assert!(endings.places.len() <= PLACES_MAX);
            for (place, ending) in &endings.places {
                prop_assert!(ending.matches(&same, *place).unwrap());
            }
            let last = endings.at(bytes as u64).unwrap();
            prop_assert!(last.bytes as usize >= ENDING_BYTES.min(bytes));
            let shorter = file(&content[..bytes - 1]);
            prop_assert!(!last.matches(&shorter, bytes as u64).unwrap());
            let at = bytes - 1 - flipped.index(last.bytes as usize);
            content[at] ^= 1;
            prop_assert!(!last.matches(&file(&content), bytes as u64).unwrap());
        }
    }

    /// Scenario: row 47. A file was read up to a place behind which bytes had been acknowledged before a
    /// restart: reading goes on behind them, and all of it is settled.
    /// Guarantees: where it goes on, the last place whose ending is known is asked for, so that a file that
    /// was written anew meanwhile is not read on within a line.
    #[test]
    fn bytes_that_are_skipped_hide_no_other_file() {
        let mut endings = Endings::default();
        endings.advance(0, &[b'a'; 300]);
        endings.advance(300, &[b'b'; 300]);
        endings.forget_before(900);
        assert_eq!((endings.at(900), endings.up_to(599)), (None, None));
        let (place, ending) = endings.up_to(900).unwrap();
        assert_eq!((place, Some(ending)), (600, endings.at(600)));
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(&[b'c'; 2_000]).unwrap();
        assert!(!ending.matches(&other, place).unwrap());
    }
}
