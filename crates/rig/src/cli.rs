//! The command line of `rig`, and the environment variables that `make` passes on. Values are
//! parsed here into what the scenarios use; nothing below parses again.

use crate::{limits, tree::Volume};
use clap::{
    Args, Command, CommandFactory, Parser, Subcommand, ValueEnum, builder::FalseyValueParser,
};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

/// Runs log-generator, an agent and nop-collector as processes on this machine, and proves by the
/// generator's manifest what arrived.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub scenario: Scenario,
}

impl Cli {
    /// The command line, with the scenarios' own loads where they differ from the usual one, and
    /// without the environment's `LINES` when that is a terminal's height.
    pub fn command_here() -> Command {
        let is_height = |value: String| value.parse::<u32>().is_ok();
        let lines_is_height = env::var("LINES").is_ok_and(is_height);
        let mut command = Self::command();
        for (scenario, pods, rate) in LOADS {
            command = command.mut_subcommand(scenario, |scenario| {
                let scenario = scenario.mut_arg("pods", |arg| arg.default_value(pods));
                scenario.mut_arg("rate", |arg| arg.default_value(rate))
            });
        }
        command = command.mut_subcommand("chaos", |scenario| {
            // At the usual rate each pod is rotated every four seconds, and a file that was removed is
            // made again soon.
            let scenario = scenario.mut_arg("rotate_size", |arg| arg.default_value("1MiB"));
            scenario.mut_arg("rotate_interval", |arg| arg.default_value("100ms"))
        });
        let names: Vec<String> =
            command.get_subcommands().map(|scenario| scenario.get_name().to_owned()).collect();
        for name in names.into_iter().filter(|_| lines_is_height) {
            command = command.mut_subcommand(name, |scenario| {
                scenario.mut_arg("lines", |lines| lines.env(None::<&str>))
            });
        }
        command
    }
}

/// Loads that differ from the usual one: scenario, pods, lines per second.
const LOADS: [(&str, &str, &str); 4] = [
    ("flood", "2000", "2000"),
    ("many", "10000", "50000"),
    ("churn", "1000", "1000"),
    ("chaos", "20", "20000"),
];

/// A scenario: a load, what happens to it, and what must hold at the end.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// A steady load; nothing may be lost or come twice.
    Run(RunOptions),
    /// The agent is killed again and again (SIGKILL) and restarted; nothing may be lost, and only
    /// what was unacknowledged may come twice.
    Kill(KillOptions),
    /// The sink stops for a while; nothing may be lost, and memory must stay flat.
    Outage(OutageOptions),
    /// Many quiet pods, alone at first, then beside one that floods; they must hardly feel it.
    Flood(FloodOptions),
    /// Very many files: the agent must be up soon, idle cheaply and stay small.
    Many(ManyOptions),
    /// Pods that live for a moment only; nothing may be lost, and no deleted file stay open.
    Churn(ChurnOptions),
    /// Directories are removed and made again, the agent is stalled and killed, the sink goes away;
    /// nothing may be lost, and the agent may not say that something was.
    Chaos(ChaosOptions),
}

/// `rig run`.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// How long lines are written (`15` is 15 s).
    #[arg(long, env = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,
    /// The load.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `rig kill`.
