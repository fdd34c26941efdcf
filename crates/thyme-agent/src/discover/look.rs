//! One look into one directory: which of its entries are log files and whose, what is new, and what is
//! gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    path::Path,
    sync::Arc,
};

use super::{
    FoundFile, GroupKey,
    compressed::{Content, content_of},
    known::{KnownFile, KnownGroup, gone, is_archive},
    pattern::{Level, LogName},
    refused::{Refusal, Refused, looked},
    renamed::{Entries, Whose},
    scan::{Directory, Found, FoundGroup, Known, Place, Scanner},
};
use crate::{
    tail::{
        descriptors::is_shortage,
        identity::{Inode, may_be_one},
    },
    worker::Charge,
    world::{DirectoryState, Entry, EntryKind, HashMap, Opened},
};

/// One look into one directory.
pub(super) struct Look<'a> {
    pub(super) directory: &'a Arc<Path>,
    pub(super) state: DirectoryState,
    /// Whether another directory was known here.
    is_replaced: bool,
    pub(super) scanner: &'a mut Scanner,
    pub(super) known: &'a mut Known,
    groups: Entries,
    /// What was found out about files whose names are new, besides whose they are.
    pub(super) whose: HashMap<(Arc<GroupKey>, OsString), Whose>,
    /// Groups of which a file has another name by now than was listed.
    pub(super) moved: BTreeSet<Arc<GroupKey>>,
    directories: BTreeMap<Arc<Path>, BTreeSet<Place>>,
    pub(super) must_look_again: bool,
    /// Whether another look follows at once where names have changed since the directory was listed.
    may_be_repeated: bool,
    /// Whether they have.
    is_outdated: bool,
    /// What the look before this one refused.
    pub(super) refused_before: Refused,
}

impl<'a> Look<'a> {
    pub(super) fn new(
        directory: &'a Arc<Path>,
        state: DirectoryState,
        is_replaced: bool,
        may_be_repeated: bool,
        scanner: &'a mut Scanner,
        known: &'a mut Known,
    ) -> Self {
        let refused_before = std::mem::take(&mut known.refused);
        Self {
            directory,
            state,
            is_replaced,
            scanner,
            refused_before: if is_replaced { Refused::default() } else { refused_before },
            known,
            groups: HashMap::default(),
            whose: HashMap::default(),
            moved: BTreeSet::new(),
            directories: BTreeMap::new(),
            must_look_again: false,
            may_be_repeated,
            is_outdated: false,
        }
    }

    /// Looks at all entries; says what was found, and whether that may be different in a moment.
    pub(super) fn at(&mut self, entries: &[Entry]) -> (Found, bool) {
        entries.iter().for_each(|entry| self.at_entry(entry));
        let mut found = self.finish(entries);
        found.is_outdated = self.is_outdated;
        (found, self.must_look_again)
    }

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
                    self.refuse(name, Refusal::NoFile);
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
    fn finish(&mut self, all: &[Entry]) -> Found {
        let mut found = Found::default();
        let directories = std::mem::take(&mut self.directories);
        let shared = |(path, places)| Directory { path, places: self.scanner.shared(places) };
        found.directories = directories.into_iter().map(shared).collect();
        let mut before = std::mem::take(&mut self.known.groups);
        let entries = std::mem::take(&mut self.groups);
        let nothing = HashMap::default();
        let is_replaced = self.is_replaced;
        let seen = if self.is_replaced { &nothing } else { &before };
        for (key, entries) in self.follow_renames(entries, all, seen) {
            let former = before.remove_entry(&key);
            let was_known = former.is_some();
            let (key, former) = former.unwrap_or((key, KnownGroup::default()));
            let was_complete = former.is_complete;
            let known = if self.is_replaced { &KnownGroup::default() } else { &former };
            let mut changed = false;
            let mut now = KnownGroup { is_complete: true, ..KnownGroup::default() };
            let mut files = Vec::with_capacity(entries.len());
            for (name, number, place) in entries {
                let (mut shown, is_open) = match self.resolve(&key, known, &name, number, place) {
                    Resolved::Open(file) => (file, true),
                    Resolved::Shown(file) => (file, false),
                    Resolved::Refused => continue,
                    Resolved::Missing => {
                        now.is_complete = false;
                        // It may be compressed by now: the next look finds that, or that it is gone.
                        now.files.extend(known.find(&name).filter(|seen| !seen.is_open).cloned());
                        continue;
                    }
                };
                if shown.opened.is_some() && self.is_of_another(&key, &shown, number) {
                    // The file that was listed has another name by now, and is not shown here.
                    self.must_look_again = true;
                    now.is_complete = false;
                }
                now.is_complete &= is_open;
                let file = if is_open {
                    open_file(name, shown.inode, shown.born)
                } else {
                    self.unopened_file(name, shown.inode, known.waited(shown.inode))
                };
                shown.born = file.born;
                let is_that = |seen: &KnownFile| seen.is_open == file.is_open && seen.is(&file);
                changed |= !known.find(&file.name).is_some_and(is_that);
                now.files.push(file);
                files.push(shown);
            }
            changed |= known.files.len() != now.files.len() || now.is_complete && !was_complete;
            known.hand_on(&key.live, &mut now.files);
            let is_complete = now.is_complete;
            let missed = former.missed(&key.live, &now.files, |file| self.is_elsewhere(file, all));
            changed |= !missed.is_empty();
            self.scanner.metrics.unopened_files.add_gauge(now.unopened() - former.unopened());
            self.remember(&key, former, now, was_known);
            if changed && (!files.is_empty() || was_known) {
                found.groups.push(FoundGroup { key, files, is_complete, is_replaced, missed });
            }
        }
        for (key, known) in before {
            self.scanner.metrics.unopened_files.add_gauge(-known.unopened());
            let is_elsewhere = |file: &KnownFile| self.is_elsewhere(file, all);
            found.groups.push(gone(key, known, is_replaced, is_elsewhere));
        }
        if !self.must_look_again && self.known.waiting_files == 0 {
            let Scanner { memory, receiver_names, .. } = &mut *self.scanner;
            memory.forget(receiver_names, self.directory);
        }
        found
    }

