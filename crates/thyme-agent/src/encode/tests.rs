//! Tests of the encoder: prost's generated types are the oracle.

use std::io::Read;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use proptest::prelude::*;
use prost::Message;
use thyme_core::otlp::encode::{Body, RecordSuffix, Value, put_log_record, put_resource_attribute};

use super::*;
use crate::batch::BatchLimits;

const LIMITS: BatchLimits = BatchLimits { bytes_max: 1 << 20, records_max: 10_000 };

fn fill(batch: &mut Batch, turns: &[(u32, Vec<String>)]) {
    let suffix = RecordSuffix::new(&[]);
    for (container, bodies) in turns {
        batch.begin_segment(*container, 10);
        for body in bodies {
            put_log_record(&mut batch.records, 7, Body::Text(body.as_bytes()), &suffix);
            batch.record_count += 1;
        }
        batch.end_segment();
    }
}

fn decompress(compression: Compression, encoded: &Encoded) -> Vec<u8> {
    let whole = encoded.body.concat();
    assert_eq!(whole.len(), encoded.body_bytes);
    match compression {
        Compression::None => whole,
        Compression::Zstd => zstd::decode_all(&whole[..]).unwrap(),
        Compression::Gzip => {
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(&whole[..]).read_to_end(&mut out).unwrap();
            out
        }
    }
}

proptest! {
    /// Scenario: containers take turns in a batch, in any order; three batches follow each other.
    /// Guarantees: each request has one ResourceLogs a container, whose records stand in the order
    /// of reading, whatever the compression is, also in recycled buffers.
    #[test]
    fn requests_decode_by_container(
        batches in prop::collection::vec(
            prop::collection::vec((0..4_u32, prop::collection::vec("[a-z]{0,40}", 0..6)), 1..8), 3,
        ),
        compression in prop::sample::select(vec![
            Compression::None, Compression::Gzip, Compression::Zstd,
        ]),
    ) {
        let resources: Vec<Vec<u8>> = (0..4)
            .map(|number| {
                let mut resource = Vec::new();
                put_resource_attribute(&mut resource, "n", Value::Int(number));
                resource
            })
            .collect();
        let mut encoder = Encoder::new(compression, 1, 1 << 20).unwrap();
        let mut batch = Batch::new(LIMITS);
        for turns in &batches {
            fill(&mut batch, turns);
            let encoded = encoder.encode(&mut batch, |one| &resources[one as usize]).unwrap();
            prop_assert!(batch.is_empty() && batch.records.is_empty());
            let message = decompress(compression, &encoded);
            prop_assert_eq!(message.len(), encoded.uncompressed_bytes);
            let request = ExportLogsServiceRequest::decode(&message[..]).unwrap();

            let mut expected: Vec<(u32, Vec<String>)> = Vec::new();
            for number in 0..4 {
                let bodies: Vec<String> = turns
                    .iter()
                    .filter(|(container, _)| *container == number)
                    .flat_map(|(_, bodies)| bodies.clone())
                    .collect();
                if !bodies.is_empty() {
                    expected.push((number, bodies));
                }
            }
            prop_assert_eq!(request.resource_logs.len(), expected.len());
            for (found, (number, bodies)) in request.resource_logs.iter().zip(expected) {
                let resource = found.resource.as_ref().unwrap().encode_to_vec();
                prop_assert_eq!(&resource, &resources[number as usize]);
                let found: Vec<String> = found.scope_logs[0]
                    .log_records
                    .iter()
                    .map(|record| format!("{:?}", record.body.as_ref().unwrap().value))
                    .collect();
                let bodies: Vec<String> =
                    bodies.iter().map(|body| format!("Some(StringValue({body:?}))")).collect();
                prop_assert_eq!(found, bodies);
            }
            let Encoded { body, buffer, .. } = encoded;
            drop(body);
            encoder.recycle(buffer);
        }
    }
}

/// Scenario: buffers come back to an encoder that may keep a few bytes only.
/// Guarantees: what it keeps is bounded.
#[test]
fn spare_buffers_are_bounded() {
    let mut encoder = Encoder::new(Compression::Zstd, 1, 100).unwrap();
    for _ in 0..10 {
        let mut buffer = Vec::with_capacity(64);
        buffer.push(0);
        encoder.recycle(Bytes::from(buffer));
    }
    assert_eq!(encoder.spare.len(), 2);
}
