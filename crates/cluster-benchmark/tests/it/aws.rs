//! What a run on AWS does, in which order, and what it leaves.

use std::fs;

use serde_json::{Value, json};

use crate::bench::{Bench, Ended};

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
        "curl -sS --max-time 20 --head",
        "/v2/ollygarden/thyme/manifests/sha256:",
        "--data-urlencode scope=s https://r.example/token",
        "Authorization: Bearer t-1",
        "tofu -chdir=infrastructure/aws init",
        "workspace select -or-create default",
        "show -json",
        "eks describe-cluster --name thyme-benchmark",
        "-var=cluster_name=thyme-benchmark -var=aws_region=eu-central-1 \
         -var=cluster_endpoint_public_access_cidrs=[\"203.0.113.9/32\"]",
        "show -json",
        "apply -input=false",
        "aws eks update-kubeconfig",
        "kustomize local/run/thyme-benchmark",
        "create -f -",
        "apply -k local/run/thyme-benchmark",
        "rollout status deployment/nop-collector",
        "rollout status deployment/lgtm",
        "rollout status daemonset/thyme",
        "http://lb.example:3000/api/health",
        "--replicas=0",
        "/pods/na:8080/proxy/reset",
        "/pods/nc:8080/proxy/reset",
        "--replicas=2",
        "rollout status deployment/log-generator",
        "get nodes",
        "/services/grafana:3000/proxy/api/health",
        "query=otelcol_exporter_sent_log_records_total",
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
    let created = bench.state("created");
    let password = created.split("\"password\":\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(password.len() == 32 && !ended.has(password) && !ended.said.contains(password));
    let applied: Value = serde_json::from_str(&bench.state("applied.yaml")).unwrap();
    let digest = format!("sha256:{:064}", 7);
    assert!(applied["images"].as_array().unwrap().iter().all(|image| image["digest"] == digest));
    assert!(applied["patches"][0]["patch"].as_str().unwrap().contains("203.0.113.0/24"));
    assert!(!ended.said.contains("STILL COSTS MONEY"), "{}", ended.said);
    assert!(!bench.path("repository/local/run/thyme-benchmark/STILL-COSTS-MONEY").exists());
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
        "- [x] collectors are ready: 3 on 3 node(s), 1 of them on the generators' node",
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
        "-var=cluster_name=mine -var=aws_region=eu-west-1",
        "apply -input=false",
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
        assert!(!ended.has("apply -input") && !ended.has("destroy -auto"));
    }
}

/// Scenario: `a` is kept; then `b` runs; then `a` is destroyed. A cluster of the third name is there,
/// which no state knows.
/// Guarantees: `b` neither changes nor destroys `a`, whichever was chosen last; the third is refused
/// before anything is made, and by `--destroy`.
#[test]
fn clusters_do_not_touch_each_other() {
    let bench = Bench::new();
    let run = |cluster: &str, keep: &str| {
        bench.run(&["aws", "0.003", cluster], &[("AUTO_CLEANUP", keep)]).status.code()
    };
    assert_eq!(run("aa", "false"), Some(0));
    assert_eq!(run("bb", "true"), Some(0));
    assert_eq!((bench.state("workspace-aa").trim(), bench.exists("workspace-bb")), ("aa", false));
    let ended = bench.run(&["aws", "--destroy", "aa"], &[]);
    assert!(ended.status.success() && !bench.exists("workspace-aa"), "{}", ended.said);
    bench.set("eks-cc", "");
    let before = ended.record.len();
    for arguments in [&["aws", "0.003", "cc"][..], &["aws", "--destroy", "cc"]] {
        let ended = bench.run(arguments, &[]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.said.contains("the state here knows nothing of it"), "{}", ended.said);
        let asked = &ended.record[before..];
        let is_change = |one: &String| one.contains(" apply ") || one.contains(" destroy ");
        assert!(!asked.iter().any(is_change), "{asked:?}");
    }
}

