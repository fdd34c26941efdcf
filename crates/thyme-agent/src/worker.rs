//! One worker: a thread with its own containers, read buffer, batch and compressor. It reads,
//! parses, encodes, compresses and hands over; nothing on that path is shared with other workers.
//!
//! It must not wait for the network or the disk's writes: requests leave through a channel with
//! room for all that may be outstanding, and a budget of bytes, taken before reading, decides
//! whether to read at all.

mod anew;
mod cut_archive;
mod decoders;
mod group;
mod handle;
mod late;
mod park;
mod rescue;
mod schedule;
mod settle;
mod snapshot;
mod turn;
mod uid;
mod upkeep;
mod withdrawn;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, select_biased, unbounded};
use tokio::sync::mpsc::error::TrySendError;

pub use self::handle::{
    Charge, Heartbeat, KeySource, WorkerHandle, WorkerMessage, WorkerState, monotonic_ms,
};
use self::{
    group::{Group, TailedFile, Turn},
    late::LateLines,
    rescue::UnderWay,
    schedule::Schedule,
    turn::Progress,
    upkeep::Attention,
};
use crate::{
    batch::{Batch, BatchLimits},
    checkpoint::Publisher,
    complaints::Complaints,
    config::{Compression, Config},
    discover::{GroupKey, pattern::Pattern},
    encode::{EncodeError, Encoder},
    limits::{
        HEARTBEAT_INTERVAL, READ_BYTES, SPAN_BYTES, SPARE_REQUESTS, SPOOL_LOOK_INTERVAL,
        SPOOL_PENDING_REQUESTS, UPKEEP_INTERVAL,
    },
    metrics::Metrics,
    queue::{Request, Settlement, Token},
    spool::SpoolLink,
    tail::{
        acknowledge::Acknowledged,
        descriptors::Descriptors,
        idle_watch::{IdleWatch, Woken},
    },
    world::{HashMap, LogTree, SharedClock},
};

/// What a worker takes from the configuration, its share of the budgets included.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Canonical names of its receivers.
    pub receiver_names: Arc<[Arc<str>]>,
    /// Bytes that unsettled requests and the open batch may hold.
    pub in_flight_bytes_max: usize,
    /// Requests that may be unsettled.
    pub requests_max: usize,
    /// Bytes of requests that may be on their way to the spool.
    pub spool_pending_bytes_max: usize,
    /// Memory that open partial lines may hold.
    pub partial_bytes_max: usize,
    /// Bytes of deleted files that may be kept open.
    pub deleted_files_bytes_max: u64,
    /// Bytes of a file that are settled together.
    pub span_bytes: u64,
}

impl WorkerConfig {
    /// Shares the budgets among the workers.
    pub fn new(config: &Arc<Config>) -> Self {
        let workers = config.thyme.workers;
        Self {
            config: Arc::clone(config),
            receiver_names: config.receiver_names().into(),
            in_flight_bytes_max: config.thyme.in_flight_bytes_max / workers,
            requests_max: (config.exporter.queue.queue_size / workers).max(1),
            spool_pending_bytes_max: SPOOL_PENDING_REQUESTS * config.thyme.request_bytes_max,
            deleted_files_bytes_max: (config.thyme.deleted_files_bytes_max / workers) as u64,
            partial_bytes_max: config.thyme.partial_bytes_max / workers,
            span_bytes: SPAN_BYTES,
        }
    }
}

/// The thread's state.
pub struct Worker {
    config: WorkerConfig,
    messages: Receiver<WorkerMessage>,
    woken: Receiver<Woken>,
    settled: Receiver<Settlement>,
    reply: Sender<Settlement>,
    requests: tokio::sync::mpsc::Sender<Request>,
    spool: Option<SpoolLink>,
    checkpoints: Option<Publisher>,
    tree: Box<dyn LogTree>,
    /// Of each receiver, the directories that its patterns are rooted in.
    roots: Vec<Vec<PathBuf>>,
    descriptors: Arc<Descriptors>,
    keys: Arc<KeySource>,
    /// Files of the life before have lesser numbers.
    restored_below: crate::checkpoint::FileKey,
    state: Arc<WorkerState>,
    metrics: Arc<Metrics>,

    /// Containers by number; a number is never used again.
    groups: HashMap<u32, Box<Group>>,
    numbers: HashMap<Arc<GroupKey>, u32>,
    /// Groups with files that are deleted, or about to be, and not settled.
    urgent: Vec<u32>,
    /// Groups that are polled, and in which order.
    schedule: Schedule,
    /// Groups and files that need to be looked after now and then.
    attention: Attention,
    /// Files by number; a number is never used again, so that a late settlement can't hit another.
    files: HashMap<u32, Box<TailedFile>>,
    next_number: u32,
    /// Lines of late files that are open between two of their turns.
    late_lines: LateLines,
    /// Archives that have a decoder; some that have given it up.
    decoding: Vec<u32>,
    idle: IdleWatch,
    clock: SharedClock,

