//! Wires the stages, from the last to the first, and takes them down in the order of the flow.
//!
//! ```text
//! discovery --snapshots--> workers --requests----------> exporter --> sink
//!                          |  |  ^ '--at risk--> spool --^  |
//!            checkpoints <-'  |  '------settlements---------'
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, unbounded};
use thyme_core::causes::in_one_line;

use crate::{
    checkpoint::{
        self, CheckpointError, FileCheckpoint, FileKey, FirstStart, LOCK_NAME, Owners, Restored,
        State, Writer,
    },
    config::{Config, FileStorageConfig, Problem, StartAt, canonical_name},
    discover::{Discovery, DiscoveryStart, Source, links::LinkRules, pattern::PatternError},
    encode::EncodeError,
    export::{self, ExportError},
    limits::{EXPORT_SILENCE_MAX, HEARTBEAT_AGE_MAX},
    metrics::{LossReason, Metrics},
    queue::Request,
    spool::{self, Spool, SpoolLink, SpoolMessage, SpoolStart},
    tail::descriptors::Descriptors,
    worker::{
        Heartbeat, KeySource, Worker, WorkerChannels, WorkerConfig, WorkerHandle, WorkerMessage,
        WorkerState, monotonic_ms,
    },
    world::{
        StateDisk,
        real::{NodeLogs, SystemClock},
    },
};

/// Why the pipeline can't be started.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A pattern of a receiver.
    #[error("receiver {receiver}: {source}")]
    Pattern {
        /// The receiver's name in the configuration.
        receiver: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// The state directory, with the key that names it.
    #[error("{0}")]
    State(Box<Problem>),
    /// The exporter.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The compressor.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// What was left when the pipeline ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Requests that neither the sink had acknowledged nor the spool kept; the checkpoints stand before
    /// them.
    pub unsettled_requests: u64,
    /// Records in them and in batches that could not leave.
    pub unsettled_records: i64,
    /// Lines that were begun and had no end: they belong to no request, and stay unread for the next
    /// start.
    pub open_lines: i64,
    /// Records that the spool holds for the next start.
    pub spooled_records: i64,
    /// Bytes of files without a name that are gone with the agent.
    pub lost_bytes: u64,
}

struct RunningWorker {
    handle: WorkerHandle,
    thread: JoinHandle<Result<(), EncodeError>>,
}

