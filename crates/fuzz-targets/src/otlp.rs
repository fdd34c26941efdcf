//! OTLP on the wire: the walker reads what the generated types read, and halving a request keeps
//! every record in its context.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, common::v1 as common, logs::v1 as logs,
};
use prost::Message;
use thyme_core::otlp::walk::{
    self, AnyValue, Attribute, CheckedParser, LogRecord, WalkError, for_each_raw_record,
    resource_logs,
};

/// Walks, compares with the oracle, and halves.
pub(crate) fn check(data: &[u8]) {
    let walked = walk_all(data);
    let oracle = ExportLogsServiceRequest::decode(data);
    match (walked, &oracle) {
        // prost skips groups.
        (Err(WalkError::Group), _) | (_, Err(_)) => {}
        (walked, Ok(oracle)) => assert_eq!(walked, Ok(records(oracle).len() as u64)),
    }
    check_halves(data, oracle.as_ref().ok());
    if let Ok(oracle) = oracle {
        // prost unites messages that occur twice, where the walker takes the last: so details are
        // compared in the form that has none.
        let canonical = oracle.encode_to_vec();
        assert_eq!(walk_all(&canonical), Ok(records(&oracle).len() as u64));
        assert_same_request(&canonical, &oracle);
        check_halves(&canonical, Some(&oracle));
    }
}

/// Every record of a request, in order.
fn records(request: &ExportLogsServiceRequest) -> Vec<&logs::LogRecord> {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.flat_map(|scope| &scope.log_records).collect()
}

/// Walks everything that can be walked, and returns the number of records. Remembering what
/// earlier records had must change nothing.
fn walk_all(request: &[u8]) -> Result<u64, WalkError> {
    for resource in resource_logs(request) {
        for attribute in resource?.attributes() {
            attribute?.value.check()?;
        }
    }
    let mut parser = CheckedParser::default();
    for_each_raw_record(request, |record| {
        let parsed = parser.parse(record);
        assert!(same_result(parsed, CheckedParser::default().parse(record)));
        parsed.map(drop)
    })
}

/// Equality in which a number that isn't one equals itself.
fn same_result(
    one: Result<LogRecord<'_>, WalkError>,
    other: Result<LogRecord<'_>, WalkError>,
) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

fn raw_records(request: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let walked = for_each_raw_record(request, |record| {
        found.push(record);
        Ok(())
    });
    assert_eq!(walked, Ok(found.len() as u64), "a half can't be walked");
    found
}

fn check_halves(request: &[u8], oracle: Option<&ExportLogsServiceRequest>) {
    let Some((first, second)) = walk::split(request) else {
        assert!(walk::count(request).map_or(true, |count| count < 2));
        return;
    };
    let all = raw_records(request);
    let (mut found, more) = (raw_records(&first), raw_records(&second));
    assert_eq!((found.len(), more.len()), (all.len().div_ceil(2), all.len() / 2));
    found.extend(more);
    assert_eq!(found, all);
    if let Some(oracle) = oracle {
        let decode = |half: &[u8]| {
            ExportLogsServiceRequest::decode(half).expect("half of what prost reads is readable")
        };
        let mut found = in_context(&decode(&first));
        found.extend(in_context(&decode(&second)));
        assert!(found == in_context(oracle), "a record has lost its context");
    }
}

/// Everything around each record, and the record, encoded.
fn in_context(request: &ExportLogsServiceRequest) -> Vec<[Vec<u8>; 3]> {
    let mut found = Vec::new();
    for resource in &request.resource_logs {
        let around_scope = logs::ResourceLogs { scope_logs: Vec::new(), ..resource.clone() };
        for scope in &resource.scope_logs {
            let around_record = logs::ScopeLogs { log_records: Vec::new(), ..scope.clone() };
            for record in &scope.log_records {
                let messages = [around_scope.encode_to_vec(), around_record.encode_to_vec()];
                let [resource, scope] = messages;
                found.push([resource, scope, record.encode_to_vec()]);
            }
        }
    }
    found
}

