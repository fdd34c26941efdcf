//! OTLP/HTTP with protobuf bodies: headers, and what an answer means. It builds and reads;
//! connections are not its business.
//!
//! | status | meaning here |
//! |---|---|
//! | 200, 201, 202, 204 with an OTLP body or none | accepted, less the partial success's rejections |
//! | 2xx with a page in HTML | misdirected: kept |
//! | other bodies | taken: said |
//! | other 2xx | taken, but proves nothing: said |
//! | 413; any but the next row with words about size | too large: halved |
//! | 401, 403, 407 | denied: kept until the credentials work again |
//! | 400, 422 in HTML, or with words about TLS, headers, path or coding | misdirected: kept |
//! | 400, 422, 500 that name single records (Loki) | rejected in part: the sink has the others |
//! | 400, 422 with words, or a status in the body, about credentials, quotas, overload or compression | denied, busy or misdirected: kept |
//! | 400, 422 | rejected: something of it is wrong |
//! | 408, 504 | too late: tried again, halved, and fewer at once |
//! | 429, 502, 503 (OTLP's retryable ones); 425 | busy: tried again; too large "for now" with words about size |
//! | 500, 507, 508 and other 5xx | the sink's fault: kept (see `delivery`) |
//! | 501, 505, 511, 3xx (not followed), other 4xx | misdirected: kept until somebody mends the configuration |

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, header};

use super::{
    answer::Answer,
    body::{self, Response, Words},
    grpc,
    outcome::{Cause, Failure, Oddity, Outcome, Quote},
    retry,
    words::{self, is_about_a_cut_body, is_about_size, is_about_transport, rejected_in_part},
};
use crate::config::Compression;

/// The headers that every request has.
pub(super) fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers
}

/// The header that names the compression, unless there is none.
pub(super) const fn encoding(compression: Compression) -> Option<(&'static str, &'static str)> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some(("content-encoding", "gzip")),
        Compression::Zstd => Some(("content-encoding", "zstd")),
    }
}

/// What an answer means.
pub(super) fn outcome(answer: &Answer) -> Outcome {
    if answer.status.is_success() {
        return accepted(answer);
    }
    let status = answer.status.as_u16();
    let said = body::words(answer);
    // RFC 9110, 15.5.8: it is never the sink's.
    let whose = if status == 407 { "a proxy wants credentials, or other ones: " } else { "" };
    let quote = Quote::new(&[format!("HTTP {status}: {whose}").as_bytes(), &said.text].concat());
    let cause = match status {
        401 | 403 | 407 => Cause::Denied,
        413 => return Outcome::TooLarge(quote),
        408 | 425 | 429 | 502 | 503 | 504 => {
            let retry_after = retry::retry_after(&answer.headers, SystemTime::now());
            let is_large = is_about_size(&said.text);
            let is_late = matches!(status, 408 | 504) && !is_large;
            let cause = if is_late { Cause::TimedOut } else { Cause::Busy };
            let failure = Failure { cause, retry_after, said: quote };
            return if is_large {
                Outcome::TooLargeForNow(failure)
            } else {
                Outcome::Failed(failure)
            };
        }
        400 | 422 if is_about_transport(&said.text) => Cause::Misdirected,
        400 | 422 | 500 if let Some(rejected) = rejected_in_part(&said.text) => {
            return Outcome::RejectedInPart(rejected, quote);
        }
        400 if is_about_a_cut_body(&said.text) => return Outcome::TooLarge(quote),
        _ if is_about_size(&said.text) => return Outcome::TooLarge(quote),
        400 | 422 if said.is_page => Cause::Misdirected,
        400 | 422 => match cause_beside_the_records(&said) {
            Some(cause) => cause,
            None => return Outcome::Rejected(quote),
        },
        501 | 505 | 511 => Cause::Misdirected,
        500..=599 => Cause::Fault,
        _ => Cause::Misdirected,
    };
    Outcome::failed(cause, quote)
}

