//! Discovery as its workers see it, on real directories with errors put in.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_channel::unbounded;

use super::*;
use crate::{
    ahead::Ahead,
    limits::HIDDEN_TIME_MAX,
    said::Said,
    tail::identity::Head,
    worker::WorkerState,
    world::{Clock, DirectoryState, Entry, Looked, real::NodeLogs},
};

/// Paths that can't be opened or read for now.
type Denied = Arc<Mutex<Vec<PathBuf>>>;

type Renames = Vec<(PathBuf, PathBuf)>;

/// How often a directory was listed, a file's length asked for, and a file opened.
#[derive(Default)]
struct Calls {
    entries: AtomicU64,
    bytes: AtomicU64,
    opens: AtomicU64,
    /// What is renamed just before a directory is listed, and once it was; each of these at one listing.
    renames_first: Mutex<VecDeque<Renames>>,
    renames: Mutex<VecDeque<Renames>>,
}

/// The tree, as far as it is not denied.
struct Deniable(Denied, Arc<Calls>);

impl Deniable {
    fn rename_next(renames: &Mutex<VecDeque<Renames>>) -> io::Result<()> {
        let next = renames.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        next.into_iter().flatten().try_for_each(|(from, to)| fs::rename(from, to))
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        let denied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.iter().any(|one| one == path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }
}

impl LogTree for Deniable {
    fn directory(&mut self, path: &Path) -> io::Result<DirectoryState> {
        NodeLogs::default().directory(path)
    }

    fn entries(&mut self, path: &Path) -> io::Result<Vec<Entry>> {
        self.1.entries.fetch_add(1, Ordering::Relaxed);
        self.check(path)?;
        Self::rename_next(&self.1.renames_first)?;
        let entries = NodeLogs::default().entries(path);
        Self::rename_next(&self.1.renames)?;
        entries
    }

    fn open(&mut self, root: &Path, relative: &Path) -> io::Result<Option<Opened>> {
        self.1.opens.fetch_add(1, Ordering::Relaxed);
        self.check(&root.join(relative))?;
        NodeLogs::default().open(root, relative)
    }

    fn look_at(&mut self, path: &Path) -> io::Result<Looked> {
        self.1.bytes.fetch_add(1, Ordering::Relaxed);
        NodeLogs::default().look_at(path)
    }
}

/// Discovery, and what its workers are told.
struct Stage {
    root: tempfile::TempDir,
    denied: Denied,
    calls: Arc<Calls>,
    clock: Ahead,
    discovery: Discovery,
    _stopper: Sender<()>,
    workers: Vec<(WorkerHandle, Receiver<WorkerMessage>)>,
    metrics: Arc<Metrics>,
}

impl Stage {
    fn new(
        pattern: &str,
        workers: usize,
        is_first_start: bool,
        root: tempfile::TempDir,
        resume: Checkpoints,
    ) -> Self {
        Self::with_descriptors(1_000, pattern, workers, is_first_start, root, resume)
    }

