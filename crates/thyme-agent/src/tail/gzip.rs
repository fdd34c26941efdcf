//! A gzip file as `gzip -dc` reads it: member after member, everything that can be decompressed before
//! an error, and nothing of what follows the last member. It must not decide what an error means for
//! those who read.

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};

use crate::{
    limits::{ARCHIVE_READ_BYTES, ARCHIVE_TRAILER_BYTES_MAX},
    world::LogFile,
};

/// What each member begins with.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Base-2 logarithm of deflate's window.
const WINDOW_BITS: u8 = 15;

/// How a gzip file ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GzipEnd {
    /// Its last member is whole. Zeros behind it are padding.
    Whole,
    /// Its last member is whole, and so many bytes follow that are no member.
    Trailer {
        /// Bytes as they stand in the file.
        bytes: u64,
    },
    /// The file ends within a member; what could be decompressed of it was given. It may still be
    /// written.
    Cut,
    /// A member is damaged; what could be decompressed of it was given.
    Damaged {
        /// What is wrong with it.
        cause: String,
        /// Bytes of the file behind the damage.
        rest_bytes: u64,
    },
}

/// Reads one gzip file from its start. It takes about 64 KiB.
pub struct Gunzip {
    inflate: Decompress,
    input: Box<[u8]>,
    /// The part of `input` that has not been decompressed.
    at: usize,
    filled: usize,
    /// Where the file is read next.
    offset: u64,
    /// Set within a member.
    is_in_member: bool,
    end: Option<GzipEnd>,
}

impl Default for Gunzip {
    fn default() -> Self {
        Self {
            inflate: Decompress::new_gzip(WINDOW_BITS),
            input: vec![0; ARCHIVE_READ_BYTES].into(),
            at: 0,
            filled: 0,
            offset: 0,
            // Whatever the file begins with is a member, or damage.
            is_in_member: true,
            end: None,
        }
    }
}

impl Gunzip {
    /// How the file ended, once all of it was given.
    pub fn end(&self) -> Option<&GzipEnd> {
        self.end.as_ref()
    }

    /// Bytes that were read of the file, as they stand in it.
    pub fn read_bytes(&self) -> u64 {
        self.offset
    }

    /// Decompresses on into `out`; 0 at the end. An error is one of reading the file: nothing is lost
    /// by it, and the next call tries again.
    pub fn read(&mut self, file: &dyn LogFile, out: &mut [u8]) -> io::Result<usize> {
        while self.end.is_none() && !out.is_empty() {
            if !self.is_in_member {
                self.begin_member(file)?;
                continue;
            }
            let has_input = self.at < self.filled || self.refill(file)? > 0;
            let written = self.inflate(file, out, has_input);
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }

    fn inflate(&mut self, file: &dyn LogFile, out: &mut [u8], has_input: bool) -> usize {
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let input = &self.input[self.at..self.filled];
        let result = self.inflate.decompress(input, out, FlushDecompress::None);
        let consumed = (self.inflate.total_in() - before.0) as usize;
        let written = (self.inflate.total_out() - before.1) as usize;
        self.at += consumed;
        match result {
            Ok(Status::StreamEnd) => {
                self.is_in_member = false;
                self.inflate = Decompress::new_gzip(WINDOW_BITS);
            }
            Ok(_) if consumed + written > 0 => {}
            Ok(_) if !has_input => self.end = Some(GzipEnd::Cut),
            Ok(_) => self.end_damaged(file, "it decompresses to nothing".to_owned()),
            Err(error) => self.end_damaged(file, error.to_string()),
        }
        written
    }

    fn end_damaged(&mut self, file: &dyn LogFile, cause: String) {
        self.end = Some(GzipEnd::Damaged { cause, rest_bytes: self.rest_bytes(file) });
    }

    /// Bytes of the file that were not decompressed.
    fn rest_bytes(&self, file: &dyn LogFile) -> u64 {
        let taken = self.offset - (self.filled - self.at) as u64;
        file.length().map_or(0, |length| length.saturating_sub(taken))
    }

    /// Looks at what stands behind a member.
    fn begin_member(&mut self, file: &dyn LogFile) -> io::Result<()> {
        let mut is_at_end = false;
        while self.filled - self.at < MAGIC.len() && !is_at_end {
            is_at_end = self.refill(file)? == 0;
        }
        if self.input[self.at..self.filled].starts_with(&MAGIC) {
            self.is_in_member = true;
            return Ok(());
        }
        let bytes = self.rest_bytes(file);
        let mut looked_at = 0;
        loop {
            let behind = &self.input[self.at..self.filled];
            if behind.iter().any(|byte| *byte != 0) {
                self.end = Some(GzipEnd::Trailer { bytes });
                return Ok(());
            }
            looked_at += behind.len();
            self.at = self.filled;
            if is_at_end || looked_at >= ARCHIVE_TRAILER_BYTES_MAX {
                self.end = Some(GzipEnd::Whole);
                return Ok(());
            }
            is_at_end = self.refill(file)? == 0;
        }
    }

    /// Reads more input behind what is left of it; 0 at the end of the file.
    fn refill(&mut self, file: &dyn LogFile) -> io::Result<usize> {
        self.input.copy_within(self.at..self.filled, 0);
        self.filled -= self.at;
        self.at = 0;
        let room = &mut self.input[self.filled..];
        let read = super::source::retry(|| file.read_at(room, self.offset))?;
        self.filled += read;
        self.offset += read as u64;
        Ok(read)
    }
}

/// A gzip file's content as a stream, up to damage.
pub struct GunzipReader<'a> {
    file: &'a dyn LogFile,
    gunzip: Gunzip,
}

