//! Tests for the rules that clippy cannot state. The rules are plain functions over a file's text;
//! the integration test applies them to the workspace. It needs neither git nor any crate.

/// The rules for documents.
pub mod documents;
/// The rules for Rust files.
pub mod rules;
/// Rust text with comments and literals blanked out, and where its functions and tests are.
pub mod source;
/// The files of this workspace.
pub mod workspace;