#[derive(Debug, Args)]
pub struct KillOptions {
    /// How often the agent is killed.
    #[arg(long, env = "KILLS", default_value_t = 20)]
    pub kills: u32,
    /// Shortest time between two kills.
    #[arg(long, env = "GAP_MIN", default_value = "300ms", value_parser = parse_duration)]
    pub gap_min: Duration,
    /// Longest time between two kills.
    #[arg(long, env = "GAP_MAX", default_value = "3s", value_parser = parse_duration)]
    pub gap_max: Duration,
    /// The load.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `rig outage`.
#[derive(Debug, Args)]
pub struct OutageOptions {
    /// How long the sink is away.
    #[arg(long, env = "OUTAGE", default_value = "120s", value_parser = parse_duration)]
    pub outage: Duration,
    /// In which way it is away.
    #[arg(long, env = "OUTAGE_MODE", default_value = "freeze")]
    pub mode: OutageMode,
    /// How often the agent is killed in the middle of the outage.
    #[arg(long, env = "OUTAGE_KILLS", default_value_t = 0)]
    pub kills: u32,
    /// Load before the outage, and again after it.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub around: Duration,
    /// The load.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `rig flood`.
#[derive(Debug, Args)]
pub struct FloodOptions {
    /// What the flooding pod writes, lines per second; 0 is as fast as possible.
    #[arg(long, env = "FLOOD_RATE", default_value_t = 200_000)]
    pub flood_rate: u64,
    /// Length of each of the two measurements, without the flood and with it.
    #[arg(long, env = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long the quiet pods write before the first.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub warm_up: Duration,
    /// How many times their p99 latency alone the quiet pods' may be beside the flood.
    #[arg(long, default_value_t = 2.0)]
    pub ratio_max: f64,
    /// The quiet pods.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `rig many`.
#[derive(Debug, Args)]
pub struct ManyOptions {
    /// Lines that are in each file when the agent starts, and again after its restart.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub lines_per_file: u64,
    /// How long nobody writes before the agent is taken for idle.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub settle: Duration,
    /// How long the idle agent is measured.
    #[arg(long, env = "IDLE", default_value = "30s", value_parser = parse_duration)]
    pub idle: Duration,
    /// Longest time from a start until all files are open and what is in them has come. It says
    /// little where others use the processors: see --startup-cpu-max.
    #[arg(long, env = "STARTUP_MAX", default_value = "2s", value_parser = parse_duration)]
    pub startup_max: Duration,
    /// Most processor time of the agent within that.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub startup_cpu_max: Duration,
    /// Most processor time of the idle agent, as a share of one core.
    #[arg(long, default_value_t = 0.015)]
    pub idle_cores_max: f64,
    /// Most resident memory at any time, such as 100MiB.
    #[arg(long, default_value = "100MiB", value_parser = parse_bytes)]
    pub rss_max: u64,
    /// The files: a pod each.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `rig churn`.
#[derive(Debug, Args)]
pub struct ChurnOptions {
    /// Time in which all pods start, one after another.
    #[arg(long, env = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long each lives.
    #[arg(long, default_value = "50ms", value_parser = parse_duration)]
    pub lifetime: Duration,
    /// How long its directory stays after its end.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub removed_after: Duration,
    /// Longest wait until the agent has let go of the last deleted file.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub release_max: Duration,
    /// The pods.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `rig chaos`.
#[derive(Debug, Args)]
pub struct ChaosOptions {
    /// How long things happen.
    #[arg(long, env = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Shortest time between two events.
    #[arg(long, env = "GAP_MIN", default_value = "50ms", value_parser = parse_duration)]
    pub gap_min: Duration,
    /// Longest time between two events.
    #[arg(long, env = "GAP_MAX", default_value = "500ms", value_parser = parse_duration)]
    pub gap_max: Duration,
    /// Most kills of the agent. They come while it holds no deleted file.
    #[arg(long, env = "KILLS", default_value_t = u32::MAX, hide_default_value = true)]
    pub kills_max: u32,
    /// In which way the sink is away.
    #[arg(long, env = "OUTAGE_MODE", default_value = "refuse")]
    pub outage_mode: OutageMode,
    /// The load.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// What is common to all scenarios.
#[derive(Clone, Debug, Args)]
pub struct LoadOptions {
    /// Lines per second, all pods together.
    #[arg(long, env = "RATE", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// Containers that write.
    #[arg(long, env = "PODS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub pods: u32,
    /// What the lines look like. (A number in the environment's LINES is a terminal's height, and
    /// is ignored.)
    #[arg(long, env = "LINES", default_value = "mixed")]
    pub lines: LineKind,
    /// How thyme-agent sends.
    #[arg(long, env = "PROTOCOL", default_value = "grpc")]
    pub protocol: Protocol,
    /// How thyme-agent compresses.
    #[arg(long, env = "COMPRESSION", default_value = "zstd")]
    pub compression: Compression,
    /// Lets thyme-agent give each record an identity, `log.record.uid`; then no duplicate may remain
    /// that a sink could not remove by it. (0, no, false and nothing are no.)
    #[arg(long, env = "RECORD_UID", value_parser = FalseyValueParser::new())]
    pub record_uid: bool,
    /// A configuration for the agent instead of the generated one. {logs} {state} {grpc} {http}
    /// {metrics} {health} are filled in, as are {grpc_port} and so on; other braces stay.
    #[arg(long, env = "AGENT_CONFIG", value_name = "FILE")]
    pub agent_config: Option<OsString>,
    /// Another agent's command instead of thyme-agent. It is split into words as by a shell, but no
    /// shell runs it; the same placeholders are filled in, and {config} with --agent-config.
    #[arg(long, env = "AGENT", value_name = "COMMAND")]
    pub agent: Option<String>,
    /// Size at which a log file is rotated, such as 10MiB; log-generator's default unless given.
    #[arg(long, env = "ROTATE_SIZE", value_parser = parse_bytes)]
    pub rotate_size: Option<u64>,
    /// Files kept for each container, the live one included; log-generator's default unless given.
    #[arg(long, env = "ROTATE_FILES")]
    pub rotate_files: Option<u32>,
    /// How often sizes are looked at; log-generator's default unless given.
    #[arg(long, env = "ROTATE_INTERVAL", value_parser = parse_duration)]
    pub rotate_interval: Option<Duration>,
    /// Seed of the lines, and of the moments of kills; random unless given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Longest wait for the last lines once writing has ended.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub drain: Duration,
    /// Directory for the run's tree; the system's temporary directory unless given.
    #[arg(long, value_name = "DIR")]
    pub tmp: Option<PathBuf>,
    /// Keep the tree (logs, state, what the processes printed) and say where it is.
    #[arg(long)]
    pub keep: bool,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl LoadOptions {
    /// Where the tree is made.
    pub fn base(&self) -> PathBuf {
        self.tmp.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// The given configuration; an empty variable is none.
    pub fn agent_config(&self) -> Option<&Path> {
        self.agent_config.as_deref().filter(|path| !path.is_empty()).map(Path::new)
    }

    /// Another agent's command; a blank one, such as an empty variable, is none.
    pub fn other_agent(&self) -> Option<&str> {
        self.agent.as_deref().filter(|command| !command.trim().is_empty())
    }

    /// The most that may lie on the disk at once when this is written for `duration`.
    pub fn disk_bytes_max(&self, duration: Duration) -> u64 {
        self.volume(duration).disk_bytes_max()
    }

    /// What decides how much is written in `duration`.
    pub fn volume(&self, duration: Duration) -> Volume {
        Volume {
            rate: self.rate,
            pods: self.pods.into(),
            seconds: duration.as_secs_f64(),
            line_bytes: self.lines.mean_bytes(),
            files: self.rotate_files.unwrap_or(limits::ROTATE_FILES).into(),
            file_bytes: self.rotate_size.unwrap_or(limits::ROTATE_BYTES),
            check_seconds: self.rotate_interval.unwrap_or(limits::ROTATE_INTERVAL).as_secs_f64(),
        }
    }
}

/// What lines look like; log-generator's `--kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LineKind {
    /// Text, JSON and access lines of about 220 bytes.
    Mixed,
    /// Random text of 100 to 1000 bytes, which hardly compresses.
    Random,
    /// JSON objects.
    Json,
    /// A web server's access log.
    Access,
}

impl LineKind {
    /// As log-generator spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Random => "random",
            Self::Json => "json",
            Self::Access => "access",
        }
    }

