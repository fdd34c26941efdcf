//! `rig scale`: very many files, of which most are silent. The agent has to have all of them open and
//! read soon after its start, and again after a restart with what it remembers; it must cost next to
//! nothing while nobody writes, and stay small.

use crate::{
    bench::Bench,
    cli::ScaleOptions,
    error::Result,
    generator::Task,
    interrupt::Interrupt,
    limits::{IDLE_SAMPLE_INTERVAL, START_MAX},
    verdict::{Figures, Verdict},
};
use serde::Serialize;
use std::time::{Duration, Instant};
use thyme_core::{
    quantity::{grouped, in_bytes, in_time, size, time},
    table::Row,
};

/// The runs in the stamps of what is there at the start, and of what comes after the restart.
const FIRST_RUN: u32 = 1;
const SECOND_RUN: u32 = 2;

/// What names follow from unless the options say so: both tasks write to the same pods.
const SEED: u64 = 1;

/// What this scenario adds to the figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Details {
    /// Files, each of a pod of its own.
    pub files: u32,
    /// The start without anything remembered.
    pub start: Startup,
    /// The start with a state for each file.
    pub restart: Startup,
    /// Resident memory once all files were open, before anybody was idle.
    pub rss_started_bytes: u64,
    /// Resident memory at the end of the idle time.
    pub rss_idle_bytes: u64,
    /// Length of the measured idle time.
    pub idle_seconds: f64,
    /// The agent's processor time over it.
    pub idle_cores: f64,
    /// Longest allowed start.
    pub startup_seconds_max: f64,
    /// Most processor time of a start.
    pub startup_cpu_seconds_max: f64,
    /// Most processor time while idle, as a share of a core.
    pub idle_cores_max: f64,
    /// Most resident memory at any time.
    pub rss_bytes_max: u64,
}

/// One start of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Startup {
    /// Until all files were open; `None` when they never were.
    pub open_seconds: Option<f64>,
    /// Until all of their lines had come, where there were any; `None` when they never did.
    pub read_seconds: Option<f64>,
    /// The agent's processor time until both.
    pub cpu_seconds: f64,
}

impl Startup {
    fn rows(&self, name: &str) -> [Row; 2] {
        let row = |what: &str, seconds: Option<f64>| match seconds {
            Some(seconds) => Row::figure(format!("{name}, {what}"), in_time(seconds * 1e3)),
            None => Row::words(format!("{name}, {what}"), "never"),
        };
        let cpu = format!("{:.2} CPU-seconds until both", self.cpu_seconds);
        [row("all open", self.open_seconds), row("all read", self.read_seconds).note(cpu)]
    }

    fn judge(&self, what: &str, details: &Details, failures: &mut Vec<String>) {
        let seconds = self.open_seconds.zip(self.read_seconds).map(|(open, read)| open.max(read));
        match seconds {
            None => failures.push(format!("not all files were open and read after the {what}")),
            Some(seconds) if seconds > details.startup_seconds_max => failures.push(format!(
                "the {what} took {seconds:.2} s, {:.1} are allowed",
                details.startup_seconds_max
            )),
            Some(_) => {}
        }
        if self.cpu_seconds > details.startup_cpu_seconds_max {
            failures.push(format!(
                "the {what} took {:.2} CPU-seconds, {:.1} are allowed",
                self.cpu_seconds, details.startup_cpu_seconds_max
            ));
        }
    }
}

impl Details {
    /// This scenario's rows of the table.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = vec![Row::figure("files", (grouped(self.files.into()), ""))];
        rows.extend(self.start.rows("start"));
        rows.extend(self.restart.rows("restart"));
        rows.extend([
            Row::figure("agent, idle", (format!("{:.2}", self.idle_cores * 1e2), "% of a core"))
                .note(format!("over {}", time(self.idle_seconds * 1e3))),
            Row::figure("RSS, started", in_bytes(self.rss_started_bytes)),
            Row::figure("RSS, idle", in_bytes(self.rss_idle_bytes)),
        ]);
        rows
    }

    fn judge(&self, rss_peak_bytes: u64) -> Vec<String> {
        let mut failures = Vec::new();
        self.start.judge("start", self, &mut failures);
        self.restart.judge("restart", self, &mut failures);
        if self.idle_cores > self.idle_cores_max {
            failures.push(format!(
                "the idle agent used {:.2} % of a core, {:.2} are allowed",
                self.idle_cores * 1e2,
                self.idle_cores_max * 1e2
            ));
        }
        if rss_peak_bytes > self.rss_bytes_max {
            let (peak, max) = (size(rss_peak_bytes), size(self.rss_bytes_max));
            failures.push(format!("memory reached {peak}, {max} are allowed"));
        }
        failures
    }
}

