//! Ramp-up, active phase, cool-down: waits, takes samples, and stops the load. It judges nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use nop_collector::{
    merge::{MergeError, Verdict as Proof, unite},
    report::{Report, StreamReport},
};
use thyme_core::manifest::ManifestLine;
use thyme_core::quantity::grouped;

use crate::{
    cli::LoadOptions,
    error::Error,
    kubernetes::Pod,
    limits::{QUESTION_TRIES, SAMPLE_FAILURES_MAX},
    sample::{self, Phase, Sample},
    stack::{COLLECTOR, GENERATOR, Stack},
    tools::Tools,
};

/// All counts of one moment.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Since the load's start, seconds.
    pub at_seconds: f64,
    /// What the generators wrote.
    pub manifest: Vec<ManifestLine>,
    /// What the collectors received, in detail.
    pub reports: Vec<Report>,
}

impl Counts {
    /// Lines written.
    pub fn written(&self) -> u64 {
        self.manifest.iter().map(|line| line.lines).sum()
    }

    /// Bytes of their bodies.
    pub fn written_bytes(&self) -> u64 {
        self.manifest.iter().map(|line| line.bytes).sum()
    }

    /// What the collectors prove together about these generators' lines, and how many lines of
    /// other runs they have: without a manifest, the beginning of those would look lost.
    ///
    /// # Errors
    /// The reports contradict themselves.
    pub fn united(&self) -> Result<(Proof, u64), MergeError> {
        let runs: BTreeSet<u32> = self.manifest.iter().map(|line| line.run).collect();
        let mut others = 0;
        let mut reports = self.reports.clone();
        for stream in reports.iter_mut().filter_map(|report| report.streams_detail.as_mut()) {
            let is_other = |one: &&StreamReport| !runs.contains(&one.run);
            others += stream.iter().filter(is_other).map(|one| one.received).sum::<u64>();
            stream.retain(|one| runs.contains(&one.run));
        }
        Ok((unite(&reports, Some(self.manifest.clone()))?, others))
    }
}

/// Everything that was seen.
#[derive(Debug)]
pub struct Measured {
    /// Pods when the load had begun.
    pub pods: Vec<Pod>,
    /// Pods at the end.
    pub pods_at_end: Vec<Pod>,
    /// When the active phase began.
    pub active_start: Counts,
    /// When it ended.
    pub active_end: Counts,
    /// When everything had arrived, or was given up.
    pub end: Counts,
    /// From the load's end until everything was seen to have arrived; none if that did not happen.
    pub drain_seconds: Option<f64>,
    /// Looks at everything, in order.
    pub samples: Vec<Sample>,
    /// Looks that failed.
    pub samples_failed: u32,
    /// Generators and collectors that did not answer at the end: their last counts stand for them.
    pub silent: BTreeSet<String>,
}

/// The benchmark itself, over a load that has begun.
#[derive(Debug)]
pub struct Benchmark<'a> {
    stack: &'a Stack<'a>,
    tools: &'a Tools,
    options: &'a LoadOptions,
    pods: Vec<Pod>,
    started: Instant,
    samples: Vec<Sample>,
    failures: u32,
    failures_in_a_row: u32,
    manifests: BTreeMap<String, Vec<ManifestLine>>,
    reports: BTreeMap<String, Report>,
    silent: BTreeSet<String>,
}

impl<'a> Benchmark<'a> {
    /// Begins now, with these pods.
    pub fn new(
        stack: &'a Stack<'a>,
        tools: &'a Tools,
        options: &'a LoadOptions,
        pods: Vec<Pod>,
    ) -> Self {
        Self {
            stack,
            tools,
            options,
            pods,
            started: Instant::now(),
            samples: Vec::new(),
            failures: 0,
            failures_in_a_row: 0,
            manifests: BTreeMap::new(),
            reports: BTreeMap::new(),
            silent: BTreeSet::new(),
        }
    }

    /// Goes through all phases.
    ///
    /// # Errors
    /// A signal, or the cluster can't be asked any more.
    pub fn run(mut self, active: Duration, say: &dyn Fn(&str)) -> Result<Measured, Error> {
        say(&format!("ramp-up, {}", humantime::format_duration(self.options.rampup)));
        self.sample_for(self.options.rampup, Phase::RampUp, say)?;
        say(&format!("active phase, {}", humantime::format_duration(active)));
        let active_start = self.counts()?;
        self.sample_for(active, Phase::Active, say)?;
        let active_end = self.counts()?;
        say("the load is stopped; pods stay until everything has arrived");
        for pod in self.of(GENERATOR) {
            // One that can't be stopped goes on writing, and so can't be counted: it is found silent
            // or replaced, or its lines are missing.
            if self.ask(&pod, |stack| stack.kubernetes.post(&pod, "stop"))?.is_none() {
                self.silent.insert(pod.name.clone());
            }
        }
        let (end, drain_seconds) = self.drain(say)?;
        Ok(Measured {
            pods_at_end: self.stack.kubernetes.pods(Some(crate::kubernetes::NAMESPACE))?,
            pods: self.pods,
            active_start,
            active_end,
            end,
            drain_seconds,
            samples: self.samples,
            samples_failed: self.failures,
            silent: self.silent,
        })
    }

