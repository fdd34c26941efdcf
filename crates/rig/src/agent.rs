//! The agent under test as a process: how it is started, what it uses over all of its lives, and
//! how it is stopped or killed. thyme-agent is one agent among others here.

use crate::{
    cli::{LoadOptions, Protocol},
    collector::Addresses,
    error::{Error, Result, io_error},
    http,
    process::{Ended, Process},
    template::{Places, mentions_health, split_words},
    tree::Tree,
    usage::{Usage, deleted_files, descriptors, held_files, open_files},
};
use rustix::process::Signal;
use serde::Serialize;
use std::{
    ffi::OsString,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The configuration that thyme-agent gets unless the user gives one; the exporter is added.
const CONFIG: &str = "\
extensions:
  file_storage:
    directory: '{state}'
    create_directory: true
  health_check:
    endpoint: {health}
    path: /healthz

receivers:
  file_log:
    include:
      - '{logs}/*/*/*.log'
    start_at: beginning
    include_file_path: true
    storage: file_storage
    operators:
      - type: container

processors:
  batch:
    timeout: 200ms
    send_batch_size: 8192

";

/// What is added to its extensions where records are to carry an identity.
const RECORD_UID: &str = "  thyme:\n    record_uid: true\n";

/// The end of that configuration, after the extensions in service.
const SERVICE: &str = "  telemetry:
    metrics:
      readers:
        - pull:
            exporter:
              prometheus:
                host: 127.0.0.1
                port: {metrics_port}
  pipelines:
    logs:
      receivers: [file_log]
      processors: [batch]
";

/// How to start the agent, again and again.
#[derive(Clone, Debug)]
pub struct Recipe {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Directory of the child's outputs.
    outputs: PathBuf,
    /// Where health is served, where the agent was asked to serve it.
    health: Option<SocketAddr>,
    /// Where its metrics are, if it was told that address.
    metrics: SocketAddr,
    /// What to call it in the table.
    pub title: String,
}

impl Recipe {
    /// Decides on the command, and writes the configuration into the tree. `thyme_agent` is taken
    /// unless the options name another command.
    pub fn new(
        load: &LoadOptions,
        tree: &Tree,
        collector: &Addresses,
        thyme_agent: &Path,
    ) -> Result<Self> {
        let places = places(tree, collector)?;
        let template = match load.agent_config() {
            Some(path) => {
                fs::read_to_string(path).map_err(io_error(format!("reading {}", path.display())))?
            }
            None => generated(load),
        };
        let config = tree.agent_config();
        fs::write(&config, places.fill(&template))
            .map_err(io_error(format!("writing {}", config.display())))?;

        let (program, arguments, serves_health) = match load.other_agent() {
            None => {
                let arguments = vec!["--config".into(), config.into_os_string()];
                (thyme_agent.to_owned(), arguments, mentions_health(&template))
            }
            Some(command) => {
                let words = split_words(command)
                    .map_err(|reason| Error::Usage(format!("AGENT={command}: {reason}")))?;
                let mut words = words.iter().map(|word| places.fill(word));
                // A command that is not blank has a word.
                let program = words.next().unwrap_or_default().into();
                let configured = load.agent_config().is_some() && mentions_health(&template);
                let serves_health = configured || mentions_health(command);
                (program, words.map(OsString::from).collect(), serves_health)
            }
        };
        let title = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into();
        let health = serves_health.then_some(places.health);
        let (outputs, metrics) = (tree.children(), places.metrics);
        Ok(Self { program, arguments, outputs, health, metrics, title })
    }

    /// The agent in words: its program, and how it sends where that is decided here.
    pub fn described(&self, load: &LoadOptions) -> String {
        let how = match load.transport() {
            Some((protocol, compression)) => format!("{protocol} {compression}"),
            None => "as it is configured".to_owned(),
        };
        format!("{}, sending {how}", self.program.display())
    }

    fn spawn(&self) -> Result<Process> {
        Process::spawn("agent", &self.program, &self.arguments, &self.outputs)
    }
}

/// The agent, over all of its lives.
#[derive(Debug)]
pub struct Agent {
    recipe: Recipe,
    process: Process,
    /// Processor time of the lives that have ended, in seconds.
    past_cpu_seconds: f64,
    /// Largest peak of any life, in bytes.
    rss_peak_bytes: u64,
    /// Set from the end of a life that was asked to end until the next begins.
    is_down: bool,
}

impl Agent {
    /// Starts the first life.
    pub fn spawn(recipe: Recipe) -> Result<Self> {
        let process = recipe.spawn()?;
        Ok(Self { recipe, process, past_cpu_seconds: 0.0, rss_peak_bytes: 0, is_down: false })
    }

    /// Whether it answers on its health endpoint; `None` when it was not asked to have one.
    pub fn is_up(&self) -> Option<bool> {
        // Any answer will do: what health means is the agent's affair, being there is ours.
        self.recipe.health.map(|health| http::request(health, "GET", "/healthz", &[]).is_ok())
    }

    /// What it has used so far: processor time over all lives, memory of the present one, and the
    /// largest peak of all.
    pub fn usage(&mut self) -> Usage {
        let mut usage = self.process.usage();
        self.rss_peak_bytes = self.rss_peak_bytes.max(usage.rss_peak_bytes);
        usage.cpu_seconds += self.past_cpu_seconds;
        usage.rss_peak_bytes = self.rss_peak_bytes;
        usage
    }

    /// Kills it with SIGKILL and starts it again at once, with the same state.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.usage();
        let ended = self.process.kill()?;
        self.past_cpu_seconds += ended.cpu_seconds;
        self.process = self.recipe.spawn()?;
        Ok(())
    }

    /// Asks it to end.
    pub fn stop(&self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Takes the figures of a life that ended as it was asked to.
    pub fn bury(&mut self, ended: &Ended) {
        self.past_cpu_seconds += ended.cpu_seconds;
        self.is_down = true;
    }

    /// Begins the next life, with the same state.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = self.recipe.spawn()?;
        self.is_down = false;
        Ok(())
    }

    /// An error if it has ended and was not asked to.
    pub fn expect_running(&mut self) -> Result<()> {
        if self.is_down { Ok(()) } else { self.process.expect_running() }
    }

    /// How many descriptors its processes have.
    pub fn descriptors(&self) -> usize {
        if self.is_down { 0 } else { descriptors(self.process.group()) }
    }

    /// How many files below a directory it holds open.
    pub fn open_files(&self, below: &Path) -> usize {
        if self.is_down { 0 } else { open_files(self.process.group(), below) }
    }

    /// How many of the files that it holds open below a directory were deleted.
    pub fn deleted_files(&self, below: &Path) -> usize {
        if self.is_down { 0 } else { deleted_files(self.process.group(), below) }
    }

    /// Whether it holds open every file below a directory whose name ends so, and there is one.
    pub fn holds_all(&self, below: &Path, ending: &str) -> bool {
        let held: Vec<PathBuf> = held_files(self.process.group(), below).collect();
        let mut pending = vec![below.to_owned()];
        let mut found = false;
        while let Some(directory) = pending.pop() {
            for path in
                fs::read_dir(directory).into_iter().flatten().flatten().map(|one| one.path())
            {
                if path.is_dir() {
                    pending.push(path);
                } else if path.as_os_str().as_bytes().ends_with(ending.as_bytes()) {
                    found = true;
                    if !held.contains(&path) {
                        return false;
                    }
                }
            }
        }
        found && !self.is_down
    }

    /// What it says to have lost in this life; `None` where it has no such figures.
    pub fn losses(&self) -> Option<Losses> {
        let page = http::request(self.recipe.metrics, "GET", "/metrics", &[]).ok()?.ok().ok()?;
        Losses::from_metrics(&String::from_utf8_lossy(&page))
    }

    /// Stops it where it is, as a node does whose processors are all busy; or lets it go on.
    pub fn suspend(&self, suspended: bool) -> Result<()> {
        self.process.signal(if suspended { Signal::STOP } else { Signal::CONT })
    }

    /// What to call it.
    pub fn title(&self) -> &str {
        &self.recipe.title
    }

    /// The process of the present life.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// What an agent says to have lost of the files that it tailed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Files.
    pub files: u64,
    /// Bytes, for whatever reason.
    pub bytes: u64,
}

