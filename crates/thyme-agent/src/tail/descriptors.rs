//! How many log files may be open at once. A file counts for as long as anybody holds it: discovery,
//! a message that no worker has taken yet, a worker. Where there is no room, whoever asked has to wait,
//! and workers give up descriptors of files that they have read.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::io::Errno;

use crate::{
    metrics::Metrics,
    world::{LogFile, LogTree, Opened},
};

/// The descriptors of log files.
#[derive(Debug)]
pub struct Descriptors {
    max: u64,
    /// How many are open, or about to be.
    open: AtomicU64,
    /// How many somebody waits for.
    wanted: AtomicU64,
    /// Shows the number of open files.
    metrics: Arc<Metrics>,
}

impl Descriptors {
    /// So many may be open.
    pub fn new(max: usize, metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            max: max as u64,
            open: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            metrics: Arc::clone(metrics),
        })
    }

    /// Whether one more may be opened that was never open. Some room is left for files that are to be
    /// read on: a group may hold a new file, and need an older one before it can read that.
    pub fn has_room_for_new(&self) -> bool {
        self.open.load(Ordering::Relaxed) < self.max_for_new()
    }

    fn max_for_new(&self) -> u64 {
        self.max - self.max / 8
    }

    /// Opens a file that was never open, as [`LogTree::open`] does. Without room the error is the
    /// operating system's: see [`is_shortage`].
    ///
    /// # Errors
    /// Those of [`LogTree::open`], and that there is no room.
    pub fn open_new(
        self: &Arc<Self>,
        tree: &mut dyn LogTree,
        root: &Path,
        relative: &Path,
    ) -> io::Result<Option<Opened>> {
        self.open_within(self.max_for_new(), tree, root, relative)
    }

    /// Opens a file again, likewise.
    ///
    /// # Errors
    /// Those of [`LogTree::open`], and that there is no room.
    pub fn open(
        self: &Arc<Self>,
        tree: &mut dyn LogTree,
        root: &Path,
        relative: &Path,
    ) -> io::Result<Option<Opened>> {
        self.open_within(self.max, tree, root, relative)
    }

    fn open_within(
        self: &Arc<Self>,
        max: u64,
        tree: &mut dyn LogTree,
        root: &Path,
        relative: &Path,
    ) -> io::Result<Option<Opened>> {
        let place = self.take_place(max);
        let opened =
            if place.is_some() { tree.open(root, relative) } else { Err(Errno::MFILE.into()) };
        let opened = opened.inspect_err(|error| {
            if is_shortage(error) {
                self.want(1);
            }
        })?;
        Ok(opened.zip(place).map(|(opened, place)| {
            let file = Box::new(Counted { file: opened.file, _place: place });
            Opened { file, ..opened }
        }))
    }

    /// Takes a descriptor, if fewer are taken: before the file is opened, since others ask at the same time.
    fn take_place(self: &Arc<Self>, max: u64) -> Option<Taken> {
        let relaxed = Ordering::Relaxed;
        self.open.fetch_update(relaxed, relaxed, |open| (open < max).then_some(open + 1)).ok()?;
        self.metrics.open_files.add_gauge(1);
        Some(Taken(Arc::clone(self)))
    }

    /// Somebody waits for so many, and says so again as long as that is so.
    pub fn want(&self, count: u64) {
        self.wanted.fetch_max(count, Ordering::Relaxed);
    }

    /// Discovery waits for so many new files, and nobody else for any but those that say so again. What
    /// is open beyond the room for new ones has to be closed first.
    pub fn set_wanted(&self, count: u64) {
        let beyond = self.open.load(Ordering::Relaxed).saturating_sub(self.max_for_new());
        let wanted = if count == 0 { 0 } else { count + beyond };
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// So many were given up for those that wait: nobody else has to give them up.
    pub fn give_up(&self, count: u64) {
        let relaxed = Ordering::Relaxed;
        let rest = |wanted: u64| Some(wanted.saturating_sub(count));
        let _wanted_before = self.wanted.fetch_update(relaxed, relaxed, rest);
    }

    /// How many somebody waits for.
    pub fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Relaxed)
    }
}

