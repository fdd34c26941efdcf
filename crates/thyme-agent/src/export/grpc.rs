//! OTLP/gRPC, unary, by hand: headers, the five bytes before a message, and what an answer means.
//! It builds and reads; connections are not its business.
//!
//! | status | meaning here |
//! |---|---|
//! | OK with a message | accepted, less the partial success's rejections |
//! | OK without one, or more than one, or before the message instead of behind it | the sink's fault: kept |
//! | OK in an answer of another type, or beside another status of HTTP than 200 | as without a status |
//! | any but denied, with words about the message's size (OUT_OF_RANGE, RESOURCE_EXHAUSTED; tonic, Go, Java...) | too large: halved; "for now" where it is a status of the row but one below |
//! | INVALID_ARGUMENT, UNKNOWN, INTERNAL that name `grpc-encoding` | misdirected: kept until somebody changes the compression |
//! | INVALID_ARGUMENT, UNKNOWN, INTERNAL that name single records (Loki behind a gateway) | rejected in part: the sink has the others |
//! | INVALID_ARGUMENT | rejected: something of it is wrong; about the way it was sent, or compression: misdirected; about credentials: denied; about quotas or overload: busy |
//! | DEADLINE_EXCEEDED | too late: tried again, halved, and fewer at once |
//! | CANCELLED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS | busy: tried again |
//! | RESOURCE_EXHAUSTED | busy; OTLP wants it dropped where `RetryInfo` is missing, we keep it |
//! | UNAUTHENTICATED, PERMISSION_DENIED | denied: kept until the credentials work again |
//! | UNIMPLEMENTED, NOT_FOUND | misdirected: kept until somebody mends the configuration |
//! | others, or none | the sink's fault: kept (see `delivery` about requests that only fail alone) |

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use prost::Message;

use super::{
    answer::{self, Answer, Messages},
    body,
    coding::Content,
    outcome::{Cause, Failure, Oddity, Outcome, Quote},
    reply,
    words::{
        self, is_about_a_cut_body, is_about_encoding, is_about_size, is_about_transport,
        rejected_in_part,
    },
};
use crate::config::Compression;

/// Length of what stands before a message: a flag and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// A status of gRPC; the numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Ok,
    InvalidArgument,
    ResourceExhausted,
    OutOfRange,
    Denied,
    Misdirected,
    TimedOut,
    Retryable,
    Other,
}

impl Code {
    const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Ok,
            3 => Self::InvalidArgument,
            8 => Self::ResourceExhausted,
            11 => Self::OutOfRange,
            7 | 16 => Self::Denied,
            5 | 12 => Self::Misdirected,
            4 => Self::TimedOut,
            1 | 10 | 14 | 15 => Self::Retryable,
            _ => Self::Other,
        }
    }

    /// Where a proxy answered instead of a gRPC server (gRPC's http-grpc-status-mapping, but for
    /// 400, which says nothing about the message).
    fn from_http(status: StatusCode) -> Self {
        match status.as_u16() {
            401 | 403 | 407 => Self::Denied,
            404 | 405 | 415 => Self::Misdirected,
            408 | 504 => Self::TimedOut,
            429 | 502 | 503 => Self::Retryable,
            _ => Self::Other,
        }
    }
}

/// What a status of gRPC, or else one of HTTP, that stands in an answer is about, where it is not about
/// the records.
pub(super) fn cause_beside_the_records(number: u32) -> Option<Cause> {
    let code = match number {
        0 | 400 | 413 | 422 => return None,
        1..=16 => Code::from_number(number),
        _ => Code::from_http(StatusCode::from_u16(u16::try_from(number).ok()?).ok()?),
    };
    match code {
        Code::Ok | Code::InvalidArgument => None,
        Code::Denied => Some(Cause::Denied),
        Code::Misdirected => Some(Cause::Misdirected),
        Code::TimedOut => Some(Cause::TimedOut),
        Code::ResourceExhausted | Code::OutOfRange | Code::Retryable => Some(Cause::Busy),
        Code::Other => Some(Cause::Fault),
    }
}

