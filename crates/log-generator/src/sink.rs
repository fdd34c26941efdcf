//! Where lines go: the process's stdout, or the log file of a pod. Writes whole buffers, reopens a
//! file when the rotation asks for it, and says exactly how much was written when a write fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use thyme_core::cri::CriParser;

use crate::limits::WRITE_BYTES_MAX;

/// Mode of log files, as containerd makes them.
const FILE_MODE: u32 = 0o640;

/// Mode of the directories above them, as the kubelet makes them.
const DIRECTORY_MODE: u32 = 0o755;

/// A write that failed, and how far it came.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct WriteError {
    /// The file, or `stdout`.
    pub path: String,
    /// Bytes of the buffer that were written before.
    pub written: usize,
    /// What the system said.
    pub source: io::Error,
}

/// The output of one container.
#[derive(Debug)]
pub enum Sink {
    /// The process's stdout.
    Stdout(File),
    /// A pod's log file.
    Pod(LiveFile),
}

impl Sink {
    /// The process's stdout, unbuffered.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::Stdout(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// Writes a buffer of whole lines, in pieces of whole lines.
    ///
    /// # Errors
    /// What the system says, with the number of bytes that were written before.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        match self {
            Self::Stdout(stdout) => write_fully(stdout, lines).map_err(|(written, source)| {
                WriteError { path: "stdout".to_owned(), written, source }
            }),
            Self::Pod(file) => file.write(lines),
        }
    }

    /// Reopens the file if the rotation has asked for it.
    ///
    /// # Errors
    /// The new file can't be made.
    pub fn reopen_if_asked(&mut self) -> Result<(), WriteError> {
        match self {
            Self::Stdout(_) => Ok(()),
            Self::Pod(file) if file.between_partials => Ok(()),
            Self::Pod(file) => file.reopen_if_asked(0),
        }
    }
}

/// The live log file of a container, held open as the runtime holds it.
#[derive(Debug)]
pub struct LiveFile {
    path: PathBuf,
    file: File,
    /// Set by the rotation after it has renamed the file; the runtime's `ReopenContainerLog`.
    reopen: Arc<AtomicBool>,
    /// Wait with reopening for a `P` fragment, and reopen between it and its `F`.
    between_partials: bool,
}

impl LiveFile {
    /// Makes the file and its directories, or goes on with a file that is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path, between_partials: bool) -> io::Result<Self> {
        let file = open_with_directories(path)?;
        let reopen = Arc::new(AtomicBool::new(false));
        Ok(Self { path: path.to_owned(), file, reopen, between_partials })
    }

    /// Path of the live file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The flag by which the rotation asks for a new file.
    pub fn reopen_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reopen)
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        let mut written = 0;
        if self.between_partials
            && self.reopen.load(Ordering::Acquire)
            && let Some(end) = first_partial_end(lines)
        {
            self.write_piece(&lines[..end], 0)?;
            self.reopen_if_asked(end)?;
            written = end;
        }
        while written < lines.len() {
            if !self.between_partials {
                self.reopen_if_asked(written)?;
            }
            let end = written + piece_length(&lines[written..]);
            self.write_piece(&lines[written..end], written)?;
            written = end;
        }
        Ok(())
    }

    fn write_piece(&mut self, piece: &[u8], before: usize) -> Result<(), WriteError> {
        write_fully(&mut self.file, piece)
            .map_err(|(written, source)| self.error(before + written, source))
    }

    fn reopen_if_asked(&mut self, written: usize) -> Result<(), WriteError> {
        if self.reopen.load(Ordering::Acquire) {
            self.file =
                open_with_directories(&self.path).map_err(|source| self.error(written, source))?;
            self.reopen.store(false, Ordering::Release);
        }
        Ok(())
    }

    fn error(&self, written: usize, source: io::Error) -> WriteError {
        WriteError { path: self.path.display().to_string(), written, source }
    }
}

/// Opens a log file, and makes its directories where there are none: whoever removes a pod's
/// directory under a running container gets a new one, as from a kubelet that starts the pod again.
fn open_with_directories(path: &Path) -> io::Result<File> {
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    }
    open(path)
}

