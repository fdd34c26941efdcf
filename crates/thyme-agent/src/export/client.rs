//! One attempt to send over the network: takes a connection, writes the request, reads the answer
//! and reports to the pool how its address did. Whether there is another attempt is not decided
//! here, but for connections that were dead before the request was on them.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use super::{
    ExportError,
    answer::{self, Answer},
    bisect::Part,
    chance,
    connect::proxy_forwards,
    delivery::Sink,
    endpoint::Endpoint,
    grpc, http as otlp_http,
    limits::CONNECTIONS_PER_ATTEMPT_MAX,
    message::{Departure, Message, MessageBody},
    outcome::{Cause, Outcome, Quote},
    pool::{Lease, Pool},
    proxy,
    token::{Current, Token},
};
use crate::{
    config::{ExporterConfig, Protocol, Secret},
    metrics::Metrics,
    worker::monotonic_ms,
};

/// Sends to one sink.
pub(super) struct Client {
    pool: Arc<Pool>,
    endpoint: Endpoint,
    protocol: Protocol,
    uses_tls: bool,
    uri: Uri,
    /// What every request has; values of the configuration's headers are marked as sensitive.
    headers: HeaderMap,
    /// What every request has beside them, and what may change.
    token: Option<Token>,
    /// Time limit from the first byte of a message that leaves to the last one read.
    timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Client {
    /// # Errors
    /// When a header of the configuration can't be sent.
    pub(super) fn new(
        config: &ExporterConfig,
        endpoint: &Endpoint,
        pool: Arc<Pool>,
        token: Option<Token>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ExportError> {
        let refuse = |reason| ExportError::Endpoint { endpoint: config.endpoint.clone(), reason };
        let uri = match config.protocol {
            Protocol::Grpc => {
                let scheme = if endpoint.tls { "https" } else { "http" };
                format!("{scheme}://{}{}", endpoint.authority, endpoint.path)
            }
            // A proxy that passes requests on is told where to.
            Protocol::Http if proxy_forwards(config, endpoint) => {
                format!("http://{}{}", endpoint.authority, endpoint.path)
            }
            Protocol::Http => endpoint.path.clone(),
        };
        let uri = uri.parse().map_err(|_| refuse("it is no part of a URI"))?;
        let headers = request_headers(config, endpoint)?;
        let (timeout, protocol, uses_tls) = (config.timeout, config.protocol, endpoint.tls);
        let endpoint = endpoint.clone();
        Ok(Self { pool, endpoint, protocol, uses_tls, uri, headers, token, timeout, metrics })
    }

    /// Where requests go.
    pub(super) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn request(
        &self,
        part: &Part,
        token: Option<&Current>,
        departure: &Arc<Departure>,
    ) -> Request<MessageBody> {
        let departure = Arc::clone(departure);
        let chunks = part.body.iter().cloned();
        let (message, encoding) = match self.protocol {
            Protocol::Grpc => {
                let prefix = grpc::prefix(part.compression, part.body_bytes);
                let message = Message::new(std::iter::once(prefix).chain(chunks), departure);
                (message, grpc::encoding(part.compression))
            }
            Protocol::Http => {
                (Message::new(chunks, departure), otlp_http::encoding(part.compression))
            }
        };
        let mut request = Request::new(MessageBody(Some(message)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let (Some(token), Some(current)) = (&self.token, token) {
            request.headers_mut().insert(token.name(), HeaderValue::clone(&current.value));
        }
        if let Some((name, value)) = encoding {
            let name = HeaderName::from_static(name);
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        request
    }

    /// Sends over one connection. The answer is whole unless the flag says that it was cut.
    async fn exchange(
        &self,
        lease: &mut Lease,
        part: &Part,
        token: Option<&Current>,
    ) -> Result<(Answer, bool), (Cause, Quote)> {
        let _in_flight = InFlight::new(&self.metrics);
        self.metrics.sent_bytes.add(part.body_bytes as u64);
        crate::failpoint::hit("request_before_send");
        let departure = Arc::new(Departure::new(Arc::clone(lease.signs())));
        let request = self.request(part, token, &departure);
        let result = {
            let exchange =
                async { answer::read(lease.sender.send(request).await?, self.protocol).await };
            self.within_limit(exchange, &departure).await
        };
        match result {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(self.broken(lease, &error)),
            None => {
                let said = format!("{}: no answer in {:?}", lease.address(), self.timeout);
                Err((Cause::TimedOut, Quote::new(said.as_bytes())))
            }
        }
    }

    /// The result of an exchange, or nothing when it took too long.
    async fn within_limit<T>(
        &self,
        exchange: impl Future<Output = T>,
        departure: &Departure,
    ) -> Option<T> {
        let mut exchange = pin!(exchange);
        let mut left = self.timeout;
        while !left.is_zero() {
            if let Ok(result) = tokio::time::timeout(left, exchange.as_mut()).await {
                return Some(result);
            }
            // Its message may have waited for others on the same connection.
            left = departure.time_left(self.timeout);
        }
        None
    }

    /// What a connection that broke says. With TLS 1.3 a sink looks at the client's certificate when
    /// the client takes the handshake for done: if it refuses it, the first request breaks. That
    /// must not be held against the request, which would be given up where one of several sinks
    /// behind an address has not got the new authorities yet.
    fn broken(&self, lease: &Lease, error: &hyper::Error) -> (Cause, Quote) {
        let said = Quote::of_error(error);
        if let Some(unexpected) = lease.unexpected(self.protocol) {
            let said = format!("{}: {unexpected} ({said})", lease.address());
            return (Cause::Misdirected, Quote::new(said.as_bytes()));
        }
        if !self.uses_tls || lease.has_served() {
            return (Cause::Broken, said);
        }
        let said =
            format!("broken before any answer, perhaps for the want of a certificate: {said}");
        (Cause::Unreachable, Quote::new(said.as_bytes()))
    }

    fn outcome(&self, answer: &Answer) -> Outcome {
        match self.protocol {
            Protocol::Grpc => grpc::outcome(answer),
            Protocol::Http => otlp_http::outcome(answer),
        }
    }

    /// Settles with the pool what a failed exchange says about its connection and address; whether
    /// the request may go out again at once.
    fn blame(&self, lease: &Lease, cause: Cause, begun: Instant) -> bool {
        if cause == Cause::TimedOut {
            // While others are answered, the connection is alive.
            if !lease.signs().has_served_since(begun) {
                self.pool.failed(lease);
            }
            // It may be too large for any connection: that is for `delivery` to see.
            return false;
        }
        if cause == Cause::Broken && lease.has_served() {
            // Sinks and proxies close connections at any time; a new one will do.
            self.pool.discard(lease);
            return true;
        }
        self.pool.failed(lease);
        self.pool.has_other_than(lease.address())
    }

    /// An attempt with the token that is in force. If the sink refuses it, and there is another
    /// one by now, that one is tried at once.
    async fn attempt_with_token(&self, part: &Part) -> Outcome {
        let Some(token) = &self.token else {
            return self.attempt_over_connections(part, None).await;
        };
        let current = token.current().await;
        let outcome = self.attempt_over_connections(part, Some(&current)).await;
        let is_denied =
            matches!(&outcome, Outcome::Failed(failure) if failure.cause == Cause::Denied);
        if !is_denied || !token.has_changed_since(&current).await {
            return outcome;
        }
        self.metrics.send_retries.increment();
        self.attempt_over_connections(part, Some(&token.current().await)).await
    }

    async fn attempt_over_connections(&self, part: &Part, token: Option<&Current>) -> Outcome {
        let mut connections = 0;
        loop {
            connections += 1;
            self.metrics.send_attempts.increment();
            let mut lease = match self.pool.lease().await {
                Ok(lease) => lease,
                Err(error) => return Outcome::failed(Cause::Unreachable, Quote::of_error(&error)),
            };
            let begun = Instant::now();
            let (cause, said) = match self.exchange(&mut lease, part, token).await {
                Ok((answer, is_whole)) => {
                    let outcome = self.outcome(&answer);
                    let took_it = !matches!(outcome, Outcome::Failed(_));
                    if !is_whole {
                        self.pool.discard(&lease);
                    }
                    self.pool.answered(lease, took_it);
                    return outcome;
                }
                Err(failure) => failure,
            };
            let may_go_on = self.blame(&lease, cause, begun);
            if !may_go_on || connections >= CONNECTIONS_PER_ATTEMPT_MAX {
                return Outcome::failed(cause, said);
            }
            tracing::debug!(cause = cause.as_str(), %said, "trying another connection");
            self.metrics.send_retries.increment();
        }
    }
}

impl Sink for Client {
    async fn attempt(&self, part: &Part) -> Outcome {
        let outcome = self.attempt_with_token(part).await;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since_epoch.unwrap_or_default().as_millis();
        self.metrics.last_attempt_unix_ms.set(u64::try_from(millis).unwrap_or(u64::MAX));
        self.metrics.last_attempt_ms.set(monotonic_ms());
        outcome
    }

    async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }

    async fn reachable_again(&self) {
        self.pool.up_again().await;
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn chance(&self) -> f64 {
        chance::share()
    }
}

fn request_headers(config: &ExporterConfig, endpoint: &Endpoint) -> Result<HeaderMap, ExportError> {
    let mut headers = match config.protocol {
        Protocol::Grpc => grpc::headers(config.timeout),
        Protocol::Http => otlp_http::headers(),
    };
    let user_agent = concat!("thyme-agent/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(user_agent));
    if config.protocol == Protocol::Http {
        let host = HeaderValue::try_from(&endpoint.authority).map_err(|_| {
            let reason = "its host can't stand in a header";
            ExportError::Endpoint { endpoint: config.endpoint.clone(), reason }
        })?;
        headers.insert(header::HOST, host);
    }
    if let Some(proxy) = config.proxy.as_ref().filter(|_| proxy_forwards(config, endpoint))
        && let Some(credentials) = proxy::credentials(proxy)?
    {
        headers.insert(header::PROXY_AUTHORIZATION, credentials);
    }
    for (name, value) in &config.headers {
        let header = configured_header(config.protocol, name, value);
        let (parsed, value) = header.map_err(|fault| {
            let (HeaderFault::Name(reason) | HeaderFault::Value(reason)) = fault;
            ExportError::Header { name: name.clone(), reason }
        })?;
        headers.insert(parsed, value);
    }
    Ok(headers)
}

/// Why a header of the configuration can't be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeaderFault {
    /// Its name.
    Name(&'static str),
    /// Its value, perhaps a secret.
    Value(&'static str),
}

/// A header of the configuration as it is sent; its value is marked as sensitive.
pub(crate) fn configured_header(
    protocol: Protocol,
    name: &str,
    value: &Secret,
) -> Result<(HeaderName, HeaderValue), HeaderFault> {
    let parsed: HeaderName =
        name.parse().map_err(|_| HeaderFault::Name("can't be the name of a header"))?;
    if is_ours(&parsed) {
        return Err(HeaderFault::Name("is set by the exporter itself"));
    }
    if protocol == Protocol::Grpc && parsed.as_str().ends_with("-bin") {
        return Err(HeaderFault::Name("is binary metadata, which is not supported"));
    }
    let mut value = HeaderValue::try_from(value.expose()).map_err(|_| {
        HeaderFault::Value(
            "a header can't hold this value: expected text without control characters",
        )
    })?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// Headers that describe the message or the connection, which a configuration can't know.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 8] = [
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::EXPECT,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    // HTTP/2 knows these no more than `connection`.
    const OF_HTTP_1: [&str; 2] = ["keep-alive", "proxy-connection"];
    let text = name.as_str();
    OURS.contains(name) || OF_HTTP_1.contains(&text) || text.starts_with("grpc-")
}

/// Counts a request as in flight while it lives.
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.in_flight_requests.add_gauge(1);
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight_requests.add_gauge(-1);
    }
}
