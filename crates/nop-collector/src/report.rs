//! The report and its JSON: a picture of what the verifier knows at one moment, complete enough
//! (with its details) that `merge` can unite several.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use thyme_core::stamp::SEQUENCE_MAX;

use crate::intervals::{Interval, Intervals};
use crate::observe::StreamKey;
use crate::verify::{Stream, Verifier};

/// What a collector received, and what that proves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Log records in accepted requests, stamped or not.
    pub records: u64,
    /// Accepted requests.
    pub requests: u64,
    /// Requests of any outcome, refused ones and those that met a scripted fault included.
    pub attempts: u64,
    /// Bodies of accepted requests as they came, bytes.
    pub wire_bytes: u64,
    /// Messages of accepted requests, decompressed, bytes.
    pub decompressed_bytes: u64,
    /// Streams (pairs of run and writer) of which anything came.
    pub streams: u64,
    /// Streams whose last line came.
    pub ended_streams: u64,
    /// Distinct stamped lines.
    pub received: u64,
    /// Lines that are missing of those that the manifest lists; for a writer that it doesn't list,
    /// of those from sequence number 0 to the highest that came. `None` without a manifest: then
    /// nobody knows what was written.
    pub lost: Option<u64>,
    /// Lines that are missing from sequence number 0 to the highest that came, of all writers: with
    /// or without a manifest.
    #[serde(default)]
    pub gaps: u64,
    /// Records beyond the first of each stamped line.
    pub duplicated: u64,
    /// Of these, records whose `log.record.uid` had come before on the same line: a sink that keeps
    /// the first record of each identity removes them. Identities are read in protobuf only.
    #[serde(default)]
    pub duplicated_removable: u64,
    /// The others: they would stay. At most so many, if identities were forgotten.
    #[serde(default)]
    pub duplicated_remaining: u64,
    /// Stamped records with a `log.record.uid`.
    #[serde(default)]
    pub uid_records: u64,
    /// Those whose identity had come before on another line: a sink would remove them wrongly. At
    /// least so many, if identities were forgotten.
    #[serde(default)]
    pub uid_collisions: u64,
    /// Identities that are not remembered any more: the latest are, 1.8 million or more of each
    /// collector.
    #[serde(default)]
    pub uids_forgotten: u64,
    /// First arrivals of a line after a later line of its stream.
    pub reordered: u64,
    /// Records without a stamp.
    pub unstamped: u64,
    /// Records whose body is a string that isn't UTF-8.
    pub invalid_utf8: u64,
    /// Distinct lines of the manifest's writers that the manifest doesn't list.
    pub unexpected: u64,
    /// Stamped records that came after a limit on streams or intervals was reached. They count as
    /// lost where they can be missed at all.
    pub untracked: u64,
    /// Whether the figures are exact: nothing is untracked.
    pub exact: bool,
    /// From write to receipt; `None` until a stamped line came.
    pub latency_ms: Option<LatencyMs>,
    /// Whether a manifest was posted.
    pub manifest: bool,
    /// Lines that the manifest lists.
    pub manifest_lines: u64,
    /// When the first accepted request had come, nanoseconds since the Unix epoch; 0 for none.
    pub first_received_unix_nano: u64,
    /// When the last accepted request had come, nanoseconds since the Unix epoch; 0 for none.
    pub last_received_unix_nano: u64,
    /// Refused requests by reason.
    pub invalid: BTreeMap<String, u64>,
    /// Each stream, in order of run and writer; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams_detail: Option<Vec<StreamReport>>,
    /// Each run, in ascending order; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Vec<RunReport>>,
    /// The latencies' distribution, pairs of microseconds and count; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us_counts: Option<Vec<(u64, u64)>>,
}

/// Quantiles of the latency, milliseconds, to three significant digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyMs {
    /// Half of the lines came faster.
    pub p50: f64,
    /// 90 % came faster.
    pub p90: f64,
    /// 99 % came faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// What is known of one run: of one start of a generator. Writers that are to be told apart, such as
