//! Docker's json-file lines: `{"log":"text\n","stream":"stdout","time":"RFC 3339"}`
//! (moby, `daemon/logger/jsonfilelog/jsonlog`), as the kubelet reads them: with Go's `encoding/json` into
//! a struct of these three. Names match whatever their case is, of two fields with one name the later
//! counts, `null` changes nothing, other fields may be anything, and what is no text in a string becomes
//! U+FFFD. A rare format on today's nodes: serde reads it.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use thyme_core::cri::{CriParser, Stream, odd_time};

/// A line of a json-file, unescaped.
pub(crate) struct DockerLine<'a> {
    /// 0 where it has none, or one that a record can't carry.
    pub(crate) time_unix_nano: u64,
    /// The time as written, if a record can't carry it.
    pub(crate) odd_time: Option<Vec<u8>>,
    pub(crate) stream: Stream,
    /// Whether `log` ended in a newline; otherwise the next line goes on.
    pub(crate) complete: bool,
    /// `log` without that newline.
    pub(crate) body: Cow<'a, str>,
}

/// Whether a line may be one: it is an object.
pub(crate) fn is_object(line: &[u8]) -> bool {
    line.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r')) == Some(&b'{')
}

/// `None` when the line isn't one.
pub(crate) fn parse<'a>(line: &'a [u8], times: &mut CriParser) -> Option<DockerLine<'a>> {
    let Fields { log, stream, time } = serde_json::from_slice(line).ok()?;
    // A control character in a string is an error; reading strings as bytes doesn't look for them. All
    // of the line is looked at, without an early end, so that it takes many bytes at once.
    if line.iter().fold(false, |found, byte| found | (*byte < b' ')) {
        let _valid: IgnoredAny = serde_json::from_slice(line).ok()?;
    }
    let stream = Stream::from_name(&stream?)?;
    let (time_unix_nano, odd_time) = match time {
        None => (0, None),
        Some(text) => read_time(&text, times)?,
    };
    let log = log.map_or(Cow::Borrowed(""), into_text);
    let complete = log.ends_with('\n');
    let body = match log {
        Cow::Borrowed(log) => Cow::Borrowed(log.strip_suffix('\n').unwrap_or(log)),
        Cow::Owned(mut log) => {
            if complete {
                log.pop();
            }
            Cow::Owned(log)
        }
    };
    Some(DockerLine { time_unix_nano, odd_time, stream, complete, body })
}

fn read_time(text: &[u8], times: &mut CriParser) -> Option<(u64, Option<Vec<u8>>)> {
    match times.parse_time(text) {
        Some((time_unix_nano, b"")) => Some((time_unix_nano, None)),
        Some(_) => None,
        None => Some((odd_time(text)?, Some(text.to_vec()))),
    }
}

/// Text as Go makes it: each byte that belongs to no character becomes U+FFFD.
fn into_text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(replace_invalid(bytes, false)),
        },
        Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => replace_invalid(error.as_bytes(), true),
        }),
    }
}

/// Half of a surrogate pair that was escaped stands there as three bytes, and becomes one U+FFFD.
#[cold]
fn replace_invalid(mut bytes: &[u8], has_escapes: bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    loop {
        let valid_bytes = match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                return text;
            }
            Err(error) => error.valid_up_to(),
        };
        let (valid, invalid) = bytes.split_at(valid_bytes);
        text.push_str(std::str::from_utf8(valid).unwrap_or_default());
        text.push(char::REPLACEMENT_CHARACTER);
        let is_half = matches!(invalid, [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..]) && has_escapes;
        bytes = &invalid[if is_half { 3 } else { 1 }..];
    }
}

/// What the kubelet's struct has; `None` for what the document does not say.
#[derive(Default)]
struct Fields<'a> {
    log: Option<Cow<'a, [u8]>>,
    stream: Option<Cow<'a, [u8]>>,
    time: Option<Cow<'a, [u8]>>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(document: D) -> Result<Self, D::Error> {
        document.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(Bytes(name)) = map.next_key()? {
            let field = if is_name(&name, "log") {
                &mut fields.log
            } else if is_name(&name, "stream") {
                &mut fields.stream
            } else if is_name(&name, "time") {
                &mut fields.time
            } else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if let Some(Bytes(value)) = map.next_value()? {
                *field = Some(value);
            }
        }
        Ok(fields)
    }
}

/// Whether Go takes a field of this name for that of the struct: it folds case as Unicode does, which
/// knows a second small `s`.
fn is_name(found: &[u8], name: &str) -> bool {
    found.eq_ignore_ascii_case(name.as_bytes())
        || (!found.is_ascii()
            && std::str::from_utf8(found)
                .is_ok_and(|found| found.replace('\u{17f}', "s").eq_ignore_ascii_case(name)))
}