fn assert_same_request(bytes: &[u8], oracle: &ExportLogsServiceRequest) {
    let resources: Vec<_> = resource_logs(bytes).map(readable).collect();
    assert_eq!(resources.len(), oracle.resource_logs.len());
    for (ours, theirs) in resources.iter().zip(&oracle.resource_logs) {
        let attributes = theirs.resource.as_ref().map_or(&[][..], |one| &one.attributes);
        assert_same_attributes(ours.attributes(), attributes);
        let scopes: Vec<_> = ours.scope_logs().map(readable).collect();
        assert_eq!(scopes.len(), theirs.scope_logs.len());
        for (ours, theirs) in scopes.iter().zip(&theirs.scope_logs) {
            let records: Vec<_> = ours.log_records().map(readable).collect();
            assert_eq!(records.len(), theirs.log_records.len());
            for (ours, theirs) in records.iter().zip(&theirs.log_records) {
                assert_same_record(ours, theirs);
            }
        }
    }
}

fn readable<T>(item: Result<T, WalkError>) -> T {
    item.expect("what prost encodes can be walked")
}

fn assert_same_record(record: &LogRecord<'_>, oracle: &logs::LogRecord) {
    assert_eq!(record.bytes, oracle.encode_to_vec());
    assert_eq!(record.time_unix_nano, oracle.time_unix_nano);
    assert_eq!(record.observed_time_unix_nano, oracle.observed_time_unix_nano);
    assert_same_value(record.body, oracle.body.as_ref());
    assert_same_attributes(record.attributes(), &oracle.attributes);
}

fn assert_same_attributes<'a>(
    attributes: impl Iterator<Item = Result<Attribute<'a>, WalkError>>,
    oracle: &[common::KeyValue],
) {
    let attributes: Vec<_> = attributes.map(readable).collect();
    assert_eq!(attributes.len(), oracle.len());
    for (ours, theirs) in attributes.iter().zip(oracle) {
        assert_eq!(ours.key, theirs.key.as_bytes());
        assert_same_value(ours.value, theirs.value.as_ref());
    }
}

fn assert_same_value(value: AnyValue<'_>, oracle: Option<&common::AnyValue>) {
    use common::any_value::Value as Oracle;
    let children: Vec<_> = value.children().map(readable).collect();
    let same_children = |oracles: Vec<Option<&common::AnyValue>>| {
        assert_eq!(children.len(), oracles.len());
        for (child, oracle) in children.iter().zip(oracles) {
            assert_same_value(*child, oracle);
        }
    };
    match (value, oracle.and_then(|oracle| oracle.value.as_ref())) {
        (AnyValue::String(ours), Some(Oracle::StringValue(theirs))) => {
            assert_eq!(ours, theirs.as_bytes());
        }
        (AnyValue::Bytes(ours), Some(Oracle::BytesValue(theirs))) => assert_eq!(ours, theirs),
        (AnyValue::Bool(ours), Some(Oracle::BoolValue(theirs))) => assert_eq!(ours, *theirs),
        (AnyValue::Int(ours), Some(Oracle::IntValue(theirs))) => assert_eq!(ours, *theirs),
        (AnyValue::Double(ours), Some(Oracle::DoubleValue(theirs))) => {
            assert_eq!(ours.to_bits(), theirs.to_bits());
        }
        (AnyValue::Array(_), Some(Oracle::ArrayValue(theirs))) => {
            same_children(theirs.values.iter().map(Some).collect());
        }
        (AnyValue::KeyValueList(_), Some(Oracle::KvlistValue(theirs))) => {
            same_children(theirs.values.iter().map(|pair| pair.value.as_ref()).collect());
        }
        // What the schema has gained since is unknown to the walker, and so empty.
        (AnyValue::Empty, theirs) => assert!(
            !matches!(
                theirs,
                Some(
                    Oracle::StringValue(_)
                        | Oracle::BytesValue(_)
                        | Oracle::BoolValue(_)
                        | Oracle::IntValue(_)
                        | Oracle::DoubleValue(_)
                        | Oracle::ArrayValue(_)
                        | Oracle::KvlistValue(_)
                )
            ),
            "{theirs:?} was not seen"
        ),
        (ours, theirs) => panic!("{ours:?} is not {theirs:?}"),
    }
}
