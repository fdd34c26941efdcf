//! What the agent serves to others: its health, and the pages of the Prometheus readers.
//!
//! Listeners and answers only. What health means is the pipeline's to say, what stands on a page
//! telemetry's. Nothing here changes the agent.

use std::{
    future::ready,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Instant,
};

use axum::{
    Json, Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use prometheus::TEXT_FORMAT;
use serde_json::json;
use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle};

use crate::{config::HealthCheckConfig, telemetry::PrometheusPage};

/// Says whether the pipeline makes progress, and if not, why.
pub type Health = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Path that answers with the health at every listener.
const HEALTH_PATH: &str = "/healthz";

/// An address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {endpoint} for {purpose}: {source}")]
pub struct AdminError {
    /// The address as configured.
    pub endpoint: String,
    /// What it is for.
    pub purpose: &'static str,
    /// What the operating system says.
    pub source: io::Error,
}

/// The running listeners; they close when it is dropped.
#[derive(Debug, Default)]
pub struct Admin {
    /// Address of the health check, if there is one.
    pub health: Option<SocketAddr>,
    /// Addresses of the Prometheus pages, in the order of their readers.
    pub prometheus: Vec<SocketAddr>,
    servers: Vec<JoinHandle<()>>,
}

impl Admin {
    /// Listens on all addresses before it returns, and says in the log which they are; the servers
    /// run on `runtime`.
    ///
    /// # Errors
    /// An address can't be listened on.
    pub fn start(
        health_check: Option<&HealthCheckConfig>,
        pages: &[PrometheusPage],
        health: &Health,
        runtime: &Handle,
    ) -> Result<Self, AdminError> {
        let mut admin = Self::default();
        if let Some(config) = health_check {
            let mut app = Router::new().route(HEALTH_PATH, health_route(health));
            if config.path != HEALTH_PATH {
                app = app.route(&config.path, health_route(health));
            }
            admin.health = Some(admin.serve(&config.endpoint, "the health check", app, runtime)?);
        }
        for page in pages {
            let app = Router::new()
                .route(HEALTH_PATH, health_route(health))
                .route("/metrics", page_route(page));
            let address = admin.serve(&page.endpoint(), "Prometheus", app, runtime)?;
            admin.prometheus.push(address);
        }
        Ok(admin)
    }

    fn serve(
        &mut self,
        endpoint: &str,
        purpose: &'static str,
        app: Router,
        runtime: &Handle,
    ) -> Result<SocketAddr, AdminError> {
        let failed = |source| AdminError { endpoint: endpoint.to_owned(), purpose, source };
        let _entered = runtime.enter();
        let listener = std::net::TcpListener::bind(&*addresses(endpoint).map_err(failed)?);
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        tracing::info!(%address, "listening for {purpose}");
        self.servers.push(runtime.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "no longer listening for {purpose}");
            }
        }));
        Ok(address)
    }
}

/// The addresses of a name, IPv4 first: `localhost` is expected to be 127.0.0.1, as in Go.
fn addresses(endpoint: &str) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<_> = endpoint.to_socket_addrs()?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    Ok(addresses)
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

/// Answers as the Collector's `health_check` does: 200 or 503.
fn health_route(health: &Health) -> MethodRouter {
    let health = Arc::clone(health);
    let started = Instant::now();
    get(move || {
        let uptime_seconds = started.elapsed().as_secs();
        let (code, body) = match health() {
            Ok(()) => {
                let body = json!({"status": "Server available", "uptime_seconds": uptime_seconds});
                (StatusCode::OK, body)
            }
            Err(reason) => {
                let body = json!({"status": "Server not available", "reason": reason});
                (StatusCode::SERVICE_UNAVAILABLE, body)
            }
        };
        ready((code, Json(body)))
    })
}

fn page_route(page: &PrometheusPage) -> MethodRouter {
    let page = page.clone();
    get(move || ready(page_answer(&page)))
}

fn page_answer(page: &PrometheusPage) -> Response {
    match page.render() {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "the agent's metrics can't be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{config::Config, metrics::Metrics, telemetry::Telemetry};

    const CONFIG: &str = "\
receivers: {filelog: {include: [/a.log]}}
exporters: {otlp: {endpoint: 'c:4317'}}
extensions: {health_check: {endpoint: 'localhost:0', path: /health}}
service:
  extensions: [health_check]
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {port: 0}}}}]}}
  pipelines: {logs: {receivers: [filelog], exporters: [otlp]}}
";

    fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn status(address: SocketAddr, path: &str) -> String {
        fetch(address, path).split(' ').nth(1).unwrap().to_owned()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    /// Scenario: a pipeline that makes progress, then stands still, seen from both listeners.
    /// Guarantees: 200 and then 503 with the reason, at the configured path and at `/healthz`.
    #[test]
    fn health_follows_the_pipeline() {
        let (runtime, config) = (runtime(), Config::parse(CONFIG, "test").unwrap());
        let metrics = Arc::new(Metrics::default());
        let telemetry = Telemetry::start(&config, metrics, runtime.handle()).unwrap();
        let stands = Arc::new(AtomicBool::new(false));
        let stands_still = Arc::clone(&stands);
        let health: Health = Arc::new(move || match stands_still.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err("worker 0 stands".into()),
        });
        let check = config.health_check.as_ref();
        let admin = Admin::start(check, telemetry.pages(), &health, runtime.handle()).unwrap();
        let (check, page) = (admin.health.unwrap(), admin.prometheus[0]);
        let everywhere = [(check, "/health"), (check, "/healthz"), (page, "/healthz")];
        for (address, path) in everywhere {
            assert!(fetch(address, path).contains("\"status\":\"Server available\""));
            assert_eq!(status(address, path), "200");
        }
        stands.store(true, Ordering::SeqCst);
        for (address, path) in everywhere {
            assert!(fetch(address, path).contains("worker 0 stands"));
            assert_eq!(status(address, path), "503");
        }
        let shown = fetch(page, "/metrics");
        assert!(
            shown.contains("text/plain") && shown.contains("otelcol_process_uptime"),
            "{shown}"
        );
        assert_eq!(status(check, "/metrics"), "404");
        // No profiles and no traces: they would show what the agent holds.
        for path in ["/debug/pprof/", "/debug/pprof/heap", "/debug/tracez", "/debug/servicez"] {
            assert_eq!([status(check, path), status(page, path)], ["404", "404"], "{path}");
        }
    }

    /// Scenario: the address of the health check is taken.
    /// Guarantees: an error that names the address and what it is for, and no listener is left.
    #[test]
    fn a_taken_address_is_named() {
        let runtime = runtime();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = taken.local_addr().unwrap().to_string();
        let config = HealthCheckConfig { endpoint: endpoint.clone(), path: "/".into() };
        let health: Health = Arc::new(|| Ok(()));
        let error = Admin::start(Some(&config), &[], &health, runtime.handle()).unwrap_err();
        let expected = format!("can't listen on {endpoint} for the health check: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}
