//! The manifest: what the writers wrote, so that loss is proved without trusting the receiver.

use serde::{Deserialize, Serialize};

/// One JSON line of a manifest: what one writer wrote so far.
///
/// A writer is one stream of one container. Its sequence numbers start at zero and have no gaps,
/// so `lines == last - first + 1`. A writer that wrote nothing has no line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestLine {
    /// The run that the stamps carry.
    pub run: u32,
    /// The writer that the stamps carry.
    pub writer: u32,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// First sequence number written.
    pub first: u64,
    /// Last sequence number written, inclusive.
    pub last: u64,
    /// Lines written.
    pub lines: u64,
    /// Bytes of the lines' bodies: without CRI headers and without newlines.
    pub bytes: u64,
    /// The log file, below the directory of all pods: `POD/CONTAINER/0.log`. Absent on stdout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}
