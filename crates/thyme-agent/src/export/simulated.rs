//! The exporter of a simulation: production's delivery, over a network that is a function of the
//! simulation's seed. It must not wait for anything but the simulated clock.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};

use super::{
    bisect::{Bisector, Part, decompress},
    delivery::{Delivery, Sink},
    outcome::{Cause, Failure, InPart, Outcome, Quote},
    slot::Slots,
    supervise,
};
use crate::{
    config::{Compression, ExporterConfig},
    metrics::Metrics,
    queue::{Request, Settlement},
};

/// What an attempt comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Taken, but for so many records.
    Accepted { rejected_records: u64 },
    /// Too many bytes.
    TooLarge,
    /// The same with "not now".
    TooLargeForNow,
    /// Wrong, and always will be.
    Rejected,
    /// Taken, but for so many records, with an error.
    RejectedInPart { rejected_records: u64 },
    /// No connection.
    Unreachable,
    /// The connection broke before the answer.
    Broken,
    /// No answer in time.
    TimedOut,
    /// Not now; perhaps the sink says when.
    Busy { retry_after: Option<Duration> },
    /// The credentials are refused.
    Denied,
    /// A fault of the sink.
    Fault,
}

/// The world between the exporter and the sink.
pub(crate) trait Network: Send + Sync + 'static {
    /// A request leaves the queue: its first sending.
    fn taken(&self, message: &[u8]);
    /// An attempt begins; returns its number.
    fn begin(&self, message: &[u8]) -> u64;
    /// Its end, once it has come.
    fn answer(&self, attempt: u64) -> Option<Answer>;
    /// All of a request is settled.
    fn settled(&self, message: &[u8]);
    /// The time now.
    fn now(&self) -> Instant;
    /// A number from 0 to 1.
    fn chance(&self) -> f64;
    /// Rises each time that the sink can be reached again.
    fn times_reachable(&self) -> u64;
}

/// A consumer, to be polled whenever anything may have changed.
pub(crate) type Consumer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The exporter's queue and its consumers, as `spawn` makes them, but for whoever polls them.
pub(crate) fn exporter<N: Network>(
    network: &Arc<N>,
    config: &ExporterConfig,
    metrics: Arc<Metrics>,
) -> (mpsc::Sender<Request>, Vec<Consumer>) {
    let bisector = Bisector::new(config.compression_level, None);
    let warnings = Arc::default();
    let sink = SimulatedSink(Arc::clone(network));
    let (retry, consumers) = (config.retry.clone(), config.queue.num_consumers);
    let delivery = Delivery::new(sink, &config.id, retry, consumers, bisector, warnings, metrics);
    let delivery = Arc::new(delivery);
    let (sender, receiver) = mpsc::channel(config.queue.queue_size + consumers);
    let receiver = Arc::new(Mutex::new(receiver));
    let slots = Slots::new(consumers);
    let consumer = |_| -> Consumer {
        let (receiver, delivery) = (Arc::clone(&receiver), Arc::clone(&delivery));
        Box::pin(consume(slots.clone(), receiver, delivery, Arc::clone(network)))
    };
    (sender, (0..slots.tasks()).map(consumer).collect())
}

/// `export::consume`, with the truth looking on.
async fn consume<N: Network>(
    slots: Slots,
    requests: Arc<Mutex<mpsc::Receiver<Request>>>,
    delivery: Arc<Delivery<SimulatedSink<N>>>,
    network: Arc<N>,
) {
    loop {
        let mut slot = slots.take().await;
        let request = requests.lock().await.recv().await;
        let Some(request) = request else { return };
        let message = message_of(&Part::whole(&request));
        network.taken(&message);
        let reply = request.reply.clone();
        let settled = supervise::deliver(&delivery, request, &mut slot).await;
        network.settled(&message);
        reply.send(Settlement::Ended(settled)).ok();
    }
}

fn message_of(part: &Part) -> Vec<u8> {
    assert_eq!(part.body_bytes, part.body.iter().map(Bytes::len).sum::<usize>());
    decompress(part).expect("a request's length is that of its message")
}

/// The message of a request that was kept as these bytes.
pub(crate) fn message_of_kept(
    body: Vec<u8>,
    compression: Compression,
    uncompressed_bytes: usize,
) -> Vec<u8> {
    let (body_bytes, body) = (body.len(), vec![Bytes::from(body)]);
    message_of(&Part {
        body,
        body_bytes,
        uncompressed_bytes,
        records: 0,
        first: 0,
        refusals: 0,
        proof: Default::default(),
        is_held: false,
        compression,
    })
}

struct SimulatedSink<N>(Arc<N>);

impl<N: Network> Sink for SimulatedSink<N> {
    async fn attempt(&self, part: &Part) -> Outcome {
        let attempt = self.0.begin(&message_of(part));
        let answer = poll_fn(|_| self.0.answer(attempt).map_or(Poll::Pending, Poll::Ready)).await;
        if let Answer::Accepted { .. } | Answer::RejectedInPart { .. } = answer {
            // In the same step its owner is told.
            self.0.settled(&message_of(part));
        }
        outcome(answer)
    }

    async fn sleep(&self, wait: Duration) {
        let deadline = self.0.now() + wait;
        let is_over = || self.0.now() >= deadline;
        poll_fn(|_| if is_over() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    async fn reachable_again(&self) {
        let before = self.0.times_reachable();
        let is_over = || self.0.times_reachable() != before;
        poll_fn(|_| if is_over() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn chance(&self) -> f64 {
        self.0.chance()
    }
}

fn outcome(answer: Answer) -> Outcome {
    let said = Quote::new(b"simulated");
    let failed = |cause| Outcome::failed(cause, said.clone());
    match answer {
        Answer::Accepted { rejected_records } => {
            Outcome::Accepted { rejected_records, said: Quote::default() }
        }
        Answer::TooLarge => Outcome::TooLarge(said),
        Answer::TooLargeForNow => {
            Outcome::TooLargeForNow(Failure { cause: Cause::Busy, retry_after: None, said })
        }
        Answer::Rejected => Outcome::Rejected(said),
        Answer::RejectedInPart { rejected_records } => {
            Outcome::RejectedInPart(InPart::Exactly(rejected_records), said)
        }
        Answer::Unreachable => failed(Cause::Unreachable),
        Answer::Broken => failed(Cause::Broken),
        Answer::TimedOut => failed(Cause::TimedOut),
        Answer::Busy { retry_after } => {
            Outcome::Failed(Failure { cause: Cause::Busy, retry_after, said })
        }
        Answer::Denied => failed(Cause::Denied),
        Answer::Fault => failed(Cause::Fault),
    }
}
