//! Whole deliveries over thin links and to slow sinks, in simulated time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Waker},
    time::Instant,
};

use crossbeam_channel::Receiver;
use proptest::prelude::*;
use thyme_core::otlp::walk;

use super::*;
use crate::{
    config::{Compression, ExporterConfig, Protocol, QueueConfig, RetryConfig, TlsConfig},
    export::{
        bisect::tests::request_of,
        simulated::{Answer, Consumer, Network, exporter},
    },
    metrics::Metrics,
    queue::{Request, Settlement, Token},
};

/// What lies between the exporter and the records' acknowledgement.
#[derive(Clone, Debug)]
struct Road {
    /// Of a link that all requests share.
    bytes_per_second: f64,
    /// Of a sink that works on one record after the other.
    shared_per_record: Duration,
    /// Of a sink that works on all requests at once.
    own_per_record: Duration,
    /// Of every answer, however little it was.
    own: Duration,
    /// Records beyond which a request takes longer than anybody waits.
    records_max: u64,
    /// One in so many requests is never answered, by chance; 0 is none.
    lost_one_in: u64,
    /// Whether nothing ever comes back.
    is_away: bool,
}

const FREE: Road = Road {
    bytes_per_second: 1e12,
    shared_per_record: Duration::ZERO,
    own_per_record: Duration::ZERO,
    own: Duration::ZERO,
    records_max: u64::MAX,
    lost_one_in: 0,
    is_away: false,
};

/// An attempt under way, or its end.
#[derive(Debug)]
struct Attempt {
    begun: Duration,
    /// Seconds of the road for itself alone, shared and not.
    shared: f64,
    own: f64,
    records: u64,
    end: Option<Answer>,
}

#[derive(Debug)]
struct State {
    road: Road,
    timeout: Duration,
    now: Duration,
    attempts: BTreeMap<u64, Attempt>,
    count: u64,
    sent_records: u64,
    /// Records acknowledged.
    taken: u64,
    in_flight_max: usize,
}

/// The road in simulated time.
#[derive(Debug)]
struct Simulation {
    origin: Instant,
    state: Mutex<State>,
}

impl Simulation {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    /// Time goes on; those on the road share it fairly.
    fn advance(&mut self, step: Duration) {
        self.now += step;
        let sharing = self.attempts.values().filter(|one| one.shared > 0.0 && one.end.is_none());
        let share = step.as_secs_f64() / sharing.count().max(1) as f64;
        for attempt in self.attempts.values_mut().filter(|one| one.end.is_none()) {
            if attempt.shared > 0.0 {
                attempt.shared -= share;
            } else {
                attempt.own -= step.as_secs_f64();
            }
            if attempt.shared <= 0.0 && attempt.own <= 0.0 && !self.road.is_away {
                attempt.end = Some(Answer::Accepted { rejected_records: 0 });
                self.taken += attempt.records;
            } else if self.now - attempt.begun >= self.timeout {
                attempt.end = Some(Answer::TimedOut);
            }
        }
    }
}

impl Network for Simulation {
    fn taken(&self, _: &[u8]) {}

    fn begin(&self, message: &[u8]) -> u64 {
        let records = walk::count(message).unwrap();
        let mut state = self.lock();
        let Road { bytes_per_second, shared_per_record, own_per_record, own, .. } = state.road;
        // The multiplier of Knuth's hash scatters them.
        let chance = (state.count + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let is_lost = chance.checked_rem(state.road.lost_one_in) == Some(0);
        let is_late = records > state.road.records_max || is_lost;
        let own = if is_late { state.timeout * 10 } else { own };
        let shared = message.len() as f64 / bytes_per_second
            + shared_per_record.as_secs_f64() * records as f64;
        let own = own.as_secs_f64() + own_per_record.as_secs_f64() * records as f64;
        let attempt = Attempt { begun: state.now, shared, own, records, end: None };
        state.count += 1;
        state.sent_records += records;
        let number = state.count;
        state.attempts.insert(number, attempt);
        state.in_flight_max = state.in_flight_max.max(state.attempts.len());
        number
    }

    fn answer(&self, attempt: u64) -> Option<Answer> {
        let mut state = self.lock();
        let end = state.attempts[&attempt].end;
        if end.is_some() {
            state.attempts.remove(&attempt);
        }
        end
    }

    fn settled(&self, _: &[u8]) {}

    fn now(&self) -> Instant {
        self.origin + self.lock().now
    }

    fn chance(&self) -> f64 {
        0.5
    }

    fn times_reachable(&self) -> u64 {
        0
    }
}

/// An exporter with its defaults, a road, and requests that all have the same content.
struct Run {
    simulation: Arc<Simulation>,
    consumers: Vec<Consumer>,
    sender: tokio::sync::mpsc::Sender<Request>,
    settled: Receiver<Settlement>,
    request: Request,
    queued: u64,
    ended: u64,
    step: Duration,
}

impl Run {
    fn new(road: Road, timeout: Duration, records: usize, record_bytes: usize) -> Self {
        let state = State {
            road,
            timeout,
            now: Duration::ZERO,
            attempts: BTreeMap::new(),
            count: 0,
            sent_records: 0,
            taken: 0,
            in_flight_max: 0,
        };
        let simulation = Arc::new(Simulation { origin: Instant::now(), state: Mutex::new(state) });
        let config = ExporterConfig {
            id: "otlp".to_owned(),
            protocol: Protocol::Grpc,
            endpoint: "sink:4317".to_owned(),
            compression: Compression::None,
            compression_level: 1,
            headers: Vec::new(),
            timeout,
            auth: None,
            proxy: None,
            tls: TlsConfig::default(),
            retry: RetryConfig::default(),
            queue: QueueConfig::default(),
        };
        let (sender, consumers) = exporter(&simulation, &config, Arc::new(Metrics::default()));
        let mut request = request_of(&vec!["x".repeat(record_bytes); records], Compression::None);
        let (reply, settled) = crossbeam_channel::unbounded();
        request.reply = reply;
        let step = Duration::from_millis(10);
        Self { simulation, consumers, sender, settled, request, queued: 0, ended: 0, step }
    }

