//! The figures of a run and whether they pass: the table for people, the JSON for programs. It
//! computes and judges; it measures nothing.

use crate::{
    affected::Affected,
    bench::Finish,
    cli::LoadOptions,
    collector::Latency,
    error::{Error, Result, io_error},
};
use serde::Serialize;
use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};
use thyme_core::{
    quantity::{grouped, in_bytes, in_time, size},
    table::{self, Row},
};

/// What every scenario reports.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// `run`, `kill` and so on.
    pub scenario: &'static str,
    /// The agent's program.
    pub agent: String,
    /// Lines per second that were asked for.
    pub rate: u64,
    /// Containers.
    pub pods: u32,
    /// Kind of the lines.
    pub lines: &'static str,
    /// Protocol of the generated configuration; another agent or configuration has its own.
    pub protocol: Option<&'static str>,
    /// Compression of the generated configuration.
    pub compression: Option<&'static str>,
    /// Length of the writing phase.
    pub load_seconds: f64,
    /// From the end of writing until everything had come.
    pub drain_seconds: f64,
    /// By the manifest.
    pub lines_written: u64,
    /// Distinct.
    pub lines_received: u64,
    /// Written and not received.
    pub lines_lost: u64,
    /// Received again.
    pub lines_duplicated: u64,
    /// Identities of the records; absent where none was asked for and none came.
    pub record_uids: Option<RecordUids>,
    /// Received after a later line of the same writer.
    pub lines_reordered: u64,
    /// Records that no generator wrote.
    pub records_unstamped: u64,
    /// Written, over the writing phase.
    pub lines_per_second: f64,
    /// Bodies written, over the writing phase, in 10^6 bytes.
    pub megabytes_per_second: f64,
    /// Most lines that were due and not written yet: the generator's own lag.
    pub lines_late_max: u64,
    /// Bytes of all requests as they came, over bytes of the bodies written.
    pub wire_share: f64,
    /// Requests received.
    pub requests: u64,
    /// The agent's processor time over the writing phase.
    pub agent_cores: f64,
    /// The agent's whole processor time, from start to end.
    pub agent_cpu_seconds: f64,
    /// The same, over lines written.
    pub agent_cpu_seconds_per_million_lines: f64,
    /// The agent's largest resident memory.
    pub agent_rss_peak_bytes: u64,
    /// How the agent ended on SIGTERM.
    pub agent_end: String,
    /// The generator's processor time over the writing phase.
    pub generator_cores: f64,
    /// The collector's processor time over the writing phase.
    pub collector_cores: f64,
    /// From write to receipt; absent where nothing was measured.
    pub latency_ms: Option<Latency>,
    /// Whose lines are missing or came twice, the worst first.
    pub affected: Vec<Affected>,
    /// Where the run's files are, if they are kept.
    pub kept_in: Option<PathBuf>,
}

/// What `log.record.uid` is good for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RecordUids {
    /// Lines that carried one.
    pub lines: u64,
    /// Lines received again that a sink could remove by it.
    pub duplicates_removable: u64,
    /// Lines that a sink would remove wrongly: theirs had come before on another line.
    pub collisions: u64,
}

impl Figures {
    /// Takes the figures of a finished run.
    pub fn new(scenario: &'static str, options: &LoadOptions, finish: &Finish) -> Self {
        let Finish { written, report, load, .. } = finish;
        let over = |amount: f64, by: f64| if by > 0.0 { amount / by } else { 0.0 };
        let seconds = load.account.elapsed_seconds;
        let transport = options.transport();
        Self {
            scenario,
            agent: finish.agent_title.clone(),
            rate: options.rate,
            pods: options.pods,
            lines: options.kind.name(),
            protocol: transport.map(|(protocol, _)| protocol),
            compression: transport.map(|(_, compression)| compression),
            load_seconds: seconds,
            drain_seconds: finish.drain_seconds,
            lines_written: written.lines,
            lines_received: report.received,
            // What is not known to have come is not known to be safe.
            lines_lost: report.lost.unwrap_or(written.lines),
            lines_duplicated: report.duplicated,
            record_uids: (options.record_uid || report.uid_records > 0).then_some(RecordUids {
                lines: report.uid_records,
                duplicates_removable: report.duplicated_removable,
                collisions: report.uid_collisions,
            }),
            lines_reordered: report.reordered,
            records_unstamped: report.unstamped,
            lines_per_second: over(written.lines as f64, seconds),
            megabytes_per_second: over(written.bytes as f64 / 1e6, seconds),
            lines_late_max: load.account.late_lines_max,
            wire_share: over(report.wire_bytes as f64, written.bytes as f64),
            requests: report.requests,
            agent_cores: over(load.agent_cpu_seconds, load.seconds),
            agent_cpu_seconds: finish.agent.cpu_seconds,
            agent_cpu_seconds_per_million_lines: over(
                finish.agent.cpu_seconds * 1e6,
                written.lines as f64,
            ),
            agent_rss_peak_bytes: finish.agent.rss_peak_bytes,
            agent_end: finish
                .agent_status
                .map_or("had to be killed".into(), |status| status.to_string()),
            generator_cores: over(load.generator_cpu_seconds, load.seconds),
            collector_cores: over(load.collector_cpu_seconds, load.seconds),
            latency_ms: report.latency_ms,
            affected: finish.affected.clone(),
            kept_in: finish.kept_in.clone(),
        }
    }

