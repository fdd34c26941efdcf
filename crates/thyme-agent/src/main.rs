//! `thyme-agent --config FILE`: arguments, signals and exit codes around the library.
//!
//! Exit codes: 0 after a drain, also one that its deadline cut short (the checkpoint stands before
//! what the sink did not acknowledge, and the next start reads it again), 1 when the agent can't
//! start, 2 for wrong arguments, 128 plus the signal's number when a second signal ends the drain.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thyme_agent::{
    admin::{Admin, Health, Ports},
    checkpoint::prepare::{Owner, Prepared, prepare_directory},
    config::{Config, ThymeConfig},
    metrics::Metrics,
    pipeline::{DrainReport, Pipeline},
    preflight,
    telemetry::{Telemetry, say_last_words, start_log},
};
use thyme_core::causes::in_one_line;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

/// Descriptors beside those of log files: listeners, connections, watches, state.
const OTHER_DESCRIPTORS: u64 = 256;

/// Threads for the few calls that block: halving requests, reading certificates and tokens.
const BLOCKING_THREADS_MAX: usize = 4;

/// Tails container log files and exports them with OTLP.
#[derive(Parser)]
#[command(version = thyme_core::version!(), args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Arguments {
    /// The configuration, in the OpenTelemetry Collector's YAML.
    #[arg(long, value_name = "FILE", value_parser = config_path, required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Checks a configuration, and says all that is wrong with it.
    Validate {
        /// The configuration to check.
        #[arg(long, value_name = "FILE", value_parser = config_path)]
        config: PathBuf,
    },
    /// Gives a state directory to the agent's user, mode 0700; for an init container with UID 0 and
    /// CAP_CHOWN. Does nothing where all is right.
    PrepareState {
        /// The directory; made if there is none.
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
        /// The agent's user.
        #[arg(long, default_value_t = 65_534)]
        uid: u32,
        /// The agent's group: 0, as the kubelet's log files are readable for that.
        #[arg(long, default_value_t = 0)]
        gid: u32,
    },
}

/// A path, also as the Collector writes it: `file:PATH`.
fn config_path(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("file:").unwrap_or(text) {
        "" => Err("a path is missing".into()),
        path => Ok(path.into()),
    }
}

