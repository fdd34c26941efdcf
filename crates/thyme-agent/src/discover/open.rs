//! Opens what discovery found: regular files only, no symbolic link on the way below the root,
//! never waiting for a FIFO's writer.

use std::{fs::File, io, path::Path};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
};

use crate::{tail::identity::Inode, world::Opened};

/// Opens `relative`, beneath `root`. `Ok(None)`: it isn't a regular file, or a symbolic link is on
/// the way.
pub fn open_beneath(root: &File, relative: &Path) -> io::Result<Option<Opened>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = match openat2(root, relative, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP | Errno::XDEV | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&file)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Ok(None);
    }
    let inode = Inode { device: stat.st_dev, inode: stat.st_ino };
    Ok(Some(Opened {
        file: Box::new(file),
        inode,
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
    }))
}

/// Opens a root directory, which may itself be reached through links.
pub fn open_root(root: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    Ok(File::from(rustix::fs::openat(CWD, root, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Scenario: a regular file, a link to it, a linked directory, a way out by `..`, a FIFO
    /// without a writer, a directory, and nothing.
    /// Guarantees: only the regular file is opened, and nothing waits.
    #[test]
    fn only_regular_files_beneath_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/file"), b"12345").unwrap();
        symlink(at("real/file"), at("link")).unwrap();
        symlink(at("real"), at("linked")).unwrap();
        rustix::fs::mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let root = open_root(directory.path()).unwrap();
        let opened = open_beneath(&root, Path::new("real/file")).unwrap().unwrap();
        assert_eq!(opened.bytes, 5);
        for refused in ["link", "linked/file", "../x", "fifo", "real"] {
            assert!(open_beneath(&root, Path::new(refused)).unwrap().is_none(), "{refused}");
        }
        let missing = open_beneath(&root, Path::new("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
