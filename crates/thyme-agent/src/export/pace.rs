//! How much is under way at once, learned from time-outs: over a thin link, or to a sink that is
//! slower the more it gets, what is sent at once has to fit into the time limit, or it is sent for
//! ever and never acknowledged. It decides who may send and how large; it neither sends nor waits.
//!
//! As TCP does it: a time-out halves the window (requests in flight, down to one) and the size up to
//! which requests leave in one piece; requests that are answered let both grow. They grow fast
//! only while the next step is foreseen to take less than half of what was too long, taking time to
//! be in proportion to both; beyond that they creep, since a sink may take as long for little as for
//! much. A size that timed out while smaller ones were answered is not tried again, nor is anything near it or more
//! at once, before the sink takes more bytes in a second than then. Without that it is tried again after a while: a
//! sink may have a limit of its own, that is raised. Before the first time-out nothing is limited.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::limits::{SLOW_SIZE_AGE_MAX, SLOW_SIZE_AGE_MIN};

/// Size below which requests leave in one piece, whatever happened. What times out is halved all
/// the same.
const REQUEST_BYTES_MIN: usize = 1024;

/// The same after a time-out beside others that are accepted: what is so small has rather a record that is never
/// answered, and costs the others little.
const REQUEST_BYTES_BESIDE_MIN: usize = 4 * 1024;

/// Share of the time that was too long up to which growth is foreseen to be harmless.
const GOOD_SHARE: f64 = 0.5;

/// Answers that take one step beyond that.
const CREEP: f64 = 32.0;

/// Share of the time that was too long from which on a time-out is no surprise: it is the road that is slow, and
/// what is as large takes as long again.
const FORESEEN_SHARE: f64 = 0.7;

/// Bytes a second, compared with those before, at which the road has become another one.
const FASTER: f64 = 1.5;

/// The window and the size, shared by all consumers.
#[derive(Debug)]
pub(super) struct Pace {
    /// One permit for each request that may be in flight.
    turns: Semaphore,
    /// Largest window.
    consumers: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests that may be in flight; the fraction is what has been gained towards the next.
    window: f64,
    in_flight: usize,
    /// Permits to be taken away as soon as they come back.
    owed: usize,
    /// Size up to which requests leave in one piece.
    request_bytes_max: usize,
    /// The largest that was sent of late.
    sent_bytes: usize,
    /// How long the last attempt that timed out took; `None` before the first.
    too_long: Option<Duration>,
    /// What timed out, where something had been answered since the time-out before.
    too_large: Option<TooLarge>,
    /// How long the last size that timed out so was not tried again, and until when.
    too_large_before: Option<(Duration, Instant)>,
    /// Something was answered since the last reduction.
    has_answered: bool,
    /// The largest that was answered of late.
    answered: Option<Answered>,
    /// Counts reductions: what began before the last one does not cause another.
    reductions: u64,
}

/// A size that is not tried again for a while.
#[derive(Clone, Copy, Debug)]
struct TooLarge {
    bytes: usize,
    until: Instant,
    /// Of the largest that had been answered before, as in [`Answered`].
    bytes_per_second: f64,
}

#[derive(Clone, Copy, Debug)]
struct Answered {
    bytes: usize,
    at: Instant,
    /// Of all that was in flight, if each got as much.
    bytes_per_second: f64,
}

/// The right to have one request in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pace: &'a Pace,
    /// Until it is dropped.
    permit: Option<SemaphorePermit<'a>>,
    /// Reductions before it.
    reductions: u64,
}

/// What is allowed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) requests: usize,
    /// `None` is any size.
    pub(super) request_bytes: Option<usize>,
}

impl Pace {
    pub(super) fn new(consumers: usize) -> Self {
        let consumers = consumers.clamp(1, Semaphore::MAX_PERMITS);
        let state = State {
            window: consumers as f64,
            in_flight: 0,
            owed: 0,
            request_bytes_max: usize::MAX,
            sent_bytes: 0,
            too_long: None,
            too_large: None,
            too_large_before: None,
            has_answered: false,
            answered: None,
            reductions: 0,
        };
        Self { turns: Semaphore::new(consumers), consumers, state: Mutex::new(state) }
    }

