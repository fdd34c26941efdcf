//! The lines of the state: what is known of each file, and what changed since, as JSON.
//!
//! A snapshot is a first line with version, CRC-32 and length, then a line for each file. The number
//! in the first line is the oldest version that can read it. What version 1 knows stands where it
//! expects it; what came later are keys that it passes over. Keys that this version does not know
//! are kept, and written again.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::IgnoredAny};
use serde_json::{Map, Value};

use super::{
    FileKey,
    frame::{self, FrameError},
};
use crate::tail::{
    acknowledge::Acknowledged,
    ending::Ending,
    identity::{Head, Inode},
    uid::FileUid,
};

const MAGIC: &str = "thyme-checkpoints 1";

/// Why a file of the state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The frame around the lines.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A line isn't a checkpoint.
    #[error("line {line}: {source}")]
    Line {
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// How far a receiver's file has been acknowledged. Its names are shared with the worker, so that a
/// copy after each acknowledgement allocates nothing but ranges beyond the offset, where there are any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCheckpoint {
    /// Canonical name of the receiver that reads it, such as `file_log/pods`; empty where an agent
    /// wrote it that knew no receivers.
    #[serde(default = "no_name", skip_serializing_if = "str::is_empty")]
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    pub receiver: Arc<str>,
    /// Its directory.
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    pub directory: Arc<Path>,
    /// Name of the live file that it is or was, such as `0.log`.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub live: Arc<OsStr>,
    /// Its present name, such as `0.log.20260101-000000`, without `.gz`.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub name: Arc<OsStr>,
    /// `st_dev`. Another one after a reboot or a remount says nothing: it decides only between two
    /// files that are alike otherwise.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Bytes that `head_crc32` covers.
    pub head_bytes: u32,
    /// Hash of its first bytes.
    pub head_crc32: u32,
    /// Bytes in front of `offset` that `tail_crc32` covers; 0 where it says nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tail_bytes: u32,
    /// Hash of the last bytes in front of `offset`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tail_crc32: u32,
    /// How long it was known to be, decompressed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub length: u64,
    /// Every byte below is acknowledged; of an archive, decompressed bytes.
    pub offset: u64,
    /// Acknowledged ranges beyond `offset`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<(u64, u64)>,
    /// Whether it was read to its end after its successor came.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
    /// What its records carry; absent until one was to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<FileUid>,
    /// What its records carried before it was truncated, as long as none has been read since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_uid: Option<FileUid>,
    /// What else its line says; nothing, most of the time.
    #[serde(skip)]
    pub others: Option<Box<Others>>,
}

/// What a line says beside the position of the sink at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Positions of other sinks, by canonical name.
    pub positions: BTreeMap<String, Position>,
    /// Keys of the position at hand that this version does not know.
    pub of_position: Map<String, Value>,
    /// Keys of the file that this version does not know.
    pub unknown: Map<String, Value>,
    /// What the spool has of it, which goes for every position; not on disk.
    pub spooled: Vec<(u64, u64)>,
}

impl Others {
    fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// How far a sink has acknowledged a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// As of [`FileCheckpoint`].
    pub offset: u64,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<(u64, u64)>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
    /// Likewise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tail_bytes: u32,
    /// Likewise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tail_crc32: u32,
    /// Likewise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub length: u64,
    /// Keys that this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl FileCheckpoint {
    /// What stood in front of `offset`.
    pub fn ending(&self) -> Ending {
        Ending { bytes: self.tail_bytes, crc32: self.tail_crc32 }
    }

    /// Bytes that it was known to hold, and that are not acknowledged: so many are lost, at least, if
    /// it is gone.
    pub fn lost_bytes(&self) -> u64 {
        if self.finished {
            return 0;
        }
        let acknowledged = Acknowledged::new(self.offset, &self.beyond);
        self.length - acknowledged.count_below(self.length)
    }

    /// Whether it stands for bytes that are in no file.
    pub fn is_gap(&self) -> bool {
        self.device == 0
    }

    /// Number of the file when it was seen last.
    pub fn inode(&self) -> Inode {
        Inode { device: self.device, inode: self.inode }
    }

    /// Hash of its first bytes.
    pub fn head(&self) -> Head {
        Head { bytes: self.head_bytes, crc32: self.head_crc32 }
    }

