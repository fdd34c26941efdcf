//! The verdict and the figures: all generators' manifests against all collectors' reports. It
//! judges; it measures nothing.

use std::collections::BTreeMap;

use nop_collector::{
    merge::{MergeError, unite},
    report::{LatencyMs, Report},
};
use serde::Serialize;
use thyme_core::quantity::grouped;

use crate::{
    checklist::{replaced, restarted_agents},
    phases::{Counts, Measured},
    sample::{Phase, Sample, Used, used},
    stack::{AGENT, COLLECTOR, GENERATOR},
};

/// What a run has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Why nothing can be said; empty for a valid run.
    pub invalid: Vec<String>,
    /// What should not have happened.
    pub failures: Vec<String>,
    /// Agents that were restarted meanwhile.
    pub agents_restarted: Vec<String>,
    /// Over the whole load, ramp-up included.
    pub whole: Whole,
    /// Over the active phase.
    pub active: Active,
    /// With the load stopped.
    pub idle: Idle,
}

/// What a run comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything written came, once.
    Passed,
    /// Something was lost, or came twice.
    Failed,
    /// The counts can't be trusted.
    Invalid,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
        })
    }
}

/// Over the whole load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Whole {
    /// By the manifests.
    pub lines_written: u64,
    /// Distinct.
    pub lines_received: u64,
    /// Written and not received.
    pub lines_lost: u64,
    /// Received again.
    pub lines_duplicated: u64,
    /// Records without a stamp: what other pods wrote.
    pub records_unstamped: u64,
    /// Lines of generators of an earlier run; they count nowhere else.
    pub lines_of_earlier_runs: u64,
    /// Refused requests by reason.
    pub requests_refused: BTreeMap<String, u64>,
    /// From the end of writing until everything was seen to have arrived.
    pub drain_seconds: Option<f64>,
}

/// Over the active phase.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Active {
    /// Its length.
    pub seconds: f64,
    /// Written, a second.
    pub lines_per_second: f64,
    /// Bodies written, in 10^6 bytes a second.
    pub megabytes_per_second: f64,
    /// Bytes of requests over bytes of bodies.
    pub wire_share: f64,
    /// Bytes of requests.
    pub wire_bytes: u64,
    /// From write to receipt.
    pub latency_ms: Option<LatencyMs>,
    /// The agents, all nodes.
    pub agents: Used,
    /// Processor time of all agents over lines written.
    pub agent_cpu_seconds_per_million_lines: f64,
    /// The generators.
    pub generators: Used,
    /// The collectors.
    pub collectors: Used,
    /// The longest queue of an agent, in requests.
    pub queue_size_max: f64,
}

/// With the load stopped and everything delivered.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Idle {
    /// The agents, all nodes.
    pub agents: Used,
}

impl Verdict {
    /// Judges what was measured.
    ///
    /// # Errors
    /// The reports contradict themselves.
    pub fn new(measured: &Measured) -> Result<Self, MergeError> {
        let Measured { pods, pods_at_end, end, .. } = measured;
        let (united, lines_of_earlier_runs) = end.united()?;
        let mut verdict = Self {
            invalid: replaced(pods, pods_at_end),
            failures: Vec::new(),
            agents_restarted: restarted_agents(pods, pods_at_end),
            whole: Whole {
                lines_written: end.written(),
                lines_received: united.report.received,
                lines_lost: united.report.lost.unwrap_or_default(),
                lines_duplicated: united.report.duplicated,
                records_unstamped: united.report.unstamped,
                lines_of_earlier_runs,
                requests_refused: united.report.invalid.clone(),
                drain_seconds: measured.drain_seconds,
            },
            active: active(measured)?,
            // The first reading may be from before the last line.
            idle: Idle {
                agents: used(of_phase(measured, Phase::Idle).get(1..).unwrap_or(&[]), pods, AGENT),
            },
        };
        let silent = measured.silent.iter().map(|name| format!("{name} did not answer"));
        verdict.invalid.extend(silent);
        if !united.report.exact {
            verdict.invalid.push("the collectors could not keep every interval".to_owned());
        }
        verdict.failures = verdict.whole.failures(verdict.agents_restarted.is_empty());
        Ok(verdict)
    }

