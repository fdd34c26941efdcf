//! What the agent serves to others: its health, and the pages of the Prometheus readers.
//!
//! Listeners and answers only. What health means is the pipeline's to say, what stands on a page
//! telemetry's. Nothing here changes the agent. Whoever reaches these ports takes at most
//! [`ADMIN_CONNECTIONS_MAX`] connections of `ADMIN_CONNECTION_TIME_MAX` from it: descriptors are
//! for log files.

mod serve;

use std::{
    future::ready,
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
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
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    config::{Config, HealthCheckConfig, MetricsReader, Problem},
    limits::ADMIN_CONNECTIONS_MAX,
    telemetry::PrometheusPage,
};

/// Says whether the pipeline makes progress, and if not, why.
pub type Health = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Path that answers with the health at every listener.
const HEALTH_PATH: &str = "/healthz";

/// The ports of the configuration, bound before the first line is read: an agent that can't have
/// them ends before it has sent anything. Until they are served, connections wait in the kernel.
#[derive(Debug)]
pub struct Ports {
    health: Option<(TcpListener, HealthCheckConfig)>,
    /// In the order of the readers.
    prometheus: Vec<TcpListener>,
}

impl Ports {
    /// Binds all of them.
    ///
    /// # Errors
    /// The line and the key of an address that can't be listened on, and why.
    pub fn bind(config: &Config) -> Result<Self, Problem> {
        let bind = |key: &str, endpoint: &str, purpose: &str| {
            let failed = |error: io::Error| {
                let message = format!("can't listen on {endpoint} for {purpose}: {error}");
                config.origin.problem(key, message)
            };
            TcpListener::bind(&*addresses(endpoint).map_err(failed)?).map_err(failed)
        };
        let health = match &config.health_check {
            Some(check) => {
                let key = format!("extensions::{}::endpoint", check.id);
                Some((bind(&key, &check.endpoint, "the health check")?, check.clone()))
            }
            None => None,
        };
        let mut prometheus = Vec::new();
        for (index, reader) in config.telemetry.readers.iter().enumerate() {
            let MetricsReader::Prometheus(page) = reader else { continue };
            let key = format!(
                "service::telemetry::metrics::readers[{index}]::pull::exporter::prometheus::port"
            );
            prometheus.push(bind(&key, &page.endpoint(), "Prometheus")?);
        }
        Ok(Self { health, prometheus })
    }
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
    /// Serves what was bound, and says in the log which addresses these are; the servers run on
    /// `runtime`.
    ///
    /// # Errors
    /// What the operating system says about a socket.
    pub fn start(
        ports: Ports,
        pages: &[PrometheusPage],
        health: &Health,
        runtime: &Handle,
    ) -> io::Result<Self> {
        let mut admin = Self::default();
        let listeners = ports.prometheus.len() + usize::from(ports.health.is_some());
        let connections_max = (ADMIN_CONNECTIONS_MAX / listeners.max(1)).max(1);
        if let Some((listener, config)) = ports.health {
            let mut app = Router::new().route(HEALTH_PATH, health_route(health));
            if config.path != HEALTH_PATH {
                app = app.route(&config.path, health_route(health));
            }
            let serving = admin.serve(listener, "the health check", app, connections_max, runtime);
            admin.health = Some(serving?);
        }
        for (listener, page) in ports.prometheus.into_iter().zip(pages) {
            let app = Router::new()
                .route(HEALTH_PATH, health_route(health))
                .route("/metrics", page_route(page));
            let address = admin.serve(listener, "Prometheus", app, connections_max, runtime)?;
            admin.prometheus.push(address);
        }
        Ok(admin)
    }

    fn serve(
        &mut self,
        listener: TcpListener,
        purpose: &'static str,
        app: Router,
        connections_max: usize,
        runtime: &Handle,
    ) -> io::Result<SocketAddr> {
        let _entered = runtime.enter();
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tracing::info!(%address, "listening for {purpose}");
        self.servers.push(runtime.spawn(serve::serve(listener, app, connections_max)));
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
    use crate::{limits::ADMIN_CONNECTION_TIME_MAX, metrics::Metrics, telemetry::Telemetry};

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
        let ports = Ports::bind(&config).unwrap();
        let admin = Admin::start(ports, telemetry.pages(), &health, runtime.handle()).unwrap();
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

    /// Scenario: the address of the health check is taken, then that of the Prometheus page.
    /// Guarantees: an error with file, line and key that names the address and what it is for.
    #[test]
    fn a_taken_address_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = taken.local_addr().unwrap();
        let refused = |text: &str| {
            Ports::bind(&Config::parse(text, "agent.yaml").unwrap()).unwrap_err().to_string()
        };
        let error = refused(&CONFIG.replace("localhost:0", &endpoint.to_string()));
        let expected = format!(
            "agent.yaml:3: extensions::health_check::endpoint: can't listen on {endpoint} for the \
             health check: "
        );
        assert!(error.starts_with(&expected), "{error}");
        let page = format!("{{host: 127.0.0.1, port: {}}}", endpoint.port());
        let error = refused(&CONFIG.replace("{port: 0}", &page));
        let expected = format!(
            "agent.yaml:6: service::telemetry::metrics::readers[0]::pull::exporter::prometheus::port: \
             can't listen on {endpoint} for Prometheus: "
        );
        assert!(error.starts_with(&expected), "{error}");
    }

