//! Tests of checkpoints on a real disk.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use bytes::Bytes;

use super::*;
use crate::{
    config::Compression,
    limits::JOURNAL_BYTES_MIN,
    queue::{Request, Token},
    said::Said,
    spool::{Spool, SpoolMessage, SpoolStart},
    tail::{acknowledge::Acknowledged, uid::FileUid},
    worker::KeySource,
};

fn checkpoint(offset: u64) -> FileCheckpoint {
    FileCheckpoint {
        receiver: "file_log/pods".into(),
        directory: Path::new(OsStr::from_bytes(b"/logs/100%\xff/c")).into(),
        live: OsStr::new("0.log").into(),
        name: OsStr::new("0.log.20260101-000000").into(),
        device: 1,
        inode: 2,
        head_bytes: 3,
        head_crc32: 4,
        tail_bytes: 0,
        tail_crc32: 0,
        length: 0,
        offset,
        beyond: vec![(10, 20)],
        finished: false,
        uid: None,
        former_uid: None,
        others: None,
    }
}

const SINK: &str = "otlp_grpc/backend";

fn spawn(state: State) -> Writer {
    Writer::spawn(state, SINK, Vec::new(), SystemClock::shared(), Arc::default()).unwrap()
}

/// What is on disk, as the sink is to go on.
fn restored(directory: &Path) -> Restored {
    let (_, restored) = open_on(Arc::new(NodeDisk::new(directory)), None, 1).unwrap();
    let files = restored.files.into_iter().map(|file| file.of_sink(SINK)).collect();
    Restored { files, ..restored }
}

fn write(directory: &Path, offset: u64) {
    let (state, _) = open(directory, true).unwrap();
    let writer = spawn(state);
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
    let (state, first) = open(directory.path(), false).unwrap();
    assert!(first.is_first_start && first.files.is_empty());
    drop(state);
    write(directory.path(), 5);
    let again = restored(directory.path());
    assert!(!again.is_first_start);
    assert_eq!(again.files, [checkpoint(5)]);
}

/// What version 1 of the agent reads of a line; it passes over what it does not know.
#[derive(Debug, PartialEq, serde::Deserialize)]
struct LineOfVersion1 {
    directory: String,
    live: String,
    name: String,
    device: u64,
    inode: u64,
    head_bytes: u32,
    head_crc32: u32,
    offset: u64,
    #[serde(default)]
    beyond: Vec<(u64, u64)>,
    #[serde(default)]
    finished: bool,
}

