//! Which files exist, and whose they are: watches on directories, and scans as the safety net.
//! Every new file is opened at once, so that it can't be deleted before it is read. It must not read
//! more of them than the first bytes, which say whose a file is and what it holds, and never waits for a
//! worker.

mod compressed;
mod hidden;
mod known;
pub mod links;
mod look;
mod mounts;
mod moved;
pub mod open;
pub mod pattern;
mod refused;
mod renamed;
mod said;
mod scan;
mod unseen;
mod watch;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use globset::GlobMatcher;

pub use self::moved::Gone;
use self::{
    mounts::Mounts,
    pattern::{LogName, Pattern, PatternError},
    renamed::Memory,
    said::Unsaid,
    scan::{Directory, FoundGroup, Scanner},
    unseen::{Checkpoints, Unseen},
    watch::{DirectoryEvent, DirectoryWatch},
};
use crate::{
    checkpoint::{FileCheckpoint, FileKey, FirstStart, Publisher},
    config::{FilelogConfig, StartAt},
    limits::{
        COMPLAINT_INTERVAL, DIRECTORY_EVENTS_MAX, EVENT_SETTLE_TIME, HEARTBEAT_INTERVAL,
        ROOT_LOOK_INTERVAL, WATCHED_SCANS,
    },
    metrics::{LossReason, Metrics},
    tail::{descriptors::Descriptors, identity::Inode},
    worker::{Charge, Heartbeat, WorkerHandle, WorkerMessage},
    world::{HashMap, LogTree, Opened, SharedClock},
};

/// One container's log: a live file and what it was rotated to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// Which receiver includes it, by its place in the configuration.
    pub receiver: usize,
    /// The directory.
    pub directory: Arc<Path>,
    /// Name of the live file, whether it exists at present or not.
    pub live: Arc<OsStr>,
}

/// A file of a group, as its directory shows it.
#[derive(Debug)]
pub struct FoundFile {
    /// Its name.
    pub name: OsString,
    /// Which file it is.
    pub inode: Inode,
    /// When its inode came to be, in nanoseconds since the Unix epoch, where that is known.
    pub born: Option<u64>,
    /// Open, where this name is new for this inode; its length then. `None` also where it could not be
    /// opened: then it is only shown to exist.
    pub opened: Option<Opened>,
    /// Whether it is a file that its group knows under another name, as far as discovery can tell.
    pub is_renamed: bool,
    /// How long it was when it was seen first, if it was there before the first start: `start_at` holds
    /// for so much of it.
    pub old_bytes: Option<u64>,
    /// What of it is unread, as its worker's load has it.
    pub charge: Charge,
}

/// A file that is gone and could never be opened.
#[derive(Debug)]
pub struct Missed {
    /// Its name.
    pub name: OsString,
    /// Which file it was, before it was compressed if it was seen then.
    pub inode: Inode,
    /// Whether it was seen as a plain file; otherwise it is an archive of which nothing else was seen.
    pub was_plain: bool,
    /// When that came to be, where it is known.
    pub born: Option<u64>,
    /// How many bytes it had as a plain file; otherwise, what it took on disk.
    pub bytes: u64,
}

/// All files of a group that its directory shows; none when it is gone.
#[derive(Debug)]
pub struct Snapshot {
    /// Whose they are.
    pub key: Arc<GroupKey>,
    /// In no order.
    pub files: Vec<FoundFile>,
    /// Whether each of them is open or known, so that a checkpoint of none of them is of a file that
    /// is gone.
    pub is_complete: bool,
    /// Whether these are not the files of the directory that was known: that one is gone, or another
    /// stands under its name.
    pub is_replaced: bool,
    /// Files that are gone and could never be opened.
    pub missed: Vec<Missed>,
    /// On the first snapshot of a group: what its checkpoints say.
    pub resume: Vec<(FileKey, FileCheckpoint)>,
    /// Where old files begin that no checkpoint knows.
    pub start_at: StartAt,
}

/// A receiver as discovery sees it.
#[derive(Clone, Debug)]
pub struct Source {
    patterns: Vec<Pattern>,
    exclude: Vec<GlobMatcher>,
    start_at: StartAt,
}

