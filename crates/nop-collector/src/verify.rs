//! What was received so far, per stream, and what that says: lost, duplicated, reordered, late.
//! Takes whole requests' observations at a time; no locks, clocks or bytes of requests here.
//!
//! Sequence numbers start at zero. Without a manifest a stream's lost lines are therefore the gaps
//! from zero to the highest number seen, and a lost tail can't be known. With a manifest they are
//! exactly the numbers that it lists and that never came, writers that never came at all included.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use hdrhistogram::Histogram;
use thyme_core::manifest::ManifestLine;

use crate::intervals::{Full, Interval, Intervals};
use crate::limits::{
    INTERVALS_MAX, INTERVALS_PER_STREAM_MAX, LATENCY_DIGITS, LATENCY_MAX_US, LATENCY_RUNS_MAX,
    STREAMS_MAX,
};
use crate::manifest::ManifestCause;
use crate::observe::{Observations, StreamKey};
use crate::uids::Uids;

/// A map by stream; stamps come from outside, so that the hash is seeded.
type StreamMap<T> = HashMap<StreamKey, T, foldhash::fast::RandomState>;

/// What is known of one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    /// The numbers that came.
    pub(crate) numbers: Intervals,
    /// How many numbers came; always that of `numbers`.
    pub(crate) received: u64,
    /// Records beyond the first of each number.
    pub(crate) duplicated: u64,
    /// The first number that was seen to come again.
    pub(crate) first_duplicated: Option<u64>,
    /// First arrivals of a number below one that had come before.
    pub(crate) reordered: u64,
    /// Records that came after the limit on intervals was reached and aren't in `numbers`.
    pub(crate) untracked: u64,
    /// The largest number that came.
    pub(crate) highest: Option<u64>,
    /// Whether the writer's last line came.
    pub(crate) end_seen: bool,
}

impl Stream {
    /// Notes an ascending stretch of numbers.
    #[inline]
    fn receive(&mut self, numbers: Interval, intervals_max: usize) {
        let highest = self.highest;
        self.highest = highest.max(Some(numbers.last));
        // Only what lies up to the highest number can have come before, or comes late.
        let late_to = match highest {
            Some(highest) if numbers.first <= highest => highest.min(numbers.last),
            _ => return self.insert(numbers, intervals_max),
        };
        let late = Interval { first: numbers.first, last: late_to };
        self.first_duplicated = self.first_duplicated.or_else(|| self.numbers.first_within(late));
        let received = self.received;
        self.insert(late, intervals_max);
        self.reordered += self.received - received;
        if late_to < numbers.last {
            let ahead = Interval { first: late_to + 1, last: numbers.last };
            self.insert(ahead, intervals_max);
        }
    }

    #[inline]
    fn insert(&mut self, numbers: Interval, intervals_max: usize) {
        match self.numbers.insert(numbers, intervals_max) {
            Ok(fresh) => {
                self.received += fresh;
                self.duplicated += numbers.len() - fresh;
            }
            Err(Full) => self.untracked += numbers.len(),
        }
    }

    /// Lines that are missing: of those that the manifest lists, or of those below the highest.
    pub(crate) fn lost(&self, manifest: Option<&ManifestLine>) -> u64 {
        match manifest {
            Some(line) => line.lines - self.numbers.count_within(range_of(line)),
            None => self.gaps(),
        }
    }

    /// Lines that are missing below the highest that came.
    pub(crate) fn gaps(&self) -> u64 {
        self.highest.map_or(0, |highest| highest + 1 - self.received)
    }

    /// Lines that came though the manifest doesn't list them.
    pub(crate) fn unexpected(&self, manifest: &ManifestLine) -> u64 {
        self.received - self.numbers.count_within(range_of(manifest))
    }
}

/// The numbers that a manifest lists. Parsing has made sure that there are some.
const fn range_of(line: &ManifestLine) -> Interval {
    Interval { first: line.first, last: line.last }
}

