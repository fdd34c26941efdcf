//! Writes stamped log lines at an exact rate, as a container's stdout or as a whole node's CRI files
//! with the kubelet's rotation, and keeps a manifest of what it wrote.
//!
//! The flow of a line: [`rate`] says how many are due, [`generate`] deals them out, [`container`]
//! numbers and frames them, [`line`](mod@line) makes their bodies, [`sink`] writes them, [`manifest`]
//! counts them. [`churn`] does it for pods that come and go. [`rotate`] plays the kubelet beside it. [`corpus`] makes finished files without a
//! clock.

pub mod admin;
pub mod churn;
pub mod container;
pub mod corpus;
pub mod generate;
pub mod limits;
pub mod line;
pub mod manifest;
pub mod metrics;
pub mod names;
pub mod options;
pub mod outputs;
pub mod rate;
pub mod rotate;
pub mod run;
pub mod sink;

pub use corpus::{Corpus, CorpusError, CorpusOptions, write_corpus};
pub use line::{Kind, SizeRange};
