//! All processes of one run, watched together: whatever a scenario waits for, it waits here, where
//! signals and early ends are noticed at once. Dropping the bench leaves nothing behind.

use crate::{
    affected::{Affected, affected},
    agent::{Agent, Losses, Recipe},
    cli::{LoadOptions, OutageMode},
    collector::{Addresses, Collector, Report},
    error::{Error, Result, io_error},
    generator::{self, Account, Generator, Task, Written},
    interrupt::Interrupt,
    limits::{
        AGENT_STOP_MAX, BLIND_START, CLOSE_WATCH_INTERVAL, GENERATOR_STOP_MAX, SAMPLE_INTERVAL,
        START_MAX, WATCH_INTERVAL,
    },
    process::Process,
    progress::{Progress, Sample},
    sink::Sink,
    tree::{Tree, check_space},
    usage::Usage,
};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

/// The binaries of this workspace that a run needs.
#[derive(Clone, Debug)]
pub struct Binaries {
    collector: PathBuf,
    generator: PathBuf,
    agent: PathBuf,
}

impl Binaries {
    /// Finds them beside this executable; thyme-agent only has to be there when it is needed.
    pub fn beside_this(load: &LoadOptions) -> Result<Self> {
        let own = env::current_exe().map_err(io_error("looking for this executable"))?;
        let directory = own.parent().unwrap_or(Path::new("/"));
        let found = Self {
            collector: directory.join("nop-collector"),
            generator: directory.join("log-generator"),
            agent: directory.join("thyme-agent"),
        };
        let mut needed = vec![&found.collector, &found.generator];
        if load.other_agent().is_none() {
            needed.push(&found.agent);
        }
        if let Some(path) = needed.into_iter().find(|path| !path.is_file()) {
            return Err(Error::NotBuilt { path: path.clone() });
        }
        Ok(found)
    }
}

/// Length and cost of the time in which lines were written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Wall time of the processor times below.
    pub seconds: f64,
    /// How the generator describes it.
    pub account: Account,
    /// The agent's processor time.
    pub agent_cpu_seconds: f64,
    /// The collector's processor time.
    pub collector_cpu_seconds: f64,
    /// The generator's processor time.
    pub generator_cpu_seconds: f64,
}

/// A moment, and what had been used by then.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    agent_cpu_seconds: f64,
    collector_cpu_seconds: f64,
}

/// Everything that is known when all is over.
#[derive(Debug)]
pub struct Finish {
    /// What to call the agent.
    pub agent_title: String,
    /// By the manifest.
    pub written: Written,
    /// By the collector, after the agent's end.
    pub report: Report,
    /// The writing phase.
    pub load: Load,
    /// From the end of writing until everything had come, or until patience ended, in seconds.
    pub drain_seconds: f64,
    /// The agent's whole processor time and peak memory.
    pub agent: Usage,
    /// Whose lines are missing or came twice, the worst first.
    pub affected: Vec<Affected>,
    /// Where the run's files are, if they are kept.
    pub kept_in: Option<PathBuf>,
    /// What the agent's last life says to have lost, where it has figures for that.
    pub agent_losses: Option<Losses>,
    /// How the agent ended on SIGTERM; `None` when it had to be killed.
    pub agent_status: Option<ExitStatus>,
}

/// The processes and their tree. Fields are dropped in this order: the tree goes last, when nobody
/// writes to it any more.
#[derive(Debug)]
pub struct Bench<'a> {
    progress: Progress,
    agent: Agent,
    /// In the order of their starts.
    generators: Vec<Generator>,
    sink: Sink,
    binaries: Binaries,
    tree: Tree,
    load_options: &'a LoadOptions,
    interrupt: &'a Interrupt,
    /// What was used when writing began, and when.
    load_start: Option<Mark>,
    /// The last sample, for when the generator or the collector cannot be asked.
    last: Option<Sample>,
    next_sample: Instant,
}

