//! How far each file has been acknowledged, kept on disk by a thread of its own. It must never
//! hold a worker up, and never be ahead of the sink's acknowledgements.
//!
//! A write is a new file renamed over the old one, within 200 ms of the
//! acknowledgement; each second a write is synced and kept as a second generation, so that a power
//! loss falls back to it.

pub(crate) mod format;
pub(crate) mod frame;
mod lock;
pub mod prepare;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

pub use self::format::{FileCheckpoint, FormatError};
use crate::{
    limits::COMPLAINT_INTERVAL,
    metrics::Metrics,
    pipeline::EndNote,
    world::{SharedClock, StateDisk, real::NodeDisk},
};

/// Shortest time between two writes; an acknowledgement is on disk within twice that.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time between two synced writes while there is something to sync.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Changes that room is kept for between two writes.
const RETAINED_CHANGES: usize = 1024;

const CURRENT_NAME: &str = "checkpoints";
const SYNCED_NAME: &str = "checkpoints.synced";
const FRESH_NAME: &str = "checkpoints.new";

/// Why the state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// An operation on a file failed.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another agent uses the directory.
    #[error("{path}: the state directory is in use by {holder}; each agent needs its own")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Process that holds it.
        holder: String,
    },
}

impl CheckpointError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// The same about a file that was named within a directory.
    fn within(self, directory: &Path) -> Self {
        match self {
            Self::Io { path, action, source } => {
                Self::Io { path: directory.join(path), action, source }
            }
            Self::Locked { .. } => self,
        }
    }
}

/// Number of a file within this process, over all workers.
pub type FileKey = u64;

/// What a worker says about a file: its new checkpoint, or that it is gone for good.
pub type Change = (FileKey, Option<FileCheckpoint>);

/// What the state directory held at start.
#[derive(Debug, Default)]
pub struct Restored {
    /// Whether no checkpoint was ever written there: `start_at` holds only then.
    pub is_first_start: bool,
    /// What was read.
    pub files: Vec<FileCheckpoint>,
}

/// Opens the state directory: makes it if asked to, locks it and reads what is there.
pub fn open(directory: &Path, create: bool) -> Result<(State, Restored), CheckpointError> {
    if create {
        create_private(directory).map_err(CheckpointError::io(directory, "cannot create"))?;
    }
    let lock = lock::acquire(directory)?;
    let opened = open_on(Arc::new(NodeDisk::new(directory)), Some(lock));
    opened.map_err(|error| error.within(directory))
}

/// [`open`] for a disk that needs no lock, or has one.
pub(crate) fn open_on(
    disk: Arc<dyn StateDisk>,
    lock: Option<File>,
) -> Result<(State, Restored), CheckpointError> {
    let restored = restore(&*disk)?;
    Ok((State { disk, _lock: lock }, restored))
}

fn create_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The state directory, held by this process as long as this lives.
pub struct State {
    disk: Arc<dyn StateDisk>,
    _lock: Option<File>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    /// The disk, for others that keep something there.
    pub fn disk(&self) -> Arc<dyn StateDisk> {
        Arc::clone(&self.disk)
    }
}

/// Reads the newest generation that is whole; a damaged one is set aside, never deleted.
fn restore(disk: &dyn StateDisk) -> Result<Restored, CheckpointError> {
    let mut is_first_start = true;
    let mut is_damaged = false;
    for name in [CURRENT_NAME, SYNCED_NAME] {
        let bytes = match disk.read(name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(CheckpointError::io(Path::new(name), "cannot read")(error)),
        };
        is_first_start = false;
        match format::decode(&bytes) {
            Ok(files) => {
                if is_damaged {
                    tracing::error!(
                        "the older generation of checkpoints is used: records may come twice"
                    );
                }
                return Ok(Restored { is_first_start, files });
            }
            Err(error) => {
                let aside = format!("{name}.corrupt");
                tracing::error!(name, %error, kept_as = aside, "a checkpoint is damaged");
                is_damaged = true;
                disk.rename(name, &aside)
                    .map_err(CheckpointError::io(Path::new(name), "cannot set aside"))?;
            }
        }
    }
    if is_damaged {
        tracing::error!("no generation of checkpoints is left: all files are read again");
    }
    Ok(Restored { is_first_start, files: Vec::new() })
}

/// Where workers leave what changed. Newer changes of a file replace older ones, so this is
/// bounded by the number of files, however slow the disk is.
#[derive(Clone, Debug)]
pub struct Publisher {
    pending: Arc<Mutex<HashMap<FileKey, Option<FileCheckpoint>>>>,
    wake: Sender<()>,
}

impl Publisher {
    /// Leaves changes that belong together: they reach the disk in the same write.
    pub fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).extend(changes);
        // A full channel means that the writer has been woken already.
        let _already_awake = self.wake.try_send(());
    }
}

/// The writer's thread.
#[derive(Debug)]
pub struct Writer {
    publisher: Publisher,
    thread: JoinHandle<()>,
    ended: Arc<AtomicBool>,
}

