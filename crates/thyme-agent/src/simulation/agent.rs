//! One life of the agent: production's stages, stepped by the run instead of threads.

use std::{
    sync::Arc,
    task::{Context, Waker},
    time::Instant,
};

use crossbeam_channel::{Sender, unbounded};

use super::{
    sink::SimulatedNetwork,
    tree::SimulatedTree,
    world::Shared,
};
use crate::{
    checkpoint::{FileCheckpoint, FileKey, Publisher},
    discover::{Discovery, DiscoveryStart, Source},
    export::simulated::{Consumer, exporter},
    metrics::Metrics,
    worker::{
        KeySource, Step, Worker, WorkerChannels, WorkerConfig, WorkerHandle, WorkerMessage,
        WorkerState,
    },
    world::{Clock, SharedClock},
};

/// The agent while it runs.
pub(super) struct Agent {
    shared: Shared,
    /// Gone once it stops.
    discovery: Option<(Discovery, Sender<()>)>,
    next_scan: Instant,
    workers: Vec<Option<Worker>>,
    handles: Vec<WorkerHandle>,
    consumers: Vec<Consumer>,
    checkpoints: Checkpoints,
    pub(super) metrics: Arc<Metrics>,
}

/// What the checkpoint thread does.
struct Checkpoints {
    publisher: Publisher,
    files: std::collections::BTreeMap<FileKey, FileCheckpoint>,
}

impl Agent {
    /// Starts with what the disk has.
    pub(super) fn start(shared: &Shared) -> Self {
        let (config, restored) = {
            let mut world = shared.lock();
            world.generation += 1;
            world.is_up = true;
            world.note(|| format!("the agent starts with {:?}", world.checkpoints));
            (Arc::clone(&world.plan.config), world.checkpoints.clone())
        };
        let clock: SharedClock = Arc::new(shared.clone());
        let metrics = Arc::new(Metrics::default());
        let network = Arc::new(SimulatedNetwork(shared.clone()));
        let (requests, consumers) = exporter(&network, &config.exporter, Arc::clone(&metrics));
        let keys = Arc::new(KeySource::default());
        let is_first_start = restored.is_none();
        let resume: Vec<_> =
            restored.unwrap_or_default().into_iter().map(|file| (keys.next(), file)).collect();
        let checkpoints = Checkpoints {
            publisher: Publisher::detached(),
            files: resume.iter().cloned().collect(),
        };
        let mut workers = Vec::new();
        let mut handles = Vec::new();
        for _ in 0..config.thyme.workers {
            let (messages, inbox) = unbounded();
            let channels = WorkerChannels {
                messages: inbox,
                requests: requests.clone(),
                checkpoints: Some(checkpoints.publisher.clone()),
            };
            let state = Arc::new(WorkerState::new(Clock::now(shared)));
            let worker = Worker::new(
                WorkerConfig::new(&config),
                channels,
                Arc::clone(&keys),
                Arc::clone(&state),
                Arc::clone(&metrics),
                Arc::clone(&clock),
                false,
            );
            workers.push(Some(worker.expect("the compressor has memory")));
            handles.push(WorkerHandle { messages, state });
        }
        let discovery = Discovery::new(DiscoveryStart {
            sources: vec![Source::new(&config.receivers[0]).expect("a pattern")],
            open_files_max: config.thyme.open_files_max as u64,
            resume,
            is_first_start,
            scan_interval: config.thyme.scan_interval,
            workers: handles.clone(),
            checkpoints: Some(checkpoints.publisher.clone()),
            tree: Box::new(SimulatedTree(shared.clone())),
            clock,
            watches: false,
            metrics: Arc::clone(&metrics),
        });
        Self {
            shared: shared.clone(),
            discovery: Some(discovery),
            next_scan: Clock::now(shared),
            workers,
            handles,
            consumers,
            checkpoints,
            metrics,
        }
    }

    /// A scan, when it is due or an event came.
    pub(super) fn scan(&mut self, has_event: bool) {
        let now = Clock::now(&self.shared);
        if let Some((discovery, _)) = &mut self.discovery
            && (has_event || now >= self.next_scan)
        {
            self.next_scan = discovery.scan(now);
        }
    }

    /// One step of every worker; `true` when all have ended.
    pub(super) fn work(&mut self) -> bool {
        for number in 0..self.workers.len() {
            let worker = &mut self.workers[number];
            if let Some(running) = worker
                && running.step().expect("the compressor works") == Step::End
            {
                *worker = None;
            }
            self.check_conservation();
        }
        self.shared.lock().truth.published();
        self.workers.iter().all(Option::is_none)
    }

    /// Lets the consumers go on as far as they can.
    pub(super) fn export(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        self.consumers.retain_mut(|consumer| consumer.as_mut().poll(&mut context).is_pending());
    }

    /// The checkpoint thread's turn.
    pub(super) fn checkpoint(&mut self) {
        for (key, change) in self.checkpoints.publisher.take() {
            match change {
                Some(file) => self.checkpoints.files.insert(key, file),
                None => self.checkpoints.files.remove(&key),
            };
        }
        let mut world = self.shared.lock();
        world.checkpoints = Some(self.checkpoints.files.values().cloned().collect());
        world.truth.saved(false);
    }

    /// SIGTERM.
    pub(super) fn stop(&mut self) {
        if self.discovery.take().is_some() {
            for handle in &self.handles {
                handle.messages.send(WorkerMessage::Stop).ok();
            }
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.discovery.is_none()
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        let metrics = &self.metrics;
        [&metrics.queued_partial, &metrics.queued_batch, &metrics.queued_request]
            .iter()
            .all(|queued| queued.get() == (0, 0))
    }

    /// Everything that was read is somewhere.
    fn check_conservation(&self) {
        let metrics = &self.metrics;
        let places = [
            &metrics.acknowledged,
            &metrics.queued_partial,
            &metrics.queued_batch,
            &metrics.queued_request,
            &metrics.dead_lettered,
        ];
        let mut sum = (0, 0);
        for place in places.into_iter().chain(&metrics.dropped) {
            let (records, bytes) = place.get();
            sum = (sum.0 + records, sum.1 + bytes);
        }
        let read = metrics.read.get();
        if read != sum {
            let what = || format!("read {read:?} records and bytes, but {sum:?} are somewhere");
            self.shared.lock().truth.fail(what);
        }
    }
}
