//! All that a run consists of beside the agent: time, chance, log files, the state disk, the sink,
//! and the truth about them. Everything happens on one thread, in an order that follows from the
//! seed.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use super::{
    chance::Chance, disk::Disk, kubelet::Kubelet, plan::Plan, sink::SinkState, tree::Tree,
    truth::Truth,
};
use crate::world::Clock;

/// When a run begins, in nanoseconds since the Unix epoch: 2026-01-01.
const BEGIN_UNIX_NANOS: u64 = 1_767_225_600_000_000_000;

/// Nanoseconds since the Unix epoch at a time of a run.
pub(super) fn unix_nanos(now: u64) -> u64 {
    BEGIN_UNIX_NANOS + now
}

/// The world of one run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) chance: Chance,
    /// Nanoseconds since the run began.
    pub(super) now: u64,
    /// Whether things still go wrong.
    pub(super) faults: bool,
    /// Whether what happens is shown.
    is_traced: bool,
    /// Counts the agent's lives.
    pub(super) generation: u32,
    /// Whether the agent runs.
    pub(super) is_up: bool,
    /// Errors of log files so far.
    pub(super) read_errors: u64,
    pub(super) tree: Tree,
    pub(super) disk: Disk,
    pub(super) kubelet: Kubelet,
    pub(super) sink: SinkState,
    pub(super) truth: Truth,
}

/// The world, shared between the run and the parts of the agent. Nobody holds the lock while the
/// agent's code runs.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(super) fn new(plan: Plan, chance: Chance) -> Self {
        let truth = Truth::new(plan.config.receivers.len());
        Self(Arc::new(Mutex::new(World {
            plan,
            chance,
            now: 0,
            faults: true,
            is_traced: super::is_traced(),
            generation: 0,
            is_up: false,
            read_errors: 0,
            tree: Tree::default(),
            disk: Disk::default(),
            kubelet: Kubelet::default(),
            sink: SinkState::default(),
            truth,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn advance(&self, by: Duration) {
        self.lock().now += by.as_nanos() as u64;
    }
}

impl World {
    /// Shows what happens, if somebody wants to see it.
    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            super::show(&format!("{:>10.3} ms  {}", self.now as f64 / 1e6, what()));
        }
    }
}

impl Clock for Shared {
    fn now(&self) -> Instant {
        // Instants can't be made of numbers: any one will do as the beginning.
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        *BEGIN.get_or_init(Instant::now) + Duration::from_nanos(self.lock().now)
    }

    fn unix_nanos(&self) -> u64 {
        unix_nanos(self.lock().now)
    }
}
