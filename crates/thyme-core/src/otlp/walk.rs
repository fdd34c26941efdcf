//! Borrowed walker over an encoded `ExportLogsServiceRequest`.