    /// Waits until one more request may be in flight; first come, first served.
    pub(super) async fn turn(&self) -> Turn<'_> {
        // It is never closed.
        let permit = self.turns.acquire().await.ok();
        let mut state = self.lock();
        state.in_flight += 1;
        Turn { pace: self, permit, reductions: state.reductions }
    }

    /// What is allowed now.
    pub(super) fn allowed(&self) -> Allowed {
        let state = self.lock();
        let request_bytes = Some(state.request_bytes_max).filter(|max| *max < usize::MAX);
        Allowed { requests: state.window as usize, request_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether a request has to be halved before it leaves.
    pub(super) fn is_too_much(&self, bytes: usize) -> bool {
        bytes > self.pace.lock().request_bytes_max
    }

    /// A request of this size leaves.
    pub(super) fn begin(&self, bytes: usize) {
        let mut state = self.pace.lock();
        state.sent_bytes = bytes.max(state.sent_bytes - state.sent_bytes / 16);
    }

    /// No answer to a request of this size came within this time: less from now on.
    pub(super) fn timed_out(&self, bytes: usize, took: Duration, now: Instant) {
        let Some(mut state) = self.reduction(bytes, took, now) else { return };
        let had = state.window as usize;
        // What was allowed but not used was not too much.
        state.window = (state.window.min(state.in_flight as f64) / 2.0).max(1.0);
        state.owed += had - state.window as usize;
        let sent_bytes = state.sent_bytes;
        state.halve_requests_of(sent_bytes);
        // Those that nobody has.
        while state.owed > 0
            && let Ok(free) = self.pace.turns.try_acquire()
        {
            free.forget();
            state.owed -= 1;
        }
    }

    /// The same while others, all of them smaller, are accepted: it says nothing about how many.
    pub(super) fn timed_out_beside(&self, bytes: usize, took: Duration, now: Instant) {
        if bytes < REQUEST_BYTES_BESIDE_MIN {
            return;
        }
        if let Some(mut state) = self.reduction(bytes, took, now) {
            state.halve_requests_of(bytes);
        }
    }

    /// Begins a reduction, unless there was one since the turn was had.
    fn reduction(
        &self,
        bytes: usize,
        took: Duration,
        now: Instant,
    ) -> Option<MutexGuard<'_, State>> {
        let mut state = self.pace.lock();
        state.too_long = Some(took);
        if state.reductions != self.reductions {
            return None;
        }
        state.reductions += 1;
        if std::mem::take(&mut state.has_answered) {
            state.learn_too_large(bytes, took, now);
        } else {
            state.too_large = None;
        }
        Some(state)
    }

    /// A request of this size was answered within this time, whatever the answer: perhaps more from now on.
    pub(super) fn answered(&self, bytes: usize, took: Duration, now: Instant) {
        let mut state = self.pace.lock();
        state.has_answered = true;
        state.learn_answered(bytes, took, now);
        let Some(too_long) = state.too_long else { return };
        let share = took.as_secs_f64() / too_long.as_secs_f64().max(1e-3);
        // What was not used up was not tried.
        if bytes > state.request_bytes_max / 2 {
            state.grow_requests(share);
        }
        let had = state.window as usize;
        if state.in_flight >= had {
            state.grow_window(share, self.pace.consumers);
        }
        let gained = state.window as usize - had;
        let forgiven = gained.min(state.owed);
        state.owed -= forgiven;
        self.pace.turns.add_permits(gained - forgiven);
    }
}

impl Answered {
    /// Whether it says nothing of today any more.
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= SLOW_SIZE_AGE_MIN
    }
}

impl State {
    /// A size timed out, after others had been answered.
    fn learn_too_large(&mut self, bytes: usize, took: Duration, now: Instant) {
        let answered = self.answered.filter(|answered| !answered.is_old(now));
        let bytes_per_second = answered.map_or(f64::INFINITY, |one| one.bytes_per_second);
        let foreseen = bytes as f64 * self.in_flight as f64 / bytes_per_second;
        let is_foreseen = foreseen >= took.as_secs_f64() * FORESEEN_SHARE;
        let is_news = answered.is_none_or(|answered| bytes > answered.bytes);
        let age = if is_foreseen && (is_news || self.in_flight > 1) {
            SLOW_SIZE_AGE_MAX
        } else if is_news {
            self.next_age(now)
        } else {
            // Where as much was answered of late, it was neither the size nor, alone, the number.
            self.too_large = None;
            return;
        };
        let until = now + age;
        self.too_large = Some(TooLarge { bytes, until, bytes_per_second });
        self.too_large_before = Some((age, until));
    }

    /// How long what times out unforeseen is not tried again: twice as long as before, if that was not long ago.
    fn next_age(&self, now: Instant) -> Duration {
        let is_fresh = |until: Instant| now.saturating_duration_since(until) < SLOW_SIZE_AGE_MAX;
        match self.too_large_before {
            Some((age, until)) if is_fresh(until) => (age * 2).min(SLOW_SIZE_AGE_MAX),
            _ => SLOW_SIZE_AGE_MIN,
        }
    }

    /// A size was answered.
    fn learn_answered(&mut self, bytes: usize, took: Duration, now: Instant) {
        let seconds = took.as_secs_f64().max(1e-3);
        let bytes_per_second = bytes as f64 * self.in_flight as f64 / seconds;
        if let Some(too_large) = self.too_large {
            let is_faster = bytes_per_second >= too_large.bytes_per_second * FASTER;
            let is_wrong = is_faster || bytes >= too_large.bytes;
            if is_wrong {
                self.too_large_before = None;
            }
            if is_wrong || now >= too_large.until {
                self.too_large = None;
            }
        }
        if self.answered.is_none_or(|answered| bytes >= answered.bytes || answered.is_old(now)) {
            self.answered = Some(Answered { bytes, at: now, bytes_per_second });
        }
    }

    fn halve_requests_of(&mut self, bytes: usize) {
        self.request_bytes_max = (self.request_bytes_max.min(bytes) / 2).max(REQUEST_BYTES_MIN);
    }

    fn grow_window(&mut self, share: f64, consumers: usize) {
        let flights = self.window.floor();
        let is_good = share * (flights + 1.0) / flights <= GOOD_SHARE;
        let step = match self.too_large {
            _ if is_good => 1.0,
            None => 1.0 / CREEP,
            Some(_) => 0.0,
        };
        self.window = (self.window + step / self.window).min(consumers as f64);
    }

    fn grow_requests(&mut self, share: f64) {
        let bytes = self.request_bytes_max;
        let step = if share <= GOOD_SHARE / 4.0 {
            bytes
        } else if share <= GOOD_SHARE {
            bytes / 8
        } else {
            bytes / CREEP as usize
        };
        // A quarter is left for what is not as regular as that.
        let max = self.too_large.map_or(usize::MAX, |too_large| too_large.bytes / 4 * 3);
        self.request_bytes_max = bytes.saturating_add(step).min(max.max(bytes));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.lock();
        state.in_flight -= 1;
        let Some(permit) = self.permit.take() else { return };
        if state.owed > 0 {
            state.owed -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests;
