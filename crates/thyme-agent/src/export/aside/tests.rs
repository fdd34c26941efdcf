//! Many requests to a sink that never takes some records, in simulated time, from an owner with a budget.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};

use crate::{
    config::{Compression, ExporterConfig, Protocol, QueueConfig, RetryConfig, TlsConfig},
    export::{
        bisect::tests::{bodies_of, request_of},
        limits::{ASIDE_BYTES_MAX, ASIDE_REQUESTS_MAX},
        simulated::{Answer, Consumer, Network, exporter},
    },
    queue::{Request, Settlement},
};

const STEP: Duration = Duration::from_millis(50);

const BUSY: Answer = Answer::Busy { retry_after: None };

/// Requests that the owner may have under way, unless it is said otherwise.
const BUDGET_REQUESTS: usize = 40;

/// What the sink says to a message, and how long that takes.
type Script = Box<dyn Fn(&[String], Duration) -> (Answer, Duration) + Send + Sync>;

#[derive(Default)]
struct State {
    now: Duration,
    /// Under way: when their end is there, what it is, and what was sent.
    attempts: BTreeMap<u64, (Duration, Answer, Vec<String>)>,
    count: u64,
    /// When each body was accepted.
    accepted: BTreeMap<String, Duration>,
}

struct Sink {
    origin: Instant,
    script: Script,
    state: Mutex<State>,
}

impl Network for Sink {
    fn taken(&self, _: &[u8]) {}

    fn begin(&self, message: &[u8]) -> u64 {
        let bodies = bodies_of(message);
        let mut state = self.state.lock().unwrap();
        let (answer, wait) = (self.script)(&bodies, state.now);
        state.count += 1;
        let (number, end) = (state.count, state.now + wait);
        state.attempts.insert(number, (end, answer, bodies));
        number
    }

    fn answer(&self, attempt: u64) -> Option<Answer> {
        let mut state = self.state.lock().unwrap();
        let now = state.now;
        if state.attempts[&attempt].0 > now {
            return None;
        }
        let (_, answer, bodies) = state.attempts.remove(&attempt)?;
        if let Answer::Accepted { .. } = answer {
            for body in bodies {
                assert_eq!(state.accepted.insert(body, now), None, "accepted twice");
            }
        }
        Some(answer)
    }

    fn settled(&self, _: &[u8]) {}

    fn now(&self) -> Instant {
        self.origin + self.state.lock().unwrap().now
    }

    fn chance(&self) -> f64 {
        0.5
    }

    fn times_reachable(&self) -> u64 {
        0
    }
}

/// An exporter, and the owner of its requests.
struct Scene {
    sink: Arc<Sink>,
    consumers: Vec<Consumer>,
    requests: tokio::sync::mpsc::Sender<Request>,
    reply: Sender<Settlement>,
    told: Receiver<Settlement>,
    /// Requests that are not settled, those that take of the budget, and the bodies of those.
    unsettled: usize,
    charged: usize,
    budget: usize,
    body_bytes: usize,
    /// Bytes of what was set aside.
    rest_bytes: usize,
    /// Requests that are set aside, and the most that ever were.
    aside: usize,
    aside_max: usize,
    acknowledged: u64,
    dropped: BTreeMap<&'static str, u64>,
}

