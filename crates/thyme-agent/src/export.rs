//! Sends requests to the sink.