impl Source {
    /// Parses the patterns of a receiver.
    pub fn new(config: &FilelogConfig) -> Result<Self, PatternError> {
        Ok(Self {
            patterns: config
                .include
                .iter()
                .map(|one| Pattern::all(one))
                .collect::<Result<Vec<_>, _>>()?
                .concat(),
            exclude: config
                .exclude
                .iter()
                .map(|one| pattern::path_matcher(one))
                .collect::<Result<_, _>>()?,
            start_at: config.start_at,
        })
    }

    /// Whether it reads the live file of this path.
    pub fn includes(&self, path: &Path) -> bool {
        self.root_of(path).is_some()
    }

    /// The root of the pattern by which it reads the live file of this path.
    fn root_of(&self, path: &Path) -> Option<&Path> {
        let pattern = self.patterns.iter().find(|pattern| pattern.matches(path))?;
        (!self.excludes(path)).then_some(&*pattern.root)
    }

    fn excludes(&self, path: &Path) -> bool {
        self.exclude.iter().any(|glob| glob.is_match(path))
    }
}

/// What discovery starts from.
pub struct DiscoveryStart {
    /// Receivers, in the configuration's order.
    pub sources: Vec<Source>,
    /// Their canonical names.
    pub receiver_names: Vec<Arc<str>>,
    /// How many files may be open at once; further ones wait.
    pub descriptors: Arc<Descriptors>,
    /// What the checkpoints say.
    pub resume: Vec<(FileKey, FileCheckpoint)>,
    /// When the agent started for the first time, as long as `start_at` may hold for files that have no
    /// checkpoint.
    pub first_start: Option<FirstStart>,
    /// Time between two scans of everything.
    pub scan_interval: Duration,
    /// Where the groups go.
    pub workers: Vec<WorkerHandle>,
    /// Where checkpoints of vanished files are withdrawn.
    pub checkpoints: Option<Publisher>,
    /// The log files.
    pub tree: Box<dyn LogTree>,
    /// Time.
    pub clock: SharedClock,
    /// Whether directories are watched; without watches scans find everything.
    pub watches: bool,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The discovery thread's state.
pub struct Discovery {
    scanner: Scanner,
    watch: DirectoryWatch,
    mounts: Mounts,
    events: Receiver<DirectoryEvent>,
    stop: Receiver<()>,
    unseen: Unseen,
    receiver_names: Vec<Arc<str>>,
    workers: Vec<WorkerHandle>,
    /// Which worker a group belongs to, for as long as that one knows of it. Workers get these very keys,
    /// so that their count says whether they do.
    assigned: HashMap<Arc<GroupKey>, usize>,
    /// Groups that their directories showed no more.
    vanished: BTreeSet<Arc<GroupKey>>,
    /// When a root was out of sight for the first time, as far as workers know.
    hidden_since: Option<Instant>,
    checkpoints: Option<Publisher>,
    scan_interval: Duration,
    next_scan: Instant,
    next_root_look: Instant,
    descriptors: Arc<Descriptors>,
    /// When it was said last that files wait for descriptors.
    shortage_said: Option<Instant>,
    clock: SharedClock,
    /// Scans since the unseen were looked for.
    scans_since_search: u32,
    /// Scans in a row that left nothing for the next one, while the first start is not over.
    scans_of_first_start: Option<u32>,
    unsaid: Unsaid,
    heartbeat: Arc<Heartbeat>,
    metrics: Arc<Metrics>,
}

impl Discovery {
    /// Prepares it; the returned sender, dropped, ends [`Discovery::run`].
    pub fn new(start: DiscoveryStart) -> (Self, Sender<()>) {
        let (stopper, stop) = bounded(0);
        let (sender, events) = bounded(DIRECTORY_EVENTS_MAX);
        let now = start.clock.now();
        let memory = Memory::new(&start.resume);
        let positions = start.receiver_names.iter().map(|name| {
            start.resume.iter().filter(|(_, position)| position.receiver == *name).count()
        });
        let unsaid = Unsaid::new(positions);
        let mut discovery = Self {
            scanner: Scanner::new(
                start.sources,
                start.tree,
                Arc::clone(&start.clock),
                Arc::clone(&start.descriptors),
                start.first_start,
                Arc::clone(&start.metrics),
            ),
            watch: if start.watches {
                DirectoryWatch::new(sender, Arc::clone(&start.metrics))
            } else {
                DirectoryWatch::none(sender)
            },
            mounts: Mounts::default(),
            heartbeat: Arc::new(Heartbeat::new(now)),
            clock: start.clock,
            events,
            stop,
            unseen: Unseen::new(start.resume),
            receiver_names: start.receiver_names,
            workers: start.workers,
            assigned: HashMap::default(),
            vanished: BTreeSet::new(),
            hidden_since: None,
            checkpoints: start.checkpoints,
            scan_interval: start.scan_interval,
            next_scan: now,
            next_root_look: now,
            descriptors: start.descriptors,
            shortage_said: None,
            // The first scan is followed by a search.
            scans_since_search: WATCHED_SCANS,
            scans_of_first_start: start.first_start.map(|_| 0),
            unsaid,
            metrics: start.metrics,
        };
        if start.watches {
            discovery.mounts = Mounts::new(&discovery.scanner.tree_and_roots().1);
        }
        discovery.scanner.remember(discovery.receiver_names.clone(), memory);
        (discovery, stopper)
    }

