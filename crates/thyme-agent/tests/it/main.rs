//! Integration tests: agents in this process and as processes, against a real collector.

#![expect(clippy::unwrap_used, reason = "a test may end where its own set-up fails")]

mod authority;
mod node;

mod allocations;
mod backpressure;
mod cli;
mod export;
mod hostile;
mod rotation;
