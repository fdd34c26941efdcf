//! Looks into directories: which of their entries are log files, which directories lead to more,
//! and what has changed since the last look.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    ffi::{OsStr, OsString},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    FoundFile, GroupKey, Source,
    known::{KnownFile, KnownGroup, gone},
    links::Links,
    pattern::{Level, LogName},
    renamed::{Entries, LookedAt, Memory, Renames},
};
use crate::{
    complaints::Complaints,
    config::StartAt,
    limits::WATCHED_SCANS,
    metrics::Metrics,
    tail::{
        descriptors::{Descriptors, is_shortage},
        identity::Inode,
    },
    worker::Charge,
    world::{
        DirectoryIdentity, DirectoryState, Entry, EntryKind, HashMap, LogTree, Opened, SharedClock,
    },
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
    places: Places,
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
    /// Files that are gone and could never be opened, and how many bytes they had.
    pub(super) missed: Vec<(Inode, u64)>,
}

/// What the last look at a directory saw. There may be tens of thousands: it is kept small.
#[derive(Debug, Default)]
pub(super) struct Known {
    places: Places,
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
    groups: HashMap<Arc<GroupKey>, KnownGroup>,
    /// Whether it stands in the line of those with files that wait for a descriptor.
    is_waiting: bool,
    /// How many of its files did so at the last look.
    pub(super) waiting_files: usize,
    refused: HashSet<OsString>,
}

/// The memory of discovery.
pub(super) struct Scanner {
    sources: Vec<Source>,
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
    /// When the agent started for the first time, while that is now.
    first_start: Option<u64>,
    is_first_scan: bool,
    complaints: Complaints<PathBuf>,
    metrics: Arc<Metrics>,
    /// What the state knows of files that were not found yet.
    pub(super) memory: Memory,
    /// Canonical names of the receivers.
    receiver_names: Vec<Arc<str>>,
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
        first_start: Option<u64>,
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
            first_start,
            is_first_scan: true,
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

    /// How many directories have files that wait for a descriptor.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
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
    fn is_old(&self, opened: &Opened) -> bool {
        // A birth carries the time of the kernel's last tick.
        const TICK_NANOS: u64 = 10_000_000;
        let Some(started) = self.first_start else { return false };
        let born = opened.file.born_unix_nanos();
        born.map_or(self.is_first_scan, |born| born + TICK_NANOS < started)
    }

