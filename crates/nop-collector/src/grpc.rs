//! OTLP/gRPC: the unary method `LogsService/Export`, framed by hand so that the message stays bytes
//! (grpc/grpc, `doc/PROTOCOL-HTTP2.md`). Answers are never compressed, which every client accepts.

use std::fmt::Write;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::base64;
use crate::body::{self, Body};
use crate::connection::Connection;
use crate::decompress::Encoding;
use crate::intake::{Answer, Envelope, Format, Intake, Protocol};
use crate::refusal::{Refusal, grpc_code};
use crate::reply::Reply;
use crate::status::{Status, response_protobuf};

const EXPORT_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

const CONTENT_TYPE_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A message's prefix: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Answers one request.
pub(crate) async fn serve(
    intake: &Intake,
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<Reply> {
    match receive(intake, connection, request).await {
        Ok(answer) => respond(answer),
        Err(refusal) => {
            intake.refuse(&refusal);
            refuse(&refusal)
        }
    }
}

async fn receive(
    intake: &Intake,
    connection: &Connection,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let (head, mut incoming) = request.into_parts();
    if head.uri.path() != EXPORT_PATH {
        return Err(Refusal::UnknownPath { path: head.uri.path().to_owned() });
    }
    if head.method != Method::POST {
        return Err(Refusal::Method);
    }
    check_content_type(&head.headers)?;
    let encoding = encoding_of(&head.headers)?;
    let bytes_max = intake.decompressed_bytes_max + PREFIX_BYTES;
    let mut body = body::collect(&mut incoming, bytes_max, &intake.budget).await?;
    let encoding = unframe(&mut body, encoding)?;
    let envelope = Envelope {
        protocol: Protocol::Grpc,
        format: Format::Protobuf,
        encoding,
        headers: head.headers,
    };
    let treatment = intake.take(&envelope, &body, body.bytes())?;
    drop(body);
    Ok(connection.treat(treatment).await)
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let found = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    match found.strip_prefix(b"application/grpc") {
        Some(b"" | b"+proto") => Ok(()),
        Some([b';', ..]) => Ok(()),
        _ => Err(Refusal::ContentType {
            found: String::from_utf8_lossy(found).into_owned(),
            supported: "application/grpc, application/grpc+proto",
        }),
    }
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let Some(found) = headers.get("grpc-encoding") else { return Ok(Encoding::Identity) };
    let found = String::from_utf8_lossy(found.as_bytes());
    Encoding::from_name(&found)
        .ok_or_else(|| Refusal::ContentEncoding { found: found.into_owned() })
}

/// Takes the prefix off the one message of a unary call, and returns how it is compressed.
fn unframe(body: &mut Body<'_>, encoding: Encoding) -> Result<Encoding, Refusal> {
    let framing = |cause| Refusal::Framing { cause };
    let mut prefix = [0; PREFIX_BYTES];
    if body.bytes() < PREFIX_BYTES {
        return Err(framing("the call has no message"));
    }
    take_front(&mut body.chunks, &mut prefix);
    let [flag, length @ ..] = prefix;
    let message_bytes = (body.bytes() - PREFIX_BYTES) as u64;
    match u64::from(u32::from_be_bytes(length)) {
        length if length > message_bytes => return Err(framing("the message is incomplete")),
        length if length < message_bytes => {
            return Err(framing("a unary call has more than one message"));
        }
        _ => {}
    }
    match (flag, encoding) {
        (0, _) => Ok(Encoding::Identity),
        (1, Encoding::Identity) => Err(framing("a compressed message without grpc-encoding")),
        (1, _) => Ok(encoding),
        _ => Err(framing("an unknown flag before the message")),
    }
}

/// Moves the first bytes out of the pieces, which hold enough.
fn take_front(chunks: &mut Vec<Bytes>, out: &mut [u8]) {
    let mut filled = 0;
    for chunk in chunks.iter_mut() {
        let some = chunk.len().min(out.len() - filled);
        out[filled..filled + some].copy_from_slice(&chunk[..some]);
        chunk.advance(some);
        filled += some;
    }
    chunks.retain(|chunk| !chunk.is_empty());
}

fn respond(answer: Answer) -> Response<Reply> {
    match answer {
        Answer::Success { rejected } => {
            let message = response_protobuf(rejected);
            let mut framed = vec![0; PREFIX_BYTES];
            framed.extend_from_slice(&message);
            let length = u32::try_from(message.len()).expect("the response is a few bytes");
            framed[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from(grpc_code::OK));
            response(Reply::with_trailers(framed.into(), trailers))
        }
        Answer::GrpcStatus { code, retry_delay } => {
            let message = "a scripted fault".to_owned();
            status_only(&Status { code, message, retry_delay })
        }
        Answer::HttpStatus { status, retry_after } => {
            let mut response = Response::new(Reply::data("a scripted fault\n"));
            *response.status_mut() =
                StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            if let Some(Ok(value)) = retry_after.map(HeaderValue::try_from) {
                headers.insert(RETRY_AFTER, value);
            }
            response
        }
    }
}

fn refuse(refusal: &Refusal) -> Response<Reply> {
    if let Refusal::ContentType { .. } = refusal {
        // The protocol asks for this, so that clients that don't speak gRPC understand.
        let mut response = Response::new(Reply::data(format!("{refusal}\n")));
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let message = refusal.to_string();
    status_only(&Status { code: refusal.grpc_code(), message, retry_delay: None })
}

/// An answer without a message: the status is in the headers ("Trailers-Only").
fn status_only(status: &Status) -> Response<Reply> {
    let mut response = response(Reply::default());
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(status.code));
    let message = HeaderValue::try_from(percent_encode(&status.message));
    headers.insert("grpc-message", message.expect("percent-encoding leaves printable ASCII"));
    if status.retry_delay.is_some() {
        let details = HeaderValue::try_from(base64::encode(&status.to_protobuf()));
        headers.insert("grpc-status-details-bin", details.expect("base64 is printable ASCII"));
    }
    response
}

fn response(reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("zstd,gzip,identity"));
    response
}

/// What `grpc-message` asks for: printable ASCII but for the percent sign stays.
fn percent_encode(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a String can't fail"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a prefix that is spread over pieces of the body in every way.
    /// Guarantees: it is taken off, and the message is left whole.
    #[test]
    fn prefixes_may_be_in_pieces() {
        let body = b"\x01\0\0\0\x03abc";
        for first in 0..=body.len() {
            for second in first..=body.len() {
                let pieces = [&body[..first], &body[first..second], &body[second..]];
                let mut chunks = pieces.map(Bytes::from_static).to_vec();
                let mut prefix = [0; PREFIX_BYTES];
                take_front(&mut chunks, &mut prefix);
                assert_eq!(prefix, body[..PREFIX_BYTES]);
                assert_eq!(chunks.concat(), b"abc");
            }
        }
    }

    /// Scenario: a message with a newline, a percent sign and an umlaut.
    /// Guarantees: they are escaped, the rest stays legible.
    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encode("5 % of ü\n"), "5 %25 of %C3%BC%0A");
    }
}
