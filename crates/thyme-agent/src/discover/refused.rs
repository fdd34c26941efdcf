//! Entries that match and are not read: what is no log file, and what others than the kubelet have
//! compressed. Each is said and counted once, for as long as its directory shows it; it is opened again
//! only when it has changed.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use super::look::Look;
use crate::world::{FileState, HashMap, LogTree, Looked, Opened};

/// Why an entry is not read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// It is neither a regular file nor a link that may be followed.
    NoFile,
    /// It is compressed, and none of the kubelet's archives, as long as it is this file.
    Compressed(Looked),
    /// Its name says that it will be compressed, and as long as it is this file it has too few bytes to tell.
    TooShort(Looked),
}

impl Refusal {
    /// What is said of it; nothing of what may be a log yet.
    fn why(self) -> Option<&'static str> {
        match self {
            Self::NoFile => Some("neither a regular file nor a link that may be followed"),
            Self::Compressed(_) => Some("compressed, and none of the kubelet's archives"),
            Self::TooShort(_) => None,
        }
    }

    /// The file that it holds for; `None` where nothing but a look at the entry says whether it still does.
    fn of(self) -> Option<Looked> {
        match self {
            Self::NoFile => None,
            Self::Compressed(looked) | Self::TooShort(looked) => Some(looked),
        }
    }
}

/// What the last look at a directory refused, by name.
#[derive(Debug, Default)]
pub(super) struct Refused(HashMap<OsString, Refusal>);

impl Refused {
    /// Whether one of them may be a log as soon as it grows: its directory does not tell.
    pub(super) fn may_grow(&self) -> bool {
        self.0.values().any(|one| matches!(one, Refusal::TooShort(_)))
    }

    /// Whether one of these has changed.
    pub(super) fn has_grown(&self, tree: &mut dyn LogTree, directory: &Path) -> bool {
        self.0.iter().any(|(name, refusal)| match refusal {
            Refusal::TooShort(before) => {
                tree.look_at(&directory.join(name)).ok().as_ref() != Some(before)
            }
            Refusal::NoFile | Refusal::Compressed(_) => false,
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// An open file as its name shows it.
pub(super) fn looked(opened: &Opened, state: FileState) -> Looked {
    Looked {
        inode: opened.inode,
        born_unix_nanos: opened.file.born_unix_nanos(),
        bytes: state.bytes,
        modified_unix_nanos: state.modified_unix_nanos,
    }
}

impl Look<'_> {
    /// Notes that an entry is not read. It is counted where that is new.
    pub(super) fn refuse(&mut self, name: &OsStr, refusal: Refusal) {
        let before = self.known.refused.0.insert(name.to_owned(), refusal);
        let before = before.or_else(|| self.refused_before.0.get(name).copied());
        if let Some(why) = refusal.why()
            && before.and_then(Refusal::why).is_none()
        {
            self.scanner.metrics.refused_files.increment();
            tracing::warn!(path = ?self.directory.join(name), "{why}: it is not read");
        }
    }

    /// Why an entry was refused at the last look, if that was for what it holds and it has not changed since.
    pub(super) fn refused_still(&mut self, name: &OsStr) -> Option<Refusal> {
        let before = self.refused_before.0.get(name).copied()?;
        let now = self.scanner.tree.look_at(&self.directory.join(name)).ok();
        if now.is_none() || now != before.of() {
            return None;
        }
        self.refuse(name, before);
        Some(before)
    }
}
