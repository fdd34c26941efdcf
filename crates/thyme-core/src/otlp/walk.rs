//! Borrowed walker over an encoded `ExportLogsServiceRequest`: request, resources, scopes, records,
//! attributes, each an iterator over the bytes of the message above it.
//!
//! It copies and allocates nothing, skips fields that it doesn't know, and never panics: what is
//! malformed ends the iteration with a [`WalkError`]. It doesn't check that strings are UTF-8, and
//! reads only what the caller iterates: use [`CheckedParser`] for whole records. Where a
//! field that occurs once by the schema occurs again, the last one counts.
//!
//! Field numbers are those of opentelemetry-proto 1.x (`logs/v1/logs.proto`,
//! `common/v1/common.proto`, `collector/logs/v1/logs_service.proto`).

mod bisect;
#[cfg(test)]
mod oracle;
mod wire;

use std::fmt;

pub use bisect::{count, split};
use wire::{Fields, Messages, Reader, bytes_key, fixed64_key, varint_key};

/// How deep values may lie in values (arrays, key-value lists). prost, whose limit is 100 messages
/// in each other and to which each level is two or three, never goes deeper.
pub const VALUE_NESTING_MAX: u32 = 48;

/// Why bytes aren't a logs request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// A field goes on beyond the end of its message.
    Truncated,
    /// A varint has more than 64 bits.
    Varint,
    /// A field number is zero or beyond protobuf's maximum.
    FieldNumber,
    /// A group, which OTLP never used and protobuf gave up.
    Group,
    /// A wire type that protobuf doesn't have.
    WireType(u8),
    /// A known field of that message has another type than the schema says.
    FieldType {
        /// The message's name.
        message: &'static str,
    },
    /// Values lie deeper in each other than [`VALUE_NESTING_MAX`].
    Nesting,
}

impl fmt::Display for WalkError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => out.write_str("a field goes on beyond the end of its message"),
            Self::Varint => out.write_str("a varint has more than 64 bits"),
            Self::FieldNumber => out.write_str("a field number is out of range"),
            Self::Group => out.write_str("groups are not supported"),
            Self::WireType(wire_type) => write!(out, "wire type {wire_type} does not exist"),
            Self::FieldType { message } => write!(out, "a field of {message} has the wrong type"),
            Self::Nesting => write!(out, "values nested deeper than {VALUE_NESTING_MAX}"),
        }
    }
}

impl std::error::Error for WalkError {}

/// The resources of a request, in order.
///
/// # Errors
/// Each item may be the error that ends the iteration.
#[inline]
pub fn resource_logs(
    request: &[u8],
) -> impl Iterator<Item = Result<ResourceLogs<'_>, WalkError>> + Clone {
    Messages::new(request, field::RESOURCE_LOGS, "ExportLogsServiceRequest")
        .map(|message| message.map(|bytes| ResourceLogs { bytes }))
}

/// Calls `visit` with each encoded record of a request in order; the fast path of a receiver, which
/// parses them with a [`CheckedParser`]. Returns how many there were.
///
/// # Errors
/// The first error of the walk or of `visit`, which has then seen the records before it.
#[inline]
pub fn for_each_raw_record<'a>(
    request: &'a [u8],
    mut visit: impl FnMut(&'a [u8]) -> Result<(), WalkError>,
) -> Result<u64, WalkError> {
    let mut records = 0;
    for resource in resource_logs(request) {
        for scope in resource?.scope_logs() {
            for record in scope?.raw_log_records() {
                visit(record?)?;
                records += 1;
            }
        }
    }
    Ok(records)
}

/// One `ResourceLogs`: the records of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLogs<'a> {
    /// The encoded message.
    pub bytes: &'a [u8],
}

impl<'a> ResourceLogs<'a> {
    /// Its scopes, in order.
    #[inline]
    pub fn scope_logs(
        &self,
    ) -> impl Iterator<Item = Result<ScopeLogs<'a>, WalkError>> + Clone + use<'a> {
        Messages::new(self.bytes, field::SCOPE_LOGS, "ResourceLogs")
            .map(|message| message.map(|bytes| ScopeLogs { bytes }))
    }

