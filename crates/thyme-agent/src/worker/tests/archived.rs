//! Files that were compressed before they could be opened, or of which only the archive could not be, and
//! that are gone then.

use super::*;

const ROTATED: &str = "0.log.20260101-000000";
const NEXT: &str = "0.log.20260101-000010";

/// Time for a look at the directory.
const LOOK: Duration = Duration::from_secs(2);

fn archive(name: &str) -> String {
    format!("{name}.gz")
}

/// Scenario: row 39. A file can't be opened for want of a descriptor. It is rotated, grows by what its writer
/// still had, is compressed, and removed, with a look at its directory after each step, or after only some.
/// Guarantees: it counts once, with what it held, and not with what its archive took on disk.
#[test]
fn a_file_that_was_compressed_before_it_could_be_opened_counts_with_its_plain_length() {
    let text = "one line of many\n".repeat(200);
    for looks in [[true, true], [true, false], [false, true], [false, false]] {
        let mut scene = Scene::new(0, &[("0.log", &text)]);
        if looks[0] {
            scene.append("0.log", &text);
        }
        scene.rename("0.log", ROTATED);
        scene.append("0.log", "");
        if looks[0] {
            scene.pass(LOOK);
        }
        scene.compress(ROTATED);
        if looks[1] {
            scene.pass(LOOK);
        }
        assert_eq!(scene.not_opened(), (0, 0), "{looks:?}");
        scene.remove(&archive(ROTATED));
        scene.pass(LOOK);
        let held = text.len() as u64 * if looks[0] { 2 } else { 1 };
        assert_eq!(scene.not_opened(), (1, held), "{looks:?}");
        scene.stop();
        assert_eq!(scene.metrics.lost_files.get(), 1);
    }
}

/// Scenario: row 39. As above, twice, and another file was rotated and compressed between two looks behind the
/// one that was seen; the group's directory may be emptied, too.
/// Guarantees: the first counts with what it held, and so does what was live at that look; of the other nothing
/// but its archive was ever seen, and that is what counts. An empty file is no loss.
#[test]
fn archives_of_files_that_could_not_be_opened_count_each_with_its_own() {
    let text = |count: usize| "one line of many\n".repeat(count);
    let mut scene = Scene::new(0, &[(ROTATED, &text(100)), ("0.log", &text(50))]);
    scene.compress(ROTATED);
    scene.rename("0.log", NEXT);
    scene.compress(NEXT);
    let last = "0.log.20260101-000020";
    scene.append(last, text(30));
    scene.compress(last);
    let on_disk = fs::metadata(scene.at(&archive(last))).unwrap().len();
    scene.append("0.log", "");
    scene.pass(LOOK);
    scene.rename("0.log", "0.log.20260101-000030");
    scene.pass(LOOK);
    scene.compress("0.log.20260101-000030");
    scene.pass(LOOK);
    assert_eq!(scene.not_opened(), (0, 0));
    for name in [ROTATED, NEXT, last, "0.log.20260101-000030"] {
        scene.remove(&archive(name));
    }
    scene.pass(LOOK);
    assert_eq!(scene.not_opened(), (3, text(150).len() as u64 + on_disk));
}

/// Scenario: row 39. A file can't be opened, nor can its archive that already stands beside it; both are removed.
/// Guarantees: they count once, with what the file held.
#[test]
fn a_file_that_could_not_be_opened_and_its_archive_beside_it_count_once() {
    let mut scene = Scene::new(0, &[(ROTATED, "one\n")]);
    fs::hard_link(scene.at(ROTATED), scene.at("aside")).unwrap();
    scene.compress(ROTATED);
    scene.rename("aside", ROTATED);
    scene.pass(LOOK);
    scene.remove(ROTATED);
    scene.remove(&archive(ROTATED));
    scene.pass(LOOK);
    assert_eq!(scene.not_opened(), (1, 4));
}

/// Scenario: row 39. A file is open, or was read to its end and closed; the sink takes nothing, or everything.
/// It is rotated and compressed, with a look at its directory between the two or not, and its archive can't be
/// opened for want of a descriptor; that is removed.
/// Guarantees: nothing of it counts as lost, and all of it comes.
#[test]
fn an_archive_of_a_file_that_is_open_or_was_read_loses_nothing() {
    for (settles, is_seen) in [(true, true), (true, false), (false, true), (false, false)] {
        let case = format!("{settles} {is_seen}");
        let mut scene = Scene::new(16, &[("0.log", "one\n")]);
        scene.settles = settles;
        scene.append("0.log", "two\n");
        scene.until("it is read", |scene| scene.bodies.len() == 2);
        scene.hold_descriptors();
        scene.append("0.log", "three\n");
        scene.rename("0.log", ROTATED);
        scene.append("0.log", "");
        if is_seen {
            scene.pass(LOOK);
        }
        scene.compress(ROTATED);
        scene.pass(LOOK);
        scene.remove(&archive(ROTATED));
        scene.pass(LOOK);
        assert_eq!(scene.not_opened(), (0, 0), "{case}");
        assert_eq!(scene.bodies, ["one", "two", "three"], "{case}");
        scene.settles = true;
        scene.pass(LOOK);
        scene.stop();
        assert_eq!(scene.metrics.lost_files.get(), 0, "{case}");
    }
}

