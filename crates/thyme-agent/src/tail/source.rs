//! Bytes of one log file from an offset on: a plain file, or a `.gz` archive in its decompressed
//! offsets. It must not know what the bytes mean.

use std::{
    io::{self, Read},
    sync::Arc,
};

use flate2::read::MultiGzDecoder;

use super::identity::{HEAD_BYTES_MAX, Head};
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
    /// already those from `offset` on. Returns how many bytes are in it then.
    pub fn fill(&mut self, buffer: &mut [u8], kept: usize, offset: u64) -> io::Result<usize> {
        match self {
            Self::Plain(file) => {
                let read = retry(|| file.read_at(&mut buffer[kept..], offset + kept as u64))?;
                Ok(kept + read)
            }
            Self::Archive(archive) => archive.fill(buffer, offset),
        }
    }

    /// Of an archive: its compressed bytes that were not read.
    pub fn rest_bytes(&self) -> Option<u64> {
        let Self::Archive(archive) = self else { return None };
        let Sequential { file, offset } = archive.decoder.get_ref();
        Some(file.length().ok()?.saturating_sub(*offset))
    }

    /// The file itself.
    pub fn file(&self) -> &dyn LogFile {
        match self {
            Self::Plain(file) => &**file,
            Self::Archive(archive) => &*archive.file,
        }
    }

    /// Its bytes from the start, whatever has been read; [`Source::fill`] doesn't notice.
    pub fn from_start(&self) -> Box<dyn Read + '_> {
        let plain = Sequential { file: self.file(), offset: 0 };
        match self {
            Self::Plain(_) => Box::new(plain),
            Self::Archive(_) => Box::new(MultiGzDecoder::new(plain)),
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
pub struct Archive {
    /// Its compressed bytes, which the decoder reads.
    file: Arc<dyn LogFile>,
    decoder: MultiGzDecoder<Sequential<Arc<dyn LogFile>>>,
    /// Decompressed offset of what the decoder gives next.
    decoded: u64,
    /// What was given back, which precedes `decoded`: the beginning of an unfinished line, perhaps
    /// longer than the next buffer.
    carry: Vec<u8>,
    /// Set once the decoder has said that there is no more.
    ended: bool,
}

impl Archive {
    /// Opens it at the start.
    pub fn new(file: Box<dyn LogFile>) -> Self {
        Self::from_start(Arc::from(file))
    }

    fn from_start(file: Arc<dyn LogFile>) -> Self {
        let decoder = MultiGzDecoder::new(Sequential { file: Arc::clone(&file), offset: 0 });
        Self { file, decoder, decoded: 0, carry: Vec::new(), ended: false }
    }

    /// Goes back to the start, since a decoder can't be trusted after a failed read.
    fn rewind(&mut self) {
        *self = Self::from_start(Arc::clone(&self.file));
    }

    /// The head of what it holds.
    pub fn head(file: &dyn LogFile, bytes: usize) -> io::Result<Head> {
        let mut first = Vec::with_capacity(HEAD_BYTES_MAX);
        let decoder = MultiGzDecoder::new(Sequential { file, offset: 0 });
        decoder.take(bytes.min(HEAD_BYTES_MAX) as u64).read_to_end(&mut first)?;
        Ok(Head::of(&first))
    }

    /// After an error of the operating system the next call begins anew; after one of the decoder
    /// there is nothing to be had any more.
    fn fill(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let result = self.fill_on(buffer, offset);
        if result.as_ref().is_err_and(|error| error.raw_os_error().is_some()) {
            self.rewind();
        }
        result
    }

    fn fill_on(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let carried = self.carry.len().min(buffer.len());
        buffer[..carried].copy_from_slice(&self.carry[..carried]);
        if carried < self.carry.len() {
            self.carry.drain(..carried);
            return Ok(carried);
        }
        self.skip_to(offset + carried as u64, &mut buffer[carried..])?;
        let mut filled = carried;
        while filled < buffer.len() && !self.ended {
            match self.decode(&mut buffer[filled..])? {
                0 => self.ended = true,
                read => {
                    filled += read;
                    self.decoded += read as u64;
                }
            }
        }
        // Not before: a call that failed comes again.
        self.carry.clear();
        Ok(filled)
    }

    fn decode(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| self.decoder.read(buffer))
    }

    /// Decompresses and forgets up to `offset`, with `scratch` as the place for it.
    fn skip_to(&mut self, offset: u64, scratch: &mut [u8]) -> io::Result<()> {
        while self.decoded < offset && !self.ended {
            let wanted = scratch.len().min((offset - self.decoded) as usize);
            match self.decode(&mut scratch[..wanted])? {
                0 => self.ended = true,
                read => self.decoded += read as u64,
            }
        }
        Ok(())
    }
}

/// Reads a file from its start to its end.
struct Sequential<F> {
    file: F,
    offset: u64,
}

impl Read for Sequential<&dyn LogFile> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Read for Sequential<Arc<dyn LogFile>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
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