/// What version 1 of the agent reads.
fn read_by_version_1(snapshot: &[u8]) -> Vec<LineOfVersion1> {
    let lines = frame::open("thyme-checkpoints 1", snapshot).unwrap();
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

const LINE_OF_VERSION_1: &str = r#"{"directory":"/logs","live":"0.log","name":"0.log","device":1,"inode":2,"head_bytes":3,"head_crc32":4,"offset":5}"#;

fn only(files: format::Files) -> FileCheckpoint {
    assert_eq!(files.len(), 1);
    files.into_values().next().unwrap().of_sink(SINK)
}

/// Scenario: a line that version 1 wrote, before it knew identities, and one with both of them.
/// Guarantees: the first is read as one of no receiver and without identities; the second comes
/// back.
#[test]
fn identities_are_optional() {
    let old = frame::seal("thyme-checkpoints 1", LINE_OF_VERSION_1.as_bytes());
    let read = only(format::decode(&old).unwrap());
    assert_eq!((read.uid, read.former_uid, &*read.receiver), (None, None, ""));
    assert_eq!((read.offset, read.others.is_none()), (5, true));
    let derive = |line: &[u8]| FileUid::derive(&read.directory, &read.live, line, None);
    let (uid, former) = (derive(b"a"), derive(b"b").distinct_from([derive(b"b")], None));
    let with = FileCheckpoint { uid: Some(uid), former_uid: Some(former), ..read };
    let bytes = format::encode([(9, &with)].into_iter(), SINK);
    assert_eq!(only(format::decode(&bytes).unwrap()), with);
}

/// Scenario: a line with all that this version knows.
/// Guarantees: none of its keys is taken for an unknown one.
#[test]
fn every_key_is_known() {
    let uid = FileUid::derive(Path::new("/logs"), OsStr::new("0.log"), b"a", None);
    let full = FileCheckpoint {
        tail_bytes: 6,
        tail_crc32: 7,
        length: 8,
        finished: true,
        uid: Some(uid),
        former_uid: Some(uid),
        ..checkpoint(5)
    };
    let bytes = format::encode([(9, &full)].into_iter(), SINK);
    assert_eq!(only(format::decode(&bytes).unwrap()), full);
}

/// Scenario: a later version wrote keys that this one does not know, for a file, for its position,
/// and for another sink; the agent starts, the file's position moves, and it ends.
/// Guarantees: all of them are on disk again; the other sink's position stands where it was.
#[test]
fn unknown_keys_are_kept() {
    let line = r#"{"key":4,"receiver":"file_log/pods","directory":"/logs","live":"0.log","name":"0.log","device":1,"inode":2,"head_bytes":3,"head_crc32":4,"offset":5,"mood":["good"],"positions":{"otlp_grpc/backend":{"offset":7,"hue":1},"kafka":{"offset":5,"shade":2}}}"#;
    let directory = tempfile::tempdir().unwrap();
    let bytes = frame::seal("thyme-checkpoints 1", line.as_bytes());
    fs::write(directory.path().join(CURRENT_NAME), bytes).unwrap();
    let (state, restored) = open(directory.path(), false).unwrap();
    let file = restored.files.into_iter().next().unwrap().of_sink(SINK);
    assert_eq!(file.offset, 7);
    let moved = FileCheckpoint { offset: 8, others: None, ..file.clone() };
    let resumed = vec![(3, Some(file))];
    let writer = Writer::spawn(state, SINK, resumed, SystemClock::shared(), Arc::default());
    let writer = writer.unwrap();
    writer.publisher().publish([(3, Some(moved))]);
    writer.finish();
    let text = fs::read_to_string(directory.path().join(CURRENT_NAME)).unwrap();
    for part in [r#""mood":["good"]"#, r#""offset":8,"hue":1"#, r#""kafka":{"offset":5,"shade":2}"#]
    {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

/// Scenario: two receivers have read a file up to different places; version 1 of the agent, which
/// knows no receivers, reads what was written, and then this version again.
/// Guarantees: version 1 misses nothing, whichever line it takes; this version knows both positions.
#[test]
fn an_older_version_is_told_the_lesser_of_two_positions() {
    let behind = checkpoint(5);
    let ahead = FileCheckpoint { receiver: "file_log/other".into(), ..checkpoint(8) };
    let bytes = format::encode([(1, &behind), (2, &ahead)].into_iter(), SINK);
    let read = read_by_version_1(&bytes);
    assert_eq!(read.iter().map(|line| line.offset).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(read.iter().map(|line| line.beyond.len()).collect::<Vec<_>>(), [1, 0]);
    let files = format::decode(&bytes).unwrap().into_values().map(|file| file.of_sink(SINK));
    assert_eq!(files.collect::<Vec<_>>(), [behind, ahead]);
}

/// An archive that was read to its end, and the live file, which has got its number.
fn of_one_number(receiver: &str) -> [FileCheckpoint; 2] {
    let receiver: Arc<str> = receiver.into();
    let live = OsStr::new("0.log").into();
    let archive = FileCheckpoint { receiver, finished: true, ..checkpoint(10_000) };
    let live = FileCheckpoint { name: live, head_crc32: 5, finished: false, ..archive.clone() };
    [archive, FileCheckpoint { offset: 3_000, ..live }]
}

/// Scenario: an archive was read to its end, and the live file has the number that it had.
/// Guarantees: an older version is told of both what is so.
#[test]
fn an_older_version_knows_an_archive_and_the_next_file_of_its_number() {
    let [archive, live] = of_one_number("file_log/pods");
    let read = read_by_version_1(&format::encode([(1, &archive), (2, &live)].into_iter(), SINK));
    let positions: Vec<_> = read.iter().map(|line| (line.offset, line.finished)).collect();
    assert_eq!(positions, [(10_000, true), (3_000, false)]);
}

/// Scenario: as before, in the state of a version that knew no receivers, and in that of a receiver
/// that has another name now; also with one position in both files.
/// Guarantees: the present receiver goes on in both where it was.
#[test]
fn an_archive_and_the_next_file_of_its_number_are_both_adopted() {
    let receivers = ["file_log/pods".into()];
    let owners = Owners { receivers: &receivers, includes: &|_, _| true, sink: SINK };
    for former in ["", "file_log/former"] {
        for offset in [3_000, 10_000] {
            let [archive, live] = of_one_number(former);
            let files = vec![archive, FileCheckpoint { offset, ..live }];
            let adopted = adopt(files, &owners, &KeySource::default());
            let is = |(_, file): &(FileKey, FileCheckpoint)| {
                (file.receiver.to_string(), file.offset, file.finished)
            };
            let pods = || "file_log/pods".to_owned();
            let adopted: Vec<_> = adopted.iter().map(is).collect();
            assert_eq!(adopted, [(pods(), 10_000, true), (pods(), offset, false)]);
        }
    }
}

/// A table that a test writes by hand.
fn table(directory: &Path, resumed: Vec<Change>) -> (Publisher, Table) {
    let (state, _) = open(directory, true).unwrap();
    let (publisher, _, mut table) =
        Table::new(state, SINK, resumed, SystemClock::shared(), Arc::default());
    assert_eq!(table.write(true), Saved::Synced);
    (publisher, table)
}

fn journal_of(directory: &Path) -> PathBuf {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_journal = |path: &PathBuf| path.to_string_lossy().contains("/journal.");
    names.filter(is_journal).max().expect("a journal")
}

fn remove_journals(directory: &Path) {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    for path in names.filter(|path| path.to_string_lossy().contains("/journal.")) {
        fs::remove_file(path).unwrap();
    }
}

/// Scenario: row 15. Positions move, files come and go, one write after the other; then the process
/// is killed, the journal is cut at each of its bytes, or one of its bytes is flipped.
/// Guarantees: what comes back is what stood after one of the writes; after a kill, after the last;
/// and the longer the journal is, the later.
#[test]
fn a_torn_journal_is_read_up_to_the_tear() {
    let directory = tempfile::tempdir().unwrap();
    let (publisher, mut table) = table(directory.path(), vec![(1, Some(checkpoint(1)))]);
    let mut states = vec![vec![checkpoint(1)]];
    let changes: [Change; 5] = [
        (1, Some(checkpoint(2))),
        (2, Some(FileCheckpoint { inode: 9, ..checkpoint(6) })),
        (1, Some(FileCheckpoint { finished: true, ..checkpoint(3) })),
        (1, None),
        (2, Some(FileCheckpoint { name: OsStr::new("1").into(), inode: 9, ..checkpoint(6) })),
    ];
    for change in changes {
        publisher.publish([change]);
        assert_eq!(table.turn(false), Saved::Written);
        states.push(table.files.values().cloned().collect());
    }
    // Nothing has changed: nothing is written.
    let journal = journal_of(directory.path());
    let good = fs::read(&journal).unwrap();
    publisher.publish([(2, states[5].last().cloned())]);
    assert_eq!(table.turn(false), Saved::No);
    assert_eq!(fs::read(&journal).unwrap(), good);
    drop(table);
    assert_eq!(restored(directory.path()).files, states[5]);
    let mut last = 0;
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        for (is_cut, damaged) in [(false, flipped), (true, good[..at].to_vec())] {
            fs::write(&journal, damaged).unwrap();
            let files = restored(directory.path()).files;
            let state = states.iter().position(|state| *state == files);
            let state = state.unwrap_or_else(|| panic!("byte {at}: {files:?}"));
            if is_cut {
                assert!(state >= last, "byte {at}: {state} after {last}");
                last = state;
            }
        }
    }
    assert_eq!(last, 4);
}

/// Scenario: row 16. The snapshot is damaged after the agent has gone on from it in the same life.
/// Guarantees: the one before it, its journal, and what was written since lose nothing.
#[test]
fn a_damaged_snapshot_is_made_good_by_both_journals() {
    let directory = tempfile::tempdir().unwrap();
    let (publisher, mut table) = table(directory.path(), vec![(1, Some(checkpoint(1)))]);
    publisher.publish([(1, Some(checkpoint(2)))]);
    assert_eq!(table.turn(false), Saved::Written);
    publisher.publish([(2, Some(checkpoint(6)))]);
    assert_eq!(table.turn(true), Saved::Synced);
    publisher.publish([(1, Some(checkpoint(3)))]);
    assert_eq!(table.turn(false), Saved::Written);
    drop(table);
    let expected = [checkpoint(3), checkpoint(6)];
    assert_eq!(restored(directory.path()).files, expected);
    fs::write(directory.path().join(CURRENT_NAME), "damaged").unwrap();
    assert_eq!(restored(directory.path()).files, expected);
}

/// Scenario: row 48. Checkpoints of files that are gone: nothing acknowledged, a prefix, ranges beyond it,
/// all of it.
/// Guarantees: what they held and was not acknowledged is lost, and nothing else.
#[test]
fn what_was_acknowledged_is_not_lost() {
    let lost = |offset, beyond: &[(u64, u64)], finished| {
        let beyond = beyond.to_vec();
        FileCheckpoint { length: 100, offset, beyond, finished, ..checkpoint(0) }.lost_bytes()
    };
    assert_eq!(lost(0, &[], false), 100);
    assert_eq!(lost(30, &[], false), 70);
    assert_eq!(lost(30, &[(40, 50), (90, 100)], false), 50);
    assert_eq!((lost(100, &[], false), lost(100, &[], true)), (0, 0));
}

/// Scenario: row 44. 500 files are known, and one of them grows, a write after the other.
/// Guarantees: a write is a line about that file, not the table; the journal is replaced before it
/// is longer than its limit, and not more than two journals and two snapshots are on disk.
#[test]
fn what_has_changed_is_written_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = |key: u64| FileCheckpoint { inode: key, ..checkpoint(0) };
    let resumed = (0..500).map(|key| (key, Some(file(key)))).collect();
    let (publisher, mut table) = table(directory.path(), resumed);
    let metrics = Arc::clone(&table.metrics);
    let (mut replaced, mut before) = (0, metrics.checkpoint_bytes.get());
    let snapshot_bytes = before;
    for offset in 1..6_000 {
        publisher.publish([(7, Some(FileCheckpoint { offset, ..file(7) }))]);
        assert_ne!(table.turn(false), Saved::No);
        let written = metrics.checkpoint_bytes.get() - before;
        before += written;
        if written > 250 {
            replaced += 1;
            let bytes: u64 = fs::read_dir(directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().metadata().unwrap().len())
                .sum();
            let journal_bytes = JOURNAL_BYTES_MIN.max(2 * snapshot_bytes);
            assert!(bytes < 2 * (snapshot_bytes + journal_bytes) + 4_096, "{bytes} bytes on disk");
        }
    }
    assert!((1..=4).contains(&replaced), "{replaced} snapshots");
    drop(table);
    let moved = restored(directory.path()).files.into_iter().find(|file| file.inode == 7);
    assert_eq!(moved.unwrap().offset, 5_999);
}

/// Scenario: row 44. Writes of few and of very many bytes.
/// Guarantees: the next write waits at least 100 ms and at most a second, and in between so long that
/// not more than 4 MiB are written a second.
#[test]
fn much_that_changes_is_written_less_often() {
    assert_eq!(pause_after(100), WRITE_INTERVAL);
    assert_eq!(pause_after(CHECKPOINT_BYTES_PER_SECOND / 2), Duration::from_millis(500));
    assert_eq!(pause_after(1 << 40), SYNC_INTERVAL);
}

/// Scenario: row 16. Both generations are damaged and no journal is left, then the agent starts, writes and starts again.
/// Guarantees: both are set aside, all files are read again, it is no first start, and the next one
/// finds what was written.
#[test]
fn damage_to_both_generations_reads_all_again() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 5);
    for name in [CURRENT_NAME, SYNCED_NAME] {
        fs::write(directory.path().join(name), "damaged").unwrap();
    }
    remove_journals(directory.path());
    let (state, found) = open(directory.path(), false).unwrap();
    assert!(found.files.is_empty() && !found.is_first_start);
    for name in ["checkpoints.corrupt", "checkpoints.synced.corrupt"] {
        assert_eq!(fs::read(directory.path().join(name)).unwrap(), b"damaged");
    }
    spawn(state).finish();
    write(directory.path(), 6);
    assert_eq!(restored(directory.path()).files, [checkpoint(6)]);
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
    let older = format::encode([(7, &checkpoint(3))].into_iter(), SINK);
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        for damaged in [flipped, good[..at].to_vec()] {
            fs::write(&current, &damaged).unwrap();
            fs::write(directory.path().join(SYNCED_NAME), &older).unwrap();
            let restored = restored(directory.path());
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
            fs::remove_file(directory.path().join(name)).ok();
            let content = if damaged.contains(&name) { b"garbage" } else { &good[..] };
            fs::write(directory.path().join(name), content).unwrap();
        }
        remove_journals(directory.path());
        let (restored, log) = start_and_listen(directory.path());
        assert!(!restored.is_first_start);
        (restored.files.len(), log)
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

/// A life of the agent ends with this checkpoint, of the file with the number 7.
fn end_with(disk: &Arc<dyn StateDisk>, life: u64, file: FileCheckpoint) {
    let (state, _) = open_on(Arc::clone(disk), None, life).unwrap();
    let writer = spawn(state);
    writer.publisher().publish([(7, Some(file))]);
    writer.finish();
}

/// Puts a request into the spool that life 5 has made of these bytes.
fn keep(disk: &Arc<dyn StateDisk>, covers: Vec<Covered>) {
    let (requests, _none) = tokio::sync::mpsc::channel(1);
    let start = SpoolStart {
        disk: Arc::clone(disk),
        bytes_max: 1 << 20,
        life: 5,
        requests,
        clock: SystemClock::shared(),
        metrics: Arc::default(),
    };
    let (mut spool, links) = Spool::open(start, 1).unwrap();
    let (reply, _told) = crossbeam_channel::unbounded();
    let request = Request {
        body: vec![Bytes::from_static(b"body")],
        body_bytes: 4,
        uncompressed_bytes: 4,
        records: 1,
        source_bytes: 700,
        compression: Compression::None,
        reply,
        settled: Acknowledged::default(),
        token: Token { covers, ..Token::default() },
    };
    links[0].messages.send(SpoolMessage::Keep { request, worker: 0 }).unwrap();
    spool.step();
}

/// Scenario: row 48. A start finds a checkpoint of a file, and in the spool a request of the same life that
/// covers more of it; another sink has a position in it, too.
/// Guarantees: the position goes over it, whichever sink goes on; what stood in front of the place before
/// holds no more; the next start, whose numbers are others, takes nothing over again.
#[test]
fn what_the_spool_has_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn StateDisk> = Arc::new(NodeDisk::new(directory.path()));
    let file = FileCheckpoint { tail_bytes: 4, tail_crc32: 1, length: 900, ..checkpoint(100) };
    end_with(&disk, 5, file.clone());
    keep(&disk, vec![(7, 100, 300), (7, 400, 900), (8, 0, 5)]);
    for sink in [SINK, "otlp_grpc/other"] {
        let (_, restored) = open_on(Arc::clone(&disk), None, 6).unwrap();
        let [found] = &restored.files[..] else { panic!("{restored:?}") };
        let found = found.clone().of_sink(sink);
        assert_eq!((found.offset, &found.beyond[..]), (300, &[(400, 900)][..]));
        assert_eq!((found.tail_bytes, found.lost_bytes()), (0, 100));
    }
    end_with(&disk, 6, file);
    assert_eq!(restored(directory.path()).files[0].offset, 100);
}

/// Scenario: row 48. The file of a checkpoint was empty when that was written; the spool has a request of the same
/// life with bytes of it, and the agent is killed before a checkpoint says more. Meanwhile the file's number may
/// have been given to its successor.
/// Guarantees: nothing of what is there now is taken for settled.
#[test]
fn what_the_spool_has_of_a_file_that_nothing_was_known_of_settles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn StateDisk> = Arc::new(NodeDisk::new(directory.path()));
    end_with(
        &disk,
        5,
        FileCheckpoint { head_bytes: 0, head_crc32: 0, beyond: vec![], ..checkpoint(0) },
    );
    keep(&disk, vec![(7, 0, 300), (7, 400, 900)]);
    let (_, restored) = open_on(disk, None, 6).unwrap();
    let [found] = &restored.files[..] else { panic!("{restored:?}") };
    let found = found.clone().of_sink(SINK);
    assert_eq!((found.offset, found.beyond), (0, vec![]));
}