/// Scenario: row 39. An open live file is rotated and compressed between two looks, and its archive can't be
/// opened and is removed. Another one is made, and only its archive is ever seen, and removed.
/// Guarantees: the first loses nothing, and does not stand for the second one, too.
#[test]
fn an_open_file_stands_for_one_archive_only() {
    let mut scene = Scene::new(16, &[("0.log", "one\n")]);
    scene.settles = false;
    scene.until("it is read", |scene| scene.bodies.len() == 1);
    scene.hold_descriptors();
    for (name, lost) in [(ROTATED, 0), (NEXT, 1)] {
        scene.append("0.log", "two\n");
        scene.rename("0.log", name);
        scene.compress(name);
        let on_disk = fs::metadata(scene.at(&archive(name))).unwrap().len();
        scene.pass(LOOK);
        scene.remove(&archive(name));
        scene.pass(LOOK);
        assert_eq!(scene.not_opened(), (lost, lost * on_disk), "{name}");
    }
}

/// Scenario: row 39. A file can't be opened for want of a descriptor; it is removed, and another one has its name
/// before the next look, and perhaps its number.
/// Guarantees: it counts as lost with what it held, and the other one does not before it is removed, too.
#[test]
fn a_file_that_another_replaced_before_it_could_be_opened_counts() {
    let mut scene = Scene::new(0, &[("0.log", "one\n")]);
    let born = || NodeLogs::default().look_at(&scene.at("0.log")).unwrap().born_unix_nanos.unwrap();
    let before = born();
    // Births are told apart by the tick of a clock.
    while born() == before {
        scene.remove("0.log");
        scene.append("0.log", "three\n");
    }
    scene.pass(LOOK);
    assert_eq!(scene.not_opened(), (1, 4));
    scene.remove("0.log");
    scene.pass(LOOK);
    assert_eq!(scene.not_opened(), (2, 10));
}

/// Scenario: row 39. A file can't be opened for want of a descriptor. It grows, which changes nothing in its directory,
/// until long after that was made; then it is removed.
/// Guarantees: it counts with all that it held a second before.
#[test]
fn a_file_that_grows_while_it_waits_counts_with_what_it_grew_to() {
    let mut scene = Scene::new(0, &[("0.log", "one\n")]);
    scene.pass(LOOK * 2);
    scene.append("0.log", "three\n");
    scene.pass(LOOK);
    scene.remove("0.log");
    scene.pass(LOOK);
    assert_eq!(scene.not_opened(), (1, 10));
}

/// Scenario: row 39. What a checkpoint knows of a live file is acknowledged, or not all of it. It has grown since,
/// and can't be opened for want of a descriptor; it is rotated, perhaps compressed, and removed.
/// Guarantees: what it held beyond what was acknowledged counts as lost, in one file.
#[test]
fn a_file_with_a_checkpoint_that_could_not_be_opened_counts_with_what_it_had_grown_to() {
    let text = "one line of many\n".repeat(200);
    for (length, compresses) in [(8, false), (8, true), (14, false), (14, true)] {
        let mut scene = Scene::resumed(0, &[("0.log", &text)], |directory| {
            let inode = NodeLogs::default().look_at(&directory.join("0.log")).unwrap().inode;
            let line = format!(
                r#"{{"receiver": "file_log", "directory": "{}", "live": "0.log", "name": "0.log", "device": {},
                "inode": {}, "head_bytes": 4, "head_crc32": 0, "offset": 8, "length": {length}}}"#,
                directory.display(),
                inode.device,
                inode.inode,
            );
            vec![(1, serde_json::from_str(&line).unwrap())]
        });
        scene.rename("0.log", ROTATED);
        scene.pass(LOOK);
        if compresses {
            scene.compress(ROTATED);
            scene.pass(LOOK);
        }
        let lost = |scene: &Scene| {
            let bytes = LossReason::ALL.iter().map(|reason| scene.metrics.lost(*reason).get());
            (scene.metrics.lost_files.get(), bytes.sum::<u64>())
        };
        assert_eq!(lost(&scene), (0, 0));
        scene.remove(&if compresses { archive(ROTATED) } else { ROTATED.to_owned() });
        scene.pass(LOOK);
        assert_eq!(lost(&scene), (1, text.len() as u64 - 8), "{length} {compresses}");
    }
}
