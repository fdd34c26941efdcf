//! The way through a proxy of HTTP: a tunnel by CONNECT, or the proxy's own connection where it
//! forwards plain requests. hyper does the talking; its `Tunnel` connector would hide what a proxy
//! answers.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{HOST, PROXY_AUTHORIZATION},
};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{ExportError, tls::Trust};
use crate::config::{Protocol, ProxyConfig, TlsConfig};

/// Bytes of a proxy's answer to CONNECT.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A stream of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no way through the proxy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("no way through it within the time limit")]
    TimedOut,
    #[error("no connection to it")]
    Tcp(#[source] std::io::Error),
    #[error("TLS")]
    Tls(#[source] std::io::Error),
    #[error("HTTP")]
    Http(#[from] hyper::Error),
    #[error("it wants credentials, or other ones (HTTP 407)")]
    Credentials,
    #[error("it does not connect to {target} (HTTP {status})")]
    Refused { target: String, status: StatusCode },
}

/// A proxy that connections go through.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Whom to trust and the name to find, where TLS is spoken with the proxy itself.
    tls: Option<(Trust, ServerName<'static>)>,
    credentials: Option<HeaderValue>,
    /// `host:port`.
    authority: String,
}

impl Proxy {
    /// # Errors
    /// When the authorities can't be read, or the proxy's name can't stand in a certificate.
    pub(crate) fn new(config: &ProxyConfig, tls: &TlsConfig) -> Result<Self, ExportError> {
        let authority = config.authority();
        let tls = if config.tls {
            let name = ServerName::try_from(config.host.clone()).map_err(|_| {
                let reason = "its host is neither a DNS name nor an address";
                ExportError::Proxy { proxy: authority.clone(), reason }
            })?;
            // As in Go, the sink's authorities and certificates are those for the proxy.
            Some((Trust::load(tls, Protocol::Http)?, name))
        } else {
            None
        };
        Ok(Self { tls, credentials: credentials(config)?, authority })
    }

    /// `host:port`, for messages.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The connection to the proxy itself.
    ///
    /// # Errors
    /// When TLS can't be established.
    pub(crate) async fn greet(
        &self,
        io: impl Stream + 'static,
    ) -> Result<Box<dyn Stream>, ProxyError> {
        let Some((trust, name)) = &self.tls else { return Ok(Box::new(io)) };
        let tls = TlsConnector::from(trust.client_config().await);
        Ok(Box::new(tls.connect(name.clone(), io).await.map_err(ProxyError::Tls)?))
    }

    /// A stream to `target`, `host:port`, through the proxy at the other end of `io`.
    ///
    /// # Errors
    /// When the proxy refuses, or its answer is none.
    pub(crate) async fn tunnel(
        &self,
        io: Box<dyn Stream>,
        target: &str,
    ) -> Result<Box<dyn Stream>, ProxyError> {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(ANSWER_BYTES_MAX)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(io))
            .await?;
        // It ends with the tunnel; its failures are the tunnel's.
        tokio::spawn(async move { connection.with_upgrades().await.ok() });
        let response = sender.send_request(self.request(target)).await?;
        match response.status() {
            status if status.is_success() => {
                Ok(Box::new(TokioIo::new(hyper::upgrade::on(response).await?)))
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(ProxyError::Credentials),
            status => Err(ProxyError::Refused { target: target.to_owned(), status }),
        }
    }

    fn request(&self, target: &str) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        // Endpoints were read as authorities: both are the forms of one.
        *request.uri_mut() = target.parse::<Uri>().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(target) {
            headers.insert(HOST, host);
        }
        if let Some(credentials) = &self.credentials {
            headers.insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        request
    }
}

/// The value of `Proxy-Authorization`, marked as sensitive.
pub(crate) fn credentials(config: &ProxyConfig) -> Result<Option<HeaderValue>, ExportError> {
    let Some(secret) = &config.credentials else { return Ok(None) };
    let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| ExportError::Proxy {
        proxy: config.authority(),
        reason: "a header can't hold its credentials",
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// `host:port` of a target, as CONNECT names it.
pub(crate) fn target(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
