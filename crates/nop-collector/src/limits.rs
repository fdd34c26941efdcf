//! Every limit of nop-collector, with its unit in its name. A receiver that anything may connect to
//! has to stay small whatever arrives.

use std::time::Duration;

/// Decompressed size of one request, bytes, unless the options say otherwise.
pub const DECOMPRESSED_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// Largest zstd window, as a power of two: 8 MiB, what RFC 8878 asks every decoder to support.
/// A larger one would let a few bytes reserve gigabytes.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Memory that the bodies of all requests hold which are being received or read, bytes: at most twice
/// their length. More are refused as a temporary condition.
pub const BUFFERED_BYTES_MAX: usize = 512 << 20;

/// The same of posted manifests, which have a budget of their own: requests must not keep the proof out.
pub const MANIFESTS_BYTES_MAX: usize = 4 * MANIFEST_BYTES_MAX;

/// What is left of a refused HTTP/1 request's body is read and thrown away up to here, bytes, so
/// that its client gets to read the answer.
pub const DISCARDED_BYTES_MAX: u64 = 256 << 20;

/// A thread's buffer that grew beyond this for one large request is given back, bytes.
pub const RETAINED_BUFFER_BYTES_MAX: usize = 16 << 20;

/// Connections that one port serves at a time; further ones wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 1_024;

/// Requests that one HTTP/2 connection may have open at a time.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 128;

/// HTTP/2 flow control: bytes that a client may send ahead on one stream. A batch of most agents
/// fits, so that none waits for a round trip.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// HTTP/2 flow control: bytes that a client may send ahead on one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// HTTP/2: largest frame that is accepted, bytes. A few large frames cost less than many of 16 KiB.
pub const FRAME_BYTES_MAX: u32 = 256 << 10;

/// HTTP/1: the head of a request, bytes, and what a connection reads ahead. Larger heads are
/// answered with 431.
pub const HTTP1_HEAD_BYTES_MAX: usize = 256 << 10;

/// HTTP/1: headers of one request. More are answered with 431.
pub const HTTP1_HEADERS_MAX: usize = 100;

/// HTTP/2: the headers of one request, bytes, each with 32 more than its name and value (RFC 9113).
pub const HTTP2_HEADER_LIST_BYTES_MAX: u32 = 16 << 10;

/// How long a body may take to arrive in full.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an HTTP/1.1 connection may stay without a complete header, and so idle. Above the 90 s
/// after which Go's client closes its idle connections: the client closes first, and never sends
/// into a connection that is being closed.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a connection may stay without any request under way, whichever protocol it speaks or
/// fails to speak. It is then closed as at the end of the program: clients connect anew.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests in flight may take to finish after the signal to stop.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams, that is pairs of run and writer, that are told apart.
pub const STREAMS_MAX: usize = 100_000;

/// Intervals of sequence numbers that one stream may fall into. A stream without losses is one
/// interval; requests in flight and lost ones add a few.
pub const INTERVALS_PER_STREAM_MAX: usize = 65_536;

/// Intervals of all streams together: 64 MiB.
pub const INTERVALS_MAX: usize = 4 << 20;

/// Identities of records (`log.record.uid`) that are remembered at least; twice as many at most,
/// and then 72 MB. It is as many as fill a table of 2^21 places to its last.
pub const UIDS_REMEMBERED_MIN: usize = (1 << 21) / 8 * 7;

/// Latencies above it count as it, microseconds: a day.
pub const LATENCY_MAX_US: u64 = 86_400_000_000;

/// Significant decimal digits of a latency.
pub const LATENCY_DIGITS: u8 = 3;

/// Runs whose latencies are kept apart, at about 200 KiB each; further ones count in the total only.
pub const LATENCY_RUNS_MAX: usize = 64;

/// A posted manifest, bytes.
pub const MANIFEST_BYTES_MAX: usize = 32 << 20;

/// A replica's report that `merge` fetches, bytes.
pub const REPORT_BYTES_MAX: usize = 512 << 20;

/// How long one fetch of `merge` may take.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// The limits of a port that tests make small; the defaults are those of the program.
#[derive(Clone, Copy, Debug)]
pub struct PortLimits {
    /// See [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`HEADER_TIMEOUT`].
    pub header_timeout: Duration,
    /// See [`BODY_TIMEOUT`].
    pub body_timeout: Duration,
    /// See [`IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
}

impl Default for PortLimits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            header_timeout: HEADER_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
        }
    }
}

// A request at its limit has to fit the budget, with room for others.
const _: () = assert!(DECOMPRESSED_BYTES_MAX_DEFAULT * 4 <= BUFFERED_BYTES_MAX);
const _: () = assert!(INTERVALS_PER_STREAM_MAX <= INTERVALS_MAX);
const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
