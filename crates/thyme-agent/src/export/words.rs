//! What the words of a refusal are about: the size of the message, how it was sent, or single
//! records of it. Statuses are not looked at here.
//!
//! Words decide how a request is tried again, not whether it is lost: see `delivery`. So a phrase
//! that is taken for one about size costs a few more attempts.

use super::outcome::{Cause, InPart};

/// Bytes of an answer in which words are looked for.
const WORDS_BYTES_MAX: usize = 16 * 1024;

/// What servers say about a message that is too large, where [`names_size`] would not know it, or
/// where its words about something else would get in the way.
const SIZE_PHRASES: [&str; 14] = [
    "received message larger than max", // gRPC core, grpc-go, grpc-js; Loki's distributor
    "received message after decompression larger than max", // grpc-go
    "decoded message length too large", // tonic
    "grpc message exceeds maximum size", // grpc-java
    "received message exceeds the maximum configured message size", // grpc-dotnet
    "decompresses to a size larger",    // grpc-js
    "decompressed message size too large than max", // Loki
    "too big data size exceeding",      // VictoriaLogs, and below
    "too big decompressed data size exceeding",
    "decompressed source size",
    "length limit exceeded",                       // axum
    "responded with http status code 413",         // the Collector's otlphttp in a gateway
    "request entity too large",                    // body-parser, nginx
    "data value transmitted exceeds the capacity", // Werkzeug
];

/// What is measured.
const MEASURED: [&str; 12] = [
    "message", "body", "request", "payload", "entity", "content", "data", "batch", "upload",
    "record", "bytes", "size",
];

/// That it is too much.
const TOO_MUCH: [&str; 10] = [
    "too large",
    "too big",
    "too long",
    "larger than",
    "bigger than",
    "over the limit",
    "exceeds",
    "exceeded",
    "exceeding",
    "reached size limit",
];

/// What a message may have too much of beside bytes: a limit on these is not one on its size.
const NOT_SIZE: [&str; 19] = [
    "rate",
    "per second",
    "/sec",
    "/s)",
    "quota",
    "throttl",
    "too many",
    "concurren",
    "header",
    "cookie",
    "uri",
    "url",
    "deadline",
    "timeout",
    "timed out",
    "timestamp",
    "memory",
    "queue",
    "connection",
];

/// Whether a refusal is about the size of the message.
pub(super) fn is_about_size(said: &[u8]) -> bool {
    let said = lower(said);
    SIZE_PHRASES.iter().any(|phrase| said.contains(phrase)) || names_size(&said)
}

/// Whether a "bad request" is about a body that ended early: a limit cuts a compressed one (Go).
/// With any other status it is a gateway's connection that was cut, which says nothing about size.
pub(super) fn is_about_a_cut_body(said: &[u8]) -> bool {
    lower(said).contains("unexpected eof")
}

/// Something measured, next to a word that it is too much, and nothing else that may be limited. An
/// excess that is no comparison needs a unit: deadlines are exceeded too.
fn names_size(said: &str) -> bool {
    let has = |word: &&str| said.contains(*word);
    let Some(too_much) = TOO_MUCH.iter().find(|word| said.contains(**word)) else { return false };
    let needs_unit = too_much.starts_with("exceed") || too_much.starts_with("over");
    let has_unit = ["size", "length", "bytes", "payload", "large"].iter().any(has);
    MEASURED.iter().any(has) && (!needs_unit || has_unit) && !NOT_SIZE.iter().any(has)
}

/// Whether a "bad request" is about how it was sent rather than what: plain HTTP at a TLS port
/// (nginx, Go), a certificate that is missing (nginx), headers, a compression that the sink does not
/// know (the Collector's confighttp), or an address that is none (VictoriaLogs, Loki).
pub(super) fn is_about_transport(said: &[u8]) -> bool {
    const PHRASES: [&str; 16] = [
        "https server",
        "https port",
        "ssl certificate",
        "client certificate",
        "header or cookie too large",
        "header fields too large",
        "invalid host",
        "missing host",
        "content-encoding",
        "content-type",
        "unsupported compression",
        "unsupported path",
        "unsupported protocol",
        "cannot parse common params",
        "no org id",
        "unknown service",
    ];
    let said = lower(said);
    PHRASES.iter().any(|phrase| said.contains(phrase))
}