/// What a start finds, and what it says.
fn start_and_listen(directory: &Path) -> (Restored, String) {
    let said = Said::default();
    let listening = said.listen();
    let restored = open(directory, false).unwrap().1;
    drop(listening);
    (restored, said.text())
}

/// Scenario: row 71. A snapshot and a journal with a file that came since and one that has moved since;
/// then the snapshots are gone, or the journal is, or the journal's first line is damaged.
/// Guarantees: what follows is said with the path; without snapshots what the journal says by itself is
/// used, and it is no first start; without the journal the snapshot is. An undamaged start says
/// nothing.
#[test]
fn a_missing_snapshot_or_journal_is_said() {
    let prepared = |change: &dyn Fn(&Path, &Path)| {
        let directory = tempfile::tempdir().unwrap();
        let (publisher, mut table) = table(directory.path(), vec![(1, Some(checkpoint(1)))]);
        let fresh = |offset| FileCheckpoint { inode: 9, ..checkpoint(offset) };
        for change in [(1, checkpoint(2)), (2, fresh(6)), (2, fresh(7))] {
            publisher.publish([(change.0, Some(change.1))]);
            assert_eq!(table.turn(false), Saved::Written);
        }
        drop(table);
        change(directory.path(), &journal_of(directory.path()));
        let (restored, log) = start_and_listen(directory.path());
        assert!(!restored.is_first_start, "{log}");
        let files = restored.files.into_iter().map(|file| file.of_sink(SINK));
        let offsets: Vec<_> = files.map(|file| (file.inode, file.offset)).collect();
        (offsets, log)
    };
    let (offsets, log) = prepared(&|_, _| {});
    assert_eq!((&offsets[..], &log[..]), (&[(2, 2), (9, 7)][..], ""));
    let (offsets, log) = prepared(&|directory, _| {
        for name in [CURRENT_NAME, SYNCED_NAME] {
            fs::remove_file(directory.join(name)).ok();
        }
    });
    assert_eq!(offsets, [(9, 7)]);
    assert!(log.contains("all others are read again") && log.contains("/checkpoints"), "{log}");
    let (offsets, log) = prepared(&|directory, journal| {
        for name in [CURRENT_NAME, SYNCED_NAME] {
            fs::remove_file(directory.join(name)).ok();
        }
        fs::write(journal, "garbage\n").unwrap();
    });
    assert_eq!(offsets, []);
    assert!(log.contains("all files are read again"), "{log}");
    for damage in [true, false] {
        let (offsets, log) = prepared(&|_, journal| {
            if damage {
                let mut bytes = fs::read(journal).unwrap();
                bytes[3] ^= 1;
                fs::write(journal, bytes).unwrap();
            } else {
                fs::remove_file(journal).unwrap();
            }
        });
        assert_eq!(offsets, [(2, 1)]);
        assert!(log.contains("WARN") && log.contains("/journal."), "{log}");
        assert!(log.contains("files are read again from where they were"), "{log}");
    }
}

