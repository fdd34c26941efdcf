//! What is proved from what came: the admin port, manifests, replicas.

use bytes::Bytes;
use http::{StatusCode, Version};
use nop_collector::report::Report;
use nop_collector::{Collector, Options, Running};
use serde_json::Value;

use crate::sender::{self, get, manifest_line, message, post, post_logs};

async fn start() -> Running {
    Collector::start(Options::ephemeral()).await.unwrap()
}

async fn send(running: &Running, writer: u32, lines: std::ops::Range<u64>) {
    post_logs(running.http_addr(), &[], message(writer, lines)).await.unwrap();
}

async fn post_admin(running: &Running, path: &str, body: impl Into<Bytes>) -> (u16, String) {
    let request = post(path, &[("host", "test")], body);
    let answer = sender::send(running.admin_addr(), Version::HTTP_11, request).await.unwrap();
    (answer.status.as_u16(), String::from_utf8(answer.body.to_vec()).unwrap())
}

fn manifest(writers: &[(u32, u64)]) -> String {
    let lines = writers.iter().map(|&(writer, lines)| manifest_line(writer, lines));
    lines.map(|line| serde_json::to_string(&line).unwrap() + "\n").collect()
}

/// Scenario: two writers with a gap, a repetition and a late request, and a line of someone else.
/// Guarantees: the report's keys are those that were agreed on, its figures are right, and the
/// details are there when asked for only.
#[tokio::test]
async fn the_report_tells_what_came() {
    let running = start().await;
    send(&running, 0, 0..10).await;
    send(&running, 0, 20..30).await;
    send(&running, 0, 15..20).await;
    send(&running, 0, 25..30).await;
    send(&running, 1, 0..5).await;
    // One record without a body.
    let other = vec![0x0a, 4, 0x12, 2, 0x12, 0];
    post_logs(running.http_addr(), &[], other).await.unwrap();

    let answer = get(running.admin_addr(), "/report").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    for (key, value) in [
        ("records", 36),
        ("requests", 6),
        ("streams", 2),
        ("received", 30),
        ("gaps", 5),
        ("duplicated", 5),
        ("reordered", 5),
        ("unstamped", 1),
    ] {
        assert_eq!(json[key], value, "{key} in {json}");
    }
    assert_eq!(json["lost"], Value::Null, "nobody has said what was written");
    assert_eq!(json["wire_bytes"], json["decompressed_bytes"]);
    assert_eq!((&json["manifest"], &json["exact"]), (&Value::Bool(false), &Value::Bool(true)));
    let first = json["first_received_unix_nano"].as_u64().unwrap();
    assert!(first > 0 && first <= json["last_received_unix_nano"].as_u64().unwrap());
    let latency = |key: &str| json["latency_ms"][key].as_f64().unwrap();
    assert!(latency("p50") <= latency("p90") && latency("p99") <= latency("max"));
    assert!(latency("max") > 0.0 && latency("max") < 60_000.0);
    assert!(json["invalid"].as_object().unwrap().is_empty());
    assert!(json.get("streams_detail").is_none());

    let answer = get(running.admin_addr(), "/report?intervals=1").await;
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    let stream = &json["streams_detail"][0];
    assert_eq!((&stream["run"], &stream["writer"]), (&Value::from(1), &Value::from(0)));
    assert_eq!(stream["intervals"], serde_json::json!([[0, 9], [15, 29]]));
    assert_eq!(stream["end_seen"], false);
    assert_eq!(stream["first_duplicated"], 25);
    let report: Report = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(report, running.report_with_intervals());
    assert!(json.get("runs").is_none());

    let answer = get(running.admin_addr(), "/report?runs=1").await;
    let report: Report = serde_json::from_slice(&answer.body).unwrap();
    let runs = report.runs.unwrap();
    assert_eq!((runs.len(), runs[0].run, runs[0].received, runs[0].lost), (1, 1, 30, None));
    assert_eq!(runs[0].latency_ms, report.latency_ms);
    let counted: u64 = runs[0].latency_us_counts.iter().map(|(_, count)| count).sum();
    assert_eq!(counted, report.received + report.duplicated);
}

