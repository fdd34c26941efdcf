//! Halves an encoded request by its records, for a sink that finds it too large. Copies encoded
//! fields; never re-encodes a record, a resource or a scope.

use super::wire::Fields;
use super::{WalkError, field, for_each_raw_record};
use crate::otlp::encode::put_varint;

/// How many records a request holds. The records themselves aren't read.
///
/// # Errors
/// When the levels above the records are malformed.
pub fn count(request: &[u8]) -> Result<u64, WalkError> {
    for_each_raw_record(request, |_| Ok(()))
}

/// Splits a request into two with half of its records each, in order; the first half is the larger
/// one when the number is odd. Resources, scopes, schema URLs and fields that this version doesn't
/// know are kept with the records that they belong to.
///
/// `None` when there is nothing to halve (fewer than two records) or the request is malformed.
pub fn split(request: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let records = count(request).ok()?;
    if records < 2 {
        return None;
    }
    let middle = records.div_ceil(2);
    let first = Half { from: 0, to: middle, at: 0 }.of_request(request).ok()?;
    let second = Half { from: middle, to: u64::MAX, at: 0 }.of_request(request).ok()?;
    Some((first, second))
}

/// Rebuilds the part of a request that holds some of its records.
struct Half {
    /// First record kept, counted over the whole request.
    from: u64,
    /// First record no longer kept.
    to: u64,
    /// How many records were passed so far.
    at: u64,
}

impl Half {
    /// Fields beside the resources go into both halves.
    fn of_request(mut self, request: &[u8]) -> Result<Vec<u8>, WalkError> {
        let mut out = Vec::with_capacity(request.len() / 2);
        let mut scratch = Vec::new();
        self.copy_level(request, field::RESOURCE_LOGS, &mut out, |half, resource, out| {
            scratch.clear();
            half.copy_level(resource, field::SCOPE_LOGS, &mut scratch, |half, scope, out| {
                let mut kept = Vec::new();
                half.copy_records(scope, &mut kept)?;
                write_message(field::SCOPE_LOGS, &kept, out);
                Ok(())
            })?;
            write_message(field::RESOURCE_LOGS, &scratch, out);
            Ok(())
        })?;
        Ok(out)
    }

    /// Copies a message field by field; `inner` writes what is left of each field `number` of
    /// which a part belongs to this half.
    fn copy_level(
        &mut self,
        message: &[u8],
        number: u32,
        out: &mut Vec<u8>,
        mut inner: impl FnMut(&mut Self, &[u8], &mut Vec<u8>) -> Result<(), WalkError>,
    ) -> Result<(), WalkError> {
        for field in Fields::new(message) {
            let field = field?;
            if field.number != number {
                out.extend_from_slice(field.raw);
                continue;
            }
            let (start, length) = (self.at, out.len());
            let wrong = WalkError::FieldType { message: "ExportLogsServiceRequest" };
            inner(self, field.bytes.ok_or(wrong)?, out)?;
            let holds = if start == self.at {
                self.holds_empty(number)
            } else {
                start < self.to && self.from < self.at
            };
            if !holds {
                out.truncate(length);
            }
        }
        Ok(())
    }

