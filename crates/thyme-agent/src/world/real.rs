//! The operating system's time, files and disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirEntryExt, FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use credentials::regular_file;
use rustix::fs::{FallocateFlags, fallocate};

use super::{
    Clock, DirectoryIdentity, DirectoryState, Entry, EntryKind, FileState, LogFile, LogTree,
    Looked, Opened, SharedClock, StateDisk, StateFile,
};
use crate::{
    discover::{links::LinkRules, open::open_following},
    limits::STATE_FILE_BYTES_MAX,
    tail::identity::Inode,
};

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// To be shared.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_nanos(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// When a file was written to last, or cut.
fn modified_unix_nanos(metadata: &fs::Metadata) -> u64 {
    let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    u64::try_from(modified).unwrap_or(0)
}

impl LogFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn state(&self) -> io::Result<FileState> {
        let metadata = self.metadata()?;
        Ok(FileState {
            bytes: metadata.len(),
            modified_unix_nanos: modified_unix_nanos(&metadata),
            has_name: metadata.nlink() > 0,
        })
    }

    fn born_unix_nanos(&self) -> Option<u64> {
        born_unix_nanos(&self.metadata().ok()?)
    }
}

fn born_unix_nanos(metadata: &fs::Metadata) -> Option<u64> {
    let born = metadata.created().ok()?;
    u64::try_from(born.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// The node's log directories. Nothing of them is held between two calls: a path means what it means
/// now.
#[derive(Clone, Debug, Default)]
pub struct NodeLogs {
    links: Arc<LinkRules>,
}

impl NodeLogs {
    /// With links that are followed; by default none are.
    pub fn following(links: Arc<LinkRules>) -> Self {
        Self { links }
    }
}

impl LogTree for NodeLogs {
    fn directory(&mut self, path: &Path) -> io::Result<DirectoryState> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let inode = Inode { device: metadata.dev(), inode: metadata.ino() };
        let identity = DirectoryIdentity { inode, born_unix_nanos: born_unix_nanos(&metadata) };
        Ok(DirectoryState { identity, changed_at: metadata.modified().ok() })
    }

    fn entries(&mut self, path: &Path) -> io::Result<Vec<Entry>> {
        entries_of(fs::read_dir(path)?)
    }

    fn open(&mut self, root: &Path, relative: &Path) -> io::Result<Option<Opened>> {
        open_following(&self.links, root, relative)
    }

    fn look_at(&mut self, path: &Path) -> io::Result<Looked> {
        let metadata = fs::metadata(path)?;
        Ok(Looked {
            inode: Inode { device: metadata.dev(), inode: metadata.ino() },
            born_unix_nanos: born_unix_nanos(&metadata),
            bytes: metadata.len(),
            modified_unix_nanos: modified_unix_nanos(&metadata),
        })
    }
}

/// All that a listing gives, or its error: a part of a directory would show the rest of its files as gone.
fn entries_of(listing: impl Iterator<Item = io::Result<fs::DirEntry>>) -> io::Result<Vec<Entry>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let kind = match entry.file_type() {
            Ok(kind) if kind.is_dir() => EntryKind::Directory,
            Ok(kind) if kind.is_file() => EntryKind::File,
            Ok(kind) if kind.is_symlink() => EntryKind::Link,
            Ok(_) => EntryKind::Other,
            // It was removed since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Entry { name: entry.file_name(), kind, inode: entry.ino() }))
    };
    listing.filter_map(|one| entry(one).transpose()).collect()
}

/// A state directory on the node's disk.
#[derive(Clone, Debug)]
pub struct NodeDisk {
    directory: PathBuf,
}

impl NodeDisk {
    /// The one at this path.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What is no regular file might be waited for without end.
    fn open_with(&self, name: &str, options: &OpenOptions) -> io::Result<Box<dyn StateFile>> {
        let path = self.at(name);
        regular_file::expect_free_or_regular(&path)?;
        Ok(Box::new(NodeFile(options.open(path)?)))
    }
}

