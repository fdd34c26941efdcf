//! Every limit of the exporter that is not a key of its configuration, with its unit in its name.

use std::time::Duration;

/// Bytes of a response, decompressed, that are read, as OTLP recommends. Of what follows only gRPC's
/// trailers are, and an HTTP/1.1 connection is given up.
pub(super) const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes kept of a response, from its beginning; the rest is only looked through.
pub(super) const RESPONSE_KEPT_BYTES_MAX: usize = 64 * 1024;

/// Bytes kept of one string of a response in JSON.
pub(super) const JSON_STRING_BYTES_MAX: usize = 16 * 1024;

/// Binary logarithm of the bytes of zstd's window in a response: RFC 8878 recommends 8 MiB.
pub(super) const RESPONSE_WINDOW_BYTES_LOG_MAX: u32 = 23;

/// Characters of a sink's own words that are logged.
pub(super) const QUOTE_CHARS_MAX: usize = 600;

/// Longest wait that a sink may ask for.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Share of a wait that the sink asked for by which consumers spread out after it.
pub(super) const THROTTLE_SPREAD: f64 = 0.1;

/// Connections that one attempt may use up before it counts as failed.
pub(super) const CONNECTIONS_PER_ATTEMPT_MAX: u32 = 3;

/// Lookups of one name that the operating system has not answered, each of which keeps a thread: where the first
/// still waits for a name server that is gone, the second asks the one that is there now.
pub(super) const LOOKUPS_MAX: usize = 2;

/// Addresses that are tried in turn for one connection.
pub(super) const ADDRESSES_PER_CONNECTION_MAX: usize = 3;

/// Answers of an address in a row that say that it can't take requests, before it is left out.
pub(super) const REFUSALS_IN_A_ROW_MAX: u32 = 3;

/// Failures of one request in a row that may be its own fault, before it is halved.
pub(super) const SUSPECT_FAILURES_MAX: u32 = 4;

/// The same for a part of a request that was found so, which is on trial already, and for a single
/// record while the sink accepts others.
pub(super) const SUSPECT_PART_FAILURES_MAX: u32 = 2;

/// Complaints of a sink about HTTP/2 pings, each of which doubles their interval, before there are
/// none any more.
pub(super) const PING_BACKOFFS_MAX: u32 = 2;

/// Bytes of a connection that wait in the kernel without having been sent once.
pub(super) const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Silence on a connection before TCP asks whether the peer is there.
pub(super) const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between two such questions.
pub(super) const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Questions without an answer before the connection counts as dead.
pub(super) const TCP_KEEPALIVE_PROBES_MAX: u32 = 4;

/// Failures of a single record in a row before others are tried in its place, where the sink has
/// accepted nothing meanwhile.
pub(super) const UNPROVED_FAILURES_MAX: u32 = 8;

/// Failures of a single record that it can be the cause of, with something accepted between each two of
/// them, before it is dropped for them.
pub(super) const FAULTS_ALONE_MIN: u32 = 8;

/// How long it is remembered which sizes a sink refuses; then a larger limit is found.
pub(super) const REFUSED_SIZE_AGE_MAX: Duration = Duration::from_secs(300);

/// Bytes before compression below which requests are not halved beforehand: a refusal of so few is
/// rather about one record of them.
pub(super) const REFUSED_SIZE_BYTES_MIN: usize = 64 * 1024;

/// How long a size that timed out unforeseen, while smaller ones were answered, is not tried again at first; each
/// further such time-out doubles it. How large requests are that were answered is remembered as long.
pub(super) const SLOW_SIZE_AGE_MIN: Duration = Duration::from_secs(30);

/// The same at most, and of a size that times out as was foreseen from what is answered.
pub(super) const SLOW_SIZE_AGE_MAX: Duration = Duration::from_secs(240);

/// Attempts of one request that may be refused at once, and halved, while its sink has accepted
/// nothing since the first of them.
pub(super) const PROBES_MAX: u32 = 64;

/// Refusals of a single record, with something accepted between each two of them, before it is given
/// up.
pub(super) const REFUSALS_ALONE_MIN: u32 = 2;

/// Records given up on a sink's word before it must have accepted something again.
pub(super) const GIVEN_UP_IN_A_ROW_MAX: u64 = 1_000;

/// Requests that wait aside, beside those that consumers are busy with.
pub(super) const ASIDE_REQUESTS_MAX: usize = 256;

/// Bytes of single records that wait aside, of all requests, as they are sent. While they are used up, no
/// request is halved for a failure.
pub(super) const ASIDE_BYTES_MAX: usize = 8 << 20;

/// Failures of a single record, with something accepted between each two of them, before it may give way
/// where [`ASIDE_REQUESTS_MAX`] or [`ASIDE_BYTES_MAX`] are nearly used up.
pub(super) const ASIDE_FAILURES_MIN: u32 = 4;

/// Time from the first of these failures to the last.
pub(super) const ASIDE_TIME_MIN: Duration = Duration::from_secs(60);

/// Pause between two lines about what somebody has to mend.
pub(super) const REMINDER_INTERVAL: Duration = Duration::from_secs(60);

/// Pause between two lines about the same kind of failure.
pub(super) const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// How long things of the network take or last. The defaults are what production uses; tests
/// shorten them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Longest time for TCP, TLS and HTTP/2 hand-shakes together.
    pub connect_timeout: Duration,
    /// Longest time for one resolution of the sink's name.
    pub resolve_timeout: Duration,
    /// Age at which addresses are resolved anew.
    pub resolve_interval: Duration,
    /// Shortest time between two resolutions, however many connections fail.
    pub resolve_interval_min: Duration,
    /// Age at which a connection is replaced (10 % more or less, by chance), so that new sink pods
    /// behind one address get their share, and new certificates come into use.
    pub connection_age_max: Duration,
    /// Time between two looks at the file of a token that the sink takes.
    pub token_read_interval: Duration,
    /// How long an address is left out after its first failure; each further one doubles it.
    pub ejection_min: Duration,
    /// Longest time that an address is left out before it is probed.
    pub ejection_max: Duration,
    /// Silence on an HTTP/2 connection with requests in flight, before a ping. grpc-go allows one
    /// in 5 min, unless it is configured otherwise.
    pub keepalive_interval: Duration,
    /// Longest wait for the ping's answer, before the connection counts as dead.
    pub keepalive_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            resolve_timeout: Duration::from_secs(5),
            resolve_interval: Duration::from_secs(30),
            resolve_interval_min: Duration::from_secs(1),
            connection_age_max: Duration::from_secs(300),
            token_read_interval: Duration::from_secs(10),
            ejection_min: Duration::from_secs(1),
            ejection_max: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(360),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}
