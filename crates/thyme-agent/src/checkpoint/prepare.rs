//! Hands a state directory over to the agent's user, for an init container that runs as root.
//!
//! The kubelet makes a hostPath directory as `root:root 0755`, which an agent without root can't
//! write to. CAP_CHOWN is all that is needed: modes are changed while root owns the directory, and
//! nothing is read or opened that another user owns.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

/// Mode of a state directory: what is in it is nobody else's.
const MODE: u32 = 0o700;

/// Who a state directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A directory can't be handed over.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}: {source}")]
pub struct PrepareError {
    /// The directory, or a file in it.
    pub path: PathBuf,
    /// What was tried.
    pub what: &'static str,
    /// What the operating system says.
    pub source: io::Error,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// Nothing: the directory is as it should be.
    AsItWas,
    /// Mode and owner were set, of the directory and of the files in it.
    HandedOver,
}

/// Makes `directory` if there is none, and gives it to `owner` with mode 0700. Files in it follow,
/// so that an agent that ran as root can be followed by one that doesn't. The second time it does
/// nothing.
///
/// # Errors
/// It is no directory (a symbolic link isn't followed), or the operating system refuses a change.
pub fn prepare_directory(directory: &Path, owner: Owner) -> Result<Prepared, PrepareError> {
    let failed =
        |what| move |source: io::Error| PrepareError { path: directory.to_owned(), what, source };
    match fs::create_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(failed("can't be made")(error));
        }
        _ => {}
    }
    // A handle that opens nothing: it needs no permission on the directory itself, and what it is
    // for can't be exchanged between two steps.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::open(directory, flags, Mode::empty())
        .map_err(|error| failed("is no directory")(error.into()))?;
    let stat =
        rustix::fs::fstat(&handle).map_err(|error| failed("can't be looked at")(error.into()))?;
    let is_owned = stat.st_uid == owner.uid && stat.st_gid == owner.gid;
    if is_owned && stat.st_mode & 0o7777 == MODE {
        return Ok(Prepared::AsItWas);
    }
    let change_owner = |uid: u32, gid: u32| {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&handle, "", uid, gid, AtFlags::EMPTY_PATH)
            .map_err(|error| failed("can't be given away")(error.into()))
    };
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != me {
        change_owner(me, stat.st_gid)?;
    }
    let through = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    fs::set_permissions(&through, fs::Permissions::from_mode(MODE))
        .map_err(failed("its mode can't be set"))?;
    for entry in fs::read_dir(&through).map_err(failed("can't be read"))? {
        let name = entry.map_err(failed("can't be read"))?.file_name();
        let path = through.join(&name);
        std::os::unix::fs::lchown(&path, Some(owner.uid), Some(owner.gid)).map_err(|source| {
            PrepareError { path: directory.join(&name), what: "can't be given away", source }
        })?;
    }
    change_owner(owner.uid, owner.gid)?;
    Ok(Prepared::HandedOver)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn me() -> Owner {
        Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// Scenario: a directory that doesn't exist, then one with the kubelet's mode, then a third start.
    /// Guarantees: mode 0700 each time; where all is right nothing is touched.
    #[test]
    fn the_second_time_does_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/state");
        assert_eq!(prepare_directory(&directory, me()).unwrap(), Prepared::HandedOver);
        assert_eq!(mode(&directory), 0o700);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(prepare_directory(&directory, me()).unwrap(), Prepared::HandedOver);
        let changed = fs::metadata(&directory).unwrap().ctime_nsec();
        assert_eq!(prepare_directory(&directory, me()).unwrap(), Prepared::AsItWas);
        assert_eq!(fs::metadata(&directory).unwrap().ctime_nsec(), changed);
        assert_eq!(mode(&directory), 0o700);
    }

    /// Scenario: the name is a symbolic link, or a file.
    /// Guarantees: refused by name, and what the link points to keeps its mode.
    #[test]
    fn links_and_files_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("target");
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
        let link = parent.path().join("link");
        symlink(&target, &link).unwrap();
        let error = prepare_directory(&link, me()).unwrap_err();
        assert!(error.to_string().contains("link: is no directory"), "{error}");
        assert_eq!(mode(&target), 0o755);
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let error = prepare_directory(&file, me()).unwrap_err();
        assert!(error.to_string().contains("file: is no directory"), "{error}");
    }

    /// Scenario: as root, a directory with a checkpoint of root's, for another user.
    /// Guarantees: directory and file are the other user's, and a second time changes nothing. Without
    /// root the change is refused, and says what it was about.
    #[test]
    fn the_files_of_another_user_follow() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("checkpoint");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let other = Owner { uid: 65_534, gid: 65_534 };
        let prepared = prepare_directory(parent.path(), other);
        if me().uid != 0 {
            let error = prepared.unwrap_err().to_string();
            assert!(error.contains("can't be given away"), "{error}");
            return;
        }
        assert_eq!(prepared.unwrap(), Prepared::HandedOver);
        for path in [parent.path(), &file] {
            let found = fs::metadata(path).unwrap();
            assert_eq!((found.uid(), found.gid()), (other.uid, other.gid), "{}", path.display());
        }
        assert_eq!(prepare_directory(parent.path(), other).unwrap(), Prepared::AsItWas);
    }
}