    /// Holds what was read last; as long as the longest line so far, within its limit.
    buffer: Vec<u8>,
    batch: Batch,
    encoder: Encoder,
    /// Requests that the exporter's channel had no room for; they go first when it has.
    unsent: VecDeque<Request>,
    /// What the exporter has, by number, where there is a spool for copies.
    under_way: BTreeMap<u64, UnderWay>,
    next_request: u64,
    /// Where the open batch goes: set while it may hold bytes of urgent files.
    batch_goes_to_spool: bool,
    /// Set while urgent files are read.
    is_rescuing: bool,
    /// Requests on their way to the spool, and what they hold.
    spool_pending_requests: usize,
    spool_pending_bytes: usize,
    /// Files that can't be read.
    complaints: Complaints<u32>,
    last_loss_said: Option<Instant>,
    last_path_said: Option<Instant>,
    /// Requests that are not settled, and what they take from the budget.
    outstanding_requests: usize,
    outstanding_bytes: usize,
    /// Those of them that the exporter holds within a budget of its own.
    aside_requests: usize,
    last_upkeep: Instant,
    last_idle_check: Instant,
    is_stopping: bool,
    /// Set once it stops: until then what was read may settle.
    drain_deadline: Option<Instant>,
}

fn batch_limits(config: &Config) -> BatchLimits {
    let batch = &config.batch;
    let records_max = match batch.send_batch_max_size {
        0 => batch.send_batch_size,
        max => max.min(batch.send_batch_size),
    };
    BatchLimits {
        bytes_max: config.thyme.request_bytes_max,
        records_max: if records_max == 0 { u64::MAX } else { records_max },
    }
}

fn roots_of(config: &Config) -> Vec<Vec<PathBuf>> {
    let roots = |include: &Vec<String>| {
        let patterns = include.iter().filter_map(|one| Pattern::all(one).ok()).flatten();
        patterns.map(|pattern| pattern.root).collect()
    };
    config.receivers.iter().map(|receiver| roots(&receiver.include)).collect()
}

/// What a worker is connected to, and given.
pub struct WorkerChannels {
    /// From discovery and the pipeline.
    pub messages: Receiver<WorkerMessage>,
    /// To the exporter.
    pub requests: tokio::sync::mpsc::Sender<Request>,
    /// To the spool, where there is one.
    pub spool: Option<SpoolLink>,
    /// To the checkpoint thread, where positions are kept.
    pub checkpoints: Option<Publisher>,
    /// Where files that were closed are opened again.
    pub tree: Box<dyn LogTree>,
    /// How many files may be open.
    pub descriptors: Arc<Descriptors>,
}

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It waits, unless something comes before.
    Wait(Duration),
    /// It has ended.
    End,
}

impl Worker {
    /// Prepares a worker that starts now. Without `watches`, idle files are polled.
    pub fn new(
        config: WorkerConfig,
        channels: WorkerChannels,
        keys: Arc<KeySource>,
        state: Arc<WorkerState>,
        metrics: Arc<Metrics>,
        clock: SharedClock,
        watches: bool,
    ) -> Result<Self, EncodeError> {
        let now = clock.now();
        let WorkerChannels { messages, requests, spool, checkpoints, tree, descriptors } = channels;
        let (thyme, exporter) = (&config.config.thyme, &config.config.exporter);
        let spare_bytes_max = SPARE_REQUESTS * thyme.request_bytes_max;
        let encoder =
            Encoder::new(exporter.compression, exporter.compression_level, spare_bytes_max)?;
        let ((reply, settled), (wake, woken)) = (unbounded(), unbounded());
        let idle = if watches {
            IdleWatch::new(wake, Arc::clone(&metrics))
        } else {
            IdleWatch::none(wake)
        };
        Ok(Self {
            messages,
            woken,
            settled,
            reply,
            requests,
            spool,
            checkpoints,
            tree,
            roots: roots_of(&config.config),
            descriptors,
            restored_below: keys.given_below(),
            keys,
            state,
            groups: HashMap::default(),
            numbers: HashMap::default(),
            urgent: Vec::new(),
            schedule: Schedule::default(),
            attention: Attention::default(),
            files: HashMap::default(),
            next_number: 0,
            late_lines: LateLines::new(),
            decoding: Vec::new(),
            idle,
            clock,
            buffer: vec![0; READ_BYTES],
            batch: Batch::new(batch_limits(&config.config)).with_spans_of(config.span_bytes),
            encoder,
            unsent: VecDeque::new(),
            under_way: BTreeMap::new(),
            next_request: 0,
            batch_goes_to_spool: false,
            is_rescuing: false,
            spool_pending_requests: 0,
            spool_pending_bytes: 0,
            complaints: Complaints::default(),
            last_loss_said: None,
            last_path_said: None,
            outstanding_requests: 0,
            outstanding_bytes: 0,
            aside_requests: 0,
            last_upkeep: now,
            last_idle_check: now,
            is_stopping: false,
            drain_deadline: None,
            metrics,
            config,
        })
    }

