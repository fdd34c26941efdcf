//! Docker's json-file lines: `{"log":"text\n","stream":"stdout","time":"RFC 3339"}`
//! (moby, `daemon/logger/jsonfilelog/jsonlog`). A rare format on today's nodes: serde reads it.

use std::borrow::Cow;

use serde::Deserialize;
use thyme_core::cri::{CriParser, Stream};

/// A line of a json-file, unescaped.
pub(crate) struct DockerLine<'a> {
    pub(crate) time_unix_nano: u64,
    pub(crate) stream: Stream,
    /// Whether `log` ended in a newline; otherwise the next line goes on.
    pub(crate) complete: bool,
    /// `log` without that newline.
    pub(crate) body: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// `None` when the line isn't one.
pub(crate) fn parse<'a>(line: &'a [u8], times: &mut CriParser) -> Option<DockerLine<'a>> {
    let fields: Fields<'a> = serde_json::from_slice(line).ok()?;
    let stream = Stream::from_name(fields.stream.as_bytes())?;
    let (time_unix_nano, rest) = times.parse_time(fields.time.as_bytes())?;
    if !rest.is_empty() {
        return None;
    }
    let complete = fields.log.ends_with('\n');
    let body = match fields.log {
        Cow::Borrowed(log) => Cow::Borrowed(log.strip_suffix('\n').unwrap_or(log)),
        Cow::Owned(mut log) => {
            if complete {
                log.pop();
            }
            Cow::Owned(log)
        }
    };
    Some(DockerLine { time_unix_nano, stream, complete, body })
}
