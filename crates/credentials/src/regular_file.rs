//! Reads what somebody named as a file: a regular one of bounded size, whatever else stands there. A
//! FIFO without a writer would be waited for, a device might never end.

use std::{
    fs::{File, FileType},
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// The whole content.
///
/// # Errors
/// What the operating system says; that it is no regular file, and what it is; that it has more than
/// `bytes_max` bytes.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    refuse_others(metadata.file_type())?;
    let too_large = || io::Error::other(format!("it is larger than {bytes_max} bytes"));
    if metadata.len() > bytes_max {
        return Err(too_large());
    }
    // Files of /proc have no length, and others may grow.
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max { Err(too_large()) } else { Ok(content) }
}

/// [`read`], where the content is text.
///
/// # Errors
/// As [`read`], and that it is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// Looks whether a name is free, or that of a regular file, before it is opened to be written.
///
/// # Errors
/// What the operating system says, and that it is no regular file, and what it is.
pub fn expect_free_or_regular(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(metadata) => refuse_others(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Looks whether a name is that of a directory.
///
/// # Errors
/// What the operating system says, and that it is no directory, and what it is.
pub fn expect_directory(path: &Path) -> io::Result<()> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Ok(());
    }
    Err(io::Error::other(format!("it is {}, expected a directory", name(kind))))
}

fn refuse_others(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    Err(io::Error::other(format!("it is {}, expected a regular file", name(kind))))
}

fn name(kind: FileType) -> &'static str {
    if kind.is_file() {
        "a file"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a regular file at its limit and beyond it, a FIFO, devices, a directory, a sparse
    /// file of a terabyte, a link to a file, a file of /proc, and nothing at all.
    /// Guarantees: regular files within the limit are read, also over links; all others are refused
    /// at once, in words that say what they are.
    #[test]
    fn only_regular_files_of_bounded_size() {
        let directory = tempfile::tempdir().unwrap();
        let [file, fifo, link, sparse] =
            ["file", "fifo", "link", "sparse"].map(|name| directory.path().join(name));
        std::fs::write(&file, "12345678").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        rustix::fs::mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read_text(&link, 8).unwrap(), "12345678");
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
        let refused = |path: &Path| read(path, 7).unwrap_err().to_string();
        for path in [&file, &sparse] {
            assert_eq!(refused(path), "it is larger than 7 bytes");
        }
        assert_eq!(refused(&fifo), "it is a FIFO, expected a regular file");
        assert_eq!(refused(Path::new("/dev/zero")), "it is a device, expected a regular file");
        assert_eq!(refused(directory.path()), "it is a directory, expected a regular file");
        let missing = read(&directory.path().join("none"), 7).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