impl<'a> Bench<'a> {
    /// Checks the disk, makes the tree, starts collector and agent, and waits until both are up.
    /// `disk_bytes_max` is the most that will lie on the disk, `outage` the way in which the sink
    /// will go away, if it will.
    pub fn start(
        load_options: &'a LoadOptions,
        disk_bytes_max: u64,
        outage: Option<OutageMode>,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let base = load_options.base();
        let binaries = Binaries::beside_this(load_options)?;
        check_space(&base, disk_bytes_max)?;
        let tree = Tree::create(&base, load_options.keep)?;
        let mut progress = Progress::start();
        let (collector, addresses) = start_collector(&binaries, &tree, interrupt)?;
        let (sink, addresses) = Sink::new(collector, addresses, outage)?;
        let recipe = Recipe::new(load_options, &tree, &addresses, &binaries.agent)?;
        let fate = if load_options.keep { "kept" } else { "removed at the end" };
        progress.note(format_args!("agent  {}", recipe.described(load_options)));
        progress.note(format_args!("load   {}", load_options.described()));
        progress.note(format_args!("place  {}, {fate}", tree.root().display()));
        let agent = start_agent(recipe, interrupt)?;
        Ok(Self {
            progress,
            agent,
            generators: Vec::new(),
            sink,
            binaries,
            tree,
            load_options,
            interrupt,
            load_start: None,
            last: None,
            next_sample: Instant::now(),
        })
    }

    /// Has the generator begin, for `duration` or until [`Bench::stop_load`].
    pub fn start_load(&mut self, duration: Option<Duration>) -> Result<()> {
        self.start_task(&Task::new(self.load_options, duration))
    }

    /// Has a generator begin, beside those that write already.
    pub fn start_task(&mut self, task: &Task) -> Result<()> {
        let mark = self.mark();
        self.load_start.get_or_insert(mark);
        let program = &self.binaries.generator;
        let mut generator = Generator::spawn(program, &self.tree, self.load_options, task)?;
        // A short load may already be over when it is looked at.
        let up = wait_until(START_MAX, self.interrupt, || {
            Ok(generator.is_up()? || generator.poll()?.is_some())
        })?;
        if !up {
            return Err(too_slow(generator.process(), "said no address", START_MAX));
        }
        self.generators.push(generator);
        Ok(())
    }

    /// The next part of the run begins, and takes so long or at most so long: the live line says so.
    pub fn begin(&mut self, phase: &'static str, length: Duration) {
        self.progress.begin(phase, length);
    }

