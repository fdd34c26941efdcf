//! Brings one request to its end: attempts, waits, halves, and accounts for every record. It knows
//! the sink, the clock and chance only through [`Sink`], so that a simulated hour takes no time.
//!
//! A request ends only by an acknowledgement, by the sink's word that its bytes are wrong, by being
//! one record that is too large, or by the end of a retry budget that the configuration set.
//! Everything else is kept and tried again, for as long as it takes.
//!
//! A request that times out is halved whatever others do, and fewer and smaller ones are sent by
//! all, see `pace`.
//!
//! A request that fails alone: where the sink breaks on it time after time (internal errors, broken
//! connections; time-outs of a single record) while it accepts others, it is halved like one that is
//! too large, until the record that does it is alone; that one is dropped as rejected. Without others
//! to compare with (one consumer, or a sink that is down) it is kept.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    bisect::{Bisector, Part},
    limits::{RETRY_AFTER_MAX, SUSPECT_FAILURES_MAX},
    outcome::{Cause, Failure, Outcome, Quote},
    pace::{Allowed, Pace, Turn},
    retry::{Backoff, Throttle},
    warnings::{Topic, Warnings},
};
use crate::{
    config::RetryConfig,
    metrics::Metrics,
    queue::{DropReason, Request, Settled},
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
    sink: S,
    /// The exporter's name, for logs.
    id: String,
    retry: RetryConfig,
    throttle: Throttle,
    pace: Pace,
    bisector: Bisector,
    warnings: Arc<Warnings>,
    metrics: Arc<Metrics>,
    /// Requests that the sink accepted; tells a sink that is down from one that can't stand a
    /// certain request.
    accepted: AtomicU64,
    /// The last attempt of anybody failed.
    is_failing: AtomicBool,
}

/// How a part of a request ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Accepted {
        rejected_records: u64,
    },
    TooLarge,
    /// Failed alone, see the file's documentation.
    Suspect,
    /// Took too long, or would take too long.
    TooSlow,
    Rejected,
    GivenUp,
}

/// Where the records of a request went.
#[derive(Debug, Default)]
pub(super) struct Tally {
    acknowledged: u64,
    dead_lettered: u64,
    dropped: Vec<(DropReason, u64)>,
}

impl Tally {
    fn drop_records(&mut self, reason: DropReason, records: u64) {
        if records == 0 {
            return;
        }
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += records,
            None => self.dropped.push((reason, records)),
        }
    }
}

/// How the attempts to send a request have gone.
struct Course {
    /// The first one; that others had to go first is not held against it.
    begun: Option<Instant>,
    /// Waits after failures; a time-out's go on for its halves.
    backoff: Backoff,
}

/// Failures of a part in a row that may be its own fault.
struct Suspicion {
    failures: u32,
    /// Requests that the sink had accepted at the first of them.
    accepted_before: u64,
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
            bisector,
            warnings,
            metrics,
            accepted: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Brings a request to its end. Halves are sent in order, each ended before the next.
    #[cfg(test)]
    pub(super) async fn deliver(&self, request: Request) -> Settled {
        let tally = self.send_all_of(&request).await;
        settle(request, tally)
    }

    /// Brings all of a request to its end, and says where its records went.
    pub(super) async fn send_all_of(&self, request: &Request) -> Tally {
        let mut course = Course { begun: None, backoff: Backoff::new(&self.retry) };
        let mut tally = Tally::default();
        // What is still to be sent, in reverse order.
        let mut parts = vec![Part::whole(request)];
        while let Some(part) = parts.pop() {
            let end = self.send_to_the_end(&part, &mut course).await;
            let halves = match end {
                End::TooLarge | End::Suspect | End::TooSlow => self.bisector.halve(&part).await,
                _ => None,
            };
            if end != End::TooSlow {
                course.backoff = Backoff::new(&self.retry);
            }
            if let Some((first, second)) = halves {
                parts.extend([second, first]);
                continue;
            }
            match end {
                End::Accepted { rejected_records } => {
                    let rejected = rejected_records.min(part.records);
                    tally.acknowledged += part.records - rejected;
                    tally.drop_records(DropReason::PartialSuccess, rejected);
                }
                End::TooLarge => {
                    self.warn_of_dead_letter(&part);
                    tally.dead_lettered += part.records;
                }
                End::Suspect | End::Rejected => {
                    tally.drop_records(DropReason::Rejected, part.records);
                }
                End::GivenUp => tally.drop_records(DropReason::RetryElapsed, part.records),
                // It can't be halved, which would be our own fault.
                End::TooSlow => parts.push(part),
            }
        }
        tally
    }