    /// The resource's own attributes.
    pub fn attributes(&self) -> impl Iterator<Item = Result<Attribute<'a>, WalkError>> + use<'a> {
        Messages::new(self.bytes, field::RESOURCE, "ResourceLogs").flat_map(|resource| {
            let (bytes, error) = match resource {
                Ok(bytes) => (bytes, None),
                Err(error) => (&[][..], Some(Err(error))),
            };
            attributes(bytes, field::RESOURCE_ATTRIBUTES, "Resource").chain(error)
        })
    }

    /// The encoded fields other than the scopes, each with its key: the resource, the schema URL,
    /// and what this version doesn't know.
    pub fn other_fields(&self) -> impl Iterator<Item = Result<&'a [u8], WalkError>> + use<'a> {
        other_fields(self.bytes, field::SCOPE_LOGS)
    }
}

/// One `ScopeLogs`: the records of one scope within a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeLogs<'a> {
    /// The encoded message.
    pub bytes: &'a [u8],
}

impl<'a> ScopeLogs<'a> {
    /// Its records, in order.
    #[inline]
    pub fn log_records(&self) -> impl Iterator<Item = Result<LogRecord<'a>, WalkError>> + use<'a> {
        self.raw_log_records().map(|message| LogRecord::parse(message?))
    }

    /// Its encoded records, in order, unread.
    #[inline]
    pub fn raw_log_records(
        &self,
    ) -> impl Iterator<Item = Result<&'a [u8], WalkError>> + Clone + use<'a> {
        Messages::new(self.bytes, field::LOG_RECORDS, "ScopeLogs")
    }

    /// The encoded fields other than the records, each with its key: the scope, the schema URL,
    /// and what this version doesn't know.
    pub fn other_fields(&self) -> impl Iterator<Item = Result<&'a [u8], WalkError>> + use<'a> {
        other_fields(self.bytes, field::LOG_RECORDS)
    }
}

/// One record, borrowed from the request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogRecord<'a> {
    /// The encoded message.
    pub bytes: &'a [u8],
    /// When it happened, nanoseconds since the Unix epoch; 0 when unknown.
    pub time_unix_nano: u64,
    /// When it was collected, nanoseconds since the Unix epoch; 0 when unknown.
    pub observed_time_unix_nano: u64,
    /// Its body.
    pub body: AnyValue<'a>,
}

impl<'a> LogRecord<'a> {
    /// Reads an encoded record; its attributes are skipped until [`Self::attributes`] is called.
    ///
    /// # Errors
    /// When the record itself, or the outermost level of its body, is malformed.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WalkError> {
        let mut record = Self::empty(bytes);
        record.read(|_, attribute| attribute.bytes().map(drop))?;
        Ok(record)
    }

    const fn empty(bytes: &'a [u8]) -> Self {
        Self { bytes, time_unix_nano: 0, observed_time_unix_nano: 0, body: AnyValue::Empty }
    }

    /// Reads the record. `attributes` reads one attribute or more: it gets what the record holds
    /// from the first one's key on, and the reader behind that key.
    #[inline(always)]
    fn read(
        &mut self,
        mut attributes: impl FnMut(&'a [u8], &mut Reader<'a>) -> Result<(), WalkError>,
    ) -> Result<(), WalkError> {
        const TIME: u32 = fixed64_key(field::TIME);
        const OBSERVED_TIME: u32 = fixed64_key(field::OBSERVED_TIME);
        const BODY: u32 = bytes_key(field::BODY);
        let known = |number| {
            matches!(
                number,
                field::TIME | field::OBSERVED_TIME | field::BODY | field::RECORD_ATTRIBUTES
            )
        };
        let mut reader = Reader::new(self.bytes);
        while !reader.is_at_end() {
            let start = reader.rest();
            match reader.key()? {
                TIME => self.time_unix_nano = reader.fixed64()?,
                OBSERVED_TIME => self.observed_time_unix_nano = reader.fixed64()?,
                BODY => self.body = AnyValue::parse(reader.bytes()?)?,
                RECORD_ATTRIBUTES => attributes(start, &mut reader)?,
                key => reader.skip(key, "LogRecord", known)?,
            }
        }
        Ok(())
    }

    /// Its attributes, read as they are asked for.
    #[inline]
    pub fn attributes(&self) -> impl Iterator<Item = Result<Attribute<'a>, WalkError>> + use<'a> {
        attributes(self.bytes, field::RECORD_ATTRIBUTES, "LogRecord")
    }
}

