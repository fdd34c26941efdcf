//! Serves one accepted connection until its client, the script of faults or the port ends it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use crate::intake::{Answer, Intake, Treatment};
use crate::limits::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, HEADER_TIMEOUT, SHUTDOWN_TIMEOUT,
    STREAM_WINDOW_BYTES, STREAMS_PER_CONNECTION_MAX,
};
use crate::listen::{Phase, Role};
use crate::reply::Reply;
use crate::{admin, grpc, http as otlp_http};

/// What a request may do to the connection that it came on.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    close: Notify,
}

impl Connection {
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

/// Speaks HTTP on a connection. Returns when it is over, however it ended.
pub(crate) async fn serve<I>(
    io: I,
    role: Role,
    intake: Arc<Intake>,
    mut phase: watch::Receiver<Phase>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(Connection::default());
    let service = {
        let connection = Arc::clone(&connection);
        service_fn(move |request| {
            let (intake, connection) = (Arc::clone(&intake), Arc::clone(&connection));
            async move { Ok::<_, Infallible>(answer(role, &intake, &connection, request).await) }
        })
    };
    let builder = http_builder(role);
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        // An error here is the client's: it broke off, or doesn't speak HTTP.
        _ = http.as_mut() => return,
        () = connection.close.notified() => return,
        // The port is closing, or gone without a word.
        _ = phase.changed() => {}
    }
    if *phase.borrow() == Phase::Draining {
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
    request: Request<Incoming>,
) -> Response<Reply> {
    match role {
        Role::Grpc => grpc::serve(intake, connection, request).await,
        Role::Http => otlp_http::serve(intake, connection, request).await,
        Role::Admin => admin::serve(intake, request).await,
    }
}

/// gRPC is HTTP/2 only; the other ports take what the client speaks.
fn http_builder(role: Role) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX);
    match role {
        Role::Grpc => builder.http2_only(),
        Role::Http | Role::Admin => builder,
    }
}
