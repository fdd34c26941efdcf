//! Discovery as its workers see it, on real directories with errors put in.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use crossbeam_channel::unbounded;

use super::*;
use crate::{
    worker::WorkerState,
    world::{
        DirectoryState, Entry,
        real::{NodeLogs, SystemClock},
    },
};

/// Paths that can't be opened or read for now.
type Denied = Arc<Mutex<Vec<PathBuf>>>;

/// The tree, as far as it is not denied.
struct Deniable(Denied);

impl Deniable {
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
        self.check(path)?;
        NodeLogs::default().entries(path)
    }

    fn open(&mut self, root: &Path, relative: &Path) -> io::Result<Option<Opened>> {
        self.check(&root.join(relative))?;
        NodeLogs::default().open(root, relative)
    }

    fn bytes(&mut self, path: &Path) -> io::Result<u64> {
        NodeLogs::default().bytes(path)
    }

    fn leads_to(&mut self, path: &Path) -> io::Result<Inode> {
        NodeLogs::default().leads_to(path)
    }
}

/// Discovery, and what its workers are told.
struct Stage {
    root: tempfile::TempDir,
    denied: Denied,
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
            is_first_start,
            scan_interval: Duration::from_secs(3_600),
            workers: workers.iter().map(|(handle, _)| handle.clone()).collect(),
            checkpoints: None,
            tree: Box::new(Deniable(Arc::clone(&denied))),
            clock: SystemClock::shared(),
            watches: false,
            metrics: Arc::clone(&metrics),
        });
        Self { root, denied, discovery, _stopper: stopper, workers, metrics }
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

    /// What a scan reports: names, whether they are open, and whether they are old.
    fn scan(&mut self) -> Vec<(String, bool, bool)> {
        self.discovery.scan(Instant::now());
        let mut files = Vec::new();
        for (_, inbox) in &self.workers {
            for message in inbox.try_iter() {
                let WorkerMessage::Snapshot(snapshot) = message else { panic!("{message:?}") };
                files.extend(snapshot.files.into_iter().map(|file| {
                    (file.name.into_string().unwrap(), file.opened.is_some(), file.is_old)
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
/// to any depth.
/// Guarantees: the first three are counted once each; directories that lead to files are not.
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
