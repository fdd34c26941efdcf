//! Brings one request to its end: attempts, waits, halves, and accounts for every record. It knows
//! the sink, the clock and chance only through [`Sink`], so that a simulated hour takes no time.
//!
//! A request ends only by an acknowledgement, by being one record that the sink refuses while it
//! accepts others, or by the end of a retry budget that the configuration set. Everything else is
//! kept and tried again, for as long as it takes. What is refused is halved, see `refusal`.
//!
//! A request that times out is halved whatever others do, and fewer and smaller ones are sent by
//! all, see `pace`.
//!
//! A request on which the sink fails time after time, with whatever status, is halved like one that is
//! too large, also where nothing else is accepted: nobody can tell before that an outage from a limit that
//! nobody names, or from requests that each have a record which is not taken. A single record that fails
//! waits aside. A request that fails while others are accepted keeps no consumer busy.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::{
    account::{Account, Tally},
    aside::Aside,
    bisect::{Bisector, Part},
    evidence::{Evidence, Moment},
    limits::{
        RETRY_AFTER_MAX, SUSPECT_FAILURES_MAX, SUSPECT_PART_FAILURES_MAX, UNPROVED_FAILURES_MAX,
    },
    outcome::{Cause, Failure, InPart, Oddity, Outcome, Quote},
    pace::{Allowed, Pace, Turn},
    refusal::{Course, Refusal, Why},
    retry::{Backoff, Throttle},
    sizes::Sizes,
    slot::Slot,
    warnings::{Topic, Warnings},
};
use crate::{
    config::RetryConfig,
    metrics::Metrics,
    queue::{DropReason, Request},
};

/// The world outside: the sink, the clock, and chance.
pub(super) trait Sink: Send + Sync + 'static {
    /// Sends once and says what came of it.
    fn attempt(&self, part: &Part) -> impl Future<Output = Outcome> + Send;
    /// Waits.
    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send;
    /// Waits until somebody got a connection after nobody could.
    fn reachable_again(&self) -> impl Future<Output = ()> + Send;
    /// The time now.
    fn now(&self) -> Instant;
    /// A random number from 0 to 1.
    fn chance(&self) -> f64;
}

/// Delivers requests to one sink; shared by all consumers.
pub(super) struct Delivery<S> {
    pub(super) sink: S,
    /// The exporter's name, for logs.
    pub(super) id: String,
    pub(super) retry: RetryConfig,
    throttle: Throttle,
    pace: Pace,
    sizes: Sizes,
    pub(super) bisector: Bisector,
    pub(super) warnings: Arc<Warnings>,
    pub(super) metrics: Arc<Metrics>,
    /// What the sink accepted; tells a sink that is down, or the wrong one, from one that can't
    /// stand a certain request.
    pub(super) evidence: Evidence,
    /// Requests that are brought to their end at the same time, but for those aside.
    pub(super) consumers: usize,
    /// What waits aside.
    pub(super) aside: Aside,
    /// One permit: see `may_scout`.
    scout: Arc<Semaphore>,
    /// The last attempt of anybody failed.
    is_failing: AtomicBool,
}

/// A request that is to be brought to its end, whatever happens meanwhile.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    /// Parts with all records of it that are not settled: all of it, or what is left of one that was set
    /// aside.
    pub(super) rest: Vec<Part>,
    /// Bytes of what its owner holds of it since it was set aside, beside the parts.
    pub(super) owner_bytes: usize,
}

impl Job {
    pub(super) fn new(request: Request) -> Self {
        Self { rest: vec![Part::whole(&request)], request, owner_bytes: 0 }
    }
}

/// How a part of a request ended.
#[derive(Debug)]
enum End {
    Accepted {
        rejected_records: u64,
    },
    /// Taken, but for so many, with an error.
    RejectedInPart(InPart),
    /// The sink does not want it as it is.
    Refused(Refusal),
    /// Took too long, or would take too long.
    TooSlow,
    GivenUp,
}

impl End {
    const fn is_acceptance(&self) -> bool {
        matches!(self, Self::Accepted { .. } | Self::RejectedInPart(_))
    }

