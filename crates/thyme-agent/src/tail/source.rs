//! Bytes of one log file from an offset on: a plain file, or a `.gz` archive in its decompressed
//! offsets. It must not know what the bytes mean.

use std::io::{self, Read};

use super::{
    gzip::{Gunzip, GunzipReader, GzipEnd},
    identity::{HEAD_BYTES_MAX, Head},
};
use crate::world::LogFile;

/// Where a file's bytes come from.
pub enum Source {
    /// Read at any offset, again if need be.
    Plain(Box<dyn LogFile>),
    /// Read once, forwards.
    Archive(Box<Archive>),
}

impl Source {
    /// Fills `buffer` from `offset` on as far as there are bytes; `kept` bytes at its front are
    /// already those from `offset` on. Returns how many bytes are in it then. An error means that
    /// there are none: what came before it is returned first, and the next call meets it again.
    pub fn fill(&mut self, buffer: &mut [u8], kept: usize, offset: u64) -> io::Result<usize> {
        match self {
            Self::Plain(file) => {
                match retry(|| file.read_at(&mut buffer[kept..], offset + kept as u64)) {
                    Ok(read) => Ok(kept + read),
                    Err(_) if kept > 0 => Ok(kept),
                    Err(error) => Err(error),
                }
            }
            Self::Archive(archive) => archive.fill(buffer, offset),
        }
    }

    /// The file itself.
    pub fn file(&self) -> &dyn LogFile {
        match self {
            Self::Plain(file) => &**file,
            Self::Archive(archive) => &*archive.file,
        }
    }

    /// Its bytes from the start, whatever has been read; [`Source::fill`] doesn't notice. Of a
    /// damaged archive, those before the damage.
    pub fn from_start(&self) -> Box<dyn Read + '_> {
        match self {
            Self::Plain(file) => Box::new(Sequential { file: &**file, offset: 0 }),
            Self::Archive(archive) => Box::new(GunzipReader::new(&*archive.file)),
        }
    }

    /// Whether what [`Source::fill`] returned is lost to the next call unless given back.
    pub fn give_back(&mut self, rest: &[u8]) {
        if let Self::Archive(archive) = self {
            archive.carry.splice(..0, rest.iter().copied());
        }
    }
}

/// A `.gz` archive, read from its start to its end.
///
/// Its decoder is made when it is first read from and dropped at its end, or when another archive
/// needs it more: then it is made again, and decompresses up to where reading goes on.
pub struct Archive {
    /// Its compressed bytes.
    file: Box<dyn LogFile>,
    decoder: Option<Box<Gunzip>>,
    /// Decompressed offset of what the decoder gives next.
    decoded: u64,
    /// What was given back, which precedes `decoded`: the beginning of an unfinished line, perhaps
    /// longer than the next buffer.
    carry: Vec<u8>,
    /// How it ended, once the decoder has come to its end.
    end: Option<GzipEnd>,
    /// How long it was on disk then.
    end_bytes: u64,
}

impl Archive {
    /// Of an open file.
    pub fn new(file: Box<dyn LogFile>) -> Self {
        Self { file, decoder: None, decoded: 0, carry: Vec::new(), end: None, end_bytes: 0 }
    }

    /// The head of what it holds.
    pub fn head(file: &dyn LogFile, bytes: usize) -> io::Result<Head> {
        let mut first = Vec::with_capacity(HEAD_BYTES_MAX);
        GunzipReader::new(file).take(bytes.min(HEAD_BYTES_MAX) as u64).read_to_end(&mut first)?;
        Ok(Head::of(&first))
    }

    /// Whether it holds more than so many bytes, as far as it can be decompressed.
    pub fn holds_beyond(file: &dyn LogFile, bytes: u64) -> io::Result<bool> {
        let mut content = GunzipReader::new(file);
        let skipped = io::copy(&mut content.by_ref().take(bytes), &mut io::sink())?;
        Ok(skipped == bytes && content.read(&mut [0])? > 0)
    }

    /// How it ended, once all of it was decompressed.
    pub fn end(&self) -> Option<&GzipEnd> {
        self.end.as_ref()
    }

    /// Its compressed bytes.
    pub fn file(&self) -> &dyn LogFile {
        &*self.file
    }

    /// How long it was on disk when it was found to be cut off; `None` where it is not.
    pub fn cut_at(&self) -> Option<u64> {
        matches!(self.end, Some(GzipEnd::Cut)).then_some(self.end_bytes)
    }

