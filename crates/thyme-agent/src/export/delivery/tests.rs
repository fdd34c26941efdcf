//! Whole deliveries to a sink that a closure plays, on a clock that only waiting moves.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, atomic::AtomicU64},
};

use super::*;
use crate::{
    config::Compression,
    export::{
        bisect::tests::{bodies_of_part, request_of},
        limits::GIVEN_UP_IN_A_ROW_MAX,
        slot::Slots,
    },
    queue::{Settled, Settlement},
    said::Said,
    tail::acknowledge::Acknowledged,
};

type Answers = dyn Fn(&[String], Duration) -> Outcome + Send + Sync;

/// Attempts of the longest test, and far more: a delivery that has no end is to say so before it has
/// taken all memory.
const ATTEMPTS_MAX: usize = 100_000;

/// A sink and its clock, which only waiting moves. Each wait moves it for all at once, so that nobody may
/// be kept busy elsewhere meanwhile: to whoever waits, that would be days.
struct Simulation {
    /// Answers by the bodies sent and the time passed.
    answers: Box<Answers>,
    begun: Instant,
    passed: Mutex<Duration>,
    /// The bodies of each attempt.
    attempts: Arc<Mutex<Vec<Vec<String>>>>,
    /// The time of each.
    passed_at: Mutex<Vec<Duration>>,
}

impl Sink for Simulation {
    async fn attempt(&self, part: &Part) -> Outcome {
        tokio::task::yield_now().await;
        let bodies = bodies_of_part(part);
        let passed = *self.passed.lock().unwrap();
        self.passed_at.lock().unwrap().push(passed);
        let outcome = (self.answers)(&bodies, passed);
        let mut attempts = self.attempts.lock().unwrap();
        attempts.push(bodies);
        assert!(attempts.len() < ATTEMPTS_MAX, "no end after {passed:?}");
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
        passed_at: Mutex::default(),
    };
    let (warnings, metrics) = (Arc::default(), Arc::default());
    Delivery::new(sink, "otlp/test", retry, 10, Bisector::new(1, None), warnings, metrics)
}

/// The end of a request, with what its parts have told before.
async fn deliver(delivery: &Delivery<Simulation>, request: Request) -> Settled {
    deliver_in(delivery, request, &mut Slots::new(1).take().await).await
}

/// [`deliver`], while more requests of one record are delivered than it has attempts.
async fn deliver_beside_others(delivery: &Delivery<Simulation>, request: Request) -> Settled {
    let others = async {
        loop {
            for _ in 0..3 {
                deliver(delivery, request_of(&bodies(&["x"]), Compression::None)).await;
            }
            delivery.sink.sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        biased;
        settled = deliver(delivery, request) => settled,
        () = others => unreachable!(),
    }
}

async fn deliver_in(
    delivery: &Delivery<Simulation>,
    mut request: Request,
    slot: &mut Slot,
) -> Settled {
    let (reply, told) = crossbeam_channel::unbounded();
    request.reply = reply;
    let mut settled = delivery.deliver(request, slot).await;
    for part in told.try_iter() {
        let part = match part {
            Settlement::Part(part) => part,
            Settlement::Aside(_) => continue,
            other => panic!("{other:?}"),
        };
        settled.acknowledged_records += part.acknowledged_records;
        settled.dead_lettered_records += part.dead_lettered_records;
        for (reason, records) in part.dropped {
            match settled.dropped.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, sum)) => *sum += records,
                None => settled.dropped.push((reason, records)),
            }
        }
    }
    settled
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
        assert_eq!(counts(deliver(&delivery, request).await), (2, 0, vec![]));
        let passed = *delivery.sink.passed.lock().unwrap();
        assert!(passed >= hour && passed < hour + Duration::from_secs(45));
        let attempts = attempts(&delivery);
        let expected = if cause == Cause::Unreachable { 120..130 } else { 120..150 };
        assert!(expected.contains(&attempts), "{cause:?}: {attempts}");
    }
}

/// Scenario: row 66: an outage of 503s for an hour, with a request of more than 256 KiB.
/// Guarantees: it is tried in halves, in words of their own: nothing says that others are accepted,
/// or that anything will be dropped, and nothing is an error.
#[tokio::test]
async fn an_outage_with_a_large_request_is_no_error() {
    let hour = Duration::from_secs(3600);
    let delivery = delivery(
        RETRY,
        move |_, passed| {
            if passed < hour { failed(Cause::Busy) } else { accepted() }
        },
    );
    let said = Said::default();
    let all = vec!["x".repeat(100_000); 8];
    let guard = said.listen();
    let settled = deliver(&delivery, request_of(&all, Compression::None)).await;
    drop(guard);
    assert_eq!(counts(settled), (8, 0, vec![]));
    let said = said.text();
    assert!(said.contains("Everything is kept"), "{said}");
    for wrong in ["ERROR", "accepts others", "dropped"] {
        assert!(!said.contains(wrong), "{said}");
    }
}

