//! Whose lines are missing or came twice: the collector's intervals, held against the manifest, which
//! knows the file of each writer. So a failed run says where to look, and not only how much.

use crate::collector::StreamReport;
use serde::Serialize;
use std::{collections::HashMap, fmt};
use thyme_core::{manifest::ManifestLine, quantity::grouped};

/// How many writers are named.
const WRITERS_MAX: usize = 5;

/// How many gaps of a writer are named.
const GAPS_MAX: usize = 3;

/// One writer's losses and duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// The log file that it wrote to, below the directory of all pods: `POD/CONTAINER/0.log`.
    pub file: Option<String>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The run in its stamps.
    pub run: u32,
    /// The writer in its stamps.
    pub writer: u32,
    /// Lines that did not come.
    pub lost: u64,
    /// The first stretches of sequence numbers that did not come, both ends included.
    pub first_lost: Vec<(u64, u64)>,
    /// Lines that came again.
    pub duplicated: u64,
    /// The first sequence number that came again.
    pub first_duplicated: Option<u64>,
}

/// The writers with something lost or duplicated, those that lost most first.
pub fn affected(manifest: &[ManifestLine], streams: &[StreamReport]) -> Vec<Affected> {
    let streams: HashMap<_, _> = streams.iter().map(|one| ((one.run, one.writer), one)).collect();
    let nothing = StreamReport::default();
    let mut all: Vec<Affected> = manifest
        .iter()
        .map(|line| {
            let stream = streams.get(&(line.run, line.writer)).copied().unwrap_or(&nothing);
            let gaps = gaps(line.first, line.last, &stream.intervals);
            Affected {
                file: line.path.clone(),
                stream: line.stream.clone(),
                run: line.run,
                writer: line.writer,
                lost: gaps.iter().map(|(first, last)| last - first + 1).sum(),
                first_lost: gaps.into_iter().take(GAPS_MAX).collect(),
                duplicated: stream.duplicated,
                first_duplicated: stream.first_duplicated,
            }
        })
        .filter(|one| one.lost > 0 || one.duplicated > 0)
        .collect();
    all.sort_by_key(|one| std::cmp::Reverse((one.lost, one.duplicated)));
    all.truncate(WRITERS_MAX);
    all
}

/// What of the numbers from `first` to `last` is in none of the ascending intervals.
fn gaps(first: u64, last: u64, intervals: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut next = first;
    for &(from, to) in intervals {
        if from > next && next <= last {
            gaps.push((next, last.min(from - 1)));
        }
        next = next.max(to + 1);
    }
    if next <= last {
        gaps.push((next, last));
    }
    gaps
}

impl fmt::Display for Affected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or("a file that the manifest doesn't name");
        write!(out, "{file} ({}):", self.stream)?;
        if self.lost > 0 {
            let stretch = |&(first, last): &(u64, u64)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            };
            let first: Vec<String> = self.first_lost.iter().map(stretch).collect();
            write!(out, " {} lost, first {}", grouped(self.lost), first.join(" "))?;
        }
        if self.duplicated > 0 {
            let and = if self.lost > 0 { ";" } else { "" };
            write!(out, "{and} {} came twice", grouped(self.duplicated))?;
            if let Some(first) = self.first_duplicated {
                write!(out, ", first {first}")?;
            }
        }
        let first = self.first_lost.first().map(|gap| gap.0).or(self.first_duplicated);
        match first {
            Some(first) => write!(out, "; stamp {:08x}-{:08x}-{first:012x}", self.run, self.writer),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(writer: u32, lines: u64) -> ManifestLine {
        ManifestLine {
            run: 7,
            writer,
            stream: "stdout".into(),
            first: 0,
            last: lines - 1,
            lines,
            bytes: 0,
            path: Some(format!("ns_pod-{writer}_uid/app/0.log")),
        }
    }

    /// Scenario: a writer of which all came, one with gaps and a lost tail, one that came twice, one
    /// of which nothing came; more writers than are named.
    /// Guarantees: only those with something wrong are named, the worst first, each with its file,
    /// its first sequence numbers and the stamp to look for.
    #[test]
    fn the_worst_are_named_with_file_and_numbers() {
        let stream = |writer, intervals: &[(u64, u64)]| StreamReport {
            run: 7,
            writer,
            intervals: intervals.to_vec(),
            ..StreamReport::default()
        };
        let manifest = [line(0, 10), line(1, 100), line(2, 10), line(3, 1_000)];
        let twice =
            StreamReport { duplicated: 2, first_duplicated: Some(4), ..stream(2, &[(0, 9)]) };
        let streams =
            [stream(0, &[(0, 9)]), stream(1, &[(1, 9), (20, 20), (22, 30), (32, 80)]), twice];
        let found = affected(&manifest, &streams);
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "ns_pod-3_uid/app/0.log (stdout): 1,000 lost, first 0-999; \
                 stamp 00000007-00000003-000000000000",
                "ns_pod-1_uid/app/0.log (stdout): 32 lost, first 0 10-19 21; \
                 stamp 00000007-00000001-000000000000",
                "ns_pod-2_uid/app/0.log (stdout): 2 came twice, first 4; \
                 stamp 00000007-00000002-000000000004",
            ]
        );
        let many: Vec<ManifestLine> = (0..20).map(|writer| line(writer, 10)).collect();
        assert_eq!(affected(&many, &[]).len(), WRITERS_MAX);
    }

    /// Scenario: intervals before, across and behind the range of a manifest's line.
    /// Guarantees: only what the manifest lists can be missing.
    #[test]
    fn gaps_are_within_the_manifest() {
        assert_eq!(gaps(0, 9, &[]), [(0, 9)]);
        assert_eq!(gaps(0, 9, &[(0, 20)]), []);
        assert_eq!(gaps(5, 9, &[(0, 2), (7, 7), (15, 20)]), [(5, 6), (8, 9)]);
        assert_eq!(gaps(0, 9, &[(20, 30)]), [(0, 9)]);
    }
}
