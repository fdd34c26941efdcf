//! How far each file has been acknowledged, kept on disk by a thread of its own. It must never
//! hold a worker up, and never be ahead of the sink's acknowledgements.
//!
//! What changed is appended to a journal within 200 ms of the acknowledgement, or within a second
//! where very much changes, and synced each second, so that a power loss falls back to that. A
//! snapshot of everything replaces the journal now and then.

mod adopt;
mod first_start;
pub(crate) mod format;
pub(crate) mod frame;
mod lock;
pub mod prepare;
pub(crate) mod store;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use credentials::regular_file;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

pub use self::{
    adopt::{Owners, adopt},
    first_start::FirstStart,
    format::{FileCheckpoint, FormatError},
    lock::LOCK_NAME,
};
use self::{first_start::FirstStartEnd, store::Store};
use crate::{
    limits::{CHECKPOINT_BYTES_PER_SECOND, COMPLAINT_INTERVAL, JOURNAL_AGE_MAX},
    metrics::Metrics,
    pipeline::EndNote,
    spool::{self, Covered},
    world::{
        SharedClock, StateDisk,
        real::{NodeDisk, SystemClock},
    },
};

/// Shortest time between two writes; an acknowledgement is on disk within twice that.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time between two synced writes while there is something to sync.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Changes that room is kept for between two writes.
const RETAINED_CHANGES: usize = 1024;

/// Bytes of their records likewise.
const RETAINED_RECORD_BYTES: usize = 256 << 10;

const CURRENT_NAME: &str = "checkpoints";
const SYNCED_NAME: &str = "checkpoints.synced";
const FRESH_NAME: &str = "checkpoints.new";

/// What a state directory holds beside the spool, by a name each.
pub const FILE_NAMES: &[&str] =
    &[CURRENT_NAME, SYNCED_NAME, FRESH_NAME, LOCK_NAME, first_start::NAME, "journal.000001"];

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
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
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
    /// Whether no checkpoint was ever written there. `start_at` holds from then on until the first start is
    /// over, see [`FirstStart`].
    pub is_first_start: bool,
    /// What was read.
    pub files: Vec<FileCheckpoint>,
    /// Their numbers, in the same order, in the life of the agent that wrote them.
    keys: Vec<FileKey>,
    /// That life; `None` where nobody knows.
    life: Option<u64>,
}

impl Restored {
    /// Takes what the spool has of these files for settled: the agent may have been killed before a
    /// checkpoint said so.
    pub(crate) fn add_spooled(&mut self, disk: &dyn StateDisk) {
        let Some(life) = self.life else { return };
        // Whether a file that was empty is still the same nothing tells: its number may be another's by now.
        let known = self.keys.iter().zip(&self.files).enumerate();
        let known = known.filter(|(_, (_, file))| file.head_bytes > 0);
        let places: HashMap<FileKey, usize> =
            known.map(|(place, (key, _))| (*key, place)).collect();
        let is_news = |(key, start, end): &Covered| {
            places.get(key).is_some_and(|place| !self.files[*place].is_settled(*start, *end))
        };
        match spool::covered(disk, life, &is_news) {
            Ok(covered) => {
                for (key, start, end) in covered {
                    if let Some(place) = places.get(&key) {
                        self.files[*place].add_spooled(start, end);
                    }
                }
            }
            Err(error) => tracing::warn!(
                %error,
                "the spool can't be read: what it has of log files and no checkpoint says comes twice, or is \
                 counted as lost"
            ),
        }
    }
}

/// Opens the state directory: makes it if asked to, locks it and reads what is there.
pub fn open(directory: &Path, create: bool) -> Result<(State, Restored), CheckpointError> {
    make_sure_of(directory, create).map_err(CheckpointError::io(directory, "cannot be used"))?;
    let lock = lock::acquire(directory)?;
    let disk = Arc::new(NodeDisk::new(directory));
    let opened = open_on(disk, Some(lock), SystemClock::shared().unix_nanos());
    opened.map_err(|error| error.within(directory))
}

/// [`open`] for a disk that needs no lock, or has one. No other life of the agent has the number `life`.
pub(crate) fn open_on(
    disk: Arc<dyn StateDisk>,
    lock: Option<File>,
    life: u64,
) -> Result<(State, Restored), CheckpointError> {
    let (store, found) = Store::open(&*disk, life)?;
    let (keys, files) = found.files.into_iter().unzip();
    let mut restored =
        Restored { is_first_start: found.is_first_start, files, keys, life: found.life };
    restored.add_spooled(&*disk);
    Ok((State { disk, store, life, _lock: lock }, restored))
}