    fn with_descriptors(
        open_files_max: usize,
        pattern: &str,
        workers: usize,
        is_first_start: bool,
        root: tempfile::TempDir,
        resume: Checkpoints,
    ) -> Self {
        let denied = Denied::default();
        let (calls, clock) = (Arc::<Calls>::default(), Ahead::default());
        let metrics = Arc::new(Metrics::default());
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                let (messages, inbox) = unbounded();
                let state = Arc::new(WorkerState::new(Instant::now()));
                (WorkerHandle { messages, state }, inbox)
            })
            .collect();
        let patterns = Pattern::all(root.path().join(pattern).to_str().unwrap()).unwrap();
        let source = Source { patterns, exclude: Vec::new(), start_at: StartAt::End };
        let (discovery, stopper) = Discovery::new(DiscoveryStart {
            sources: vec![source],
            receiver_names: vec!["file_log".into()],
            descriptors: Descriptors::new(open_files_max, &metrics),
            resume,
            first_start: is_first_start.then(|| FirstStart::now(clock.unix_nanos())),
            scan_interval: Duration::from_secs(3_600),
            workers: workers.iter().map(|(handle, _)| handle.clone()).collect(),
            checkpoints: None,
            tree: Box::new(Deniable(Arc::clone(&denied), Arc::clone(&calls))),
            clock: Arc::new(clock.clone()),
            watches: false,
            metrics: Arc::clone(&metrics),
        });
        Self { root, denied, calls, clock, discovery, _stopper: stopper, workers, metrics }
    }

    /// After the next listing of a directory, or after the one that follows those that were named already, before
    /// anything else is asked.
    fn rename_then(&self, renames: &[(&str, &str)]) {
        let renames = renames.iter().map(|(from, to)| (self.at(from), self.at(to))).collect();
        self.calls.renames.lock().unwrap_or_else(PoisonError::into_inner).push_back(renames);
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn deny(&self, paths: &[&str]) {
        let denied = paths.iter().map(|path| self.at(path)).collect();
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = denied;
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    /// What workers are told by a scan: which of them, of which live file, how many files, how many of
    /// them were missed.
    fn told(&mut self) -> Vec<(usize, String, usize, usize)> {
        self.discovery.scan(self.clock.now());
        let mut told = Vec::new();
        for (worker, (_, inbox)) in self.workers.iter().enumerate() {
            for message in inbox.try_iter() {
                let WorkerMessage::Snapshot(one) = message else { continue };
                let live = one.key.live.to_str().unwrap().to_owned();
                told.push((worker, live, one.files.len(), one.missed.len()));
            }
        }
        told.sort();
        told
    }

    /// What a scan reports: names, whether they are open, and whether they are old.
    fn scan(&mut self) -> Vec<(String, bool, bool)> {
        self.discovery.scan(Instant::now());
        let mut files = Vec::new();
        for (_, inbox) in &self.workers {
            for message in inbox.try_iter() {
                let WorkerMessage::Snapshot(snapshot) = message else { panic!("{message:?}") };
                files.extend(snapshot.files.into_iter().map(|file| {
                    (
                        file.name.into_string().unwrap(),
                        file.opened.is_some(),
                        file.old_bytes.is_some(),
                    )
                }));
            }
        }
        files.sort();
        files
    }
}

fn named(files: &[(&str, bool, bool)]) -> Vec<(String, bool, bool)> {
    files.iter().map(|(name, open, old)| ((*name).to_owned(), *open, *old)).collect()
}

/// Scenario: row 40, `start_at: end` at the first start. A file can't be opened and a directory can't
/// be read at the first scan; both can later, when another file has been made in each.
/// Guarantees: what was there before the start is old, and what came later is not.
#[test]
fn start_at_holds_for_old_files_that_are_opened_late() {
    let root = tempfile::tempdir().unwrap();
    for file in ["a/old.log", "b/hidden.log"] {
        fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
        fs::write(root.path().join(file), "").unwrap();
    }
    // Births carry the time of a tick.
    std::thread::sleep(Duration::from_millis(30));
    let mut stage = Stage::new("*/*.log", 1, true, root, Vec::new());
    stage.deny(&["a/old.log", "b"]);
    assert_eq!(stage.scan(), named(&[("old.log", false, false)]));
    stage.write("a/new.log", "");
    stage.write("b/newer.log", "");
    stage.deny(&[]);
    let expected = [
        ("hidden.log", true, true),
        ("new.log", true, false),
        ("newer.log", true, false),
        ("old.log", true, true),
    ];
    assert_eq!(stage.scan(), named(&expected));
}

/// Scenario: a directory, a link and a FIFO match a pattern of files; directories match one that goes
/// to any depth, or twice to any.
/// Guarantees: the first three are counted once each; directories that lead to files are not. Files are found at
/// every depth, and at none.
#[test]
fn what_matches_and_is_no_file_is_counted() {
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    fs::create_dir(stage.at("directory.log")).unwrap();
    std::os::unix::fs::symlink("/dev/null", stage.at("link.log")).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, stage.at("fifo.log"), mode).unwrap();
    stage.write("file.log", "");
    assert_eq!(stage.scan(), named(&[("file.log", true, false)]));
    stage.write("more.log", "");
    stage.scan();
    assert_eq!(stage.metrics.refused_files.get(), 3);
    let mut twice = Stage::new("**/**/file", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    ["file", "a/b/file"].iter().for_each(|file| twice.write(file, ""));
    assert_eq!(twice.scan(), named(&[("file", true, false), ("file", true, false)]));
    let mut deep = Stage::new("**", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    deep.write("a/b/file", "");
    assert_eq!(deep.scan(), named(&[("file", true, false)]));
    assert_eq!(deep.metrics.refused_files.get(), 0);
}

/// Scenario: two workers; at a restart one large file was read to its end, and four small ones were
/// not read at all; then more small ones come, and one that grows is read far beyond its first length.
/// Guarantees: groups go to the worker with the least that is unread, whatever files hold in all.
#[test]
fn load_is_what_is_unread() {
    let root = tempfile::tempdir().unwrap();
    let large = "x".repeat(100_000);
    fs::write(root.path().join("a.log"), &large).unwrap();
    for name in ["b", "c", "d", "e"] {
        fs::write(root.path().join(format!("{name}.log")), "x".repeat(100)).unwrap();
    }
    use std::os::unix::fs::MetadataExt;
    let inode = fs::metadata(root.path().join("a.log")).unwrap().ino();
    let checkpoint = format!(
        r#"{{"receiver": "file_log", "directory": "{}", "live": "a.log", "name": "a.log", "device": 1,
        "inode": {inode}, "head_bytes": 0, "head_crc32": 0, "offset": {}}}"#,
        root.path().display(),
        large.len()
    );
    let resume = vec![(1, serde_json::from_str(&checkpoint).unwrap())];
    let mut stage = Stage::new("*.log", 2, false, root, resume);
    stage.discovery.scan(Instant::now());
    let loads = |stage: &Stage| stage.workers.iter().map(|one| one.0.load()).collect::<Vec<_>>();
    let before = loads(&stage);
    assert_eq!(before.iter().map(|load| load.0).sum::<u64>(), 400);
    assert!(before.iter().all(|load| load.0 == 200), "{before:?}");
    // What is read takes its part of the load away, and growth nothing of the others'.
    for message in stage.workers[0].1.try_iter() {
        let WorkerMessage::Snapshot(mut snapshot) = message else { continue };
        snapshot.files.iter_mut().for_each(|file| file.charge.read(1_000_000));
    }
    assert_eq!(loads(&stage)[0].0, 0);
    assert_eq!(loads(&stage)[1].0, 200);
}

