//! One run: faults for a while, then calm, then the reckoning.

use std::{sync::Arc, time::Duration};

use super::{
    agent::Agent,
    chance::Chance,
    disk::SimulatedDisk,
    kubelet,
    plan::Plan,
    tree::Content,
    truth::{EXCUSES, Excuse, Piece},
    world::{Shared, World},
};
use crate::{
    export::simulated::message_of_kept,
    metrics::LossReason,
    spool::{
        read_cursor,
        segment::{self, Found},
    },
    world::StateDisk,
};

/// Turns after which a calm world must be quiet.
const CALM_TURNS_MAX: u32 = 20_000;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) lines: u64,
    /// Those that are missing with an excuse, by what it is.
    pub(super) excused: [u64; EXCUSES],
    /// Lines of runs in which the agent keeps what it has opened, and those of them that are missing because it
    /// ended.
    pub(super) kept: (u64, u64),
    pub(super) duplicates: u64,
    pub(super) lives: u64,
    /// A number that differs when anything went differently.
    pub(super) digest: u64,
}

struct Run {
    shared: Shared,
    agent: Option<Agent>,
}

/// Runs a seed; an error says which promise was broken.
pub(super) fn run(seed: u64) -> Result<Report, String> {
    let mut chance = Chance::new(seed);
    let plan = Plan::draw(&mut chance);
    let summary = plan.summary();
    run_plan(plan, chance).map_err(|error| format!("{error} ({summary})"))
}

/// Runs a plan.
pub(super) fn run_plan(plan: Plan, chance: Chance) -> Result<Report, String> {
    let turns = plan.turns;
    let mut run = Run { shared: Shared::new(plan, chance), agent: None };
    run.shared.lock().begin();
    for _ in 0..turns {
        run.turn();
        run.check()?;
    }
    run.calm_down()?;
    run.stop_and_start()?;
    Ok(run.report())
}

/// What an hour's outage held at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peak {
    /// Bytes of files in memory.
    pub(super) memory_bytes: i64,
    /// Bytes on disk.
    pub(super) spool_bytes: u64,
    /// Log bytes written meanwhile.
    pub(super) written_bytes: u64,
}

/// The sink is away for an hour, and comes back.
pub(super) fn run_outage(seed: u64) -> Result<(Report, Peak), String> {
    const HOUR_NANOS: u64 = 3_600_000_000_000;
    let mut chance = Chance::new(seed);
    let plan = Plan::outage(&mut chance);
    let mut run = Run { shared: Shared::new(plan, chance), agent: None };
    run.shared.lock().begin();
    run.start();
    let mut peak = Peak::default();
    while run.shared.lock().now < HOUR_NANOS {
        {
            let mut world = run.shared.lock();
            kubelet::act(&mut world);
            peak.written_bytes = world.kubelet.written_bytes;
        }
        run.calm_turn(Duration::from_millis(500))?;
        if let Some(agent) = &run.agent {
            let (memory_bytes, spool_bytes) = agent.held_bytes();
            peak.memory_bytes = peak.memory_bytes.max(memory_bytes);
            peak.spool_bytes = peak.spool_bytes.max(spool_bytes);
        }
    }
    run.calm_down()?;
    run.stop_and_start()?;
    let report = run.report();
    Ok((report, peak))
}

/// The spool is full in an outage, and deleted files hold what nobody has read; then the sink works, and
/// the agent is told to stop. Returns what those files held, and what of it is counted as lost.
pub(super) fn run_drain(seed: u64) -> Result<(u64, u64), String> {
    let mut chance = Chance::new(seed);
    let mut plan = Plan::outage(&mut chance);
    let thyme = &mut Arc::make_mut(&mut plan.config).thyme;
    (thyme.spool_bytes_max, thyme.shutdown_timeout) = (8_000, Duration::from_secs(60));
    let mut run = Run { shared: Shared::new(plan, chance), agent: None };
    run.shared.lock().begin();
    run.start();
    let metrics = run.agent.as_ref().map(|agent| Arc::clone(&agent.metrics)).unwrap_or_default();
    let is_ready = || metrics.spool_full.get() > 0 && metrics.deleted_open_bytes.get() > 10_000;
    for _ in 0..10_000 {
        if is_ready() {
            break;
        }
        kubelet::act(&mut run.shared.lock());
        run.calm_turn(Duration::from_millis(500))?;
    }
    let held = if is_ready() { metrics.deleted_open_bytes.get() } else { 0 };
    run.shared.lock().faults = false;
    if let Some(agent) = &mut run.agent {
        agent.stop();
    }
    while run.agent.is_some() {
        run.calm_turn(Duration::from_millis(100))?;
    }
    Ok((held, metrics.lost(LossReason::Shutdown).get()))
}

