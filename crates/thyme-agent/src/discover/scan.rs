//! Looks into directories: which of their entries are log files, which directories lead to more,
//! and what has changed since the last look.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsStr,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    FoundFile, GroupKey, Missed, Source,
    known::{KnownGroup, gone, is_archive},
    links::Links,
    look::Look,
    refused::Refused,
    renamed::Memory,
};
use crate::{
    checkpoint::FirstStart,
    complaints::Complaints,
    config::StartAt,
    limits::{ROOT_LOOK_INTERVAL, UNWATCHED_CHECK_INTERVAL, WATCHED_SCANS},
    metrics::Metrics,
    tail::descriptors::Descriptors,
    world::{DirectoryIdentity, HashMap, LogTree, Opened, SharedClock},
};

/// A directory whose time of change lies further back than this has shown all its changes.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Where in which pattern a directory stands: receiver, pattern, level of its entries.
pub(super) type Place = (usize, usize, usize);

/// Where a directory stands; the many that stand in the same places share it.
type Places = Arc<BTreeSet<Place>>;

/// A directory to look into.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) path: Arc<Path>,
    pub(super) places: Places,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Groups whose files have changed.
    pub(super) groups: Vec<FoundGroup>,
    /// Directories that were never looked into, or that may have been replaced since.
    pub(super) directories: Vec<Directory>,
    /// The directory itself doesn't exist any more.
    pub(super) is_gone: bool,
    /// A name had come to lead to another file than was listed: it was not opened, and the look is to be repeated.
    pub(super) is_outdated: bool,
}

/// A group as its directory shows it.
#[derive(Debug)]
pub(super) struct FoundGroup {
    pub(super) key: Arc<GroupKey>,
    pub(super) files: Vec<FoundFile>,
    /// Whether each of them is open or known.
    pub(super) is_complete: bool,
    /// Whether the directory is gone in which it was known, or another one stands there now.
    pub(super) is_replaced: bool,
    /// Files that are gone and could never be opened.
    pub(super) missed: Vec<Missed>,
}

/// What the last look at a directory saw. There may be tens of thousands: it is kept small.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) places: Places,
    /// Which directory it was; `None` before the first look.
    pub(super) identity: Option<DirectoryIdentity>,
    /// Which directory stood here at the last look, whether it could be read or not.
    pub(super) tried: Option<DirectoryIdentity>,
    /// Whether a watch said that another directory stands here now, and that was not read yet.
    is_replaced: bool,
    /// In which of [`WATCHED_SCANS`] scans it is looked at in spite of its watch.
    scan: u32,
    /// Time of change at the last look; `None` when it must be looked at again in any case.
    pub(super) changed_at: Option<SystemTime>,
    pub(super) groups: HashMap<Arc<GroupKey>, KnownGroup>,
    /// Whether something of it could not be read or opened at the last look.
    is_partly_seen: bool,
    /// Whether it stands in the line of those with files that wait for a descriptor.
    pub(super) is_waiting: bool,
    /// How many of its files did so at the last look.
    pub(super) waiting_files: usize,
    pub(super) refused: Refused,
}

/// The memory of discovery.
pub(super) struct Scanner {
    pub(super) sources: Vec<Source>,
    /// By path, so that what lies beneath a directory follows it.
    pub(super) known: BTreeMap<Arc<Path>, Known>,
    /// The directories that patterns are rooted in.
    pub(super) roots: Vec<Directory>,
    /// Those of them that are out of sight, and since when.
    pub(super) hidden: HashMap<Arc<Path>, Instant>,
    pub(super) tree: Box<dyn LogTree>,
    pub(super) links: Links,
    pub(super) clock: SharedClock,
    descriptors: Arc<Descriptors>,
    /// Directories with files that wait for a descriptor, the next one first.
    pub(super) waiting: VecDeque<Arc<Path>>,
    /// Which of them was looked at last while there was none.
    last_waiting: usize,
    /// When the agent started for the first time, as long as that matters.
    first_start: Option<FirstStart>,
    is_first_scan: bool,
    pub(super) complaints: Complaints<PathBuf>,
    pub(super) metrics: Arc<Metrics>,
    /// What the state knows of files that were not found yet.
    pub(super) memory: Memory,
    /// Canonical names of the receivers.
    pub(super) receiver_names: Vec<Arc<str>>,
    /// All sets of places that directories stand in: about as many as patterns have levels.
    places: Vec<Places>,
    /// Number of the last scan, below [`WATCHED_SCANS`].
    scans: u32,
    /// Spreads directories over scans.
    looks: u32,
}