    /// How far it has been acknowledged.
    pub fn position(&self) -> Position {
        let others = self.others.as_ref();
        Position {
            offset: self.offset,
            beyond: self.beyond.clone(),
            finished: self.finished,
            tail_bytes: self.tail_bytes,
            tail_crc32: self.tail_crc32,
            length: self.length,
            unknown: others.map(|others| others.of_position.clone()).unwrap_or_default(),
        }
    }

    fn set_position(&mut self, position: Position) {
        let Position { offset, beyond, finished, tail_bytes, tail_crc32, length, unknown } =
            position;
        (self.offset, self.beyond, self.finished) = (offset, beyond, finished);
        (self.tail_bytes, self.tail_crc32) = (tail_bytes, tail_crc32);
        self.length = length;
        if !unknown.is_empty() {
            self.others.get_or_insert_default().of_position = unknown;
        }
    }

    /// Goes to the position of a sink. One without any takes that of the one sink that there was,
    /// or of several the least, so that it misses nothing; without any it stays where the line said
    /// that version 1 is to begin. Returns the name of a sink whose position was taken instead.
    pub(super) fn go_to(&mut self, sink: &str) -> Option<String> {
        let mut others = *self.others.take()?;
        let spooled = std::mem::take(&mut others.spooled);
        let former = if others.positions.contains_key(sink) {
            None
        } else {
            let least = others.positions.iter().min_by_key(|(_, position)| position.offset);
            least.map(|(name, _)| name.clone())
        };
        let position = others.positions.remove(former.as_deref().unwrap_or(sink));
        self.others = others.boxed();
        if let Some(position) = position {
            self.set_position(position);
        }
        self.settle(&spooled);
        former
    }

    /// Whether these bytes are settled, whatever sink goes on.
    pub(super) fn is_settled(&self, start: u64, end: u64) -> bool {
        let is_in = |offset, beyond: &[_]| Acknowledged::new(offset, beyond).contains(start, end);
        let positions = self.others.iter().flat_map(|others| others.positions.values());
        is_in(self.offset, &self.beyond) || {
            let mut positions = positions.peekable();
            positions.peek().is_some() && positions.all(|one| is_in(one.offset, &one.beyond))
        }
    }

    /// The spool has these bytes, and sends them to whatever sink goes on.
    pub(super) fn add_spooled(&mut self, start: u64, end: u64) {
        self.others.get_or_insert_default().spooled.push((start, end));
    }

    fn settle(&mut self, ranges: &[(u64, u64)]) {
        if ranges.is_empty() {
            return;
        }
        let mut acknowledged = Acknowledged::new(self.offset, &self.beyond);
        ranges.iter().for_each(|&(start, end)| acknowledged.add(start, end));
        if acknowledged.prefix() != self.offset {
            // What stands in front of the new place nobody has noted.
            (self.tail_bytes, self.tail_crc32) = (0, 0);
        }
        (self.offset, self.beyond) = (acknowledged.prefix(), acknowledged.beyond().to_vec());
    }

    /// [`Self::go_to`], whatever comes of it.
    pub(crate) fn of_sink(mut self, sink: &str) -> Self {
        let _former = self.go_to(sink);
        self
    }

    /// Whether it says the same of the file as `other` but for the position.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        let of = |file: &Self| (file.device, file.inode, file.head_bytes, file.head_crc32);
        of(self) == of(other)
            && self.name == other.name
            && self.live == other.live
            && self.directory == other.directory
            && self.receiver == other.receiver
            && (self.uid, self.former_uid) == (other.uid, other.former_uid)
    }

    /// Whether both may be about one file, given that directory and number agree. A number is used
    /// again: an archive keeps that of the file that it was made of, which a later file may have.
    pub(super) fn may_be_file_of(&self, other: &Self) -> bool {
        let differ = self.head_bytes == other.head_bytes && self.head_crc32 != other.head_crc32;
        // A receiver has one position in a file.
        self.name == other.name || (self.receiver != other.receiver && !differ)
    }

    /// Whether the position is that of `other`.
    pub(super) fn has_same_position(&self, other: &Self) -> bool {
        let ending = |file: &Self| (file.tail_bytes, file.tail_crc32);
        let of = |file: &Self| (file.offset, file.finished, ending(file), file.length);
        of(self) == of(other) && self.beyond == other.beyond
    }

    /// Adds what a line said that is no part of a file's state in a worker.
    pub(super) fn keep_others(&mut self, earlier: &mut Self) {
        if self.others.is_none() {
            self.others = earlier.others.take();
        }
    }
}

