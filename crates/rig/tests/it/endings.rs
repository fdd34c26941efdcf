//! However a run ends, nothing is left behind, and the exit status and the message say why.

use crate::driver::{Driver, eventually, finish};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;

const NO_VERDICT: Option<i32> = Some(2);

/// An agent that reads nothing and sends nothing.
const IDLE: [&str; 4] = ["--agent", "sleep 1000", "--rate", "1000"];

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Scenario: Ctrl-C while lines are written.
/// Guarantees: the shell's exit status for it, and neither processes nor files are left.
#[test]
fn an_interrupted_run_leaves_nothing() {
    let driver = Driver::new();
    let child = driver.command("run", &IDLE).spawn().unwrap();
    driver.wait_for_process("log-generator");
    kill(child.id() as i32, Signal::INT);
    let (code, _, err) = finish(child);
    assert_eq!(code, Some(130));
    assert!(err.contains("stopped by SIGINT"));
    driver.assert_nothing_left();
}

/// Scenario: SIGTERM while the driver waits for lines that never come.
/// Guarantees: the same as for Ctrl-C.
#[test]
fn a_terminated_drain_leaves_nothing() {
    let driver = Driver::new();
    let mut command = driver.command("run", &IDLE);
    let child = command.env("DURATION", "1").spawn().unwrap();
    driver.wait_for_process("log-generator");
    eventually("the generator runs on", || {
        let tree = fs::read_dir(driver.trees()).unwrap().next()?.unwrap().path();
        let out = fs::read_to_string(tree.join("children/log-generator.out")).ok()?;
        out.contains("elapsed_seconds").then_some(())
    });
    kill(child.id() as i32, Signal::TERM);
    let (code, ..) = finish(child);
    assert_eq!(code, Some(143));
    driver.assert_nothing_left();
}

/// Scenario: the driver is killed by SIGKILL while lines are written.
/// Guarantees: no process outlives it.
#[test]
fn a_killed_driver_leaves_no_process() {
    let driver = Driver::new();
    let mut child = driver.command("run", &IDLE).spawn().unwrap();
    for name in ["nop-collector", "sleep", "log-generator"] {
        driver.wait_for_process(name);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    driver.wait_for_no_process();
}

/// Scenario: an agent that complains and ends at once.
/// Guarantees: the message names it, its exit status and its last words; nothing is left.
#[test]
fn an_agent_that_dies_is_described() {
    let driver = Driver::new();
    let agent = "sh -c 'echo out of thyme >&2; exit 3'";
    let (code, _, err) = finish(driver.command("run", &["--agent", agent]).spawn().unwrap());
    assert_eq!(code, NO_VERDICT);
    assert!(err.contains("agent ended early (exit status: 3)"));
    assert!(err.contains("out of thyme"));
    driver.assert_nothing_left();
}

/// Scenario: collector or generator is killed in the middle of a run.
/// Guarantees: the message names it and the signal; nothing is left.
#[test]
fn a_killed_child_is_named() {
    for name in ["nop-collector", "log-generator"] {
        let driver = Driver::new();
        let child = driver.command("run", &IDLE).spawn().unwrap();
        driver.wait_for_process("log-generator");
        kill(driver.wait_for_process(name), Signal::KILL);
        let (code, _, err) = finish(child);
        assert_eq!(code, NO_VERDICT);
        assert!(err.contains(&format!("{name} ended early (signal: 9")), "{name}");
        driver.assert_nothing_left();
    }
}

/// Scenario: more lines than any disk holds, all of them kept.
/// Guarantees: this is said before anything is started.
#[test]
fn too_little_disk_is_said_before_starting() {
    let driver = Driver::new();
    let arguments = ["--duration", "1000000h", "--rotate-files", "4000000000"];
    let (code, _, err) = finish(driver.command("run", &arguments).spawn().unwrap());
    assert_eq!(code, NO_VERDICT);
    assert!(err.contains("too little disk space"));
    driver.assert_nothing_left();
}

/// Scenario: options that make no sense, and a configuration that is not there.
/// Guarantees: each is refused by name, and nothing is left.
#[test]
fn nonsense_is_refused() {
    let driver = Driver::new();
    for (arguments, expected) in [
        (["--rate", "fast"], "--rate"),
        (["--rate", "0"], "must be at least 1"),
        (["--json", "/dev/null/figures.json"], "/dev/null/figures.json"),
        (["--agent", "sh -c 'unclosed"], "a quote is not closed"),
        (["--agent", "/nonexistent/agent"], "/nonexistent/agent"),
        (["--agent-config", "/nonexistent.yaml"], "/nonexistent.yaml"),
    ] {
        let (code, _, err) = finish(driver.command("run", &arguments).spawn().unwrap());
        assert_eq!(code, NO_VERDICT, "{arguments:?}");
        assert!(err.contains(expected), "{arguments:?}");
        driver.assert_nothing_left();
    }
}

/// Scenario: a tree is to be kept, and the agent is given a configuration with placeholders.
/// Guarantees: the tree stays, and holds the configuration with addresses and paths filled in.
#[test]
fn a_kept_tree_holds_the_filled_configuration() {
    let driver = Driver::new();
    let template = driver.file("agent.conf");
    fs::write(&template, "in={logs} out={grpc} other={unknown}").unwrap();
    let agent = "sh -c 'cat \"$0\"; exit 1' {config}";
    let config = template.to_str().unwrap();
    let arguments = ["--keep", "--agent-config", config, "--agent", agent];
    let (code, _, err) = finish(driver.command("run", &arguments).spawn().unwrap());
    assert_eq!(code, NO_VERDICT);
    let tree = fs::read_dir(driver.trees()).unwrap().next().unwrap().unwrap().path();
    let filled = fs::read_to_string(tree.join("agent.yaml")).unwrap();
    let logs = tree.canonicalize().unwrap().join("pods");
    assert!(filled.starts_with(&format!("in={} out=127.0.0.1:", logs.display())), "{filled}");
    assert!(filled.ends_with(" other={unknown}"), "{filled}");
    assert!(err.contains(&filled), "the agent was given the filled file");
}