/// Scenario: a manifest lists a lost tail and a writer that never came; a newer one lists more;
/// then everything comes.
/// Guarantees: lost is exact each time, and what the manifest doesn't list is told apart.
#[tokio::test]
async fn manifests_make_lost_exact() {
    let running = start().await;
    send(&running, 0, 0..10).await;
    assert_eq!(running.report().lost, None);
    let (status, _) = post_admin(&running, "/manifest", manifest(&[(0, 8)])).await;
    assert_eq!(status, 200);
    let report = running.report();
    assert_eq!((report.lost, report.unexpected, report.manifest_lines), (Some(0), 2, 8));

    post_admin(&running, "/manifest", manifest(&[(0, 12), (7, 100)])).await;
    let report = running.report();
    assert_eq!((report.lost, report.unexpected, report.manifest_lines), (Some(102), 0, 112));
    let detail = running.report_with_intervals().streams_detail.unwrap();
    assert_eq!((detail[1].writer, detail[1].lost, detail[1].highest), (7, Some(100), None));

    send(&running, 0, 10..12).await;
    send(&running, 7, 0..100).await;
    let report = running.report();
    assert_eq!((report.lost, report.received, report.manifest), (Some(0), 112, true));
}

/// Scenario: a manifest that is no JSON, one that contradicts itself, wrong methods, wrong paths.
/// Guarantees: 400 naming the line, 405, 404; nothing is taken over.
#[tokio::test]
async fn wrong_admin_requests_are_refused() {
    let running = start().await;
    let good = manifest(&[(0, 8)]);
    let (status, text) = post_admin(&running, "/manifest", format!("{good}nonsense\n")).await;
    assert_eq!((status, text.starts_with("line 2 of the manifest")), (400, true), "{text}");
    let (status, text) = post_admin(&running, "/manifest", good.replace("8", "9")).await;
    assert_eq!((status, text.contains("contradict")), (400, true), "{text}");
    assert!(!running.report().manifest);
    assert_eq!(get(running.admin_addr(), "/reset").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(post_admin(&running, "/report", "").await.0, 405);
    assert_eq!(get(running.admin_addr(), "/nothing").await.status, StatusCode::NOT_FOUND);
}

/// Scenario: somebody opens the admin port in a browser, and follows what it lists.
/// Guarantees: the index names what there is, and each path that is to be fetched answers; the report
/// has a form for people, with a verdict once a manifest says what was written.
#[tokio::test]
async fn the_index_leads_to_everything() {
    let running = start().await;
    send(&running, 0, 0..10).await;
    let page = |answer: sender::Answer| {
        assert_eq!(
            (answer.status, answer.header("content-type").starts_with("text/")),
            (StatusCode::OK, true)
        );
        String::from_utf8(answer.body.to_vec()).unwrap()
    };
    let index = page(get(running.admin_addr(), "/").await);
    let paths: Vec<&str> = index
        .lines()
        .filter_map(|line| line.strip_prefix("GET ")?.split_whitespace().next())
        .collect();
    assert_eq!(paths, ["/report", "/report.txt", "/metrics", "/healthz"]);
    for path in paths {
        assert_eq!(get(running.admin_addr(), path).await.status, StatusCode::OK, "{path}");
    }
    let text = page(get(running.admin_addr(), "/report.txt").await);
    assert!(text.contains("lines lost         not known: no manifest was posted\n"), "{text}");
    post_admin(&running, "/manifest", manifest(&[(0, 12)])).await;
    let text = page(get(running.admin_addr(), "/report.txt").await);
    assert!(text.contains("\nFAILED             2 lines were lost\n"), "{text}");
}

/// Scenario: lines and a manifest, then a reset.
/// Guarantees: nothing is known any more; the metrics page follows.
#[tokio::test]
async fn reset_forgets_everything() {
    let running = start().await;
    send(&running, 0, 0..10).await;
    post_admin(&running, "/manifest", manifest(&[(0, 20)])).await;
    let page = |answer: sender::Answer| String::from_utf8(answer.body.to_vec()).unwrap();
    let text = page(get(running.admin_addr(), "/metrics").await);
    assert!(text.contains("\nnop_collector_lost_lines 10\n"), "{text}");
    assert!(text.contains("\nnop_collector_records_total 10\n"), "{text}");
    assert_eq!(post_admin(&running, "/reset", "").await.0, 200);
    let text = page(get(running.admin_addr(), "/metrics").await);
    assert!(text.contains("\nnop_collector_lost_lines 0\n"), "{text}");
    assert_eq!(running.report(), Report { exact: true, ..Report::default() });
    assert_eq!(get(running.admin_addr(), "/healthz").await.status, StatusCode::OK);
}
