//! Integration tests: agents in this process and as processes, against a real collector.

mod node;

mod hostile;
mod rotation;