/// The running pipeline.
pub struct Pipeline {
    discovery: (Sender<()>, JoinHandle<()>),
    /// Discovery's.
    heartbeat: Arc<Heartbeat>,
    workers: Vec<RunningWorker>,
    spool: Option<(Sender<SpoolMessage>, JoinHandle<()>)>,
    kept: Kept,
    shutdown_timeout: Duration,
    /// Threads without a sign of life of their own: their names, and whether they have ended.
    ended: Vec<(&'static str, Arc<AtomicBool>)>,
    metrics: Arc<Metrics>,
}

impl Pipeline {
    /// Starts everything.
    pub fn start(
        config: &Config,
        metrics: Arc<Metrics>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, PipelineError> {
        let config = Arc::new(config.clone());
        let (sources, keys) = (sources(&config)?, Arc::new(KeySource::default()));
        let requests = export::spawn(runtime, &config.exporter, Arc::clone(&metrics))?;
        let (kept, restored) = start_checkpoints(&config, &sources, &keys, &metrics)?;
        let publisher = kept.writer().map(Writer::publisher);
        let mut spool = start_spool(&config, kept.place(), &requests, &metrics)?;
        let descriptors = Descriptors::new(config.thyme.open_files_max, &metrics);
        let (tree, mut workers) = (tree(&config, &sources), Vec::new());
        for number in 0..config.thyme.workers {
            let (messages, inbox) = unbounded();
            let channels = WorkerChannels {
                messages: inbox,
                requests: requests.clone(),
                spool: spool.as_mut().and_then(|spool| spool.links.pop()),
                checkpoints: publisher.clone(),
                tree: tree.clone(),
                descriptors: descriptors.clone(),
            };
            let state = Arc::new(WorkerState::new(Instant::now()));
            let worker = Worker::new(
                WorkerConfig::new(&config),
                channels,
                Arc::clone(&keys),
                Arc::clone(&state),
                Arc::clone(&metrics),
                SystemClock::shared(),
                true,
            )?;
            let thread = spawn(format!("worker-{number}"), move || worker.run())?;
            workers.push(RunningWorker { handle: WorkerHandle { messages, state }, thread });
        }
        let (discovery, stopper) = Discovery::new(DiscoveryStart {
            sources,
            receiver_names: config.receiver_names(),
            descriptors,
            resume: restored.files,
            first_start: restored.first_start,
            scan_interval: config.thyme.scan_interval,
            workers: workers.iter().map(|worker| worker.handle.clone()).collect(),
            checkpoints: publisher,
            tree,
            clock: SystemClock::shared(),
            watches: true,
            metrics: Arc::clone(&metrics),
        });
        let heartbeat = discovery.heartbeat();
        let discovery_ended = Arc::new(AtomicBool::new(false));
        let mut ended = vec![("discovery", Arc::clone(&discovery_ended))];
        ended.extend(spool.as_ref().map(|spool| ("spool", Arc::clone(&spool.ended))));
        ended.extend(kept.writer().map(|writer| ("checkpoint", writer.ended())));
        let thread = spawn("discovery".to_owned(), move || {
            let _note = EndNote(discovery_ended);
            discovery.run();
        })?;
        Ok(Self {
            discovery: (stopper, thread),
            heartbeat,
            workers,
            spool: spool.map(|spool| (spool.messages, spool.thread)),
            kept,
            shutdown_timeout: config.thyme.shutdown_timeout,
            ended,
            metrics,
        })
    }

    /// A check that the pipeline makes progress: no thread has ended, discovery and every worker
    /// have given a sign of life, and while requests wait, attempts to send them end, well or badly. It stays valid
    /// after the pipeline has ended.
    pub fn health(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let states: Vec<Arc<WorkerState>> =
            self.workers.iter().map(|worker| Arc::clone(&worker.handle.state)).collect();
        let metrics = Arc::clone(&self.metrics);
        let ended = self.ended.clone();
        let discovery = Arc::clone(&self.heartbeat);
        move || {
            if let Some((name, _)) = ended.iter().find(|one| one.1.load(Ordering::Relaxed)) {
                return Err(format!("the {name} thread has ended"));
            }
            let age = discovery.age();
            if age > HEARTBEAT_AGE_MAX {
                return Err(format!("discovery has stood still for {} s", age.as_secs()));
            }
            let panicked = metrics.panicked_requests.get();
            if panicked > 0 {
                return Err(format!("the exporter fails on {panicked} requests by its own fault"));
            }
            for (number, state) in states.iter().enumerate() {
                if let Some(failure) = state.failure() {
                    return Err(format!("worker {number}: {failure}"));
                }
                let silence = export_silence(state, &metrics, monotonic_ms());
                if silence > EXPORT_SILENCE_MAX {
                    let seconds = silence.as_secs();
                    return Err(format!("no attempt to send has ended for {seconds} s"));
                }
                let age = state.beat_age();
                if age > HEARTBEAT_AGE_MAX {
                    return Err(format!("worker {number} has stood still for {} s", age.as_secs()));
                }
            }
            Ok(())
        }
    }

    /// Stops reading, sends what was read, waits for it to settle within `shutdown_timeout`, and
    /// writes the last checkpoint.
    pub fn stop(self) -> DrainReport {
        let (stopper, discovery) = self.discovery;
        drop(stopper);
        join(discovery, "discovery");
        if let Some((messages, _)) = &self.spool {
            // A spool that has ended by itself has said why.
            let _ended = messages.send(SpoolMessage::Stop(Instant::now() + self.shutdown_timeout));
        }
        for worker in &self.workers {
            // A worker that has ended by itself has said why.
            let _ended = worker.handle.messages.send(WorkerMessage::Stop);
        }
        let mut report = DrainReport::default();
        for worker in self.workers {
            if let Some(Err(error)) = join(worker.thread, "worker") {
                tracing::error!(%error, "a worker has failed");
            }
            report.unsettled_requests +=
                worker.handle.state.unsettled_requests.load(Ordering::Relaxed);
        }
        crate::failpoint::hit("workers_ended");
        if let Some((messages, thread)) = self.spool {
            drop(messages);
            join(thread, "spool");
        }
        crate::failpoint::hit("spool_ended");
        let metrics = &self.metrics;
        let queued = [&metrics.queued_batch, &metrics.queued_request];
        report.unsettled_records = queued.iter().map(|queued| queued.get().0).sum();
        report.open_lines = metrics.queued_partial.get().0;
        report.spooled_records = metrics.queued_spool.get().0;
        report.lost_bytes = metrics.lost(LossReason::Shutdown).get();
        if let Kept::Positions(_, checkpoints) = self.kept {
            checkpoints.finish();
        }
        report
    }
}

/// How long a worker has waited for settlements while no attempt to send has ended, good or bad.
fn export_silence(state: &WorkerState, metrics: &Metrics, now_ms: u64) -> Duration {
    let Some(since) = state.waits_since_ms() else { return Duration::ZERO };
    let since = since.max(metrics.last_attempt_ms.get());
    Duration::from_millis(now_ms.saturating_sub(since))
}

/// Notes the end of a thread, however it comes about.
pub(crate) struct EndNote(pub(crate) Arc<AtomicBool>);

impl Drop for EndNote {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The node's log files, with the links that the configuration allows.
fn tree(config: &Config, sources: &[Source]) -> Box<NodeLogs> {
    let rules = LinkRules::new(sources.to_vec(), config.thyme.link_roots.clone());
    Box::new(NodeLogs::following(Arc::new(rules)))
}

fn sources(config: &Config) -> Result<Vec<Source>, PipelineError> {
    let receivers = config.receivers.iter();
    receivers
        .map(|receiver| {
            Source::new(receiver)
                .map_err(|source| PipelineError::Pattern { receiver: receiver.id.clone(), source })
        })
        .collect()
}

/// The disk, and the number of this life of the agent.
type Place = (Arc<dyn StateDisk>, u64);

/// What is kept on disk.
enum Kept {
    Nothing,
    /// Positions, by the checkpoint thread.
    Positions(Place, Writer),
    /// Nothing any more; the directory is held for what an earlier start has left in its spool.
    Unused(State),
}

impl Kept {
    fn place(&self) -> Option<Place> {
        match self {
            Self::Nothing => None,
            Self::Positions(place, _) => Some(place.clone()),
            Self::Unused(state) => Some((state.disk(), state.life())),
        }
    }

