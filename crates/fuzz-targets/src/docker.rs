//! Docker's json-file lines: the parser finds what a tree of the JSON says.

use serde_json::Value;
use thyme_agent::fuzzing::{self, DockerLine};
use thyme_core::cri::{CriParser, Stream};

use crate::cri::naive_time;

/// Parses each line with one parser of times, as a file's lines are.
pub(crate) fn check(data: &[u8]) {
    let mut times = CriParser::default();
    for line in data.split(|&byte| byte == b'\n') {
        let found = fuzzing::docker_line(line, &mut times);
        let expected = naive_line(line);
        let shown = line.escape_ascii();
        match (&found, &expected) {
            // A tree keeps the last of two fields with one name; the parser takes such a line as raw.
            (None, Some(_)) => assert!(has_a_field_twice(line), "{shown}"),
            // What doesn't matter in a line isn't looked at: a tree objects to half of a surrogate
            // pair in it, or to a number that is too large.
            (Some(_), None) => {
                let tree: Result<Value, _> = serde_json::from_slice(line);
                assert!(tree.is_err(), "{shown}");
            }
            _ => assert_eq!(found, expected, "{shown}"),
        }
    }
}

/// The oracle.
fn naive_line(line: &[u8]) -> Option<DockerLine> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(line) else { return None };
    let log = match fields.get("log") {
        None => "",
        Some(log) => log.as_str()?,
    };
    let stream = match fields.get("stream")?.as_str()? {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    let time_unix_nano = naive_time(fields.get("time")?.as_str()?.as_bytes())?;
    let (body, complete) = match log.strip_suffix('\n') {
        Some(body) => (body, true),
        None => (log, false),
    };
    Some(DockerLine { time_unix_nano, stream, complete, body: body.to_owned() })
}

/// Whether a JSON object that parses has one of the fields that matter more than once. Escapes in
/// names are why the text alone doesn't say.
fn has_a_field_twice(line: &[u8]) -> bool {
    struct Names(Vec<String>);
    impl<'de> serde::Deserialize<'de> for Names {
        fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
            reader.deserialize_map(NamesVisitor)
        }
    }
    struct NamesVisitor;
    impl<'de> serde::de::Visitor<'de> for NamesVisitor {
        type Value = Names;
        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
            let mut names = Vec::new();
            while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                names.push(name);
            }
            Ok(Names(names))
        }
    }
    let Ok(Names(names)) = serde_json::from_slice(line) else { return false };
    let count = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
    ["log", "stream", "time"].iter().any(|name| count(name) > 1)
}