impl Writer {
    /// Starts it. `resumed` are the checkpoints of files that no worker has taken over yet, so
    /// that the first write doesn't forget them.
    pub fn spawn(
        state: State,
        resumed: Vec<Change>,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, CheckpointError> {
        let (publisher, woken, mut table) = Table::new(state, resumed, clock, metrics);
        let ended = Arc::new(AtomicBool::new(false));
        let note = EndNote(Arc::clone(&ended));
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || {
                let _note = note;
                table.run(&woken);
            })
            .map_err(CheckpointError::io(Path::new("checkpoint"), "cannot start the thread"))?;
        Ok(Self { publisher, thread, ended })
    }

    /// A way to leave changes.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Turns true when the thread has ended.
    pub fn ended(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ended)
    }

    /// Writes and syncs what is left, and ends. All other publishers must be gone.
    pub fn finish(self) {
        drop(self.publisher);
        if self.thread.join().is_err() {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

/// All checkpoints, as they are to be on disk.
pub(crate) struct Table {
    /// What workers have left; shared with the publishers.
    pending: Arc<Mutex<HashMap<FileKey, Option<FileCheckpoint>>>>,
    /// Changes at hand; swapped with the workers', so that neither is ever made anew.
    taken: HashMap<FileKey, Option<FileCheckpoint>>,
    state: State,
    files: BTreeMap<FileKey, FileCheckpoint>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    last_sync: Option<Instant>,
    unsynced: bool,
    complained: Option<Instant>,
}

impl Table {
    /// A table that holds what was resumed, the way to change it, and what wakes who writes it.
    pub(crate) fn new(
        state: State,
        resumed: Vec<Change>,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> (Publisher, Receiver<()>, Self) {
        let (wake, woken) = bounded(1);
        let publisher = Publisher { pending: Arc::default(), wake };
        let mut table = Self {
            pending: Arc::clone(&publisher.pending),
            taken: HashMap::new(),
            state,
            files: BTreeMap::new(),
            clock,
            metrics,
            last_sync: None,
            unsynced: true,
            complained: None,
        };
        table.taken.extend(resumed);
        table.apply();
        (publisher, woken, table)
    }

    fn run(&mut self, woken: &Receiver<()>) {
        // At once, so that a restart is never taken for the first start.
        self.write(true);
        loop {
            let wait = if self.unsynced { SYNC_INTERVAL } else { Duration::MAX };
            let ended = match woken.recv_timeout(wait) {
                Ok(()) => {
                    std::thread::sleep(WRITE_INTERVAL);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            self.turn(ended);
            if ended {
                return;
            }
        }
    }

    /// Takes what workers have left, and writes and syncs as is due; in any case at the end.
    pub(crate) fn turn(&mut self, is_end: bool) {
        std::mem::swap(
            &mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner),
            &mut self.taken,
        );
        let changed = self.apply();
        let now = self.clock.now();
        let sync_due = self.unsynced
            && self.last_sync.is_none_or(|last| now.duration_since(last) >= SYNC_INTERVAL);
        if changed || sync_due || is_end {
            self.write(sync_due || is_end);
        }
    }

    fn apply(&mut self) -> bool {
        let changed = !self.taken.is_empty();
        for (key, change) in self.taken.drain() {
            match change {
                Some(checkpoint) => self.files.insert(key, checkpoint),
                None => self.files.remove(&key),
            };
        }
        // After a start with very many files it would stay as large as all of them together.
        self.taken.shrink_to(RETAINED_CHANGES);
        self.unsynced |= changed;
        changed
    }

    pub(crate) fn write(&mut self, sync: bool) {
        let now = self.clock.now();
        match self.try_write(sync) {
            Ok(()) => {
                self.metrics.checkpoints_written.increment();
                if sync {
                    self.last_sync = Some(now);
                    self.unsynced = false;
                }
            }
            Err(error) => {
                self.metrics.checkpoint_errors.increment();
                if self.complained.is_none_or(|last| now >= last + COMPLAINT_INTERVAL) {
                    self.complained = Some(now);
                    tracing::error!(%error, "a checkpoint can't be written; records may come twice after a restart");
                }
                // Tried again with the next change, or after a second.
                self.unsynced = true;
                self.last_sync = Some(now);
            }
        }
    }

    fn try_write(&self, sync: bool) -> Result<(), CheckpointError> {
        let disk = &*self.state.disk;
        let failed = |name: &'static str, action| CheckpointError::io(Path::new(name), action);
        let bytes = format::encode(self.files.values());
        crate::failpoint::hit("checkpoint_begun");
        let mut file = disk.create(FRESH_NAME).map_err(failed(FRESH_NAME, "cannot create"))?;
        crate::failpoint::hit("checkpoint_created");
        file.append(&bytes).map_err(failed(FRESH_NAME, "cannot write"))?;
        crate::failpoint::hit("checkpoint_written");
        if sync {
            file.sync().map_err(failed(FRESH_NAME, "cannot sync"))?;
            crate::failpoint::hit("checkpoint_synced");
            disk.link(FRESH_NAME, SYNCED_NAME).map_err(failed(SYNCED_NAME, "cannot link"))?;
            crate::failpoint::hit("checkpoint_linked");
        }
        disk.rename(FRESH_NAME, CURRENT_NAME).map_err(failed(CURRENT_NAME, "cannot rename to"))?;
        crate::failpoint::hit("checkpoint_renamed");
        if sync {
            disk.sync_directory("").map_err(failed("state directory", "cannot sync"))?;
            crate::failpoint::hit("checkpoint_directory_synced");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
