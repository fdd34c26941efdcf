//! The admin endpoints, and the metrics that are pushed.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use rustix::process::Signal;

use crate::logs::count;
use crate::process::{DEADLINE, Running, command, manifest};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Scenario: a running generator is asked for everything, then stopped, then terminated.
/// Guarantees: the manifest grows and never claims more than the files hold; after the stop it is
/// exact, the process stays with its endpoints, and SIGTERM ends it well.
#[test]
fn asked_and_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let arguments = ["--out", text(root), "--pods", "2", "--rate", "2000", "--stderr-share", "0.5"];
    let mut running = Running::start(&arguments);
    assert_eq!(running.request("GET", "/healthz"), (200, "ok\n".to_owned()));
    running.wait_for("log_generator_lines_total", 200.0);
    let (status, body) = running.request("GET", "/manifest");
    assert_eq!(status, 200);
    let claimed = manifest(&body);
    let held = count(root).unfinished_manifest();
    assert_eq!(claimed.len(), 4);
    for (claimed, held) in claimed.iter().zip(&held) {
        assert_eq!(claimed.writer, held.writer);
        assert!(claimed.lines > 0 && claimed.lines <= held.lines);
        assert_eq!(claimed.last + 1, claimed.lines);
    }
    let (status, body) = running.request("POST", "/stop");
    assert_eq!((status, manifest(&body)), (200, count(root).manifest()));
    assert_eq!(running.request("GET", "/manifest").1, body);
    assert_eq!(running.request("POST", "/stop").1, body);
    assert_eq!(running.metric("log_generator_writing"), 0.0);
    assert_eq!(running.request("GET", "/nothing").0, 404);
    assert!(running.is_running());
    let report = running.terminate();
    assert_eq!(report["end"], "stopped");
}

/// Scenario: a finished generator that was told to linger.
/// Guarantees: it stays, with an exact manifest, until SIGTERM.
#[test]
fn lingering() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--out", text(directory.path()), "--lines", "50", "--linger"];
    let mut running = Running::start(&arguments);
    crate::process::wait_until("the end", || {
        running.metric("log_generator_lines_total") == 50.0
            && running.metric("log_generator_writing") == 0.0
    });
    assert!(running.is_running());
    running.signal(Signal::URG);
    assert!(running.is_running());
    assert_eq!(running.terminate()["end"], "complete");
}

/// Scenario: the environment names an OTLP endpoint.
/// Guarantees: the metrics are pushed there by gRPC, under their names; a collector that breaks off
/// doesn't disturb the run; a protocol that isn't built in is refused at the start.
#[test]
fn pushed_metrics() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--out", text(directory.path()), "--lines", "500", "--rate", "500"];
    let mut command = command(&arguments);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("OTEL_METRIC_EXPORT_INTERVAL", "100");
    let child = command.spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // An empty SETTINGS frame is all that an HTTP/2 client needs to hear.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    let (mut received, mut chunk) = (Vec::new(), [0; 4_096]);
    let names: [&[u8]; 2] = [b"log_generator.lines", b"log_generator.archives_removed"];
    while !names.iter().all(|name| received.windows(name.len()).any(|window| window == *name)) {
        let length = stream.read(&mut chunk).unwrap();
        assert!(length > 0, "the metrics came before the end");
        received.extend_from_slice(&chunk[..length]);
    }
    drop((stream, listener));
    assert!(child.wait_with_output().unwrap().status.success());

    let output = command
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("http/protobuf"));
}