/// What a "bad request" is about, by the code in its body or its words, where not about the records.
fn cause_beside_the_records(said: &Words) -> Option<Cause> {
    let by_code = said.code.and_then(grpc::cause_beside_the_records);
    by_code.or_else(|| words::cause_beside_the_records(&said.text))
}

fn accepted(answer: &Answer) -> Outcome {
    let status = answer.status.as_u16();
    let quote = |said: &[u8]| Quote::new(&[format!("HTTP {status}: ").as_bytes(), said].concat());
    match body::response(answer) {
        Response::Page(text) => Outcome::failed(Cause::Misdirected, quote(&text)),
        Response::Otlp(partial) if matches!(status, 200 | 201 | 202 | 204) => Outcome::Accepted {
            rejected_records: u64::try_from(partial.rejected_log_records).unwrap_or_default(),
            said: Quote::new(&partial.error_message),
        },
        Response::Otlp(partial) => {
            Outcome::Unconfirmed(Oddity::Status, quote(&partial.error_message))
        }
        Response::Other(text) if matches!(status, 200 | 201 | 202 | 204) => {
            Outcome::Unconfirmed(Oddity::Body, quote(&text))
        }
        Response::Other(text) => Outcome::Unconfirmed(Oddity::Status, quote(&text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::export::limits::RESPONSE_BYTES_MAX;
    use crate::export::reply::tests::status_with_retry_info;
    use crate::export::words::tests::IGNORED;
    use std::time::Duration;

    fn answer(status: u16, content_type: &'static str, body: &[u8]) -> Answer {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Answer::of(Protocol::Http, status, headers, body)
    }

    fn name(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::TooLarge(_) => "large",
            Outcome::TooLargeForNow(_) => "large for now",
            Outcome::Rejected(_) => "rejected",
            Outcome::RejectedInPart(..) => "in part",
            Outcome::Failed(Failure { cause: Cause::Busy, .. }) => "busy",
            Outcome::Failed(Failure { cause: Cause::Denied, .. }) => "denied",
            Outcome::Failed(Failure { cause: Cause::Misdirected, .. }) => "misdirected",
            Outcome::Failed(Failure { cause: Cause::Fault, .. }) => "fault",
            Outcome::Failed(Failure { cause: Cause::TimedOut, .. }) => "late",
            other => panic!("{other:?}"),
        }
    }

    /// Scenario: every status from 300 on, without a word.
    /// Guarantees: only 400 and 422 are about the records, 413 is about their size, the rest is kept.
    #[test]
    fn every_status() {
        for status in 300..600 {
            let expected = match status {
                413 => "large",
                400 | 422 => "rejected",
                408 | 504 => "late",
                425 | 429 | 502 | 503 => "busy",
                401 | 403 | 407 => "denied",
                501 | 505 | 511 | 300..=499 => "misdirected",
                _ => "fault",
            };
            assert_eq!(name(&outcome(&answer(status, "", b""))), expected, "{status}");
        }
    }

    /// Scenario: D2, D17 to D19 and D21: refusals that are not about the records: a wrong address, a
    /// proxy's pages, sizes in everybody's words.
    /// Guarantees: a wrong configuration loses nothing; what is large is halved, whatever its status.
    #[test]
    fn refusals_that_are_not_about_the_records() {
        let page = "<html><head><title>400 No required SSL certificate was sent</title></head>";
        let anything = "\u{feff}\n <!DOCTYPE html><title>400 Bad Request</title>";
        for (status, content_type, said, expected) in [
            (
                400,
                "text/plain; charset=utf-8",
                "Client sent an HTTP request to an HTTPS server.\n",
                "misdirected",
            ),
            (
                400,
                "text/html",
                "<center>The plain HTTP request was sent to HTTPS port</center>",
                "misdirected",
            ),
            (400, "text/html", page, "misdirected"),
            (400, "text/plain", anything, "misdirected"),
            (422, "application/x-protobuf", anything, "misdirected"),
            (
                400,
                "text/html",
                "<h1>400 Bad Request</h1>Request Header Or Cookie Too Large",
                "misdirected",
            ),
            (400, "text/plain", "unsupported Content-Encoding: zstd", "misdirected"),
            (400, "text/plain", "unsupported path requested: \"/v1/logs\"", "misdirected"),
            (
                400,
                "text/plain",
                "cannot parse common params from request: accountID",
                "misdirected",
            ),
            (400, "text/plain", "http: request body too large", "large"),
            (
                400,
                "text/plain",
                "too big data size exceeding -opentelemetry.maxRequestSize=9 bytes",
                "large",
            ),
            (400, "", "unexpected EOF", "large"),
            (500, "", "unexpected EOF", "fault"),
            (502, "", "read: unexpected EOF", "busy"),
            (503, "", "rpc error: code = Unavailable desc = unexpected EOF", "busy"),
            (504, "", "unexpected EOF", "late"),
            (413, "text/html", "<h1>413 Request Entity Too Large</h1>", "large"),
            (417, "application/json", r#"{"message":"Request size limit exceeded"}"#, "large"),
            (500, "text/plain", "responded with HTTP Status Code 413", "large"),
            (503, "", "received message larger than max (4464749 vs. 4194304)", "large for now"),
            (429, "", "received message larger than max (4464749 vs. 4194304)", "large for now"),
            (429, "", "Ingestion rate limit exceeded (limit: 4 bytes/sec) of size", "busy"),
            (401, "", "request body too large", "denied"),
            (400, "", IGNORED, "in part"),
            (500, "", &format!("Message={IGNORED}, Details=[]"), "in part"),
            (400, "", "proto: wrong wireType", "rejected"),
            (400, "", "gzip: invalid header", "misdirected"),
            (400, "text/plain", "Invalid API key", "denied"),
            (422, "", "quota exceeded for this plan", "busy"),
            (400, "application/json", r#"{"code":14,"message":"no"}"#, "busy"),
            (400, "application/json", r#"{"code":16}"#, "denied"),
            (400, "application/json", r#"{"error":{"code":503,"message":"no"}}"#, "busy"),
            (400, "application/json", r#"{"code":3,"message":"no"}"#, "rejected"),
            (400, "application/json", r#"{"code":400,"message":"no"}"#, "rejected"),
            (400, "", "\u{8}\u{e}\u{12}\u{2}no", "busy"),
            (400, "", "\u{8}\u{3}\u{12}\u{2}no", "rejected"),
        ] {
            let outcome = outcome(&answer(status, content_type, said.as_bytes()));
            assert_eq!(name(&outcome), expected, "{status} {said}");
        }
    }

    /// Scenario: D2, D20: phrases of Loki's from some other sink.
    /// Guarantees: they are refusals as any other, of the whole request.
    #[test]
    fn a_phrase_of_loki_refuses_the_whole() {
        let of = |status, said: &str| outcome(&answer(status, "", said.as_bytes()));
        assert!(matches!(of(400, "entry too far behind"), Outcome::Rejected(_)));
        assert!(matches!(of(400, "total ignored: 1 out of 2 for stream"), Outcome::Rejected(_)));
        assert!(matches!(of(400, "max entry size exceeded"), Outcome::TooLarge(_)));
        assert!(matches!(of(500, "entry too far behind"), Outcome::Failed(_)));
    }

    /// Scenario: D23: a refusal with a `google.rpc.Status` under every type that servers give it, in
    /// JSON, as text, as a page, as a redirection; compressed in each coding, and in an unknown one.
    /// Guarantees: the sink's words are quoted where there are some, up to 600 characters.
    #[test]
    fn words_of_a_refusal() {
        let said = |answer: &Answer| match outcome(answer) {
            Outcome::Rejected(said) => said.to_string(),
            Outcome::Failed(failure) => failure.said.to_string(),
            other => panic!("{other:?}"),
        };
        let status = status_with_retry_info(1, 0);
        for content_type in ["application/x-protobuf", "application/octet-stream", ""] {
            assert_eq!(said(&answer(400, content_type, &status)), "HTTP 400: slow down");
        }
        for (content_type, body, expected) in [
            ("text/plain", "too old\n", "too old"),
            ("application/json", r#"{"code":3,"message":"too old"}"#, "too old"),
            ("", r#"{"error":{"message":"too old"}}"#, "too old"),
            (
                "text/html",
                "<head><style>a{}</style></head><h1>No</h1>\n <!-- x -->cookies",
                "No cookies",
            ),
            ("application/x-protobuf", "plain text", "plain text"),
        ] {
            let answer = answer(400, content_type, body.as_bytes());
            assert_eq!(said(&answer), format!("HTTP 400: {expected}"), "{body}");
        }
        let long = said(&answer(400, "text/plain", "advice ".repeat(200).as_bytes()));
        assert_eq!(long.chars().count(), 600);
        let mut redirection = answer(302, "text/html", b"<a>");
        redirection.headers.insert(header::LOCATION, HeaderValue::from_static("/login"));
        assert_eq!(said(&redirection), "HTTP 302: redirects are not followed, to /login");
    }

    /// Scenario: D2: bodies that come compressed, unasked: gzip, both meanings of deflate, zstd, br;
    /// a bomb; one that is cut; a coding that nobody knows.
    /// Guarantees: they are read as far as they go, within a bound; the last is said.
    #[test]
    fn compressed_answers() {
        use flate2::{Compression, write};
        use std::io::Write;

        /// The text as Python's brotli writes it.
        const BROTLI: &[u8] = b"\x8b\x0c\x80unsupported path requested\x03";

        let text = b"unsupported path requested";
        let mut gzip = write::GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text).unwrap();
        let mut zlib = write::ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(text).unwrap();
        let mut raw = write::DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::bulk::compress(text, 1).unwrap();
        let brotli = BROTLI.to_vec();
        let with = |coding: &'static str, body: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            outcome(&Answer::of(Protocol::Http, 400, headers, body))
        };
        let zlib = zlib.finish().unwrap();
        let raw = raw.finish().unwrap();
        for (coding, body) in [
            ("gzip", &gzip),
            ("GZip", &gzip),
            ("deflate", &zlib),
            ("deflate", &raw),
            ("zstd", &zstd),
            ("br", &brotli),
        ] {
            let Outcome::Failed(failure) = with(coding, body) else { panic!("{coding}") };
            assert_eq!(
                failure.said.to_string(),
                "HTTP 400: unsupported path requested",
                "{coding}"
            );
        }
        let mut bomb = write::GzEncoder::new(Vec::new(), Compression::fast());
        bomb.write_all(&vec![b'x'; 10 << 20]).unwrap();
        assert_eq!(name(&with("gzip", &bomb.finish().unwrap())), "rejected");
        let Outcome::Rejected(said) = with("compress", b"abc") else { panic!("must be said") };
        assert_eq!(said.to_string(), "HTTP 400: (3 bytes of compress)");
    }

    /// Scenario: D24: every kind of success: OTLP's with partial success in protobuf and in JSON;
    /// Loki's 260; a body of something else; pages.
    /// Guarantees: rejections are counted in both of OTLP's encodings; what no OTLP server says is
    /// taken, by name; a page takes nothing.
    #[test]
    fn successes() {
        let protobuf = [0x0a, 2, 0x08, 3];
        let json = br#"{"partialSuccess":{"rejectedLogRecords":"3"}}"#;
        for (status, content_type, body, expected) in [
            (200, "application/x-protobuf", &protobuf[..], "accepted 3"),
            (200, "", &protobuf, "accepted 3"),
            (200, "application/json", json, "accepted 3"),
            (200, "application/json", b"{}\n", "accepted 0"),
            (200, "", b"", "accepted 0"),
            (202, "text/plain", b"\n", "accepted 0"),
            (204, "", b"", "accepted 0"),
            (206, "", b"", "odd status"),
            (260, "application/octet-stream", b"\x12\x02no", "odd status"),
            (200, "text/plain", b"ok", "odd body"),
            (200, "application/json", br#"{"status":"success"}"#, "odd body"),
            (200, "application/x-protobuf", b"\xff", "odd body"),
            (200, "text/html", b"", "accepted 0"),
            (200, "text/html", b"log in", "misdirected"),
            (202, "application/x-protobuf", b"<html>", "misdirected"),
        ] {
            let found = match outcome(&answer(status, content_type, body)) {
                Outcome::Accepted { rejected_records, .. } => {
                    format!("accepted {rejected_records}")
                }
                Outcome::Unconfirmed(Oddity::Status, _) => "odd status".to_owned(),
                Outcome::Unconfirmed(Oddity::Body, _) => "odd body".to_owned(),
                other => name(&other).to_owned(),
            };
            assert_eq!(found, expected, "{status} {content_type} {body:?}");
        }
    }

    /// Scenario: a partial success with words of any length up to what may be read, and beyond, in
    /// protobuf and in JSON, the count before the words and behind them.
    /// Guarantees: the count is read all the same where it is within the limit; where it may be
    /// beyond, that is said.
    #[test]
    fn a_long_partial_success_is_read() {
        let rejected = |content_type, body: &[u8]| match outcome(&answer(200, content_type, body)) {
            Outcome::Accepted { rejected_records, .. } => Some(rejected_records),
            Outcome::Unconfirmed(Oddity::Body, said) => {
                assert!(said.to_string().starts_with("HTTP 200: (more than 4194304 bytes) "));
                None
            }
            other => panic!("{other:?}"),
        };
        for words in [70_000, 1_000_000, RESPONSE_BYTES_MAX] {
            let is_within = words < RESPONSE_BYTES_MAX;
            let said = "\u{20ac}".repeat(words / 3);
            let field = |tag: u8, length: usize| {
                let mut field = vec![tag];
                prost::encoding::encode_varint(length as u64, &mut field);
                field
            };
            let protobuf_said = [&field(0x12, said.len())[..], said.as_bytes()].concat();
            for fields in [[&[8, 3][..], &protobuf_said], [&protobuf_said, &[8, 3]]] {
                let partial = fields.concat();
                let body = [&field(0x0a, partial.len())[..], &partial].concat();
                let is_known = is_within || fields[0] == [8, 3];
                assert_eq!(rejected("", &body), is_known.then_some(3), "{words}");
            }
            let json_said = format!(r#""errorMessage":"{said}""#);
            let count = r#""rejectedLogRecords":"3""#;
            for fields in [[count, &json_said], [&json_said, count]] {
                let body = format!(r#"{{"partialSuccess":{{{}}}}}"#, fields.join(","));
                let expected = is_within.then_some(3);
                assert_eq!(rejected("application/json", body.as_bytes()), expected, "{words}");
            }
        }
    }

    /// Scenario: failure mode 26: 429 and 503 with Retry-After.
    /// Guarantees: the wait is handed on; an auth refusal's is not, credentials may come sooner.
    #[test]
    fn retry_after_is_read() {
        for (status, expected) in
            [(429, Some(Duration::from_secs(7))), (503, Some(Duration::from_secs(7))), (401, None)]
        {
            let mut answer = answer(status, "", b"");
            answer.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
            let Outcome::Failed(failure) = outcome(&answer) else { panic!("must fail") };
            assert_eq!(failure.retry_after, expected);
        }
    }
}
