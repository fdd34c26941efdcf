//! OTLP/HTTP: `POST /v1/logs`, protobuf and JSON (opentelemetry-proto, "OTLP/HTTP"). An answer has
//! the request's format; errors are a `google.rpc.Status`.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::body;
use crate::connection::Connection;
use crate::decompress::Encoding;
use crate::intake::{Answer, Envelope, Format, Intake, Protocol};
use crate::refusal::{Refusal, grpc_code};
use crate::reply::Reply;
use crate::status::{Status, response_json, response_protobuf};

const LOGS_PATH: &str = "/v1/logs";

/// Answers one request.
pub(crate) async fn serve(
    intake: &Intake,
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<Reply> {
    // Known before anything can go wrong, since errors are written in it, too.
    let format = format_of(request.headers());
    let (head, mut incoming) = request.into_parts();
    // A client that waits to be told to go on won't be, and sends nothing.
    let sends_all = head.version < Version::HTTP_2 && !head.headers.contains_key(EXPECT);
    match receive(intake, connection, head, &mut incoming, format).await {
        Ok((answer, format)) => respond(answer, format),
        Err(refusal) => {
            intake.refuse(&refusal);
            if sends_all {
                body::discard(&mut incoming).await;
            }
            refuse(&refusal, format)
        }
    }
}

async fn receive(
    intake: &Intake,
    connection: &Connection,
    head: Parts,
    incoming: &mut Incoming,
    format: Option<Format>,
) -> Result<(Answer, Format), Refusal> {
    if head.uri.path() != LOGS_PATH {
        return Err(Refusal::UnknownPath { path: head.uri.path().to_owned() });
    }
    if head.method != Method::POST {
        return Err(Refusal::Method);
    }
    let format = format.ok_or_else(|| Refusal::ContentType {
        found: text_of(&head.headers, CONTENT_TYPE.as_str()),
        supported: "application/x-protobuf, application/json",
    })?;
    let encoding = encoding_of(&head.headers)?;
    let body = body::collect(incoming, intake.decompressed_bytes_max, &intake.budget).await?;
    let envelope = Envelope { protocol: Protocol::Http, format, encoding, headers: head.headers };
    let treatment = intake.take(&envelope, &body, body.bytes())?;
    drop(body);
    Ok((connection.treat(treatment).await, format))
}

/// The media type without its parameters; `None` when it is neither of the two.
fn format_of(headers: &HeaderMap) -> Option<Format> {
    let found = text_of(headers, CONTENT_TYPE.as_str());
    let media_type = found.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/x-protobuf" | "application/protobuf" => Some(Format::Protobuf),
        "application/json" => Some(Format::Json),
        _ => None,
    }
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let found = text_of(headers, CONTENT_ENCODING.as_str());
    Encoding::from_name(&found).ok_or(Refusal::ContentEncoding { found })
}

/// A header as text, empty when there is none; several lines become one, as HTTP reads them.
fn text_of(headers: &HeaderMap, name: &str) -> String {
    let lines = headers.get_all(name).iter();
    let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    lines.join(", ")
}

fn respond(answer: Answer, format: Format) -> Response<Reply> {
    let fault =
        |code, retry_delay| Status { code, message: "a scripted fault".to_owned(), retry_delay };
    match answer {
        Answer::Success { rejected } => {
            let message = match format {
                Format::Protobuf => response_protobuf(rejected),
                Format::Json => response_json(rejected),
            };
            response(StatusCode::OK, format, message)
        }
        Answer::HttpStatus { status, retry_after } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let mut response = with_status(status, format, &fault(code_of(status), None));
            if let Some(Ok(value)) = retry_after.map(HeaderValue::try_from) {
                response.headers_mut().insert(RETRY_AFTER, value);
            }
            response
        }
        Answer::GrpcStatus { code, retry_delay } => {
            let status = fault(code, retry_delay);
            let mut response = with_status(http_status_of(code), format, &status);
            if let Some(delay) = retry_delay {
                let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    }
}

/// Without a format that both sides know, an error is plain text.
fn refuse(refusal: &Refusal, format: Option<Format>) -> Response<Reply> {
    let mut response = match (refusal, format) {
        (Refusal::Method | Refusal::UnknownPath { .. }, _) | (_, None) => {
            let mut response = Response::new(Reply::data(format!("{refusal}\n")));
            *response.status_mut() = refusal.http_status();
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, text);
            response
        }
        (_, Some(format)) => {
            let message = refusal.to_string();
            let status = Status { code: refusal.grpc_code(), message, retry_delay: None };
            with_status(refusal.http_status(), format, &status)
        }
    };
    match refusal {
        Refusal::Method => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        Refusal::ContentEncoding { .. } => {
            let supported = HeaderValue::from_static("gzip, zstd, identity");
            response.headers_mut().insert(ACCEPT_ENCODING, supported);
        }
        _ => {}
    }
    response
}

fn with_status(code: StatusCode, format: Format, status: &Status) -> Response<Reply> {
    let message = match format {
        Format::Protobuf => status.to_protobuf(),
        Format::Json => status.to_json(),
    };
    response(code, format, message)
}

fn response(status: StatusCode, format: Format, message: Vec<u8>) -> Response<Reply> {
    let mut response = Response::new(Reply::data(Bytes::from(message)));
    *response.status_mut() = status;
    let content_type = match format {
        Format::Protobuf => "application/x-protobuf",
        Format::Json => "application/json",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The HTTP status for a gRPC code, as the OpenTelemetry Collector's receiver has it.
const fn http_status_of(code: u32) -> StatusCode {
    match code {
        grpc_code::INVALID_ARGUMENT => StatusCode::BAD_REQUEST,
        grpc_code::UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
        grpc_code::PERMISSION_DENIED => StatusCode::FORBIDDEN,
        grpc_code::UNIMPLEMENTED => StatusCode::NOT_FOUND,
        grpc_code::RESOURCE_EXHAUSTED => StatusCode::TOO_MANY_REQUESTS,
        grpc_code::UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The gRPC code to write into the body of a scripted HTTP status.
const fn code_of(status: StatusCode) -> u32 {
    match status {
        StatusCode::UNAUTHORIZED => grpc_code::UNAUTHENTICATED,
        StatusCode::FORBIDDEN => grpc_code::PERMISSION_DENIED,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => {
            grpc_code::RESOURCE_EXHAUSTED
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            grpc_code::UNAVAILABLE
        }
        StatusCode::BAD_REQUEST => grpc_code::INVALID_ARGUMENT,
        _ => grpc_code::INTERNAL,
    }
}