impl Scene {
    fn new(
        num_consumers: usize,
        script: impl Fn(&[String], Duration) -> (Answer, Duration) + Send + Sync + 'static,
    ) -> Self {
        let (script, state) = (Box::new(script), Mutex::default());
        let sink = Arc::new(Sink { origin: Instant::now(), script, state });
        let config = ExporterConfig {
            id: "otlp".to_owned(),
            protocol: Protocol::Grpc,
            endpoint: "sink:4317".to_owned(),
            compression: Compression::None,
            compression_level: 1,
            headers: Vec::new(),
            timeout: Duration::from_secs(5),
            auth: None,
            proxy: None,
            tls: TlsConfig::default(),
            retry: RetryConfig::default(),
            queue: QueueConfig { num_consumers, ..QueueConfig::default() },
        };
        let (requests, consumers) = exporter(&sink, &config, Arc::default());
        let (reply, told) = crossbeam_channel::unbounded();
        Self {
            sink,
            consumers,
            requests,
            reply,
            told,
            unsettled: 0,
            charged: 0,
            budget: BUDGET_REQUESTS,
            body_bytes: 0,
            rest_bytes: 0,
            aside: 0,
            aside_max: 0,
            acknowledged: 0,
            dropped: BTreeMap::new(),
        }
    }

    fn now(&self) -> Duration {
        self.sink.state.lock().unwrap().now
    }

    /// One step of time; a request leaves if there is one, and the budget is not used up.
    fn step(&mut self, next: &mut Option<Vec<String>>) {
        if self.charged < self.budget
            && let Some(bodies) = next.take()
        {
            let mut request = request_of(&bodies, Compression::None);
            request.reply = self.reply.clone();
            request.token.charged_bytes = 1;
            (self.unsettled, self.charged) = (self.unsettled + 1, self.charged + 1);
            self.body_bytes += request.body_bytes;
            self.requests.try_send(request).unwrap();
        }
        let mut context = Context::from_waker(Waker::noop());
        for consumer in &mut self.consumers {
            assert!(consumer.as_mut().poll(&mut context).is_pending());
        }
        for settlement in self.told.try_iter() {
            let (acknowledged, dropped) = match settlement {
                Settlement::Part(part) => (part.acknowledged_records, part.dropped),
                Settlement::Aside(aside) => {
                    self.charged -= aside.charged_bytes;
                    self.body_bytes -= aside.body_bytes;
                    self.rest_bytes += aside.rest.body_bytes;
                    self.aside += 1;
                    self.aside_max = self.aside_max.max(self.aside);
                    continue;
                }
                Settlement::Ended(settled) => {
                    self.unsettled -= 1;
                    self.aside -= usize::from(settled.request.token.is_aside);
                    self.charged -= settled.request.token.charged_bytes;
                    self.body_bytes -= settled.request.body_bytes;
                    (settled.acknowledged_records, settled.dropped)
                }
                other => panic!("{other:?}"),
            };
            self.acknowledged += acknowledged;
            for (reason, records) in dropped {
                *self.dropped.entry(reason.as_str()).or_default() += records;
            }
        }
        self.sink.state.lock().unwrap().now += STEP;
    }

    /// Goes on for so long, at most until everything is settled.
    fn rest(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end && self.unsettled > 0 {
            self.step(&mut None);
        }
    }

    /// Sends these requests, at most one in each interval; returns how long the slowest record took
    /// that is fine, from when it was there to be read.
    fn send(&mut self, requests: &[Vec<String>], interval: Duration) -> Duration {
        let begun = self.now();
        let mut waiting = requests.iter();
        let mut next = None;
        let mut due = begun;
        while next.is_some() || waiting.len() > 0 {
            assert!(self.now() < due + Duration::from_secs(10_000), "all has come to a stop");
            if next.is_none() && self.now() >= due {
                next = waiting.next().cloned();
                due += interval;
            }
            self.step(&mut next);
        }
        self.rest(Duration::from_secs(600));
        let state = self.sink.state.lock().unwrap();
        let due = (0..).map(|number| begun + interval * number);
        let delays = requests.iter().zip(due).flat_map(|(bodies, due)| {
            let fine = bodies.iter().filter(|body| !body.starts_with("poison"));
            fine.map(move |body| (body, due))
        });
        let delay = |(body, due): (&String, Duration)| match state.accepted.get(body) {
            Some(at) => *at - due,
            None => panic!("{body} never arrived"),
        };
        delays.map(delay).max().unwrap()
    }
}

