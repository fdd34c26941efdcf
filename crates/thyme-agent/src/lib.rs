//! The node agent: tails container log files and exports OTLP.