/// Key of a record's attribute.
const RECORD_ATTRIBUTES: u32 = bytes_key(field::RECORD_ATTRIBUTES);

/// Parses one record after the other and checks each as a whole, down to every value of its body
/// and attributes. Neighbours mostly have the same attributes; what equals bytes that were checked
/// before is known to be good.
#[derive(Clone, Debug, Default)]
pub struct CheckedParser<'a> {
    /// The attributes of an earlier record, one after the other with their keys; all are good.
    attributes: &'a [u8],
    /// What [`RECORD_UID`] says among them.
    attributes_uid: Option<&'a [u8]>,
    /// What it says in the record that was parsed last.
    uid: Option<&'a [u8]>,
}

/// The attribute that identifies a record (OpenTelemetry semantic conventions).
const RECORD_UID: &[u8] = b"log.record.uid";

impl<'a> CheckedParser<'a> {
    /// Reads an encoded record.
    ///
    /// # Errors
    /// When any of it is malformed or nested too deeply.
    #[inline]
    pub fn parse(&mut self, bytes: &'a [u8]) -> Result<LogRecord<'a>, WalkError> {
        let mut record = LogRecord::empty(bytes);
        self.uid = None;
        record.read(|start, reader| {
            if let Some(rest) = start.strip_prefix(self.attributes)
                && !self.attributes.is_empty()
            {
                *reader = Reader::new(rest);
            } else {
                (self.attributes, self.attributes_uid) = check_attributes(start, reader)?;
            }
            self.uid = self.attributes_uid.or(self.uid);
            Ok(())
        })?;
        record.body.check()?;
        Ok(record)
    }

    /// The attribute `log.record.uid` of the record that was parsed last, if it is text.
    #[inline]
    pub fn uid(&self) -> Option<&'a [u8]> {
        self.uid
    }
}

/// Checks the attributes that follow each other here; `reader` is behind the key of the first, and
/// `start` is what it had left before that key. Returns their bytes, and what identifies the record
/// among them.
fn check_attributes<'a>(
    start: &'a [u8],
    reader: &mut Reader<'a>,
) -> Result<(&'a [u8], Option<&'a [u8]>), WalkError> {
    let mut uid = None;
    loop {
        let Attribute { key, value } = Attribute::parse(reader.bytes()?)?;
        value.check()?;
        if let AnyValue::String(text) = value
            && key == RECORD_UID
        {
            uid = Some(text);
        }
        let mut ahead = reader.clone();
        if ahead.is_at_end() || ahead.key()? != RECORD_ATTRIBUTES {
            return Ok((&start[..start.len() - reader.rest().len()], uid));
        }
        *reader = ahead;
    }
}

/// One `KeyValue`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribute<'a> {
    /// Its key, as sent.
    pub key: &'a [u8],
    /// Its value.
    pub value: AnyValue<'a>,
}

impl<'a> Attribute<'a> {
    /// Reads an encoded `KeyValue`.
    #[inline]
    fn parse(bytes: &'a [u8]) -> Result<Self, WalkError> {
        const KEY: u32 = bytes_key(field::KEY);
        const VALUE: u32 = bytes_key(field::KEY_VALUE);
        let known = |number| matches!(number, field::KEY | field::KEY_VALUE);
        let mut attribute = Self { key: &[], value: AnyValue::Empty };
        let mut reader = Reader::new(bytes);
        while !reader.is_at_end() {
            match reader.key()? {
                KEY => attribute.key = reader.bytes()?,
                VALUE => attribute.value = AnyValue::parse(reader.bytes()?)?,
                key => reader.skip(key, "KeyValue", known)?,
            }
        }
        Ok(attribute)
    }
}

