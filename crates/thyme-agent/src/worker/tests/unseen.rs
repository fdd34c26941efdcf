//! Files that are gone, out of sight, or can't be read.

use super::*;
use crate::{
    discover::{FoundFile, Snapshot},
    tail::source::Source as Bytes,
    world::{FileState, LogFile},
};

/// A deleted file that gives an error at each read.
#[derive(Debug)]
struct Unreadable;

impl LogFile for Unreadable {
    fn read_at(&self, _: &mut [u8], _: u64) -> std::io::Result<usize> {
        Err(std::io::Error::other("a bad block"))
    }

    fn state(&self) -> std::io::Result<FileState> {
        Ok(FileState { bytes: 100, modified_unix_nanos: 0, has_name: false })
    }

    fn born_unix_nanos(&self) -> Option<u64> {
        None
    }
}

/// The only group sees these files, and perhaps not all that there are.
fn see(scene: &mut Scene, names: &[&str], is_complete: bool) {
    let found = names.iter().map(|name| FoundFile {
        name: name.into(),
        born: None,
        inode: NodeLogs::default().look_at(&scene.at(name)).unwrap().inode,
        opened: None,
        is_renamed: false,
        old_bytes: None,
        charge: Charge::default(),
    });
    let snapshot = Snapshot {
        files: found.collect(),
        key: Arc::clone(&scene.worker.groups.values().next().unwrap().key),
        is_complete,
        is_replaced: false,
        missed: Vec::new(),
        resume: Vec::new(),
        start_at: crate::config::StartAt::Beginning,
    };
    scene.worker.apply_snapshot(snapshot).unwrap();
}

const ROTATED: &str = "0.log.20260101-000000";

/// Scenario: rows 48 and 67. The agent stops while a deleted file can't be read, now or ever; a line of
/// another one is in the open batch.
/// Guarantees: the line is sent at once, and not at the deadline, when nobody waits for it any more; then
/// the stop ends.
#[test]
fn a_deleted_file_that_cannot_be_read_does_not_hold_up_a_stop() {
    let mut scene = Scene::new(16, &[("a.log", "one\n"), ("b.log", "two\n")]);
    scene.until("both are read", |scene| scene.bodies.len() == 2);
    let file = scene.worker.files.values_mut().find(|file| *file.name == *"a.log").unwrap();
    file.source = Some(Bytes::Plain(Box::new(Unreadable)));
    scene.append("b.log", "three\n");
    scene.until("it is in the open batch", |scene| scene.worker.batch.record_count == 1);
    scene.remove("a.log");
    scene.messages.send(WorkerMessage::Stop).unwrap();
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.bodies[2..], ["three"]);
    while scene.step() != Step::End {}
    assert_eq!(scene.metrics.lost(LossReason::Shutdown).get(), 96);
}

/// Scenario: rows 39 and 48. Of a deleted file of twelve bytes four in the middle were acknowledged before a
/// restart, and nothing was read since. It is closed for the budget, or was parked.
/// Guarantees: eight are lost.
#[test]
fn what_was_acknowledged_behind_the_place_of_reading_is_not_lost() {
    for is_parked in [false, true] {
        let mut scene = Scene::new(16, &[("a.log", "")]);
        scene.until("it is known", |scene| scene.file("a.log").is_some());
        scene.append("a.log", "one\ntwo\nsix\n");
        let (id, file) = scene.worker.files.iter_mut().next().unwrap();
        let (id, number) = (*id, file.group);
        file.acknowledged.add(4, 8);
        let now = scene.clock.now();
        let reason = if is_parked {
            file.look_again();
            (file.source, file.is_parked, file.is_present) = (None, true, false);
            scene.worker.end_parked(number, now);
            scene.step();
            LossReason::NotOpened
        } else {
            scene.worker.lose_rest(id, LossReason::DeletedFilesBudget, now);
            LossReason::DeletedFilesBudget
        };
        assert_eq!(scene.metrics.lost(reason).get(), 8, "{is_parked}");
    }
}

/// Scenario: row 39. A rotated file is parked, with a line in it that was not read; one look at its directory
/// does not see all of it.
/// Guarantees: nothing is lost: when it is seen again, it is read on.
#[test]
fn a_parked_file_that_a_look_did_not_see_is_read_on() {
    let mut scene = Scene::with_parked(4);
    scene.hold_descriptors();
    scene.append("0.log", "three\n");
    scene.rename("0.log", ROTATED);
    scene.until("it has its name", |scene| scene.is_parked(ROTATED));
    scene.until("it is seen to have grown", |scene| scene.file(ROTATED).unwrap().length == 14);
    see(&mut scene, &[], false);
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.not_opened(), (0, 0));
    see(&mut scene, &[ROTATED], true);
    scene.held.clear();
    scene.until("it is read on", |scene| scene.bodies.len() == 3);
}

/// Scenario: rows 46 and 68. A rotated file was read to its end and closed. For a while looks at its directory
/// don't see all of it; later a late writer goes on.
/// Guarantees: what it writes is read, and nothing a second time.
#[test]
fn a_closed_file_that_was_out_of_sight_is_looked_at_again() {
    let mut scene = Scene::new(16, &[("0.log", "one\n")]);
    scene.until("it is read", |scene| scene.bodies.len() == 1);
    scene.rename("0.log", ROTATED);
    scene.append("0.log", "two\n");
    scene.until("it is closed", |scene| scene.is_closed(ROTATED));
    see(&mut scene, &["0.log"], false);
    scene.pass(LATE_LOOK_INTERVAL);
    see(&mut scene, &["0.log", ROTATED], true);
    scene.append(ROTATED, "late\n");
    scene.until("the late line is read", |scene| scene.bodies.len() == 3);
    assert_eq!(scene.bodies, ["one", "two", "late"]);
}

/// Scenario: row 46. A live file is moved elsewhere, and closed, before all of it is settled; it gets another line
/// and comes back as an archive.
/// Guarantees: the line is read.
#[test]
fn a_closed_live_file_that_comes_back_as_an_archive_is_read_on() {
    let mut scene = Scene::new(16, &[("0.log", "one\ntwo\n")]);
    scene.settles = false;
    scene.until("it is read", |scene| scene.bodies.len() == 2);
    fs::create_dir(scene.at("elsewhere")).unwrap();
    scene.rename("0.log", "elsewhere/0");
    scene.wanted = 1;
    scene.until("it is closed", |scene| {
        scene.file("0.log").is_some_and(|file| file.is_finished() && file.source.is_none())
    });
    scene.wanted = 0;
    scene.append("elsewhere/0", "three\n");
    scene.rename("elsewhere/0", ROTATED);
    scene.compress(ROTATED);
    scene.until("it is read on", |scene| scene.bodies.len() == 3);
    assert_eq!(scene.bodies, ["one", "two", "three"]);
}

/// Scenario: row 39. Three files were read and are quiet; somebody waits for one descriptor, and two workers look
/// after that.
/// Guarantees: one file is closed, and not one by each of them.
#[test]
fn what_one_worker_gives_up_no_other_does() {
    let files = [("a.log", "one\n"), ("b.log", "two\n"), ("c.log", "three\n")];
    let mut scene = Scene::new(16, &files);
    scene.until("all are read", |scene| scene.bodies.len() == 3);
    scene.pass(Duration::from_secs(1));
    scene.descriptors.want(1);
    for _ in 0..2 {
        scene.worker.give_up_descriptors(scene.clock.now());
    }
    assert_eq!(scene.worker.files.values().filter(|file| file.is_parked).count(), 1);
}