fn is_poisonous(bodies: &[String]) -> bool {
    bodies.iter().any(|body| body.starts_with("poison"))
}

const SOON: Duration = Duration::from_millis(100);

/// Requests of 20 records; of so many requests one has a poisonous record, at different places.
fn poisoned(requests: usize, one_in: usize) -> Vec<Vec<String>> {
    let one = |number: usize| {
        let name = |record: usize| {
            let is_bad = number.is_multiple_of(one_in) && record == number % 20;
            format!("{} {number} {record}", if is_bad { "poison" } else { "fine" })
        };
        (0..20).map(name).collect()
    };
    (0..requests).map(one).collect()
}

/// A sink that answers so to what is poisonous until it is mended.
fn scene(consumers: usize, answer: Answer, wait: Duration, mended: Duration) -> Scene {
    Scene::new(consumers, move |bodies, now| {
        if is_poisonous(bodies) && now < mended {
            (answer, wait)
        } else {
            (Answer::Accepted { rejected_records: 0 }, SOON)
        }
    })
}

/// Scenario: rows 53 and 56: each request, or one in ten, has a record to which the sink answers 403, 503,
/// 500 or nothing, for ever, as one behind a firewall that looks at texts does: more of them than may wait aside,
/// and more than the owner's budget has room for.
/// Guarantees: every other record arrives within minutes; of a request whose rest is settled only the
/// record is held, and nothing of the budget; the records are kept up to a bound, and each beyond it is counted.
#[test]
fn records_that_are_never_taken_stop_nobody() {
    let late = Duration::from_secs(5);
    for (answer, wait, one_in, interval_ms) in [
        (Answer::Denied, SOON, 1, 500),
        (Answer::Fault, SOON, 1, 500),
        (Answer::Busy { retry_after: None }, SOON, 1, 2_000),
        (Answer::TimedOut, late, 10, 2_000),
    ] {
        let mut scene = scene(10, answer, wait, Duration::MAX);
        let requests = poisoned(600, one_in);
        let delay = scene.send(&requests, Duration::from_millis(interval_ms));
        assert!(delay < Duration::from_secs(300), "{answer:?}: {delay:?}");
        assert_eq!((scene.charged, scene.body_bytes), (0, 0), "{answer:?}");
        let poison = 600 / one_in;
        assert_eq!(scene.acknowledged, (600 * 20 - poison) as u64);
        let dropped = scene.dropped.values().sum::<u64>() as usize;
        assert_eq!(scene.unsettled + dropped, poison, "{answer:?}: {:?}", scene.dropped);
        assert!(scene.unsettled < ASIDE_REQUESTS_MAX, "{answer:?}");
        assert!(scene.rest_bytes < 100 * poison, "{answer:?}: {}", scene.rest_bytes);
        if answer == Answer::TimedOut {
            assert_eq!(dropped, 0, "there is room for all");
        }
    }
}

/// Scenario: row 56: each of 150 requests, which come within seconds, has a record of 100 kB that the sink never
/// takes: fewer requests than may wait aside, and nearly twice the bytes.
/// Guarantees: never is more held than may be, and one record for each consumer; records give way down to three
/// quarters of that, and no further; each is counted, and every other record arrives.
#[test]
fn the_bound_in_bytes_holds_for_large_records() {
    const RECORD_BYTES: usize = 100_000;
    let (consumers, count) = (10, 150);
    let mut requests = poisoned(count, 1);
    for body in requests.iter_mut().flatten().filter(|body| body.starts_with("poison")) {
        body.push_str(&"x".repeat(RECORD_BYTES));
    }
    let mut scene = scene(consumers, Answer::Denied, SOON, Duration::MAX);
    scene.budget = count;
    scene.send(&requests, STEP);
    assert_eq!(scene.acknowledged, count as u64 * 19);
    let most = ASIDE_BYTES_MAX / RECORD_BYTES;
    assert!((most / 4 * 3..=most + consumers).contains(&scene.aside_max), "{}", scene.aside_max);
    assert!(scene.unsettled.abs_diff(most / 4 * 3) <= 2, "{}", scene.unsettled);
    let given_up = (count - scene.unsettled) as u64;
    assert_eq!(scene.dropped, BTreeMap::from([("never_taken", given_up)]));
}

