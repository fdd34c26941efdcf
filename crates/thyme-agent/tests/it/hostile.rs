//! Input that nobody meant to write.

use std::{fs, os::unix::ffi::OsStrExt, os::unix::fs::symlink};

use crate::node::{Node, append, cri, wait_until};

/// Scenario: rows 12 to 14 and the security list. Empty files, NUL, CR LF, invalid UTF-8, malformed
/// CRI, empty lines, a line of 16 MiB, symbolic links, a FIFO, a device's name, odd names.
/// Guarantees: every line of every regular file is a record, none is changed, what is odd is
/// counted, nothing hangs.
#[test]
fn every_line_is_accounted_for() {
    let node = Node::new();
    let container = node.container("a");
    let head = b"2026-01-02T03:04:05Z stdout F ";
    let long = vec![b'x'; 16 << 20];
    let mut text = Vec::new();
    for body in [&b"nul \0 nul"[..], b"cr\r", b"bad \xff\xfe utf", b"  blanks  ", b""] {
        text.extend_from_slice(&[head, body, b"\n"].concat());
    }
    text.extend_from_slice(b"\nnot cri\n2026-99-02T03:04:05Z stdout F bad time\n");
    text.extend_from_slice(&[head, &long[..], b"\n"].concat());
    text.extend_from_slice(cri("last").as_bytes());
    append(&container.join("0.log"), &text);
    append(&container.join("1.log"), "");
    let odd = std::ffi::OsStr::from_bytes(b"odd \xff\n%41.log");
    append(&container.join(odd), cri("odd name"));
    symlink("/etc/hostname", container.join("7.log")).unwrap();
    symlink(&container, container.parent().unwrap().join("linked")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, container.join("8.log"), rustix::fs::Mode::RWXU).unwrap();
    fs::create_dir(container.join("9.log")).unwrap();

    let agent = node.start();
    let mut records = Vec::new();
    let mut ended = false;
    wait_until("all bytes are acknowledged", || {
        records.extend(node.take_records());
        let read = agent.metrics.read.get().1;
        ended = read as usize == text.len() + cri("odd name").len();
        ended && agent.metrics.acknowledged.get().1 == read
    });
    records.extend(node.take_records());
    let short: Vec<_> =
        records.iter().filter(|one| one.body.len() < 1000).map(|one| &one.body[..]).collect();
    for expected in [
        &b"nul \0 nul"[..],
        b"cr\r",
        b"bad \xff\xfe utf",
        b"  blanks  ",
        b"",
        b"not cri",
        b"2026-99-02T03:04:05Z stdout F bad time",
        b"last",
        b"odd name",
    ] {
        assert!(short.contains(&expected), "{}", String::from_utf8_lossy(expected));
    }
    assert_eq!(short.len(), 10);
    let pieces: usize =
        records.iter().map(|one| one.body.len()).filter(|bytes| *bytes >= 1000).sum();
    assert_eq!(pieces, long.len());
    let bad = records.iter().find(|one| one.body.starts_with(b"bad")).unwrap();
    assert!(!bad.body_is_text);
    let malformed = records.iter().filter(|one| one.attributes.contains_key("thyme.malformed"));
    assert_eq!(malformed.count(), 3);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.malformed_lines.get(), 3);
    assert_eq!(metrics.invalid_utf8_bodies.get(), 1);
    assert_eq!(metrics.refused_files.get(), 2);
}

/// Scenario: an application writes 10,000 times to a file that is being read, then pauses for
/// longer than a file needs to be idle, and writes once more.
/// Guarantees: a growing file raises no event at all; an idle one raises one.
#[test]
fn a_growing_file_raises_no_events() {
    let node = Node::new();
    let container = node.container("a");
    append(&container.join("0.log"), cri("first"));
    let agent = node.start();
    node.wait_records(1);
    for number in 0..10_000 {
        append(&container.join("0.log"), cri(&number.to_string()));
    }
    node.wait_records(10_000);
    assert_eq!(agent.metrics.file_events.get(), 0);
    std::thread::sleep(thyme_agent::limits::IDLE_AFTER + std::time::Duration::from_secs(1));
    append(&container.join("0.log"), cri("after the pause"));
    node.wait_records(1);
    assert_eq!(agent.metrics.file_events.get(), 1);
    agent.stop();
}
