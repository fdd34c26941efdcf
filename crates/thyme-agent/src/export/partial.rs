//! What a sink says that it did not take of a request that it took: the partial success in an
//! `ExportLogsServiceResponse`. In protobuf it is read as it comes, and only what is of use is kept:
//! some sinks list every record that they rejected, and an answer may have megabytes.

use super::limits::QUOTE_CHARS_MAX;

/// Bytes of the sink's words that are kept: enough for a quote, whatever they are written in.
const WORDS_BYTES_MAX: usize = QUOTE_CHARS_MAX * 4;

/// Bytes of the longest number.
const VARINT_BYTES_MAX: u32 = 10;

/// `ExportLogsPartialSuccess`: what the sink did not take, and why. Its words are bytes: text of a
/// sink that isn't UTF-8 must not cost us the number beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartialSuccess {
    pub(crate) rejected_log_records: i64,
    pub(crate) error_message: Vec<u8>,
}

/// Reads an encoded `ExportLogsServiceResponse` in whatever pieces it comes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What has come of it so far.
    partial: Option<PartialSuccess>,
    /// Bytes that are left of the partial success, while they come.
    within: Option<u64>,
    next: Next,
    varint: Varint,
    has_bytes: bool,
    is_wrong: bool,
}

/// What stands next in the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// A field's number and type, or the end.
    #[default]
    Tag,
    /// A number: the count, or one that is of no use.
    Number { is_count: bool },
    /// The length of a field.
    Length(Field),
    /// So many bytes of a field.
    Bytes { left: u64, are_words: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    PartialSuccess,
    Words,
    Unknown,
}

impl Reader {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.has_bytes |= !bytes.is_empty();
        while !bytes.is_empty() && !self.is_wrong {
            match self.step(bytes) {
                Some(taken) => bytes = &bytes[taken..],
                None => self.is_wrong = true,
            }
        }
    }

    /// The partial success of a message that ends here, empty where there is none; `None` where the
    /// bytes are something else. Many bytes are protobuf of some kind: of this kind are those that
    /// have its only field.
    pub(super) fn end(self) -> Option<PartialSuccess> {
        if !self.has_bytes {
            return Some(PartialSuccess::default());
        }
        let is_whole = self.within.is_none() && self.next == Next::Tag && self.varint.bytes == 0;
        self.partial.filter(|_| is_whole && !self.is_wrong)
    }

    /// What a message says of rejections, the rest of which nobody will read.
    pub(super) fn so_far(self) -> Option<PartialSuccess> {
        self.partial.filter(|partial| partial.rejected_log_records > 0 && !self.is_wrong)
    }

    /// Reads one piece; how many bytes that were, or nothing where they can't stand here.
    fn step(&mut self, bytes: &[u8]) -> Option<usize> {
        let taken = match self.next {
            Next::Bytes { left, .. } => {
                usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
            }
            _ => 1,
        };
        if let Some(within) = &mut self.within {
            *within = within.checked_sub(taken as u64)?;
        }
        if let Next::Bytes { left, are_words } = self.next {
            if are_words {
                let words = &mut self.partial.get_or_insert_default().error_message;
                let room = WORDS_BYTES_MAX - words.len();
                words.extend_from_slice(&bytes[..taken.min(room)]);
            }
            self.next = bytes_or_tag(left - taken as u64, are_words);
        } else if let Some(number) = self.varint.push(bytes[0])? {
            self.next = self.after(number)?;
        }
        if self.within == Some(0) {
            if self.next != Next::Tag || self.varint.bytes > 0 {
                return None;
            }
            self.within = None;
        }
        Some(taken)
    }

    /// What follows a number that has come whole.
    fn after(&mut self, number: u64) -> Option<Next> {
        Some(match self.next {
            Next::Tag => self.field(number)?,
            Next::Number { is_count } => {
                if is_count {
                    self.partial.get_or_insert_default().rejected_log_records =
                        number.cast_signed();
                }
                Next::Tag
            }
            Next::Length(Field::PartialSuccess) => {
                self.partial.get_or_insert_default();
                self.within = Some(number);
                Next::Tag
            }
            Next::Length(_) if self.within.is_some_and(|within| number > within) => return None,
            Next::Length(field) => bytes_or_tag(number, field == Field::Words),
            Next::Bytes { .. } => unreachable!("bytes are no number"),
        })
    }

    /// What follows a tag. Groups, which OTLP has not, are none.
    fn field(&mut self, tag: u64) -> Option<Next> {
        const NUMBER: u32 = 0;
        const EIGHT_BYTES: u32 = 1;
        const LENGTH: u32 = 2;
        const FOUR_BYTES: u32 = 5;
        let tag = u32::try_from(tag).ok()?;
        Some(match (self.within.is_some(), tag >> 3, tag & 7) {
            (_, 0, _) => return None,
            (false, 1, LENGTH) => Next::Length(Field::PartialSuccess),
            (true, 1, NUMBER) => Next::Number { is_count: true },
            (true, 2, LENGTH) => {
                self.partial.get_or_insert_default().error_message.clear();
                Next::Length(Field::Words)
            }
            (_, 1, _) | (true, 2, _) => return None,
            (_, _, NUMBER) => Next::Number { is_count: false },
            (_, _, EIGHT_BYTES) => Next::Bytes { left: 8, are_words: false },
            (_, _, LENGTH) => Next::Length(Field::Unknown),
            (_, _, FOUR_BYTES) => Next::Bytes { left: 4, are_words: false },
            _ => return None,
        })
    }
}

