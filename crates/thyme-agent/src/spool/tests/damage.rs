//! Tests of a spool's directory that somebody, or a disk, has changed between two starts or under
//! the agent's feet.

use super::*;

/// A spool with so many requests on disk, `in_one` of them a segment, and nothing done. Bodies begin
/// with the request's number.
fn filled(requests: u8, in_one: usize) -> (tempfile::TempDir, Arc<Disk>, Vec<std::path::PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let all: Vec<u8> = (0..requests).collect();
    for some in all.chunks(in_one) {
        let mut rig = Rig::open(&disk, BYTES_MAX);
        for number in some {
            rig.keep(u64::from(*number), &body(*number));
        }
    }
    let segments = files(directory.path(), ".segment");
    (directory, disk, segments)
}

fn body(number: u8) -> Vec<u8> {
    vec![number; 20 + usize::from(number)]
}

fn record_bytes(number: u8) -> usize {
    HEADER_BYTES + body(number).len()
}

/// Opens the spool, takes all that it sends, and looks whether the books agree with it. Returns the
/// numbers that came.
fn drain(disk: &Arc<Disk>) -> (Vec<u8>, Rig) {
    let mut rig = Rig::open(disk, BYTES_MAX);
    rig.step();
    let numbers = take(&mut rig);
    (numbers, rig)
}

fn take(rig: &mut Rig) -> Vec<u8> {
    let bodies = rig.accept_all();
    let metrics = &rig.metrics;
    assert_eq!(metrics.queued_spool.get(), (0, 0), "nothing is left");
    assert_eq!(metrics.spool_requests.get(), 0);
    let (recovered, acknowledged) = (metrics.recovered.get().0, metrics.acknowledged.get().0);
    assert_eq!(recovered, acknowledged + metrics.dead_lettered.get().0, "the books balance");
    assert_eq!(acknowledged, 10 * bodies.len() as i64);
    assert!(!rig.link.status.has_backlog());
    let numbers: Vec<u8> = bodies.iter().map(|body| body[0]).collect();
    for (number, found) in numbers.iter().zip(&bodies) {
        assert_eq!(*found, body(*number), "a request is as it was kept");
    }
    numbers
}

/// Scenario: a request stands in a segment twice; a segment stands there twice under two names; two
/// requests of a segment have changed their places.
/// Guarantees: each request is sent once, copies are counted, nothing falls below zero, and what was
/// changed is kept for a human.
#[test]
fn a_copied_request_is_sent_once() {
    let (directory, disk, segments) = filled(4, 2);
    let bytes = std::fs::read(&segments[0]).unwrap();
    let (first, second) = bytes.split_at(record_bytes(0));
    std::fs::write(&segments[0], [first, second, first].concat()).unwrap();
    std::fs::copy(&segments[1], directory.path().join("spool/000000000009.segment")).unwrap();
    let (numbers, rig) = drain(&disk);
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert_eq!(rig.metrics.spool_duplicate_requests.get(), 3);
    assert_eq!(rig.metrics.spool_damaged_requests.get(), 0);
    assert_eq!(files(directory.path(), ".damaged").len(), 2);
    assert!(files(directory.path(), ".segment").is_empty());

    let (directory, disk, segments) = filled(2, 2);
    let bytes = std::fs::read(&segments[0]).unwrap();
    let (first, second) = bytes.split_at(record_bytes(0));
    std::fs::write(&segments[0], [second, first].concat()).unwrap();
    let (numbers, rig) = drain(&disk);
    assert_eq!(numbers, [1, 0]);
    assert_eq!(rig.metrics.spool_duplicate_requests.get(), 0);
    assert_eq!(files(directory.path(), ".damaged").len(), 1);
}

