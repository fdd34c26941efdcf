//! The command line of `rig`, and the environment variables that `make` passes on. Values are
//! parsed here into what the scenarios use; nothing below parses again.

use crate::tree::Volume;
use clap::{
    Args, Command, CommandFactory, Parser, Subcommand, ValueEnum, builder::FalseyValueParser,
};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};
use thyme_core::quantity::{grouped, parse_bytes_from_1, parse_count, parse_count_from_1};

/// Runs log-generator, an agent and nop-collector as processes on this machine, and proves by the
/// generator's manifest what arrived.
#[derive(Debug, Parser)]
#[command(version = thyme_core::version!())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// What stands below each help.
const EXIT_STATUS: &str = "\
Counts and rates may be written as 50k or 1.5M, times as 30, 30s or 1m 30s, sizes as 10MiB.

EXIT STATUS
  0      passed
  1      failed: lines were lost, came twice where they must not, or a limit was exceeded
  2      no verdict: options that make no sense, too little disk, a process that did not start
  128+N  stopped by signal N, such as 130 by Ctrl-C
  make itself ends with 2 whatever a failed command's status was.";

impl Cli {
    /// The command line, with the scenarios' own loads where they differ from the usual one.
    pub fn command_here() -> Command {
        let mut command = Self::command().after_help(EXIT_STATUS);
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
        // The variable was called LINES once, which terminals set to their height.
        let is_kind = |value: String| !value.is_empty() && value.parse::<u32>().is_err();
        let says_lines = env::var("LINES").is_ok_and(is_kind) && env::var_os("KIND").is_none();
        command.mut_subcommands(|scenario| {
            let scenario = scenario.after_help(EXIT_STATUS);
            let scenario = scenario.mut_args(|arg| arg.hide_env_values(true));
            if says_lines { scenario.mut_arg("kind", |kind| kind.env("LINES")) } else { scenario }
        })
    }
}

/// Loads that differ from the usual one: scenario, pods, lines per second.
const LOADS: [(&str, &str, &str); 4] = [
    ("fairness", "2000", "2000"),
    ("scale", "10000", "50000"),
    ("churn", "1000", "1000"),
    ("chaos", "20", "20000"),
];

/// A scenario: a load, what happens to it, and what must hold at the end. Each is the `make` target
/// of its name, `make run` or `make kill-test`.
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
    Fairness(FairnessOptions),
    /// Very many files: the agent must be up soon, idle cheaply and stay small.
    Scale(ScaleOptions),
    /// Pods that live for a moment only; nothing may be lost, and no deleted file stay open.
    Churn(ChurnOptions),
    /// Directories are removed and made again, the agent is stalled and killed, the sink goes away;
    /// nothing may be lost, and the agent may not say that something was.
    Chaos(ChaosOptions),
}

impl Scenario {
    /// What is common to all.
    pub fn load(&self) -> &LoadOptions {
        match self {
            Self::Run(options) => &options.load,
            Self::Kill(options) => &options.load,
            Self::Outage(options) => &options.load,
            Self::Fairness(options) => &options.load,
            Self::Scale(options) => &options.load,
            Self::Churn(options) => &options.load,
            Self::Chaos(options) => &options.load,
        }
    }
}

