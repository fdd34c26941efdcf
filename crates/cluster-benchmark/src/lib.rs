//! Runs the benchmark on a Kubernetes cluster and writes a report. On EKS it makes the cluster
//! before and takes it away afterwards; elsewhere it takes the cluster that a kubeconfig names.
//!
//! Everything outside is reached through the operator's own tools (`tofu`, `aws`, `kubectl`, the
//! container tool), one command at a time, each of them recorded: what happened can be read, and
//! repeated by hand. The program keeps no state of its own but files under `local/`.

/// Command line and environment.
pub mod cli;
/// What can go wrong.
pub mod error;
/// Every limit and interval.
pub mod limits;

/// What runs where, and what it costs as long as nobody ends it.
pub mod standing;
/// The tools as processes.
pub mod tools;

/// Parts of a tool's answer in JSON.
pub mod answer;
/// The images of this commit, by digest.
pub mod images;
/// Whether the nodes get the images.
pub mod registry;
/// The cluster on AWS: OpenTofu and its state.
pub mod infrastructure;
/// kubectl, bound to one kubeconfig.
pub mod kubernetes;
/// The overlay that is applied: the committed one, with digests.
pub mod overlay;
/// The stack: applied, counted from zero, taken away.
pub mod stack;

/// What must hold before a figure means anything.
pub mod checklist;
/// Pages of metrics in Prometheus' text format.
pub mod page;
/// One look at everything that runs.
pub mod sample;
/// Ramp-up, active phase, cool-down.
pub mod phases;
/// Lost, twice, late: from all manifests and all reports.
pub mod verdict;

/// What a run costs.
pub mod cost;
/// Lines over time.
pub mod plot;
/// The directory that a run leaves.
pub mod report;

/// What still exists by its tags.
pub mod leftovers;
/// The order of everything.
pub mod run;