/// Scenario: as before with a sink that is broken in itself, and nobody else's requests.
/// Guarantees: without a comparison the request is tried smaller, and nothing is given up.
#[tokio::test]
async fn a_broken_sink_is_waited_for() {
    let hour = Duration::from_secs(3600);
    let delivery = delivery(
        RETRY,
        move |_, passed| {
            if passed < hour { failed(Cause::Fault) } else { accepted() }
        },
    );
    let request = request_of(&bodies(&["a", "b"]), Compression::None);
    assert_eq!(counts(deliver(&delivery, request).await), (2, 0, vec![]));
    assert!(attempts(&delivery) < 150, "{}", attempts(&delivery));
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
    assert_eq!(counts(deliver(&limited, request()).await), dropped);
    let passed = *limited.sink.passed.lock().unwrap();
    assert!(passed > minute / 2 && passed <= minute, "{passed:?}");

    let off = delivery(RetryConfig { enabled: false, ..RETRY }, |_, _| failed(Cause::Busy));
    assert_eq!(counts(deliver(&off, request()).await), dropped);
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
    assert_eq!(counts(deliver(&delivery, request).await), (1, 0, vec![]));
    let passed = *delivery.sink.passed.lock().unwrap();
    assert_eq!(passed, Duration::from_secs(100) + RETRY_AFTER_MAX);

    delivery.throttle.extend(delivery.sink.now(), Duration::from_secs(10));
    let request = request_of(&bodies(&["b"]), Compression::None);
    assert_eq!(counts(deliver(&delivery, request).await), (1, 0, vec![]));
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
        let settled = deliver(&delivery, request_of(&all, compression)).await;
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

/// Scenario: row 65: a sink that takes at most two records, and not one of them; a request of which
/// a part was settled in an earlier life of the agent.
/// Guarantees: each part is told when the sink has answered for it, with its places and counts; what
/// was settled before is neither sent nor counted again.
#[tokio::test]
async fn parts_are_told_as_they_end() {
    let delivery = delivery(RETRY, |sent, _| {
        if sent.len() > 2 || sent.iter().any(|body| body == "bad") {
            rejected()
        } else {
            accepted()
        }
    });
    let all = bodies(&["a", "b", "c", "bad", "d", "e", "f", "g"]);
    for (before, expected) in [
        (Acknowledged::default(), vec![(0..2, 2, 0), (2..3, 1, 0), (4..6, 2, 0), (6..8, 2, 0)]),
        (Acknowledged::new(2, &[(4, 6)]), vec![(2..3, 1, 0), (6..8, 2, 0)]),
    ] {
        let (reply, told) = crossbeam_channel::unbounded();
        let mut request = request_of(&all, Compression::Zstd);
        request.source_bytes = 803;
        (request.reply, request.settled) = (reply, before.clone());
        let mut left = request.unsettled();
        assert_eq!(left.0, 8 - before.count());
        let settled = delivery.deliver(request, &mut Slots::new(1).take().await).await;
        let mut places = Vec::new();
        for told in told.try_iter() {
            let Settlement::Part(part) = told else { panic!("{told:?}") };
            left = (left.0 - part.records, left.1 - part.source_bytes);
            places.push((part.places, part.acknowledged_records, part.dead_lettered_records));
        }
        assert_eq!(places, expected);
        // The last one is the request's end: the record that is refused twice.
        assert_eq!(settled.request.unsettled(), left);
        assert_eq!(counts(settled), (0, 0, vec![(DropReason::Rejected, 1)]));
        assert_eq!(left.0, 1);
    }
    let sent = delivery.sink.attempts.lock().unwrap();
    let times = |body: &str| sent.iter().filter(|sent| *sent == &[body, "b"][..]).count();
    assert_eq!(times("a"), 1);
}

/// Scenario: row 53 (D1): nobody else sends, the request is far smaller than any limit on sizes,
/// and its sink does not answer in time where it is of more than two records.
/// Guarantees: each time-out halves it, so that all of it is there after a few.
#[tokio::test]
async fn a_time_out_halves_whatever_the_size() {
    let delivery = delivery(RETRY, |sent, passed| {
        assert!(passed < Duration::from_secs(600), "the same is sent again and again");
        if sent.len() > 2 { failed(Cause::TimedOut) } else { accepted() }
    });
    let all = bodies(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
    assert_eq!(counts(settled), (8, 0, vec![]));
    let attempts = delivery.sink.attempts.lock().unwrap();
    let sizes: Vec<usize> = attempts.iter().map(Vec::len).collect();
    assert_eq!(sizes, [8, 4, 2, 2, 4, 2, 2]);
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
        assert_eq!(counts(deliver(&delivery, request).await), (2 - expected, 0, dropped));
        assert_eq!(delivery.sink.attempts.lock().unwrap().len(), 1);
    }
}

fn too_large_for_now() -> Outcome {
    let (cause, said) = (Cause::Busy, Quote::new(b"larger than max"));
    Outcome::TooLargeForNow(Failure { cause, retry_after: None, said })
}

fn odd_body() -> Outcome {
    Outcome::Unconfirmed(Oddity::Body, Quote::new(b"ok"))
}

fn too_large() -> Outcome {
    Outcome::TooLarge(Quote::new(b"413"))
}

fn rejected() -> Outcome {
    Outcome::Rejected(Quote::new(b"400"))
}

fn attempts(delivery: &Delivery<Simulation>) -> usize {
    delivery.sink.attempts.lock().unwrap().len()
}

/// Scenario: D2: the sink refuses two of a hundred records, in each way.
/// Guarantees: only those are given up, each other record is accepted once, and it costs no more
/// attempts than bisection does.
#[tokio::test]
async fn only_the_refused_records_are_given_up() {
    for (refusal, is_large) in [(rejected as fn() -> Outcome, false), (too_large, true)] {
        let delivery = delivery(RETRY, move |sent, _| {
            let is_bad = sent.iter().any(|body| body == "17" || body == "60");
            if is_bad { refusal() } else { accepted() }
        });
        let all: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
        let expected =
            if is_large { (98, 2, vec![]) } else { (98, 0, vec![(DropReason::Rejected, 2)]) };
        assert_eq!(counts(settled), expected);
        assert!(attempts(&delivery) <= 2 * (2 * 8), "{}", attempts(&delivery));
    }
}

/// Scenario: D11, D18: for an hour the sink refuses everything, from the start or after it has
/// accepted much; then it accepts. Twenty requests, of one record and of a hundred.
/// Guarantees: everything is accepted in the end; meanwhile it gets few attempts a minute, and
/// of a sink that never accepted anything not one record is given up.
#[tokio::test]
async fn a_sink_that_refuses_everything_is_waited_for() {
    let hour = Duration::from_secs(3600);
    for refusal in [rejected as fn() -> Outcome, too_large] {
        for begins_well in [false, true] {
            if begins_well && matches!(refusal(), Outcome::Rejected(_)) {
                continue;
            }
            let delivery = delivery(RETRY, move |sent, passed| {
                let is_good = passed >= hour || sent.iter().all(|body| body == "good");
                if is_good { accepted() } else { refusal() }
            });
            if begins_well {
                deliver(&delivery, request_of(&bodies(&["good"]), Compression::None)).await;
            }
            let slots = Slots::new(10);
            let one = |number: usize| {
                let (slots, delivery) = (&slots, &delivery);
                let records = if number.is_multiple_of(2) { 1 } else { 100 };
                let all: Vec<String> = (0..records).map(|record| format!("{record}")).collect();
                async move {
                    let mut slot = slots.take().await;
                    let request = request_of(&all, Compression::None);
                    counts(deliver_in(delivery, request, &mut slot).await)
                }
            };
            let all = futures_of((0..20).map(one).collect()).await;
            let total: u64 = all.iter().map(|(acknowledged, ..)| acknowledged).sum();
            assert_eq!(total, 10 * 101, "{all:?}");
            let attempts = attempts(&delivery);
            assert!(attempts < 20 * 70 + 1_000 * 3 + 500, "{attempts}");
        }
    }
}

/// Polls all in turn until each has ended: as many consumers as there are requests.
async fn futures_of<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    // They are one task to the runtime, whose budget for a turn the first of them could use up.
    let unconstrained = |future| Box::pin(tokio::task::unconstrained(future));
    let mut futures: Vec<_> = futures.into_iter().map(unconstrained).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Scenario: D11: a single record that is too large, alone in its request, at a sink that has
/// accepted others before, with one consumer; then another request.
/// Guarantees: the record gives its place to the other request, and is a dead letter once that
/// is accepted, not before.
#[tokio::test]
async fn a_lone_record_waits_aside_for_evidence() {
    let delivery = delivery(RETRY, |sent, _| {
        if sent.iter().any(|body| body == "large") { too_large() } else { accepted() }
    });
    let slots = Slots::new(1);
    let deliver_one = |name: &'static str| {
        let (slots, delivery) = (&slots, &delivery);
        async move {
            let mut slot = slots.take().await;
            let request = request_of(&bodies(&[name]), Compression::None);
            let settled = deliver_in(delivery, request, &mut slot);
            (counts(settled.await), *delivery.sink.passed.lock().unwrap())
        }
    };
    let ends = futures_of(vec![deliver_one("large"), deliver_one("x")]).await;
    assert_eq!(ends[0].0, (0, 1, vec![]));
    assert_eq!(ends[1].0, (1, 0, vec![]));
    assert!(ends[0].1 >= ends[1].1);
}

