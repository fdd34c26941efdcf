//! Opens connections: name to addresses, address to TCP, TLS and HTTP. Which address, and when, is
//! decided elsewhere.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    ExportError,
    endpoint::Endpoint,
    first_bytes::{FirstBytes, Noted},
    keepalive::Keepalive,
    limits::{
        TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_PROBES_MAX, Timing,
        UNSENT_BYTES_MAX,
    },
    message::MessageBody,
    proxy::{self, Proxy, ProxyError},
    tls::Trust,
};
use crate::config::{ExporterConfig, Protocol, ProxyConfig};

/// Answers which addresses a name has now. The system's resolver does it in production; tests
/// bring their own.
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of `host`, each with `port`, in any order.
    ///
    /// # Errors
    /// Where the name can't be resolved now; the addresses known before stay in use.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a>;
}

/// A resolution under way.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("can't resolve {host}")]
    Resolve { host: String, source: io::Error },
    #[error("{address}: no connection within the time limit")]
    TimedOut { address: SocketAddr },
    #[error("{address}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("{address}: TLS")]
    Tls { address: SocketAddr, source: io::Error },
    #[error("{address}: HTTP")]
    Http { address: SocketAddr, source: hyper::Error },
    #[error("{address}: {said}")]
    Foreign { address: SocketAddr, said: String },
    #[error("the proxy {proxy}")]
    Proxy { proxy: String, source: ProxyError },
    #[error("{address}: closed as soon as it was open")]
    Closed { address: SocketAddr },
}

/// The sending end of a connection. hyper drives the connection in a task of its own, which ends
/// when all its senders are dropped and its requests are answered.
#[derive(Debug)]
pub(super) enum Sender {
    /// One request at a time.
    Http1(http1::SendRequest<MessageBody>),
    /// Shared by all.
    Http2(http2::SendRequest<MessageBody>),
}

impl Sender {
    /// Whether the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Waits until a request can be sent.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// When the connection breaks, or the peer resets the stream.
    pub(super) async fn send(
        &mut self,
        request: Request<MessageBody>,
    ) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

/// Whose addresses are connected to: the sink's, or those of the proxy before it.
#[derive(Clone, Debug)]
pub(super) struct Dialled {
    host: String,
    port: u16,
    /// For messages.
    pub(super) name: String,
}

impl Dialled {
    pub(super) fn new(endpoint: &Endpoint, proxy: Option<&ProxyConfig>) -> Self {
        match proxy {
            Some(proxy) => Self {
                host: proxy.host.clone(),
                port: proxy.port,
                name: format!("the proxy {:?}", proxy.host),
            },
            None => Self {
                host: endpoint.host.clone(),
                port: endpoint.port,
                name: format!("{:?}", endpoint.host),
            },
        }
    }
}

/// A new connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) sender: Sender,
    /// What the peer began with.
    pub(super) first: Arc<FirstBytes>,
}

/// Opens connections to addresses of one endpoint, or of the proxy before it.
#[derive(Debug)]
pub(super) struct Connector {
    protocol: Protocol,
    /// What lies between, and the target that it is told; without a target it forwards what is plain.
    proxy: Option<(Proxy, Option<String>)>,
    /// Whom to trust, and the name to find in the certificate; `None` is plain text.
    tls: Option<(Trust, ServerName<'static>)>,
    keepalive: Arc<Keepalive>,
    timing: Timing,
}

impl Connector {
    /// # Errors
    /// When the authorities can't be read or the host can't stand in a certificate.
    pub(super) fn new(
        config: &ExporterConfig,
        endpoint: &Endpoint,
        timing: Timing,
    ) -> Result<Self, ExportError> {
        let ExporterConfig { protocol, tls, proxy, .. } = config;
        let protocol = *protocol;
        let proxy = match proxy {
            Some(proxy) => {
                let forwards = proxy_forwards(config, endpoint);
                let target = (!forwards).then(|| proxy::target(&endpoint.host, endpoint.port));
                Some((Proxy::new(proxy, tls)?, target))
            }
            None => None,
        };
        let tls = if endpoint.tls {
            let name = tls.server_name_override.clone().unwrap_or_else(|| endpoint.host.clone());
            let name = ServerName::try_from(name).map_err(|_| {
                let reason = "its host is neither a DNS name nor an address";
                ExportError::Endpoint { endpoint: endpoint.authority.clone(), reason }
            })?;
            Some((Trust::load(tls, protocol)?, name))
        } else {
            None
        };
        let keepalive = Arc::new(Keepalive::new(timing.keepalive_interval));
        Ok(Self { protocol, proxy, tls, keepalive, timing })
    }

    /// Whether all consumers share one connection to an address (HTTP/2), or each needs its own.
    pub(super) fn shares_connections(&self) -> bool {
        self.protocol == Protocol::Grpc
    }

    /// Connects, within the time limit.
    ///
    /// # Errors
    /// When TCP, TLS or HTTP/2 can't be established in time.
    pub(super) async fn open(&self, address: SocketAddr) -> Result<Opened, ConnectError> {
        tokio::time::timeout(self.timing.connect_timeout, self.open_without_limit(address))
            .await
            .unwrap_or_else(|_| Err(self.too_late(address)))
    }

    fn too_late(&self, address: SocketAddr) -> ConnectError {
        match &self.proxy {
            Some((proxy, _)) => through(proxy)(ProxyError::TimedOut),
            None => ConnectError::TimedOut { address },
        }
    }

