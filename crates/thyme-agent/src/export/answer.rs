//! What a sink answered, read to its end: gRPC's messages out of their frames, everything out of its
//! coding. What it means is not decided here.

use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    coding::{self, Content},
    grpc::PREFIX_BYTES,
};
use crate::config::Protocol;

/// What a sink answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    /// Of an answer that is gRPC's: its messages. The content is the first one's.
    pub(super) messages: Messages,
    pub(super) trailers: Option<HeaderMap>,
}

/// How many messages an answer has. A unary call is answered with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Messages {
    None,
    /// Less than one, or what is none.
    Cut,
    One,
    Several,
}

/// Reads an answer; the flag is false where it was longer than we care to read.
pub(super) async fn read(
    response: Response<Incoming>,
    protocol: Protocol,
) -> hyper::Result<(Answer, bool)> {
    crate::failpoint::hit("request_answered");
    let (head, mut incoming) = response.into_parts();
    let mut reader = Reader::new(protocol, &head.headers);
    let mut trailers = None;
    let mut is_whole = true;
    while let Some(frame) = incoming.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                reader.feed(&data);
                if reader.is_done() {
                    is_whole = false;
                    break;
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let (content, messages) = reader.end();
    let (status, headers) = (head.status, head.headers);
    Ok((Answer { status, headers, content, messages, trailers }, is_whole))
}

/// Whether the type of an answer is gRPC's, as grpc-go tells it.
pub(super) fn has_type_of_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let value = value.unwrap_or_default().trim().to_ascii_lowercase();
    let rest = value.strip_prefix("application/grpc");
    rest.is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'+' | b';')))
}

/// Reads a body in whatever pieces it comes.
struct Reader {
    content: coding::Reader,
    /// What stands before the messages, where there are some.
    frames: Option<Frames>,
}

/// Where one is in a row of messages, each behind a flag and its length.
struct Frames {
    /// The coding of messages that are flagged.
    coding: Vec<u8>,
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// What is left of the message behind a whole prefix.
    left: usize,
    messages: Messages,
}

impl Reader {
    fn new(protocol: Protocol, headers: &HeaderMap) -> Self {
        let coding = |name: HeaderName| headers.get(name).map(|value| value.as_bytes().to_vec());
        if protocol == Protocol::Grpc && has_type_of_grpc(headers) {
            let coding = coding(HeaderName::from_static("grpc-encoding"));
            let frames = Frames {
                // A flagged message has a coding that can be none of those without one.
                coding: coding
                    .filter(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
                    .unwrap_or_else(|| b"an unnamed coding".to_vec()),
                prefix: [0; PREFIX_BYTES],
                prefix_bytes: 0,
                left: 0,
                messages: Messages::None,
            };
            return Self { content: coding::Reader::new(b""), frames: Some(frames) };
        }
        let coding = coding(header::CONTENT_ENCODING).unwrap_or_default();
        Self { content: coding::Reader::new(&coding), frames: None }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        let Some(frames) = &mut self.frames else { return self.content.feed(bytes) };
        while !bytes.is_empty() {
            if frames.messages == Messages::Several || frames.prefix[0] > 1 {
                return;
            }
            if frames.prefix_bytes < PREFIX_BYTES {
                if frames.messages == Messages::One {
                    frames.messages = Messages::Several;
                    return;
                }
                frames.messages = Messages::Cut;
                frames.prefix[frames.prefix_bytes] = bytes[0];
                frames.prefix_bytes += 1;
                bytes = &bytes[1..];
                if frames.prefix_bytes < PREFIX_BYTES {
                    continue;
                }
                let [flag, length @ ..] = frames.prefix;
                frames.left = u32::from_be_bytes(length) as usize;
                if flag == 1 {
                    self.content = coding::Reader::new(&frames.coding);
                }
            }
            let message = &bytes[..frames.left.min(bytes.len())];
            self.content.feed(message);
            frames.left -= message.len();
            bytes = &bytes[message.len()..];
            if frames.left == 0 {
                (frames.messages, frames.prefix_bytes) = (Messages::One, 0);
            }
        }
    }

    /// Whether nothing that follows is of interest. Behind gRPC's messages comes its status.
    fn is_done(&mut self) -> bool {
        self.frames.is_none() && self.content.is_too_long()
    }

    fn end(self) -> (Content, Messages) {
        let messages = self.frames.map_or(Messages::None, |frames| frames.messages);
        (self.content.end(), messages)
    }
}

#[cfg(test)]
impl Answer {
    /// One with such a body, which comes in two pieces.
    pub(super) fn of(protocol: Protocol, status: u16, headers: HeaderMap, body: &[u8]) -> Self {
        let mut reader = Reader::new(protocol, &headers);
        let (first, second) = body.split_at(body.len() / 2);
        reader.feed(first);
        reader.feed(second);
        let (content, messages) = reader.end();
        let status = StatusCode::from_u16(status).expect("a test knows its statuses");
        Self { status, headers, content, messages, trailers: None }
    }
}