/// Scenario: the sink accepts something, and then rejects every record, one of a kind or all, for
/// an hour.
/// Guarantees: what it accepted before is no proof against what it refuses then: nothing is given
/// up, and there are few attempts.
#[tokio::test]
async fn what_was_accepted_before_a_refusal_proves_nothing() {
    let hour = Duration::from_secs(3600);
    for refusal in [rejected as fn() -> Outcome, too_large] {
        let delivery = delivery(RETRY, move |sent, passed| {
            let is_good = passed >= hour || sent.iter().all(|body| body == "good");
            if is_good { accepted() } else { refusal() }
        });
        deliver(&delivery, request_of(&bodies(&["good"]), Compression::None)).await;
        let all: Vec<String> = (0..1500).map(|number| number.to_string()).collect();
        let settled = deliver(&delivery, request_of(&all, Compression::None)).await;
        assert_eq!(counts(settled), (1500, 0, vec![]));
        assert!(attempts(&delivery) < 2 * 1500 + 1000, "{}", attempts(&delivery));
    }
}

/// Scenario: a request of 300 records of which the sink takes one, while it takes another request
/// every few seconds.
/// Guarantees: all others are given up, at a few attempts each.
#[tokio::test]
async fn what_is_refused_beside_what_is_taken_is_given_up() {
    let delivery = delivery(RETRY, move |sent, _| {
        if sent.iter().all(|body| body == "good") { accepted() } else { rejected() }
    });
    let mut all: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    all[70] = "good".to_owned();
    let refused = deliver(&delivery, request_of(&all, Compression::None));
    let others = async {
        loop {
            delivery.sink.sleep(Duration::from_secs(5)).await;
            deliver(&delivery, request_of(&bodies(&["good"]), Compression::None)).await;
        }
    };
    let settled = tokio::select! {
        biased;
        settled = refused => settled,
        () = others => unreachable!(),
    };
    assert_eq!(counts(settled), (1, 0, vec![(DropReason::Rejected, 299)]));
    let sent = delivery.sink.attempts.lock().unwrap();
    let refused = sent.iter().filter(|sent| sent.iter().any(|body| body != "good")).count();
    assert!(refused < 5 * 300, "{refused}");
}

