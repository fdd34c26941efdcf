//! Groups as the last look at their directory saw them.

use std::{
    ffi::{OsStr, OsString},
    sync::Arc,
};

use super::{GroupKey, Missed, pattern::LogName, scan::FoundGroup};
use crate::tail::identity::{Inode, may_be_one};

/// A file of a group at the last look.
#[derive(Clone, Debug)]
pub(super) struct KnownFile {
    pub(super) name: OsString,
    pub(super) inode: Inode,
    /// When its inode came to be, where that is known.
    pub(super) born: Option<u64>,
    /// Whether it was opened; otherwise it is tried again.
    pub(super) is_open: bool,
    /// Which plain file it is, or was before it was compressed; `None` of an archive that was not seen then.
    pub(super) plain: Option<Inode>,
    /// What it had when it could not be opened: as a plain file, if it was seen as one.
    pub(super) bytes: u64,
    /// What it had when that was so for the first time, where that is known.
    pub(super) first_bytes: Option<u64>,
}

impl KnownFile {
    /// Whether it is that file, under whatever name.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.has_number(other.inode, other.born)
    }

    /// Whether a file of this number and birth may be it.
    pub(super) fn has_number(&self, inode: Inode, born: Option<u64>) -> bool {
        self.inode == inode && may_be_one(self.born, born)
    }

    /// A number, and a name, are another file's later; what is not known proves nothing.
    fn may_have_birth_of(&self, other: &Self) -> bool {
        may_be_one(self.born, other.born)
    }
}

/// A group at the last look.
#[derive(Debug, Default)]
pub(super) struct KnownGroup {
    /// Few, in no order.
    pub(super) files: Vec<KnownFile>,
    /// Files of the looks before that got another name while the last one went on.
    pub(super) moved: Vec<KnownFile>,
    pub(super) is_complete: bool,
}

impl KnownGroup {
    /// Tells archives that can't be opened `now` what they were at the last look, where that could not be opened
    /// either: a file of their name, or the live one, which became the oldest new archive. If that one was empty
    /// then, it was written to since, or would not have been rotated.
    pub(super) fn hand_on(&self, live: &OsStr, now: &mut [KnownFile]) {
        let is_unopened = |file: &KnownFile| !file.is_open && is_archive(&file.name);
        if !now.iter().any(is_unopened) {
            return;
        }
        let new = now.iter().map(|file| &file.name).filter(|name| self.is_new_archive(name));
        let oldest = new.min().cloned();
        let is_gone = |file: &&KnownFile| now.iter().all(|other| !file.is(other));
        let was_live =
            self.find(live).filter(|file| !file.is_open && file.bytes > 0).filter(is_gone);
        for archive in now.iter_mut().filter(|file| is_unopened(file)) {
            let is_it =
                |file: &&KnownFile| !file.is_open && plain(&file.name) == plain(&archive.name);
            let same = self.files.iter().filter(is_it).max_by_key(|file| file.plain.is_some());
            let was_it = same.or(was_live.filter(|_| oldest.as_ref() == Some(&archive.name)));
            if let Some(known) = was_it.filter(|known| known.plain.is_some()) {
                (archive.plain, archive.bytes) = (known.plain, known.bytes);
            }
        }
    }

    /// Whether no file of this archive's name was known.
    fn is_new_archive(&self, name: &OsStr) -> bool {
        is_archive(name) && self.files.iter().all(|other| plain(&other.name) != plain(name))
    }

    pub(super) fn find(&self, name: &OsStr) -> Option<&KnownFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// A file of this number that could not be opened at the last look.
    pub(super) fn waited(&self, inode: Inode) -> Option<&KnownFile> {
        self.files.iter().find(|seen| seen.inode == inode && !seen.is_open)
    }

    /// Files that could not be opened and are not among those that there are now, compressed or not, nor in
    /// another group.
    pub(super) fn missed(
        &self,
        live: &OsStr,
        now: &[KnownFile],
        mut is_elsewhere: impl FnMut(&KnownFile) -> bool,
    ) -> Vec<Missed> {
        let is_there = |file: &KnownFile| {
            let is_that = |other: &KnownFile| {
                let is_compressed_since = is_archive(&other.name) != is_archive(&file.name);
                let is_same_name = plain(&other.name) == plain(&file.name);
                file.is(other)
                    || (is_same_name && (is_compressed_since || file.may_have_birth_of(other)))
            };
            // A live one may have been rotated and compressed since the last look.
            let may_be_archive =
                |other: &KnownFile| file.name == *live && self.is_new_archive(&other.name);
            now.iter().any(|other| is_that(other) || may_be_archive(other))
        };
        // What stood beside its archive is one file.
        let is_beside = |file: &KnownFile| {
            let is_it = |other: &KnownFile| other.name == *plain(&file.name);
            is_archive(&file.name) && self.files.iter().any(is_it)
        };
        let missed = self.files.iter().filter(|file| !file.is_open && !is_there(file));
        let missed = missed.filter(|file| !is_beside(file) && !is_elsewhere(file));
        let missed = missed.map(|file| Missed {
            name: file.name.clone(),
            inode: file.plain.unwrap_or(file.inode),
            was_plain: file.plain.is_some(),
            born: file.born,
            bytes: file.bytes,
        });
        missed.collect()
    }

    /// The files that are open and have other names than the look at `now` had listed.
    pub(super) fn moved_from(self, now: &[KnownFile]) -> Vec<KnownFile> {
        let is_gone = |file: &KnownFile| now.iter().all(|other| other.inode != file.inode);
        let all = self.files.into_iter().chain(self.moved);
        all.filter(|file| file.is_open && is_gone(file)).collect()
    }

    pub(super) fn unopened(&self) -> i64 {
        self.files.iter().filter(|file| !file.is_open).count() as i64
    }
}

/// A file's name before it was compressed.
fn plain(name: &OsStr) -> &OsStr {
    LogName::parse(name).map_or(name, |parsed| parsed.plain)
}

/// Whether it is the name of an archive.
pub(super) fn is_archive(name: &OsStr) -> bool {
    LogName::parse(name).is_some_and(|parsed| parsed.compressed)
}

/// A group that its directory does not show any more.
pub(super) fn gone(
    key: Arc<GroupKey>,
    known: KnownGroup,
    is_replaced: bool,
    is_elsewhere: impl FnMut(&KnownFile) -> bool,
) -> FoundGroup {
    let missed = known.missed(&key.live, &[], is_elsewhere);
    FoundGroup { key, files: Vec::new(), is_complete: true, is_replaced, missed }
}
