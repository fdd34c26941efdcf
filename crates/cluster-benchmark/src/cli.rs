//! The command line and the environment. Values are parsed here into what the run uses.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs the thyme benchmark on a Kubernetes cluster and writes a report.
#[derive(Debug, Parser)]
#[command(version = thyme_core::version!())]
pub struct Cli {
    /// Where to run.
    #[command(subcommand)]
    pub place: Place,
}

/// Where to run.
#[derive(Debug, Subcommand)]
pub enum Place {
    /// On EKS: makes the cluster, runs, reports, and takes everything away.
    Aws(AwsOptions),
    /// On the cluster of a kubeconfig, which stays as it is.
    Here(HereOptions),
}

/// On EKS.
#[derive(Debug, Args)]
pub struct AwsOptions {
    /// Length of the active phase, minutes.
    #[arg(default_value = "30", value_parser = parse_minutes, value_name = "MINUTES")]
    pub active: Duration,
    /// The cluster's name. Each has a state of its own.
    #[arg(default_value = DEFAULT_CLUSTER, value_parser = parse_cluster)]
    pub cluster: String,
    /// Region of the cluster.
    #[arg(long, env = "AWS_REGION", default_value = "eu-central-1")]
    pub region: String,
    /// Take the cluster away after the report; unless given, if it is this run that has made it.
    #[arg(long, env = "AUTO_CLEANUP")]
    pub auto_cleanup: Option<bool>,
    /// Platform that images are built for.
    #[arg(long, env = "PLATFORM", default_value = "linux/amd64")]
    pub platform: String,
    /// Who may reach the cluster's API, comma-separated CIDRs; this machine's own address unless
    /// given.
    #[arg(long, env = "PUBLIC_ACCESS_CIDRS", value_delimiter = ',')]
    pub public_access_cidrs: Vec<String>,
    /// How long to wait until the load balancer is gone before the cluster is destroyed.
    #[arg(long, env = "LOAD_BALANCER_WAIT", default_value = "15m", value_parser = humantime::parse_duration)]
    pub load_balancer_wait: Duration,
    /// How long to wait until Grafana answers through its load balancer.
    #[arg(long, env = "GRAFANA_WAIT", default_value = "10m", value_parser = humantime::parse_duration)]
    pub grafana_wait: Duration,
    /// Only take everything away: Kubernetes resources, load balancer, cluster.
    #[arg(long, value_name = "CLUSTER", value_parser = parse_cluster, conflicts_with = "leftovers")]
    pub destroy: Option<String>,
    /// Only list what still exists by its tags, each confirmed by its own service.
    #[arg(long)]
    pub leftovers: bool,
    /// The load and its report.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// On any cluster.
#[derive(Debug, Args)]
pub struct HereOptions {
    /// Length of the active phase, minutes.
    #[arg(default_value = "30", value_parser = parse_minutes, value_name = "MINUTES")]
    pub active: Duration,
    /// The kustomization to apply.
    #[arg(long, env = "OVERLAY", default_value = "deployment/local")]
    pub overlay: PathBuf,
    /// Delete the Kubernetes resources after the report.
    #[arg(long, env = "AUTO_CLEANUP", default_value_t = false, action = clap::ArgAction::Set)]
    pub auto_cleanup: bool,
    /// The images: those that the overlay names, or those of this commit from the registry.
    #[arg(long, env = "IMAGES", default_value = "overlay")]
    pub images: Images,
    /// The load and its report.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// What both have.
#[derive(Clone, Debug, Args)]
pub struct LoadOptions {
    /// Load before the active phase, minutes; its lines count, its figures don't.
    #[arg(long, env = "RAMPUP_MINUTES", default_value = "5", value_parser = parse_minutes, value_name = "MINUTES")]
    pub rampup: Duration,
    /// Time after the load, minutes; the last lines arrive in it.
    #[arg(long, env = "COOLDOWN_MINUTES", default_value = "10", value_parser = parse_minutes, value_name = "MINUTES")]
    pub cooldown: Duration,
    /// How long nothing may arrive until an earlier load counts as drained.
    #[arg(long, env = "QUIET_TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub quiet_time: Duration,
    /// How long to wait for lines that have not arrived when the cool-down is over.
    #[arg(long, env = "DRAIN_WAIT", default_value = "10m", value_parser = humantime::parse_duration)]
    pub drain_wait: Duration,
    /// How often figures are taken.
    #[arg(long, env = "SAMPLE_INTERVAL", default_value = "15s", value_parser = humantime::parse_duration)]
    pub sample_interval: Duration,
    /// How often something that is waited for is looked at.
    #[arg(long, env = "POLL_INTERVAL", default_value = "5s", value_parser = humantime::parse_duration)]
    pub poll_interval: Duration,
    /// Where the images are.
    #[arg(long, env = "REGISTRY", default_value = "ghcr.io/ollygarden")]
    pub registry: String,
    /// Takes images that were pushed before, by their tag, instead of building this commit's.
    #[arg(long, env = "IMAGE_TAG")]
    pub image_tag: Option<String>,
    /// Builds, pushes and inspects images.
    #[arg(long, env = "CONTAINER_TOOL", default_value = "docker")]
    pub container_tool: String,
    /// Where reports go.
    #[arg(long, env = "REPORTS", default_value = "local/reports")]
    pub reports: PathBuf,
}

/// Which images run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Images {
    /// Those that the overlay names.
    Overlay,
    /// Those of this commit, by digest.
    Commit,
}

/// The cluster that the quick start makes by hand; it lives in OpenTofu's default workspace.
pub const DEFAULT_CLUSTER: &str = "thyme-benchmark";

/// Parses a number of minutes, also a fraction of one.
fn parse_minutes(text: &str) -> Result<Duration, String> {
    // The collectors tell apart what comes in about ten hours.
    const MINUTES_MAX: f64 = 8.0 * 60.0;
    let minutes: f64 = text.parse().map_err(|_| "expected a number of minutes".to_owned())?;
    if !(0.0..=MINUTES_MAX).contains(&minutes) {
        return Err(format!("expected minutes between 0 and {MINUTES_MAX}"));
    }
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

/// The rule of `infrastructure/aws/variables.tf`, applied before anything is built. `default` is the
/// workspace of the default cluster.
fn parse_cluster(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_good = (2..=29).contains(&text.len())
        && text.bytes().all(inner)
        && text.as_bytes()[0].is_ascii_lowercase()
        && !text.ends_with('-')
        && text != "default";
    match is_good {
        true => Ok(text.to_owned()),
        false => {
            Err("expected 2 to 29 lower-case letters, digits and hyphens; a letter first, no \
                      hyphen last, and not `default`"
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Scenario: clap's own check of the definitions.
    /// Guarantees: no option collides with another.
    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Scenario: the ways in which the documents call it.
    /// Guarantees: minutes and cluster stand where they are said to, with the documented defaults.
    #[test]
    fn the_documented_calls() {
        let parse = |arguments: &[&str]| {
            let arguments = ["cluster-benchmark", "aws"].iter().chain(arguments);
            match Cli::try_parse_from(arguments).unwrap().place {
                Place::Aws(options) => options,
                Place::Here(_) => unreachable!("aws was said"),
            }
        };
        let plain = parse(&[]);
        assert_eq!((plain.active.as_secs(), plain.cluster.as_str()), (1_800, DEFAULT_CLUSTER));
        assert_eq!((plain.load.rampup.as_secs(), plain.load.cooldown.as_secs()), (300, 600));
        assert_eq!(plain.auto_cleanup, None);
        let named = parse(&["60", "my-test-cluster"]);
        assert_eq!((named.active.as_secs(), named.cluster.as_str()), (3_600, "my-test-cluster"));
        assert_eq!(parse(&["--destroy", "xy"]).destroy.as_deref(), Some("xy"));
    }

    /// Scenario: lengths and names that would do harm later.
    /// Guarantees: refused.
    #[test]
    fn nonsense_is_refused() {
        for text in ["-1", "x", "", "nan", "1e9"] {
            assert!(parse_minutes(text).is_err(), "{text}");
        }
        assert_eq!(parse_minutes("0.5"), Ok(Duration::from_secs(30)));
        for text in ["", "default", "-a", "a-", "A1", "1a", "a b", "a/b", "../x", "a_b"] {
            assert!(parse_cluster(text).is_err(), "{text}");
        }
    }
}