    /// Works until it is told to stop and everything is settled, or the deadline is over.
    pub fn run(mut self) -> Result<(), EncodeError> {
        while let Step::Wait(wait) = self.step()? {
            if !wait.is_zero() {
                self.wait(wait)?;
            }
        }
        Ok(())
    }

    /// Does all that is due now, once; says how long nothing will be due.
    pub(crate) fn step(&mut self) -> Result<Step, EncodeError> {
        self.state.beat();
        self.take_settlements();
        // The spool shares the exporter's channel: room may come without a settlement.
        self.hand_over();
        crate::failpoint::hit("worker_turn");
        self.take_messages()?;
        if self.is_stopping {
            return self.drain();
        }
        let now = self.clock.now();
        let next_poll = self.poll_files(now)?;
        self.close_if_due(self.clock.now())?;
        if now.duration_since(self.last_upkeep) >= UPKEEP_INTERVAL {
            self.last_upkeep = now;
            self.upkeep(now)?;
        }
        let now = self.clock.now();
        let wait = [next_poll, self.batch_deadline(), Some(self.last_upkeep + UPKEEP_INTERVAL)]
            .into_iter()
            .flatten()
            .min()
            .map_or(HEARTBEAT_INTERVAL, |at| at.saturating_duration_since(now));
        Ok(Step::Wait(wait.min(HEARTBEAT_INTERVAL)))
    }

    /// Gives every group that is due one turn, and returns when the next one will be due; `None` while
    /// there is none or the budget is used up.
    fn poll_files(&mut self, now: Instant) -> Result<Option<Instant>, EncodeError> {
        let rescue = self.rescue(now)?;
        // While there is more to rescue, and the spool takes it, nothing else is read.
        if rescue.is_some_and(|due| due <= now) {
            return Ok(rescue);
        }
        if self.must_wait_for_spool() {
            // Nobody says when the spool has been drained.
            let look_again = now + SPOOL_LOOK_INTERVAL;
            return Ok(Some(rescue.map_or(look_again, |due| due.min(look_again))));
        }
        self.enqueue_due(now);
        for _ in 0..self.schedule.round() {
            if self.is_budget_used() {
                // The next round goes on here, so that it favours nobody.
                return Ok(rescue);
            }
            let Some(number) = self.schedule.next() else { continue };
            let Some(group) = self.groups.get_mut(&number) else {
                self.schedule.rest(number);
                continue;
            };
            // A rescue may have read it meanwhile, and put its turn off.
            if group.next_poll > now + group.poll_slack() {
                group.turn = Turn::Waiting;
                self.schedule.rest(number);
                self.schedule.wait_until(group.next_poll, number);
                continue;
            }
            let before = self.state.read_bytes.load(Ordering::Relaxed);
            let turn = match self.read_turn(number, now)? {
                Progress::Again => {
                    let after = self.state.read_bytes.load(Ordering::Relaxed);
                    self.schedule.go_on(number, after - before);
                    Turn::Ready
                }
                Progress::At(due) => {
                    self.schedule.rest(number);
                    self.schedule.wait_until(due, number);
                    Turn::Waiting
                }
                Progress::Idle => {
                    self.schedule.rest(number);
                    Turn::Idle
                }
            };
            if let Some(group) = self.groups.get_mut(&number) {
                group.turn = turn;
            }
        }
        if !self.schedule.is_empty() {
            return Ok(Some(now));
        }
        let next = self.schedule.earliest().map(|(due, _)| due);
        Ok(rescue.into_iter().chain(next).min())
    }