/// A line as it is written.
#[derive(Serialize)]
struct LineToWrite<'a> {
    key: FileKey,
    #[serde(flatten)]
    file: &'a FileCheckpoint,
    positions: Positions<'a>,
    #[serde(flatten)]
    unknown: Option<&'a Map<String, Value>>,
}

/// The position of the sink at hand, and those that others have.
struct Positions<'a> {
    sink: &'a str,
    own: &'a Position,
    others: Option<&'a Others>,
}

impl Serialize for Positions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let others = self.others.iter().flat_map(|others| &others.positions);
        let others = others.filter(|(sink, _)| *sink != self.sink);
        let own = std::iter::once((self.sink, self.own));
        serializer.collect_map(own.chain(others.map(|(sink, position)| (sink.as_str(), position))))
    }
}

/// A line as it is read.
#[derive(Deserialize)]
struct LineRead {
    #[serde(default)]
    key: FileKey,
    #[serde(default)]
    positions: BTreeMap<String, Position>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What a line of the journal is about.
#[derive(Deserialize)]
struct RecordRead {
    key: FileKey,
    #[serde(default)]
    gone: bool,
    sink: Option<String>,
    directory: Option<IgnoredAny>,
}

#[derive(Serialize)]
struct PositionToWrite<'a> {
    key: FileKey,
    sink: &'a str,
    #[serde(flatten)]
    position: &'a Position,
}

#[derive(Deserialize)]
struct PositionRead {
    #[serde(rename = "key")]
    _key: IgnoredAny,
    #[serde(rename = "sink")]
    _sink: IgnoredAny,
    #[serde(flatten)]
    position: Position,
}

#[derive(Serialize)]
struct GoneToWrite {
    key: FileKey,
    gone: bool,
}

fn push_line(out: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *out, line).expect("a checkpoint is plain data in memory");
    out.push(b'\n');
}

/// A line that says all of a file; `sink` is the one that its position is of.
pub(super) fn push_file(out: &mut Vec<u8>, key: FileKey, file: &FileCheckpoint, sink: &str) {
    push_file_as(out, key, file, &file.position(), sink);
}

fn push_file_as(
    out: &mut Vec<u8>,
    key: FileKey,
    file: &FileCheckpoint,
    own: &Position,
    sink: &str,
) {
    let others = file.others.as_deref();
    let positions = Positions { sink, own, others };
    push_line(out, &LineToWrite { key, file, positions, unknown: others.map(|one| &one.unknown) });
}

/// A record of the journal: a file's position has moved.
pub(super) fn push_position(out: &mut Vec<u8>, key: FileKey, file: &FileCheckpoint, sink: &str) {
    push_line(out, &PositionToWrite { key, sink, position: &file.position() });
}

/// A record of the journal: a file is gone.
pub(super) fn push_gone(out: &mut Vec<u8>, key: FileKey) {
    push_line(out, &GoneToWrite { key, gone: true });
}

/// The files that a snapshot and its journal know, by their numbers there.
pub(crate) type Files = BTreeMap<FileKey, FileCheckpoint>;

/// A whole snapshot.
///
/// An agent of version 1 reads only what stands outside of `positions`, and knows no receivers: where
/// two of them read one file, it is told the lesser position, so that it misses nothing.
pub(crate) fn encode<'a>(
    files: impl Iterator<Item = (FileKey, &'a FileCheckpoint)> + Clone,
    sink: &str,
) -> Vec<u8> {
    let mut places: HashMap<(&Path, Inode), Vec<&FileCheckpoint>> = HashMap::new();
    for (_, file) in files.clone() {
        places.entry((&file.directory, file.inode())).or_default().push(file);
    }
    let mut lines = Vec::new();
    for (key, file) in files {
        let beside = &places[&(&*file.directory, file.inode())];
        let is_other = |other: &&&FileCheckpoint| {
            other.receiver != file.receiver && other.may_be_file_of(file)
        };
        match beside.iter().filter(is_other).map(|other| other.offset).min() {
            Some(offset) if offset < file.offset => {
                let mut lesser = file.clone();
                lesser.set_position(Position { offset, ..Position::default() });
                push_file_as(&mut lines, key, &lesser, &file.position(), sink);
            }
            _ => push_file(&mut lines, key, file, sink),
        }
    }
    frame::seal(MAGIC, &lines)
}

