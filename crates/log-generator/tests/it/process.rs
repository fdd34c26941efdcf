//! Starts the binary, stops it, and asks it over HTTP. Checks nothing but that it ends in time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use thyme_core::manifest::ManifestLine;

/// Far longer than anything here takes, also on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The binary with arguments, piped, and without anybody's OTLP settings.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_log-generator"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    command.env_remove("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
    command
}

/// Runs it to its end.
pub(crate) fn finished(arguments: &[&str]) -> Output {
    command(arguments).spawn().unwrap().wait_with_output().unwrap()
}

/// Runs it to its end, which is a good one, and returns the report.
pub(crate) fn report(arguments: &[&str]) -> serde_json::Value {
    let output = finished(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A running generator with an admin port; killed when dropped.
pub(crate) struct Running {
    child: Child,
    admin: String,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Running {
    /// Starts it in directory mode with `--admin` on a free port.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = command(&[arguments, &["--admin", "127.0.0.1:0"]].concat());
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let admin = line["admin"].as_str().unwrap().to_owned();
        Self { child, admin, stdout }
    }

    /// Sends a request and returns status and body.
    pub(crate) fn request(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The value of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.request("GET", "/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Waits until a metric has reached a value.
    pub(crate) fn wait_for(&self, name: &str, value: f64) {
        wait_until(name, || self.metric(name) >= value);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether the process is there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGTERM, waits for a good end, and returns the report.
    pub(crate) fn terminate(mut self) -> serde_json::Value {
        self.signal(Signal::TERM);
        let mut report = String::new();
        self.stdout.read_to_string(&mut report).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&report).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Has ended already where the test went well.
        if self.is_running() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// Polls a condition until it holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A manifest from its JSON lines.
pub(crate) fn manifest(text: &str) -> Vec<ManifestLine> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