    /// Shows that it makes progress: it beats for each directory, and at least each
    /// [`HEARTBEAT_INTERVAL`].
    pub fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    /// Scans, then follows events until it is stopped.
    pub fn run(mut self) {
        let mut next = self.turn(self.clock.now());
        loop {
            self.heartbeat.beat();
            let wait = next.saturating_duration_since(self.clock.now());
            crossbeam_channel::select! {
                recv(self.stop) -> _ => {
                    self.count_gone();
                    return;
                }
                recv(self.events) -> event => {
                    let Ok(event) = event else { return };
                    self.follow(event);
                }
                default(wait.min(HEARTBEAT_INTERVAL)) => {}
            }
            next = self.turn(self.clock.now());
        }
    }

    /// Looks at what is due; returns when the next look is.
    pub(crate) fn turn(&mut self, now: Instant) -> Instant {
        if now >= self.next_root_look {
            for root in self.scanner.changed_roots() {
                self.scan_tree(root);
            }
            for directory in self.mounts.changed(&self.scanner.tree_and_roots().1) {
                self.scanner.doubt(&directory);
                self.scan_directory(&directory);
            }
            for directory in self.scanner.changed_links() {
                self.scanner.doubt(&directory);
                self.scan_directory(&directory);
            }
            self.serve_waiting(now);
            self.next_root_look = self.clock.now() + ROOT_LOOK_INTERVAL;
        }
        if now >= self.next_scan {
            self.scan(now);
        }
        self.count_gone();
        self.next_scan.min(self.next_root_look)
    }

    /// Looks again at directories with files that wait for a descriptor, as long as there are any, so
    /// that each has its turn.
    fn serve_waiting(&mut self, now: Instant) {
        for _ in 0..self.scanner.waiting() {
            if !self.descriptors.has_room_for_new() {
                break;
            }
            if let Some(directory) = self.scanner.next_waiting() {
                self.scan_tree(directory);
            }
        }
        let waiting = self.scanner.waiting();
        let files = self.scanner.waiting_files();
        self.descriptors.set_wanted(files as u64);
        if waiting == 0 {
            return;
        }
        self.scanner.look_at_waiting();
        if self.shortage_said.is_none_or(|said| now >= said + COMPLAINT_INTERVAL) {
            self.shortage_said = Some(now);
            tracing::warn!(
                files,
                directories = waiting,
                open = self.metrics.open_files.get(),
                "log files wait for others to be closed: raise the limit of open files, or \
                 thyme's open_files_max"
            );
        }
    }

    /// Looks at everything.
    pub(crate) fn scan(&mut self, now: Instant) {
        self.hidden_since = None;
        self.scan_everything();
        self.scanner.end_scan(now);
        self.unsaid.say(&self.scanner, &self.receiver_names);
        self.end_first_start();
        self.release_vanished();
        self.scans_since_search += 1;
        if self.scans_since_search > WATCHED_SCANS && !self.unseen.is_empty() {
            self.scans_since_search = 0;
            self.withdraw_vanished(now);
        }
        self.next_scan = now + self.scan_interval;
    }

