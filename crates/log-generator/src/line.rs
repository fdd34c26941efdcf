//! Makes the bodies of log lines: random text, JSON, access log and plain text, each with its stamp.
//! Knows nothing of CRI, files or clocks.
//!
//! A line is put together from pieces of fixed width and digits from tables, so that making a line
//! costs no more than writing it.

use std::str::FromStr;
use std::sync::Arc;

use thyme_core::stamp::{JSON_PREFIX, STAMP_BYTES, Stamp, TEXT_PREFIX};

use self::buffer::Buffer;
use self::digits::{decimal, hexadecimal};
use self::prng::{Prng, scale};
use self::time::TimeText;
use self::vocabulary::{
    JSON_EVENTS, PROSE, REFERERS, REQUESTS, STATUSES, TEXT_EVENTS, USER_AGENTS, Vocabulary,
};
use crate::limits::{BODY_BYTES_MAX, NATURAL_BODY_BYTES_MAX, PIECE_BYTES_MAX};

pub mod buffer;
mod digits;
pub mod prng;
pub mod time;
pub mod vocabulary;

/// Bytes that the stamp takes of a line of text; the shortest body that can carry one.
pub const TEXT_STAMP_BYTES: usize = TEXT_PREFIX.len() + STAMP_BYTES;

/// Bytes that the stamp takes of a line of JSON.
const JSON_STAMP_BYTES: usize = JSON_PREFIX.len() + STAMP_BYTES + JSON_SUFFIX.len();

/// The prefixes as arrays, whose copies need no call.
const TEXT_PREFIX_ARRAY: [u8; TEXT_PREFIX.len()] = array_of(TEXT_PREFIX);
const JSON_PREFIX_ARRAY: [u8; JSON_PREFIX.len()] = array_of(JSON_PREFIX);

const fn array_of<const LENGTH: usize>(bytes: &[u8]) -> [u8; LENGTH] {
    *bytes.first_chunk().expect("the length is that of the bytes")
}

/// What follows the stamp in a line of JSON.
const JSON_SUFFIX: &[u8; 2] = b"\"}";

/// What a field of filler words costs in a line of JSON, beyond the words.
const JSON_FILLER: (&[u8; 11], &[u8; 1]) = (b",\"detail\":\"", b"\"");

/// What the lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Printable ASCII without any pattern; hardly compressible.
    Random,
    /// Application logs in JSON.
    Json,
    /// Access logs in the combined format.
    Access,
    /// JSON, access and plain text lines, about 220 bytes each.
    Mixed,
}

/// Sizes of bodies in bytes, stamp included, drawn uniformly from both ends and all between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRange {
    /// At least [`TEXT_STAMP_BYTES`].
    min: usize,
    /// At least `min`, at most [`BODY_BYTES_MAX`].
    max: usize,
}

/// Why a text is no size range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SizeError {
    /// Not `MIN..MAX` nor one number.
    #[error("expected MIN..MAX or one number of bytes")]
    Syntax,
    /// Outside of what can be made.
    #[error("sizes lie between {TEXT_STAMP_BYTES} (the stamp) and {BODY_BYTES_MAX} bytes")]
    Limits,
    /// The larger end came first.
    #[error("the range is empty")]
    Empty,
}

impl SizeRange {
    /// What `--size` is unless it is given: 100 to 1000 bytes.
    pub const DEFAULT: Self = Self { min: 100, max: 1_000 };

    /// The range from `min` to `max` bytes, both included.
    pub fn new(min: usize, max: usize) -> Result<Self, SizeError> {
        if min > max {
            return Err(SizeError::Empty);
        }
        if min < TEXT_STAMP_BYTES || max > BODY_BYTES_MAX {
            return Err(SizeError::Limits);
        }
        Ok(Self { min, max })
    }

    /// Largest size, in bytes.
    pub fn max(self) -> usize {
        self.max
    }

    #[inline]
    fn draw(self, random: &mut Prng) -> usize {
        self.min + random.below((self.max - self.min) as u32 + 1) as usize
    }
}

impl FromStr for SizeRange {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let parse = |bytes: &str| bytes.parse().map_err(|_| SizeError::Syntax);
        Self::new(parse(min)?, parse(max.strip_prefix('=').unwrap_or(max))?)
    }
}

