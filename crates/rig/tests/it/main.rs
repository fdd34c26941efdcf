//! Runs `rig` itself, with the real binaries and with stand-ins for the agent.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and its output is shown when it fails"
)]

mod documents;
mod driver;
mod endings;
mod scenarios;