    /// Counts a failure, and says it unless it lasts.
    fn complain(&mut self, path: &Path, what: &'static str, error: &io::Error) {
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
            known.changed_at.is_none() || known.scan == self.scans || !is_watched(path)
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
    pub(super) fn scan(&mut self, directory: &Directory, is_replaced: bool) -> Found {
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
        if had_all_places && is_unchanged && !known.is_replaced {
            self.known.insert(Arc::clone(&directory.path), known);
            return Found::default();
        }
        let entries = match self.tree.entries(&directory.path) {
            Ok(entries) => entries,
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
        if is_replaced {
            known.refused.clear();
        }
        self.links.forget(&directory.path);
        let wall = UNIX_EPOCH + Duration::from_nanos(self.clock.unix_nanos());
        let mut look = Look {
            directory: &directory.path,
            state,
            is_replaced,
            scanner: self,
            known: &mut known,
            groups: HashMap::default(),
            renames: Renames::default(),
            directories: BTreeMap::new(),
            must_look_again: false,
        };
        for entry in entries {
            look.at_entry(&entry);
        }
        let mut found = look.finish();
        let must_look_again = look.must_look_again;
        // A change within the clock's granularity of this look might not show in the time.
        let is_settled =
            |at: &SystemTime| wall.duration_since(*at).is_ok_and(|age| age > SETTLED_AFTER);
        let settled = changed_at.filter(is_settled);
        known.changed_at = if must_look_again { None } else { settled };
        if self.hidden.remove(&directory.path).is_some() || is_replaced {
            found.directories.extend(self.beneath(&directory.path));
        }
        self.known.insert(Arc::clone(&directory.path), known);
        found
    }

    /// The same places, kept once.
    fn shared(&mut self, places: BTreeSet<Place>) -> Places {
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
            let groups: Vec<_> =
                known.groups.into_iter().map(|(key, group)| gone(key, group, true, &[])).collect();
            for group in &groups {
                self.metrics.unopened_files.add_gauge(-(group.missed.len() as i64));
            }
            let directories = self.beneath(&directory.path);
            return Found { groups, directories, is_gone: true };
        }
        self.complain(&directory.path, "cannot read a log directory", error);
        known.changed_at = None;
        self.known.insert(Arc::clone(&directory.path), known);
        Found::default()
    }

    /// Opens a file of `directory`, beneath the root that leads there.
    fn open(&mut self, directory: &Path, name: &OsStr, place: Place) -> io::Result<Option<Opened>> {
        let root = &self.sources[place.0].patterns[place.1].root;
        let relative = directory.strip_prefix(root).unwrap_or(Path::new("")).join(name);
        self.descriptors.open_new(&mut *self.tree, root, &relative)
    }
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

/// One look into one directory.
pub(super) struct Look<'a> {
    pub(super) directory: &'a Arc<Path>,
    pub(super) state: DirectoryState,
    /// Whether another directory was known here.
    pub(super) is_replaced: bool,
    pub(super) scanner: &'a mut Scanner,
    known: &'a mut Known,
    groups: Entries,
    pub(super) renames: Renames,
    directories: BTreeMap<Arc<Path>, BTreeSet<Place>>,
    pub(super) must_look_again: bool,
}

impl Look<'_> {
    fn at_entry(&mut self, entry: &Entry) {
        let (kind, name) = (entry.kind, &entry.name);
        let places: Vec<Place> = self.known.places.iter().copied().collect();
        if kind == EntryKind::Directory {
            // One that leads to files was not meant to be one.
            if places.iter().filter(|place| self.at_directory(entry, **place)).count() > 0 {
                return;
            }
        }
        for place in places {
            let Some(key) = self.group_of(name, place) else { continue };
            let number = match kind {
                EntryKind::File => Some(entry.inode),
                EntryKind::Link => self.number_behind(name),
                EntryKind::Directory | EntryKind::Other => {
                    self.refuse(name);
                    None
                }
            };
            let Some(number) = number else { continue };
            let files = self.groups.entry(Arc::new(key)).or_default();
            if files.iter().all(|(other, ..)| *other != *name) {
                files.push((name.clone(), number, place));
            }
        }
    }

    /// Counts what is no log file, once.
    fn refuse(&mut self, name: &OsStr) {
        if self.known.refused.insert(name.to_owned()) {
            self.scanner.metrics.refused_files.increment();
            tracing::warn!(
                path = ?self.directory.join(name),
                "neither a regular file nor a link that may be followed: it is not read"
            );
        }
    }

    /// Notes a directory that leads to files; `false` when it doesn't.
    fn at_directory(&mut self, entry: &Entry, (receiver, pattern, level): Place) -> bool {
        let name = &entry.name;
        let levels = &self.scanner.sources[receiver].patterns[pattern].levels;
        let below = match &levels[level] {
            Level::AnyDepth => level,
            Level::Name(glob) if level + 1 < levels.len() && glob.is_match(name) => level + 1,
            Level::Name(_) => return false,
        };
        let mut places = BTreeSet::from([(receiver, pattern, below)]);
        if let Level::AnyDepth = levels[below] {
            // `**` may also stand for no directory at all.
            places.insert((receiver, pattern, below + 1));
        }
        let path = self.directory.join(name);
        // One that was replaced by a directory with the same number shows it by its watch.
        let is_known = self.scanner.known.get(&*path).is_some_and(|known| {
            let is_same = known.identity.is_some_and(|one| one.inode.inode == entry.inode);
            is_same && known.places.is_superset(&places)
        });
        if !is_known {
            self.directories.entry(path.into()).or_default().extend(places);
        }
        true
    }

