//! The binary: its one line of output, its signals, its errors, its push, and `merge`.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use nop_collector::{Collector, Options, Running};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use serde_json::Value;
use tonic::transport::server::TcpIncoming;

use crate::sender::{self, call, frame, manifest_line, message, post_logs};

const ANY_PORTS: [&str; 6] =
    ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nop-collector"));
    command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running binary; killed when a test fails before its end.
struct Process {
    child: Child,
    addresses: Value,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.args(ANY_PORTS).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, addresses: serde_json::from_str(&line).unwrap() }
    }

    fn address(&self, port: &str) -> SocketAddr {
        self.addresses[port].as_str().unwrap().parse().unwrap()
    }

    /// Sends SIGTERM or SIGINT, and returns the exit status and what else was printed.
    fn stop(&mut self, signal: &str) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        let mut rest = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        (status.code(), rest)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Scenario: the binary is started with port 0, used on every port, and stopped by each signal.
/// Guarantees: it prints one line with its addresses, serves, and exits with 0, saying nothing.
#[tokio::test]
async fn serves_until_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let mut process = Process::start(&mut binary());
        let grpc = call(process.address("grpc"), &[], frame(false, &message(0, 0..5))).await;
        assert_eq!(grpc.unwrap().header("grpc-status"), "0");
        post_logs(process.address("http"), &[], message(0, 5..10)).await.unwrap();
        let report = sender::get(process.address("admin"), "/report").await;
        let report: Value = serde_json::from_slice(&report.body).unwrap();
        assert_eq!((&report["received"], &report["lost"]), (&Value::from(10), &Value::Null));
        assert_eq!(process.stop(signal), (Some(0), String::new()));
    }
}

/// Scenario: an address that is taken, and one that is none.
/// Guarantees: the error names the option and the address; the exit status isn't 0.
#[tokio::test]
async fn errors_name_the_option() {
    let running = Collector::start(Options::ephemeral()).await.unwrap();
    for (option, address) in [
        ("--grpc", running.grpc_addr().to_string()),
        ("--http", running.http_addr().to_string()),
        ("--admin", "nonsense".to_owned()),
    ] {
        let mut arguments = ANY_PORTS.map(str::to_owned);
        let at = arguments.iter().position(|one| one == option).unwrap();
        arguments[at + 1].clone_from(&address);
        let output = binary().args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with(&format!("nop-collector: {option} {address}: ")), "{text}");
        assert_eq!(output.status.code(), Some(2));
    }
}

/// Takes what is pushed, and remembers it.
#[derive(Clone, Default)]
struct Metrics(Arc<Mutex<Vec<ExportMetricsServiceRequest>>>);

#[tonic::async_trait]
impl MetricsService for Metrics {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Scenario: the standard environment asks for metrics over OTLP.
/// Guarantees: they are pushed, at the latest when it stops, with names, units and values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_pushed_if_the_environment_says_so() {
    let sink = Metrics::default();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = format!("http://{}", incoming.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(MetricsServiceServer::new(sink.clone()))
        .serve_with_incoming(incoming);
    let server = tokio::spawn(server);
    let mut process = Process::start(binary().env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint));
    post_logs(process.address("http"), &[], message(0, 0..5)).await.unwrap();
    call(process.address("grpc"), &[], vec![]).await.unwrap();
    let (status, _) = tokio::task::spawn_blocking(move || process.stop("-TERM")).await.unwrap();
    server.abort();
    assert_eq!(status, Some(0));
    let pushed = sink.0.lock().unwrap().pop().unwrap();
    let metrics = &pushed.resource_metrics[0].scope_metrics[0].metrics;
    let one = |name: &str, unit: &str| {
        let found = metrics.iter().find(|metric| metric.name == name).unwrap();
        assert_eq!(found.unit, unit, "{name}");
        format!("{:?}", found.data)
    };
    assert!(one("nop_collector_records", "{record}").contains("AsInt(5)"));
    assert!(one("nop_collector_wire", "By").contains("is_monotonic: true"));
    assert!(one("nop_collector_refused_requests", "{request}").contains("framing"));
    assert!(one("nop_collector_lost_lines", "{line}").contains("AsInt(0)"));
    assert!(one("nop_collector_latency", "s").contains("quantile"));
}

async fn merge(replicas: &[&Running], manifests: &[&str]) -> Output {
    let mut command = binary();
    command.arg("merge");
    command.args(replicas.iter().map(|one| format!("http://{}", one.admin_addr())));
    if !manifests.is_empty() {
        command.arg("--manifest").args(manifests);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Scenario: two replicas have half of two streams each; then a manifest lists more; then both
/// have one line; then a replica is gone.
/// Guarantees: exit status 0 with a verdict; 1 with the losses; 1 with the duplicate; 2 naming the
/// replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merge_unites_replicas() {
    let first = Collector::start(Options::ephemeral()).await.unwrap();
    let second = Collector::start(Options::ephemeral()).await.unwrap();
    for (replica, writer, lines) in
        [(&first, 0, 0..10), (&second, 0, 10..20), (&first, 1, 5..9), (&second, 1, 0..5)]
    {
        post_logs(replica.http_addr(), &[], message(writer, lines)).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, writer, lines| {
        let path = directory.path().join(name);
        std::fs::write(&path, serde_json::to_vec(&manifest_line(writer, lines)).unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (exact, more) = (file("exact", 0, 20), file("more", 1, 30));
    let verdict = |output: &Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };

    let output = merge(&[&first, &second], &[&exact]).await;
    let json = verdict(&output);
    assert_eq!(output.status.code(), Some(0), "{json}");
    assert_eq!((&json["lossless"], &json["replicas"]), (&Value::from(true), &Value::from(2)));
    assert_eq!((&json["received"], &json["records"]), (&Value::from(29), &Value::from(29)));
    assert!(json["latency_ms"]["max"].as_f64().unwrap() > 0.0);

    let output = merge(&[&first, &second], &[&exact, &more]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(verdict(&output)["lost"], 21);

    post_logs(first.http_addr(), &[], message(0, 19..20)).await.unwrap();
    let output = merge(&[&first, &second], &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        (&verdict(&output)["lost"], &verdict(&output)["duplicated"]),
        (&Value::Null, &1.into())
    );

    let gone = format!("http://{}", second.admin_addr());
    second.shut_down().await;
    let output = binary().args(["merge", &gone]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&gone), "{text}");
    assert_eq!(output.status.code(), Some(2));
}

/// Scenario: the binary is given a certificate without its key, an authority without either, then
/// all of them, of which a plain client knows nothing.
/// Guarantees: the first two are refused by name; the last serves, but not in plain text.
#[tokio::test]
async fn tls_options_come_together() {
    for alone in ["--tls-cert", "--tls-key", "--tls-client-ca"] {
        let Output { status, stderr, .. } = binary().args([alone, "x"]).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(2) && stderr.contains("--tls-"), "{stderr}");
    }
    let directory = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
    std::fs::write(&certificate, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let mut command = binary();
    command.arg("--tls-cert").arg(&certificate).arg("--tls-key").arg(&key);
    command.arg("--tls-client-ca").arg(&certificate);
    let mut process = Process::start(&mut command);
    post_logs(process.address("http"), &[], message(0, 0..5)).await.unwrap_err();
    assert_eq!(sender::get(process.address("admin"), "/healthz").await.status, 200);
    assert_eq!(process.stop("-TERM"), (Some(0), String::new()));
}
