//! What may happen in a run, drawn from its seed. Most runs leave most faults out: what two of them
//! do together shows only where others don't hide it.

use std::{sync::Arc, time::Duration};

use super::{chance::Chance, rotation::Naming};
use crate::config::{
    BatchConfig, Compression, Config, ContainerFormat, ExporterConfig, FilelogConfig, LineFormat,
    Origin, Protocol, QueueConfig, RetryConfig, StartAt, TelemetryConfig, ThymeConfig, TlsConfig,
};

/// Where the kubelet keeps logs.
pub(super) const ROOT: &str = "/var/log/pods";

/// A state of the sink that lasts for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Takes everything.
    Good,
    /// Says that it can't now, with or without saying when.
    Busy,
    /// Can't be reached.
    Unreachable,
    /// Refuses the credentials.
    Denied,
    /// Has faults.
    Faulty,
    /// Takes requests, but its answer is lost.
    Broken,
    /// Takes requests, but its answer comes too late.
    TimedOut,
    /// Takes its time.
    Slow,
    /// Says of everything that it is wrong, as a wrong address does.
    Refusing,
    /// Says of everything that it is too large.
    Narrow,
}

/// A sink that is slower the more it gets, also when everything else is calm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slowness {
    per_record: Duration,
    per_kilobyte: Duration,
}

impl Slowness {
    /// How long a request takes beside others.
    pub(super) fn of(&self, records: usize, bytes: usize, requests: usize) -> Duration {
        let records = self.per_record * records as u32;
        let bytes = self.per_kilobyte * (bytes as u32) / 1000;
        (records + bytes) * requests as u32
    }
}

const BAD_MOODS: [Mood; 9] = [
    Mood::Busy,
    Mood::Unreachable,
    Mood::Denied,
    Mood::Faulty,
    Mood::Broken,
    Mood::TimedOut,
    Mood::Slow,
    Mood::Refusing,
    Mood::Narrow,
];

/// What may happen in a run. Odds are "once in so many times"; 0 is never.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Turns before things calm down.
    pub(super) turns: u64,
    pub(super) pods_max: u64,
    /// Weights of what the kubelet and the containers do.
    pub(super) rotate_weight: u64,
    pub(super) pod_weight: u64,
    pub(super) restart_weight: u64,
    pub(super) truncate_weight: u64,
    /// Containers that write to the file that was rotated last, long after.
    pub(super) late_weight: u64,
    /// Directories that are replaced under their names.
    pub(super) replace_weight: u64,
    /// Directories and files that can't be read for a while.
    pub(super) deny_weight: u64,
    /// The kubelet's `containerLogMaxFiles`.
    pub(super) files_max: usize,
    pub(super) compresses: bool,
    pub(super) naming: Naming,
    /// Kinds of lines beside the usual.
    pub(super) partial_odds: u64,
    pub(super) malformed_odds: u64,
    pub(super) long_odds: u64,
    pub(super) unterminated_odds: u64,
    /// Faults of log files, of the disk, and races between the agent and everybody else.
    pub(super) tree_fault_odds: u64,
    pub(super) race_odds: u64,
    /// Whether the file system says when a file came to be.
    pub(super) knows_births: bool,
    pub(super) disk_fault_odds: u64,
    pub(super) disk_bytes_max: Option<u64>,
    /// Ends of the agent's lives.
    pub(super) kill_odds: u64,
    pub(super) power_odds: u64,
    pub(super) stop_odds: u64,
    /// A start whose configuration says otherwise than the one before whether there is a spool.
    pub(super) spool_change_odds: u64,
    /// A start that finds the log files on another device number.
    pub(super) remount_odds: u64,
    /// A start before which logs were rotated several times.
    pub(super) absence_odds: u64,
    /// States of the sink that come up.
    pub(super) moods: Vec<Mood>,
    /// Longest state, in milliseconds.
    pub(super) mood_ms_max: u64,
    /// How often the sink takes a request whatever its state is.
    pub(super) exception_odds: u64,
    /// Bytes of a file that are settled together. With one, each line is settled for itself, so that the
    /// truth knows what may come again.
    pub(super) span_bytes: u64,
    /// The sink takes no larger message.
    pub(super) sink_bytes_max: Option<usize>,
    /// How often a request is refused that is not wrong.
    pub(super) reject_odds: u64,
    /// One line in so many is never taken.
    pub(super) poison_odds: u64,
    pub(super) partial_success_odds: u64,
    pub(super) slowness: Option<Slowness>,
    pub(super) config: Arc<Config>,
}