    /// What it comes down to.
    pub fn outcome(&self) -> Outcome {
        match (self.invalid.is_empty(), self.failures.is_empty()) {
            (false, _) => Outcome::Invalid,
            (true, false) => Outcome::Failed,
            (true, true) => Outcome::Passed,
        }
    }
}

impl Whole {
    fn failures(&self, is_once: bool) -> Vec<String> {
        let mut failures = Vec::new();
        if self.lines_written == 0 {
            failures.push("nothing was written".to_owned());
        }
        if self.lines_lost > 0 {
            failures.push(format!("{} lines were lost", grouped(self.lines_lost)));
        }
        if self.lines_received.checked_add(self.lines_lost) != Some(self.lines_written) {
            failures.push(format!(
                "received {} and lost {} do not add up to the {} written",
                grouped(self.lines_received),
                grouped(self.lines_lost),
                grouped(self.lines_written)
            ));
        }
        if self.lines_duplicated > 0 && is_once {
            let lines = grouped(self.lines_duplicated);
            failures.push(format!("{lines} lines came twice, though no agent was restarted"));
        }
        failures
    }
}

fn of_phase(measured: &Measured, phase: Phase) -> Vec<&Sample> {
    measured.samples.iter().filter(|sample| sample.phase == phase).collect()
}

fn active(measured: &Measured) -> Result<Active, MergeError> {
    let Measured { active_start: start, active_end: end, pods, .. } = measured;
    let samples = of_phase(measured, Phase::Active);
    let seconds = end.at_seconds - start.at_seconds;
    let over = |amount: f64, by: f64| if by > 0.0 { amount / by } else { 0.0 };
    let written = end.written().saturating_sub(start.written()) as f64;
    let bytes = end.written_bytes().saturating_sub(start.written_bytes()) as f64;
    let wire = |counts: &Counts| counts.reports.iter().map(|report| report.wire_bytes).sum::<u64>();
    let wire_bytes = wire(end).saturating_sub(wire(start));
    let agents = used(&samples, pods, AGENT);
    let lines_per_second = over(written, seconds);
    Ok(Active {
        seconds,
        lines_per_second,
        megabytes_per_second: over(bytes / 1e6, seconds),
        wire_share: over(wire_bytes as f64, bytes),
        wire_bytes,
        latency_ms: latency_between(start, end)?,
        agents,
        // Both are rates, since samples and counts are not taken at the same moments.
        agent_cpu_seconds_per_million_lines: over(agents.cores * 1e6, lines_per_second),
        generators: used(&samples, pods, GENERATOR),
        collectors: used(&samples, pods, COLLECTOR),
        queue_size_max: samples
            .iter()
            .flat_map(|sample| sample.queue_size.values().copied())
            .fold(0.0, f64::max),
    })
}

/// Quantiles of the lines that came between two moments: those of a report that has only them.
fn latency_between(start: &Counts, end: &Counts) -> Result<Option<LatencyMs>, MergeError> {
    let sums = |counts: &Counts| {
        let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
        let all = counts.reports.iter().flat_map(|report| &report.latency_us_counts);
        all.flatten()
            .for_each(|&(latency_us, count)| *sums.entry(latency_us).or_default() += count);
        sums
    };
    let before = sums(start);
    let fresh = sums(end).into_iter().map(|(latency_us, count)| {
        (latency_us, count.saturating_sub(before.get(&latency_us).copied().unwrap_or_default()))
    });
    // A latency that no line had still counts as the longest once it is recorded.
    let fresh = fresh.filter(|&(_, count)| count > 0);
    let report = Report {
        streams_detail: Some(Vec::new()),
        latency_us_counts: Some(fresh.collect()),
        ..Report::default()
    };
    Ok(unite(&[report], None)?.report.latency_ms)
}

#[cfg(test)]
mod tests {
    use nop_collector::report::StreamReport;
    use thyme_core::manifest::ManifestLine;

    use super::*;

    fn stream(run: u32, intervals: &[(u64, u64)]) -> StreamReport {
        StreamReport {
            run,
            writer: 1,
            received: intervals.iter().map(|(first, last)| last - first + 1).sum(),
            highest: intervals.last().map(|&(_, last)| last),
            intervals: intervals.to_vec(),
            ..StreamReport::default()
        }
    }

    fn report(streams: Vec<StreamReport>, latencies: &[(u64, u64)]) -> Report {
        Report {
            received: streams.iter().map(|stream| stream.received).sum(),
            streams_detail: Some(streams),
            latency_us_counts: Some(latencies.to_vec()),
            exact: true,
            ..Report::default()
        }
    }