    /// Whether the waits go on with its halves.
    const fn is_for_its_halves(&self) -> bool {
        matches!(self, Self::TooSlow | Self::Refused(Refusal { why: Why::TooLarge, .. }))
    }
}

/// What of a part may be why the sink fails on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// A record, which may be given up: others are accepted.
    Record,
    /// Something of it: others are accepted, but nothing is given up for such a failure.
    Part,
    /// Perhaps its size, or a record of it: nothing is accepted, so that there is nothing to compare with.
    Unknown,
}

/// Failures of a part in a row that may be its own fault.
struct Suspicion {
    failures: u32,
    /// Those of them that named size.
    names_size: u32,
    /// One of them is none that a request could be the cause of.
    is_doubtful: bool,
    /// Requests that the sink had accepted before the first of them.
    accepted_before: u64,
    /// Before the first of them.
    since: Moment,
}

impl<S: Sink> Delivery<S> {
    pub(super) fn new(
        sink: S,
        id: &str,
        retry: RetryConfig,
        consumers: usize,
        bisector: Bisector,
        warnings: Arc<Warnings>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            sink,
            id: id.to_owned(),
            retry,
            throttle: Throttle::default(),
            pace: Pace::new(consumers),
            sizes: Sizes::default(),
            bisector,
            warnings,
            metrics,
            evidence: Evidence::default(),
            consumers,
            aside: Aside::new(consumers),
            scout: Arc::new(Semaphore::new(1)),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Brings a request to its end. Halves are sent in order, each ended before the next.
    #[cfg(test)]
    pub(super) async fn deliver(&self, request: Request, slot: &mut Slot) -> crate::queue::Settled {
        let mut job = Job::new(request);
        let tally = self.send_all_of(&mut job, slot).await;
        super::account::settle(job.request, tally)
    }

    /// Brings all of a request to its end, but for what of it is settled already, and says where the
    /// records went of which no part has told.
    pub(super) async fn send_all_of(&self, job: &mut Job, slot: &mut Slot) -> Tally {
        let Job { request, rest, owner_bytes } = job;
        let mut place = self.aside.place();
        place.add(*owner_bytes);
        let mut course = Course::new(&self.retry, slot, place, self.evidence.now());
        let mut account = Account::new(request);
        // What is still to be sent, in reverse order.
        let mut parts = self.parts_to_send(account.request(), rest).await;
        self.send_parts(&mut parts, &mut course, &mut account).await;
        while course.is_held() {
            if course.try_again_alone(&self.evidence, &mut parts) {
                self.send_parts(&mut parts, &mut course, &mut account).await;
                continue;
            }
            *owner_bytes += self.set_aside(&mut course, &mut account, rest).await;
            let turn = self.wait_aside(&mut parts, &mut course, &mut account).await;
            self.send_parts(&mut parts, &mut course, &mut account).await;
            drop(turn);
        }
        account.close()
    }

    /// What of a request is to be sent, the last first: what is not settled, halved until nothing of it
    /// has a size that the sink has refused of late. Parts that were settled before are cut out at the
    /// same places as then.
    async fn parts_to_send(&self, request: &Request, rest: &[Part]) -> Vec<Part> {
        let (mut whole, mut parts) = (rest.to_vec(), Vec::new());
        while let Some(part) = whole.pop() {
            let (start, end) = (part.first, part.first + part.records);
            if request.settled.contains(start, end) {
                continue;
            }
            let is_halved = request.settled.touches(start, end)
                || self.sizes.is_refused(&part, self.sink.now());
            match if is_halved { self.bisector.halve(&part).await } else { None } {
                Some((first, second)) => whole.extend([first, second]),
                None => parts.push(part),
            }
        }
        parts
    }

    async fn send_parts(
        &self,
        parts: &mut Vec<Part>,
        course: &mut Course<'_>,
        account: &mut Account<'_>,
    ) {
        while let Some(mut part) = parts.pop() {
            let end = self.send_to_the_end(&mut part, course).await;
            if end.is_acceptance() {
                course.scout = None;
            }
            if !end.is_for_its_halves() {
                course.backoff = self.backoff();
            }
            match end {
                End::Accepted { rejected_records } => {
                    let rejected = rejected_records.min(part.records);
                    account.take_all_but(rejected, DropReason::PartialSuccess, &part);
                    course.let_go(&part);
                }
                End::RejectedInPart(in_part) => {
                    let rejected = in_part.of(part.records);
                    account.take_all_but(rejected, DropReason::RejectedInPart, &part);
                    course.let_go(&part);
                }
                End::Refused(refusal) => {
                    self.take_refusal(part, refusal, parts, course, account).await;
                }
                End::TooSlow => match self.bisector.halve(&part).await {
                    Some((first, second)) => parts.extend([second, first]),
                    // That is our own fault: it is sent as it is.
                    None => {
                        course.is_indivisible = true;
                        parts.push(part);
                    }
                },
                End::GivenUp => {
                    account.drop_part(DropReason::RetryElapsed, &part);
                    course.let_go(&part);
                }
            }
        }
    }

    /// Waits between attempts, from the first on.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(&self.retry)
    }