/// Whether a refusal names the header of gRPC that says how a message is compressed. gRPC core, whose
/// servers know no zstd, calls a coding that it does not know an error of its own (INTERNAL).
pub(super) fn is_about_encoding(said: &[u8]) -> bool {
    lower(said).contains("grpc-encoding")
}

/// What a "bad request" is about, where that is neither its records nor its size: who sends it, how
/// much all send, whether the sink works at present, or the coding of its body, which is ours.
pub(super) fn cause_beside_the_records(said: &[u8]) -> Option<Cause> {
    const DENIED: [&str; 20] = [
        "api key",
        "api-key",
        "apikey",
        "api_key",
        "license key",
        "unauthorized",
        "unauthorised",
        "unauthenticated",
        "not authorized",
        "authenticat",
        "authorization",
        "credential",
        "access token",
        "auth token",
        "invalid token",
        "token expired",
        "expired token",
        "permission denied",
        "access denied",
        "forbidden",
    ];
    const BUSY: [&str; 23] = [
        "quota",
        "rate limit",
        "rate-limit",
        "ratelimit",
        "too many requests",
        "throttl",
        "overload",
        "try again",
        "retry later",
        "temporarily",
        "unavailable",
        "resource exhausted",
        "resource_exhausted",
        "memory usage",
        "out of memory",
        "queue is full",
        "at capacity",
        "not ready",
        "shutting down",
        "no healthy upstream",
        "no space left",
        "read-only",
        "context deadline exceeded",
    ];
    const CODING: [&str; 10] = [
        "gzip",
        "zstd",
        "zlib",
        "deflate",
        "flate:",
        "snappy",
        "decompress",
        "uncompress",
        "compression",
        "magic number",
    ];
    let said = lower(said);
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
    if has(&DENIED) {
        Some(Cause::Denied)
    } else if has(&BUSY) {
        Some(Cause::Busy)
    } else {
        has(&CODING).then_some(Cause::Misdirected)
    }
}

/// Whether an answer says which records it refused, and how many. So says Loki, which has kept the
/// others by then; a gateway before it hands its words on. Others use its phrases, and have kept
/// nothing: only a whole message of Loki's is one, since what it does not name is not sent again.
///
/// Its distributor names each refused entry, equal ones as "N errors like". Its ingesters count, for
/// one of the streams: what they say of that stream is certain, of others there is no word. A stream
/// that is refused as a whole is named once, however many entries it has.
///
/// Whether the numbers fit the request is for [`super::outcome::Outcome::of_request`] to say.
pub(super) fn rejected_in_part(said: &[u8]) -> Option<InPart> {
    // `#` is a number, `*` anything.
    const ENTRY: [&str; 5] = [
        "max entry size '#' bytes exceeded for stream '*' while adding an entry with length '#' bytes",
        "entry for stream '*' has timestamp too old: #*, oldest acceptable timestamp is: #",
        "entry for stream '*' has timestamp too new: #",
        "stream '*' has structured metadata too large: '#' bytes, limit: '#' bytes",
        "stream '*' has too many structured metadata labels: '#', limit: '#'",
    ];
    const STREAM: [&str; 4] = [
        "stream '*' has label name too long: '*'",
        "stream '*' has label value too long: '*'",
        "stream '*' has duplicate label name: '*'",
        "entry for stream '*' has # label names; limit #",
    ];
    const IGNORED: &str = "entry with timestamp #* ignored, reason: '*'";
    const TOTAL: &str = "total ignored: ";
    let is_cut = said.len() > WORDS_BYTES_MAX;
    let said = lower(said);
    let names_entries = |said: &str| ENTRY.iter().any(|form| has_form(said, form));
    if has_form(&said, IGNORED) && (is_cut || said.contains(TOTAL)) {
        let streams = said.split(TOTAL).skip(1).map(kept_of_stream);
        return streams
            .sum::<Option<Streams>>()
            .map(|Streams { kept, entries }| InPart::AllBut { kept, of: entries });
    }
    let is_entries = names_entries(&said);
    if is_cut && is_entries || STREAM.iter().any(|form| has_form(&said, form)) {
        return Some(InPart::AllBut { kept: 0, of: 0 });
    }
    if !is_entries {
        return None;
    }
    let groups = said.split(" errors like:").collect::<Vec<_>>();
    let [counts @ .., _] = &groups[..] else { unreachable!("a split has a last part") };
    if counts.is_empty() {
        return Some(InPart::Exactly(1));
    }
    let numbers = counts.iter().map(|before| last_number(before)).sum::<Option<u64>>();
    match numbers {
        Some(rejected) if groups[1..].iter().all(|group| names_entries(group)) => {
            Some(InPart::Exactly(rejected))
        }
        _ => Some(InPart::AllBut { kept: 0, of: 0 }),
    }
}

