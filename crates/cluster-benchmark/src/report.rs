//! The directory that a run leaves: REPORT.md for people, metrics.json for programs, plots, logs,
//! and the configuration that ran.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use nop_collector::report::LatencyMs;
use serde::Serialize;
use serde_json::Value;
use thyme_core::quantity::grouped;

use crate::{
    checklist::Check,
    cost::{Cost, PRICES_OF},
    error::{Error, Result, file_error},
    images::ImageSet,
    kubernetes::{Node, Pod},
    limits::REPORTS_A_DAY_MAX,
    phases::Measured,
    plot::{self, Series},
    sample::Sample,
    stack::AGENT,
    verdict::Verdict,
};

/// A run's directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

/// Everything that the report tells.
#[derive(Debug, Serialize)]
pub struct Story<'a> {
    /// `aws`, or the overlay's name.
    pub place: &'a str,
    /// When the load began, RFC 3339.
    pub began: String,
    /// Commit that was checked out: of the manifests and of this program.
    pub commit: String,
    /// Kubernetes' version.
    pub server_version: String,
    /// The images, if they were chosen by digest.
    #[serde(skip)]
    pub images: Option<&'a ImageSet>,
    /// The nodes.
    #[serde(skip)]
    pub nodes: &'a [Node],
    /// What was checked before.
    pub checklist: &'a [Check],
    /// What it has shown.
    pub verdict: &'a Verdict,
    /// What it costs; none on a cluster that nobody was asked to pay for.
    pub cost: Option<&'a Cost>,
    /// Looks that failed.
    pub samples_failed: u32,
    /// Looks.
    pub samples: &'a [Sample],
}

impl Directory {
    /// Makes `DATE-NN-PLACE` below `reports`; `date` as `2026-11-24`.
    ///
    /// # Errors
    /// It can't be made, or the day has too many reports.
    pub fn create(reports: &Path, date: &str, place: &str) -> Result<Self> {
        fs::create_dir_all(reports).map_err(file_error(reports))?;
        for number in 1..=REPORTS_A_DAY_MAX {
            let path = reports.join(format!("{date}-{number:02}-{place}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(file_error(path)(error)),
            }
        }
        Err(Error::Refused(format!(
            "{} has {REPORTS_A_DAY_MAX} reports of {date}",
            reports.display()
        )))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, with the directories that it needs.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(file_error(parent))?;
        }
        fs::write(&path, content).map_err(file_error(path))
    }

    /// Writes plots, metrics.json and REPORT.md.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn tell(&self, story: &Story<'_>, measured: &Measured) -> Result<()> {
        let json = serde_json::to_vec_pretty(story).expect("the story is plain data");
        self.write("metrics.json", json)?;
        let mut plots = Vec::new();
        for (name, title, unit, series) in graphs(&measured.samples, &measured.pods) {
            let path = self.path.join(format!("{name}.svg"));
            let drawn = plot::draw(&path, title, unit, &series);
            let drawn =
                drawn.map_err(|error| file_error(path)(io::Error::other(error.to_string())))?;
            if drawn {
                plots.push((name, title));
            }
        }
        self.write("REPORT.md", markdown(story, &plots))
    }
}