/// The headers that every request has.
pub(super) fn headers(timeout: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    // Many servers answer in the coding of the request, whatever is said here.
    let accepted = HeaderValue::from_static("identity,gzip,zstd");
    headers.insert(HeaderName::from_static("grpc-accept-encoding"), accepted);
    if let Some(value) = timeout_value(timeout) {
        headers.insert(HeaderName::from_static("grpc-timeout"), value);
    }
    headers
}

/// `grpc-timeout`: at most eight digits and a unit.
fn timeout_value(timeout: Duration) -> Option<HeaderValue> {
    const DIGITS_MAX: u128 = 99_999_999;
    let millis = timeout.as_millis().max(1);
    let text = if millis <= DIGITS_MAX {
        format!("{millis}m")
    } else {
        format!("{}S", u128::from(timeout.as_secs()).min(DIGITS_MAX))
    };
    HeaderValue::try_from(text).ok()
}

/// The header that names the compression, unless there is none.
pub(super) const fn encoding(compression: Compression) -> Option<(&'static str, &'static str)> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some(("grpc-encoding", "gzip")),
        Compression::Zstd => Some(("grpc-encoding", "zstd")),
    }
}

/// What stands before a message of `body_bytes`.
pub(super) fn prefix(compression: Compression, body_bytes: usize) -> Bytes {
    let length = u32::try_from(body_bytes).expect("requests are bounded far below 4 GiB");
    let mut prefix = [0; PREFIX_BYTES];
    prefix[0] = u8::from(compression != Compression::None);
    prefix[1..].copy_from_slice(&length.to_be_bytes());
    Bytes::copy_from_slice(&prefix)
}

/// What an answer means.
pub(super) fn outcome(answer: &Answer) -> Outcome {
    let trailers = answer.trailers.as_ref().filter(|all| all.contains_key("grpc-status"));
    let status_headers = trailers.unwrap_or(&answer.headers);
    let Some(code) = status_headers.get("grpc-status") else {
        return not_grpc(answer, "without grpc-status");
    };
    let number = code.to_str().ok().and_then(|text| text.trim().parse().ok());
    let code = number.map_or(Code::Other, Code::from_number);
    if code == Code::Ok {
        return accepted(answer, trailers.is_some());
    }
    let status = details(status_headers);
    let said = match status_headers.get("grpc-message") {
        Some(text) => reply::percent_decode(text.as_bytes()),
        None => status.message.clone(),
    };
    refused(code, number, &said, status.retry_delay())
}

fn refused(code: Code, number: Option<u32>, said: &[u8], retry_after: Option<Duration>) -> Outcome {
    let number = number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let said_all = Quote::new(&[b"grpc-status ", number.as_bytes(), b": ", said].concat());
    let failure = |cause| Failure { cause, retry_after, said: said_all.clone() };
    let fail = |cause| Outcome::Failed(failure(cause));
    match code {
        Code::Denied => fail(Cause::Denied),
        Code::InvalidArgument if is_about_transport(said) => fail(Cause::Misdirected),
        Code::InvalidArgument | Code::Other if is_about_encoding(said) => fail(Cause::Misdirected),
        Code::InvalidArgument | Code::Other if let Some(rejected) = rejected_in_part(said) => {
            Outcome::RejectedInPart(rejected, said_all)
        }
        Code::TimedOut if !is_about_size(said) => fail(Cause::TimedOut),
        Code::Retryable | Code::TimedOut if is_about_size(said) => {
            Outcome::TooLargeForNow(failure(Cause::Busy))
        }
        Code::InvalidArgument if is_about_a_cut_body(said) => Outcome::TooLarge(said_all),
        _ if is_about_size(said) => Outcome::TooLarge(said_all),
        Code::InvalidArgument if let Some(cause) = words::cause_beside_the_records(said) => {
            fail(cause)
        }
        Code::InvalidArgument => Outcome::Rejected(said_all),
        Code::ResourceExhausted | Code::OutOfRange | Code::Retryable | Code::TimedOut => {
            fail(Cause::Busy)
        }
        Code::Misdirected => fail(Cause::Misdirected),
        Code::Ok | Code::Other => fail(Cause::Fault),
    }
}

