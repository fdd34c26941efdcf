//! The messages of an answer: `google.rpc.Status` with `RetryInfo` (googleapis, `google/rpc`), and
//! `ExportLogsServiceResponse`, in protobuf and in JSON. Written by hand: there are few fields.

use std::time::Duration;

use serde_json::json;
use thyme_core::otlp::encode::put_varint;

const RETRY_INFO_TYPE: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Why some records of an accepted request were rejected.
const REJECTED: &str = "rejected by the script of faults";

/// A `google.rpc.Status`.
#[derive(Debug)]
pub(crate) struct Status {
    /// gRPC's code.
    pub(crate) code: u32,
    /// For a human.
    pub(crate) message: String,
    /// When to try again.
    pub(crate) retry_delay: Option<Duration>,
}

impl Status {
    pub(crate) fn to_protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, 1, u64::from(self.code));
        put_bytes(&mut out, 2, self.message.as_bytes());
        if let Some(delay) = self.retry_delay {
            let mut duration = Vec::new();
            put_number(&mut duration, 1, delay.as_secs());
            put_number(&mut duration, 2, u64::from(delay.subsec_nanos()));
            let mut retry_info = Vec::new();
            put_bytes(&mut retry_info, 1, &duration);
            let mut any = Vec::new();
            put_bytes(&mut any, 1, RETRY_INFO_TYPE.as_bytes());
            put_bytes(&mut any, 2, &retry_info);
            put_bytes(&mut out, 3, &any);
        }
        out
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let details: Vec<_> = self
            .retry_delay
            .iter()
            .map(|delay| {
                let delay = format!("{}.{:09}s", delay.as_secs(), delay.subsec_nanos());
                json!({"@type": RETRY_INFO_TYPE, "retryDelay": delay})
            })
            .collect();
        json!({"code": self.code, "message": self.message, "details": details})
            .to_string()
            .into_bytes()
    }
}

/// An `ExportLogsServiceResponse` in protobuf; empty when nothing was rejected.
pub(crate) fn response_protobuf(rejected: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if rejected > 0 {
        let mut partial = Vec::new();
        put_number(&mut partial, 1, rejected);
        put_bytes(&mut partial, 2, REJECTED.as_bytes());
        put_bytes(&mut out, 1, &partial);
    }
    out
}

/// An `ExportLogsServiceResponse` in OTLP's JSON, where 64-bit numbers are strings.
pub(crate) fn response_json(rejected: u64) -> Vec<u8> {
    if rejected == 0 {
        return b"{}".to_vec();
    }
    let partial = json!({"rejectedLogRecords": rejected.to_string(), "errorMessage": REJECTED});
    json!({"partialSuccess": partial}).to_string().into_bytes()
}

fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    if number != 0 {
        put_varint(out, field << 3);
        put_varint(out, number);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
    use prost::Message;

    /// Scenario: responses with and without rejected records.
    /// Guarantees: the generated types (the oracle) read what was meant, in protobuf and in JSON.
    #[test]
    fn responses_are_read_by_the_generated_types() {
        for rejected in [0, 1, 300] {
            let read = ExportLogsServiceResponse::decode(&response_protobuf(rejected)[..]).unwrap();
            let partial = read.partial_success.unwrap_or_default();
            assert_eq!(partial.rejected_log_records, rejected.cast_signed());
            assert_eq!(partial.error_message.is_empty(), rejected == 0);
            let read: serde_json::Value = serde_json::from_slice(&response_json(rejected)).unwrap();
            let text = read["partialSuccess"]["rejectedLogRecords"].as_str().unwrap_or("0");
            assert_eq!(text, rejected.to_string());
        }
    }

    /// Scenario: a status with a delay of 1.5 s.
    /// Guarantees: its JSON is that of `google.rpc.Status`. (A tonic client reads the protobuf, in
    /// the integration tests.)
    #[test]
    fn status_in_json() {
        let retry_delay = Some(Duration::from_millis(1_500));
        let status = Status { code: 14, message: "later".to_owned(), retry_delay };
        let read: serde_json::Value = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(read["code"], 14);
        assert_eq!(read["details"][0]["retryDelay"], "1.500000000s");
    }
}