/// Gives glibc's allocator one arena; to be called before there are threads. By default there are eight a core, and
/// what one thread frees serves no other: a start with 10,000 known files took 76 MiB, 51 to 75 with two arenas as
/// the threads happened to meet, and 51 with one. Nothing is allocated per line, so that threads hardly wait for it.
fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread allocates yet, and the call only sets a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn main() -> ExitCode {
    share_one_arena();
    let arguments = Arguments::parse();
    let result = match (&arguments.command, &arguments.config) {
        (Some(Command::Validate { config }), _) => validate(config),
        (Some(Command::PrepareState { directory, uid, gid }), _) => {
            prepare_state(directory, Owner { uid: *uid, gid: *gid })
        }
        (None, Some(config)) => run(config),
        (None, None) => unreachable!("clap asks for one of them"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_last_words(&in_one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn validate(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    preflight::check(&config, network()?.handle())?;
    writeln!(std::io::stdout().lock(), "OK")?;
    Ok(())
}

/// The runtime of all that is network.
fn network() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("network")
        .enable_all()
        .build()
        .context("the network's thread can't be started")
}

fn prepare_state(directory: &Path, owner: Owner) -> anyhow::Result<()> {
    let prepared = match prepare_directory(directory, owner)? {
        Prepared::AsItWas => "is as it should be",
        Prepared::HandedOver => "was handed over",
    };
    let Owner { uid, gid } = owner;
    let directory = directory.display();
    writeln!(std::io::stdout().lock(), "{directory} {prepared}: {uid}:{gid}, mode 0700")?;
    Ok(())
}

/// Runs the agent until a signal ends it.
fn run(path: &Path) -> anyhow::Result<()> {
    let mut config = Config::load(path)?;
    let runtime = network()?;
    preflight::check(&config, runtime.handle())?;
    let own_log = preflight::exclude_own_log(&mut config);
    let metrics = Arc::new(Metrics::default());
    let _log = start_log(&config.telemetry, Arc::clone(&metrics))?;
    if let Some(path) = own_log {
        let path = path.display();
        tracing::warn!(%path, "a receiver includes the agent's own log, which is not read");
    }
    let ports = Ports::bind(&config).map_err(anyhow::Error::msg)?;
    config.thyme.open_files_max = allowed_open_files(config.thyme.open_files_max)?;
    let signals = Signals::listen(&runtime)?;
    let telemetry = Telemetry::start(&config, Arc::clone(&metrics), runtime.handle())?;
    let pipeline = Pipeline::start(&config, metrics, runtime.handle())?;
    let health: Health = Arc::new(pipeline.health());
    let admin = Admin::start(ports, telemetry.pages(), &health, runtime.handle())
        .context("the agent's ports can't be served")?;
    say_what_started(path, &config);

    let signals = runtime.block_on(signals.first())?;
    runtime.spawn(signals.second());
    let report = pipeline.stop();
    say_how_it_ended(report, config.receivers.iter().all(|receiver| receiver.storage));
    drop(admin);
    telemetry.shutdown();
    Ok(())
}

/// Says where it sends, and where it keeps what the next start needs.
fn say_what_started(path: &Path, config: &Config) {
    let (exporter, endpoint) = (&config.exporter.id, &config.exporter.endpoint);
    let directory = config.file_storage.as_ref().map(|storage| storage.directory.display());
    tracing::info!(
        version = thyme_core::version!(),
        config = %path.display(),
        exporter,
        endpoint,
        state = directory.as_ref().map(tracing::field::display),
        "started"
    );
    if !config.receivers.iter().all(|receiver| receiver.storage) {
        tracing::info!(
            "without `storage` on its receivers the next start knows nothing of what this one has read"
        );
    }
}

/// Says what is left, and where it is: with positions kept, the next start reads it again.
fn say_how_it_ended(report: DrainReport, has_storage: bool) {
    let DrainReport {
        unsettled_requests: requests,
        unsettled_records: records,
        open_lines,
        spooled_records: in_spool,
        lost_bytes,
    } = report;
    match (records, has_storage) {
        _ if lost_bytes > 0 => tracing::error!(
            requests,
            records,
            in_spool,
            lost_bytes,
            "stopped; what deleted files still held is lost, the next start goes on with the rest"
        ),
        (0, true) if in_spool == 0 => tracing::info!(
            open_lines,
            "stopped: everything read is settled, but for lines without an end, which the next start reads"
        ),
        (0, false) if open_lines > 0 => tracing::warn!(
            requests,
            open_lines,
            in_spool,
            "stopped; lines without an end stay in the log files alone: without `storage` the next start \
             knows nothing of them"
        ),
        (0, false) if in_spool == 0 => tracing::info!("stopped: everything read is settled"),
        (0, _) => {
            tracing::warn!(
                requests,
                in_spool,
                "stopped; the next start sends what is in the spool"
            );
        }
        (_, true) if in_spool == 0 => {
            tracing::warn!(requests, records, "stopped; the next start reads the unsettled again");
        }
        (_, true) => tracing::warn!(
            requests,
            records,
            in_spool,
            "stopped; the next start reads the unsettled again, and sends what is in the spool"
        ),
        (_, false) => tracing::warn!(
            requests,
            records,
            in_spool,
            "stopped; what the sink did not acknowledge stays in the log files alone: without `storage` the \
             next start knows nothing of it"
        ),
    }
}

/// The signals that the agent answers to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen(runtime: &Runtime) -> anyhow::Result<Self> {
        let _entered = runtime.enter();
        let listen = |kind| signal(kind).context("signals can't be listened for");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the signal to stop.
    async fn first(mut self) -> anyhow::Result<Self> {
        let kind = self.next().await;
        tracing::info!(signal = kind.as_raw_value(), "stopping; a second signal stops at once");
        Ok(self)
    }

    /// Ends the process at the second signal.
    async fn second(mut self) {
        let kind = self.next().await;
        tracing::warn!(signal = kind.as_raw_value(), "stopped at once");
        std::process::exit(128 + kind.as_raw_value());
    }

    async fn next(&mut self) -> SignalKind {
        loop {
            tokio::select! {
                Some(()) = self.terminate.recv() => return SignalKind::terminate(),
                Some(()) = self.interrupt.recv() => return SignalKind::interrupt(),
                Some(()) = self.hangup.recv() => {
                    tracing::warn!("SIGHUP is ignored: the configuration is read at the start only");
                }
            }
        }
    }
}

/// Asks for as many descriptors as the system allows. Returns how many log files may be open: as many
/// as are wanted, or as the system leaves room for, which is said.
fn allowed_open_files(open_files_max: usize) -> anyhow::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
    let Some(limit) = getrlimit(Resource::Nofile).current else { return Ok(open_files_max) };
    let room = usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX);
    if room == 0 {
        anyhow::bail!(
            "the limit of open files is {limit}, which leaves none for log files: the agent needs \
             {OTHER_DESCRIPTORS} for itself; raise the limit"
        );
    }
    if room < open_files_max {
        const LESS: &str =
            "the system allows fewer open files than thyme's open_files_max: further ones wait";
        if open_files_max == ThymeConfig::default().open_files_max {
            tracing::info!(limit, open_files_max, room, "{LESS}");
        } else {
            tracing::warn!(limit, open_files_max, room, "{LESS}");
        }
    }
    Ok(open_files_max.min(room))
}
