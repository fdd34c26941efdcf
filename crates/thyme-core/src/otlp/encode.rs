//! Writes OTLP log records and the lengths around them, straight into bytes
//! (opentelemetry-proto, `logs/v1/logs.proto`, `collector/logs/v1/logs_service.proto`).
//!
//! A record is a header of fixed fields, the body, and a suffix that neighbours share; the nested
//! lengths of a request are arithmetic over sums. Nothing is encoded twice or moved afterwards.

/// Most bytes that [`put_record_header`] and its lengths take.
const RECORD_HEADER_BYTES_MAX: usize = 40;

/// Field numbers and wire types, as tags of one byte.
mod tag {
    pub(super) const REQUEST_RESOURCE_LOGS: u8 = 1 << 3 | 2;
    pub(super) const RESOURCE_LOGS_RESOURCE: u8 = 1 << 3 | 2;
    pub(super) const RESOURCE_LOGS_SCOPE_LOGS: u8 = 2 << 3 | 2;
    pub(super) const SCOPE_LOGS_LOG_RECORDS: u8 = 2 << 3 | 2;
    pub(super) const RESOURCE_ATTRIBUTES: u8 = 1 << 3 | 2;
    pub(super) const RECORD_TIME: u8 = 1 << 3 | 1;
    pub(super) const RECORD_BODY: u8 = 5 << 3 | 2;
    pub(super) const RECORD_ATTRIBUTES: u8 = 6 << 3 | 2;
    pub(super) const RECORD_OBSERVED_TIME: u8 = 11 << 3 | 1;
    pub(super) const KEY_VALUE_KEY: u8 = 1 << 3 | 2;
    pub(super) const KEY_VALUE_VALUE: u8 = 2 << 3 | 2;
    pub(super) const ANY_STRING: u8 = 1 << 3 | 2;
    pub(super) const ANY_BOOL: u8 = 2 << 3;
    pub(super) const ANY_INT: u8 = 3 << 3;
    pub(super) const ANY_BYTES: u8 = 7 << 3 | 2;
}

/// A value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `string_value`.
    Text(&'a str),
    /// `int_value`.
    Int(i64),
    /// `bool_value`.
    Bool(bool),
}