/// One `AnyValue`. Arrays and lists stay encoded until they are iterated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AnyValue<'a> {
    /// No value at all.
    Empty,
    /// Text, as sent: not checked to be UTF-8.
    String(&'a [u8]),
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number.
    Double(f64),
    /// The encoded `ArrayValue`; see [`AnyValue::children`].
    Array(&'a [u8]),
    /// The encoded `KeyValueList`; see [`AnyValue::children`].
    KeyValueList(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl<'a> AnyValue<'a> {
    /// Reads the outermost level of an encoded `AnyValue`.
    ///
    /// # Errors
    /// When that level is malformed.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WalkError> {
        const STRING: u32 = bytes_key(field::STRING_VALUE);
        const BOOL: u32 = varint_key(field::BOOL_VALUE);
        const INT: u32 = varint_key(field::INT_VALUE);
        const DOUBLE: u32 = fixed64_key(field::DOUBLE_VALUE);
        const ARRAY: u32 = bytes_key(field::ARRAY_VALUE);
        const KVLIST: u32 = bytes_key(field::KVLIST_VALUE);
        const BYTES: u32 = bytes_key(field::BYTES_VALUE);
        let known = |number| matches!(number, field::STRING_VALUE..=field::BYTES_VALUE);
        let mut value = Self::Empty;
        let mut reader = Reader::new(bytes);
        while !reader.is_at_end() {
            value = match reader.key()? {
                STRING => Self::String(reader.bytes()?),
                BOOL => Self::Bool(reader.varint()? != 0),
                INT => Self::Int(reader.varint()?.cast_signed()),
                DOUBLE => Self::Double(f64::from_bits(reader.fixed64()?)),
                ARRAY => Self::Array(reader.bytes()?),
                KVLIST => Self::KeyValueList(reader.bytes()?),
                BYTES => Self::Bytes(reader.bytes()?),
                key => {
                    reader.skip(key, "AnyValue", known)?;
                    value
                }
            };
        }
        Ok(value)
    }

    /// The values directly inside an array or a list, without their keys; nothing for the others.
    pub fn children(&self) -> impl Iterator<Item = Result<AnyValue<'a>, WalkError>> + use<'a> {
        let (array, list) = match *self {
            Self::Array(bytes) => (bytes, &[][..]),
            Self::KeyValueList(bytes) => (&[][..], bytes),
            _ => (&[][..], &[][..]),
        };
        let values =
            Messages::new(array, field::VALUES, "ArrayValue").map(|value| Self::parse(value?));
        let pairs = attributes(list, field::VALUES, "KeyValueList")
            .map(|attribute| attribute.map(|attribute| attribute.value));
        values.chain(pairs)
    }

    /// Calls `visit` with each string and each run of bytes in this value, at any depth.
    ///
    /// # Errors
    /// When the value is malformed or nested deeper than [`VALUE_NESTING_MAX`].
    pub fn for_each_text(&self, visit: &mut dyn FnMut(&'a [u8])) -> Result<(), WalkError> {
        self.descend(visit, VALUE_NESTING_MAX)
    }

    /// Reads the value at every depth.
    ///
    /// # Errors
    /// As [`Self::for_each_text`].
    #[inline]
    pub fn check(&self) -> Result<(), WalkError> {
        match self {
            Self::Array(_) | Self::KeyValueList(_) => self.for_each_text(&mut |_| {}),
            _ => Ok(()),
        }
    }

    fn descend(&self, visit: &mut dyn FnMut(&'a [u8]), levels_left: u32) -> Result<(), WalkError> {
        match self {
            Self::String(text) | Self::Bytes(text) => visit(text),
            Self::Array(_) | Self::KeyValueList(_) => {
                let levels_left = levels_left.checked_sub(1).ok_or(WalkError::Nesting)?;
                for child in self.children() {
                    child?.descend(visit, levels_left)?;
                }
            }
            Self::Empty | Self::Bool(_) | Self::Int(_) | Self::Double(_) => {}
        }
        Ok(())
    }
}

/// Numbers of the fields that the walker reads.
mod field {
    pub(super) const RESOURCE_LOGS: u32 = 1;
    pub(super) const RESOURCE: u32 = 1;
    pub(super) const SCOPE_LOGS: u32 = 2;
    pub(super) const RESOURCE_ATTRIBUTES: u32 = 1;
    pub(super) const LOG_RECORDS: u32 = 2;
    pub(super) const TIME: u32 = 1;
    pub(super) const BODY: u32 = 5;
    pub(super) const RECORD_ATTRIBUTES: u32 = 6;
    pub(super) const OBSERVED_TIME: u32 = 11;
    pub(super) const KEY: u32 = 1;
    pub(super) const KEY_VALUE: u32 = 2;
    pub(super) const STRING_VALUE: u32 = 1;
    pub(super) const BOOL_VALUE: u32 = 2;
    pub(super) const INT_VALUE: u32 = 3;
    pub(super) const DOUBLE_VALUE: u32 = 4;
    pub(super) const ARRAY_VALUE: u32 = 5;
    pub(super) const KVLIST_VALUE: u32 = 6;
    pub(super) const BYTES_VALUE: u32 = 7;
    pub(super) const VALUES: u32 = 1;
}

#[inline]
fn attributes<'a>(
    message: &'a [u8],
    number: u32,
    name: &'static str,
) -> impl Iterator<Item = Result<Attribute<'a>, WalkError>> + use<'a> {
    Messages::new(message, number, name).map(|attribute| Attribute::parse(attribute?))
}

fn other_fields<'a>(
    message: &'a [u8],
    number: u32,
) -> impl Iterator<Item = Result<&'a [u8], WalkError>> + use<'a> {
    Fields::new(message).filter_map(move |field| match field {
        Ok(field) if field.number == number => None,
        Ok(field) => Some(Ok(field.raw)),
        Err(error) => Some(Err(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::oracle::{self, any_value};
    use super::*;
    use crate::otlp::encode::put_varint;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1 as common;
    use opentelemetry_proto::tonic::logs::v1 as logs;
    use proptest::prelude::*;
    use prost::Message;

    /// Walks everything that can be walked, and returns the number of records.
    fn walk_all(request: &[u8]) -> Result<u64, WalkError> {
        for resource in resource_logs(request) {
            for attribute in resource?.attributes() {
                attribute?.value.check()?;
            }
        }
        let mut parser = CheckedParser::default();
        for_each_raw_record(request, |record| parser.parse(record).map(drop))
    }

    fn assert_same_value(value: AnyValue<'_>, oracle: Option<&common::AnyValue>) {
        use common::any_value::Value as Oracle;
        let children = value.children().collect::<Result<Vec<_>, _>>().unwrap();
        let same_children = |oracles: Vec<Option<&common::AnyValue>>| {
            assert_eq!(children.len(), oracles.len());
            for (child, oracle) in children.iter().zip(oracles) {
                assert_same_value(*child, oracle);
            }
        };
        match (value, oracle.and_then(|oracle| oracle.value.as_ref())) {
            (AnyValue::Empty, None) => {}
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
            (ours, theirs) => panic!("{ours:?} is not {theirs:?}"),
        }
    }

    fn assert_same_attributes<'a>(
        attributes: impl Iterator<Item = Result<Attribute<'a>, WalkError>>,
        oracle: &[common::KeyValue],
    ) {
        let attributes = attributes.collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(attributes.len(), oracle.len());
        for (ours, theirs) in attributes.iter().zip(oracle) {
            assert_eq!(ours.key, theirs.key.as_bytes());
            assert_same_value(ours.value, theirs.value.as_ref());
        }
    }

    fn assert_same_record(record: LogRecord<'_>, oracle: &logs::LogRecord) {
        assert_eq!(record.bytes, oracle.encode_to_vec());
        assert_eq!(record.time_unix_nano, oracle.time_unix_nano);
        assert_eq!(record.observed_time_unix_nano, oracle.observed_time_unix_nano);
        assert_same_value(record.body, oracle.body.as_ref());
        assert_same_attributes(record.attributes(), &oracle.attributes);
        assert_eq!(CheckedParser::default().parse(record.bytes), Ok(record));
    }

    proptest! {
        /// Scenario: any request, encoded by prost.
        /// Guarantees: the walk meets the same resources, scopes, records, bodies and attributes,
        /// in the same order, as the generated types (the oracle) hold.
        #[test]
        fn the_walk_meets_what_prost_encoded(request in oracle::request()) {
            let bytes = request.encode_to_vec();
            let resources = resource_logs(&bytes).collect::<Result<Vec<_>, _>>().unwrap();
            prop_assert_eq!(resources.len(), request.resource_logs.len());
            for (ours, theirs) in resources.iter().zip(&request.resource_logs) {
                let attributes = theirs.resource.as_ref().map_or(&[][..], |one| &one.attributes);
                assert_same_attributes(ours.attributes(), attributes);
                let scopes = ours.scope_logs().collect::<Result<Vec<_>, _>>().unwrap();
                prop_assert_eq!(scopes.len(), theirs.scope_logs.len());
                for (ours, theirs) in scopes.iter().zip(&theirs.scope_logs) {
                    let records = ours.log_records().collect::<Result<Vec<_>, _>>().unwrap();
                    prop_assert_eq!(records.len(), theirs.log_records.len());
                    for (ours, theirs) in records.iter().zip(&theirs.log_records) {
                        assert_same_record(*ours, theirs);
                    }
                }
            }
            let records = oracle::records(&request).len() as u64;
            prop_assert_eq!(walk_all(&bytes), Ok(records));
            prop_assert_eq!(count(&bytes), Ok(records));
        }

        /// Scenario: a request with bytes changed, cut off or inserted, and arbitrary bytes.
        /// Guarantees: nothing panics; the walk refuses nothing that prost accepts, groups apart,
        /// and finds as many records.
        #[test]
        fn damage_is_refused_or_read_as_prost_reads_it(
            request in oracle::request(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 0..4),
            arbitrary: Vec<u8>,
        ) {
            let mut bytes = request.encode_to_vec();
            for (at, byte, kind) in edits {
                if bytes.is_empty() {
                    break;
                }
                let at = at.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes.truncate(at),
                    _ => bytes.insert(at, byte),
                }
            }
            for bytes in [bytes, arbitrary] {
                let _halves = split(&bytes);
                let oracle = ExportLogsServiceRequest::decode(&bytes[..]);
                match (walk_all(&bytes), oracle) {
                    (Err(WalkError::Group), _) | (_, Err(_)) => {}
                    (ours, Ok(oracle)) => {
                        prop_assert_eq!(ours, Ok(oracle::records(&oracle).len() as u64));
                    }
                }
            }
        }

        /// Scenario: a value of any shape.
        /// Guarantees: every string and every run of bytes in it is visited, in order.
        #[test]
        fn texts_are_found_at_any_depth(value in any_value()) {
            let bytes = value.encode_to_vec();
            let mut seen = Vec::new();
            let walked = AnyValue::parse(&bytes).unwrap();
            walked.for_each_text(&mut |text| seen.push(text.to_vec())).unwrap();
            let mut expected = Vec::new();
            oracle::texts(&value, &mut expected);
            prop_assert_eq!(seen, expected);
        }
    }

    fn nested(levels: u32, inside: common::AnyValue) -> common::AnyValue {
        (0..levels).fold(inside, |value, _| common::AnyValue {
            value: Some(common::any_value::Value::ArrayValue(common::ArrayValue {
                values: vec![value],
            })),
        })
    }

    /// Scenario: arrays in arrays, up to the limit and one beyond it, and 2,000 of them.
    /// Guarantees: the first is read, the others are refused without exhausting the stack.
    #[test]
    fn nesting_is_bounded() {
        let text = common::AnyValue {
            value: Some(common::any_value::Value::StringValue("deep".to_owned())),
        };
        let check = |bytes: &[u8]| AnyValue::parse(bytes).unwrap().check();
        assert_eq!(check(&nested(VALUE_NESTING_MAX, text.clone()).encode_to_vec()), Ok(()));
        let deeper = nested(VALUE_NESTING_MAX + 1, text).encode_to_vec();
        assert_eq!(check(&deeper), Err(WalkError::Nesting));

        // Built from the inside by hand, since prost's encoder recurses.
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..2_000 {
            for number in [field::VALUES, field::ARRAY_VALUE] {
                let inside = std::mem::take(&mut bytes);
                put_varint(&mut bytes, u64::from(number) << 3 | 2);
                put_varint(&mut bytes, inside.len() as u64);
                bytes.extend_from_slice(&inside);
            }
        }
        assert_eq!(check(&bytes), Err(WalkError::Nesting));
    }

    /// Scenario: records whose attributes are those of the one before, more, fewer, and damaged.
    /// Guarantees: remembering what was checked hides no damage, and refuses nothing that is good.
    #[test]
    fn remembered_attributes_hide_nothing() {
        // KeyValue { key: "k", value: AnyValue { string_value: "v" } }
        let good = [0x32, 8, 0x0a, 1, b'k', 0x12, 3, 0x0a, 1, b'v'];
        let mut damaged = good;
        damaged[8] = 9;
        let records = [
            (good.repeat(2), true),
            (good.repeat(2), true),
            (good.repeat(3), true),
            (good.to_vec(), true),
            ([&good[..], &damaged].concat(), false),
            (damaged.to_vec(), false),
            ([&good[..], &[0x32]].concat(), false),
            ([&good[..], &[0x08, 1]].concat(), false),
            ([&good[..], &[0x58, 1], &good].concat(), false),
            ([&good[..], &[0x10, 1], &good].concat(), true),
            (good.repeat(2), true),
        ];
        let mut parser = CheckedParser::default();
        for (index, (record, is_good)) in records.iter().enumerate() {
            assert_eq!(parser.parse(record).is_ok(), *is_good, "record {index}");
            assert_eq!(CheckedParser::default().parse(record).is_ok(), *is_good, "record {index}");
        }
    }

    /// Scenario: known fields with another wire type than the schema's, and unknown ones.
    /// Guarantees: the former are refused naming the message, the latter are skipped.
    #[test]
    fn wrong_types_are_refused_and_unknown_fields_skipped() {
        let wrong = |message| Err(WalkError::FieldType { message });
        assert_eq!(walk_all(&[0x08, 1]), wrong("ExportLogsServiceRequest"));
        assert_eq!(walk_all(&[0x0a, 2, 0x10, 1]), wrong("ResourceLogs"));
        assert_eq!(walk_all(&[0x0a, 4, 0x12, 2, 0x10, 1]), wrong("ScopeLogs"));
        assert_eq!(LogRecord::parse(&[0x08, 1]).map(|_| 0), wrong("LogRecord"));
        assert_eq!(AnyValue::parse(&[0x08, 1]).map(|_| 0), wrong("AnyValue"));
        // Fields 100 to 103, one of each wire type, beside an empty request.
        let unknown =
            [0xa0, 6, 1, 0xa9, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0xb2, 6, 1, 9, 0xbd, 6, 1, 2, 3, 4];
        assert_eq!(walk_all(&unknown), Ok(0));
        assert_eq!(LogRecord::parse(&unknown).unwrap().body, AnyValue::Empty);
    }
}
