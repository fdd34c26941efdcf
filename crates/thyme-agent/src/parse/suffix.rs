//! What follows the body in each record: its attributes, encoded once a container and kind of line.

use std::cell::OnceCell;

use thyme_core::{
    cri::Stream,
    otlp::encode::{RecordSuffix, Value, log_record_bytes, put_record_attribute},
};

/// Attribute of a line that didn't parse and was passed on raw.
pub const MALFORMED_ATTRIBUTE: &str = "thyme.malformed";

/// Attribute of a piece of a split line: where its body begins in the whole one, in bytes.
pub const CHUNK_OFFSET_ATTRIBUTE: &str = "thyme.chunk.offset";

/// Attribute of a record whose end was never written: its container ended, or went silent.
pub const PARTIAL_ATTRIBUTE: &str = "thyme.partial";

/// Room for marks that few records carry: a chunk's offset, longer tags.
pub const MARKS_BYTES_MAX: usize = 96;

/// Tags of a CRI line longer than this are cut in `logtag`.
const TAGS_BYTES_MAX: usize = 32;

/// How a record's first fragment was marked by the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker<'a> {
    /// CRI's tags, `F`, `P` or longer.
    Tags(&'a [u8]),
    /// Docker's json-file has none.
    Docker,
}

impl Marker<'static> {
    /// The usual tags.
    pub const fn partial_or_full(partial: bool) -> Self {
        Self::Tags(if partial { b"P" } else { b"F" })
    }
}

/// Kinds of lines that have a suffix of their own.
const KINDS: usize = 8;

/// Places of the kinds in [`Suffixes::made`]; those of a stream are followed by those of the other.
const FULL: usize = 0;
const PARTIAL: usize = 2;
const DOCKER: usize = 4;
const RAW: usize = 6;
const MALFORMED: usize = 7;

/// The suffixes of one container's records. Each is made with the first line of its kind: most
/// containers have one kind, and there may be very many containers.
#[derive(Debug)]
pub struct Suffixes {
    /// The encoded attributes that every record of the file carries.
    file_attributes: Box<[u8]>,
    made: [OnceCell<RecordSuffix>; KINDS],
    observed_unix_nano: u64,
}

impl Suffixes {
    /// `file_attributes` are the encoded attributes that every record of the file carries.
    pub fn new(file_attributes: &[u8]) -> Self {
        Self {
            file_attributes: file_attributes.into(),
            made: Default::default(),
            observed_unix_nano: 0,
        }
    }

    /// Sets the observed time of all records to come.
    pub fn set_observed_time(&mut self, unix_nano: u64) {
        self.observed_unix_nano = unix_nano;
        for suffix in self.made.iter_mut().filter_map(OnceCell::get_mut) {
            suffix.set_observed_time(unix_nano);
        }
    }

    /// Of a complete CRI line.
    #[inline]
    pub fn full(&self, stream: Stream) -> &RecordSuffix {
        self.made[FULL + stream.index()].get_or_init(|| self.make_tagged(stream, "F"))
    }

    /// Of a line of a file that isn't a container's.
    pub fn raw(&self) -> &RecordSuffix {
        self.made[RAW].get_or_init(|| self.make(&[]))
    }

    /// Of a line that didn't parse.
    pub fn malformed(&self) -> &RecordSuffix {
        let mark = [(MALFORMED_ATTRIBUTE, Value::Bool(true))];
        self.made[MALFORMED].get_or_init(|| self.make(&mark))
    }

    fn partial(&self, stream: Stream) -> &RecordSuffix {
        self.made[PARTIAL + stream.index()].get_or_init(|| self.make_tagged(stream, "P"))
    }

    fn docker(&self, stream: Stream) -> &RecordSuffix {
        let name = [("log.iostream", Value::Text(stream.as_str()))];
        self.made[DOCKER + stream.index()].get_or_init(|| self.make(&name))
    }

    #[cold]
    fn make_tagged(&self, stream: Stream, tag: &str) -> RecordSuffix {
        let name = stream.as_str();
        self.make(&[("log.iostream", Value::Text(name)), ("logtag", Value::Text(tag))])
    }

    #[cold]
    fn make(&self, attributes: &[(&str, Value<'_>)]) -> RecordSuffix {
        let mut encoded = Vec::new();
        for (key, value) in attributes {
            put_record_attribute(&mut encoded, key, *value);
        }
        encoded.extend_from_slice(&self.file_attributes);
        self.finish(&encoded)
    }

    /// Of a record by its first fragment; a copy, since few lines come here.
    pub fn of(&self, stream: Stream, marker: Marker<'_>) -> RecordSuffix {
        match marker {
            Marker::Docker => self.docker(stream).clone(),
            Marker::Tags(b"F") => self.full(stream).clone(),
            Marker::Tags(b"P") => self.partial(stream).clone(),
            Marker::Tags(tags) => {
                let shown = String::from_utf8_lossy(&tags[..tags.len().min(TAGS_BYTES_MAX)]);
                let mut attributes = Vec::new();
                put_record_attribute(&mut attributes, "logtag", Value::Text(&shown));
                attributes.extend_from_slice(self.docker(stream).attributes());
                self.finish(&attributes)
            }
        }
    }

    /// The same, marked as a piece of a longer line that begins `offset` bytes into it.
    pub fn with_chunk_offset(&self, suffix: &RecordSuffix, offset: u64) -> RecordSuffix {
        let mut attributes = suffix.attributes().to_vec();
        let offset = Value::Int(i64::try_from(offset).unwrap_or(i64::MAX));
        put_record_attribute(&mut attributes, CHUNK_OFFSET_ATTRIBUTE, offset);
        self.finish(&attributes)
    }

    /// The same, marked as a record whose end never came.
    pub fn with_partial(&self, suffix: &RecordSuffix) -> RecordSuffix {
        let mut attributes = suffix.attributes().to_vec();
        put_record_attribute(&mut attributes, PARTIAL_ATTRIBUTE, Value::Bool(true));
        self.finish(&attributes)
    }

    fn finish(&self, attributes: &[u8]) -> RecordSuffix {
        let mut suffix = RecordSuffix::new(attributes);
        suffix.set_observed_time(self.observed_unix_nano);
        suffix
    }

    /// Bytes that a record with a body of `body_bytes` takes at most, whatever its marks are.
    #[inline]
    pub fn record_bytes_max(&self, body_bytes: usize) -> usize {
        log_record_bytes(body_bytes, self.full(Stream::Stdout)) + MARKS_BYTES_MAX
    }
}
