//! OTLP's JSON in the collector: its reader counts what the generated types hold, and sees the same
//! stamps as the reader of protobuf.

use nop_collector::fuzzing::{self, Seen};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
};
use prost::Message;

/// An input that begins as JSON does is JSON, any other one is protobuf.
pub(crate) fn check(data: &[u8]) {
    if data.first() == Some(&b'{') {
        check_text(data);
    } else {
        check_message(data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        check_base64(text);
    }
    assert_eq!(
        fuzzing::base64_decode(&fuzzing::base64_encode(data)).as_deref(),
        Some(data),
        "base64 doesn't survive the round trip"
    );
}

fn check_text(text: &[u8]) {
    let seen = fuzzing::read_json(text, u64::MAX);
    if let Some(seen) = &seen {
        check_counts(seen);
        // The limit counts the first records.
        for records_max in [0, 1, seen.records / 2] {
            let fewer = fuzzing::read_json(text, records_max).expect("the limit makes no error");
            assert_eq!(fewer.records, seen.records.min(records_max));
        }
    }
    let oracle: Result<ExportLogsServiceRequest, _> = serde_json::from_slice(text);
    if let (Some(seen), Ok(oracle)) = (seen, oracle) {
        assert_eq!(seen.records, record_count(&oracle));
    }
}

fn check_message(message: &[u8]) {
    let Some(seen) = fuzzing::read_protobuf(message, u64::MAX) else { return };
    check_counts(&seen);
    let Ok(oracle) = ExportLogsServiceRequest::decode(message) else { return };
    assert_eq!(seen.records, record_count(&oracle));
    assert_eq!(seen.invalid_utf8, 0, "prost takes valid text only");
    // The canonical form, in which no field occurs twice.
    let seen = fuzzing::read_protobuf(&oracle.encode_to_vec(), u64::MAX);
    if !is_plain(&oracle) {
        return;
    }
    let json = serde_json::to_vec(&oracle).expect("generated types can be written");
    let in_json = fuzzing::read_json(&json, u64::MAX);
    assert_eq!(in_json, seen, "{}", json.escape_ascii());
}

fn record_count(request: &ExportLogsServiceRequest) -> u64 {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.map(|scope| scope.log_records.len() as u64).sum()
}

/// Whether both formats are searched for stamps in the same places: JSON's reader looks into names
/// of attributes too, and into every attribute where the other one stops at the first.
fn is_plain(request: &ExportLogsServiceRequest) -> bool {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    let mut records = scopes.flat_map(|scope| &scope.log_records);
    records.all(|record| {
        record.attributes.iter().all(has_plain_key) && record.body.as_ref().is_none_or(is_leaf)
    })
}

fn has_plain_key(attribute: &KeyValue) -> bool {
    attribute.key.len() < thyme_core::stamp::STAMP_BYTES
        && attribute.value.as_ref().is_none_or(is_leaf)
}

fn is_leaf(value: &AnyValue) -> bool {
    // JSON has no infinite numbers, and no number that isn't one.
    !matches!(&value.value, Some(Value::ArrayValue(_) | Value::KvlistValue(_)))
        && !matches!(&value.value, Some(Value::DoubleValue(number)) if !number.is_finite())
}

fn check_counts(seen: &Seen) {
    let stamped: u64 = seen.stretches.iter().map(|one| one.numbers.1 - one.numbers.0 + 1).sum();
    assert_eq!(stamped + seen.unstamped, seen.records);
    assert_eq!(seen.latencies_us.len() as u64, stamped);
}

fn check_base64(text: &str) {
    if let Some(bytes) = fuzzing::base64_decode(text) {
        let again = fuzzing::base64_encode(&bytes);
        assert_eq!(fuzzing::base64_decode(&again), Some(bytes));
    }
}