/// Scenario: row 71. A state that is seconds old: its snapshot is the first one, which knows no file, and its
/// journal has all. Then the journal is removed.
/// Guarantees: that all is read again is said, as it is of any other journal.
#[test]
fn a_missing_journal_of_the_first_snapshot_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let (publisher, mut table) = table(directory.path(), Vec::new());
    publisher.publish([(1, Some(checkpoint(500)))]);
    assert_eq!(table.turn(false), Saved::Written);
    drop(table);
    let (_, log) = start_and_listen(directory.path());
    assert_eq!(log, "");
    remove_journals(directory.path());
    let (restored, log) = start_and_listen(directory.path());
    assert!(restored.files.is_empty() && !restored.is_first_start, "{log}");
    assert!(log.contains("WARN") && log.contains("/journal."), "{log}");
    assert!(log.contains("files are read again"), "{log}");
}

/// Scenario: row 71. At random, bytes of snapshots and journal are flipped, cut off or doubled, and
/// whole files removed or given each other's names, after a few writes of positions that only grow.
/// Guarantees: the start ends well; a file goes on from a place where it was once, never from one that
/// is ahead; unless all is as it was, that is said; and it is a first start only where nothing is left.
#[test]
fn no_damage_to_the_state_moves_a_position_ahead() {
    let mut state = 1;
    let mut below = move |end: usize| {
        usize::try_from(thyme_core::splitmix::next(&mut state) % end as u64).unwrap()
    };
    for round in 0..120 {
        let directory = tempfile::tempdir().unwrap();
        let file = |key: u64, offset| FileCheckpoint { inode: key, ..checkpoint(offset) };
        let resumed = (1..3).map(|key| (key, Some(file(key, 0)))).collect();
        let (publisher, mut table) = table(directory.path(), resumed);
        let mut known: BTreeMap<u64, u64> = [(1, 0), (2, 0)].into();
        for _ in 0..below(12) {
            let key = 1 + below(4) as u64;
            let offset = known.entry(key).or_insert(0);
            *offset += 1 + below(5) as u64;
            publisher.publish([(key, Some(file(key, *offset)))]);
            // At its end it writes a snapshot, and goes on with another journal.
            table.turn(below(4) == 0);
        }
        drop(table);
        let mut names: Vec<PathBuf> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("lock"))
            .collect();
        names.sort();
        for _ in 0..=below(2) {
            let path = &names[below(names.len())];
            let Ok(mut bytes) = fs::read(path) else { continue };
            // Not through a second name of the same file.
            fs::remove_file(path).unwrap();
            let at = below(bytes.len().max(1));
            match below(5) {
                0 => continue,
                1 => bytes.truncate(at),
                2 => bytes.extend_from_within(at..),
                3 => {
                    let other = &names[below(names.len())];
                    fs::write(other, &bytes).unwrap();
                    continue;
                }
                _ if bytes.is_empty() => {}
                _ => bytes[at] ^= 1 << below(8),
            }
            fs::write(path, bytes).unwrap();
        }
        let is_empty = names.iter().all(|path| !path.exists());
        let (restored, log) = start_and_listen(directory.path());
        let mut is_as_it_was = restored.files.len() == known.len();
        for file in restored.files.into_iter().map(|file| file.of_sink(SINK)) {
            let newest = known.get(&file.inode).copied();
            assert!(newest.is_some_and(|newest| file.offset <= newest), "{round}: {file:?}: {log}");
            is_as_it_was &= newest == Some(file.offset);
        }
        assert!(is_as_it_was || !log.is_empty() || restored.is_first_start, "{round}: silent");
        assert_eq!(restored.is_first_start, is_empty, "{round}: {known:?}");
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

/// Scenario: row 16. The very first start is killed when its first snapshot is whole, with its journal, and before
/// it has its name.
/// Guarantees: the next start goes on with it, and does not say that anything is damaged.
#[test]
fn a_first_start_that_was_killed_before_its_snapshot_had_a_name_left_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 5);
    let at = |name: &str| directory.path().join(name);
    std::fs::rename(at(CURRENT_NAME), at(FRESH_NAME)).unwrap();
    std::fs::remove_file(at(SYNCED_NAME)).ok();
    let said = Said::default();
    let listening = said.listen();
    let restored = restored(directory.path());
    drop(listening);
    assert_eq!(said.text(), "");
    assert!(!restored.is_first_start);
    assert_eq!(restored.files, [checkpoint(5)]);
}

/// Scenario: acknowledgements are published while the writer lives on.
/// Guarantees: each is on disk, without the writer being ended, and that takes 200 ms at most, unless the machine
/// has something else to do: one of many has it.
#[test]
fn changes_reach_the_disk_soon() {
    let directory = tempfile::tempdir().unwrap();
    let (state, _) = open(directory.path(), false).unwrap();
    let writer = spawn(state);
    let time = |offset: u64| {
        writer.publisher().publish([(7, Some(checkpoint(offset)))]);
        let published = Instant::now();
        while restored(directory.path()).files != [checkpoint(offset)] {
            assert!(published.elapsed() < Duration::from_secs(10), "not written");
            std::thread::sleep(Duration::from_millis(5));
        }
        published.elapsed()
    };
    assert!((0..50).any(|offset| time(offset) <= Duration::from_millis(200)));
    writer.finish();
}
