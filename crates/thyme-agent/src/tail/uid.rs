//! An identity of a file that outlives its renaming, its compression, the agent and even the state
//! directory: derived from what does not change, never drawn by chance. Records carry it with their
//! offset (`parse/uid.rs`).
//!
//! It is a hash of the directory, the live name and the first line. The runtime writes each line's
//! time, in nanoseconds, so the first lines of two files of one container differ, and the inode can
//! be left out: the `.gz` of a file has another one. Where the first line has no such time, the
//! number and the birth of the inode are hashed too. Files that are alike all the same are counted
//! as far as they are known at one time.

use std::{
    ffi::OsStr,
    fmt,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{identity::Inode, source::Source};
use crate::{
    limits::FIRST_LINE_BYTES_MAX,
    parse::uid::{FILE_DIGITS, FileDigits},
};

/// Bytes of the hash that are kept: among ten thousand million files, two have the same by chance
/// with a probability of 1 in 10^9.
const HASH_BYTES: usize = FILE_DIGITS / 2;

/// Bytes of a first read, which nearly always holds the first line.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// Identity of one file's content from its beginning to its end or its truncation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileUid {
    hash: [u8; HASH_BYTES],
    /// How many files with this hash were known before it.
    repeat: u32,
}

/// What tells files apart whose first lines carry no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The file's number.
    pub inode: Inode,
    /// When that inode came to be, nanoseconds since the Unix epoch; 0 where the filesystem does
    /// not keep it.
    pub unix_nano: u64,
}

impl Birth {
    /// Of an open file, whose number is known.
    pub fn of(source: &Source, inode: Inode) -> Self {
        Self { inode, unix_nano: source.file().born_unix_nanos().unwrap_or(0) }
    }
}

impl FileUid {
    /// Derives it. `birth` is given where `first_line` has no time that the runtime wrote.
    pub fn derive(directory: &Path, live: &OsStr, first_line: &[u8], birth: Option<Birth>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        // Each part goes behind its length, so that no two lists of parts are one run of bytes.
        let mut part = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        part(b"thyme file 1");
        part(directory.as_os_str().as_bytes());
        part(live.as_bytes());
        part(first_line);
        if let Some(Birth { inode, unix_nano }) = birth {
            for number in [inode.device, inode.inode, unix_nano] {
                part(&number.to_le_bytes());
            }
        }
        Self { hash: shorten(context.finish()), repeat: 0 }
    }

    /// The same for a file that is not one of the known ones. `former` is what this file was before
    /// it was truncated: whatever it begins with now, it is counted on.
    pub fn distinct_from(
        self,
        known: impl IntoIterator<Item = Self>,
        former: Option<Self>,
    ) -> Self {
        let alike = known.into_iter().filter(|one| one.hash == self.hash);
        let last = alike.chain(former).map(|one| one.repeat).max();
        Self { repeat: last.map_or(0, |last| last.saturating_add(1)), ..self }
    }

    /// As records carry it.
    pub fn digits(self) -> FileDigits {
        let hash = if self.repeat == 0 {
            self.hash
        } else {
            let repeat = self.repeat.to_le_bytes();
            shorten(digest::digest(&digest::SHA256, &[&self.hash[..], &repeat].concat()))
        };
        let mut digits = [0; FILE_DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
            pair.copy_from_slice(&crate::parse::uid::hex::<2>(u64::from(byte)));
        }
        digits
    }
}

fn shorten(digest: digest::Digest) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&digest.as_ref()[..HASH_BYTES]);
    hash
}

/// The first line without its newline, decompressed; of a line that is longer than
/// [`FIRST_LINE_BYTES_MAX`], so many bytes. What is there of one whose end isn't.
pub fn first_line(source: &Source) -> io::Result<Vec<u8>> {
    let mut content = source.from_start().take(FIRST_LINE_BYTES_MAX as u64);
    let mut line = Vec::with_capacity(FIRST_READ_BYTES);
    loop {
        let looked_at = line.len();
        let read = content.by_ref().take(FIRST_READ_BYTES as u64).read_to_end(&mut line);
        // What came before an error may hold all of the line.
        if let Some(newline) = memchr::memchr(b'\n', &line[looked_at..]) {
            line.truncate(looked_at + newline);
            return Ok(line);
        }
        if read? == 0 {
            return Ok(line);
        }
    }
}

/// As a checkpoint has it: the hash, and `+n` where others were like it.
impl fmt::Display for FileUid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        if self.repeat > 0 {
            write!(out, "+{}", self.repeat)?;
        }
        Ok(())
    }
}

