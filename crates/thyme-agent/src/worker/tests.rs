//! A worker with its discovery on real files and a clock of the test's own, stepped on one thread: what
//! hangs on the order of things is no matter of time here.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value,
};
use prost::Message;

use super::*;
use crate::{
    ahead::Ahead,
    checkpoint::{FileCheckpoint, FileKey},
    discover::{Discovery, DiscoveryStart, Source},
    limits::{CHARACTER_WAIT, IDLE_AFTER, IDLE_CHECK_INTERVAL, LATE_LOOK_INTERVAL, LINGER_TIME},
    metrics::LossReason,
    queue::{Rest, SetAside, Settled},
    world::{
        Clock, DirectoryState, Entry, FileState, HashMap, LogFile, LogTree, Looked, Opened,
        real::NodeLogs,
    },
};

mod archived;
mod held_up;
mod reused;
mod unseen;

/// How far the clock goes on from one step to the next.
const STEP: Duration = Duration::from_millis(10);

/// One receiver of a directory's logs.
fn config_of(directory: &Path, operators: &str) -> Arc<Config> {
    let yaml = format!(
        "receivers: {{file_log: {{include: ['{}/*.log'], start_at: beginning, \
         operators: {operators}}}}}\n\
         processors: {{batch: {{timeout: 20ms}}}}\n\
         exporters: {{otlp: {{endpoint: 'a:1', compression: none}}}}\n\
         service: {{pipelines: {{logs: {{receivers: [file_log], processors: [batch], \
         exporters: [otlp]}}}}}}\n",
        directory.display()
    );
    Arc::new(Config::parse(&yaml, "test.yaml").unwrap())
}

/// A tree in which a file may have the number of one that is gone, and none a birth, whatever the file system does.
#[derive(Clone, Default)]
struct Numbers(Arc<std::sync::Mutex<HashMap<u64, u64>>>, Arc<AtomicBool>);

/// A file of a file system that keeps no births.
#[derive(Debug)]
struct Birthless(Box<dyn LogFile>);

impl LogFile for Birthless {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn state(&self) -> io::Result<FileState> {
        self.0.state()
    }
}

impl Numbers {
    fn of(&self, inode: u64) -> u64 {
        *self.0.lock().unwrap().get(&inode).unwrap_or(&inode)
    }

    fn has_births(&self) -> bool {
        !self.1.load(Ordering::Relaxed)
    }
}

impl LogTree for Numbers {
    fn directory(&mut self, path: &Path) -> io::Result<DirectoryState> {
        NodeLogs::default().directory(path)
    }

    fn entries(&mut self, path: &Path) -> io::Result<Vec<Entry>> {
        let entries = NodeLogs::default().entries(path)?.into_iter();
        Ok(entries.map(|entry| Entry { inode: self.of(entry.inode), ..entry }).collect())
    }

    fn open(&mut self, root: &Path, relative: &Path) -> io::Result<Option<Opened>> {
        let opened = NodeLogs::default().open(root, relative)?;
        Ok(opened.map(|mut opened| {
            opened.inode.inode = self.of(opened.inode.inode);
            if !self.has_births() {
                opened.file = Box::new(Birthless(opened.file));
            }
            opened
        }))
    }

    fn look_at(&mut self, path: &Path) -> io::Result<Looked> {
        let mut looked = NodeLogs::default().look_at(path)?;
        looked.inode.inode = self.of(looked.inode.inode);
        looked.born_unix_nanos = looked.born_unix_nanos.filter(|_| self.has_births());
        Ok(looked)
    }
}

/// A directory of logs, and the agent as far as it reads them.
struct Scene {
    directory: tempfile::TempDir,
    numbers: Numbers,
    clock: Ahead,
    discovery: Discovery,
    _stopper: Sender<()>,
    messages: Sender<WorkerMessage>,
    worker: Worker,
    requests: tokio::sync::mpsc::Receiver<Request>,
    /// Whether requests are settled.
    settles: bool,
    /// Requests that wait for that.
    unsettled: Vec<Request>,
    /// Bodies of the records that came.
    bodies: Vec<String>,
    descriptors: Arc<Descriptors>,
    /// How many of them somebody else wants.
    wanted: u64,
    /// Files that somebody else has open.
    held: Vec<Opened>,
    metrics: Arc<Metrics>,
}