/// A string, whether its bytes are text or not.
struct Bytes<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Bytes<'de> {
    fn deserialize<D: Deserializer<'de>>(document: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = Bytes<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }
            fn visit_borrowed_bytes<E: de::Error>(
                self,
                bytes: &'de [u8],
            ) -> Result<Self::Value, E> {
                Ok(Bytes(Cow::Borrowed(bytes)))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Bytes(Cow::Owned(bytes.to_vec())))
            }
        }
        document.deserialize_bytes(BytesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = r#""stream":"stdout","time":"2024-02-29T23:59:59.5Z""#;
    const UNIX_NANO: u64 = 1_709_251_199_500_000_000;

    fn read(line: &[u8]) -> Option<(String, bool, u64)> {
        let parsed = parse(line, &mut CriParser::default())?;
        assert_eq!(parsed.stream, Stream::Stdout);
        Some((parsed.body.into_owned(), parsed.complete, parsed.time_unix_nano))
    }

    /// Scenario: lines as docker doesn't write them, and as the kubelet reads them all the same (tried
    /// with `encoding/json` of Go 1.26): without `log`, names in other cases and with escapes, fields that
    /// come twice or are `null`, blanks, unknown fields of any kind and depth, wrong text.
    /// Guarantees: the same body.
    #[test]
    fn lines_are_read_as_gos_decoder_reads_them() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        for (line, body) in [
            (format!(r#"{{{STREAM}}}"#), ""),
            (format!(r#"{{"LOG":"a",{STREAM}}}"#), "a"),
            (format!(r#"{{"l\u006fg":"a",{STREAM}}}"#), "a"),
            (format!(r#"{{"log":"a","Log":"b",{STREAM}}}"#), "b"),
            (format!(r#"{{"Log":"b","log":"a",{STREAM},"lOg":"c"}}"#), "c"),
            (format!(r#"{{"log":"a","log":null,{STREAM}}}"#), "a"),
            (format!(" \t{{ \"log\" :\r\"a\" , {STREAM} }} \r"), "a"),
            (format!(r#"{{"attrs":{{"log":"x"}},"log":"a",{STREAM},"n":-1.5e999}}"#), "a"),
            (format!(r#"{{"x":{deep},"log":"a",{STREAM}}}"#), "a"),
            (
                format!(r#"{{"log":"\ud83d\ude00 \ud800 \udc00\ud800\ud800x",{STREAM}}}"#),
                "\u{1f600} \u{fffd} \u{fffd}\u{fffd}\u{fffd}x",
            ),
            (format!("{{{},\"\u{17f}tream\":\"stdout\"}}", STREAM.replace("stdout", "stderr")), ""),
        ] {
            assert!(is_object(line.as_bytes()), "{line}");
            let found = read(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(found, (body.to_owned(), false, UNIX_NANO), "{line}");
        }
        let wrong =
            [&b"{\"log\":\"\xe2\x82a\xff \xed\xa0\x80\","[..], STREAM.as_bytes(), b"}"].concat();
        let replaced = "\u{fffd}\u{fffd}a\u{fffd} \u{fffd}\u{fffd}\u{fffd}".to_owned();
        assert_eq!(read(&wrong), Some((replaced, false, UNIX_NANO)));
        let untimed = br#"{"log":"a\n","stream":"stdout"}"#;
        assert_eq!(read(untimed), Some(("a".to_owned(), true, 0)));
    }

    /// Scenario: lines that the kubelet refuses: its decoder does (tried with `encoding/json` of Go
    /// 1.26), or it takes them, and finds no stream of a container in them.
    /// Guarantees: they are no docker lines.
    #[test]
    fn what_the_kubelet_refuses_is_malformed() {
        for line in [
            String::new(),
            "[]".to_owned(),
            format!("{{{STREAM}"),
            format!("{{{STREAM}}} x"),
            format!(r#"{{"log":5,{STREAM}}}"#),
            format!(r#"{{"log":["a"],{STREAM}}}"#),
            format!("{{\"log\":\"a\tb\",{STREAM}}}"),
            format!("{{\"x\":\"a\u{1}\",{STREAM}}}"),
            format!(r#"{{"log":"\x41",{STREAM}}}"#),
            format!(r#"{{"log":"a",,{STREAM}}}"#),
            r#"{"log":"a","stream":"stdout","time":"yesterday"}"#.to_owned(),
            r#"{"log":"a","stream":"stdout","time":"2024-02-29T23:59:59.5Z "}"#.to_owned(),
            // Without such a stream.
            "null".to_owned(),
            "{}".to_owned(),
            r#"{"log":"a","time":"2024-02-29T23:59:59.5Z"}"#.to_owned(),
            r#"{"log":"a","stream":"stdin","time":"2024-02-29T23:59:59.5Z"}"#.to_owned(),
        ] {
            assert_eq!(read(line.as_bytes()), None, "{line}");
        }
    }
}
