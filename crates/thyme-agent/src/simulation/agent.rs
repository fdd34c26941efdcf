//! One life of the agent: production's stages, stepped by the run instead of threads.

use std::{
    sync::Arc,
    task::{Context, Waker},
};

use crossbeam_channel::{Sender, unbounded};

use super::{
    disk::SimulatedDisk, refusals::Refusals, sink::SimulatedNetwork, tree::SimulatedTree,
    world::Shared,
};
use crate::{
    checkpoint::{self, FileCheckpoint, FileKey, FirstStart, Publisher, Saved, State, Table},
    config::{Config, canonical_name},
    discover::{Discovery, DiscoveryStart, Source},
    export::simulated::{Consumer, exporter},
    metrics::{Count, Metrics},
    pipeline::adopt,
    spool::{self, Spool, SpoolLink, SpoolMessage, SpoolStart},
    tail::descriptors::Descriptors,
    worker::{
        self, KeySource, Worker, WorkerChannels, WorkerConfig, WorkerHandle, WorkerMessage,
        WorkerState,
    },
    world::{Clock, SharedClock, StateDisk},
};

/// The agent while it runs.
pub(super) struct Agent {
    shared: Shared,
    /// Gone once it stops.
    discovery: Option<(Discovery, Sender<()>)>,
    workers: Vec<Option<Worker>>,
    handles: Vec<WorkerHandle>,
    consumers: Vec<Consumer>,
    spool: Option<Spool>,
    /// What segments took on disk then: a loss of power brings back what was removed.
    spool_bytes_at_start: u64,
    spool_messages: Option<Sender<SpoolMessage>>,
    table: Table,
    /// When the first worker ended in order.
    pub(super) drained_at: Option<u64>,
    pub(super) metrics: Arc<Metrics>,
}

impl Agent {
    /// Starts with what the disk has; fails when it can't be read.
    pub(super) fn start(shared: &Shared) -> Result<Self, String> {
        let config = begin_life(shared);
        let clock: SharedClock = Arc::new(shared.clone());
        let metrics = Arc::new(Metrics::default());
        let network = Arc::new(SimulatedNetwork(shared.clone()));
        let (requests, consumers) = exporter(&network, &config.exporter, Arc::clone(&metrics));
        let disk: Arc<dyn StateDisk> = Arc::new(SimulatedDisk(shared.clone()));
        let life = u64::from(shared.lock().generation);
        let (state, restored) = checkpoint::open_on(Arc::clone(&disk), None, life)
            .map_err(|error| error.to_string())?;
        shared.lock().note(|| format!("the agent starts with {restored:?}"));
        let keys = Arc::new(KeySource::default());
        let sources = sources(&config);
        let resume = adopt(&config, &sources, restored.files, &keys);
        let (publisher, table) = new_table(&config, state, &resume, &clock, &metrics);
        let start = SpoolStart {
            disk,
            bytes_max: config.thyme.spool_bytes_max as u64,
            life,
            requests: requests.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
        };
        let (spool, mut links, spool_messages) = open_spool(&config, start)?;
        let descriptors = Descriptors::new(config.thyme.open_files_max, &metrics);
        let (mut workers, mut handles) = (Vec::new(), Vec::new());
        for _ in 0..config.thyme.workers {
            let (messages, inbox) = unbounded();
            let channels = WorkerChannels {
                messages: inbox,
                requests: requests.clone(),
                spool: links.as_mut().and_then(Vec::pop),
                checkpoints: Some(publisher.clone()),
                tree: Box::new(SimulatedTree(shared.clone())),
                descriptors: Arc::clone(&descriptors),
            };
            let state = Arc::new(WorkerState::new(Clock::now(shared)));
            workers.push(Some(new_worker(shared, channels, &keys, &state, &metrics)));
            handles.push(WorkerHandle { messages, state });
        }
        let discovery = Discovery::new(DiscoveryStart {
            sources,
            receiver_names: config.receiver_names(),
            descriptors,
            resume,
            first_start: restored.is_first_start.then(|| FirstStart::now(clock.unix_nanos())),
            scan_interval: config.thyme.scan_interval,
            workers: handles.clone(),
            checkpoints: Some(publisher),
            tree: Box::new(SimulatedTree(shared.clone())),
            clock,
            watches: false,
            metrics: Arc::clone(&metrics),
        });
        let agent = Self {
            shared: shared.clone(),
            discovery: Some(discovery),
            workers,
            handles,
            consumers,
            spool_messages,
            spool,
            spool_bytes_at_start: shared.lock().disk.spool_bytes(),
            table,
            drained_at: None,
            metrics,
        };
        Ok(agent.begun())
    }