/// An answer without `grpc-status`, or one whose OK is none: by something that isn't a gRPC server,
/// or broken off.
fn not_grpc(answer: &Answer, what: &str) -> Outcome {
    let words = body::words(answer).text;
    let status = answer.status.as_u16();
    let said = format!("HTTP {status} {what}: {}", String::from_utf8_lossy(&words));
    let said = Quote::new(said.trim_end_matches(": ").as_bytes());
    if answer.status == StatusCode::PAYLOAD_TOO_LARGE {
        return Outcome::TooLarge(said);
    }
    let cause = match Code::from_http(answer.status) {
        Code::Denied => Cause::Denied,
        Code::Misdirected => Cause::Misdirected,
        Code::TimedOut => Cause::TimedOut,
        Code::Retryable => Cause::Busy,
        // A page or another service, which has nothing against the request.
        _ if answer.status.is_success() && names_another_type(&answer.headers) => {
            Cause::Misdirected
        }
        _ => Cause::Fault,
    };
    let is_large = cause != Cause::Denied && is_about_size(&words);
    let retry_after = super::retry::retry_after(&answer.headers, std::time::SystemTime::now());
    let failure = Failure { cause, retry_after, said };
    if is_large { Outcome::TooLargeForNow(failure) } else { Outcome::Failed(failure) }
}

fn names_another_type(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_TYPE) && !answer::has_type_of_grpc(headers)
}

/// What an OK means. As in grpc-go it is one only with a status of HTTP that is 200, a type that is
/// gRPC's, and one whole message with the status behind it: proxies and pages have statuses of their own
/// making, and whoever says how it ended before it has ended does not know. Such a message has been taken,
/// whatever it is: one that is none of OTLP's, or that can't be decoded, is said.
fn accepted(answer: &Answer, is_at_the_end: bool) -> Outcome {
    if answer.status != StatusCode::OK {
        return not_grpc(answer, "with grpc-status 0");
    }
    if !answer::has_type_of_grpc(&answer.headers) {
        return not_grpc(answer, "with grpc-status 0, but not of the type application/grpc");
    }
    let what = match answer.messages {
        Messages::One if is_at_the_end => return message(&answer.content),
        Messages::One => "before its message, and none behind it",
        Messages::None => "without a message",
        Messages::Cut => "without a whole message",
        Messages::Several => "with more than one message",
    };
    Outcome::failed(Cause::Fault, Quote::new(format!("grpc-status 0 {what}").as_bytes()))
}

fn message(content: &Content) -> Outcome {
    let Some(partial) = &content.partial else {
        let said = [b"grpc-status 0: ", &body::in_words(content)[..]].concat();
        return Outcome::Unconfirmed(Oddity::Body, Quote::new(&said));
    };
    Outcome::Accepted {
        rejected_records: u64::try_from(partial.rejected_log_records).unwrap_or_default(),
        said: Quote::new(&partial.error_message),
    }
}

