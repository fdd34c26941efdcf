//! A container's log within a worker: its files in the order in which they are read, and what its
//! lines need.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::Charge;
use crate::{
    checkpoint::{FileCheckpoint, FileKey},
    config::FilelogConfig,
    config::LineFormat,
    discover::{GroupKey, pattern::LogName},
    enrich::PathMetadata,
    limits::POLL_INTERVAL_MIN,
    parse::{LineState, partial::Partials, suffix::Suffixes, unended::Continuation},
    tail::{
        acknowledge::Acknowledged,
        ending::Endings,
        identity::{Front, Head, Inode, may_be_one},
        source::Source,
        uid::FileUid,
    },
    world::Opened,
};
use thyme_core::{
    cri::CriParser,
    otlp::encode::{Value, put_record_attribute},
};

/// One log file, plain or compressed, for as long as its directory or a checkpoint knows it.
pub(super) struct TailedFile {
    pub(super) key: FileKey,
    pub(super) group: u32,
    /// Its present name, without `.gz`.
    pub(super) name: Arc<OsStr>,
    pub(super) inode: Inode,
    /// When that came to be, in nanoseconds since the Unix epoch, where that is known: without a descriptor
    /// another file may have its number.
    pub(super) born: Option<u64>,
    pub(super) head: Head,
    pub(super) front: Front,
    /// Where its bytes come from; `None` once it is finished and has lingered.
    pub(super) source: Option<Source>,
    /// Where the next read begins: the start of a line, or the middle of a split one.
    pub(super) offset: u64,
    pub(super) acknowledged: Acknowledged,
    /// What stood in front of `offset` when it was read, and of places before it.
    pub(super) endings: Endings,
    /// How long it is known to have been; decompressed.
    pub(super) length: u64,
    /// What its checkpoint says of that.
    pub(super) published_length: u64,
    /// Whether it stands among those that have grown since they were looked at last.
    pub(super) is_growth_noted: bool,
    /// When it was written to last, at the last look at its end, in nanoseconds since the Unix epoch.
    pub(super) modified_unix_nanos: u64,
    /// Bytes from here to `offset` were acknowledged before a restart, and are not read again; the
    /// same as `offset` once it is known what that means for open lines.
    pub(super) skipped_from: u64,
    /// Set while the line at `offset` has left in part.
    pub(super) continuation: Option<Continuation>,
    /// Whether its directory shows it, plain or compressed.
    pub(super) is_present: bool,
    /// Whether the kubelet will remove it at one of its next rotations.
    pub(super) is_at_risk: bool,
    /// Since when its end has been its end.
    pub(super) end_since: Option<Instant>,
    /// Bytes before that end which belong to a line without its newline, so far.
    pub(super) rest_bytes: usize,
    /// When it was read to its end and its successor was turned to.
    pub(super) finished_at: Option<Instant>,
    /// It was written to after its successors were begun: its lines are no part of lines of theirs.
    pub(super) is_late: bool,
    /// Its directory is gone, with all that could go on with its last line.
    pub(super) is_last: bool,
    /// It vanished while no agent ran, or was truncated: nothing of it is to be found any more, and what stands before
    /// it does not go on in what stands behind.
    pub(super) is_gap: bool,
    /// What its records carry; `None` until one is to.
    pub(super) uid: Option<FileUid>,
    /// What they carried before it was truncated, until `uid` is there again.
    pub(super) former_uid: Option<FileUid>,
    /// Whether it was closed although it may go on, because others wait for a descriptor.
    pub(super) is_parked: bool,
    /// Whether its directory shows it as `.gz`.
    pub(super) is_compressed: bool,
    /// Whether it is an archive that is cut off, and is passed over until it has grown.
    pub(super) is_awaited: bool,
    /// How long it was on disk when it was given up as an archive that is cut off.
    pub(super) cut_at: Option<u64>,
    /// What of it counts as the worker's load.
    pub(super) charge: Charge,
}

impl TailedFile {
    /// Whether there may be more to read.
    pub(super) fn is_finished(&self) -> bool {
        self.finished_at.is_some()
    }

