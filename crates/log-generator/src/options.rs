//! The command line, and the plan that it makes: every combination that has no meaning is refused
//! here, so that nothing that was said is ignored later.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use thyme_core::quantity::{parse_bytes, parse_count};
use thyme_core::splitmix::scramble;

use crate::churn::Lifetime;
use crate::container::Framing;
use crate::limits::{PODS_MAX, ROTATE_FILES_MIN, ROTATE_INTERVAL_MIN};
use crate::line::{Kind, SizeRange};
use crate::names::is_namespace;
use crate::rate::Pace;
use crate::rotate::Policy;

/// What stands below the help.
const EXIT_STATUS: &str = "\
Counts and rates may be written as 50k or 1.5M.

EXIT STATUS
  0  every line was written, and the manifest with it
  1  a line, a file or the manifest could not be written
  2  options that make no sense";

/// Writes stamped log lines at an exact rate.
#[derive(Clone, Debug, Parser)]
#[command(name = "log-generator", version = thyme_core::version!(), after_help = EXIT_STATUS)]
pub struct Options {
    /// `stdout` for a container's raw lines, or a directory for CRI files of pods (`./stdout` for a
    /// directory of that name).
    #[arg(long, default_value = "stdout", value_name = "stdout|DIR")]
    out: String,
    /// Lines a second over all pods; 0 writes as fast as possible.
    #[arg(long, default_value = "1000", value_name = "LINES/S", value_parser = parse_count::<u64>)]
    rate: u64,
    /// How long to write: `30s`, `5m`, or a number of seconds; without it and --lines until stopped.
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,
    /// How many lines to write over all pods.
    #[arg(long, value_name = "COUNT", value_parser = parse_count::<u64>)]
    lines: Option<u64>,
    /// Bytes of a body with its stamp, uniform, both ends included. 100..1000 for random lines; other
    /// kinds have their natural size unless this is given, and are then filled up to it.
    #[arg(long, value_name = "MIN..MAX")]
    size: Option<SizeRange>,
    /// What the lines look like.
    #[arg(long, value_enum, default_value_t = Kind::Random)]
    kind: Kind,
    /// Makes texts and names the same as in another run; without --run the run id too.
    #[arg(long)]
    seed: Option<u64>,
    /// Run id in the stamps; decimal or 0x hexadecimal; otherwise from the seed, or random.
    #[arg(long, value_parser = parse_id)]
    run: Option<u32>,
    /// Writer id in the stamps of stdout; otherwise from the host's name.
    #[arg(long, value_parser = parse_id)]
    writer: Option<u32>,
    /// File for the manifest, written each second and at the end.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Serves /manifest, /metrics, /healthz and POST /stop on this address; port 0 picks one.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Stays after the last line until SIGTERM.
    #[arg(long)]
    linger: bool,
    /// Pods to write for, each with one container [default: 1].
    #[arg(long, value_parser = parse_count::<u32>, help_heading = "Only with --out DIR")]
    pods: Option<u32>,
    /// Namespace in the pods' directories [default: load].
    #[arg(long, help_heading = "Only with --out DIR")]
    namespace: Option<String>,
    /// Share of lines on stderr, 0 to 1 [default: 0].
    #[arg(long, help_heading = "Only with --out DIR")]
    stderr_share: Option<f64>,
    /// Longer bodies are split into P and F lines as containerd does, bytes [default: 16384].
    #[arg(long, value_parser = parse_bytes, help_heading = "Only with --out DIR")]
    partial_max: Option<u64>,
    /// Size from which a file is rotated; 0 never rotates [default: 10MiB].
    #[arg(long, value_parser = parse_bytes, help_heading = "Only with --out DIR")]
    rotate_size: Option<u64>,
    /// Files of a container at most, the live one included [default: 5].
    #[arg(long, help_heading = "Only with --out DIR")]
    rotate_files: Option<u32>,
    /// Time between two checks of the sizes [default: 10s].
    #[arg(long, value_parser = parse_duration, help_heading = "Only with --out DIR")]
    rotate_interval: Option<Duration>,
    /// Rotates between a P line and its F line; --size has to make such lines.
    #[arg(long, help_heading = "Only with --out DIR")]
    rotate_between_partials: bool,
    /// Pods come and go: they start one after another, evenly over --duration, and each writes its
    /// lines within so long, then ends. Nothing is rotated.
    #[arg(long, value_parser = parse_duration, help_heading = "Only with --out DIR")]
    lifetime: Option<Duration>,
    /// Removes the directory of a pod so long after its end; without it directories stay.
    #[arg(long, value_parser = parse_duration, help_heading = "Only with --out DIR")]
    removed_after: Option<Duration>,
}