/// Makes the bodies of one container.
#[derive(Debug)]
pub struct LineMaker {
    kind: Kind,
    /// For random text always; the other kinds are filled up to it where it is given.
    size: Option<SizeRange>,
    random: Prng,
    vocabulary: Arc<Vocabulary>,
}

impl LineMaker {
    /// A maker whose texts follow from `seed` and `stream` alone, apart from the times in them.
    ///
    /// Without a `size`, random text takes [`SizeRange::DEFAULT`] and other kinds their natural
    /// size. With one, other kinds are filled with words up to the size that is drawn, and stay
    /// longer where they are by nature.
    pub fn new(
        kind: Kind,
        size: Option<SizeRange>,
        seed: u64,
        stream: u64,
        vocabulary: Arc<Vocabulary>,
    ) -> Self {
        Self { kind, size, random: Prng::new(seed, stream), vocabulary }
    }

    /// The longest body that can come, in bytes.
    pub fn body_bytes_max(&self) -> usize {
        match (self.kind, self.size) {
            (Kind::Random, size) => size.unwrap_or(SizeRange::DEFAULT).max,
            (_, None) => NATURAL_BODY_BYTES_MAX,
            (_, Some(size)) => size.max.max(NATURAL_BODY_BYTES_MAX),
        }
    }

    /// Room to reserve for one body.
    pub(crate) fn reserve_bytes(&self) -> usize {
        self.body_bytes_max() + PIECE_BYTES_MAX
    }

    /// Random bits for what is decided about a line outside of its text.
    pub(crate) fn bits(&mut self) -> u64 {
        self.random.bits()
    }

    /// Appends one body, without a newline. The caller has reserved [`Self::reserve_bytes`].
    #[inline]
    pub(crate) fn write(&mut self, stamp: &Stamp, time: &TimeText, out: &mut Buffer) {
        match self.kind {
            Kind::Random => self.write_random(stamp, out),
            Kind::Json => self.write_json(stamp, time, out),
            Kind::Access => self.write_access(stamp, time, out),
            Kind::Mixed => match self.random.bits() % 16 {
                0..7 => self.write_json(stamp, time, out),
                7..12 => self.write_access(stamp, time, out),
                _ => self.write_text(stamp, time, out),
            },
        }
    }

    fn write_random(&mut self, stamp: &Stamp, out: &mut Buffer) {
        let size = self.size.unwrap_or(SizeRange::DEFAULT).draw(&mut self.random);
        fill_printable(&mut self.random, size - TEXT_STAMP_BYTES, out);
        text_stamp(stamp, out);
    }

    fn write_json(&mut self, stamp: &Stamp, time: &TimeText, out: &mut Buffer) {
        let start = out.len();
        let event = &JSON_EVENTS[skewed(self.random.bits(), JSON_EVENTS.len())];
        let (numbers, request) = (self.random.bits(), self.random.bits());
        out.array(b"{\"time\":\"");
        time.rfc3339_millis(out);
        out.piece(&event.head);
        decimal(scale((numbers >> 32) as u32, event.first_end), out);
        out.piece(&event.middle);
        decimal(scale(numbers as u32, event.second_end), out);
        out.array(b",\"request_id\":\"");
        out.array(&hexadecimal((request >> 32) as u32));
        out.array(&hexadecimal(request as u32));
        out.byte(b'"');
        if let Some(size) = self.size {
            let wanted = size.draw(&mut self.random);
            let natural = out.len() - start + JSON_STAMP_BYTES;
            self.fill_json(wanted.saturating_sub(natural), out);
        }
        out.array(&JSON_PREFIX_ARRAY);
        write_stamp(stamp, out);
        out.array(JSON_SUFFIX);
    }

    fn write_access(&mut self, stamp: &Stamp, time: &TimeText, out: &mut Buffer) {
        let start = out.len();
        let request = &REQUESTS[skewed(self.random.bits(), REQUESTS.len())];
        let (client, numbers, token) = (self.random.bits(), self.random.bits(), self.random.bits());
        let clients = &self.vocabulary.clients;
        out.piece(&clients[scale(client as u32, clients.len() as u32) as usize]);
        time.access(out);
        out.array(b"] \"");
        out.piece(&request.head);
        decimal(scale(numbers as u32, request.id_end), out);
        out.piece(&request.tail);
        out.array(&hexadecimal(token as u32));
        out.array(b" HTTP/1.1\" ");
        out.piece(&STATUSES[(token >> 32) as usize % STATUSES.len()]);
        // Small answers are the frequent ones.
        let answer_bytes = scale((numbers >> 32) as u32, 48_000) >> (token >> 62);
        decimal(180 + answer_bytes, out);
        out.piece(&REFERERS[(token >> 40) as usize % REFERERS.len()]);
        out.piece(&USER_AGENTS[skewed(client >> 32, USER_AGENTS.len())]);
        self.fill_text(start, out);
        text_stamp(stamp, out);
    }

