//! What waits aside, of all requests together: bounded in requests and in bytes. Near a bound, records
//! that are proved to be why give way; what is not proved never does, so that an outage loses nothing.
//! It must not decide what goes aside.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    bisect::Part,
    evidence::{Evidence, Moment},
    limits::{
        ASIDE_BYTES_MAX, ASIDE_FAILURES_MIN, ASIDE_REQUESTS_MAX, ASIDE_TIME_MIN, FAULTS_ALONE_MIN,
    },
};
use crate::metrics::Metrics;

/// All that waits aside; shared by all consumers of a sink.
#[derive(Debug)]
pub(super) struct Aside {
    /// Turns of requests that step aside, half as many as there are consumers, so that new ones have their
    /// turn too.
    trials: Semaphore,
    /// Turns of what is held, half as many again: it keeps none waiting that may have others in it.
    turns: Semaphore,
    sums: Arc<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    line: Mutex<Line>,
}

/// Requests that wait to be tried without evidence: one at a time, in the order in which they asked. If whoever
/// came first after a wait were tried, those whose waits are in step with others' might never be.
#[derive(Debug, Default)]
struct Line {
    /// When one of them was tried last.
    probed: Option<Instant>,
    waiting: BTreeSet<u64>,
    next: u64,
}

/// What one request has aside; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    sums: Arc<Sums>,
    is_aside: bool,
    bytes: usize,
    /// Its place in the line of those that wait to be tried without evidence.
    number: Option<u64>,
}

impl Aside {
    pub(super) fn new(consumers: usize) -> Self {
        let share = |of: usize| Semaphore::new(consumers.div_ceil(of).clamp(1, 1_000));
        Self { trials: share(2), turns: share(4), sums: Arc::default() }
    }

    /// The place of a request that is not aside yet.
    pub(super) fn place(&self) -> Place {
        Place { sums: Arc::clone(&self.sums), is_aside: false, bytes: 0, number: None }
    }

    /// Waits for the right to try a request that has stepped aside.
    pub(super) async fn trial(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.trials.acquire().await.ok()
    }

    /// Waits for the right to try what is held.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.acquire().await.ok()
    }

    /// Bytes that are held.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.sums.bytes.load(Ordering::Relaxed)
    }

    /// Whether single records may be added without regard to what they take.
    pub(super) fn has_room(&self) -> bool {
        self.sums.bytes.load(Ordering::Relaxed) <= ASIDE_BYTES_MAX
    }

    /// The bound that is near, if one is: from three quarters of it on, so that new requests find room
    /// meanwhile. Room in the spool is one for what takes some.
    pub(super) fn reached(&self, metrics: &Metrics, is_in_spool: bool) -> Option<&'static str> {
        let (requests, bytes) = (&self.sums.requests, &self.sums.bytes);
        if requests.load(Ordering::Relaxed) >= ASIDE_REQUESTS_MAX / 4 * 3 {
            Some("requests that wait aside")
        } else if bytes.load(Ordering::Relaxed) >= ASIDE_BYTES_MAX / 4 * 3 {
            Some("bytes of records that wait aside")
        } else {
            // A segment of it goes when the last of its records does, which mends no broken disk.
            let is_in_its_way = is_in_spool && metrics.spool_lacks_room.get() > 0;
            is_in_its_way.then_some("room in the spool: spool_bytes_max, or its disk")
        }
    }
}

impl Place {
    /// The request no longer keeps a consumer busy.
    pub(super) fn step_aside(&mut self) {
        if !std::mem::replace(&mut self.is_aside, true) {
            self.sums.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether nobody has tried without evidence for so long, and none has asked before it; then it does. It asks
    /// again and again until then, or leaves the line.
    pub(super) fn may_probe(&mut self, now: Instant, wait: Duration) -> bool {
        let mut line = self.sums.line.lock().unwrap_or_else(PoisonError::into_inner);
        let Line { probed, waiting, next } = &mut *line;
        let number = *self.number.get_or_insert_with(|| {
            *next += 1;
            waiting.insert(*next);
            *next
        });
        let is_due = probed.is_none_or(|last| now.saturating_duration_since(last) >= wait);
        let may = is_due && waiting.first() == Some(&number);
        if may {
            *probed = Some(now);
            waiting.remove(&number);
            self.number = None;
        }
        may
    }

    /// It does not wait to be tried without evidence any more.
    pub(super) fn leave_line(&mut self) {
        if let Some(number) = self.number.take() {
            let mut line = self.sums.line.lock().unwrap_or_else(PoisonError::into_inner);
            line.waiting.remove(&number);
        }
    }

    /// So many bytes more are held.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.sums.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many of them are not held any more.
    pub(super) fn subtract(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.sums.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave_line();
        self.subtract(self.bytes);
        if self.is_aside {
            self.sums.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What is known against a single record that the sink fails on or refuses for other reasons than what
/// is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// When it failed alone first.
    since: Option<Instant>,
    /// The last time.
    last: Option<Moment>,
    /// Times that it failed alone, each but the first after the sink had accepted something that was
    /// sent after the time before.
    failures: u32,
    /// One of them was none that a record can be the cause of.
    is_doubtful: bool,
}

impl Proof {
    /// It failed alone; `may_be_the_record` if a record can be the cause of that.
    pub(super) fn add(&mut self, evidence: &Evidence, now: Instant, may_be_the_record: bool) {
        let last = self.last.replace(evidence.now());
        self.failures += u32::from(last.is_none_or(|last| evidence.has_accepted_since(last)));
        self.since.get_or_insert(now);
        self.is_doubtful |= !may_be_the_record;
    }

    /// Whether it failed while the sink took others.
    pub(super) const fn is_alone(&self) -> bool {
        self.failures > 1
    }

    /// Whether the record itself is why the sink fails.
    pub(super) const fn is_sure(&self) -> bool {
        !self.is_doubtful && self.failures >= FAULTS_ALONE_MIN
    }

    /// Whether the record may give way to others.
    pub(super) fn may_give_way(&self, now: Instant) -> bool {
        let is_old = |since| now.saturating_duration_since(since) >= ASIDE_TIME_MIN;
        self.failures >= ASIDE_FAILURES_MIN && self.since.is_some_and(is_old)
    }
}

impl Part {
    /// Memory that it takes, about.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.body_bytes + size_of::<Self>() + 64
    }
}

#[cfg(test)]
mod tests;