/// Scenario: of two replicas behind one address one refuses everything, as rejected or as too
/// large; requests of a hundred records, and of one.
/// Guarantees: a record is given up only after two refusals with an acceptance between them: few
/// are, where one refusal would do it to half of them.
#[tokio::test]
async fn one_refusal_is_not_enough() {
    for refusal in [rejected as fn() -> Outcome, too_large] {
        let refused: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
        let noted = Arc::clone(&refused);
        let state = AtomicU64::new(1);
        let delivery = delivery(RETRY, move |sent, _| {
            let next = state.load(Ordering::Relaxed).wrapping_mul(6_364_136_223_846_793_005) + 1;
            state.store(next, Ordering::Relaxed);
            if next >> 63 == 0 {
                return accepted();
            }
            noted.lock().unwrap().push(sent.to_vec());
            refusal()
        });
        let mut lost = 0;
        for number in 0..400_u64 {
            let records = if number % 2 == 0 { 1 } else { 100 };
            let all: Vec<String> =
                (0..records).map(|record| format!("{number} {record}")).collect();
            let one = deliver(&delivery, request_of(&all, Compression::None));
            let other = deliver(&delivery, request_of(&bodies(&["x"]), Compression::None));
            let settled = futures_of(vec![one, other]).await;
            lost += 101 - settled.into_iter().map(|one| counts(one).0).sum::<u64>().min(101);
            lost -= 100 - records;
        }
        let refused = refused.lock().unwrap();
        let alone = refused.iter().filter(|sent| sent.len() == 1);
        let mut times = HashMap::new();
        alone.clone().for_each(|sent| *times.entry(sent).or_insert(0_u64) += 1);
        let twice: u64 = times.values().filter(|times| **times > 1).sum();
        assert!(lost <= twice / 2, "{lost} of {} refused alone", alone.count());
    }
}

/// Scenario: D17: a sink that says 503 with words about size to more than two records.
/// Guarantees: halved, the first time at once and then with one wait for each refusal before
/// which nothing was accepted; a single record is not given up for that before others were
/// accepted, and then it is a dead letter.
#[tokio::test]
async fn too_large_for_now_is_halved_and_waits_where_that_brought_nothing() {
    let delivery = delivery(RETRY, |sent, _| {
        if sent.len() <= 2 && sent.iter().all(|body| body != "large") {
            return accepted();
        }
        too_large_for_now()
    });
    let all = bodies(&["a", "b", "c", "d", "e"]);
    let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
    assert_eq!(counts(settled), (5, 0, vec![]));
    assert_eq!(*delivery.sink.passed.lock().unwrap(), RETRY.initial_interval);
    let all = bodies(&["a", "b", "c"]);
    let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
    assert_eq!(counts(settled), (3, 0, vec![]));
    assert_eq!(*delivery.sink.passed.lock().unwrap(), RETRY.initial_interval);
    let all = bodies(&["a", "large", "b"]);
    let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
    assert_eq!(counts(settled), (2, 1, vec![]));
}

/// Scenario: the words were not about size: for a minute the sink says them to everything.
/// Guarantees: no more attempts than an outage costs, but for one.
#[tokio::test]
async fn words_about_size_in_an_outage_are_no_storm() {
    let minute = Duration::from_secs(60);
    let delivery = delivery(
        RETRY,
        move |_, passed| {
            if passed < minute { too_large_for_now() } else { accepted() }
        },
    );
    let all: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
    assert_eq!(counts(settled), (100, 0, vec![]));
    let refused = delivery.sink.passed_at.lock().unwrap();
    let refused = refused.iter().filter(|passed| **passed < minute).count();
    assert!(refused <= 7, "{refused}");
}

