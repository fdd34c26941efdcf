//! Every limit and interval of a benchmark, in one place.

use std::time::Duration;

/// A question to AWS or to the cluster.
pub const QUESTION_MAX: Duration = Duration::from_secs(60);

/// `tofu init`: providers are fetched.
pub const INIT_MAX: Duration = Duration::from_secs(600);

/// `tofu apply` and `tofu destroy`. A cluster takes 15 minutes, and EKS has its own time-outs.
pub const APPLY_MAX: Duration = Duration::from_secs(3_600);

/// Until EKS is done with making or deleting a cluster.
pub const CLUSTER_SETTLES_MAX: Duration = Duration::from_secs(1_800);

/// Building and pushing the images.
pub const BUILD_MAX: Duration = Duration::from_secs(3_600);

/// `kubectl apply`.
pub const KUBECTL_APPLY_MAX: Duration = Duration::from_secs(180);

/// Until all pods of a workload are ready. Images are pulled, and lgtm starts six programs.
pub const ROLLOUT_MAX: Duration = Duration::from_secs(600);

/// `kubectl delete` of everything, finalizers of the load balancer included.
pub const DELETE_MAX: Duration = Duration::from_secs(600);

/// Until the checklist holds.
pub const CHECKLIST_MAX: Duration = Duration::from_secs(300);

/// Until all lines of an earlier load have arrived.
pub const DRAIN_MAX: Duration = Duration::from_secs(600);

/// How often a question that a verdict needs is asked again before it counts as not answered.
pub const QUESTION_TRIES: u32 = 6;

/// How long the threads that read a tool's output may take once it has ended. A process that it left
/// behind may hold them.
pub const OUTPUT_END_MAX: Duration = Duration::from_secs(5);

/// How long a tool may take to end after Ctrl-C. `tofu` writes its state in that time.
pub const INTERRUPT_GRACE: Duration = Duration::from_secs(180);

/// How often a tool's end and the signals are looked at, at the longest.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// Most of what a tool prints that is kept in memory.
pub const OUTPUT_BYTES_MAX: usize = 512 << 20;

/// How much of a failed tool's messages is shown.
pub const MESSAGE_LINES_MAX: usize = 20;

/// How much of each pod's log goes into the report.
pub const POD_LOG_BYTES_MAX: u64 = 4 << 20;

/// How many failed samples in a row end a run: the cluster can't be reached any more.
pub const SAMPLE_FAILURES_MAX: u32 = 20;

/// Reports of one day.
pub const REPORTS_A_DAY_MAX: u32 = 99;
