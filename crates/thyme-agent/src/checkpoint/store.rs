//! The state on disk: a snapshot of everything, a journal of what changed since, and the two that
//! they replaced, so that damage in one generation falls back to the other.
//!
//! ```text
//! checkpoints          the snapshot                journal.000008   what changed since
//! checkpoints.synced   the one before              journal.000007   what changed between the two
//! ```
//!
//! A journal names the snapshot that it belongs to, so a name that an end of the process or an older
//! version of the agent left behind is never applied to another one. Each append is framed with its
//! CRC: what a loss of power tore at the end of a journal is left out. A new snapshot is synced, as
//! is its empty journal, before a rename puts it in place.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    CURRENT_NAME, CheckpointError, FRESH_NAME, SYNCED_NAME,
    format::{self, Files},
    frame,
};
use crate::{
    limits::{JOURNAL_BYTES_MIN, JOURNAL_SNAPSHOTS_MAX},
    world::{StateDisk, StateFile},
};

const JOURNAL_MAGIC: &str = "thyme-journal 1";
const JOURNAL_PREFIX: &str = "journal.";

/// Which content a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SnapshotId {
    crc32: u32,
    bytes: u64,
}

impl SnapshotId {
    fn of(bytes: &[u8]) -> Self {
        Self { crc32: crc32fast::hash(bytes), bytes: bytes.len() as u64 }
    }
}

/// What a journal begins with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct JournalHeader {
    /// The snapshot whose changes it holds.
    base: SnapshotId,
    /// The snapshot before it, whose journal says all that leads to `base`; absent where something
    /// is missing between the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<SnapshotId>,
    /// The life of the agent that wrote both: files have their numbers in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    life: Option<u64>,
}

/// What was on disk.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether nothing was ever written there.
    pub(super) is_first_start: bool,
    /// By their numbers there.
    pub(super) files: Files,
    /// The life of the agent in which they have these numbers.
    pub(super) life: Option<u64>,
}

/// A journal that is written to.
struct Journal {
    name: String,
    file: Box<dyn StateFile>,
    base: SnapshotId,
    bytes: u64,
    /// How long its snapshot is.
    snapshot_bytes: u64,
}

/// What is on disk, and how it is changed.
pub(super) struct Store {
    /// Where the next changes go; `None` while only a snapshot will do.
    journal: Option<Journal>,
    /// Number of the last journal.
    number: u64,
    /// This life of the agent.
    life: u64,
}

fn failed(name: &str, action: &'static str) -> impl FnOnce(io::Error) -> CheckpointError {
    CheckpointError::io(Path::new(name), action)
}

fn journal_name(number: u64) -> String {
    format!("{JOURNAL_PREFIX}{number:06}")
}

fn journal_number(name: &str) -> Option<u64> {
    name.strip_prefix(JOURNAL_PREFIX)?.parse().ok()
}

