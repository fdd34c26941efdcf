//! What happens to files while no request may be made, since the sink has acknowledged none.

use super::*;

/// More than requests under way may hold.
const MUCH: usize = 40 << 20;

/// A worker that has read as much of a long file as it may, and all of two lines of another one.
fn held_up() -> Scene {
    let mut scene = Scene::new(16, &[("0.log", "one\ntwo\n")]);
    scene.until("it is read", |scene| scene.bodies.len() == 2);
    scene.settles = false;
    let line = format!("{}\n", "x".repeat(1023));
    scene.append("1.log", line.repeat(MUCH >> 10));
    scene.pass(Duration::from_secs(3));
    let read = scene.file("1.log").unwrap().offset;
    scene.pass(Duration::from_secs(3));
    assert_eq!(scene.file("1.log").unwrap().offset, read, "it is held up");
    scene
}

/// Bytes of files that were cut and are counted as lost.
fn cut(scene: &Scene) -> u64 {
    scene.metrics.lost(LossReason::Truncated).get()
}

/// Scenario: row 48. Files that are open grow while nothing can be read: one that had been read to its end, and
/// the one that is read.
/// Guarantees: their lengths are known within two seconds, so that the next start can count what was in them.
#[test]
fn how_much_files_grow_by_while_nothing_can_be_read_is_known() {
    let mut scene = held_up();
    scene.append("0.log", "three\n");
    scene.append("1.log", "the last\n");
    scene.pass(Duration::from_secs(2));
    let length = |name| scene.file(name).unwrap().length;
    assert_eq!((length("0.log"), length("1.log")), (14, MUCH as u64 + 9));
    assert_eq!(scene.bodies.iter().filter(|body| *body == "three").count(), 0);
}

/// Scenario: row 47. A file is cut while part of it is unread: to nothing, to nothing and written anew at once,
/// or in the middle of what is unread.
/// Guarantees: what was unread counts as lost, once; what is there now is read.
#[test]
fn what_was_unread_of_a_file_that_is_cut_is_counted() {
    for (case, rest) in ["", "new\n", "middle"].into_iter().enumerate() {
        let mut scene = held_up();
        let (offset, length) = (scene.file("1.log").unwrap().offset, MUCH as u64);
        let kept = if rest == "middle" { offset + 5 * 1024 } else { offset };
        match case {
            0 | 1 => fs::write(scene.at("1.log"), rest).unwrap(),
            _ => OpenOptions::new()
                .write(true)
                .open(scene.at("1.log"))
                .and_then(|file| file.set_len(kept))
                .unwrap(),
        }
        scene.pass(Duration::from_secs(2));
        assert_eq!((cut(&scene), scene.metrics.lost_files.get()), (length - kept, 1), "{rest}");
        scene.settles = true;
        scene.append("1.log", "last\n");
        scene.until("all is read", |scene| scene.bodies.last().is_some_and(|one| one == "last"));
        let (old, others): (Vec<_>, Vec<_>) =
            scene.bodies.iter().partition(|one| one.len() == 1023);
        assert_eq!(old.len() as u64, kept >> 10, "{rest}");
        // The two lines of the other file, and the new ones.
        assert_eq!(others.len(), 3 + usize::from(rest == "new\n"), "{rest}");
        assert_eq!((cut(&scene), scene.metrics.lost_files.get()), (length - kept, 1), "{rest}");
    }
}

/// Scenario: row 47. A file is cut and written anew, longer, by lines of which those before the place where
/// reading goes on are like those that stood there.
/// Guarantees: its first bytes tell: each line of the new content comes once.
#[test]
fn a_file_that_is_written_anew_with_the_same_ending_is_known_by_its_head() {
    let content = |first: &str, lines: usize| format!("{first}\n{}", "the same\n".repeat(lines));
    let mut scene = Scene::new(16, &[("0.log", &content("old", 200))]);
    scene.until("it is read", |scene| scene.bodies.len() == 201);
    fs::write(scene.at("0.log"), content("new", 500)).unwrap();
    scene.pass(Duration::from_secs(3));
    assert_eq!((scene.bodies.len(), cut(&scene)), (201 + 501, 0));
}
