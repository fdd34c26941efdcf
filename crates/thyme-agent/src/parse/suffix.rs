//! What follows the body in each record: its attributes, encoded once a container and kind of line.
//!
//! An identity of the record, where one is wanted, is the last of them, so that what differs from
//! record to record is overwritten in place (`parse/uid.rs` says what it is made of).

use std::{borrow::Cow, cell::OnceCell};

use thyme_core::{
    cri::{ODD_TIME_BYTES_MAX, Stream, TAGS_BYTES_MAX},
    otlp::encode::{
        RecordSuffix, Value, log_record_bytes, overwrite_last_text, put_record_attribute,
    },
};

use super::uid::{
    FILE_DIGITS, FileDigits, LINE_UID_BYTES, OFFSET_DIGITS, UID_ATTRIBUTE, cut_uid, hex,
};

/// Attribute of a line that didn't parse and was passed on raw.
pub const MALFORMED_ATTRIBUTE: &str = "thyme.malformed";

/// Attribute of a piece of a split line: where its body begins in the whole one, in bytes.
pub const CHUNK_OFFSET_ATTRIBUTE: &str = "thyme.chunk.offset";

/// Attribute of a record whose end was never written: its container ended, or went silent.
pub const PARTIAL_ATTRIBUTE: &str = "thyme.partial";

/// Attribute of a record whose line has a time that a record can't carry: that time as written.
pub const TIME_ATTRIBUTE: &str = "thyme.time.original";

/// Room for marks that few records carry: a chunk's offset (35 bytes), a missing end (21), a longer
/// identity (9), a time (32 and `ODD_TIME_BYTES_MAX`), and tags of `TAGS_BYTES_MAX` bytes, none of them
/// UTF-8, which become three each. Tags that `F` or `P` begins may be longer: they are cut in `logtag`.
pub const MARKS_BYTES_MAX: usize = 104 + ODD_TIME_BYTES_MAX + 3 * TAGS_BYTES_MAX;

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
    uid: Option<UidPlace>,
}

/// Where records carry an identity.
#[derive(Debug)]
struct UidPlace {
    /// Bytes of the attribute in each suffix: always at the end of its attributes.
    attribute_bytes: usize,
    /// The file whose lines are being read, as the suffixes have it.
    file: FileDigits,
}

/// The attribute of an identity, with room for it.
fn uid_attribute() -> Vec<u8> {
    let mut attribute = Vec::new();
    let zeros = [b'0'; LINE_UID_BYTES];
    let text = std::str::from_utf8(&zeros).expect("zeros are ASCII");
    put_record_attribute(&mut attribute, UID_ATTRIBUTE, Value::Text(text));
    attribute
}

fn overwrite_file(suffix: &mut RecordSuffix, digits: FileDigits) {
    suffix.overwrite_text(&digits, 1 + OFFSET_DIGITS);
    suffix.overwrite_text(b"-", OFFSET_DIGITS);
}

impl Suffixes {
    /// `file_attributes` are the encoded attributes that every record of the file carries.
    pub fn new(file_attributes: &[u8]) -> Self {
        Self {
            file_attributes: file_attributes.into(),
            made: Default::default(),
            observed_unix_nano: 0,
            uid: None,
        }
    }

    /// The same, with an identity in each record; [`Suffixes::set_file`] says of which file.
    pub fn with_uid(mut self) -> Self {
        let attribute_bytes = uid_attribute().len();
        self.made = Default::default();
        self.uid = Some(UidPlace { attribute_bytes, file: [0; FILE_DIGITS] });
        self
    }

    /// Whether records carry an identity.
    #[inline]
    pub fn has_uid(&self) -> bool {
        self.uid.is_some()
    }

    /// Says which file the lines to come are from. Nothing happens where records carry no identity,
    /// or it is the file of the lines before.
    pub fn set_file(&mut self, digits: FileDigits) {
        let Some(place) = &mut self.uid else { return };
        if place.file == digits {
            return;
        }
        place.file = digits;
        for suffix in self.all() {
            overwrite_file(suffix, digits);
        }
    }

    /// The file that the lines are from, where records carry an identity.
    pub fn file(&self) -> Option<FileDigits> {
        self.uid.as_ref().map(|place| place.file)
    }

    fn all(&mut self) -> impl Iterator<Item = &mut RecordSuffix> {
        self.made.iter_mut().filter_map(OnceCell::get_mut)
    }

