//! A checkpoint file: a first line with version, CRC-32 and length, then one JSON object a file.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::frame::{self, FrameError};
use crate::tail::{
    identity::{Head, Inode},
    uid::FileUid,
};

const MAGIC: &str = "thyme-checkpoints 1";

/// Why a checkpoint file can't be used.
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

/// How far one file has been acknowledged. Its names are shared with the worker, so that a copy
/// after each acknowledgement allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCheckpoint {
    /// Its directory.
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    pub directory: Arc<Path>,
    /// Name of the live file that it is or was, such as `0.log`.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub live: Arc<OsStr>,
    /// Its present name, such as `0.log.20260101-000000`, without `.gz`.
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    pub name: Arc<OsStr>,
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Bytes that `head_crc32` covers.
    pub head_bytes: u32,
    /// Hash of its first bytes.
    pub head_crc32: u32,
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
}

impl FileCheckpoint {
    /// Number of the file when it was seen last.
    pub fn inode(&self) -> Inode {
        Inode { device: self.device, inode: self.inode }
    }

    /// Whether it may not have been read to its end.
    pub fn is_unread(&self) -> bool {
        !self.finished
    }

    /// Hash of its first bytes.
    pub fn head(&self) -> Head {
        Head { bytes: self.head_bytes, crc32: self.head_crc32 }
    }
}

/// The whole file's bytes.
pub(crate) fn encode<'a>(files: impl Iterator<Item = &'a FileCheckpoint>) -> Vec<u8> {
    let mut lines = Vec::new();
    for file in files {
        serde_json::to_writer(&mut lines, file).expect("a checkpoint is plain data in memory");
        lines.push(b'\n');
    }
    frame::seal(MAGIC, &lines)
}

/// What [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<FileCheckpoint>, FormatError> {
    let lines = frame::open(MAGIC, bytes)?;
    lines
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            serde_json::from_slice(line)
                .map_err(|source| FormatError::Line { line: index + 2, source })
        })
        .collect()
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
