//! The writer: the one thread that makes lines and writes them, container by container, as many as
//! are due. Decides neither what lines look like nor where they go, and reads the only clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::container::{Container, Tally, Window};
use crate::limits::{CLOCK_LINES_MAX, PASS_LINES_MAX, STAMP_AGE_NANOS_MAX, WRITE_BYTES_MAX};
use crate::line::buffer::Buffer;
use crate::manifest::Manifest;
use crate::metrics::{Metrics, add};
use crate::rate::{Pace, share};
use crate::sink::{Sink, WriteError};

/// What the writer shares with the rest of the process.
#[derive(Debug)]
pub struct Shared {
    /// What was written.
    pub manifest: Manifest,
    /// How it went.
    pub metrics: Arc<Metrics>,
    stop: AtomicU8,
}

/// Who ended the writing before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `POST /stop`: the process stays.
    Asked,
    /// A signal: the process ends.
    Signal,
}

impl Shared {
    /// State of a run that hasn't begun.
    pub fn new(manifest: Manifest) -> Self {
        Self { manifest, metrics: Arc::default(), stop: AtomicU8::new(0) }
    }

    /// Has the writer write its last lines and end.
    pub fn stop(&self, stop: Stop) {
        let value = match stop {
            Stop::Asked => 1,
            Stop::Signal => 2,
        };
        self.stop.fetch_max(value, Ordering::AcqRel);
    }

    /// Who has stopped the writer, a signal before anybody else.
    pub fn stopped(&self) -> Option<Stop> {
        match self.stop.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Stop::Asked),
            _ => Some(Stop::Signal),
        }
    }
}

/// Why the writing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All lines were written: `--lines`, or the rate times the duration.
    Complete,
    /// The time was over, with lines still due or without a rate.
    Duration,
    /// `POST /stop`.
    Stopped,
    /// SIGTERM or SIGINT.
    Signal,
    /// Who reads the stdout has closed it.
    Closed,
    /// A write failed.
    Error,
}

/// How the writing ended.
#[derive(Debug)]
pub struct Outcome {
    /// Why.
    pub end: End,
    /// The write that failed.
    pub error: Option<WriteError>,
}

/// A container with its output.
#[derive(Debug)]
pub struct Output {
    /// Makes the lines.
    pub container: Container,
    /// Takes them.
    pub sink: Sink,
}

/// Makes lines and writes them, a container at a time, and counts them.
#[derive(Debug)]
pub struct LineWriter {
    shared: Arc<Shared>,
    /// Lines written so far.
    written: u64,
    /// One buffer for all: a container's lines are written before those of the next are made.
    buffer: Buffer,
}