const fn bytes_or_tag(left: u64, are_words: bool) -> Next {
    if left == 0 { Next::Tag } else { Next::Bytes { left, are_words } }
}

/// A number of protobuf that comes byte by byte.
#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    bytes: u32,
}

impl Varint {
    /// The number, once it is whole; or that it is none.
    fn push(&mut self, byte: u8) -> Option<Option<u64>> {
        if self.bytes + 1 == VARINT_BYTES_MAX && byte > 1 {
            return None;
        }
        self.value |= u64::from(byte & 0x7f) << (7 * self.bytes);
        self.bytes += 1;
        if byte & 0x80 != 0 {
            return Some(None);
        }
        Some(Some(std::mem::take(self).value))
    }
}

/// The partial success in an encoded response, as [`Reader`] reads it.
pub(crate) fn partial_success(response: &[u8]) -> Option<PartialSuccess> {
    let mut reader = Reader::default();
    reader.feed(response);
    reader.end()
}

/// The partial success in a response that a sink wrote as JSON, by OTLP's JSON mapping (64-bit
/// numbers are strings; readers take numbers too).
pub(crate) fn partial_success_json(response: &[u8]) -> Option<PartialSuccess> {
    let json: serde_json::Value = serde_json::from_slice(response).ok()?;
    let object = json.as_object()?;
    let Some(partial) = object.get("partialSuccess").or_else(|| object.get("partial_success"))
    else {
        return object.is_empty().then(PartialSuccess::default);
    };
    let field = |camel: &str, snake: &str| partial.get(camel).or_else(|| partial.get(snake));
    let rejected = field("rejectedLogRecords", "rejected_log_records");
    let rejected = rejected.and_then(whole_number);
    let said = field("errorMessage", "error_message").and_then(|value| value.as_str());
    Some(PartialSuccess {
        rejected_log_records: rejected.unwrap_or_default(),
        error_message: said.unwrap_or_default().into(),
    })
}