impl Scene {
    /// An agent that may have so many files open and has looked at a directory with these files once.
    fn new(open_files_max: usize, files: &[(&str, &str)]) -> Self {
        Self::resumed(open_files_max, files, |_| Vec::new())
    }

    /// One that also has checkpoints of this directory.
    fn resumed(
        open_files_max: usize,
        files: &[(&str, &str)],
        resume: impl FnOnce(&Path) -> Vec<(FileKey, FileCheckpoint)>,
    ) -> Self {
        Self::configured("[]", open_files_max, files, resume)
    }

    /// The same, whose receiver has these operators.
    fn configured(
        operators: &str,
        open_files_max: usize,
        files: &[(&str, &str)],
        resume: impl FnOnce(&Path) -> Vec<(FileKey, FileCheckpoint)>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let config = config_of(directory.path(), operators);
        let (metrics, clock) = (Arc::new(Metrics::default()), Ahead::default());
        let descriptors = Descriptors::new(open_files_max, &metrics);
        let numbers = Numbers::default();
        let (messages, inbox) = unbounded();
        let (sender, requests) = tokio::sync::mpsc::channel(1_000);
        let channels = WorkerChannels {
            messages: inbox,
            requests: sender,
            spool: None,
            checkpoints: None,
            tree: Box::new(numbers.clone()),
            descriptors: Arc::clone(&descriptors),
        };
        let state = Arc::new(WorkerState::new(Instant::now()));
        let worker = Worker::new(
            WorkerConfig::new(&config),
            channels,
            Arc::new(KeySource::default()),
            Arc::clone(&state),
            Arc::clone(&metrics),
            Arc::new(clock.clone()),
            false,
        );
        let (discovery, stopper) = Discovery::new(DiscoveryStart {
            sources: vec![Source::new(&config.receivers[0]).unwrap()],
            receiver_names: config.receiver_names(),
            descriptors: Arc::clone(&descriptors),
            resume: resume(directory.path()),
            first_start: None,
            scan_interval: Duration::from_secs(1),
            workers: vec![WorkerHandle { messages: messages.clone(), state }],
            checkpoints: None,
            tree: Box::new(numbers.clone()),
            clock: Arc::new(clock.clone()),
            watches: false,
            metrics: Arc::clone(&metrics),
        });
        let mut scene = Self {
            directory,
            numbers,
            clock,
            discovery,
            _stopper: stopper,
            messages,
            worker: worker.unwrap(),
            requests,
            settles: true,
            unsettled: Vec::new(),
            bodies: Vec::new(),
            descriptors,
            wanted: 0,
            held: Vec::new(),
            metrics,
        };
        scene.discovery.turn(scene.clock.now());
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.at(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    /// Compresses a file as the kubelet does.
    fn compress(&self, name: &str) {
        let text = fs::read(self.at(name)).unwrap();
        let mut archive = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        archive.write_all(&text).unwrap();
        fs::write(self.at("archive.tmp"), archive.finish().unwrap()).unwrap();
        self.rename("archive.tmp", &format!("{name}.gz"));
        self.remove(name);
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.at(name)).unwrap();
    }

    /// Takes all descriptors that nobody has.
    fn hold_descriptors(&mut self) {
        fs::write(self.at("held"), "").unwrap();
        let root = self.directory.path();
        let mut tree = NodeLogs::default();
        while let Ok(opened) = self.descriptors.open(&mut tree, root, Path::new("held")) {
            self.held.extend(opened);
        }
    }

    /// One step of everything; what the worker does next.
    fn step(&mut self) -> Step {
        self.clock.advance(STEP);
        self.discovery.turn(self.clock.now());
        self.descriptors.want(self.wanted);
        let step = self.worker.step().unwrap();
        while let Ok(request) = self.requests.try_recv() {
            self.bodies.extend(bodies(&request));
            self.unsettled.push(request);
        }
        for request in self.unsettled.extract_if(.., |_| self.settles) {
            let reply = request.reply.clone();
            let acknowledged_records = request.records;
            let settled = Settled {
                request,
                acknowledged_records,
                dead_lettered_records: 0,
                dropped: Vec::new(),
            };
            reply.send(Settlement::Ended(settled)).unwrap();
        }
        step
    }

    /// So much time passes.
    fn pass(&mut self, time: Duration) {
        let end = self.clock.by() + time;
        while self.clock.by() < end {
            self.step();
        }
    }

    /// Lets time pass until something holds.
    fn until(&mut self, expected: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = self.clock.by() + 2 * IDLE_CHECK_INTERVAL.max(LATE_LOOK_INTERVAL);
        while !holds(self) {
            assert!(self.clock.by() < end, "never came true: {expected}");
            self.step();
        }
    }

    /// The agent is told to stop, and has done so.
    fn stop(&mut self) {
        self.messages.send(WorkerMessage::Stop).unwrap();
        while self.worker.step().unwrap() != Step::End {
            self.clock.advance(STEP);
        }
    }

    fn file(&self, name: &str) -> Option<&TailedFile> {
        let mut files = self.worker.files.values();
        files.find(|file| *file.name == *name).map(|file| &**file)
    }

    /// A live file of two lines that was read, and gave its descriptor up.
    fn with_parked(open_files_max: usize) -> Self {
        let mut scene = Self::new(open_files_max, &[("0.log", "one\ntwo\n")]);
        scene.until("it is read", |scene| scene.bodies.len() == 2);
        scene.park("0.log");
        scene
    }

    /// A file has been read, and gives its descriptor up.
    fn park(&mut self, name: &str) {
        self.wanted = 1;
        self.until("it is parked", |scene| scene.is_parked(name));
        self.wanted = 0;
    }

    /// Whether a file is parked.
    fn is_parked(&self, name: &str) -> bool {
        self.file(name).is_some_and(|file| file.is_parked)
    }

    /// Whether a file was read to its end and closed, and the other one is read.
    fn is_closed(&self, name: &str) -> bool {
        self.bodies.len() == 2 && self.file(name).is_some_and(|file| file.source.is_none())
    }

    /// Files and bytes that count as lost because they could not be opened.
    fn not_opened(&self) -> (u64, u64) {
        (self.metrics.lost_files.get(), self.metrics.lost(LossReason::NotOpened).get())
    }
}

fn bodies(request: &Request) -> Vec<String> {
    let message = ExportLogsServiceRequest::decode(&*request.body.concat()).unwrap();
    let scopes = message.resource_logs.into_iter().flat_map(|logs| logs.scope_logs);
    let records = scopes.flat_map(|scope| scope.log_records);
    let texts = records.map(|record| match record.body.unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => text,
        any_value::Value::BytesValue(bytes) => format!("{bytes:?}"),
        other => panic!("{other:?}"),
    });
    texts.collect()
}