    fn send(&mut self, requests: u64) {
        for _ in 0..requests {
            let Request { ref body, body_bytes, uncompressed_bytes, records, .. } = self.request;
            let request = Request {
                body: body.clone(),
                body_bytes,
                uncompressed_bytes,
                records,
                source_bytes: 0,
                compression: Compression::None,
                reply: self.request.reply.clone(),
                settled: Default::default(),
                token: Token::default(),
            };
            self.sender.try_send(request).unwrap();
            self.queued += 1;
        }
    }

    /// Goes on until then, or until everything is settled.
    fn until(&mut self, end: Duration) {
        let mut context = Context::from_waker(Waker::noop());
        while self.now() < end && self.ended < self.queued {
            for consumer in &mut self.consumers {
                assert!(consumer.as_mut().poll(&mut context).is_pending());
            }
            let is_end = |told: &Settlement| matches!(told, Settlement::Ended(_));
            self.ended += self.settled.try_iter().filter(is_end).count() as u64;
            self.simulation.lock().advance(self.step);
        }
    }

    /// Goes on until everything is settled; says which share of the link was used after half a minute, and how often
    /// each record was sent.
    fn drain(&mut self, rate: f64) -> (f64, f64) {
        self.until(30 * SECOND);
        let before = self.taken_bytes();
        self.until(600 * SECOND);
        assert_eq!(self.ended, self.queued, "not drained");
        let seconds = (self.now() - 30 * SECOND).as_secs_f64();
        ((self.taken_bytes() - before) / seconds / rate, self.times_sent())
    }

    fn now(&self) -> Duration {
        self.simulation.lock().now
    }

    /// Bytes acknowledged.
    fn taken_bytes(&self) -> f64 {
        let record_bytes = self.request.body_bytes as f64 / self.request.records as f64;
        self.simulation.lock().taken as f64 * record_bytes
    }

