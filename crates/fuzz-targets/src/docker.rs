//! Docker's json-file lines: the parser finds what a list of the JSON's fields says, read as Go reads it
//! into a struct.

use serde_json::Value;
use thyme_agent::fuzzing::{self, DockerLine};
use thyme_core::cri::{CriParser, Stream};

use crate::cri::{naive_odd_time, naive_time};

/// Parses each line with one parser of times, as a file's lines are.
pub(crate) fn check(data: &[u8]) {
    let mut times = CriParser::default();
    for line in data.split(|&byte| byte == b'\n') {
        let found = fuzzing::docker_line(line, &mut times);
        let fields = serde_json::from_slice::<Fields>(line);
        let shown = line.escape_ascii();
        match &fields {
            Ok(fields) => assert_eq!(found, naive_line(fields), "{shown}"),
            // A tree objects to what isn't text, to half of a surrogate pair, and to numbers that are too
            // large, and lists that are too deep, where they don't matter.
            Err(_) => {
                let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
                assert!(found.is_none() || is_json, "{shown}");
            }
        }
    }
}

/// The oracle.
fn naive_line(fields: &Fields) -> Option<DockerLine> {
    let is_field = |name: &str, wanted: &str| {
        name.chars()
            .map(|c| if c == '\u{17f}' { 's' } else { c })
            .collect::<String>()
            .eq_ignore_ascii_case(wanted)
    };
    let field = |wanted: &str| -> Option<Option<&str>> {
        let mut value = None;
        for (_, found) in fields.0.iter().filter(|(name, _)| is_field(name, wanted)) {
            match found {
                Value::Null => {}
                Value::String(text) => value = Some(text.as_str()),
                _ => return None,
            }
        }
        Some(value)
    };
    let (log, stream, time) = (field("log")?, field("stream")?, field("time")?);
    let stream = match stream? {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    let (time_unix_nano, odd_time) = match time.map(str::as_bytes) {
        None => (0, None),
        Some(time) => match naive_time(time) {
            Some(unix_nano) => (unix_nano, None),
            None => (naive_odd_time(time)?, Some(time.to_vec())),
        },
    };
    let log = log.unwrap_or_default();
    let (body, complete) = match log.strip_suffix('\n') {
        Some(body) => (body, true),
        None => (log, false),
    };
    Some(DockerLine { time_unix_nano, odd_time, stream, complete, body: body.to_owned() })
}

/// All fields of an object, in their order.
struct Fields(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> serde::de::Visitor<'de> for FieldsVisitor {
            type Value = Fields;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        reader.deserialize_map(FieldsVisitor)
    }
}
