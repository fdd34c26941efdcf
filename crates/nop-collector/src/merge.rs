//! Unites the reports of several replicas into one verdict: what one of them missed another may
//! have, and what two of them have is a duplicate.

use serde::Serialize;
use thyme_core::manifest::ManifestLine;

use crate::manifest::ManifestCause;
use crate::report::{Detail, Report};
use crate::uids::UidCounts;
use crate::verify::Verifier;

/// What the replicas prove together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Lines came, a manifest says that none is lost, none is duplicated, and the figures are exact.
    pub lossless: bool,
    /// How many reports were united.
    pub replicas: usize,
    /// The figures of all replicas together. `reordered` counts within each replica, and so do
    /// `duplicated_removable` and `uid_collisions`: identities aren't compared between replicas.
    #[serde(flatten)]
    pub report: Report,
}

/// Why reports can't be united.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A report without its details, which say what was received.
    #[error("report {index} has no intervals; ask for /report?intervals=1")]
    NoDetail {
        /// The report's place in the list, from 0.
        index: usize,
    },
    /// A report whose details are inconsistent.
    #[error("report {index}: the intervals of run {run}, writer {writer} are no intervals")]
    Intervals {
        /// The report's place in the list, from 0.
        index: usize,
        /// The stream's run.
        run: u32,
        /// The stream's writer.
        writer: u32,
    },
    /// The manifests list too much.
    #[error("the manifests: {0}")]
    Manifest(#[from] ManifestCause),
}

/// Unites detailed reports, and holds them against the manifests, if any. Manifests that were
/// posted to the replicas aren't used.
///
/// # Errors
/// When a report has no details or inconsistent ones, or there are too many writers.
pub fn unite(
    reports: &[Report],
    manifest: Option<Vec<ManifestLine>>,
) -> Result<Verdict, MergeError> {
    let mut all = Verifier::default();
    if let Some(lines) = manifest {
        all.add_manifest(lines)?;
    }
    for (index, report) in reports.iter().enumerate() {
        absorb(&mut all, index, report)?;
    }
    let mut report = all.report(Detail::default());
    for (reason, count) in reports.iter().flat_map(|report| &report.invalid) {
        *report.invalid.entry(reason.clone()).or_default() += count;
    }
    let lossless =
        report.received > 0 && report.lost == Some(0) && report.duplicated == 0 && report.exact;
    Ok(Verdict { lossless, replicas: reports.len(), report })
}