/// Sizes and time of one accepted request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    /// The body as it came, bytes.
    pub(crate) wire_bytes: u64,
    /// The decompressed message, bytes.
    pub(crate) decompressed_bytes: u64,
    /// When its last byte had come, nanoseconds since the Unix epoch.
    pub(crate) received_unix_nano: u64,
}

/// Sums over all accepted requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) requests: u64,
    /// Requests of any outcome: this one counts those that were refused, too.
    pub(crate) attempts: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) decompressed_bytes: u64,
    pub(crate) unstamped: u64,
    pub(crate) invalid_utf8: u64,
    /// Stamped records of streams beyond the limit on streams.
    pub(crate) untracked: u64,
    /// Zero until a request was accepted, as the next one.
    pub(crate) first_received_unix_nano: u64,
    pub(crate) last_received_unix_nano: u64,
}

/// Everything that is known.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) totals: Totals,
    pub(crate) streams: StreamMap<Stream>,
    /// From write to receipt, microseconds, by run.
    pub(crate) latency_us: BTreeMap<u32, Histogram<u64>>,
    /// The same of runs beyond the limit on runs, and of what replicas' reports say of all runs.
    pub(crate) other_latency_us: Histogram<u64>,
    pub(crate) uids: Uids,
    pub(crate) manifest: StreamMap<ManifestLine>,
    /// Whether a manifest was posted, if only an empty one.
    pub(crate) manifest_posted: bool,
    /// Requests that were refused, by reason.
    pub(crate) invalid: BTreeMap<&'static str, u64>,
    /// Intervals of all streams together.
    intervals: usize,
}

impl Default for Verifier {
    fn default() -> Self {
        Self {
            totals: Totals::default(),
            streams: StreamMap::default(),
            latency_us: BTreeMap::new(),
            other_latency_us: new_histogram(),
            uids: Uids::default(),
            manifest: StreamMap::default(),
            manifest_posted: false,
            invalid: BTreeMap::new(),
            intervals: 0,
        }
    }
}

impl Verifier {
    /// Merges what one accepted request says.
    pub(crate) fn apply(&mut self, seen: &Observations, receipt: Receipt) {
        let totals = &mut self.totals;
        totals.records += seen.records;
        totals.requests += 1;
        totals.wire_bytes += receipt.wire_bytes;
        totals.decompressed_bytes += receipt.decompressed_bytes;
        totals.unstamped += seen.unstamped;
        totals.invalid_utf8 += seen.invalid_utf8;
        totals.note_times(receipt.received_unix_nano, receipt.received_unix_nano);
        let mut latencies_us = seen.latencies_us.as_slice();
        for &(run, count) in &seen.latency_runs {
            let (of_run, rest) = latencies_us.split_at(count);
            let histogram = self.latency_of(run);
            for &latency_us in of_run {
                histogram.saturating_record(latency_us);
            }
            latencies_us = rest;
        }
        self.uids.see(&seen.sightings);
        for stretch in &seen.stretches {
            self.update(stretch.stream, stretch.numbers.len(), |stream, intervals_max| {
                stream.receive(stretch.numbers, intervals_max);
                stream.end_seen |= stretch.end;
            });
        }
    }

    /// Where a run's latencies are kept; runs beyond the limit share one place.
    fn latency_of(&mut self, run: u32) -> &mut Histogram<u64> {
        if self.latency_us.len() >= LATENCY_RUNS_MAX && !self.latency_us.contains_key(&run) {
            return &mut self.other_latency_us;
        }
        self.latency_us.entry(run).or_insert_with(new_histogram)
    }

    /// The latencies of all runs.
    pub(crate) fn latency_of_all(&self) -> Histogram<u64> {
        let mut all = self.other_latency_us.clone();
        for one in self.latency_us.values() {
            all.add(one).expect("all histograms have the same bounds");
        }
        all
    }