impl Scanner {
    pub(super) fn new(
        sources: Vec<Source>,
        tree: Box<dyn LogTree>,
        clock: SharedClock,
        descriptors: Arc<Descriptors>,
        first_start: Option<FirstStart>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            roots: roots(&sources),
            sources,
            known: BTreeMap::new(),
            hidden: HashMap::default(),
            tree,
            links: Links::default(),
            clock,
            descriptors,
            waiting: VecDeque::new(),
            last_waiting: 0,
            first_start,
            is_first_scan: first_start.is_some_and(|first| first.is_this),
            complaints: Complaints::default(),
            metrics,
            memory: Memory::default(),
            receiver_names: Vec::new(),
            places: Vec::new(),
            scans: 0,
            looks: 0,
        }
    }

    /// Takes over what the state knows.
    pub(super) fn remember(&mut self, receiver_names: Vec<Arc<str>>, memory: Memory) {
        (self.receiver_names, self.memory) = (receiver_names, memory);
    }

    pub(super) fn receiver_name(&self, receiver: usize) -> Option<&Arc<str>> {
        self.receiver_names.get(receiver)
    }

    pub(super) fn start_at(&self, receiver: usize) -> StartAt {
        self.sources[receiver].start_at
    }

    /// Every directory was looked at, as far as that was due.
    pub(super) fn end_scan(&mut self, now: Instant) {
        self.is_first_scan = false;
        if let Some(failures) = self.complaints.take_unsaid(now) {
            tracing::warn!(failures, "log files or directories still cannot be opened");
        }
    }

    /// The log files, and the directories that patterns are rooted in.
    pub(super) fn tree_and_roots(&mut self) -> (&mut dyn LogTree, Vec<&Path>) {
        (&mut *self.tree, self.roots.iter().map(|root| &*root.path).collect())
    }

    /// Whether nothing is left that could not be read or opened at its last look. A root that does not exist
    /// has nothing.
    pub(super) fn has_seen_all(&self) -> bool {
        self.known.values().all(|known| !known.is_partly_seen)
    }

    /// How many directories have files that wait for a descriptor.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Asks files that wait for a descriptor how long they are by now, each within
    /// [`UNWATCHED_CHECK_INTERVAL`]: they may be gone before they can be opened.
    pub(super) fn look_at_waiting(&mut self) {
        let looks = UNWATCHED_CHECK_INTERVAL.as_millis() / ROOT_LOOK_INTERVAL.as_millis();
        for _ in 0..self.waiting.len().div_ceil(looks as usize) {
            self.last_waiting = (self.last_waiting + 1) % self.waiting.len();
            let path = &self.waiting[self.last_waiting];
            let Some(known) = self.known.get_mut(path) else { continue };
            let files = known.groups.values_mut().flat_map(|group| &mut group.files);
            for file in files.filter(|file| !file.is_open && !is_archive(&file.name)) {
                let Ok(looked) = self.tree.look_at(&path.join(&file.name)) else { continue };
                if file.has_number(looked.inode, looked.born_unix_nanos) {
                    file.bytes = looked.bytes;
                }
            }
        }
    }

    /// The directory whose files have waited longest; its next look reads it.
    pub(super) fn next_waiting(&mut self) -> Option<Directory> {
        let path = self.waiting.pop_front()?;
        let known = self.known.get_mut(&path)?;
        known.is_waiting = false;
        known.changed_at = None;
        self.known(&path)
    }

    /// Whether a file was there before the agent's first start, however late it could be opened.
    pub(super) fn is_old(&self, opened: &Opened) -> bool {
        // A birth carries the time of the kernel's last tick: one that lies less than a tick before the start
        // may be of a file that was made after it. That is read, as nobody could tell what was missed.
        const TICK_NANOS: u64 = 10_000_000;
        let Some(started) = self.first_start else { return false };
        let born = opened.file.born_unix_nanos();
        born.map_or(self.is_first_scan, |born| born + TICK_NANOS < started.unix_nanos)
    }

    /// Counts a failure, and says it unless it lasts.
    pub(super) fn complain(&mut self, path: &Path, what: &'static str, error: &io::Error) {
        self.metrics.file_errors.increment();
        if self.complaints.is_news(path.to_owned(), self.clock.now()) {
            tracing::warn!(?path, %error, "{what}");
        }
    }

    /// The directories that patterns are rooted in, as far as they have not been looked into.
    pub(super) fn unknown_roots(&self) -> Vec<Directory> {
        let is_unknown = |root: &&Directory| {
            self.known.get(&root.path).is_none_or(|known| !known.places.is_superset(&root.places))
        };
        self.roots.iter().filter(is_unknown).cloned().collect()
    }

    /// The roots whose path has come to lead to another directory since the last look, to one, or to
    /// none: one was made, moved or removed, on the way a link was switched, or something was mounted.
    /// Of most of that no watch tells.
    pub(super) fn changed_roots(&mut self) -> Vec<Directory> {
        let mut changed = Vec::new();
        for root in &self.roots {
            let before = self.known.get(&root.path).and_then(|known| known.tried);
            let has_changed = match self.tree.directory(&root.path) {
                Ok(state) => before != Some(state.identity),
                Err(error) => before.is_some() && is_absent(&error),
            };
            if has_changed {
                changed.push(root.clone());
            }
        }
        changed
    }

    /// The directories that the next scan has to look at: all that have no watch, or may have changed
    /// since the last look, and each time some of the others.
    pub(super) fn due_directories(&mut self, is_watched: impl Fn(&Path) -> bool) -> Vec<Arc<Path>> {
        self.scans = (self.scans + 1) % WATCHED_SCANS;
        let is_due = |(path, known): &(&Arc<Path>, &Known)| {
            known.changed_at.is_none()
                || known.scan == self.scans
                || known.refused.may_grow()
                || !is_watched(path)
        };
        let due = self.known.iter().filter(is_due);
        due.map(|(path, _)| Arc::clone(path)).collect()
    }

    pub(super) fn known(&self, path: &Path) -> Option<Directory> {
        let (path, known) = self.known.get_key_value(path)?;
        Some(Directory { path: Arc::clone(path), places: Arc::clone(&known.places) })
    }

    /// What is known beneath a directory.
    fn beneath(&self, path: &Path) -> Vec<Directory> {
        let behind = (Bound::Excluded(path), Bound::Unbounded);
        let known = self.known.range::<Path, _>(behind);
        known
            .take_while(|(other, _)| other.starts_with(path))
            .map(|(other, known)| Directory {
                path: Arc::clone(other),
                places: Arc::clone(&known.places),
            })
            .collect()
    }

    /// The next look at a directory reads it, whatever its time of change says.
    pub(super) fn doubt(&mut self, path: &Path) {
        if let Some(known) = self.known.get_mut(path) {
            known.changed_at = None;
        }
    }

    /// Makes the next look at each directory a thorough one.
    pub(super) fn distrust(&mut self) {
        for known in self.known.values_mut() {
            known.changed_at = None;
        }
    }

    /// Looks into a directory. `is_replaced` says what its watch knows: another directory stands where
    /// one was looked into before.
    ///
    /// What stands under a name is another directory when its number or its birth differ. Then nothing
    /// that was known holds any more: each file is opened, since it may have any number, and what was
    /// known beneath is looked at again.
    ///
    /// What is rotated while it looks it looks at once more, at once, so that the older file is not read behind
    /// the newer one. If names change that soon again, what they lead to is taken as it is.
    pub(super) fn scan(&mut self, directory: &Directory, is_replaced: bool) -> Found {
        let mut found = self.look(directory, is_replaced, true);
        if found.is_outdated {
            let again = self.look(directory, false, false);
            found.groups.extend(again.groups);
            found.directories.extend(again.directories);
            found.is_gone = again.is_gone;
        }
        found
    }

    fn look(&mut self, directory: &Directory, is_replaced: bool, may_be_repeated: bool) -> Found {
        let mut known = self.known.remove(&directory.path).unwrap_or_default();
        let had_all_places = known.places.is_superset(&directory.places);
        if !had_all_places {
            known.places = self.shared(&*known.places | &*directory.places);
        }
        if known.changed_at.is_none() {
            self.looks = self.looks.wrapping_add(1);
            known.scan = self.looks % WATCHED_SCANS;
        }
        known.is_replaced |= is_replaced;
        let state = match self.tree.directory(&directory.path) {
            Ok(state) => state,
            Err(error) => return self.unreadable(directory, known, &error),
        };
        known.tried = Some(state.identity);
        known.is_replaced |= known.identity.is_some_and(|before| before != state.identity);
        let changed_at = state.changed_at;
        let is_unchanged = changed_at.is_some() && known.changed_at == changed_at;
        if had_all_places
            && is_unchanged
            && !known.is_replaced
            && !known.refused.has_grown(&mut *self.tree, &directory.path)
        {
            self.known.insert(Arc::clone(&directory.path), known);
            return Found::default();
        }
        let entries = self.tree.entries(&directory.path);
        let listed =
            entries.and_then(|entries| Ok((entries, self.tree.directory(&directory.path)?)));
        let entries = match listed {
            Ok((entries, after)) if after.identity == state.identity => entries,
            Ok(_) => {
                // It was replaced meanwhile, and what was listed may be of either.
                self.known.insert(Arc::clone(&directory.path), known);
                return self.look(directory, true, may_be_repeated);
            }
            Err(error) => return self.unreadable(directory, known, &error),
        };
        if entries.is_empty() && known.is_replaced {
            let Some(shown) = self.unless_out_of_sight(directory, known) else {
                return Found::default();
            };
            known = shown;
        }
        let is_replaced = std::mem::take(&mut known.is_replaced);
        known.waiting_files = 0;
        known.identity = Some(state.identity);
        self.links.forget(&directory.path);
        let wall = self.wall();
        let mut look =
            Look::new(&directory.path, state, is_replaced, may_be_repeated, self, &mut known);
        let (mut found, must_look_again) = look.at(&entries);
        let settled = changed_at.filter(|at| is_settled(*at, wall));
        known.is_partly_seen = must_look_again || known.waiting_files > 0;
        known.changed_at = if must_look_again { None } else { settled };
        if self.hidden.remove(&directory.path).is_some() || is_replaced {
            found.directories.extend(self.beneath(&directory.path));
        }
        self.known.insert(Arc::clone(&directory.path), known);
        found
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.clock.unix_nanos())
    }

    /// Whether a directory that was changed then would show a change that was made now.
    pub(super) fn is_settled(&self, changed_at: SystemTime) -> bool {
        is_settled(changed_at, self.wall())
    }

    /// The same places, kept once.
    pub(super) fn shared(&mut self, places: BTreeSet<Place>) -> Places {
        if let Some(kept) = self.places.iter().find(|kept| ***kept == places) {
            return Arc::clone(kept);
        }
        let kept = Places::new(places);
        self.places.push(Arc::clone(&kept));
        kept
    }

    /// A directory that isn't there any more is gone. Any other failure says nothing about it: what
    /// is known of it stays, and it is looked at again.
    fn unreadable(&mut self, directory: &Directory, mut known: Known, error: &io::Error) -> Found {
        if is_absent(error) {
            known.tried = None;
            let Some(known) = self.unless_out_of_sight(directory, known) else {
                return Found::default();
            };
            self.links.forget(&directory.path);
            let groups: Vec<_> = known
                .groups
                .into_iter()
                .map(|(key, group)| gone(key, group, true, |_| false))
                .collect();
            for group in &groups {
                self.metrics.unopened_files.add_gauge(-(group.missed.len() as i64));
            }
            let directories = self.beneath(&directory.path);
            return Found { groups, directories, is_gone: true, is_outdated: false };
        }
        self.complain(&directory.path, "cannot read a log directory", error);
        (known.changed_at, known.is_partly_seen) = (None, true);
        self.known.insert(Arc::clone(&directory.path), known);
        Found::default()
    }

    /// Opens a file of `directory`, beneath the root that leads there.
    pub(super) fn open(
        &mut self,
        directory: &Path,
        name: &OsStr,
        place: Place,
    ) -> io::Result<Option<Opened>> {
        let root = &self.sources[place.0].patterns[place.1].root;
        let relative = directory.strip_prefix(root).unwrap_or(Path::new("")).join(name);
        self.descriptors.open_new(&mut *self.tree, root, &relative)
    }
}

