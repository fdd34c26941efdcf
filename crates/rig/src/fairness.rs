//! `rig fairness`: many quiet pods write alone at first, then beside one that floods. The quiet ones'
//! 99th percentile of latency is compared between the two: they must hardly feel the flood. Both are
//! measured in one run, so that the machine's own speed cancels out.

use crate::{
    bench::Bench,
    cli::FairnessOptions,
    collector::Latency,
    error::Result,
    generator::Task,
    interrupt::Interrupt,
    tree::Volume,
    verdict::{Figures, Verdict},
};
use serde::Serialize;
use std::time::{Duration, Instant};
use thyme_core::{
    quantity::{grouped, in_time, time},
    table::Row,
};

/// The runs in the stamps of the two groups.
const QUIET_RUN: u32 = 1;
const FLOOD_RUN: u32 = 2;

/// Files kept of the flood: none is deleted because the agent has fallen behind.
const FLOOD_FILES: u32 = 10_000;

/// What "as fast as possible" is taken for where the space on the disk is estimated, lines/s.
const FASTEST_RATE: u64 = 2_000_000;

/// What this scenario adds to the figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Details {
    /// Lines per second that the flood was to write; 0 for as many as possible.
    pub flood_rate: u64,
    /// Lines of the flood that were received while the quiet pods were measured beside it, per
    /// second.
    pub flood_lines_per_second: f64,
    /// Distinct lines of the flood that were received in all.
    pub flood_lines_received: u64,
    /// The quiet pods alone.
    pub alone: Phase,
    /// The quiet pods beside the flood.
    pub beside: Phase,
    /// Their p99 beside the flood over that alone.
    pub p99_ratio: f64,
    /// The most that it may be.
    pub p99_ratio_max: f64,
}

/// One of the two measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Phase {
    /// Lines of the quiet pods that were received.
    pub lines: u64,
    /// Their latency.
    pub latency_ms: Latency,
    /// The agent's processor time over the phase.
    pub agent_cores: f64,
}

impl Details {
    /// This scenario's rows of the table.
    pub fn rows(&self) -> Vec<Row> {
        let row = |name, phase: &Phase| match phase.lines {
            0 => Row::words(name, "nothing was received"),
            lines => {
                let Latency { p50, p99, max, .. } = phase.latency_ms;
                Row::figure(name, in_time(p99)).note(format!(
                    "p50 {}, max {}, over {} lines; agent {:.3} cores",
                    time(p50),
                    time(max),
                    grouped(lines),
                    phase.agent_cores
                ))
            }
        };
        let asked = match self.flood_rate {
            0 => "written as fast as possible".to_owned(),
            rate => format!("of {} asked for", grouped(rate)),
        };
        let received = (grouped(self.flood_lines_per_second as u64), "lines/s");
        let ratio = match self.p99_ratio.is_finite() {
            true => Row::figure("p99 ratio", (format!("{:.2}", self.p99_ratio), ""))
                .note(format!("at most {:.1}", self.p99_ratio_max)),
            false => Row::words("p99 ratio", "nothing was measured"),
        };
        vec![
            row("quiet p99, alone", &self.alone),
            row("quiet p99, beside", &self.beside),
            Row::figure("flood received", received).note(asked),
            ratio,
        ]
    }

    fn judge(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.alone.lines == 0 || self.beside.lines == 0 {
            failures.push("no line of the quiet pods was received in a phase".to_owned());
        }
        if self.flood_lines_received == 0 {
            failures.push("there was no flood".to_owned());
        }
        // A ratio that is no number is no pass.
        if self.p99_ratio.is_nan() || self.p99_ratio > self.p99_ratio_max {
            failures.push(format!(
                "the quiet pods' p99 beside the flood is {:.2} times that alone, {:.1} are allowed",
                self.p99_ratio, self.p99_ratio_max
            ));
        }
        failures
    }
}

/// Runs the scenario.
pub fn fairness(options: &FairnessOptions, interrupt: &Interrupt) -> Result<Verdict<Details>> {
    let load = &options.load;
    let mut bench = Bench::start(load, disk_bytes_max(options), None, interrupt)?;
    let mut quiet = Task::new(load, None);
    quiet.run = Some(QUIET_RUN);
    bench.start_task(&quiet)?;
    bench.begin("warm-up", options.warm_up);
    bench.watch(options.warm_up, |_| Ok(false))?;

    let start = Mark::take(&mut bench)?;
    bench.begin("alone", options.duration);
    bench.watch(options.duration, |_| Ok(false))?;
    let between = Mark::take(&mut bench)?;
    bench.start_task(&flood_task(options))?;
    bench.begin("beside the flood", options.duration);
    bench.watch(options.duration, |_| Ok(false))?;
    let end = Mark::take(&mut bench)?;

    let phase = bench.stop_load()?;
    let finish = bench.finish(phase)?;
    let figures = Figures::new("fairness", load, &finish);
    let (alone, beside) = (start.phase_until(&between), between.phase_until(&end));
    let flood = end.flood_received - between.flood_received;
    let in_all = finish.report.runs.iter().find(|run| run.run == FLOOD_RUN);
    let details = Details {
        flood_rate: options.flood_rate,
        flood_lines_per_second: flood as f64 / (end.at - between.at).as_secs_f64(),
        flood_lines_received: in_all.map_or(0, |run| run.received),
        p99_ratio: beside.latency_ms.p99 / alone.latency_ms.p99,
        p99_ratio_max: options.ratio_max,
        alone,
        beside,
    };
    let mut failures = figures.judge(Some(0));
    failures.extend(details.judge());
    Ok(Verdict { figures, details, failures })
}