/// Numbers of the journals that are there, the newest first.
fn journals(disk: &dyn StateDisk) -> Result<Vec<u64>, CheckpointError> {
    let names = disk.names("").map_err(failed("state directory", "cannot be read"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| journal_number(name)).collect();
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    Ok(numbers)
}

/// Splits a journal into its header and the batches of records behind it.
fn open_journal(bytes: &[u8]) -> Option<(JournalHeader, &[u8])> {
    let (header, rest) = frame::next(JOURNAL_MAGIC, bytes).ok()?;
    Some((serde_json::from_slice(header).ok()?, rest))
}

/// Records as they are appended.
pub(crate) fn batch(records: &[u8]) -> Vec<u8> {
    frame::seal(JOURNAL_MAGIC, records)
}

/// Applies batches as far as they are whole; returns how many bytes are not.
pub(crate) fn replay(mut batches: &[u8], files: &mut Files) -> usize {
    while let Ok((records, rest)) = frame::next(JOURNAL_MAGIC, batches) {
        if format::apply(records, files).is_err() {
            break;
        }
        batches = rest;
    }
    batches.len()
}

impl Store {
    /// Reads the newest generation that is whole; a damaged one is set aside, never deleted. Where none
    /// is left, a journal may still know files.
    pub(super) fn open(disk: &dyn StateDisk, life: u64) -> Result<(Self, Found), CheckpointError> {
        let numbers = journals(disk)?;
        let number = numbers.first().copied().unwrap_or(0);
        let mut found = Found { is_first_start: true, ..Found::default() };
        let mut is_missing = true;
        for name in [CURRENT_NAME, SYNCED_NAME] {
            let bytes = match disk.read(name) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(name, "cannot read")(error)),
            };
            found.is_first_start = false;
            match format::decode(&bytes) {
                Ok(files) => {
                    if name == SYNCED_NAME {
                        say_that_older_is_used(disk);
                    }
                    is_missing = false;
                    found.files = files;
                    found.life = replay_journals(disk, &numbers, &bytes, &mut found.files)?;
                    break;
                }
                Err(error) => {
                    let aside = corrupt_name(name);
                    let (path, kept_as) = (disk.path(name), disk.path(&aside));
                    tracing::error!(
                        path = %path.display(), %error, kept_as = %kept_as.display(),
                        "checkpoints are damaged"
                    );
                    let action = "cannot set aside as *.corrupt";
                    disk.rename(name, &aside).map_err(failed(name, action))?;
                }
            }
        }
        if is_missing {
            // A damaged snapshot was there, if only in an earlier start that did not get far.
            let names = disk.names("").map_err(failed("state directory", "cannot be read"))?;
            let was_set_aside = |name| names.contains(&corrupt_name(name));
            let is_left = [CURRENT_NAME, SYNCED_NAME].into_iter().any(was_set_aside);
            if !is_left && let Some((files, bytes)) = fresh_snapshot(disk, &numbers)? {
                (is_missing, found.is_first_start, found.files) = (false, false, files);
                found.life = replay_journals(disk, &numbers, &bytes, &mut found.files)?;
            }
            found.is_first_start &= numbers.is_empty() && !is_left;
        }
        if is_missing && !found.is_first_start {
            found.files = files_of_journals(disk, &numbers)?;
            say_that_none_is_left(disk, found.files.len());
        }
        Ok((Self { journal: None, number, life }, found))
    }

    /// Whether the next write has to be a snapshot.
    pub(super) fn needs_snapshot(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| {
            journal.bytes > JOURNAL_BYTES_MIN.max(JOURNAL_SNAPSHOTS_MAX * journal.snapshot_bytes)
        })
    }

    /// Appends records; returns the bytes that were written.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<u64, CheckpointError> {
        let Some(journal) = &mut self.journal else { return Ok(0) };
        let batch = batch(records);
        if let Err(error) = journal.file.append(&batch) {
            // What follows half of a batch could not be read.
            let failed = failed(&journal.name, "cannot write")(error);
            self.journal = None;
            return Err(failed);
        }
        crate::failpoint::hit("journal_appended");
        journal.bytes += batch.len() as u64;
        Ok(batch.len() as u64)
    }

    /// Returns when all that was appended would survive a loss of power.
    pub(super) fn sync(&mut self) -> Result<(), CheckpointError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        if let Err(error) = journal.file.sync() {
            // What the failed call has made of what was written nobody knows.
            let failed = failed(&journal.name, "cannot sync")(error);
            self.journal = None;
            return Err(failed);
        }
        crate::failpoint::hit("journal_synced");
        Ok(())
    }

    /// Replaces everything by a snapshot and an empty journal, synced; returns the bytes that were
    /// written.
    pub(super) fn replace(
        &mut self,
        disk: &dyn StateDisk,
        snapshot: &[u8],
    ) -> Result<u64, CheckpointError> {
        let before = self.journal.take();
        crate::failpoint::hit("checkpoint_begun");
        self.remove_journals(disk, before.as_ref().map(|journal| journal.name.as_str()))?;
        crate::failpoint::hit("journal_removed");
        write_synced(disk, FRESH_NAME, snapshot)?;
        crate::failpoint::hit("checkpoint_synced");
        let base = SnapshotId::of(snapshot);
        let (after, life) = (before.map(|journal| journal.base), Some(self.life));
        let header = JournalHeader { base, after, life };
        let header = serde_json::to_vec(&header).expect("numbers in memory");
        let header = frame::seal(JOURNAL_MAGIC, &header);
        self.number += 1;
        let name = journal_name(self.number);
        let file = write_synced(disk, &name, &header)?;
        crate::failpoint::hit("journal_created");
        match disk.link(CURRENT_NAME, SYNCED_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(SYNCED_NAME, "cannot link")(error));
            }
            _ => {}
        }
        crate::failpoint::hit("checkpoint_linked");
        disk.rename(FRESH_NAME, CURRENT_NAME).map_err(failed(CURRENT_NAME, "cannot rename to"))?;
        crate::failpoint::hit("checkpoint_renamed");
        disk.sync_directory("").map_err(failed("state directory", "cannot sync"))?;
        crate::failpoint::hit("checkpoint_directory_synced");
        let (bytes, snapshot_bytes) = (header.len() as u64, snapshot.len() as u64);
        self.journal = Some(Journal { name, file, base, bytes, snapshot_bytes });
        Ok(bytes + snapshot_bytes)
    }

    /// Removes all journals but that of the present snapshot. Nothing depends on others: what they
    /// are for is a generation that is damaged.
    fn remove_journals(
        &mut self,
        disk: &dyn StateDisk,
        kept: Option<&str>,
    ) -> Result<(), CheckpointError> {
        let numbers = journals(disk)?;
        let current = match kept {
            Some(name) => journal_number(name),
            None => current_journal(disk, &numbers)?,
        };
        for number in numbers.into_iter().filter(|number| Some(*number) != current) {
            let name = journal_name(number);
            disk.remove(&name).map_err(failed(&name, "cannot remove"))?;
        }
        Ok(())
    }
}

