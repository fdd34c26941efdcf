//! Puts a run together and sees it through: outputs, writer, rotation, admin endpoints, signals,
//! manifest and report. The only place where threads are started.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use opentelemetry_sdk::metrics::SdkMeterProvider;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::{router, until_ended};
use crate::churn::Churn;
use crate::corpus::pod_writers;
use crate::generate::{End, Generator, Outcome, Shared, Stop};
use crate::limits::{MANIFEST_INTERVAL, STOP_WAIT};
use crate::manifest::Manifest;
use crate::metrics::push::{self, PushError};
use crate::names::relative_paths;
use crate::options::{Plan, Pods, Target};
use crate::outputs::{CreateError, OutputMaker};
use crate::rotate::compress::{Compressor, Queue};
use crate::rotate::{Policy, RotatedLog, Rotator};
use crate::sink::{LiveFile, WriteError};

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A log file can't be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The admin address can't be had.
    #[error("admin address {address}: {source}")]
    Admin {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The manifest can't be written.
    #[error("manifest {path}: {source}")]
    Manifest {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Metrics can't be pushed as asked for.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A line can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The output takes no more, so the last lines are missing.
    #[error("the output doesn't take the last lines; they are missing")]
    Stuck,
    /// The writer panicked.
    #[error("the writer died")]
    Writer,
    /// The system refuses threads, signals or its stdout.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// What a run reports at its end.
#[derive(Clone, Debug, serde::Serialize)]
struct Report {
    end: End,
    run: u32,
    lines: u64,
    body_bytes: u64,
    elapsed_seconds: f64,
    rate_target_lines_per_second: u64,
    rate_achieved_lines_per_second: f64,
    late_lines_max: u64,
    write_errors: u64,
    rotations: u64,
    archives_compressed: u64,
    archives_removed: u64,
    rotation_errors: u64,
    rotation_error: Option<String>,
}

/// Runs a plan until its end. In directory mode the admin address, if there is one, and the final
/// report go to stdout, a line of JSON each; with lines on stdout nothing else ever does.
///
/// # Errors
/// What kept the run from writing every line and a manifest of them.
pub fn run(plan: Plan) -> Result<(), RunError> {
    // The runtime serves signals and the admin port on this thread; lines are another thread's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(control(plan))
}

async fn control(plan: Plan) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let manifest = Manifest::new(plan.run, writers(&plan.target)).with_paths(paths(&plan));
    let shared = Arc::new(Shared::new(manifest));
    let (writing, logs) = prepare(&plan, &shared)?;
    shared.metrics.rate.store(plan.rate, Ordering::Relaxed);
    let push = push::start(&shared.metrics)?;
    let (ended_sender, mut ended) = watch::channel(false);
    serve_admin(&plan, &shared, &ended).await?;
    store(&plan, &shared)?;
    let mut rotation = match &plan.target {
        Target::Pods(Pods { rotation: Some(policy), .. }) => {
            Some(Rotation::start(logs, *policy, &shared)?)
        }
        _ => None,
    };
    let writer = thread::Builder::new().name("writer".to_owned()).spawn(move || {
        let outcome = match writing {
            Writing::Steady(generator) => generator.run(),
            Writing::Churn(churn) => churn.run(),
        };
        ended_sender.send_replace(true);
        outcome
    })?;
    let written = write(&plan, &shared, &mut ended, &mut signals).await;
    let outcome = if written { Some(writer.join().map_err(|_| RunError::Writer)?) } else { None };
    if let Some(rotation) = &mut rotation {
        rotation.end_checks()?;
    }
    store(&plan, &shared)?;
    let failed = !matches!(&outcome, Some(Outcome { error: None, .. }));
    let stays = plan.linger || shared.stopped() == Some(Stop::Asked);
    if stays && !failed && shared.stopped() != Some(Stop::Signal) {
        signals.wait().await;
    }
    drop(rotation);
    finish_push(push).await;
    conclude(&plan, &shared, outcome)
}

/// Waits for the writer to end, storing the manifest meanwhile. False when it was told to stop and
/// could not, because nobody reads what it writes.
async fn write(
    plan: &Plan,
    shared: &Shared,
    ended: &mut watch::Receiver<bool>,
    signals: &mut Signals,
) -> bool {
    let mut ticks = interval(MANIFEST_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = until_ended(ended) => return true,
            () = signals.wait() => {
                shared.stop(Stop::Signal);
                // A second signal means now.
                return tokio::select! {
                    ended = timeout(STOP_WAIT, until_ended(ended)) => ended.is_ok(),
                    () = signals.wait() => false,
                };
            }
            _ = ticks.tick() => {
                // Tried again in a second; at the end a failure is an error.
                if store(plan, shared).is_err() {
                    continue;
                }
            }
        }
    }
}

/// Tells how the run ended.
fn conclude(plan: &Plan, shared: &Shared, outcome: Option<Outcome>) -> Result<(), RunError> {
    let end = outcome.as_ref().map_or(End::Error, |outcome| outcome.end);
    if matches!(plan.target, Target::Pods(_)) {
        print_line(&report(plan, shared, end))?;
    }
    match outcome {
        None => Err(RunError::Stuck),
        Some(Outcome { error: Some(error), .. }) => Err(error.into()),
        Some(_) => Ok(()),
    }
}

