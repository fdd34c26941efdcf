//! The generator's own numbers: plain atomics that the threads add to, and one table that both the
//! Prometheus text and the OTLP push are made from.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub mod push;

/// Counters of one run.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Lines written.
    pub lines: AtomicU64,
    /// Bytes of their bodies.
    pub body_bytes: AtomicU64,
    /// Lines that were due and not written when the writer last looked.
    pub late_lines: AtomicU64,
    /// The most that `late_lines` ever was.
    pub late_lines_max: AtomicU64,
    /// Writes that failed.
    pub write_errors: AtomicU64,
    /// Log files that were rotated.
    pub rotations: AtomicU64,
    /// Archives that were compressed.
    pub archives_compressed: AtomicU64,
    /// Archives that were removed because there were too many.
    pub archives_removed: AtomicU64,
    /// Steps of a rotation that failed; they are tried again at the next check.
    pub rotation_errors: AtomicU64,
    rotation_error: Mutex<Option<String>>,
    /// Lines a second that were asked for; 0 means as many as possible.
    pub rate: AtomicU64,
    started: OnceLock<Instant>,
    /// How long the writing took, nanoseconds; 0 while it lasts.
    took_nanos: AtomicU64,
}

impl Metrics {
    /// Marks the start of the writing.
    pub fn start(&self, now: Instant) {
        self.started.get_or_init(|| now);
    }

    /// Marks the end of the writing.
    pub fn finish(&self) {
        let took = self.started.get().map_or(1, |started| started.elapsed().as_nanos() as u64);
        self.took_nanos.store(took.max(1), Ordering::Relaxed);
    }

    /// Whether lines are being written.
    pub fn is_writing(&self) -> bool {
        self.started.get().is_some() && self.took_nanos.load(Ordering::Relaxed) == 0
    }

    /// How long lines were, or have been, written.
    pub fn elapsed(&self) -> Duration {
        match self.took_nanos.load(Ordering::Relaxed) {
            0 => self.started.get().map_or(Duration::ZERO, Instant::elapsed),
            nanos => Duration::from_nanos(nanos),
        }
    }

    /// Lines a second over that time.
    pub fn rate_achieved(&self) -> f64 {
        let seconds = self.elapsed().as_secs_f64();
        if seconds == 0.0 { 0.0 } else { count(&self.lines) / seconds }
    }

    /// Notes how many lines are late.
    pub fn note_late(&self, lines: u64) {
        self.late_lines.store(lines, Ordering::Relaxed);
        self.late_lines_max.fetch_max(lines, Ordering::Relaxed);
    }

    /// Counts a step of a rotation that failed, and keeps what the system said.
    pub fn note_rotation_error(&self, log: &Path, error: &io::Error) {
        add(&self.rotation_errors, 1);
        let text = format!("{}: {error}", log.display());
        *self.rotation_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// The last of those failures.
    pub fn rotation_error(&self) -> Option<String> {
        self.rotation_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All metrics in Prometheus' text format.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for metric in &METRICS {
            let Metric { prometheus, help, kind, read, .. } = metric;
            let kind = match kind {
                Instrument::Counter => "counter",
                Instrument::Gauge => "gauge",
            };
            let value = read(self);
            writeln!(
                text,
                "# HELP {prometheus} {help}\n# TYPE {prometheus} {kind}\n{prometheus} {value}"
            )
            .expect("writing to memory succeeds");
        }
        text
    }
}

/// Adds to a counter that no order depends on.
pub fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

fn count(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instrument {
    Counter,
    Gauge,
}

/// One metric: its names, its meaning and where its value is.
struct Metric {
    prometheus: &'static str,
    otlp: &'static str,
    /// UCUM unit, for OTLP; the Prometheus name carries it in words.
    unit: &'static str,
    help: &'static str,
    kind: Instrument,
    read: fn(&Metrics) -> f64,
}

macro_rules! metric {
    ($kind:ident $prometheus:literal $otlp:literal $unit:literal $help:literal $read:expr) => {
        Metric {
            prometheus: $prometheus,
            otlp: $otlp,
            unit: $unit,
            help: $help,
            kind: Instrument::$kind,
            read: $read,
        }
    };
}

#[rustfmt::skip]
static METRICS: [Metric; 12] = [
    metric!(Counter "log_generator_lines_total" "log_generator.lines" "{line}"
        "Lines written." |metrics| count(&metrics.lines)),
    metric!(Counter "log_generator_body_bytes_total" "log_generator.body" "By"
        "Bytes of the bodies of the lines written." |metrics| count(&metrics.body_bytes)),
    metric!(Gauge "log_generator_late_lines" "log_generator.late_lines" "{line}"
        "Lines that are due and not written yet." |metrics| count(&metrics.late_lines)),
    metric!(Gauge "log_generator_target_lines_per_second" "log_generator.target" "{line}/s"
        "Lines a second asked for; 0 means as many as possible." |metrics| count(&metrics.rate)),
    metric!(Gauge "log_generator_achieved_lines_per_second" "log_generator.achieved" "{line}/s"
        "Lines a second since the start." Metrics::rate_achieved),
    metric!(Gauge "log_generator_elapsed_seconds" "log_generator.elapsed" "s"
        "How long lines have been written." |metrics| metrics.elapsed().as_secs_f64()),
    metric!(Gauge "log_generator_writing" "log_generator.writing" "1"
        "1 while lines are written, 0 before and after." |metrics| f64::from(u8::from(metrics.is_writing()))),
    metric!(Counter "log_generator_write_errors_total" "log_generator.write_errors" "{error}"
        "Writes that failed." |metrics| count(&metrics.write_errors)),
    metric!(Counter "log_generator_rotations_total" "log_generator.rotations" "{rotation}"
        "Log files rotated." |metrics| count(&metrics.rotations)),
    metric!(Counter "log_generator_archives_compressed_total" "log_generator.archives_compressed" "{file}"
        "Rotated files compressed." |metrics| count(&metrics.archives_compressed)),
    metric!(Counter "log_generator_archives_removed_total" "log_generator.archives_removed" "{file}"
        "Rotated files removed because there were too many." |metrics| count(&metrics.archives_removed)),
    metric!(Counter "log_generator_rotation_errors_total" "log_generator.rotation_errors" "{error}"
        "Steps of a rotation that failed." |metrics| count(&metrics.rotation_errors)),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: some lines were counted.
    /// Guarantees: the text is Prometheus' format, all names have the prefix and differ.
    #[test]
    fn prometheus_text() {
        let metrics = Metrics::default();
        add(&metrics.lines, 1_234_567);
        metrics.note_late(5);
        metrics.note_late(3);
        let text = metrics.to_prometheus();
        assert!(text.contains(
            "# HELP log_generator_lines_total Lines written.\n\
             # TYPE log_generator_lines_total counter\n\
             log_generator_lines_total 1234567\n"
        ));
        assert!(text.contains("\nlog_generator_late_lines 3\n"));
        assert_eq!(metrics.late_lines_max.load(Ordering::Relaxed), 5);
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.prometheus).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        assert!(names.iter().all(|name| name.starts_with("log_generator_")));
    }
}