/// Scenario: the header of each request of a segment is damaged in turn, or its body, at its first and
/// last byte; the request is the first, one in the middle, the last, or the only one.
/// Guarantees: it is counted as one damaged request, the others are sent, and the segment is kept for a
/// human rather than waited for; the next start finds nothing.
#[test]
fn damage_anywhere_in_a_request_is_counted() {
    for requests in [1, 3] {
        for hit in 0..requests {
            let start: usize = (0..hit).map(record_bytes).sum();
            let ends = [0, HEADER_BYTES - 1, HEADER_BYTES, record_bytes(hit) - 1];
            for at in ends.map(|at| start + at) {
                let (directory, disk, segments) = filled(requests, requests.into());
                let mut bytes = std::fs::read(&segments[0]).unwrap();
                bytes[at] ^= 1;
                std::fs::write(&segments[0], &bytes).unwrap();
                let (numbers, rig) = drain(&disk);
                let others: Vec<u8> = (0..requests).filter(|number| *number != hit).collect();
                assert_eq!(numbers, others, "byte {at}");
                assert_eq!(rig.metrics.spool_damaged_requests.get(), 1, "byte {at}");
                let kept = files(directory.path(), ".damaged");
                assert_eq!(std::fs::read(&kept[0]).unwrap(), bytes, "byte {at}");
                assert!(files(directory.path(), ".segment").is_empty(), "byte {at}");
                rig.end();
                assert!(drain(&disk).0.is_empty());
            }
        }
    }
}

/// Scenario: a loss of power has left zeros where the last request was to be; a kill half of it.
/// Guarantees: neither counts as damage: nobody was told that it is kept.
#[test]
fn what_was_never_written_is_no_damage() {
    for tail in [vec![0; 300], b"\x89thymeS1".to_vec()] {
        let (directory, disk, segments) = filled(2, 2);
        let bytes = std::fs::read(&segments[0]).unwrap();
        std::fs::write(&segments[0], [&bytes[..], &tail[..]].concat()).unwrap();
        let (numbers, rig) = drain(&disk);
        assert_eq!(numbers, [0, 1]);
        assert_eq!(rig.metrics.spool_damaged_requests.get(), 0);
        assert_eq!(rig.metrics.spool_unreadable_bytes.get(), tail.len() as u64);
        assert!(files(directory.path(), ".damaged").is_empty());
    }
}

/// Scenario: requests are on disk, and the agent runs; then the header of one is damaged that it has not
/// read yet, and the file of another segment ends too early.
/// Guarantees: what reading does not find any more is a dead letter; nothing is waited for.
#[test]
fn what_is_damaged_under_way_is_a_dead_letter() {
    let (_directory, disk, segments) = filled(6, 3);
    let mut rig = Rig::open(&disk, BYTES_MAX);
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    bytes[record_bytes(0) + 9] ^= 1;
    std::fs::write(&segments[0], bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&segments[1]).unwrap();
    file.set_len(record_bytes(3) as u64).unwrap();
    rig.step();
    assert_eq!(take(&mut rig), [0, 2, 3]);
    assert_eq!(rig.metrics.spool_damaged_requests.get(), 3);
}

/// A spool of three segments with two requests each, all of which the cursor says to be kept.
fn filled_and_ended() -> (tempfile::TempDir, Arc<Disk>, Vec<std::path::PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    for first in [0, 2, 4] {
        let mut rig = Rig::open(&disk, BYTES_MAX);
        for number in [first, first + 1] {
            rig.keep(u64::from(number), &body(number));
        }
        rig.end();
    }
    let segments = files(directory.path(), ".segment");
    assert_eq!(segments.len(), 3);
    (directory, disk, segments)
}