/// Why the options make no plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionsError {
    /// The option concerns files of pods.
    #[error("{0} needs --out DIR")]
    NeedsDirectory(&'static str),
    /// The option concerns stdout.
    #[error("--writer needs --out stdout: pods number their writers themselves")]
    NeedsStdout,
    /// Without pods there is nothing to write for; too many are too many open files.
    #[error("--pods lies between 1 and {PODS_MAX}")]
    Pods,
    /// Not a DNS label.
    #[error("--namespace is not a Kubernetes namespace")]
    Namespace,
    /// Not a share.
    #[error("--stderr-share lies between 0 and 1")]
    StderrShare,
    /// Nothing fits.
    #[error("--partial-max is at least 1 byte")]
    PartialMax,
    /// The kubelet's limit.
    #[error("--rotate-files is at least {ROTATE_FILES_MIN}")]
    RotateFiles,
    /// Too short to do anything in between.
    #[error("--rotate-interval is at least {} ms", ROTATE_INTERVAL_MIN.as_millis())]
    RotateInterval,
    /// There would be no such line to rotate at.
    #[error("--rotate-between-partials needs a --size above --partial-max, and rotation")]
    NothingPartial,
    /// Then there is no telling when pods start, or how much they write.
    #[error("--lifetime needs a --duration, a --rate or --lines, and at least a millisecond")]
    Lifetime,
    /// No pod ends.
    #[error("--removed-after needs --lifetime")]
    NothingEnds,
    /// Pods that come and go are too short-lived for it.
    #[error("--lifetime goes without rotation")]
    RotationOfShortLived,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where lines go.
    pub target: Target,
    /// When they go there.
    pub pace: Pace,
    /// Lines a second as asked for.
    pub rate: u64,
    /// What they look like.
    pub kind: Kind,
    /// How long they are.
    pub size: Option<SizeRange>,
    /// What texts and names follow from.
    pub seed: u64,
    /// The run in all stamps.
    pub run: u32,
    /// The manifest's file.
    pub manifest: Option<PathBuf>,
    /// Address of the admin endpoints.
    pub admin: Option<SocketAddr>,
    /// Whether to stay after the last line.
    pub linger: bool,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// The process's stdout, as the writer of that id.
    Stdout {
        /// Writer id.
        writer: u32,
    },
    /// Files of pods.
    Pods(Pods),
}

/// The files of pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Pods {
    /// What plays `/var/log/pods`.
    pub root: PathBuf,
    /// How many.
    pub count: u32,
    /// Their namespace.
    pub namespace: String,
    /// Share of lines on stderr.
    pub stderr_share: f64,
    /// How lines stand in the files.
    pub framing: Framing,
    /// How files are rotated, if at all.
    pub rotation: Option<Policy>,
    /// Whether a rotation waits for a line in fragments.
    pub rotate_between_partials: bool,
    /// How long pods live, where they come and go.
    pub lifetime: Option<Lifetime>,
}

impl Options {
    /// Checks the options and fills in what wasn't said.
    ///
    /// # Errors
    /// The first combination without meaning.
    pub fn plan(self) -> Result<Plan, OptionsError> {
        let target = if self.out == "stdout" { self.stdout()? } else { self.pods()? };
        let seed = self.seed.unwrap_or_else(random_seed);
        Ok(Plan {
            target,
            pace: Pace::new(self.rate, self.lines, self.duration),
            rate: self.rate,
            kind: self.kind,
            size: self.size,
            seed,
            run: self.run.unwrap_or(scramble(seed) as u32),
            manifest: self.manifest,
            admin: self.admin,
            linger: self.linger,
        })
    }