/// The agent is killed every 8 s beside a sink that needs longer for a request, until it has got
/// everything; an error says that it has not within so many lives.
pub(super) fn run_killed(seed: u64, lives_max: u32) -> Result<Report, String> {
    let mut chance = Chance::new(seed);
    let plan = Plan::slow_and_small(&mut chance);
    let mut run = Run { shared: Shared::new(plan, chance), agent: None };
    run.shared.lock().begin();
    for _ in 0..1_500 {
        kubelet::act(&mut run.shared.lock());
        run.shared.advance(Duration::from_millis(10));
    }
    for _ in 0..lives_max {
        run.start();
        for _ in 0..160 {
            run.calm_turn(Duration::from_millis(50))?;
        }
        if run.shared.lock().truth.missing().next().is_none() {
            return Ok(run.report());
        }
        run.end(false);
    }
    let world = run.shared.lock();
    let missing = world.truth.missing().count();
    Err(format!(
        "{missing} of {} lines are missing after {lives_max} lives",
        world.truth.lines.len()
    ))
}

/// Nothing goes wrong while containers write for so many turns.
pub(super) fn run_calmly(plan: Plan, chance: Chance, turns: u64) -> Result<Report, String> {
    let mut run = Run { shared: Shared::new(plan, chance), agent: None };
    run.shared.lock().begin();
    run.shared.lock().faults = false;
    run.start();
    for _ in 0..turns {
        kubelet::act(&mut run.shared.lock());
        run.calm_turn(Duration::from_millis(50))?;
    }
    run.calm_down()?;
    Ok(run.report())
}

impl World {
    fn begin(&mut self) {
        self.make_directory("/var/log");
        self.make_directory(super::plan::ROOT);
        self.disk.bytes_max = self.plan.disk_bytes_max;
        if self.plan.truncate_weight > 0 {
            // An open line may be older than the truncation that it outlives.
            self.truth.forget_order();
        }
    }

    /// How long the next turn takes.
    fn next_wait(&mut self) -> Duration {
        match self.chance.below(40) {
            0 => self.chance.milliseconds(1_000, 10_000),
            1..8 => self.chance.milliseconds(50, 500),
            _ => self.chance.milliseconds(0, 20),
        }
    }
}

impl Run {
    fn report(&self) -> Report {
        let world = self.shared.lock();
        let (lines, excused) = (world.truth.lines.len() as u64, world.truth.excused());
        let ended = excused[Excuse::EndedBefore as usize];
        Report {
            lines,
            excused,
            kept: if world.plan.keeps_what_is_open() { (lines, ended) } else { (0, 0) },
            duplicates: world.truth.duplicates,
            lives: world.generation.into(),
            digest: world.now ^ world.truth.records.rotate_left(32) ^ world.kubelet.written_bytes,
        }
    }

    fn one_in(&self, times: u64) -> bool {
        self.shared.lock().chance.one_in(times)
    }

    fn turn(&mut self) {
        {
            let mut world = self.shared.lock();
            let wait = world.next_wait();
            world.now += wait.as_nanos() as u64;
            for _ in 0..world.chance.below(3) {
                kubelet::act(&mut world);
            }
        }
        self.fate();
        let Some(agent) = &mut self.agent else { return };
        let [has_event, works, keeps, exports, checkpoints] = {
            let mut world = self.shared.lock();
            [4, 2, 3, 2, 4].map(|odds| world.chance.one_in(odds))
        };
        agent.scan(has_event);
        if works {
            agent.work();
        }
        if keeps {
            agent.keep();
        }
        if exports {
            agent.export();
        }
        if checkpoints {
            agent.checkpoint(false);
        }
        self.end_if_stopped();
    }