    async fn send_to_the_end(&self, part: &Part, course: &mut Course) -> End {
        let mut suspicion = self.no_suspicion();
        loop {
            let turn = self.turn().await;
            if part.records > 1 && turn.is_too_much(part.body_bytes) {
                return End::TooSlow;
            }
            let begun = *course.begun.get_or_insert_with(|| self.sink.now());
            let failure = match self.attempt(part, turn).await {
                Outcome::Failed(failure) => failure,
                outcome => return self.end_of(outcome, part),
            };
            self.is_failing.store(true, Ordering::Relaxed);
            let wait = self.wait_after(&failure, &mut course.backoff);
            if self.is_used_up(begun, wait) {
                self.warn_of_giving_up(part, &failure);
                return End::GivenUp;
            }
            if self.is_to_blame(&mut suspicion, failure.cause) {
                self.warn_of_suspect(part, &failure);
                return End::Suspect;
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
            if failure.cause == Cause::TimedOut && part.records > 1 {
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
    async fn attempt(&self, part: &Part, turn: Turn<'_>) -> Outcome {
        turn.begin(part.body_bytes);
        let begun = self.sink.now();
        let outcome = self.sink.attempt(part).await;
        let took = self.sink.now().saturating_duration_since(begun);
        match &outcome {
            Outcome::Accepted { .. } => turn.acknowledged(part.body_bytes, took),
            Outcome::Failed(failure) if failure.cause == Cause::TimedOut => turn.timed_out(took),
            _ => {}
        }
        outcome
    }

    fn end_of(&self, outcome: Outcome, part: &Part) -> End {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            self.warnings.about(Topic::Recovery, |suppressed| {
                tracing::info!(exporter = self.id, suppressed, "the sink answers again");
            });
        }
        match outcome {
            Outcome::Accepted { rejected_records, said } => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                if rejected_records > 0 || said != Quote::default() {
                    self.warn_of_partial_success(rejected_records, &said);
                }
                End::Accepted { rejected_records }
            }
            Outcome::TooLarge(said) => {
                self.warn_of_size(part, &said);
                End::TooLarge
            }
            Outcome::Rejected(said) => {
                self.warn_of_rejection(part, &said);
                End::Rejected
            }
            Outcome::Failed(_) => unreachable!("failures are tried again"),
        }
    }

    /// The backoff's wait, or the sink's if that is longer; the sink's holds for all consumers.
    fn wait_after(&self, failure: &Failure, backoff: &mut Backoff) -> Duration {
        let wait = backoff.next(self.sink.chance());
        let Some(asked) = failure.retry_after else { return wait };
        self.throttle.extend(self.sink.now(), asked);
        wait.max(asked.min(RETRY_AFTER_MAX))
    }

    async fn wait_while_throttled(&self) {
        while let Some(wait) = self.throttle.remaining(self.sink.now(), self.sink.chance()) {
            self.sink.sleep(wait).await;
        }
    }

    /// As in the Collector: whether the next attempt would come too late.
    fn is_used_up(&self, begun: Instant, wait: Duration) -> bool {
        let elapsed = self.sink.now().saturating_duration_since(begun);
        !self.retry.enabled
            || self.retry.max_elapsed.is_some_and(|max| elapsed.saturating_add(wait) > max)
    }

    fn no_suspicion(&self) -> Suspicion {
        Suspicion { failures: 0, accepted_before: self.accepted.load(Ordering::Relaxed) }
    }

    fn is_to_blame(&self, suspicion: &mut Suspicion, cause: Cause) -> bool {
        if !cause.may_be_the_request() {
            *suspicion = self.no_suspicion();
            return false;
        }
        suspicion.failures += 1;
        let accepted = self.accepted.load(Ordering::Relaxed) - suspicion.accepted_before;
        suspicion.failures >= SUSPECT_FAILURES_MAX && accepted >= SUSPECT_FAILURES_MAX.into()
    }

    /// Books that sending has panicked, says so, and waits before it is tried again.
    pub(super) async fn panicked(&self, request: &Request, what: &str, backoff: &mut Backoff) {
        let wait = backoff.next(self.sink.chance());
        tracing::error!(
            exporter = self.id,
            records = request.records,
            what,
            wait_ms = wait.as_millis(),
            "a fault of the agent while it sent a request, which is tried again"
        );
        self.metrics.panicked_requests.add_gauge(1);
        self.sink.sleep(wait).await;
        self.metrics.panicked_requests.add_gauge(-1);
    }

    /// Waits between attempts, from the first on.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(&self.retry)
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

    fn warn_of_suspect(&self, part: &Part, failure: &Failure) {
        self.warnings.about(Topic::Rejected, |suppressed| {
            tracing::error!(
                exporter = self.id,
                records = part.records,
                cause = failure.cause.as_str(),
                said = %failure.said,
                suppressed,
                "the sink fails on this request but accepts others: looking for the record that \
                 does it, which will be dropped"
            );
        });
    }

    fn warn_of_rejection(&self, part: &Part, said: &Quote) {
        self.warnings.about(Topic::Rejected, |suppressed| {
            tracing::error!(
                exporter = self.id,
                records = part.records,
                %said,
                suppressed,
                "records dropped: the sink rejected them for good"
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

    fn warn_of_dead_letter(&self, part: &Part) {
        self.warnings.about(Topic::DeadLettered, |suppressed| {
            tracing::error!(
                exporter = self.id,
                records = part.records,
                uncompressed_bytes = part.uncompressed_bytes,
                suppressed,
                "too large for the sink even alone: given up as a dead letter"
            );
        });
    }
}

/// The end of a request whose records went there.
pub(super) fn settle(request: Request, tally: Tally) -> Settled {
    let Tally { acknowledged, dead_lettered, dropped } = tally;
    let dropped_records: u64 = dropped.iter().map(|(_, records)| records).sum();
    debug_assert_eq!(acknowledged + dead_lettered + dropped_records, request.records);
    Settled {
        request,
        acknowledged_records: acknowledged,
        dead_lettered_records: dead_lettered,
        dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Compression,
        export::bisect::tests::{bodies_of_part, request_of},
    };
    use std::sync::Mutex;

    type Answers = dyn Fn(&[String], Duration) -> Outcome + Send + Sync;

    /// A sink and its clock, which only waiting moves.
    struct Simulation {
        /// Answers by the bodies sent and the time passed.
        answers: Box<Answers>,
        begun: Instant,
        passed: Mutex<Duration>,
        /// The bodies of each attempt.
        attempts: Arc<Mutex<Vec<Vec<String>>>>,
    }

    impl Sink for Simulation {
        async fn attempt(&self, part: &Part) -> Outcome {
            tokio::task::yield_now().await;
            let bodies = bodies_of_part(part);
            let outcome = (self.answers)(&bodies, *self.passed.lock().unwrap());
            self.attempts.lock().unwrap().push(bodies);
            outcome
        }

        async fn sleep(&self, wait: Duration) {
            *self.passed.lock().unwrap() += wait;
            tokio::task::yield_now().await;
        }

        async fn reachable_again(&self) {
            std::future::pending().await
        }

        fn now(&self) -> Instant {
            self.begun + *self.passed.lock().unwrap()
        }

        fn chance(&self) -> f64 {
            0.5
        }
    }

    const RETRY: RetryConfig = RetryConfig {
        enabled: true,
        initial_interval: Duration::from_secs(5),
        max_interval: Duration::from_secs(30),
        multiplier: 1.5,
        randomization_factor: 0.5,
        max_elapsed: None,
    };

    fn delivery(
        retry: RetryConfig,
        answers: impl Fn(&[String], Duration) -> Outcome + Send + Sync + 'static,
    ) -> Delivery<Simulation> {
        let sink = Simulation {
            answers: Box::new(answers),
            begun: Instant::now(),
            passed: Mutex::default(),
            attempts: Arc::default(),
        };
        let (warnings, metrics) = (Arc::default(), Arc::default());
        Delivery::new(sink, "otlp/test", retry, 10, Bisector::new(1), warnings, metrics)
    }

    fn bodies(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn accepted() -> Outcome {
        Outcome::Accepted { rejected_records: 0, said: Quote::default() }
    }

    fn failed(cause: Cause) -> Outcome {
        Outcome::failed(cause, Quote::new(b"no"))
    }

    /// Acknowledged, dead-lettered and dropped records.
    fn counts(settled: Settled) -> (u64, u64, Vec<(DropReason, u64)>) {
        (settled.acknowledged_records, settled.dead_lettered_records, settled.dropped)
    }

    /// Scenario: failure modes 20 and 24: for an hour the sink answers 503, refuses the
    /// credentials, is unreachable or misconfigured; then it accepts.
    /// Guarantees: the request is kept, with growing waits, and acknowledged at the end.
    #[tokio::test]
    async fn an_hour_of_failures_loses_nothing() {
        let hour = Duration::from_secs(3600);
        for cause in [Cause::Busy, Cause::Denied, Cause::Unreachable, Cause::Misdirected] {
            let delivery = delivery(
                RETRY,
                move |_, passed| {
                    if passed < hour { failed(cause) } else { accepted() }
                },
            );
            let request = request_of(&bodies(&["a", "b"]), Compression::Zstd);
            assert_eq!(counts(delivery.deliver(request).await), (2, 0, vec![]));
            let passed = *delivery.sink.passed.lock().unwrap();
            assert!(passed >= hour && passed < hour + Duration::from_secs(45));
            let retries = delivery.metrics.send_retries.get();
            assert!((120..130).contains(&retries), "{retries}");
        }
    }

    /// Scenario: as before with a sink that is broken in itself, and nobody else's requests.
    /// Guarantees: without a comparison the request is not suspected.
    #[tokio::test]
    async fn a_broken_sink_is_waited_for() {
        let hour = Duration::from_secs(3600);
        let delivery =
            delivery(
                RETRY,
                move |_, passed| {
                    if passed < hour { failed(Cause::Fault) } else { accepted() }
                },
            );
        let request = request_of(&bodies(&["a", "b"]), Compression::None);
        assert_eq!(counts(delivery.deliver(request).await), (2, 0, vec![]));
        let attempts = delivery.sink.attempts.lock().unwrap();
        assert!(attempts.iter().all(|sent| sent.len() == 2));
    }

    /// Scenario: `max_elapsed_time` is a minute; then retrying is switched off altogether.
    /// Guarantees: the request is dropped for that reason, after a minute or at once.
    #[tokio::test]
    async fn a_retry_budget_is_obeyed() {
        let minute = Duration::from_secs(60);
        let budget = RetryConfig { max_elapsed: Some(minute), ..RETRY };
        let limited = delivery(budget, |_, _| failed(Cause::Busy));
        let request = || request_of(&bodies(&["a", "b"]), Compression::None);
        let dropped = (0, 0, vec![(DropReason::RetryElapsed, 2)]);
        assert_eq!(counts(limited.deliver(request()).await), dropped);
        let passed = *limited.sink.passed.lock().unwrap();
        assert!(passed > minute / 2 && passed <= minute, "{passed:?}");

        let off = delivery(RetryConfig { enabled: false, ..RETRY }, |_, _| failed(Cause::Busy));
        assert_eq!(counts(off.deliver(request()).await), dropped);
        assert_eq!(off.sink.attempts.lock().unwrap().len(), 1);
    }

    /// Scenario: failure mode 26: the sink asks for 100 s, then for a year.
    /// Guarantees: it gets the 100 s, and of the year five minutes; other consumers wait as well.
    #[tokio::test]
    async fn the_sinks_wish_holds_for_all() {
        let asked = [100, 365 * 86_400].map(Duration::from_secs);
        let count = AtomicU64::new(0);
        let delivery = delivery(RETRY, move |_, _| {
            let before = count.fetch_add(1, Ordering::Relaxed);
            let Some(&asked) = asked.get(before as usize) else { return accepted() };
            let (cause, said) = (Cause::Busy, Quote::default());
            Outcome::Failed(Failure { cause, retry_after: Some(asked), said })
        });
        let request = request_of(&bodies(&["a"]), Compression::None);
        assert_eq!(counts(delivery.deliver(request).await), (1, 0, vec![]));
        let passed = *delivery.sink.passed.lock().unwrap();
        assert_eq!(passed, Duration::from_secs(100) + RETRY_AFTER_MAX);

        delivery.throttle.extend(delivery.sink.now(), Duration::from_secs(10));
        let request = request_of(&bodies(&["b"]), Compression::None);
        assert_eq!(counts(delivery.deliver(request).await), (1, 0, vec![]));
        let waited = *delivery.sink.passed.lock().unwrap() - passed;
        assert_eq!(waited, Duration::from_millis(10_500));
    }

    /// Scenario: failure mode 22: a sink that takes at most 2 records, none of them "large".
    /// Guarantees: every record arrives once and in order, but the one that is too large alone,
    /// which is a dead letter.
    #[tokio::test]
    async fn too_large_is_halved_down_to_one_record() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let delivery = delivery(RETRY, |sent, _| {
                if sent.len() > 2 || sent.iter().any(|body| body == "large") {
                    return Outcome::TooLarge(Quote::new(b"too large"));
                }
                accepted()
            });
            let all = bodies(&["a", "b", "c", "large", "d", "e", "f"]);
            let settled = delivery.deliver(request_of(&all, compression)).await;
            assert_eq!(settled.request.records, 7);
            assert_eq!(counts(settled), (6, 1, vec![]));
            let attempts = delivery.sink.attempts.lock().unwrap();
            let taken = attempts
                .iter()
                .filter(|sent| sent.len() <= 2 && sent.iter().all(|body| body != "large"));
            let taken: Vec<&String> = taken.flatten().collect();
            assert_eq!(taken, ["a", "b", "c", "d", "e", "f"]);
        }
    }

    /// Scenario: failure mode 25: partial success; once the sink says it rejected more than it got.
    /// Guarantees: rejected records are dropped for that reason and never sent again.
    #[tokio::test]
    async fn partial_success_is_never_retried() {
        for (rejected_records, expected) in [(1, 1), (9, 2)] {
            let delivery = delivery(RETRY, move |_, _| Outcome::Accepted {
                rejected_records,
                said: Quote::new(b"too old"),
            });
            let request = request_of(&bodies(&["a", "b"]), Compression::None);
            let dropped = vec![(DropReason::PartialSuccess, expected)];
            assert_eq!(counts(delivery.deliver(request).await), (2 - expected, 0, dropped));
            assert_eq!(delivery.sink.attempts.lock().unwrap().len(), 1);
        }
    }

    /// Scenario: the sink says that the bytes are wrong.
    /// Guarantees: the request is dropped at once, for that reason.
    #[tokio::test]
    async fn rejected_for_good() {
        let delivery = delivery(RETRY, |_, _| Outcome::Rejected(Quote::new(b"bad")));
        let request = request_of(&bodies(&["a", "b"]), Compression::None);
        let dropped = vec![(DropReason::Rejected, 2)];
        assert_eq!(counts(delivery.deliver(request).await), (0, 0, dropped));
        assert_eq!(delivery.sink.attempts.lock().unwrap().len(), 1);
    }

    /// Scenario: one record makes the sink fail, again and again, while it accepts other requests.
    /// Guarantees: only that record is dropped; its neighbours are delivered.
    #[tokio::test]
    async fn a_poisonous_record_is_found() {
        let delivery = delivery(RETRY, |sent, _| {
            let is_poisonous = sent.iter().any(|body| body == "poison");
            if is_poisonous { failed(Cause::Fault) } else { accepted() }
        });
        let poisoned = async {
            let all = bodies(&["a", "b", "c", "poison", "d"]);
            delivery.deliver(request_of(&all, Compression::Zstd)).await
        };
        let others = async {
            loop {
                delivery.deliver(request_of(&bodies(&["x"]), Compression::Zstd)).await;
            }
        };
        let settled = tokio::select! {
            biased;
            settled = poisoned => settled,
            () = others => unreachable!(),
        };
        assert_eq!(counts(settled), (4, 0, vec![(DropReason::Rejected, 1)]));
    }
}