/// Scenario: row 70. Of three segments the first, the one in the middle, the last, or all are gone at a start.
/// Guarantees: each of their requests counts as damaged, once; the others are sent, and numbers go on behind all
/// of them.
#[test]
fn requests_of_a_missing_segment_are_counted() {
    for gone in [vec![0], vec![1], vec![2], vec![0, 1, 2]] {
        let (_directory, disk, segments) = filled_and_ended();
        gone.iter().for_each(|at| std::fs::remove_file(&segments[*at]).unwrap());
        let (numbers, mut rig) = drain(&disk);
        let is_left = |number: &u8| !gone.contains(&usize::from(number / 2));
        assert_eq!(numbers, (0..6).filter(is_left).collect::<Vec<_>>(), "{gone:?}");
        assert_eq!(rig.metrics.spool_damaged_requests.get(), 2 * gone.len() as u64, "{gone:?}");
        rig.keep(6, &body(6));
        rig.end();
        let (numbers, rig) = drain(&disk);
        assert_eq!(numbers, [6], "{gone:?}");
        assert_eq!(rig.metrics.spool_damaged_requests.get(), 0, "{gone:?}");
    }
}

/// Scenario: row 70. The last segment is cut, in the middle of a request or between two, though the cursor says
/// that all of them are kept; or the header of its last request is damaged.
/// Guarantees: what is gone is counted, and each request once.
#[test]
fn what_is_cut_off_a_segment_and_was_kept_is_counted() {
    for (length, lost) in [(record_bytes(4) + 40, 1), (record_bytes(4), 1), (40, 2), (0, 2)] {
        let (_directory, disk, segments) = filled_and_ended();
        let file = std::fs::OpenOptions::new().write(true).open(&segments[2]).unwrap();
        file.set_len(length as u64).unwrap();
        let (numbers, rig) = drain(&disk);
        assert_eq!(numbers, (0..6 - lost as u8).collect::<Vec<_>>(), "{length}");
        assert_eq!(rig.metrics.spool_damaged_requests.get(), lost, "{length}");
    }
    let (_directory, disk, segments) = filled_and_ended();
    let mut bytes = std::fs::read(&segments[2]).unwrap();
    bytes[record_bytes(4) + 9] ^= 1;
    std::fs::write(&segments[2], bytes).unwrap();
    let (numbers, rig) = drain(&disk);
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!(rig.metrics.spool_damaged_requests.get(), 1);
}

/// Scenario: row 70. A request's header is damaged, at a segment's beginning, in its middle or at its end, or it stands
/// there twice, and the agent is killed and started three times while the sink takes nothing.
/// Guarantees: what is gone or double is counted by the first start alone, and what is left is sent in the end.
#[test]
fn what_is_damaged_is_counted_by_one_start() {
    for place in [Some(0), Some(1), None] {
        let (_directory, disk, segments) = filled_and_ended();
        let mut bytes = std::fs::read(&segments[1]).unwrap();
        match place {
            Some(0) => bytes[9] ^= 1,
            Some(_) => bytes[record_bytes(2) + 9] ^= 1,
            None => bytes.extend(bytes.clone()),
        }
        std::fs::write(&segments[1], bytes).unwrap();
        let counted = [0; 4].map(|_| {
            let metrics = Rig::open(&disk, BYTES_MAX).metrics;
            let [lost, copies] =
                [&metrics.spool_damaged_requests, &metrics.spool_duplicate_requests];
            (lost.get(), copies.get(), metrics.spool_unreadable_bytes.get() > 0)
        });
        let first = if place.is_some() { (1, 0, true) } else { (0, 2, false) };
        assert_eq!(counted, [first, (0, 0, false), (0, 0, false), (0, 0, false)], "{place:?}");
        let (numbers, _rig) = drain(&disk);
        let is_left = |number: &u8| place.is_none_or(|place| *number != 2 + place);
        assert_eq!(numbers, (0..6).filter(is_left).collect::<Vec<_>>(), "{place:?}");
    }
}

