//! Keeps a request when the code that sends it panics: a consumer that ended with it would take the
//! request's records and its share of the budget along, and nobody would know.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

use super::{
    account::settle,
    delivery::{Delivery, Job, Sink},
    slot::Slot,
};
use crate::{
    metrics::Metrics,
    queue::{Request, Settled},
};

/// Brings a request to its end, after each panic again with what of it is not settled. Until then
/// health says so.
pub(super) async fn deliver<S: Sink>(
    delivery: &Delivery<S>,
    request: Request,
    slot: &mut Slot,
) -> Settled {
    let mut job = Job::new(request);
    let mut backoff = delivery.backoff();
    let mut panicked = None;
    loop {
        match catch(delivery.send_all_of(&mut job, slot)).await {
            Ok(tally) => return settle(job.request, tally),
            Err(what) => {
                panicked.get_or_insert_with(|| Panicked::new(&delivery.metrics));
                // What was held counted in a place that the panic took along.
                job.rest.iter_mut().for_each(|part| part.is_held = false);
                delivery.wait_after_panic(&job.request, &what, &mut backoff).await;
            }
        }
    }
}

/// Health says that sending a request has panicked, until this is dropped: with the request's end,
/// or it would look well during each attempt.
struct Panicked<'a>(&'a Metrics);

impl<'a> Panicked<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.panicked_requests.add_gauge(1);
        Self(metrics)
    }
}

impl Drop for Panicked<'_> {
    fn drop(&mut self) {
        self.0.panicked_requests.add_gauge(-1);
    }
}

/// What a future comes to, or what it said when it panicked. What it shares with others has to stay
/// of use half-way: locks are taken whether poisoned or not, and counts are given back by guards.
async fn catch<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(words(panic.as_ref()))),
    })
    .await
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Mutex,
            atomic::{AtomicU32, Ordering},
        },
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        config::{Compression, RetryConfig},
        export::{
            bisect::{Bisector, Part, tests::request_of},
            outcome::{Outcome, Quote},
            slot::Slots,
        },
    };

    /// A sink whose first attempts panic, and what health saw during each attempt and wait.
    #[derive(Default)]
    struct Faulty {
        attempts: AtomicU32,
        panicked: Mutex<Vec<u64>>,
        metrics: Arc<Metrics>,
    }

    impl Sink for Arc<Faulty> {
        async fn attempt(&self, _: &Part) -> Outcome {
            let attempts = self.attempts.fetch_add(1, Ordering::Relaxed);
            self.panicked.lock().unwrap().push(self.metrics.panicked_requests.get());
            tokio::task::yield_now().await;
            assert!(attempts >= 2, "attempt {attempts}");
            Outcome::Accepted { rejected_records: 0, said: Quote::default() }
        }

        async fn sleep(&self, _: Duration) {
            self.panicked.lock().unwrap().push(self.metrics.panicked_requests.get());
        }

        async fn reachable_again(&self) {}

        fn now(&self) -> Instant {
            Instant::now()
        }

        fn chance(&self) -> f64 {
            0.5
        }
    }

    /// Scenario: row 55: the code that sends panics twice, with one request in flight at most.
    /// Guarantees: the consumer goes on with its request, which is settled once and in full; the
    /// next one gets its turn; health hears of the panic until the request has ended.
    #[tokio::test]
    async fn a_panic_of_a_consumer_keeps_its_request() {
        let sink = Arc::new(Faulty::default());
        let (metrics, warnings) = (Arc::clone(&sink.metrics), Arc::default());
        let (retry, bisector) = (RetryConfig::default(), Bisector::new(1, None));
        let to = Arc::clone(&sink);
        let mut slot = Slots::new(1).take().await;
        let delivery = Delivery::new(to, "otlp", retry, 1, bisector, warnings, metrics);
        for bodies in [["a", "b"], ["c", "d"]] {
            let request = request_of(&bodies.map(str::to_owned), Compression::Zstd);
            let settled = deliver(&delivery, request, &mut slot).await;
            assert_eq!((settled.acknowledged_records, settled.request.records), (2, 2));
        }
        assert_eq!(sink.attempts.load(Ordering::Relaxed), 4);
        // Of the first: attempt, wait, attempt, wait, two attempts; of the second: one.
        let seen = sink.panicked.lock().unwrap().clone();
        assert_eq!(seen, [0, 1, 1, 1, 1, 0]);
        assert_eq!(sink.metrics.panicked_requests.get(), 0);
    }
}
