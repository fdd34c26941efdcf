//! The HTTP client of the OTLP/HTTP reader: one request, one connection, on the agent's runtime.
//!
//! An export a minute needs no pool. Log records never go this way.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, Uri,
    header::{HOST, PROXY_AUTHORIZATION},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
};
use tokio_rustls::TlsConnector;

use super::TelemetryError;
use crate::{
    config::{OtlpReaderConfig, ProxyConfig, TlsConfig},
    export::{
        Resolver, SystemResolver,
        proxy::{self, Proxy, Stream},
    },
};

/// Longest answer that is read: it says only how many data points were refused.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Sends the reader's requests.
#[derive(Clone)]
pub(super) struct Client {
    runtime: Handle,
    timeout: Duration,
    resolver: SystemResolver,
    /// What HTTPS needs; `None` for plain HTTP.
    tls: Option<TlsConnector>,
    /// What lies between.
    proxy: Option<Arc<(Proxy, ProxyConfig)>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// For requests to the reader's endpoint, which work on `runtime`.
    ///
    /// # Errors
    /// HTTPS, and the system has no authorities to trust.
    pub(super) fn new(config: &OtlpReaderConfig, runtime: &Handle) -> Result<Self, TelemetryError> {
        let tls = config.endpoint.starts_with("https://").then(trusting_the_system).transpose();
        let tls = tls.map_err(|source| TelemetryError::Authorities {
            endpoint: config.endpoint.clone(),
            source,
        })?;
        let proxy = match &config.proxy {
            Some(proxy) => {
                let made = Proxy::new(proxy, &TlsConfig::default());
                Some(Arc::new((made.map_err(TelemetryError::Proxy)?, proxy.clone())))
            }
            None => None,
        };
        let resolver = SystemResolver::default();
        Ok(Self { runtime: runtime.clone(), timeout: config.timeout, resolver, tls, proxy })
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.resolver.resolve(host, port).await?;
        TcpStream::connect(&addresses[..]).await
    }

    async fn send(self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let host = request.uri().host().ok_or("the endpoint has no host")?.to_owned();
        let default_port = if self.tls.is_some() { 443 } else { 80 };
        let port = request.uri().port_u16().unwrap_or(default_port);
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream: Box<dyn Stream> = match self.proxy.as_deref() {
            None => Box::new(self.connect(&bare, port).await?),
            Some((proxy, config)) => {
                let tcp = self.connect(&config.host, config.port).await?;
                let stream = proxy.greet(tcp).await?;
                if self.tls.is_none() {
                    if let Some(credentials) = proxy::credentials(config)? {
                        request.headers_mut().insert(PROXY_AUTHORIZATION, credentials);
                    }
                    let host = authority(&request)?;
                    request.headers_mut().insert(HOST, host);
                    return exchange(stream, request.map(Full::new)).await;
                }
                proxy.tunnel(stream, &proxy::target(&bare, port)).await?
            }
        };
        let request = in_origin_form(request)?;
        match self.tls {
            None => exchange(stream, request).await,
            Some(tls) => {
                exchange(tls.connect(ServerName::try_from(bare)?, stream).await?, request).await
            }
        }
    }
}

impl HttpClient for Client {
    // Written out as the trait's `async_trait` does, to do without that macro.
    fn send_bytes<'this, 'out>(
        &'this self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'out>>
    where
        'this: 'out,
        Self: 'out,
    {
        let (client, timeout) = (self.clone(), self.timeout);
        // The caller is a thread without a reactor: even the timer has to be made over there.
        let sending = self
            .runtime
            .spawn(async move { tokio::time::timeout(timeout, client.send(request)).await });
        Box::pin(async move { sending.await?? })
    }
}

fn trusting_the_system() -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(io::Error::other("the system has no certificates of authorities"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, HttpError> {
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
    driver.abort();
    Ok(Response::from_parts(head, body))
}

/// The request as a server wants it: the path alone, the authority as a header.
fn in_origin_form(request: Request<Bytes>) -> Result<Request<Full<Bytes>>, HttpError> {
    let mut request = request.map(Full::new);
    let host = authority(&request)?;
    request.headers_mut().insert(HOST, host);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>()?;
    Ok(request)
}

fn authority<T>(request: &Request<T>) -> Result<HeaderValue, HttpError> {
    let authority = request.uri().authority().ok_or("the endpoint has no host")?;
    Ok(HeaderValue::from_str(authority.as_str())?)
}