/// Scenario: row 38. A directory is replaced after it was asked which one it is and before it is listed, or just
/// afterwards.
/// Guarantees: all of its groups are said to be in a replaced directory, those without a file there too: no line
/// of theirs goes on in a file of the new one.
#[test]
fn a_directory_that_is_replaced_while_it_is_listed_is_replaced() {
    for is_first in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let mut stage = Stage::new("c/*.log", 1, false, root, Vec::new());
        stage.write("c/0.log", "");
        stage.write("c/1.log", "");
        assert_eq!(stage.told().len(), 2);
        stage.write("new/0.log", "");
        stage.write("c/2.log", "");
        let renames = vec![(stage.at("c"), stage.at("old")), (stage.at("new"), stage.at("c"))];
        let when = if is_first { &stage.calls.renames_first } else { &stage.calls.renames };
        when.lock().unwrap().push_back(renames);
        stage.discovery.scan(stage.clock.now());
        let snapshots = stage.workers[0].1.try_iter().filter_map(|message| match message {
            WorkerMessage::Snapshot(one) => {
                Some((one.key.live.to_str().unwrap().to_owned(), one.files.len(), one.is_replaced))
            }
            _ => None,
        });
        let mut told: Vec<_> = snapshots.collect();
        told.sort();
        let expected = [("0.log", 1, true), ("1.log", 0, true)];
        assert_eq!(told, expected.map(|(live, files, is)| (live.to_owned(), files, is)));
    }
}