/// Scenario: a sink with a limit on sizes gets one request after the other of the same size.
/// Guarantees: only the first is sent whole; once the limit is raised, they are again, after a
/// few minutes.
#[tokio::test]
async fn a_size_that_was_refused_is_halved_beforehand() {
    let raised = Duration::from_secs(600);
    let delivery = delivery(RETRY, move |sent, passed| {
        let bytes: usize = sent.iter().map(String::len).sum();
        if bytes > 250_000 && passed < raised { too_large() } else { accepted() }
    });
    let all = vec!["x".repeat(100_000); 4];
    let mut attempts_each = Vec::new();
    for _ in 0..3 {
        let before = attempts(&delivery);
        let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
        assert_eq!(counts(settled), (4, 0, vec![]));
        attempts_each.push(attempts(&delivery) - before);
    }
    assert_eq!(attempts_each, [3, 2, 2]);
    delivery.sink.sleep(raised).await;
    let before = attempts(&delivery);
    deliver(&delivery, request_of(&all, Compression::Zstd)).await;
    assert_eq!(attempts(&delivery) - before, 1);
}

/// Scenario: D20: the sink refuses a part of a request with an error, and keeps the others.
/// Guarantees: nothing is sent again; what is lost is counted, at most all.
#[tokio::test]
async fn rejected_in_part_is_never_sent_again() {
    for (in_part, lost) in [
        (InPart::Exactly(1), 1),
        (InPart::AllBut { kept: 1, of: 2 }, 2),
        (InPart::AllBut { kept: 0, of: 0 }, 3),
    ] {
        let delivery =
            delivery(RETRY, move |_, _| Outcome::RejectedInPart(in_part, Quote::new(b"old")));
        let request = request_of(&bodies(&["a", "b", "c"]), Compression::None);
        let dropped = vec![(DropReason::RejectedInPart, lost)];
        assert_eq!(counts(deliver(&delivery, request).await), (3 - lost, 0, dropped));
        assert_eq!(attempts(&delivery), 1);
    }
}

/// Scenario: a sink that never says more than 200 with "ok", and refuses one record: as too
/// large, or for good.
/// Guarantees: it is given up, as with any sink that takes others, and nothing waits for ever.
#[tokio::test]
async fn an_odd_body_is_an_acceptance_all_the_same() {
    for (refusal, expected) in [
        (too_large as fn() -> Outcome, (2, 1, vec![])),
        (rejected, (2, 0, vec![(DropReason::Rejected, 1)])),
    ] {
        let budget = RetryConfig { max_elapsed: Some(Duration::from_secs(3600)), ..RETRY };
        let delivery = delivery(budget, move |sent, _| {
            let is_bad = sent.iter().any(|body| body == "bad");
            if is_bad { refusal() } else { odd_body() }
        });
        let request = request_of(&bodies(&["a", "bad", "b"]), Compression::Zstd);
        assert_eq!(counts(deliver(&delivery, request).await), expected);
    }
}

/// Scenario: after a time-out the sink answers in good time again, in each way that is no
/// plain acceptance.
/// Guarantees: requests are sent whole again.
#[tokio::test]
async fn any_answer_in_time_lets_the_pace_recover() {
    let answers: [fn() -> Outcome; 4] = [
        odd_body,
        || Outcome::Unconfirmed(Oddity::Status, Quote::new(b"260")),
        || Outcome::RejectedInPart(InPart::Exactly(1), Quote::new(b"old")),
        || Outcome::Accepted { rejected_records: 1, said: Quote::new(b"old") },
    ];
    for answer in answers {
        let count = AtomicU64::new(0);
        let delivery = delivery(RETRY, move |_, _| {
            let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first { failed(Cause::TimedOut) } else { answer() }
        });
        let all = vec!["x".repeat(1000); 64];
        for _ in 0..64 {
            let request = request_of(&all, Compression::None);
            deliver(&delivery, request).await;
        }
        let sent = delivery.sink.attempts.lock().unwrap();
        assert_eq!(sent.last().unwrap().len(), 64, "{:?}", answer());
    }
}

/// Scenario: a sink that never answers in time for one record, alone or with others, and
/// accepts others meanwhile, as one does that has too much to do; after an hour it does.
/// Guarantees: the record is kept for that hour and delivered; its neighbours don't wait for it.
#[tokio::test]
async fn a_time_out_never_gives_a_record_up() {
    let hour = Duration::from_secs(3600);
    let delivery = delivery(RETRY, move |sent, passed| {
        let is_slow = sent.iter().any(|body| body == "slow");
        if is_slow && passed < hour { failed(Cause::TimedOut) } else { accepted() }
    });
    let all = bodies(&["a", "b", "c", "slow", "d"]);
    let settled = deliver_beside_others(&delivery, request_of(&all, Compression::Zstd)).await;
    assert_eq!(counts(settled), (5, 0, vec![]));
    let sent = delivery.sink.attempts.lock().unwrap();
    let slow = |sent: &Vec<String>| sent.iter().any(|body| body == "slow");
    let last = sent.iter().rposition(slow).unwrap();
    let neighbour = sent.iter().position(|sent| sent == &["d"]).unwrap();
    assert!(neighbour < last, "{neighbour} {last}");
}

/// Scenario: a request of which halving can make nothing, by our own fault, takes too long.
/// Guarantees: it is sent again as it is, after a wait, and not turned round for ever.
#[tokio::test]
async fn what_cannot_be_halved_is_sent_whole() {
    let count = AtomicU64::new(0);
    let delivery = delivery(RETRY, move |_, _| {
        let is_late = count.fetch_add(1, Ordering::Relaxed) < 3;
        if is_late { failed(Cause::TimedOut) } else { accepted() }
    });
    let mut request = request_of(&["x".repeat(9000)], Compression::None);
    request.records = 2;
    let settled = tokio::time::timeout(Duration::from_secs(60), deliver(&delivery, request));
    assert_eq!(counts(settled.await.expect("no end")), (2, 0, vec![]));
    assert_eq!(attempts(&delivery), 4);
    assert!(*delivery.sink.passed.lock().unwrap() >= 3 * RETRY.initial_interval);
}

