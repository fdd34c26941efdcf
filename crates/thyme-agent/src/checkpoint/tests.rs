//! Tests of checkpoints on a real disk.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use super::*;
use crate::tail::uid::FileUid;
use crate::world::real::SystemClock;

fn checkpoint(offset: u64) -> FileCheckpoint {
    FileCheckpoint {
        directory: Path::new(OsStr::from_bytes(b"/logs/100%\xff/c")).into(),
        live: OsStr::new("0.log").into(),
        name: OsStr::new("0.log.20260101-000000").into(),
        device: 1,
        inode: 2,
        head_bytes: 3,
        head_crc32: 4,
        offset,
        beyond: vec![(10, 20)],
        finished: false,
        uid: None,
        former_uid: None,
    }
}

fn write(directory: &Path, offset: u64) {
    let (state, _) = open(directory, true).unwrap();
    let clock = SystemClock::shared();
    let writer = Writer::spawn(state, Vec::new(), clock, Arc::default()).unwrap();
    writer.publisher().publish([(7, Some(checkpoint(offset))), (8, Some(checkpoint(1)))]);
    writer.publisher().publish([(8, None)]);
    writer.finish();
}

/// Scenario: checkpoints are written, one is withdrawn, and the directory is opened again; a name
/// is not UTF-8 and holds a percent sign.
/// Guarantees: exactly the last state comes back; a start is the first one only once.
#[test]
fn what_is_published_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let (state, restored) = open(directory.path(), false).unwrap();
    assert!(restored.is_first_start && restored.files.is_empty());
    drop(state);
    write(directory.path(), 5);
    let (_state, restored) = open(directory.path(), false).unwrap();
    assert!(!restored.is_first_start);
    assert_eq!(restored.files, [checkpoint(5)]);
}

/// Scenario: a checkpoint that an agent wrote which knew no identities, and one with both of them.
/// Guarantees: the first is read as one without; the second comes back, and without identities
/// nothing is written of them.
#[test]
fn identities_are_optional() {
    let old = r#"{"directory":"/logs","live":"0.log","name":"0.log","device":1,"inode":2,"head_bytes":3,"head_crc32":4,"offset":5}"#;
    let read: FileCheckpoint = serde_json::from_str(old).unwrap();
    assert_eq!((read.uid, read.former_uid), (None, None));
    assert_eq!(serde_json::to_string(&read).unwrap(), old);
    let derive = |line: &[u8]| FileUid::derive(&read.directory, &read.live, line, None);
    let (uid, former) = (derive(b"a"), derive(b"b").distinct_from([derive(b"b")], None));
    let with = FileCheckpoint { uid: Some(uid), former_uid: Some(former), ..read };
    let bytes = format::encode([with.clone()].iter());
    assert_eq!(format::decode(&bytes).unwrap(), [with]);
}

/// Scenario: each byte of the checkpoint file is flipped, or the file is cut there (row 16).
/// Guarantees: the damage is noticed, the older generation is used, the damaged file is kept.
#[test]
fn damage_falls_back_to_the_older_generation() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 5);
    let current = directory.path().join(CURRENT_NAME);
    let good = fs::read(&current).unwrap();
    // An older, synced generation with another offset stands beside it.
    let older = format::encode([checkpoint(3)].iter());
    // The last write was synced: both names are links to one file.
    fs::remove_file(directory.path().join(SYNCED_NAME)).unwrap();
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        for damaged in [flipped, good[..at].to_vec()] {
            fs::write(&current, &damaged).unwrap();
            fs::write(directory.path().join(SYNCED_NAME), &older).unwrap();
            let restored = restore(&NodeDisk::new(directory.path())).unwrap();
            assert_eq!(restored.files, [checkpoint(3)], "byte {at}");
            assert!(!restored.is_first_start);
            let aside = directory.path().join("checkpoints.corrupt");
            assert_eq!(fs::read(aside).unwrap(), damaged);
        }
    }
}

/// Scenario: one generation of checkpoints is damaged, then both are.
/// Guarantees: the log says what comes of it: records may come twice, or all files are read again.
#[test]
fn what_damage_costs_is_said() {
    let said = |damaged: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 5);
        let good = fs::read(directory.path().join(CURRENT_NAME)).unwrap();
        // Both names may be links to one file.
        for name in [CURRENT_NAME, SYNCED_NAME] {
            fs::remove_file(directory.path().join(name)).unwrap();
            let content = if damaged.contains(&name) { b"garbage" } else { &good[..] };
            fs::write(directory.path().join(name), content).unwrap();
        }
        let log = Arc::new(Mutex::new(Vec::new()));
        let (writer, kept) = (Arc::clone(&log), directory.path().to_owned());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || Shared(Arc::clone(&writer)))
            .with_ansi(false)
            .finish();
        let restored =
            tracing::subscriber::with_default(subscriber, || open(&kept, false).unwrap().1);
        assert!(!restored.is_first_start);
        (restored.files.len(), String::from_utf8(log.lock().unwrap().clone()).unwrap())
    };
    let (files, one) = said(&[CURRENT_NAME]);
    assert_eq!(files, 1);
    assert!(one.contains("the older generation of checkpoints is used"), "{one}");
    assert!(!one.contains("all files are read again"), "{one}");
    let (files, both) = said(&[CURRENT_NAME, SYNCED_NAME]);
    assert_eq!(files, 0);
    assert!(
        both.contains("no generation of checkpoints is left: all files are read again"),
        "{both}"
    );
    assert!(!both.contains("the older generation"), "{both}");
}

/// A log that a test reads.
struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Scenario: a checkpoint is a FIFO that nobody writes to, an endless device, or a directory; so is
/// the lock.
/// Guarantees: the start ends at once, and says which path and what it is.
#[test]
fn what_is_no_regular_file_is_no_checkpoint() {
    for name in [CURRENT_NAME, SYNCED_NAME, "lock"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let fifo = open(directory.path(), false).unwrap_err().to_string();
        assert!(fifo.starts_with(&format!("{}: ", path.display())), "{fifo}");
        assert!(fifo.contains("FIFO") || fifo.contains("no regular file"), "{fifo}");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let device = open(directory.path(), false).unwrap_err().to_string();
        assert!(device.contains("device") || device.contains("no regular file"), "{device}");
    }
}

/// Scenario: a second agent opens the same state directory.
/// Guarantees: it is refused, and the message names the process that holds it.
#[test]
fn a_second_agent_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (_state, _) = open(directory.path(), false).unwrap();
    let error = open(directory.path(), false).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
}

/// Scenario: an acknowledgement is published while the writer lives on.
/// Guarantees: it is on disk soon, without the writer being ended.
#[test]
fn changes_reach_the_disk_soon() {
    let directory = tempfile::tempdir().unwrap();
    let (state, _) = open(directory.path(), false).unwrap();
    let clock = SystemClock::shared();
    let writer = Writer::spawn(state, Vec::new(), clock, Arc::default()).unwrap();
    writer.publisher().publish([(7, Some(checkpoint(5)))]);
    let published = Instant::now();
    while restore(&NodeDisk::new(directory.path())).unwrap().files != [checkpoint(5)] {
        assert!(published.elapsed() < Duration::from_secs(10), "not written");
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.finish();
}
