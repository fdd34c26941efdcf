//! The program as a process, as a node runs it: started, signalled, watched and buried.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::node::Node;

/// The longest that a test waits for the program; a machine with two cores runs many tests at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The program without arguments: the one of this build, or the one that `THYME_AGENT` names.
pub(crate) fn program() -> Command {
    let built = env!("CARGO_BIN_EXE_thyme-agent");
    Command::new(std::env::var_os("THYME_AGENT").unwrap_or_else(|| built.into()))
}

/// Says that a test proves nothing here, past the capture of a test's output.
pub(crate) fn skipped(test: &str, why: &str) {
    let line = format!("\nSKIPPED {test}: {why}\n");
    std::io::stderr().lock().write_all(line.as_bytes()).unwrap();
}

/// How an agent is configured.
pub(crate) struct Setup {
    /// gRPC instead of HTTP.
    pub(crate) grpc: bool,
    /// Lines of the exporter's section.
    pub(crate) exporter: &'static str,
    /// Keys of the extension `thyme`.
    pub(crate) thyme: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self { grpc: false, exporter: "compression: zstd", thyme: "workers: 1" }
    }
}

impl Setup {
    /// Writes the configuration of an agent that reads the node's pods, sends to its collector, and
    /// serves health and metrics.
    pub(crate) fn write(&self, node: &Node) -> PathBuf {
        let mut yaml = node
            .yaml(self.exporter, self.thyme)
            .replacen("extensions:\n", "extensions:\n  health_check: {endpoint: 127.0.0.1:0}\n", 1)
            .replace("extensions: [", "extensions: [health_check, ");
        yaml +=
            "  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {port: 0}}}}]}}\n";
        if self.grpc {
            let http = format!("endpoint: http://{}", node.collector.http_addr());
            let grpc = node.collector.grpc_addr();
            let grpc = format!("endpoint: {grpc}\n    tls: {{insecure: true}}");
            yaml = yaml.replace(&http, &grpc).replace("otlp_http", "otlp_grpc");
        }
        let path = node.path("agent.yaml");
        fs::write(&path, yaml).unwrap();
        path
    }
}

/// Writes a configuration of one of many agents on this machine: its own metrics have no port.
pub(crate) fn write_config(node: &Node, yaml: &str) -> PathBuf {
    let path = node.path("config.yaml");
    fs::write(&path, format!("{yaml}  telemetry: {{metrics: {{level: none}}}}\n")).unwrap();
    path
}

/// A running agent; killed when a test ends early.
pub(crate) struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Program {
    /// Starts the agent with this configuration.
    pub(crate) fn start(config: &Path) -> Self {
        Self::spawn(program().arg("--config").arg(config))
    }

    /// Starts it so that it dies at a named point, at the `count`-th passing.
    pub(crate) fn start_armed(config: &Path, point: &str) -> Self {
        let mut command = program();
        command.arg("--config").arg(config).env(thyme_agent::failpoint::VARIABLE, point);
        let mut program = Self::spawn(&mut command);
        program.seen.push(format!("armed to die at {point}"));
        program
    }

    /// Starts a command that becomes the agent.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line of the log that holds `part`; it may have been seen before.
    pub(crate) fn line(&mut self, part: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(part)) {
            return line.clone();
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {part:?} in {:#?}", self.seen)
            };
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Everything that it has logged so far.
    pub(crate) fn log(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Its process id, also inside a namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// As `kill -9`, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.status();
    }

    /// Asks it to end, and expects it to do so in good order.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        let status = self.status();
        assert_eq!(status.code(), Some(0), "{:#?}", self.log());
        // What it said last may still be on its way.
        self.seen.extend(self.lines.iter());
        std::mem::take(&mut self.seen)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn status(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("the agent does not end: {:#?}", self.log())
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.status().code()
    }

    /// The page of the health check: `200` and so on, and what it says.
    pub(crate) fn health(&mut self) -> String {
        let line = self.line("listening for the health check");
        fetch(address(&line), "/healthz")
    }

    /// The value of a series on the metrics' page.
    pub(crate) fn metric(&mut self, series: &str) -> u64 {
        let line = self.line("listening for Prometheus");
        let page = fetch(address(&line), "/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in {page}")).parse::<f64>().unwrap() as u64
    }

    /// All series that are not zero, while it serves them.
    pub(crate) fn metrics(&mut self) -> Vec<String> {
        let line =
            self.log().iter().find(|line| line.contains("listening for Prometheus")).cloned();
        let Some(line) = line.filter(|_| !self.has_ended()) else { return Vec::new() };
        let page = fetch(address(&line), "/metrics");
        let is_said = |line: &&str| line.starts_with("thyme_") && !line.ends_with(" 0");
        page.lines().filter(is_said).map(str::to_owned).collect()
    }

    /// Processor time of all its threads.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // User and system time, in ticks, of which all Linux machines have 100 a second.
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Whether a signal has stopped all its threads.
    pub(crate) fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let mut stats = threads.map(|one| fs::read_to_string(one.unwrap().path().join("stat")));
        stats.all(|stat| stat.unwrap().rsplit_once(") ").unwrap().1.starts_with('T'))
    }

    /// The most memory that it has had, in bytes.
    pub(crate) fn memory_peak_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has usually ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The address in a line `... address=HOST:PORT`.
pub(crate) fn address(line: &str) -> &str {
    line.rsplit_once("address=").map(|(_, address)| address.trim()).expect("an address")
}

/// An answer with its head.
pub(crate) fn fetch(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