/// Opens a log file as containerd does.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// Length of the whole lines that go into one `write`: at most [`WRITE_BYTES_MAX`], or one line. A
/// rotation may come between two writes, so also between two fragments, never inside one.
fn piece_length(lines: &[u8]) -> usize {
    let Some(head) = lines.get(..WRITE_BYTES_MAX) else { return lines.len() };
    let newline = head.iter().rposition(|&byte| byte == b'\n').or_else(|| {
        let rest = lines[WRITE_BYTES_MAX..].iter().position(|&byte| byte == b'\n');
        rest.map(|at| WRITE_BYTES_MAX + at)
    });
    newline.map_or(lines.len(), |at| at + 1)
}

/// End of the first line that is a `P` fragment.
fn first_partial_end(lines: &[u8]) -> Option<usize> {
    let mut parser = CriParser::default();
    let mut end = 0;
    lines.split_inclusive(|&byte| byte == b'\n').find_map(|line| {
        end += line.len();
        let parsed = parser.parse(&line[..line.len() - 1]);
        parsed.is_some_and(|line| line.is_partial()).then_some(end)
    })
}

/// Something to write to that may have to be waited for.
trait Output: Write {
    fn wait_until_writable(&self) -> io::Result<()>;
}

impl Output for File {
    fn wait_until_writable(&self) -> io::Result<()> {
        wait_until_writable(self.as_fd())
    }
}

fn wait_until_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes everything, or says how much was written before the error.
fn write_fully<O: Output>(output: &mut O, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match output.write(&bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the pipe has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                output.wait_until_writable().map_err(|error| (written, error))?;
            }
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// Takes a few bytes at a time, with interruptions, until it is full.
    struct Reluctant {
        taken: Vec<u8>,
        room: usize,
        calls: usize,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            match self.calls % 3 {
                0 => return Err(io::ErrorKind::Interrupted.into()),
                1 => return Err(io::ErrorKind::WouldBlock.into()),
                _ => {}
            }
            let length = bytes.len().min(3).min(self.room - self.taken.len());
            if length == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Reluctant {
        fn wait_until_writable(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Scenario: an output that takes three bytes a call, is interrupted, blocks, and fills up.
    /// Guarantees: all bytes arrive while there is room, and then the error tells how many did.
    #[test]
    fn short_writes_are_counted() {
        let mut output = Reluctant { taken: Vec::new(), room: 20, calls: 0 };
        write_fully(&mut output, b"0123456789").unwrap();
        let (written, error) = write_fully(&mut output, b"0123456789abc").unwrap_err();
        assert_eq!((written, error.kind()), (10, io::ErrorKind::StorageFull));
        assert_eq!(output.taken, b"01234567890123456789");
    }

    /// Scenario: buffers around the size of one write, of short lines and of one endless line.
    /// Guarantees: pieces end with a line, and are as long as they may be.
    #[test]
    fn pieces_are_whole_lines() {
        let short = b"0123456\n".repeat(WRITE_BYTES_MAX / 8 + 2);
        assert_eq!(piece_length(&short[..80]), 80);
        assert_eq!(piece_length(&short), WRITE_BYTES_MAX);
        assert_eq!(piece_length(&short[3..]), WRITE_BYTES_MAX - 3);
        let mut long = vec![b'x'; WRITE_BYTES_MAX * 2];
        long.push(b'\n');
        long.extend_from_slice(b"next\n");
        assert_eq!(piece_length(&long), WRITE_BYTES_MAX * 2 + 1);
    }

    /// Scenario: failure-modes.md row 8: the rotation asks for a new file, with the option set.
    /// Guarantees: the old file ends with the `P` fragment, the new one begins with its `F`.
    #[test]
    fn row_8_a_rotation_between_partials() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/0.log");
        let mut file = LiveFile::create(&path, true).unwrap();
        let old = directory.path().join("a/old");
        fs::rename(&path, &old).unwrap();
        file.reopen_flag().store(true, Ordering::Release);
        file.write(b"2024-01-01T00:00:00Z stdout F whole\n").unwrap();
        assert!(!path.exists());
        let lines = b"2024-01-01T00:00:01Z stdout F x\n2024-01-01T00:00:02Z stdout P y\n\
            2024-01-01T00:00:03Z stdout F z\n";
        file.write(lines).unwrap();
        let read = |path: &Path| {
            let mut text = String::new();
            File::open(path).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert!(read(&old).ends_with(" stdout P y\n"));
        assert_eq!(read(&path), "2024-01-01T00:00:03Z stdout F z\n");
    }
}