    /// What must hold in every scenario: something was written, all of it came, and the collector's
    /// count of the lost agrees with the manifest.
    pub fn judge(&self, duplicates_max: Option<u64>) -> Vec<String> {
        let mut failures = Vec::new();
        if self.lines_written == 0 {
            failures.push("nothing was written".to_owned());
        }
        if self.lines_lost > 0 {
            failures.push(format!("{} lines were lost", grouped(self.lines_lost)));
        }
        // The collector is part of what is under test: its own arithmetic is checked here.
        if self.lines_received.checked_add(self.lines_lost) != Some(self.lines_written) {
            failures.push(format!(
                "received {} and lost {} do not add up to the {} of the manifest",
                grouped(self.lines_received),
                grouped(self.lines_lost),
                grouped(self.lines_written)
            ));
        }
        if let Some(max) = duplicates_max.filter(|&max| self.lines_duplicated > max) {
            let duplicated = grouped(self.lines_duplicated);
            failures.push(format!(
                "{duplicated} lines came more than once, {} are allowed",
                grouped(max)
            ));
        }
        if let Some(uids) = self.record_uids {
            self.judge_uids(uids, &mut failures);
        }
        failures
    }

    /// Where to look after a failure: whose lines are missing or came twice, and in which files.
    fn where_to_look(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.affected.iter().map(ToString::to_string).collect();
        lines.push(match &self.kept_in {
            Some(place) => {
                format!("logs, state and what the processes said are in {}", place.display())
            }
            None => {
                "the logs are gone; KEEP=1 with make, or --keep, keeps them in the next run".into()
            }
        });
        lines
    }

    /// Every line must carry an identity, by which all duplicates and nothing else can be removed.
    fn judge_uids(&self, uids: RecordUids, failures: &mut Vec<String>) {
        let without = (self.lines_received + self.lines_duplicated).saturating_sub(uids.lines);
        if without > 0 {
            failures.push(format!("{} lines had no log.record.uid", grouped(without)));
        }
        let remaining = self.lines_duplicated.saturating_sub(uids.duplicates_removable);
        if remaining > 0 {
            let remaining = grouped(remaining);
            failures.push(format!("{remaining} duplicates can't be removed by log.record.uid"));
        }
        if uids.collisions > 0 {
            let collisions = grouped(uids.collisions);
            failures.push(format!("{collisions} lines had another line's log.record.uid"));
        }
    }
}

/// A verdict: figures, what a scenario adds to them, and what speaks against passing.
#[derive(Debug, Serialize)]
pub struct Verdict<D> {
    /// What every scenario reports.
    #[serde(flatten)]
    pub figures: Figures,
    /// What this scenario adds.
    #[serde(flatten)]
    pub details: D,
    /// Empty when the run passed.
    pub failures: Vec<String>,
}

impl<D: Serialize> Verdict<D> {
    /// Whether the run passed.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Writes the JSON.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let mut json = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Usage(format!("figures do not fit JSON: {error}")))?;
        json.push('\n');
        fs::write(path, json).map_err(io_error(format!("writing {}", path.display())))
    }

    /// The table, with the scenario's own rows after the common ones, and the verdict.
    pub fn table(&self, rows: &[Row], colour: bool) -> String {
        let mut all = common_rows(&self.figures);
        all.extend_from_slice(rows);
        let mut reasons = self.failures.clone();
        if !self.passed() {
            reasons.extend(self.figures.where_to_look());
        }
        table::columns(&all) + &table::verdict(&reasons, colour)
    }
}

/// Makes sure that the JSON can be written, before anything takes its time. A file that is there
/// stays as it is.
///
/// # Errors
/// Names the path.
pub fn check_json(path: &Path) -> Result<()> {
    let checked = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_made) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().append(true).open(path).map(drop)
        }
        Err(error) => Err(error),
    };
    checked.map_err(io_error(format!("--json {}", path.display())))
}

