//! Tests of checkpoints on a real disk.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use super::*;
use crate::tail::uid::FileUid;
use crate::world::real::SystemClock;

fn checkpoint(offset: u64) -> FileCheckpoint {
    FileCheckpoint {
        tail_bytes: 0,
        tail_crc32: 0,
        length: 0,
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