fn flood_task(options: &FairnessOptions) -> Task {
    let mut task = Task::new(&options.load, None);
    task.name = "flood";
    task.run = Some(FLOOD_RUN);
    // Another seed is other pods.
    task.seed = task.seed.map(|seed| seed.wrapping_add(1));
    task.pods = 1;
    task.rate = options.flood_rate;
    task.rotate_files = task.rotate_files.max(FLOOD_FILES);
    task
}

fn disk_bytes_max(options: &FairnessOptions) -> u64 {
    let load = &options.load;
    let quiet = load.disk_bytes_max(options.duration * 2 + options.warm_up);
    let rate = if options.flood_rate == 0 { FASTEST_RATE } else { options.flood_rate };
    let flood =
        Volume { rate, pods: 1, files: FLOOD_FILES.into(), ..load.volume(options.duration) };
    quiet.saturating_add(flood.disk_bytes_max())
}

/// What was known at one moment.
struct Mark {
    at: Instant,
    agent_cpu_seconds: f64,
    /// Latencies of the quiet pods so far: microseconds and count, ascending.
    quiet_us_counts: Vec<(u64, u64)>,
    flood_received: u64,
}

impl Mark {
    fn take(bench: &mut Bench<'_>) -> Result<Self> {
        let runs = bench.report_with_runs()?.runs;
        let of = |number| runs.iter().find(|run| run.run == number);
        Ok(Self {
            at: Instant::now(),
            agent_cpu_seconds: bench.agent_usage().cpu_seconds,
            quiet_us_counts: of(QUIET_RUN).map_or_else(Vec::new, |r| r.latency_us_counts.clone()),
            flood_received: of(FLOOD_RUN).map_or(0, |run| run.received),
        })
    }

    /// What came between this moment and a later one.
    fn phase_until(&self, later: &Self) -> Phase {
        let came = added(&self.quiet_us_counts, &later.quiet_us_counts);
        let seconds = (later.at - self.at).max(Duration::from_millis(1)).as_secs_f64();
        Phase {
            lines: came.iter().map(|(_, count)| count).sum(),
            latency_ms: latency_of(&came),
            agent_cores: (later.agent_cpu_seconds - self.agent_cpu_seconds) / seconds,
        }
    }
}

/// What a distribution has gained; both ascend.
fn added(before: &[(u64, u64)], after: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut before = before.iter().peekable();
    let gained = after.iter().map(|&(value, count)| {
        while before.next_if(|(earlier, _)| *earlier < value).is_some() {}
        let had = before.next_if(|(earlier, _)| *earlier == value).map_or(0, |(_, count)| *count);
        (value, count.saturating_sub(had))
    });
    gained.filter(|(_, count)| *count > 0).collect()
}

/// Quantiles of a distribution; zeros for an empty one.
fn latency_of(us_counts: &[(u64, u64)]) -> Latency {
    let total: u64 = us_counts.iter().map(|(_, count)| count).sum();
    let at = |quantile: f64| {
        let rank = ((total as f64 * quantile).ceil() as u64).max(1);
        let mut below = 0;
        let found = us_counts.iter().find(|(_, count)| {
            below += count;
            below >= rank
        });
        found.map_or(0.0, |(us, _)| *us as f64 / 1_000.0)
    };
    Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a distribution that has gained counts at old values and at new ones.
    /// Guarantees: only what was gained is left, and its quantiles are those of its values in order.
    #[test]
    fn a_phase_is_what_was_gained() {
        let before = [(10, 5), (20, 7), (40, 1)];
        let after = [(10, 5), (15, 98), (20, 8), (40, 2), (50, 1)];
        let gained = added(&before, &after);
        assert_eq!(gained, [(15, 98), (20, 1), (40, 1), (50, 1)]);
        let us = |latency: Latency| {
            [latency.p50, latency.p90, latency.p99, latency.max].map(|ms| (ms * 1_000.0) as u64)
        };
        assert_eq!(us(latency_of(&gained)), [15, 15, 40, 50]);
        assert_eq!(us(latency_of(&added(&after, &after))), [0; 4]);
    }

    /// Scenario: a ratio within the limit, one above, a phase without lines, no flood.
    /// Guarantees: only the first passes.
    #[test]
    fn only_a_real_measurement_within_the_limit_passes() {
        let phase = Phase { lines: 1_000, ..Phase::default() };
        let good = Details {
            flood_lines_received: 1,
            alone: phase,
            beside: phase,
            p99_ratio: 1.9,
            p99_ratio_max: 2.0,
            ..Details::default()
        };
        assert!(good.judge().is_empty());
        for bad in [
            Details { p99_ratio: 2.1, ..good.clone() },
            Details { p99_ratio: f64::NAN, ..good.clone() },
            Details { alone: Phase::default(), ..good.clone() },
            Details { flood_lines_received: 0, ..good },
        ] {
            assert_eq!(bad.judge().len(), 1, "{bad:?}");
        }
    }
}
