//! One container: its two streams, each a writer with its own sequence, and how its lines are laid
//! out, raw or CRI. Puts lines into a buffer; where the buffer goes, and when, is not its concern.

use thyme_core::cri::{CriParser, Stream};
use thyme_core::stamp::Stamp;

use crate::limits::WRITE_BYTES_MAX;
use crate::line::LineMaker;
use crate::line::buffer::Buffer;
use crate::line::prng::Prng;
use crate::line::time::TimeText;

/// Room for the header of a CRI line: time, stream, tag, blanks and the newline.
const HEADER_BYTES_MAX: usize = 64;

/// Between the fragments of a long line containerd reads its clock again; so much later is it then.
const FRAGMENT_NANOS: u64 = 800;

/// How lines stand in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As the application writes them: body and newline.
    Raw,
    /// As the runtime writes them: a CRI header before each; bodies longer than `partial_bytes_max`
    /// are cut into `P` fragments of that size and a last `F`.
    Cri {
        /// Longest content of one CRI line, in bytes.
        partial_bytes_max: usize,
    },
}

/// What a part of the output holds, by stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Whole lines of stdout and stderr.
    pub lines: [u64; 2],
    /// Bytes of their bodies.
    pub body_bytes: [u64; 2],
}

impl Tally {
    /// Adds one line.
    #[inline]
    pub fn add(&mut self, stream: Stream, body_bytes: usize) {
        self.lines[stream.index()] += 1;
        self.body_bytes[stream.index()] += body_bytes as u64;
    }

    /// Lines of both streams.
    pub fn lines_total(&self) -> u64 {
        self.lines[0] + self.lines[1]
    }

    /// Counts the whole lines in `output`, which begins at the start of a line and may end anywhere,
    /// as after a failed write.
    pub fn of_output(output: &[u8], framing: Framing) -> Self {
        let mut tally = Self::default();
        let mut parser = CriParser::default();
        let mut fragments_bytes = 0;
        for line in output.split_inclusive(|&byte| byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else { break };
            match framing {
                Framing::Raw => tally.add(Stream::Stdout, line.len()),
                Framing::Cri { .. } => {
                    let line = parser.parse(line).expect("the output was made here");
                    fragments_bytes += line.body.len();
                    if !line.is_partial() {
                        tally.add(line.stream, fragments_bytes);
                        fragments_bytes = 0;
                    }
                }
            }
        }
        tally
    }
}

/// The time that some lines share out among themselves, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// All lines are later than this.
    pub after: u64,
    /// The last line is at most this late.
    pub until: u64,
}

/// One stream of a container.
#[derive(Clone, Copy, Debug)]
struct Writer {
    id: u32,
    /// Sequence number of its next line.
    next: u64,
    /// Whether its last line was made.
    ended: bool,
}

/// What identifies a container's lines and decides their number.
#[derive(Clone, Copy, Debug)]
pub struct ContainerOptions {
    /// The run in all stamps.
    pub run: u32,
    /// Writer ids of stdout and stderr.
    pub writers: [u32; 2],
    /// Share of stderr, from 0 to 1.
    pub stderr_share: f64,
    /// How many lines it writes in all, if that is known.
    pub lines: Option<u64>,
    /// How they stand in the output.
    pub framing: Framing,
}

/// Makes the lines of one container.
#[derive(Debug)]
pub struct Container {
    run: u32,
    framing: Framing,
    bodies: LineMaker,
    writers: [Writer; 2],
    /// A line goes to stderr where 32 random bits lie below this: 0 never, 2^32 always.
    stderr_below: u64,
    /// Lines that are still to come, if that is known.
    owed: Option<u64>,
    /// Time of the last line; the next one is later.
    last_time: u64,
    time: TimeText,
    /// Spreads the times; apart from the texts' numbers, so that texts don't depend on batches.
    jitter: Prng,
}

impl Container {
    /// A container that has written nothing yet.
    pub fn new(options: &ContainerOptions, bodies: LineMaker) -> Self {
        let writer = |id| Writer { id, next: 0, ended: false };
        Self {
            run: options.run,
            framing: options.framing,
            bodies,
            writers: options.writers.map(writer),
            stderr_below: (options.stderr_share.clamp(0.0, 1.0) * 2_f64.powi(32)) as u64,
            owed: options.lines,
            last_time: 0,
            time: TimeText::default(),
            jitter: Prng::new(u64::from(options.run), u64::from(options.writers[0])),
        }
    }