/// Scenario: row 39. A live file was read and parked while others wait for descriptors. It grows, so that it
/// is asked for again in vain; it is rotated, compressed, and removed.
/// Guarantees: what was written to it and not read counts as lost, though the archive's own length says
/// nothing of it.
#[test]
fn a_parked_file_that_is_compressed_and_removed_counts_with_what_was_unread() {
    let mut scene = Scene::with_parked(4);
    scene.hold_descriptors();
    let unread = "three\n".repeat(200);
    scene.append("0.log", &unread);
    let grown = 8 + unread.len() as u64;
    scene.until("it is seen to have grown", |scene| {
        scene.file("0.log").is_some_and(|file| file.length == grown)
    });
    scene.rename("0.log", "0.log.20260101-000000");
    scene.pass(Duration::from_secs(2));
    scene.compress("0.log.20260101-000000");
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.not_opened(), (0, 0));
    scene.remove("0.log.20260101-000000.gz");
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.not_opened(), (1, unread.len() as u64));
    scene.stop();
    assert_eq!(scene.metrics.lost_files.get(), 1);
}

/// Scenario: row 39. As above, and it is rotated and compressed between two looks at its directory.
/// Guarantees: it counts once, with what was unread, and not beside it with what its archive took on disk.
#[test]
fn a_parked_live_file_and_its_archive_count_once() {
    let mut scene = Scene::with_parked(4);
    scene.hold_descriptors();
    scene.append("0.log", "three\n");
    scene.until("it is seen to have grown", |scene| {
        scene.file("0.log").is_some_and(|file| file.length == 14)
    });
    scene.rename("0.log", "0.log.20260101-000000");
    scene.compress("0.log.20260101-000000");
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.not_opened(), (0, 0));
    scene.remove("0.log.20260101-000000.gz");
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.not_opened(), (1, 6));
}

