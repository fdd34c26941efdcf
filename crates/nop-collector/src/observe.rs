//! What one request says: how many records, which stretches of which streams, how late. Kept in
//! buffers that are reused, so that a record costs no allocation. Knows nothing of other requests.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use thyme_core::otlp::walk::{
    AnyValue, CheckedParser, LogRecord, WalkError, for_each_raw_record, resource_logs,
};
use thyme_core::stamp::Stamp;

use crate::intervals::Interval;
use crate::limits::RETAINED_BUFFER_BYTES_MAX;
use crate::uids::Sighting;

/// One writer of one run; its sequence numbers start at zero and have no gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamKey {
    /// One start of the generator.
    pub(crate) run: u32,
    /// One stream of one container.
    pub(crate) writer: u32,
}

/// Consecutive lines of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) stream: StreamKey,
    pub(crate) numbers: Interval,
    /// Whether the writer's last line is among these.
    pub(crate) end: bool,
}

/// Everything that one request says, to be merged into what is known under one lock.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    /// In the order of arrival within each stream.
    pub(crate) stretches: Vec<Stretch>,
    /// From each stamp's write time to the receipt, microseconds; 0 where the clocks disagree.
    pub(crate) latencies_us: Vec<u64>,
    /// Whose latencies these are: a run, and how many of them in a row. The counts add up to all.
    pub(crate) latency_runs: Vec<(u32, usize)>,
    /// Stamped records that carried an identity, in the order of arrival.
    pub(crate) sightings: Vec<Sighting>,
    /// Records with and without a stamp.
    pub(crate) records: u64,
    /// Records without a stamp.
    pub(crate) unstamped: u64,
    /// Records whose body is a string that isn't UTF-8, which strict receivers refuse.
    pub(crate) invalid_utf8: u64,
    received_unix_nano: u64,
}

impl Observations {
    /// Forgets the last request but keeps the buffers, unless it was an outsized one.
    pub(crate) fn begin(&mut self, received_unix_nano: u64) {
        self.stretches.clear();
        self.stretches.shrink_to(RETAINED_BUFFER_BYTES_MAX / size_of::<Stretch>());
        self.latencies_us.clear();
        self.latencies_us.shrink_to(RETAINED_BUFFER_BYTES_MAX / size_of::<u64>());
        self.latency_runs.clear();
        self.latency_runs.shrink_to(RETAINED_BUFFER_BYTES_MAX / size_of::<(u32, usize)>());
        self.sightings.clear();
        self.sightings.shrink_to(RETAINED_BUFFER_BYTES_MAX / size_of::<Sighting>());
        (self.records, self.unstamped, self.invalid_utf8) = (0, 0, 0);
        self.received_unix_nano = received_unix_nano;
    }

