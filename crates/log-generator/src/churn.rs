//! Pods that come and go: they start one after another, write their lines within their lifetime,
//! end, and have their directories removed a while later, as the kubelet does. The writer's thread
//! where the plan has lifetimes; `generate` is that of pods that stay.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::generate::{End, LineWriter, Outcome, Output, Shared};
use crate::limits::{LATE_AFTER, SLEEP_MAX, TICK};
use crate::options::Pods;
use crate::outputs::OutputMaker;
use crate::sink::WriteError;

/// How long pods live, and what becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Time in which all pods start, one after another, evenly.
    pub starts_within: Duration,
    /// From a pod's start to its end.
    pub lives_for: Duration,
    /// From a pod's end to the removal of its directory; `None` leaves it there.
    pub removed_after: Option<Duration>,
}

impl Lifetime {
    /// When pod number `index` of `count` starts.
    pub fn start_of(&self, index: u32, count: u32) -> Duration {
        self.starts_within.mul_f64(f64::from(index) / f64::from(count))
    }

    /// How many of a pod's `lines` should have been written at an age: the first at its start, all
    /// at its end.
    pub fn lines_due(&self, lines: u64, age: Duration) -> u64 {
        let age = age.min(self.lives_for);
        let due = u128::from(lines) * age.as_nanos() / self.lives_for.as_nanos().max(1);
        // At most `lines`, since the age is at most the lifetime.
        lines.min(1 + u64::try_from(due).unwrap_or(lines))
    }
}

/// A pod between its start and its end.
#[derive(Debug)]
struct Living {
    index: u32,
    started: Duration,
    lines: u64,
    written: u64,
    output: Output,
    directory: PathBuf,
}

/// Writes the lines of pods that come and go.
#[derive(Debug)]
pub struct Churn {
    maker: OutputMaker,
    pods: Pods,
    lifetime: Lifetime,
    writer: LineWriter,
    /// The next pod to start.
    next: u32,
    living: Vec<Living>,
    /// Directories of ended pods, and when they are removed; in that order.
    ended: VecDeque<(Duration, PathBuf)>,
}

impl Churn {
    /// A writer of these pods, whose indices are the manifest's.
    pub fn new(maker: OutputMaker, pods: Pods, lifetime: Lifetime, shared: Arc<Shared>) -> Self {
        let writer = LineWriter::new(shared);
        let (living, ended) = (Vec::new(), VecDeque::new());
        Self { maker, pods, lifetime, writer, next: 0, living, ended }
    }

    /// Goes on until the last pod's directory is removed, or somebody stops it.
    pub fn run(mut self) -> Outcome {
        self.writer.shared().metrics.start(Instant::now());
        let ended = self.go_on_until_end().and_then(|end| {
            for pod in &mut self.living {
                self.writer.write_ends(pod.index as usize, &mut pod.output)?;
            }
            Ok(end)
        });
        self.writer.outcome(ended)
    }

    fn go_on_until_end(&mut self) -> Result<End, WriteError> {
        let start = Instant::now();
        loop {
            if let Some(end) = self.writer.stopped() {
                return Ok(end);
            }
            let elapsed = start.elapsed();
            self.start_due(elapsed)?;
            self.write_due(elapsed)?;
            self.remove_due(elapsed);
            if self.next == self.pods.count && self.living.is_empty() && self.ended.is_empty() {
                return Ok(End::Complete);
            }
            let wait = self.next_event().saturating_sub(start.elapsed());
            thread::sleep(wait.min(SLEEP_MAX));
        }
    }

    fn start_due(&mut self, elapsed: Duration) -> Result<(), WriteError> {
        while self.next < self.pods.count
            && self.lifetime.start_of(self.next, self.pods.count) <= elapsed
        {
            let index = self.next;
            let (output, log) = self.maker.pod(&self.pods, index).map_err(|error| WriteError {
                path: error.path.display().to_string(),
                written: 0,
                source: error.source,
            })?;
            // The pod's directory is the one above its container's.
            let directory = log.live.ancestors().nth(2).unwrap_or(&log.live).to_owned();
            let lines = self.maker.pod_lines(&self.pods, index).unwrap_or(0);
            let pod = Living { index, started: elapsed, lines, written: 0, output, directory };
            self.living.push(pod);
            self.next += 1;
        }
        Ok(())
    }

    fn write_due(&mut self, elapsed: Duration) -> Result<(), WriteError> {
        let mut late = 0;
        for pod in &mut self.living {
            let age = elapsed - pod.started;
            let before = self.lifetime.lines_due(pod.lines, age.saturating_sub(LATE_AFTER));
            late += before.saturating_sub(pod.written.max(1));
            let due = self.lifetime.lines_due(pod.lines, age) - pod.written;
            self.writer.write_lines(pod.index as usize, &mut pod.output, due)?;
            pod.written += due;
        }
        self.writer.shared().metrics.note_late(late);
        let lives_for = self.lifetime.lives_for;
        let removed_after = self.lifetime.removed_after;
        let ended = &mut self.ended;
        self.living.retain_mut(|pod| {
            let lives = elapsed < pod.started + lives_for || pod.written < pod.lines;
            if let Some(after) = removed_after.filter(|_| !lives) {
                ended.push_back((elapsed + after, std::mem::take(&mut pod.directory)));
            }
            lives
        });
        Ok(())
    }

    /// Removes directories whose time has come. One that can't be removed stays, and is counted.
    fn remove_due(&mut self, elapsed: Duration) {
        while let Some((_, directory)) = self.ended.pop_front_if(|(at, _)| *at <= elapsed) {
            if let Err(error) = fs::remove_dir_all(&directory) {
                self.writer.shared().metrics.note_rotation_error(&directory, &error);
            }
        }
    }

    /// When there is something to do next.
    fn next_event(&self) -> Duration {
        let start = (self.next < self.pods.count)
            .then(|| self.lifetime.start_of(self.next, self.pods.count));
        let removal = self.ended.front().map(|(at, _)| *at);
        let write = self.living.iter().map(|pod| pod.started + pod.written_until(&self.lifetime));
        let first = start.into_iter().chain(removal).chain(write).min();
        first.unwrap_or_default()
    }
}

impl Living {
    /// Age at which its next look is due: in ticks, at the latest at its end.
    fn written_until(&self, lifetime: &Lifetime) -> Duration {
        let share = self.written as f64 / self.lines.max(1) as f64;
        (lifetime.lives_for.mul_f64(share.min(1.0)) + TICK).min(lifetime.lives_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Lifetime = Lifetime {
        starts_within: Duration::from_secs(60),
        lives_for: Duration::from_millis(50),
        removed_after: None,
    };

    /// Scenario: a thousand pods within a minute; pods of ten lines, one and none, at all ages.
    /// Guarantees: starts are even; a first line comes at the start, the last by the end, and there
    /// are never more than the pod has.
    #[test]
    fn starts_and_lines_are_spread() {
        assert_eq!(LIFETIME.start_of(0, 1_000), Duration::ZERO);
        assert_eq!(LIFETIME.start_of(500, 1_000), Duration::from_secs(30));
        let due = |lines, millis| LIFETIME.lines_due(lines, Duration::from_millis(millis));
        let ages = [0, 5, 25, 49, 50, 1_000];
        assert_eq!(ages.map(|age| due(10, age)), [1, 2, 6, 10, 10, 10]);
        assert_eq!(ages.map(|age| due(1, age)), [1; 6]);
        assert_eq!(ages.map(|age| due(0, age)), [0; 6]);
    }
}
