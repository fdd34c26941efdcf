//! How a run on AWS ends when something goes wrong: at every step, what it says is still there.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, Ended, wait_for};

/// What must be said, by what had been begun: apart from the program's own book-keeping.
#[track_caller]
fn assert_money(ended: &Ended) {
    let has_begun = ended.has("apply -input=false");
    let last = ended.record.last().unwrap();
    let is_gone = last.contains("destroy -auto-approve") && ended.status.success();
    let command =
        "AWS_REGION=eu-central-1 ./scripts/run-benchmark-aws.sh --destroy thyme-benchmark";
    let says = ended.said.contains("STILL COSTS MONEY") && ended.said.contains(command);
    assert_eq!(says, has_begun && !is_gone, "{}\n{}", ended.said, ended.record.join("\n"));
}

/// Scenario: each kind of command of a whole run fails, one run for each.
/// Guarantees: from `tofu apply` on, every end but that of the last `destroy` says what still costs
/// money and what ends it; before, nothing is said. The failed command is named, and nothing but logs
/// is asked for after it. Only questions that are asked again may fail unnoticed.
#[test]
fn a_failure_at_each_step() {
    let kinds = Bench::new().aws(&[]).kinds();
    assert!(kinds.len() > 50);
    for failed in kinds {
        let bench = Bench::new();
        let ended = bench.set("fail-at", &failed).aws(&[]);
        let position = ended.position(&failed);
        if ended.status.success() {
            let asked_again = [
                "imagetools inspect",
                "/manifest",
                "/report",
                "/stop",
                ":8888/proxy/metrics",
                "/metrics/resource",
                "api/health",
                "api/v1/query",
                " logs ",
            ];
            let is_harmless = asked_again.iter().any(|part| failed.contains(part));
            assert!(is_harmless, "{failed} failed unnoticed:\n{}", ended.said);
            continue;
        }
        assert_eq!(ended.status.code(), Some(2), "{failed}: {}", ended.said);
        assert!(ended.said.contains("told to fail"), "{failed}: {}", ended.said);
        assert_money(&ended);
        let after = &ended.record[position + 1..];
        let is_log = |command: &String| command.contains(" logs ") || command.contains("get pods");
        assert!(after.iter().all(is_log), "{failed}, and then: {after:?}");
    }
}

/// Scenario: Ctrl-C during each kind of command of a whole run, one run for each.
/// Guarantees: the tool gets the signal once and may end by itself; nothing is asked afterwards; the
/// exit status is the signal's; what still costs money is said.
#[test]
fn an_interrupt_at_each_step() {
    for at in Bench::new().aws(&[]).kinds() {
        let bench = Bench::new();
        let child = bench.set("hang-at", &at).start(&["aws", "0.003"], &[]);
        wait_for(&bench.path("state/hangs"));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let ended = bench.end(child);
        assert_eq!(ended.status.code(), Some(130), "{at}: {}", ended.said);
        assert_eq!(bench.state("signals"), "SIGINT\n", "{at}");
        let after = &ended.record[ended.position(&at) + 1..];
        assert!(after.is_empty(), "{at}, and then: {after:?}");
        assert!(ended.said.contains("stopped by SIGINT"), "{at}: {}", ended.said);
        assert_money(&ended);
    }
}

/// Scenario: the operator wants to keep the cluster.
/// Guarantees: nothing is deleted; the run passes, and says what it costs and how it ends.
#[test]
fn a_kept_cluster_is_not_forgotten() {
    let ended = Bench::new().aws(&[("AUTO_CLEANUP", "false")]);
    assert!(ended.status.success(), "{}", ended.said);
    assert!(!ended.has("delete -k") && !ended.has("destroy"));
    assert!(ended.said.contains("cluster thyme-benchmark and Grafana's load balancer run"));
    assert_money(&ended);
}

/// Scenario: the load balancer does not go away.
/// Guarantees: the cluster is not destroyed under it; it is named, and what still costs is said.
#[test]
fn a_load_balancer_that_stays_keeps_the_cluster() {
    let bench = Bench::new();
    let ended = bench.set("balancer-stays", "").aws(&[("LOAD_BALANCER_WAIT", "100ms")]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.said.contains("still in vpc-1: lb-1"), "{}", ended.said);
    assert!(!ended.said.contains("foreign") && !ended.has("destroy -auto-approve"));
    assert_money(&ended);
}

