//! Checkpoints whose files were not found yet. What was not seen is not gone: it may be unreadable
//! for a while, or its root not mounted, or left out of the configuration. A checkpoint is withdrawn
//! where a directory that was read to its end shows the file as absent.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{GroupKey, pattern::LogName};
use crate::{
    checkpoint::{FileCheckpoint, FileKey},
    limits::{HIDDEN_TIME_MAX, UNSEEN_CHECKPOINTS_MAX},
    world::{Entry, HashMap, LogTree},
};

/// Checkpoints with their files' numbers.
pub(super) type Checkpoints = Vec<(FileKey, FileCheckpoint)>;

/// Where a checkpoint belongs: a receiver's canonical name, a directory and a live file's name.
type Place = (Arc<str>, Arc<Path>, Arc<OsStr>);

/// Checkpoints whose files were not found yet.
pub(super) struct Unseen {
    checkpoints: HashMap<Place, Checkpoints>,
    /// Roots that are without an entry, and since when.
    empty: HashMap<PathBuf, Instant>,
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
            let receiver = Arc::clone(&file.receiver);
            let place = (receiver, Arc::clone(&file.directory), Arc::clone(&file.live));
            by_place.entry(place).or_default().push((key, file));
        }
        Self { checkpoints: by_place, empty: HashMap::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.checkpoints.is_empty()
    }

    /// Those of a group that was found.
    pub(super) fn take(&mut self, receiver: Arc<str>, group: &GroupKey) -> Checkpoints {
        let place = (receiver, Arc::clone(&group.directory), Arc::clone(&group.live));
        self.checkpoints.remove(&place).unwrap_or_default()
    }

    /// Looks for all of them, and keeps those that are not shown to be gone.
    pub(super) fn search(
        &mut self,
        tree: &mut dyn LogTree,
        roots: &[&Path],
        now: Instant,
    ) -> Searched {
        let mut evidence =
            Evidence { tree, roots, listings: HashMap::default(), silent: Vec::new() };
        self.empty = evidence.empty_roots(std::mem::take(&mut self.empty), now);
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
        self.checkpoints = Self::new(rest).checkpoints;
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
    /// Roots without an entry, and not for long.
    silent: Vec<PathBuf>,
}