impl Losses {
    /// From a page in Prometheus' text format, by thyme-agent's names; `None` where it has neither.
    fn from_metrics(page: &str) -> Option<Self> {
        let sum = |name: &str| {
            let values = page.lines().filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                let rest = rest.strip_prefix("_total").unwrap_or(rest);
                let is_sample = rest.starts_with(['{', ' ']);
                rest.rsplit(' ').next().filter(|_| is_sample)?.parse::<f64>().ok()
            });
            values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
        };
        let (files, bytes) = (sum("thyme_files_lost"), sum("thyme_files_lost_bytes"));
        let whole = |value: Option<f64>| value.unwrap_or(0.0) as u64;
        (files.is_some() || bytes.is_some())
            .then(|| Self { files: whole(files), bytes: whole(bytes) })
    }

    /// Both together, as over two lives.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { files: self.files + other.files, bytes: self.bytes + other.bytes }
    }
}

/// The generated configuration, with its placeholders.
fn generated(load: &LoadOptions) -> String {
    let compression = load.compression.name();
    let (exporter, rest) = match load.protocol {
        Protocol::Grpc => ("otlp_grpc", "{grpc}\n    tls:\n      insecure: true"),
        Protocol::Http => ("otlp_http", "http://{http}"),
    };
    let exporters = format!(
        "exporters:\n  {exporter}:\n    sending_queue: {{storage: file_storage}}\n    \
         compression: {compression}\n    endpoint: {rest}\n"
    );
    let (uid, thyme) = if load.record_uid { (RECORD_UID, ", thyme") } else { ("", "") };
    let config = CONFIG.replacen("extensions:\n", &format!("extensions:\n{uid}"), 1);
    let service = format!("\nservice:\n  extensions: [file_storage, health_check{thyme}]\n");
    format!("{config}{exporters}{service}{SERVICE}      exporters: [{exporter}]\n")
}

