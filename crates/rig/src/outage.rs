//! `rig outage`: the sink goes away (it stands still, or refuses connections) while lines are written
//! and rotated, and comes back later. The kubelet's part removes archives meanwhile as it always
//! does. Nothing may be lost, not even if the agent is killed in the middle, and its memory must stay
//! flat: the files are the buffer, and its disk for what is removed. What was in flight may come twice.

use crate::{
    bench::Bench,
    cli::OutageOptions,
    error::{Error, Result},
    interrupt::Interrupt,
    limits::SAMPLE_INTERVAL,
    verdict::{Figures, Verdict},
};
use serde::Serialize;
use std::time::{Duration, Instant};
use thyme_core::{
    quantity::{in_bytes, size},
    table::Row,
};

/// The requests in flight may fill up after the sink has stopped: the agent's budget of 16 MiB, as
/// much again for what is read and compressed, and slack.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// Between two kills in the outage, where it is long enough.
const KILL_GAP_MAX: Duration = Duration::from_secs(2);

/// By then everything that may fill up is full; from then on memory must not grow.
const FILL_SHARE: f64 = 0.5;

/// Growth from the first to the second half of the outage that still counts as flat.
const FLAT_BYTES_MAX: u64 = 8 << 20;

/// What this scenario adds to the figures.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Details {
    /// `freeze` or `refuse`.
    pub outage_mode: &'static str,
    /// Length of the outage.
    pub outage_seconds: f64,
    /// How often the agent was killed in it, before the two halves below.
    pub kills: u32,
    /// Largest memory before the outage.
    pub rss_before_bytes: u64,
    /// Largest memory in the outage's first half.
    pub rss_first_half_bytes: u64,
    /// Largest memory in its second half.
    pub rss_second_half_bytes: u64,
    /// Largest memory while catching up, and after.
    pub rss_after_bytes: u64,
}

impl Details {
    /// This scenario's rows of the table.
    pub fn rows(&self) -> Vec<Row> {
        let rss = |name, bytes| Row::figure(name, in_bytes(bytes));
        vec![
            Row::figure("outage", (format!("{:.1}", self.outage_seconds), "s"))
                .note(format!("{}, agent killed {} times in it", self.outage_mode, self.kills)),
            rss("RSS before", self.rss_before_bytes),
            rss("RSS in it", self.rss_first_half_bytes).note(format!(
                "at most, in the first half{}",
                if self.kills > 0 { " after the kills" } else { "" }
            )),
            rss("RSS then", self.rss_second_half_bytes).note("at most, in the second half"),
            rss("RSS after", self.rss_after_bytes),
        ]
    }

    fn judge(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let in_outage = self.rss_first_half_bytes.max(self.rss_second_half_bytes);
        let growth = in_outage.saturating_sub(self.rss_before_bytes);
        if growth > GROWTH_BYTES_MAX {
            failures.push(format!("memory grew by {} in the outage", size(growth)));
        }
        let slope = self.rss_second_half_bytes.saturating_sub(self.rss_first_half_bytes);
        if slope > FLAT_BYTES_MAX {
            let slope = size(slope);
            failures.push(format!("memory still grew by {slope} in the outage's second half"));
        }
        failures
    }
}

/// Runs the scenario.
pub fn outage(options: &OutageOptions, interrupt: &Interrupt) -> Result<Verdict<Details>> {
    let load = &options.load;
    let duration = options.outage + options.around * 2;
    let disk_bytes_max = load.disk_bytes_max(duration);
    let mut bench = Bench::start(load, disk_bytes_max, Some(options.mode), interrupt)?;
    bench.start_load(None)?;

    bench.begin("before the outage", options.around);
    let rss_before_bytes = watch_rss(&mut bench, options.around)?;
    bench.note(format_args!("the sink goes away for {:?}", options.outage));
    bench.begin("outage", options.outage);
    let stopped = Instant::now();
    bench.sink_leaves()?;
    // A killed agent begins with fresh memory: what it comes to is looked at after the last kill.
    let kill_gap = kill_gap(options);
    let to_kills = if options.kills > 0 { options.outage / 4 } else { Duration::ZERO };
    watch_rss(&mut bench, to_kills)?;
    for kill in 1..=options.kills {
        bench.kill_agent()?;
        bench.note(format_args!("kill {kill} of {}", options.kills));
        watch_rss(&mut bench, kill_gap)?;
    }
    let left = options.outage.saturating_sub(stopped.elapsed());
    let first_half = left.mul_f64(FILL_SHARE);
    let rss_first_half_bytes = watch_rss(&mut bench, first_half)?;
    let rss_second_half_bytes = watch_rss(&mut bench, left - first_half)?;
    bench.sink_comes_back()?;
    let outage_seconds = stopped.elapsed().as_secs_f64();
    bench.note(format_args!("the sink is back"));
    bench.begin("after the outage", options.around);
    let rss_after_bytes = watch_rss(&mut bench, options.around)?;

    let phase = bench.stop_load()?;
    let finish = bench.finish(phase)?;
    let figures = Figures::new("outage", &options.load, &finish);
    let details = Details {
        outage_mode: options.mode.name(),
        outage_seconds,
        kills: options.kills,
        rss_before_bytes,
        rss_first_half_bytes,
        rss_second_half_bytes,
        rss_after_bytes,
    };
    let mut failures = figures.judge(None);
    failures.extend(details.judge());
    Ok(Verdict { figures, details, failures })
}

/// The time between two kills: all of them are in the outage's second quarter.
fn kill_gap(options: &OutageOptions) -> Duration {
    KILL_GAP_MAX.min(options.outage / 4 / options.kills.max(1))
}

/// Watches for a while; returns the agent's largest memory meanwhile.
fn watch_rss(bench: &mut Bench<'_>, duration: Duration) -> Result<u64> {
    let mut largest = 0;
    let mut next = Instant::now();
    bench.watch(duration, |bench| {
        if Instant::now() >= next {
            largest = largest.max(bench.agent_usage().rss_bytes);
            next += SAMPLE_INTERVAL;
        }
        Ok::<bool, Error>(false)
    })?;
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: memory that fills its budget and stays, that leaps, and that creeps.
    /// Guarantees: only the first counts as flat.
    #[test]
    fn only_flat_memory_passes() {
        let flat = Details {
            outage_mode: "freeze",
            outage_seconds: 120.0,
            kills: 0,
            rss_before_bytes: 20 << 20,
            rss_first_half_bytes: 50 << 20,
            rss_second_half_bytes: 51 << 20,
            rss_after_bytes: 52 << 20,
        };
        assert!(flat.judge().is_empty());
        let leaps =
            Details { rss_first_half_bytes: 200 << 20, rss_second_half_bytes: 200 << 20, ..flat };
        assert!(leaps.judge()[0].contains("grew by 180.0 MiB"), "{:?}", leaps.judge());
        let creeps = Details { rss_second_half_bytes: 70 << 20, ..flat };
        assert!(creeps.judge()[0].contains("still grew"), "{:?}", creeps.judge());
    }
}