    /// The group that a name belongs to, if the pattern ends here and includes its live name.
    fn group_of(&self, name: &OsStr, (receiver, pattern, level): Place) -> Option<GroupKey> {
        let source = &self.scanner.sources[receiver];
        let levels = &source.patterns[pattern].levels;
        let level = match &levels[level] {
            Level::AnyDepth => level + 1,
            Level::Name(_) => level,
        };
        let (Level::Name(glob), true) = (&levels[level], level + 1 == levels.len()) else {
            return None;
        };
        let parsed = LogName::parse(name)?;
        let path = self.directory.join(name);
        let included = glob.is_match(parsed.live)
            && !source.excludes(&path)
            && !source.excludes(&self.directory.join(parsed.live));
        let (directory, live) = (Arc::clone(self.directory), parsed.live.into());
        included.then_some(GroupKey { receiver, directory, live })
    }

    /// Compares with the last look, and opens what is new.
    fn finish(&mut self) -> Found {
        let mut found = Found::default();
        let directories = std::mem::take(&mut self.directories);
        let shared = |(path, places)| Directory { path, places: self.scanner.shared(places) };
        found.directories = directories.into_iter().map(shared).collect();
        let mut before = std::mem::take(&mut self.known.groups);
        let entries = std::mem::take(&mut self.groups);
        let nothing = HashMap::default();
        let is_replaced = self.is_replaced;
        let seen = if self.is_replaced { &nothing } else { &before };
        for (key, entries) in self.follow_renames(entries, seen) {
            let (key, known) = before.remove_entry(&key).unwrap_or((key, KnownGroup::default()));
            let was_known = !known.files.is_empty();
            let was_complete = known.is_complete;
            let former = known;
            let known = if self.is_replaced { &KnownGroup::default() } else { &former };
            let mut changed = known.files.len() != entries.len();
            let mut now = KnownGroup { files: Vec::new(), is_complete: true };
            let mut files = Vec::with_capacity(entries.len());
            for (name, number, place) in entries {
                let (shown, is_open) = match self.resolve(&key, known, &name, number, place) {
                    Resolved::Known(file) | Resolved::Opened(file) => (file, true),
                    Resolved::Shown(file) => (file, false),
                    Resolved::Refused => continue,
                    Resolved::Missing => {
                        now.is_complete = false;
                        continue;
                    }
                };
                now.is_complete &= is_open;
                let waited = known.waited(&name, shown.inode);
                let bytes = if is_open { 0 } else { self.bytes_of(&name, waited) };
                let born = match &shown.opened {
                    Some(opened) => opened.file.born_unix_nanos(),
                    None => known.born_of(shown.inode),
                };
                let file = KnownFile { name, inode: shown.inode, born, is_open, bytes };
                changed |= known
                    .find(&file.name)
                    .is_none_or(|seen| (seen.inode, seen.is_open) != (file.inode, file.is_open));
                now.files.push(file);
                files.push(shown);
            }
            files.extend(self.shown_as_before(&key, &mut now));
            changed |= now.is_complete && !was_complete;
            let is_complete = now.is_complete;
            let missed = former.missed(&key.live, &now.files, &self.renames.doubtful);
            changed |= !missed.is_empty();
            self.scanner.metrics.unopened_files.add_gauge(now.unopened() - former.unopened());
            if !now.files.is_empty() {
                self.known.groups.insert(Arc::clone(&key), now);
            }
            if changed && (!files.is_empty() || was_known) {
                found.groups.push(FoundGroup { key, files, is_complete, is_replaced, missed });
            }
        }
        for (key, known) in before {
            self.scanner.metrics.unopened_files.add_gauge(-known.unopened());
            found.groups.push(gone(key, known, is_replaced, &self.renames.doubtful));
        }
        if !self.must_look_again {
            let Scanner { memory, receiver_names, .. } = &mut *self.scanner;
            memory.forget(receiver_names, self.directory);
        }
        found
    }