    /// Unites with what another replica knows of a stream: numbers that both have are duplicates.
    pub(crate) fn absorb(&mut self, key: StreamKey, other: &Stream) {
        let records = other.received + other.duplicated + other.untracked;
        self.update(key, records, |stream, intervals_max| {
            for &numbers in other.numbers.as_slice() {
                let known = || stream.numbers.first_within(numbers);
                stream.first_duplicated = stream.first_duplicated.or_else(known);
                stream.insert(numbers, intervals_max);
            }
            stream.first_duplicated = stream.first_duplicated.or(other.first_duplicated);
            stream.duplicated += other.duplicated;
            stream.reordered += other.reordered;
            stream.untracked += other.untracked;
            stream.highest = stream.highest.max(other.highest);
            stream.end_seen |= other.end_seen;
        });
    }

    /// Changes one stream within the limits; `records` are given up when it is one too many.
    #[inline]
    fn update(&mut self, key: StreamKey, records: u64, change: impl FnOnce(&mut Stream, usize)) {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&key) {
            self.totals.untracked += records;
            return;
        }
        let stream = self.streams.entry(key).or_default();
        let before = stream.numbers.as_slice().len();
        let intervals_max = INTERVALS_PER_STREAM_MAX.min(before + INTERVALS_MAX - self.intervals);
        change(stream, intervals_max);
        self.intervals = self.intervals + stream.numbers.as_slice().len() - before;
    }

    /// Takes over a manifest; a writer's newer line replaces its older one.
    ///
    /// # Errors
    /// When there would be more writers than the limit on streams; nothing is taken over then.
    pub(crate) fn add_manifest(&mut self, lines: Vec<ManifestLine>) -> Result<(), ManifestCause> {
        let key = |line: &ManifestLine| StreamKey { run: line.run, writer: line.writer };
        let new = lines.iter().filter(|line| !self.manifest.contains_key(&key(line))).count();
        if self.manifest.len() + new > STREAMS_MAX {
            return Err(ManifestCause::TooMany);
        }
        self.manifest_posted = true;
        self.manifest.extend(lines.into_iter().map(|line| (key(&line), line)));
        Ok(())
    }

    /// Counts a refused request.
    pub(crate) fn refuse(&mut self, reason: &'static str) {
        *self.invalid.entry(reason).or_default() += 1;
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS)
        .expect("the bounds are constants that the histogram supports")
}