type Graph = (&'static str, &'static str, &'static str, Vec<Series>);

/// Curves over the whole run.
fn graphs(samples: &[Sample], pods: &[Pod]) -> Vec<Graph> {
    let single = |value: &dyn Fn(&Sample, &Sample) -> Option<f64>, name: &str| {
        let pairs = samples.windows(2);
        let points =
            pairs.filter_map(|pair| Some((pair[1].at_seconds, value(&pair[0], &pair[1])?)));
        Series { name: name.to_owned(), points: points.collect() }
    };
    let of_agents = |value: &dyn Fn(&Sample, &Sample, &str) -> Option<f64>| -> Vec<Series> {
        let agents = pods.iter().filter(|pod| pod.app == AGENT);
        agents
            .map(|pod| {
                let name = format!("{} on {}", pod.name, pod.node);
                single(&|before, now| value(before, now, &pod.name), &name)
            })
            .collect()
    };
    let rate = single(
        &|before, now| {
            let seconds = now.at_seconds - before.at_seconds;
            (seconds > 0.0).then(|| now.received.saturating_sub(before.received) as f64 / seconds)
        },
        "received",
    );
    let cores = of_agents(&|before, now, pod| {
        let (before, now) = (before.usage.get(pod)?, now.usage.get(pod)?);
        let seconds = (now.at_unix_ms - before.at_unix_ms) as f64 / 1e3;
        // A kubelet that has not looked again repeats its last reading.
        (seconds > 0.0).then(|| (now.cpu_seconds - before.cpu_seconds).max(0.0) / seconds)
    });
    let memory = of_agents(&|_, now, pod| {
        Some(now.usage.get(pod)?.memory_bytes as f64 / f64::from(1 << 20))
    });
    let queue = of_agents(&|_, now, pod| now.queue_size.get(pod).copied());
    vec![
        ("throughput", "Lines received", "lines/s", vec![rate]),
        ("agent-cpu", "Agents' processor time", "cores", cores),
        ("agent-memory", "Agents' working set", "MiB", memory),
        ("agent-queue", "Agents' queues", "requests", queue),
    ]
}

fn markdown(story: &Story<'_>, plots: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let verdict = story.verdict;
    put(&mut out, format_args!("# Benchmark on {}, {}\n", story.place, story.began));
    put_verdict(&mut out, verdict);
    put_table(&mut out, "Delivery, over the whole load", &delivery_rows(verdict));
    put_table(&mut out, "Active phase", &active_rows(verdict));
    for (name, title) in plots {
        put(&mut out, format_args!("![{title}]({name}.svg)\n"));
    }
    put_checklist(&mut out, story.checklist);
    put_what_ran(&mut out, story);
    if let Some(cost) = story.cost {
        put_cost(&mut out, cost);
    }
    put(
        &mut out,
        format_args!(
            "## How the figures are made\n\n\
             - Loss and duplicates: every generator's manifest against the intervals of sequence \
             numbers that all collectors received, ramp-up and cool-down included.\n\
             - Processor time and memory: the kubelets' own account (`/metrics/resource`) of whole \
             pods, from the first to the last reading of the active phase.\n\
             - Latency: from a line's own stamp until its request had arrived, lines of the active \
             phase only. Generator and collector are on different nodes: their clocks' difference \
             is in it.\n\
             - {} samples were taken, {} failed. All of them: `metrics.json`. What was run: \
             `commands.log`.\n",
            story.samples.len(),
            story.samples_failed
        ),
    );
    out
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .and_then(|()| out.write_char('\n'))
        .expect("writing to a String can't fail");
}

fn put_verdict(out: &mut String, verdict: &Verdict) {
    put(out, format_args!("**Verdict: {}.**\n", verdict.outcome()));
    let reasons = verdict.invalid.iter().chain(&verdict.failures);
    reasons.for_each(|reason| put(out, format_args!("- {reason}")));
    if !verdict.agents_restarted.is_empty() {
        let names = verdict.agents_restarted.join(", ");
        put(out, format_args!("- restarted meanwhile, so that lines may come twice: {names}"));
    }
    put(out, format_args!(""));
}

fn put_table(out: &mut String, title: &str, rows: &[(&str, String)]) {
    put(out, format_args!("## {title}\n\n| | |\n|---|---|"));
    rows.iter().for_each(|(name, value)| put(out, format_args!("| {name} | {value} |")));
    put(out, format_args!(""));
}

fn delivery_rows(verdict: &Verdict) -> Vec<(&'static str, String)> {
    let whole = &verdict.whole;
    let refused: u64 = whole.requests_refused.values().sum();
    vec![
        ("lines written", grouped(whole.lines_written)),
        ("lines received", grouped(whole.lines_received)),
        ("lines lost", grouped(whole.lines_lost)),
        ("lines duplicated", grouped(whole.lines_duplicated)),
        ("lines of earlier runs, not counted", grouped(whole.lines_of_earlier_runs)),
        ("other pods' records", grouped(whole.records_unstamped)),
        ("requests refused", grouped(refused)),
        (
            "seen to be complete, after the load's end",
            whole.drain_seconds.map_or("not all came".into(), |seconds| format!("{seconds:.1} s")),
        ),
    ]
}

fn active_rows(verdict: &Verdict) -> Vec<(&'static str, String)> {
    let active = &verdict.active;
    let latency = active.latency_ms.map_or("nothing was measured".into(), |latency| {
        let LatencyMs { p50, p90, p99, max } = latency;
        format!("p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, max {max:.1} ms")
    });
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    vec![
        ("length", format!("{:.0} s", active.seconds)),
        (
            "throughput",
            format!(
                "{} lines/s, {:.1} MB/s",
                grouped(active.lines_per_second as u64),
                active.megabytes_per_second
            ),
        ),
        ("on the wire", format!("{:.1} % of it", active.wire_share * 100.0)),
        ("latency", latency),
        ("agents, all nodes", format!("{:.3} cores", active.agents.cores)),
        ("busiest agent", format!("{:.3} cores", active.agents.cores_max)),
        (
            "agents' processor time for a million lines",
            format!("{:.2} s", active.agent_cpu_seconds_per_million_lines),
        ),
        ("largest agent", mib(active.agents.memory_bytes_max)),
        ("longest queue", format!("{:.0} requests", active.queue_size_max)),
        ("generators", format!("{:.3} cores", active.generators.cores)),
        ("collectors", format!("{:.3} cores", active.collectors.cores)),
        ("agents without load", format!("{:.4} cores", verdict.idle.agents.cores)),
    ]
}

fn put_checklist(out: &mut String, checks: &[Check]) {
    put(out, format_args!("## Checked before\n"));
    for check in checks {
        let mark = if check.holds { 'x' } else { ' ' };
        put(out, format_args!("- [{mark}] {}: {}", check.name, check.found));
    }
    put(out, format_args!(""));
}

fn put_what_ran(out: &mut String, story: &Story<'_>) {
    put(out, format_args!("## What ran\n\n- checked out: commit {}", story.commit));
    put(out, format_args!("- Kubernetes {}", story.server_version));
    for node in story.nodes {
        put(out, format_args!("- node {} {} {}", node.name, node.instance_type, node.zone));
    }
    match story.images {
        None => put(out, format_args!("- images as the overlay names them")),
        Some(set) => {
            for image in &set.images {
                put(out, format_args!("- `{}@{}` ({})", image.repository, image.digest, set.tag));
            }
        }
    }
    put(out, format_args!("- all of it: `configuration/`\n"));
}

fn put_cost(out: &mut String, cost: &Cost) {
    put(
        out,
        format_args!(
            "## Cost, {:.2} hours from the first `tofu apply`\n\nBy {PRICES_OF}.\n\n\
             | | an hour | this run |\n|---|---|---|",
            cost.hours
        ),
    );
    for item in &cost.items {
        put(out, format_args!("| {} | ${:.3} | ${:.3} |", item.name, item.an_hour, item.of_run));
    }
    let (an_hour, of_run) = (cost.an_hour(), cost.of_run());
    put(out, format_args!("| **all** | **${an_hour:.3}** | **${of_run:.3}** |\n"));
    cost.caveats.iter().for_each(|caveat| put(out, format_args!("- {caveat}")));
    put(out, format_args!(""));
}

/// OpenTofu's outputs as they go into the report.
pub fn outputs_json(outputs: &std::collections::BTreeMap<String, Value>) -> Vec<u8> {
    serde_json::to_vec_pretty(outputs).expect("values are valid JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: three reports on one day.
    /// Guarantees: each has a directory of its own, numbered.
    #[test]
    fn directories_are_numbered() {
        let parent = tempfile::tempdir().unwrap();
        for expected in ["2026-11-24-01-aws", "2026-11-24-02-aws", "2026-11-24-03-aws"] {
            let directory = Directory::create(parent.path(), "2026-11-24", "aws").unwrap();
            assert!(directory.path().ends_with(expected));
        }
    }
}