/// Scenario: row 48. A file is read, and is cut and written anew.
/// Guarantees: it has another number in checkpoints, so that what the spool has of its old content is not
/// taken for the new by the next start.
#[test]
fn a_file_that_begins_anew_has_another_number_in_checkpoints() {
    let mut scene = Scene::new(4, &[("0.log", "one\ntwo\n")]);
    scene.until("it is read", |scene| scene.bodies.len() == 2);
    let former = scene.file("0.log").map(|file| file.key);
    fs::write(scene.at("0.log"), "four\n").unwrap();
    scene.until("it is read anew", |scene| scene.bodies.len() == 3);
    let present = scene.file("0.log").map(|file| file.key);
    assert!(former.is_some() && present.is_some() && former != present, "{former:?} {present:?}");
}

/// Scenario: row 39. While no agent ran, a live file that was read in part was rotated and compressed. Its
/// archive can't be opened for want of a descriptor, and is removed.
/// Guarantees: it counts once, with what its checkpoint says.
#[test]
fn an_archive_that_a_checkpoint_may_be_of_counts_once() {
    let archive = "0.log.20260101-000000.gz";
    let mut scene = Scene::resumed(0, &[(archive, "what it takes on disk")], |directory| {
        let line = format!(
            r#"{{"receiver": "file_log", "directory": "{}", "live": "0.log", "name": "0.log", "device": 1,
            "inode": 1, "head_bytes": 4, "head_crc32": 0, "offset": 8, "length": 14}}"#,
            directory.display(),
        );
        vec![(1, serde_json::from_str(&line).unwrap())]
    });
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.metrics.lost_files.get(), 0);
    scene.remove(archive);
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.not_opened(), (1, 0));
    assert_eq!(scene.metrics.lost(LossReason::NoAgent).get(), 6);
}

/// Scenario: row 39. Of a group's files the oldest is parked and has to be read on, so that an archive behind
/// it, open and unread, gives its descriptor up; both are removed.
/// Guarantees: the archive counts as lost with what it holds, decompressed, and the other with what was
/// unread of it.
#[test]
fn an_archive_that_waits_behind_another_file_counts_when_it_is_removed() {
    let mut scene = Scene::with_parked(16);
    // The archive of the next file is found, open, together with the growth of the parked one.
    scene.append("0.log", "three\n");
    scene.rename("0.log", "0.log.20260101-000000");
    let next = "four\n".repeat(200);
    scene.append("0.log.20260101-000010", &next);
    scene.compress("0.log.20260101-000010");
    scene.discovery.scan(scene.clock.now());
    scene.hold_descriptors();
    scene.until("both are parked", |scene| {
        ["0.log.20260101-000000", "0.log.20260101-000010"].iter().all(|name| scene.is_parked(name))
    });
    assert_eq!(scene.bodies.len(), 2);
    scene.remove("0.log.20260101-000000");
    scene.remove("0.log.20260101-000010.gz");
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.not_opened(), (2, (6 + next.len()) as u64));
}

/// Scenario: row 39. A parked file is cut and written anew, to less than was read of it, and can't be opened;
/// it is removed.
/// Guarantees: its new content counts as lost.
#[test]
fn a_parked_file_that_was_cut_counts_with_its_new_content() {
    let mut scene = Scene::with_parked(4);
    scene.hold_descriptors();
    fs::write(scene.at("0.log"), "three\n").unwrap();
    scene.until("it is seen", |scene| scene.metrics.truncated_files.get() == 1);
    scene.remove("0.log");
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.not_opened(), (1, 6));
}

