//! Collects a request's body within its own limit, within a budget for all bodies together, and
//! within a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::limits::{BODY_TIMEOUT, BUFFERED_BYTES_MAX, DISCARDED_BYTES_MAX};
use crate::refusal::Refusal;

/// Bytes of bodies in memory, of all requests together, and the time that each may take.
#[derive(Debug)]
pub(crate) struct Budget {
    used_bytes: AtomicUsize,
    timeout: Duration,
}

impl Budget {
    pub(crate) const fn new(timeout: Duration) -> Self {
        Self { used_bytes: AtomicUsize::new(0), timeout }
    }
}

/// A request's share of the budget; given back when dropped.
#[derive(Debug)]
struct Share<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl Share<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        // Taken first: what doesn't fit is given back with the rest of the share.
        self.bytes += bytes;
        let used = self.budget.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if used + bytes > BUFFERED_BYTES_MAX { Err(Refusal::Overloaded) } else { Ok(()) }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A whole body, in the pieces that it came in.
#[derive(Debug)]
pub(crate) struct Body<'b> {
    pub(crate) chunks: Vec<Bytes>,
    share: Share<'b>,
}

impl Body<'_> {
    /// Its length, bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.share.bytes
    }
}

/// Receives a body of at most `bytes_max` bytes.
pub(crate) async fn collect<'b>(
    incoming: &mut Incoming,
    bytes_max: usize,
    budget: &'b Budget,
) -> Result<Body<'b>, Refusal> {
    // By its announced length, before any of it is received.
    if incoming.size_hint().lower() > bytes_max as u64 {
        return Err(Refusal::TooLarge { bytes_max });
    }
    let mut body = Body { chunks: Vec::new(), share: Share { budget, bytes: 0 } };
    let receive = async {
        while let Some(frame) = incoming.frame().await {
            let interrupted =
                |cause: hyper::Error| Refusal::Interrupted { cause: cause.to_string() };
            let Ok(chunk) = frame.map_err(interrupted)?.into_data() else { continue };
            body.share.grow(chunk.len())?;
            if body.share.bytes > bytes_max {
                return Err(Refusal::TooLarge { bytes_max });
            }
            if !chunk.is_empty() {
                body.chunks.push(chunk);
            }
        }
        Ok(())
    };
    match tokio::time::timeout(budget.timeout, receive).await {
        Ok(received) => received?,
        Err(_) => {
            let cause = format!("it took longer than {:?}", budget.timeout);
            return Err(Refusal::Interrupted { cause });
        }
    }
    Ok(body)
}

/// Reads what is left of a refused request's body and throws it away. Over HTTP/1 the answer would
/// otherwise be lost to a client that sends its whole body before it listens: closing a connection
/// with unread bytes resets it.
pub(crate) async fn discard(incoming: &mut Incoming) {
    let mut left = DISCARDED_BYTES_MAX;
    if incoming.size_hint().lower() > left {
        return;
    }
    let read = async {
        while let Some(Ok(frame)) = incoming.frame().await {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(rest) = left.checked_sub(bytes) else { return };
            left = rest;
        }
    };
    // What has not come by then is not waited for.
    let _in_time = tokio::time::timeout(BODY_TIMEOUT, read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: bodies of several requests grow up to the budget, one beyond it; that one is
    /// refused, and another ends.
    /// Guarantees: what was refused or ended is free again, to the byte.
    #[test]
    fn all_bodies_share_one_budget() {
        let budget = Budget::new(BODY_TIMEOUT);
        let share = || Share { budget: &budget, bytes: 0 };
        let (mut first, mut second, mut third) = (share(), share(), share());
        first.grow(BUFFERED_BYTES_MAX / 2).unwrap();
        second.grow(BUFFERED_BYTES_MAX / 2).unwrap();
        assert!(matches!(third.grow(1), Err(Refusal::Overloaded)));
        drop(third);
        assert!(matches!(share().grow(1), Err(Refusal::Overloaded)));
        drop(second);
        share().grow(BUFFERED_BYTES_MAX / 2).unwrap();
        drop(first);
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
    }
}
