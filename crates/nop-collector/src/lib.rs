//! Receives OTLP logs, counts them and proves loss, duplicates and latency from the stamps.
