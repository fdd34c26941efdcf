//! What a run on AWS does, in which order, and what it leaves.

use std::fs;

use serde_json::{Value, json};

use crate::bench::Bench;

/// Scenario: the whole run, from no cluster to none.
/// Guarantees: the document's order; the image of this commit by digest; every kubectl bound to the
/// cluster's own kubeconfig; the password in no argument; a report that adds up; silence about money.
#[test]
fn from_nothing_to_nothing() {
    let bench = Bench::new();
    let ended = bench.aws(&[]);
    assert!(ended.status.success(), "{}", ended.said);
    ended.assert_order(&[
        "aws sts get-caller-identity",
        "curl",
        "git status",
        "docker buildx imagetools inspect",
        "tofu -chdir=infrastructure/aws init",
        "workspace select -or-create default",
        "show -json",
        "apply -auto-approve -input=false -var=cluster_name=thyme-benchmark \
         -var=aws_region=eu-central-1 -var=cluster_endpoint_public_access_cidrs=[\"203.0.113.9/32\"]",
        "aws eks update-kubeconfig",
        "apply -f -",
        "apply -k local/run/thyme-benchmark",
        "rollout status deployment/nop-collector",
        "rollout status deployment/lgtm",
        "rollout status daemonset/thyme",
        "--replicas=0",
        "/pods/na:8080/proxy/reset",
        "/pods/nc:8080/proxy/reset",
        "--replicas=2",
        "rollout status deployment/log-generator",
        "get nodes",
        "/services/grafana:3000/proxy/api/health",
        "query=otelcol_exporter_sent_log_records_total",
        "http://lb.example:3000/api/health",
        "/pods/g1:8080/proxy/manifest",
        "/nodes/a/proxy/metrics/resource",
        "/pods/g1:8080/proxy/stop",
        "/pods/g2:8080/proxy/stop",
        "report?intervals=1",
        "delete -k local/run/thyme-benchmark",
        "elbv2 describe-load-balancers",
        "ec2 describe-network-interfaces",
        "destroy -auto-approve",
    ]);
    assert!(ended.record.last().unwrap().contains("destroy"));
    let kubectl = || ended.record.iter().filter(|command| command.starts_with("kubectl "));
    let bound = "kubectl --kubeconfig local/run/thyme-benchmark/kubeconfig ";
    assert!(kubectl().all(|command| command.starts_with(bound)));
    let applied = bench.state("applied-secretly");
    let password = applied.split("\"password\":\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(password.len() == 32 && !ended.has(password) && !ended.said.contains(password));
    let applied: Value = serde_json::from_str(&bench.state("applied.yaml")).unwrap();
    let digest = format!("sha256:{:064}", 7);
    assert_eq!(applied["images"].as_array().unwrap().len(), 3);
    assert!(applied["images"].as_array().unwrap().iter().all(|image| image["digest"] == digest));
    assert!(applied["patches"][0]["patch"].as_str().unwrap().contains("203.0.113.0/24"));
    assert!(!ended.said.contains("STILL COSTS MONEY"), "{}", ended.said);
    check_report(&bench);
}

fn check_report(bench: &Bench) {
    let report = bench.report();
    assert!(report.to_str().unwrap().ends_with("-01-aws"));
    let text = fs::read_to_string(report.join("REPORT.md")).unwrap();
    for expected in [
        "**Verdict: passed.**",
        "| lines written | 2,000 |",
        "| lines lost | 0 |",
        "| lines of earlier runs, not counted | 5 |",
        "- [x] generators are on one node: 2 of 2",
        "- node a m6i.2xlarge eu-central-1a",
        "| 3 nodes | $1.380 |",
        "![Lines received](throughput.svg)",
    ] {
        assert!(text.contains(expected), "no {expected:?} in:\n{text}");
    }
    for file in [
        "throughput.svg",
        "agent-cpu.svg",
        "commands.log",
        "logs/ta.log",
        "logs/nc.log",
        "configuration/rendered.yaml",
        "configuration/outputs.json",
    ] {
        assert!(report.join(file).exists(), "{file}");
    }
    assert!(!report.join("logs/g1.log").exists(), "a generator's log is the load");
    let metrics: Value =
        serde_json::from_slice(&fs::read(report.join("metrics.json")).unwrap()).unwrap();
    let active = &metrics["verdict"]["active"];
    assert!(active["lines_per_second"].as_f64().unwrap() > 0.0, "{active}");
    assert!(active["agents"]["cores"].as_f64().unwrap() > 0.0, "{active}");
    assert!(metrics["samples"].as_array().unwrap().len() >= 3);
}

/// Scenario: another cluster name and region.
/// Guarantees: a workspace of its own, and both reach OpenTofu and AWS.
#[test]
fn another_cluster_has_a_state_of_its_own() {
    let bench = Bench::new();
    let ended = bench.run(&["aws", "0.004", "mine"], &[("AWS_REGION", "eu-west-1")]);
    assert!(ended.status.success(), "{}", ended.said);
    ended.assert_order(&[
        "workspace select -or-create mine",
        "apply -auto-approve -input=false -var=cluster_name=mine -var=aws_region=eu-west-1",
        "eks update-kubeconfig --name mine",
        "destroy -auto-approve -input=false -var=cluster_name=mine -var=aws_region=eu-west-1",
    ]);
    let aws = ended.record.iter().filter(|command| command.starts_with("aws "));
    assert!(aws.clone().count() > 0);
    assert!(aws.clone().all(|command| command.contains("--region eu-west-1")));
}

/// Scenario: the workspace's state holds another cluster.
/// Guarantees: refused by both names; nothing is applied or destroyed, by `--destroy` neither.
#[test]
fn another_clusters_state_is_left_alone() {
    for arguments in [&["aws"][..], &["aws", "--destroy", "thyme-benchmark"]] {
        let bench = Bench::new();
        let ended = bench.set("other-state", "").run(arguments, &[]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.said.contains("holds cluster \"other\", not \"thyme-benchmark\""));
        assert!(!ended.has("apply -auto") && !ended.has("destroy -auto"));
        assert!(!ended.said.contains("STILL COSTS MONEY"), "{}", ended.said);
    }
}

/// Scenario: no image of this commit has been pushed; then there are changes that no commit has;
/// then a tag is named.
/// Guarantees: built and pushed under the commit's tag before anything costs money; refused; taken as
/// it is, changes or not.
#[test]
fn the_image_is_that_of_the_commit() {
    let bench = Bench::new();
    let ended = bench.set("not-pushed", "").aws(&[]);
    assert!(ended.status.success(), "{}", ended.said);
    ended.assert_order(&[
        "docker buildx imagetools inspect --format {{json .Manifest}} ghcr.io/ollygarden/thyme:0123456789ab",
        "make docker-build TAG=0123456789ab REGISTRY=ghcr.io/ollygarden CONTAINER_TOOL=docker",
        "make docker-push TAG=0123456789ab",
        "docker buildx imagetools inspect",
        "apply -auto-approve",
    ]);

    let bench = Bench::new();
    let ended = bench.set("changed", "").aws(&[]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.said.contains("the working tree has changes"), "{}", ended.said);
    assert!(!ended.has("tofu"));

    let bench = Bench::new();
    let ended = bench.set("changed", "").aws(&[("IMAGE_TAG", "v1"), ("REGISTRY", "r.example/x")]);
    assert!(ended.status.success(), "{}", ended.said);
    assert!(ended.has("r.example/x/thyme/nop-collector:v1") && !ended.has("make"));
}

/// Scenario: a tool is missing.
/// Guarantees: it is named before anything is asked or made.
#[test]
fn tools_are_checked_first() {
    for tool in ["aws", "tofu", "kubectl", "docker", "git", "make", "curl"] {
        let bench = Bench::new();
        let ended = bench.without(tool).aws(&[]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.said.contains(&format!("not found on PATH: {tool}")), "{}", ended.said);
        assert!(ended.record.is_empty(), "{:?}", ended.record);
    }
}

/// Scenario: the listing by tag names a running instance, a terminated one, a deleted cluster, a key
/// that waits for its deletion, an empty log group, and something unknown.
/// Guarantees: only the instance and, with a doubt, the unknown are left; the exit status says so.
#[test]
fn leftovers_are_confirmed_one_by_one() {
    let bench = Bench::new();
    let arns = [
        "ec2:r:1:instance/i-runs",
        "ec2:r:1:instance/i-gone",
        "eks:r:1:cluster/c",
        "kms:r:1:key/k",
        "logs:r:1:log-group:/aws/eks/c/cluster",
        "strange:r:1:thing/t",
    ];
    let tagged: Vec<Value> =
        arns.iter().map(|arn| json!({"ResourceARN": format!("arn:aws:{arn}")})).collect();
    bench.set("tagged", &json!({"ResourceTagMappingList": tagged}).to_string());
    let ended = bench.run(&["aws", "--leftovers"], &[]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.said.contains("still there: arn:aws:ec2:r:1:instance/i-runs"), "{}", ended.said);
    assert!(ended.said.contains("perhaps still there: arn:aws:strange"), "{}", ended.said);
    assert_eq!(ended.said.matches("still there").count(), 2, "{}", ended.said);
    bench.set("tagged", r#"{"ResourceTagMappingList": []}"#);
    let ended = bench.run(&["aws", "--leftovers"], &[]);
    assert!(ended.status.success() && ended.said.contains("nothing with the tag"));
}
