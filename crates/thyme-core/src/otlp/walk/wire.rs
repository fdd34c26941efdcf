//! Protobuf's wire format, read in place: keys, varints and lengths. Knows nothing of OTLP's
//! messages, and allocates nothing.

use super::WalkError;

/// Protobuf's largest field number.
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field<'a> {
    /// Its number, at least 1.
    pub(super) number: u32,
    /// What it holds.
    pub(super) value: Value<'a>,
    /// Key, length and value as they stand in the message.
    pub(super) raw: &'a [u8],
}

/// A field's value by its wire type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: a string, bytes, or a message.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of a field that the schema says is length-delimited.
    #[inline]
    pub(super) fn bytes(self, message: &'static str) -> Result<&'a [u8], WalkError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WalkError::FieldType { message }),
        }
    }

    /// The number in a field that the schema says is `fixed64` or `double`.
    #[inline]
    pub(super) fn fixed64(self, message: &'static str) -> Result<u64, WalkError> {
        match self {
            Self::Fixed64(number) => Ok(number),
            _ => Err(WalkError::FieldType { message }),
        }
    }

    /// The number in a field that the schema says is an integer, an enum or a bool.
    #[inline]
    pub(super) fn varint(self, message: &'static str) -> Result<u64, WalkError> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(WalkError::FieldType { message }),
        }
    }
}

/// The fields of one message in the order of the wire. Ends after the first error.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    /// What is still unread; always a suffix of the message that starts at a key.
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WalkError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let start = self.rest;
        match read_field(start) {
            Ok((number, value, rest)) => {
                self.rest = rest;
                let raw = &start[..start.len() - rest.len()];
                Some(Ok(Field { number, value, raw }))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// Reads one field, and returns what follows it.
#[inline]
fn read_field(message: &[u8]) -> Result<(u32, Value<'_>, &[u8]), WalkError> {
    let (key, rest) = read_varint(message)?;
    let number = key >> 3;
    if number == 0 || number > FIELD_NUMBER_MAX {
        return Err(WalkError::FieldNumber);
    }
    let (value, rest) = match key & 7 {
        0 => {
            let (number, rest) = read_varint(rest)?;
            (Value::Varint(number), rest)
        }
        1 => {
            let (number, rest) = rest.split_first_chunk().ok_or(WalkError::Truncated)?;
            (Value::Fixed64(u64::from_le_bytes(*number)), rest)
        }
        2 => {
            let (length, rest) = read_varint(rest)?;
            let length = usize::try_from(length).map_err(|_| WalkError::Truncated)?;
            let (bytes, rest) = rest.split_at_checked(length).ok_or(WalkError::Truncated)?;
            (Value::Bytes(bytes), rest)
        }
        3 | 4 => return Err(WalkError::Group),
        5 => {
            let (number, rest) = rest.split_first_chunk().ok_or(WalkError::Truncated)?;
            (Value::Fixed32(u32::from_le_bytes(*number)), rest)
        }
        wire_type => return Err(WalkError::WireType(wire_type as u8)),
    };
    // FIELD_NUMBER_MAX fits 29 bits.
    Ok((number as u32, value, rest))
}

/// Reads a varint of at most 64 bits. Keys and most lengths take one or two bytes.
#[inline]
fn read_varint(bytes: &[u8]) -> Result<(u64, &[u8]), WalkError> {
    match bytes {
        [first, rest @ ..] if *first < 0x80 => Ok((u64::from(*first), rest)),
        [first, second, rest @ ..] if *second < 0x80 => {
            Ok((u64::from(*first & 0x7f) | u64::from(*second) << 7, rest))
        }
        _ => read_long_varint(bytes),
    }
}

fn read_long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), WalkError> {
    let mut number = 0_u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        // The tenth byte has room for the 64th bit only.
        if index == 9 && byte > 1 {
            return Err(WalkError::Varint);
        }
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok((number, &bytes[index + 1..]));
        }
    }
    Err(if bytes.len() < 10 { WalkError::Truncated } else { WalkError::Varint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::encode::put_varint;
    use proptest::prelude::*;
    use prost::encoding;

    proptest! {
        /// Scenario: any number, followed by other bytes; and any bytes at all.
        /// Guarantees: varints are read as prost (the oracle) reads them, errors included.
        #[test]
        fn varints_are_prosts(number: u64, shift in 0..64_u32, mut bytes: Vec<u8>) {
            let number = number >> shift;
            let mut written = Vec::new();
            put_varint(&mut written, number);
            written.push(0xff);
            prop_assert_eq!(read_varint(&written), Ok((number, &[0xff][..])));

            bytes.truncate(12);
            let mut oracle = &bytes[..];
            let expected = encoding::decode_varint(&mut oracle).ok().map(|number| (number, oracle));
            prop_assert_eq!(read_varint(&bytes).ok(), expected);
        }

        /// Scenario: arbitrary bytes as a message.
        /// Guarantees: reading never panics, ends after an error, and what was read is, put
        /// together, a prefix of the message.
        #[test]
        fn arbitrary_bytes_are_harmless(message: Vec<u8>) {
            let mut seen = Vec::new();
            let mut fields = Fields::new(&message);
            while let Some(Ok(field)) = fields.next() {
                seen.extend_from_slice(field.raw);
            }
            prop_assert!(message.starts_with(&seen));
            prop_assert!(fields.next().is_none());
        }
    }

    /// Scenario: keys that protobuf forbids or that have been given up.
    /// Guarantees: each is refused with its own cause.
    #[test]
    fn forbidden_keys_have_typed_errors() {
        let error = |message: &[u8]| Fields::new(message).next().unwrap().unwrap_err();
        assert_eq!(error(&[0x02, 0]), WalkError::FieldNumber);
        assert_eq!(error(&[0x82, 0x80, 0x80, 0x80, 0x10, 0]), WalkError::FieldNumber);
        assert_eq!(error(&[0x0b]), WalkError::Group);
        assert_eq!(error(&[0x0c]), WalkError::Group);
        assert_eq!(error(&[0x0e]), WalkError::WireType(6));
        assert_eq!(error(&[0x0f]), WalkError::WireType(7));
        assert_eq!(error(&[0x0a, 1]), WalkError::Truncated);
        assert_eq!(error(&[0x09, 1, 2, 3, 4, 5, 6, 7]), WalkError::Truncated);
        assert_eq!(error(&[0x0d, 1, 2, 3]), WalkError::Truncated);
        assert_eq!(error(&[0x08, 0x80]), WalkError::Truncated);
        assert_eq!(error(&[0xff; 11]), WalkError::Varint);
    }
}
