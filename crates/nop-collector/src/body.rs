//! Collects a request's body within its own limit, within a budget for all bodies together, and
//! within a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::limits::{BODY_TIMEOUT, DISCARDED_BYTES_MAX};
use crate::refusal::Refusal;

/// Memory that bodies hold, of all requests together, and the time that each may take.
#[derive(Debug)]
pub(crate) struct Budget {
    used_bytes: AtomicUsize,
    bytes_max: usize,
    timeout: Duration,
}

impl Budget {
    pub(crate) const fn new(bytes_max: usize, timeout: Duration) -> Self {
        Self { used_bytes: AtomicUsize::new(0), bytes_max, timeout }
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
        if used + bytes > self.budget.bytes_max { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A whole body.
#[derive(Debug)]
pub(crate) struct Body<'b> {
    pub(crate) chunks: Vec<Bytes>,
    bytes: usize,
    _share: Share<'b>,
}

impl Body<'_> {
    /// Its length, bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A body that is being received, in one piece. Pieces as they come would each hold what they were cut
/// from: a body of single bytes would take forty times its length.
struct Receiving<'b> {
    bytes: Vec<u8>,
    bytes_max: usize,
    share: Share<'b>,
}

impl Receiving<'_> {
    /// Room is taken from the budget before it is taken from the memory.
    fn append(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let bytes_max = self.bytes_max;
        let wanted = self.bytes.len() + piece.len();
        if wanted > bytes_max {
            return Err(Refusal::TooLarge { bytes_max });
        }
        let before = self.bytes.capacity();
        if wanted > before {
            let room = wanted.max((2 * before).min(bytes_max));
            // While it moves, both are there.
            self.share.grow(room)?;
            self.bytes.reserve_exact(room - self.bytes.len());
            self.share.shrink(before);
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
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
    let share = Share { budget, bytes: 0 };
    let mut body = Receiving { bytes: Vec::new(), bytes_max, share };
    let receive = async {
        while let Some(frame) = incoming.frame().await {
            let interrupted =
                |cause: hyper::Error| Refusal::Interrupted { cause: cause.to_string() };
            let Ok(piece) = frame.map_err(interrupted)?.into_data() else { continue };
            body.append(&piece)?;
        }
        Ok::<(), Refusal>(())
    };
    match tokio::time::timeout(budget.timeout, receive).await {
        Ok(received) => received?,
        Err(_) => {
            let cause = format!("it took longer than {:?}", budget.timeout);
            return Err(Refusal::Interrupted { cause });
        }
    }
    let Receiving { bytes, share, .. } = body;
    let length = bytes.len();
    Ok(Body { chunks: vec![Bytes::from(bytes)], bytes: length, _share: share })
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
        const MAX: usize = 1_000;
        let budget = Budget::new(MAX, BODY_TIMEOUT);
        let share = || Share { budget: &budget, bytes: 0 };
        let (mut first, mut second, mut third) = (share(), share(), share());
        first.grow(MAX / 2).unwrap();
        second.grow(MAX / 2).unwrap();
        assert!(matches!(third.grow(1), Err(Refusal::Overloaded)));
        drop(third);
        assert!(matches!(share().grow(1), Err(Refusal::Overloaded)));
        drop(second);
        share().grow(MAX / 2).unwrap();
        drop(first);
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
    }

    /// Scenario: bodies that come byte by byte, in pieces of any length and at once, up to their limit and
    /// one byte beyond it.
    /// Guarantees: what is charged is the room that the body has, at most twice its length; a body of
    /// the limit is taken, one more byte is refused, and nothing stays charged.
    #[test]
    fn memory_is_charged_as_it_is_held() {
        const LENGTH: usize = 10_000;
        for piece in [1, 7, 1_000, LENGTH] {
            let budget = Budget::new(4 * LENGTH, BODY_TIMEOUT);
            let share = Share { budget: &budget, bytes: 0 };
            let mut body = Receiving { bytes: Vec::new(), bytes_max: LENGTH, share };
            let content: Vec<u8> = (0..LENGTH).map(|byte| byte as u8).collect();
            for bytes in content.chunks(piece) {
                body.append(bytes).unwrap();
                let charged = budget.used_bytes.load(Ordering::Relaxed);
                assert_eq!(charged, body.bytes.capacity());
                assert!(charged <= 2 * body.bytes.len() && charged <= LENGTH);
            }
            assert!(body.bytes == content);
            assert!(matches!(body.append(b"x"), Err(Refusal::TooLarge { bytes_max: LENGTH })));
            drop(body);
            assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
        }
    }
}
