//! Halves a message that the sink found too large: decompress, split by records, compress again.
//! A cold path: it allocates, and one message at a time is halved, so that memory stays bounded.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::{read::GzDecoder, write::GzEncoder};
use thyme_core::otlp::walk;
use tokio::{runtime::Handle, sync::Semaphore};

use super::aside::Proof;
use crate::{config::Compression, queue::Request};

/// A request, or what is left of it after halving, in the form in which it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The message, compressed as `compression` says; the chunks follow each other.
    pub(super) body: Vec<Bytes>,
    /// Sum of the chunks' lengths.
    pub(super) body_bytes: usize,
    /// Length before compression.
    pub(super) uncompressed_bytes: usize,
    /// Log records in it.
    pub(super) records: u64,
    /// Place of the first of them among the request's.
    pub(super) first: u64,
    /// How often the sink has refused it alone, each time but the first after it had accepted
    /// something that was sent after the refusal before.
    pub(super) refusals: u32,
    /// What its failures alone have proved.
    pub(super) proof: Proof,
    /// Whether it counts among what is held, see [`super::aside::Place`].
    pub(super) is_held: bool,
    /// How `body` is compressed.
    pub(super) compression: Compression,
}

impl Part {
    /// All of a request; the bytes are shared.
    pub(super) fn whole(request: &Request) -> Self {
        Self {
            body: request.body.clone(),
            body_bytes: request.body_bytes,
            uncompressed_bytes: request.uncompressed_bytes,
            records: request.records,
            first: 0,
            refusals: 0,
            proof: Proof::default(),
            is_held: false,
            compression: request.compression,
        }
    }

    /// The same in memory of its own, without that of the request that it was cut from.
    pub(super) fn apart(&self) -> Self {
        let body = vec![Bytes::from(self.body.concat())];
        Self { body, ..self.clone() }
    }
}

/// Halves parts, one at a time.
#[derive(Debug)]
pub(super) struct Bisector {
    /// Level at which halves are compressed again.
    level: i32,
    /// One permit: the messages being halved are the only uncompressed ones that are kept.
    turn: Semaphore,
    /// Whose threads do the work: milliseconds of it would hold up everything else on the network's few.
    /// Without one it is done where it is asked for, so that a simulated clock stands still meanwhile.
    runtime: Option<Handle>,
}

impl Bisector {
    pub(super) fn new(level: i32, runtime: Option<Handle>) -> Self {
        Self { level, turn: Semaphore::new(1), runtime }
    }

    /// The two halves in order; `None` where there is nothing to halve, or the message can't be
    /// read (which would be our own fault).
    pub(super) async fn halve(&self, part: &Part) -> Option<(Part, Part)> {
        let _turn = self.turn.acquire().await.ok()?;
        let (part, level) = (part.clone(), self.level);
        self.work(move || halve(&part, level)).await?
    }

    /// The records of these parts in one, which has the place of none; `None` where a message can't be
    /// read.
    pub(super) async fn join(&self, parts: &[Part]) -> Option<Part> {
        let _turn = self.turn.acquire().await.ok()?;
        let (parts, level) = (parts.to_vec(), self.level);
        self.work(move || join(&parts, level)).await?
    }