/// Entries that were kept of so many, from what follows "total ignored: " in "10 out of 20 for
/// stream: {}".
fn kept_of_stream(counts: &str) -> Option<Streams> {
    let (ignored, rest) = leading_number(counts)?;
    let (entries, rest) = leading_number(rest.strip_prefix(" out of ")?)?;
    let is_whole = ignored > 0 && rest.starts_with(" for stream: ");
    let kept = entries.checked_sub(ignored).filter(|_| is_whole)?;
    Some(Streams { kept, entries })
}

/// What is said of some of the streams of a request.
struct Streams {
    kept: u64,
    entries: u64,
}

impl std::iter::Sum for Streams {
    fn sum<I: Iterator<Item = Self>>(streams: I) -> Self {
        streams.fold(Self { kept: 0, entries: 0 }, |sum, stream| Self {
            kept: sum.kept.saturating_add(stream.kept),
            entries: sum.entries.saturating_add(stream.entries),
        })
    }
}

/// Whether words have such a form: `#` is a number, `*` anything.
fn has_form(said: &str, form: &str) -> bool {
    let mut rest = Some(said);
    for section in form.split('*') {
        rest = rest.and_then(|rest| {
            let first = section.split('#').next()?;
            rest.match_indices(first).find_map(|(at, _)| after_section(&rest[at..], section))
        });
    }
    rest.is_some()
}

/// What follows a section that words begin with: `#` is a number.
fn after_section<'a>(said: &'a str, section: &str) -> Option<&'a str> {
    let mut pieces = section.split('#');
    let mut rest = said.strip_prefix(pieces.next()?)?;
    for piece in pieces {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest = rest.get(digits..).filter(|_| digits > 0)?.strip_prefix(piece)?;
    }
    Some(rest)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

fn last_number(text: &str) -> Option<u64> {
    let text = text.trim_end();
    let digits = text.bytes().rev().take_while(u8::is_ascii_digit).count();
    text[text.len() - digits..].parse().ok()
}