/// Scenario: row 39. Two files were read to their ends, one of them a while before the other; then somebody
/// waits for a descriptor.
/// Guarantees: the one that has been quiet longest gives its own up, and that is all.
#[test]
fn the_file_that_was_quiet_longest_gives_its_descriptor_up() {
    for (quiet, busy) in [("a.log", "b.log"), ("b.log", "a.log")] {
        let mut scene = Scene::new(16, &[(quiet, "one\n"), (busy, "two\n")]);
        scene.until("both are read", |scene| scene.bodies.len() == 2);
        scene.pass(Duration::from_secs(1));
        scene.append(busy, "three\n");
        scene.until("it is read on", |scene| scene.bodies.len() == 3);
        scene.pass(IDLE_AFTER);
        scene.wanted = 1;
        scene.until("one is parked", |scene| scene.is_parked(quiet) || scene.is_parked(busy));
        assert!(scene.is_parked(quiet) && !scene.is_parked(busy));
    }
}

/// Scenario: row 40. A live file is moved out of its directory for two seconds, and comes back; some time
/// passes.
/// Guarantees: it is open, and followed as a live file is, not only looked at now and then as a closed one.
#[test]
fn a_live_file_that_was_away_for_a_moment_is_live_again() {
    let mut scene = Scene::new(16, &[("0.log", "one\n")]);
    scene.until("it is read", |scene| scene.bodies.len() == 1);
    let aside = tempfile::tempdir_in(scene.directory.path()).unwrap();
    fs::rename(scene.at("0.log"), aside.path().join("0.log")).unwrap();
    scene.until("it is missed", |scene| scene.file("0.log").is_some_and(|file| file.is_finished()));
    fs::rename(aside.path().join("0.log"), scene.at("0.log")).unwrap();
    scene.pass(LINGER_TIME * 2);
    assert!(scene.file("0.log").is_some_and(|file| file.source.is_some() && !file.is_finished()));
}

/// Scenario: row 46. A line is written to a rotated file that was read to its end and is still open.
/// Guarantees: it is read at once, and not when closed files are looked at.
#[test]
fn a_late_line_of_an_open_file_is_read_at_once() {
    let mut scene = Scene::new(16, &[("0.log", "one\n")]);
    scene.until("it is read", |scene| scene.bodies.len() == 1);
    let rotated = "0.log.20260101-000000";
    scene.rename("0.log", rotated);
    scene.append("0.log", "two\n");
    scene.until("it is read to its end", |scene| {
        scene.file(rotated).is_some_and(|file| file.is_finished())
    });
    scene.append(rotated, "late\n");
    scene.pass(LINGER_TIME / 2);
    assert!(scene.bodies.contains(&"late".to_owned()), "{:?}", scene.bodies);
}

/// Scenario: two files are read to their ends.
/// Guarantees: nothing of them is left in their worker's load, by which new groups are given out.
#[test]
fn what_was_read_is_no_load() {
    let mut scene = Scene::new(16, &[("a.log", "one\ntwo\n"), ("b.log", "three\n")]);
    let load = |scene: &Scene| {
        let (messages, state) = (scene.messages.clone(), Arc::clone(&scene.worker.state));
        WorkerHandle { messages, state }.load().0
    };
    assert_eq!(load(&scene), 14);
    scene.until("all is read", |scene| scene.bodies.len() == 3);
    assert_eq!(load(&scene), 0);
}

/// Scenario: row 39. A parked file grows, its watch says so, and it is removed before it was its turn to be
/// opened again, as happens while a sink is away.
/// Guarantees: what was written to it counts as lost.
#[test]
fn a_parked_file_that_grew_and_is_gone_before_its_turn_counts() {
    let mut scene = Scene::new(4, &[("0.log", "one\n")]);
    scene.until("it is read", |scene| scene.bodies.len() == 1);
    scene.park("0.log");
    scene.append("0.log", "more\n");
    let group = scene.file("0.log").unwrap().group;
    scene.worker.wake(Woken::Group(group));
    scene.remove("0.log");
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.not_opened(), (1, 5));
}

