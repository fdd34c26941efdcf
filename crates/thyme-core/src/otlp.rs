//! OTLP logs on the wire (opentelemetry-proto 1.x, `ExportLogsServiceRequest`), without generated
//! types: `encode` writes, `walk` reads. Neither allocates per record.

pub mod encode;
pub mod walk;
