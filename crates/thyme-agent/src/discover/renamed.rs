//! Files that go on under another name which is a log file's too: `app.log` becomes
//! `app-2026-01-02.log`, or `app.log.1` becomes `app.log.2`. A file is known by its inode in all of
//! its directory, not only within the group of its name: it stays with the group that it was found
//! in first, as a rotated file of that group. So it does where its new name is no log file's: a writer
//! that was late writes to it all the same. A file that has several names in its directory is one file.
//!
//! An inode's number is used again. So a new name for a known number is the known file only if it was
//! born at the same time; of files that are known from before the start, if it has the same head, which
//! is read for that.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io,
    path::Path,
    sync::Arc,
};

use super::{
    GroupKey,
    known::{KnownFile, KnownGroup},
    look::Look,
    pattern::LogName,
    scan::Place,
};
use crate::{
    checkpoint::{FileCheckpoint, FileKey},
    tail::{descriptors::is_shortage, identity::Head},
    world::{Entry, EntryKind, HashMap, Opened},
};

/// Entries of a directory by the group that they belong to.
pub(super) type Entries = HashMap<Arc<GroupKey>, Vec<(OsString, u64, Place)>>;

/// What was found out about an entry, besides whose it is.
#[derive(Debug)]
pub(super) struct Whose {
    /// Open, where it had to be opened to find out.
    pub(super) opened: Option<Opened>,
    /// Whether it is a file that its group knows under another name.
    pub(super) is_renamed: bool,
    /// Whether it could not be found out now: it may be the group's file, and is nobody's until then.
    pub(super) is_unsure: bool,
}

/// A file that the state knows.
#[derive(Debug)]
struct Remembered {
    live: Arc<OsStr>,
    inode: u64,
    head: Head,
}

/// The files that the state knows, until their directory was read.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<(Arc<str>, Arc<Path>), Vec<Remembered>>);

impl Memory {
    pub(super) fn new(checkpoints: &[(FileKey, FileCheckpoint)]) -> Self {
        let mut memory = Self::default();
        for (_, file) in checkpoints.iter().filter(|(_, file)| file.head_bytes > 0) {
            let place = (Arc::clone(&file.receiver), Arc::clone(&file.directory));
            let remembered =
                Remembered { live: Arc::clone(&file.live), inode: file.inode, head: file.head() };
            memory.0.entry(place).or_default().push(remembered);
        }
        memory
    }

    /// Those of a directory.
    fn of(&self, receiver: &Arc<str>, directory: &Arc<Path>) -> &[Remembered] {
        if self.0.is_empty() {
            return &[];
        }
        let place = (Arc::clone(receiver), Arc::clone(directory));
        self.0.get(&place).map_or(&[][..], Vec::as_slice)
    }

    /// All files of a directory have been found, as far as they are there.
    pub(super) fn forget(&mut self, receivers: &[Arc<str>], directory: &Arc<Path>) {
        if self.0.is_empty() {
            return;
        }
        for receiver in receivers {
            self.0.remove(&(Arc::clone(receiver), Arc::clone(directory)));
        }
    }
}

/// What the last look knows of a receiver's number.
type ByNumber<'a> = HashMap<(usize, u64), Vec<(&'a Arc<GroupKey>, &'a KnownFile)>>;

fn by_number(before: &HashMap<Arc<GroupKey>, KnownGroup>) -> ByNumber<'_> {
    let mut numbers = ByNumber::default();
    for (key, group) in before {
        for file in group.files.iter().chain(&group.moved) {
            numbers.entry((key.receiver, file.inode.inode)).or_default().push((key, file));
        }
    }
    numbers
}

/// An entry of a directory, until it is known whose it is.
struct Claim {
    /// The group that its name says; `None` where the name is no log file's.
    key: Option<Arc<GroupKey>>,
    receiver: usize,
    name: OsString,
    number: u64,
    place: Place,
    certainty: Certainty,
}

/// How much a name says, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    /// It is the file that had this name before, and is open.
    Known,
    /// A name that the kubelet gives says which group it belongs to; so does a link, which is no file that
    /// could have another name.
    Named,
    /// It may be a file that had another name.
    Doubtful,
}

