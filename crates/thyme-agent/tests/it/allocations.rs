//! What the path of a line allocates: nothing per line, but for docker's.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::node::{Node, append, cri, wait_until};

/// The system's allocator, counting on the worker threads of agents.
struct Counting;

static WORKER_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is a worker: unknown until it first allocates with a name.
    static IS_WORKER: Cell<Option<bool>> = const { Cell::new(None) };
}

fn count() {
    let is_worker = IS_WORKER.with(|cell| {
        cell.get().unwrap_or_else(|| {
            // Asking for the name doesn't allocate, but may come back here: no means no for now.
            cell.set(Some(false));
            let name = std::thread::current().name().map(|name| name.starts_with("worker-"));
            cell.set(name);
            name.unwrap_or(false)
        })
    });
    if is_worker {
        WORKER_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting touches only an
// atomic and a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `realloc`'s contract, and `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Scenario: the tests below, each in a process of its own, where no other test's worker is
/// counted.
/// Guarantees: they pass there.
#[test]
fn a_million_lines_take_few_allocations() {
    for alone in ["", "_with_identities", "_of_raw_lines", "_of_malformed_lines", "_of_dockers"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", &format!("allocations::counted_alone{alone}")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

const TEXT: &str = "a line of a usual length, which says what happened and to whom";

/// Lines of each of four containers, twice.
const LINES: u64 = 250_000;

/// The same of rarer kinds.
const FEWER_LINES: u64 = 25_000;

/// Allocations that do not hang on how many lines there are: of requests, and of what is done now and then, which is
/// more on a busy machine.
const ALLOCATIONS_MAX: u64 = 2_000;

/// Scenario: a running agent, warmed up, is given a million lines more, over four containers.
/// Guarantees: its worker, which reads, parses, encodes, compresses, settles and keeps checkpoints,
/// allocates fewer than two thousand times.
#[test]
#[ignore = "the test above runs it alone"]
fn counted_alone() {
    count_lines("workers: 1", "{type: container}", &cri(TEXT), LINES, ALLOCATIONS_MAX);
}

/// Scenario: as above, with an identity in each record.
/// Guarantees: as above.
#[test]
#[ignore = "the test above runs it alone"]
fn counted_alone_with_identities() {
    let thyme = "workers: 1, record_uid: true";
    count_lines(thyme, "{type: container}", &cri(TEXT), LINES, ALLOCATIONS_MAX);
}

/// Scenario: as above, 100,000 lines of a receiver without the container operator.
/// Guarantees: as above.
#[test]
#[ignore = "the test above runs it alone"]
fn counted_alone_of_raw_lines() {
    count_lines("workers: 1", "", &format!("{TEXT}\n"), FEWER_LINES, ALLOCATIONS_MAX);
}

/// Scenario: as above, 100,000 lines that no runtime writes.
/// Guarantees: as above.
#[test]
#[ignore = "the test above runs it alone"]
fn counted_alone_of_malformed_lines() {
    let line = format!("{TEXT}\n");
    count_lines("workers: 1", "{type: container}", &line, FEWER_LINES, ALLOCATIONS_MAX);
}

/// Scenario: as above, 100,000 of docker's.
/// Guarantees: three allocations a line, and no other: serde_json unescapes the text into one buffer, which
/// grows by what stands behind an escape, and gives it away in another.
#[test]
#[ignore = "the test above runs it alone"]
fn counted_alone_of_dockers() {
    let time = "2026-01-02T03:04:05.678901234Z";
    let line = format!("{{\"log\":\"{TEXT}\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n");
    let max = 3 * 4 * FEWER_LINES + ALLOCATIONS_MAX;
    count_lines("workers: 1", "{type: container}", &line, FEWER_LINES, max);
}

fn count_lines(thyme: &str, operator: &str, line: &str, count: u64, allocations_max: u64) {
    let node = Node::without_copies();
    let yaml = node.yaml("compression: zstd", thyme).replace("timeout: 20ms", "timeout: 1s");
    let agent = node.start_yaml(&yaml.replace("{type: container}", operator));
    let lines = line.repeat(count as usize);
    let mut expected = 0;
    let mut write = || {
        for pod in ["a", "b", "c", "d"] {
            append(&node.container(pod).join("0.log"), &lines);
            expected += count as i64;
        }
        wait_until("all lines are acknowledged", || agent.metrics.acknowledged.get().0 == expected);
    };
    write();
    let before = WORKER_ALLOCATIONS.load(Ordering::Relaxed);
    write();
    let allocations = WORKER_ALLOCATIONS.load(Ordering::Relaxed) - before;
    agent.stop();
    assert!(before > 0, "the worker isn't counted");
    assert!(allocations < allocations_max, "{allocations} allocations for {count} lines of each");
}
