//! Stamps: what is found stands there letter by letter, and what was written is found.

use thyme_core::stamp::{JSON_PREFIX, SEQUENCE_MAX, STAMP_BYTES, Stamp, TEXT_PREFIX};

use crate::input::Input;

/// Looks for a stamp in the bytes, then in the bytes with one behind them.
pub(crate) fn check(data: &[u8]) {
    if let Some(found) = Stamp::find(data) {
        let text = written(&found);
        let stands_there = data.windows(STAMP_BYTES).any(|window| *window == text);
        assert!(stands_there, "{found:?} is not there");
    }
    let mut input = Input::new(data);
    let (run, writer) = (input.number() as u32, input.number() as u32);
    let sequence = input.number() & SEQUENCE_MAX;
    let (time_unix_nano, end) = (input.number(), input.byte().is_multiple_of(2));
    let stamp = Stamp { run, writer, sequence, time_unix_nano, end };
    let text = written(&stamp);
    let before = input.rest();
    let line = [before, TEXT_PREFIX, &text].concat();
    assert_eq!(Stamp::find(&line), Some(stamp));
    let object = [before, JSON_PREFIX, &text, b"\"}"].concat();
    assert_eq!(Stamp::find(&object), Some(stamp));
}

fn written(stamp: &Stamp) -> [u8; STAMP_BYTES] {
    let mut text = [0; STAMP_BYTES];
    stamp.write(&mut text);
    text
}