/// a flood and its quiet neighbours, are runs of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The run in its stamps.
    pub run: u32,
    /// Distinct lines.
    pub received: u64,
    /// Missing lines, as in the whole report.
    pub lost: Option<u64>,
    /// Records beyond the first of each line.
    pub duplicated: u64,
    /// From write to receipt; `None` for a run beyond the limit on runs.
    pub latency_ms: Option<LatencyMs>,
    /// The latencies' distribution, pairs of microseconds and count, ascending. What was added
    /// between two reports is the difference of their counts.
    pub latency_us_counts: Vec<(u64, u64)>,
}

/// What a report holds beyond its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Each stream, and the distribution of all latencies.
    pub streams: bool,
    /// Each run.
    pub runs: bool,
}

impl Detail {
    /// Reads a URL's query: `intervals=1` and `runs=1`.
    pub fn from_query(query: &str) -> Self {
        let has = |wanted: &str| query.split('&').any(|pair| pair == wanted);
        Self { streams: has("intervals=1"), runs: has("runs=1") }
    }
}

/// What is known of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamReport {
    /// The run in its stamps.
    pub run: u32,
    /// The writer in its stamps.
    pub writer: u32,
    /// Distinct lines.
    pub received: u64,
    /// Missing lines, as in the whole report.
    pub lost: Option<u64>,
    /// Records beyond the first of each line.
    pub duplicated: u64,
    /// The first sequence number that was seen to come again.
    #[serde(default)]
    pub first_duplicated: Option<u64>,
    /// First arrivals of a line after a later line.
    pub reordered: u64,
    /// Records beyond the limit on intervals.
    pub untracked: u64,
    /// The highest sequence number that came.
    pub highest: Option<u64>,
    /// Whether the writer's last line came.
    pub end_seen: bool,
    /// The sequence numbers that came: first and last of each interval, ascending.
    pub intervals: Vec<(u64, u64)>,
}

impl Verifier {
    /// The report of this moment.
    pub(crate) fn report(&self, detail: Detail) -> Report {
        let totals = &self.totals;
        let latency_us = self.latency_of_all();
        let mut report = Report {
            records: totals.records,
            requests: totals.requests,
            attempts: totals.attempts,
            wire_bytes: totals.wire_bytes,
            decompressed_bytes: totals.decompressed_bytes,
            streams: self.streams.len() as u64,
            uid_records: self.uids.counts.records,
            uid_collisions: self.uids.counts.collisions,
            uids_forgotten: self.uids.counts.forgotten,
            unstamped: totals.unstamped,
            invalid_utf8: totals.invalid_utf8,
            untracked: totals.untracked,
            latency_ms: LatencyMs::of(&latency_us),
            manifest: self.manifest_posted,
            manifest_lines: self.manifest.values().map(|line| line.lines).sum(),
            first_received_unix_nano: totals.first_received_unix_nano,
            last_received_unix_nano: totals.last_received_unix_nano,
            invalid: self.invalid.iter().map(|(&why, &count)| (why.to_owned(), count)).collect(),
            ..Report::default()
        };
        let mut lost = self.never_arrived().map(|(_, lines)| lines).sum::<u64>();
        for (key, stream) in &self.streams {
            let line = self.manifest.get(key);
            report.received += stream.received;
            report.duplicated += stream.duplicated;
            report.reordered += stream.reordered;
            report.untracked += stream.untracked;
            report.ended_streams += u64::from(stream.end_seen);
            report.gaps += stream.gaps();
            lost += stream.lost(line);
            report.unexpected += line.map_or(0, |line| stream.unexpected(line));
        }
        report.lost = self.if_known(lost);
        // What is untracked may repeat without being counted as a duplicate.
        report.duplicated_removable = self.uids.counts.repeated.min(report.duplicated);
        report.duplicated_remaining = report.duplicated - report.duplicated_removable;
        report.exact = report.untracked == 0;
        if detail.streams {
            report.streams_detail = Some(self.streams_detail());
            report.latency_us_counts = Some(counts_of(&latency_us));
        }
        report.runs = detail.runs.then(|| self.runs());
        report
    }