/// Scenario: the same with one consumer, fewer requests than may wait aside, and a sink that is mended after
/// an hour.
/// Guarantees: the others arrive, and nothing is given up: each record is delivered once in the end.
#[test]
fn what_there_is_room_for_is_kept_until_the_sink_takes_it() {
    for consumers in [1, 10] {
        let mut scene = scene(consumers, Answer::Denied, SOON, Duration::from_secs(7_200));
        let requests = poisoned(100, 1);
        let delay = scene.send(&requests, Duration::from_secs(30));
        assert!(delay < Duration::from_secs(1_800), "{consumers}: {delay:?}");
        assert_eq!((scene.acknowledged, scene.unsettled), (100 * 19, 100));
        scene.rest(Duration::from_secs(7_200));
        assert_eq!((scene.acknowledged, scene.unsettled), (100 * 20, 0), "{:?}", scene.dropped);
    }
}

/// Scenario: the sink refuses the credentials for everything for two hours, right from the start or after an
/// hour in which it took all; there are far more requests of one record than may wait aside.
/// Guarantees: nothing is proved, so nothing is given up, and nothing given back: the owner's budget bounds what
/// waits. Everything arrives in the end.
#[test]
fn an_outage_gives_nothing_up_near_a_bound() {
    for begin in [0, 600] {
        let outage = Duration::from_secs(begin)..Duration::from_secs(7_200);
        let mut scene = Scene::new(10, move |_, now| {
            let is_down = outage.contains(&now);
            (if is_down { Answer::Denied } else { Answer::Accepted { rejected_records: 0 } }, SOON)
        });
        scene.budget = 2 * ASIDE_REQUESTS_MAX;
        let requests: Vec<_> = (0..1_500).map(|number| vec![format!("fine {number}")]).collect();
        scene.send(&requests, Duration::from_secs(1));
        assert_eq!((scene.acknowledged, scene.unsettled), (1_500, 0));
        assert_eq!(scene.dropped.values().sum::<u64>(), 0);
    }
}

/// Scenario: row 56. The sink is away for an hour, from the start or after ten minutes, in different words, while
/// requests of many records wait for it.
/// Guarantees: in that hour it gets hardly more attempts than its consumers make at the backoff's longest wait, for
/// only one request is tried in parts where nothing is accepted; afterwards few requests come in parts.
#[test]
fn an_outage_is_no_storm() {
    for (begin, away) in [(0, Answer::Denied), (600, Answer::Fault), (600, BUSY)] {
        let outage = Duration::from_secs(begin)..Duration::from_secs(begin + 3_600);
        let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let counted = Arc::clone(&counts);
        let mut scene = Scene::new(10, move |_, now| {
            let is_away = outage.contains(&now);
            let count = if is_away { &counted.0 } else { &counted.1 };
            count.fetch_add(1, Ordering::Relaxed);
            (if is_away { away } else { Answer::Accepted { rejected_records: 0 } }, SOON)
        });
        let bodies = |request| (0..64).map(|number| format!("{request} {number}")).collect();
        let requests: Vec<_> = (0..1_000_u32).map(bodies).collect();
        scene.send(&requests, Duration::from_secs(1));
        assert_eq!((scene.acknowledged, scene.unsettled), (64_000, 0));
        let [failed, accepted] = [&counts.0, &counts.1].map(|count| count.load(Ordering::Relaxed));
        assert!(failed < 2_500, "{failed} attempts in an hour's outage");
        assert!(accepted < 1_100, "{accepted} attempts for 1,000 requests");
    }
}