    fn stdout(&self) -> Result<Target, OptionsError> {
        let given = [
            ("--pods", self.pods.is_some()),
            ("--namespace", self.namespace.is_some()),
            ("--stderr-share", self.stderr_share.is_some()),
            ("--partial-max", self.partial_max.is_some()),
            ("--rotate-size", self.rotate_size.is_some()),
            ("--rotate-files", self.rotate_files.is_some()),
            ("--rotate-interval", self.rotate_interval.is_some()),
            ("--rotate-between-partials", self.rotate_between_partials),
            ("--lifetime", self.lifetime.is_some()),
            ("--removed-after", self.removed_after.is_some()),
        ];
        if let Some((name, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(OptionsError::NeedsDirectory(name));
        }
        Ok(Target::Stdout { writer: self.writer.unwrap_or_else(writer_of_host) })
    }

    fn pods(&self) -> Result<Target, OptionsError> {
        if self.writer.is_some() {
            return Err(OptionsError::NeedsStdout);
        }
        let count = self.pods.unwrap_or(1);
        if !(1..=PODS_MAX).contains(&count) {
            return Err(OptionsError::Pods);
        }
        let namespace = self.namespace.clone().unwrap_or_else(|| "load".to_owned());
        if !is_namespace(&namespace) {
            return Err(OptionsError::Namespace);
        }
        let stderr_share = self.stderr_share.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&stderr_share) {
            return Err(OptionsError::StderrShare);
        }
        let partial_bytes_max = usize::try_from(self.partial_max.unwrap_or(16_384))
            .ok()
            .filter(|&bytes| bytes > 0)
            .ok_or(OptionsError::PartialMax)?;
        let lifetime = self.lifetime()?;
        let rotation = self.rotation()?.filter(|_| lifetime.is_none());
        let longest = self.size.unwrap_or(SizeRange::DEFAULT).max();
        if self.rotate_between_partials && (longest <= partial_bytes_max || rotation.is_none()) {
            return Err(OptionsError::NothingPartial);
        }
        Ok(Target::Pods(Pods {
            root: PathBuf::from(&self.out),
            count,
            namespace,
            stderr_share,
            framing: Framing::Cri { partial_bytes_max },
            rotation,
            rotate_between_partials: self.rotate_between_partials,
            lifetime,
        }))
    }

    fn lifetime(&self) -> Result<Option<Lifetime>, OptionsError> {
        let Some(lives_for) = self.lifetime else {
            return match self.removed_after {
                Some(_) => Err(OptionsError::NothingEnds),
                None => Ok(None),
            };
        };
        let rotates = self.rotate_size.is_some()
            || self.rotate_files.is_some()
            || self.rotate_interval.is_some();
        if rotates {
            return Err(OptionsError::RotationOfShortLived);
        }
        let is_known = self.rate > 0 || self.lines.is_some();
        match self.duration {
            Some(starts_within) if is_known && lives_for >= Duration::from_millis(1) => {
                Ok(Some(Lifetime { starts_within, lives_for, removed_after: self.removed_after }))
            }
            _ => Err(OptionsError::Lifetime),
        }
    }

    fn rotation(&self) -> Result<Option<Policy>, OptionsError> {
        let policy = Policy {
            size_bytes: self.rotate_size.unwrap_or(10 << 20),
            files_max: self.rotate_files.unwrap_or(5),
            interval: self.rotate_interval.unwrap_or(Duration::from_secs(10)),
        };
        if policy.files_max < ROTATE_FILES_MIN {
            return Err(OptionsError::RotateFiles);
        }
        if policy.interval < ROTATE_INTERVAL_MIN {
            return Err(OptionsError::RotateInterval);
        }
        Ok((policy.size_bytes > 0).then_some(policy))
    }
}

/// `30` or `30s` or `1m 30s`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }
}

fn parse_id(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| error.to_string())
}