    fn copy_records(&mut self, scope: &[u8], out: &mut Vec<u8>) -> Result<(), WalkError> {
        for field in Fields::new(scope) {
            let field = field?;
            if field.number != field::LOG_RECORDS {
                out.extend_from_slice(field.raw);
                continue;
            }
            if (self.from..self.to).contains(&self.at) {
                out.extend_from_slice(field.raw);
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Whether a level without a single record, met now, belongs to this half. An empty resource
    /// goes where its neighbours go; an empty scope stays wherever its resource does, which may be
    /// in both halves: only so is it certain to have a place.
    const fn holds_empty(&self, number: u32) -> bool {
        number == field::SCOPE_LOGS || (self.from <= self.at && self.at < self.to)
    }
}

/// Appends a length-delimited field.
fn write_message(number: u32, message: &[u8], out: &mut Vec<u8>) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use super::super::oracle;
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::LogRecord;
    use proptest::prelude::*;
    use prost::Message;

    /// Everything around each record, and the record.
    fn in_context(request: &ExportLogsServiceRequest) -> Vec<(Vec<u8>, Vec<u8>, LogRecord)> {
        let mut found = Vec::new();
        for resource in &request.resource_logs {
            let mut around_scope = resource.clone();
            around_scope.scope_logs.clear();
            for scope in &resource.scope_logs {
                let mut around_record = scope.clone();
                around_record.log_records.clear();
                for record in &scope.log_records {
                    let context = (around_scope.encode_to_vec(), around_record.encode_to_vec());
                    found.push((context.0, context.1, record.clone()));
                }
            }
        }
        found
    }

    proptest! {
        /// Scenario: any request is halved.
        /// Guarantees: prost (the oracle) reads from both halves together the same records in the
        /// same order, each within the same resource, scope and schema URLs; the sizes differ by
        /// at most one; no level that was empty is lost.
        #[test]
        fn halves_hold_every_record_in_its_context(request in oracle::request()) {
            let bytes = request.encode_to_vec();
            let all = in_context(&request);
            let Some((first, second)) = split(&bytes) else {
                prop_assert!(all.len() < 2);
                return Ok(());
            };
            let first = ExportLogsServiceRequest::decode(&first[..]).unwrap();
            let second = ExportLogsServiceRequest::decode(&second[..]).unwrap();
            let (mut found, more) = (in_context(&first), in_context(&second));
            prop_assert_eq!(found.len(), all.len().div_ceil(2));
            prop_assert_eq!(more.len(), all.len() / 2);
            found.extend(more);
            prop_assert_eq!(found, all);

            let empty = |request: &ExportLogsServiceRequest| {
                let scopes = request.resource_logs.iter().flat_map(|one| &one.scope_logs);
                scopes.filter(|scope| scope.log_records.is_empty()).count()
            };
            prop_assert!(empty(&first) + empty(&second) >= empty(&request));
            let resources = |request: &ExportLogsServiceRequest| request.resource_logs.len();
            let parts = resources(&first) + resources(&second);
            prop_assert!((resources(&request)..=resources(&request) + 1).contains(&parts));
        }

        /// Scenario: a request is halved until nothing can be halved, as for a sink that accepts
        /// one record at a time.
        /// Guarantees: it ends with each record alone, in order.
        #[test]
        fn bisecting_ends_with_single_records(request in oracle::request()) {
            let mut pending = vec![request.encode_to_vec()];
            let mut single = Vec::new();
            while let Some(bytes) = pending.pop() {
                match split(&bytes) {
                    Some((first, second)) => pending.extend([second, first]),
                    None => single.push(bytes),
                }
            }
            let single: Vec<_> = single
                .iter()
                .flat_map(|bytes| in_context(&ExportLogsServiceRequest::decode(&bytes[..]).unwrap()))
                .collect();
            prop_assert_eq!(single, in_context(&request));
        }
    }

    /// Scenario: fields that this version doesn't know, at every level above the records.
    /// Guarantees: both halves keep them.
    #[test]
    fn unknown_fields_are_kept() {
        // Field 99, length-delimited, one byte.
        let unknown = [0x9a, 6, 1, b'?'];
        let record = [0x12, 2, 0x08, 7];
        let scope = [&record[..], &unknown, &record].concat();
        let resource = [&unknown[..], &[0x12, scope.len() as u8], &scope].concat();
        let request = [&[0x0a, resource.len() as u8], &resource[..], &unknown].concat();

        let half_scope = [&record[..], &unknown].concat();
        let first = [&unknown[..], &[0x12, half_scope.len() as u8], &half_scope].concat();
        let first = [&[0x0a, first.len() as u8], &first[..], &unknown].concat();
        let half_scope = [&unknown[..], &record].concat();
        let second = [&unknown[..], &[0x12, half_scope.len() as u8], &half_scope].concat();
        let second = [&[0x0a, second.len() as u8], &second[..], &unknown].concat();
        assert_eq!(split(&request), Some((first, second)));
    }

    /// Scenario: requests with nothing to halve, and a malformed one.
    /// Guarantees: there are no halves.
    #[test]
    fn nothing_to_halve() {
        assert_eq!(split(&[]), None);
        assert_eq!(split(&[0x0a, 4, 0x12, 2, 0x12, 0]), None);
        assert_eq!(split(&[0x0a, 7, 0x12, 4, 0x12, 0, 0x12, 0]), None);
    }
}
