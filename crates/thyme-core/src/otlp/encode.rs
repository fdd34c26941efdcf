//! Writes OTLP log records and the lengths around them.