    /// The first start is over once everything was seen, and workers have taken it and said so.
    fn end_first_start(&mut self) {
        let Some(scans) = &mut self.scans_of_first_start else { return };
        let has_left_all = self.workers.iter().all(|worker| worker.messages.is_empty());
        *scans = if has_left_all && self.scanner.has_seen_all() { *scans + 1 } else { 0 };
        // A worker may still be at what it took last: the scan after that is the one.
        if *scans > 1 {
            self.scans_of_first_start = None;
            if let Some(publisher) = &self.checkpoints {
                publisher.end_first_start();
            }
        }
    }

    /// Looks again at the directories that events name, or, where some were lost, at everything.
    fn follow(&mut self, first: DirectoryEvent) {
        // A directory that is being filled raises many events: a moment later, one look is enough.
        let deadline = self.clock.now() + EVENT_SETTLE_TIME;
        let mut dirty = BTreeSet::from([first]);
        while let Ok(event) = self.events.recv_deadline(deadline) {
            dirty.insert(event);
        }
        if self.watch.has_lost_events() || dirty.contains(&DirectoryEvent::Lost) {
            self.metrics.event_overflows.increment();
            self.scanner.distrust();
            self.next_scan = self.clock.now();
            return;
        }
        for event in dirty {
            if let DirectoryEvent::Changed(directory) = event {
                self.scanner.doubt(&directory);
                self.scan_directory(&directory);
            }
        }
    }

    fn scan_everything(&mut self) {
        for directory in self.scanner.unknown_roots() {
            self.scan_tree(directory);
        }
        for known in self.scanner.due_directories(|path| self.watch.is_watched(path)) {
            self.scan_directory(&known);
        }
    }

    /// Looks at a directory that is known already.
    fn scan_directory(&mut self, path: &Path) {
        if let Some(directory) = self.scanner.known(path) {
            self.scan_tree(directory);
        }
    }

    /// Looks at a directory, and below it at those that are new or may be other ones than before.
    fn scan_tree(&mut self, directory: Directory) {
        let mut pending = vec![directory];
        while let Some(directory) = pending.pop() {
            self.heartbeat.beat();
            // The watch comes first: what is made after it raises an event, and the scan sees what
            // was made before.
            let is_replaced = self.watch.renew(&directory.path);
            let found = self.scanner.scan(&directory, is_replaced);
            if found.is_gone {
                self.watch.remove(&directory.path);
            }
            for group in found.groups {
                self.report(group);
            }
            pending.extend(found.directories);
        }
        self.ask_for_deleted();
    }

    /// Of a root that is out of sight, only open files say whether they are deleted: workers ask them when
    /// it goes, and at each scan until it is back.
    fn ask_for_deleted(&mut self) {
        let since = self.scanner.hidden_since();
        if since > self.hidden_since {
            for worker in &self.workers {
                let _ended = worker.messages.send(WorkerMessage::AskForDeleted);
            }
        }
        self.hidden_since = since;
    }

    /// Forgets whose the groups were that are gone from their directories and from their workers.
    fn release_vanished(&mut self) {
        let Self { vanished, assigned, .. } = self;
        vanished.retain(|key| {
            // One is here, and one is the map's.
            let is_known = Arc::strong_count(key) > 2;
            if !is_known {
                assigned.remove(key);
            }
            is_known
        });
    }

    fn report(&mut self, found: FoundGroup) {
        let FoundGroup { key, mut files, is_complete, is_replaced, missed } = found;
        let receiver = Arc::clone(&self.receiver_names[key.receiver]);
        let resume = self.unseen.take(receiver, &key);
        let start_at = self.scanner.start_at(key.receiver);
        let (key, worker) = self.worker_of(key);
        if !files.is_empty() {
            if self.vanished.remove(&key) {
                self.workers[worker].adopted();
            }
        } else if is_complete && self.vanished.insert(Arc::clone(&key)) {
            self.workers[worker].released();
        }
        for file in &mut files {
            let unread = unread_bytes(file, &resume, start_at);
            file.charge = Charge::new(&self.workers[worker].state, unread);
        }
        // A worker that has ended takes no more files; the pipeline reports why it ended.
        let snapshot = Snapshot { key, files, is_complete, is_replaced, missed, resume, start_at };
        let _ended = self.workers[worker].messages.send(WorkerMessage::Snapshot(snapshot));
    }

