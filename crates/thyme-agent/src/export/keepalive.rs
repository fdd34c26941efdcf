//! HTTP/2 pings to one sink: how often, and less often once it has complained.
//!
//! Servers take pings for an attack: grpc-go allows one in 5 min by default, and ends a connection
//! that sends the third too many with GOAWAY ENHANCE_YOUR_CALM, the requests on it with it. A request
//! that takes longer than that would be cut each time and sent again for ever.

use std::{
    error::Error,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::limits::PING_BACKOFFS_MAX;

/// How often a sink is pinged; shared by its connections.
#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Duration,
    /// Complaints so far.
    complaints: AtomicU32,
}

impl Keepalive {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, complaints: AtomicU32::new(0) }
    }

    /// Time between two pings of a connection opened now; `None` is no pings.
    pub(super) fn interval(&self) -> Option<Duration> {
        let complaints = self.complaints.load(Ordering::Relaxed);
        (complaints <= PING_BACKOFFS_MAX).then(|| self.interval.saturating_mul(1 << complaints))
    }

    /// A connection that was pinged each `interval` has ended: if the sink complained, new ones are
    /// pinged half as often, and in the end not at all.
    pub(super) fn ended(&self, interval: Option<Duration>, error: &(dyn Error + 'static)) {
        if asks_for_calm(error) {
            self.complained(interval);
        }
    }

    /// The sink has complained about pings each `interval`.
    fn complained(&self, interval: Option<Duration>) {
        if interval.is_none() || interval != self.interval() {
            return;
        }
        self.complaints.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            ping_interval_ms = self.interval().map(|interval| interval.as_millis()),
            "the sink has ended a connection because it was sent too much (GOAWAY \
             ENHANCE_YOUR_CALM), probably pings: new connections are pinged half as often, and \
             after some more of these not at all"
        );
    }
}

fn asks_for_calm(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_remote() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::said::Said;

    /// Scenario: D22: a sink that stands no pings complains of each connection, and once more of one
    /// that was opened before the last complaint.
    /// Guarantees: the interval doubles twice, then there are no pings; each of these is said.
    #[test]
    fn a_sink_that_stands_no_pings_gets_none() {
        let keepalive = Keepalive::new(Duration::from_secs(6));
        let said = Said::default();
        let guard = said.listen();
        let mut intervals = Vec::new();
        while let Some(interval) = keepalive.interval().filter(|_| intervals.len() < 9) {
            intervals.push(interval.as_secs());
            keepalive.complained(Some(interval));
            keepalive.complained(Some(interval));
        }
        keepalive.complained(None);
        drop(guard);
        assert_eq!((intervals, keepalive.interval()), (vec![6, 12, 24], None));
        let said = said.text();
        let complaints = said.lines().filter(|line| line.contains("ENHANCE_YOUR_CALM")).count();
        assert_eq!(complaints, 3, "{said}");
    }

    /// What a client hears whose peer ends the connection for that reason.
    async fn ended_by(reason: h2::Reason) -> h2::Error {
        let (near, far) = tokio::io::duplex(4096);
        let (client, server) =
            tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
        let ((_requests, connection), mut server) = (client.unwrap(), server.unwrap());
        server.abrupt_shutdown(reason);
        let ending = std::future::poll_fn(|context| server.poll_closed(context));
        let (ended, _) = tokio::join!(connection, ending);
        ended.unwrap_err()
    }

    /// Scenario: connections end by themselves, as other errors, and at a sink's wish for calm.
    /// Guarantees: only that wish counts, once for each interval.
    #[tokio::test]
    async fn only_a_wish_for_calm_makes_pings_rarer() {
        let keepalive = Keepalive::new(Duration::from_secs(1));
        let seconds = |keepalive: &Keepalive| keepalive.interval().map(|one| one.as_secs());
        keepalive.ended(keepalive.interval(), &std::io::Error::other("reset"));
        // Our own complaint about the peer is not the peer's.
        let ours = h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM);
        keepalive.ended(keepalive.interval(), &ours);
        assert_eq!(seconds(&keepalive), Some(1));
        for (reason, expected) in
            [(h2::Reason::INTERNAL_ERROR, 1), (h2::Reason::ENHANCE_YOUR_CALM, 2)]
        {
            keepalive.ended(keepalive.interval(), &ended_by(reason).await);
            assert_eq!(seconds(&keepalive), Some(expected), "{reason}");
        }
    }
}
