//! Input that nobody meant to write.

use std::{fs, os::unix::ffi::OsStrExt, os::unix::fs::symlink};

use crate::{
    node::{Node, append, cri, wait_until},
    program::Setup,
};

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
        b"bad time",
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
    assert_eq!(malformed.count(), 2);
    let untimed = records.iter().find(|one| one.body == b"bad time").unwrap();
    assert_eq!(untimed.attributes["thyme.time.original"], "2026-99-02T03:04:05Z");
    assert_eq!(untimed.time_unix_nano, 0);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.malformed_lines.get(), 2);
    assert_eq!(metrics.invalid_utf8_bodies.get(), 1);
    // The link, the FIFO and the directory that has the name of a file.
    assert_eq!(metrics.refused_files.get(), 3);
}

/// Scenario: row 13. Bodies that are no UTF-8, each in its own way, with NUL and CR among them,
/// alternate with good ones in one batch; a character is cut in two by the runtime's fragments. Over
/// both protocols.
/// Guarantees: a stock decoder takes the message. Each body is as it was written: bad ones come as
/// bytes and are counted, good ones and the joined one as text.
#[test]
fn invalid_utf8_harms_no_neighbour() {
    let bad: [&[u8]; 8] = [
        b"\xff",
        b"nul \0 \xfe",
        b"\xc3\r",
        b"continuation \x80 alone",
        b"overlong \xc0\xaf",
        b"surrogate \xed\xa0\x80",
        b"too far \xf4\x90\x80\x80",
        b"torn \xe2\x82",
    ];
    for grpc in [false, true] {
        let node = Node::new();
        let config = Setup { grpc, ..Setup::default() }.write(&node);
        let mut text = Vec::new();
        for body in bad {
            text.extend_from_slice(cri("good \u{20ac} nul \0 cr\r").as_bytes());
            text.extend_from_slice(&[b"2026-01-02T03:04:05Z stdout F ", body, b"\n"].concat());
        }
        let euro = "\u{20ac}".as_bytes();
        for (tag, part) in [(&b"P"[..], &euro[..1]), (b"F", &euro[1..])] {
            text.extend_from_slice(
                &[b"2026-01-02T03:04:05Z stderr ", tag, b" ", part, b"\n"].concat(),
            );
        }
        append(&node.container("a").join("0.log"), &text);
        let agent = node.start_yaml(&fs::read_to_string(config).unwrap());
        let records = node.wait_records(2 * bad.len() + 1);
        for (pair, body) in records.chunks(2).zip(bad) {
            assert_eq!(
                (pair[0].text().as_str(), pair[0].body_is_text),
                ("good \u{20ac} nul \0 cr\r", true)
            );
            assert_eq!((&pair[1].body[..], pair[1].body_is_text), (body, false));
        }
        let joined = records.last().unwrap();
        assert_eq!((&joined.body[..], joined.body_is_text), (euro, true));
        assert_eq!(node.collector.report().invalid_utf8, 0, "a string that is none");
        let (_, metrics) = agent.stop();
        assert_eq!(metrics.invalid_utf8_bodies.get(), bad.len() as u64);
    }
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
