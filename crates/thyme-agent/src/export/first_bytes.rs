//! Looks at the first bytes that a peer sends, to say what it speaks where that is not what was
//! expected: `otlp` pointed at the port of `otlphttp`, the other way round, or TLS at one end only.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::Protocol;

/// Bytes that are kept: a frame's head in HTTP/2, and more than the other ones need.
const BYTES_MAX: usize = 9;

/// Letters that make a greeting of it.
const TEXT_BYTES_MIN: usize = 4;

/// The first bytes of one connection.
#[derive(Debug, Default)]
pub(super) struct FirstBytes {
    bytes: Mutex<Vec<u8>>,
    is_full: AtomicBool,
}

/// What a peer speaks, by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Spoken {
    Http1,
    Http2,
    Tls,
    /// Another protocol of lines, such as SSH, SMTP or Redis, and what it begins with.
    Other(String),
}

impl FirstBytes {
    fn note(&self, bytes: &[u8]) {
        let mut kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = BYTES_MAX - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.is_full.store(kept.len() == BYTES_MAX, Ordering::Relaxed);
    }

    fn spoken(&self) -> Option<Spoken> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        match &bytes[..] {
            [b'H', b'T', b'T', b'P', b'/', b'1', ..] => Some(Spoken::Http1),
            // SETTINGS or GOAWAY, of the connection as a whole: a server begins with one of them.
            [0, _, _, 4 | 7, _, 0, 0, 0, 0] => Some(Spoken::Http2),
            // A handshake or an alert.
            [0x15 | 0x16, 3, ..] => Some(Spoken::Tls),
            [b'H', ..] if b"HTTP/1".starts_with(&bytes[..bytes.len().min(6)]) => None,
            greeting if greeting.len() >= TEXT_BYTES_MIN => {
                let end = greeting.iter().position(|byte| !matches!(byte, b' '..=b'~'));
                let text = &greeting[..end.unwrap_or(greeting.len())];
                let text = (text.len() >= TEXT_BYTES_MIN).then(|| String::from_utf8_lossy(text));
                text.map(|text| Spoken::Other(text.into_owned()))
            }
            _ => None,
        }
    }

    /// Words about a peer that speaks something else than `protocol` on a connection without TLS,
    /// or within it.
    pub(super) fn unexpected(&self, protocol: Protocol) -> Option<String> {
        let words = match (self.spoken()?, protocol) {
            (Spoken::Http1, Protocol::Grpc) => {
                "what answers speaks HTTP/1.1 and not gRPC: it may be the port for OTLP/HTTP, often \
                 4318; use the exporter otlphttp, or the port for gRPC, often 4317"
            }
            (Spoken::Http2, Protocol::Http) => {
                "what answers speaks HTTP/2: it may be the port for OTLP/gRPC, often 4317; use the \
                 exporter otlp, or the port for HTTP, often 4318"
            }
            (Spoken::Tls, _) => {
                "what answers speaks TLS: the endpoint needs https://, or for gRPC no \
                 `tls.insecure`"
            }
            (Spoken::Other(greeting), _) => return Some(other_protocol(&greeting)),
            _ => return None,
        };
        Some(words.to_owned())
    }

    /// Words about a peer that doesn't speak TLS where it should.
    pub(super) fn lacks_tls(&self) -> Option<String> {
        match self.spoken()? {
            Spoken::Http1 | Spoken::Http2 => Some(
                "what answers does not speak TLS: the endpoint needs http://, or for gRPC \
                 `tls.insecure: true`"
                    .to_owned(),
            ),
            Spoken::Other(greeting) => Some(other_protocol(&greeting)),
            Spoken::Tls => None,
        }
    }
}

fn other_protocol(greeting: &str) -> String {
    format!(
        "what answers speaks neither HTTP nor TLS, it begins with `{greeting}`: it is no OTLP \
         receiver; is the port of the endpoint right?"
    )
}

/// A stream whose first bytes are noted.
#[derive(Debug)]
pub(super) struct Noted<Io> {
    io: Io,
    first: Arc<FirstBytes>,
}

impl<Io> Noted<Io> {
    pub(super) fn new(io: Io) -> (Self, Arc<FirstBytes>) {
        let first = Arc::<FirstBytes>::default();
        (Self { io, first: Arc::clone(&first) }, first)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Noted<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if !self.first.is_full.load(Ordering::Relaxed) {
            self.first.note(&buffer.filled()[before..]);
        }
        polled
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Noted<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: what servers of HTTP/1.1, HTTP/2, TLS and of other protocols begin with, in one piece and
    /// byte by byte.
    /// Guarantees: each is recognised where it is not expected, and only there.
    #[test]
    fn servers_are_known_by_their_first_bytes() {
        let settings = [0, 0, 18, 4, 0, 0, 0, 0, 0];
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0];
        let cases: [(&[u8], bool, bool, bool); 10] = [
            (b"HTTP/1.1 400 Bad Request\r\n", true, false, true),
            (&settings, false, true, true),
            (&goaway, false, true, true),
            (&[0x15, 3, 3, 0, 2, 2, 70], true, true, false),
            (b"SSH-2.0-OpenSSH", true, true, true),
            (b"-ERR unknown command", true, true, true),
            (b"220 mail ESMTP", true, true, true),
            (b"HTT", false, false, false),
            (&[0, 0, 18], false, false, false),
            (b"", false, false, false),
        ];
        for (bytes, is_foreign_to_grpc, is_foreign_to_http, lacks_tls) in cases {
            for step in [1, 100] {
                let first = FirstBytes::default();
                bytes.chunks(step).for_each(|chunk| first.note(chunk));
                let found = (
                    first.unexpected(Protocol::Grpc).is_some(),
                    first.unexpected(Protocol::Http).is_some(),
                    first.lacks_tls().is_some(),
                );
                assert_eq!(found, (is_foreign_to_grpc, is_foreign_to_http, lacks_tls), "{bytes:?}");
            }
        }
    }
}