    fn writer(&self) -> Option<&Writer> {
        match self {
            Self::Positions(_, writer) => Some(writer),
            Self::Nothing | Self::Unused(_) => None,
        }
    }
}

/// What is kept, and what was found there.
type Checkpoints = (Kept, Numbered);

/// Opens the state directory, if positions are kept, and numbers what it held.
fn start_checkpoints(
    config: &Config,
    sources: &[Source],
    keys: &KeySource,
    metrics: &Arc<Metrics>,
) -> Result<Checkpoints, PipelineError> {
    let now = SystemClock::shared().unix_nanos();
    // All receivers of a configuration have it, or none.
    let is_kept = config.receivers.iter().any(|receiver| receiver.storage);
    let Some(storage) = config.file_storage.as_ref().filter(|_| is_kept) else {
        let first_start = Some(FirstStart::now(now));
        let none = Numbered { first_start, files: Vec::new() };
        let unused = config.file_storage.as_ref().and_then(open_unused);
        return Ok((unused.map_or(Kept::Nothing, Kept::Unused), none));
    };
    let (state, Restored { is_first_start, files, .. }) =
        checkpoint::open(&storage.directory, storage.create_directory)
            .map_err(state_problem(config))?;
    let files = adopt(config, sources, files, keys);
    let resumed = files.iter().map(|(key, file)| (*key, Some(file.clone()))).collect();
    let (disk, life) = (state.disk(), state.life());
    let has_end = config.receivers.iter().any(|receiver| receiver.start_at == StartAt::End);
    let first_start = if has_end { FirstStart::recall(&*disk, is_first_start, now) } else { None };
    let sink = canonical_name(&config.exporter.id);
    let writer = Writer::spawn(state, &sink, resumed, SystemClock::shared(), Arc::clone(metrics))
        .map_err(state_problem(config))?;
    Ok((Kept::Positions((disk, life), writer), Numbered { first_start, files }))
}

/// What is wrong with the state directory, at the key that names it.
fn state_problem(config: &Config) -> impl Fn(CheckpointError) -> PipelineError {
    let id = config.file_storage.as_ref().map_or("file_storage", |storage| storage.id.as_str());
    let key = format!("extensions::{id}::directory");
    move |error| {
        let message = in_one_line(&error);
        PipelineError::State(Box::new(config.origin.problem(&key, message)))
    }
}

/// The state directory of an earlier start whose configuration kept something there, where the
/// present one keeps nothing: its spool may hold what nobody can read any more.
fn open_unused(storage: &FileStorageConfig) -> Option<State> {
    if !storage.directory.join(LOCK_NAME).exists() {
        return None;
    }
    match checkpoint::open(&storage.directory, false) {
        Ok((state, restored)) => {
            if !restored.files.is_empty() {
                tracing::warn!(
                    directory = ?storage.directory, files = restored.files.len(),
                    "no receiver has `storage` any more: the positions that were kept are not used"
                );
            }
            Some(state)
        }
        Err(error) => {
            tracing::warn!(%error, "the state of an earlier start can't be looked at");
            None
        }
    }
}

/// Gives what the state knows to those whom the configuration names.
pub(crate) fn adopt(
    config: &Config,
    sources: &[Source],
    files: Vec<FileCheckpoint>,
    keys: &KeySource,
) -> Vec<(FileKey, FileCheckpoint)> {
    let owners = Owners {
        receivers: &config.receiver_names(),
        includes: &|receiver, path| sources[receiver].includes(path),
        sink: &canonical_name(&config.exporter.id),
    };
    checkpoint::adopt(files, &owners, keys)
}

/// A spool that runs.
struct RunningSpool {
    messages: Sender<SpoolMessage>,
    links: Vec<SpoolLink>,
    thread: JoinHandle<()>,
    ended: Arc<AtomicBool>,
}

/// Starts the spool, where one is configured.
fn start_spool(
    config: &Config,
    place: Option<Place>,
    requests: &tokio::sync::mpsc::Sender<Request>,
    metrics: &Arc<Metrics>,
) -> Result<Option<RunningSpool>, PipelineError> {
    let is_kept = config.exporter.queue.storage.is_some();
    let Some((disk, life)) = place else { return Ok(None) };
    if !is_kept {
        if !spool::has_segments(&*disk).map_err(state_problem(config))? {
            return Ok(None);
        }
        tracing::warn!(
            exporter = config.exporter.id,
            "`sending_queue.storage` is not set any more, but the queue on disk holds requests: they \
             are sent, and nothing is added"
        );
    }
    let start = SpoolStart {
        disk,
        bytes_max: config.thyme.spool_bytes_max as u64,
        life,
        requests: requests.clone(),
        clock: SystemClock::shared(),
        metrics: Arc::clone(metrics),
    };
    let (spool, mut links) =
        Spool::open(start, config.thyme.workers).map_err(state_problem(config))?;
    let ended = Arc::new(AtomicBool::new(false));
    let messages = links[0].messages.clone();
    if !is_kept {
        // Workers without a link keep nothing there.
        links.clear();
    }
    let thread = spool.spawn(Arc::clone(&ended)).map_err(PipelineError::Thread)?;
    Ok(Some(RunningSpool { messages, links, thread, ended }))
}

/// What the state directory held, with the numbers that its files keep.
struct Numbered {
    first_start: Option<FirstStart>,
    files: Vec<(FileKey, FileCheckpoint)>,
}

fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, PipelineError> {
    std::thread::Builder::new().name(name).spawn(body).map_err(PipelineError::Thread)
}

fn join<T>(thread: JoinHandle<T>, name: &str) -> Option<T> {
    let result = thread.join();
    if result.is_err() {
        tracing::error!(thread = name, "a thread panicked");
    }
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: row 62 (D9): the wall clock is an hour behind, or ahead, of the last attempt to send;
    /// a worker waits.
    /// Guarantees: only time that has passed counts as silence, not what a clock was set by.
    #[test]
    fn a_step_of_the_wall_clock_is_no_silence() {
        const MINUTE_MS: u64 = 60_000;
        let (state, metrics) = (WorkerState::new(Instant::now()), Metrics::default());
        assert_eq!(
            export_silence(&state, &metrics, monotonic_ms() + 20 * MINUTE_MS),
            Duration::ZERO
        );
        state.set_waiting(true);
        for unix_ms in [0, u64::MAX] {
            metrics.last_attempt_unix_ms.set(unix_ms);
            let now = monotonic_ms();
            assert!(export_silence(&state, &metrics, now) < EXPORT_SILENCE_MAX);
            assert!(export_silence(&state, &metrics, now + 20 * MINUTE_MS) > EXPORT_SILENCE_MAX);
            metrics.last_attempt_ms.set(now + 19 * MINUTE_MS);
            let silence = export_silence(&state, &metrics, now + 20 * MINUTE_MS);
            assert_eq!(silence, Duration::from_secs(60));
            metrics.last_attempt_ms.set(0);
        }
    }
}