impl<'a> GunzipReader<'a> {
    /// From its start.
    pub fn new(file: &'a dyn LogFile) -> Self {
        Self { file, gunzip: Gunzip::default() }
    }
}

impl Read for GunzipReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.gunzip.read(self.file, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{
        fs::File,
        io::Write,
        process::{Command, Stdio},
        sync::atomic::{AtomicBool, Ordering},
    };

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn gunzip(file: &dyn LogFile, step: usize) -> (Vec<u8>, GzipEnd) {
        let (mut gunzip, mut content) = (Gunzip::default(), Vec::new());
        let mut buffer = vec![0; step];
        loop {
            match gunzip.read(file, &mut buffer).unwrap() {
                0 => return (content, gunzip.end().unwrap().clone()),
                read => content.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// Text that no compressor makes much smaller.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            b' ' + (seed % 90) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    /// Scenario: an archive of two members that is cut at every place near a boundary, and at others.
    /// Guarantees: all that a strict decoder gives before the cut is given, and the end is a cut, but
    /// where the cut is between two members.
    #[test]
    fn a_cut_archive_gives_what_stands_before_the_cut() {
        let content = noise(60_000);
        let (first, second) = content.split_at(41_000);
        let (head, tail) = (gzip(first), gzip(second));
        let whole = [&head[..], &tail].concat();
        for cut in (0..whole.len()).filter(|at| at % 997 == 0 || at.abs_diff(head.len()) < 30) {
            let (found, end) = gunzip(&file(&whole[..cut]), 4_096);
            assert!(content.starts_with(&found));
            let mut given = Vec::new();
            let mut strict = flate2::write::MultiGzDecoder::new(&mut given);
            let _cut = strict.write_all(&whole[..cut]).and_then(|()| strict.flush());
            drop(strict);
            assert!(found.len() >= given.len(), "{cut}: {} of {}", found.len(), given.len());
            match end {
                GzipEnd::Whole => assert_eq!((cut, found.len()), (head.len(), first.len())),
                // A single byte of the next member's magic says nothing.
                GzipEnd::Trailer { bytes } => assert_eq!((cut, bytes), (head.len() + 1, 1)),
                GzipEnd::Cut => {}
                end @ GzipEnd::Damaged { .. } => panic!("{end:?}"),
            }
        }
    }

    /// Scenario: behind good data comes a block of a kind that does not exist, and more; all of it is
    /// decompressed in one step, or in many.
    /// Guarantees: the good data is given, and what is behind the damage is counted.
    #[test]
    fn data_before_damage_is_given() {
        let content = noise(10_000);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&content).unwrap();
        encoder.flush().unwrap();
        let mut archive = encoder.get_ref().clone();
        archive.extend_from_slice(&[0xff; 500]);
        for step in [100, 20_000] {
            let (found, end) = gunzip(&file(&archive), step);
            assert!(found == content, "{} bytes", found.len());
            let GzipEnd::Damaged { rest_bytes, .. } = end else { panic!("{end:?}") };
            assert!((490..=500).contains(&rest_bytes), "{rest_bytes}");
        }
    }

    /// Scenario: zeros, text, zeros and text, and half of a magic behind one and two members.
    /// Guarantees: the content is whole. Zeros are padding, all else is told with its length.
    #[test]
    fn what_follows_the_last_member_is_no_damage() {
        let content = noise(40_000);
        let two = [gzip(&content[..9_000]), gzip(&content[9_000..])].concat();
        for archive in [gzip(&content), two] {
            for (trailer, bytes) in [
                (&b""[..], 0_u64),
                (&[0; 512], 0),
                (&[0; 300_000], 0),
                (b"\0", 0),
                (b"appended by hand\n", 17),
                (b"\0\0\0x", 4),
                (b"\x1f", 1),
                (b"\x1fx\x8b", 3),
            ] {
                let (found, end) = gunzip(&file(&[&archive[..], trailer].concat()), 1_000);
                assert!(found == content);
                let expected = if bytes == 0 { GzipEnd::Whole } else { GzipEnd::Trailer { bytes } };
                assert_eq!(end, expected);
            }
        }
    }

    /// What `gzip -dc` gives, and whether it is content with that; nothing where there is no such program.
    fn program(archive: Vec<u8>) -> Option<(Vec<u8>, bool)> {
        let mut gzip = Command::new("gzip")
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut input = gzip.stdin.take().unwrap();
        let writer = std::thread::spawn(move || drop(input.write_all(&archive)));
        let output = gzip.wait_with_output().unwrap();
        writer.join().unwrap();
        Some((output.stdout, output.status.success()))
    }

    /// Scenario: an archive is cut where a reference to what stands before follows, and behind the cut are
    /// bytes that make it one to before the first byte. `gzip` follows it, into memory that nothing was
    /// written to.
    /// Guarantees: all that was written is given. What `gzip` gives beyond it is no content.
    #[test]
    fn what_never_was_written_is_not_given() {
        let content = noise(18_892);
        let whole = gzip(&content);
        // The first one was found by the test below.
        let first = (whole.len() as u128 * 6_880_216_073_605_154_286) >> 64;
        for cut in first as usize..whole.len() {
            let archive = [&whole[..cut], b"hpaa"].concat();
            let (found, _) = gunzip(&file(&archive), 1);
            let Some((given, _)) = program(archive) else { return };
            if found.starts_with(&given) {
                continue;
            }
            let more = given.strip_prefix(&found[..]).unwrap();
            assert_eq!(more[0], 0, "no text has zeros: {cut}, {more:?}");
            return;
        }
        panic!("no such cut");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Scenario: one byte of an archive is changed, it is cut, or something follows, behind its end or
        /// the cut; it is read in steps of any length. The program `gzip` is the oracle, where there is one.
        /// Guarantees: at least what `gzip -dc` gives is given, but for what never was written, and where it
        /// succeeds the end is whole.
        #[test]
        fn all_that_gzip_gives_is_given(
            bytes in 0..90_000_usize, flip in any::<prop::sample::Index>(), mask in 0..4_u8,
            cut in prop::option::of(any::<prop::sample::Index>()), trailer in "[a-z\0]{0,4}",
            step in 1..70_000_usize,
        ) {
            let content = noise(bytes);
            let mut archive = gzip(&content);
            let at = flip.index(archive.len());
            archive[at] ^= mask;
            if let Some(cut) = cut {
                archive.truncate(cut.index(archive.len()));
            }
            archive.extend_from_slice(trailer.as_bytes());
            let (found, end) = gunzip(&file(&archive), step);
            let Some((given, is_content)) = program(archive) else { return Ok(()) };
            // `gzip` doesn't notice some damage at once; then it gives more, of what never was written.
            let is_changed = mask > 0 || cut.is_some() && !trailer.is_empty();
            let is_more = is_changed && given.starts_with(&found);
            prop_assert!(found.starts_with(&given) || is_more, "{} bytes", found.len());
            if is_content {
                prop_assert_eq!(found.len(), given.len());
                prop_assert_eq!(end, GzipEnd::Whole);
            }
        }
    }

    /// A file that can't be read from some place on, every other time.
    #[derive(Debug)]
    struct Unsteady {
        file: File,
        bad_from: u64,
        fails: AtomicBool,
    }

    impl LogFile for Unsteady {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            if offset >= self.bad_from && !self.fails.fetch_not(Ordering::Relaxed) {
                return Err(io::Error::from_raw_os_error(5));
            }
            let bytes = buffer.len().min(1_000);
            LogFile::read_at(&self.file, &mut buffer[..bytes], offset)
        }
        fn state(&self) -> io::Result<crate::world::FileState> {
            self.file.state()
        }
    }

    /// Scenario: every other read of an archive fails, from its middle on.
    /// Guarantees: what came before is given, the error is told, and the next call goes on.
    #[test]
    fn a_failed_read_takes_nothing_away() {
        let content = noise(50_000);
        let archive = gzip(&content);
        let bad_from = archive.len() as u64 / 2;
        let file = Unsteady { file: file(&archive), bad_from, fails: AtomicBool::new(false) };
        let (mut gunzip, mut found, mut errors) = (Gunzip::default(), Vec::new(), 0);
        let mut buffer = [0; 8_192];
        while gunzip.end().is_none() {
            match gunzip.read(&file, &mut buffer) {
                Ok(read) => found.extend_from_slice(&buffer[..read]),
                Err(_) => errors += 1,
            }
        }
        assert!(found == content);
        assert!(errors > 10);
    }
}
