//! Tests for the rules that clippy cannot state.