    fn end_if_stopped(&mut self) {
        if let Some(agent) = &mut self.agent
            && agent.has_ended()
        {
            agent.checkpoint(true);
            self.end(false);
        }
    }

    /// Starts the agent; where that fails, it stays down.
    fn start(&mut self) {
        {
            let mut world = self.shared.lock();
            let remount_odds = world.plan.remount_odds;
            world.tree.remounts += u64::from(world.chance.one_in(remount_odds));
            let odds = world.plan.spool_change_odds;
            if world.chance.one_in(odds) {
                let storage = &mut Arc::make_mut(&mut world.plan.config).exporter.queue.storage;
                *storage = storage.is_none().then(|| "file_storage".to_owned());
            }
        }
        match Agent::start(&self.shared) {
            Ok(agent) => self.agent = Some(agent),
            Err(error) => self.shared.lock().note(|| format!("the agent can't start: {error}")),
        }
    }

    /// Starts the agent, or ends it in one of its ways.
    fn fate(&mut self) {
        let plan = self.shared.lock().plan.clone();
        let Some(agent) = &mut self.agent else {
            let is_first = self.shared.lock().generation == 0;
            if is_first || self.one_in(3) {
                if !is_first && self.one_in(plan.absence_odds) {
                    kubelet::act_alone(&mut self.shared.lock());
                }
                self.start();
            }
            return;
        };
        if !agent.is_stopping() && self.shared.lock().chance.one_in(plan.stop_odds) {
            agent.stop();
        }
        if self.one_in(plan.kill_odds) {
            self.end(false);
        } else if self.one_in(plan.power_odds) {
            self.end(true);
        }
    }

    /// The agent's life is over.
    fn end(&mut self, power: bool) {
        let used_spool = self.agent.as_ref().is_some_and(Agent::used_spool);
        let (lost_files, lost_bytes) = self.agent.as_ref().map(Agent::lost).unwrap_or_default();
        let drained_at = self.agent.as_ref().filter(|agent| agent.has_ended());
        let drained_at = drained_at.and_then(|agent| agent.drained_at);
        self.agent = None;
        {
            let mut world = self.shared.lock();
            let most = world.files_that_may_be_lost() as u64;
            // With errors of log files, files are taken for gone that are there.
            if lost_files > most && world.plan.tree_fault_odds == 0 {
                let what = || format!("{lost_files} files are counted as lost, at most {most} are");
                world.truth.fail(what);
            }
            world.note(|| format!("the agent has ended, power lost: {power}"));
            if power {
                world.lose_power();
            }
            world.truth.life_ended(power, used_spool);
        }
        let (all, to_be_sent) = pieces_in_spool(&self.shared);
        let mut world = self.shared.lock();
        world.truth.spool_holds(&all, &to_be_sent);
        // With errors of log files the agent can't know what they hold; what the spool holds is not told
        // apart here, nor is what came after a truncation that nobody saw.
        let is_cut = world.plan.truncate_weight > 0;
        let is_known = world.plan.tree_fault_odds == 0 && !used_spool && !is_cut;
        if let Some(drained_at) = drained_at.filter(|_| is_known) {
            let least = world.lost_bytes(drained_at);
            if lost_bytes < least {
                let what = || {
                    format!(
                        "{lost_bytes} bytes are counted as lost, but {least} have come to nowhere"
                    )
                };
                world.truth.fail(what);
            }
        }
        world.agent_ended();
    }

    fn check(&self) -> Result<(), String> {
        let failure = self.shared.lock().truth.failure.clone();
        failure.map_or(Ok(()), Err)
    }

