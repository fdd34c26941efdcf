//! Every limit and interval of the driver, in one place.

use std::{ops::Range, time::Duration};

/// How long a child may take until it answers; debug builds on a busy machine included.
pub const START_MAX: Duration = Duration::from_secs(30);

/// How long an agent without a health endpoint is given before the load starts.
pub const BLIND_START: Duration = Duration::from_secs(1);

/// How long an agent is waited for to release the last deleted file before it is killed.
pub const RELEASE_MAX: Duration = Duration::from_secs(15);

/// How long a restarted agent is waited for to open the files of all pods.
pub const RESUME_MAX: Duration = Duration::from_secs(15);

/// How long an agent may take to end after SIGTERM; thyme-agent's own deadline is 20 s.
pub const AGENT_STOP_MAX: Duration = Duration::from_secs(30);

/// How long the generator may take to end after its duration or after SIGTERM.
pub const GENERATOR_STOP_MAX: Duration = Duration::from_secs(30);

/// How often children, signals and conditions are looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// The same where a moment is measured.
pub const CLOSE_WATCH_INTERVAL: Duration = Duration::from_millis(20);

/// How often figures are asked for while a process is measured that does nothing: each look at it
/// costs it something.
pub const IDLE_SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// How often figures are asked for, and the live line is rewritten.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// How often a line appears where no terminal can rewrite it.
pub const PLAIN_LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How long one step of an HTTP exchange with an admin port may take.
pub const HTTP_STEP_MAX: Duration = Duration::from_secs(5);

/// Largest answer of an admin port.
pub const HTTP_RESPONSE_BYTES_MAX: usize = 256 << 20;

/// How much of a dead child's log is shown.
pub const LOG_TAIL_LINES_MAX: usize = 20;

/// How much of a child's log is read to find those lines.
pub const LOG_TAIL_BYTES_MAX: u64 = 16 << 10;

/// Disk space that a run takes beside the log files: state, children's logs, the manifest.
pub const DISK_OVERHEAD_BYTES: u64 = 64 << 20;

/// Ports of relays: below the range that Linux takes ports of outgoing connections from (from 32768
/// unless configured), above those that services have by convention.
pub const RELAY_PORTS: Range<u16> = 20_000..30_000;

/// How often a relay looks for new connections.
pub const RELAY_ACCEPT_INTERVAL: Duration = Duration::from_millis(2);

/// How long a relay tries to get its port back.
pub const RELAY_REOPEN_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(WATCH_INTERVAL.as_millis() < SAMPLE_INTERVAL.as_millis());
const _: () = assert!(SAMPLE_INTERVAL.as_millis() < PLAIN_LINE_INTERVAL.as_millis());