/// Makes the directory if asked to; it is one afterwards.
fn make_sure_of(directory: &Path, create: bool) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match regular_file::expect_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
            let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
            let made: Vec<&Path> = directory.ancestors().take_while(is_missing).collect();
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            for parent in made.iter().filter_map(|path| path.parent()) {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                // One that may be written to and not read can't be synced; that is no reason not to
                // start.
                let _unsynced = File::open(parent).and_then(|parent| parent.sync_all());
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = "there is no such directory: make it, or set `create_directory: true`";
            Err(io::Error::new(io::ErrorKind::NotFound, hint))
        }
        found => found,
    }
}

/// The state directory, held by this process as long as this lives.
pub struct State {
    disk: Arc<dyn StateDisk>,
    store: Store,
    life: u64,
    _lock: Option<File>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    /// The number of this life of the agent, in which numbers of files mean something.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// The disk, for others that keep something there.
    pub fn disk(&self) -> Arc<dyn StateDisk> {
        Arc::clone(&self.disk)
    }
}

/// Where workers leave what changed. Newer changes of a file replace older ones, so this is
/// bounded by the number of files, however slow the disk is.
#[derive(Clone, Debug)]
pub struct Publisher {
    pending: Arc<Mutex<HashMap<FileKey, Option<FileCheckpoint>>>>,
    first_start: Arc<FirstStartEnd>,
    wake: Sender<()>,
}

