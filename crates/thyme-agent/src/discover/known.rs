//! Groups as the last look at their directory saw them.

use std::{
    ffi::{OsStr, OsString},
    sync::Arc,
};

use super::{GroupKey, Missed, pattern::LogName, scan::FoundGroup};
use crate::tail::identity::Inode;

/// A file of a group at the last look.
#[derive(Debug)]
pub(super) struct KnownFile {
    pub(super) name: OsString,
    pub(super) inode: Inode,
    /// When its inode came to be, where that is known.
    pub(super) born: Option<u64>,
    /// Whether it was opened; otherwise it is tried again.
    pub(super) is_open: bool,
    /// What it had when it could not be opened.
    pub(super) bytes: u64,
    /// What it had when that was so for the first time, where that is known.
    pub(super) first_bytes: Option<u64>,
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
    pub(super) fn born_of(&self, inode: Inode) -> Option<u64> {
        self.files.iter().find(|file| file.inode == inode)?.born
    }

    pub(super) fn find(&self, name: &OsStr) -> Option<&KnownFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// A file that could not be opened at the last look either.
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
        let plain = |file: &KnownFile| LogName::parse(&file.name).map(|name| name.plain.to_owned());
        let is_new_archive = |file: &KnownFile| {
            let is_archive = LogName::parse(&file.name).is_some_and(|name| name.compressed);
            is_archive && self.files.iter().all(|other| plain(other) != plain(file))
        };
        let is_there = |file: &KnownFile| {
            let is_that = |other: &KnownFile| {
                other.inode == file.inode || other.name == file.name || plain(other) == plain(file)
            };
            // A live one may have been rotated and compressed since the last look.
            now.iter().any(|other| is_that(other) || (file.name == *live && is_new_archive(other)))
        };
        let missed = self.files.iter().filter(|file| !file.is_open && !is_there(file));
        let missed = missed.filter(|file| !is_elsewhere(file));
        missed
            .map(|file| Missed { name: file.name.clone(), inode: file.inode, bytes: file.bytes })
            .collect()
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
