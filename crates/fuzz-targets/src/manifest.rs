//! Manifests that are posted to the collector: consistent, or an error that names the line.

use nop_collector::manifest::parse;

/// Reads the bytes.
pub(crate) fn check(data: &[u8]) {
    let lines = data.split(|&byte| byte == b'\n').count();
    match parse(data) {
        Ok(found) => {
            assert!(found.len() <= lines);
            let mut text = Vec::new();
            for line in &found {
                assert_eq!(line.lines, line.last - line.first + 1);
                serde_json::to_writer(&mut text, line).expect("a line is plain data");
                text.push(b'\n');
            }
            assert_eq!(parse(&text).expect("what is written can be read"), found);
        }
        Err(error) => assert!((1..=lines).contains(&error.line), "{error}"),
    }
}
