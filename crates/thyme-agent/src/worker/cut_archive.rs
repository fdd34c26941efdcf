//! Archives that are cut off: whoever compresses may write one under its own name, and a look at its
//! directory comes while that goes on. What there is of it is read, and the rest once it is there; the files
//! behind it don't wait for that. Only what stays as it is counts as damaged.

use std::time::{Duration, Instant};

use thyme_core::cri::Stream;

use super::{Worker, group::TailedFile, turn::Progress};
use crate::{
    limits::{CUT_ARCHIVE_PAUSE, CUT_ARCHIVE_WAIT, UPKEEP_INTERVAL},
    tail::{
        identity::HEAD_BYTES_MAX,
        source::{Archive, Source},
    },
};

/// What is to be done about an archive that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It has grown, and is read on.
    IsThere,
    /// It may still be written.
    MayCome,
    /// It has been left alone for long, or its name is gone.
    IsMissing,
}

/// What of an archive is still to come; `None` where it is not cut off.
fn rest_of(file: &TailedFile, now: Instant, unix_nanos: u64) -> Option<Rest> {
    let Some(Source::Archive(archive)) = &file.source else { return None };
    let cut_at = archive.cut_at()?;
    let Ok(state) = archive.file().state() else { return Some(Rest::IsMissing) };
    let waited = file.end_since.map_or(Duration::ZERO, |since| now.duration_since(since));
    let unwritten = Duration::from_nanos(unix_nanos.saturating_sub(state.modified_unix_nanos));
    let is_quiet = unwritten >= CUT_ARCHIVE_PAUSE || waited >= CUT_ARCHIVE_PAUSE;
    // Each time it is decompressed from its start: by halves that costs three times as much as once.
    if state.bytes > cut_at && (is_quiet || state.bytes >= cut_at + cut_at / 2) {
        return Some(Rest::IsThere);
    }
    let is_over = unwritten >= CUT_ARCHIVE_WAIT || waited >= CUT_ARCHIVE_WAIT;
    let may_come = file.is_present && state.has_name && !is_over;
    Some(if may_come { Rest::MayCome } else { Rest::IsMissing })
}

impl Worker {
    /// At the end of a file: when its turn comes again, if it is an archive of which more is there or may
    /// come.
    pub(super) fn await_rest_of_archive(
        &mut self,
        number: u32,
        id: u32,
        now: Instant,
    ) -> Option<Progress> {
        let file = self.files.get_mut(&id)?;
        let rest = rest_of(file, now, self.clock.unix_nanos())?;
        // What a part of it says of its length may be wrong.
        file.length = file.offset + file.rest_bytes as u64;
        let Some(Source::Archive(archive)) = &mut file.source else { return None };
        match rest {
            Rest::IsMissing => return None,
            Rest::IsThere => {
                archive.read_on();
                let head = Archive::head(archive.file(), HEAD_BYTES_MAX).unwrap_or_default();
                file.head = file.head.longest(head);
                file.end_since = None;
                return Some(Progress::Again);
            }
            Rest::MayCome => {}
        }
        let group = self.groups.get_mut(&number)?;
        if group.files.last() == Some(&id) {
            // There is nothing that would have to wait.
            group.next_poll = now + UPKEEP_INTERVAL;
            return Some(Progress::At(group.next_poll));
        }
        file.is_awaited = true;
        self.attention.awaited.insert(id);
        if !std::mem::replace(&mut file.is_late, true) {
            // What it ends with goes on in its rest, and not in what is read meanwhile.
            let own = self.swap_lines(number, Default::default());
            if [Stream::Stdout, Stream::Stderr].into_iter().any(|stream| own.is_midway(stream)) {
                self.late_lines.insert(id, (number, own));
            }
        }
        Some(Progress::Again)
    }

    /// Takes up archives again that have grown, or won't.
    pub(super) fn look_at_cut_archives(&mut self, now: Instant) {
        let unix_nanos = self.clock.unix_nanos();
        for id in self.attention.awaited.iter().copied().collect::<Vec<_>>() {
            let file = self.files.get_mut(&id);
            let file = file.filter(|file| rest_of(file, now, unix_nanos) != Some(Rest::MayCome));
            if let Some(file) = file {
                file.is_awaited = false;
                let group = file.group;
                self.attention.awaited.remove(&id);
                self.activate(group, now);
            } else if !self.files.contains_key(&id) {
                self.attention.awaited.remove(&id);
            }
        }
    }
}
