//! Requests of any shape in the generated types, for the walker's property tests.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::prelude::*;

/// A whole request.
pub(super) fn request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    vec(resource_logs(), 0..4).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

/// Every record of a request, in order.
pub(super) fn records(request: &ExportLogsServiceRequest) -> Vec<&LogRecord> {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.flat_map(|scope| &scope.log_records).collect()
}

/// Every string and run of bytes in a value, in order.
pub(super) fn texts(value: &AnyValue, found: &mut Vec<Vec<u8>>) {
    match &value.value {
        Some(Value::StringValue(text)) => found.push(text.as_bytes().to_vec()),
        Some(Value::BytesValue(bytes)) => found.push(bytes.clone()),
        Some(Value::ArrayValue(array)) => {
            array.values.iter().for_each(|value| texts(value, found));
        }
        Some(Value::KvlistValue(list)) => {
            list.values.iter().filter_map(|pair| pair.value.as_ref()).for_each(|value| {
                texts(value, found);
            });
        }
        _ => {}
    }
}

/// A value, possibly with others in it.
pub(super) fn any_value() -> impl Strategy<Value = AnyValue> + Clone {
    let leaf = prop_oneof![
        Just(None),
        ".{0,200}".prop_map(|text| Some(Value::StringValue(text))),
        any::<bool>().prop_map(|value| Some(Value::BoolValue(value))),
        any::<i64>().prop_map(|value| Some(Value::IntValue(value))),
        any::<f64>().prop_map(|value| Some(Value::DoubleValue(value))),
        vec(any::<u8>(), 0..40).prop_map(|bytes| Some(Value::BytesValue(bytes))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 12, 4, |inner| {
        let list = vec((".{0,8}", prop::option::of(inner.clone())), 0..4);
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            list.prop_map(|pairs| Value::KvlistValue(KeyValueList { values: pairs_of(pairs) })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
    .boxed()
}

fn pairs_of(pairs: Vec<(String, Option<AnyValue>)>) -> Vec<KeyValue> {
    pairs.into_iter().map(|(key, value)| KeyValue { key, value, ..Default::default() }).collect()
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec((".{0,20}", prop::option::of(any_value())), 0..3).prop_map(pairs_of)
}

fn resource_logs() -> impl Strategy<Value = ResourceLogs> {
    let resource =
        attributes().prop_map(|attributes| Resource { attributes, ..Default::default() });
    (prop::option::of(resource), vec(scope_logs(), 0..3), ".{0,8}").prop_map(
        |(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url },
    )
}

fn scope_logs() -> impl Strategy<Value = ScopeLogs> {
    let scope = (".{0,8}", attributes()).prop_map(|(name, attributes)| InstrumentationScope {
        name,
        attributes,
        ..Default::default()
    });
    // Neighbours usually have the same attributes, which the walker makes use of.
    let log_records = (vec(log_record(), 0..5), any::<bool>()).prop_map(|(mut records, alike)| {
        if let Some((first, others)) = records.split_first_mut()
            && alike
        {
            others.iter_mut().for_each(|other| other.attributes.clone_from(&first.attributes));
        }
        records
    });
    (prop::option::of(scope), log_records, ".{0,8}")
        .prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url })
}

fn log_record() -> impl Strategy<Value = LogRecord> {
    (
        any::<[u64; 2]>(),
        0..25_i32,
        ".{0,8}",
        prop::option::of(any_value()),
        attributes(),
        any::<u32>(),
    )
        .prop_map(|(times, severity_number, severity_text, body, attributes, flags)| {
            LogRecord {
                time_unix_nano: times[0],
                observed_time_unix_nano: times[1],
                severity_number,
                severity_text,
                body,
                attributes,
                flags,
                trace_id: times[0].to_le_bytes().repeat(2),
                ..Default::default()
            }
        })
}