    /// Reads an encoded request, of which the first `records_max` records count.
    ///
    /// # Errors
    /// When the request is malformed, down to the values in its resources and records.
    pub(crate) fn read_protobuf(
        &mut self,
        request: &[u8],
        records_max: u64,
    ) -> Result<(), WalkError> {
        for resource in resource_logs(request) {
            for attribute in resource?.attributes() {
                attribute?.value.check()?;
            }
        }
        let mut parser = CheckedParser::default();
        for_each_raw_record(request, |record| {
            if self.records == records_max {
                return Ok(());
            }
            let record = parser.parse(record)?;
            let stamp = match record.body {
                AnyValue::String(text) => {
                    self.invalid_utf8 += u64::from(simdutf8::basic::from_utf8(text).is_err());
                    Stamp::find(text)
                }
                AnyValue::Bytes(text) => Stamp::find(text),
                _ => None,
            };
            let stamp = match stamp {
                Some(stamp) => Some(stamp),
                None => find_elsewhere(&record)?,
            };
            self.note(stamp);
            if let Some((stamp, uid)) = stamp.zip(parser.uid()) {
                self.note_uid(&stamp, uid);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Notes the identity of a record that was noted.
    fn note_uid(&mut self, stamp: &Stamp, uid: &[u8]) {
        // All threads have to hash alike.
        let hash = FixedState::default();
        let line = hash.hash_one((stamp.run, stamp.writer, stamp.sequence));
        self.sightings.push(Sighting { uid: hash.hash_one(uid), line });
    }

    /// Notes one record.
    #[inline]
    pub(crate) fn note(&mut self, stamp: Option<Stamp>) {
        self.records += 1;
        let Some(stamp) = stamp else {
            self.unstamped += 1;
            return;
        };
        let late_by = self.received_unix_nano.saturating_sub(stamp.time_unix_nano);
        self.latencies_us.push(late_by / 1_000);
        match self.latency_runs.last_mut() {
            Some((run, count)) if *run == stamp.run => *count += 1,
            _ => self.latency_runs.push((stamp.run, 1)),
        }
        let stream = StreamKey { run: stamp.run, writer: stamp.writer };
        // A container's two streams take turns, so that the one before the last may go on too.
        for stretch in self.stretches.iter_mut().rev().take(2) {
            if stretch.stream == stream {
                if stamp.sequence == stretch.numbers.last + 1 {
                    stretch.numbers.last = stamp.sequence;
                    stretch.end |= stamp.end;
                    return;
                }
                break;
            }
        }
        let numbers = Interval { first: stamp.sequence, last: stamp.sequence };
        self.stretches.push(Stretch { stream, numbers, end: stamp.end });
    }
}

/// Looks for a stamp where agents put a line that they took apart: in a structured body, or in the
/// attributes.
#[cold]
fn find_elsewhere(record: &LogRecord<'_>) -> Result<Option<Stamp>, WalkError> {
    let mut found = None;
    let mut visit = |text: &[u8]| {
        if found.is_none() {
            found = find_in_text(text);
        }
    };
    if matches!(record.body, AnyValue::Array(_) | AnyValue::KeyValueList(_)) {
        record.body.for_each_text(&mut visit)?;
    }
    for attribute in record.attributes() {
        attribute?.value.for_each_text(&mut visit)?;
    }
    Ok(found)
}

/// A stamp within a line, or standing alone as the value of a field that was parsed.
pub(crate) fn find_in_text(text: &[u8]) -> Option<Stamp> {
    const ALONE: usize = thyme_core::stamp::STAMP_BYTES;
    if text.len() != ALONE {
        return Stamp::find(text);
    }
    let mut line = [0; ALONE + thyme_core::stamp::TEXT_PREFIX.len()];
    let (prefix, stamp) = line.split_at_mut(thyme_core::stamp::TEXT_PREFIX.len());
    prefix.copy_from_slice(thyme_core::stamp::TEXT_PREFIX);
    stamp.copy_from_slice(text);
    Stamp::find(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1 as common;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::logs::v1 as logs;
    use prost::Message;

    const RECEIVED: u64 = 5_000_000_000;

    fn stamp(writer: u32, sequence: u64) -> Stamp {
        Stamp { run: 1, writer, sequence, time_unix_nano: RECEIVED - 3_000, end: false }
    }

    fn text(stamp: Stamp) -> String {
        let mut bytes = [0; thyme_core::stamp::STAMP_BYTES];
        stamp.write(&mut bytes);
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn value(value: Value) -> common::AnyValue {
        common::AnyValue { value: Some(value) }
    }

    fn pair(key: &str, inside: Value) -> common::KeyValue {
        common::KeyValue { key: key.to_owned(), value: Some(value(inside)), ..Default::default() }
    }

    fn observe(records: Vec<logs::LogRecord>) -> Observations {
        let scope = logs::ScopeLogs { log_records: records, ..Default::default() };
        let resource = logs::ResourceLogs { scope_logs: vec![scope], ..Default::default() };
        let request = ExportLogsServiceRequest { resource_logs: vec![resource] };
        let mut observations = Observations::default();
        observations.begin(RECEIVED);
        observations.read_protobuf(&request.encode_to_vec(), u64::MAX).unwrap();
        observations
    }

    /// Scenario: agents send the same stamped line as text, bytes, a parsed map, a nested map, and
    /// attributes; and one line without a stamp.
    /// Guarantees: each stamp is found, the last line is counted as unstamped.
    #[test]
    fn stamps_are_found_wherever_agents_put_them() {
        let at = |sequence| text(stamp(7, sequence));
        let list = |pairs| common::KeyValueList { values: pairs };
        let parsed = list(vec![pair("stamp", Value::StringValue(at(2)))]);
        let wrapped = list(vec![
            pair("log", Value::StringValue(format!("hello stamp={}\n", at(3)))),
            pair("n", Value::IntValue(1)),
        ]);
        let nested = list(vec![pair("inner", Value::KvlistValue(wrapped))]);
        let bodies = [
            Value::StringValue(format!("hello stamp={}", at(0))),
            Value::BytesValue(format!("\u{fffd} stamp={}", at(1)).into_bytes()),
            Value::KvlistValue(parsed),
            Value::KvlistValue(nested),
        ];
        let mut records: Vec<_> = bodies
            .map(|body| logs::LogRecord { body: Some(value(body)), ..Default::default() })
            .into();
        let attributes = vec![pair("stamp", Value::StringValue(at(4)))];
        records.push(logs::LogRecord { attributes, ..Default::default() });
        let body = Some(value(Value::StringValue("someone else's line".to_owned())));
        records.push(logs::LogRecord { body, ..Default::default() });

        let seen = observe(records);
        assert_eq!((seen.records, seen.unstamped), (6, 1));
        assert_eq!(seen.latencies_us, [3; 5]);
        assert_eq!(seen.latency_runs, [(1, 5)]);
        let stream = StreamKey { run: 1, writer: 7 };
        let numbers = Interval { first: 0, last: 4 };
        assert_eq!(seen.stretches, [Stretch { stream, numbers, end: false }]);
    }

    /// Scenario: a line with an identity, the same once more, another line under the same identity,
    /// one without attributes, one with others, and somebody else's line with an identity.
    /// Guarantees: identities belong to the records that carry them, and only stamped ones count.
    #[test]
    fn identities_belong_to_their_records() {
        let record = |body: String, uid: Option<&str>, other: Option<&str>| logs::LogRecord {
            body: Some(value(Value::StringValue(body))),
            attributes: [("log.iostream", other), ("log.record.uid", uid)]
                .into_iter()
                .filter_map(|(key, text)| Some(pair(key, Value::StringValue(text?.to_owned()))))
                .collect(),
            ..Default::default()
        };
        let line = |sequence| format!("hello stamp={}", text(stamp(7, sequence)));
        let seen = observe(vec![
            record(line(0), Some("a"), Some("stdout")),
            record(line(0), Some("a"), Some("stdout")),
            record(line(1), Some("a"), Some("stdout")),
            record(line(2), None, None),
            record(line(3), None, Some("stdout")),
            record("someone else's line".to_owned(), Some("b"), Some("stdout")),
            record(line(3), Some("c"), None),
        ]);
        let [first, again, collision, other] = seen.sightings[..] else {
            panic!("{:?}", seen.sightings)
        };
        assert_eq!(first, again);
        assert_eq!(first.uid, collision.uid);
        assert!(first.line != collision.line && first.uid != other.uid);
    }

    /// Scenario: two streams take turns; then a number repeats, and one is skipped.
    /// Guarantees: turns don't break the stretches, repeats and gaps do.
    #[test]
    fn stretches_survive_taking_turns() {
        let mut seen = Observations::default();
        seen.begin(RECEIVED);
        for (writer, sequence) in [(0, 0), (1, 9), (0, 1), (1, 10), (0, 2), (0, 2), (0, 4)] {
            seen.note(Some(stamp(writer, sequence)));
        }
        let stretches: Vec<_> = seen
            .stretches
            .iter()
            .map(|one| (one.stream.writer, one.numbers.first, one.numbers.last))
            .collect();
        assert_eq!(stretches, [(0, 0, 2), (1, 9, 10), (0, 2, 2), (0, 4, 4)]);
    }

    /// Scenario: a writer's last line comes, and more of it behind.
    /// Guarantees: the end isn't forgotten.
    #[test]
    fn ends_are_remembered() {
        let mut seen = Observations::default();
        seen.begin(RECEIVED);
        for (sequence, end) in [(0, false), (1, true), (2, false)] {
            seen.note(Some(Stamp { end, ..stamp(0, sequence) }));
        }
        let numbers = Interval { first: 0, last: 2 };
        let stream = StreamKey { run: 1, writer: 0 };
        assert_eq!(seen.stretches, [Stretch { stream, numbers, end: true }]);
    }

    /// Scenario: damage in a resource, in a record's attribute, and in the depth of a body.
    /// Guarantees: each makes the request malformed.
    #[test]
    fn damage_anywhere_is_refused() {
        let mut seen = Observations::default();
        seen.begin(RECEIVED);
        // Request > ResourceLogs > Resource > KeyValue > value of the wrong type.
        let resource = [0x0a, 6, 0x0a, 4, 0x0a, 2, 0x10, 1];
        // Request > ResourceLogs > ScopeLogs > LogRecord > the same, and > AnyValue > ArrayValue.
        let attribute = [0x0a, 8, 0x12, 6, 0x12, 4, 0x32, 2, 0x10, 1];
        let body = [0x0a, 10, 0x12, 8, 0x12, 6, 0x2a, 4, 0x2a, 2, 0x08, 1];
        for request in [&resource[..], &attribute, &body] {
            let error = seen.read_protobuf(request, u64::MAX).unwrap_err();
            assert!(matches!(error, WalkError::FieldType { .. }), "{error}");
        }
    }

    /// Scenario: a body that claims to be a string and isn't UTF-8.
    /// Guarantees: it is received, and counted.
    #[test]
    fn strings_that_are_not_utf8_are_counted() {
        // Request > ResourceLogs > ScopeLogs > LogRecord > AnyValue > string of one byte 0xff.
        let body = [0x2a, 3, 0x0a, 1, 0xff];
        let request = [&[0x0a, 9, 0x12, 7, 0x12, 5][..], &body].concat();
        let mut seen = Observations::default();
        seen.begin(RECEIVED);
        seen.read_protobuf(&request, u64::MAX).unwrap();
        assert_eq!((seen.records, seen.invalid_utf8, seen.unstamped), (1, 1, 1));
    }
}