impl Publisher {
    /// Leaves changes that belong together: they reach the disk in the same write.
    pub fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).extend(changes);
        // A full channel means that the writer has been woken already.
        let _already_awake = self.wake.try_send(());
    }

    /// Every file that was there at the first start has left its checkpoint.
    pub fn end_first_start(&self) {
        self.first_start.set_due(true);
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
    /// that the first write doesn't forget them; `sink` is the canonical name of the exporter.
    pub fn spawn(
        state: State,
        sink: &str,
        resumed: Vec<Change>,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, CheckpointError> {
        let (publisher, woken, mut table) = Table::new(state, sink, resumed, clock, metrics);
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

/// What a turn has brought to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// Nothing.
    No,
    /// All that was left, for another process.
    Written,
    /// And for a loss of power.
    Synced,
}

/// All checkpoints, as they are to be on disk.
pub(crate) struct Table {
    /// What workers have left; shared with the publishers.
    pending: Arc<Mutex<HashMap<FileKey, Option<FileCheckpoint>>>>,
    first_start: Arc<FirstStartEnd>,
    /// Changes at hand; swapped with the workers', so that neither is ever made anew.
    taken: HashMap<FileKey, Option<FileCheckpoint>>,
    state: State,
    /// Canonical name of the exporter whose positions these are.
    sink: String,
    files: BTreeMap<FileKey, FileCheckpoint>,
    /// Changes as lines of the journal, until they are on disk.
    records: Vec<u8>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    last_sync: Option<Instant>,
    unsynced: bool,
    /// When the last snapshot was written, and whether the journal has anything beyond it.
    last_snapshot: Option<Instant>,
    has_journal: bool,
    /// Bytes that the last write appended.
    appended_bytes: u64,
    complained: Option<Instant>,
}

impl Table {
    /// A table that holds what was resumed, the way to change it, and what wakes who writes it.
    pub(crate) fn new(
        state: State,
        sink: &str,
        resumed: Vec<Change>,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> (Publisher, Receiver<()>, Self) {
        let (wake, woken) = bounded(1);
        let publisher = Publisher { pending: Arc::default(), first_start: Arc::default(), wake };
        let resumed = resumed.into_iter().filter_map(|(key, file)| Some((key, file?)));
        let table = Self {
            pending: Arc::clone(&publisher.pending),
            first_start: Arc::clone(&publisher.first_start),
            taken: HashMap::new(),
            state,
            sink: sink.to_owned(),
            files: resumed.collect(),
            records: Vec::new(),
            clock,
            metrics,
            last_sync: None,
            unsynced: true,
            last_snapshot: None,
            has_journal: false,
            appended_bytes: 0,
            complained: None,
        };
        (publisher, woken, table)
    }

    fn run(&mut self, woken: &Receiver<()>) {
        // At once, so that a restart is never taken for the first start.
        self.write(true);
        loop {
            let wait = if self.unsynced { SYNC_INTERVAL } else { Duration::MAX };
            let ended = match woken.recv_timeout(wait) {
                Ok(()) => {
                    std::thread::sleep(pause_after(self.appended_bytes));
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
    pub(crate) fn turn(&mut self, is_end: bool) -> Saved {
        // Before what was left is taken: that was left earlier.
        let ends_first_start = self.first_start.is_due();
        std::mem::swap(
            &mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner),
            &mut self.taken,
        );
        self.apply();
        let now = self.clock.now();
        let sync_due = self.unsynced
            && self.last_sync.is_none_or(|last| now.duration_since(last) >= SYNC_INTERVAL);
        if is_end {
            // Whoever comes next, also an older version, finds all of it in the snapshot.
            self.last_snapshot = None;
        }
        if !self.records.is_empty() || sync_due || is_end || ends_first_start {
            let saved = self.write(sync_due || is_end || ends_first_start);
            if ends_first_start && saved == Saved::Synced {
                first_start::end(&*self.state.disk);
                self.first_start.set_due(false);
            }
            return saved;
        }
        Saved::No
    }

    /// Takes changes over, and notes for the journal what is different.
    fn apply(&mut self) {
        let length_before = self.records.len();
        for (key, change) in self.taken.drain() {
            let Some(mut file) = change else {
                if self.files.remove(&key).is_some() {
                    format::push_gone(&mut self.records, key);
                }
                continue;
            };
            let mut is_known = false;
            if let Some(known) = self.files.get_mut(&key) {
                is_known = known.is_same_file(&file);
                if is_known && known.has_same_position(&file) {
                    continue;
                }
                file.keep_others(known);
            }
            if is_known {
                format::push_position(&mut self.records, key, &file, &self.sink);
            } else {
                format::push_file(&mut self.records, key, &file, &self.sink);
            }
            self.files.insert(key, file);
        }
        // After a start with very many files it would stay as large as all of them together.
        self.taken.shrink_to(RETAINED_CHANGES);
        self.unsynced |= self.records.len() > length_before;
    }

    pub(crate) fn write(&mut self, sync: bool) -> Saved {
        let now = self.clock.now();
        let written = self.try_write(now, sync);
        self.records.clear();
        self.records.shrink_to(RETAINED_RECORD_BYTES);
        match written {
            Ok(saved) => {
                self.metrics.checkpoints_written.increment();
                if saved == Saved::Synced {
                    self.last_sync = Some(now);
                    self.unsynced = false;
                }
                saved
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
                Saved::No
            }
        }
    }

    fn try_write(&mut self, now: Instant, sync: bool) -> Result<Saved, CheckpointError> {
        self.appended_bytes = 0;
        let store = &mut self.state.store;
        let is_old = self.last_snapshot.is_none_or(|last| now >= last + JOURNAL_AGE_MAX);
        let wants_snapshot = is_old && (self.has_journal || self.last_snapshot.is_none());
        if !self.records.is_empty() && !store.needs_snapshot() {
            self.has_journal = true;
            match store.append(&self.records) {
                Ok(bytes) => self.appended_bytes = bytes,
                // A snapshot has all of it, too, if it can be written.
                Err(_) => self.metrics.checkpoint_errors.increment(),
            }
            self.metrics.checkpoint_bytes.add(self.appended_bytes);
        }
        if wants_snapshot || store.needs_snapshot() {
            let files = self.files.iter().map(|(key, file)| (*key, file));
            let snapshot = format::encode(files, &self.sink);
            let bytes = store.replace(&*self.state.disk, &snapshot)?;
            self.metrics.checkpoint_bytes.add(bytes);
            (self.last_snapshot, self.has_journal) = (Some(now), false);
        } else if sync {
            store.sync()?;
        } else {
            return Ok(Saved::Written);
        }
        Ok(Saved::Synced)
    }
}

/// How long the next write waits for more changes, after one that appended so many bytes.
fn pause_after(appended_bytes: u64) -> Duration {
    let seconds = appended_bytes as f64 / CHECKPOINT_BYTES_PER_SECOND as f64;
    Duration::from_secs_f64(seconds).clamp(WRITE_INTERVAL, SYNC_INTERVAL)
}

#[cfg(test)]
mod tests;