/// What [`encode`] wrote, or an agent of version 1, which gave no numbers.
pub(crate) fn decode(bytes: &[u8]) -> Result<Files, FormatError> {
    let mut files = Files::new();
    for (line, text) in lines(frame::open(MAGIC, bytes)?) {
        let failed = |source| FormatError::Line { line: line + 1, source };
        let (key, file) = decode_file(text).map_err(failed)?;
        let next = files.last_key_value().map_or(0, |(last, _)| last + 1);
        let key = if files.contains_key(&key) { next } else { key };
        files.insert(key, file);
    }
    Ok(files)
}

/// Whether a snapshot may have a journal: its lines have numbers, which that refers to, and version 1
/// wrote none. One without a line, the first of each state, may be of any version.
pub(super) fn may_have_journal(snapshot: &[u8]) -> bool {
    let numbered = |(_, line)| serde_json::from_slice::<Numbered>(line).is_ok();
    frame::open(MAGIC, snapshot).is_ok_and(|content| lines(content).next().is_none_or(numbered))
}

#[derive(Deserialize)]
struct Numbered {
    #[serde(rename = "key")]
    _key: FileKey,
}

/// Applies records of the journal.
pub(super) fn apply(records: &[u8], files: &mut Files) -> Result<(), FormatError> {
    for (line, text) in lines(records) {
        apply_one(text, files).map_err(|source| FormatError::Line { line, source })?;
    }
    Ok(())
}

fn apply_one(text: &[u8], files: &mut Files) -> Result<(), serde_json::Error> {
    let record: RecordRead = serde_json::from_slice(text)?;
    if record.gone {
        files.remove(&record.key);
    } else if record.directory.is_some() {
        let (key, file) = decode_file(text)?;
        files.insert(key, file);
    } else if let Some(file) = files.get_mut(&record.key)
        && let Some(sink) = record.sink
    {
        let read: PositionRead = serde_json::from_slice(text)?;
        file.others.get_or_insert_default().positions.insert(sink, read.position);
    }
    Ok(())
}

/// The lines that are not empty, counted from 1.
fn lines(content: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = content.split(|byte| *byte == b'\n').enumerate();
    lines.map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.is_empty())
}

fn decode_file(text: &[u8]) -> Result<(FileKey, FileCheckpoint), serde_json::Error> {
    let LineRead { key, positions, mut rest } = serde_json::from_slice(text)?;
    let mut file = FileCheckpoint::deserialize(&rest)?;
    rest.retain(|name, _| !KNOWN_KEYS.contains(&name.as_str()));
    let others = Others { positions, unknown: rest, ..Others::default() };
    file.others = others.boxed();
    Ok((key, file))
}

/// Keys of [`FileCheckpoint`].
const KNOWN_KEYS: [&str; 16] = [
    "receiver",
    "directory",
    "live",
    "name",
    "device",
    "inode",
    "head_bytes",
    "head_crc32",
    "tail_bytes",
    "tail_crc32",
    "length",
    "offset",
    "beyond",
    "finished",
    "uid",
    "former_uid",
];

fn no_name() -> Arc<str> {
    "".into()
}

fn write_text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn read_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(deserializer).map(Into::into)
}

/// JSON has no bytes: what isn't UTF-8 in a name is written as `%XX`, and `%` as `%25`.
fn escape(name: &OsStr) -> String {
    let mut out = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        out.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            write!(out, "%{byte:02X}").expect("writing to a string doesn't fail");
        }
    }
    out
}

fn unescape(text: &str) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.get(..2)).flatten();
        let value = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(value.unwrap_or(byte));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    OsString::from_vec(out)
}

fn write_name<S: Serializer>(name: &OsStr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&escape(name))
}

fn read_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<OsStr>, D::Error> {
    String::deserialize(deserializer).map(|text| unescape(&text).into())
}

fn write_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    write_name(path.as_os_str(), serializer)
}

fn read_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Path>, D::Error> {
    read_name(deserializer).map(|name| Path::new(&*name).into())
}