/// A record's body; the caller has checked whether it is UTF-8, which `string_value` must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// `string_value`: valid UTF-8.
    Text(&'a [u8]),
    /// `bytes_value`: anything.
    Bytes(&'a [u8]),
}

/// Bytes that `value` takes as a varint, 1 to 10.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    // Seven bits a byte: ceil(bits / 7), where zero takes one bit.
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes `value` as a varint at `at` and returns the position after it.
#[inline]
fn write_varint(out: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Appends one attribute of a `Resource`.
pub fn put_resource_attribute(out: &mut Vec<u8>, key: &str, value: Value<'_>) {
    put_key_value(out, tag::RESOURCE_ATTRIBUTES, key, value);
}

/// Appends one attribute of a `LogRecord`.
pub fn put_record_attribute(out: &mut Vec<u8>, key: &str, value: Value<'_>) {
    put_key_value(out, tag::RECORD_ATTRIBUTES, key, value);
}

fn put_key_value(out: &mut Vec<u8>, field: u8, key: &str, value: Value<'_>) {
    let any_bytes = match value {
        Value::Text(text) => 1 + varint_len(text.len() as u64) + text.len(),
        Value::Int(int) => 1 + varint_len(int as u64),
        Value::Bool(_) => 2,
    };
    let key_bytes = 1 + varint_len(key.len() as u64) + key.len();
    let bytes = key_bytes + 1 + varint_len(any_bytes as u64) + any_bytes;
    out.push(field);
    put_varint(out, bytes as u64);
    out.push(tag::KEY_VALUE_KEY);
    put_varint(out, key.len() as u64);
    out.extend_from_slice(key.as_bytes());
    out.push(tag::KEY_VALUE_VALUE);
    put_varint(out, any_bytes as u64);
    match value {
        Value::Text(text) => {
            out.push(tag::ANY_STRING);
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Int(int) => {
            out.push(tag::ANY_INT);
            put_varint(out, int as u64);
        }
        Value::Bool(truth) => out.extend_from_slice(&[tag::ANY_BOOL, u8::from(truth)]),
    }
}

/// What follows the body in each record of one stream: the attributes, then the observed time.
#[derive(Clone, Debug, Default)]
pub struct RecordSuffix(Vec<u8>);

/// Bytes of `observed_time_unix_nano` at the end of a suffix: the tag and a `fixed64`.
const OBSERVED_TIME_BYTES: usize = 9;

impl RecordSuffix {
    /// A suffix with these attributes, encoded by [`put_record_attribute`], observed at zero.
    pub fn new(attributes: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(attributes.len() + OBSERVED_TIME_BYTES);
        bytes.extend_from_slice(attributes);
        bytes.push(tag::RECORD_OBSERVED_TIME);
        bytes.extend_from_slice(&[0; 8]);
        Self(bytes)
    }

    /// Sets the observed time of the records to come, nanoseconds since the Unix epoch.
    #[inline]
    pub fn set_observed_time(&mut self, unix_nano: u64) {
        let at = self.0.len() - 8;
        self.0[at..].copy_from_slice(&unix_nano.to_le_bytes());
    }

    /// The attributes alone, to extend them for an unusual record.
    pub fn attributes(&self) -> &[u8] {
        &self.0[..self.0.len() - OBSERVED_TIME_BYTES]
    }

    /// Overwrites the end of the last attribute, which is text at least as long as `text`;
    /// `after` bytes of it stay behind what is written.
    pub fn overwrite_text(&mut self, text: &[u8], after: usize) {
        let end = self.0.len() - OBSERVED_TIME_BYTES - after;
        self.0[end - text.len()..end].copy_from_slice(text);
    }
}

/// Overwrites the end of the last attribute in the record that was appended last; the attribute is
/// text at least as long as `text`. So what differs from record to record costs a few bytes'
/// writing where neighbours share the rest of a suffix.
#[inline]
pub fn overwrite_last_text<const BYTES: usize>(out: &mut [u8], text: [u8; BYTES]) {
    let end = out.len() - OBSERVED_TIME_BYTES;
    out[end - BYTES..end].copy_from_slice(&text);
}

/// Appends one `ScopeLogs.log_records` entry.
#[inline]
pub fn put_log_record(
    out: &mut Vec<u8>,
    time_unix_nano: u64,
    body: Body<'_>,
    suffix: &RecordSuffix,
) {
    let (any_tag, content) = match body {
        Body::Text(text) => (tag::ANY_STRING, text),
        Body::Bytes(bytes) => (tag::ANY_BYTES, bytes),
    };
    let mut header = [0; RECORD_HEADER_BYTES_MAX];
    let header_bytes =
        put_record_header(&mut header, time_unix_nano, any_tag, content.len(), suffix.0.len());
    out.reserve(header_bytes + content.len() + suffix.0.len());
    out.extend_from_slice(&header[..header_bytes]);
    out.extend_from_slice(content);
    out.extend_from_slice(&suffix.0);
}

/// Bytes that [`put_log_record`] appends for a body of this length.
#[inline]
pub fn log_record_bytes(body_bytes: usize, suffix: &RecordSuffix) -> usize {
    RECORD_HEADER_BYTES_MAX + body_bytes + suffix.0.len()
}

#[inline]
fn put_record_header(
    header: &mut [u8; RECORD_HEADER_BYTES_MAX],
    time_unix_nano: u64,
    any_tag: u8,
    content_bytes: usize,
    suffix_bytes: usize,
) -> usize {
    let any_bytes = 1 + varint_len(content_bytes as u64) + content_bytes;
    let record_bytes = 9 + 1 + varint_len(any_bytes as u64) + any_bytes + suffix_bytes;
    header[0] = tag::SCOPE_LOGS_LOG_RECORDS;
    let mut at = write_varint(header, 1, record_bytes as u64);
    header[at] = tag::RECORD_TIME;
    header[at + 1..at + 9].copy_from_slice(&time_unix_nano.to_le_bytes());
    header[at + 9] = tag::RECORD_BODY;
    at = write_varint(header, at + 10, any_bytes as u64);
    header[at] = any_tag;
    write_varint(header, at + 1, content_bytes as u64)
}

/// Appends everything of one `ResourceLogs` up to its records: the request's tag, the resource, and
/// the head of its only `ScopeLogs`, whose `records_bytes` bytes of entries follow.
///
/// `resource` is the content of a `Resource`, from [`put_resource_attribute`].
pub fn put_resource_logs_prefix(out: &mut Vec<u8>, resource: &[u8], records_bytes: usize) {
    let resource_field = 1 + varint_len(resource.len() as u64) + resource.len();
    let scope_field = 1 + varint_len(records_bytes as u64) + records_bytes;
    out.push(tag::REQUEST_RESOURCE_LOGS);
    put_varint(out, (resource_field + scope_field) as u64);
    out.push(tag::RESOURCE_LOGS_RESOURCE);
    put_varint(out, resource.len() as u64);
    out.extend_from_slice(resource);
    out.push(tag::RESOURCE_LOGS_SCOPE_LOGS);
    put_varint(out, records_bytes as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
        resource::v1::Resource,
    };
    use proptest::prelude::*;
    use prost::Message;

    fn attribute(key: &str, value: any_value::Value) -> KeyValue {
        let value = Some(AnyValue { value: Some(value) });
        KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
    }

    proptest! {
        /// Scenario: records with any body, as text or bytes, under any resource.
        /// Guarantees: the generated types decode the bytes to exactly what was meant.
        #[test]
        fn prost_reads_what_is_written(
            bodies in prop::collection::vec((any::<u64>(), "\\PC{0,300}", any::<bool>()), 0..20),
            key in "[a-z.]{1,200}", value in "\\PC{0,200}", int: i64, truth: bool, observed: u64,
        ) {
            let mut resource = Vec::new();
            put_resource_attribute(&mut resource, &key, Value::Text(&value));
            let mut attributes = Vec::new();
            put_record_attribute(&mut attributes, &key, Value::Int(int));
            put_record_attribute(&mut attributes, "flag", Value::Bool(truth));
            let mut suffix = RecordSuffix::new(&attributes);
            suffix.set_observed_time(observed);
            prop_assert_eq!(suffix.attributes(), &attributes);

            let mut records = Vec::new();
            let mut expected = Vec::new();
            for (time, text, as_text) in &bodies {
                let bytes = text.as_bytes();
                let body = if *as_text { Body::Text(bytes) } else { Body::Bytes(bytes) };
                let before = records.len();
                put_log_record(&mut records, *time, body, &suffix);
                prop_assert!(records.len() - before <= log_record_bytes(bytes.len(), &suffix));
                let value = if *as_text {
                    any_value::Value::StringValue(text.clone())
                } else {
                    any_value::Value::BytesValue(bytes.to_vec())
                };
                expected.push(LogRecord {
                    time_unix_nano: *time,
                    observed_time_unix_nano: observed,
                    body: Some(AnyValue { value: Some(value) }),
                    attributes: vec![
                        attribute(&key, any_value::Value::IntValue(int)),
                        attribute("flag", any_value::Value::BoolValue(truth)),
                    ],
                    ..LogRecord::default()
                });
            }
            let mut request = Vec::new();
            put_resource_logs_prefix(&mut request, &resource, records.len());
            request.extend_from_slice(&records);
            let decoded = ExportLogsServiceRequest::decode(&request[..]).unwrap();
            let resource = Resource {
                attributes: vec![attribute(&key, any_value::Value::StringValue(value))],
                ..Resource::default()
            };
            prop_assert_eq!(decoded.resource_logs, vec![ResourceLogs {
                resource: Some(resource),
                scope_logs: vec![ScopeLogs { log_records: expected, ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            }]);
        }

        /// Scenario: two records share a suffix whose last attribute is text; its front is changed in
        /// the suffix, its end in one record.
        /// Guarantees: each record has its own text, and nothing else changes.
        #[test]
        fn texts_are_overwritten_in_place(first in "[a-z]{4}", second in "[a-z]{3}") {
            let mut attributes = Vec::new();
            put_record_attribute(&mut attributes, "flag", Value::Bool(true));
            put_record_attribute(&mut attributes, "text", Value::Text("0123456"));
            let mut suffix = RecordSuffix::new(&attributes);
            suffix.overwrite_text(first.as_bytes(), 3);
            let mut records = Vec::new();
            put_log_record(&mut records, 1, Body::Text(b"x"), &suffix);
            put_log_record(&mut records, 1, Body::Text(b"x"), &suffix);
            overwrite_last_text::<3>(&mut records, second.as_bytes().try_into().unwrap());
            let found = ScopeLogs::decode(&records[..]).unwrap().log_records;
            for (record, end) in found.iter().zip(["456", &second]) {
                let text = any_value::Value::StringValue(format!("{first}{end}"));
                prop_assert_eq!(&record.attributes, &vec![
                    attribute("flag", any_value::Value::BoolValue(true)),
                    attribute("text", text),
                ]);
            }
        }

        /// Scenario: any number.
        /// Guarantees: the length by arithmetic is the length of what is written.
        #[test]
        fn varint_lengths_agree(value: u64, shift in 0..64_u32) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut array = [0; 10];
            prop_assert_eq!(write_varint(&mut array, 0, value), out.len());
            prop_assert_eq!(&array[..out.len()], &out[..]);
        }
    }
}