    fn write_text(&mut self, stamp: &Stamp, time: &TimeText, out: &mut Buffer) {
        let start = out.len();
        let event = &TEXT_EVENTS[skewed(self.random.bits(), TEXT_EVENTS.len())];
        let (numbers, trace) = (self.random.bits(), self.random.bits());
        time.plain_millis(out);
        out.piece(&event.head);
        decimal(scale((numbers >> 32) as u32, event.first_end), out);
        out.piece(&event.middle);
        decimal(scale(numbers as u32, event.second_end), out);
        out.piece(&event.tail);
        out.array(b" trace=");
        out.array(&hexadecimal((trace >> 32) as u32));
        out.array(&hexadecimal(trace as u32));
        self.fill_text(start, out);
        text_stamp(stamp, out);
    }

    /// Fills a line of text that began at `start` up to the size that was asked for.
    fn fill_text(&mut self, start: usize, out: &mut Buffer) {
        let Some(size) = self.size else { return };
        let wanted = size.draw(&mut self.random);
        let missing = wanted.saturating_sub(out.len() - start + TEXT_STAMP_BYTES);
        if missing > 0 {
            out.byte(b' ');
            self.fill_prose(missing - 1, out);
        }
    }

    /// Fills a line of JSON by exactly `missing` bytes: a field of words, or blanks where there is
    /// no room for a field.
    fn fill_json(&mut self, missing: usize, out: &mut Buffer) {
        let (open, close) = JSON_FILLER;
        match missing.checked_sub(open.len() + close.len()) {
            Some(words_bytes) => {
                out.array(open);
                self.fill_prose(words_bytes, out);
                out.array(close);
            }
            None => out.hole(missing).fill(b' '),
        }
    }

    fn fill_prose(&mut self, mut missing: usize, out: &mut Buffer) {
        let mut from = self.random.below(PROSE.len() as u32) as usize;
        while missing > 0 {
            let words = &PROSE[from..];
            let taken = words.len().min(missing);
            out.slice(&words[..taken]);
            missing -= taken;
            from = 0;
        }
    }
}

/// An index below `length`, the smaller ones more often: the product of two draws.
#[inline]
fn skewed(bits: u64, length: usize) -> usize {
    let (one, other) = (bits as u32 & 0xffff, bits as u32 >> 16);
    scale(one * other, length as u32) as usize
}

/// Appends printable ASCII, eight bytes a random number.
fn fill_printable(random: &mut Prng, length: usize, out: &mut Buffer) {
    let hole = out.hole(length);
    let (chunks, rest) = hole.as_chunks_mut();
    for chunk in chunks {
        *chunk = printable(random.bits());
    }
    rest.copy_from_slice(&printable(random.bits())[..rest.len()]);
    // A line doesn't begin with a blank: agents that trim lines would be blamed for it.
    if let Some(first @ b' ') = hole.first_mut() {
        *first = b'~';
    }
}

/// Eight printable characters from 64 random bits: each byte is scaled to the 95 that there are.
#[inline]
fn printable(bits: u64) -> [u8; 8] {
    const LANES: u64 = 0x00ff_00ff_00ff_00ff;
    let even = (((bits & LANES) * 95) >> 8) & LANES;
    let odd = ((bits >> 8 & LANES) * 95) & !LANES;
    ((even | odd) + 0x2020_2020_2020_2020).to_le_bytes()
}

#[inline]
fn text_stamp(stamp: &Stamp, out: &mut Buffer) {
    out.array(&TEXT_PREFIX_ARRAY);
    write_stamp(stamp, out);
}