/// Whether an error says that there are too few descriptors.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// A descriptor that is taken.
#[derive(Debug)]
struct Taken(Arc<Descriptors>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.open_files.add_gauge(-1);
    }
}

/// An open file that counts.
#[derive(Debug)]
struct Counted {
    // Closed before it counts no more.
    file: Box<dyn LogFile>,
    _place: Taken,
}

impl LogFile for Counted {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn state(&self) -> io::Result<crate::world::FileState> {
        self.file.state()
    }

    fn born_unix_nanos(&self) -> Option<u64> {
        self.file.born_unix_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{DirectoryState, Entry, Looked, real::NodeLogs};

    /// Scenario: row 39. Two files may be open, three are asked for; one is given up.
    /// Guarantees: the third is refused as the operating system would, it is known that one is wanted,
    /// and there is room as soon as one is closed.
    #[test]
    fn open_files_are_counted_wherever_they_are() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let metrics = Arc::new(Metrics::default());
        let descriptors = Descriptors::new(2, &metrics);
        let open =
            |name: &str| descriptors.open(&mut NodeLogs::default(), root.path(), Path::new(name));
        let (first, second) = (open("a").unwrap(), open("b").unwrap());
        assert!(is_shortage(&open("c").unwrap_err()));
        assert_eq!(descriptors.wanted(), 1);
        drop(first);
        let third = open("c").unwrap().unwrap();
        let mut byte = [0];
        assert_eq!(third.file.read_at(&mut byte, 0).unwrap(), 1);
        assert_eq!((byte, third.file.length().unwrap()), (*b"c", 1));
        assert_eq!(metrics.open_files.get(), 2);
        drop((second, third));
        assert_eq!(metrics.open_files.get(), 0);
    }

    /// Scenario: row 39. All eight descriptors are in use, one of them the spare one for files that are read
    /// on, and discovery waits for one new file; then one is given up, and then another.
    /// Guarantees: two are asked for, for with one closed there is no room for a new file yet: a quiet file
    /// that is closed for it and opened again at once would keep it waiting for ever.
    #[test]
    fn what_is_open_beyond_the_room_for_new_files_is_asked_for_too() {
        let metrics = Arc::new(Metrics::default());
        let descriptors = Descriptors::new(8, &metrics);
        for (open, wanted, has_room) in [(8, 2, false), (7, 1, false), (6, 1, true)] {
            descriptors.open.store(open, Ordering::Relaxed);
            descriptors.set_wanted(1);
            assert_eq!((descriptors.wanted(), descriptors.has_room_for_new()), (wanted, has_room));
        }
        descriptors.set_wanted(0);
        assert_eq!(descriptors.wanted(), 0);
    }

    /// Scenario: row 39. While a file is opened, another thread opens the last one that may be.
    /// Guarantees: the limit holds: one of the two waits.
    #[test]
    fn two_that_open_at_once_do_not_pass_the_limit() {
        /// Opens another file while one is opened.
        struct Meanwhile<'a>(&'a Arc<Descriptors>, Vec<bool>);
        impl LogTree for Meanwhile<'_> {
            fn directory(&mut self, path: &Path) -> io::Result<DirectoryState> {
                NodeLogs::default().directory(path)
            }
            fn entries(&mut self, path: &Path) -> io::Result<Vec<Entry>> {
                NodeLogs::default().entries(path)
            }
            fn open(&mut self, root: &Path, relative: &Path) -> io::Result<Option<Opened>> {
                let other = self.0.open(&mut NodeLogs::default(), root, relative);
                self.1.push(other.is_ok());
                NodeLogs::default().open(root, relative)
            }
            fn look_at(&mut self, path: &Path) -> io::Result<Looked> {
                NodeLogs::default().look_at(path)
            }
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "a").unwrap();
        let descriptors = Descriptors::new(1, &Arc::default());
        let mut tree = Meanwhile(&descriptors, Vec::new());
        let opened = descriptors.open(&mut tree, root.path(), Path::new("a"));
        assert!(opened.unwrap().is_some());
        let failed = descriptors.open(&mut tree, root.path(), Path::new("no such file"));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!((tree.1, descriptors.open.load(Ordering::Relaxed)), (vec![false; 2], 0));
    }
}