/// Scenario: D24: an answer that no OTLP server gives, to some requests; then, beside more of these, refusals.
/// Guarantees: those requests count as taken, but an odd status proves nothing: what is refused
/// is kept.
#[tokio::test]
async fn an_odd_answer_takes_a_request_but_proves_nothing() {
    let delivery = delivery(RETRY, |sent, _| {
        if sent[0] == "x" {
            return Outcome::Unconfirmed(Oddity::Status, Quote::new(b"260"));
        }
        rejected()
    });
    let request = request_of(&bodies(&["x"]), Compression::None);
    assert_eq!(counts(deliver(&delivery, request).await), (1, 0, vec![]));
    let limited = Delivery {
        retry: RetryConfig { max_elapsed: Some(Duration::from_secs(3600)), ..RETRY },
        ..delivery
    };
    let request = request_of(&bodies(&["a"]), Compression::None);
    let dropped = vec![(DropReason::RetryElapsed, 1)];
    assert_eq!(counts(deliver_beside_others(&limited, request).await), (0, 0, dropped));
    assert!(attempts(&limited) > 100);
}

/// What a sink answers.
type Answer = fn() -> Outcome;

/// Scenario: D18, D20, D24: answers that somebody has to hear of: odd ones of both kinds, a success and
/// a refusal in part, and the refusal of everything for ten minutes, by a sink that never accepted
/// anything and by one that did.
/// Guarantees: each is said, with the sink's words and what it means.
#[tokio::test]
async fn what_somebody_has_to_hear_of_is_said() {
    let answers: [(Answer, &str); 5] = [
        (
            || Outcome::Unconfirmed(Oddity::Status, Quote::new(b"why")),
            "what the sink answers is no acceptance of OTLP",
        ),
        (
            || Outcome::Unconfirmed(Oddity::Body, Quote::new(b"why")),
            "what the sink answers is no acceptance of OTLP",
        ),
        (
            || Outcome::Accepted { rejected_records: 1, said: Quote::new(b"why") },
            "the sink accepted a request in part",
        ),
        (
            || Outcome::RejectedInPart(InPart::Exactly(1), Quote::new(b"why")),
            "the sink refused a part of a request and kept the others",
        ),
        (
            || Outcome::Rejected(Quote::new(b"why")),
            "look at the exporter's endpoint, headers and auth. Everything is kept",
        ),
    ];
    for (answer, words) in answers {
        let minutes = Duration::from_secs(600);
        let delivery =
            delivery(RETRY, move |_, passed| if passed > minutes { accepted() } else { answer() });
        let said = Said::default();
        let guard = said.listen();
        deliver(&delivery, request_of(&bodies(&["a", "b"]), Compression::None)).await;
        drop(guard);
        let said = said.text();
        let line = said.lines().find(|line| line.contains(words));
        assert!(line.is_some_and(|line| line.contains("said=why")), "{words}: {said}");
    }
    let delivery = delivery(RETRY, |sent, passed| {
        let is_good = sent[0] == "good" || passed > Duration::from_secs(600);
        if is_good { accepted() } else { rejected() }
    });
    deliver(&delivery, request_of(&bodies(&["good"]), Compression::None)).await;
    let said = Said::default();
    let guard = said.listen();
    deliver(&delivery, request_of(&bodies(&["a"]), Compression::None)).await;
    drop(guard);
    let said = said.text();
    assert!(said.contains("has accepted nothing since: they are kept"), "{said}");
    assert!(!said.contains("dropped"), "{said}");
}

/// Scenario: 74 requests of 16 records each, all of which the sink refuses alone; it accepts one other
/// request, and later everything.
/// Guarantees: on that one acceptance only so many records are given up as the limit says; the others
/// are kept.
#[tokio::test]
async fn one_acceptance_is_evidence_for_a_limited_number_of_records() {
    const BAD: u64 = 74 * 16;
    let day = Duration::from_secs(24 * 3600);
    let (refused, good_at) = (Mutex::new(HashSet::new()), Mutex::new(None));
    let delivery = delivery(RETRY, move |sent, passed| {
        let mut refused = refused.lock().unwrap();
        let mut good_at = good_at.lock().unwrap();
        if sent[0] == "good" && refused.len() as u64 == BAD {
            good_at.get_or_insert(passed);
            return accepted();
        }
        if sent[0] == "good" {
            return failed(Cause::Busy);
        }
        if good_at.is_some_and(|at| passed > at + day) {
            return accepted();
        }
        if sent.len() == 1 {
            refused.insert(sent[0].clone());
        }
        rejected()
    });
    let one = |number: usize| {
        let all: Vec<_> = (0..16).map(|record| format!("{number} {record}")).collect();
        let all = if number == 0 { bodies(&["good"]) } else { all };
        let delivery = &delivery;
        async move { counts(deliver(delivery, request_of(&all, Compression::None)).await) }
    };
    let all = futures_of((0..75).map(one).collect()).await;
    let dropped = |reason| {
        let all = all.iter().flat_map(|(_, _, dropped)| dropped);
        all.filter(|one| one.0 == reason).map(|one| one.1).sum::<u64>()
    };
    assert_eq!(dropped(DropReason::Rejected), GIVEN_UP_IN_A_ROW_MAX);
    let acknowledged: u64 = all.iter().map(|(acknowledged, ..)| acknowledged).sum();
    assert_eq!(acknowledged, 1 + BAD - GIVEN_UP_IN_A_ROW_MAX);
    assert!(attempts(&delivery) < 15_000, "{}", attempts(&delivery));
}