fn common_rows(figures: &Figures) -> Vec<Row> {
    let Figures { agent, agent_end, .. } = figures;
    let transport = match (figures.protocol, figures.compression) {
        (Some(protocol), Some(compression)) => format!("{protocol} {compression}"),
        _ => "sending as it is configured".into(),
    };
    let load = format!(
        "{} lines/s, {} pods, {} lines, {:.1} s",
        grouped(figures.rate),
        grouped(figures.pods.into()),
        figures.lines,
        figures.load_seconds,
    );
    let count = |name, lines| Row::figure(name, (grouped(lines), ""));
    let cores = |name, cores: f64| Row::figure(name, (format!("{cores:.3}"), "cores"));
    let mut rows = vec![
        Row::words("agent", format!("{agent}, {transport}; its end: {agent_end}")),
        Row::words("load", load),
        Row::figure("drain", in_time(figures.drain_seconds * 1e3)),
        count("lines written", figures.lines_written),
        count("lines received", figures.lines_received),
        count("lines lost", figures.lines_lost),
        count("lines duplicated", figures.lines_duplicated),
        Row::figure("throughput", (grouped(figures.lines_per_second as u64), "lines/s"))
            .note(format!("{}/s", size((figures.megabytes_per_second * 1e6) as u64))),
        Row::figure("on the wire", (format!("{:.1}", figures.wire_share * 100.0), "%"))
            .note(format!("of what was written, in {} requests", grouped(figures.requests))),
        cores("agent CPU", figures.agent_cores).note(format!(
            "{:.3} CPU-seconds per million lines",
            figures.agent_cpu_seconds_per_million_lines
        )),
        Row::figure("agent peak RSS", in_bytes(figures.agent_rss_peak_bytes)),
    ];
    match figures.latency_ms {
        Some(Latency { p50, p90, p99, max }) => {
            let quantiles = [("p50", p50), ("p90", p90), ("p99", p99), ("max", max)];
            rows.extend(
                quantiles.map(|(name, ms)| Row::figure(format!("latency {name}"), in_time(ms))),
            );
        }
        None => rows.push(Row::words("latency", "nothing was measured")),
    }
    rows.push(
        cores("generator CPU", figures.generator_cores)
            .note(format!("at most {} lines late", grouped(figures.lines_late_max))),
    );
    rows.push(cores("collector CPU", figures.collector_cores));
    if let Some(uids) = figures.record_uids {
        let duplicates = format!(
            "duplicates removable by log.record.uid: {} of {}; collisions: {}",
            grouped(uids.duplicates_removable),
            grouped(figures.lines_duplicated),
            grouped(uids.collisions)
        );
        rows.push(Row::words("identities", duplicates));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            scenario: "run",
            agent: "thyme-agent".into(),
            rate: 1000,
            pods: 2,
            lines: "mixed",
            protocol: Some("grpc"),
            compression: Some("zstd"),
            load_seconds: 10.0,
            drain_seconds: 0.2,
            lines_written: 10_000,
            lines_received: 10_000,
            lines_lost: 0,
            lines_duplicated: 0,
            record_uids: None,
            lines_reordered: 0,
            records_unstamped: 0,
            lines_per_second: 1000.0,
            megabytes_per_second: 0.2,
            lines_late_max: 0,
            wire_share: 0.1,
            requests: 50,
            agent_cores: 0.1,
            agent_cpu_seconds: 1.0,
            agent_cpu_seconds_per_million_lines: 100.0,
            agent_rss_peak_bytes: 20 << 20,
            agent_end: "exit status: 0".into(),
            generator_cores: 0.1,
            collector_cores: 0.1,
            latency_ms: Some(Latency { p50: 1.0, p90: 2.0, p99: 3.0, max: 4.0 }),
            affected: Vec::new(),
            kept_in: None,
        }
    }

    /// Scenario: a clean run, then one with each thing that can be wrong.
    /// Guarantees: only the clean one passes, and each failure is named.
    #[test]
    fn every_shortcoming_fails_the_run() {
        let clean = figures();
        assert!(clean.judge(Some(0)).is_empty());
        let cases: [(Figures, &str); 4] = [
            (Figures { lines_written: 0, lines_received: 0, ..clean.clone() }, "nothing"),
            (
                Figures { lines_received: 9_999, lines_lost: 1, ..clean.clone() },
                "1 lines were lost",
            ),
            (Figures { lines_received: 9_999, ..clean.clone() }, "do not add up"),
            (Figures { lines_duplicated: 1, ..clean.clone() }, "more than once"),
        ];
        for (figures, expected) in cases {
            let failures = figures.judge(Some(0));
            assert_eq!(failures.len(), 1, "{failures:?}");
            assert!(failures[0].contains(expected), "{failures:?}");
        }
        assert!(Figures { lines_duplicated: 7, ..clean }.judge(None).is_empty());
    }

    /// Scenario: a run with identities whose duplicates can all be removed, then one with each thing
    /// that can be wrong with them.
    /// Guarantees: only the first passes, and each failure is named; the table says what it is about.
    #[test]
    fn identities_must_remove_duplicates_and_nothing_else() {
        let good = RecordUids { lines: 10_007, duplicates_removable: 7, collisions: 0 };
        let with = |uids| Figures { lines_duplicated: 7, record_uids: Some(uids), ..figures() };
        assert!(with(good).judge(None).is_empty());
        let cases = [
            (RecordUids { lines: 10_006, ..good }, "1 lines had no log.record.uid"),
            (RecordUids { duplicates_removable: 5, ..good }, "2 duplicates can't be removed"),
            (RecordUids { collisions: 3, ..good }, "3 lines had another line's"),
        ];
        for (uids, expected) in cases {
            let failures = with(uids).judge(None);
            assert_eq!(failures.len(), 1, "{failures:?}");
            assert!(failures[0].contains(expected), "{failures:?}");
        }
        let said = table::columns(&common_rows(&with(good)));
        let expected =
            "identities         duplicates removable by log.record.uid: 7 of 7; collisions: 0\n";
        assert!(said.ends_with(expected), "{said}");
    }

    /// Scenario: the table and the JSON of a failed run with a scenario's own rows.
    /// Guarantees: both hold the common figures, the scenario's, the failure and whose lines are
    /// missing; the table says how to keep the logs, or where they are.
    #[test]
    fn table_and_json_say_the_same() {
        #[derive(Serialize)]
        struct Details {
            kills: u32,
        }
        let lost = Affected {
            file: Some("ns_pod_uid/app/0.log".into()),
            stream: "stdout".into(),
            run: 1,
            writer: 2,
            lost: 3,
            first_lost: vec![(7, 9)],
            duplicated: 0,
            first_duplicated: None,
        };
        let failures = vec!["3 lines were lost".to_owned()];
        let figures = Figures { affected: vec![lost], ..figures() };
        let mut verdict = Verdict { figures, details: Details { kills: 20 }, failures };
        let rows = [Row::figure("kills", ("20".into(), ""))];
        let table = verdict.table(&rows, false);
        for line in [
            "lines written      10,000\n",
            "agent peak RSS       20.0 MiB\n",
            "kills                  20\n",
            "FAILED             3 lines were lost\n",
            "ns_pod_uid/app/0.log (stdout): 3 lost, first 7-9; stamp 00000001-00000002-000000000007\n",
            "                   the logs are gone; KEEP=1 with make, or --keep, keeps them",
        ] {
            assert!(table.contains(line), "{table}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("figures.json");
        verdict.write_json(&path).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["lines_written"], 10_000);
        assert_eq!(json["kills"], 20);
        assert_eq!(json["latency_ms"]["p99"], 3.0);
        assert_eq!(json["failures"][0], "3 lines were lost");
        assert_eq!(json["affected"][0]["first_lost"][0][1], 9);
        verdict.figures.kept_in = Some("/kept".into());
        assert!(verdict.table(&rows, false).ends_with("said are in /kept\n"));
    }

    /// Scenario: a passed run, and one in which nothing was received.
    /// Guarantees: PASSED stands where FAILED does; no latency is shown that nobody has measured.
    #[test]
    fn what_was_not_measured_is_not_shown() {
        let verdict = |figures| Verdict { figures, details: (), failures: Vec::new() };
        let table = verdict(figures()).table(&[], false);
        assert!(table.ends_with("\nPASSED\n") && table.contains("latency p50"), "{table}");
        let table = verdict(Figures { latency_ms: None, ..figures() }).table(&[], false);
        assert!(table.contains("latency            nothing was measured\n"), "{table}");
        assert!(!table.contains("p50"), "{table}");
    }

    /// Scenario: figures are to go to a new file, to one that is there, and into no directory.
    /// Guarantees: the last is refused by name; the others are neither made nor changed.
    #[test]
    fn a_place_for_figures_is_checked_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (new, old) = (directory.path().join("new"), directory.path().join("old"));
        fs::write(&old, "x").unwrap();
        check_json(&new).unwrap();
        check_json(&old).unwrap();
        assert!(!new.exists());
        assert_eq!(fs::read(&old).unwrap(), b"x");
        let error = check_json(Path::new("/dev/null/figures.json")).unwrap_err().to_string();
        assert!(error.starts_with("--json /dev/null/figures.json: "), "{error}");
    }
}