/// Scenario: row 46. A rotated file that was read and closed gets the beginning of a line; before that has
/// waited long enough for its rest, others want a descriptor.
/// Guarantees: its group is not taken for idle, as it would be if only its live file counted: the line leaves.
#[test]
fn a_group_with_a_late_file_does_not_give_its_live_file_up() {
    let mut scene = Scene::new(16, &[("0.log", "one\n")]);
    scene.until("it is read", |scene| scene.bodies.len() == 1);
    let rotated = "0.log.20260101-000000";
    scene.rename("0.log", rotated);
    scene.append("0.log", "two\n");
    scene.until("it is closed", |scene| scene.is_closed(rotated));
    scene.append(rotated, "late");
    scene.until("the late line is begun", |scene| {
        scene.file(rotated).is_some_and(|file| file.rest_bytes == 4)
    });
    scene.wanted = 2;
    scene.pass(IDLE_AFTER);
    assert_eq!(scene.bodies, ["one", "two", "late"]);
}

/// Scenario: row 48. Nothing is settled. A rotated file was read to its end and closed; another one is renamed
/// to its name, as a numbered chain ends, perhaps one that has got its number too, and the agent is told to
/// stop before anybody has looked.
/// Guarantees: it is counted as lost, with its bytes, although its name is there.
#[test]
fn a_closed_file_whose_name_another_has_is_counted_as_lost() {
    for has_its_number in [false, true] {
        let mut scene = Scene::new(16, &[("0.log", "first\n")]);
        scene.settles = false;
        scene.until("it is read", |scene| scene.bodies.len() == 1);
        scene.rename("0.log", "0.log.1");
        scene.append("0.log", "second one\n");
        scene.until("it is closed", |scene| scene.is_closed("0.log.1"));
        scene.rename("0.log", "0.log.1");
        if has_its_number {
            let taken = NodeLogs::default().look_at(&scene.at("0.log.1")).unwrap().inode;
            let files = scene.worker.files.values_mut();
            { files }.find(|file| *file.name == *"0.log.1").unwrap().inode = taken;
        }
        scene.stop();
        assert_eq!(scene.metrics.lost(LossReason::Shutdown).get(), 6, "{has_its_number}");
        assert_eq!(scene.metrics.lost_files.get(), 1);
    }
}

/// Scenario: row 48. Nothing is settled. A rotated file is deleted; the live one gets its name, as happens in a
/// directory that was replaced within a second, and is compressed; the agent is told to stop before anybody has
/// looked.
/// Guarantees: only what was deleted counts as lost: the next start reads the archive.
#[test]
fn an_archive_with_the_name_of_a_file_that_is_gone_is_found() {
    let mut scene = Scene::new(16, &[("0.log", "first\n")]);
    scene.settles = false;
    scene.until("it is read", |scene| scene.bodies.len() == 1);
    let rotated = "0.log.20260101-000000";
    scene.rename("0.log", rotated);
    scene.append("0.log", "second one\n");
    scene.until("it is read", |scene| scene.bodies.len() == 2);
    scene.remove(rotated);
    scene.until("it is gone", |scene| !scene.file(rotated).is_some_and(|file| file.is_present));
    scene.rename("0.log", rotated);
    scene.compress(rotated);
    scene.stop();
    let lost = scene.metrics.lost(LossReason::Shutdown).get();
    assert_eq!((scene.metrics.lost_files.get(), lost), (1, 6));
}

/// Scenario: row 47. A file that was short is read, and not settled; it is written anew, longer, and the agent is
/// told to stop before anybody has looked at its content again.
/// Guarantees: it is known by what was read of it, so that the next start reads the new content from its start
/// and not from a place in the old one.
#[test]
fn a_file_that_was_written_anew_is_known_by_what_was_read() {
    let mut scene = Scene::new(16, &[("a.log", "one\ntwo\n")]);
    scene.settles = false;
    scene.until("it is read", |scene| scene.bodies.len() == 2);
    fs::write(scene.at("a.log"), "other\n".repeat(100)).unwrap();
    scene.stop();
    let (known, there) = (scene.file("a.log").unwrap(), fs::File::open(scene.at("a.log")).unwrap());
    assert!(known.offset > 0 && !known.head.matches(&there).unwrap());
}

