//! Runs the real binary and reads back what it wrote.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod files;
mod logs;
mod process;
mod rotation;
mod stdout;