/// Scenario: one record for which the sink is busy, or refuses the credentials, again and again,
/// while it accepts others; the queue has one consumer more.
/// Guarantees: its neighbours are delivered, and it is still kept an hour later.
#[tokio::test]
async fn whatever_the_status_says_what_fails_alone_is_halved() {
    for cause in [Cause::Busy, Cause::Denied, Cause::Misdirected] {
        let hour = Duration::from_secs(3600);
        let delivery = delivery(RETRY, move |sent, passed| {
            let is_refused = sent.iter().any(|body| body == "refused");
            if is_refused && passed < hour { failed(cause) } else { accepted() }
        });
        let all = bodies(&["a", "b", "c", "refused", "d"]);
        let settled = deliver_beside_others(&delivery, request_of(&all, Compression::Zstd)).await;
        assert_eq!(counts(settled), (5, 0, vec![]));
        let sent = delivery.sink.attempts.lock().unwrap();
        let last = sent.iter().rposition(|sent| sent.iter().any(|body| body == "d")).unwrap();
        assert!(sent[last..].iter().filter(|sent| sent[0] == "refused").count() > 3);
    }
}

/// Scenario: seven times the sink refuses the credentials for a record, is busy, or takes too long, and
/// the eighth time it fails, while it accepts others; from then on it accepts that record as well.
/// Guarantees: one such failure does not turn the others into the record's own: it is delivered.
#[tokio::test]
async fn failures_of_other_causes_do_not_condemn_a_record() {
    for cause in [Cause::Denied, Cause::Busy, Cause::TimedOut, Cause::Misdirected] {
        let tries = std::sync::atomic::AtomicU32::new(0);
        let delivery = delivery(RETRY, move |sent, _| {
            if sent[0] != "held" {
                return accepted();
            }
            match tries.fetch_add(1, Ordering::Relaxed) {
                0..7 => failed(cause),
                7 => failed(Cause::Fault),
                _ => accepted(),
            }
        });
        let request = request_of(&bodies(&["held"]), Compression::Zstd);
        let settled = deliver_beside_others(&delivery, request).await;
        assert_eq!(counts(settled), (1, 0, vec![]), "{cause:?}");
    }
}

/// Scenario: a large request at which the sink fails, without a word about size, and no others.
/// Guarantees: it is tried smaller, so that a limit that nobody names wedges nothing.
#[tokio::test]
async fn a_large_request_that_fails_is_tried_smaller() {
    let delivery = delivery(RETRY, |sent, passed| {
        assert!(passed < Duration::from_secs(600), "the same is sent again and again");
        let bytes: usize = sent.iter().map(String::len).sum();
        if bytes > 200_000 { failed(Cause::Busy) } else { accepted() }
    });
    let all = vec!["x".repeat(100_000); 8];
    let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
    assert_eq!(counts(settled), (8, 0, vec![]));
}

/// Scenario: row 56: a sink with a limit of 100 KB answers 507 in words of its own, from the very first request on,
/// which is far smaller than 256 KiB.
/// Guarantees: what a sink refuses is tried smaller whatever the status: all arrives, in order.
#[tokio::test]
async fn a_small_limit_that_nobody_names_is_found() {
    for cause in [Cause::Fault, Cause::Busy, Cause::Misdirected, Cause::Denied] {
        let delivery = delivery(RETRY, move |sent, _| {
            let bytes: usize = sent.iter().map(String::len).sum();
            if bytes > 100_000 { failed(cause) } else { accepted() }
        });
        let all: Vec<String> = (0..8).map(|number| format!("{number:020000}")).collect();
        let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
        assert_eq!(counts(settled), (8, 0, vec![]));
        let passed = *delivery.sink.passed.lock().unwrap();
        assert!(passed < Duration::from_secs(60), "{cause:?}: {passed:?}");
        let sent = delivery.sink.attempts.lock().unwrap();
        let small = sent.iter().filter(|sent| sent.len() < 6).flatten();
        assert!(small.eq(&all));
    }
}