impl FileUid {
    /// What `Display` wrote.
    fn parse(text: &str) -> Option<Self> {
        let (digits, repeat) = match text.split_once('+') {
            Some((digits, repeat)) => (digits, repeat.parse().ok()?),
            None => (text, 0),
        };
        let digits: &FileDigits = digits.as_bytes().try_into().ok()?;
        let mut hash = [0; HASH_BYTES];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self { hash, repeat })
    }
}

impl Serialize for FileUid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileUid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("expected a file's identity"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::source::Archive;
    use std::io::{Seek, Write};

    const LINE: &[u8] = b"2026-01-02T03:04:05.678901234Z stdout F first";
    const BIRTH: Birth = Birth { inode: Inode { device: 1, inode: 7 }, unix_nano: 5 };

    fn derive(directory: &str, live: &str, line: &[u8], birth: Option<Birth>) -> FileUid {
        FileUid::derive(Path::new(directory), OsStr::new(live), line, birth)
    }

    /// Scenario: files that differ in one thing each: directory, live name, first line, number of
    /// the inode, its birth, and whether there is one; parts that are cut at other places.
    /// Guarantees: no two are alike, and the same is alike.
    #[test]
    fn whatever_differs_tells_files_apart() {
        let other_inode = Birth { inode: Inode { device: 1, inode: 8 }, ..BIRTH };
        let later = Birth { unix_nano: 6, ..BIRTH };
        let all = [
            derive("/a", "0.log", LINE, None),
            derive("/b", "0.log", LINE, None),
            derive("/a", "1.log", LINE, None),
            derive("/a", "0.log", b"other", None),
            derive("/a0", ".log", LINE, None),
            derive("/a", "0.log", LINE, Some(BIRTH)),
            derive("/a", "0.log", LINE, Some(other_inode)),
            derive("/a", "0.log", LINE, Some(later)),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| other.digits() != one.digits()), "{index}");
        }
        assert_eq!(all[0], derive("/a", "0.log", LINE, None));
    }

    /// Scenario: files with equal first lines are begun one after the other; then one of them is
    /// truncated twice, once to the same beginning and once to another.
    /// Guarantees: each is like no other, and an identity is what its text in a checkpoint says.
    #[test]
    fn equal_beginnings_are_counted() {
        let base = derive("/a", "0.log", LINE, None);
        let first = base.distinct_from([], None);
        let second = base.distinct_from([first], None);
        let third = base.distinct_from([second, first, derive("/a", "0.log", b"", None)], None);
        let again = base.distinct_from([first, second], Some(third));
        let anew = derive("/a", "0.log", b"anew", None).distinct_from([], Some(again));
        let all = [first, second, third, again, anew];
        for (index, one) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| other.digits() != one.digits()), "{index}");
            assert_eq!(FileUid::parse(&one.to_string()), Some(*one));
        }
        assert_eq!(first.to_string().as_bytes(), first.digits());
        for damaged in ["", "12", "zz0123456789012345678901", "012345678901234567890123+x"] {
            assert_eq!(FileUid::parse(damaged), None, "{damaged}");
        }
    }

    /// Scenario: first lines short and long, of a plain file and of its archive; one without an
    /// end, one that is longer than is looked at, an empty file.
    /// Guarantees: plain file and archive give the same, and their reading is not disturbed.
    #[test]
    fn plain_files_and_archives_begin_alike() {
        let contents = [
            b"first\nsecond\n".to_vec(),
            [vec![b'x'; 10_000], b"\nsecond\n".to_vec()].concat(),
            b"no end".to_vec(),
            vec![b'x'; FIRST_LINE_BYTES_MAX + 5],
            Vec::new(),
        ];
        for content in contents {
            let end = memchr::memchr(b'\n', &content).unwrap_or(content.len());
            let expected = &content[..end.min(FIRST_LINE_BYTES_MAX)];
            let mut plain = tempfile::tempfile().unwrap();
            plain.write_all(&content).unwrap();
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&content).unwrap();
            let mut packed = tempfile::tempfile().unwrap();
            packed.write_all(&encoder.finish().unwrap()).unwrap();
            packed.rewind().unwrap();
            let archive = Source::Archive(Box::new(Archive::new(Box::new(packed))));
            for mut source in [Source::Plain(Box::new(plain)), archive] {
                assert!(first_line(&source).unwrap() == expected);
                let mut buffer = vec![0; content.len()];
                assert_eq!(source.fill(&mut buffer, 0, 0).unwrap(), content.len());
                assert!(buffer == content);
            }
        }
    }
}