    /// All of the agent goes on for a moment.
    fn calm_turn(&mut self, wait: Duration) -> Result<(), String> {
        self.shared.advance(wait);
        if let Some(agent) = &mut self.agent {
            agent.scan(false);
            agent.work();
            agent.keep();
            agent.export();
            agent.checkpoint(false);
        }
        self.end_if_stopped();
        self.check()
    }

    /// Faults end, and the agent goes on until everything has arrived.
    fn calm_down(&mut self) -> Result<(), String> {
        {
            let mut world = self.shared.lock();
            world.faults = false;
            world.disk.bytes_max = None;
            kubelet::finish(&mut world);
        }
        while self.agent.as_ref().is_some_and(Agent::is_stopping) {
            self.calm_turn(Duration::from_millis(100))?;
        }
        if self.agent.is_none() {
            self.start();
        }
        for turn in 0..CALM_TURNS_MAX {
            self.calm_turn(Duration::from_millis(10 + u64::from(turn % 50) * 4))?;
            if turn % 20 == 0 && self.is_quiet() {
                return Ok(());
            }
        }
        let world = self.shared.lock();
        let missing: Vec<usize> = world.truth.missing().collect();
        let Some(first) = missing.first() else {
            return Err("it does not become quiet".to_owned());
        };
        let line = &world.truth.lines[*first];
        let has_it = |content: &&Content| content.lines.iter().any(|(_, line)| line == first);
        let content = world.tree.contents.iter().find(has_it);
        let place = content.map(|content| (content.names, content.opened_in));
        Err(format!(
            "{} lines are missing, the first is {first} of {}, written at {}: names and last life \
             of its file {place:?}, now in life {}; {}",
            missing.len(),
            world.kubelet.containers[line.container].identity,
            line.written_at,
            world.generation,
            self.agent.as_ref().map(Agent::summary).unwrap_or_default()
        ))
    }

    fn is_quiet(&self) -> bool {
        let is_idle = self.agent.as_ref().is_some_and(Agent::is_idle);
        if is_idle && let Some(agent) = &self.agent {
            self.shared.lock().check_books(&agent.metrics);
        }
        is_idle && self.shared.lock().truth.missing().next().is_none()
    }

    /// A clean stop and start: nothing may come once more.
    fn stop_and_start(&mut self) -> Result<(), String> {
        // Everything lingers, is closed and forgotten first.
        for _ in 0..100 {
            self.calm_turn(Duration::from_millis(100))?;
        }
        self.shared.lock().truth.is_calm = true;
        if let Some(agent) = &mut self.agent {
            agent.stop();
        }
        while self.agent.is_some() {
            self.calm_turn(Duration::from_millis(100))?;
        }
        self.start();
        for _ in 0..100 {
            self.calm_turn(Duration::from_millis(100))?;
        }
        Ok(())
    }
}

/// What the spool's segments hold: all of it, and what it would send after the next start.
fn pieces_in_spool(shared: &Shared) -> (Vec<Piece>, Vec<Piece>) {
    let faults = std::mem::take(&mut shared.lock().faults);
    let disk = SimulatedDisk(shared.clone());
    let (done, _) = read_cursor(&disk);
    let (mut all, mut to_be_sent) = (Vec::new(), Vec::new());
    for name in disk.names("spool").expect("no faults") {
        let file = disk.open(&format!("spool/{name}")).expect("no faults");
        let (length, mut at) = (file.length().expect("no faults"), 0);
        while name.ends_with(".segment") {
            match segment::look(&*file, at, length).expect("no faults") {
                Found::Record(header) => {
                    let body = segment::read_body(&*file, at, &header).expect("no faults");
                    if let Some(body) = body {
                        let bytes = header.uncompressed_bytes as usize;
                        let message = message_of_kept(body, header.compression, bytes);
                        let pieces = shared.lock().pieces_of(&message);
                        if done.skip(header.id) == header.id {
                            to_be_sent.extend(&pieces);
                        }
                        all.extend(pieces);
                    }
                    at += header.record_bytes();
                }
                Found::Nothing { end, .. } => at = end,
                Found::End => break,
            }
        }
    }
    shared.lock().faults = faults;
    (all, to_be_sent)
}