    /// Waits, watching and showing everything, until `done` or for at most `limit`; says whether it
    /// was `done`.
    pub fn watch(
        &mut self,
        limit: Duration,
        done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<bool> {
        self.watch_at(limit, WATCH_INTERVAL, SAMPLE_INTERVAL, done)
    }

    /// The same for something whose moment is measured.
    pub fn watch_closely(
        &mut self,
        limit: Duration,
        done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<bool> {
        self.watch_at(limit, CLOSE_WATCH_INTERVAL, SAMPLE_INTERVAL, done)
    }

    /// Waits, and hardly looks meanwhile.
    pub fn rest(&mut self, duration: Duration, sample: Duration) -> Result<()> {
        self.watch_at(duration, WATCH_INTERVAL, sample, |_| Ok(false)).map(drop)
    }

    fn watch_at(
        &mut self,
        limit: Duration,
        interval: Duration,
        sample_interval: Duration,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            self.sink.process().expect_running()?;
            self.agent.expect_running()?;
            for generator in &mut self.generators {
                generator.poll()?;
            }
            if done(self)? {
                return Ok(true);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            if now >= self.next_sample {
                let sample = self.sample()?;
                self.progress.show(sample);
                self.next_sample = now + sample_interval;
            }
            self.interrupt.pause(interval.min(deadline - now))?;
        }
    }

    /// Waits until every generator has ended by itself, `duration` after its start.
    pub fn watch_load(&mut self, duration: Duration) -> Result<Load> {
        self.begin("load", duration);
        self.wait_for_generators(duration + GENERATOR_STOP_MAX)
    }

    /// Ends the load now.
    pub fn stop_load(&mut self) -> Result<Load> {
        self.generators.iter().try_for_each(Generator::stop)?;
        self.wait_for_generators(GENERATOR_STOP_MAX)
    }

    /// The collector's present report.
    pub fn report(&self) -> Result<Report> {
        self.sink.report()
    }

    /// The same, with each run.
    pub fn report_with_runs(&self) -> Result<Report> {
        self.sink.report_with_runs()
    }

    /// What has been written by all generators that have ended.
    pub fn written(&self) -> Result<Written> {
        let mut written = Written::default();
        for generator in &self.generators {
            written = written + generator.written()?.unwrap_or_default();
        }
        Ok(written)
    }

    /// How many log files the agent holds open, deleted ones included.
    pub fn open_log_files(&self) -> usize {
        self.agent.open_files(&self.tree.pods())
    }

    /// Whether the agent holds at least that many log files open; looks closely only when it holds
    /// as many files of any kind.
    pub fn holds_log_files(&self, files: usize) -> bool {
        self.agent.descriptors() >= files && self.open_log_files() >= files
    }

    /// How many of them were deleted.
    pub fn deleted_log_files(&self) -> usize {
        self.agent.deleted_files(&self.tree.pods())
    }

    /// The directory of each pod that writes, in the order of their names.
    pub fn pod_directories(&self) -> Result<Vec<PathBuf>> {
        let pods = self.tree.pods();
        let reading = || io_error(format!("reading {}", pods.display()));
        let entries: io::Result<Vec<_>> = fs::read_dir(&pods).map_err(reading())?.collect();
        let mut directories: Vec<PathBuf> =
            entries.map_err(reading())?.into_iter().map(|entry| entry.path()).collect();
        directories.sort_unstable();
        Ok(directories)
    }

    /// Whether the agent holds the live files of a pod's directory open, and there is one.
    pub fn holds_live_files_of(&self, directory: &Path) -> bool {
        self.agent.holds_all(directory, ".log")
    }

    /// What the agent says to have lost in its present life, where it has figures for that.
    pub fn agent_losses(&self) -> Option<Losses> {
        self.agent.losses()
    }

    /// Stops the agent where it is, or lets it go on.
    pub fn suspend_agent(&self, suspended: bool) -> Result<()> {
        self.agent.suspend(suspended)
    }

    /// Asks the agent to end, and waits until it has.
    pub fn agent_goes_down(&mut self) -> Result<()> {
        self.stop_agent().map(drop)
    }

    /// Starts the agent again, without waiting until it is up; returns the moment.
    pub fn agent_comes_up(&mut self) -> Result<Instant> {
        let now = Instant::now();
        self.agent.start_again()?;
        Ok(now)
    }

    /// Kills the agent and starts it again at once.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.kill_and_restart()
    }

    /// Has the sink go away.
    pub fn sink_leaves(&mut self) -> Result<()> {
        self.sink.leave()
    }

    /// Has the sink come back.
    pub fn sink_comes_back(&mut self) -> Result<()> {
        self.sink.come_back(self.interrupt)
    }

    /// The agent's present and largest memory, and its processor time.
    pub fn agent_usage(&mut self) -> Usage {
        self.agent.usage()
    }

    /// Says something between the live lines.
    pub fn note(&mut self, text: std::fmt::Arguments<'_>) {
        self.progress.note(text);
    }

    /// Hands the manifest over, waits for the last lines, stops the agent, and takes the figures.
    pub fn finish(mut self, load: Load) -> Result<Finish> {
        let mut manifest = Vec::new();
        for generator in &self.generators {
            let text = generator.manifest()?;
            self.sink.post_manifest(&text)?;
            manifest.extend(generator::manifest_lines(&text)?);
        }
        let written = self.written()?;

        let started = Instant::now();
        self.begin("drain", self.load_options.drain);
        self.watch(self.load_options.drain, |bench| Ok(bench.report()?.received >= written.lines))?;
        let drain_seconds = started.elapsed().as_secs_f64();

        let agent_losses = self.agent_losses();
        let agent_status = self.stop_agent()?;
        self.progress.clear();
        let report = self.report_with_runs()?;
        let affected = match (report.lost, report.duplicated) {
            (Some(0), 0) => Vec::new(),
            _ => affected(&manifest, &self.sink.streams()?),
        };
        Ok(Finish {
            affected,
            kept_in: self.load_options.keep.then(|| self.tree.root().to_owned()),
            agent_title: self.agent.title().to_owned(),
            written,
            report,
            load,
            drain_seconds,
            agent: self.agent.usage(),
            agent_losses,
            agent_status,
        })
    }

    /// Stops the agent by SIGTERM, or kills it when it does not end.
    fn stop_agent(&mut self) -> Result<Option<ExitStatus>> {
        self.agent.usage();
        self.agent.stop()?;
        let agent = &mut self.agent;
        let mut ended = None;
        wait_until(AGENT_STOP_MAX, self.interrupt, || {
            agent.usage();
            ended = agent.process().poll()?;
            Ok(ended.is_some())
        })?;
        let status = ended.map(|ended| ended.status);
        let ended = match ended {
            Some(ended) => ended,
            None => self.agent.process().kill()?,
        };
        self.agent.bury(&ended);
        Ok(status)
    }

    /// Waits until all generators have ended. The account is that of the first.
    fn wait_for_generators(&mut self, limit: Duration) -> Result<Load> {
        self.watch(limit, |bench| {
            let mut all_ended = true;
            for generator in &mut bench.generators {
                all_ended &= generator.poll()?.is_some();
            }
            Ok(all_ended)
        })?;
        let now = self.mark();
        let (Some(start), Some(first)) = (self.load_start.take(), self.generators.first()) else {
            unreachable!("the load was never started")
        };
        let account = first.account();
        let mut generator_cpu_seconds = 0.0;
        for generator in &mut self.generators {
            match generator.poll()? {
                Some(ended) => generator_cpu_seconds += ended.cpu_seconds,
                None => return Err(too_slow(generator.process(), "did not end", limit)),
            }
        }
        Ok(Load {
            seconds: (now.at - start.at).as_secs_f64(),
            account: account?,
            agent_cpu_seconds: now.agent_cpu_seconds - start.agent_cpu_seconds,
            collector_cpu_seconds: now.collector_cpu_seconds - start.collector_cpu_seconds,
            generator_cpu_seconds,
        })
    }

    /// The time, and what agent and collector have used by then.
    fn mark(&mut self) -> Mark {
        Mark {
            at: Instant::now(),
            agent_cpu_seconds: self.agent.usage().cpu_seconds,
            collector_cpu_seconds: self.sink.usage().cpu_seconds,
        }
    }

    /// Looks at everything; what cannot be asked keeps its last figure.
    fn sample(&mut self) -> Result<Sample> {
        let last = self.last;
        let mut written = Some(Written::default());
        for generator in &self.generators {
            let of_one = generator.written()?;
            written = written.and_then(|written| Some(written + of_one?));
        }
        let received = self.sink.received()?;
        let sample = Sample {
            at: Instant::now(),
            written: written.or(last.map(|last| last.written)).unwrap_or_default(),
            received: received.or(last.map(|last| last.received)).unwrap_or_default(),
            agent: self.agent.usage(),
        };
        self.last = Some(sample);
        Ok(sample)
    }
}

fn start_collector(
    binaries: &Binaries,
    tree: &Tree,
    interrupt: &Interrupt,
) -> Result<(Collector, Addresses)> {
    let mut collector = Collector::spawn(&binaries.collector, &tree.children())?;
    let mut addresses = None;
    wait_until(START_MAX, interrupt, || {
        collector.process().expect_running()?;
        addresses = collector.addresses()?;
        Ok(addresses.is_some())
    })?;
    match addresses {
        Some(addresses) => Ok((collector, addresses)),
        None => Err(too_slow(collector.process(), "said no address", START_MAX)),
    }
}

fn start_agent(recipe: Recipe, interrupt: &Interrupt) -> Result<Agent> {
    let mut agent = Agent::spawn(recipe)?;
    let blind_until = Instant::now() + BLIND_START;
    let up = wait_until(START_MAX, interrupt, || {
        agent.process().expect_running()?;
        Ok(agent.is_up().unwrap_or_else(|| Instant::now() >= blind_until))
    })?;
    if up { Ok(agent) } else { Err(too_slow(agent.process(), "did not answer", START_MAX)) }
}

/// Asks again and again, for at most `limit`; says whether it became true.
fn wait_until(
    limit: Duration,
    interrupt: &Interrupt,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        if done()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        interrupt.pause(WATCH_INTERVAL)?;
    }
}

fn too_slow(process: &Process, what: &'static str, limit: Duration) -> Error {
    Error::TooSlow { name: process.name(), what, limit, log: process.log_tail() }
}