    /// Those that have waited long enough get their turn, and their neighbours with them.
    fn enqueue_due(&mut self, now: Instant) {
        while let Some((due, number)) = self.schedule.earliest() {
            // An entry holds no longer when its group is gone, idle, or has its turn at another time.
            let holds =
                |group: &&mut Box<Group>| group.turn == Turn::Waiting && group.next_poll == due;
            if let Some(group) = self.groups.get_mut(&number).filter(holds) {
                if due > now + group.poll_slack() {
                    return;
                }
                group.turn = Turn::Ready;
                self.schedule.enqueue(number);
            }
            self.schedule.drop_earliest();
        }
    }

    /// Whether no further request may be made for now.
    fn is_queue_full(&self) -> bool {
        self.pressing_requests() >= self.config.requests_max
    }

    /// Requests that others have to wait for.
    fn pressing_requests(&self) -> usize {
        self.outstanding_requests - self.aside_requests
    }

    /// Whether the open batch may not be closed for now.
    fn is_closing_blocked(&self) -> bool {
        if self.batch_goes_to_spool && !self.is_spool_useless() {
            !self.has_spool_room()
        } else {
            self.is_queue_full()
        }
    }

    fn is_budget_used(&self) -> bool {
        self.is_queue_full()
            || self.outstanding_bytes + self.batch.records.len() >= self.config.in_flight_bytes_max
    }

    /// When the open batch is to leave; `None` while it is empty, or while so many requests are on
    /// their way that waiting makes larger ones.
    fn batch_deadline(&self) -> Option<Instant> {
        // Nothing but the batch itself may use the budget up: then nobody else will make room.
        let consumers = self.config.config.exporter.queue.num_consumers;
        let is_congested = self.pressing_requests() >= consumers
            || (self.pressing_requests() > 0 && self.is_budget_used());
        let waits = if self.batch_goes_to_spool { self.is_closing_blocked() } else { is_congested };
        let opened_at = self.batch.opened_at.filter(|_| !waits)?;
        Some(opened_at + self.config.config.batch.timeout)
    }

    fn close_if_due(&mut self, now: Instant) -> Result<(), EncodeError> {
        match self.batch_deadline() {
            Some(deadline) if deadline <= now => self.close_batch(),
            _ => Ok(()),
        }
    }

    /// Encodes the open batch and hands it over.
    fn close_batch(&mut self) -> Result<(), EncodeError> {
        let (records, source_bytes) = (self.batch.record_count, self.batch.source_bytes);
        let spans = self.batch.spans();
        // What was read before may still be in the spool: this must not overtake it.
        let to_spool =
            (self.batch_goes_to_spool || self.must_wait_for_spool()) && !self.is_spool_useless();
        self.batch_goes_to_spool = self.is_rescuing;
        if records == 0 {
            // Bytes without a record, such as a newline whose line has left: nothing to send.
            let own = std::mem::take(&mut self.batch.records);
            self.batch.reset(own);
            let together = self.metrics.together();
            self.metrics.queued_batch.add(0, -(source_bytes as i64));
            self.metrics.acknowledged.add(0, source_bytes as i64);
            drop(together);
            self.acknowledge(spans.iter().map(|span| span.range));
            return Ok(());
        }
        let groups = &self.groups;
        let encoded = self.encoder.encode(&mut self.batch, |number| {
            groups.get(&number).map_or(&[][..], |group| &group.resource)
        })?;
        crate::failpoint::hit("batch_encoded");
        self.metrics.requests.increment();
        if let Some(batch_send_size) = self.metrics.batch_send_size.get() {
            batch_send_size.record(records, &[]);
        }
        let together = self.metrics.together();
        self.metrics.queued_batch.add(-(records as i64), -(source_bytes as i64));
        self.metrics.queued_request.add(records as i64, source_bytes as i64);
        drop(together);
        self.next_request += 1;
        let number = self.next_request;
        let charged_bytes = encoded.buffer_bytes;
        let request = Request {
            body: encoded.body,
            body_bytes: encoded.body_bytes,
            uncompressed_bytes: encoded.uncompressed_bytes,
            records,
            source_bytes,
            compression: self.compression(),
            reply: self.reply.clone(),
            settled: Acknowledged::default(),
            token: Token {
                number,
                to_spool,
                spans,
                covers: Vec::new(),
                buffer: encoded.buffer,
                charged_bytes,
                is_aside: false,
                in_spool: Arc::default(),
            },
        };
        self.dispatch(request);
        Ok(())
    }

