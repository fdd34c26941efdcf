//! What one attempt to send came to, in the terms that delivery decides by. Transports translate
//! their answers into these; nothing here knows how an answer travelled.

use std::{fmt, time::Duration};

use super::limits::QUOTE_CHARS_MAX;

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The sink took the request, but for `rejected_records` of it.
    Accepted {
        /// Records that the sink says it rejected; as sent, so perhaps more than there were.
        rejected_records: u64,
        /// Its words about that, or an empty quote.
        said: Quote,
    },
    /// Nobody refused the request, but the answer is none that an OTLP server gives. It counts as
    /// taken; an odd status proves nothing about the sink.
    Unconfirmed(Oddity, Quote),
    /// The request has too many bytes for the sink.
    TooLarge(Quote),
    /// The same under a status that says "not now": halved, but a single record is tried again.
    TooLargeForNow(Failure),
    /// The sink says that something of it is wrong, and always will be.
    Rejected(Quote),
    /// The sink took what it did not reject, and said so with an error. Never sent again.
    RejectedInPart(InPart, Quote),
    /// It did not work this time.
    Failed(Failure),
}

/// Answers that take a request, but that no OTLP server gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oddity {
    /// A 2xx that OTLP does not have.
    Status,
    /// A body that is no `ExportLogsServiceResponse`, or can't be told to be one: it is too long, or in
    /// an unknown coding.
    Body,
}

impl Oddity {
    /// For logs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "a status that is a success elsewhere, but none of OTLP's",
            Self::Body => "a body that can't be read as an answer of an OTLP server",
        }
    }
}

/// How many records a sink rejected that kept the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InPart {
    /// So many.
    Exactly(u64),
    /// At most all but `kept`, which are among the `of` that it speaks of.
    AllBut { kept: u64, of: u64 },
}

impl InPart {
    /// Records of a request that are, or may be, rejected: at most all of them.
    pub(super) fn of(self, records: u64) -> u64 {
        match self {
            Self::Exactly(rejected) => rejected.min(records),
            Self::AllBut { kept, .. } => records.saturating_sub(kept),
        }
    }

    /// Whether it can be about a request of so many records.
    const fn fits(self, records: u64) -> bool {
        match self {
            Self::Exactly(rejected) => 0 < rejected && rejected <= records,
            Self::AllBut { of, .. } => of <= records,
        }
    }
}

/// Why it did not work this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Kind of failure.
    pub(super) cause: Cause,
    /// Shortest wait that the sink asks for.
    pub(super) retry_after: Option<Duration>,
    /// The sink's or the operating system's words.
    pub(super) said: Quote,
}

/// Kinds of failure. None of them ends a request; they differ in who must do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub(super) enum Cause {
    /// No connection to any address.
    Unreachable,
    /// The connection broke before the answer.
    Broken,
    /// No answer in time.
    TimedOut,
    /// The sink says that it can't now: what OTLP calls retryable.
    Busy,
    /// The sink refuses the credentials.
    Denied,
    /// The sink does not offer what was asked for: wrong endpoint, path, compression or protocol.
    Misdirected,
    /// The sink has a fault of its own, or gave an answer that is none.
    Fault,
}

impl Cause {
    /// For logs: what happened, and what to look at.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "no connection to the sink",
            Self::Broken => "the connection to the sink broke",
            Self::TimedOut => "the sink did not answer in time",
            Self::Busy => "the sink can't take requests now",
            Self::Denied => {
                "the sink refuses the credentials: check the exporter's headers, auth and proxy_url"
            }
            Self::Misdirected => {
                "the sink does not offer this: check endpoint, protocol and compression"
            }
            Self::Fault => "the sink failed",
        }
    }

    /// Whether the request itself may be what makes the sink fail. What takes too long is no sign
    /// of that: a sink that has too much to do is slow with every record.
    pub(super) const fn may_be_the_request(self) -> bool {
        matches!(self, Self::Broken | Self::Fault)
    }
}

impl Outcome {
    /// Whether it proves that the sink takes something of so many records. A 200 with a body of its
    /// own is all that some sinks ever say.
    pub(super) const fn is_acceptance(&self, records: u64) -> bool {
        match self {
            Self::Accepted { rejected_records, .. } => *rejected_records < records,
            Self::Unconfirmed(oddity, _) => matches!(oddity, Oddity::Body),
            _ => false,
        }
    }

    /// What it comes to for a request of so many records: numbers that don't fit it are no word about
    /// what the sink kept of it.
    pub(super) fn of_request(self, records: u64) -> Self {
        match self {
            Self::RejectedInPart(in_part, said) if !in_part.fits(records) => Self::Rejected(said),
            other => other,
        }
    }

    pub(super) fn failed(cause: Cause, said: Quote) -> Self {
        Self::Failed(Failure { cause, retry_after: None, said })
    }
}

/// Somebody else's words: bounded, on one line, without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quote(String);

impl Quote {
    /// Quotes what may be text.
    pub(super) fn new(said: &[u8]) -> Self {
        // A character is at most four bytes: more of them need not be looked at.
        let said = &said[..said.len().min(QUOTE_CHARS_MAX * 4)];
        let mut quote = String::new();
        for character in String::from_utf8_lossy(said).trim().chars().take(QUOTE_CHARS_MAX) {
            quote.extend(character.escape_debug());
        }
        Self(quote)
    }

    /// Quotes an error with its sources, which hyper and rustls keep apart; each cause once.
    pub(super) fn of_error(error: &(dyn std::error::Error + 'static)) -> Self {
        let text = thyme_core::causes::in_words(error, |error| {
            let words = super::verify::in_words(error, "the sink's certificate");
            words.unwrap_or_else(|| error.to_string())
        });
        Self::new(text.as_bytes())
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: D2, D20: refusals in part of so many records, for requests of twenty.
    /// Guarantees: what is given up is what is rejected, or may be; numbers of another request refuse the
    /// whole.
    #[test]
    fn numbers_that_do_not_fit_a_request_refuse_it_whole() {
        let all_but = |kept, of| InPart::AllBut { kept, of };
        let counts = [InPart::Exactly(1), all_but(10, 20), all_but(0, 0), InPart::Exactly(20)];
        assert_eq!(counts.map(|in_part| in_part.of(20)), [1, 10, 20, 20]);
        for (in_part, fits) in [
            (InPart::Exactly(20), true),
            (InPart::Exactly(21), false),
            (InPart::Exactly(0), false),
            (all_but(10, 20), true),
            (all_but(10, 21), false),
        ] {
            let whole = Outcome::Rejected(Quote::default());
            let outcome = Outcome::RejectedInPart(in_part, Quote::default());
            let expected = if fits { outcome.clone() } else { whole };
            assert_eq!(outcome.of_request(20), expected, "{in_part:?}");
        }
    }

    /// Scenario: a sink answers with terminal escapes, line breaks, invalid UTF-8 and a megabyte.
    /// Guarantees: the quote is one short line of printable characters.
    #[test]
    fn quotes_are_bounded_and_harmless() {
        assert_eq!(Quote::new(b" a\n\x1b[31mb\xff ").to_string(), "a\\n\\u{1b}[31mb\u{fffd}");
        let long = Quote::new(&vec![b'x'; 1 << 20]).to_string();
        assert_eq!(long.chars().count(), QUOTE_CHARS_MAX);
    }
}
