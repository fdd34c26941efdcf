//! The queue on disk: requests whose log files are deleted, or about to be, while the sink falls
//! behind. In the steady state the log files are the queue and nothing comes here.
//!
//! ```text
//! workers --Keep, Secure, Forget--> [ spool thread <-> segments ] --requests--> exporter
//!    ^                                   |      ^                                  |
//!    '------ Kept, Secured --------------'      '------------ Ended ---------------'
//! ```
//!
//! A request is *kept* once its bytes are synced to disk: its worker may then forget it, and the
//! spool sees it to its end, in the order of keeping. A *secured* request is one that the exporter
//! has already: the spool holds a copy for the next start, and forgets it when the request has ended.
//!
//! Nothing is dropped here: what there is no room for waits in memory, within the workers' budgets,
//! until there is room. It must not hold a worker up, nor read a log file.

mod covers;
mod cursor;
mod message;
mod recover;
pub mod segment;
mod status;
mod store;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, select_biased, unbounded};
use tokio::sync::mpsc::{self, error::TrySendError};

pub use self::{
    covers::{Covered, covered},
    message::{SpoolLink, SpoolMessage},
    status::SpoolStatus,
    store::has_segments,
};
use self::{
    segment::Header,
    store::{AppendError, Entry, Fresh, Lost, Store, Sum},
};
use crate::{
    checkpoint::CheckpointError,
    limits::{
        COMPLAINT_INTERVAL, HEARTBEAT_INTERVAL, SPOOL_CURSOR_INTERVAL, SPOOL_HANDED_BYTES_MAX,
        SPOOL_PUT_OFF_INTERVAL, SPOOL_READ_FAILURES_MAX, SPOOL_RETRY_INTERVAL,
    },
    metrics::Metrics,
    pipeline::EndNote,
    queue::{Request, Settled, SettledPart, Settlement, Token},
    world::{SharedClock, StateDisk},
};

/// What a spool holds in the state directory, by a name each.
pub const FILE_NAMES: &[&str] =
    &["spool/cursor", "spool/000000000001.segment", "spool/000000000001.damaged"];

/// What a spool is made of.
pub struct SpoolStart {
    /// The state directory.
    pub disk: Arc<dyn StateDisk>,
    /// Bytes that its segments may take on disk.
    pub bytes_max: u64,
    /// The life of the agent whose numbers files have, see [`crate::checkpoint::State::life`].
    pub life: u64,
    /// To the exporter.
    pub requests: mpsc::Sender<Request>,
    /// Time.
    pub clock: SharedClock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// A message that waits to be written.
struct Waiting {
    request: Request,
    is_copy: bool,
    /// Which worker a copy belongs to.
    worker: usize,
}

/// A request that was written, and is kept once the segment is synced.
struct Written {
    waiting: Waiting,
    id: u64,
}

/// Whose copy a record is.
struct CopyOf {
    worker: usize,
    /// The worker's number of the request.
    number: u64,
    reply: Sender<Settlement>,
}

/// The thread's state.
pub struct Spool {
    store: Store,
    life: u64,
    messages: Receiver<SpoolMessage>,
    settled: Receiver<Settlement>,
    reply: Sender<Settlement>,
    requests: mpsc::Sender<Request>,
    status: Arc<SpoolStatus>,
    clock: SharedClock,
    metrics: Arc<Metrics>,