/// A 64-bit number as protobuf's JSON mapping reads one: a number or a string, written as a float
/// too where it has no fraction.
fn whole_number(value: &serde_json::Value) -> Option<i64> {
    let of_float = |float: f64| {
        let is_whole = float.fract() == 0.0 && float.abs() < 2_f64.powi(63);
        is_whole.then_some(float as i64)
    };
    match value.as_str() {
        Some(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| of_float(text.parse().ok()?))
        }
        None => value.as_i64().or_else(|| of_float(value.as_f64()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1 as oracle;
    use proptest::prelude::*;
    use prost::Message;

    /// The messages with words that are bytes, for an oracle that reads what we read.
    #[derive(Clone, PartialEq, Message)]
    struct Partial {
        #[prost(int64, tag = "1")]
        rejected: i64,
        #[prost(bytes = "vec", tag = "2")]
        words: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Response {
        #[prost(message, optional, tag = "1")]
        partial: Option<Partial>,
    }

    fn by_oracle(bytes: &[u8]) -> Option<PartialSuccess> {
        if bytes.is_empty() {
            return Some(PartialSuccess::default());
        }
        let Partial { rejected, words } = Response::decode(bytes).ok()?.partial?;
        Some(PartialSuccess { rejected_log_records: rejected, error_message: words })
    }

    fn in_pieces(bytes: &[u8], piece: usize) -> Reader {
        let mut reader = Reader::default();
        bytes.chunks(piece).for_each(|piece| reader.feed(piece));
        reader
    }

    /// Bytes that make up such messages, and tags of unknown fields, but no groups.
    fn bytes_of_a_message() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop::sample::select(vec![
            0x0a, 0x08, 0x12, 0x10, 0x1a, 0x79, 0x7d, 0x80, 0x88, 0, 1, 2, 3, 4, 5, 9,
        ]);
        let bytes = prop::collection::vec(byte, 0..24);
        bytes.prop_filter("groups are not read", |bytes| !bytes.iter().any(|&b| b == 3 || b == 4))
    }

    proptest! {
        /// Scenario: an answer comes in pieces of any length: one with a count and words before or
        /// behind it, between unknown fields, twice; and bytes that are nearly one.
        /// Guarantees: it is read as prost reads it, wherever it is cut.
        #[test]
        fn pieces_are_read_as_the_oracle_reads_the_whole(
            random in bytes_of_a_message(),
            rejected: i64,
            words in prop::collection::vec(any::<u8>(), 0..300),
            is_reversed: bool,
            piece in 1_usize..40,
        ) {
            prop_assert_eq!(in_pieces(&random, piece).end(), by_oracle(&random));

            let mut fields = [
                Partial { rejected, words: Vec::new() }.encode_to_vec(),
                b"\x7a\x03abc".to_vec(),
                Partial { rejected: 0, words }.encode_to_vec(),
                b"\x78\x80\x01\x7d1234\x7912345678".to_vec(),
            ];
            if is_reversed {
                fields.reverse();
            }
            let partial = fields.concat();
            let mut message = vec![0x0a];
            prost::encoding::encode_varint(partial.len() as u64, &mut message);
            message.extend_from_slice(&partial);
            prop_assert_eq!(in_pieces(&message, piece).end(), by_oracle(&message));
            prop_assert!(by_oracle(&message).is_some());
            message.extend_from_slice(&Response { partial: Some(Partial::default()) }.encode_to_vec());
            prop_assert_eq!(in_pieces(&message, piece).end(), by_oracle(&message));
            for cut in 1..message.len() {
                let message = &message[..cut];
                prop_assert_eq!(in_pieces(message, piece).end(), by_oracle(message));
            }
        }

        /// Scenario: any bytes as a response.
        /// Guarantees: nothing panics, and what is read is what the oracle reads.
        #[test]
        fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            partial_success_json(&bytes);
            in_pieces(&bytes, 3).so_far();
            if let Some(partial) = partial_success(&bytes) {
                prop_assert_eq!(Some(partial), by_oracle(&bytes));
            }
        }
    }

    /// Scenario: words of a megabyte, with the count before and behind them, and the rest missing.
    /// Guarantees: the count is read, and of the words only what a quote needs is kept; a count that
    /// has come is known although the end is not.
    #[test]
    fn long_words_cost_no_memory() {
        let words = vec![b'm'; 1 << 20];
        let count = Partial { rejected: 3, words: Vec::new() }.encode_to_vec();
        let words = Partial { rejected: 0, words }.encode_to_vec();
        for fields in [[&count[..], &words], [&words, &count]] {
            let partial = fields.concat();
            let mut message = vec![0x0a];
            prost::encoding::encode_varint(partial.len() as u64, &mut message);
            message.extend_from_slice(&partial);
            let read = in_pieces(&message, 1000).end().unwrap();
            assert_eq!(read.rejected_log_records, 3);
            assert_eq!(read.error_message, vec![b'm'; WORDS_BYTES_MAX]);
            assert!(read.error_message.capacity() <= 2 * WORDS_BYTES_MAX);
            let cut = in_pieces(&message[..message.len() / 2], 1000);
            let count_came = fields[0] == count;
            assert_eq!(
                cut.so_far().map(|partial| partial.rejected_log_records),
                count_came.then_some(3)
            );
        }
    }

    /// Scenario: responses of the generated type, and in JSON with both kinds of numbers.
    /// Guarantees: count and words are those that were sent; what is no response is none.
    #[test]
    fn partial_success_as_the_oracle_writes_it() {
        let partial_of = |rejected_log_records, error_message: &str| PartialSuccess {
            rejected_log_records,
            error_message: error_message.into(),
        };
        let response = oracle::ExportLogsServiceResponse {
            partial_success: Some(oracle::ExportLogsPartialSuccess {
                rejected_log_records: 7,
                error_message: "too old".into(),
            }),
        };
        let read = |bytes: &[u8]| partial_success(bytes).unwrap();
        let read_json = |bytes: &[u8]| partial_success_json(bytes).unwrap();
        assert_eq!(read(&response.encode_to_vec()), partial_of(7, "too old"));
        assert_eq!(read(b""), partial_of(0, ""));
        assert_eq!(read(b"\x0a\x00"), partial_of(0, ""));
        let json = br#"{"partialSuccess":{"rejectedLogRecords":"7","errorMessage":"too old"}}"#;
        assert_eq!(read_json(json), partial_of(7, "too old"));
        let json = br#"{"partialSuccess":{"rejectedLogRecords":7}}"#;
        assert_eq!(read_json(json), partial_of(7, ""));
        for (written, read) in [
            ("3.0", 3),
            ("\"3\"", 3),
            ("\"3.0\"", 3),
            ("3e2", 300),
            ("\"3e2\"", 300),
            ("3.5", 0),
            ("1e300", 0),
            ("\"many\"", 0),
            ("null", 0),
        ] {
            let json = format!(r#"{{"partialSuccess":{{"rejectedLogRecords":{written}}}}}"#);
            assert_eq!(read_json(json.as_bytes()), partial_of(read, ""), "{written}");
        }
        assert_eq!(read_json(b"{}"), partial_of(0, ""));
        for other in [&b"[]"[..], b"ok", br#"{"status":"success"}"#, b"hi"] {
            assert_eq!((partial_success(other), partial_success_json(other)), (None, None));
        }
    }
}