    /// Mean length in a CRI file, its header included, rounded up: for the estimate of disk space.
    fn mean_bytes(self) -> u64 {
        match self {
            Self::Mixed => 260,
            Self::Random => 600,
            Self::Json => 270,
            Self::Access => 300,
        }
    }
}

/// How a sink is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutageMode {
    /// Its process stands still: connections stay, nothing is answered.
    Freeze,
    /// Its ports are closed and its connections broken.
    Refuse,
}

impl OutageMode {
    /// As the table spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Refuse => "refuse",
        }
    }
}

/// OTLP's transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf bodies.
    Http,
}

impl Protocol {
    /// As the table spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// Compression of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
    /// As they are.
    None,
}

impl Compression {
    /// As the Collector's configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }
}

/// Parses `15` (seconds) or what humantime reads, such as `1m 30s`; nothing shorter than 1 ms.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_not_a_number) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if duration < Duration::from_millis(1) {
        return Err("shorter than a millisecond".into());
    }
    Ok(duration)
}

/// Parses `4096`, `64KiB`, `10MiB` or `1GiB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
        .unwrap_or((text, 0));
    let number: u64 = digits.trim().parse().map_err(|error| format!("{error}"))?;
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| "not between 1 byte and 16 EiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    /// Scenario: clap's own check of the definitions.
    /// Guarantees: no option collides with another.
    #[test]
    fn the_command_line_is_sound() {
        Cli::command_here().debug_assert();
    }

    /// Scenario: two scenarios without options.
    /// Guarantees: each has the load that is its own.
    #[test]
    fn scenarios_have_loads_of_their_own() {
        let parse = |scenario| {
            let mut command = Cli::command_here();
            for name in ["run", "flood"] {
                command = command.mut_subcommand(name, |scenario| {
                    let scenario = scenario.mut_arg("pods", |arg| arg.env(None::<&str>));
                    scenario.mut_arg("rate", |arg| arg.env(None::<&str>))
                });
            }
            let matches = command.get_matches_from(["rig", scenario]);
            Cli::from_arg_matches(&matches).unwrap().scenario
        };
        let Scenario::Run(run) = parse("run") else { panic!() };
        assert_eq!((run.load.pods, run.load.rate), (20, 50_000));
        let Scenario::Flood(flood) = parse("flood") else { panic!() };
        assert_eq!((flood.load.pods, flood.load.rate), (2_000, 2_000));
    }

    /// Scenario: durations as people write them.
    /// Guarantees: a bare number is seconds; nonsense and nothing are refused.
    #[test]
    fn a_bare_number_is_seconds() {
        assert_eq!(parse_duration("15"), Ok(Duration::from_secs(15)));
        assert_eq!(parse_duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        for text in ["", "0", "-1", "1.5", "15 parsecs", "1us"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    /// Scenario: sizes with and without units.
    /// Guarantees: binary units; nothing overflows.
    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64KiB"), Ok(64 << 10));
        assert_eq!(parse_bytes("10MiB"), Ok(10 << 20));
        for text in ["", "0", "MiB", "-1", "10MB", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
