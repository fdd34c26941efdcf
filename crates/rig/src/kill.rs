//! `rig kill`: the agent is killed by SIGKILL at random moments under load, and started again at
//! once with the same state. Nothing may be lost; only what was unacknowledged may come twice.

use crate::{
    bench::Bench,
    cli::KillOptions,
    error::Result,
    interrupt::Interrupt,
    moments::Moments,
    verdict::{Figures, Verdict},
};
use serde::Serialize;
use std::time::{Duration, Instant};
use thyme_core::{quantity::grouped, table::Row};

/// What one kill may bring twice, at up to [`DUPLICATES_RATE`] lines/s; more in proportion above.
const DUPLICATES_PER_KILL_MAX: u64 = 150_000;

/// See [`DUPLICATES_PER_KILL_MAX`], in lines/s.
const DUPLICATES_RATE: u64 = 50_000;

/// What this scenario adds to the figures.
#[derive(Debug, Serialize)]
pub struct Details {
    /// Seed of the moments.
    pub seed: u64,
    /// Each kill.
    pub kills: Vec<Kill>,
    /// How many duplicates are allowed in all.
    pub duplicates_max: u64,
}

/// One kill.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Kill {
    /// When, in seconds since the load's start.
    pub at_seconds: f64,
    /// Duplicates counted between this kill and the next, or the end.
    pub duplicated: u64,
}

impl Details {
    /// This scenario's rows of the table.
    pub fn rows(&self) -> Vec<Row> {
        let each: Vec<String> = self.kills.iter().map(|kill| grouped(kill.duplicated)).collect();
        let most = self.kills.iter().map(|kill| kill.duplicated).max().unwrap_or(0);
        let count = (grouped(self.kills.len() as u64), "");
        vec![
            Row::figure("kills", count).note(format!("seed {}", self.seed)),
            Row::figure("most twice a kill", (grouped(most), "lines"))
                .note(format!("{} allowed in all", grouped(self.duplicates_max))),
            Row::words("twice, each kill", each.join(" ")),
        ]
    }
}

/// Runs the scenario.
pub fn kill(options: &KillOptions, interrupt: &Interrupt) -> Result<Verdict<Details>> {
    let seed = options.load.seed.unwrap_or_else(Moments::random_seed);
    let mut moments = Moments::new(seed);
    let next_gap = |_| moments.between(options.gap_min, options.gap_max);
    let gaps: Vec<Duration> = (0..options.kills).map(next_gap).collect();
    // The last life gets a gap too, so that the last kill's duplicates come under load.
    let duration = gaps.iter().sum::<Duration>() + options.gap_max;

    let mut bench =
        Bench::start(&options.load, options.load.disk_bytes_max(duration), None, interrupt)?;
    bench.start_load(None)?;
    bench.begin("load", duration);
    let started = Instant::now();
    let mut kills: Vec<Kill> = Vec::new();
    let mut seen = 0;
    for gap in gaps {
        bench.watch(gap, |_| Ok(false))?;
        let duplicated = bench.report()?.duplicated;
        attribute(&mut kills, &mut seen, duplicated);
        bench.kill_agent()?;
        kills.push(Kill { at_seconds: started.elapsed().as_secs_f64(), duplicated: 0 });
        let count = kills.len();
        bench.note(format_args!("kill {count} of {}", options.kills));
    }
    bench.watch(options.gap_max, |_| Ok(false))?;
    let load = bench.stop_load()?;
    let finish = bench.finish(load)?;

    let figures = Figures::new("kill", &options.load, &finish);
    attribute(&mut kills, &mut seen, figures.lines_duplicated);
    let duplicates_max = duplicates_max(options.kills, options.load.rate);
    let failures = figures.judge(Some(duplicates_max));
    Ok(Verdict { figures, details: Details { seed, kills, duplicates_max }, failures })
}

/// Puts what has come twice since the last look down to the last kill.
fn attribute(kills: &mut [Kill], seen: &mut u64, duplicated: u64) {
    if let Some(last) = kills.last_mut() {
        last.duplicated = duplicated.saturating_sub(*seen);
    }
    *seen = duplicated;
}

fn duplicates_max(kills: u32, rate: u64) -> u64 {
    let per_kill = DUPLICATES_PER_KILL_MAX.max(DUPLICATES_PER_KILL_MAX * rate / DUPLICATES_RATE);
    u64::from(kills) * per_kill
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: duplicates seen before the first kill, between two and after the last.
    /// Guarantees: each kill gets what came after it; the first look belongs to none.
    #[test]
    fn duplicates_belong_to_the_kill_before_them() {
        let mut kills = Vec::new();
        let mut seen = 0;
        attribute(&mut kills, &mut seen, 5);
        kills.push(Kill { at_seconds: 1.0, duplicated: 0 });
        attribute(&mut kills, &mut seen, 12);
        kills.push(Kill { at_seconds: 2.0, duplicated: 0 });
        attribute(&mut kills, &mut seen, 32);
        let each: Vec<u64> = kills.iter().map(|kill| kill.duplicated).collect();
        assert_eq!(each, [7, 20]);
    }

    /// Scenario: the usual rate, a lower and a higher one.
    /// Guarantees: the bound is per kill, and grows with the rate only above the usual one.
    #[test]
    fn the_bound_follows_the_rate() {
        assert_eq!(duplicates_max(20, 50_000), 3_000_000);
        assert_eq!(duplicates_max(20, 1), 3_000_000);
        assert_eq!(duplicates_max(2, 150_000), 900_000);
    }
}
