//! The gate: instruction counts by callgrind against those that are committed.

pub mod callgrind;
pub mod figures;
