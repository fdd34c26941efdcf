//! A sink that doesn't take what it is given.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nop_collector::Fault;

use crate::node::{Node, append, cri, wait_until};

/// Scenario: row 21. Each record is a request of its own, four of them may be unsettled, and the sink takes
/// none for a while; a second agent is stopped while it takes none.
/// Guarantees: reading stops in the middle of a file, no thread is held up (the agent is healthy
/// and ends within its deadline), and in the end every line comes once.
#[test]
fn a_full_queue_stops_reading_within_a_file() {
    let node = Node::new();
    let container = node.container("a");
    let refuse = Fault::HttpStatus { status: 503, retry_after: None };
    node.collector.faults().always(refuse.clone());
    append(&container.join("0.log"), (0..500).map(|n| cri(&n.to_string())).collect::<String>());
    let yaml = node
        .yaml(
            "compression: zstd\n    sending_queue: {num_consumers: 1, queue_size: 4}",
            "workers: 1, shutdown_timeout: 1s",
        )
        .replace("timeout: 20ms", "timeout: 20ms, send_batch_size: 1");
    let agent = node.start_yaml(&yaml);
    wait_until("the queue is full", || agent.metrics.queue_requests.get() == 4);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(agent.metrics.queue_requests.get(), 4);
    assert!(agent.metrics.read.get().0 <= 5);
    let stopping = Instant::now();
    let (report, metrics) = agent.stop();
    assert!(stopping.elapsed() < Duration::from_secs(10));
    assert!((4..=5).contains(&report.unsettled_requests));
    // Those of the open batch are among them.
    assert_eq!(report.unsettled_records, metrics.read.get().0 - metrics.acknowledged.get().0);

    let agent = node.start_yaml(&yaml);
    wait_until("the queue is full", || agent.metrics.queue_requests.get() == 4);
    node.collector.faults().clear();
    // The first agent's exporter lives on in this process: what it still sends comes twice.
    let mut bodies = BTreeSet::new();
    wait_until("every line comes", || {
        bodies.extend(node.take_records().into_iter().map(|one| one.body));
        bodies.len() == 500
    });
    agent.stop();
}