    /// How often each record that was acknowledged was sent.
    fn times_sent(&self) -> f64 {
        let state = self.simulation.lock();
        state.sent_records as f64 / state.taken as f64
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Scenario: row 53: the exporter's defaults (ten consumers, 5 s) and a backlog over a thin link,
/// at a tenth of its scale: 40 KB/s, requests of 260 KB, each of which alone takes 6.5 s.
/// Guarantees: after half a minute the link carries 80 % of what it can, and each line is sent at
/// most twice on average.
#[test]
fn a_backlog_drains_over_a_thin_link() {
    let rate = 40_000.0;
    let road = Road { bytes_per_second: rate, ..FREE };
    let mut run = Run::new(road, 5 * SECOND, 1024, 250);
    run.send(60);
    let (share, times) = run.drain(rate);
    assert!(share >= 0.8 && times <= 2.0, "{share:.2} of the link, each line {times:.2} times");
}

/// Scenario: row 53: the same backlog in requests of other sizes, which alone take from 0.4 to 3 times as long as is
/// allowed; each answer takes 100 ms beside.
/// Guarantees: as above, whatever the size: what is tried in vain costs little of the link.
#[test]
fn a_backlog_drains_over_a_thin_link_whatever_the_size_of_requests() {
    let rate = 40_000.0;
    for tenths in [4, 5, 7, 9, 12, 16, 20, 25, 30] {
        let road = Road { bytes_per_second: rate, own: SECOND / 10, ..FREE };
        let records = tenths * 80;
        let mut run = Run::new(road, 5 * SECOND, records, 250);
        run.send(12_000_000 / (250 * records as u64));
        let (share, times) = run.drain(rate);
        assert!(share >= 0.92 && times <= 1.8, "{tenths}: {share:.2}, each line {times:.2} times");
    }
}

/// Scenario: row 53: a link that gets 20 times as fast, then as thin as it was.
/// Guarantees: within a minute 80 % of it are used; no request is stuck when it gets thin again.
#[test]
fn a_faster_link_is_used_again() {
    let thin = Road { bytes_per_second: 40_000.0, ..FREE };
    let mut run = Run::new(thin.clone(), 5 * SECOND, 1024, 250);
    run.send(800);
    run.until(120 * SECOND);
    let fast = 800_000.0;
    run.simulation.lock().road.bytes_per_second = fast;
    run.until(180 * SECOND);
    let before = run.taken_bytes();
    run.until(200 * SECOND);
    let share = (run.taken_bytes() - before) / 20.0 / fast;
    assert!(share >= 0.8, "{share:.2} of the faster link");
    run.simulation.lock().road = thin;
    run.until(230 * SECOND);
    let before = run.taken_bytes();
    run.until(330 * SECOND);
    let share = (run.taken_bytes() - before) / 100.0 / 40_000.0;
    assert!(share >= 0.8, "{share:.2} of the link that got thin");
}

/// Scenario: D1: `timeout: 2s`, 60,000 lines, and a sink that takes 1 ms a record: for each request
/// by itself, or for all of them one after the other.
/// Guarantees: all is acknowledged, and each line is sent a few times at most.
#[test]
fn a_sink_that_takes_its_time_for_each_record() {
    let millisecond = Duration::from_millis(1);
    let shared = Road { shared_per_record: millisecond, ..FREE };
    let own = Road { own_per_record: millisecond, ..FREE };
    for (road, seconds_max) in [(shared, 90), (own, 60)] {
        let mut run = Run::new(road.clone(), 2 * SECOND, 7500, 20);
        run.send(8);
        run.until(600 * SECOND);
        let (took, times) = (run.now(), run.times_sent());
        assert_eq!(run.ended, 8, "{road:?}: not drained");
        assert!(took <= seconds_max * SECOND && times <= 4.0, "{road:?}: {took:?}, {times:.2}");
    }
}

/// Scenario: `timeout: 1s`, and a sink that takes 64 records within 20 ms and more of them only after 10 s.
/// Guarantees: that size is found and kept to. One request at a time would take 51 s for all; while larger ones were
/// tried again and again, all together took six minutes.
#[test]
fn a_sink_that_answers_only_what_is_small_in_time() {
    let road = Road { own: SECOND / 50, records_max: 64, ..FREE };
    let mut run = Run::new(road, SECOND, 4096, 200);
    run.send(40);
    run.until(60 * SECOND);
    assert_eq!(run.ended, 40, "not drained");
    assert!(run.times_sent() <= 1.5, "each line {:.2} times", run.times_sent());
}

/// Scenario: `timeout: 1s`, and a sink that answers within 5 ms, but one in three requests never, whatever their size.
/// Guarantees: requests do not get smaller and smaller for it: nine tenths of a backlog are there within a minute. While
/// no size that had timed out was tried again, the last quarter of it came at 100 lines a second.
#[test]
fn what_times_out_by_chance_makes_no_request_small_for_long() {
    let road = Road { own: SECOND / 200, lost_one_in: 3, ..FREE };
    let mut run = Run::new(road, SECOND, 4096, 200);
    run.send(200);
    run.until(60 * SECOND);
    let taken = run.simulation.lock().taken;
    assert!(taken >= 740_000, "{taken} of 819,200");
}

/// Scenario: a sink that takes 3.6 of 5 seconds for each request, one after the other, however small, and never
/// answers one in fifty.
/// Guarantees: that is not taken for a thin link, where what is as large as what was answered does time out: requests
/// get no smaller from one such time-out to the next.
#[test]
fn a_sink_that_takes_its_time_for_anything_is_no_thin_link() {
    let pace = Pace::new(1);
    let mut now = Instant::now();
    let mut one = |is_answered: bool| {
        let turn = block_on(pace.turn());
        let bytes = pace.lock().request_bytes_max.min(1_000_000);
        turn.begin(bytes);
        let took = if is_answered { SECOND * 36 / 10 } else { SECOND * 5 };
        now += took;
        if is_answered {
            turn.answered(bytes, took, now);
        } else {
            turn.timed_out(bytes, took, now);
        }
        bytes
    };
    for _ in 0..20 {
        assert_eq!(one(false), 1_000_000);
        for _ in 0..49 {
            one(true);
        }
    }
}

/// Scenario: sizes that time out unforeseen, three within ten minutes, and one an hour later.
/// Guarantees: they are not tried again for 30, 60 and 120 seconds, and then for 30 again.
#[test]
fn what_times_out_again_is_tried_later_and_later() {
    let pace = Pace::new(1);
    let begun = Instant::now();
    let mut now = begun;
    let mut last = |minutes: u64| {
        now += 60 * SECOND * u32::try_from(minutes).unwrap();
        let turn = block_on(pace.turn());
        turn.begin(1_000_000);
        turn.answered(100_000, SECOND / 1000, now);
        turn.timed_out(1_000_000, SECOND, now);
        drop(turn);
        pace.lock().too_large.unwrap().until - now
    };
    assert_eq!([0, 2, 3, 60].map(&mut last), [30, 60, 120, 30].map(|seconds| seconds * SECOND));
}

/// Scenario: packets to the sink get lost without a word for an hour; then it is as fast as ever.
/// Guarantees: while it is away one request is tried at a time; what was halved meanwhile is little;
/// everything is there within seconds, in requests that soon have their size again.
#[test]
fn a_sink_that_was_away_gets_whole_requests_again() {
    let mut run = Run::new(Road { is_away: true, ..FREE }, 5 * SECOND, 1024, 250);
    run.send(200);
    run.step = Duration::from_millis(50);
    run.until(60 * SECOND);
    run.simulation.lock().in_flight_max = 0;
    run.until(3600 * SECOND);
    {
        let mut state = run.simulation.lock();
        assert_eq!((state.in_flight_max, state.taken), (1, 0));
        state.road = Road { own: Duration::from_millis(100), ..FREE };
        (state.count, state.sent_records) = (0, 0);
    }
    run.until(3700 * SECOND);
    let (took, count) = (run.now() - 3600 * SECOND, run.simulation.lock().count);
    assert_eq!(run.ended, 200);
    assert!(took <= 60 * SECOND && count <= 600, "{took:?}, {count} requests");
    assert!(run.times_sent() <= 1.01, "{}", run.times_sent());
}

/// Scenario: after time-outs, a sink that takes nearly as long as is allowed for everything.
/// Guarantees: the window and the size grow all the same, though slowly.
#[test]
fn what_always_takes_long_is_no_trap() {
    let pace = Pace::new(10);
    for _ in 0..8 {
        let turn = block_on(pace.turn());
        turn.begin(1_000_000);
        turn.timed_out(1_000_000, SECOND, Instant::now());
    }
    assert_eq!(pace.allowed(), Allowed { requests: 1, request_bytes: Some(3906) });
    for _ in 0..200 {
        let turn = block_on(pace.turn());
        let bytes = pace.lock().request_bytes_max;
        turn.answered(bytes, SECOND * 9 / 10, Instant::now());
    }
    let allowed = pace.allowed();
    assert!(allowed.requests > 1 && allowed.request_bytes > Some(50_000), "{allowed:?}");
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it has to wait"),
    }
}

proptest! {
    /// Scenario: requests begin, time out, are acknowledged or end otherwise, in any order.
    /// Guarantees: never more are in flight than consumers, nor begin than the window allows; when
    /// all have ended, exactly the window is free, and it is never less than one.
    #[test]
    fn the_window_is_what_can_be_had(
        steps in prop::collection::vec((0_u8..5, 0_usize..16, 0_u64..3000), 0..200),
        consumers in 1_usize..12,
    ) {
        let pace = Pace::new(consumers);
        let mut held: Vec<Turn<'_>> = Vec::new();
        for (kind, place, millis) in steps {
            if kind == 0 {
                if pace.turns.available_permits() > 0 {
                    let turn = block_on(pace.turn());
                    prop_assert!(held.len() < pace.allowed().requests);
                    turn.begin(place * 10_000);
                    held.push(turn);
                }
                continue;
            }
            if held.is_empty() {
                continue;
            }
            let turn = held.swap_remove(place % held.len());
            let took = Duration::from_millis(millis);
            match kind {
                1 => turn.timed_out(place * 10_000, took, Instant::now()),
                4 => turn.timed_out_beside(place * 10_000, took, Instant::now()),
                2 => turn.answered(place * 10_000, took, Instant::now()),
                _ => {}
            }
            prop_assert!(held.len() < consumers);
        }
        held.clear();
        let state = pace.lock();
        prop_assert_eq!((state.owed, state.in_flight), (0, 0));
        prop_assert_eq!(pace.turns.available_permits(), state.window as usize);
        prop_assert!(state.window >= 1.0 && state.window <= consumers as f64);
    }
}
