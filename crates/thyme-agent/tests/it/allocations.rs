//! What the path of a line allocates: nothing per line.

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
fn a_million_lines_take_fewer_than_a_thousand_allocations() {
    for alone in ["allocations::counted_alone", "allocations::counted_alone_with_identities"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", alone])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

/// Scenario: a running agent, warmed up, is given a million lines more, over four containers.
/// Guarantees: its worker, which reads, parses, encodes, compresses, settles and keeps checkpoints,
/// allocates fewer than a thousand times.
#[test]
#[ignore = "the test above runs it alone"]
fn counted_alone() {
    count_a_million_lines("workers: 1");
}

/// Scenario: as above, with an identity in each record.
/// Guarantees: as above.
#[test]
#[ignore = "the test above runs it alone"]
fn counted_alone_with_identities() {
    count_a_million_lines("workers: 1, record_uid: true");
}

fn count_a_million_lines(thyme: &str) {
    const LINES: usize = 250_000;
    let node = Node::without_copies();
    let agent = node
        .start_yaml(&node.yaml("compression: zstd", thyme).replace("timeout: 20ms", "timeout: 1s"));
    let lines = cri("a line of a usual length, which says what happened and to whom").repeat(LINES);
    let mut expected = 0;
    let mut write = || {
        for pod in ["a", "b", "c", "d"] {
            append(&node.container(pod).join("0.log"), &lines);
            expected += LINES as i64;
        }
        wait_until("all lines are acknowledged", || agent.metrics.acknowledged.get().0 == expected);
    };
    write();
    let before = WORKER_ALLOCATIONS.load(Ordering::Relaxed);
    write();
    let allocations = WORKER_ALLOCATIONS.load(Ordering::Relaxed) - before;
    agent.stop();
    assert!(before > 0, "the worker isn't counted");
    assert!(allocations < 1_000, "{allocations} allocations for a million lines");
}