    fn begun(mut self) -> Self {
        let mut world = self.shared.lock();
        (world.is_up, world.tree.is_stopping) = (true, false);
        drop(world);
        self.checkpoint_with(|table| table.write(true));
        self
    }

    /// A scan, when it is due or an event came.
    pub(super) fn scan(&mut self, has_event: bool) {
        let now = Clock::now(&self.shared);
        let Some((discovery, _)) = &mut self.discovery else { return };
        if has_event {
            self.shared.lock().scan_begins();
            discovery.scan(now);
        }
        // What waits for a descriptor has its turn here.
        discovery.turn(now);
        if has_event {
            let is_any_waiting = self.metrics.unopened_files.get() > 0;
            self.shared.lock().scan_ends(is_any_waiting);
        }
    }

    /// One step of every worker that chance has running.
    pub(super) fn work(&mut self) {
        // A settlement that comes after its worker has ended moves no checkpoint.
        let are_all_running = self.workers.iter().all(Option::is_some);
        for number in 0..self.workers.len() {
            let worker = &mut self.workers[number];
            if let Some(running) = worker
                && running.step().expect("the compressor works") == worker::Step::End
            {
                *worker = None;
                let now = self.shared.lock().now;
                self.drained_at.get_or_insert(now);
            }
            self.check_conservation();
        }
        let mut world = self.shared.lock();
        world.note(|| "the workers have had their turn".to_owned());
        if are_all_running {
            world.truth.published();
        }
    }

    /// One step of the spool.
    pub(super) fn keep(&mut self) {
        if let Some(spool) = &mut self.spool {
            if spool.step() == spool::Step::End {
                self.spool = None;
            }
            self.check_conservation();
            let mut world = self.shared.lock();
            let (taken, most) =
                (world.disk.spool_bytes(), world.plan.config.thyme.spool_bytes_max as u64);
            // A segment that could not be removed is there until the next start.
            if taken > most.max(self.spool_bytes_at_start) && world.disk.errors == 0 {
                world.truth.fail(|| format!("the spool takes {taken} bytes, at most {most}"));
            }
        }
    }

    /// Whether it has stopped.
    pub(super) fn has_ended(&self) -> bool {
        self.workers.iter().all(Option::is_none) && self.spool.is_none()
    }

    /// Lets the consumers go on as far as they can.
    pub(super) fn export(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        self.consumers.retain_mut(|consumer| consumer.as_mut().poll(&mut context).is_pending());
        if self.metrics.panicked_requests.get() > 0 {
            // Production keeps its request and goes on; here nothing is to panic.
            self.shared.lock().truth.fail(|| "the code that sends a request panicked".to_owned());
        }
    }

    /// The checkpoint thread's turn, perhaps its last.
    pub(super) fn checkpoint(&mut self, is_end: bool) {
        self.checkpoint_with(|table| table.turn(is_end));
    }

    fn checkpoint_with(&mut self, turn: impl FnOnce(&mut Table) -> Saved) {
        match turn(&mut self.table) {
            Saved::No => {}
            saved => self.shared.lock().truth.saved(saved == Saved::Synced),
        }
    }

    /// Whether requests went through the spool, which sends what it has not forgotten once more.
    pub(super) fn used_spool(&self) -> bool {
        let metrics = &self.metrics;
        let counts = [&metrics.spool_kept_requests, &metrics.spool_secured_requests];
        counts.iter().any(|count| count.get() > 0) || metrics.recovered.get() != (0, 0)
    }

