//! Integration tests: agents in this process and as processes, against a real collector.

mod node;

mod cli;
mod export;
mod hostile;
mod rotation;
