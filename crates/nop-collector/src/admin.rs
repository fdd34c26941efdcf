//! The admin port: index, report, manifest, reset, metrics, health.

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::body;
use crate::intake::Intake;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::manifest;
use crate::metrics::prometheus_text;
use crate::page::{INDEX, report_text};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::report::Detail;
use crate::verify::Verifier;

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers one request.
pub(crate) async fn serve(intake: &Intake, request: Request<Incoming>) -> Response<Reply> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (path.as_str(), method) {
        ("/report", Method::GET) => {
            let detail = Detail::from_query(request.uri().query().unwrap_or_default());
            let report = intake.verifier().report(detail);
            match serde_json::to_vec(&report) {
                Ok(json) => reply(StatusCode::OK, "application/json", json),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            }
        }
        ("/report.txt", Method::GET) => {
            let report = intake.verifier().report(Detail::default());
            reply(StatusCode::OK, TEXT, report_text(&report).into_bytes())
        }
        ("/", Method::GET) => reply(StatusCode::OK, TEXT, INDEX.into()),
        ("/manifest", Method::POST) => take_manifest(intake, request.into_body()).await,
        ("/reset", Method::POST) => {
            *intake.verifier() = Verifier::default();
            text(StatusCode::OK, "reset")
        }
        ("/metrics", Method::GET) => {
            let report = intake.verifier().report(Detail::default());
            let page = prometheus_text(&report);
            reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page.into_bytes())
        }
        ("/healthz", Method::GET) => text(StatusCode::OK, "ok"),
        ("/manifest" | "/reset", _) => wrong_method("POST"),
        ("/" | "/report" | "/report.txt" | "/metrics" | "/healthz", _) => wrong_method("GET"),
        _ => text(StatusCode::NOT_FOUND, &Refusal::UnknownPath { path }.to_string()),
    }
}

async fn take_manifest(intake: &Intake, mut incoming: Incoming) -> Response<Reply> {
    // A budget of its own: a full one must not keep the proof out.
    let body = match body::collect(&mut incoming, MANIFEST_BYTES_MAX, &intake.manifests).await {
        Ok(body) => body,
        Err(refusal) => {
            body::discard(&mut incoming).await;
            return text(refusal.http_status(), &refusal.to_string());
        }
    };
    let content = body.chunks.first().map_or(&[][..], |whole| whole);
    let lines = match manifest::parse(content) {
        Ok(lines) => lines,
        Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let writers = lines.len();
    match intake.verifier().add_manifest(lines) {
        Ok(()) => text(StatusCode::OK, &format!("{writers} writers")),
        Err(cause) => text(StatusCode::BAD_REQUEST, &cause.to_string()),
    }
}

fn wrong_method(allowed: &'static str) -> Response<Reply> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "wrong method");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

pub(crate) fn text(status: StatusCode, line: &str) -> Response<Reply> {
    reply(status, TEXT, format!("{line}\n").into_bytes())
}

fn reply(status: StatusCode, content_type: &'static str, data: Vec<u8>) -> Response<Reply> {
    let mut response = Response::new(Reply::data(data));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
