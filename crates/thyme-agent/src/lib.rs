//! The node agent as a library: `main` only parses arguments and calls [`pipeline`].
//!
//! The modules stand in the order of the flow of data.

pub mod config;
pub mod limits;
pub mod metrics;

pub mod batch;
pub mod encode;
pub mod enrich;
pub mod export;
pub mod parse;
pub mod queue;

pub mod admin;
pub mod telemetry;