    fn of(&self, app: &str) -> Vec<Pod> {
        self.pods.iter().filter(|pod| pod.app == app).cloned().collect()
    }

    /// Asks a pod again and again for a while; none if it never answers. An hour of load is not
    /// thrown away because a pod is gone: the verdict will say so.
    fn ask<T>(
        &self,
        pod: &Pod,
        question: impl Fn(&Stack<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        if self.silent.contains(&pod.name) {
            return Ok(None);
        }
        for _ in 0..QUESTION_TRIES {
            match question(self.stack) {
                Ok(answer) => return Ok(Some(answer)),
                // After a signal the pause is where it ends.
                Err(_again) => self.tools.pause(self.options.poll_interval)?,
            }
        }
        Ok(None)
    }

    /// All counts; a pod that does not answer is silent from then on, and its last ones stand for it.
    fn counts(&mut self) -> Result<Counts, Error> {
        for pod in self.of(GENERATOR) {
            match self.ask(&pod, |stack| stack.manifest(&pod))? {
                Some(lines) => drop(self.manifests.insert(pod.name, lines)),
                None => drop(self.silent.insert(pod.name)),
            }
        }
        for pod in self.of(COLLECTOR) {
            match self.ask(&pod, |stack| stack.report(&pod, true))? {
                Some(report) => drop(self.reports.insert(pod.name, report)),
                None => drop(self.silent.insert(pod.name)),
            }
        }
        Ok(Counts {
            at_seconds: self.started.elapsed().as_secs_f64(),
            manifest: self.manifests.values().flatten().cloned().collect(),
            reports: self.reports.values().cloned().collect(),
        })
    }

    /// Takes samples for a while; one at the start and one at the end, whatever its length.
    fn sample_for(
        &mut self,
        length: Duration,
        phase: Phase,
        say: &dyn Fn(&str),
    ) -> Result<(), Error> {
        if length.is_zero() {
            return Ok(());
        }
        let end = Instant::now() + length;
        self.sample(phase, say)?;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            self.tools.pause(left.min(self.options.sample_interval))?;
            self.sample(phase, say)?;
            if Instant::now() >= end {
                return Ok(());
            }
        }
    }

    /// A look that fails is counted, and the next one is taken: an hour of load is not thrown away
    /// because a question went unanswered.
    fn sample(&mut self, phase: Phase, say: &dyn Fn(&str)) -> Result<(), Error> {
        match sample::take(self.stack, &self.pods, self.started, phase) {
            Ok(sample) => {
                self.failures_in_a_row = 0;
                say(&self.line(&sample));
                self.samples.push(sample);
                Ok(())
            }
            Err(Error::Interrupted(signal)) => Err(Error::Interrupted(signal)),
            Err(error) => {
                self.failures += 1;
                self.failures_in_a_row += 1;
                say(&format!("a sample failed: {error}"));
                if self.failures_in_a_row < SAMPLE_FAILURES_MAX { Ok(()) } else { Err(error) }
            }
        }
    }

    fn line(&self, sample: &Sample) -> String {
        let before = self.samples.last();
        let seconds = before.map_or(0.0, |before| sample.at_seconds - before.at_seconds);
        let lines = before.map_or(0, |before| sample.received.saturating_sub(before.received));
        let rate = if seconds > 0.0 { lines as f64 / seconds } else { 0.0 };
        format!(
            "{:7.1} s  received {}  {} lines/s  p99 {:.0} ms",
            sample.at_seconds,
            grouped(sample.received),
            grouped(rate as u64),
            sample.latency_p99_ms
        )
    }

    /// Waits until everything has arrived, and stays for the rest of the cool-down: what comes twice
    /// may come later.
    fn drain(&mut self, say: &dyn Fn(&str)) -> Result<(Counts, Option<f64>), Error> {
        let stopped = Instant::now();
        let cooldown = self.options.cooldown;
        let (counts, drained) = loop {
            self.sample(Phase::CoolDown, say)?;
            let counts = self.counts()?;
            let (proof, _) = counts.united().map_err(|error| Error::Answer {
                command: "the collectors' reports".to_owned(),
                problem: error.to_string(),
            })?;
            if proof.report.lost == Some(0) {
                say(&format!("all {} lines have arrived", grouped(counts.written())));
                break (counts, Some(stopped.elapsed().as_secs_f64()));
            }
            let is_hopeless = stopped.elapsed() >= cooldown + self.options.drain_wait;
            if is_hopeless || !self.silent.is_empty() {
                break (counts, None);
            }
            self.tools.pause(self.options.poll_interval)?;
        };
        let left = cooldown.saturating_sub(stopped.elapsed());
        if drained.is_none() || !self.silent.is_empty() || left.is_zero() {
            return Ok((counts, drained));
        }
        self.sample_for(left, Phase::Idle, say)?;
        Ok((self.counts()?, drained))
    }
}