fn report(plan: &Plan, shared: &Shared, end: End) -> Report {
    let metrics = &shared.metrics;
    Report {
        end,
        run: plan.run,
        lines: metrics.lines.load(Ordering::Relaxed),
        body_bytes: metrics.body_bytes.load(Ordering::Relaxed),
        elapsed_seconds: metrics.elapsed().as_secs_f64(),
        rate_target_lines_per_second: plan.rate,
        rate_achieved_lines_per_second: metrics.rate_achieved(),
        late_lines_max: metrics.late_lines_max.load(Ordering::Relaxed),
        write_errors: metrics.write_errors.load(Ordering::Relaxed),
        rotations: metrics.rotations.load(Ordering::Relaxed),
        archives_compressed: metrics.archives_compressed.load(Ordering::Relaxed),
        archives_removed: metrics.archives_removed.load(Ordering::Relaxed),
        rotation_errors: metrics.rotation_errors.load(Ordering::Relaxed),
        rotation_error: metrics.rotation_error(),
    }
}

fn store(plan: &Plan, shared: &Shared) -> Result<(), RunError> {
    let Some(path) = &plan.manifest else { return Ok(()) };
    shared.manifest.store(path).map_err(|source| RunError::Manifest { path: path.clone(), source })
}

fn print_line(value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

/// Serves the admin endpoints if there is an address, and prints the address in directory mode.
async fn serve_admin(
    plan: &Plan,
    shared: &Arc<Shared>,
    ended: &watch::Receiver<bool>,
) -> Result<(), RunError> {
    let Some(address) = plan.admin else { return Ok(()) };
    let error = |source| RunError::Admin { address, source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    let router = router(Arc::clone(shared), ended.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    if matches!(plan.target, Target::Pods(_)) {
        print_line(&serde_json::json!({ "admin": bound.to_string() }))?;
    }
    Ok(())
}

/// Pushes the last numbers. Blocks, while the connection needs this thread: hence another one.
async fn finish_push(push: Option<SdkMeterProvider>) {
    if let Some(provider) = push {
        // Nothing is left to tell, and in stdout mode nowhere to tell it.
        let _shut_down = tokio::task::spawn_blocking(move || provider.shutdown()).await;
    }
}

fn writers(target: &Target) -> Vec<[u32; 2]> {
    match target {
        Target::Stdout { writer } => vec![[*writer; 2]],
        Target::Pods(pods) => (0..pods.count).map(pod_writers).collect(),
    }
}

/// The pods' log files as the manifest names them.
fn paths(plan: &Plan) -> Vec<String> {
    let Target::Pods(pods) = &plan.target else { return Vec::new() };
    relative_paths(&pods.namespace, plan.seed, pods.count)
}

/// What the writer's thread does.
enum Writing {
    /// Writes to outputs that are open from the beginning.
    Steady(Generator),
    /// Has pods come and go.
    Churn(Box<Churn>),
}

/// Prepares the writing; opens every output that is there from the beginning, before the first line
/// is written.
fn prepare(plan: &Plan, shared: &Arc<Shared>) -> Result<(Writing, Vec<RotatedLog>), RunError> {
    let maker = OutputMaker::new(plan);
    let (mut outputs, mut logs) = (Vec::new(), Vec::new());
    match &plan.target {
        Target::Stdout { writer } => outputs.push(maker.stdout(*writer)?),
        Target::Pods(pods) => {
            allow_open_files(pods.count)?;
            if let Some(lifetime) = pods.lifetime {
                let churn = Churn::new(maker, pods.clone(), lifetime, Arc::clone(shared));
                return Ok((Writing::Churn(Box::new(churn)), logs));
            }
            for index in 0..pods.count {
                let (output, log) = maker.pod(pods, index)?;
                outputs.push(output);
                logs.push(log);
            }
        }
    }
    Ok((Writing::Steady(Generator::new(outputs, plan.pace, Arc::clone(shared))), logs))
}

/// Raises the soft limit of open files where the pods need it.
fn allow_open_files(pods: u32) -> io::Result<()> {
    /// For everything but the pods' files.
    const OTHERS: u64 = 64;
    let needed = u64::from(pods) + OTHERS;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}

/// The threads that play the kubelet; they end when this is dropped.
struct Rotation {
    logs: Arc<[RotatedLog]>,
    /// Dropped to end the rotator.
    stop: Option<mpsc::Sender<()>>,
    rotator: Option<JoinHandle<()>>,
    queue: Arc<Queue>,
    compressor: Option<JoinHandle<()>>,
}

impl Rotation {
    fn start(logs: Vec<RotatedLog>, policy: Policy, shared: &Shared) -> io::Result<Self> {
        let logs: Arc<[RotatedLog]> = logs.into();
        let queue = Arc::new(Queue::new(logs.len()));
        let (stop, stopped) = mpsc::channel();
        let metrics = || Arc::clone(&shared.metrics);
        let compressor = Compressor::new(Arc::clone(&logs), Arc::clone(&queue), metrics());
        let rotator = Rotator::new(Arc::clone(&logs), policy, Arc::clone(&queue), metrics());
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        let mut rotation = Self { logs, stop: Some(stop), rotator: None, queue, compressor: None };
        rotation.compressor = Some(thread("compressor").spawn(move || compressor.run())?);
        rotation.rotator = Some(thread("rotator").spawn(move || rotator.run(&stopped))?);
        Ok(rotation)
    }

    /// Ends the rotation of logs that nobody writes any more, and makes the live files that it still
    /// waits for. Compression goes on.
    fn end_checks(&mut self) -> Result<(), RunError> {
        self.stop = None;
        join(self.rotator.take());
        let waiting = self.logs.iter().filter(|log| log.reopen.swap(false, Ordering::AcqRel));
        let mut made = waiting.map(|log| {
            LiveFile::create(&log.live, false)
                .map_err(|source| CreateError { path: log.live.clone(), source })
        });
        made.try_for_each(|created| Ok(created.map(drop)?))
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        self.stop = None;
        self.queue.close();
        join(self.rotator.take());
        join(self.compressor.take());
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    // A panic there has been reported, and lost no line.
    let _joined = thread.map(JoinHandle::join);
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
