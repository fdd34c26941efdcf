//! The body of a request as hyper takes it: one frame that lends out the chunks where they lie.
//! Nothing is copied here, and nothing is decided.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::IoSlice,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::signs::Signs;

/// When a message began to leave, and over which connection.
#[derive(Debug)]
pub(super) struct Departure {
    begun: OnceLock<Instant>,
    signs: Arc<Signs>,
}

impl Departure {
    pub(super) fn new(signs: Arc<Signs>) -> Self {
        Self { begun: OnceLock::new(), signs }
    }

    /// What is left of the time limit of an attempt. It counts from the message's first byte; until
    /// then from the last that the connection carried for others, who may have gone first.
    pub(super) fn time_left(&self, limit: Duration) -> Duration {
        let age = self.begun.get().map_or_else(|| self.signs.stillness(), Instant::elapsed);
        limit.saturating_sub(age)
    }

    fn moved(&self) {
        self.begun.get_or_init(Instant::now);
        self.signs.moved();
    }
}

/// A whole message, vectored: HTTP/2 cuts its frames without regard to the chunks' borders, and
/// HTTP/1.1 writes all of them with few system calls.
#[derive(Debug)]
pub(super) struct Message {
    /// What is left; no chunk is empty.
    chunks: VecDeque<Bytes>,
    /// Sum of their lengths.
    remaining: usize,
    departure: Arc<Departure>,
}

impl Message {
    pub(super) fn new(chunks: impl Iterator<Item = Bytes>, departure: Arc<Departure>) -> Self {
        let chunks: VecDeque<Bytes> = chunks.filter(|chunk| !chunk.is_empty()).collect();
        let remaining = chunks.iter().map(Bytes::len).sum();
        Self { chunks, remaining, departure }
    }
}

impl Buf for Message {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let filled = out.len().min(self.chunks.len());
        for (slot, chunk) in out.iter_mut().zip(&self.chunks) {
            *slot = IoSlice::new(chunk);
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced beyond the end of a message");
        self.remaining -= count;
        if count > 0 {
            self.departure.moved();
        }
        if self.remaining == 0 {
            crate::failpoint::hit("request_sent");
        }
        while count > 0 {
            let Some(front) = self.chunks.front_mut() else { break };
            if count < front.len() {
                front.advance(count);
                break;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }
}

/// [`Message`] as a body of a known length; `None` once hyper has taken it.
#[derive(Debug)]
pub(super) struct MessageBody(pub(super) Option<Message>);

impl Body for MessageBody {
    type Data = Message;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Message>, Infallible>>> {
        Poll::Ready(self.0.take().map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |message| message.remaining as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Scenario: a message of any chunks, empty ones included, is read in steps of any size.
        /// Guarantees: what comes out is the chunks joined (the oracle), whole and vectored.
        #[test]
        fn lends_out_what_went_in(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
            step in 1_usize..12,
        ) {
            let joined = chunks.concat();
            let departure = Arc::new(Departure::new(Arc::default()));
            let mut message = Message::new(chunks.into_iter().map(Bytes::from), departure);
            prop_assert_eq!(message.remaining(), joined.len());
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = message.chunks_vectored(&mut slices);
            let vectored: Vec<u8> = slices[..filled].iter().flat_map(|one| one.to_vec()).collect();
            prop_assert_eq!(&vectored, &joined);
            let mut read = Vec::new();
            while message.has_remaining() {
                let count = step.min(message.remaining());
                read.extend_from_slice(&message.copy_to_bytes(count));
            }
            prop_assert_eq!(read, joined);
        }
    }

    /// Scenario: a message waits behind others on its connection, then its first byte leaves.
    /// Guarantees: its time limit counts from that byte; until then, and only while nothing else
    /// leaves either, from the last sign that the connection moves.
    #[test]
    fn the_limit_counts_from_the_first_byte() {
        const LIMIT: Duration = Duration::from_millis(100);
        let signs = Arc::new(Signs::default());
        let waiting = Arc::new(Departure::new(Arc::clone(&signs)));
        let mut first = Message::new(
            [Bytes::from_static(b"ab")].into_iter(),
            Arc::new(Departure::new(Arc::clone(&signs))),
        );
        std::thread::sleep(LIMIT);
        assert_eq!(waiting.time_left(LIMIT), Duration::ZERO);
        first.advance(1);
        assert!(waiting.time_left(LIMIT * 100) > LIMIT * 98);
        std::thread::sleep(LIMIT);
        signs.moved();
        assert!(waiting.time_left(LIMIT * 100) > LIMIT * 98);
        assert_eq!(first.departure.time_left(LIMIT), Duration::ZERO);
    }
}