/// Scenario: rows 10 and 11. Lines pause within a character: raw ones and CRI's without their newline, and CRI's
/// after a fragment. One of each goes on after ten seconds, another one never.
/// Guarantees: what stands before the character leaves in time, the character with what follows; where nothing
/// does, its beginning leaves after a while, and the file's next line is read.
#[test]
fn a_pause_within_a_character_cuts_before_it() {
    let head = |tag: &str| format!("2026-01-01T00:00:00Z stdout {tag} ").into_bytes();
    let ten_seconds = Duration::from_secs(10);
    let cases = [
        // What is written first, what goes on with it, and what ends a line that does not go on.
        ("[]", vec![], &b""[..], vec![], &b"\n"[..]),
        ("[{type: container}]", head("F"), b"", vec![], b"\n"),
        ("[{type: container}]", head("P"), b"\n", head("F"), b""),
    ];
    for (operators, begin, pause, go_on, end) in cases {
        let mut scene = Scene::configured(operators, 100, &[("a.log", "")], |_| Vec::new());
        scene.append("a.log", [&begin, &b"aa\xe2\x82"[..], pause].concat());
        scene.until("what is whole leaves", |scene| scene.bodies == ["aa"]);
        scene.pass(ten_seconds);
        assert_eq!(scene.bodies, ["aa"]);
        scene.append("a.log", [&go_on, &b"\xac end\n"[..]].concat());
        scene.until("it goes on", |scene| scene.bodies == ["aa", "\u{20ac} end"]);
        scene.bodies.clear();
        scene.append("a.log", [&begin, &b"bb\xf0\x9f"[..], pause].concat());
        scene.until("what is whole leaves", |scene| scene.bodies == ["bb"]);
        let left_at = scene.clock.now();
        scene.until("it leaves as it is", |scene| scene.bodies == ["bb", "[240, 159]"]);
        assert!(scene.clock.now() - left_at >= CHARACTER_WAIT - STEP);
        assert_eq!(scene.metrics.queued_partial.get(), (0, 0));
        scene.append("a.log", [end, &go_on, b"next\n"].concat());
        scene.until("the next line comes", |scene| scene.bodies.len() == 3);
        assert_eq!(scene.bodies[2], "next");
    }
}

/// Scenario: rows 11 and 15. Before a restart two pieces of a line were sent: the one that begins within a
/// fragment, with the rest of a character, was acknowledged, and the one before it was not.
/// Guarantees: of the line only that one comes again, and what follows the line is a line of its own.
#[test]
fn what_is_acknowledged_behind_a_line_is_not_its_rest() {
    let head = |tag: &str| format!("2026-01-01T00:00:00Z stdout {tag} ").into_bytes();
    let begun = [&head("P"), &b"aa"[..]].concat();
    let acknowledged = [&b"\xe2\x82\n"[..], &head("F"), b"\xac end\n"].concat();
    let mut scene = Scene::configured("[{type: container}]", 16, &[("a.log", "")], |_| Vec::new());
    scene.until("it is known", |scene| scene.file("a.log").is_some());
    let (start, end) = (begun.len() as u64, (begun.len() + acknowledged.len()) as u64);
    scene.worker.files.values_mut().for_each(|file| file.acknowledged.add(start, end));
    scene.append("a.log", [&begun, &acknowledged, &head("F")[..], b"next\n"].concat());
    scene.until("the next line comes", |scene| scene.bodies.len() == 2);
    assert_eq!(scene.bodies, ["aa", "next"]);
}

/// Scenario: row 48. Nothing is settled. A rotated file was read to its end and closed; it gets another name,
/// as the files of a numbered chain do, and the agent is told to stop before anybody has looked.
/// Guarantees: it is not counted as lost: the next start finds it.
#[test]
fn a_closed_file_that_was_renamed_is_not_lost() {
    let mut scene = Scene::new(16, &[("0.log", "first\n")]);
    scene.settles = false;
    scene.until("it is read", |scene| scene.bodies.len() == 1);
    scene.rename("0.log", "0.log.1");
    scene.append("0.log", "second one\n");
    scene.pass(LINGER_TIME + Duration::from_secs(2));
    assert!(scene.file("0.log.1").is_some_and(|file| file.source.is_none()));
    scene.rename("0.log.1", "0.log.2");
    scene.stop();
    assert_eq!(scene.metrics.lost_files.get(), 0);
}

