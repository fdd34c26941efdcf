//! Protobuf's wire format, read in place: keys, varints and lengths. Knows nothing of OTLP's
//! messages, and allocates nothing.

use super::WalkError;

/// Protobuf's largest field number.
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// Wire types of the fields that the walker reads.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const START_GROUP: u32 = 3;
const END_GROUP: u32 = 4;
const FIXED32: u32 = 5;

/// The key of a varint field: an integer, an enum or a bool.
pub(super) const fn varint_key(number: u32) -> u32 {
    number << 3 | VARINT
}

/// The key of a `fixed64` or `double` field.
pub(super) const fn fixed64_key(number: u32) -> u32 {
    number << 3 | FIXED64
}

/// The key of a length-delimited field: a string, bytes or a message.
pub(super) const fn bytes_key(number: u32) -> u32 {
    number << 3 | LENGTH_DELIMITED
}

/// The field number within a key.
pub(super) const fn number_of(key: u32) -> u32 {
    key >> 3
}

/// Reads one message from its start to its end. The caller reads a key, and then its value by the
/// method for its wire type, or skips it.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    /// What is still unread; always a suffix of the message.
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Whether the message has ended.
    #[inline]
    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is still unread.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Leaves the rest unread.
    pub(super) const fn stop(&mut self) {
        self.rest = &[];
    }

    /// Reads a key, whose field number is valid.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<u32, WalkError> {
        // Field numbers below 16 take one byte, and these are nearly all of OTLP's.
        if let [key @ 8..=0x7f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u32::from(*key));
        }
        self.long_key()
    }

    fn long_key(&mut self) -> Result<u32, WalkError> {
        let key = self.varint()?;
        if key < 8 || key >> 3 > FIELD_NUMBER_MAX {
            return Err(WalkError::FieldNumber);
        }
        // FIELD_NUMBER_MAX fits 29 bits.
        Ok(key as u32)
    }

    /// Reads a varint of at most 64 bits.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, WalkError> {
        // Most lengths take one or two bytes.
        match self.rest {
            [first @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            [first, second @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*first & 0x7f) | u64::from(*second) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, WalkError> {
        let mut number = 0_u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte has room for the 64th bit only.
            if index == 9 && byte > 1 {
                return Err(WalkError::Varint);
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(number);
            }
        }
        Err(if self.rest.len() < 10 { WalkError::Truncated } else { WalkError::Varint })
    }

    /// Reads a length and as many bytes.
    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], WalkError> {
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| WalkError::Truncated)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WalkError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Reads eight bytes, little-endian.
    #[inline(always)]
    pub(super) fn fixed64(&mut self) -> Result<u64, WalkError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WalkError::Truncated)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// Passes over the value of a field that isn't read. `known` says of a field number whether the
    /// schema has it in this message, which is then named in the error: its type is wrong.
    #[inline]
    pub(super) fn skip(
        &mut self,
        key: u32,
        message: &'static str,
        known: impl FnOnce(u32) -> bool,
    ) -> Result<(), WalkError> {
        if known(number_of(key)) {
            return Err(WalkError::FieldType { message });
        }
        self.skip_value(key)
    }

    /// Passes over the value of any field.
    #[inline]
    pub(super) fn skip_value(&mut self, key: u32) -> Result<(), WalkError> {
        match key & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            LENGTH_DELIMITED => self.bytes().map(drop),
            START_GROUP | END_GROUP => Err(WalkError::Group),
            FIXED32 => {
                let (_, rest) = self.rest.split_first_chunk::<4>().ok_or(WalkError::Truncated)?;
                self.rest = rest;
                Ok(())
            }
            wire_type => Err(WalkError::WireType(wire_type as u8)),
        }
    }
}

/// The bytes of each occurrence of one length-delimited field. Ends after the first error.
#[derive(Clone, Debug)]
pub(super) struct Messages<'a> {
    reader: Reader<'a>,
    number: u32,
    /// The name of the message that is read.
    name: &'static str,
}

impl<'a> Messages<'a> {
    #[inline]
    pub(super) const fn new(message: &'a [u8], number: u32, name: &'static str) -> Self {
        Self { reader: Reader::new(message), number, name }
    }

    #[inline(always)]
    fn read(&mut self) -> Result<Option<&'a [u8]>, WalkError> {
        while !self.reader.is_at_end() {
            let key = self.reader.key()?;
            if key == bytes_key(self.number) {
                return self.reader.bytes().map(Some);
            }
            self.reader.skip(key, self.name, |number| number == self.number)?;
        }
        Ok(None)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<&'a [u8], WalkError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if read.is_err() {
            self.reader.stop();
        }
        read.transpose()
    }
}

/// One field of a message as it stands there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field<'a> {
    /// Its number, at least 1.
    pub(super) number: u32,
    /// Key, length and value.
    pub(super) raw: &'a [u8],
    /// The value if it is length-delimited.
    pub(super) bytes: Option<&'a [u8]>,
}

/// The fields of one message in the order of the wire. Ends after the first error.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self(Reader::new(message))
    }

    fn read(&mut self) -> Result<Field<'a>, WalkError> {
        let start = self.0.rest();
        let key = self.0.key()?;
        let bytes = if key == bytes_key(number_of(key)) {
            Some(self.0.bytes()?)
        } else {
            self.0.skip_value(key)?;
            None
        };
        let raw = &start[..start.len() - self.0.rest().len()];
        Ok(Field { number: number_of(key), raw, bytes })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_at_end() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.0.stop();
        }
        Some(read)
    }
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
            let read = |bytes| {
                let mut reader = Reader::new(bytes);
                reader.varint().map(|number| (number, reader.rest()))
            };
            prop_assert_eq!(read(&written), Ok((number, &[0xff][..])));

            bytes.truncate(12);
            let mut oracle = &bytes[..];
            let expected = encoding::decode_varint(&mut oracle).ok().map(|number| (number, oracle));
            prop_assert_eq!(read(&bytes).ok(), expected);
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
