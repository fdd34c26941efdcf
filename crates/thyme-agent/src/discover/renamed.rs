//! Files that go on under another name which is a log file's too: `app.log` becomes
//! `app-2026-01-02.log`, or `app.log.1` becomes `app.log.2`. A file is known by its inode in all of
//! its directory, not only within the group of its name: it stays with the group that it was found
//! in first, as a rotated file of that group.
//!
//! An inode's number is used again. So a new name for a known number is the known file only if it was
//! born at the same time; of files that are known from before the start, if it has the same head. For
//! that, and for nothing else, the first bytes of a log file are read here.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    sync::Arc,
};

use super::{
    FoundFile, GroupKey,
    known::{KnownFile, KnownGroup},
    pattern::LogName,
    scan::{Look, Place},
};
use crate::{
    checkpoint::{FileCheckpoint, FileKey},
    tail::identity::Head,
    worker::Charge,
    world::{HashMap, Opened},
};

/// Entries of a directory by the group that they belong to.
pub(super) type Entries = HashMap<Arc<GroupKey>, Vec<(OsString, u64, Place)>>;

/// What a look finds out about names.
#[derive(Debug, Default)]
pub(super) struct Renames {
    /// Files that were opened to find out whose they are.
    pub(super) looked_at: HashMap<(Arc<GroupKey>, OsString), LookedAt>,
    /// Numbers under names that were not known for them.
    pub(super) doubtful: Vec<u64>,
    /// Files that may have another name, where that could not be found out, by their groups.
    unclear: HashMap<Arc<GroupKey>, Vec<Option<KnownFile>>>,
}

/// An entry whose file was opened to find out which one it is.
#[derive(Debug)]
pub(super) struct LookedAt {
    pub(super) opened: Opened,
    /// Whether it is a file that its group knows under another name.
    pub(super) is_renamed: bool,
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

    /// Groups of other names than `live` that had files with this number in the directory.
    fn others<'a>(
        &'a self,
        receiver: &Arc<str>,
        key: &'a GroupKey,
        number: u64,
    ) -> impl Iterator<Item = &'a Remembered> {
        let place = (Arc::clone(receiver), Arc::clone(&key.directory));
        let files = self.0.get(&place).map_or(&[][..], Vec::as_slice);
        files.iter().filter(move |file| file.inode == number && file.live != key.live)
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
        for file in group.files.iter().filter(|file| file.is_open) {
            numbers.entry((key.receiver, file.inode.inode)).or_default().push((key, file));
        }
    }
    numbers
}

/// Whose file an entry is.
enum Owner {
    /// A group's, and the file, if that had to be opened.
    Group(Arc<GroupKey>, Option<LookedAt>),
    /// Perhaps a group's, that knew it as this; it can't be opened now.
    Unclear(Arc<GroupKey>, Option<KnownFile>),
}

