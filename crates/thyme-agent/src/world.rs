//! What the core knows of the world outside: time, the tree of log files, and the disk that keeps
//! its state. They are parameters, so that a seeded simulation drives the same code that production
//! runs; [`mod@real`] is the operating system. The core must not reach around them.

pub mod real;

use std::{
    ffi::OsString,
    fmt,
    hash::{BuildHasherDefault, DefaultHasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use crate::tail::identity::Inode;

/// A map whose order depends on nothing but what was done with it, so that a simulated run can be
/// repeated.
pub type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// Time.
pub trait Clock: Send + Sync {
    /// Time that never goes back, for waits.
    fn now(&self) -> Instant;
    /// Nanoseconds since the Unix epoch, for what others read.
    fn unix_nanos(&self) -> u64;
}

/// A log file as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Its length, in bytes.
    pub bytes: u64,
    /// When it was written to last, or cut, in nanoseconds since the Unix epoch.
    pub modified_unix_nanos: u64,
    /// Whether it has a name; without one it is there only as long as it is open.
    pub has_name: bool,
}

/// A log file that is open for reading, whatever its name is by now.
pub trait LogFile: Send + Sync + fmt::Debug {
    /// Reads at an offset, as `pread(2)`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads until the buffer is full or the file ends; how much that is.
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }
    /// What it is now.
    fn state(&self) -> io::Result<FileState>;
    /// Its length now, in bytes.
    fn length(&self) -> io::Result<u64> {
        Ok(self.state()?.bytes)
    }
    /// When its inode came to be, in nanoseconds since the Unix epoch, where that is known.
    fn born_unix_nanos(&self) -> Option<u64> {
        None
    }
}

/// A log file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The open file.
    pub file: Box<dyn LogFile>,
    /// Which file it is.
    pub inode: Inode,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Where a symbolic link of its name led to first, if it was reached by one.
    pub through: Option<Box<Path>>,
}

/// A file as its name shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Which file it is.
    pub inode: Inode,
    /// When its inode came to be, in nanoseconds since the Unix epoch, where that is known.
    pub born_unix_nanos: Option<u64>,
    /// Its length, in bytes.
    pub bytes: u64,
    /// When it was written to last, or cut, in nanoseconds since the Unix epoch.
    pub modified_unix_nanos: u64,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// Anything else: a FIFO, a device.
    Other,
}

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// What it is, without following links.
    pub kind: EntryKind,
    /// `st_ino`.
    pub inode: u64,
}

/// Which directory a directory is, whatever its name is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryIdentity {
    /// Its number, which another one may have once it is gone.
    pub inode: Inode,
    /// When it came to be, in nanoseconds since the Unix epoch, where that is known.
    pub born_unix_nanos: Option<u64>,
}

/// A directory as it is now.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryState {
    /// Which one it is.
    pub identity: DirectoryIdentity,
    /// When an entry was made, moved or removed last, where that is known.
    pub changed_at: Option<SystemTime>,
}

/// The tree of log files.
pub trait LogTree: Send {
    /// The directory as it is now; an error where there is none.
    fn directory(&mut self, path: &Path) -> io::Result<DirectoryState>;
    /// Its entries, in no order.
    fn entries(&mut self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Opens `relative` beneath `root`. `Ok(None)`: it isn't a regular file, a symbolic link is on
    /// the way, or it is a link itself and leads where none may lead.
    fn open(&mut self, root: &Path, relative: &Path) -> io::Result<Option<Opened>>;
    /// What a path leads to, whether it may be opened or not.
    fn look_at(&mut self, path: &Path) -> io::Result<Looked>;
}

/// A file of the state directory that is being written.
pub trait StateFile: Send {
    /// Appends all of it, or fails having appended some of it.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all that was appended would survive a loss of power.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts or keeps the first `bytes`; the next append follows them.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Takes room on the disk for so many bytes in all, so that appending them can't fail for want
    /// of it; the length stays.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;
    /// Reads at an offset, as `pread(2)`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Its length, in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// The state directory. Names are relative to it, with `/` between levels.
pub trait StateDisk: Send + Sync {
    /// Makes a directory beneath it, if it is missing.
    fn make_directory(&self, name: &str) -> io::Result<()>;
    /// Names in a directory beneath it, `""` for itself, in no order.
    fn names(&self, directory: &str) -> io::Result<Vec<String>>;
    /// A whole file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// A new file of that name, empty; what had the name loses it.
    fn create(&self, name: &str) -> io::Result<Box<dyn StateFile>>;
    /// A file that exists, to be read or cut.
    fn open(&self, name: &str) -> io::Result<Box<dyn StateFile>>;
    /// Gives a file a second name, in place of what had that name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Renames, in place of what had that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when the names in a directory would survive a loss of power.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;
    /// Where a name is, to be said to a human.
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}

/// A clock that everybody shares.
pub type SharedClock = Arc<dyn Clock>;