/// Scenario: a file that was never seen is rotated after its directory was listed, and before it could be opened.
/// Guarantees: no snapshot shows the newer file without the older one, which would be read behind it.
#[test]
fn a_file_that_is_rotated_while_it_is_looked_for_comes_before_its_successor() {
    let mut stage = Stage::new("c/*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    stage.write("c/0.log", "older");
    stage.write("newer", "newer");
    stage.rename_then(&[("c/0.log", "c/0.log.20260101-000000"), ("newer", "c/0.log")]);
    stage.discovery.scan(stage.clock.now());
    let shown = stage.workers[0].1.try_iter().filter_map(|message| match message {
        WorkerMessage::Snapshot(one) => {
            let name = |file: &FoundFile| {
                (file.name.clone().into_string().unwrap(), file.opened.is_some())
            };
            Some(one.files.iter().map(name).collect::<BTreeMap<_, _>>())
        }
        _ => None,
    });
    let shown: Vec<_> = shown.filter(|files| !files.is_empty()).collect();
    let both = ["0.log", "0.log.20260101-000000"].map(|name| (name.to_owned(), true));
    assert_eq!(shown, [BTreeMap::from(both)]);
}

/// Scenario: row 40. While the agent runs, a root is moved away, replaced by an empty directory, and
/// comes back with a new file; the next time that lasts. Then all of its files are deleted.
/// Guarantees: nothing is reported as gone within the bound, only what is new when it is back, and all
/// when the bound is over; meanwhile workers are told to ask their open files. A directory that is the
/// same and empty shows that its files are gone.
#[test]
fn a_root_that_is_hidden_for_a_while_is_not_gone() {
    let node = tempfile::tempdir().unwrap();
    let (pods, aside) = (node.path().join("pods"), node.path().join("aside"));
    fs::create_dir_all(pods.join("a")).unwrap();
    fs::write(pods.join("a/0.log"), "").unwrap();
    let mut stage = Stage::new("pods/*/*.log", 1, false, node, Vec::new());
    let tells = |live: &str, files: usize| vec![(0, live.to_owned(), files, 0)];
    assert_eq!(stage.told(), tells("0.log", 1));
    fs::rename(&pods, &aside).unwrap();
    stage.discovery.scan(stage.clock.now());
    let asked = stage.workers[0].1.try_iter().collect::<Vec<_>>();
    assert!(matches!(asked[..], [WorkerMessage::AskForDeleted]), "{asked:?}");
    stage.clock.advance(HIDDEN_TIME_MAX / 2);
    assert_eq!(stage.told(), []);
    fs::create_dir(&pods).unwrap();
    assert_eq!(stage.told(), []);
    fs::remove_dir(&pods).unwrap();
    fs::write(aside.join("a/1.log"), "").unwrap();
    fs::rename(&aside, &pods).unwrap();
    // The look at roots finds it: the next scan is far away.
    stage.clock.advance(ROOT_LOOK_INTERVAL);
    stage.discovery.turn(stage.clock.now());
    let told = stage.workers[0].1.try_iter().filter_map(|message| match message {
        WorkerMessage::Snapshot(one) => Some((one.key.live.clone(), one.files.len())),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(Arc::from(OsStr::new("1.log")), 1)]);
    fs::rename(&pods, &aside).unwrap();
    assert_eq!(stage.told(), []);
    stage.clock.advance(HIDDEN_TIME_MAX);
    assert_eq!(stage.told(), [tells("0.log", 0), tells("1.log", 0)].concat());
    fs::rename(&aside, &pods).unwrap();
    assert_eq!(stage.told(), [tells("0.log", 1), tells("1.log", 1)].concat());
    fs::remove_dir_all(pods.join("a")).unwrap();
    assert_eq!(stage.told(), [tells("0.log", 0), tells("1.log", 0)].concat());
}

/// Scenario: row 40, two workers. A pod's directory goes and comes back while its worker still knows of
/// it and has more to read than the other; then again when that has forgotten it.
/// Guarantees: the group stays where it is known, so that nobody reads it beside; later it may go to
/// either.
#[test]
fn a_group_that_comes_back_goes_to_the_worker_that_knows_it() {
    let mut stage = Stage::new("pods/*/*.log", 2, false, tempfile::tempdir().unwrap(), Vec::new());
    stage.write("pods/a/0.log", "");
    stage.discovery.scan(Instant::now());
    let mut kept: Vec<WorkerMessage> = stage.workers[0].1.try_iter().collect();
    assert_eq!(kept.len(), 1);
    let load = Charge::new(&stage.workers[0].0.state, 1_000);
    let aside = stage.at("aside");
    for is_known in [true, false] {
        fs::rename(stage.at("pods/a"), &aside).unwrap();
        let told = stage.told();
        assert_eq!(told.iter().map(|one| one.2).collect::<Vec<_>>(), [0]);
        if !is_known {
            kept.clear();
            stage.discovery.scan(Instant::now());
        }
        fs::rename(&aside, stage.at("pods/a")).unwrap();
        assert_eq!(stage.told(), [(usize::from(!is_known), "0.log".to_owned(), 1, 0)]);
    }
    drop(load);
}

/// Scenario: row 39. Files can't be opened, one rotated and one live; before they can, the one is
/// compressed and the other is rotated and compressed, and another live file is made. Of two others
/// one is deleted.
/// Guarantees: only the deleted one counts as missed.
#[test]
fn a_file_that_was_compressed_before_it_could_be_opened_is_not_missed() {
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    let files = ["0.log.20260101-000000", "0.log", "1.log"];
    for file in files {
        stage.write(file, "text");
    }
    stage.deny(&files);
    assert_eq!(stage.told(), [(0, "0.log".into(), 2, 0), (0, "1.log".into(), 1, 0)]);
    for file in files {
        fs::remove_file(stage.at(file)).unwrap();
    }
    stage.write("0.log.20260101-000000.gz", "other");
    stage.write("0.log.20260101-000010.gz", "another");
    stage.deny(&[]);
    assert_eq!(stage.told(), [(0, "0.log".into(), 2, 0), (0, "1.log".into(), 0, 1)]);
}

/// Scenario: row 39. A rotated file can't be opened; then it could be, but is compressed just when its directory
/// was listed.
/// Guarantees: it does not count as missed: the next look finds its archive.
#[test]
fn a_file_that_is_compressed_while_its_directory_is_read_is_not_missed() {
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    let rotated = "0.log.20260101-000000";
    stage.write(rotated, "text");
    stage.deny(&[rotated]);
    assert_eq!(stage.told(), [(0, "0.log".into(), 1, 0)]);
    stage.deny(&[]);
    stage.rename_then(&[(rotated, &format!("{rotated}.gz"))]);
    let told = [stage.told(), stage.told()].concat();
    assert!(told.iter().all(|(.., missed)| *missed == 0), "{told:?}");
    assert_eq!(told.last(), Some(&(0, "0.log".into(), 1, 0)));
}

/// Scenario: row 39. A directory holds 50 files, and 14 may be open for the first time; it is looked at
/// ten times, and each time workers give up what is wanted.
/// Guarantees: as many are wanted as wait, so that all have had their turn after four looks; they are no
/// errors, and each is asked for its length and its birth once a look.
#[test]
fn files_of_one_directory_wait_each_for_itself() {
    let root = tempfile::tempdir().unwrap();
    let mut stage = Stage::with_descriptors(16, "*.log", 1, false, root, Vec::new());
    for number in 0..50 {
        stage.write(&format!("{number}.log"), "");
    }
    stage.discovery.scan(Instant::now());
    for waiting in [36, 22, 8, 0] {
        stage.clock.advance(ROOT_LOOK_INTERVAL);
        let now = stage.clock.now();
        stage.discovery.serve_waiting(now);
        assert_eq!(stage.discovery.descriptors.wanted(), waiting);
        // Read, and closed.
        stage.workers[0].1.try_iter().for_each(drop);
    }
    assert_eq!(stage.metrics.file_errors.get(), 0);
    let (waiting, open) = (36 + 36 + 22 + 8, 14 + 14 + 28 + 42);
    // Those that are still waiting are asked between two looks, too.
    assert_eq!(stage.calls.bytes.load(Ordering::Relaxed), waiting + open + 36 + 22 + 8);
}

/// The lines of the log, when a stage does something each second for two and a half minutes.
fn said_in_150_s(stage: &mut Stage, each: impl Fn(&mut Stage)) -> Vec<String> {
    let said = Said::default();
    let _listening = said.listen();
    for _ in 0..150 {
        stage.clock.advance(Duration::from_secs(1));
        each(stage);
    }
    said.text().lines().map(str::to_owned).collect()
}

/// Scenario: row 39. Files wait for descriptors, and are looked at each second.
/// Guarantees: it is said at once and then once a minute, with how many they are.
#[test]
fn files_that_wait_are_told_once_a_minute() {
    let root = tempfile::tempdir().unwrap();
    let mut stage = Stage::with_descriptors(16, "*.log", 1, false, root, Vec::new());
    for number in 0..50 {
        stage.write(&format!("{number}.log"), "");
    }
    stage.discovery.scan(Instant::now());
    let said = said_in_150_s(&mut stage, |stage| {
        let now = stage.clock.now();
        stage.discovery.serve_waiting(now);
    });
    let told = said.iter().filter(|line| line.contains("wait for others to be closed"));
    assert_eq!(told.filter(|line| line.contains("files=36")).count(), 3, "{said:#?}");
}

/// Scenario: a file can't be opened, and is tried at a scan each second.
/// Guarantees: it is named once a minute, and how often it failed is told as seldom.
#[test]
fn what_cannot_be_opened_is_named_once_a_minute() {
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    stage.write("0.log", "");
    stage.deny(&["0.log"]);
    let said = said_in_150_s(&mut stage, |stage| stage.discovery.scan(stage.clock.now()));
    let count = |text: &str| said.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("cannot open a log file"), 3, "{said:#?}");
    assert_eq!(count("still cannot be opened"), 2, "{said:#?}");
}