    waiting: VecDeque<Waiting>,
    written: Vec<Written>,
    /// What workers are told at the end of a step: by then the exporter may have their requests.
    news: Vec<(Sender<Settlement>, Settlement)>,
    /// Copies by worker and number, and their ids.
    copies: HashMap<(usize, u64), u64>,
    /// Ids of the copies, which are not sent from here.
    copy_ids: BTreeMap<u64, CopyOf>,
    /// A request that was read and that the exporter's channel had no room for.
    unsent: Option<Request>,
    /// Requests that the exporter has from here, and the bytes of their bodies.
    handed_requests: usize,
    handed_bytes: usize,
    /// Not before this is the disk tried again.
    retry_at: Option<Instant>,
    /// Not before this is the disk read again.
    read_at: Option<Instant>,
    read_failures: u32,
    /// When what could not be read is tried again, if there is anything.
    put_off_at: Option<Instant>,
    cursor_at: Instant,
    complained_at: Option<Instant>,
    /// Set once the agent stops: nothing more is sent, and what was sent may settle until then.
    deadline: Option<Instant>,
    is_closed: bool,
}

/// What the spool does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It waits, unless something comes before.
    Wait(Duration),
    /// Nobody will send anything any more.
    End,
}

impl Spool {
    /// Opens what is on disk; returns the spool and the ends for its workers.
    ///
    /// # Errors
    /// When the directory can't be made or read. Damage in it is no error: it is counted, and set
    /// aside.
    pub fn open(
        start: SpoolStart,
        workers: usize,
    ) -> Result<(Self, Vec<SpoolLink>), CheckpointError> {
        let SpoolStart { disk, bytes_max, life, requests, clock, metrics } = start;
        let (store, recovered) = Store::open(disk, bytes_max)?;
        crate::failpoint::hit("spool_recovered");
        let Sum { requests: found, records, source_bytes } = recovered.unread;
        let (records, bytes) = (records as i64, source_bytes as i64);
        let together = metrics.together();
        metrics.recovered.add(records, bytes);
        metrics.queued_spool.add(records, bytes);
        drop(together);
        metrics.spool_unreadable_bytes.add(recovered.unreadable_bytes);
        metrics.spool_damaged_requests.add(recovered.lost_requests);
        metrics.spool_duplicate_requests.add(recovered.copies);
        metrics.spool_requests.set(found);
        metrics.spool_bytes.set(store.bytes());
        if found > 0 {
            tracing::info!(
                requests = found,
                records,
                "the spool holds requests of an earlier run; they are sent first"
            );
        }
        let status = Arc::new(SpoolStatus::default());
        status.backlog.store(found, Ordering::Relaxed);
        let (sender, messages) = unbounded();
        let (reply, settled) = unbounded();
        let links = (0..workers)
            .map(|worker| SpoolLink {
                messages: sender.clone(),
                status: Arc::clone(&status),
                worker,
            })
            .collect();
        let spool = Self {
            store,
            life,
            messages,
            settled,
            reply,
            requests,
            status,
            cursor_at: clock.now(),
            clock,
            metrics,
            waiting: VecDeque::new(),
            written: Vec::new(),
            news: Vec::new(),
            copies: HashMap::new(),
            copy_ids: BTreeMap::new(),
            unsent: None,
            handed_requests: 0,
            handed_bytes: 0,
            retry_at: None,
            read_at: None,
            read_failures: 0,
            put_off_at: None,
            complained_at: None,
            deadline: None,
            is_closed: false,
        };
        Ok((spool, links))
    }