/// Scenario: row 56. All of a request is settled but for one record, which the exporter holds from then on;
/// the agent stops, and the record is delivered.
/// Guarantees: the request takes nothing of the budget, and none of the places that others wait for; the
/// stop waits for it all the same. A copy for the spool holds the record alone.
#[test]
fn what_is_set_aside_takes_nothing_of_the_budget() {
    let mut scene = Scene::new(100, &[("a.log", "one\ntwo\nthree\n")]);
    scene.settles = false;
    scene.until("it is under way", |scene| !scene.unsettled.is_empty());
    assert!(scene.worker.outstanding_bytes > 0 && scene.worker.pressing_requests() == 1);
    let request = &mut scene.unsettled[0];
    assert_eq!(request.records, 3);
    let mut under_way = UnderWay::new(request);
    let left_out = Acknowledged::new(1, &[(2, 3)]);
    let rest = |left_out: &Acknowledged| Rest {
        body: vec![b"two".as_slice().into()],
        body_bytes: 3,
        uncompressed_bytes: 3,
        records: 1,
        source_bytes: 4,
        spans: Arc::clone(&request.token.spans),
        left_out: left_out.clone(),
    };
    under_way.shrink(rest(&left_out));
    under_way.settled = Acknowledged::new(1, &[(2, 3)]);
    let copy = under_way.copy(1, Compression::None, request.reply.clone(), &scene.worker.files);
    assert_eq!((copy.body.concat(), copy.records), (b"two".to_vec(), 1));
    assert_eq!(copy.settled, Acknowledged::default());
    under_way.settled = Acknowledged::new(3, &[]);
    let copy = under_way.copy(1, Compression::None, request.reply.clone(), &scene.worker.files);
    assert_eq!(copy.unsettled().0, 0);

    let aside = SetAside {
        number: request.token.number,
        to_spool: false,
        charged_bytes: std::mem::take(&mut request.token.charged_bytes),
        body_bytes: request.body_bytes,
        rest: rest(&left_out),
    };
    request.token.is_aside = true;
    request.reply.send(Settlement::Aside(aside)).unwrap();
    scene.step();
    assert_eq!((scene.worker.outstanding_bytes, scene.worker.pressing_requests()), (0, 0));
    scene.messages.send(WorkerMessage::Stop).unwrap();
    assert!(matches!(scene.step(), Step::Wait(_)));
    scene.settles = true;
    scene.step();
    while scene.step() != Step::End {}
    assert_eq!(scene.worker.outstanding_requests + scene.worker.aside_requests, 0);
    assert_eq!(scene.metrics.queue_requests.get(), 0);
}

/// Scenario: rows 10 and 12. Of two files a line has left in part; then the rest of both comes, which is longer
/// than one request may be.
/// Guarantees: they leave in two requests, none longer than it may be.
#[test]
fn the_rest_of_a_begun_line_finds_room_in_its_batch() {
    const BYTES_MAX: usize = 100_000;
    let mut scene = Scene::new(16, &[("a.log", "a"), ("b.log", "b")]);
    scene.worker.batch = Batch::new(BatchLimits { bytes_max: BYTES_MAX, records_max: u64::MAX });
    scene.until("both are begun", |scene| scene.bodies.len() == 2);
    scene.settles = false;
    for name in ["a.log", "b.log"] {
        scene.append(name, format!("{}\n", "x".repeat(60_000)));
    }
    scene.until("all has come", |scene| scene.bodies.len() == 4);
    let bytes: Vec<_> = scene.unsettled.iter().map(|request| request.uncompressed_bytes).collect();
    assert!(bytes.len() == 2 && bytes.iter().all(|bytes| *bytes <= BYTES_MAX), "{bytes:?}");
}

/// Scenario: an archive begins with NULs, as a crash leaves them.
/// Guarantees: what was decompressed and belongs to no line counts as read of archives, too.
#[test]
fn what_is_skipped_of_an_archive_is_read() {
    let mut scene = Scene::new(16, &[("0.log", "one\n")]);
    let rotated = "0.log.20260101-000000";
    scene.append(rotated, [&[0; 5_000][..], b"two\n"].concat());
    scene.compress(rotated);
    scene.until("both are read", |scene| scene.bodies.len() == 2);
    assert_eq!(scene.metrics.archive_bytes.get(), 5_004);
}
