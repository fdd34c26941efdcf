//! The queue on disk, with a real sink that goes away: what happens to files that the kubelet
//! deletes meanwhile.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Seek},
    sync::Arc,
};

use nop_collector::Fault;
use thyme_agent::metrics::{LossReason, Metrics};

use crate::node::{
    Node, Record, append, assert_conserved, compress, cri, cri_partial, rotate, wait_until,
};

const UNAVAILABLE: Fault = Fault::HttpStatus { status: 503, retry_after: None };

/// Small budgets, so that reading stops within a file; `thyme` is put behind them.
fn yaml(node: &Node, thyme: &str) -> String {
    let budget = format!(
        "request_bytes_max: 128KiB, in_flight_bytes_max: 1MiB, spool_bytes_max: 64MiB, \
         shutdown_timeout: 1s, {thyme}"
    );
    let exporter =
        "compression: none\n    sending_queue: {num_consumers: 1, storage: file_storage}";
    let short_lines = "start_at: beginning\n    max_log_size: 32KiB";
    node.yaml(exporter, &budget).replace("start_at: beginning", short_lines)
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|number| cri(&format!("line {number} {:0>100}", number))).collect()
}

fn numbers(records: &[Record]) -> Vec<u32> {
    let number = |record: &Record| record.text().split(' ').nth(1).unwrap().parse().unwrap();
    records.iter().map(number).collect()
}

fn segments(node: &Node) -> usize {
    fs::read_dir(node.path("state/spool"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".segment"))
        .count()
}

fn spooled(metrics: &Metrics) -> i64 {
    metrics.queued_spool.get().0
}

/// Scenario: row 2. The sink is away; a file is rotated, compressed and deleted unread, then the
/// container's directory too. The agent is stopped, started, and the sink comes back.
/// Guarantees: every line comes once, in order, though no file is left; nothing stays on disk.
#[test]
fn deleted_files_survive_a_restart_in_the_spool() {
    const LINES: u32 = 20_000;
    let node = Node::new();
    let container = node.container("a");
    node.collector.faults().always(UNAVAILABLE);
    let yaml = yaml(&node, "workers: 1");
    let agent = node.start_yaml(&yaml);
    append(&container.join("0.log"), lines(0..LINES));
    wait_until("the budget is used up", || agent.metrics.queued_request.get().1 > 500_000);
    let rotated = rotate(&container, "20260101-000000");
    append(&container.join("0.log"), lines(LINES..2 * LINES));
    let archive = compress(&rotated);
    assert_eq!(spooled(&agent.metrics), 0, "a file that is still there needs no spool");
    fs::remove_file(archive).unwrap();
    wait_until("the deleted file is on disk", || {
        agent.metrics.spool_secured_requests.get() > 0
            && agent.metrics.bytes_at_risk.get() == 0
            && agent.metrics.read.get().0 >= i64::from(LINES)
    });
    assert!(agent.metrics.read.get().0 < i64::from(2 * LINES), "the live file can wait");
    fs::remove_dir_all(&container).unwrap();
    wait_until("all is on disk", || {
        agent.metrics.read.get().0 == i64::from(2 * LINES)
            && agent.metrics.bytes_at_risk.get() == 0
            && agent.metrics.deleted_open_bytes.get() == 0
    });
    agent.stop();
    assert!(segments(&node) > 0);

    // The first agent's exporter lives on in this process, and sends what it had once more.
    node.take_records();
    let agent = node.start_yaml(&yaml);
    assert!(agent.metrics.recovered.get().0 > 0);
    node.collector.faults().clear();
    let mut seen = BTreeSet::new();
    wait_until("every line comes", || {
        seen.extend(numbers(&node.take_records()));
        seen.len() == 2 * LINES as usize
    });
    wait_until("the spool is empty", || spooled(&agent.metrics) == 0);
    let (_, metrics) = agent.stop();
    assert_eq!(segments(&node), 0);
    assert_eq!(metrics.lost_files.get(), 0);
}