    async fn send_to_the_end(&self, part: &mut Part, course: &mut Course<'_>) -> End {
        let mut suspicion = self.no_suspicion();
        let may_be_halved = part.records > 1 && !std::mem::take(&mut course.is_indivisible);
        loop {
            // Aside, there is a turn for all of what is tried.
            let is_beside = course.is_beside() && !course.is_aside;
            let aside = if is_beside { self.aside.trial().await } else { None };
            let turn = self.turn().await;
            if may_be_halved && turn.is_too_much(part.body_bytes) {
                return End::TooSlow;
            }
            let begun = *course.begun.get_or_insert_with(|| self.sink.now());
            let is_proved = course.is_proved(&self.evidence);
            let refused = |why, said| End::Refused(Refusal { why, said, is_proved });
            let (failure, names_size) = match self.attempt(part, turn, course.is_beside()).await {
                Outcome::Failed(failure) => (failure, false),
                Outcome::TooLargeForNow(failure) => (failure, true),
                outcome => return self.end_of(outcome, part, is_proved),
            };
            drop(aside);
            if names_size && part.records > 1 {
                self.warn_of_size(part, &failure.said);
                self.wait_for_now(begun, &failure, course).await;
                return refused(Why::TooLarge, failure.said);
            }
            self.is_failing.store(true, Ordering::Relaxed);
            let wait = self.wait_after(&failure, &mut course.backoff);
            if self.is_used_up(begun, wait) {
                self.warn_of_giving_up(part, &failure);
                return End::GivenUp;
            }
            if failure.cause != Cause::Unreachable {
                let may_be_it = failure.cause.may_be_the_request();
                part.proof.add(&self.evidence, self.sink.now(), may_be_it);
            }
            suspicion.names_size += u32::from(names_size);
            if suspicion.names_size >= SUSPECT_PART_FAILURES_MAX {
                return refused(Why::TooLarge, failure.said);
            }
            if course.is_aside && failure.cause != Cause::Unreachable {
                if !part.proof.is_alone() {
                    self.warn_of_retry(part, &failure, wait);
                }
                return refused(Why::Failed, failure.said);
            }
            if let Some(blame) = self.blame(&mut suspicion, part, course, failure.cause) {
                self.warn_of_suspect(part, &failure, blame);
                course.is_on_trial = true;
                return refused(Why::Suspect, failure.said);
            }
            if failure.cause != Cause::Unreachable {
                self.make_way(course, suspicion.since);
            }
            self.warn_of_retry(part, &failure, wait);
            self.metrics.send_retries.increment();
            if failure.cause == Cause::Unreachable {
                tokio::select! {
                    () = self.sink.sleep(wait) => {}
                    () = self.sink.reachable_again() => {}
                }
            } else {
                self.sink.sleep(wait).await;
            }
            if failure.cause == Cause::TimedOut && may_be_halved {
                return End::TooSlow;
            }
        }
    }