/// Scenario: row 56: a record on which the sink always fails is the first to be sent, and then waits aside
/// while others are accepted; later the sink fails on all requests of more than two records.
/// Guarantees: a request is tried smaller all the same: the record does not keep the right to that.
#[tokio::test]
async fn a_record_aside_keeps_nobody_from_finding_a_limit() {
    let is_limited = Arc::new(AtomicBool::new(false));
    let limited = Arc::clone(&is_limited);
    let delivery = delivery(RETRY, move |sent, passed| {
        assert!(passed < Duration::from_secs(20_000), "the same is sent again and again");
        let is_large = limited.load(Ordering::Relaxed) && sent.len() > 2;
        if sent[0] == "poison" || is_large { failed(Cause::Busy) } else { accepted() }
    });
    let poison = deliver(&delivery, request_of(&bodies(&["poison"]), Compression::None));
    let others = async {
        while attempts(&delivery) < 10 {
            delivery.sink.sleep(Duration::from_secs(1)).await;
        }
        for _ in 0..100 {
            deliver(&delivery, request_of(&bodies(&["x"]), Compression::None)).await;
            delivery.sink.sleep(Duration::from_secs(10)).await;
        }
        is_limited.store(true, Ordering::Relaxed);
        let all = bodies(&["a", "b", "c", "d", "e", "f"]);
        deliver(&delivery, request_of(&all, Compression::None)).await
    };
    let settled = tokio::select! {
        biased;
        _ = poison => panic!("it is never taken"),
        settled = others => settled,
    };
    assert_eq!(counts(settled), (6, 0, vec![]));
}

/// Scenario: row 55: one record of a request waits aside, or two do, and what sends them panics.
/// Guarantees: nobody holds the request's body any more, and what is held counts as before, so that the bound
/// on what waits aside holds.
#[tokio::test]
async fn what_is_held_counts_after_a_panic() {
    for all in [bodies(&["a", "poison", "b"]), bodies(&["poison", "a", "poison"])] {
        let panics = Arc::new(AtomicBool::new(false));
        let panic = Arc::clone(&panics);
        let delivery = delivery(RETRY, move |sent, _| {
            if sent.iter().all(|body| body != "poison") {
                return accepted();
            }
            assert!(!panic.swap(false, Ordering::Relaxed), "a fault");
            failed(Cause::Busy)
        });
        let mut slot = Slots::new(1).take().await;
        let mut request = request_of(&all, Compression::None);
        let body = bytes::Bytes::from(request.body.concat());
        request.body = vec![body.clone()];
        let poison = super::super::supervise::deliver(&delivery, request, &mut slot);
        let others = async {
            let mut held = Vec::new();
            for _ in 0..2 {
                for _ in 0..1_000 {
                    deliver(&delivery, request_of(&bodies(&["x"]), Compression::None)).await;
                    delivery.sink.sleep(Duration::from_secs(10)).await;
                }
                assert!(body.is_unique(), "the body is held");
                held.push(delivery.aside.held_bytes());
                panics.store(true, Ordering::Relaxed);
            }
            held
        };
        let held = tokio::select! {
            biased;
            _ = poison => panic!("it is never taken"),
            held = others => held,
        };
        assert!(held[0] > 0 && held[0] == held[1], "{held:?}");
    }
}

/// Scenario: the spool has no room, and the sink never takes two records, one of a request of the spool.
/// Guarantees: only that one gives way: the other takes nothing there.
#[tokio::test]
async fn a_spool_without_room_costs_only_what_is_in_it() {
    let delivery =
        delivery(RETRY, |sent, _| if sent[0] == "x" { accepted() } else { failed(Cause::Busy) });
    delivery.metrics.spool_lacks_room.set(1);
    let spooled = request_of(&bodies(&["spooled"]), Compression::None);
    spooled.token.in_spool.store(true, Ordering::Relaxed);
    let settled = deliver_beside_others(&delivery, spooled).await;
    assert_eq!(counts(settled), (0, 0, vec![(DropReason::NeverTaken, 1)]));
    let other = request_of(&bodies(&["other"]), Compression::None);
    let end = async {
        delivery.sink.sleep(Duration::from_secs(3_600)).await;
        while attempts(&delivery) < 2_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        settled = deliver_beside_others(&delivery, other) => panic!("{settled:?}"),
        () = end => {}
    }
}

/// Scenario: D17: a sink says 503 with words about size and a `Retry-After` to more than two records.
/// Guarantees: the halves wait for that, the first time too.
#[tokio::test]
async fn too_large_for_now_is_not_halved_before_the_sink_wants_it() {
    let delivery = delivery(RETRY, |sent, _| match too_large_for_now() {
        _ if sent.len() <= 2 => accepted(),
        Outcome::TooLargeForNow(failure) => {
            let retry_after = Some(Duration::from_secs(20));
            Outcome::TooLargeForNow(Failure { retry_after, ..failure })
        }
        other => other,
    });
    let all = bodies(&["a", "b", "c"]);
    let settled = deliver(&delivery, request_of(&all, Compression::Zstd)).await;
    assert_eq!(counts(settled), (3, 0, vec![]));
    let passed = delivery.sink.passed_at.lock().unwrap();
    assert!(passed[1] >= Duration::from_secs(20), "{passed:?}");
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
        deliver(&delivery, request_of(&all, Compression::Zstd)).await
    };
    let others = async {
        loop {
            deliver(&delivery, request_of(&bodies(&["x"]), Compression::Zstd)).await;
        }
    };
    let settled = tokio::select! {
        biased;
        settled = poisoned => settled,
        () = others => unreachable!(),
    };
    assert_eq!(counts(settled), (4, 0, vec![(DropReason::Rejected, 1)]));
}
