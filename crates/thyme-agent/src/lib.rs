//! The node agent as a library: `main` only parses arguments and calls [`pipeline`].
//!
//! The modules stand in the order of the flow of data.

pub mod complaints;
pub mod config;
pub mod limits;
pub mod failpoint;
pub mod metrics;
pub mod world;
pub mod inotify;
pub mod pipeline;
pub mod preflight;

pub mod discover;
pub mod worker;
pub mod tail;
pub mod parse;
pub mod enrich;
pub mod batch;
pub mod encode;
pub mod queue;
pub mod spool;
pub mod export;
pub mod checkpoint;

pub mod admin;
pub mod telemetry;

#[doc(hidden)]
pub mod fuzzing;

#[cfg(test)]
mod ahead;
#[cfg(test)]
mod said;

#[cfg(any(test, feature = "simulation"))]
#[doc(hidden)]
pub mod simulation;