impl Plan {
    /// What a failure is likely to have to do with.
    pub(super) fn summary(&self) -> String {
        let queue = &self.config.exporter.queue;
        format!(
            "spool: {}, open files: {}, errors of log files: {}, of the disk: {}, disk: {:?} bytes, \
             truncations: {}, replaced: {}, denied: {}, names: {:?}, births: {}, receivers: {}, ends: {}, \
             consumers: {}, queue: {}, slow: {}, moods: {:?}",
            queue.storage.is_some(),
            self.config.thyme.open_files_max,
            self.tree_fault_odds > 0,
            self.disk_fault_odds > 0,
            self.disk_bytes_max,
            self.truncate_weight > 0,
            self.replace_weight > 0,
            self.deny_weight > 0,
            self.naming,
            self.knows_births,
            self.config.receivers.len(),
            self.kill_odds + self.power_odds + self.stop_odds > 0,
            queue.num_consumers,
            queue.queue_size,
            self.slowness.is_some(),
            self.moods
        )
    }

    /// Whether what the agent has open is in the spool when it ends, as far as there is time: there is always
    /// one, with room, on a disk that works, and nobody kills the agent.
    pub(super) fn keeps_what_is_open(&self) -> bool {
        let is_ended = self.kill_odds + self.power_odds > 0;
        let has_spool = self.config.exporter.queue.storage.is_some() && self.spool_change_odds == 0;
        let has_room = self.disk_fault_odds == 0 && self.disk_bytes_max.is_none();
        has_spool && has_room && !is_ended
    }

    /// A slow sink takes only a small part of a request at once, and nothing else goes wrong: a request
    /// takes it longer than a life of the agent.
    pub(super) fn slow_and_small(chance: &mut Chance) -> Self {
        let mut plan = Self::outage(chance);
        let config = Arc::make_mut(&mut plan.config);
        config.batch.send_batch_size = 8192;
        config.batch.send_batch_max_size = 0;
        config.thyme.workers = 1;
        config.thyme.request_bytes_max = 40_000;
        config.thyme.in_flight_bytes_max = 100_000;
        config.exporter.queue.storage = None;
        config.exporter.queue.num_consumers = 2;
        config.exporter.timeout = Duration::from_secs(5);
        config.exporter.retry.initial_interval = Duration::from_millis(200);
        Self {
            pods_max: 1,
            rotate_weight: 0,
            long_odds: 0,
            moods: vec![Mood::Good],
            sink_bytes_max: Some(4_000),
            slowness: Some(Slowness {
                per_record: Duration::from_millis(50),
                per_kilobyte: Duration::ZERO,
            }),
            ..plan
        }
    }

    /// The sink can't be reached for an hour, and nothing else goes wrong: containers write and the
    /// kubelet rotates, compresses and deletes.
    pub(super) fn outage(chance: &mut Chance) -> Self {
        let mut plan = Self::draw(chance);
        let config = Arc::make_mut(&mut plan.config);
        config.thyme.request_bytes_max = 3_000;
        config.thyme.in_flight_bytes_max = 30_000;
        config.thyme.partial_bytes_max = 5_000;
        config.thyme.container_log_max_files = 5;
        config.thyme.open_files_max = 100_000;
        config.exporter.queue.storage = Some("file_storage".to_owned());
        Self {
            pods_max: 2,
            rotate_weight: 4,
            pod_weight: 0,
            restart_weight: 0,
            truncate_weight: 0,
            late_weight: 0,
            replace_weight: 0,
            deny_weight: 0,
            files_max: 5,
            compresses: true,
            naming: Naming::Kubelet,
            tree_fault_odds: 0,
            race_odds: 0,
            disk_fault_odds: 0,
            disk_bytes_max: None,
            kill_odds: 0,
            power_odds: 0,
            stop_odds: 0,
            spool_change_odds: 0,
            remount_odds: 0,
            absence_odds: 0,
            moods: vec![Mood::Unreachable],
            mood_ms_max: 1_000,
            exception_odds: 0,
            sink_bytes_max: None,
            reject_odds: 0,
            poison_odds: 0,
            partial_success_odds: 0,
            slowness: None,
            ..plan
        }
    }