    /// Waits until the sink wants requests again, and its share of what may be in flight is free.
    async fn turn(&self) -> Turn<'_> {
        loop {
            self.wait_while_throttled().await;
            let turn = self.pace.turn().await;
            // The sink may have asked for a wait meanwhile.
            if self.throttle.remaining(self.sink.now(), 0.0).is_none() {
                return turn;
            }
        }
    }

    /// Sends once, and learns from how long that took.
    async fn attempt(&self, part: &Part, turn: Turn<'_>, is_beside: bool) -> Outcome {
        turn.begin(part.body_bytes);
        let (moment, begun) = (self.evidence.begin(), self.sink.now());
        let outcome = self.sink.attempt(part).await.of_request(part.records);
        let now = self.sink.now();
        let took = now.saturating_duration_since(begun);
        if outcome.is_acceptance(part.records) {
            self.evidence.accepted(moment, part.body_bytes);
        }
        match &outcome {
            Outcome::Failed(failure) if failure.cause == Cause::TimedOut => {
                // Where others of its size are accepted meanwhile, it says nothing about them.
                let is_slow = !self.evidence.has_accepted_as_much(moment, part.body_bytes);
                match (is_slow, is_beside) {
                    (true, false) => turn.timed_out(part.body_bytes, took, now),
                    (true, true) => turn.timed_out_beside(part.body_bytes, took, now),
                    (false, _) => {}
                }
            }
            Outcome::Failed(_) | Outcome::TooLargeForNow(_) => {}
            // Whatever it says, it came in time.
            Outcome::Accepted { .. }
            | Outcome::Unconfirmed(..)
            | Outcome::TooLarge(_)
            | Outcome::Rejected(_)
            | Outcome::RejectedInPart(..) => turn.answered(part.body_bytes, took, now),
        }
        self.sizes.learn(part, &outcome, now);
        outcome
    }

    fn end_of(&self, outcome: Outcome, part: &Part, is_proved: bool) -> End {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            self.warnings.about(Topic::Recovery, |suppressed| {
                tracing::info!(exporter = self.id, suppressed, "the sink answers again");
            });
        }
        match outcome {
            Outcome::Accepted { rejected_records, said } => {
                if rejected_records > 0 || said != Quote::default() {
                    self.warn_of_partial_success(rejected_records, &said);
                }
                End::Accepted { rejected_records }
            }
            Outcome::Unconfirmed(oddity, said) => {
                self.warn_of_oddity(oddity, &said);
                End::Accepted { rejected_records: 0 }
            }
            Outcome::TooLarge(said) => {
                self.warn_of_size(part, &said);
                End::Refused(Refusal { why: Why::TooLarge, said, is_proved })
            }
            Outcome::Rejected(said) => {
                End::Refused(Refusal { why: Why::Rejected, said, is_proved })
            }
            Outcome::RejectedInPart(in_part, said) => {
                self.warn_of_rejection_in_part(in_part, part, &said);
                End::RejectedInPart(in_part)
            }
            Outcome::TooLargeForNow(_) | Outcome::Failed(_) => {
                unreachable!("failures are tried again")
            }
        }
    }

    /// Waits after a refusal that says "not now", if the one before has brought nothing: perhaps it
    /// is not about size.
    async fn wait_for_now(&self, begun: Instant, failure: &Failure, course: &mut Course<'_>) {
        let last = course.refused_for_now_at.replace(self.evidence.now());
        if last.is_none_or(|last| self.evidence.has_accepted_since(last)) {
            self.throttle_for(failure);
            return;
        }
        let wait = self.wait_after(failure, &mut course.backoff);
        if !self.is_used_up(begun, wait) {
            self.sink.sleep(wait).await;
        }
    }

    /// The backoff's wait, or the sink's if that is longer; the sink's holds for all consumers.
    fn wait_after(&self, failure: &Failure, backoff: &mut Backoff) -> Duration {
        let wait = backoff.next(self.sink.chance());
        self.throttle_for(failure);
        wait.max(failure.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    /// Nobody sends anything before the sink wants it.
    fn throttle_for(&self, failure: &Failure) {
        if let Some(asked) = failure.retry_after {
            self.throttle.extend(self.sink.now(), asked);
        }
    }

    async fn wait_while_throttled(&self) {
        while let Some(wait) = self.throttle.remaining(self.sink.now(), self.sink.chance()) {
            self.sink.sleep(wait).await;
        }
    }

    /// As in the Collector: whether the next attempt would come too late.
    pub(super) fn is_used_up(&self, begun: Instant, wait: Duration) -> bool {
        let elapsed = self.sink.now().saturating_duration_since(begun);
        !self.retry.enabled
            || self.retry.max_elapsed.is_some_and(|max| elapsed.saturating_add(wait) > max)
    }

    fn no_suspicion(&self) -> Suspicion {
        let accepted_before = self.evidence.accepted_requests();
        let since = self.evidence.now();
        Suspicion { failures: 0, names_size: 0, is_doubtful: false, accepted_before, since }
    }

    /// Whether a part is why the sink fails, and if so, what of it.
    fn blame(
        &self,
        suspicion: &mut Suspicion,
        part: &Part,
        course: &mut Course<'_>,
        cause: Cause,
    ) -> Option<Blame> {
        if cause == Cause::Unreachable {
            *suspicion = self.no_suspicion();
            return None;
        }
        suspicion.failures += 1;
        suspicion.is_doubtful |= !cause.may_be_the_request();
        let accepted = self.evidence.accepted_requests() - suspicion.accepted_before;
        let others_are_accepted = accepted > 0 || course.is_proved(&self.evidence);
        let is_about_now = matches!(cause, Cause::Busy | Cause::TimedOut);
        let before = suspicion.since.before(self.consumers);
        let were_accepted = !course.is_on_trial && self.evidence.has_accepted_since(before);
        let may_be_it = others_are_accepted || were_accepted && part.records > 1;
        let failures_max = if may_be_it && !is_about_now {
            // It is not the sink; a part of what has failed before need not show it again.
            if course.is_on_trial { 1 } else { SUSPECT_PART_FAILURES_MAX }
        } else if part.records <= 1 {
            if others_are_accepted { SUSPECT_PART_FAILURES_MAX } else { UNPROVED_FAILURES_MAX }
        } else if course.is_on_trial {
            SUSPECT_PART_FAILURES_MAX
        } else {
            SUSPECT_FAILURES_MAX
        };
        if suspicion.failures < failures_max {
            return None;
        }
        if !may_be_it && !self.may_scout(course) {
            return None;
        }
        Some(match (others_are_accepted, suspicion.is_doubtful) {
            (false, _) => Blame::Unknown,
            (true, true) => Blame::Part,
            (true, false) => Blame::Record,
        })
    }

    /// Whether a request may be tried in parts, or in the place of others, while nothing is accepted: one may,
    /// or an outage would bring the sink many times the attempts, and many small requests when it is over.
    fn may_scout(&self, course: &mut Course<'_>) -> bool {
        if course.scout.is_none() {
            course.scout = Arc::clone(&self.scout).try_acquire_owned().ok();
        }
        course.scout.is_some()
    }

    /// A request that fails while others are accepted waits beside them; with one consumer, order is
    /// kept.
    fn make_way(&self, course: &mut Course<'_>, since: Moment) {
        if self.consumers > 1 && self.evidence.has_accepted_since(since.before(self.consumers)) {
            course.step_aside();
        }
    }

    /// Says that sending has panicked, and waits before it is tried again.
    pub(super) async fn wait_after_panic(
        &self,
        request: &Request,
        what: &str,
        backoff: &mut Backoff,
    ) {
        let wait = backoff.next(self.sink.chance());
        tracing::error!(
            exporter = self.id,
            records = request.records,
            what,
            wait_ms = wait.as_millis(),
            "a fault of the agent while it sent a request, which is tried again"
        );
        self.sink.sleep(wait).await;
    }

    fn warn_of_retry(&self, part: &Part, failure: &Failure, wait: Duration) {
        if failure.cause == Cause::TimedOut {
            return self.warn_of_timeout(part, failure, wait);
        }
        self.warnings.about(Topic::Retry(failure.cause), |suppressed| {
            tracing::warn!(
                exporter = self.id,
                records = part.records,
                cause = failure.cause.as_str(),
                said = %failure.said,
                wait_ms = wait.as_millis(),
                suppressed,
                "sending failed and is tried again"
            );
        });
    }

    fn warn_of_timeout(&self, part: &Part, failure: &Failure, wait: Duration) {
        self.warnings.about(Topic::Retry(Cause::TimedOut), |suppressed| {
            let Allowed { requests, request_bytes } = self.pace.allowed();
            tracing::warn!(
                exporter = self.id,
                records = part.records,
                body_bytes = part.body_bytes,
                cause = Cause::TimedOut.as_str(),
                said = %failure.said,
                wait_ms = wait.as_millis(),
                in_flight_max = requests,
                request_bytes_max = request_bytes,
                suppressed,
                "no answer in time: fewer and smaller requests are sent until answers come faster"
            );
        });
    }

    fn warn_of_giving_up(&self, part: &Part, failure: &Failure) {
        self.warnings.about(Topic::GivenUp, |suppressed| {
            tracing::error!(
                exporter = self.id,
                records = part.records,
                cause = failure.cause.as_str(),
                said = %failure.said,
                suppressed,
                "records dropped: retry_on_failure allows no further attempt"
            );
        });
    }

    fn warn_of_suspect(&self, part: &Part, failure: &Failure, blame: Blame) {
        let what = match blame {
            Blame::Record => {
                return self.warnings.about(Topic::Rejected, |suppressed| {
                    tracing::error!(
                        exporter = self.id,
                        records = part.records,
                        cause = failure.cause.as_str(),
                        said = %failure.said,
                        suppressed,
                        "the sink fails on this request but accepts others: looking for the record \
                         that does it, which will be dropped"
                    );
                });
            }
            Blame::Part => {
                "the sink fails on this request but accepts others: it is halved, and what fails is \
                 kept and tried again"
            }
            Blame::Unknown => {
                "the sink fails time after time and accepts nothing: a request is tried in halves, in \
                 case its size or one of its records is why. Everything is kept"
            }
        };
        self.warnings.about(Topic::Halved, |suppressed| {
            tracing::warn!(
                exporter = self.id,
                records = part.records,
                uncompressed_bytes = part.uncompressed_bytes,
                cause = failure.cause.as_str(),
                said = %failure.said,
                suppressed,
                "{what}"
            );
        });
    }

    fn warn_of_oddity(&self, oddity: Oddity, said: &Quote) {
        self.warnings.about(Topic::Oddity(oddity), |_| {
            tracing::warn!(
                exporter = self.id,
                answer = oddity.as_str(),
                %said,
                "what the sink answers is no acceptance of OTLP; it counts as one. Said once"
            );
        });
    }

    fn warn_of_rejection_in_part(&self, in_part: InPart, part: &Part, said: &Quote) {
        let is_exact = matches!(in_part, InPart::Exactly(_));
        self.warnings.about(Topic::PartialSuccess, |suppressed| {
            tracing::error!(
                exporter = self.id,
                records = part.records,
                rejected_records_max = in_part.of(part.records),
                is_exact,
                %said,
                suppressed,
                "the sink refused a part of a request and kept the others; it is not sent again"
            );
        });
    }

    fn warn_of_partial_success(&self, rejected_records: u64, said: &Quote) {
        self.warnings.about(Topic::PartialSuccess, |suppressed| {
            tracing::warn!(
                exporter = self.id,
                rejected_records,
                %said,
                suppressed,
                "the sink accepted a request in part"
            );
        });
    }

    fn warn_of_size(&self, part: &Part, said: &Quote) {
        self.warnings.about(Topic::Halved, |suppressed| {
            tracing::warn!(
                exporter = self.id,
                records = part.records,
                uncompressed_bytes = part.uncompressed_bytes,
                %said,
                suppressed,
                "a request is too large for the sink and is halved; a smaller \
                 request_bytes_max of the extension thyme would save that"
            );
        });
    }
}

#[cfg(test)]
mod tests;
