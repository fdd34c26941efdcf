//! Sends requests to the sink: OTLP over gRPC or HTTP, until each of them is settled.
//!
//! ```text
//! workers --mpsc(queue_size + num_consumers)--> tasks x [ delivery <-> client <-> pool ] --> sink
//!    ^                                                         |
//!    '------------- settled parts, Settled --------------------'
//! ```
//!
//! There are `num_consumers` slots, and 256 tasks more than that. A task with a slot takes a
//! request, brings it to its end (`delivery`) and takes the next; a request that waits aside
//! (`refusal`) gives its slot back. So `num_consumers` requests are under way at most, beside some
//! of those that wait aside (`aside`), and with one consumer their order is kept, but for records that
//! were refused alone. A request's bytes are compressed again only where less than all of it is sent:
//! it was too large, or as large as what was; it was refused or not answered in time, or failed
//! while others passed; or a part of it was settled before.
//!
//! What this stage must not do: keep the books (the worker does; `account` only tells it how the
//! records of each part ended), read files, or drop what could be kept. Where OTLP would drop a
//! request that a later attempt may save (refused credentials, wrong endpoints,
//! RESOURCE_EXHAUSTED without RetryInfo, internal errors), it is kept and the log says so;
//! `retry_on_failure.max_elapsed_time` sets a limit for those who want one.
//! The tables are in `grpc` and `http`.

mod limits;
pub(crate) mod endpoint;
mod sizes;
mod slot;
mod delivery;
mod account;
mod refusal;
mod aside;
mod evidence;
mod pace;
mod retry;
mod supervise;
mod bisect;
mod client;
mod answer;
mod coding;
mod message;
mod grpc;
mod http;
mod body;
mod words;
pub(crate) mod reply;
pub(crate) mod partial;
mod outcome;
mod pool;
mod signs;
mod balance;
mod connect;
mod lookup;
mod keepalive;
pub(crate) mod proxy;
pub(crate) mod tls;
mod verify;
mod first_bytes;
mod token;
mod warnings;
mod chance;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod simulated;

use std::sync::Arc;

use credentials::ContentError;
use tokio::sync::{Mutex, mpsc};

use self::{
    bisect::Bisector,
    client::Client,
    connect::{Connector, Dialled},
    delivery::{Delivery, Sink},
    endpoint::Endpoint,
    pool::Pool,
    slot::Slots,
    token::Token,
    warnings::Warnings,
};
use crate::{
    config::{ExporterConfig, Protocol, Source},
    metrics::Metrics,
    queue::{Request, Settlement},
};

pub(crate) use self::client::{HeaderFault, configured_header};
pub use self::{
    connect::{Resolver, Resolving},
    limits::Timing,
    lookup::SystemResolver,
};

/// Why an exporter can't start. What fails later is not an error but tried again.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The endpoint is not one.
    #[error("endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The proxy can't be used.
    #[error("proxy {proxy}: {reason}")]
    Proxy {
        /// `host:port`.
        proxy: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A header can't be sent. Its value, perhaps a secret, is not told.
    #[error("header {name:?}: {reason}")]
    Header {
        /// As configured.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Authorities, a certificate or a key are of no use.
    #[error("tls: {0}")]
    TlsContent(ContentError),
    /// The token is of no use.
    #[error("bearertokenauth: {0}")]
    Token(ContentError),
    /// The system trusts nobody.
    #[error("the system has no certificate authorities ({errors}); name some with tls.ca_file")]
    SystemAuthorities {
        /// What went wrong while looking for them.
        errors: String,
    },
}

impl ExportError {
    /// The key that is to blame, with all those above it.
    pub fn key(&self, config: &ExporterConfig) -> String {
        let key = match self {
            Self::Endpoint { .. } => "endpoint".to_owned(),
            Self::Proxy { .. } => "proxy_url".to_owned(),
            Self::Header { name, .. } => format!("headers::{name}"),
            Self::TlsContent(error) => {
                let identity = config.tls.identity.as_ref();
                let source = match error.index {
                    tls::AUTHORITIES => ("ca", config.tls.authorities.as_ref()),
                    tls::CERTIFICATE => ("cert", identity.map(|own| &own.certificate)),
                    _ => ("key", identity.map(|own| &own.key)),
                };
                match source {
                    (name, Some(Source::Inline(_))) => format!("tls::{name}_pem"),
                    (name, _) => format!("tls::{name}_file"),
                }
            }
            Self::SystemAuthorities { .. } => "tls".to_owned(),
            Self::Token(_) => {
                let Some(auth) = &config.auth else { return String::new() };
                let key = match auth.token {
                    Source::File(_) => "filename",
                    Source::Inline(_) => "token",
                };
                return format!("extensions::{}::{key}", auth.id);
            }
        };
        format!("exporters::{}::{key}", config.id)
    }
}

/// Starts an exporter on `runtime` and returns where its requests go in. Dropping the sender ends
/// it once all requests are settled; every request is settled exactly once. A receiver of
/// settlements that is gone is ignored.
///
/// # Errors
/// When the endpoint, a header or the TLS configuration is of no use. That the sink can't be
/// reached is no error.
pub fn spawn(
    runtime: &tokio::runtime::Handle,
    config: &ExporterConfig,
    metrics: Arc<Metrics>,
) -> Result<mpsc::Sender<Request>, ExportError> {
    spawn_with(runtime, config, metrics, Arc::new(SystemResolver::default()), Timing::default())
}

/// [`spawn`] with another resolver and other timing: for tests and simulations.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with(
    runtime: &tokio::runtime::Handle,
    config: &ExporterConfig,
    metrics: Arc<Metrics>,
    resolver: Arc<dyn Resolver>,
    timing: Timing,
) -> Result<mpsc::Sender<Request>, ExportError> {
    let warnings = Arc::new(Warnings::default());
    let client = client(config, Arc::clone(&metrics), resolver, timing, Arc::clone(&warnings))?;
    say_proxy(config);
    warn_of_risks(config, client.endpoint());
    let bisector = Bisector::new(config.compression_level);
    let (retry, consumers) = (config.retry.clone(), config.queue.num_consumers.max(1));
    let delivery = Delivery::new(client, &config.id, retry, consumers, bisector, warnings, metrics);
    let capacity = config.queue.queue_size.saturating_add(consumers);
    let (sender, receiver) = mpsc::channel(capacity.min(tokio::sync::Semaphore::MAX_PERMITS));
    let (receiver, delivery) = (Arc::new(Mutex::new(receiver)), Arc::new(delivery));
    let slots = Slots::new(consumers);
    for _ in 0..slots.tasks() {
        runtime.spawn(consume(slots.clone(), Arc::clone(&receiver), Arc::clone(&delivery)));
    }
    Ok(sender)
}