impl Totals {
    /// Widens the span of time in which requests came.
    pub(crate) fn note_times(&mut self, first: u64, last: u64) {
        let earlier = self.first_received_unix_nano == 0 || first < self.first_received_unix_nano;
        if first != 0 && earlier {
            self.first_received_unix_nano = first;
        }
        self.last_received_unix_nano = self.last_received_unix_nano.max(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use thyme_core::stamp::Stamp;

    fn seen(stamps: &[(u32, u64)]) -> Observations {
        let mut observations = Observations::default();
        observations.begin(0);
        for &(writer, sequence) in stamps {
            let stamp = Stamp { run: 1, writer, sequence, time_unix_nano: 0, end: false };
            observations.note(Some(stamp));
        }
        observations
    }

    const RECEIPT: Receipt =
        Receipt { wire_bytes: 1, decompressed_bytes: 2, received_unix_nano: 3 };

    proptest! {
        /// Scenario: requests with lines of three writers in any order, repeated and with gaps.
        /// Guarantees: received, duplicated, reordered and lost are what counting line by line
        /// into plain sets (the oracle) gives.
        #[test]
        fn counts_are_those_of_counting_line_by_line(
            requests in prop::collection::vec(
                prop::collection::vec((0..3_u32, 0..30_u64), 0..40), 0..8),
        ) {
            let mut verifier = Verifier::default();
            let mut sets: [BTreeSet<u64>; 3] = Default::default();
            let (mut duplicated, mut reordered) = ([0; 3], [0; 3]);
            let mut first_duplicated = [None; 3];
            for request in &requests {
                verifier.apply(&seen(request), RECEIPT);
                for &(writer, sequence) in request {
                    let index = writer as usize;
                    let highest = sets[index].last().copied();
                    if !sets[index].insert(sequence) {
                        duplicated[index] += 1;
                        first_duplicated[index].get_or_insert(sequence);
                    } else if highest > Some(sequence) {
                        reordered[index] += 1;
                    }
                }
            }
            for (index, set) in sets.iter().enumerate() {
                let key = StreamKey { run: 1, writer: index as u32 };
                let stream = verifier.streams.get(&key).cloned().unwrap_or_default();
                prop_assert_eq!(stream.received, set.len() as u64);
                prop_assert_eq!(stream.duplicated, duplicated[index]);
                prop_assert_eq!(stream.reordered, reordered[index]);
                prop_assert_eq!(stream.first_duplicated, first_duplicated[index]);
                let lost = set.last().map_or(0, |last| last + 1 - set.len() as u64);
                prop_assert_eq!(stream.lost(None), lost);
            }
            prop_assert_eq!(verifier.totals.requests, requests.len() as u64);
        }
    }

    /// Scenario: a stream that falls into more intervals than the limit allows.
    /// Guarantees: memory stays bounded; what can't be kept is counted, and never hidden.
    #[test]
    fn intervals_beyond_the_limit_are_counted() {
        let mut verifier = Verifier::default();
        let extra = 10;
        let odd = (0..(INTERVALS_PER_STREAM_MAX + extra) as u64).map(|index| (0, index * 2 + 1));
        verifier.apply(&seen(&odd.collect::<Vec<_>>()), RECEIPT);
        let stream = &verifier.streams[&StreamKey { run: 1, writer: 0 }];
        assert_eq!(stream.numbers.as_slice().len(), INTERVALS_PER_STREAM_MAX);
        assert_eq!(stream.untracked, extra as u64);
        assert_eq!(verifier.intervals, INTERVALS_PER_STREAM_MAX);
        let written = (INTERVALS_PER_STREAM_MAX + extra) as u64 * 2;
        assert_eq!(stream.lost(None), written - INTERVALS_PER_STREAM_MAX as u64);
    }

    /// Scenario: two runs take turns within a request, then there are more runs than are told apart.
    /// Guarantees: each run has its own latencies up to the limit, and no latency is missing in all.
    #[test]
    fn latencies_are_kept_by_run() {
        let mut verifier = Verifier::default();
        let mut observations = Observations::default();
        observations.begin(9_000_000);
        let stamp = |run, late_by_us: u64| Stamp {
            run,
            writer: 0,
            sequence: 0,
            time_unix_nano: 9_000_000 - late_by_us * 1_000,
            end: false,
        };
        for (run, late_by_us) in [(1, 10), (1, 20), (2, 1_000), (1, 30), (2, 2_000)] {
            observations.note(Some(stamp(run, late_by_us)));
        }
        verifier.apply(&observations, RECEIPT);
        let of = |verifier: &Verifier, run| {
            let latency_us = &verifier.latency_us[&run];
            (latency_us.len(), latency_us.min(), latency_us.max())
        };
        assert_eq!(of(&verifier, 1), (3, 10, 30));
        let (count, min, max) = of(&verifier, 2);
        assert_eq!((count, min, max / 100), (2, 1_000, 20));

        observations.begin(9_000_000);
        let runs = 10..10 + LATENCY_RUNS_MAX as u32;
        runs.for_each(|run| observations.note(Some(stamp(run, 5))));
        verifier.apply(&observations, RECEIPT);
        assert_eq!(verifier.latency_us.len(), LATENCY_RUNS_MAX);
        assert_eq!(verifier.latency_of_all().len(), 5 + LATENCY_RUNS_MAX as u64);
    }

    /// Scenario: more streams than the limit allows.
    /// Guarantees: the surplus is counted as untracked.
    #[test]
    fn streams_beyond_the_limit_are_counted() {
        let mut verifier = Verifier::default();
        let all: Vec<_> = (0..STREAMS_MAX as u32 + 5).map(|writer| (writer, 0)).collect();
        verifier.apply(&seen(&all), RECEIPT);
        assert_eq!(verifier.streams.len(), STREAMS_MAX);
        assert_eq!(verifier.totals.untracked, 5);
    }
}