    /// How its lines stand in the output.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Time of its last line, nanoseconds since the Unix epoch; zero before the first.
    pub fn last_time(&self) -> u64 {
        self.last_time
    }

    /// Appends up to `lines` lines to `out`, fewer when the buffer is full or none are owed. Returns
    /// how many. A known last line of a writer is stamped as its end.
    pub fn compose(
        &mut self,
        lines: u64,
        window: Window,
        out: &mut Buffer,
        tally: &mut Tally,
    ) -> u64 {
        let lines = self.owed.map_or(lines, |owed| lines.min(owed));
        let mut at = self.last_time.max(window.after) + 1;
        // Each line lies somewhere in its own share of the window; where the window is too short,
        // or already used, lines follow each other by a nanosecond.
        let share = window.until.saturating_sub(at) / lines.max(1);
        let spread = u32::try_from(share).unwrap_or(u32::MAX).max(1);
        for composed in 0..lines {
            if out.len() >= WRITE_BYTES_MAX {
                return composed;
            }
            let jitter = u64::from(self.jitter.below(spread));
            self.time_line((at + jitter).max(self.last_time + 1));
            let (stream, end) = self.next_stream();
            self.line(stream, end, out, tally);
            at += share.max(1);
        }
        lines
    }

    /// Appends one line, stamped as the end, for each writer that wrote some and did not end.
    pub fn compose_ends(&mut self, unix_nano: u64, out: &mut Buffer, tally: &mut Tally) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let writer = self.writers[stream.index()];
            if writer.next > 0 && !writer.ended {
                self.time_line(unix_nano.max(self.last_time + 1));
                self.line(stream, true, out, tally);
            }
        }
        self.owed = Some(0);
    }

    fn time_line(&mut self, unix_nano: u64) {
        debug_assert!(unix_nano > self.last_time);
        self.last_time = unix_nano;
        self.time.set(unix_nano);
    }

    /// The stream of the next line, and whether it is that stream's last. Where the number of lines
    /// is known, the last two are one of each stream that is in use.
    #[inline]
    fn next_stream(&mut self) -> (Stream, bool) {
        let both = self.stderr_below != 0 && self.stderr_below <= u64::from(u32::MAX);
        let by_chance = if !both {
            if self.stderr_below == 0 { Stream::Stdout } else { Stream::Stderr }
        } else if self.bodies.bits() >> 32 < self.stderr_below {
            Stream::Stderr
        } else {
            Stream::Stdout
        };
        let Some(owed) = &mut self.owed else { return (by_chance, false) };
        *owed -= 1;
        match (*owed, both) {
            (0, true) => (Stream::Stdout, true),
            (1, true) => (Stream::Stderr, true),
            (0, false) => (by_chance, true),
            _ => (by_chance, false),
        }
    }

    /// Appends one line of that stream at the time that is set.
    #[inline]
    fn line(&mut self, stream: Stream, end: bool, out: &mut Buffer, tally: &mut Tally) {
        let writer = &mut self.writers[stream.index()];
        debug_assert!(!writer.ended);
        let stamp = Stamp {
            run: self.run,
            writer: writer.id,
            sequence: writer.next,
            time_unix_nano: self.last_time,
            end,
        };
        writer.next += 1;
        writer.ended = end;
        out.reserve(HEADER_BYTES_MAX + self.bodies.reserve_bytes());
        let start = out.len();
        if self.framing != Framing::Raw {
            header(&self.time, FULL[stream.index()], out);
        }
        let body_start = out.len();
        self.bodies.write(&stamp, &self.time, out);
        let body_bytes = out.len() - body_start;
        tally.add(stream, body_bytes);
        if let Framing::Cri { partial_bytes_max } = self.framing
            && body_bytes > partial_bytes_max
        {
            self.split(start, body_start, stream, partial_bytes_max, out);
        }
        out.byte(b'\n');
    }

    /// Replaces the line from `start` by its fragments, all but the last newline, as containerd's
    /// `redirectLogs` cuts them: full ones as `P`, the rest, never empty, as `F`.
    #[cold]
    fn split(
        &mut self,
        start: usize,
        body_start: usize,
        stream: Stream,
        partial_bytes_max: usize,
        out: &mut Buffer,
    ) {
        let line = out.split_off(start);
        let body = &line[body_start - start..];
        let fragments = body.chunks(partial_bytes_max);
        out.reserve(body.len() + fragments.len() * HEADER_BYTES_MAX);
        let last = fragments.len() - 1;
        for (index, fragment) in fragments.enumerate() {
            let tags = if index == last { FULL } else { PARTIAL };
            header(&self.time, tags[stream.index()], out);
            out.slice(fragment);
            if index != last {
                out.byte(b'\n');
                self.time_line(self.last_time + FRAGMENT_NANOS);
            }
        }
        out.recycle(line);
    }
}

