//! A process that lives and does nothing must not be called healthy.

use std::time::{Duration, Instant};

use thyme_agent::limits::HEARTBEAT_AGE_MAX;

use crate::{
    node::{Node, append, cri},
    program::{Program, Setup, skipped},
};

/// How long the agent is waited for beyond the time after which it must be unhealthy.
const PATIENCE: Duration = Duration::from_secs(45);

/// Scenario: row 37. A worker stops within its loop, as in an endless wait; in another process it
/// panics; in a third, discovery hangs in opening a file. The network's threads live, and the health
/// endpoint answers.
/// Guarantees: it is healthy at first, and then says who has stood still.
#[test]
fn a_dead_thread_is_unhealthy() {
    if !cfg!(debug_assertions) {
        skipped("a_dead_thread_is_unhealthy", "release builds have no points");
        return;
    }
    std::thread::scope(|scope| {
        for (point, who) in [
            ("settlement_booked:1:hang", "worker 0 has stood still"),
            ("settlement_booked:1:panic", "worker 0 has stood still"),
            ("file_opened:1:hang", "discovery has stood still"),
        ] {
            scope.spawn(move || {
                let node = Node::without_copies();
                append(&node.container("a").join("0.log"), cri("line"));
                let config = Setup::default().write(&node);
                let mut agent = Program::start_armed(&config, point);
                assert!(agent.health().starts_with("HTTP/1.1 200 "));
                let start = Instant::now();
                let mut said = agent.health();
                while !said.starts_with("HTTP/1.1 503 ") {
                    let age = start.elapsed();
                    assert!(age < HEARTBEAT_AGE_MAX + PATIENCE, "{point}: still healthy: {said}");
                    std::thread::sleep(Duration::from_millis(100));
                    said = agent.health();
                }
                assert!(said.contains(who), "{point}: {said}");
            });
        }
    });
}

/// Scenario: row 55. A request whose sending has panicked waits to be tried again, and ends.
/// Guarantees: the agent is unhealthy until then, and says why.
#[test]
fn a_panic_while_sending_is_unhealthy() {
    let node = Node::new();
    let agent = node.start();
    assert_eq!(agent.health(), Ok(()));
    agent.metrics.panicked_requests.add_gauge(1);
    let said = agent.health().unwrap_err();
    assert!(said.contains("the exporter fails on 1 requests by its own fault"), "{said}");
    agent.metrics.panicked_requests.add_gauge(-1);
    assert_eq!(agent.health(), Ok(()));
    agent.stop();
}