/// A change within the clock's granularity of a look might not show in the time.
fn is_settled(changed_at: SystemTime, wall: SystemTime) -> bool {
    wall.duration_since(changed_at).is_ok_and(|age| age > SETTLED_AFTER)
}

/// The directories that patterns are rooted in, each once.
fn roots(sources: &[Source]) -> Vec<Directory> {
    let mut roots: BTreeMap<&Path, BTreeSet<Place>> = BTreeMap::new();
    for (receiver, source) in sources.iter().enumerate() {
        for (pattern, one) in source.patterns.iter().enumerate() {
            roots.entry(&one.root).or_default().insert((receiver, pattern, 0));
        }
    }
    let root =
        |(path, places): (&Path, _)| Directory { path: path.into(), places: Arc::new(places) };
    roots.into_iter().map(root).collect()
}

/// Whether an error says that there is no such directory.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Pattern;
    use super::*;
    use crate::{
        tail::identity::Inode,
        world::{
            FileState, LogFile,
            real::{NodeLogs, SystemClock},
        },
    };
    use std::fs::File;

    /// Scenario: row 75. Files were born just before the first start, or in the tick in which it falls.
    /// Guarantees: what may be younger than the start is not old, so that none of its lines is passed over.
    #[test]
    fn a_file_of_the_tick_of_the_first_start_is_not_old() {
        #[derive(Debug)]
        struct Born(Option<u64>);
        impl LogFile for Born {
            fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn state(&self) -> io::Result<FileState> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn born_unix_nanos(&self) -> Option<u64> {
                self.0
            }
        }
        let started = 1_800_000_000_000_000_000;
        let metrics = Arc::new(Metrics::default());
        let mut scanner = Scanner::new(
            Vec::new(),
            Box::new(NodeLogs::default()),
            SystemClock::shared(),
            Descriptors::new(1, &metrics),
            Some(FirstStart::now(started)),
            metrics,
        );
        let is_old = |scanner: &Scanner, born: Option<u64>| {
            let inode = Inode { device: 1, inode: 1 };
            scanner.is_old(&Opened { file: Box::new(Born(born)), inode, bytes: 0, through: None })
        };
        let before = |nanos: u64| Some(started - nanos);
        let ages = [1_000_000_000, 10_000_001, 10_000_000, 4_000_000, 0];
        assert_eq!(
            ages.map(|age| is_old(&scanner, before(age))),
            [true, true, false, false, false]
        );
        assert!(is_old(&scanner, None));
        scanner.end_scan(Instant::now());
        assert!(!is_old(&scanner, None) && is_old(&scanner, before(1_000_000_000)));
    }

    /// Scenario: row 32. Directories that have not changed for long, most of them with a watch, one
    /// without; then events are lost.
    /// Guarantees: each scan looks at the one without a watch; one with a watch is looked at once in
    /// twelve scans; after the loss all are due at once.
    #[test]
    fn watched_directories_are_looked_at_now_and_then() {
        let root = tempfile::tempdir().unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        for name in 0..50 {
            let directory = root.path().join(format!("pod-{name}"));
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("0.log"), "").unwrap();
            File::open(&directory).unwrap().set_modified(long_ago).unwrap();
        }
        File::open(root.path()).unwrap().set_modified(long_ago).unwrap();
        let pattern =
            Pattern::all(root.path().join("*/*.log").to_str().unwrap()).unwrap().remove(0);
        let source =
            Source { patterns: vec![pattern], exclude: Vec::new(), start_at: StartAt::Beginning };
        let metrics = Arc::new(Metrics::default());
        let tree = Box::new(NodeLogs::default());
        let mut scanner = Scanner::new(
            vec![source],
            tree,
            SystemClock::shared(),
            Descriptors::new(1_000, &metrics),
            None,
            metrics,
        );
        let unwatched = root.path().join("pod-7");
        let is_watched = |path: &Path| path != unwatched;
        let mut pending = scanner.unknown_roots();
        while let Some(directory) = pending.pop() {
            pending.extend(scanner.scan(&directory, false).directories);
        }
        let mut times: HashMap<PathBuf, u32> = HashMap::default();
        for _ in 0..WATCHED_SCANS {
            let due = scanner.due_directories(is_watched);
            assert!(due.len() < 25, "{} of 51 directories at once", due.len());
            due.iter().for_each(|path| *times.entry(path.to_path_buf()).or_default() += 1);
        }
        assert_eq!(times.remove(&unwatched), Some(WATCHED_SCANS));
        assert_eq!(times.len(), 50);
        assert!(times.values().all(|times| *times == 1));
        scanner.distrust();
        assert_eq!(scanner.due_directories(is_watched).len(), 51);
    }
}
