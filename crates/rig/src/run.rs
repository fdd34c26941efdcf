//! `rig run`: a steady load. Nothing may be lost, and nothing may come twice.

use crate::{
    bench::Bench,
    cli::RunOptions,
    error::Result,
    interrupt::Interrupt,
    verdict::{Figures, Verdict},
};

/// Runs the scenario.
pub fn run(options: &RunOptions, interrupt: &Interrupt) -> Result<Verdict<()>> {
    let mut bench = Bench::start(
        &options.load,
        options.load.disk_bytes_max(options.duration),
        None,
        interrupt,
    )?;
    bench.start_load(Some(options.duration))?;
    let load = bench.watch_load(options.duration)?;
    let finish = bench.finish(load)?;
    let figures = Figures::new("run", &options.load, &finish);
    let failures = figures.judge(Some(0));
    Ok(Verdict { figures, details: (), failures })
}