fn absorb(all: &mut Verifier, index: usize, report: &Report) -> Result<(), MergeError> {
    let (Some(streams), Some(latencies)) = (&report.streams_detail, &report.latency_us_counts)
    else {
        return Err(MergeError::NoDetail { index });
    };
    let mut untracked = report.untracked;
    for stream in streams.iter().filter(|stream| stream.highest.is_some()) {
        let (run, writer) = (stream.run, stream.writer);
        let bad = MergeError::Intervals { index, run, writer };
        let (key, state) = stream.to_stream().ok_or(bad)?;
        all.absorb(key, &state);
        untracked = untracked.saturating_sub(stream.untracked);
    }
    for &(latency_us, count) in latencies {
        all.other_latency_us.saturating_record_n(latency_us, count);
    }
    all.uids.counts.add(UidCounts {
        records: report.uid_records,
        repeated: report.duplicated_removable,
        collisions: report.uid_collisions,
        forgotten: report.uids_forgotten,
    });
    let totals = &mut all.totals;
    totals.records += report.records;
    totals.requests += report.requests;
    totals.attempts += report.attempts;
    totals.wire_bytes += report.wire_bytes;
    totals.decompressed_bytes += report.decompressed_bytes;
    totals.unstamped += report.unstamped;
    totals.invalid_utf8 += report.invalid_utf8;
    totals.untracked += untracked;
    totals.note_times(report.first_received_unix_nano, report.last_received_unix_nano);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Observations;
    use crate::verify::Receipt;
    use proptest::prelude::*;
    use thyme_core::stamp::Stamp;

    const STREAMS: Detail = Detail { streams: true, runs: false };

    fn replica(lines: &[(u32, u64)]) -> Verifier {
        let mut verifier = Verifier::default();
        feed(&mut verifier, lines);
        verifier
    }

    fn feed(verifier: &mut Verifier, lines: &[(u32, u64)]) {
        let mut seen = Observations::default();
        seen.begin(9_000_000);
        for &(writer, sequence) in lines {
            let stamp = Stamp { run: 1, writer, sequence, time_unix_nano: 2_000_000, end: false };
            seen.note(Some(stamp));
        }
        let receipt = Receipt { wire_bytes: 1, decompressed_bytes: 2, received_unix_nano: 3 };
        verifier.apply(&seen, receipt);
    }

    fn manifest(writer: u32, lines: u64) -> ManifestLine {
        let stream = "stdout".to_owned();
        ManifestLine {
            run: 1,
            writer,
            stream,
            first: 0,
            last: lines - 1,
            lines,
            bytes: 0,
            path: None,
        }
    }

    proptest! {
        /// Scenario: lines, repeated and out of order, are spread over three replicas by chance.
        /// Guarantees: united they show what one collector that received all of them shows, in
        /// every figure but the order.
        #[test]
        fn replicas_together_know_what_one_would(
            lines in prop::collection::vec((0..3_u32, 0..50_u64, 0..3_usize), 1..120),
        ) {
            let mut parts: [Vec<(u32, u64)>; 3] = Default::default();
            let mut one = Verifier::default();
            one.add_manifest(vec![manifest(1, 40), manifest(7, 5)]).unwrap();
            for &(writer, sequence, part) in &lines {
                parts[part].push((writer, sequence));
            }
            for part in &parts {
                feed(&mut one, part);
            }
            let reports = parts.map(|part| replica(&part).report(STREAMS));
            let text = serde_json::to_string(&reports).unwrap();
            let reports: Vec<Report> = serde_json::from_str(&text).unwrap();
            let together =
                unite(&reports, Some(vec![manifest(1, 40), manifest(7, 5)])).unwrap().report;
            let mut expected = one.report(Detail::default());
            expected.reordered = together.reordered;
            prop_assert_eq!(together, expected);
        }
    }

    /// Scenario: two replicas have half of a stream each; then nobody says what was written; then one
    /// line is in both; then one is in neither; then nothing has arrived anywhere.
    /// Guarantees: only the first is called lossless.
    #[test]
    fn lossless_means_every_line_once() {
        let whole = || Some(vec![manifest(0, 4)]);
        let verdict = |first: &[u64], second: &[u64], manifest| {
            let lines = |part: &[u64]| part.iter().map(|&one| (0, one)).collect::<Vec<_>>();
            let reports = [first, second].map(|part| replica(&lines(part)).report(STREAMS));
            let verdict = unite(&reports, manifest).unwrap();
            (verdict.lossless, verdict.report.lost, verdict.report.duplicated)
        };
        assert_eq!(verdict(&[0, 2], &[1, 3], whole()), (true, Some(0), 0));
        assert_eq!(verdict(&[0, 2], &[1, 3], None), (false, None, 0));
        assert_eq!(verdict(&[0, 2, 3], &[1, 3], whole()), (false, Some(0), 1));
        assert_eq!(verdict(&[0, 1], &[2], whole()), (false, Some(1), 0));
        assert_eq!(verdict(&[], &[], whole()), (false, Some(4), 0));
    }

    /// Scenario: a report without details, and one with impossible intervals.
    /// Guarantees: they are refused, by their place in the list.
    #[test]
    fn incomplete_reports_are_refused() {
        let good = replica(&[(0, 0)]).report(STREAMS);
        let bare = replica(&[(0, 0)]).report(Detail::default());
        let error = unite(&[good.clone(), bare], None).unwrap_err();
        assert!(error.to_string().starts_with("report 1 has no intervals"), "{error}");
        let mut wrong = good;
        wrong.streams_detail.as_mut().unwrap()[0].intervals = vec![(5, 4)];
        let error = unite(&[wrong], None).unwrap_err();
        assert!(error.to_string().contains("writer 0 are no intervals"), "{error}");
    }
}