    /// The group's worker, and its key as that one has it; a new group goes to the one with the fewest
    /// unread bytes.
    fn worker_of(&mut self, key: Arc<GroupKey>) -> (Arc<GroupKey>, usize) {
        if let Some((key, worker)) = self.assigned.get_key_value(&key) {
            return (Arc::clone(key), *worker);
        }
        let loads = self.workers.iter().map(WorkerHandle::load).enumerate();
        let worker = loads.min_by_key(|(_, load)| *load).map_or(0, |(worker, _)| worker);
        self.workers[worker].adopted();
        self.assigned.insert(Arc::clone(&key), worker);
        (key, worker)
    }

    /// Counts what workers miss, unless it was moved.
    fn count_gone(&mut self) {
        let mut gone = Vec::new();
        for worker in &self.workers {
            gone.append(&mut worker.state.take_gone());
        }
        self.scanner.leave_out_moved(&mut gone);
        gone.iter().for_each(|gone| gone.count(&self.metrics));
    }

    /// Withdraws the checkpoints of files that no longer exist. What they had not acknowledged was
    /// deleted while no agent ran; nobody can read it any more.
    fn withdraw_vanished(&mut self, now: Instant) {
        let (tree, roots) = self.scanner.tree_and_roots();
        let searched = self.unseen.search(tree, &roots, now);
        if let Some((_, first)) = searched.gone.first() {
            // What a receiver that is left out has not read, it does not miss.
            let names = &self.receiver_names;
            let receiver_of =
                |one: &FileCheckpoint| names.iter().position(|name| *name == one.receiver);
            let gone = searched.gone.iter().filter(|(_, one)| one.lost_bytes() > 0);
            let gone = gone.filter_map(|(_, one)| Some(Gone::of(receiver_of(one)?, one)));
            let mut lost = gone.collect();
            self.scanner.leave_out_moved(&mut lost);
            let unread = lost.len() as u64;
            let bytes = lost.iter().map(|one| one.lost_bytes).sum();
            self.metrics.lost_files.add(unread);
            self.metrics.lost(LossReason::NoAgent).add(bytes);
            let (files, first) = (searched.gone.len(), &first.directory);
            if unread > 0 {
                tracing::warn!(
                    files,
                    not_read_to_their_end = unread,
                    bytes,
                    ?first,
                    "log files were deleted with their directories while no agent ran"
                );
            } else {
                // They may have been deleted before the agent was killed, and be in the spool.
                tracing::info!(
                    files,
                    ?first,
                    "log files are gone with their directories; nothing of them was left to read"
                );
            }
        }
        if let Some((_, first)) = searched.excess.first() {
            self.metrics.checkpoints_forgotten.add(searched.excess.len() as u64);
            tracing::warn!(
                files = searched.excess.len(), first = ?first.directory,
                "positions of files that cannot be found are forgotten, since there are too many: \
                 should the files come back, they are read again"
            );
        }
        self.withdraw(searched.gone);
        self.withdraw(searched.excess);
    }

    fn withdraw(&self, checkpoints: Checkpoints) {
        if let Some(publisher) = &self.checkpoints
            && !checkpoints.is_empty()
        {
            publisher.publish(checkpoints.into_iter().map(|(key, _)| (key, None)));
        }
    }
}

/// Bytes of a found file that nobody has read, as far as its checkpoint shows; of an archive, at most
/// what it takes on disk.
fn unread_bytes(file: &FoundFile, resume: &Checkpoints, start_at: StartAt) -> u64 {
    let Some(opened) = &file.opened else { return 0 };
    let name = LogName::parse(&file.name);
    let is_archive = name.is_some_and(|name| name.compressed);
    let is_it = |one: &FileCheckpoint| match name {
        Some(name) if is_archive => *one.name == *name.plain,
        _ => one.inode == file.inode.inode,
    };
    match resume.iter().map(|(_, one)| one).find(|one| is_it(one)) {
        Some(one) if one.finished => 0,
        Some(one) if !is_archive => opened.bytes.saturating_sub(one.offset),
        None if start_at == StartAt::End => {
            opened.bytes.saturating_sub(file.old_bytes.unwrap_or(0))
        }
        _ => opened.bytes,
    }
}

#[cfg(test)]
mod tests;
