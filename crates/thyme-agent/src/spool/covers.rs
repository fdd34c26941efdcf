//! Which bytes of which files a request covers, noted beside it. A start that finds the request takes
//! these bytes for settled: the agent may have been killed before a checkpoint said so. It must not
//! decide whose they are: that is for the numbers that files had in the life that wrote the note.
//!
//! ```text
//! note  = life(8) covered* crc32(4)      little endian; the CRC is of all before it
//! covered = key(8) start(8) end(8)
//! ```

use std::io;

use super::{
    cursor,
    segment::{self, Found},
    store::{DIRECTORY, SEGMENT_SUFFIX},
};
use crate::{checkpoint::FileKey, world::StateDisk};

/// A file's number in checkpoints, the first byte, and one past the last.
pub type Covered = (FileKey, u64, u64);

const ENTRY_BYTES: usize = 24;

/// The note of a request; nothing where it covers nothing, or more than a note can say.
pub(super) fn encode(life: u64, covers: &[Covered]) -> Vec<u8> {
    let bytes = 8 + covers.len() * ENTRY_BYTES + 4;
    if covers.is_empty() || bytes > segment::NOTE_BYTES_MAX {
        return Vec::new();
    }
    let mut note = Vec::with_capacity(bytes);
    note.extend(life.to_le_bytes());
    note.extend(
        covers.iter().flat_map(|&(key, start, end)| [key, start, end]).flat_map(u64::to_le_bytes),
    );
    note.extend(crc32fast::hash(&note).to_le_bytes());
    note
}

/// What a note of that life says; nothing where it is of another one, or damaged.
fn decode(note: &[u8], life: u64) -> Option<impl Iterator<Item = Covered> + '_> {
    let (content, crc32) = note.split_last_chunk::<4>()?;
    let (written_by, entries) = content.split_first_chunk::<8>()?;
    let is_whole = crc32fast::hash(content) == u32::from_le_bytes(*crc32);
    let is_meant = is_whole && u64::from_le_bytes(*written_by) == life;
    is_meant.then(|| {
        entries.chunks_exact(ENTRY_BYTES).map(|entry| {
            let number =
                |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| entry[at + byte]));
            (number(0), number(8), number(16))
        })
    })
}

/// What requests cover that a life has kept, and that are still to be sent, as far as `is_news` says of
/// any of it that it was not known. Their bodies are whole: what the next reading would give up as
/// damaged is read from its file again, if that is there. Without a cursor that can be read, nothing: a
/// request may stand in a segment that was never kept, because what was written with it failed.
///
/// # Errors
/// When the segments can't be read, or not synced.
pub fn covered(
    disk: &dyn StateDisk,
    life: u64,
    is_news: &dyn Fn(&Covered) -> bool,
) -> io::Result<Vec<Covered>> {
    let mut names = match disk.names(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    names.retain(|name| name.ends_with(SEGMENT_SUFFIX));
    let Some(cursor::Known { done, .. }) = cursor::load(disk) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for name in names {
        let mut file = disk.open(&format!("{DIRECTORY}/{name}"))?;
        let (length, mut offset, before) = (file.length()?, 0, all.len());
        loop {
            match segment::look(&*file, offset, length)? {
                Found::End => break,
                Found::Nothing { end, .. } => offset = end,
                Found::Record(header) => {
                    let note = segment::read_note(&*file, offset, &header)?;
                    let covers = decode(&note, life).filter(|_| done.skip(header.id) == header.id);
                    let covers: Vec<Covered> = covers.into_iter().flatten().collect();
                    if covers.iter().any(is_news)
                        && segment::read_body(&*file, offset, &header)?.is_some()
                    {
                        all.extend(covers);
                    }
                    offset += header.record_bytes();
                }
            }
        }
        // The life that wrote it may have ended before it was synced, and a checkpoint that says so is.
        if all.len() > before {
            file.sync()?;
        }
    }
    Ok(all)
}