/// Scenario: row 70. The cursor says what is kept; then the sink takes it, segments are removed, or the one that
/// is written to is emptied, and the agent is killed before the cursor's next turn.
/// Guarantees: nothing counts as damaged, and nothing is sent again.
#[test]
fn what_was_sent_and_removed_before_a_kill_is_not_missing() {
    let (directory, disk, _) = filled_and_ended();
    let (numbers, mut rig) = drain(&disk);
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    assert!(files(directory.path(), ".segment").is_empty());
    let mut removed = Rig::open(&disk, BYTES_MAX);
    assert_eq!(removed.metrics.spool_damaged_requests.get(), 0);
    assert!(removed.accept_all().is_empty());
    drop(removed);

    rig.keep(6, &body(6));
    rig.spool.cursor_at -= SPOOL_CURSOR_INTERVAL;
    rig.step();
    rig.spool.cursor_at = Instant::now() + Duration::from_secs(60);
    rig.told();
    assert_eq!(rig.accept_all(), [body(6)]);
    let emptied = Rig::open(&disk, BYTES_MAX);
    assert_eq!(emptied.metrics.spool_damaged_requests.get(), 0);
}

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(thyme_core::splitmix::next(&mut self.0) % end as u64).unwrap()
    }
}

/// Scenario: row 70. A spool of up to three segments; requests are doubled, swapped within a segment and
/// between two, cut out, cut off, and bits flipped, at random, before a start.
/// Guarantees: each request comes once at the most and as it was kept; what is missing is counted
/// as damaged, neighbours whose headers are damaged as one at least, but for what was cut off or out
/// whole; no number falls below zero; the next start finds nothing.
#[test]
fn no_damage_doubles_or_hides_a_request() {
    for seed in 1..400 {
        let mut chance = Chance(seed);
        let requests = 1 + chance.below(9) as u8;
        let (directory, disk, segments) = filled(requests, 1 + chance.below(4));
        let mut records: Vec<Vec<Vec<u8>>> = Vec::new();
        for segment in &segments {
            let (mut bytes, mut split) = (std::fs::read(segment).unwrap(), Vec::new());
            while !bytes.is_empty() {
                let rest = bytes.split_off(record_bytes(bytes[HEADER_BYTES]));
                split.push(std::mem::replace(&mut bytes, rest));
            }
            records.push(split);
        }
        // Whole ones that leave no trace, and headers of which several in a row are one damaged place.
        let (mut unseen, mut headers) = (0, 0_usize);
        for _ in 0..=chance.below(4) {
            let of = chance.below(records.len());
            if records[of].is_empty() {
                continue;
            }
            let at = chance.below(records[of].len());
            match chance.below(6) {
                0 => {
                    let (to, copy) = (chance.below(records.len()), records[of][at].clone());
                    let place = chance.below(records[to].len() + 1);
                    records[to].insert(place, copy);
                }
                1 => {
                    let (to, one) = (chance.below(records.len()), records[of].remove(at));
                    let place = chance.below(records[to].len() + 1);
                    records[to].insert(place, one);
                }
                2 => {
                    records[of].remove(at);
                    unseen += 1;
                }
                3 => {
                    let length = records[of][at].len();
                    records[of][at].truncate(chance.below(length));
                    unseen += 1;
                }
                _ => {
                    let place = chance.below(records[of][at].len());
                    if let Some(byte) = records[of][at].get_mut(place) {
                        *byte ^= 1 << chance.below(8);
                        headers += usize::from(place < HEADER_BYTES);
                    }
                }
            }
            records[of].retain(|record| !record.is_empty());
        }
        for (segment, records) in segments.iter().zip(&records) {
            std::fs::write(segment, records.concat()).unwrap();
        }
        let (mut numbers, rig) = drain(&disk);
        let sent = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), sent, "seed {seed}: none comes twice");
        let missing = usize::from(requests) - sent;
        let counted = rig.metrics.spool_damaged_requests.get() as usize;
        let at_most = counted + unseen + headers.saturating_sub(1);
        assert!(missing <= at_most, "seed {seed}: {missing} missing, {counted} counted");
        assert!(missing <= unseen || counted > 0, "seed {seed}: {missing} missing in silence");
        rig.end();
        assert!(drain(&disk).0.is_empty(), "seed {seed}");
        assert!(files(directory.path(), ".segment").is_empty(), "seed {seed}");
    }
}
