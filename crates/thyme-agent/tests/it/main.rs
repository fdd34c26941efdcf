//! Integration tests: agents in this process and as processes, against a real collector.

#![expect(clippy::unwrap_used, reason = "a test may end where its own set-up fails")]

mod kubelet;
mod namespace;
mod node;
mod program;
mod stage;

mod allocations;
mod backpressure;
mod cli;
mod crash;
mod export;
mod hostile;
mod identity;
mod rotation;
mod shortage;
mod spool;
mod stuck;
