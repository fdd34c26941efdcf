//! Fetches what `merge` needs: reports over HTTP, manifests over HTTP or from files. Plain `http`
//! only: the admin ports speak nothing else.

use std::io;

use bytes::Bytes;
use http::uri::{InvalidUri, Uri};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::limits::{FETCH_TIMEOUT, REPORT_BYTES_MAX};

/// Why something can't be fetched.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {cause}")]
pub struct FetchError {
    /// The URL or file.
    pub place: String,
    /// What is wrong.
    pub cause: FetchCause,
}

/// What can be wrong with fetching.
#[derive(Debug, thiserror::Error)]
pub enum FetchCause {
    /// It isn't a URL.
    #[error(transparent)]
    Url(#[from] InvalidUri),
    /// It isn't an `http` URL with a host.
    #[error("not a URL of the form http://HOST[:PORT]/...")]
    Scheme,
    /// The connection or the file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// HTTP failed.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The server answered with an error.
    #[error("the server answers {0}")]
    Status(StatusCode),
    /// The answer is broken off or too large.
    #[error("the answer: {0}")]
    Body(String),
    /// It took too long.
    #[error("no answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
}

/// Fetches a replica's detailed report; `url` is that of its admin port.
///
/// # Errors
/// Names the URL.
pub async fn report(url: &str) -> Result<Bytes, FetchError> {
    get(url, "/report?intervals=1").await
}

/// Reads a manifest from a generator's admin port (a URL) or from a file.
///
/// # Errors
/// Names the URL or the file.
pub async fn manifest(place: &str) -> Result<Bytes, FetchError> {
    if place.contains("://") {
        return get(place, "/manifest").await;
    }
    let read = std::fs::read(place);
    read.map(Bytes::from)
        .map_err(|cause| FetchError { place: place.to_owned(), cause: cause.into() })
}

/// `default_path` stands in for a path that the URL doesn't have.
async fn get(url: &str, default_path: &str) -> Result<Bytes, FetchError> {
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, try_get(url, default_path)).await;
    fetched
        .unwrap_or(Err(FetchCause::Timeout))
        .map_err(|cause| FetchError { place: url.to_owned(), cause })
}

async fn try_get(url: &str, default_path: &str) -> Result<Bytes, FetchCause> {
    let uri: Uri = url.parse()?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(FetchCause::Scheme);
    };
    let path = match uri.path_and_query().map(|path| path.as_str()) {
        None | Some("" | "/") => default_path,
        Some(path) => path,
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Its errors come out of the request as well.
    let driver = tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse()?;
    let host = HeaderValue::try_from(authority.as_str()).map_err(|_| FetchCause::Scheme)?;
    request.headers_mut().insert(http::header::HOST, host);
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchCause::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), REPORT_BYTES_MAX).collect().await;
    let body = body.map_err(|error| FetchCause::Body(error.to_string()))?;
    driver.abort();
    Ok(body.to_bytes())
}