    pub(super) fn draw(chance: &mut Chance) -> Self {
        let mut beside = chance.beside();
        let mut plan = Self::draw_first(chance);
        plan.draw_beside(&mut beside);
        plan
    }

    /// What was added to the simulation later, so that most runs are what they were before.
    fn draw_beside(&mut self, chance: &mut Chance) {
        self.slowness = chance.one_in(5).then(|| Slowness {
            per_record: chance.milliseconds(1, 40),
            per_kilobyte: chance.milliseconds(0, 20),
        });
        self.replace_weight = u64::from(chance.one_in(6));
        // What a kill finds unsettled is lost where its directory is gone, and tells little.
        if self.replace_weight > 0 && !chance.one_in(4) {
            (self.kill_odds, self.power_odds) = (0, 0);
        }
        self.deny_weight = u64::from(chance.one_in(6));
        let is_matched = chance.one_in(if is_forced("names") { 1 } else { 8 });
        self.naming = match chance.below(2) {
            _ if !is_matched => Naming::Kubelet,
            0 => Naming::Dated,
            _ => Naming::Numbered,
        };
        if self.naming.is_matched() {
            self.rotate_weight = 8;
            // What is counted as lost of chains in replaced directories is not understood yet.
            self.replace_weight = 0;
            // Without births, files that were found under archives' names and others are confused.
            self.knows_births = true;
            // The pattern of numbered files would match compressed ones, which are none to read.
            self.compresses = false;
            let pattern = format!("{ROOT}/*/*/{}", self.naming.pattern());
            Arc::make_mut(&mut self.config).receivers[0].include = vec![pattern];
        }
        let has_two = chance.one_in(if is_forced("receivers") { 1 } else { 8 });
        // Under which name a file was found first may differ between them, which the model can't tell.
        if has_two && !self.naming.is_matched() {
            let receivers = &mut Arc::make_mut(&mut self.config).receivers;
            let mut second = receivers[0].clone();
            (second.id, second.include_file_name) = ("filelog/second".to_owned(), true);
            receivers.push(second);
            // How far a file was read is known for one reader only.
            self.truncate_weight = 0;
        }
        if chance.one_in(if is_forced("absences") { 1 } else { 16 }) && !self.naming.is_matched() {
            // What a file held that was empty when the agent ended is seen where lines go on there.
            (self.absence_odds, self.kill_odds) = (2, 40);
            (self.rotate_weight, self.partial_odds) = (8, 4);
            (self.files_max, self.compresses) = (5, true);
            (self.truncate_weight, self.replace_weight, self.deny_weight) = (0, 0, 0);
            self.tree_fault_odds = 0;
            let thyme = &mut Arc::make_mut(&mut self.config).thyme;
            thyme.container_log_max_files = self.files_max;
            thyme.partial_bytes_max = 1 << 20;
        }
    }

    fn draw_first(chance: &mut Chance) -> Self {
        // Each fault is left out in about every other run.
        let mut odds = |usual: u64| if chance.one_in(2) { usual } else { 0 };
        let (rotate_weight, pod_weight, restart_weight) = (odds(8), odds(1), odds(1));
        let (partial_odds, malformed_odds, long_odds) = (odds(6), odds(20), odds(30));
        let (unterminated_odds, tree_fault_odds, race_odds) = (odds(40), odds(60), odds(20));
        let (disk_fault_odds, kill_odds, power_odds) = (odds(40), odds(80), odds(160));
        let (stop_odds, reject_odds, partial_success_odds) = (odds(120), odds(60), odds(40));
        let poison_odds = odds(40);
        let (truncate_weight, late_weight) = (chance.one_in(16).into(), chance.one_in(4).into());
        let disk_bytes_max = match chance.below(10) {
            0 => Some(chance.between(500, 20_000)),
            1 => Some(chance.between(17 << 20, 40 << 20)),
            _ => None,
        };
        let mut moods = vec![Mood::Good; chance.between(1, 4) as usize];
        moods.extend(BAD_MOODS.into_iter().filter(|_| chance.one_in(3)));
        let spool_change_odds = if chance.one_in(4) { 3 } else { 0 };
        let remount_odds = if chance.one_in(4) { 3 } else { 0 };
        let knows_births = !chance.one_in(4);
        let files_max = chance.between(2, 5) as usize;
        let config = draw_config(chance, files_max);
        let sink_bytes_max = chance.one_in(5).then(|| chance.between(300, 4_000) as usize);
        Self {
            turns: chance.between(100, 700),
            pods_max: chance.between(1, 4),
            rotate_weight,
            pod_weight,
            restart_weight,
            truncate_weight,
            late_weight,
            replace_weight: 0,
            deny_weight: 0,
            files_max,
            compresses: chance.one_in(2),
            naming: Naming::Kubelet,
            partial_odds,
            malformed_odds,
            long_odds,
            unterminated_odds,
            tree_fault_odds,
            race_odds,
            knows_births,
            disk_fault_odds,
            disk_bytes_max,
            kill_odds,
            power_odds,
            stop_odds,
            spool_change_odds,
            remount_odds,
            absence_odds: 0,
            moods,
            mood_ms_max: chance.pick(&[300, 3_000, 30_000, 180_000]),
            exception_odds: 5,
            span_bytes: 1,
            sink_bytes_max,
            reject_odds,
            poison_odds,
            partial_success_odds,
            slowness: None,
            config: Arc::new(config),
        }
    }
}