impl Look<'_> {
    /// Gives each entry to the group whose file it is.
    pub(super) fn follow_renames(
        &mut self,
        entries: Entries,
        before: &HashMap<Arc<GroupKey>, KnownGroup>,
    ) -> Entries {
        let mut owned = Entries::default();
        let mut doubtful = Vec::new();
        for (key, files) in entries {
            for (name, number, place) in files {
                let known = before.get(&key).and_then(|group| group.find(&name));
                let is_known = known.is_some_and(|file| file.is_open && file.inode.inode == number);
                // A link is no file that could have another name.
                let is_link = self.scanner.links.get(self.directory, &name).is_some();
                if is_known || is_link || !is_plain(&name) {
                    owned.entry(Arc::clone(&key)).or_default().push((name, number, place));
                } else {
                    doubtful.push((Arc::clone(&key), name, number, place));
                }
            }
        }
        if !self.is_replaced {
            self.renames.doubtful = doubtful.iter().map(|(_, _, number, _)| *number).collect();
        }
        let numbers = if doubtful.is_empty() { ByNumber::default() } else { by_number(before) };
        for (key, name, number, place) in doubtful {
            let known = numbers.get(&(key.receiver, number)).map_or(&[][..], Vec::as_slice);
            let owner = self
                .known_owner(
                    (&key, &name, number, place),
                    (known, before.contains_key(&key)),
                    &owned,
                )
                .or_else(|| self.remembered_owner(&key, &name, number, place));
            let group = match owner {
                Some(Owner::Unclear(group, file)) => {
                    // Until it can be opened, its group knows it as before; it is no new file.
                    self.must_look_again = true;
                    owned.entry(Arc::clone(&group)).or_default();
                    self.renames.unclear.entry(group).or_default().push(file);
                    continue;
                }
                Some(Owner::Group(group, Some(looked_at))) => {
                    self.renames.looked_at.insert((Arc::clone(&group), name.clone()), looked_at);
                    group
                }
                Some(Owner::Group(group, None)) => group,
                None => key,
            };
            owned.entry(group).or_default().push((name, number, place));
        }
        owned
    }

    /// The files of a group that may have been renamed, as the last look knew them.
    pub(super) fn shown_as_before(
        &mut self,
        key: &GroupKey,
        now: &mut KnownGroup,
    ) -> Vec<FoundFile> {
        let Some(unclear) = self.renames.unclear.remove(key) else { return Vec::new() };
        now.is_complete = false;
        let shown = |file: &KnownFile| FoundFile {
            name: file.name.clone(),
            inode: file.inode,
            opened: None,
            is_renamed: false,
            is_old: false,
            charge: Charge::default(),
        };
        let known = now.files.len();
        now.files.extend(unclear.into_iter().flatten());
        now.files[known..].iter().map(shown).collect()
    }

    /// The group in which the last look saw a file. A name that is doubtful is another than that which
    /// the file had, or one that it has had as a rotated file.
    fn known_owner(
        &mut self,
        (key, name, number, place): (&Arc<GroupKey>, &OsStr, u64, Place),
        (known, has_live): (&[(&Arc<GroupKey>, &KnownFile)], bool),
        owned: &Entries,
    ) -> Option<Owner> {
        let device = self.state.identity.inode.device;
        let is_elsewhere = |(group, file): &&(&Arc<GroupKey>, &KnownFile)| {
            *group != key && file.inode.device == device
        };
        if let Some((group, _)) = known.iter().filter(is_elsewhere).find(|one| *one.1.name == *name)
        {
            return Some(Owner::Group(Arc::clone(group), None));
        }
        // A file that has its old name, too, was not renamed.
        let is_linked = |group: &Arc<GroupKey>, file: &KnownFile| {
            let files = owned.get(group).map_or(&[][..], Vec::as_slice);
            files.iter().any(|(other, same, _)| *other == file.name && *same == number)
        };
        let mut renamed =
            known.iter().filter(is_elsewhere).filter(|(group, file)| !is_linked(group, file));
        let first = renamed.next()?;
        let Some(opened) = self.open_at(name, place) else {
            return Some(Owner::Unclear(Arc::clone(first.0), Some(first.1.clone())));
        };
        let born = opened.file.born_unix_nanos();
        // Where nothing is known of births, a live name that was there before has a new file.
        let is_new_live = born.is_none() && has_live;
        let is_it = |(_, file): &&(&Arc<GroupKey>, &KnownFile)| {
            opened.inode == file.inode && born == file.born && !is_new_live
        };
        let group = [first].into_iter().chain(renamed).find(is_it).map(|(group, _)| *group);
        let is_renamed = group.is_some();
        Some(Owner::Group(Arc::clone(group.unwrap_or(key)), Some(LookedAt { opened, is_renamed })))
    }

    /// The group of a file that the state knows under another name.
    fn remembered_owner(
        &mut self,
        key: &Arc<GroupKey>,
        name: &OsStr,
        number: u64,
        place: Place,
    ) -> Option<Owner> {
        let receiver = Arc::clone(self.scanner.receiver_name(key.receiver)?);
        let group_of = |file: &Remembered| {
            Arc::new(GroupKey { live: Arc::clone(&file.live), ..GroupKey::clone(key) })
        };
        let first = group_of(self.scanner.memory.others(&receiver, key, number).next()?);
        let Some(opened) = self.open_at(name, place) else {
            return Some(Owner::Unclear(first, None));
        };
        let is_it = |file: &&Remembered| file.head.matches(&*opened.file).unwrap_or(false);
        let known = self.scanner.memory.others(&receiver, key, number).find(is_it);
        let is_renamed = known.is_some();
        let group = known.map_or_else(|| Arc::clone(key), group_of);
        Some(Owner::Group(group, Some(LookedAt { opened, is_renamed })))
    }
}

/// Whether a name is none that the kubelet gives: those say which group they belong to.
fn is_plain(name: &OsStr) -> bool {
    LogName::parse(name).is_some_and(|parsed| parsed.rotated_at.is_none())
}
