//! The admin endpoints: what was written, how it goes, and how to stop it. Serves the state that
//! others keep; nothing here touches a line.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::generate::{Shared, Stop};
use crate::limits::STOP_WAIT;

/// What the endpoints see.
#[derive(Clone, Debug)]
struct Admin {
    shared: Arc<Shared>,
    /// Becomes true when the writer has ended.
    ended: watch::Receiver<bool>,
}

/// The routes, over the state of a run and the sign that its writer has ended.
pub fn router(shared: Arc<Shared>, ended: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/manifest", get(manifest))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/stop", post(stop))
        .with_state(Admin { shared, ended })
}

async fn manifest(State(admin): State<Admin>) -> Response {
    json_lines(&admin.shared)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let text = admin.shared.metrics.to_prometheus();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// The process ends with a failed write, so who answers is well.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Stops the writer, waits for its last lines, and answers with the final manifest.
async fn stop(State(mut admin): State<Admin>) -> Response {
    admin.shared.stop(Stop::Asked);
    match timeout(STOP_WAIT, until_ended(&mut admin.ended)).await {
        Ok(()) => json_lines(&admin.shared),
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "the output doesn't take the last lines\n")
            .into_response(),
    }
}

/// Waits until the writer has ended. That its sender is gone is an end too, of another kind, which
/// joining its thread will tell.
pub async fn until_ended(ended: &mut watch::Receiver<bool>) {
    let _ended = ended.wait_for(|&ended| ended).await;
}

fn json_lines(shared: &Shared) -> Response {
    ([(header::CONTENT_TYPE, "application/jsonl")], shared.manifest.to_json_lines()).into_response()
}