    /// More was written behind where it was cut off: it is decompressed again up to there.
    pub fn read_on(&mut self) {
        (self.end, self.decoder) = (None, None);
        (self.carry, self.decoded) = (Vec::new(), 0);
    }

    /// Whether it holds a decoder.
    pub fn is_decoding(&self) -> bool {
        self.decoder.is_some()
    }

    /// Gives its decoder up. What it has not given yet it decompresses again, from its start.
    pub fn release(&mut self) {
        if self.decoder.take().is_some() {
            self.carry = Vec::new();
            self.decoded = 0;
        }
    }

    fn fill(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let carried = self.carry.len().min(buffer.len());
        buffer[..carried].copy_from_slice(&self.carry[..carried]);
        if carried < self.carry.len() {
            self.carry.drain(..carried);
            return Ok(carried);
        }
        let mut filled = carried;
        if let Err(error) = self.skip_to(offset + carried as u64, &mut buffer[carried..]) {
            // What is carried was decompressed before: then there is nothing to skip.
            debug_assert_eq!(carried, 0);
            return Err(error);
        }
        while filled < buffer.len() && self.end.is_none() {
            match self.decode(&mut buffer[filled..]) {
                Ok(read) => filled += read,
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        self.carry.clear();
        Ok(filled)
    }

    fn decode(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let decoder = self.decoder.get_or_insert_default();
        let read = decoder.read(&*self.file, buffer)?;
        self.decoded += read as u64;
        if read == 0 && !buffer.is_empty() {
            self.end = decoder.end().cloned();
            self.end_bytes = decoder.read_bytes();
            self.decoder = None;
        }
        Ok(read)
    }

    /// Decompresses and forgets up to `offset`, with `scratch` as the place for it.
    fn skip_to(&mut self, offset: u64, scratch: &mut [u8]) -> io::Result<()> {
        while self.decoded < offset && self.end.is_none() && !scratch.is_empty() {
            let wanted = scratch.len().min((offset - self.decoded) as usize);
            self.decode(&mut scratch[..wanted])?;
        }
        Ok(())
    }
}

/// Reads a file from its start to its end.
struct Sequential<'a> {
    file: &'a dyn LogFile,
    offset: u64,
}

impl Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

pub(super) fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Seek, Write},
    };

    fn archive(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        file.write_all(&encoder.finish().unwrap()).unwrap();
        file.rewind().unwrap();
        file
    }

    /// Scenario: an archive is resumed in its middle and read in small pieces, of which the ends
    /// are given back each time.
    /// Guarantees: every byte from the offset on comes once, in order.
    #[test]
    fn archives_resume_at_an_offset() {
        let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = archive(&content);
        let head = Archive::head(&file, HEAD_BYTES_MAX).unwrap();
        assert_eq!(head, Head::of(&content));
        let mut source = Source::Archive(Box::new(Archive::new(Box::new(file))));
        let mut offset = 70_001_usize;
        let mut buffer = [0; 4096];
        loop {
            let filled = source.fill(&mut buffer, 0, offset as u64).unwrap();
            assert_eq!(buffer[..filled], content[offset..offset + filled]);
            if filled == 0 {
                break;
            }
            let consumed = filled.min(4000);
            source.give_back(&buffer[consumed..filled]);
            offset += consumed;
        }
        assert_eq!(offset, content.len());
    }

    /// Scenario: an unfinished line is read into a buffer that was grown for it, and given back
    /// whole; the next buffer is as small as at first.
    /// Guarantees: what does not fit waits; every byte comes once, in order.
    #[test]
    fn what_was_given_back_may_be_larger_than_the_buffer() {
        let content: Vec<u8> = (0..25_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut source = Source::Archive(Box::new(Archive::new(Box::new(archive(&content)))));
        let (mut large, mut small) = (vec![0; 40_000], [0; 4096]);
        let filled = source.fill(&mut large, 0, 0).unwrap();
        source.give_back(&large[..filled]);
        let mut offset = 0;
        while offset < content.len() {
            let filled = source.fill(&mut small, 0, offset as u64).unwrap();
            assert_eq!(small[..filled], content[offset..offset + filled]);
            let consumed = filled.min(4000);
            source.give_back(&small[consumed..filled]);
            offset += consumed;
        }
        assert_eq!(source.fill(&mut small, 0, offset as u64).unwrap(), 0);
    }
}
