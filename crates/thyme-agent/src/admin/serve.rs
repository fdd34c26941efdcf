//! Answers requests on one listener, within limits that hold whoever connects.

use std::{collections::VecDeque, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::limits::{ADMIN_CONNECTION_TIME_MAX, ADMIN_HEAD_BYTES_MAX};

/// Pause after a connection that could not be accepted, such as for the want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until its task is aborted. A connection carries one request and is over after
/// [`ADMIN_CONNECTION_TIME_MAX`], wherever it stands: that bounds slow heads, slow bodies, idle
/// connections and answers that nobody reads. Where there are `connections_max` of them, the oldest
/// gives way to the next: so connections that are kept open can't keep the kubelet out.
pub(super) async fn serve(listener: TcpListener, app: Router, connections_max: usize) {
    let mut open = Open(VecDeque::new());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection to the agent can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.make_room(connections_max).await;
        let service = TowerToHyperService::new(app.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(ADMIN_CONNECTION_TIME_MAX)
            .keep_alive(false)
            .max_buf_size(ADMIN_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        open.0.push_back(tokio::spawn(async move {
            // How a stranger's connection ends is nothing to act on.
            let _ended = tokio::time::timeout(ADMIN_CONNECTION_TIME_MAX, connection).await;
        }));
    }
}

/// The connections that are open, the oldest first.
struct Open(VecDeque<JoinHandle<()>>);

impl Open {
    /// Forgets those that have ended, and ends the oldest until another one may be opened.
    async fn make_room(&mut self, connections_max: usize) {
        self.0.retain(|connection| !connection.is_finished());
        while self.0.len() >= connections_max {
            let Some(oldest) = self.0.pop_front() else { return };
            oldest.abort();
            // Its socket is closed before the next one is taken.
            let _aborted = oldest.await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