/// The journal of the present snapshot. Failing to read something is no answer: the journal that is
/// wanted would be taken for one that isn't.
fn current_journal(disk: &dyn StateDisk, numbers: &[u64]) -> Result<Option<u64>, CheckpointError> {
    let snapshot = match disk.read(CURRENT_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        snapshot => snapshot.map_err(failed(CURRENT_NAME, "cannot read"))?,
    };
    journal_of(disk, numbers, &snapshot)
}

/// The journal of a snapshot.
fn journal_of(
    disk: &dyn StateDisk,
    numbers: &[u64],
    snapshot: &[u8],
) -> Result<Option<u64>, CheckpointError> {
    let id = SnapshotId::of(snapshot);
    for &number in numbers {
        let name = journal_name(number);
        let bytes = disk.read(&name).map_err(failed(&name, "cannot read"))?;
        if open_journal(&bytes).is_some_and(|(header, _)| header.base == id) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// The first snapshot that there was to be, where the agent was killed when it was whole, with its journal, and
/// before it had its name: no generation is missing.
fn fresh_snapshot(
    disk: &dyn StateDisk,
    numbers: &[u64],
) -> Result<Option<(Files, Vec<u8>)>, CheckpointError> {
    let bytes = match disk.read(FRESH_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(failed(FRESH_NAME, "cannot read"))?,
    };
    let Ok(files) = format::decode(&bytes) else { return Ok(None) };
    let has_journal = journal_of(disk, numbers, &bytes)?.is_some();
    Ok(has_journal.then_some((files, bytes)))
}

/// Applies the journal of a snapshot, and one that goes on where that ended, which is of a snapshot
/// that could not be read. Returns the life that wrote the snapshot.
fn replay_journals(
    disk: &dyn StateDisk,
    numbers: &[u64],
    snapshot: &[u8],
    files: &mut Files,
) -> Result<Option<u64>, CheckpointError> {
    let (id, mut life) = (SnapshotId::of(snapshot), None);
    let (mut own, mut next, mut damaged) = (None, None, None);
    for &number in numbers {
        let name = journal_name(number);
        let bytes = disk.read(&name).map_err(failed(&name, "cannot read"))?;
        let Some((header, _)) = open_journal(&bytes) else {
            damaged = damaged.or(Some(name));
            continue;
        };
        if header.base == id && own.is_none() {
            life = header.life;
            own = Some((name, bytes));
        } else if header.after == Some(id) && next.is_none() {
            next = Some((name, bytes));
        }
    }
    // Whoever writes numbers into a snapshot has made its journal before.
    if own.is_none() && (damaged.is_some() || format::has_numbers(snapshot)) {
        let path = disk.path(damaged.as_deref().unwrap_or("journal.*"));
        tracing::warn!(
            path = %path.display(),
            "the journal of the checkpoints is missing, or its first line is damaged: expected \
             `thyme-journal 1 crc32=… bytes=…`; files are read again from where they were when the \
             snapshot was written, at most ten minutes before the end"
        );
    }
    for (name, bytes) in [own, next].into_iter().flatten() {
        if !replay_one(disk, &name, &bytes, files) {
            break;
        }
    }
    Ok(life)
}

/// Applies a journal; `false` where its end is torn.
fn replay_one(disk: &dyn StateDisk, name: &str, bytes: &[u8], files: &mut Files) -> bool {
    let Some((_, batches)) = open_journal(bytes) else { return false };
    let torn_bytes = replay(batches, files);
    if torn_bytes > 0 {
        tracing::warn!(
            path = %disk.path(name).display(), torn_bytes,
            "the last changes of checkpoints were not whole on disk; records may come twice"
        );
    }
    torn_bytes == 0
}

/// What the newest journal knows of files without its snapshot, and the one that it goes on from:
/// those that came since. Numbers of others mean nothing, so where they are is not known.
fn files_of_journals(disk: &dyn StateDisk, numbers: &[u64]) -> Result<Files, CheckpointError> {
    let mut newest: Vec<(String, Vec<u8>, JournalHeader)> = Vec::new();
    for &number in numbers {
        let name = journal_name(number);
        let bytes = disk.read(&name).map_err(failed(&name, "cannot read"))?;
        let Some((header, _)) = open_journal(&bytes) else { continue };
        if newest.last().is_none_or(|(.., later)| later.after == Some(header.base)) {
            newest.push((name, bytes, header));
        }
    }
    let mut files = Files::new();
    for (name, bytes, _) in newest.iter().rev() {
        if !replay_one(disk, name, bytes, &mut files) {
            break;
        }
    }
    Ok(files)
}

fn corrupt_name(name: &str) -> String {
    format!("{name}.corrupt")
}

fn say_that_older_is_used(disk: &dyn StateDisk) {
    tracing::error!(
        missing = %disk.path(CURRENT_NAME).display(),
        used = %disk.path(SYNCED_NAME).display(),
        "the older generation of checkpoints is used: records may come twice"
    );
}

fn say_that_none_is_left(disk: &dyn StateDisk, files: usize) {
    let path = disk.path(CURRENT_NAME);
    if files == 0 {
        tracing::error!(
            path = %path.display(),
            "no generation of checkpoints is left: all files are read again from their beginning"
        );
    } else {
        tracing::error!(
            path = %path.display(), files,
            "no generation of checkpoints is left: these files, which the journal knows, go on where \
             they were; all others are read again from their beginning"
        );
    }
}

pub(super) fn write_synced(
    disk: &dyn StateDisk,
    name: &str,
    bytes: &[u8],
) -> Result<Box<dyn StateFile>, CheckpointError> {
    let mut file = disk.create(name).map_err(failed(name, "cannot create"))?;
    file.append(bytes).map_err(failed(name, "cannot write"))?;
    file.sync().map_err(failed(name, "cannot sync"))?;
    Ok(file)
}