/// Scenario: row 38. A directory is replaced by one that holds the very file that was in the other: under
/// its name, and, the next time, under that of another log.
/// Guarantees: its number proves nothing. It is opened, and belongs to the log of its name.
#[test]
fn in_a_replaced_directory_no_file_is_known() {
    let mut stage = Stage::new("*/*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    stage.write("a/0.log", "");
    assert_eq!(stage.scan(), named(&[("0.log", true, false)]));
    let replace = |stage: &Stage, name: &str| {
        fs::create_dir(stage.at("b")).unwrap();
        fs::rename(stage.at("a/0.log"), stage.at("b").join(name)).unwrap();
        fs::remove_dir(stage.at("a")).unwrap();
        fs::rename(stage.at("b"), stage.at("a")).unwrap();
    };
    replace(&stage, "0.log");
    assert_eq!(stage.scan(), named(&[("0.log", true, false)]));
    replace(&stage, "1.log");
    assert_eq!(stage.told(), [(0, "0.log".into(), 0, 0), (0, "1.log".into(), 1, 0)]);
}

/// Scenario: row 40. There are five positions more than are kept of files that can't be found.
/// Guarantees: these are counted as forgotten.
#[test]
fn forgotten_positions_are_counted() {
    let file = |number: u64| {
        let json = format!(
            r#"{{"receiver": "file_log", "directory": "/gone/{number}", "live": "a.log", "name": "a.log",
            "device": 1, "inode": {number}, "head_bytes": 0, "head_crc32": 0, "offset": 0}}"#
        );
        (number, serde_json::from_str(&json).unwrap())
    };
    let resume = (0..crate::limits::UNSEEN_CHECKPOINTS_MAX as u64 + 5).map(file).collect();
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), resume);
    stage.write("0.log", "");
    stage.discovery.scan(stage.clock.now());
    assert_eq!(stage.metrics.checkpoints_forgotten.get(), 5);
}

/// Scenario: row 38. A root may be looked at and not be listed; the agent runs for ten seconds, and
/// then it may be.
/// Guarantees: it is not listed at each look at roots, but by scans, which read it at last.
#[test]
fn a_root_that_cannot_be_listed_is_tried_by_scans_only() {
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    stage.write("0.log", "");
    stage.deny(&[""]);
    for _ in 0..100 {
        stage.clock.advance(ROOT_LOOK_INTERVAL);
        stage.discovery.turn(stage.clock.now());
    }
    let tries = stage.calls.entries.load(Ordering::Relaxed);
    assert!(tries <= 2, "{tries} tries");
    stage.deny(&[]);
    assert_eq!(stage.told(), [(0, "0.log".to_owned(), 1, 0)]);
}

/// Scenario: a group's only file is removed, and comes back, again and again.
/// Guarantees: its worker has one group at most: one that is gone takes no part in its load.
#[test]
fn a_group_that_is_gone_is_no_load() {
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    let groups = |stage: &Stage| stage.workers[0].0.load().1;
    for _ in 0..3 {
        stage.write("a.log", "one\n");
        stage.scan();
        assert_eq!(groups(&stage), 1);
        fs::remove_file(stage.at("a.log")).unwrap();
        stage.scan();
        assert_eq!(groups(&stage), 0);
    }
}

/// Scenario: row 41. A file is renamed to a name that matches too, and can't be opened under it for a
/// while; a new live file is made.
/// Guarantees: it stays with its group, and is never taken for a log of its own.
#[test]
fn a_renamed_file_that_cannot_be_opened_for_a_while_stays_in_its_group() {
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    stage.write("app.log", "text");
    assert_eq!(stage.told(), [(0, "app.log".into(), 1, 0)]);
    fs::rename(stage.at("app.log"), stage.at("app-1.log")).unwrap();
    stage.write("app.log", "more");
    stage.deny(&["app-1.log"]);
    assert_eq!(stage.told(), [(0, "app.log".into(), 2, 0)]);
    stage.deny(&[]);
    for _ in 0..2 {
        stage.discovery.scanner.distrust();
        assert!(stage.told().iter().all(|(_, live, ..)| live == "app.log"));
    }
}

/// Scenario: rows 39 and 41. A file can't be opened; it is renamed to a name that matches too, under which
/// it can.
/// Guarantees: it is not counted as deleted.
#[test]
fn a_file_that_was_renamed_before_it_could_be_opened_is_not_missed() {
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    stage.write("app.log", "text");
    stage.deny(&["app.log"]);
    assert_eq!(stage.told(), [(0, "app.log".into(), 1, 0)]);
    fs::rename(stage.at("app.log"), stage.at("app-1.log")).unwrap();
    stage.deny(&[]);
    assert_eq!(stage.told(), [(0, "app.log".into(), 1, 0)]);
}

/// A directory with a file `app.log` that the state knows, and its checkpoint.
fn known_file() -> (tempfile::TempDir, Checkpoints) {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = known_as(root.path(), "app.log", "text");
    (root, vec![(1, checkpoint)])
}

