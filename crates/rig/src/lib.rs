//! The local run's driver: starts the real binaries as processes on this machine, puts the agent
//! under load, and judges what arrived by the manifest of what was written.
//!
//! It knows the agent only as a command that reads files and sends OTLP, so that any other agent is
//! measured in the same way. It must not link the code that it judges.

/// Whose lines are missing or came twice.
pub mod affected;
/// The agent under test as a process.
pub mod agent;
/// All processes of one run, watched together.
pub mod bench;
/// `rig chaos`: directories are replaced, the agent is stalled and killed, the sink goes away.
pub mod chaos;
/// `rig churn`: pods that live for a moment.
pub mod churn;
/// Command line.
pub mod cli;
/// nop-collector as a process.
pub mod collector;
/// What can go wrong.
pub mod error;
/// `rig fairness`: one pod floods beside many quiet ones.
pub mod fairness;
/// `rig scale`: very many files.
pub mod scale;
/// A TCP relay that can refuse.
pub mod relay;
/// The sink, which can go away and come back.
pub mod sink;
/// log-generator as a process.
pub mod generator;
/// A small HTTP client for admin ports.
pub mod http;
/// Ctrl-C and its like, as values.
pub mod interrupt;
/// `rig kill`: the agent is killed again and again.
pub mod kill;
/// Every limit and interval of the driver.
pub mod limits;
/// Chance that a seed repeats.
pub mod moments;
/// `rig outage`: the sink stops for a while.
pub mod outage;
/// Child processes that never outlive the driver.
pub mod process;
/// The live line.
pub mod progress;
/// `rig run`: a steady load.
pub mod run;
/// A command line split into words, with placeholders filled in.
pub mod template;
/// The temporary tree and the space that it needs.
pub mod tree;
/// Processor time and memory of a process group, from `/proc`.
pub mod usage;
/// The figures of a run and whether they pass.
pub mod verdict;
