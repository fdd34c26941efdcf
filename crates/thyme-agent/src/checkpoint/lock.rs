//! One agent a state directory: an advisory lock that dies with its process.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::Path,
};

use credentials::regular_file;
use rustix::fs::{FlockOperation, flock};

use super::CheckpointError;

/// Name of the file that is locked; wherever an agent has kept something, it is there.
pub const LOCK_NAME: &str = "lock";

/// Bytes of a lock file: a process id.
const HOLDER_BYTES_MAX: u64 = 32;

/// Locks the directory, or says which process holds it.
pub(super) fn acquire(directory: &Path) -> Result<File, CheckpointError> {
    let path = directory.join(LOCK_NAME);
    // Reading another kind of file might not end.
    regular_file::expect_free_or_regular(&path)
        .map_err(CheckpointError::io(&path, "cannot lock"))?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(CheckpointError::io(&path, "cannot open"))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _unnamed = (&file).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
        let holder = match holder.trim() {
            "" => "another process".to_owned(),
            pid => format!("process {pid}"),
        };
        return Err(CheckpointError::Locked { path, holder });
    }
    // Only the message to a second agent needs it: a full disk is no reason not to start.
    let _unnamed = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}
