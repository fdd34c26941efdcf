//! Every limit of the agent that is not a key of its configuration, with its unit in its name.

/// Bytes that one read asks for; a line that doesn't fit grows the buffer up to its own limit.
pub const READ_BYTES: usize = 256 * 1024;