    /// Sets the observed time of all records to come.
    pub fn set_observed_time(&mut self, unix_nano: u64) {
        self.observed_unix_nano = unix_nano;
        for suffix in self.all() {
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
        let Some(place) = &self.uid else { return self.finish(&encoded) };
        encoded.extend_from_slice(&uid_attribute());
        let mut suffix = self.finish(&encoded);
        overwrite_file(&mut suffix, place.file);
        suffix
    }

    /// Of a record by its first fragment.
    pub fn of(&self, stream: Stream, marker: Marker<'_>) -> Cow<'_, RecordSuffix> {
        match marker {
            Marker::Docker => Cow::Borrowed(self.docker(stream)),
            Marker::Tags(b"F") => Cow::Borrowed(self.full(stream)),
            Marker::Tags(b"P") => Cow::Borrowed(self.partial(stream)),
            Marker::Tags(tags) => {
                let shown = String::from_utf8_lossy(&tags[..tags.len().min(TAGS_BYTES_MAX)]);
                let mut attributes = Vec::new();
                put_record_attribute(&mut attributes, "logtag", Value::Text(&shown));
                attributes.extend_from_slice(self.docker(stream).attributes());
                Cow::Owned(self.finish(&attributes))
            }
        }
    }

    /// The same, marked as a piece of a longer line that begins `offset` bytes into it.
    pub fn with_chunk_offset(&self, suffix: &RecordSuffix, offset: u64) -> RecordSuffix {
        let offset = Value::Int(i64::try_from(offset).unwrap_or(i64::MAX));
        self.with_mark(suffix, CHUNK_OFFSET_ATTRIBUTE, offset)
    }

    /// The same, marked as a record whose end never came.
    pub fn with_partial(&self, suffix: &RecordSuffix) -> RecordSuffix {
        self.with_mark(suffix, PARTIAL_ATTRIBUTE, Value::Bool(true))
    }

    /// The same, of a line whose time a record can't carry, if that is so.
    pub fn with_odd_time<'a>(
        &self,
        suffix: Cow<'a, RecordSuffix>,
        time: Option<&[u8]>,
    ) -> Cow<'a, RecordSuffix> {
        let Some(time) = time else { return suffix };
        let time = String::from_utf8_lossy(time);
        Cow::Owned(self.with_mark(&suffix, TIME_ATTRIBUTE, Value::Text(&time)))
    }

    /// The mark goes before the identity, which stays last.
    fn with_mark(&self, suffix: &RecordSuffix, key: &str, value: Value<'_>) -> RecordSuffix {
        let (plain, uid) = self.split_uid(suffix);
        let mut attributes = plain.to_vec();
        put_record_attribute(&mut attributes, key, value);
        attributes.extend_from_slice(uid);
        self.finish(&attributes)
    }

    /// The same, with the identity of a record that is not one whole line: its first byte is at
    /// `offset` of `file`. Unchanged where records carry none.
    pub fn with_cut_uid<'a>(
        &self,
        suffix: Cow<'a, RecordSuffix>,
        file: Option<FileDigits>,
        offset: u64,
        body: &[u8],
    ) -> Cow<'a, RecordSuffix> {
        let Some(file) = file.filter(|_| self.has_uid()) else { return suffix };
        let (plain, _) = self.split_uid(&suffix);
        let mut attributes = plain.to_vec();
        let uid = cut_uid(file, offset, body);
        let text = std::str::from_utf8(&uid).expect("digits and hyphens are ASCII");
        put_record_attribute(&mut attributes, UID_ATTRIBUTE, Value::Text(text));
        Cow::Owned(self.finish(&attributes))
    }

    /// The attributes of one of these suffixes, and the identity behind them, if there is one.
    fn split_uid<'a>(&self, suffix: &'a RecordSuffix) -> (&'a [u8], &'a [u8]) {
        let attributes = suffix.attributes();
        let uid_bytes = self.uid.as_ref().map_or(0, |place| place.attribute_bytes);
        attributes.split_at(attributes.len() - uid_bytes)
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

/// Completes the identity of the record that was appended last: it is one line, whose first byte is
/// at `offset` of the suffixes' file.
#[inline]
pub fn write_offset(records: &mut [u8], offset: u64) {
    overwrite_last_text::<OFFSET_DIGITS>(records, hex(offset));
}
