//! What the last look at a directory saw of a group.

use std::ffi::{OsStr, OsString};

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
}

/// A group at the last look.
#[derive(Debug, Default)]
pub(super) struct KnownGroup {
    /// Few, in no order.
    pub(super) files: Vec<KnownFile>,
    /// Whether each of them is open or known.
    pub(super) is_complete: bool,
}

impl KnownGroup {
    pub(super) fn born_of(&self, inode: Inode) -> Option<u64> {
        self.files.iter().find(|file| file.inode == inode)?.born
    }

    pub(super) fn find(&self, name: &OsStr) -> Option<&KnownFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Files that could not be opened and are not among those that there are now.
    pub(super) fn missed(&self, now: &[KnownFile]) -> Vec<(Inode, u64)> {
        let is_there = |file: &KnownFile| {
            now.iter().any(|other| other.inode == file.inode || other.name == file.name)
        };
        let missed = self.files.iter().filter(|file| !file.is_open && !is_there(file));
        missed.map(|file| (file.inode, file.bytes)).collect()
    }

    pub(super) fn unopened(&self) -> i64 {
        self.files.iter().filter(|file| !file.is_open).count() as i64
    }
}