    /// Scenario: failure mode 60: 300 connections to the health check that send half a request and
    /// stay open, then one that asks. Later nobody has closed any of them.
    /// Guarantees: the one is answered, at any time at most half of 64 descriptors are taken, since
    /// there are two ports, and each connection is ended.
    #[test]
    fn connections_that_stay_open_take_little_and_keep_nobody_out() {
        let runtime = runtime();
        let config = Config::parse(CONFIG, "test").unwrap();
        let telemetry = Telemetry::start(&config, Arc::default(), runtime.handle()).unwrap();
        let health: Health = Arc::new(|| Ok(()));
        let ports = Ports::bind(&config).unwrap();
        let admin = Admin::start(ports, telemetry.pages(), &health, runtime.handle()).unwrap();
        let address = admin.health.unwrap();
        let to_here = || {
            let own = |path: std::path::PathBuf| std::fs::read_link(path).unwrap_or_default();
            let sockets = std::fs::read_dir("/proc/self/fd").unwrap();
            let inodes: Vec<_> =
                sockets.filter_map(|entry| Some(own(entry.ok()?.path()))).collect();
            let port = format!(":{:04X}", address.port());
            let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
            let accepted = table.lines().skip(1).filter(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let inode = format!("socket:[{}]", fields[9]);
                // Accepted here, and not the listener.
                fields[1].ends_with(&port)
                    && fields[3] != "0A"
                    && inodes.iter().any(|own| own.as_os_str() == &*inode)
            });
            accepted.count()
        };
        let mut halves = Vec::new();
        for _ in 0..300 {
            let mut half = TcpStream::connect(address).unwrap();
            half.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 9").unwrap();
            halves.push(half);
            // One more while it takes the place of the oldest.
            let open = to_here();
            assert!(open <= ADMIN_CONNECTIONS_MAX / 2 + 1, "{open}");
        }
        assert_eq!(status(address, "/health"), "200");
        for mut half in halves {
            half.set_read_timeout(Some(ADMIN_CONNECTION_TIME_MAX * 4)).unwrap();
            let mut rest = Vec::new();
            // Ended in whatever way; a time-out would be the agent's waiting.
            let ended = half.read_to_end(&mut rest);
            let is_over = ended.err().is_none_or(|error| error.kind() != io::ErrorKind::WouldBlock);
            assert!(is_over, "{}", String::from_utf8_lossy(&rest));
        }
    }

    /// Scenario: failure mode 60: the head of a request that does not end.
    /// Guarantees: it is refused once it is as long as the limit, not kept.
    #[test]
    fn a_head_without_an_end_is_refused() {
        let runtime = runtime();
        let config = Config::parse(CONFIG, "test").unwrap();
        let telemetry = Telemetry::start(&config, Arc::default(), runtime.handle()).unwrap();
        let health: Health = Arc::new(|| Ok(()));
        let ports = Ports::bind(&config).unwrap();
        let admin = Admin::start(ports, telemetry.pages(), &health, runtime.handle()).unwrap();
        let mut stream = TcpStream::connect(admin.health.unwrap()).unwrap();
        let mut head = b"GET /health HTTP/1.1\r\nHost: x\r\nCookie: ".to_vec();
        head.resize(crate::limits::ADMIN_HEAD_BYTES_MAX, b'x');
        stream.write_all(&head).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    /// Scenario: a whole request whose body never comes, and one on a connection that stays open
    /// after its answer.
    /// Guarantees: both connections are ended.
    #[test]
    fn slow_bodies_and_idle_connections_are_ended() {
        let runtime = runtime();
        let config = Config::parse(CONFIG, "test").unwrap();
        let telemetry = Telemetry::start(&config, Arc::default(), runtime.handle()).unwrap();
        let health: Health = Arc::new(|| Ok(()));
        let ports = Ports::bind(&config).unwrap();
        let admin = Admin::start(ports, telemetry.pages(), &health, runtime.handle()).unwrap();
        let heads =
            ["Content-Length: 1000", "Connection: keep-alive", "Transfer-Encoding: chunked"];
        let streams = heads.map(|head| {
            let mut stream = TcpStream::connect(admin.prometheus[0]).unwrap();
            stream.set_read_timeout(Some(ADMIN_CONNECTION_TIME_MAX * 4)).unwrap();
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n").unwrap();
            (head, stream)
        });
        for (head, mut stream) in streams {
            let mut answer = String::new();
            let ended = stream.read_to_string(&mut answer);
            let is_over = ended.err().is_none_or(|error| error.kind() != io::ErrorKind::WouldBlock);
            assert!(is_over && answer.starts_with("HTTP/1.1 200 "), "{head}: {answer}");
        }
    }
}
