//! OTLP's JSON (opentelemetry-proto, "JSON Protobuf Encoding"), read in one pass: each record's
//! body and attributes are looked through for a stamp, the rest is skipped. No tree is built, so
//! that a request can't cost many times its size in memory.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use thyme_core::stamp::Stamp;

use crate::base64;
use crate::observe::{Observations, find_in_text};

/// The arrays that lead to the records.
const LEVELS: [&str; 3] = ["resourceLogs", "scopeLogs", "logRecords"];

/// Reads a request, of which the first `records_max` records count.
///
/// # Errors
/// When it isn't JSON, or isn't shaped as a request down to its records.
pub(crate) fn read(
    request: &[u8],
    records_max: u64,
    observations: &mut Observations,
) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(request);
    Message { level: 0, records_max, observations }.deserialize(&mut reader)?;
    reader.end()
}

/// The object at a level: of its fields only the array of the next level matters.
struct Message<'o> {
    level: usize,
    records_max: u64,
    observations: &'o mut Observations,
}

/// The array of a level.
struct Elements<'o>(Message<'o>);

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["an ExportLogsServiceRequest", "a ResourceLogs", "a ScopeLogs", "a LogRecord"];
        out.write_str(names[self.level])
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Message { level, records_max, observations } = self;
        if level == LEVELS.len() {
            return read_record(fields, records_max, observations);
        }
        while let Some(name) = fields.next_key::<Name>()? {
            if name == Name::Level(level) {
                let below = Message { level: level + 1, records_max, observations };
                fields.next_value_seed(Elements(below))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        // `null` stands for a field's default in protobuf's JSON: here, an empty array.
        reader.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "an array of {}", LEVELS[self.0.level - 1])
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Elements(Message { level, records_max, observations }) = self;
        loop {
            let element = Message { level, records_max, observations };
            if elements.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }
}

fn read_record<'de, A: MapAccess<'de>>(
    mut fields: A,
    records_max: u64,
    observations: &mut Observations,
) -> Result<(), A::Error> {
    let mut found = None;
    while let Some(name) = fields.next_key::<Name>()? {
        match name {
            Name::Body | Name::Attributes => {
                let stamp = fields.next_value_seed(Texts { base64: false })?;
                // A stamp in the body outranks one in the attributes, in whichever order they come.
                found = if name == Name::Body { stamp.or(found) } else { found.or(stamp) };
            }
            _ => {
                fields.next_value::<IgnoredAny>()?;
            }
        }
    }
    if observations.records < records_max {
        observations.note(found);
    }
    Ok(())
}

/// The names of the fields that matter, compared without copying them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// Leads to the next level; its place in [`LEVELS`].
    Level(usize),
    Body,
    Attributes,
    BytesValue,
    Other,
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a field's name")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
                Ok(match name {
                    "body" => Name::Body,
                    "attributes" => Name::Attributes,
                    "bytesValue" => Name::BytesValue,
                    _ => {
                        LEVELS.iter().position(|&one| one == name).map_or(Name::Other, Name::Level)
                    }
                })
            }
        }
        reader.deserialize_str(NameVisitor)
    }
}

/// Finds the first stamp in any string of a value; serde_json bounds the depth.
#[derive(Clone, Copy)]
struct Texts {
    /// Whether strings at this place are base64.
    base64: bool,
}

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = Option<Stamp>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = Option<Stamp>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if self.base64 {
            let bytes = base64::decode(text).ok_or_else(|| E::custom("invalid base64"))?;
            return Ok(find_in_text(&bytes));
        }
        Ok(find_in_text(text.as_bytes()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(stamp) = elements.next_element_seed(Texts { base64: false })? {
            found = found.or(stamp);
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = fields.next_key::<Name>()? {
            let texts = Texts { base64: name == Name::BytesValue };
            found = found.or(fields.next_value_seed(texts)?);
        }
        Ok(found)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = "00000001-00000002-000000000003-0000000000000004-m";

    fn observe(request: &str) -> Result<(u64, u64), serde_json::Error> {
        let mut observations = Observations::default();
        observations.begin(0);
        read(request.as_bytes(), u64::MAX, &mut observations)?;
        Ok((observations.records, observations.unstamped))
    }

    fn record(fields: &str) -> String {
        format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"a","value":{{}}}}]}},
            "scopeLogs":[{{"scope":{{"name":"s"}},"logRecords":[{{{fields}}}],"schemaUrl":"u"}}]}}]}}"#
        )
    }

    /// Scenario: stamps in a string body, an escaped one, a base64 one, a map, and an attribute.
    /// Guarantees: each is found, and fields that don't matter are skipped.
    #[test]
    fn stamps_are_found_in_json() {
        let in_bytes = base64::encode(format!("x stamp={STAMP}").as_bytes());
        for fields in [
            format!(r#""timeUnixNano":"1","body":{{"stringValue":"x stamp={STAMP}"}}"#),
            format!(r#""severityNumber":9,"body":{{"stringValue":"{{\"stamp\":\"{STAMP}\"}}"}}"#),
            format!(r#""body":{{"bytesValue":"{in_bytes}"}},"attributes":[]"#),
            format!(
                r#""body":{{"kvlistValue":{{"values":[{{"key":"n","value":{{"intValue":1}}}},
                {{"key":"stamp","value":{{"stringValue":"{STAMP}"}}}}]}}}}"#
            ),
            format!(
                r#""attributes":[{{"key":"stamp","value":{{"stringValue":"{STAMP}"}}}}],
                "body":{{"stringValue":"without"}}"#
            ),
        ] {
            assert_eq!(observe(&record(&fields)).unwrap(), (1, 0), "{fields}");
        }
        assert_eq!(observe(&record("")).unwrap(), (1, 1));
    }

    /// Scenario: empty requests, nulls, unknown fields, and texts that aren't requests.
    /// Guarantees: the former are read, the latter are errors.
    #[test]
    fn shapes_are_checked_down_to_the_record() {
        for (request, records) in [
            ("{}", 0),
            (r#"{"resourceLogs":null,"future":[1,{"a":2}]}"#, 0),
            (r#"{"resourceLogs":[{},{"scopeLogs":[{"logRecords":[{},{}]}]}]}"#, 2),
        ] {
            assert_eq!(observe(request).unwrap().0, records, "{request}");
        }
        for request in [
            "",
            "[]",
            "{} x",
            r#"{"resourceLogs":{}}"#,
            r#"{"resourceLogs":[1]}"#,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[7]}]}]}"#,
            &record(r#""body":{"bytesValue":"%"}"#),
            &record(&format!(r#""body":{}1{}"#, "[".repeat(500), "]".repeat(500))),
        ] {
            assert!(observe(request).is_err(), "{request}");
        }
    }
}
