//! What becomes of a request that has arrived in full, whichever protocol brought it: decompressed,
//! read, held against the script of faults, and merged into what is known. Runs to its end on the
//! thread that received the request, in that thread's buffers, and locks once.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;

use crate::body::{Body, Budget};
use crate::decompress::{Decompressor, Encoding};
use crate::faults::{Fault, Faults};
use crate::json;
use crate::limits::{BUFFERED_BYTES_MAX, MANIFESTS_BYTES_MAX};
use crate::observe::Observations;
use crate::refusal::Refusal;
use crate::verify::{Receipt, Verifier};

/// The protocol that brought a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
}

/// How a request's message is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `ExportLogsServiceRequest` in protobuf.
    Protobuf,
    /// The same in OTLP's JSON.
    Json,
}

/// A request that was kept for a test to look at.
#[derive(Clone, Debug)]
pub struct KeptRequest {
    /// What brought it.
    pub protocol: Protocol,
    /// How its message is encoded.
    pub format: Format,
    /// How it was compressed.
    pub encoding: Encoding,
    /// Its HTTP headers.
    pub headers: HeaderMap,
    /// Its message, decompressed.
    pub message: Bytes,
    /// Whether it counts: no fault refused it.
    pub accepted: bool,
}

/// What a request says about itself before its body is read.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) protocol: Protocol,
    pub(crate) format: Format,
    pub(crate) encoding: Encoding,
    pub(crate) headers: HeaderMap,
}

/// How a request is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Accepted, but for so many records.
    Success { rejected: u64 },
    /// A scripted HTTP status.
    HttpStatus { status: u16, retry_after: Option<String> },
    /// A scripted gRPC status.
    GrpcStatus { code: u32, retry_delay: Option<Duration> },
}

/// What is to be done with a request once it was read.
#[derive(Debug)]
pub(crate) enum Treatment {
    /// Answer at once.
    Answer(Answer),
    /// Answer with success, later.
    Delay(Duration),
    /// Close the connection.
    Disconnect,
    /// Do nothing at all.
    Stall,
}

/// The state that all connections share.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) budget: Budget,
    /// Of posted manifests.
    pub(crate) manifests: Budget,
    pub(crate) faults: Faults,
    pub(crate) decompressed_bytes_max: usize,
    keep_requests: bool,
    verifier: Mutex<Verifier>,
    kept: Mutex<Vec<KeptRequest>>,
}

/// One thread's buffers, used by one request after the other.
#[derive(Default)]
struct Scratch {
    decompressor: Decompressor,
    observations: Observations,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Intake {
    pub(crate) fn new(
        decompressed_bytes_max: usize,
        body_timeout: Duration,
        keep_requests: bool,
    ) -> Self {
        Self {
            budget: Budget::new(BUFFERED_BYTES_MAX, body_timeout),
            manifests: Budget::new(MANIFESTS_BYTES_MAX, body_timeout),
            faults: Faults::default(),
            decompressed_bytes_max,
            keep_requests,
            verifier: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// Reads a request whose whole body has come; `wire_bytes` is what came with it, framing
    /// included.
    pub(crate) fn take(
        &self,
        envelope: &Envelope,
        body: &Body<'_>,
        wire_bytes: usize,
    ) -> Result<Treatment, Refusal> {
        let received_unix_nano = unix_nano_now();
        SCRATCH.with_borrow_mut(|Scratch { decompressor, observations }| {
            let message =
                decompressor.plain(envelope.encoding, &body.chunks, self.decompressed_bytes_max)?;
            let receipt = Receipt {
                wire_bytes: wire_bytes as u64,
                decompressed_bytes: message.len() as u64,
                received_unix_nano,
            };
            observations.begin(received_unix_nano);
            read(envelope.format, message, u64::MAX, observations)?;
            let fault = self.faults.take(message.len(), &envelope.headers);
            let accepted = !matches!(
                fault,
                Some(Fault::HttpStatus { .. } | Fault::GrpcStatus { .. } | Fault::Stall)
            );
            if self.keep_requests {
                self.keep(envelope, message, accepted);
            }
            let mut rejected = 0;
            if let Some(Fault::PartialSuccess { rejected: wanted }) = fault {
                rejected = wanted.min(observations.records);
                let kept = observations.records - rejected;
                observations.begin(received_unix_nano);
                read(envelope.format, message, kept, observations)?;
            }
            let mut verifier = self.verifier();
            verifier.totals.attempts += 1;
            if accepted {
                verifier.apply(observations, receipt);
            } else {
                verifier.refuse("fault");
            }
            Ok(treatment(fault, rejected))
        })
    }

    /// Counts a request that was refused.
    pub(crate) fn refuse(&self, refusal: &Refusal) {
        let mut verifier = self.verifier();
        verifier.totals.attempts += 1;
        verifier.refuse(refusal.reason());
    }

    /// What is known. Held for moments only, and never across an `await`.
    pub(crate) fn verifier(&self) -> MutexGuard<'_, Verifier> {
        self.verifier.lock().expect("nothing panics while the verifier is locked")
    }

    /// The requests that were kept so far, in order of arrival; they are kept no longer.
    pub(crate) fn take_kept(&self) -> Vec<KeptRequest> {
        std::mem::take(&mut *self.kept())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<KeptRequest>> {
        self.kept.lock().expect("nothing panics while the kept requests are locked")
    }

    fn keep(&self, envelope: &Envelope, message: &[u8], accepted: bool) {
        self.kept().push(KeptRequest {
            protocol: envelope.protocol,
            format: envelope.format,
            encoding: envelope.encoding,
            headers: envelope.headers.clone(),
            message: Bytes::copy_from_slice(message),
            accepted,
        });
    }
}

fn read(
    format: Format,
    message: &[u8],
    records_max: u64,
    observations: &mut Observations,
) -> Result<(), Refusal> {
    match format {
        Format::Protobuf => Ok(observations.read_protobuf(message, records_max)?),
        Format::Json => Ok(json::read(message, records_max, observations)?),
    }
}

fn treatment(fault: Option<Fault>, rejected: u64) -> Treatment {
    match fault {
        None | Some(Fault::PartialSuccess { .. }) => {
            Treatment::Answer(Answer::Success { rejected })
        }
        Some(Fault::HttpStatus { status, retry_after }) => {
            Treatment::Answer(Answer::HttpStatus { status, retry_after })
        }
        Some(Fault::GrpcStatus { code, retry_delay }) => {
            Treatment::Answer(Answer::GrpcStatus { code, retry_delay })
        }
        Some(Fault::Delay(delay)) => Treatment::Delay(delay),
        Some(Fault::Disconnect) => Treatment::Disconnect,
        Some(Fault::Stall) => Treatment::Stall,
    }
}

/// Now, nanoseconds since the Unix epoch.
fn unix_nano_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