#[inline]
fn write_stamp(stamp: &Stamp, out: &mut Buffer) {
    let hole = out.hole(STAMP_BYTES);
    stamp.write(hole.try_into().expect("the hole has the length of a stamp"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [Kind; 4] = [Kind::Random, Kind::Json, Kind::Access, Kind::Mixed];

    const STAMP: Stamp = Stamp {
        run: 1,
        writer: 2,
        sequence: 3,
        time_unix_nano: 1_709_251_190_123_456_789,
        end: false,
    };

    fn maker(kind: Kind, size: Option<SizeRange>, seed: u64) -> LineMaker {
        LineMaker::new(kind, size, seed, 0, Arc::new(Vocabulary::new(seed)))
    }

    fn body(maker: &mut LineMaker) -> Vec<u8> {
        let mut time = TimeText::default();
        time.set(STAMP.time_unix_nano);
        let mut out = Buffer::default();
        out.reserve(maker.reserve_bytes());
        maker.write(&STAMP, &time, &mut out);
        out.written().to_vec()
    }

    proptest! {
        /// Scenario: any kind, seed and size range, also none.
        /// Guarantees: the stamp is found, the body is one line of printable ASCII, JSON is valid,
        /// and the size lies within the range, or above it where the text is longer by nature.
        #[test]
        fn bodies_are_stamped_and_sized(
            kind in prop::sample::select(KINDS.to_vec()), seed: u64,
            size in prop::option::of((TEXT_STAMP_BYTES..2_000, 0_usize..2_000)),
        ) {
            let size = size.map(|(min, more)| SizeRange::new(min, min + more).unwrap());
            let mut maker = maker(kind, size, seed);
            for _ in 0..20 {
                let body = body(&mut maker);
                let text = std::str::from_utf8(&body).unwrap();
                prop_assert_eq!(Stamp::find(&body), Some(STAMP), "{}", text);
                prop_assert!(body.iter().all(|byte| (b' '..=b'~').contains(byte)));
                prop_assert!(!text.starts_with(' ') && !text.ends_with(' '));
                if body[0] == b'{' && kind != Kind::Random {
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
                }
                let range = size.unwrap_or(SizeRange::DEFAULT);
                let natural_max = NATURAL_BODY_BYTES_MAX;
                if kind == Kind::Random {
                    prop_assert!((range.min..=range.max).contains(&body.len()));
                } else if size.is_some() {
                    prop_assert!((range.min..=range.max.max(natural_max)).contains(&body.len()));
                }
                prop_assert!(body.len() <= maker.body_bytes_max());
            }
        }
    }

    /// Scenario: many lines of each kind.
    /// Guarantees: a few hundred bytes each, 210 to 230 on average for the mix, which holds all three
    /// kinds of application lines.
    #[test]
    fn natural_sizes() {
        for kind in [Kind::Json, Kind::Access, Kind::Mixed] {
            let mut maker = maker(kind, None, 1);
            let bodies: Vec<_> = (0..20_000).map(|_| body(&mut maker)).collect();
            let mean = bodies.iter().map(Vec::len).sum::<usize>() / bodies.len();
            let longest = bodies.iter().map(Vec::len).max().unwrap();
            assert!((150..=320).contains(&mean), "{kind:?}: {mean}");
            assert!(longest <= 400, "{kind:?}: {longest}");
            if kind == Kind::Mixed {
                assert!((210..=230).contains(&mean), "{mean}");
                for mark in [&b"{\"time"[..], b"INFO  [", b"HTTP/1.1"] {
                    let has = |body: &&Vec<u8>| body.windows(mark.len()).any(|text| text == mark);
                    assert!(bodies.iter().filter(has).count() > bodies.len() / 10);
                }
            }
        }
    }

    /// Scenario: random lines of every length of remainder.
    /// Guarantees: every printable character occurs, about as often as the others.
    #[test]
    fn random_text_is_uniform() {
        let mut maker = maker(Kind::Random, Some(SizeRange::new(1_000, 1_007).unwrap()), 1);
        let mut counts = [0_u32; 256];
        for _ in 0..2_000 {
            let body = body(&mut maker);
            body[..body.len() - TEXT_STAMP_BYTES].iter().for_each(|&b| counts[usize::from(b)] += 1);
        }
        let mean = counts.iter().sum::<u32>() / 95;
        for byte in b' '..=b'~' {
            // 256 values over 95 characters: some get three, some two of them.
            let count = counts[usize::from(byte)];
            assert!((mean * 2 / 3..mean * 4 / 3).contains(&count), "{byte}: {count} of {mean}");
        }
    }
}