/// `rig run`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scenario")]
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
#[command(next_help_heading = "Scenario")]
pub struct KillOptions {
    /// How often the agent is killed.
    #[arg(long, env = "KILLS", default_value = "20", value_parser = parse_count::<u32>)]
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
#[command(next_help_heading = "Scenario")]
pub struct OutageOptions {
    /// How long the sink is away.
    #[arg(long, env = "OUTAGE", default_value = "120s", value_parser = parse_duration)]
    pub outage: Duration,
    /// In which way it is away.
    #[arg(long, env = "OUTAGE_MODE", default_value = "freeze")]
    pub mode: OutageMode,
    /// How often the agent is killed in the middle of the outage.
    #[arg(long, env = "OUTAGE_KILLS", default_value = "0", value_parser = parse_count::<u32>)]
    pub kills: u32,
    /// Load before the outage, and again after it.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub around: Duration,
    /// The load.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `rig fairness`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scenario")]
pub struct FairnessOptions {
    /// What the flooding pod writes, lines per second; 0 is as fast as possible.
    #[arg(long, env = "FLOOD_RATE", default_value = "200000", value_parser = parse_count::<u64>)]
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

/// `rig scale`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scenario")]
pub struct ScaleOptions {
    /// Lines that are in each file when the agent starts, and again after its restart.
    #[arg(long, default_value = "10", value_parser = parse_count_from_1::<u64>)]
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
    /// Most resident memory at any time.
    #[arg(long, default_value = "100MiB", value_parser = parse_bytes_from_1)]
    pub rss_max: u64,
    /// The files: a pod each.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// `rig churn`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scenario")]
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
#[command(next_help_heading = "Scenario")]
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
    /// Most kills of the agent. They come while it holds no deleted file. [default: no limit]
    #[arg(long, env = "KILLS", value_parser = parse_count::<u32>)]
    pub kills_max: Option<u32>,
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
    #[arg(long, env = "RATE", default_value = "50000", help_heading = "Load")]
    #[arg(value_parser = parse_count_from_1::<u64>)]
    pub rate: u64,
    /// Containers that write.
    #[arg(long, env = "PODS", default_value = "20", help_heading = "Load")]
    #[arg(value_parser = parse_count_from_1::<u32>)]
    pub pods: u32,
    /// What the lines look like.
    #[arg(long, env = "KIND", default_value = "mixed", help_heading = "Load")]
    pub kind: LineKind,
    /// Seed of the lines, and of the moments of kills. [default: random]
    #[arg(long, help_heading = "Load")]
    pub seed: Option<u64>,
    /// Size at which a log file is rotated.
    #[arg(long, env = "ROTATE_SIZE", default_value = "10MiB", help_heading = "Rotation")]
    #[arg(value_parser = parse_bytes_from_1)]
    pub rotate_size: u64,
    /// Files kept for each container, the live one included.
    #[arg(long, env = "ROTATE_FILES", default_value = "5", help_heading = "Rotation")]
    #[arg(value_parser = parse_count::<u32>)]
    pub rotate_files: u32,
    /// How often sizes are looked at.
    #[arg(long, env = "ROTATE_INTERVAL", default_value = "10s", help_heading = "Rotation")]
    #[arg(value_parser = parse_duration)]
    pub rotate_interval: Duration,
    /// How thyme-agent sends.
    #[arg(long, env = "PROTOCOL", default_value = "grpc", help_heading = "Agent")]
    pub protocol: Protocol,
    /// How thyme-agent compresses.
    #[arg(long, env = "COMPRESSION", default_value = "zstd", help_heading = "Agent")]
    pub compression: Compression,
    /// Lets thyme-agent give each record an identity, `log.record.uid`; then no duplicate may remain
    /// that a sink could not remove by it. (0, no, false and nothing are no.)
    #[arg(long, env = "RECORD_UID", value_parser = FalseyValueParser::new())]
    #[arg(help_heading = "Agent")]
    pub record_uid: bool,
    /// A configuration for the agent. {logs} {state} {grpc} {http} {metrics} {health} are filled in,
    /// as are {grpc_port} and so on; other braces stay. [default: generated]
    #[arg(long, env = "AGENT_CONFIG", value_name = "FILE", help_heading = "Agent")]
    pub agent_config: Option<OsString>,
    /// Another agent's command. It is split into words as by a shell, but no shell runs it; the same
    /// placeholders are filled in, and {config} with --agent-config. [default: the thyme-agent beside
    /// this program]
    #[arg(long, env = "AGENT", value_name = "COMMAND", help_heading = "Agent")]
    pub agent: Option<String>,
    /// Longest wait for the last lines once writing has ended.
    #[arg(long, default_value = "60s", value_parser = parse_duration, help_heading = "Run")]
    pub drain: Duration,
    /// Directory for the run's files. [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub tmp: Option<PathBuf>,
    /// Keep the run's files (logs, state, what the processes printed).
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new(), help_heading = "Run")]
    pub keep: bool,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Run")]
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

    /// Protocol and compression of the generated configuration; another agent or configuration has
    /// its own.
    pub fn transport(&self) -> Option<(&'static str, &'static str)> {
        let generated = self.other_agent().is_none() && self.agent_config().is_none();
        generated.then(|| (self.protocol.name(), self.compression.name()))
    }

    /// The load in words.
    pub fn described(&self) -> String {
        let (rate, pods) = (grouped(self.rate), grouped(self.pods.into()));
        format!("{rate} lines/s, {pods} pods, {} lines", self.kind.name())
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
            line_bytes: self.kind.mean_bytes(),
            files: self.rotate_files.into(),
            file_bytes: self.rotate_size,
            check_seconds: self.rotate_interval.as_secs_f64(),
        }
    }
}

/// What lines look like; log-generator's `--kind` too.
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
            for name in ["run", "fairness"] {
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
        let Scenario::Fairness(fairness) = parse("fairness") else { panic!() };
        assert_eq!((fairness.load.pods, fairness.load.rate), (2_000, 2_000));
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
    /// Scenario: the help of each scenario, and values that nothing can be done with.
    /// Guarantees: options stand in groups, with the defaults that count in that scenario; the exit
    /// statuses are explained; what is wrong is said in words.
    #[test]
    fn help_and_errors_are_in_words() {
        let help = |scenario: &str| {
            let mut command = Cli::command_here();
            command.find_subcommand_mut(scenario).unwrap().render_long_help().to_string()
        };
        for scenario in ["run", "kill", "outage", "fairness", "scale", "churn", "chaos"] {
            let help = help(scenario);
            for part in ["\nScenario:\n", "\nLoad:\n", "\nRotation:\n", "\nAgent:\n", "\nRun:\n"] {
                assert!(help.contains(part), "{scenario}: {help}");
            }
            assert!(help.contains("\nEXIT STATUS\n"), "{help}");
            assert!(!help.contains("unless given") && !help.contains("4294967295"), "{help}");
        }
        assert!(help("scale").contains("[default: 10000]"));
        assert!(help("chaos").contains("[default: 1MiB]"));
        let error = |option, value| {
            let matches = Cli::command_here().try_get_matches_from(["rig", "run", option, value]);
            matches.unwrap_err().to_string()
        };
        assert!(error("--rate", "0").contains("must be at least 1"), "{}", error("--rate", "0"));
        assert!(error("--rate", "fast").contains("such as 50000, 50k or 1.5M"));
        let matches = Cli::command_here().get_matches_from(["rig", "run", "--rate", "50k"]);
        let Scenario::Run(run) = Cli::from_arg_matches(&matches).unwrap().scenario else {
            panic!()
        };
        assert_eq!(run.load.rate, 50_000);
    }
}