    fn counts(at_seconds: f64, lines: u64, reports: Vec<Report>) -> Counts {
        let stream = "stdout".to_owned();
        let line = ManifestLine {
            run: 7,
            writer: 1,
            stream,
            first: 0,
            last: lines - 1,
            lines,
            bytes: lines * 100,
            path: None,
        };
        Counts { at_seconds, manifest: vec![line], reports }
    }

    fn measured(end: Counts) -> Measured {
        let start =
            counts(10.0, 10, vec![report(vec![stream(7, &[(0, 9)])], &[(1_000, 9), (9_000, 1)])]);
        Measured {
            pods: Vec::new(),
            pods_at_end: Vec::new(),
            active_start: start,
            active_end: counts(
                20.0,
                100,
                vec![report(vec![stream(7, &[(0, 99)])], &[(1_000, 9), (5_000, 90), (9_000, 1)])],
            ),
            end,
            drain_seconds: Some(0.1),
            samples: Vec::new(),
            samples_failed: 0,
            silent: std::collections::BTreeSet::new(),
        }
    }

    /// Scenario: two collectors share 100 lines of a generator; one of them also has lines of an
    /// earlier run, from its middle on.
    /// Guarantees: nothing is lost; the earlier run's lines are counted apart.
    #[test]
    fn lines_of_earlier_runs_are_no_loss() {
        let reports = vec![
            report(vec![stream(7, &[(0, 49)]), stream(3, &[(1_000, 1_004)])], &[]),
            report(vec![stream(7, &[(50, 99)])], &[]),
        ];
        let verdict = Verdict::new(&measured(counts(21.0, 100, reports))).unwrap();
        assert_eq!(verdict.outcome(), Outcome::Passed, "{:?}", verdict.failures);
        assert_eq!((verdict.whole.lines_received, verdict.whole.lines_of_earlier_runs), (100, 5));
    }

    /// Scenario: a line is missing; then one came at both collectors.
    /// Guarantees: each fails the run, and says how many.
    #[test]
    fn losses_and_duplicates_fail() {
        let judged = |first: &[(u64, u64)], second: &[(u64, u64)]| {
            let reports = [first, second].map(|part| report(vec![stream(7, part)], &[])).to_vec();
            let verdict = Verdict::new(&measured(counts(21.0, 100, reports))).unwrap();
            assert_eq!(verdict.outcome(), Outcome::Failed);
            verdict.failures
        };
        assert_eq!(judged(&[(0, 49)], &[(51, 99)]), ["1 lines were lost"]);
        let twice = judged(&[(0, 50)], &[(50, 99)]);
        assert!(twice[0].starts_with("1 lines came twice"), "{twice:?}");
    }

    /// Scenario: a generator was replaced while it ran.
    /// Guarantees: the run is invalid, not just failed.
    #[test]
    fn a_replaced_generator_makes_it_invalid() {
        let mut measured =
            measured(counts(21.0, 100, vec![report(vec![stream(7, &[(0, 99)])], &[])]));
        measured.pods.push(crate::kubernetes::Pod {
            namespace: String::new(),
            name: "g".to_owned(),
            uid: "1".to_owned(),
            app: GENERATOR.to_owned(),
            node: String::new(),
            phase: String::new(),
            is_ready: true,
            restarts: 0,
            is_leaving: false,
        });
        let verdict = Verdict::new(&measured).unwrap();
        assert_eq!(verdict.invalid, ["g is gone"]);
        assert_eq!(verdict.outcome(), Outcome::Invalid);
    }

    /// Scenario: 10 lines before the active phase, 90 in it, with other latencies.
    /// Guarantees: rates and quantiles are those of the active phase alone.
    #[test]
    fn the_active_phase_stands_alone() {
        let end = counts(21.0, 100, vec![report(vec![stream(7, &[(0, 99)])], &[])]);
        let active = Verdict::new(&measured(end)).unwrap().active;
        assert!((active.lines_per_second - 9.0).abs() < 1e-9, "{active:?}");
        assert!((active.latency_ms.unwrap().p50 - 5.0).abs() < 0.01, "{active:?}");
        assert!((active.latency_ms.unwrap().max - 5.0).abs() < 0.01, "{active:?}");
    }
}
