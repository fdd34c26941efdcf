//! Checkpoint files: damage is noticed, and what was read survives being written again.

use thyme_agent::fuzzing;

/// Reads the bytes as a file, then as the lines behind a first line that announces them, since no
/// fuzzer guesses a CRC.
pub(crate) fn check(data: &[u8]) {
    check_file(data);
    let empty = String::from_utf8(fuzzing::encode_checkpoints(&[])).expect("it is text");
    let (magic, _) = empty.split_once(" crc32=").expect("the first line has a CRC");
    let (crc32, length) = (crc32fast(data), data.len());
    let mut file = format!("{magic} crc32={crc32:08x} bytes={length}\n").into_bytes();
    file.extend_from_slice(data);
    check_file(&file);
    if let Some(last) = file.last_mut().filter(|_| !data.is_empty()) {
        *last ^= 1;
        assert!(fuzzing::decode_checkpoints(&file).is_err(), "damage went unnoticed");
    }
}

fn check_file(file: &[u8]) {
    let Ok(checkpoints) = fuzzing::decode_checkpoints(file) else { return };
    let again = fuzzing::encode_checkpoints(&checkpoints);
    let read_again = fuzzing::decode_checkpoints(&again).expect("what is written can be read");
    assert_eq!(read_again, checkpoints);
    for checkpoint in &checkpoints {
        // The numbers that a worker starts from.
        let acknowledged = thyme_agent::tail::acknowledge::Acknowledged::new(
            checkpoint.offset,
            &checkpoint.beyond,
        );
        assert!(acknowledged.prefix() >= checkpoint.offset);
        let mut before = acknowledged.prefix();
        for &(start, end) in acknowledged.beyond() {
            assert!(before < start && start < end, "ranges ascend");
            before = end;
        }
        assert!(acknowledged.skip(checkpoint.offset) >= checkpoint.offset);
    }
}

fn crc32fast(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