    async fn open_without_limit(&self, address: SocketAddr) -> Result<Opened, ConnectError> {
        let tcp = TcpStream::connect(address).await;
        let tcp = tcp.and_then(|tcp| set_options(&tcp).map(|()| tcp));
        let Some((proxy, target)) = &self.proxy else {
            let tcp = tcp.map_err(|source| ConnectError::Tcp { address, source })?;
            return self.secure(tcp, address).await;
        };
        let proxy_failed = through(proxy);
        let tcp = tcp.map_err(ProxyError::Tcp).map_err(&proxy_failed)?;
        let stream = proxy.greet(tcp).await.map_err(&proxy_failed)?;
        let stream = match target {
            Some(target) => proxy.tunnel(stream, target).await.map_err(proxy_failed)?,
            None => stream,
        };
        self.secure(stream, address).await
    }

    /// TLS, where it is spoken, and HTTP.
    async fn secure<Io>(&self, io: Io, address: SocketAddr) -> Result<Opened, ConnectError>
    where
        Io: proxy::Stream + 'static,
    {
        let http_failed = |source| ConnectError::Http { address, source };
        let (io, first) = Noted::new(io);
        let Some((trust, name)) = &self.tls else {
            let sender = self.handshake(io).await.map_err(http_failed)?;
            return Ok(Opened { sender, first });
        };
        let tls = TlsConnector::from(trust.client_config().await);
        let stream = tls.connect(name.clone(), io).await.map_err(|source| {
            let foreign = |said| ConnectError::Foreign { address, said };
            first.lacks_tls().map_or(ConnectError::Tls { address, source }, foreign)
        })?;
        let (stream, first) = Noted::new(stream);
        let sender = self.handshake(stream).await.map_err(http_failed)?;
        Ok(Opened { sender, first })
    }

    async fn handshake<Io>(&self, io: Io) -> hyper::Result<Sender>
    where
        Io: proxy::Stream + 'static,
    {
        let io = TokioIo::new(io);
        match self.protocol {
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await?;
                drive(connection, |_| {});
                Ok(Sender::Http1(sender))
            }
            Protocol::Grpc => {
                let (keepalive, interval) = (&self.keepalive, self.keepalive.interval());
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    // Idle connections are not pinged: servers take that for an attack (gRPC A8).
                    .keep_alive_while_idle(false)
                    .keep_alive_interval(interval)
                    .keep_alive_timeout(self.timing.keepalive_timeout)
                    .handshake(io)
                    .await?;
                let keepalive = Arc::clone(keepalive);
                drive(connection, move |error| keepalive.ended(interval, error));
                Ok(Sender::Http2(sender))
            }
        }
    }
}

/// What failed on the way through a proxy.
fn through(proxy: &Proxy) -> impl Fn(ProxyError) -> ConnectError {
    |source| ConnectError::Proxy { proxy: proxy.authority().to_owned(), source }
}

/// Sets what holds for every connection.
fn set_options(tcp: &TcpStream) -> io::Result<()> {
    // Requests are written whole: waiting for more would only delay their ends.
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    // What waits in the kernel can't be taken back, when its request has timed out or others are
    // more urgent: over a thin link that may be many seconds' worth.
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    // A peer that is gone is noticed while an answer is waited for, without HTTP/2's pings.
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE_IDLE)
        .with_interval(TCP_KEEPALIVE_INTERVAL)
        .with_retries(TCP_KEEPALIVE_PROBES_MAX);
    socket.set_tcp_keepalive(&keepalive)
}

/// Whether requests are sent to the proxy itself, which passes them on: over plain HTTP. All else
/// goes through a tunnel, plain gRPC too, as grpc-go has it.
pub(super) fn proxy_forwards(config: &ExporterConfig, endpoint: &Endpoint) -> bool {
    config.proxy.is_some() && config.protocol == Protocol::Http && !endpoint.tls
}

/// Runs a connection until it ends. Requests on it hear of its failure themselves.
fn drive(
    connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
    failed: impl FnOnce(&hyper::Error) + Send + 'static,
) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            failed(&error);
            tracing::debug!(%error, "a connection to the sink ended");
        }
    });
}

/// Resolves with a time limit and without duplicates, in a stable order.
///
/// # Errors
/// When the name can't be resolved in time or has no address.
pub(super) async fn resolve(
    resolver: &Arc<dyn Resolver>,
    dialled: &Dialled,
    timing: &Timing,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let host = || dialled.name.clone();
    let resolving = resolver.resolve(&dialled.host, dialled.port);
    let mut addresses = match tokio::time::timeout(timing.resolve_timeout, resolving).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(source)) => return Err(ConnectError::Resolve { host: host(), source }),
        Err(_) => {
            let source = io::ErrorKind::TimedOut.into();
            return Err(ConnectError::Resolve { host: host(), source });
        }
    };
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(ConnectError::NoAddress { host: host() });
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: rows 53 and 54. A connection to a sink over a thin link, or to one that is gone.
    /// Guarantees: little of a request waits in the kernel, where nothing can take it back; TCP asks
    /// whether the peer is there, in place of frequent pings.
    #[tokio::test]
    async fn a_connection_holds_little_back_and_asks_for_its_peer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        set_options(&tcp).unwrap();
        let socket = SockRef::from(&tcp);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
        assert!(socket.keepalive().unwrap() && tcp.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), TCP_KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), TCP_KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), TCP_KEEPALIVE_PROBES_MAX);
    }
}