    /// A file that is known under this name, or was live and has been rotated, stays as it is; any
    /// other is opened, since an inode's number may have been used again.
    fn resolve(
        &mut self,
        key: &GroupKey,
        known: &KnownGroup,
        name: &OsStr,
        number: u64,
        place: Place,
    ) -> Resolved {
        let beside = Inode { device: self.state.identity.inode.device, inode: number };
        let linked = self.scanner.links.get(self.directory, name).flatten();
        let inode = linked.unwrap_or(beside);
        let same = |seen: &&KnownFile| seen.inode == inode && seen.is_open;
        let is_rotated = *name != *key.live && !name.as_encoded_bytes().ends_with(b".gz");
        let as_live = || known.find(&key.live).filter(|_| is_rotated);
        let charge = Charge::default();
        let shown = FoundFile {
            name: name.to_owned(),
            inode,
            opened: None,
            is_renamed: false,
            is_old: false,
            charge,
        };
        if let Some(LookedAt { opened, is_renamed }) = self.take_looked_at(key, name) {
            return self.opened(FoundFile { is_renamed, ..shown }, opened);
        }
        if known.find(name).filter(same).or_else(|| as_live().filter(same)).is_some() {
            return Resolved::Known(shown);
        }
        self.open(shown, place)
    }

    fn bytes_of(&mut self, name: &OsStr, waited: Option<u64>) -> u64 {
        if let Some(bytes) = waited.filter(|_| self.known.waiting_files > 0) {
            return bytes;
        }
        // It may be gone by now: then nobody knows.
        self.scanner.tree.bytes(&self.directory.join(name)).unwrap_or(0)
    }

    fn opened(&self, shown: FoundFile, opened: Opened) -> Resolved {
        let (inode, is_old) = (opened.inode, self.scanner.is_old(&opened));
        Resolved::Opened(FoundFile { inode, opened: Some(opened), is_old, ..shown })
    }

    fn take_looked_at(&mut self, key: &GroupKey, name: &OsStr) -> Option<LookedAt> {
        if self.renames.looked_at.is_empty() {
            return None;
        }
        self.renames.looked_at.remove(&(Arc::new(key.clone()), name.to_owned()))
    }

    /// Opens a file to find out which one it is. A failure shows again when it is to be read.
    pub(super) fn open_at(&mut self, name: &OsStr, place: Place) -> Option<Opened> {
        self.scanner.open(self.directory, name, place).ok().flatten()
    }

    fn open(&mut self, shown: FoundFile, place: Place) -> Resolved {
        let opened = self.scanner.open(self.directory, &shown.name, place);
        crate::failpoint::hit("file_opened");
        let path = self.directory.join(&shown.name);
        match opened {
            Ok(Some(opened)) => {
                self.scanner.complaints.is_well(&path);
                self.opened(shown, opened)
            }
            Ok(None) => {
                self.refuse(&shown.name);
                Resolved::Refused
            }
            // It was deleted, moved or compressed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.must_look_again = true;
                Resolved::Missing
            }
            Err(error) if is_shortage(&error) => {
                self.known.waiting_files += 1;
                if !std::mem::replace(&mut self.known.is_waiting, true) {
                    self.scanner.waiting.push_back(Arc::clone(self.directory));
                }
                Resolved::Shown(shown)
            }
            Err(error) => {
                self.must_look_again = true;
                self.scanner.complain(&path, "cannot open a log file", &error);
                Resolved::Shown(shown)
            }
        }
    }
}

/// What became of a file that its directory shows.
enum Resolved {
    /// It was known before.
    Known(FoundFile),
    /// It is open.
    Opened(FoundFile),
    /// It can't be opened now.
    Shown(FoundFile),
    /// It is no log file.
    Refused,
    /// It was there, and has another name now, or none.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Pattern;
    use super::*;
    use crate::world::real::{NodeLogs, SystemClock};
    use std::fs::File;

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