impl StateDisk for NodeDisk {
    fn make_directory(&self, name: &str) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.at(name);
        match regular_file::expect_directory(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
            }
            found => found,
        }
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let names = fs::read_dir(self.at(directory))?
            .map(|entry| Ok(entry?.file_name().into_string().ok()))
            .collect::<io::Result<Vec<_>>>()?;
        // Every name of ours is text.
        Ok(names.into_iter().flatten().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        regular_file::read(&self.at(name), STATE_FILE_BYTES_MAX)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StateFile>> {
        // A file that is cut instead may have its old content again after a loss of power, under a name that
        // it gets afterwards.
        regular_file::expect_free_or_regular(&self.at(name))?;
        remove_if_there(&self.at(name))?;
        self.open_with(name, OpenOptions::new().read(true).write(true).create_new(true))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StateFile>> {
        self.open_with(name, OpenOptions::new().read(true).write(true))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        // A link does not replace a name; a rename does.
        let fresh = self.at(&format!("{to}.new"));
        remove_if_there(&fresh)?;
        crate::failpoint::hit("link_removed");
        fs::hard_link(self.at(from), &fresh)?;
        crate::failpoint::hit("link_made");
        fs::rename(&fresh, self.at(to))?;
        crate::failpoint::hit("link_renamed");
        // Two names of one file are left alone by a rename.
        remove_if_there(&fresh)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        File::open(self.at(directory))?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at(name)
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file of the state directory.
#[derive(Debug)]
struct NodeFile(File);

impl StateFile for NodeFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        use std::io::{Seek, SeekFrom};
        self.0.set_len(bytes)?;
        self.0.seek(SeekFrom::Start(bytes)).map(drop)
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, bytes) {
            // Where the file system can't, appending says when there is no room.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: row 40. A directory's listing fails at its beginning, half-way or at its end.
    /// Guarantees: it is an error each time. What came before would show the rest of the files as gone.
    #[test]
    fn half_a_listing_is_none() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let listing = || fs::read_dir(directory.path()).unwrap();
        assert_eq!(entries_of(listing()).unwrap().len(), 3);
        for before in 0..=3 {
            let failure = [Err(io::Error::from_raw_os_error(5))];
            let listing = listing().take(before).chain(failure).chain(listing().skip(before));
            assert!(entries_of(listing).is_err(), "after {before} entries");
        }
    }

    /// Scenario: a file of the state directory is reserved, appended to, cut, appended to, renamed
    /// over another one and given a second name twice.
    /// Guarantees: reserved room is no content, cutting keeps the front, links and renames replace
    /// what had the name.
    #[test]
    fn state_files_behave_as_promised() {
        let directory = tempfile::tempdir().unwrap();
        let disk = NodeDisk::new(directory.path());
        disk.make_directory("spool").unwrap();
        disk.make_directory("spool").unwrap();
        let mut file = disk.create("spool/a").unwrap();
        file.reserve(1 << 20).unwrap();
        assert_eq!(file.length().unwrap(), 0);
        file.append(b"123456").unwrap();
        file.truncate(3).unwrap();
        file.append(b"x").unwrap();
        file.sync().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(file.read_at(&mut buffer, 2).unwrap(), 2);
        assert_eq!(buffer[..2], *b"3x");
        for _ in 0..2 {
            disk.link("spool/a", "spool/b").unwrap();
        }
        disk.create("spool/c").unwrap();
        disk.rename("spool/a", "spool/c").unwrap();
        disk.sync_directory("spool").unwrap();
        let mut names = disk.names("spool").unwrap();
        names.sort();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(disk.read("spool/c").unwrap(), b"123x");
        assert_eq!(disk.open("spool/b").unwrap().length().unwrap(), 4);
        disk.remove("spool/b").unwrap();
        assert!(disk.open("spool/b").is_err());
    }
}
