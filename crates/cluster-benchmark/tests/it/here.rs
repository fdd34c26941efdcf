//! A run on a cluster that is there already.

use std::fs;

use crate::bench::Bench;

/// Scenario: a run with the local overlay.
/// Guarantees: kubectl's own context is used, AWS and OpenTofu are not; the images are the overlay's;
/// the stack stays; the report has no bill.
#[test]
fn a_run_on_the_operators_cluster() {
    let bench = Bench::new();
    let ended = bench.run(&["here", "0.004"], &[]);
    assert!(ended.status.success(), "{}", ended.said);
    let pinned = "kubectl --kubeconfig local/run/local/kubeconfig";
    ended.assert_order(&[
        "kubectl config current-context",
        "kubectl config view --minify --flatten --raw",
        &format!("{pinned} version"),
        &format!("{pinned} apply -k local/run/local"),
        "proxy/stop",
    ]);
    assert!(ended.said.contains("context mine"), "{}", ended.said);
    for tool in ["aws ", "tofu ", "docker ", "make "] {
        assert!(!ended.record.iter().any(|command| command.starts_with(tool)), "{tool}");
    }
    let free =
        ended.record.iter().filter(|one| one.starts_with("kubectl ") && !one.contains(pinned));
    assert_eq!(free.count(), 2, "another context chosen meanwhile must change nothing");
    assert!(!ended.has("delete -k"));
    assert!(!bench.state("applied.yaml").contains("digest"));
    let report = bench.report();
    assert!(report.to_str().unwrap().ends_with("-01-local"));
    let text = fs::read_to_string(report.join("REPORT.md")).unwrap();
    assert!(text.contains("**Verdict: passed.**") && !text.contains("## Cost"), "{text}");
}

/// Scenario: another overlay, the images of this commit, and everything taken away afterwards.
/// Guarantees: each of them.
#[test]
fn options_of_a_run_on_the_operators_cluster() {
    let bench = Bench::new();
    let environment =
        [("OVERLAY", "deployment/aws"), ("IMAGES", "commit"), ("AUTO_CLEANUP", "true")];
    let ended = bench.run(&["here", "0.004"], &environment);
    assert!(ended.status.success(), "{}", ended.said);
    ended.assert_order(&["docker buildx", "apply -k local/run/aws", "delete -k local/run/aws"]);
    assert!(bench.state("applied.yaml").contains("../../../deployment/aws"));
    assert!(bench.state("applied.yaml").contains("digest"));
}