    /// Keeps what was seen of a group for the next look. One that was not seen whole has another look, which may
    /// find that it is gone.
    fn remember(
        &mut self,
        key: &Arc<GroupKey>,
        former: KnownGroup,
        mut now: KnownGroup,
        was_known: bool,
    ) {
        if !self.is_replaced && self.moved.contains(key) {
            now.moved = former.moved_from(&now.files);
        }
        if !now.files.is_empty() || (was_known && !now.is_complete) {
            self.known.groups.insert(Arc::clone(key), now);
        }
    }

    /// A file that is known under this name, or was live and has been rotated, stays as it is; any
    /// other is opened. An inode's number may have been used again, also under one name: workers close files
    /// that they have read.
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
        let mut shown = FoundFile {
            name: name.to_owned(),
            inode,
            born: None,
            opened: None,
            is_renamed: false,
            old_bytes: None,
            charge: Charge::default(),
        };
        let waited = known.waited(inode);
        if let Some(whose) = self.take_whose(key, name) {
            if whose.is_unsure {
                return Resolved::Missing;
            }
            shown.is_renamed = whose.is_renamed;
            if let Some(opened) = whose.opened {
                return self.opened(shown, opened, waited);
            }
            if let Some(seen) = known.files.iter().find(same) {
                return Resolved::Open(FoundFile { born: seen.born, ..shown });
            }
        }
        if let Some(seen) = known.find(name).filter(same).or_else(|| as_live().filter(same))
            && self.may_still_be(name, seen)
        {
            return Resolved::Open(FoundFile { born: seen.born, ..shown });
        }
        match self.refused_still(name) {
            Some(Refusal::TooShort(_)) => Resolved::Missing,
            Some(_) => Resolved::Refused,
            None => {
                let is_renamed = shown.is_renamed;
                let resolved = self.open(shown, place, waited);
                if is_renamed && matches!(resolved, Resolved::Missing) {
                    self.moved.insert(Arc::new(key.clone()));
                }
                resolved
            }
        }
    }

    /// Whether a name leads to the file of this number that is known, and not to another that has got it. What
    /// was renamed since the directory was listed the next look finds.
    fn may_still_be(&mut self, name: &OsStr, seen: &KnownFile) -> bool {
        let looked = self.scanner.tree.look_at(&self.directory.join(name));
        let same_number = looked.ok().filter(|looked| looked.inode == seen.inode);
        same_number.is_none_or(|looked| may_be_one(looked.born_unix_nanos, seen.born))
    }

    /// Whether another file was opened than the directory listed, and the state knows that one. Where several
    /// file systems are one on top of the other, numbers may always differ.
    fn is_of_another(&self, key: &GroupKey, shown: &FoundFile, number: u64) -> bool {
        shown.inode.inode != number
            && self.scanner.links.get(self.directory, &shown.name).is_none()
            && self.remembers(key.receiver, number)
    }

    /// Whether a name may have come to lead to this file since the directory was listed with that number.
    fn is_newer(&mut self, name: &OsStr, inode: Inode, number: u64) -> bool {
        inode.inode != number
            && self.scanner.links.get(self.directory, name).is_none()
            && self.has_changed()
    }

    /// A file that can't be opened now. How long it is by now is asked each time: it may be gone before it
    /// can be, and then nobody knows.
    fn unopened_file(
        &mut self,
        name: OsString,
        inode: Inode,
        waited: Option<&KnownFile>,
    ) -> KnownFile {
        let looked = self.scanner.tree.look_at(&self.directory.join(&name)).ok();
        // Another file may have its name by now, or none.
        let looked = looked.filter(|looked| looked.inode == inode || !self.has_changed());
        let (born, bytes) = match looked {
            Some(looked) => (looked.born_unix_nanos, Some(looked.bytes)),
            None => waited.map_or((None, None), |waited| (waited.born, Some(waited.bytes))),
        };
        let first = waited.filter(|waited| may_be_one(waited.born, born));
        let first_bytes = first.map_or(bytes, |first| first.first_bytes);
        let plain = bytes.filter(|_| !is_archive(&name)).map(|_| inode);
        let (is_open, bytes) = (false, bytes.unwrap_or(0));
        KnownFile { name, inode, born, is_open, plain, bytes, first_bytes }
    }

    /// Whether a file that could not be opened, and is not in its group any more, has another name in
    /// this directory.
    fn is_elsewhere(&mut self, file: &KnownFile, all: &[Entry]) -> bool {
        let (tree, directory) = (&mut self.scanner.tree, self.directory);
        let mut same = all.iter().filter(|entry| entry.inode == file.inode.inode);
        !self.is_replaced
            && same.any(|entry| {
                let looked = tree.look_at(&directory.join(&entry.name));
                looked.is_ok_and(|looked| looked.born_unix_nanos == file.born)
            })
    }

    /// A file that is open now, whoever opened it.
    fn opened(&mut self, shown: FoundFile, opened: Opened, waited: Option<&KnownFile>) -> Resolved {
        match content_of(&shown.name, &*opened.file) {
            Content::Log => {}
            Content::Compressed(state) => {
                self.refuse(&shown.name, Refusal::Compressed(looked(&opened, state)));
                return Resolved::Refused;
            }
            // It may be a log as soon as it has grown, which scans look for.
            Content::TooShort(state) => {
                self.refuse(&shown.name, Refusal::TooShort(looked(&opened, state)));
                return Resolved::Missing;
            }
        }
        let is_old = self.scanner.is_old(&opened);
        let born = opened.file.born_unix_nanos();
        let first = waited.filter(|one| one.inode == opened.inode && one.born == born);
        let first_bytes = first.and_then(|one| one.first_bytes).unwrap_or(opened.bytes);
        let (inode, old_bytes) = (opened.inode, is_old.then_some(first_bytes));
        Resolved::Open(FoundFile { inode, born, opened: Some(opened), old_bytes, ..shown })
    }

    fn take_whose(&mut self, key: &GroupKey, name: &OsStr) -> Option<Whose> {
        if self.whose.is_empty() {
            return None;
        }
        self.whose.remove(&(Arc::new(key.clone()), name.to_owned()))
    }

    /// Another file of the directory waits for a descriptor.
    pub(super) fn wait_for_descriptor(&mut self) {
        self.known.waiting_files += 1;
        if !std::mem::replace(&mut self.known.is_waiting, true) {
            self.scanner.waiting.push_back(Arc::clone(self.directory));
        }
    }

    fn open(&mut self, shown: FoundFile, place: Place, waited: Option<&KnownFile>) -> Resolved {
        let opened = self.scanner.open(self.directory, &shown.name, place);
        crate::failpoint::hit("file_opened");
        let path = self.directory.join(&shown.name);
        match opened {
            // What has that name now need not be a log file.
            Ok(Some(opened)) if shown.is_renamed && opened.inode != shown.inode => {
                self.must_look_again = true;
                Resolved::Missing
            }
            // It was rotated since: what was listed has another name now, and is to be read first.
            Ok(Some(opened))
                if self.may_be_repeated
                    && self.is_newer(&shown.name, opened.inode, shown.inode.inode) =>
            {
                self.must_look_again = true;
                self.is_outdated = true;
                Resolved::Missing
            }
            Ok(Some(opened)) => {
                self.scanner.complaints.is_well(&path);
                self.opened(shown, opened, waited)
            }
            Ok(None) => {
                self.refuse(&shown.name, Refusal::NoFile);
                Resolved::Refused
            }
            // It was deleted, moved or compressed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.must_look_again = true;
                Resolved::Missing
            }
            Err(error) if is_shortage(&error) => {
                self.wait_for_descriptor();
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

/// A file that is open.
fn open_file(name: OsString, inode: Inode, born: Option<u64>) -> KnownFile {
    let (is_open, plain, bytes, first_bytes) = (true, None, 0, None);
    KnownFile { name, inode, born, is_open, plain, bytes, first_bytes }
}

/// What became of a file that its directory shows.
enum Resolved {
    /// It is open, or was known before.
    Open(FoundFile),
    /// It can't be opened now.
    Shown(FoundFile),
    /// It is no log file.
    Refused,
    /// It was there, and has another name now, or none; or it could not be found out whose it is.
    Missing,
}
