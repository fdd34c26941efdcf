//! OTLP/HTTP with protobuf bodies: headers, and what an answer means. It builds and reads;
//! connections are not its business.
//!
//! | status | meaning here |
//! |---|---|
//! | 200, 201, 202, 204 with an OTLP body or none | accepted, less the partial success's rejections |
//! | 2xx with a page in HTML | misdirected: kept |
//! | other 2xx, other bodies | taken, but proves nothing: said |
//! | 413; any but the next row with words about size | too large: halved |
//! | 401, 403, 407 | denied: kept until the credentials work again |
//! | 400, 422 in HTML, or with words about TLS, headers, path or coding | misdirected: kept |
//! | 400, 422, 500 that name single records (Loki) | rejected in part: the sink has the others |
//! | 400, 422 | rejected: something of it is wrong |
//! | 429, 502, 503, 504 (OTLP's retryable ones); 408, 425 | busy: tried again; too large "for now" with words about size |
//! | 500, 507, 508 and other 5xx | the sink's fault: kept (see `delivery`) |
//! | 501, 505, 511, 3xx (not followed), other 4xx | misdirected: kept until somebody mends the configuration |

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, header};

use super::{
    body::{self, Response},
    client::Answer,
    outcome::{Cause, Failure, Oddity, Outcome, Quote},
    retry,
    words::{is_about_size, is_about_transport, rejected_in_part},
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
    let quote = Quote::new(&[format!("HTTP {status}: ").as_bytes(), &said.text].concat());
    let cause = match status {
        401 | 403 | 407 => Cause::Denied,
        413 => return Outcome::TooLarge(quote),
        408 | 425 | 429 | 502 | 503 | 504 => {
            let retry_after = retry::retry_after(&answer.headers, SystemTime::now());
            let is_large = is_about_size(&said.text);
            let failure = Failure { cause: Cause::Busy, retry_after, said: quote };
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
        _ if is_about_size(&said.text) => return Outcome::TooLarge(quote),
        400 | 422 if said.is_page => Cause::Misdirected,
        400 | 422 => return Outcome::Rejected(quote),
        501 | 505 | 511 => Cause::Misdirected,
        500..=599 => Cause::Fault,
        _ => Cause::Misdirected,
    };
    Outcome::failed(cause, quote)
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
    use crate::export::reply::tests::status_with_retry_info;
    use bytes::Bytes;
    use http::StatusCode;
    use std::time::Duration;

    fn answer(status: u16, content_type: &'static str, body: &[u8]) -> Answer {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers, body: Bytes::copy_from_slice(body), trailers: None }
    }

    /// Scenario: every status from 300 on, without a word.
    /// Guarantees: only 400 and 422 give a request up, 413 is about its size, the rest is kept.
    #[test]
    fn every_status() {
        for status in 300..600 {
            let expected = match status {
                413 => "large",
                400 | 422 => "rejected",
                408 | 425 | 429 | 502..=504 => "busy",
                401 | 403 | 407 => "denied",
                501 | 505 | 511 | 300..=499 => "misdirected",
                _ => "fault",
            };
            let found = match outcome(&answer(status, "", b"")) {
                Outcome::TooLarge(_) => "large",
                Outcome::Rejected(_) => "rejected",
                Outcome::Failed(Failure { cause: Cause::Busy, .. }) => "busy",
                Outcome::Failed(Failure { cause: Cause::Denied, .. }) => "denied",
                Outcome::Failed(Failure { cause: Cause::Misdirected, .. }) => "misdirected",
                Outcome::Failed(Failure { cause: Cause::Fault, .. }) => "fault",
                other => panic!("{status}: {other:?}"),
            };
            assert_eq!(found, expected, "{status}");
        }
    }

    /// Scenario: 400 that is not about the records: plain HTTP at a TLS port (Go, nginx), an
    /// unknown compression (the Collector), a body that is too large (Go).
    /// Guarantees: a wrong configuration loses nothing; the large one is halved.
    #[test]
    fn bad_requests_that_are_not_about_the_records() {
        for said in [
            "Client sent an HTTP request to an HTTPS server.\n",
            "<center>The plain HTTP request was sent to HTTPS port</center>",
            "unsupported Content-Encoding: zstd",
        ] {
            let outcome = outcome(&answer(400, "text/plain; charset=utf-8", said.as_bytes()));
            let Outcome::Failed(failure) = outcome else { panic!("{said} must be kept") };
            assert_eq!(failure.cause, Cause::Misdirected);
        }
        let large = answer(400, "text/plain", b"http: request body too large");
        assert!(matches!(outcome(&large), Outcome::TooLarge(_)));
    }

    /// Scenario: a refusal with a `google.rpc.Status`, with text, with HTML under a wrong type.
    /// Guarantees: the sink's words are quoted where there are some; nothing else happens.
    #[test]
    fn words_of_a_refusal() {
        let said = |answer| match outcome(&answer) {
            Outcome::Rejected(said) => said.to_string(),
            other => panic!("{other:?}"),
        };
        let status = status_with_retry_info(1, 0);
        assert_eq!(said(answer(400, "application/x-protobuf", &status)), "HTTP 400: slow down");
        assert_eq!(said(answer(400, "text/plain", b"too old\n")), "HTTP 400: too old");
        assert_eq!(said(answer(400, "application/x-protobuf", b"<html>")), "HTTP 400:");
    }

    /// Scenario: 200 with partial success in protobuf, in JSON, and with a page in HTML.
    /// Guarantees: rejections are counted in both of OTLP's encodings; a page is no rejection.
    #[test]
    fn accepted_with_partial_success() {
        let rejected_by = |answer| match outcome(&answer) {
            Outcome::Accepted { rejected_records, .. } => rejected_records,
            other => panic!("{other:?}"),
        };
        let protobuf = [0x0a, 2, 0x08, 3];
        assert_eq!(rejected_by(answer(200, "application/x-protobuf", &protobuf)), 3);
        assert_eq!(rejected_by(answer(200, "", &protobuf)), 3);
        let json = br#"{"partialSuccess":{"rejectedLogRecords":"3"}}"#;
        assert_eq!(rejected_by(answer(200, "application/json", json)), 3);
        assert_eq!(rejected_by(answer(202, "text/html", &protobuf)), 0);
        assert_eq!(rejected_by(answer(204, "", b"")), 0);
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
