//! `rig chaos`: directories of pods are removed under their writers and made again, the agent is
//! stalled and killed, the sink goes away, all at random moments under load and rotation. Nothing may
//! be lost, and the agent may not say that something was.

use crate::{
    agent::Losses,
    bench::Bench,
    cli::ChaosOptions,
    error::{Result, io_error},
    interrupt::Interrupt,
    limits::{RELEASE_MAX, RESUME_MAX},
    moments::Moments,
    verdict::{Figures, Verdict},
};
use serde::Serialize;
use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};
use thyme_core::{quantity::grouped, table::Row};

/// Shortest and longest time in which the agent stands still.
const STALL: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(600)];

/// Shortest and longest time in which the sink is away.
const OUTAGE: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(3)];

/// What this scenario adds to the figures.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Details {
    /// Seed of what happened.
    pub seed: u64,
    /// Pods whose directory was removed and made again, or that of their container.
    pub replaced: u32,
    /// How often the agent stood still.
    pub stalls: u32,
    /// How often the sink went away.
    pub outages: u32,
    /// How often the agent was killed.
    pub kills: u32,
    /// What the agent says to have lost, over all of its lives; `None` where it has no such figures.
    pub agent_losses: Option<Losses>,
}

impl Details {
    /// This scenario's rows of the table.
    pub fn rows(&self) -> Vec<Row> {
        let losses = self.agent_losses.map_or("it has no figures".into(), |losses| {
            format!("{} files, {} bytes", grouped(losses.files), grouped(losses.bytes))
        });
        vec![
            Row::words(
                "chaos",
                format!(
                    "{} directories replaced, {} stalls, {} outages, {} kills, seed {}",
                    self.replaced, self.stalls, self.outages, self.kills, self.seed
                ),
            ),
            Row::words("agent says lost", losses),
        ]
    }

