//! Own telemetry.