    /// SIGTERM.
    pub(super) fn stop(&mut self) {
        if self.discovery.take().is_none() {
            return;
        }
        let mut world = self.shared.lock();
        world.tree.is_stopping = true;
        let timeout = world.plan.config.thyme.shutdown_timeout;
        drop(world);
        if let Some(messages) = self.spool_messages.take() {
            messages.send(SpoolMessage::Stop(Clock::now(&self.shared) + timeout)).ok();
        }
        for handle in &self.handles {
            handle.messages.send(WorkerMessage::Stop).ok();
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.discovery.is_none()
    }

    /// Files that it counted as lost, and their bytes.
    pub(super) fn lost(&self) -> (u64, u64) {
        let bytes = self.metrics.lost_bytes.iter().map(Count::get).sum();
        (self.metrics.lost_files.get(), bytes)
    }

    /// Bytes of files that are in memory, and bytes of the spool on disk.
    pub(super) fn held_bytes(&self) -> (i64, u64) {
        let metrics = &self.metrics;
        let held = [&metrics.queued_partial, &metrics.queued_batch, &metrics.queued_request];
        (held.iter().map(|queued| queued.get().1).sum(), metrics.spool_bytes.get())
    }

    /// Where things are.
    pub(super) fn summary(&self) -> String {
        let metrics = &self.metrics;
        format!(
            "open lines {:?}, batches {:?}, requests {:?}, spool {:?} in {} requests and {} bytes, \
             full {}",
            metrics.queued_partial.get(),
            metrics.queued_batch.get(),
            metrics.queued_request.get(),
            metrics.queued_spool.get(),
            metrics.spool_requests.get(),
            metrics.spool_bytes.get(),
            metrics.spool_full.get()
        )
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        let metrics = &self.metrics;
        let queued = [
            &metrics.queued_partial,
            &metrics.queued_batch,
            &metrics.queued_request,
            &metrics.queued_spool,
        ];
        queued.iter().all(|queued| queued.get() == (0, 0))
    }

    /// Everything that was read is somewhere.
    fn check_conservation(&self) {
        let metrics = &self.metrics;
        let places = [
            &metrics.acknowledged,
            &metrics.queued_partial,
            &metrics.queued_batch,
            &metrics.queued_request,
            &metrics.queued_spool,
            &metrics.dead_lettered,
        ];
        let mut sum = (0, 0);
        for place in places.into_iter().chain(&metrics.dropped) {
            let (records, bytes) = place.get();
            sum = (sum.0 + records, sum.1 + bytes);
        }
        let (read, recovered) = (metrics.read.get(), metrics.recovered.get());
        let read = (read.0 + recovered.0, read.1 + recovered.1);
        if read != sum {
            let what = || format!("read {read:?} records and bytes, but {sum:?} are somewhere");
            self.shared.lock().truth.fail(what);
        }
    }
}

fn sources(config: &Config) -> Vec<Source> {
    config.receivers.iter().map(|one| Source::new(one).expect("a pattern")).collect()
}

/// The spool, what workers reach it by where it takes their requests, and what tells it to stop.
type OpenSpool = (Option<Spool>, Option<Vec<SpoolLink>>, Option<Sender<SpoolMessage>>);

fn open_spool(config: &Config, start: SpoolStart) -> Result<OpenSpool, String> {
    let is_kept = config.exporter.queue.storage.is_some();
    let has_segments = || spool::has_segments(&*start.disk).map_err(|error| error.to_string());
    if !is_kept && !has_segments()? {
        return Ok((None, None, None));
    }
    let (spool, links) =
        Spool::open(start, config.thyme.workers).map_err(|error| error.to_string())?;
    let messages = links[0].messages.clone();
    Ok((Some(spool), is_kept.then_some(links), Some(messages)))
}

fn new_table(
    config: &Config,
    state: State,
    resume: &[(FileKey, FileCheckpoint)],
    clock: &SharedClock,
    metrics: &Arc<Metrics>,
) -> (Publisher, Table) {
    let sink = canonical_name(&config.exporter.id);
    let resumed = resume.iter().map(|(key, file)| (*key, Some(file.clone()))).collect();
    let (publisher, _, table) =
        Table::new(state, &sink, resumed, Arc::clone(clock), Arc::clone(metrics));
    (publisher, table)
}

/// Begins another life; returns what it is configured as.
fn begin_life(shared: &Shared) -> Arc<Config> {
    let mut world = shared.lock();
    world.generation += 1;
    world.sink.refusals = Refusals::default();
    Arc::clone(&world.plan.config)
}

fn new_worker(
    shared: &Shared,
    channels: WorkerChannels,
    keys: &Arc<KeySource>,
    state: &Arc<WorkerState>,
    metrics: &Arc<Metrics>,
) -> Worker {
    let config = {
        let plan = &shared.lock().plan;
        WorkerConfig { span_bytes: plan.span_bytes, ..WorkerConfig::new(&plan.config) }
    };
    let clock = Arc::new(shared.clone());
    let (keys, state, metrics) = (Arc::clone(keys), Arc::clone(state), Arc::clone(metrics));
    Worker::new(config, channels, keys, state, metrics, clock, false)
        .expect("the compressor has memory")
}