/// Different in every process: the standard library keys its hash maps from the system's entropy.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Different in every pod, and the same after a restart of its container.
fn writer_of_host() -> u32 {
    match fs::read("/proc/sys/kernel/hostname") {
        Ok(name) => name.iter().fold(0, |hash, &byte| scramble(hash ^ u64::from(byte))) as u32,
        Err(_) => random_seed() as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, OptionsError> {
        let arguments = ["log-generator"].iter().chain(arguments);
        Options::try_parse_from(arguments).unwrap().plan()
    }

    /// Scenario: no options at all, and a directory alone.
    /// Guarantees: the documented defaults.
    #[test]
    fn defaults() {
        let stdout = plan(&[]).unwrap();
        assert!(matches!(stdout.target, Target::Stdout { .. }));
        assert_eq!((stdout.kind, stdout.rate, stdout.linger), (Kind::Random, 1_000, false));
        let Target::Pods(pods) = plan(&["--out", "logs"]).unwrap().target else { panic!() };
        let rotation =
            Policy { size_bytes: 10 << 20, files_max: 5, interval: Duration::from_secs(10) };
        assert_eq!(pods.rotation, Some(rotation));
        assert_eq!(pods.framing, Framing::Cri { partial_bytes_max: 16_384 });
        assert_eq!((pods.count, pods.namespace.as_str(), pods.stderr_share), (1, "load", 0.0));
    }

    /// Scenario: the same seed twice, a run of its own, and no seed.
    /// Guarantees: the run follows from the seed unless it is given, and differs otherwise.
    #[test]
    fn runs() {
        let run = |arguments: &[&str]| plan(arguments).unwrap().run;
        assert_eq!(run(&["--seed", "1"]), run(&["--seed", "1"]));
        assert_ne!(run(&["--seed", "1"]), run(&["--seed", "2"]));
        assert_eq!(run(&["--seed", "1", "--run", "0xff"]), 255);
        assert_ne!(run(&[]), run(&[]));
    }

    /// Scenario: options that contradict each other or lie outside of their limits.
    /// Guarantees: each is refused by name.
    #[test]
    fn refusals() {
        use OptionsError as E;
        let cases: [(&[&str], OptionsError); 15] = [
            (&["--pods", "2"], E::NeedsDirectory("--pods")),
            (&["--rotate-size", "0"], E::NeedsDirectory("--rotate-size")),
            (&["--out", "d", "--writer", "1"], E::NeedsStdout),
            (&["--out", "d", "--pods", "0"], E::Pods),
            (&["--out", "d", "--namespace", "a_b"], E::Namespace),
            (&["--out", "d", "--stderr-share", "1.5"], E::StderrShare),
            (&["--out", "d", "--partial-max", "0"], E::PartialMax),
            (&["--out", "d", "--rotate-files", "1"], E::RotateFiles),
            (&["--out", "d", "--rotate-interval", "1ms"], E::RotateInterval),
            (&["--out", "d", "--rotate-between-partials"], E::NothingPartial),
            (&["--lifetime", "50ms"], E::NeedsDirectory("--lifetime")),
            (&["--out", "d", "--lifetime", "50ms"], E::Lifetime),
            (&["--out", "d", "--lifetime", "50ms", "--duration", "9", "--rate", "0"], E::Lifetime),
            (&["--out", "d", "--removed-after", "1s"], E::NothingEnds),
            (
                &["--out", "d", "--lifetime", "1s", "--duration", "9", "--rotate-size", "0"],
                E::RotationOfShortLived,
            ),
        ];
        for (arguments, error) in cases {
            assert_eq!(plan(arguments).unwrap_err(), error, "{arguments:?}");
        }
    }

    /// Scenario: nothing is said about the admin endpoints.
    /// Guarantees: there are none; where they are wanted, their address has to be said.
    #[test]
    fn nothing_is_served_unless_told_to() {
        assert_eq!(plan(&[]).unwrap().admin, None);
        assert_eq!(plan(&["--out", "d"]).unwrap().admin, None);
    }

    /// Scenario: durations, rates, sizes of lines and ids as people write them.
    /// Guarantees: each is understood, or refused.
    #[test]
    fn values() {
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("x").is_err());
        assert_eq!(plan(&["--rate", "50k"]).unwrap().rate, 50_000);
        assert_eq!(parse_id("0x10"), Ok(16));
        assert!(parse_id("-1").is_err());
        assert_eq!("100..=1000".parse(), Ok(SizeRange::DEFAULT));
        assert_eq!("500".parse(), SizeRange::new(500, 500));
        assert!("10..20".parse::<SizeRange>().is_err() && "9".parse::<SizeRange>().is_err());
        assert!("300..200".parse::<SizeRange>().is_err());
    }
}