    /// Works on another thread, if there is a runtime; `None` where that ends. A panic there is one here:
    /// `supervise` has to hear of it.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let Some(runtime) = &self.runtime else { return Some(work()) };
        match runtime.spawn_blocking(work).await {
            Ok(result) => Some(result),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

fn halve(part: &Part, level: i32) -> Option<(Part, Part)> {
    let message = decompress(part).ok()?;
    let (first, second) = walk::split(&message)?;
    drop(message);
    let half = |message: Vec<u8>| {
        let records = walk::count(&message).ok()?;
        let uncompressed_bytes = message.len();
        let body = compress(message, part.compression, level).ok()?;
        let (body_bytes, body) = (body.len(), vec![Bytes::from(body)]);
        Some(Part {
            body,
            body_bytes,
            uncompressed_bytes,
            records,
            first: part.first,
            refusals: 0,
            proof: Proof::default(),
            is_held: false,
            compression: part.compression,
        })
    };
    let (first, mut second) = (half(first)?, half(second)?);
    second.first += first.records;
    (first.records + second.records == part.records).then_some((first, second))
}

/// Messages of repeated fields that follow each other are one message.
fn join(parts: &[Part], level: i32) -> Option<Part> {
    let (first, others) = parts.split_first()?;
    if others.is_empty() {
        return Some(first.clone());
    }
    let mut message = Vec::new();
    for part in parts {
        message.extend_from_slice(&decompress(part).ok()?);
    }
    let uncompressed_bytes = message.len();
    let body = compress(message, first.compression, level).ok()?;
    let (body_bytes, body) = (body.len(), vec![Bytes::from(body)]);
    let records = parts.iter().map(|part| part.records).sum();
    Some(Part { body, body_bytes, uncompressed_bytes, records, ..first.clone() })
}

/// The message itself, which must have exactly the length that was noted when it was built.
pub(super) fn decompress(part: &Part) -> io::Result<Vec<u8>> {
    let body = part.body.concat();
    let length = part.uncompressed_bytes;
    let message = match part.compression {
        Compression::None => body,
        Compression::Gzip => read_at_most(GzDecoder::new(&body[..]), length)?,
        Compression::Zstd => read_at_most(zstd::stream::read::Decoder::new(&body[..])?, length)?,
    };
    if message.len() == length { Ok(message) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Reads to the end, or one byte beyond `length`: enough to see that it is too long.
fn read_at_most(reader: impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut message = Vec::with_capacity(length);
    reader.take(length as u64 + 1).read_to_end(&mut message)?;
    Ok(message)
}

/// In no more memory than it takes: single records are held for long.
fn compress(message: Vec<u8>, compression: Compression, level: i32) -> io::Result<Vec<u8>> {
    let mut body = match compression {
        Compression::None => message,
        Compression::Gzip => {
            let level = u32::try_from(level).unwrap_or(6).min(9);
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(&message)?;
            encoder.finish()?
        }
        Compression::Zstd => zstd::bulk::compress(&message, level)?,
    };
    body.shrink_to_fit();
    Ok(body)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::queue::Token;
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, any_value::Value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost::Message;

    /// A message whose records have these bodies.
    pub(in super::super) fn message_of(bodies: &[String]) -> Vec<u8> {
        let record = |body: &String| LogRecord {
            body: Some(AnyValue { value: Some(Value::StringValue(body.clone())) }),
            ..LogRecord::default()
        };
        let scope =
            ScopeLogs { log_records: bodies.iter().map(record).collect(), ..ScopeLogs::default() };
        let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec()
    }

    /// The bodies of a message's records.
    pub(in super::super) fn bodies_of(message: &[u8]) -> Vec<String> {
        let request = ExportLogsServiceRequest::decode(message).unwrap();
        let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        scopes
            .flat_map(|scope| scope.log_records)
            .map(|record| match record.body.unwrap().value.unwrap() {
                Value::StringValue(body) => body,
                other => panic!("not a string: {other:?}"),
            })
            .collect()
    }

    /// A part whose records have these bodies.
    pub(in super::super) fn part_of(bodies: &[String], compression: Compression) -> Part {
        let message = message_of(bodies);
        let uncompressed_bytes = message.len();
        let body = compress(message, compression, 1).unwrap();
        Part {
            body_bytes: body.len(),
            body: vec![body.into()],
            uncompressed_bytes,
            records: bodies.len() as u64,
            first: 0,
            refusals: 0,
            proof: Proof::default(),
            is_held: false,
            compression,
        }
    }

    /// A request whose records have these bodies, settled to nobody.
    pub(in super::super) fn request_of(bodies: &[String], compression: Compression) -> Request {
        let Part { body, body_bytes, uncompressed_bytes, records, compression, .. } =
            part_of(bodies, compression);
        let (reply, token) = (crossbeam_channel::unbounded().0, Token::default());
        let source_bytes = uncompressed_bytes as u64;
        Request {
            body,
            body_bytes,
            uncompressed_bytes,
            records,
            source_bytes,
            compression,
            reply,
            settled: Default::default(),
            token,
        }
    }

    /// What the sink finds in a part.
    pub(in super::super) fn bodies_of_part(part: &Part) -> Vec<String> {
        bodies_of(&decompress(part).unwrap())
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("record {number}")).collect()
    }

    /// Scenario: five records, in each compression.
    /// Guarantees: the halves hold three and two of them in order, compressed as the whole was,
    /// and their noted lengths are true.
    #[test]
    fn halves_have_the_form_of_the_whole() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let part = part_of(&names(5), compression);
            let (first, second) = halve(&part, 1).unwrap();
            for (half, bodies) in [(&first, &names(5)[..3]), (&second, &names(5)[3..])] {
                assert_eq!(half.compression, compression);
                assert_eq!(half.records, bodies.len() as u64);
                assert_eq!(half.body_bytes, half.body.concat().len());
                assert_eq!(bodies_of_part(half), bodies);
            }
            assert_eq!((first.first, second.first), (0, 3));
            assert_eq!(halve(&second, 1).unwrap().1.first, 4);
        }
    }

    /// Scenario: the work on another thread panics.
    /// Guarantees: so does whoever waits for it, with the same words.
    #[tokio::test]
    async fn a_panic_elsewhere_is_one_here() {
        let work = || -> Option<()> { panic!("halved too far") };
        let bisector = Bisector::new(1, Some(Handle::current()));
        let waiting = tokio::spawn(async move { bisector.work(work).await });
        let panic = waiting.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"halved too far"));
    }

    /// Scenario: one record; bytes that do not decompress; a bomb that decompresses to more than
    /// was noted; a wrong number of records.
    /// Guarantees: nothing is halved, and no more than the noted length is ever decompressed.
    #[test]
    fn what_cannot_be_halved() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            assert_eq!(halve(&part_of(&names(1), compression), 1), None);
            let part = part_of(&names(5), compression);
            let mut bomb = part.clone();
            bomb.uncompressed_bytes -= 1;
            assert_eq!(halve(&bomb, 1), None);
            let mut miscounted = part.clone();
            miscounted.records += 1;
            assert_eq!(halve(&miscounted, 1), None);
            let mut garbage = part;
            garbage.body = vec![Bytes::from_static(b"garbage")];
            assert_eq!(halve(&garbage, 1), None);
        }
    }
}
