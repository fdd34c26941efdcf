//! The thread that writes the agent's log to stderr, and the queue before it.
//!
//! A pipe that nobody reads, a terminal that stands still or a disk that hangs keeps this thread, and
//! nobody else: events that find the queue full are dropped and counted.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    limits::{LOG_EVENT_BYTES_MAX, LOG_EVENTS_MAX},
    metrics::Metrics,
};

/// Longest wait for stderr when the agent ends.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);

enum Message {
    Event(Vec<u8>),
    /// Everything before it is written.
    Flush(Sender<()>),
}

/// Where events go in.
#[derive(Clone, Debug)]
pub(super) struct Events {
    queue: Sender<Message>,
    metrics: Arc<Metrics>,
}

impl Events {
    fn put(&self, event: Vec<u8>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Message::Event(event))
        {
            self.metrics.log_events_dropped.increment();
        }
    }
}

/// One event while it is formatted; it goes into the queue when it is dropped.
pub(super) struct Event {
    events: Events,
    bytes: Vec<u8>,
}

impl Event {
    pub(super) fn new(events: Events) -> Self {
        Self { events, bytes: Vec::new() }
    }
}

impl Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.len() > LOG_EVENT_BYTES_MAX {
            let cut = (0..=LOG_EVENT_BYTES_MAX).rev().find(|at| is_boundary(&bytes, *at));
            bytes.truncate(cut.unwrap_or_default());
            bytes.extend_from_slice("…\n".as_bytes());
        }
        if !bytes.is_empty() {
            self.events.put(bytes);
        }
    }
}

/// Whether no character of the text is cut there.
fn is_boundary(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

/// The running log. Dropping it waits for what is queued, but not for a stderr that takes nothing.
#[derive(Debug)]
pub struct LogWriter {
    events: Events,
}

impl LogWriter {
    /// Starts the thread.
    pub(super) fn start(metrics: Arc<Metrics>) -> io::Result<Self> {
        Self::start_with(metrics, io::stderr())
    }

    fn start_with(
        metrics: Arc<Metrics>,
        to: impl Write + AsFd + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, events) = bounded(LOG_EVENTS_MAX);
        let shared = Arc::clone(&metrics);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_events(&events, to, &shared))?;
        Ok(Self { events: Events { queue, metrics } })
    }

    pub(super) fn events(&self) -> Events {
        self.events.clone()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let (written, done) = bounded(1);
        let flush = Message::Flush(written);
        if self.events.queue.send_timeout(flush, LAST_WORDS_WAIT).is_ok() {
            // A stderr that takes nothing must not keep the process.
            let _flushed = done.recv_timeout(LAST_WORDS_WAIT);
        }
    }
}

fn write_events(events: &Receiver<Message>, mut to: impl Write + AsFd, metrics: &Metrics) {
    let (mut dropped, mut is_read) = (0, true);
    for message in events {
        match message {
            Message::Flush(written) => drop(written.send(())),
            Message::Event(event) => {
                wait_until_writable(&to);
                // A stderr that is closed has no use for what comes, but the queue must not fill.
                is_read = to.write_all(&event).is_ok();
                if !is_read {
                    metrics.log_events_dropped.increment();
                }
            }
        }
        // Said as soon as there is somebody to read it.
        let now = metrics.log_events_dropped.get();
        if is_read && now > dropped && events.is_empty() {
            tracing::warn!(
                events = now - dropped,
                "stderr was not read fast enough: events of this log were dropped"
            );
            dropped = now;
        }
    }
}

/// Waits without the lock of [`io::Stderr`], which the end of the process may want.
fn wait_until_writable(to: &impl AsFd) {
    let mut waited = [PollFd::new(to, PollFlags::OUT)];
    // A failed poll is followed by a write that says more.
    let _ready = poll(&mut waited, None);
}

/// Writes why the agent ends to stderr, unless that takes nothing: then only the exit status tells.
pub fn say_last_words(words: &str) {
    let stderr = io::stderr();
    let wait = Timespec { tv_sec: LAST_WORDS_WAIT.as_secs() as i64, tv_nsec: 0 };
    let mut waited = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut waited, Some(&wait)).is_ok_and(|ready| ready > 0) {
        // Nothing is left to do when stderr is gone.
        writeln!(stderr.lock(), "{words}").ok();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::fd::OwnedFd, time::Instant};

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
        (reader.into(), writer.into())
    }

    fn log(events: &Events, text: &str) {
        Event::new(events.clone()).write_all(text.as_bytes()).unwrap();
    }

    /// Scenario: stderr is a pipe that nobody reads, and far more is logged than fits into pipe and
    /// queue; then the agent ends. Later somebody reads.
    /// Guarantees: neither logging nor the end waits for a reader, what found no room is counted, and
    /// what was taken comes whole and in order.
    #[test]
    fn a_stderr_that_nobody_reads_stops_nobody() {
        let (mut reader, writer) = pipe();
        let metrics = Arc::new(Metrics::default());
        let log_writer = LogWriter::start_with(Arc::clone(&metrics), writer).unwrap();
        let events = log_writer.events();
        let line = |number: usize| format!("{number:06} {}\n", "x".repeat(300));
        let count = 8 * LOG_EVENTS_MAX;
        let begin = Instant::now();
        (0..count).for_each(|number| log(&events, &line(number)));
        drop(log_writer);
        // Two bounded waits at the end, and a busy machine.
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        let dropped = metrics.log_events_dropped.get() as usize;
        assert!(dropped >= count - LOG_EVENTS_MAX - (1 << 20) / 300, "{dropped}");
        drop(events);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), count - dropped);
        let numbers: Vec<usize> =
            text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted());
        assert!(text.lines().all(|line| line.len() == 307));
    }

    /// Scenario: an event of a megabyte, of characters of several bytes.
    /// Guarantees: it is one line of bounded length, and text.
    #[test]
    fn an_event_is_bounded() {
        let (mut reader, writer) = pipe();
        let log_writer = LogWriter::start_with(Arc::default(), writer).unwrap();
        log(&log_writer.events(), &format!("x{}\n", "é".repeat(1 << 19)));
        drop(log_writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.len() <= LOG_EVENT_BYTES_MAX + 4 && text.ends_with("…\n"), "{}", text.len());
    }
}
