//! Receives OTLP logs, counts them, and proves loss, duplicates, order and latency from the stamps
//! that log-generator put into the lines. The binary is `main.rs`; tests of agents start the same
//! collector within their process through [`Collector::start`], and script its faults.
//!
//! The path of a request, and of these modules: a port accepts a connection, which speaks gRPC or
//! HTTP; the body is collected, then decompressed, read and merged into what is known, on the
//! thread that received it; the admin port reports. No object is built per record, and nothing is
//! kept but counts, intervals and the latest identities, so that memory stays small.

pub mod limits;

mod collector;
mod listen;
mod tls;

mod connection;

mod grpc;
mod http;

mod body;
mod intake;

mod decompress;
mod faults;

mod json;
mod observe;

mod intervals;
mod uids;
mod verify;

pub mod manifest;
pub mod report;

pub mod merge;

pub mod fetch;

mod admin;
mod metrics;
mod page;

pub mod telemetry;

#[doc(hidden)]
pub mod fuzzing;

mod base64;
mod refusal;
mod reply;
mod status;

pub use collector::{Collector, OnThreads, Options, Running, StartError};
pub use decompress::Encoding;
pub use faults::{Fault, Faults};
pub use intake::{Format, KeptRequest, Protocol};
pub use refusal::grpc_code;
pub use tls::TlsFiles;