/// Scenario: row 45. A deleted file's lines are in the spool, and the agent is killed; the next start's
/// configuration has no `sending_queue.storage`, or no `storage` at all, but the extension is still in
/// service.
/// Guarantees: what the spool holds is sent, which is said; nothing is added to it, and it is empty in
/// the end.
#[test]
fn a_queue_that_is_configured_no_longer_is_drained() {
    const LINES: u32 = 2_000;
    for without_positions in [false, true] {
        let node = Node::new();
        let container = node.container("a");
        node.collector.faults().always(UNAVAILABLE);
        let yaml = yaml(&node, "workers: 1");
        let agent = node.start_yaml(&yaml);
        append(&container.join("0.log"), lines(0..LINES));
        wait_until("all is read", || agent.metrics.read.get().0 == i64::from(LINES));
        fs::remove_dir_all(&container).unwrap();
        wait_until("the deleted file is on disk", || {
            agent.metrics.spool_secured_requests.get() + agent.metrics.spool_kept_requests.get() > 0
                && agent.metrics.bytes_at_risk.get() == 0
        });
        agent.stop();
        assert!(segments(&node) > 0);
        node.take_records();
        let mut yaml = yaml.replace(", storage: file_storage", "");
        if without_positions {
            yaml = yaml.replace("    storage: file_storage\n", "");
        }
        let mut log = tempfile::tempfile().unwrap();
        let to_log = tracing_subscriber::fmt().with_writer(Arc::new(log.try_clone().unwrap()));
        let agent = tracing::subscriber::with_default(to_log.finish(), || node.start_yaml(&yaml));
        let mut said = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut said).unwrap();
        assert!(
            said.contains("is not set any more, but the queue on disk holds requests"),
            "{said}"
        );
        let recovered = agent.metrics.recovered.get().0;
        assert_eq!(recovered, i64::from(LINES));
        // What is deleted now waits for the sink, and is not kept.
        let container = node.container("b");
        append(&container.join("0.log"), lines(LINES..2 * LINES));
        wait_until("all is read", || agent.metrics.read.get().0 == i64::from(LINES));
        fs::remove_dir_all(&container).unwrap();
        node.collector.faults().clear();
        let mut seen = BTreeSet::new();
        wait_until("every line comes", || {
            seen.extend(numbers(&node.take_records()));
            seen.len() == 2 * LINES as usize
        });
        wait_until("the spool is empty", || spooled(&agent.metrics) == 0);
        assert_eq!(agent.metrics.spool_kept_requests.get(), 0);
        let (_, metrics) = agent.stop();
        assert_conserved(&metrics);
        assert_eq!(segments(&node), 0);
    }
}

/// Scenario: the sink is away while the kubelet rotates, until the oldest archives are about to be
/// removed; then it comes back.
/// Guarantees: only what the kubelet would remove goes to the spool, before the live file is read;
/// every line comes once and in order.
#[test]
fn archives_go_to_the_spool_before_the_kubelet_removes_them() {
    const LINES: u32 = 10_000;
    let node = Node::new();
    let container = node.container("a");
    node.collector.faults().always(UNAVAILABLE);
    let agent = node.start_yaml(&yaml(&node, "container_log_max_files: 5"));
    for number in 0..5 {
        append(&container.join("0.log"), lines(number * LINES..(number + 1) * LINES));
        if number < 4 {
            rotate(&container, &format!("20260101-00000{number}"));
        }
        if number == 1 {
            wait_until("the budget is used up", || agent.metrics.queued_request.get().1 > 500_000);
            assert_eq!(agent.metrics.spool_kept_requests.get(), 0);
        }
    }
    // Of four archives the newest two are safe.
    let at_risk = i64::from(2 * LINES);
    wait_until("the oldest archives are in the spool", || {
        agent.metrics.bytes_at_risk.get() == 0 && agent.metrics.read.get().0 >= at_risk
    });
    assert!(agent.metrics.read.get().0 < at_risk + i64::from(LINES));
    fs::remove_file(container.join("0.log.20260101-000000")).unwrap();
    node.collector.faults().clear();
    let records = node.wait_records(5 * LINES as usize);
    let numbers = numbers(&records);
    let out_of_order = numbers.iter().zip(0..).find(|(number, place)| **number != *place);
    assert_eq!((out_of_order, numbers.len()), (None, 5 * LINES as usize));
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.lost_files.get(), spooled(&metrics)), (0, 0));
}

