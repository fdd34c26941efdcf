//! What stands in the body of an answer, whoever wrote it: decoded, and told apart by its bytes
//! where its type is missing or wrong. What it means is not decided here.

use http::{HeaderMap, header};
use prost::Message;

use super::{
    answer::Answer,
    coding::Content,
    limits::RESPONSE_BYTES_MAX,
    partial::{self, PartialSuccess},
    reply,
};

/// The body of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// For people, on its way to a quote.
    pub(super) text: Vec<u8>,
    /// Whether this is a page for browsers, which no OTLP server writes.
    pub(super) is_page: bool,
    /// The code of a status of gRPC or HTTP that stands in the body.
    pub(super) code: Option<u32>,
}

/// The body of a success.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Response {
    /// An `ExportLogsServiceResponse`, perhaps an empty one.
    Otlp(PartialSuccess),
    /// A page for browsers.
    Page(Vec<u8>),
    /// Something else.
    Other(Vec<u8>),
}

/// What a refusal says: the message of the `google.rpc.Status` that OTLP asks for, whatever type it
/// comes under (Loki says application/octet-stream), or that of an error in JSON; else the body as
/// it is, which proxies write for people; of a redirection, where to.
pub(super) fn words(answer: &Answer) -> Words {
    if let Some(location) = answer.headers.get(header::LOCATION) {
        let text = [b"redirects are not followed, to ", location.as_bytes()].concat();
        return Words { text, ..Words::default() };
    }
    let Content { kept: body, undecoded, .. } = &answer.content;
    if let Some(undecoded) = undecoded {
        return Words { text: undecoded.clone().into_bytes(), ..Words::default() };
    }
    if is_page(&answer.headers, body) {
        return Words { text: page_text(body), is_page: true, code: None };
    }
    let status = match media_type(&answer.headers).as_str() {
        "application/json" | "text/plain" => None,
        _ => status_of(body),
    };
    let Some((text, code)) = status.or_else(|| json_status(body)) else {
        return Words { text: body.clone(), ..Words::default() };
    };
    Words { text, is_page: false, code }
}

/// What a success says.
pub(super) fn response(answer: &Answer) -> Response {
    let Content { kept, .. } = &answer.content;
    if is_page(&answer.headers, kept) && !kept.trim_ascii().is_empty() {
        return Response::Page(page_text(kept));
    }
    match partial_success(&answer.content) {
        Some(partial) => Response::Otlp(partial),
        None => Response::Other(in_words(&answer.content)),
    }
}

/// The partial success in a content, an empty one where there is nothing at all.
fn partial_success(content: &Content) -> Option<PartialSuccess> {
    let Content { kept, partial, is_too_long, undecoded } = content;
    let is_empty = kept.trim_ascii().is_empty() && !is_too_long && undecoded.is_none();
    if is_empty {
        return Some(PartialSuccess::default());
    }
    match kept.first() {
        Some(b'{') => partial::partial_success_json(kept),
        _ => partial.clone(),
    }
}

/// A content that nobody can make anything of.
pub(super) fn in_words(content: &Content) -> Vec<u8> {
    if let Some(undecoded) = &content.undecoded {
        return undecoded.clone().into_bytes();
    }
    if !content.is_too_long {
        return content.kept.clone();
    }
    let excess = format!("(more than {RESPONSE_BYTES_MAX} bytes) ");
    [excess.as_bytes(), &content.kept].concat()
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.unwrap_or_default().split(';').next().unwrap_or_default();
    media_type.trim().to_ascii_lowercase()
}

/// HTML by its type or, whatever its type is, by its first byte. (No protobuf of OTLP begins so: it
/// would be a group, which no message has.)
fn is_page(headers: &HeaderMap, body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let media_type = media_type(headers);
    media_type == "text/html"
        || media_type == "application/xhtml+xml"
        || body.trim_ascii_start().first() == Some(&b'<')
}

/// A page without its tags, styles and scripts.
fn page_text(page: &[u8]) -> Vec<u8> {
    let page = String::from_utf8_lossy(page);
    let (mut words, mut rest) = (Vec::new(), &*page);
    while let Some((text, tag)) = rest.split_once('<') {
        words.extend(text.split_whitespace());
        let is_silent = ["style", "script", "!--"].iter().find(|name| tag.starts_with(**name));
        let end = match is_silent {
            Some(&"!--") => "-->",
            Some(&"style") => "</style>",
            Some(_) => "</script>",
            None => ">",
        };
        rest = tag.split_once(end).map_or("", |(_, rest)| rest);
    }
    words.extend(rest.split_whitespace());
    words.join(" ").into_bytes()
}

/// The message and the code of a `google.rpc.Status`. Any bytes may look like protobuf: what is taken
/// for one has a message that is text.
fn status_of(body: &[u8]) -> Option<(Vec<u8>, Option<u32>)> {
    let status = reply::Status::decode(body).ok()?;
    let is_text = !status.message.is_empty() && std::str::from_utf8(&status.message).is_ok();
    is_text.then(|| (status.message, u32::try_from(status.code).ok()))
}

/// The message of a `google.rpc.Status` in JSON, or what others call theirs, and its code.
fn json_status(body: &[u8]) -> Option<(Vec<u8>, Option<u32>)> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |key: &str| json.get(key)?.as_str().filter(|text| !text.is_empty());
    let message = ["message", "error", "detail", "reason"].iter().find_map(|key| text(key));
    let nested = |key: &str| json.get("error")?.get(key);
    let message = message.or_else(|| nested("message")?.as_str());
    let code = json.get("code").or_else(|| nested("code")).and_then(serde_json::Value::as_u64);
    let code = code.and_then(|code| u32::try_from(code).ok());
    if message.is_none() && code.is_none() {
        return None;
    }
    let text = message.map_or_else(|| body.to_vec(), |text| text.as_bytes().to_vec());
    Some((text, code))
}