    /// Starts the thread. `ended` turns true when it has ended.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn spawn(self, ended: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
        let note = EndNote(ended);
        std::thread::Builder::new().name("spool".to_owned()).spawn(move || {
            let _note = note;
            self.run();
        })
    }

    fn run(mut self) {
        while let Step::Wait(wait) = self.step() {
            if wait.is_zero() {
                continue;
            }
            if self.is_closed {
                if let Ok(settlement) = self.settled.recv_timeout(wait) {
                    self.take_settlement(settlement);
                }
                continue;
            }
            select_biased! {
                recv(self.settled) -> settlement => {
                    if let Ok(settlement) = settlement {
                        self.take_settlement(settlement);
                    }
                }
                recv(self.messages) -> message => match message {
                    Ok(message) => self.take_message(message),
                    Err(_) => self.is_closed = true,
                },
                default(wait) => {}
            }
        }
    }

    /// Does all that is due now, once; says how long nothing will be due.
    pub(crate) fn step(&mut self) -> Step {
        while let Ok(settlement) = self.settled.try_recv() {
            self.take_settlement(settlement);
        }
        loop {
            match self.messages.try_recv() {
                Ok(message) => self.take_message(message),
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    self.is_closed = true;
                    break;
                }
            }
        }
        let now = self.clock.now();
        if self.retry_at.is_none_or(|at| now >= at) {
            self.retry_at = None;
            self.keep(now);
        }
        match self.deadline {
            None => self.hand_over(now),
            // What it has is for the next start; what it could not take has the sink alone.
            Some(deadline) if now < deadline => self.pass_on(),
            Some(_) => {}
        }
        self.tell();
        let is_over = self.handed_requests == 0 || self.deadline.is_none_or(|at| now >= at);
        let is_end = self.is_closed && is_over;
        if is_end {
            self.store.close();
        }
        self.write_cursor(now, is_end);
        self.show();
        if is_end {
            // What the exporter still has is sent again after the next start.
            return Step::End;
        }
        let cursor_at =
            self.store.is_cursor_stale().then(|| self.cursor_at + SPOOL_CURSOR_INTERVAL);
        let wait = [self.retry_at, self.read_at, self.put_off_at, cursor_at, self.deadline]
            .into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(now))
            .filter(|wait| !wait.is_zero())
            .min();
        Step::Wait(wait.unwrap_or(HEARTBEAT_INTERVAL).min(HEARTBEAT_INTERVAL))
    }

    fn take_message(&mut self, message: SpoolMessage) {
        match message {
            SpoolMessage::Keep { request, worker } => self.take_request(request, worker),
            SpoolMessage::Secure { request, worker } => {
                self.waiting.push_back(Waiting { request, is_copy: true, worker });
            }
            SpoolMessage::Advance { worker, number, settled } => {
                let is_meant = |one: &&mut Waiting| {
                    one.is_copy && one.worker == worker && one.request.token.number == number
                };
                if let Some(id) = self.copies.get(&(worker, number)) {
                    self.store.advance(*id, settled);
                } else if let Some(waiting) = self.waiting.iter_mut().find(is_meant) {
                    waiting.request.settled = settled;
                }
            }
            SpoolMessage::Forget { worker, number } => {
                if let Some(id) = self.remove_copy(worker, number) {
                    self.store.finish(id);
                }
            }
            SpoolMessage::Stop(deadline) => self.deadline = Some(deadline),
        }
    }

    /// Takes a request over: what was a copy of it is read in its turn, and no other is written.
    fn take_request(&mut self, request: Request, worker: usize) {
        let Some(id) = self.remove_copy(worker, request.token.number) else {
            self.waiting.push_back(Waiting { request, is_copy: false, worker });
            return;
        };
        self.store.adopt(&Header { id, ..self.header(&request) });
        self.note_kept(request);
    }

    /// The copy of a request is none any more; returns its id if it is on disk.
    fn remove_copy(&mut self, worker: usize, number: u64) -> Option<u64> {
        self.waiting.retain(|one| {
            !one.is_copy || one.worker != worker || one.request.token.number != number
        });
        let id = self.copies.remove(&(worker, number))?;
        self.copy_ids.remove(&id);
        Some(id)
    }

    /// A request is on disk: its worker is told, and it is read in its turn.
    fn note_kept(&mut self, request: Request) {
        self.status.backlog.fetch_add(1, Ordering::Relaxed);
        self.metrics.spool_kept_requests.increment();
        self.metrics.spool_requests.add_gauge(1);
        self.news.push((request.reply.clone(), Settlement::Kept(request)));
    }

    /// Books the end of a request, or of a part of one, that was sent from here.
    fn take_settlement(&mut self, settlement: Settlement) {
        let settled = match settlement {
            Settlement::Ended(settled) => settled,
            Settlement::Part(part) => return self.take_part(part),
            Settlement::Aside(aside) => {
                self.handed_bytes -= aside.body_bytes;
                return;
            }
            Settlement::Kept(_) | Settlement::Secured(_) | Settlement::CopyLost(_) => return,
        };
        let Settled { request, .. } = &settled;
        self.handed_requests -= 1;
        self.handed_bytes -= request.body_bytes;
        let (records, bytes) = request.unsettled();
        let (records, bytes) = (records as i64, bytes as i64);
        self.metrics.queue_requests.add_gauge(-1);
        self.metrics.spool_requests.add_gauge(-1);
        let together = self.metrics.together();
        self.metrics.queued_spool.add(-records, -bytes);
        self.metrics.book_end(&settled);
        drop(together);
        self.store.finish(request.token.number);
        crate::failpoint::hit("spool_settled");
        // There may be room again.
        if self.status.is_full() {
            self.retry_at = None;
        }
    }

    fn take_part(&mut self, part: SettledPart) {
        let together = self.metrics.together();
        self.metrics.queued_spool.add(-(part.records as i64), -(part.source_bytes as i64));
        self.metrics.book_part(&part);
        drop(together);
        self.store.advance(part.number, part.settled);
    }

    /// Writes what waits, as far as there is room, and says so to the workers once it is synced.
    fn keep(&mut self, now: Instant) {
        while let Some(waiting) = self.waiting.pop_front() {
            let header = self.header(&waiting.request);
            let (body, is_copy) = (&waiting.request.body, waiting.is_copy);
            let note = &covers::encode(self.life, &waiting.request.token.covers);
            match self.store.append(&Fresh { body, note, header, is_copy }) {
                Ok(id) => {
                    self.store.advance(id, waiting.request.settled.clone());
                    self.written.push(Written { waiting, id });
                }
                Err(error) => {
                    self.waiting.push_front(waiting);
                    self.report_failure(error, now);
                    break;
                }
            }
        }
        self.take_back();
        if self.written.is_empty() {
            if self.waiting.is_empty() {
                // What found no room has another place by now: the next request finds out anew.
                self.status.is_full.store(false, Ordering::Relaxed);
            }
            return;
        }
        if let Err(error) = self.store.sync() {
            // What is in a segment that was sealed meanwhile is synced.
            self.take_back();
            self.report_failure(AppendError::Disk(error), now);
        }
        if self.waiting.is_empty() && self.status.is_full.swap(false, Ordering::Relaxed) {
            tracing::info!("the spool has room again");
        }
        for written in std::mem::take(&mut self.written) {
            self.confirm(written);
        }
    }

    /// A failure takes along what was written before it and not yet synced: it is written again.
    fn take_back(&mut self) {
        while let Some(lost) = self.written.pop_if(|written| self.store.is_done(written.id)) {
            self.waiting.push_front(lost.waiting);
        }
    }

    fn header(&self, request: &Request) -> Header {
        Header {
            id: 0,
            records: request.records,
            source_bytes: request.source_bytes,
            uncompressed_bytes: request.uncompressed_bytes as u64,
            kept_unix_ms: self.clock.unix_nanos() / 1_000_000,
            body_bytes: 0,
            body_crc32: 0,
            compression: request.compression,
            note_bytes: 0,
        }
    }

    /// Tells a worker that its request is on disk.
    fn confirm(&mut self, written: Written) {
        let Written { waiting: Waiting { request, is_copy, worker }, id } = written;
        crate::failpoint::hit("spool_kept");
        if !is_copy {
            return self.note_kept(request);
        }
        let (number, reply) = (request.token.number, request.reply);
        self.copies.insert((worker, number), id);
        self.copy_ids.insert(id, CopyOf { worker, number, reply: reply.clone() });
        self.metrics.spool_secured_requests.increment();
        self.news.push((reply, Settlement::Secured(number)));
    }

    fn tell(&mut self) {
        for (reply, settlement) in self.news.drain(..) {
            // A worker that has ended has nothing to forget any more.
            let _ended = reply.send(settlement);
            crate::failpoint::hit("spool_told");
        }
    }

    /// Gives the exporter what is kept, oldest first, as far as memory and its channel have room.
    fn hand_over(&mut self, now: Instant) {
        if self.read_at.is_some_and(|at| now < at) {
            return;
        }
        self.read_at = None;
        if self.put_off_at.is_some_and(|at| now >= at) {
            self.put_off_at = None;
            self.store.try_again();
            let backlog = self.store.unread_requests() + u64::from(self.unsent.is_some());
            self.status.backlog.store(backlog, Ordering::Relaxed);
        }
        loop {
            let request = match self.unsent.take() {
                Some(request) => request,
                None if self.handed_requests > 0 && self.handed_bytes >= SPOOL_HANDED_BYTES_MAX => {
                    return;
                }
                None => match self.read_next(now) {
                    Some(request) => request,
                    None if self.read_at.is_some() => return,
                    None => {
                        self.status.backlog.store(0, Ordering::Relaxed);
                        self.pass_on();
                        return;
                    }
                },
            };
            let body_bytes = request.body_bytes;
            match self.requests.try_send(request) {
                Ok(()) => {
                    self.handed_requests += 1;
                    self.handed_bytes += body_bytes;
                    self.metrics.queue_requests.add_gauge(1);
                    self.lower_backlog(1);
                    crate::failpoint::hit("spool_handed_over");
                }
                // Tried again when something settles, or after a heartbeat.
                Err(TrySendError::Full(request)) => {
                    self.unsent = Some(request);
                    return;
                }
                // The exporter has ended; what is here is sent after the next start.
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }

    /// Nothing is left to read, and what waits finds no room: it goes to the exporter as it is, so
    /// that a broken disk holds up nobody whose sink works.
    fn pass_on(&mut self) {
        while self.status.is_full()
            && let Some(at) = self.waiting.iter().position(|one| !one.is_copy)
            && let Some(waiting) = self.waiting.remove(at)
        {
            match self.requests.try_send(waiting.request) {
                Ok(()) => self.metrics.queue_requests.add_gauge(1),
                Err(TrySendError::Full(request) | TrySendError::Closed(request)) => {
                    self.waiting.insert(at, Waiting { request, ..waiting });
                    return;
                }
            }
        }
    }

    fn read_next(&mut self, now: Instant) -> Option<Request> {
        loop {
            let copies = &self.copy_ids;
            match self.store.read_next(&|id| copies.contains_key(&id)) {
                Ok(None) => {
                    self.read_failures = 0;
                    return None;
                }
                Ok(Some(Entry::Whole(header, body))) => {
                    self.read_failures = 0;
                    return Some(self.request(&header, body));
                }
                Ok(Some(Entry::Lost(lost))) => self.give_up(lost),
                Err(error) => {
                    self.read_failures = self.read_failures.saturating_add(1);
                    self.metrics.spool_errors.increment();
                    self.complain_of_reading(now, &error);
                    let may_wait = !self.store.has_failed_here();
                    if may_wait && self.read_failures < SPOOL_READ_FAILURES_MAX {
                        self.read_at = Some(now + SPOOL_RETRY_INTERVAL);
                        return None;
                    }
                    self.put_off_at.get_or_insert(now + SPOOL_PUT_OFF_INTERVAL);
                    if let Some(lost) = self.store.pass_over(&error) {
                        self.give_up(lost);
                    }
                }
            }
        }
    }

    fn request(&self, header: &Header, body: Vec<u8>) -> Request {
        Request {
            body_bytes: body.len(),
            body: vec![Bytes::from(body)],
            uncompressed_bytes: usize::try_from(header.uncompressed_bytes).unwrap_or(usize::MAX),
            records: header.records,
            source_bytes: header.source_bytes,
            compression: header.compression,
            settled: self.store.settled_of(header.id),
            reply: self.reply.clone(),
            token: Token { number: header.id, in_spool: Arc::new(true.into()), ..Token::default() },
        }
    }

    /// Requests that can't be read stay on disk, set aside for a human, and are not sent.
    fn give_up(&mut self, lost: Lost) {
        let Sum { requests, records, source_bytes } = lost.sum;
        if requests > 0 {
            let (records, bytes) = (records as i64, source_bytes as i64);
            self.metrics.spool_damaged_requests.add(requests);
            self.metrics.spool_requests.add_gauge(-(requests as i64));
            let together = self.metrics.together();
            self.metrics.queued_spool.add(-records, -bytes);
            self.metrics.dead_lettered.add(records, bytes);
            drop(together);
            self.lower_backlog(requests);
            tracing::error!(
                requests,
                records,
                path = %lost.path.display(),
                "requests in the spool are not what their checksums say, or can't be read: they count \
                 as dead letters, and their segment is kept as *.damaged"
            );
        }
        self.give_up_copies();
    }

    /// Copies went with what was given up: their workers, who still have the requests, make others.
    fn give_up_copies(&mut self) {
        let lost = self.copy_ids.extract_if(.., |id, _| self.store.is_done(*id));
        for (_, CopyOf { worker, number, reply }) in lost {
            self.copies.remove(&(worker, number));
            self.news.push((reply, Settlement::CopyLost(number)));
        }
    }

    fn lower_backlog(&self, requests: u64) {
        let backlog = self.status.backlog.load(Ordering::Relaxed);
        self.status.backlog.store(backlog.saturating_sub(requests), Ordering::Relaxed);
    }

    fn report_failure(&mut self, error: AppendError, now: Instant) {
        self.retry_at = Some(now + SPOOL_RETRY_INTERVAL);
        self.metrics.spool_errors.increment();
        let error = match error {
            AppendError::Full => io::Error::from(io::ErrorKind::QuotaExceeded),
            AppendError::Disk(error) => error,
        };
        self.status.is_full.store(true, Ordering::Relaxed);
        let lacks_room =
            matches!(error.kind(), io::ErrorKind::QuotaExceeded | io::ErrorKind::StorageFull);
        self.metrics.spool_lacks_room.set(lacks_room.into());
        self.complain(
            now,
            &error,
            "the spool takes nothing: reading stops; what the kubelet deletes now is kept open, \
             within deleted_files_bytes_max",
        );
    }

    fn complain(&mut self, now: Instant, error: &io::Error, what: &'static str) {
        if self.complained_at.is_none_or(|last| now >= last + COMPLAINT_INTERVAL) {
            self.complained_at = Some(now);
            tracing::error!(%error, spool_bytes = self.store.bytes(), "{what}");
        }
    }

    fn complain_of_reading(&mut self, now: Instant, error: &io::Error) {
        let path = self.store.reading_path();
        let error = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let what =
            "the spool can't be read: what is behind that is sent first, and it is tried again";
        self.complain(now, &error, what);
    }

    fn write_cursor(&mut self, now: Instant, is_end: bool) {
        let is_due = is_end || now >= self.cursor_at + SPOOL_CURSOR_INTERVAL;
        if !self.store.is_cursor_stale() || !is_due {
            return;
        }
        self.cursor_at = now;
        if let Err(error) = self.store.write_cursor() {
            self.metrics.spool_errors.increment();
            self.complain(now, &error, "the spool's cursor can't be written");
        }
    }

    fn show(&self) {
        self.metrics.spool_bytes.set(self.store.bytes());
        let is_full = self.status.is_full();
        self.metrics.spool_full.set(u64::from(is_full));
        if !is_full {
            self.metrics.spool_lacks_room.set(0);
        }
    }
}

#[cfg(any(test, feature = "simulation"))]
pub(crate) use self::cursor::read_cursor;

#[cfg(test)]
mod tests;