/// Scenario: a container ends in the middle of a line while the sink is away, and its directory goes.
/// Guarantees: the fragment is in the spool as a piece: it survives a restart.
#[test]
fn an_open_line_of_a_deleted_file_is_kept() {
    let node = Node::new();
    let container = node.container("a");
    node.collector.faults().always(UNAVAILABLE);
    let yaml = yaml(&node, "workers: 1");
    let agent = node.start_yaml(&yaml);
    append(&container.join("0.log"), cri_partial("stdout", "the beginning"));
    wait_until("it was read", || agent.metrics.queued_partial.get().0 == 1);
    fs::remove_dir_all(&container).unwrap();
    wait_until("it is on disk", || spooled(&agent.metrics) == 1);
    agent.stop();
    let agent = node.start_yaml(&yaml);
    node.collector.faults().clear();
    let records = node.wait_records(1);
    assert_eq!(records[0].text(), "the beginning");
    agent.stop();
}

/// Scenario: row 3. The spool's budget and that of deleted files are smaller than what the kubelet
/// deletes during an outage.
/// Guarantees: reading stops when the spool is full; deleted files are kept open within their
/// budget, and what exceeds it is counted in bytes, by reason; nothing else is lost.
#[test]
fn what_exceeds_all_budgets_is_counted() {
    const LINES: u32 = 60_000;
    let node = Node::without_copies();
    node.collector.faults().always(UNAVAILABLE);
    let yaml = yaml(&node, "deleted_files_bytes_max: 20MiB").replace("64MiB", "32MiB");
    let agent = node.start_yaml(&yaml);
    let mut written = 0;
    let containers: Vec<_> = (0..10).map(|pod| node.container(&format!("p{pod}"))).collect();
    for (pod, container) in (0..).zip(&containers) {
        let text = lines(pod * LINES..(pod + 1) * LINES);
        written += text.len() as u64;
        append(&container.join("0.log"), text);
    }
    wait_until("all files are open", || agent.metrics.open_files.get() == 10);
    for container in &containers {
        fs::remove_dir_all(container).unwrap();
    }
    let lost = |metrics: &Arc<Metrics>| metrics.lost(LossReason::DeletedFilesBudget).get();
    wait_until("the budgets are used up", || {
        let metrics = &agent.metrics;
        metrics.spool_full.get() == 1
            && lost(metrics) > 0
            && metrics.deleted_open_bytes.get() <= 20 << 20
    });
    assert!(agent.metrics.spool_bytes.get() <= 32 << 20);
    assert_conserved(&agent.metrics);
    node.collector.faults().clear();
    wait_until("all that is left has come", || {
        let metrics = &agent.metrics;
        let read = metrics.read.get().1 as u64;
        read + lost(metrics) == written && metrics.acknowledged.get().1 as u64 == read
    });
    agent.stop();
}

/// Scenario: a pod ends while the sink works: its directory goes with lines in it that were not read.
/// Guarantees: they come once, and at once; the spool is empty again.
#[test]
fn a_deleted_directory_costs_nothing_while_the_sink_works() {
    let node = Node::new();
    let yaml = yaml(&node, "workers: 1");
    let agent = node.start_yaml(&yaml);
    for pod in 0..20 {
        let container = node.container(&format!("p{pod}"));
        append(&container.join("0.log"), lines(pod * 10..(pod + 1) * 10));
        let live = container.join("0.log");
        let before = i64::from(pod) * 11 + 10;
        wait_until("its lines were read", || agent.metrics.read.get().0 >= before);
        append(&live, lines(1000 + pod..1001 + pod));
        fs::remove_dir_all(&container).unwrap();
    }
    let records = node.wait_records(220);
    assert_eq!(records.len(), 220);
    wait_until("the spool is empty", || spooled(&agent.metrics) == 0);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert_eq!(segments(&node), 0);
}
