//! Serves one accepted connection until its client, the script of faults or the port ends it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::header::HOST;
use http::uri::Authority;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use crate::intake::{Answer, Intake, Treatment};
use crate::limits::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, HTTP1_HEAD_BYTES_MAX, HTTP1_HEADERS_MAX,
    HTTP2_HEADER_LIST_BYTES_MAX, PortLimits, SHUTDOWN_TIMEOUT, STREAM_WINDOW_BYTES,
    STREAMS_PER_CONNECTION_MAX,
};
use crate::listen::{Phase, Role};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::{admin, body, grpc, http as otlp_http};

/// What requests do to the connection that they came on.
#[derive(Debug)]
pub(crate) struct Connection {
    close: Notify,
    activity: Mutex<Activity>,
}

#[derive(Debug)]
struct Activity {
    /// Requests that are not answered yet.
    under_way: usize,
    /// When the last one ended, or the connection began.
    last: Instant,
}

impl Connection {
    fn new() -> Self {
        let activity = Activity { under_way: 0, last: Instant::now() };
        Self { close: Notify::new(), activity: Mutex::new(activity) }
    }

    /// Counts a request as under way until the guard is dropped.
    fn begin(&self) -> UnderWay<'_> {
        self.activity().under_way += 1;
        UnderWay(self)
    }

    /// Waits until no request was under way for that long.
    async fn idle(&self, timeout: Duration) {
        loop {
            let left = {
                let activity = self.activity();
                let passed =
                    if activity.under_way > 0 { Duration::ZERO } else { activity.last.elapsed() };
                timeout.saturating_sub(passed)
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().expect("nothing panics while the activity is locked")
    }

    /// Does what is to be done with a request; returns only if it is to be answered.
    pub(crate) async fn treat(&self, treatment: Treatment) -> Answer {
        match treatment {
            Treatment::Answer(answer) => answer,
            Treatment::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Answer::Success { rejected: 0 }
            }
            Treatment::Disconnect => {
                self.close.notify_one();
                std::future::pending().await
            }
            // Until the client gives up: the server then drops this future.
            Treatment::Stall => std::future::pending().await,
        }
    }
}

/// A request that is not answered yet.
struct UnderWay<'c>(&'c Connection);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut activity = self.0.activity();
        activity.under_way -= 1;
        activity.last = Instant::now();
    }
}

/// Speaks HTTP on a connection. Returns when it is over, however it ended.
pub(crate) async fn serve<I>(
    io: I,
    role: Role,
    limits: PortLimits,
    intake: Arc<Intake>,
    mut phase: watch::Receiver<Phase>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(Connection::new());
    let service = {
        let connection = Arc::clone(&connection);
        service_fn(move |request| {
            let (intake, connection) = (Arc::clone(&intake), Arc::clone(&connection));
            async move {
                let _under_way = connection.begin();
                Ok::<_, Infallible>(answer(role, &intake, &connection, request).await)
            }
        })
    };
    let builder = http_builder(role, limits.header_timeout);
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service));
    let idle = tokio::select! {
        // An error here is the client's: it broke off, or doesn't speak HTTP.
        _ = http.as_mut() => return,
        () = connection.close.notified() => return,
        () = connection.idle(limits.idle_timeout) => true,
        // The port is closing, or gone without a word.
        _ = phase.changed() => false,
    };
    if idle || *phase.borrow() == Phase::Draining {
        http.as_mut().graceful_shutdown();
        tokio::select! {
            _ = http.as_mut() => {}
            () = connection.close.notified() => {}
            () = tokio::time::sleep(SHUTDOWN_TIMEOUT) => {}
        }
    }
}

async fn answer(
    role: Role,
    intake: &Intake,
    connection: &Connection,
    mut request: Request<Incoming>,
) -> Response<Reply> {
    if !names_its_host(&request) {
        if role != Role::Admin {
            intake.refuse(&Refusal::Host);
        }
        body::discard(request.body_mut()).await;
        return admin::text(Refusal::Host.http_status(), &Refusal::Host.to_string());
    }
    match role {
        Role::Grpc => grpc::serve(intake, connection, request).await,
        Role::Http => otlp_http::serve(intake, connection, request).await,
        Role::Admin => admin::serve(intake, request).await,
    }
}

/// What RFC 9112 (3.2) has a server refuse with 400: an HTTP/1.1 request without a Host header, with
/// several, or with one that is none. What else makes one message look like two, hyper refuses (a folded
/// header, two lengths) or takes as its chunks say and closes the connection (a length beside them).
fn names_its_host(request: &Request<Incoming>) -> bool {
    if request.version() != Version::HTTP_11 {
        return true;
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    host.is_empty() || Authority::try_from(host.as_bytes()).is_ok()
}

/// gRPC is HTTP/2 only; the other ports take what the client speaks.
fn http_builder(role: Role, header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HTTP1_HEAD_BYTES_MAX)
        .max_headers(HTTP1_HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HTTP2_HEADER_LIST_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX);
    match role {
        Role::Grpc => builder.http2_only(),
        Role::Http | Role::Admin => builder,
    }
}