    /// Whether it was read in this life of the agent, or begun behind what was passed over: what stands where
    /// it goes on is no rest of a line of a file before it.
    pub(super) fn is_begun(&self) -> bool {
        !self.is_gap && self.offset > 0 && self.skipped_from == self.offset
    }

    /// Whether a file of this number and birth may be it.
    pub(super) fn has_number(&self, inode: Inode, born: Option<u64>) -> bool {
        self.inode == inode && may_be_one(self.born, born)
    }

    /// Whether an open file may be it, likewise.
    pub(super) fn has_number_of(&self, opened: &Opened) -> bool {
        self.has_number(opened.inode, opened.file.born_unix_nanos())
    }

    /// From now on it is known as this one: its archive has a number of its own.
    pub(super) fn take_number_of(&mut self, opened: &Opened) {
        (self.inode, self.born) = (opened.inode, opened.file.born_unix_nanos());
    }

    /// Whether every byte that was read has been settled.
    pub(super) fn is_settled(&self) -> bool {
        self.acknowledged.prefix() >= self.offset
    }

    /// Bytes that are known to be in it and not to be settled.
    pub(super) fn unsettled_bytes(&self) -> u64 {
        self.length - self.acknowledged.count_below(self.length)
    }

    /// Bytes that are known to be in it and would still have to be read.
    pub(super) fn unread_bytes(&self) -> u64 {
        let settled = |end| self.acknowledged.count_below(end);
        let unread = self.length.saturating_sub(self.offset);
        unread.saturating_sub(settled(self.length).saturating_sub(settled(self.offset)))
    }

    /// Looks how long an open file is, and how it begins: whoever finds it next knows it by that.
    pub(super) fn look_again(&mut self) {
        let Some(Source::Plain(open)) = &self.source else { return };
        if let Ok(state) = open.state() {
            self.length = self.length.max(state.bytes);
        }
        self.head = self.head.grown(&**open).unwrap_or(self.head);
    }

    /// Its checkpoint now.
    pub(super) fn checkpoint(&self, group: &Group) -> FileCheckpoint {
        let key = &group.key;
        let ending = self.endings.at(self.acknowledged.prefix()).unwrap_or_default();
        FileCheckpoint {
            receiver: Arc::clone(&group.receiver),
            directory: Arc::clone(&key.directory),
            live: Arc::clone(&key.live),
            name: Arc::clone(&self.name),
            device: self.inode.device,
            inode: self.inode.inode,
            head_bytes: self.head.bytes,
            head_crc32: self.head.crc32,
            tail_bytes: ending.bytes,
            tail_crc32: ending.crc32,
            length: self.length,
            offset: self.acknowledged.prefix(),
            beyond: self.acknowledged.beyond().to_vec(),
            finished: self.is_finished() && self.is_settled(),
            uid: self.uid,
            former_uid: self.former_uid,
            others: None,
        }
    }
}

/// Where a group stands in the worker's schedule; in one place at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nowhere: a watch, or the upkeep, will say when there is more to read.
    Idle,
    /// In the ring, or being read.
    Ready,
    /// Until `next_poll`.
    Waiting,
}

/// A container's log.
pub(super) struct Group {
    pub(super) key: Arc<GroupKey>,
    /// Canonical name of its receiver.
    receiver: Arc<str>,
    /// Content of its `Resource`.
    pub(super) resource: Vec<u8>,
    /// Its path has the kubelet's form, but names in it that can't be.
    pub(super) lacks_metadata: bool,
    pub(super) lines: LineState,
    /// Its files, oldest first, the live one last.
    pub(super) files: Vec<u32>,
    /// Whether its directory may have files of it that were not seen at the last look.
    pub(super) is_partly_seen: bool,
    /// Checkpoints whose files were not found, while some could not be opened.
    pub(super) resume: Vec<(FileKey, FileCheckpoint)>,
    pub(super) next_poll: Instant,
    pub(super) poll_interval: Duration,
    /// Longest `poll_interval`.
    pub(super) poll_interval_max: Duration,
    pub(super) last_growth: Instant,
    /// When a read last came to the end of what there was.
    pub(super) caught_up_at: Instant,
    /// Where it stands in the worker's schedule.
    pub(super) turn: Turn,
    /// Whether a watch will say when its live file grows.
    pub(super) is_watched: bool,
}