/// A new file, as the state knows it: one of `app.log`.
fn known_as(root: &Path, name: &str, text: &str) -> FileCheckpoint {
    fs::write(root.join(name), text).unwrap();
    let known = NodeLogs::default().look_at(&root.join(name)).unwrap();
    let line = format!(
        r#"{{"receiver": "file_log", "directory": "{}", "live": "app.log", "name": "{name}", "device": {},
        "inode": {}, "head_bytes": 4, "head_crc32": {}, "offset": 4, "length": 4}}"#,
        root.display(),
        known.inode.device,
        known.inode.inode,
        Head::of(text.as_bytes()).crc32
    );
    serde_json::from_str(&line).unwrap()
}

impl Stage {
    /// What a scan tells of each group: its live file, how many files it has, whether one of them was
    /// renamed, and whether these are all.
    fn groups(&mut self) -> Vec<(String, usize, bool, bool)> {
        self.discovery.scan(self.clock.now());
        let snapshots = self.workers[0].1.try_iter().filter_map(|message| match message {
            WorkerMessage::Snapshot(one) => Some(one),
            _ => None,
        });
        let told = snapshots.map(|one| {
            let live = one.key.live.to_str().unwrap().to_owned();
            let is_renamed = one.files.iter().any(|file| file.is_renamed);
            (live, one.files.len(), is_renamed, one.is_complete)
        });
        told.collect()
    }
}

/// Scenario: rows 39, 40 and 41. While no agent runs, a file that the state knows is renamed to a name that
/// matches too, or to one that does not, and a new live file is made. At the start it can't be opened.
/// Guarantees: it is no log of its own, and its checkpoint is not withdrawn: the group is not complete until
/// it can be opened, and then has it as its rotated file.
#[test]
fn a_known_file_that_cannot_be_opened_is_nobodys_until_it_can() {
    for renamed in ["app-1.log", "app.log.1"] {
        let (root, resume) = known_file();
        fs::rename(root.path().join("app.log"), root.path().join(renamed)).unwrap();
        let mut stage = Stage::new("*.log", 1, false, root, resume);
        stage.write("app.log", "more");
        stage.deny(&[renamed]);
        assert_eq!(stage.groups(), [("app.log".to_owned(), 1, false, false)]);
        stage.deny(&[]);
        assert_eq!(stage.groups(), [("app.log".to_owned(), 2, true, true)]);
    }
}

/// Scenario: rows 40 and 41. A file that the state knows is rotated at a start, after its directory was listed
/// and before it is opened: what is opened is the new live file. The same where the second look at the directory lists it
/// under its name once more.
/// Guarantees: it is not taken for gone: at once it is found under its new name, or the group is not complete before
/// the next look, which finds it.
#[test]
fn a_known_file_that_is_rotated_during_the_first_look_is_not_gone() {
    for is_twice in [false, true] {
        let (root, resume) = known_file();
        let mut stage = Stage::new("*.log", 1, false, root, resume);
        stage.write("new", "more");
        if is_twice {
            stage.rename_then(&[("app.log", "hidden"), ("new", "app.log")]);
            let back = [("app.log", "new"), ("hidden", "app.log")];
            let back = back.map(|(from, to)| (stage.at(from), stage.at(to)));
            stage.calls.renames_first.lock().unwrap().extend([Vec::new(), back.to_vec()]);
        }
        stage.rename_then(&[("app.log", "app.log.1"), ("new", "app.log")]);
        let incomplete = ("app.log".to_owned(), 1, false, false);
        let complete = ("app.log".to_owned(), 2, true, true);
        let is_told = |told: &(String, usize, bool, bool)| told.1 > 0 || told.3;
        let told: Vec<_> = (0..2).flat_map(|_| stage.groups()).filter(is_told).collect();
        let before = is_twice.then_some(incomplete);
        assert_eq!(told, before.into_iter().chain([complete]).collect::<Vec<_>>());
    }
}

/// Scenario: rows 41 and 48. The state knows two files of a numbered chain, whose names are patterns' too. At a
/// start they get their next numbers after their directory was listed: what is opened under a name is the next
/// file of the chain, which the state knows, too.
/// Guarantees: neither is a log of its own, and no checkpoint is withdrawn: the group is not complete before the
/// next look, and then has both.
#[test]
fn a_known_chain_that_moves_on_during_the_first_look_is_one_log() {
    let root = tempfile::tempdir().unwrap();
    let names = [("app.log.2", "old."), ("app.log.1", "text")];
    let known = names.map(|(name, text)| known_as(root.path(), name, text));
    let mut stage = Stage::new("*", 1, false, root, (1..).zip(known).collect());
    stage.write("app.log", "more");
    stage.rename_then(&[("app.log.2", "app.log.3"), ("app.log.1", "app.log.2")]);
    let told = stage.groups();
    assert_eq!(told[0], ("app.log".to_owned(), 2, true, false));
    assert_eq!(told[1..], [("app.log".to_owned(), 3, true, true)]);
}