/// Finds out whether an exporter could start with this configuration: the same steps, without a
/// network.
///
/// # Errors
/// As [`spawn`].
pub fn check(config: &ExporterConfig) -> Result<(), ExportError> {
    let metrics = Arc::new(Metrics::default());
    let resolver = Arc::new(SystemResolver::default());
    client(config, metrics, resolver, Timing::default(), Arc::default()).map(drop)
}

/// All that talks to the sink; nothing is connected yet.
fn client(
    config: &ExporterConfig,
    metrics: Arc<Metrics>,
    resolver: Arc<dyn Resolver>,
    mut timing: Timing,
    warnings: Arc<Warnings>,
) -> Result<Client, ExportError> {
    let endpoint = match config.protocol {
        Protocol::Grpc => Endpoint::grpc(&config.endpoint, config.tls.insecure)?,
        Protocol::Http => Endpoint::http(&config.endpoint)?,
    };
    if let Some(interval) = config.tls.reload_interval {
        timing.connection_age_max = timing.connection_age_max.min(interval);
    }
    let token = match &config.auth {
        Some(auth) => Some(Token::load(auth, timing.clone())?),
        None => None,
    };
    let connector = Connector::new(config, &endpoint, timing.clone())?;
    let dialled = Dialled::new(&endpoint, config.proxy.as_ref());
    let pool = Arc::new(Pool::new(dialled, connector, resolver, timing, warnings));
    Client::new(config, &endpoint, pool, token, metrics)
}

/// Says which proxy requests go through: the environment may hold it unknown to whoever wrote the
/// configuration.
fn say_proxy(config: &ExporterConfig) {
    if let Some(proxy) = &config.proxy {
        let (exporter, proxy) = (&config.id, proxy.authority());
        tracing::info!(exporter, proxy, "the sink is reached through a proxy");
    }
}

/// Says what is sent to whom without protection, and which keys have no effect.
fn warn_of_risks(config: &ExporterConfig, endpoint: &Endpoint) {
    if endpoint.tls {
        if config.tls.insecure_skip_verify {
            tracing::warn!(
                "tls.insecure_skip_verify: whoever answers at the endpoint is taken for the sink, \
                 and gets logs and credentials"
            );
        }
        return;
    }
    let exporter = &config.id;
    if config.auth.is_some() || !config.headers.is_empty() {
        tracing::warn!(exporter, "headers and tokens are sent without TLS");
    }
    let tls = &config.tls;
    if tls.authorities.is_some() || tls.identity.is_some() || tls.insecure_skip_verify {
        tracing::warn!(exporter, "the endpoint is without TLS: other keys of `tls` have no effect");
    }
}

/// One consumer: a request after the other, until no more can come.
async fn consume<S: Sink>(
    slots: Slots,
    requests: Arc<Mutex<mpsc::Receiver<Request>>>,
    delivery: Arc<Delivery<S>>,
) {
    loop {
        let mut slot = slots.take().await;
        // The lock is free while a request is delivered: `let` ends the statement.
        let request = requests.lock().await.recv().await;
        let Some(request) = request else { return };
        let reply = request.reply.clone();
        let settled = supervise::deliver(&delivery, request, &mut slot).await;
        crate::failpoint::hit("request_ended");
        // A worker that is gone has nothing to account for any more.
        reply.send(Settlement::Ended(settled)).ok();
        crate::failpoint::hit("settlement_sent");
    }
}
