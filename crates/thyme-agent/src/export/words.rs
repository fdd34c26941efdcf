//! What the words of a refusal are about: the size of the message, how it was sent, or single
//! records of it. Statuses are not looked at here.
//!
//! Words decide how a request is tried again, not whether it is lost: see `delivery`. So a phrase
//! that is taken for one about size costs a few more attempts.

use super::outcome::InPart;

/// Bytes of an answer in which words are looked for.
const WORDS_BYTES_MAX: usize = 16 * 1024;

/// What servers say about a message that is too large, where [`names_size`] would not know it, or
/// where its words about something else would get in the way.
const SIZE_PHRASES: [&str; 15] = [
    "received message larger than max", // gRPC core, grpc-go, grpc-js; Loki's distributor
    "received message after decompression larger than max", // grpc-go
    "decoded message length too large", // tonic
    "grpc message exceeds maximum size", // grpc-java
    "received message exceeds the maximum configured message size", // grpc-dotnet
    "decompresses to a size larger", // grpc-js
    "decompressed message size too large than max", // Loki
    "too big data size exceeding",      // VictoriaLogs, and below
    "too big decompressed data size exceeding",
    "decompressed source size",
    "length limit exceeded",                       // axum
    "responded with http status code 413",         // the Collector's otlphttp in a gateway
    "request entity too large",                    // body-parser, nginx
    "unexpected eof",                              // Go, where a limit cuts a compressed body
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
    "rate", "per second", "/sec", "/s)", "quota", "throttl", "too many", "concurren", "header",
    "cookie", "uri", "url", "deadline", "timeout", "timed out", "timestamp", "memory", "queue",
    "connection",
];

/// Whether a refusal is about the size of the message.
pub(super) fn is_about_size(said: &[u8]) -> bool {
    let said = lower(said);
    SIZE_PHRASES.iter().any(|phrase| said.contains(phrase)) || names_size(&said)
}

/// Something measured, next to a word that it is too much, and nothing else that may be limited. An
/// excess that is no comparison needs a unit: deadlines are exceeded too.
fn names_size(said: &str) -> bool {
    let has = |word: &&str| said.contains(*word);
    let Some(too_much) = TOO_MUCH.iter().find(|word| has(word)) else { return false };
    let needs_unit = too_much.starts_with("exceed") || too_much.starts_with("over");
    let has_unit = ["size", "length", "bytes", "payload", "large"].iter().any(|word| has(&word));
    MEASURED.iter().any(|word| has(&word))
        && (!needs_unit || has_unit)
        && !NOT_SIZE.iter().any(|word| has(&word))
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

/// Whether an answer says which records it refused, and how many. So says Loki, which has kept the
/// others by then; a gateway before it hands its words on.
///
/// Its distributor names each refused entry, equal ones as "N errors like". Its ingesters count, for
/// one of the streams: what they say of that stream is certain, of others there is no word. A stream
/// that is refused as a whole is named once, however many entries it has.
pub(super) fn rejected_in_part(said: &[u8]) -> Option<InPart> {
    const ENTRIES: [&str; 5] = [
        "has timestamp too old",
        "has timestamp too new",
        "max entry size",
        "structured metadata too large",
        "too many structured metadata labels",
    ];
    const UNCOUNTED: [&str; 7] = [
        "entry too far behind",
        "entry out of order",
        "label name too long",
        "label value too long",
        "duplicate label name",
        "label names; limit",
        "total ignored:",
    ];
    let is_cut = said.len() > WORDS_BYTES_MAX;
    let said = lower(said);
    let has = |phrase: &&str| said.contains(*phrase);
    if UNCOUNTED.iter().any(|phrase| has(&phrase)) || is_cut && ENTRIES.iter().any(|one| has(&one)) {
        return Some(InPart::AllBut(kept_of_streams(&said)));
    }
    if !ENTRIES.iter().any(|phrase| has(&phrase)) {
        return None;
    }
    let groups = said.split(" errors like:").collect::<Vec<_>>();
    let named = groups[..groups.len() - 1].iter().filter_map(|before| last_number(before));
    Some(InPart::Exactly(named.sum::<u64>().max(1)))
}

/// Entries that were kept, from all of "total ignored: 10 out of 20".
fn kept_of_streams(said: &str) -> u64 {
    let kept = |counts: &str| {
        let mut numbers = counts.split(" out of ");
        let ignored = last_number(numbers.next()?)?;
        let all = first_number(numbers.next()?)?;
        all.checked_sub(ignored)
    };
    said.split("total ignored:").skip(1).filter_map(kept).fold(0, u64::saturating_add)
}

fn first_number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

fn last_number(text: &str) -> Option<u64> {
    let text = text.trim_end();
    let start = text.rfind(|character: char| !character.is_ascii_digit());
    text[start.map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8))..]
        .parse()
        .ok()
}

fn lower(said: &[u8]) -> String {
    String::from_utf8_lossy(&said[..said.len().min(WORDS_BYTES_MAX)]).to_ascii_lowercase()
}