/// Scenario: a run on a cluster that an earlier run kept; then one whose plan deletes something, one
/// whose overlay has other images, and one whose load balancer does not answer.
/// Guarantees: the cluster stays unless it is asked for, and its cost is said; the other three are
/// refused, by name, before any load.
#[test]
fn a_stack_that_is_there_already() {
    let bench = Bench::new();
    let kept = bench.aws(&[("AUTO_CLEANUP", "false")]);
    let ended = bench.aws(&[]);
    assert!(ended.status.success(), "{}", ended.said);
    assert!(ended.said.contains("STILL COSTS MONEY") && bench.exists("workspace-default"));
    assert!(!ended.record[kept.record.len()..].iter().any(|one| one.contains("delete -k")));
    for (fault, said, refused) in [
        (
            "plan-deletes",
            "would delete or replace a part of it: aws_ecr_repository.this[0].",
            "apply",
        ),
        ("renamed-images", "is not in the rendered overlay", "apply -k"),
        ("balancer-refuses", "no answer from \"http://lb.example:3000\"", "scale"),
    ] {
        let before = bench.state("record").lines().count();
        let ended = bench.set(fault, "").aws(&[("GRAFANA_WAIT", "50ms")]);
        bench.unset(fault);
        assert_eq!(ended.status.code(), Some(2), "{fault}");
        assert!(ended.said.contains(said) && ended.said.contains("STILL COSTS"), "{}", ended.said);
        let asked = &ended.record[before..];
        let word = format!(" {refused} ");
        assert!(!asked.iter().any(|one| one.contains(&word)), "{fault}: {asked:?}");
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
        r#"docker buildx imagetools inspect --format {"digest":{{json .Manifest.Digest}},"image":{{json .Image}}} ghcr.io/ollygarden/thyme:0123456789ab"#,
        "make docker-build TAG=0123456789ab REGISTRY=ghcr.io/ollygarden CONTAINER_TOOL=docker \
         PLATFORM=linux/amd64",
        "make docker-push TAG=0123456789ab",
        "docker buildx imagetools inspect",
        "apply -input=false",
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

/// Scenario: an image of this commit is there, for another kind of machine; then for the right one, but
/// only with a login; then so in ECR.
/// Guarantees: refused with what to do, before OpenTofu is asked for anything; ECR is the nodes' affair.
#[test]
fn images_that_the_nodes_cannot_run_or_get() {
    let refused = |fault: &str, content: &str, expected: &str| {
        let bench = Bench::new();
        let ended = bench.set(fault, content).aws(&[]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.said.contains(expected), "{}", ended.said);
        assert!(!ended.has("tofu") && !ended.has("make"), "{:?}", ended.record);
    };
    refused("platform", "arm64", "is for linux/arm64, and the nodes are linux/amd64");
    refused("not-public", "", "is not given to somebody without a login (status 401)");
    let bench = Bench::new();
    let ecr = [("REGISTRY", "123456789012.dkr.ecr.eu-central-1.amazonaws.com")];
    let ended = bench.set("not-public", "").aws(&ecr);
    assert!(ended.status.success() && !ended.has("/v2/"), "{}", ended.said);
}

/// Scenario: a cluster is there, whose API others may reach too; then the ranges are named.
/// Guarantees: this machine is added to them; named ranges are taken as they are.
#[test]
fn the_api_stays_open_to_whom_it_was() {
    let bench = Bench::new();
    bench.aws(&[("AUTO_CLEANUP", "false")]);
    bench.set("api-ranges", r#""198.18.0.0/24","198.18.7.1/32""#);
    let planned = |ended: &Ended| {
        let last = ended.record.iter().rfind(|one| one.contains(" plan ")).unwrap();
        last.split("public_access_cidrs=").nth(1).unwrap().to_owned()
    };
    let ended = bench.aws(&[]);
    assert_eq!(planned(&ended), r#"["198.18.0.0/24","198.18.7.1/32","203.0.113.9/32"]"#);
    bench.set("api-ranges", r#""203.0.113.0/24""#);
    assert_eq!(planned(&bench.aws(&[])), r#"["203.0.113.0/24"]"#);
    let named = [("PUBLIC_ACCESS_CIDRS", "198.18.9.0/24")];
    assert_eq!(planned(&bench.aws(&named)), r#"["198.18.9.0/24"]"#);
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