    /// Sends a request on its way to the exporter or the spool.
    fn dispatch(&mut self, request: Request) {
        if request.token.to_spool && self.spool.is_some() {
            // What the exporter has had no room for was read before.
            while let Some(earlier) = self.unsent.pop_front() {
                self.divert(earlier);
            }
            self.keep(request);
            crate::failpoint::hit("batch_sent_to_spool");
            return;
        }
        if self.outstanding_requests == 0 {
            self.state.set_waiting(true);
        }
        self.outstanding_requests += 1;
        self.outstanding_bytes += request.token.charged_bytes;
        self.metrics.queue_requests.add_gauge(1);
        if self.spool.is_some() {
            self.under_way.insert(request.token.number, UnderWay::new(&request));
        }
        self.unsent.push_back(request);
        self.hand_over();
        crate::failpoint::hit("batch_handed_over");
    }

    /// Hands requests over as far as the exporter's channel has room, without ever waiting.
    fn hand_over(&mut self) {
        while let Some(request) = self.unsent.pop_front() {
            match self.requests.try_send(request) {
                Ok(()) => {}
                Err(TrySendError::Full(request)) => {
                    self.unsent.push_front(request);
                    return;
                }
                // The exporter has ended, and then nothing can be settled any more.
                Err(TrySendError::Closed(_)) => {
                    self.state.fail("the exporter has ended");
                    return;
                }
            }
        }
    }

    fn compression(&self) -> Compression {
        self.config.config.exporter.compression
    }

    /// Sleeps until something comes or the time is over.
    fn wait(&mut self, wait: Duration) -> Result<(), EncodeError> {
        select_biased! {
            recv(self.settled) -> settlement => {
                if let Ok(settlement) = settlement {
                    self.take_settlement(settlement);
                }
            }
            recv(self.messages) -> message => {
                if let Ok(message) = message {
                    self.take_message(message)?;
                }
            }
            recv(self.woken) -> woken => {
                if let Ok(woken) = woken {
                    self.wake(woken);
                }
            }
            default(wait) => {}
        }
        Ok(())
    }

    fn take_settlements(&mut self) {
        while let Ok(settlement) = self.settled.try_recv() {
            self.take_settlement(settlement);
        }
    }

    /// Takes all messages that wait.
    fn take_messages(&mut self) -> Result<(), EncodeError> {
        while let Ok(message) = self.messages.try_recv() {
            self.take_message(message)?;
        }
        while let Ok(woken) = self.woken.try_recv() {
            self.wake(woken);
        }
        Ok(())
    }

    fn take_message(&mut self, message: WorkerMessage) -> Result<(), EncodeError> {
        match message {
            WorkerMessage::Snapshot(snapshot) => self.apply_snapshot(snapshot)?,
            WorkerMessage::AskForDeleted => self.take_deleted(),
            WorkerMessage::Stop => self.is_stopping = true,
        }
        Ok(())
    }

    /// Sends what was read and waits for it to settle. Open partial lines stay unread for the next
    /// start, unless there is no checkpoint to say so.
    fn drain(&mut self) -> Result<Step, EncodeError> {
        let now = self.clock.now();
        let timeout = self.config.config.thyme.shutdown_timeout;
        let is_first = self.drain_deadline.is_none();
        crate::failpoint::hit("drain_begun");
        let deadline = *self.drain_deadline.get_or_insert(now + timeout);
        if is_first {
            self.note_deleted();
        }
        // Files without a name end with this process: they go to the spool even now, and first.
        let rescue = self.rescue(now)?.filter(|due| *due < deadline);
        if rescue.is_some_and(|due| due <= now) {
            self.close_if_due(now)?;
            return Ok(Step::Wait(Duration::ZERO));
        }
        // One that can't be read now is tried again while there is time, and holds nothing else up.
        // At every call: at the first one files without a name may come before, and open more.
        if self.checkpoints.is_none() {
            self.flush_all_partials()?;
        }
        if self.batch.opened_at.is_some() && !self.is_closing_blocked() {
            self.close_batch()?;
        }
        crate::failpoint::hit("drain_sent");
        let is_settled = self.outstanding_requests == 0
            && self.spool_pending_requests == 0
            && self.batch.opened_at.is_none();
        if now < deadline && (!is_settled || rescue.is_some()) {
            let wait = rescue.unwrap_or(deadline) - now;
            return Ok(Step::Wait(wait.min(HEARTBEAT_INTERVAL)));
        }
        crate::failpoint::hit("drain_settled");
        self.note_deleted();
        self.lose_deleted(now);
        self.publish_unsettled();
        // Discovery has ended: nobody finds any of it elsewhere.
        self.state.take_gone().iter().for_each(|gone| gone.count(&self.metrics));
        let unsettled = self.outstanding_requests + self.spool_pending_requests;
        self.state.unsettled_requests.store(unsettled as u64, Ordering::Relaxed);
        Ok(Step::End)
    }
}

#[cfg(test)]
mod tests;
