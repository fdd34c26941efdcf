//! Every limit of the generator, with its unit. Holds constants only.

use std::time::Duration;

/// How often the writer looks for lines that are due. Short beside the batch time-outs of the
/// agents that are measured, long beside a `write`.
pub const TICK: Duration = Duration::from_millis(5);

/// Longest sleep of the writer, so that a stop or a rotation is noticed at slow rates too.
pub const SLEEP_MAX: Duration = Duration::from_millis(50);

/// A line that has been due for longer than this is late: beyond what a tick and a busy scheduler
/// explain.
pub const LATE_AFTER: Duration = Duration::from_millis(20);

/// Lines of one container in one pass over all containers. A writer that is late catches up in
/// passes of this size, so that no container runs ahead of the others.
pub const PASS_LINES_MAX: u64 = 1_024;

/// Lines that share one reading of the clock.
pub const CLOCK_LINES_MAX: u64 = 64;

/// How far a stamp may lie before the moment of its `write`, in nanoseconds.
pub const STAMP_AGE_NANOS_MAX: u64 = 1_000_000;

/// Most bytes handed to one `write`; a buffer holds this much and the rest of its last line.
pub const WRITE_BYTES_MAX: usize = 256 * 1024;

/// Longest body that `--size` may ask for, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Most bytes of a body of natural size; asserted by the tests over the whole vocabulary.
pub const NATURAL_BODY_BYTES_MAX: usize = 640;

/// Widest piece of text, in bytes: what may be copied beyond a body's end, and the most that is copied
/// without a call where vectors have 16 bytes.
pub const PIECE_BYTES_MAX: usize = 128;

/// Most pods of one process; each holds one open file.
pub const PODS_MAX: u32 = 10_000;

/// After `--duration`, how long late lines may still be caught up with.
pub const CATCH_UP: Duration = Duration::from_secs(1);

/// How often the manifest file is written while lines are.
pub const MANIFEST_INTERVAL: Duration = Duration::from_secs(1);

/// How long a stop waits for the writer, whose reader may have ceased to read.
pub const STOP_WAIT: Duration = Duration::from_secs(10);

/// Fewest files that a rotation keeps, the live one included: the kubelet's own limit.
pub const ROTATE_FILES_MIN: u32 = 2;

/// Shortest interval between rotation checks; the kubelet's is 3 s, tests need less.
pub const ROTATE_INTERVAL_MIN: Duration = Duration::from_millis(50);

const _: () = {
    assert!(CLOCK_LINES_MAX <= PASS_LINES_MAX);
    assert!(NATURAL_BODY_BYTES_MAX + PIECE_BYTES_MAX < WRITE_BYTES_MAX);
    assert!(TICK.as_nanos() < SLEEP_MAX.as_nanos());
};
