//! Short runs of every scenario with the real binaries: the way from a written line to a verdict.

use crate::driver::{Driver, finish};
use serde_json::Value;
use std::fs;

/// Small files, often rotated, of which none is dropped.
const ROTATION: [&str; 6] =
    ["--rotate-size", "256KiB", "--rotate-interval", "300ms", "--rotate-files", "100"];

/// Runs a scenario and returns its exit status, its table and its JSON.
fn run(
    scenario: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (Option<i32>, String, Value) {
    run_bare(scenario, &[arguments, &ROTATION].concat(), variables)
}

/// The same without rotation.
fn run_bare(
    scenario: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (Option<i32>, String, Value) {
    let driver = Driver::new();
    let json = driver.file("figures.json");
    let mut command = driver.command(scenario, arguments);
    command.arg("--json").arg(&json);
    command.envs(variables.iter().copied());
    let (code, table, _) = finish(command.spawn().unwrap());
    driver.assert_nothing_left();
    let json = fs::read(json).expect("a verdict was reached");
    (code, table, serde_json::from_slice(&json).unwrap())
}

/// How many lines were written: all that were due, or less when the machine is too busy to write
/// even a few lines in time.
fn lines_written(json: &Value, due: u64) -> u64 {
    let written = json["lines_written"].as_u64().unwrap();
    assert!((due / 2..=due).contains(&written), "{written} of {due}");
    written
}

/// Scenario: the default load, smaller and shorter, with rotation.
/// Guarantees: everything arrives once; the table and the JSON say so; exit status 0.
#[test]
fn a_steady_load_arrives_once() {
    let arguments = ["--rate", "5000", "--pods", "3", "--duration", "3"];
    let (code, table, json) = run("run", &arguments, &[]);
    assert_eq!(code, Some(0));
    let written = lines_written(&json, 15_000);
    assert_eq!(json["lines_received"], written);
    assert_eq!(json["lines_lost"], 0);
    assert_eq!(json["lines_duplicated"], 0);
    assert!(json["agent_cpu_seconds"].as_f64().unwrap() > 0.0);
    assert!(json["agent_rss_peak_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(json["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
    assert_eq!(json["agent_end"], "exit status: 0");
    assert!(table.ends_with("\nPASSED\n"));
}

/// Scenario: everything that has a variable is set by it; some are empty, and LINES is a terminal's
/// height.
/// Guarantees: the variables are obeyed, and neither emptiness nor the height is taken for a wish.
#[test]
fn variables_change_the_run() {
    let variables = [
        ("RATE", "1k"),
        ("PODS", "2"),
        ("DURATION", "2s"),
        ("PROTOCOL", "http"),
        ("COMPRESSION", "none"),
        ("LINES", "40"),
        ("AGENT", ""),
        ("AGENT_CONFIG", ""),
        ("RECORD_UID", ""),
    ];
    let (code, _, json) = run("run", &[], &variables);
    assert_eq!(code, Some(0));
    lines_written(&json, 2_000);
    assert_eq!(json["pods"], 2);
    assert_eq!(json["protocol"], "http");
    assert_eq!(json["compression"], "none");
    assert_eq!(json["lines"], "mixed");
    assert_eq!(json["record_uids"], Value::Null);
    assert!(json["wire_share"].as_f64().unwrap() > 1.0, "nothing is compressed");
}

/// Scenario: KIND says what the lines look like, and LINES, as it was called once.
/// Guarantees: both are obeyed.
#[test]
fn the_kind_of_lines_is_a_variable() {
    for variable in ["KIND", "LINES"] {
        let arguments = ["--rate", "1000", "--pods", "1", "--duration", "1"];
        let (code, _, json) = run("run", &arguments, &[(variable, "access")]);
        assert_eq!((code, &json["lines"]), (Some(0), &"access".into()), "{variable}");
    }
}

/// Scenario: an agent that delivers nothing.
/// Guarantees: all lines are lost, the verdict says so and names a file, the first numbers and how to
/// keep the logs; no latency is shown; the exit status is 1.
#[test]
fn an_agent_that_delivers_nothing_fails() {
    let arguments = ["--rate", "1000", "--duration", "1", "--drain", "1", "--agent", "sleep 1000"];
    let (code, table, json) = run("run", &arguments, &[]);
    assert_eq!(code, Some(1));
    assert_eq!(json["lines_lost"], lines_written(&json, 1_000));
    assert_eq!(json["agent"], "sleep");
    assert_eq!(json["protocol"], Value::Null, "it is the agent's affair");
    let failed = |line: &str| line.starts_with("FAILED  ") && line.ends_with(" lines were lost");
    assert!(table.lines().any(failed));
    let named =
        |line: &str| line.contains("/app/0.log (stdout): ") && line.contains(" lost, first 0-");
    assert!(table.lines().any(named), "{table}");
    assert!(json["affected"][0]["file"].as_str().unwrap().ends_with("/app/0.log"));
    assert!(table.contains("KEEP=1"), "{table}");
    assert!(table.contains("latency            nothing was measured\n"), "{table}");
    assert_eq!(json["latency_ms"], Value::Null);
}

/// Scenario: rows 4 and 15. The agent is killed three times within two seconds, under load and
/// rotation, while records carry identities.
/// Guarantees: nothing is lost, duplicates are put down to kills, and the same seed repeats the
/// moments; a sink could remove each duplicate by its identity, and would remove nothing else.
#[test]
fn kills_lose_nothing() {
    let arguments = [
        "--rate",
        "3000",
        "--kills",
        "3",
        "--gap-min",
        "300ms",
        "--gap-max",
        "900ms",
        "--seed",
        "7",
    ];
    let (code, table, json) = run("kill", &arguments, &[("RECORD_UID", "1")]);
    assert_eq!(code, Some(0), "{table}");
    assert_eq!(json["lines_lost"], 0);
    let kills = json["kills"].as_array().unwrap();
    assert_eq!(kills.len(), 3);
    let duplicated: u64 = kills.iter().map(|kill| kill["duplicated"].as_u64().unwrap()).sum();
    assert_eq!(json["lines_duplicated"], duplicated);
    let uids = &json["record_uids"];
    assert_eq!(uids["duplicates_removable"], duplicated);
    assert_eq!(uids["lines"], json["lines_received"].as_u64().unwrap() + duplicated);
    assert_eq!(uids["collisions"], 0);
    assert!(table.contains("duplicates removable by log.record.uid: "));
    let kills = table.lines().find(|line| line.starts_with("kills  ")).unwrap();
    assert!(kills.contains(" 3 ") && kills.ends_with("  seed 7"), "{kills}");
}

/// Scenario: the sink is away for three seconds, first standing still, then refusing connections,
/// under load and rotation.
/// Guarantees: nothing is lost, and the agent's memory is reported around the outage.
#[test]
fn an_outage_loses_nothing() {
    for mode in ["freeze", "refuse"] {
        let arguments =
            ["--rate", "3000", "--outage", "3", "--around", "1", "--kills", "2", "--mode", mode];
        let (code, table, json) = run("outage", &arguments, &[]);
        assert_eq!(code, Some(0), "{mode}");
        assert_eq!(json["lines_lost"], 0);
        // The kills are within it; a busy machine takes a while to restart an agent.
        let seconds = json["outage_seconds"].as_f64().unwrap();
        assert!((3.0..5.0).contains(&seconds), "{seconds}");
        assert!(json["rss_before_bytes"].as_u64().unwrap() > 0);
        assert!(json["rss_second_half_bytes"].as_u64().unwrap() > 0);
        assert_eq!(json["kills"], 2);
        assert!(table.contains("agent killed 2 times"));
    }
}

/// Scenario: a small flood beside a few quiet pods, with a limit that even a busy machine keeps; then
/// with one that nothing keeps.
/// Guarantees: nothing is lost of either, each phase has lines and latencies of the quiet pods only,
/// and the ratio decides.
#[test]
fn quiet_pods_are_measured_apart_from_the_flood() {
    for (ratio_max, status) in [("1000", 0), ("0.001", 1)] {
        let arguments =
            ["--flood-rate", "5000", "--pods", "10", "--rate", "100", "--duration", "3"];
        let limits = ["--warm-up", "1s", "--ratio-max", ratio_max];
        let (code, table, json) = run("fairness", &[&arguments[..], &limits].concat(), &[]);
        assert_eq!(code, Some(status));
        assert_eq!(json["lines_lost"], 0);
        for phase in ["alone", "beside"] {
            let lines = json[phase]["lines"].as_u64().unwrap();
            assert!((1..=900).contains(&lines), "{phase}: {lines} lines of the quiet pods");
            assert!(json[phase]["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
        }
        let flood = json["flood_lines_received"].as_u64().unwrap();
        assert!(flood > 0 && json["lines_received"].as_u64().unwrap() > flood);
        assert!(table.contains("p99 ratio          "));
    }
}

/// Scenario: a few hundred files, with limits that even a busy machine keeps; then memory that no
/// process gets by with.
/// Guarantees: both starts come to their end, lines of before and after the restart arrive once, and
/// the limit decides.
#[test]
fn files_are_open_and_read_after_each_start() {
    for (rss_max, status) in [("1GiB", 0), ("1KiB", 1)] {
        let arguments = ["--pods", "200", "--settle", "100ms", "--idle", "1s"];
        let limits = ["--startup-max", "60s", "--startup-cpu-max", "60s", "--idle-cores-max", "10"];
        let limits = [&limits[..], &["--rss-max", rss_max]].concat();
        let (code, _, json) = run("scale", &[&arguments[..], &limits].concat(), &[]);
        assert_eq!(code, Some(status));
        assert_eq!(json["lines_received"], 2 * 200 * 10);
        assert_eq!(json["lines_duplicated"], 0);
        for start in ["start", "restart"] {
            assert!(json[start]["open_seconds"].as_f64().unwrap() > 0.0);
            assert!(json[start]["read_seconds"].as_f64().unwrap() > 0.0);
        }
    }
}

/// Scenario: thirty pods live for 50 ms each, within three seconds.
/// Guarantees: no line is lost, and no deleted file is held in the end.
#[test]
fn short_lived_pods_lose_nothing() {
    let arguments = ["--pods", "30", "--rate", "100", "--duration", "3"];
    let (code, table, json) = run_bare("churn", &arguments, &[]);
    assert_eq!(code, Some(0));
    assert_eq!((&json["lines_written"], &json["lines_lost"]), (&300.into(), &0.into()));
    assert_eq!(json["files_held"], 0);
    assert!(table.contains("held open"));
}

/// Scenario: for six seconds pods' directories are removed under their writers and made again, the
/// agent is stalled and killed, and the sink goes away.
/// Guarantees: no line is lost, and the agent doesn't say that one was.
#[test]
fn replaced_directories_lose_nothing() {
    let arguments = ["--pods", "4", "--rate", "2000", "--duration", "6", "--seed", "3"];
    let (code, table, json) = run("chaos", &arguments, &[]);
    assert_eq!(code, Some(0), "{table}");
    assert_eq!(json["lines_lost"], 0);
    assert!(json["replaced"].as_u64().unwrap() > 3);
    assert_eq!(json["agent_losses"]["files"], 0);
    assert_eq!(json["agent_losses"]["bytes"], 0);
    assert!(table.contains("agent says lost    0 files, 0 bytes\n"));
}