impl LineWriter {
    /// A writer that has written nothing.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, written: 0, buffer: Buffer::default() }
    }

    /// What is shared with the rest of the process.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Why to end, if somebody has stopped the writing.
    pub fn stopped(&self) -> Option<End> {
        self.shared.stopped().map(|stop| match stop {
            Stop::Asked => End::Stopped,
            Stop::Signal => End::Signal,
        })
    }

    /// Writes lines of the container with that index in the manifest.
    ///
    /// # Errors
    /// The write that failed; what was written before is counted.
    pub fn write_lines(
        &mut self,
        index: usize,
        output: &mut Output,
        mut lines: u64,
    ) -> Result<(), WriteError> {
        while lines > 0 && self.shared.stopped().is_none() {
            let mut tally = Tally::default();
            self.buffer.clear();
            while lines > 0 && self.buffer.len() < WRITE_BYTES_MAX {
                let now = unix_nano();
                // Never in the future, and hardly in the past.
                let window = Window { after: now.saturating_sub(STAMP_AGE_NANOS_MAX), until: now };
                let some = lines.min(CLOCK_LINES_MAX);
                let composed = output.container.compose(some, window, &mut self.buffer, &mut tally);
                assert!(composed > 0, "lines are dealt out as they are owed");
                lines -= composed;
            }
            self.write_buffer(index, output, &tally)?;
        }
        Ok(())
    }

    /// Writes a last line for each writer of the container that wrote some and did not end.
    ///
    /// # Errors
    /// The write that failed.
    pub fn write_ends(&mut self, index: usize, output: &mut Output) -> Result<(), WriteError> {
        let mut tally = Tally::default();
        self.buffer.clear();
        output.container.compose_ends(unix_nano(), &mut self.buffer, &mut tally);
        self.write_buffer(index, output, &tally)
    }

    /// Ends the writing.
    pub fn outcome(&self, ended: Result<End, WriteError>) -> Outcome {
        self.shared.metrics.finish();
        match ended {
            Ok(end) => Outcome { end, error: None },
            Err(error) if error.source.kind() == std::io::ErrorKind::BrokenPipe => {
                Outcome { end: End::Closed, error: None }
            }
            Err(error) => {
                add(&self.shared.metrics.write_errors, 1);
                Outcome { end: End::Error, error: Some(error) }
            }
        }
    }

    /// Writes the buffer and counts what was written of it, also when the write fails midway.
    fn write_buffer(
        &mut self,
        index: usize,
        output: &mut Output,
        tally: &Tally,
    ) -> Result<(), WriteError> {
        let Output { container, sink } = output;
        let result = sink.write(self.buffer.written());
        let tally = match &result {
            Ok(()) => *tally,
            Err(error) => {
                let written = &self.buffer.written()[..error.written];
                Tally::of_output(written, container.framing())
            }
        };
        self.written += tally.lines_total();
        self.shared.manifest.add(index, &tally);
        add(&self.shared.metrics.lines, tally.lines_total());
        add(&self.shared.metrics.body_bytes, tally.body_bytes[0] + tally.body_bytes[1]);
        result
    }
}

/// Writes the lines of containers that are all there from the beginning to the end.
#[derive(Debug)]
pub struct Generator {
    outputs: Vec<Output>,
    pace: Pace,
    writer: LineWriter,
    /// The container whose turn it is.
    first: u64,
}

impl Generator {
    /// A writer of these outputs, whose indices are the manifest's.
    pub fn new(outputs: Vec<Output>, pace: Pace, shared: Arc<Shared>) -> Self {
        assert!(!outputs.is_empty(), "there is a container to write for");
        Self { outputs, pace, writer: LineWriter::new(shared), first: 0 }
    }

    /// Writes until all is written, the time is over, or somebody stops it.
    pub fn run(mut self) -> Outcome {
        self.writer.shared.metrics.start(Instant::now());
        let ended = self.write_until_end().and_then(|end| {
            if end != End::Complete {
                for (index, output) in self.outputs.iter_mut().enumerate() {
                    self.writer.write_ends(index, output)?;
                }
            }
            Ok(end)
        });
        self.writer.outcome(ended)
    }

    fn write_until_end(&mut self) -> Result<End, WriteError> {
        let start = Instant::now();
        loop {
            let elapsed = start.elapsed();
            if let Some(end) = self.writer.stopped() {
                return Ok(end);
            }
            let written = self.writer.written;
            if self.pace.is_complete(written) {
                return Ok(End::Complete);
            }
            if self.pace.is_over(elapsed) {
                return Ok(End::Duration);
            }
            self.outputs.iter_mut().try_for_each(|output| output.sink.reopen_if_asked())?;
            let due = self.pace.due(elapsed) - written;
            let lines = due.min(PASS_LINES_MAX * self.outputs.len() as u64);
            self.writer.shared.metrics.note_late(self.pace.late(elapsed, written));
            self.pass(lines)?;
            let written = self.writer.written;
            if lines == due && !self.pace.is_complete(written) {
                let wait = self.pace.wait(elapsed, written);
                thread::sleep(wait.saturating_sub(start.elapsed() - elapsed));
            }
        }
    }

    /// Writes that many lines, dealt out to the containers one after the other.
    fn pass(&mut self, lines: u64) -> Result<(), WriteError> {
        let containers = self.outputs.len() as u64;
        for (index, output) in self.outputs.iter_mut().enumerate() {
            let lines = share(lines, containers, self.first, index as u64);
            self.writer.write_lines(index, output, lines)?;
        }
        self.first = (self.first + lines) % containers;
        Ok(())
    }
}

fn unix_nano() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as u64)
}
