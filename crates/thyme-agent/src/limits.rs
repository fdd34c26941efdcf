//! Every limit of the agent that is not a key of its configuration, with its unit in its name.

use std::time::Duration;

/// Bytes that one read asks for; a line that doesn't fit grows the buffer up to its own limit.
pub const READ_BYTES: usize = 256 * 1024;

/// Room in the read buffer beyond `max_log_size` for what stands before a body.
pub const LINE_HEADER_BYTES: usize = 4 * 1024;

/// Bytes of an archive that are read at once.
pub const ARCHIVE_READ_BYTES: usize = 16 * 1024;

/// NULs in a row, bytes, that end a line which is longer than may be waited for: a hole and no text.
pub const HOLE_BYTES_MIN: usize = 4 * 1024;

/// Archives that a worker decompresses at a time, at about 64 KiB each; others wait for their turn.
pub const DECODERS_MAX: usize = 16;

/// Bytes behind an archive's last member that are looked at; if they are zeros, all are padding.
pub const ARCHIVE_TRAILER_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a file's first line that its identity is derived from, at most: docker writes the time
/// at a line's end, and its lines are far shorter.
pub const FIRST_LINE_BYTES_MAX: usize = 256 * 1024;

/// Events about directories that may wait for discovery; more are made good by a scan.
pub const DIRECTORY_EVENTS_MAX: usize = 16 * 1024;

/// How long discovery gathers events before it looks.
pub const EVENT_SETTLE_TIME: Duration = Duration::from_millis(2);

/// A directory with a watch is looked at in one scan of so many: a scan is its safety net only.
pub const WATCHED_SCANS: u32 = 12;

/// How often discovery looks where the fixed part of each pattern leads: of a link that is switched on
/// the way, a directory above that is moved, or a mount, no watch tells.
pub const ROOT_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Symbolic links whose targets are looked at each [`ROOT_LOOK_INTERVAL`], in turn: of a rotation behind
/// a link no watch tells.
pub const LINKS_PER_LOOK: usize = 128;

/// Symbolic links that may lead from one to the next: from `/var/log/containers` to `/var/log/pods`, and
/// from there to docker's file.
pub const LINKS_IN_A_ROW_MAX: usize = 3;

/// Shortest wait between two reads of a growing file.
pub const POLL_INTERVAL_MIN: Duration = Duration::from_millis(5);

/// Bytes that a read of a growing file should find; its wait adapts to that.
pub const READ_BYTES_WANTED: u64 = 48 * 1024;

/// A file that has not grown for so long is idle: it is watched instead of polled.
pub const IDLE_AFTER: Duration = Duration::from_secs(3);

/// How often idle files are looked at all the same, in case an event was lost.
pub const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// How often idle files are looked at that can't be watched.
pub const UNWATCHED_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a line without its newline is waited for before it leaves as it is.
pub const UNTERMINATED_LINE_WAIT: Duration = Duration::from_secs(1);

/// How long a partial line's next fragment is waited for before it leaves as it is.
pub const PARTIAL_LINE_WAIT: Duration = Duration::from_secs(5);

/// How long the end of a character is waited for whose beginning was written, when all before it has left.
pub const CHARACTER_WAIT: Duration = Duration::from_secs(30);

/// How long the end of a rotated file must stay its end before its successor is read: the runtime
/// may write to it until it has reopened its log.
pub const ROTATION_GRACE: Duration = Duration::from_millis(30);

/// How long a finished file is kept open, in case its writer was late.
pub const LINGER_TIME: Duration = Duration::from_secs(5);

/// How often rotated files that were read to their end and closed are looked at, in case their writer
/// was late.
pub const LATE_LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// How long an archive that is cut off must stay as it is before it counts as damaged: whoever compresses
/// may write it under its own name, piece by piece.
pub const CUT_ARCHIVE_WAIT: Duration = Duration::from_secs(10);

/// How long an archive that grows by little must have been left alone before it is read on, since it is
/// decompressed from its start.
pub const CUT_ARCHIVE_PAUSE: Duration = Duration::from_secs(1);

/// Files of a group that are read and gone, and remembered because one before them is not done; and how many there
/// may be for one more that was truncated to be remembered until it is settled.
pub const GAPS_MAX: usize = 32;

/// How often a worker looks after what isn't urgent: partial lines, lingering files, idle ones.
pub const UPKEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Time between two looks at how much more is known of growing files than their checkpoints say; so long an
/// acknowledgement has to say it.
pub const LENGTH_INTERVAL: Duration = Duration::from_secs(1);

