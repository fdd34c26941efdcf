//! Checkpoints whose files were not found yet. What was not seen is not gone: it may be unreadable
//! for a while, or its root not mounted, or left out of the configuration. A checkpoint is withdrawn
//! where a directory that was read to its end shows the file as absent.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{GroupKey, pattern::LogName};
use crate::{
    checkpoint::{FileCheckpoint, FileKey},
    limits::UNSEEN_CHECKPOINTS_MAX,
    world::{Entry, HashMap, LogTree},
};

/// Checkpoints with their files' numbers.
pub(super) type Checkpoints = Vec<(FileKey, FileCheckpoint)>;

/// A directory and a live file's name: where a checkpoint belongs, whichever receiver reads it.
type Place = (Arc<Path>, Arc<OsStr>);

/// Checkpoints whose files were not found yet.
pub(super) struct Unseen {
    checkpoints: HashMap<Place, Checkpoints>,
}

/// What a search found out.
#[derive(Debug, Default)]
pub(super) struct Searched {
    /// The files are gone.
    pub(super) gone: Checkpoints,
    /// Nothing is known of the files, but there are more than are kept.
    pub(super) excess: Checkpoints,
}

impl Unseen {
    pub(super) fn new(checkpoints: Checkpoints) -> Self {
        let mut by_place: HashMap<Place, Checkpoints> = HashMap::default();
        for (key, file) in checkpoints {
            let place = (Arc::clone(&file.directory), Arc::clone(&file.live));
            by_place.entry(place).or_default().push((key, file));
        }
        Self { checkpoints: by_place }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.checkpoints.is_empty()
    }

    /// Those of a group that was found.
    pub(super) fn take(&mut self, group: &GroupKey) -> Checkpoints {
        let place = (Arc::clone(&group.directory), Arc::clone(&group.live));
        self.checkpoints.remove(&place).unwrap_or_default()
    }

    /// Looks for all of them, and keeps those that are not shown to be gone.
    pub(super) fn search(&mut self, tree: &mut dyn LogTree, roots: &[&Path]) -> Searched {
        let mut evidence = Evidence { tree, roots, listings: HashMap::default() };
        let mut searched = Searched::default();
        self.checkpoints.retain(|_, checkpoints| {
            let is_gone = |one: &mut (FileKey, FileCheckpoint)| evidence.is_gone(&one.1);
            searched.gone.extend(checkpoints.extract_if(.., is_gone));
            !checkpoints.is_empty()
        });
        let kept: usize = self.checkpoints.values().map(Vec::len).sum();
        if let Some(excess) = kept.checked_sub(UNSEEN_CHECKPOINTS_MAX).filter(|excess| *excess > 0)
        {
            searched.excess = self.take_excess(excess);
        }
        searched
    }

    /// Takes so many away: first those of files that were read to their end.
    fn take_excess(&mut self, count: usize) -> Checkpoints {
        let mut all: Checkpoints =
            std::mem::take(&mut self.checkpoints).into_values().flatten().collect();
        all.sort_by(|(_, one), (_, other)| {
            let order = |file: &FileCheckpoint| (!file.finished, Arc::clone(&file.directory));
            order(one).cmp(&order(other))
        });
        let rest = all.split_off(count.min(all.len()));
        *self = Self::new(rest);
        all
    }
}

/// What a directory holds, as far as that can be said.
enum Listing {
    /// All of it.
    Read(Vec<Entry>),
    /// There is no such directory.
    Absent,
    /// It can't be read.
    Unknown,
}

/// Directories as they are now, each read once for all checkpoints.
struct Evidence<'a> {
    tree: &'a mut dyn LogTree,
    roots: &'a [&'a Path],
    listings: HashMap<PathBuf, Listing>,
}

impl Evidence<'_> {
    /// Whether the file is shown to be absent: by its directory, or that by the one above it, and so
    /// on up to the root. A root without any entry shows nothing: it may not be mounted yet.
    fn is_gone(&mut self, checkpoint: &FileCheckpoint) -> bool {
        let directory = &*checkpoint.directory;
        let above = self.roots.iter().filter(|root| directory.starts_with(root));
        let Some(root) = above.max_by_key(|root| root.as_os_str().len()).copied() else {
            return false;
        };
        match self.list(directory) {
            Listing::Unknown => return false,
            Listing::Read(entries) => {
                let is_silent = entries.is_empty() && directory == root;
                return !is_silent && !entries.iter().any(|entry| may_be(entry, checkpoint));
            }
            Listing::Absent => {}
        }
        let mut absent = directory;
        while absent != root
            && let (Some(parent), Some(name)) = (absent.parent(), absent.file_name())
        {
            match self.list(parent) {
                Listing::Unknown => return false,
                Listing::Read(entries) => {
                    let is_silent = entries.is_empty() && parent == root;
                    return !is_silent && !entries.iter().any(|entry| *entry.name == *name);
                }
                Listing::Absent => absent = parent,
            }
        }
        false
    }

    fn list(&mut self, directory: &Path) -> &Listing {
        let tree = &mut *self.tree;
        self.listings.entry(directory.to_owned()).or_insert_with(|| match tree.entries(directory) {
            Ok(entries) => Listing::Read(entries),
            Err(error) if super::scan::is_absent(&error) => Listing::Absent,
            Err(_) => Listing::Unknown,
        })
    }
}

/// Whether an entry may be the file: by its number, or because it is one of its group's.
fn may_be(entry: &Entry, checkpoint: &FileCheckpoint) -> bool {
    let of_group = |name: LogName<'_>| *name.live == *checkpoint.live;
    entry.inode == checkpoint.inode || LogName::parse(&entry.name).is_none_or(of_group)
}