/// What follows the time in a header, by stream.
const FULL: [&[u8; 10]; 2] = [b" stdout F ", b" stderr F "];
const PARTIAL: [&[u8; 10]; 2] = [b" stdout P ", b" stderr P "];

/// Appends `TIME STREAM TAG `; the last two are one of [`FULL`] and [`PARTIAL`].
#[inline]
fn header(time: &TimeText, stream_and_tag: &[u8; 10], out: &mut Buffer) {
    time.cri(out);
    out.array(stream_and_tag);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::vocabulary::Vocabulary;
    use crate::line::{Kind, SizeRange};
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::Arc;

    /// 2024-02-29T23:59:50Z.
    const NOW: u64 = 1_709_251_190_000_000_000;

    fn container(framing: Framing, stderr_share: f64, lines: Option<u64>) -> Container {
        let options = ContainerOptions { run: 7, writers: [4, 5], stderr_share, lines, framing };
        let size = SizeRange::new(60, 400).unwrap();
        let vocabulary = Arc::new(Vocabulary::new(1));
        Container::new(&options, LineMaker::new(Kind::Random, Some(size), 1, 2, vocabulary))
    }

    /// Composes `lines` lines in batches and returns them in one.
    fn composed(container: &mut Container, mut lines: u64, batch: u64) -> (Vec<u8>, Tally) {
        let (mut out, mut tally) = (Buffer::default(), Tally::default());
        let (mut output, mut now) = (Vec::new(), NOW);
        while lines > 0 {
            now += 1_000_000;
            let window = Window { after: now - 1_000_000, until: now };
            lines -= container.compose(lines.min(batch), window, &mut out, &mut tally);
            output.extend_from_slice(out.written());
            out.clear();
        }
        (output, tally)
    }

    /// The oracle: joins fragments by stream, and checks each against what containerd writes.
    fn records(output: &[u8], partial_bytes_max: usize) -> Vec<(Stream, Vec<u8>)> {
        let mut parser = CriParser::default();
        let mut open: HashMap<Stream, Vec<u8>> = HashMap::new();
        let (mut records, mut last_time) = (Vec::new(), 0);
        for line in output.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n') {
            let line = parser.parse(line).unwrap();
            assert!(line.time_unix_nano > last_time, "times advance");
            last_time = line.time_unix_nano;
            let body = open.entry(line.stream).or_default();
            body.extend_from_slice(line.body);
            if line.is_partial() {
                assert_eq!(line.body.len(), partial_bytes_max);
            } else {
                assert!(!line.body.is_empty() && line.body.len() <= partial_bytes_max);
                records.push((line.stream, std::mem::take(body)));
            }
        }
        assert!(open.values().all(Vec::is_empty));
        records
    }

    proptest! {
        /// Scenario: any number of lines in batches of any size, some cut into fragments, some on
        /// stderr.
        /// Guarantees: joined again, each stream's stamps run from zero without a gap, the last line
        /// of each stream and no other is the end, sizes are as asked for, and the tally, also when
        /// counted from the output, is exact.
        #[test]
        fn every_line_is_there_once(
            lines in 1_u64..300, batch in 1_u64..70, partial_bytes_max in 9_usize..500,
            stderr_share in prop::sample::select(vec![0.0, 0.1, 0.5, 1.0]),
        ) {
            let framing = Framing::Cri { partial_bytes_max };
            let mut container = container(framing, stderr_share, Some(lines));
            let (output, tally) = composed(&mut container, lines, batch);
            let mut expected = Tally::default();
            let mut ended = [false; 2];
            for (stream, body) in records(&output, partial_bytes_max) {
                let stamp = Stamp::find(&body).unwrap();
                prop_assert!(!ended[stream.index()]);
                ended[stream.index()] = stamp.end;
                prop_assert_eq!(stamp.sequence, expected.lines[stream.index()]);
                prop_assert_eq!((stamp.run, stamp.writer), (7, 4 + stream.index() as u32));
                prop_assert!((60..=400).contains(&body.len()));
                expected.add(stream, body.len());
            }
            prop_assert_eq!(expected.lines_total(), lines);
            prop_assert_eq!(expected, tally);
            prop_assert_eq!(Tally::of_output(&output, framing), tally);
            for (lines, ended) in tally.lines.into_iter().zip(ended) {
                prop_assert_eq!(lines > 0, ended);
            }
        }

        /// Scenario: a write fails after any number of bytes.
        /// Guarantees: the lines counted are those whose last byte was written.
        #[test]
        fn a_torn_output_is_counted(cut: prop::sample::Index, partial_bytes_max in 20_usize..500) {
            let framing = Framing::Cri { partial_bytes_max };
            let (output, _) = composed(&mut container(framing, 0.5, Some(50)), 50, 64);
            let output = &output[..cut.index(output.len())];
            let whole = output.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let mut parser = CriParser::default();
            let full = output[..whole].split_inclusive(|&byte| byte == b'\n').filter(|line| {
                !parser.parse(line.strip_suffix(b"\n").unwrap()).unwrap().is_partial()
            });
            prop_assert_eq!(Tally::of_output(output, framing).lines_total(), full.count() as u64);
        }
    }

    /// Scenario: an endless container is stopped, twice.
    /// Guarantees: each stream that wrote gets one more line, stamped as its end, once.
    #[test]
    fn stopping_writes_one_end_a_stream() {
        for (stderr_share, ends) in [(0.0, [1, 0]), (0.5, [1, 1]), (1.0, [0, 1])] {
            let framing = Framing::Cri { partial_bytes_max: 16_384 };
            let mut container = container(framing, stderr_share, None);
            let mut untouched = self::container(framing, stderr_share, None);
            composed(&mut container, 100, 64);
            let (mut out, mut tally) = (Buffer::default(), Tally::default());
            for _ in 0..2 {
                container.compose_ends(NOW, &mut out, &mut tally);
                untouched.compose_ends(NOW, &mut out, &mut tally);
            }
            assert_eq!(tally.lines, ends);
            let records = records(out.written(), 16_384);
            assert!(records.iter().all(|(_, body)| Stamp::find(body).unwrap().end));
        }
    }

    /// Scenario: the same container composed in batches of different sizes, raw.
    /// Guarantees: the texts don't depend on the batches; only the times in the stamps do.
    #[test]
    fn texts_follow_from_the_seed() {
        let texts = |batch| {
            let (output, _) = composed(&mut container(Framing::Raw, 0.0, Some(200)), 200, batch);
            let lines = String::from_utf8(output).unwrap();
            let text = |line: &str| line.rsplit_once(" stamp=").unwrap().0.to_owned();
            lines.lines().map(text).collect::<Vec<_>>()
        };
        assert_eq!(texts(1), texts(64));
        assert_eq!(texts(64).len(), 200);
    }

    /// Scenario: a batch's window lies in the past of the last line, as when the clock steps back.
    /// Guarantees: times advance all the same.
    #[test]
    fn times_never_go_back() {
        let mut container = container(Framing::Cri { partial_bytes_max: 100 }, 0.0, None);
        let (mut out, mut tally) = (Buffer::default(), Tally::default());
        for until in [NOW, NOW - 5_000_000_000, NOW] {
            let window = Window { after: until - 1_000_000, until };
            assert_eq!(container.compose(10, window, &mut out, &mut tally), 10);
        }
        assert_eq!(records(out.written(), 100).len(), 30);
    }
}