/// Scenario: rows 41 and 68. The files of a numbered chain get their next numbers before a look, and again after
/// its directory was listed and before anything else is asked.
/// Guarantees: the group is not complete before the directory is looked at once more, at once, where its first file
/// is found under the name that it has by then.
#[test]
fn a_chain_that_moves_on_twice_at_a_look_is_followed() {
    for pattern in ["*.log", "*"] {
        let mut stage = Stage::new(pattern, 1, false, tempfile::tempdir().unwrap(), Vec::new());
        stage.write("app.log", "text");
        assert_eq!(stage.groups(), [("app.log".to_owned(), 1, false, true)]);
        fs::rename(stage.at("app.log"), stage.at("app.log.1")).unwrap();
        stage.write("app.log", "more");
        let elsewhere = tempfile::tempdir_in(stage.root.path().parent().unwrap()).unwrap();
        let next = elsewhere.path().join("next");
        fs::write(&next, "and more").unwrap();
        stage.rename_then(&[
            ("app.log.1", "app.log.2"),
            ("app.log", "app.log.1"),
            (next.to_str().unwrap(), "app.log"),
        ]);
        let told = stage.groups();
        assert_eq!(told[0], ("app.log".to_owned(), 0, false, false), "{pattern}");
        assert!(told.contains(&("app.log".to_owned(), 2, true, true)), "{pattern}: {told:?}");
        assert!(told.iter().all(|(live, ..)| live != "app.log.2"), "{told:?}");
        let logs: BTreeSet<&String> = told.iter().map(|(live, ..)| live).collect();
        assert_eq!(stage.discovery.assigned.len(), logs.len());
    }
}

/// Scenario: row 40. The only file of a group is another one than before, and is gone between the listing of its
/// directory and its opening.
/// Guarantees: the next look says that the group is gone, and it is forgotten.
#[test]
fn a_group_that_vanishes_during_a_look_is_said_to_be_gone() {
    let mut stage = Stage::new("*.log", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    stage.write("app.log", "text");
    assert_eq!(stage.groups(), [("app.log".to_owned(), 1, false, true)]);
    stage.write("new", "more");
    fs::rename(stage.at("new"), stage.at("app.log")).unwrap();
    stage.rename_then(&[("app.log", "other")]);
    assert_eq!(stage.groups(), [("app.log".to_owned(), 0, false, false)]);
    assert_eq!(stage.groups(), [("app.log".to_owned(), 0, false, true)]);
    assert_eq!((stage.groups(), stage.discovery.assigned.len()), (Vec::new(), 0));
}

/// How often directories were listed and files opened by what is done.
fn calls(stage: &mut Stage, done: impl FnOnce(&mut Stage)) -> (u64, u64) {
    let count = |stage: &Stage| {
        let calls = [&stage.calls.entries, &stage.calls.opens];
        calls.map(|one| one.load(Ordering::Relaxed))
    };
    let before = count(stage);
    done(stage);
    let [entries, opens] = count(stage);
    (entries - before[0], opens - before[1])
}

/// Scenario: row 76. A pattern matches what logrotate compresses under dated names. Each day one comes and
/// one goes, and the directory is read again; then one is written anew, as text.
/// Guarantees: each is opened, said and counted once, and forgotten when it is gone; the text is read.
#[test]
fn what_is_refused_is_opened_again_only_when_it_has_changed() {
    let mut stage = Stage::new("app.log*", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    let name = |day: u64| format!("app.log-202611{day:02}.gz");
    stage.write("app.log", "text");
    for day in 10..20 {
        fs::write(stage.at(&name(day)), b"\x1f\x8b and more").unwrap();
        if day >= 13 {
            fs::remove_file(stage.at(&name(day - 3))).unwrap();
        }
        let (_, opens) = calls(&mut stage, |stage| _ = stage.told());
        assert_eq!(opens, 1 + u64::from(day == 10), "day {day}");
    }
    assert_eq!(stage.metrics.refused_files.get(), 10);
    let root = Arc::from(stage.root.path());
    assert_eq!(stage.discovery.scanner.known[&root].refused.len(), 3);
    stage.write(&name(19), "a line of text\n");
    stage.write("app.log.1", "more");
    let told = stage.told().into_iter().map(|(_, live, ..)| live).collect::<Vec<_>>();
    assert_eq!(told, ["app.log-20261119.gz", "app.log.1"]);
    assert_eq!(stage.discovery.scanner.known[&root].refused.len(), 2);
}

/// Scenario: row 76. A file is empty, and its name says that it will be compressed; nothing happens for many
/// scans. Then one of two such gets text and the other one what is compressed.
/// Guarantees: meanwhile its directory is not read again, and counts as seen; the text is read at the next
/// scan, also beside a watch, and the other is counted.
#[test]
fn an_empty_file_that_may_be_compressed_waits_without_being_read() {
    let mut stage = Stage::new("app.log*", 1, false, tempfile::tempdir().unwrap(), Vec::new());
    for name in ["app.log.1.gz", "app.log.2.gz"] {
        stage.write(name, "");
    }
    assert_eq!(stage.told(), []);
    assert!(stage.discovery.scanner.has_seen_all());
    // The directory's time of change says all as soon as it lies back.
    stage.clock.advance(Duration::from_secs(3));
    stage.told();
    let scans = |stage: &mut Stage| (0..20).for_each(|_| assert_eq!(stage.told(), []));
    assert_eq!(calls(&mut stage, scans), (0, 0));
    let due = |stage: &mut Stage| stage.discovery.scanner.due_directories(|_| true).len();
    assert_eq!([due(&mut stage), due(&mut stage)], [1, 1]);
    stage.write("app.log.1.gz", "a line of text\n");
    fs::write(stage.at("app.log.2.gz"), b"\x1f\x8b and more").unwrap();
    assert_eq!(stage.told(), [(0, "app.log.1.gz".to_owned(), 1, 0)]);
    assert_eq!(stage.metrics.refused_files.get(), 1);
    stage.told();
    assert_eq!(calls(&mut stage, |stage| _ = stage.told()), (0, 0));
}

/// Scenario: row 40. All files of a root were removed while no agent ran, so that it is empty at the start, and
/// stays so.
/// Guarantees: what they held and was not acknowledged counts as lost at that very start, once, as soon as the
/// root has been empty for as long as a file system may take to be mounted.
#[test]
fn an_empty_root_that_lasts_shows_at_that_start_that_its_files_are_gone() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("pods")).unwrap();
    let checkpoint = |directory: &str| {
        let line = format!(
            r#"{{"receiver": "file_log", "directory": "{}", "live": "0.log", "name": "0.log", "device": 1,
            "inode": 1, "head_bytes": 4, "head_crc32": 0, "offset": 4, "length": 10}}"#,
            root.path().join(directory).display(),
        );
        serde_json::from_str(&line).unwrap()
    };
    let resume = vec![(1, checkpoint("pods/a")), (2, checkpoint("pods"))];
    let mut stage = Stage::new("pods/*.log", 1, false, root, resume);
    let mut after = |time: Duration| {
        stage.clock.advance(time);
        (0..=WATCHED_SCANS).for_each(|_| stage.discovery.scan(stage.clock.now()));
        (stage.metrics.lost_files.get(), stage.metrics.lost(LossReason::NoAgent).get())
    };
    assert_eq!(after(Duration::ZERO), (0, 0));
    assert_eq!(after(HIDDEN_TIME_MAX / 2), (0, 0));
    assert_eq!(after(HIDDEN_TIME_MAX / 2), (2, 12));
    assert_eq!(after(HIDDEN_TIME_MAX), (2, 12));
}

