//! The live line: rewritten in place on a terminal, a plain line every few seconds elsewhere. It
//! goes to standard error, so that standard output holds the table alone.

use crate::{
    generator::Written,
    limits::{PLAIN_LINE_INTERVAL, START_MAX},
    usage::Usage,
};
use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};
use thyme_core::quantity::grouped;

/// One look at everything.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Lines that the generator has written.
    pub written: Written,
    /// Distinct lines that the collector has received.
    pub received: u64,
    /// What the agent has used so far.
    pub agent: Usage,
}

/// A part of a run: what it is called, when it began and how long it may take.
#[derive(Clone, Copy, Debug)]
struct Phase {
    name: &'static str,
    started: Instant,
    length: Duration,
}

/// Shows samples.
#[derive(Debug)]
pub struct Progress {
    phase: Phase,
    previous: Option<Sample>,
    is_terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    /// Begins now.
    pub fn start() -> Self {
        Self {
            phase: Phase { name: "start", started: Instant::now(), length: START_MAX },
            previous: None,
            is_terminal: io::stderr().is_terminal(),
            shown: None,
        }
    }

    /// The next part of the run begins now, and takes so long or at most so long.
    pub fn begin(&mut self, name: &'static str, length: Duration) {
        self.phase = Phase { name, started: Instant::now(), length };
    }

    /// Shows a sample, if it is time to.
    pub fn show(&mut self, sample: Sample) {
        let due = self.is_terminal
            || self.shown.is_none_or(|shown| sample.at - shown >= PLAIN_LINE_INTERVAL);
        if due {
            let line = line(self.phase, self.previous.unwrap_or(sample), sample);
            self.write(&line);
            self.shown = Some(sample.at);
            self.previous = Some(sample);
        }
    }

    /// Says something that stays.
    pub fn note(&mut self, text: fmt::Arguments<'_>) {
        self.clear();
        // Progress is a courtesy: a closed standard error must not end the run.
        let _result = writeln!(io::stderr().lock(), "{text}");
    }

    /// Removes the live line.
    pub fn clear(&mut self) {
        if self.is_terminal && self.shown.take().is_some() {
            let _result = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }

    fn write(&self, line: &str) {
        let mut err = io::stderr().lock();
        // Line wrap is off meanwhile: a narrow terminal cuts the line instead of scrolling.
        let _result = if self.is_terminal {
            write!(err, "\r\x1b[?7l{line}\x1b[K\x1b[?7h").and_then(|()| err.flush())
        } else {
            writeln!(err, "{line}")
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(phase: Phase, before: Sample, now: Sample) -> String {
    let seconds = (now.at - before.at).as_secs_f64();
    let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
    let rate = per_second(now.received.saturating_sub(before.received) as f64);
    let cores = per_second(now.agent.cpu_seconds - before.agent.cpu_seconds);
    format!(
        "{} {}/{} s: written {}, received {}, lag {} | {} lines/s | agent {cores:.2} cores, {} MiB",
        phase.name,
        now.at.saturating_duration_since(phase.started).as_secs(),
        phase.length.as_secs_f64().ceil(),
        grouped(now.written.lines),
        grouped(now.received),
        grouped(now.written.lines.saturating_sub(now.received)),
        grouped(rate as u64),
        now.agent.rss_bytes >> 20,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: two samples, two seconds apart.
    /// Guarantees: the line shows how far the phase is, sums, lag, and rates over the time between.
    #[test]
    fn the_line_shows_rates_between_samples() {
        let started = Instant::now();
        let sample = |seconds, lines, received, cpu_seconds| Sample {
            at: started + Duration::from_secs(seconds),
            written: Written { lines, bytes: 0 },
            received,
            agent: Usage { cpu_seconds, rss_bytes: 30 << 20, rss_peak_bytes: 0 },
        };
        let (before, now) = (sample(1, 50_000, 40_000, 1.0), sample(3, 150_000, 140_000, 2.0));
        let phase = Phase { name: "load", started, length: Duration::from_millis(29_500) };
        let shown = line(phase, before, now);
        let expected = "load 3/30 s: written 150,000, received 140,000, lag 10,000 | 50,000 lines/s \
                        | agent 0.50 cores, 30 MiB";
        assert_eq!(shown, expected);
    }
}