impl Look<'_> {
    /// Gives each entry to the group whose file it is. A file that has several names comes once.
    pub(super) fn follow_renames(
        &mut self,
        entries: Entries,
        all: &[Entry],
        before: &HashMap<Arc<GroupKey>, KnownGroup>,
    ) -> Entries {
        let numbers = by_number(before);
        let mut claims = self.strays(&entries, all, &numbers);
        for (key, files) in entries {
            for (name, number, place) in files {
                let certainty = self.certainty(before.get(&key), &name, number);
                let (key, receiver) = (Some(Arc::clone(&key)), key.receiver);
                claims.push(Claim { key, receiver, name, number, place, certainty });
            }
        }
        // Of several names of a new file, the shortest is the likeliest to stay.
        claims.sort_by(|one, other| {
            let rank = |claim: &Claim| (claim.certainty, claim.name.len());
            rank(one).cmp(&rank(other)).then_with(|| one.name.cmp(&other.name))
        });
        let mut owned = Entries::default();
        let mut names: HashMap<(usize, u64), OsString> = HashMap::default();
        for claim in claims {
            let is_link = self.scanner.links.get(self.directory, &claim.name).is_some();
            let number = (claim.receiver, claim.number);
            if !is_link && let Some(other) = names.get(&number) {
                let other = other.clone();
                if self.is_one_file(&other, &claim.name) {
                    continue;
                }
            }
            let Some(group) = self.owner_of(&claim, &numbers, before, all) else { continue };
            if !is_link {
                names.entry(number).or_insert_with(|| claim.name.clone());
            }
            owned.entry(group).or_default().push((claim.name, claim.number, claim.place));
        }
        owned
    }

    fn certainty(&self, known: Option<&KnownGroup>, name: &OsStr, number: u64) -> Certainty {
        let known = known.and_then(|group| group.find(name));
        let is_link = self.scanner.links.get(self.directory, name).is_some();
        match known {
            _ if is_link => Certainty::Named,
            Some(file) if file.is_open && file.inode.inode == number => Certainty::Known,
            _ if !is_plain(name) => Certainty::Named,
            _ => Certainty::Doubtful,
        }
    }

    /// Entries whose names are no log files', and which may be log files that were renamed: they have the
    /// numbers of files that are known.
    fn strays(&self, entries: &Entries, all: &[Entry], numbers: &ByNumber<'_>) -> Vec<Claim> {
        let mut strays = Vec::new();
        let receivers: BTreeSet<usize> = self.known.places.iter().map(|place| place.0).collect();
        for receiver in receivers {
            let remembered = self.remembered(receiver);
            let place = self.known.places.iter().find(|place| place.0 == receiver);
            let Some(place) = place.copied() else { continue };
            for entry in all.iter().filter(|entry| entry.kind == EntryKind::File) {
                let is_known = numbers.contains_key(&(receiver, entry.inode))
                    || remembered.iter().any(|file| file.inode == entry.inode);
                let Some(parsed) = LogName::parse(&entry.name).filter(|_| is_known) else {
                    continue;
                };
                let (directory, live) = (Arc::clone(self.directory), parsed.live.into());
                let own = entries.get(&GroupKey { receiver, directory, live });
                if own.is_some_and(|files| files.iter().any(|(name, ..)| *name == entry.name)) {
                    continue;
                }
                strays.push(Claim {
                    key: None,
                    receiver,
                    name: entry.name.clone(),
                    number: entry.inode,
                    place,
                    certainty: Certainty::Doubtful,
                });
            }
        }
        strays
    }

    /// Files of this directory that the state knows, and that were not found yet.
    fn remembered(&self, receiver: usize) -> &[Remembered] {
        let name = self.scanner.receiver_name(receiver);
        name.map_or(&[], |name| self.scanner.memory.of(name, self.directory))
    }

    /// Whether the state knows a file of this number that was not found yet.
    pub(super) fn remembers(&self, receiver: usize, number: u64) -> bool {
        self.remembered(receiver).iter().any(|file| file.inode == number)
    }

    /// Whether two entries that have one number are one file: where several file systems are one on top of
    /// the other, that alone does not say so.
    fn is_one_file(&mut self, one: &OsStr, other: &OsStr) -> bool {
        let directory = self.directory;
        let mut look = |name| self.scanner.tree.look_at(&directory.join(name));
        let (Ok(one), Ok(other)) = (look(one), look(other)) else {
            self.must_look_again = true;
            return true;
        };
        (one.inode, one.born_unix_nanos) == (other.inode, other.born_unix_nanos)
    }

    /// The group whose file an entry is; `None` where it is none's.
    fn owner_of(
        &mut self,
        claim: &Claim,
        numbers: &ByNumber<'_>,
        before: &HashMap<Arc<GroupKey>, KnownGroup>,
        all: &[Entry],
    ) -> Option<Arc<GroupKey>> {
        if claim.certainty != Certainty::Doubtful {
            return claim.key.clone();
        }
        let known = numbers.get(&(claim.receiver, claim.number)).map_or(&[][..], Vec::as_slice);
        let has_live = claim.key.as_ref().is_none_or(|key| before.contains_key(key));
        self.known_owner(claim, known, has_live, all)
            .or_else(|| self.remembered_owner(claim))
            .or_else(|| claim.key.clone())
    }

    /// The group in which the last look saw a file. A name that is doubtful is another than that which
    /// the file had, or one that it has had as a rotated file.
    fn known_owner(
        &mut self,
        claim: &Claim,
        known: &[(&Arc<GroupKey>, &KnownFile)],
        has_live: bool,
        all: &[Entry],
    ) -> Option<Arc<GroupKey>> {
        let device = self.state.identity.inode.device;
        let is_elsewhere = |(group, file): &&(&Arc<GroupKey>, &KnownFile)| {
            Some(*group) != claim.key.as_ref() && file.inode.device == device
        };
        let mut elsewhere = known.iter().filter(is_elsewhere);
        if let Some((group, _)) = elsewhere.clone().find(|one| one.1.name == claim.name) {
            return Some(Arc::clone(group));
        }
        let first = Arc::clone(elsewhere.clone().next()?.0);
        let looked = match self.scanner.tree.look_at(&self.directory.join(&claim.name)) {
            Ok(looked) if looked.inode.inode == claim.number || !self.has_changed() => looked,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.must_look_again = true;
                return None;
            }
            _ => {
                // It has another name by now, or none: the next look finds it.
                self.must_look_again = true;
                let whose = Whose { opened: None, is_renamed: false, is_unsure: true };
                self.whose.insert((Arc::clone(&first), claim.name.clone()), whose);
                self.moved.insert(Arc::clone(&first));
                return Some(first);
            }
        };
        let born = looked.born_unix_nanos;
        // Where nothing is known of births, a live name that was there before has a new file, and what has
        // no log file's name may be anything.
        let is_unknown = born.is_none() && has_live;
        // Nor is anything that whose archive is there, by the name that gzip gives it: its number was free
        // from then on, whoever rotates.
        let has_archive = |file: &KnownFile| {
            let plain = |entry: &Entry| {
                entry.name.as_encoded_bytes().strip_suffix(b".gz")
                    == Some(file.name.as_encoded_bytes())
            };
            all.iter().any(plain)
        };
        let is_it = |(_, file): &&(&Arc<GroupKey>, &KnownFile)| {
            looked.inode == file.inode
                && born == file.born
                && !is_unknown
                && !(born.is_none() && has_archive(file))
        };
        let (group, _) = elsewhere.find(is_it)?;
        let whose = Whose { opened: None, is_renamed: true, is_unsure: false };
        self.whose.insert((Arc::clone(group), claim.name.clone()), whose);
        Some(Arc::clone(group))
    }

    /// Whether names in the directory may have changed since it was listed. Where several file systems are one
    /// on top of the other, numbers differ though none has.
    pub(super) fn has_changed(&mut self) -> bool {
        let Ok(state) = self.scanner.tree.directory(self.directory) else { return true };
        state.changed_at != self.state.changed_at
            || state.changed_at.is_some_and(|at| !self.scanner.is_settled(at))
    }

    /// The group of a file that the state knows under another name.
    fn remembered_owner(&mut self, claim: &Claim) -> Option<Arc<GroupKey>> {
        let live = claim.key.as_ref().map(|key| Arc::clone(&key.live));
        let is_of_another =
            |file: &&Remembered| live.as_ref().is_none_or(|live| *live != file.live);
        let is_listed = |file: &&Remembered| file.inode == claim.number && is_of_another(file);
        let first = Arc::clone(&self.remembered(claim.receiver).iter().find(is_listed)?.live);
        let (receiver, directory) = (claim.receiver, Arc::clone(self.directory));
        let group_of = |live| Arc::new(GroupKey { receiver, directory, live });
        let opened = self.scanner.open(self.directory, &claim.name, claim.place);
        let compare = |opened: Opened| -> io::Result<(Opened, Option<Arc<OsStr>>)> {
            // The next file of its chain may have got its name since the directory was listed.
            let number = opened.inode.inode;
            let may_be = |file: &&Remembered| {
                is_listed(file) || (file.inode == number && is_of_another(file))
            };
            for file in self.remembered(claim.receiver).iter().filter(may_be) {
                if file.head.matches(&*opened.file)? {
                    return Ok((opened, Some(Arc::clone(&file.live))));
                }
            }
            Ok((opened, None))
        };
        let (opened, known) = match opened.and_then(|one| one.map(compare).transpose()) {
            Ok(compared) => compared?,
            Err(error) => {
                self.cannot_tell(&claim.name, &error);
                let group = group_of(first);
                let whose = Whose { opened: None, is_renamed: false, is_unsure: true };
                self.whose.insert((Arc::clone(&group), claim.name.clone()), whose);
                return Some(group);
            }
        };
        let is_renamed = known.is_some();
        let group = match (known, &claim.key) {
            (Some(live), _) => group_of(live),
            (None, key) => key.clone()?,
        };
        let whose = Whose { opened: Some(opened), is_renamed, is_unsure: false };
        self.whose.insert((Arc::clone(&group), claim.name.clone()), whose);
        Some(group)
    }

    /// Whose a file is that the state knows could not be found out.
    fn cannot_tell(&mut self, name: &OsStr, error: &io::Error) {
        if is_shortage(error) {
            self.wait_for_descriptor();
            return;
        }
        self.must_look_again = true;
        if error.kind() != io::ErrorKind::NotFound {
            let path = self.directory.join(name);
            self.scanner.complain(&path, "cannot open a log file", error);
        }
    }
}

/// Whether a name is none that the kubelet gives: those say which group they belong to.
fn is_plain(name: &OsStr) -> bool {
    LogName::parse(name).is_some_and(|parsed| parsed.rotated_at.is_none())
}