fn lower(said: &[u8]) -> String {
    String::from_utf8_lossy(&said[..said.len().min(WORDS_BYTES_MAX)]).to_ascii_lowercase()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What an ingester of Loki says.
    pub(in crate::export) const IGNORED: &str = "entry with timestamp 2026-11-01 00:00:00 +0000 UTC ignored, reason: 'entry too far behind, entry \
         timestamp is: a, oldest acceptable timestamp is: b',\nuser 'fake', total ignored: 10 out of 20 for \
         stream: {job=\"a\"}";

    /// Scenario: what servers and proxies say about a message that is too large.
    /// Guarantees: all are recognised, whatever the status beside them.
    #[test]
    fn words_about_size() {
        for said in [
            // tonic, grpc-go, gRPC core, grpc-java, grpc-js, grpc-dotnet
            "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes",
            "Error decompressing: size limit, of 4194304 bytes, exceeded while decompressing",
            "grpc: received message after decompression larger than max 4194304",
            "grpc: received message larger than max (9 vs. 4)",
            "SERVER: Received message larger than max (4464749 vs. 4194304)",
            "gRPC message exceeds maximum size 4194304: 5000000",
            "Compressed gRPC message exceeds maximum size 4194304: 5000000 bytes read",
            "Received message exceeds the maximum configured message size.",
            "Received message that decompresses to a size larger than 4194304",
            // Go, nop-collector, the Collector before another sink
            "http: request body too large",
            "the request is larger than 65536 bytes when decompressed",
            "error exporting items, request to http://loki:3100/otlp/v1/logs responded with HTTP \
             Status Code 413, Message=too much, Details=[]",
            // Loki: its distributor, its limits, a body that it cut
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max \
             (4464749 vs. 4194304)",
            "request body too large: 52428801 bytes, limit: 52428800 bytes",
            "decompressed message size too large than max",
            // VictoriaLogs
            "cannot read OpenTelemetry protocol data: too big data size exceeding \
             -opentelemetry.maxRequestSize=65536 bytes",
            "cannot decompress: decompressed source size: 70000 exceeds limit: 65536",
            // Vendors and frameworks
            "Request payload size exceeds the limit: 4194304 bytes.",
            "HTTP content length exceeded 10485760 bytes.",
            "Request body too large. The max request body size is 30000000 bytes.",
            "Payload is too big",
            "request entity too large",
            "Payload reached size limit.",
            "JSON payload (5 bytes) is larger than allowed (limit: 4 bytes).",
            "Maximum request body size 1048576 exceeded, actual body size 2097152",
            "The data value transmitted exceeds the capacity limit.",
            "body size exceeds the given limit",
            "Request size limit exceeded",
            "kafka server: Message was too large, server rejected it to avoid allocation error",
        ] {
            assert!(is_about_size(said.as_bytes()), "{said}");
        }
    }

    /// Scenario: refusals that are about rates, time, room or headers.
    /// Guarantees: none is taken for one about size.
    #[test]
    fn words_about_other_limits() {
        for said in [
            "",
            "offset out of range",
            "quota",
            "ingestion rate limit exceeded",
            "Ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting \
             to ingest '40000' lines totaling '5000000' bytes, reduce log volume or contact your \
             Loki administrator to see if the limit can be increased",
            "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream",
            "Maximum active stream limit exceeded when trying to create stream {}, reduce the number \
             of active streams (reduce labels or reduce label values)",
            "data refused due to high memory usage",
            "sending queue is full",
            "context deadline exceeded while reading the request body of size 4",
            "400 Request Header Or Cookie Too Large nginx",
            "Request Header Fields Too Large",
            "414 Request-URI Too Large",
            "too many outstanding requests",
            "upstream connect error or disconnect/reset before headers",
            "Post \"http://loki/otlp/v1/logs\": unexpected EOF",
        ] {
            assert!(!is_about_size(said.as_bytes()), "{said}");
        }
    }

    /// Scenario: D18: "bad requests" of a wrong address or a wrong header, of VictoriaLogs, Loki,
    /// nginx, Go and the Collector; and those about records.
    /// Guarantees: the first are about the configuration.
    #[test]
    fn words_about_the_way_it_was_sent() {
        for said in [
            "Client sent an HTTP request to an HTTPS server.",
            "400 The plain HTTP request was sent to HTTPS port",
            "400 No required SSL certificate was sent",
            "400 Request Header Or Cookie Too Large",
            "unsupported Content-Encoding: zstd",
            "remoteAddr: \"10.0.0.1:4\"; unsupported path requested: \"/v1/logs\"",
            "cannot parse common params from request: cannot parse accountID: abc",
            "no org id",
        ] {
            assert!(is_about_transport(said.as_bytes()), "{said}");
        }
        for said in ["entry too far behind", "invalid UTF-8", "proto: wrong wireType = 3"] {
            assert!(!is_about_transport(said.as_bytes()), "{said}");
        }
    }

    /// Scenario: "bad requests" that are about credentials, quotas, overload or compression; and those
    /// about records.
    /// Guarantees: the first say nothing about the records.
    #[test]
    fn words_about_anything_but_the_records() {
        for (said, cause) in [
            ("gzip: invalid header", Cause::Misdirected),
            ("zstd: magic number mismatch", Cause::Misdirected),
            ("failed to decompress the request body", Cause::Misdirected),
            ("Invalid API key", Cause::Denied),
            ("API-Key header is missing", Cause::Denied),
            ("The security token included in the request is an expired token", Cause::Denied),
            ("Unauthorized", Cause::Denied),
            ("daily quota of your plan is used up", Cause::Busy),
            ("Ingestion rate limit exceeded", Cause::Busy),
            ("server overloaded, please retry later", Cause::Busy),
            ("the service is temporarily unavailable", Cause::Busy),
            ("data refused due to high memory usage", Cause::Busy),
        ] {
            assert_eq!(cause_beside_the_records(said.as_bytes()), Some(cause), "{said}");
        }
        for said in [
            "",
            "entry too far behind",
            "invalid UTF-8",
            "proto: wrong wireType = 3",
            "invalid character 'x' looking for beginning of value",
            "unexpected token",
            "attribute count limit exceeded",
            "timestamp out of range",
        ] {
            assert_eq!(cause_beside_the_records(said.as_bytes()), None, "{said}");
        }
    }

    /// Scenario: D20: what Loki says of requests of which it keeps a part, also through a gateway.
    /// Guarantees: a count that is certain is exact; of streams that are not named, and of streams
    /// refused as a whole, everything may be lost; other refusals are none of these.
    #[test]
    fn counts_of_a_rejected_part() {
        let long = "max entry size '262144' bytes exceeded for stream '{job=\"a\"}' while adding an \
                    entry with length '300000' bytes";
        let old = "entry for stream '{job=\"a\"}' has timestamp too old: 2026-01-01T00:00:00Z, \
                   oldest acceptable timestamp is: 2026-11-23T00:00:00Z";
        let behind = "entry with timestamp 2026-11-01 00:00:00 +0000 UTC ignored, reason: 'entry too \
                      far behind, entry timestamp is: a, oldest acceptable timestamp is: b',\n";
        let total = "user 'fake', total ignored: 10 out of 20 for stream: {job=\"a\"}";
        let unknown = InPart::AllBut { kept: 0, of: 0 };
        let cases = [
            (long.to_owned(), InPart::Exactly(1)),
            (format!("7 errors like: {old}"), InPart::Exactly(7)),
            (format!("1 errors like: {long}; 12 errors like: {old}"), InPart::Exactly(13)),
            (format!("1 errors like: {long}; 12 errors like: something new"), unknown),
            (format!("{behind}{total}"), InPart::AllBut { kept: 10, of: 20 }),
            (format!("{behind}{total}{behind}{total}"), InPart::AllBut { kept: 20, of: 40 }),
            (behind.repeat(200), unknown),
            (format!("stream 'a' has label value too long: 'b'; {long}"), unknown),
            (
                format!(
                    "request to http://loki responded with HTTP Status Code 400, Message={old}"
                ),
                InPart::Exactly(1),
            ),
            (format!("{long}; ").repeat(1000), unknown),
        ];
        for (said, expected) in cases {
            assert_eq!(rejected_in_part(said.as_bytes()), Some(expected), "{said:.300}");
        }
        for said in ["", "invalid UTF-8", "unsupported path", "ingestion blocked for user fake"] {
            assert_eq!(rejected_in_part(said.as_bytes()), None, "{said}");
        }
    }

    /// Scenario: D2: a refusal that has a phrase of Loki's, or nearly one of its messages, from a sink
    /// that has kept nothing.
    /// Guarantees: none is a refusal in part.
    #[test]
    fn a_phrase_of_loki_is_no_refusal_in_part() {
        let ignored = "entry with timestamp 2026-11-01 00:00:00 +0000 UTC ignored, reason: 'entry out of \
                       order',\n";
        for said in [
            "max entry size exceeded",
            "max entry size '262144' bytes exceeded",
            "record has timestamp too old: 2020-01-01",
            "entry for stream '{}' has timestamp too old: yesterday",
            "timestamp too new",
            "entry too far behind",
            "entry out of order",
            "label name too long",
            "total ignored: 1 out of 2 for stream",
            "user 'fake', total ignored: 1 out of 2 for stream: {}",
            &format!("{ignored}total ignored: 0 out of 2 for stream: {{}}"),
            &format!("{ignored}total ignored: 3 out of 2 for stream: {{}}"),
            &format!("{ignored}total ignored: 1 out of many for stream: {{}}"),
            ignored,
        ] {
            assert_eq!(rejected_in_part(said.as_bytes()), None, "{said}");
        }
    }
}