/// Whether somebody wants to see an action in every run.
fn is_forced(action: &str) -> bool {
    std::env::var_os("FORCE").is_some_and(|wanted| wanted == action)
}

fn draw_config(chance: &mut Chance, files_max: usize) -> Config {
    let format = chance.pick(&[ContainerFormat::Auto, ContainerFormat::Containerd]);
    let receiver = FilelogConfig {
        id: "filelog".to_owned(),
        include: vec![format!("{ROOT}/*/*/*.log")],
        exclude: Vec::new(),
        start_at: StartAt::Beginning,
        poll_interval: chance.milliseconds(10, 250),
        include_file_path: chance.one_in(2),
        include_file_name: false,
        max_log_size_bytes: chance.pick(&[120, 600, 4_000, 1 << 20]),
        storage: true,
        format: LineFormat::Container { format, add_metadata_from_filepath: true },
    };
    let batch = BatchConfig {
        send_batch_size: chance.pick(&[1, 7, 100, 8192]),
        send_batch_max_size: 0,
        timeout: chance.milliseconds(0, 200),
        ..BatchConfig::default()
    };
    let request_bytes_max = chance.pick(&[600, 3_000, 50_000]);
    let thyme = ThymeConfig {
        workers: chance.between(1, 2) as usize,
        request_bytes_max,
        in_flight_bytes_max: request_bytes_max * chance.between(2, 20) as usize,
        partial_bytes_max: chance.pick(&[500, 5_000, 1 << 20]),
        shutdown_timeout: chance.milliseconds(50, 20_000),
        scan_interval: chance.milliseconds(200, 5_000),
        spool_bytes_max: chance.pick(&[16 << 20, 64 << 20]),
        container_log_max_files: files_max,
        ..ThymeConfig::default()
    };
    Config {
        receivers: vec![receiver],
        batch,
        exporter: draw_exporter(chance),
        file_storage: None,
        health_check: None,
        thyme,
        telemetry: TelemetryConfig::default(),
        origin: Origin::default(),
    }
}

fn draw_exporter(chance: &mut Chance) -> ExporterConfig {
    let compression =
        chance.pick(&[Compression::None, Compression::None, Compression::Zstd, Compression::Gzip]);
    let retry = RetryConfig {
        initial_interval: chance.milliseconds(10, 5_000),
        max_interval: chance.milliseconds(5_000, 30_000),
        ..RetryConfig::default()
    };
    ExporterConfig {
        id: "otlp".to_owned(),
        protocol: Protocol::Grpc,
        endpoint: "sink:4317".to_owned(),
        compression,
        compression_level: 1,
        headers: Vec::new(),
        timeout: Duration::from_secs(5),
        auth: None,
        tls: TlsConfig { insecure: true, ..TlsConfig::default() },
        proxy: None,
        retry,
        queue: QueueConfig {
            num_consumers: chance.pick(&[1, 2, 10]),
            queue_size: chance.pick(&[1, 4, 1000]),
            storage: chance.one_in(2).then(|| "file_storage".to_owned()),
        },
    }
}
