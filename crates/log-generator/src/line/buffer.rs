//! The buffer that lines are made in, and the pieces of text they are made of. No I/O.
//!
//! A piece is copied at its full, constant width and counted at its own length: two or three vector
//! moves where a copy of unknown length would be a call. That is what makes a line cheap, and why the
//! methods that copy are `inline(always)`: left to itself, the compiler shares one copy of unknown
//! length among them, which doubles the cost of a line.

use crate::limits::PIECE_BYTES_MAX;

/// A short text in an array of constant width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<const WIDTH: usize> {
    /// The text, then zeros.
    bytes: [u8; WIDTH],
    /// Length of the text, at most `WIDTH`.
    length: u8,
}

impl<const WIDTH: usize> Piece<WIDTH> {
    /// A piece of that text; in a constant, a text too long for `WIDTH` fails the build.
    pub(crate) const fn new(text: &[u8]) -> Self {
        assert!(text.len() <= WIDTH && WIDTH <= PIECE_BYTES_MAX);
        let mut bytes = [0; WIDTH];
        let mut at = 0;
        while at < text.len() {
            bytes[at] = text[at];
            at += 1;
        }
        Self { bytes, length: text.len() as u8 }
    }
}

/// A growing buffer of lines.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Initialised throughout; its length is the capacity.
    bytes: Vec<u8>,
    /// End of what was written, at most `bytes.len()`.
    end: usize,
    /// Memory for a tail that was split off.
    spare: Vec<u8>,
}

impl Buffer {
    /// Bytes written so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.end
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// What was written.
    pub fn written(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.end = 0;
    }

    /// Takes what lies from `at` on out of the buffer. [`Self::recycle`] takes its memory back.
    pub(crate) fn split_off(&mut self, at: usize) -> Vec<u8> {
        let mut tail = std::mem::take(&mut self.spare);
        tail.clear();
        tail.extend_from_slice(&self.bytes[at..self.end]);
        self.end = at;
        tail
    }

    /// Keeps the memory of a tail for the next one.
    pub(crate) fn recycle(&mut self, tail: Vec<u8>) {
        self.spare = tail;
    }

    /// Makes room for `more` bytes, widths of pieces included; to be called before the others.
    #[inline]
    pub(crate) fn reserve(&mut self, more: usize) {
        if self.bytes.len() - self.end < more {
            self.grow(more);
        }
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let length = (self.end + more).next_power_of_two();
        self.bytes.resize(length, 0);
    }

    /// Appends a piece.
    #[inline(always)]
    pub(crate) fn piece<const WIDTH: usize>(&mut self, piece: &Piece<WIDTH>) {
        self.cut(&piece.bytes, usize::from(piece.length));
    }

    /// Appends the first `length` bytes of an array, copying all of it.
    #[inline(always)]
    pub(crate) fn cut<const WIDTH: usize>(&mut self, bytes: &[u8; WIDTH], length: usize) {
        debug_assert!(length <= WIDTH);
        // An assignment of arrays, since `copy_from_slice` is a call wherever it isn't inlined.
        let room = self.bytes[self.end..].first_chunk_mut();
        *room.expect("room was reserved") = *bytes;
        self.end += length;
    }

    /// Appends an array.
    #[inline(always)]
    pub(crate) fn array<const WIDTH: usize>(&mut self, bytes: &[u8; WIDTH]) {
        self.cut(bytes, WIDTH);
    }

    /// Appends a byte.
    #[inline(always)]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.bytes[self.end] = byte;
        self.end += 1;
    }

    /// Appends bytes of any length.
    pub(crate) fn slice(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Appends `length` bytes for the caller to fill.
    #[inline(always)]
    pub(crate) fn hole(&mut self, length: usize) -> &mut [u8] {
        let start = self.end;
        self.end += length;
        &mut self.bytes[start..start + length]
    }
}
