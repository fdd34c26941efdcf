//! Numbers of files that are gone are used again, while a parked file is known without a descriptor that would
//! keep its own; and what files without descriptors grow to before they are gone.

use super::*;

const ROTATED: &str = "0.log.20260101-000000";
const NEXT: &str = "0.log.20260101-000010";

/// Time for a look at the directory.
const LOOK: Duration = Duration::from_secs(2);

impl Scene {
    fn number(&self, name: &str) -> u64 {
        self.numbers.clone().look_at(&self.at(name)).unwrap().inode.inode
    }

    /// A new file that has this number, and came to be in a later tick of the kernel's clock than `before`.
    fn make(&self, name: &str, text: &str, number: u64, before: Option<u64>) -> Option<u64> {
        loop {
            fs::write(self.at(name), text).unwrap();
            let looked = NodeLogs::default().look_at(&self.at(name)).unwrap();
            if before.is_none() || looked.born_unix_nanos != before {
                self.numbers.0.lock().unwrap().insert(looked.inode.inode, number);
                return looked.born_unix_nanos;
            }
            self.remove(name);
        }
    }

    fn born(&self, name: &str) -> Option<u64> {
        NodeLogs::default().look_at(&self.at(name)).unwrap().born_unix_nanos
    }

    /// A live file was read and parked, and nobody gets a descriptor any more. It grows and is rotated; it is
    /// compressed at the next rotation, and the file that is live then has its number. Returns how many bytes
    /// nobody has read.
    fn with_number_used_again(is_seen: bool) -> (Self, u64) {
        let mut scene = Scene::with_parked(4);
        let (number, born) = (scene.number("0.log"), scene.born("0.log"));
        scene.hold_descriptors();
        let unread = "three\n".repeat(300);
        scene.append("0.log", &unread);
        scene.until("it is seen to have grown", |scene| {
            scene.file("0.log").is_some_and(|file| file.length == 8 + unread.len() as u64)
        });
        scene.rename("0.log", ROTATED);
        scene.make("0.log", "four\n", 1_000_001, born);
        if is_seen {
            scene.pass(LOOK);
        }
        scene.compress(ROTATED);
        scene.rename("0.log", NEXT);
        scene.make("0.log", "five\n", number, born);
        scene.pass(LOOK);
        (scene, unread.len() as u64)
    }
}

/// Scenario: row 39. The number of a parked file goes to the next live one, when its archive stands in its place;
/// the look between its rotation and that is there, or is missed. None of the files can be opened for a while.
/// Guarantees: every line comes once when they can, no file is said to be truncated, and none is lost.
#[test]
fn the_next_file_of_a_number_is_not_the_parked_one() {
    for is_seen in [true, false] {
        let (mut scene, _) = Scene::with_number_used_again(is_seen);
        assert_eq!(scene.not_opened(), (0, 0), "{is_seen}");
        scene.held.clear();
        scene.remove("held");
        scene.until("all is read", |scene| scene.bodies.iter().any(|body| body == "five"));
        scene.pass(LOOK);
        let mut expected = vec!["one", "two"];
        expected.extend(["three"; 300]);
        expected.extend(["four", "five"]);
        assert!(scene.bodies == expected, "{is_seen}: {:?}", scene.bodies);
        assert_eq!(scene.metrics.truncated_files.get(), 0, "{is_seen}");
        scene.stop();
        assert_eq!(scene.metrics.lost_files.get(), 0, "{is_seen}");
    }
}

/// Scenario: row 39. As above, and the archive is removed before it could be opened; then the others are.
/// Guarantees: each counts as lost once, with what nobody has read of it.
#[test]
fn a_parked_file_whose_number_is_used_again_counts_when_its_archive_is_gone() {
    for is_seen in [true, false] {
        let (mut scene, unread) = Scene::with_number_used_again(is_seen);
        for name in [&format!("{ROTATED}.gz"), NEXT, "0.log"] {
            scene.remove(name);
            scene.pass(LOOK);
        }
        assert_eq!(scene.not_opened(), (3, unread + 10), "{is_seen}");
        scene.stop();
        assert_eq!(scene.metrics.lost_files.get(), 3, "{is_seen}");
    }
}

/// Scenario: row 39. A parked file of which nothing was read, since it was empty, grows, and is rotated and
/// compressed before it can be opened.
/// Guarantees: it is not counted as lost, and its archive is read once.
#[test]
fn a_parked_empty_file_that_grows_is_its_archive() {
    let mut scene = Scene::new(4, &[("0.log", "")]);
    scene.pass(LOOK);
    scene.park("0.log");
    let (number, born) = (scene.number("0.log"), scene.born("0.log"));
    scene.hold_descriptors();
    scene.append("0.log", "one\n");
    scene.until("it is seen to have grown", |scene| {
        scene.file("0.log").is_some_and(|file| file.length == 4)
    });
    scene.rename("0.log", ROTATED);
    scene.compress(ROTATED);
    scene.make("0.log", "two\n", number, born);
    scene.pass(LOOK);
    scene.held.clear();
    scene.until("all is read", |scene| scene.bodies.len() == 2);
    scene.pass(LOOK);
    assert_eq!((scene.bodies.concat().as_str(), scene.not_opened()), ("onetwo", (0, 0)));
}

/// Scenario: row 39. A group waits for a descriptor of its oldest file, and has given up that of its live one,
/// which grows; both are removed.
/// Guarantees: both count as lost, each with what nobody has read of it.
#[test]
fn a_file_that_is_parked_behind_another_counts_with_what_it_has_grown_to() {
    let mut scene = Scene::with_parked(16);
    scene.append("0.log", "three\n");
    scene.rename("0.log", ROTATED);
    scene.append("0.log", "four\n");
    scene.discovery.scan(scene.clock.now());
    scene.hold_descriptors();
    scene.until("both are parked", |scene| scene.is_parked(ROTATED) && scene.is_parked("0.log"));
    // The one that was given up is not for the other, either.
    scene.hold_descriptors();
    scene.append("0.log", "five\n");
    scene.pass(LOOK);
    scene.remove(ROTATED);
    scene.remove("0.log");
    scene.pass(LOOK);
    assert_eq!(scene.not_opened(), (2, 6 + 10));
}

/// Scenario: row 41. A file system that keeps no births. A rotated file was read to its end and closed; between two
/// looks it is compressed, and its number goes to the log file of the container's next start.
/// Guarantees: that is a file of its own, and nothing is said to be truncated, nor comes twice.
#[test]
fn without_births_a_number_is_free_once_its_files_archive_is_there() {
    let mut scene = Scene::new(64, &[]);
    scene.numbers.1.store(true, Ordering::Relaxed);
    scene.append("0.log", "one\n");
    scene.until("it is read", |scene| scene.bodies.len() == 1);
    scene.rename("0.log", ROTATED);
    scene.append("0.log", "two\n");
    scene.until("its successor is read", |scene| scene.bodies.len() == 2);
    scene.pass(LOOK);
    let number = scene.number(ROTATED);
    scene.compress(ROTATED);
    scene.make("1.log", "three\nfour\n", number, None);
    scene.until("all is read", |scene| scene.bodies.len() == 4);
    scene.pass(LOOK);
    assert_eq!(scene.bodies.concat(), "onetwothreefour");
    assert_eq!(scene.metrics.truncated_files.get(), 0);
}