impl Group {
    pub(super) fn new(
        key: Arc<GroupKey>,
        (name, receiver): (&Arc<str>, &FilelogConfig),
        record_uid: bool,
        now: Instant,
    ) -> Self {
        let path = key.directory.join(&*key.live);
        let wants_metadata = matches!(
            receiver.format,
            LineFormat::Container { add_metadata_from_filepath: true, .. }
        );
        let metadata = PathMetadata::from_path(&path).filter(|_| wants_metadata);
        let lacks_metadata = wants_metadata && metadata.is_none() && PathMetadata::has_shape(&path);
        let mut attributes = Vec::new();
        if receiver.include_file_path {
            let path = path.to_string_lossy();
            put_record_attribute(&mut attributes, "log.file.path", Value::Text(&path));
        }
        if receiver.include_file_name {
            let name = key.live.to_string_lossy();
            put_record_attribute(&mut attributes, "log.file.name", Value::Text(&name));
        }
        let suffixes = Suffixes::new(&attributes);
        Self {
            receiver: Arc::clone(name),
            lacks_metadata,
            resource: metadata.map_or_else(Vec::new, |found| found.encode_resource()),
            lines: LineState {
                cri: CriParser::default(),
                suffixes: if record_uid { suffixes.with_uid() } else { suffixes },
                partials: Partials::default(),
                format: receiver.format,
                body_bytes_max: receiver.max_log_size_bytes,
            },
            files: Vec::new(),
            is_partly_seen: false,
            resume: Vec::new(),
            next_poll: now,
            poll_interval: POLL_INTERVAL_MIN,
            poll_interval_max: receiver.poll_interval.max(POLL_INTERVAL_MIN),
            last_growth: now,
            caught_up_at: now,
            turn: Turn::Idle,
            is_watched: false,
            key,
        }
    }

    /// Where the path of the live file says nothing about its container, that of the file to which its
    /// link led may: `/var/log/containers` holds links into `/var/log/pods`.
    pub(super) fn take_metadata_of(&mut self, linked: &Path) {
        if self.resource.is_empty()
            && let LineFormat::Container { add_metadata_from_filepath: true, .. } =
                self.lines.format
            && let Some(found) = PathMetadata::from_path(linked)
        {
            self.resource = found.encode_resource();
            self.lacks_metadata = false;
        }
    }

    /// Path of the live file.
    pub(super) fn path(&self) -> PathBuf {
        self.key.directory.join(&*self.key.live)
    }

    /// How much earlier than due it may be read, so that neighbours are read in one go.
    pub(super) fn poll_slack(&self) -> Duration {
        self.poll_interval / 4
    }
}

/// When a file was rotated, by its name, if that says so.
pub(super) fn rotated_at(name: &OsStr) -> Option<&OsStr> {
    LogName::parse(name).and_then(|parsed| parsed.rotated_at)
}

/// Where a file comes in the order of reading, among the files of its group that are known: rotated
/// files by the time in their name, if they have one that says so, the live file last.
///
/// One that was live and is in its directory no more was rotated and removed between two looks.
/// Whatever is found after it is younger, although its own name does not say when it was rotated.
pub(super) fn reading_place<'a>(
    name: &OsStr,
    live: &OsStr,
    known: impl DoubleEndedIterator<Item = &'a TailedFile> + ExactSizeIterator,
) -> usize {
    let count = known.len();
    if name == live {
        return count;
    }
    let is_younger = |file: &&TailedFile| {
        if *file.name == *live {
            return file.is_present;
        }
        let times = (rotated_at(&file.name), rotated_at(name));
        matches!(times, (Some(other), Some(own)) if other > own)
    };
    count - known.rev().take_while(is_younger).count()
}