    /// A number of lost lines, where a manifest says what was written.
    fn if_known(&self, lost: u64) -> Option<u64> {
        self.manifest_posted.then_some(lost)
    }

    /// The manifest's writers of which nothing came, and how many lines each wrote.
    fn never_arrived(&self) -> impl Iterator<Item = (StreamKey, u64)> {
        let missing = self.manifest.iter().filter(|(key, _)| !self.streams.contains_key(*key));
        missing.map(|(&key, line)| (key, line.lines))
    }

    fn runs(&self) -> Vec<RunReport> {
        let add = |sum: &mut Option<u64>, lost: Option<u64>| {
            *sum = lost.map(|lost| lost + sum.unwrap_or(0));
        };
        let mut runs: BTreeMap<u32, RunReport> = BTreeMap::new();
        for (key, stream) in &self.streams {
            let run = runs.entry(key.run).or_default();
            run.received += stream.received;
            run.duplicated += stream.duplicated;
            add(&mut run.lost, self.if_known(stream.lost(self.manifest.get(key))));
        }
        for (key, lines) in self.never_arrived() {
            add(&mut runs.entry(key.run).or_default().lost, self.if_known(lines));
        }
        for (number, run) in &mut runs {
            run.run = *number;
            if let Some(latency_us) = self.latency_us.get(number) {
                run.latency_ms = LatencyMs::of(latency_us);
                run.latency_us_counts = counts_of(latency_us);
            }
        }
        runs.into_values().collect()
    }

    fn streams_detail(&self) -> Vec<StreamReport> {
        let known = self.streams.iter().map(|(&key, stream)| StreamReport {
            run: key.run,
            writer: key.writer,
            received: stream.received,
            lost: self.if_known(stream.lost(self.manifest.get(&key))),
            duplicated: stream.duplicated,
            first_duplicated: stream.first_duplicated,
            reordered: stream.reordered,
            untracked: stream.untracked,
            highest: stream.highest,
            end_seen: stream.end_seen,
            intervals: stream.numbers.as_slice().iter().map(|one| (one.first, one.last)).collect(),
        });
        let unknown = self.never_arrived().map(|(key, lost)| StreamReport {
            run: key.run,
            writer: key.writer,
            lost: self.if_known(lost),
            ..StreamReport::default()
        });
        let mut all: Vec<_> = known.chain(unknown).collect();
        all.sort_unstable_by_key(|stream| (stream.run, stream.writer));
        all
    }
}

impl LatencyMs {
    fn of(latency_us: &Histogram<u64>) -> Option<Self> {
        if latency_us.is_empty() {
            return None;
        }
        let ms = |latency_us: u64| latency_us as f64 / 1_000.0;
        let at = |quantile| ms(latency_us.value_at_quantile(quantile));
        Some(Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: ms(latency_us.max()) })
    }
}

/// The values that were recorded, each with its count.
fn counts_of(latency_us: &Histogram<u64>) -> Vec<(u64, u64)> {
    let counts = latency_us.iter_recorded();
    counts.map(|one| (one.value_iterated_to(), one.count_at_value())).collect()
}

impl StreamReport {
    /// What the report says as the verifier keeps it; `None` when its intervals are no intervals.
    pub(crate) fn to_stream(&self) -> Option<(StreamKey, Stream)> {
        let mut numbers = Intervals::default();
        let mut received = 0;
        for &(first, last) in &self.intervals {
            if first > last || last > SEQUENCE_MAX {
                return None;
            }
            received += numbers.insert(Interval { first, last }, usize::MAX).ok()?;
        }
        let stream = Stream {
            numbers,
            received,
            duplicated: self.duplicated,
            first_duplicated: self.first_duplicated,
            reordered: self.reordered,
            untracked: self.untracked,
            highest: self.highest,
            end_seen: self.end_seen,
        };
        Some((StreamKey { run: self.run, writer: self.writer }, stream))
    }
}