/// Scenario: a line is lost.
/// Guarantees: the verdict fails with its number, the report is there, and the cluster is taken away
/// all the same.
#[test]
fn a_lost_line_fails_and_cleans_up() {
    let bench = Bench::new();
    bench.set("lost", "");
    // Lines that never come are waited for at the end.
    let ended = bench.aws(&[("DRAIN_WAIT", "300ms")]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    assert!(ended.said.contains("2 lines were lost"), "{}", ended.said);
    let text = fs::read_to_string(bench.report().join("REPORT.md")).unwrap();
    assert!(text.contains("**Verdict: failed.**") && text.contains("not all came"), "{text}");
    assert!(ended.record.last().unwrap().contains("destroy -auto-approve"));
    assert!(!ended.said.contains("STILL COSTS MONEY"));
}

/// Scenario: a generator is restarted between start and end; then one is evicted and never answers.
/// Guarantees: the run is invalid, and says why; it is no pass, the report is there, and the cluster
/// is taken away all the same.
#[test]
fn a_replaced_generator_makes_it_invalid() {
    for (fault, said) in [("restarted", "g1 was restarted"), ("evicted", "g1 did not answer")] {
        let bench = Bench::new();
        let ended = bench.set(fault, "").aws(&[]);
        assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
        assert!(ended.said.contains(said), "{}", ended.said);
        let text = fs::read_to_string(bench.report().join("REPORT.md")).unwrap();
        assert!(text.contains("**Verdict: invalid.**"), "{text}");
        assert!(ended.record.last().unwrap().contains("destroy -auto-approve"));
        assert!(!ended.said.contains("STILL COSTS MONEY"), "{}", ended.said);
    }
}

/// Scenario: the report's plots can't be written.
/// Guarantees: the verdict and its reasons have been said before.
#[test]
fn a_verdict_is_said_before_it_is_written() {
    let bench = Bench::new();
    bench.set("lost", "");
    // Long enough to get there first on a busy machine: the lost lines are waited for meanwhile.
    let child = bench.start(&["aws", "0.02"], &[("DRAIN_WAIT", "3s")]);
    wait_for(&bench.path("repository/local/reports"));
    wait_for(&bench.path("state/stopped"));
    let report = bench.report();
    fs::create_dir(report.join("throughput.svg")).unwrap();
    let ended = bench.end(child);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.said);
    assert!(ended.said.contains("2 lines were lost"), "{}", ended.said);
    assert!(report.join("metrics.json").exists());
}

/// Scenario: SIGTERM, and a terminal that goes away (SIGHUP), while OpenTofu is at work.
/// Guarantees: what still costs is said, and stands in a file; the exit status is the signal's.
#[test]
fn other_signals_leave_a_note() {
    let apply = "tofu -chdir=infrastructure/aws apply -input=false \
                 ROOT/repository/local/run/thyme-benchmark/plan";
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let bench = Bench::new();
        let child = bench.set("hang-at", apply).start(&["aws", "0.003"], &[]);
        wait_for(&bench.path("state/hangs"));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = bench.end(child);
        assert_eq!(ended.status.code(), Some(code), "{}", ended.said);
        assert!(ended.said.contains("parts of cluster thyme-benchmark may exist"));
        let note = bench.path("repository/local/run/thyme-benchmark/STILL-COSTS-MONEY");
        assert!(fs::read_to_string(note).unwrap().contains("--destroy thyme-benchmark"));
    }
}

/// Scenario: `--destroy` of a cluster that stands, of one that lets nobody in, of one that does and has
/// a load balancer, of one that was made in part, and of none.
/// Guarantees: Kubernetes resources go first where they can be reached; where they can't, the network
/// shows whether a load balancer is left, and only without one the cluster goes; nothing where there is
/// nothing.
#[test]
fn destroying_what_is_there() {
    let destroy = |bench: &Bench| bench.run(&["aws", "--destroy", "thyme-benchmark"], &[]);
    let standing = || {
        let bench = Bench::new();
        bench.set("workspace-default", "thyme-benchmark").set("eks-thyme-benchmark", "");
        bench
    };
    let bench = standing();
    let ended = destroy(&bench);
    assert!(ended.status.success(), "{}", ended.said);
    let order = ["eks update-kubeconfig", "delete -k", "elbv2 describe", "destroy -auto-approve"];
    ended.assert_order(&order);
    assert!(!bench.path("repository/local/reports").exists());

    let bench = standing();
    let ended = destroy(bench.set("no-access", ""));
    assert!(ended.status.success(), "{}", ended.said);
    assert!(ended.said.contains("they can't be deleted") && ended.has("destroy -auto-approve"));

    let bench = standing();
    let ended = destroy(bench.set("no-access", "").set("balancer-stays", ""));
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.said.contains("still in vpc-1: lb-1"), "{}", ended.said);
    assert!(ended.said.contains("STILL COSTS MONEY") && !ended.has("destroy -auto-approve"));

    let bench = Bench::new();
    let ended = destroy(bench.set("workspace-default", ""));
    assert!(ended.status.success(), "{}", ended.said);
    assert!(!ended.has("kubectl") && ended.has("destroy -auto-approve"));

    let ended = destroy(&Bench::new());
    assert!(ended.status.success() && ended.said.contains("is empty: nothing to destroy"));
    assert!(!ended.has("destroy -auto-approve") && !ended.said.contains("STILL COSTS MONEY"));
}

/// Scenario: each command of `--destroy` fails.
/// Guarantees: it goes on or says what still costs; it never ends well with the cluster there.
#[test]
fn a_failure_at_each_step_of_destroy() {
    let start = || {
        let bench = Bench::new();
        bench.set("workspace-default", "thyme-benchmark").set("eks-thyme-benchmark", "");
        bench
    };
    let arguments = ["aws", "--destroy", "thyme-benchmark"];
    for failed in start().run(&arguments, &[]).kinds() {
        let bench = start();
        let ended = bench.set("fail-at", &failed).run(&arguments, &[]);
        let is_there = bench.exists("workspace-default");
        assert_eq!(ended.status.success(), !is_there, "{failed}: {}", ended.said);
        assert_eq!(ended.said.contains("STILL COSTS MONEY"), is_there, "{failed}: {}", ended.said);
    }
}