    /// The agent's figures must be true in both directions.
    fn judge(&self, lines_lost: u64) -> Vec<String> {
        let said = self.agent_losses.filter(|losses| *losses != Losses::default());
        match (said, lines_lost) {
            (Some(losses), 0) => vec![format!(
                "the agent says that {} files, {} bytes were lost, and nothing was",
                losses.files, losses.bytes
            )],
            (None, 1..) if self.agent_losses.is_some() => {
                vec!["the agent does not say that anything was lost".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// One pod's directory, with all in it.
    Pod,
    /// The directory of a pod's container.
    Container,
    /// The directories of all pods.
    All,
    /// The agent stands still while a pod's directory is replaced.
    Stall,
    /// The sink goes away, or comes back early.
    Outage,
    /// The agent is killed.
    Kill,
}

/// Events by how often they come.
const EVENTS: [(Event, u32); 6] = [
    (Event::Pod, 10),
    (Event::Container, 6),
    (Event::All, 1),
    (Event::Stall, 3),
    (Event::Outage, 2),
    (Event::Kill, 2),
];

/// Runs the scenario.
pub fn chaos(options: &ChaosOptions, interrupt: &Interrupt) -> Result<Verdict<Details>> {
    let seed = options.load.seed.unwrap_or_else(Moments::random_seed);
    let disk_bytes_max = options.load.disk_bytes_max(options.duration);
    let mode = Some(options.outage_mode);
    let mut bench = Bench::start(&options.load, disk_bytes_max, mode, interrupt)?;
    bench.start_load(None)?;
    let mut run = Run {
        options,
        moments: Moments::new(seed),
        details: Details { seed, ..Details::default() },
        sink_returns: None,
    };
    bench.begin("opening", RESUME_MAX);
    wait_until_tailed(&mut bench, options.load.pods)?;
    bench.begin("chaos", options.duration);
    let deadline = Instant::now() + options.duration;
    while Instant::now() < deadline {
        let gap = run.moments.between(options.gap_min, options.gap_max);
        bench.watch(gap, |_| Ok(false))?;
        if run.sink_returns.is_some_and(|at| Instant::now() >= at) {
            run.sink_comes_back(&mut bench)?;
        }
        let event = run.next_event();
        run.happen(event, &mut bench)?;
    }
    run.sink_comes_back(&mut bench)?;
    let phase = bench.stop_load()?;
    let finish = bench.finish(phase)?;

    let figures = Figures::new("chaos", &options.load, &finish);
    let mut details = run.details;
    details.agent_losses = plus(details.agent_losses, finish.agent_losses);
    let mut failures = figures.judge(None);
    failures.extend(details.judge(figures.lines_lost));
    Ok(Verdict { figures, details, failures })
}

/// One run, as far as it has come.
struct Run<'a> {
    options: &'a ChaosOptions,
    moments: Moments,
    details: Details,
    /// Set while the sink is away: when it comes back.
    sink_returns: Option<Instant>,
}

impl Run<'_> {
    fn next_event(&mut self) -> Event {
        let total: u32 = EVENTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.moments.below(total);
        for (event, weight) in EVENTS {
            if drawn < weight {
                return event;
            }
            drawn -= weight;
        }
        Event::Pod
    }

    fn happen(&mut self, event: Event, bench: &mut Bench<'_>) -> Result<()> {
        match event {
            Event::Pod | Event::Container | Event::All => self.replace(event, bench),
            Event::Stall => {
                bench.suspend_agent(true)?;
                let stall = self.moments.between(STALL[0], STALL[1]);
                let replaced = self.replace(Event::Pod, bench);
                let waited = bench.watch(stall, |_| Ok(false));
                bench.suspend_agent(false)?;
                self.details.stalls += 1;
                waited?;
                replaced
            }
            Event::Outage if self.sink_returns.is_some() => self.sink_comes_back(bench),
            Event::Outage => {
                bench.sink_leaves()?;
                self.details.outages += 1;
                let away = self.moments.between(OUTAGE[0], OUTAGE[1]);
                self.sink_returns = Some(Instant::now() + away);
                Ok(())
            }
            Event::Kill if self.options.kills_max.is_some_and(|max| self.details.kills >= max) => {
                Ok(())
            }
            Event::Kill => self.kill(bench),
        }
    }

    fn sink_comes_back(&mut self, bench: &mut Bench<'_>) -> Result<()> {
        match self.sink_returns.take() {
            Some(_) => bench.sink_comes_back(),
            None => Ok(()),
        }
    }

    /// Removes a directory, and makes it again at once. A pod whose live file the agent has not
    /// opened yet is passed over: what goes before it can be opened nobody can promise.
    fn replace(&mut self, event: Event, bench: &Bench<'_>) -> Result<()> {
        let pods = bench.pod_directories()?;
        let count = pods.len().try_into().unwrap_or(u32::MAX);
        if count == 0 {
            return Ok(());
        }
        let chosen = match event {
            Event::All => &pods[..],
            _ => std::slice::from_ref(&pods[self.moments.below(count) as usize]),
        };
        for pod in chosen.iter().filter(|pod| bench.holds_live_files_of(pod)) {
            match event {
                Event::Container => subdirectories(pod)?.iter().try_for_each(|one| replace(one))?,
                _ => replace(pod)?,
            }
            self.details.replaced += 1;
        }
        Ok(())
    }

    /// Kills the agent when it holds no file that was deleted: what an agent has not read of such a
    /// file when it is killed nobody can read any more.
    fn kill(&mut self, bench: &mut Bench<'_>) -> Result<()> {
        let released = bench.watch(RELEASE_MAX, |bench| Ok(bench.deleted_log_files() == 0))?;
        if !released {
            return Ok(());
        }
        self.details.agent_losses = plus(self.details.agent_losses, bench.agent_losses());
        bench.kill_agent()?;
        self.details.kills += 1;
        wait_until_tailed(bench, self.options.load.pods)
    }
}

/// Waits until the agent holds a file of each pod open: what was deleted before nobody can promise.
fn wait_until_tailed(bench: &mut Bench<'_>, pods: u32) -> Result<()> {
    bench.watch(RESUME_MAX, |bench| Ok(bench.holds_log_files(pods as usize))).map(drop)
}

fn plus(one: Option<Losses>, other: Option<Losses>) -> Option<Losses> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.plus(other)),
        (one, other) => one.or(other),
    }
}

/// The generator may make the directory at the same moment, which is as good.
fn replace(directory: &Path) -> Result<()> {
    let removed = loop {
        match fs::remove_dir_all(directory) {
            // A file was made in it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break Ok(()),
            removed => break removed,
        }
    };
    removed
        .and_then(|()| fs::create_dir_all(directory))
        .map_err(io_error(format!("replacing {}", directory.display())))
}

fn subdirectories(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_error(format!("reading {}", directory.display())))?,
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: runs in which lines are missing or not, and the agent says so or not, or can't say.
    /// Guarantees: a false alarm fails, and so does silence; who has no figures is not blamed.
    #[test]
    fn what_the_agent_says_must_be_true() {
        let said = Losses { files: 1, bytes: 10 };
        let judge =
            |agent_losses, lost| Details { agent_losses, ..Details::default() }.judge(lost).len();
        assert_eq!(judge(Some(Losses::default()), 0), 0);
        assert_eq!(judge(Some(said), 5), 0);
        assert_eq!(judge(None, 5), 0);
        assert_eq!(judge(Some(said), 0), 1);
        assert_eq!(judge(Some(Losses::default()), 5), 1);
    }

    /// Scenario: a directory with files in it is replaced, one that is gone too.
    /// Guarantees: each is there, empty, and the first is another one than before.
    #[test]
    fn replaced_directories_are_new() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pod/container");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("0.log"), "x").unwrap();
        replace(&directory).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir(&directory).unwrap();
        replace(&directory).unwrap();
        assert!(directory.is_dir());
        assert_eq!(subdirectories(&root.path().join("pod")).unwrap(), [directory]);
    }
}