fn details(headers: &HeaderMap) -> reply::Status {
    headers
        .get("grpc-status-details-bin")
        .and_then(|value| reply::base64_decode(value.as_bytes()))
        .and_then(|bytes| reply::Status::decode(&bytes[..]).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::reply::tests::{base64_encode, status_with_retry_info};
    use crate::export::words::tests::IGNORED;
    use crate::{
        config::Protocol,
        export::limits::{RESPONSE_BYTES_MAX, RESPONSE_KEPT_BYTES_MAX},
    };
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };

    fn trailers_only(code: u32, message: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", code.into());
        headers.insert("grpc-message", message.try_into().unwrap());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Answer::of(Protocol::Grpc, 200, headers, b"")
    }

    /// An answer with a status of 0 behind a body.
    fn ok(status: u16, headers: &[(&'static str, &'static str)], body: &[u8]) -> Answer {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut answer = Answer::of(Protocol::Grpc, status, headers.collect(), body);
        answer.trailers = Some(trailers_only(0, "").headers);
        answer
    }

    /// A message behind its flag and its length.
    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[flag], &length[..], message].concat()
    }

    const GRPC: (&str, &str) = ("content-type", "application/grpc");

    /// A response that rejects 3 records, with words of such a length.
    fn rejecting_three(words: usize) -> Vec<u8> {
        let partial_success = Some(ExportLogsPartialSuccess {
            rejected_log_records: 3,
            error_message: "m".repeat(words),
        });
        ExportLogsServiceResponse { partial_success }.encode_to_vec()
    }

    /// What an answer comes to, in short.
    fn came_to(answer: &Answer) -> String {
        match outcome(answer) {
            Outcome::Accepted { rejected_records, .. } => format!("accepted, {rejected_records}"),
            Outcome::Unconfirmed(Oddity::Body, said) => format!("odd, {said}"),
            Outcome::Failed(failure) => format!("{:?}, {}", failure.cause, failure.said),
            other => panic!("{other:?}"),
        }
    }

    fn cause(outcome: &Outcome) -> Option<Cause> {
        match outcome {
            Outcome::Failed(failure) => Some(failure.cause),
            _ => None,
        }
    }

    /// Scenario: each status that gRPC has, without further details (failure mode 24 among them).
    /// Guarantees: only INVALID_ARGUMENT gives a request up; every other is kept, by its cause.
    #[test]
    fn every_status() {
        for code in 1..=17 {
            let outcome = outcome(&trailers_only(code, "no"));
            let expected = match code {
                4 => Some(Cause::TimedOut),
                1 | 8 | 10 | 11 | 14 | 15 => Some(Cause::Busy),
                7 | 16 => Some(Cause::Denied),
                5 | 12 => Some(Cause::Misdirected),
                2 | 6 | 9 | 13 | 17 => Some(Cause::Fault),
                _ => None,
            };
            assert_eq!(cause(&outcome), expected, "{code}");
            assert_eq!(matches!(outcome, Outcome::Rejected(_)), code == 3);
        }
    }

    /// Scenario: failure mode 23: a message that is too large comes as OUT_OF_RANGE (tonic) or as
    /// RESOURCE_EXHAUSTED (Go), percent-encoded, once even with a `RetryInfo`.
    /// Guarantees: it is taken as too large, not as retryable.
    #[test]
    fn too_large_by_its_words() {
        let tonic = "Error%2C decoded message length too large%3A found 9 bytes";
        assert!(matches!(outcome(&trailers_only(11, tonic)), Outcome::TooLarge(_)));
        let mut go = trailers_only(8, "grpc: received message larger than max (9 vs. 4)");
        let details = base64_encode(&status_with_retry_info(1, 0)).try_into().unwrap();
        go.headers.insert("grpc-status-details-bin", details);
        assert!(matches!(outcome(&go), Outcome::TooLarge(_)));
        // Words alone do not make another status one about size.
        assert_eq!(cause(&outcome(&trailers_only(16, "body too large"))), Some(Cause::Denied));
    }

    /// Scenario: a gateway lost its connection to what is behind it, and says "unexpected EOF"; so
    /// does a Go server of a body that its limit cut, as INVALID_ARGUMENT.
    /// Guarantees: only the second is about size.
    #[test]
    fn a_lost_backend_is_not_about_size() {
        let said = "error reading from server: unexpected EOF";
        assert!(matches!(outcome(&trailers_only(3, said)), Outcome::TooLarge(_)));
        for (code, expected) in [(14, Cause::Busy), (13, Cause::Fault), (4, Cause::TimedOut)] {
            assert_eq!(cause(&outcome(&trailers_only(code, said))), Some(expected), "{code}");
        }
    }

    /// Scenario: servers that don't know how a request is compressed: gRPC core, grpc-go.
    /// Guarantees: it is kept, and the log says what to look at.
    #[test]
    fn an_unknown_compression_is_misdirected() {
        for (code, said) in [
            (13, "Error parsing 'grpc-encoding' metadata"),
            (2, "Error parsing 'grpc-encoding' metadata"),
            (12, "grpc: Decompressor is not installed for grpc-encoding \"zstd\""),
            (3, "Unsupported grpc-encoding value 'zstd'. Supported encodings: gzip"),
        ] {
            let outcome = outcome(&trailers_only(code, said));
            assert_eq!(cause(&outcome), Some(Cause::Misdirected), "{said}");
        }
    }

    /// Scenario: failure mode 26: RESOURCE_EXHAUSTED with a `RetryInfo` in the trailers.
    /// Guarantees: its delay is handed on.
    #[test]
    fn retry_info_in_the_trailers() {
        let mut answer = trailers_only(8, "slow down");
        let details = base64_encode(&status_with_retry_info(7, 0)).try_into().unwrap();
        answer.headers.insert("grpc-status-details-bin", details);
        answer.trailers = Some(std::mem::take(&mut answer.headers));
        let Outcome::Failed(failure) = outcome(&answer) else { panic!("must fail") };
        assert_eq!(
            (failure.cause, failure.retry_after),
            (Cause::Busy, Some(Duration::from_secs(7)))
        );
        assert_eq!(failure.said.to_string(), "grpc-status 8: slow down");
    }

    /// Scenario: a status of 0 behind a message: an empty one, one that rejects 3 records, one that is
    /// none of OTLP's.
    /// Guarantees: the 3 are reported; the others are taken, and the last is said, as over HTTP.
    #[test]
    fn accepted_with_partial_success() {
        for (message, expected) in [
            (&b""[..], "accepted, 0"),
            (&[0x0a, 2, 0x08, 3], "accepted, 3"),
            (b"garbage", "odd, grpc-status 0: garbage"),
        ] {
            assert_eq!(came_to(&ok(200, &[GRPC], &framed(0, message))), expected);
        }
    }

    /// Scenario: a partial success that is compressed: with each coding, with one that nobody knows,
    /// with none that is named, cut, with a wrong checksum, as a bomb.
    /// Guarantees: its rejections are counted; what can't be decoded is said, and of a bomb no more is
    /// decoded than may be read.
    #[test]
    fn a_compressed_partial_success_is_read() {
        use flate2::{Compression, write};
        use std::io::Write;

        let gzip = |message: &[u8]| {
            let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(message).unwrap();
            encoder.finish().unwrap()
        };
        let message = rejecting_three(1000);
        let mut zlib = write::ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&message).unwrap();
        let zlib = zlib.finish().unwrap();
        let zstd = zstd::bulk::compress(&message, 1).unwrap();
        let zipped = gzip(&message);
        let with = |coding: &'static str, message: &[u8]| {
            came_to(&ok(200, &[GRPC, ("grpc-encoding", coding)], &framed(1, message)))
        };
        for (coding, message) in
            [("gzip", &zipped), ("zstd", &zstd), ("deflate", &zlib), ("GZIP", &zipped)]
        {
            assert_eq!(with(coding, message), "accepted, 3", "{coding}");
            let odd = with(coding, &message[..message.len() - 1]);
            assert!(odd.starts_with("odd"), "{odd}");
        }
        assert_eq!(with("gzip", b""), "accepted, 0");
        assert_eq!(with("gzip", &gzip(b"")), "accepted, 0");
        assert_eq!(with("snappy", b"abc"), "odd, grpc-status 0: (3 bytes of snappy)");
        assert_eq!(with("gzip", b"abc"), "odd, grpc-status 0: (3 bytes of gzip)");
        let unnamed = "odd, grpc-status 0: (3 bytes of an unnamed coding)";
        assert_eq!(with("identity", b"abc"), unnamed);
        assert_eq!(came_to(&ok(200, &[GRPC], &framed(1, b"abc"))), unnamed);
        // A message that is not flagged is not compressed, whatever the headers say.
        let plain = ok(200, &[GRPC, ("grpc-encoding", "gzip")], &framed(0, &message));
        assert_eq!(came_to(&plain), "accepted, 3");
        let mut wrong = zipped.clone();
        let checksum = wrong.len() - 8;
        wrong[checksum] ^= 1;
        assert!(with("gzip", &wrong).starts_with("odd"));

        let bomb = vec![b'x'; 2 * RESPONSE_BYTES_MAX];
        for (coding, bomb) in
            [("gzip", gzip(&bomb)), ("zstd", zstd::bulk::compress(&bomb, 1).unwrap())]
        {
            let body = framed(1, &bomb);
            let answer = ok(200, &[GRPC, ("grpc-encoding", coding)], &body);
            assert!(
                came_to(&answer).starts_with("odd, grpc-status 0: (more than 4194304 bytes) xxx")
            );
            assert!(answer.content.kept.capacity() <= 2 * RESPONSE_KEPT_BYTES_MAX);
        }
    }

    /// Scenario: a partial success with words of any length up to what may be read, and beyond, plain and
    /// compressed.
    /// Guarantees: its count is read all the same, and little of its words is kept.
    #[test]
    fn a_long_partial_success_is_read() {
        for words in [66_000, 300_000, 5_000_000] {
            let message = rejecting_three(words);
            let answer = ok(200, &[GRPC], &framed(0, &message));
            assert_eq!(came_to(&answer), "accepted, 3", "{words}");
            assert!(answer.content.kept.capacity() <= 2 * RESPONSE_KEPT_BYTES_MAX);
            let coded = framed(1, &zstd::bulk::compress(&message, 1).unwrap());
            let answer = ok(200, &[GRPC, ("grpc-encoding", "zstd")], &coded);
            assert_eq!(came_to(&answer), "accepted, 3", "{words}");
        }
    }

    /// Scenario: a status of 0 in an answer without a message, with a cut one, with two, or with what is
    /// none; of another type; beside another status of HTTP; in the first headers, before a message, with
    /// trailers that have none or without any.
    /// Guarantees: none takes the request, none gives it up; what is not gRPC's goes by HTTP's status.
    #[test]
    fn an_ok_that_is_none_takes_nothing() {
        let empty = framed(0, b"");
        let missing = "Fault, grpc-status 0 without a message";
        assert_eq!(came_to(&trailers_only(0, "")), missing);
        assert_eq!(came_to(&ok(200, &[GRPC], b"")), missing);
        for cut in [&empty[..4], &framed(0, b"abc")[..6], b"garbage"] {
            let expected = "Fault, grpc-status 0 without a whole message";
            assert_eq!(came_to(&ok(200, &[GRPC], cut)), expected);
        }
        let two = [empty.clone(), framed(0, &rejecting_three(1))].concat();
        let several = "Fault, grpc-status 0 with more than one message";
        assert_eq!(came_to(&ok(200, &[GRPC], &two)), several);
        let early = trailers_only(0, "").headers;
        let mut early = Answer::of(Protocol::Grpc, 200, early, &empty);
        for trailers in [None, Some(HeaderMap::new())] {
            early.trailers = trailers;
            let expected = "Fault, grpc-status 0 before its message, and none behind it";
            assert_eq!(came_to(&early), expected);
        }
        early.trailers = Some(trailers_only(0, "").headers);
        assert_eq!(came_to(&early), "accepted, 0");
        early.trailers = Some(trailers_only(14, "no").headers);
        assert_eq!(cause(&outcome(&early)), Some(Cause::Busy));
        for (status, expected) in [
            (503, Cause::Busy),
            (404, Cause::Misdirected),
            (403, Cause::Denied),
            (500, Cause::Fault),
        ] {
            assert_eq!(cause(&outcome(&ok(status, &[GRPC], &empty))), Some(expected), "{status}");
        }
        for content_type in ["text/html", "application/json", "application/grpc-web+proto"] {
            let answer = ok(200, &[("content-type", content_type)], b"<html>log in");
            let said =
                "Misdirected, HTTP 200 with grpc-status 0, but not of the type application/grpc";
            assert!(came_to(&answer).starts_with(said), "{content_type}");
        }
        assert_eq!(cause(&outcome(&ok(200, &[], &empty))), Some(Cause::Fault));
        for content_type in ["application/grpc+proto", "application/grpc;v=1", "Application/GRPC"] {
            assert_eq!(came_to(&ok(200, &[("content-type", content_type)], &empty)), "accepted, 0");
        }
    }

    /// Scenario: D2, D17, D20 and D21 over gRPC: refusals in words about the way a request was sent, about
    /// credentials, quotas, compression, sizes and single records; sizes in the page of a proxy.
    /// Guarantees: what is not about the records loses none, and what is large is halved, by its words.
    #[test]
    fn refusals_mean_what_they_say() {
        let name = |outcome: Outcome| match outcome {
            Outcome::TooLarge(_) => "large",
            Outcome::TooLargeForNow(_) => "large for now",
            Outcome::Rejected(_) => "rejected",
            Outcome::RejectedInPart(..) => "in part",
            Outcome::Failed(Failure { cause: Cause::Busy, .. }) => "busy",
            Outcome::Failed(Failure { cause: Cause::Denied, .. }) => "denied",
            Outcome::Failed(Failure { cause: Cause::Misdirected, .. }) => "misdirected",
            other => panic!("{other:?}"),
        };
        let large = "trying to send message larger than max (4464749 vs. 4194304)";
        let behind_a_gateway = "request to http://loki:3100 responded with HTTP Status Code 413";
        let ignored = &IGNORED.replace('\n', "%0A");
        for (code, said, expected) in [
            (3, "unsupported path requested: \"/v1/logs\"", "misdirected"),
            (3, "unknown service opentelemetry.logs", "misdirected"),
            (3, "gzip: invalid header", "misdirected"),
            (3, "Invalid API key", "denied"),
            (3, "quota exceeded for this plan", "busy"),
            (3, "proto: wrong wireType", "rejected"),
            (3, large, "large"),
            (14, large, "large for now"),
            (4, large, "large for now"),
            (16, large, "denied"),
            (2, behind_a_gateway, "large"),
            (13, behind_a_gateway, "large"),
            (3, "entry too far behind", "rejected"),
            (3, ignored, "in part"),
            (2, &format!("Message={ignored}, Details=[]"), "in part"),
            (13, "entry for stream '{}' has timestamp too new: 2026-11-01", "in part"),
            (14, ignored, "busy"),
        ] {
            assert_eq!(name(outcome(&trailers_only(code, said))), expected, "{code} {said}");
        }
        for (status, expected) in [(502, "large for now"), (500, "large for now"), (401, "denied")]
        {
            let body = b"request body too large";
            let answer = Answer::of(Protocol::Grpc, status, HeaderMap::new(), body);
            assert_eq!(name(outcome(&answer)), expected, "{status}");
        }
    }

    /// Scenario: answers of proxies, without `grpc-status`.
    /// Guarantees: none gives a request up; 413 is about its size.
    #[test]
    fn answers_that_are_not_grpc() {
        let answer = |status| Answer::of(Protocol::Grpc, status, HeaderMap::new(), b"");
        assert!(matches!(outcome(&answer(413)), Outcome::TooLarge(_)));
        for (status, expected) in [
            (200, Cause::Fault),
            (400, Cause::Fault),
            (401, Cause::Denied),
            (404, Cause::Misdirected),
            (503, Cause::Busy),
            (500, Cause::Fault),
        ] {
            assert_eq!(cause(&outcome(&answer(status))), Some(expected), "{status}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        let page = Answer::of(Protocol::Grpc, 200, headers, b"<h1>Welcome</h1>");
        assert_eq!(came_to(&page), "Misdirected, HTTP 200 without grpc-status: Welcome");
    }

    /// Scenario: time-outs from nothing to years.
    /// Guarantees: at most eight digits, as the protocol wants.
    #[test]
    fn timeout_header() {
        let text = |timeout| timeout_value(timeout).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(text(Duration::from_micros(1)), Some("1m".into()));
        assert_eq!(text(Duration::from_secs(5)), Some("5000m".into()));
        assert_eq!(text(Duration::from_secs(200_000)), Some("200000S".into()));
        assert_eq!(text(Duration::MAX), Some("99999999S".into()));
    }

    /// Scenario: prefixes of a plain and of a compressed message.
    /// Guarantees: the flag, then the length, big-endian.
    #[test]
    fn prefix_layout() {
        assert_eq!(&prefix(Compression::None, 5)[..], [0, 0, 0, 0, 5]);
        assert_eq!(&prefix(Compression::Zstd, 0x0102_0304)[..], [1, 1, 2, 3, 4]);
    }
}
