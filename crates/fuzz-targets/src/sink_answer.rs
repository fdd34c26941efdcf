//! What a sink answers with: nothing in it can harm the agent.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use thyme_agent::fuzzing;

/// Reads the bytes as everything that an answer may hold.
pub(crate) fn check(data: &[u8]) {
    let answer = fuzzing::sink_answer(data);
    assert!(answer.percent.len() <= data.len());
    if !data.contains(&b'%') {
        assert_eq!(answer.percent, data);
    }
    if let Some(bytes) = &answer.base64 {
        assert!(bytes.len() <= data.len() * 3 / 4);
        assert_eq!(fuzzing::sink_answer(data).base64.as_ref(), Some(bytes));
    }
    if let Ok(oracle) = ExportLogsServiceResponse::decode(data)
        // The agent reads no groups, which OTLP has not.
        && let Some(rejected) = answer.rejected
    {
        let by_oracle = oracle.partial_success.map_or(0, |partial| partial.rejected_log_records);
        assert_eq!(rejected, by_oracle);
    }
}