/// Longest a worker sleeps: it proves that it is alive at least that often.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// A thread that hasn't proved to be alive for so long makes the agent unhealthy.
pub const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(15);

/// Requests that wait for so long without any attempt to send one having ended make the agent
/// unhealthy: longer than any time-out and pause of the exporter.
pub const EXPORT_SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// Buffers that an encoder keeps, in requests.
pub const SPARE_REQUESTS: usize = 1;

/// Bytes of a spool segment; a record that is longer has one of its own. Room comes back in such
/// steps.
pub const SPOOL_SEGMENT_BYTES: u64 = 16 << 20;

/// Bytes of damaged spool segments that are kept for a human.
pub const SPOOL_DAMAGED_BYTES_MAX: u64 = 64 << 20;

/// They take at most one part in so many of the spool's budget.
pub const SPOOL_DAMAGED_BUDGET_SHARE: u64 = 4;

/// Bytes of requests that were read from the spool and are not settled; one request in any case.
pub const SPOOL_HANDED_BYTES_MAX: usize = 8 << 20;

/// A journal of checkpoints shorter than this is never replaced for its length.
pub const JOURNAL_BYTES_MIN: u64 = 256 << 10;

/// A journal of checkpoints longer than so many snapshots is replaced by a snapshot.
pub const JOURNAL_SNAPSHOTS_MAX: u64 = 2;

/// A journal with anything in it is replaced by a snapshot after this time, so that an older version
/// of the agent, which knows no journal, finds nothing older than that.
pub const JOURNAL_AGE_MAX: Duration = Duration::from_secs(600);

/// Bytes of checkpoints that are written in a second, beyond which writes are put off, at most to
/// one in a second.
pub const CHECKPOINT_BYTES_PER_SECOND: u64 = 4 << 20;

/// How long after a failure of the disk, or of finding room on it, the spool tries again.
pub const SPOOL_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Failures in a row to read the spool's next record before what stands behind it is read first.
pub const SPOOL_READ_FAILURES_MAX: u32 = 5;

/// How long after that it is tried again.
pub const SPOOL_PUT_OFF_INTERVAL: Duration = Duration::from_secs(60);

/// Such rounds in which the disk fails at a place of the spool, with something read between any two of them,
/// before what stands there is given up.
pub const SPOOL_UNREADABLE_ROUNDS_MAX: u32 = 5;

/// Bytes of a file that are settled together, but for the end of a line: so much on either side of a
/// settled part of a request may come again after a restart.
pub const SPAN_BYTES: u64 = 32 * 1024;

/// Ranges of settled records, for one request, that the spool's cursor holds; of those behind them
/// the records are sent again after a restart.
pub const SPOOL_CURSOR_RANGES_MAX: usize = 64;

/// Shortest time between two writes of the spool's cursor: what settled since comes twice after a
/// crash.
pub const SPOOL_CURSOR_INTERVAL: Duration = Duration::from_millis(100);

/// Requests that a worker may have on their way to the spool, in units of `request_bytes_max`.
pub const SPOOL_PENDING_REQUESTS: usize = 2;

/// How often a worker looks whether the spool has been drained.
pub const SPOOL_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a pattern's root may be absent, or another directory that is empty, before what was in it is
/// taken for deleted: a file system may be mounted anew meanwhile. An open file that its directory does
/// not show, and that has a name somewhere, is remembered for as long.
pub const HIDDEN_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// Checkpoints of files that no directory shows, and none shows as absent, that are kept: their roots
/// may be missing or their files unreadable for a while.
pub const UNSEEN_CHECKPOINTS_MAX: usize = 10_000;

/// Files or directories that are named in the log while they fail; of others only how often.
pub const COMPLAINTS_NAMED_MAX: usize = 10;

/// Least time between two log lines about the same trouble that lasts.
pub const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Connections to the agent's own ports, all together: beside log files they are few, and whoever
/// opens more takes nothing from those.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Longest life of a connection to one of the agent's own ports, which carries one request: more than
/// the ten seconds that Prometheus waits, also on a machine that is busy.
pub const ADMIN_CONNECTION_TIME_MAX: Duration = Duration::from_secs(15);

/// Bytes of a request's head to one of the agent's own ports.
pub const ADMIN_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Events of the agent's own log that wait for stderr; more are dropped.
pub const LOG_EVENTS_MAX: usize = 1024;

/// Bytes of an event of the agent's own log; the rest is cut.
pub const LOG_EVENT_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a file of the state directory that is read as a whole: a million files' checkpoints.
pub const STATE_FILE_BYTES_MAX: u64 = 512 << 20;