/// Scenario: row 40. A file with six bytes that were not acknowledged is gone from its directory. In another one
/// there is it, with `start_at: end` and older than the first start or not, a file with another number, one that begins
/// differently or has something else where it was read to, one that is shorter, and one that was only known by its
/// number and birth.
/// Guarantees: only it is known again, by its birth alone too, and does not count as lost where it is read.
#[test]
fn a_moved_file_is_known_by_its_number_and_content() {
    let crc32 = crc32fast::hash;
    let cases = [
        ("it", 0, crc32(b"0123"), crc32(b"23"), 10, 0),
        ("it, but passed over", 0, crc32(b"0123"), crc32(b"23"), 10, 6),
        ("a copy", 1, crc32(b"0123"), crc32(b"23"), 10, 6),
        ("another head", 0, crc32(b"012x"), crc32(b"23"), 10, 6),
        ("another ending", 0, crc32(b"0123"), crc32(b"2x"), 10, 6),
        ("shorter", 0, crc32(b"0123"), crc32(b"23"), 11, 7),
    ];
    for (case, other, head, tail, length, lost) in cases {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("b")).unwrap();
        fs::write(root.path().join("b/1.log"), "0123456789").unwrap();
        let looked = NodeLogs::default().look_at(&root.path().join("b/1.log")).unwrap();
        let line = format!(
            r#"{{"receiver": "file_log", "directory": "{}", "live": "0.log", "name": "0.log", "device": 1,
            "inode": {}, "head_bytes": 4, "head_crc32": {head}, "tail_bytes": 2, "tail_crc32": {tail},
            "offset": 4, "length": {length}}}"#,
            root.path().join("a").display(),
            looked.inode.inode + other,
        );
        let checkpoint: FileCheckpoint = serde_json::from_str(&line).unwrap();
        let resume = vec![(1, checkpoint.clone())];
        let is_passed_over = case == "it, but passed over";
        if is_passed_over {
            // Births carry the time of a tick.
            std::thread::sleep(Duration::from_millis(30));
        }
        let mut stage = Stage::new("*/*.log", 1, is_passed_over, root, resume);
        stage.discovery.scan(stage.clock.now());
        let metrics = Arc::clone(&stage.metrics);
        let counted = || (metrics.lost_files.get(), metrics.lost(LossReason::NoAgent).get());
        assert_eq!(counted(), (u64::from(lost > 0), lost), "{case}");
        // What a worker misses is looked for in the same way.
        stage.workers[0].0.state.miss(Gone::of(0, &checkpoint));
        stage.discovery.turn(stage.clock.now());
        assert_eq!(counted(), (2 * u64::from(lost > 0), 2 * lost), "{case}");
        // Of what could never be opened nothing else is known.
        let born = looked.born_unix_nanos;
        let is_lost = born.is_none() || is_passed_over;
        for (born, lost) in [(born, is_lost), (born.map(|at| at + 1), true), (None, true)] {
            let before = metrics.lost(LossReason::NotOpened).get();
            let gone = Gone::of(0, &checkpoint);
            stage.workers[0].0.state.miss(Gone {
                inode: looked.inode.inode,
                born,
                head: Head::default(),
                ending: Default::default(),
                length: 10,
                lost_bytes: 10,
                reason: LossReason::NotOpened,
                ..gone
            });
            stage.discovery.turn(stage.clock.now());
            let counted = metrics.lost(LossReason::NotOpened).get() - before;
            assert_eq!(counted, 10 * u64::from(lost), "{case}, {born:?}");
        }
    }
}
