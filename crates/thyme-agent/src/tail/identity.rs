//! Which file a file is: inode, when that came to be, and the hash of its head. The device decides between two
//! candidates for a position, since it may change with a reboot. The path's directory is part of
//! the identity too, since identities are compared only within one container's directory, so
//! files with equal heads in two directories are never taken for one.

use std::io;

use crate::world::LogFile;

/// Bytes of the head that the hash covers; fewer while the file is shorter.
pub const HEAD_BYTES_MAX: usize = 1024;

/// Number of a file on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

/// Whether two files of one number may be one, by when each came to be: a number is used again as soon as its
/// file is gone. What is not known says nothing.
pub fn may_be_one(born: Option<u64>, other: Option<u64>) -> bool {
    born.zip(other).is_none_or(|(born, other)| born == other)
}

/// Hash of a file's first bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How many bytes it covers, at most [`HEAD_BYTES_MAX`].
    pub bytes: u32,
    /// Their CRC-32 (ISO-HDLC).
    pub crc32: u32,
}

impl Head {
    /// The head that these first bytes of a file have.
    pub fn of(first: &[u8]) -> Self {
        let covered = &first[..first.len().min(HEAD_BYTES_MAX)];
        Self { bytes: covered.len() as u32, crc32: crc32fast::hash(covered) }
    }

    /// Reads the head of a file of at least `bytes` bytes; shorter when the file is.
    pub fn read(file: &dyn LogFile, bytes: usize) -> io::Result<Self> {
        Ok(Self::of(Self::first_bytes(file, bytes, &mut [0; HEAD_BYTES_MAX])?))
    }

    /// This head, longer where the file has grown and still begins with it. That of a file that was written
    /// anew says nothing of what was read.
    pub fn grown(self, file: &dyn LogFile) -> io::Result<Self> {
        if self.is_complete() {
            return Ok(self);
        }
        let mut buffer = [0; HEAD_BYTES_MAX];
        let first = Self::first_bytes(file, HEAD_BYTES_MAX, &mut buffer)?;
        let begins_so = first.get(..self.bytes as usize).is_some_and(|same| Self::of(same) == self);
        Ok(if begins_so { Self::of(first) } else { self })
    }

    /// The one of two heads of a file that covers more.
    pub fn longest(self, other: Self) -> Self {
        if other.bytes > self.bytes { other } else { self }
    }

    fn first_bytes<'a>(
        file: &dyn LogFile,
        bytes: usize,
        buffer: &'a mut [u8; HEAD_BYTES_MAX],
    ) -> io::Result<&'a [u8]> {
        let filled = file.fill_at(&mut buffer[..bytes.min(HEAD_BYTES_MAX)], 0)?;
        Ok(&buffer[..filled])
    }

    /// Whether `file` begins with the bytes that this is the hash of. An empty head says nothing,
    /// so every file begins with it.
    pub fn matches(self, file: &dyn LogFile) -> io::Result<bool> {
        Ok(Self::read(file, self.bytes as usize)? == self)
    }

    /// Whether it covers all that a head can.
    pub fn is_complete(self) -> bool {
        self.bytes as usize >= HEAD_BYTES_MAX
    }
}

/// Bytes that a front holds at most: a line that a runtime wrote has its time within them.
const FRONT_BYTES_MAX: usize = 64;

/// A file's very first bytes as they are. To compare them costs a fraction of a head's hash, so that it can
/// be done at each read.
#[derive(Clone, Copy, Debug)]
pub struct Front {
    bytes: u8,
    first: [u8; FRONT_BYTES_MAX],
}

impl Default for Front {
    fn default() -> Self {
        Self { bytes: 0, first: [0; FRONT_BYTES_MAX] }
    }
}

impl Front {
    /// The front that these first bytes of a file have.
    pub fn of(first: &[u8]) -> Self {
        let mut front = Self::default();
        let covered = &first[..first.len().min(FRONT_BYTES_MAX)];
        front.first[..covered.len()].copy_from_slice(covered);
        front.bytes = covered.len() as u8;
        front
    }

    /// The front that a file has now; this one, if it is known already.
    pub fn or_read(self, file: &dyn LogFile) -> io::Result<Self> {
        if self.bytes > 0 {
            return Ok(self);
        }
        let mut buffer = [0; FRONT_BYTES_MAX];
        let filled = file.fill_at(&mut buffer, 0)?;
        Ok(Self::of(&buffer[..filled]))
    }

    /// Whether `file` begins with these bytes; `None` where there are none.
    pub fn matches(&self, file: &dyn LogFile) -> io::Result<Option<bool>> {
        let known = &self.first[..usize::from(self.bytes)];
        if known.is_empty() {
            return Ok(None);
        }
        let mut buffer = [0; FRONT_BYTES_MAX];
        let filled = file.fill_at(&mut buffer[..known.len()], 0)?;
        Ok(Some(buffer[..filled] == *known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Scenario: a file grows behind a head that was taken while it was short; another file begins
    /// differently; a third is shorter than the head.
    /// Guarantees: only the first matches.
    #[test]
    fn a_head_survives_growth() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        let head = Head::read(&file, HEAD_BYTES_MAX).unwrap();
        assert_eq!(head.bytes, 5);
        file.write_all(&[b'x'; 5000]).unwrap();
        assert!(head.matches(&file).unwrap());
        assert!(head.grown(&file).unwrap().is_complete());
        for other in [&b"shirt and long"[..], b"shor"] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(other).unwrap();
            assert!(!head.matches(&file).unwrap());
            assert_eq!(head.grown(&file).unwrap(), head);
        }
    }
}