fn places(tree: &Tree, collector: &Addresses) -> Result<Places> {
    // Both are held until both are known, so that they differ.
    let (metrics, health) = (free_port()?, free_port()?);
    Ok(Places {
        logs: text(&tree.pods())?,
        state: text(&tree.state())?,
        config: text(&tree.agent_config())?,
        grpc: collector.grpc,
        http: collector.http,
        metrics: metrics.1,
        health: health.1,
    })
}

/// A port that nobody uses, for as long as the listener is held.
fn free_port() -> Result<(TcpListener, SocketAddr)> {
    let bind = || -> io::Result<_> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(io_error("looking for a free port"))
}

fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Usage(format!("{} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a page of metrics with losses of two reasons, names that go on, and help texts; a
    /// page without.
    /// Guarantees: samples of just these two names are added up, and an agent that has none says none.
    #[test]
    fn losses_are_added_up_over_reasons() {
        let page = "# TYPE thyme_files_lost_total counter\n\
            thyme_files_lost 3\n\
            thyme_files_lost_bytes{reason=\"a b\"} 10\n\
            thyme_files_lost_bytes_total{reason=\"c\"} 5\n\
            thyme_files_lost_other_total 9\nthyme_files_open 7\n";
        assert_eq!(Losses::from_metrics(page), Some(Losses { files: 3, bytes: 15 }));
        assert_eq!(Losses::from_metrics("otelcol_process_uptime 1\n"), None);
        let twice = Losses { files: 1, bytes: 2 }.plus(Losses { files: 3, bytes: 4 });
        assert_eq!(twice, Losses { files: 4, bytes: 6 });
    }
}