impl Evidence<'_> {
    /// The roots that are without an entry, and since when.
    fn empty_roots(
        &mut self,
        before: HashMap<PathBuf, Instant>,
        now: Instant,
    ) -> HashMap<PathBuf, Instant> {
        let mut empty = HashMap::default();
        for root in self.roots {
            if matches!(self.list(root), Listing::Read(entries) if entries.is_empty()) {
                let since = before.get(*root).copied().unwrap_or(now);
                if now < since + HIDDEN_TIME_MAX {
                    self.silent.push(root.to_path_buf());
                }
                empty.insert(root.to_path_buf(), since);
            }
        }
        empty
    }

    /// Whether the file is shown to be absent: by its directory, or that by the one above it, and so
    /// on up to the root. A root without any entry shows nothing for a while: it may not be mounted yet.
    fn is_gone(&mut self, checkpoint: &FileCheckpoint) -> bool {
        let directory = &*checkpoint.directory;
        let above = self.roots.iter().filter(|root| directory.starts_with(root));
        let Some(root) = above.max_by_key(|root| root.as_os_str().len()).copied() else {
            return false;
        };
        if self.silent.iter().any(|silent| silent == root) {
            return false;
        }
        match self.list(directory) {
            Listing::Unknown => return false,
            Listing::Read(entries) => {
                return !entries.iter().any(|entry| may_be(entry, checkpoint));
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
                    return !entries.iter().any(|entry| *entry.name == *name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{DirectoryState, Looked, Opened, real::NodeLogs};
    use std::{fs, io};

    /// The tree, with one directory that can't be read.
    struct Denied(PathBuf);

    impl LogTree for Denied {
        fn directory(&mut self, path: &Path) -> io::Result<DirectoryState> {
            NodeLogs::default().directory(path)
        }

        fn entries(&mut self, path: &Path) -> io::Result<Vec<Entry>> {
            if path == self.0 {
                Err(io::ErrorKind::PermissionDenied.into())
            } else {
                NodeLogs::default().entries(path)
            }
        }

        fn open(&mut self, root: &Path, relative: &Path) -> io::Result<Option<Opened>> {
            NodeLogs::default().open(root, relative)
        }

        fn look_at(&mut self, path: &Path) -> io::Result<Looked> {
            NodeLogs::default().look_at(path)
        }
    }

    fn checkpoint(key: FileKey, live: &Path, inode: u64) -> (FileKey, FileCheckpoint) {
        let directory = live.parent().unwrap().display();
        let name = live.file_name().unwrap().display();
        let line = format!(
            r#"{{"directory": "{directory}", "live": "{name}", "name": "{name}", "device": 1,
            "inode": {inode}, "head_bytes": 0, "head_crc32": 0, "offset": 0}}"#
        );
        (key, serde_json::from_str(&line).unwrap())
    }

    /// Scenario: row 40. Files in a directory that is read, in one that can't be read, in one that is
    /// gone with that above it, in a root that is missing, in one that is empty, and outside of all
    /// roots; a file that was renamed, and one whose group has other files.
    /// Guarantees: only what a directory that was read shows as absent is gone, and what was in the empty root
    /// once that has lasted.
    #[test]
    fn only_what_is_shown_as_absent_is_gone() {
        use std::os::unix::fs::MetadataExt;
        let node = tempfile::tempdir().unwrap();
        let at = |path: &str| node.path().join(path);
        for directory in ["pods/read", "pods/denied", "empty"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for file in ["pods/read/1.log", "pods/read/other.log", "pods/denied/0.log"] {
            fs::write(at(file), "").unwrap();
        }
        let renamed = fs::metadata(at("pods/read/other.log")).unwrap().ino();
        let all = [
            ("pods/read/0.log", 1, true),
            ("pods/read/1.log", 2, false),
            ("pods/read/2.log", renamed, false),
            ("pods/denied/1.log", 3, false),
            ("pods/gone/app/0.log", 4, true),
            ("pods/denied/app/0.log", 5, false),
            ("missing/pod/0.log", 6, false),
            ("empty/pod/0.log", 7, false),
            ("elsewhere/0.log", 8, false),
        ];
        let files = all.iter().enumerate();
        let files = files.map(|(key, (path, inode, _))| checkpoint(key as u64, &at(path), *inode));
        let mut unseen = Unseen::new(files.collect());
        let roots = [at("pods"), at("missing"), at("empty")];
        let roots: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();
        let now = Instant::now();
        let searched = unseen.search(&mut Denied(at("pods/denied")), &roots, now);
        assert!(searched.excess.is_empty());
        let mut gone: Vec<_> = searched.gone.iter().map(|(key, _)| *key).collect();
        gone.sort_unstable();
        let expected = all.iter().enumerate().filter(|(_, one)| one.2);
        assert_eq!(gone, expected.map(|(key, _)| key as u64).collect::<Vec<_>>());
        // Found to be gone once only.
        let now = now + HIDDEN_TIME_MAX / 2;
        assert!(unseen.search(&mut Denied(at("pods/denied")), &roots, now).gone.is_empty());
        // A root that is empty for that long is; one that is missing, or can't be read, says nothing.
        let now = now + HIDDEN_TIME_MAX / 2;
        let searched = unseen.search(&mut Denied(at("pods/denied")), &roots, now);
        assert_eq!(searched.gone.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [7]);
    }

    /// Scenario: row 40. There are more checkpoints of files that can't be found than are kept.
    /// Guarantees: those beyond the limit go, first those of files that were read to their end.
    #[test]
    fn what_is_never_found_is_bounded() {
        let mut files: Checkpoints = (0..UNSEEN_CHECKPOINTS_MAX as u64 + 5)
            .map(|key| checkpoint(key, Path::new(&format!("/gone/{key}/0.log")), key))
            .collect();
        for (_, file) in &mut files[7..10] {
            file.finished = true;
        }
        let mut unseen = Unseen::new(files);
        let searched = unseen.search(&mut NodeLogs::default(), &[], Instant::now());
        let mut keys: Vec<_> = searched.excess.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert_eq!(keys.len(), 5);
        assert!([7, 8, 9].iter().all(|key| keys.contains(key)), "{keys:?}");
        assert!(searched.gone.is_empty());
        assert!(unseen.search(&mut NodeLogs::default(), &[], Instant::now()).excess.is_empty());
    }
}