/// Runs the scenario.
pub fn scale(options: &ScaleOptions, interrupt: &Interrupt) -> Result<Verdict<Details>> {
    let load = &options.load;
    let mut bench = Bench::start(load, disk_bytes_max(options), None, interrupt)?;
    let mut details = Details {
        files: load.pods,
        startup_seconds_max: options.startup_max.as_secs_f64(),
        startup_cpu_seconds_max: options.startup_cpu_max.as_secs_f64(),
        idle_cores_max: options.idle_cores_max,
        rss_bytes_max: options.rss_max,
        ..Details::default()
    };
    // The files are made while no agent runs: their names are in the kernel's cache when it starts.
    bench.agent_goes_down()?;
    bench.start_task(&fill(options, "log-generator", FIRST_RUN))?;
    let phase = bench.watch_load(fill_duration(options))?;
    details.start = start_up(&mut bench, load.pods)?;
    details.rss_started_bytes = bench.agent_usage().rss_bytes;

    bench.begin("settling", options.settle);
    bench.watch(options.settle, |_| Ok(false))?;
    let (at, cpu_seconds) = (Instant::now(), bench.agent_usage().cpu_seconds);
    bench.begin("idle", options.idle);
    bench.rest(options.idle, IDLE_SAMPLE_INTERVAL)?;
    let usage = bench.agent_usage();
    details.idle_seconds = at.elapsed().as_secs_f64();
    details.idle_cores = (usage.cpu_seconds - cpu_seconds) / details.idle_seconds;
    details.rss_idle_bytes = usage.rss_bytes;

    bench.agent_goes_down()?;
    details.restart = start_up(&mut bench, load.pods)?;
    bench.start_task(&fill(options, "second-writer", SECOND_RUN))?;
    bench.watch_load(fill_duration(options))?;

    let finish = bench.finish(phase)?;
    let figures = Figures::new("scale", load, &finish);
    let mut failures = figures.judge(Some(0));
    failures.extend(details.judge(figures.agent_rss_peak_bytes));
    Ok(Verdict { figures, details, failures })
}

/// Starts the agent, and waits until it has all files open and all that was written has come.
fn start_up(bench: &mut Bench<'_>, files: u32) -> Result<Startup> {
    let before = bench.agent_usage().cpu_seconds;
    let written = bench.written()?.lines;
    let started = bench.agent_comes_up()?;
    let (mut open_seconds, mut read_seconds) = (None, None);
    bench.begin("starting", START_MAX);
    bench.watch_closely(START_MAX, |bench| {
        let so_far = || Some(started.elapsed().as_secs_f64());
        if open_seconds.is_none() && bench.holds_log_files(files as usize) {
            open_seconds = so_far();
        }
        if read_seconds.is_none() && bench.report()?.received >= written {
            read_seconds = so_far();
        }
        Ok(open_seconds.is_some() && read_seconds.is_some())
    })?;
    let cpu_seconds = bench.agent_usage().cpu_seconds - before;
    Ok(Startup { open_seconds, read_seconds, cpu_seconds })
}

/// Some lines for each file.
fn fill(options: &ScaleOptions, name: &'static str, run: u32) -> Task {
    let mut task = Task::new(&options.load, None);
    task.name = name;
    task.run = Some(run);
    task.seed.get_or_insert(SEED);
    task.lines = Some(options.lines_per_file * u64::from(options.load.pods));
    task
}

fn fill_duration(options: &ScaleOptions) -> Duration {
    let lines = options.lines_per_file * u64::from(options.load.pods);
    Duration::from_secs(lines / options.load.rate + 1)
}

/// Both fills, and a block or so for each file and directory.
fn disk_bytes_max(options: &ScaleOptions) -> u64 {
    const BLOCKS_BYTES: u64 = 16 << 10;
    let blocks = u64::from(options.load.pods) * BLOCKS_BYTES;
    options.load.disk_bytes_max(fill_duration(options) * 2).saturating_add(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: figures within all limits, then one after another beyond.
    /// Guarantees: each limit is judged, and a start that never came to its end fails.
    #[test]
    fn every_limit_is_judged() {
        let startup =
            Startup { open_seconds: Some(0.5), read_seconds: Some(1.9), cpu_seconds: 1.0 };
        let good = Details {
            start: startup,
            restart: startup,
            idle_cores: 0.005,
            startup_seconds_max: 2.0,
            startup_cpu_seconds_max: 2.0,
            idle_cores_max: 0.01,
            rss_bytes_max: 100,
            ..Details::default()
        };
        assert!(good.judge(100).is_empty());
        assert_eq!(good.judge(101).len(), 1);
        for bad in [
            Details { start: Startup { read_seconds: Some(2.1), ..startup }, ..good.clone() },
            Details { start: Startup { open_seconds: None, ..startup }, ..good.clone() },
            Details { restart: Startup { open_seconds: Some(2.1), ..startup }, ..good.clone() },
            Details { restart: Startup { cpu_seconds: 2.1, ..startup }, ..good.clone() },
            Details { idle_cores: 0.011, ..good },
        ] {
            assert_eq!(bad.judge(100).len(), 1, "{bad:?}");
        }
    }
}
