//! The live line: rewritten in place on a terminal, a plain line every few seconds elsewhere. It
//! goes to standard error, so that standard output holds the table alone.

use crate::{generator::Written, limits::PLAIN_LINE_INTERVAL, usage::Usage};
use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::Instant,
};

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

/// Shows samples.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    previous: Option<Sample>,
    is_terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    /// Begins now.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            previous: None,
            is_terminal: io::stderr().is_terminal(),
            shown: None,
        }
    }

    /// Shows a sample, if it is time to.
    pub fn show(&mut self, sample: Sample, phase: &str) {
        let due = self.is_terminal
            || self.shown.is_none_or(|shown| sample.at - shown >= PLAIN_LINE_INTERVAL);
        if due {
            let line = line(self.started, self.previous.unwrap_or(sample), sample, phase);
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

fn line(started: Instant, before: Sample, now: Sample, phase: &str) -> String {
    let seconds = (now.at - before.at).as_secs_f64();
    let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
    let rate = per_second(now.received.saturating_sub(before.received) as f64);
    let cores = per_second(now.agent.cpu_seconds - before.agent.cpu_seconds);
    format!(
        "{:>5.1} s {phase}: written {} received {} lag {} | {} lines/s | agent {cores:.2} cores {} MiB",
        (now.at - started).as_secs_f64(),
        grouped(now.written.lines),
        grouped(now.received),
        grouped(now.written.lines.saturating_sub(now.received)),
        grouped(rate as u64),
        now.agent.rss_bytes >> 20,
    )
}

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Scenario: numbers around the groups' borders.
    /// Guarantees: a comma before each full group of three, none at the front.
    #[test]
    fn digits_are_grouped() {
        let cases =
            [(0, "0"), (999, "999"), (1000, "1,000"), (50_000, "50,000"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    /// Scenario: two samples, two seconds apart.
    /// Guarantees: the line shows sums, lag, and rates over the time between the two.
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
        let shown = line(started, before, now, "load");
        let expected = "  3.0 s load: written 150,000 received 140,000 lag 10,000 | 50,000 lines/s \
                        | agent 0.50 cores 30 MiB";
        assert_eq!(shown, expected);
    }
}
