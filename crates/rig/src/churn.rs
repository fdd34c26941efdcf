//! `rig churn`: pods that live for a moment only, one after another; their directories go a while
//! after their end. No line may be missed, and the agent must let go of what was deleted.

use crate::{
    bench::Bench,
    cli::ChurnOptions,
    error::Result,
    generator::Task,
    interrupt::Interrupt,
    verdict::{Figures, Verdict},
};
use serde::Serialize;
use std::time::Instant;
use thyme_core::{
    quantity::{in_time, time},
    table::Row,
};

/// What this scenario adds to the figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Details {
    /// How long each pod lived, by the options.
    pub lifetime_seconds: f64,
    /// How long its directory stayed after its end, by the options.
    pub removed_after_seconds: f64,
    /// From the removal of the last directory until the agent held no deleted file any more.
    pub release_seconds: f64,
    /// Files that it held even then.
    pub files_held: usize,
}

impl Details {
    /// This scenario's rows of the table.
    pub fn rows(&self) -> Vec<Row> {
        vec![
            Row::figure("each pod lived", in_time(self.lifetime_seconds * 1e3))
                .note(format!("its directory {} more", time(self.removed_after_seconds * 1e3))),
            Row::figure("deleted files", (self.files_held.to_string(), ""))
                .note(format!("held open {} later", time(self.release_seconds * 1e3))),
        ]
    }

    fn judge(&self) -> Vec<String> {
        let held = |files| format!("{files} deleted files are held open for ever");
        Some(self.files_held).filter(|files| *files > 0).map(held).into_iter().collect()
    }
}

/// Runs the scenario.
pub fn churn(options: &ChurnOptions, interrupt: &Interrupt) -> Result<Verdict<Details>> {
    let load = &options.load;
    let length = options.duration + options.lifetime + options.removed_after;
    let mut bench = Bench::start(load, load.disk_bytes_max(length), None, interrupt)?;
    let mut task = Task::new(load, Some(options.duration));
    task.lifetime = Some((options.lifetime, options.removed_after));
    bench.start_task(&task)?;
    let phase = bench.watch_load(length)?;

    let removed = Instant::now();
    bench.begin("releasing", options.release_max);
    bench.watch(options.release_max, |bench| Ok(bench.open_log_files() == 0))?;
    let details = Details {
        lifetime_seconds: options.lifetime.as_secs_f64(),
        removed_after_seconds: options.removed_after.as_secs_f64(),
        release_seconds: removed.elapsed().as_secs_f64(),
        files_held: bench.open_log_files(),
    };
    let finish = bench.finish(phase)?;
    let figures = Figures::new("churn", load, &finish);
    let mut failures = figures.judge(Some(0));
    failures.extend(details.judge());
    Ok(Verdict { figures, details, failures })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: no file is held in the end, then one.
    /// Guarantees: the second fails.
    #[test]
    fn held_files_fail_the_run() {
        let details = Details::default();
        assert!(details.judge().is_empty());
        assert_eq!(Details { files_held: 1, ..details }.judge().len(), 1);
    }
}
