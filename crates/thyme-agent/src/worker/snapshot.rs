//! What discovery found becomes files to read: known ones are recognised, new ones are resumed
//! from their checkpoint or begun.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::Path,
    sync::Arc,
    time::Instant,
};

use super::{
    Charge, Worker,
    group::{Group, TailedFile, Turn, reading_order},
};
use crate::{
    checkpoint::{FileCheckpoint, FileKey},
    config::StartAt,
    discover::{FoundFile, Snapshot, pattern::LogName},
    limits::{COMPLAINT_INTERVAL, READ_BYTES},
    metrics::LossReason,
    tail::{
        acknowledge::Acknowledged,
        identity::{HEAD_BYTES_MAX, Head, Inode},
        source::{Archive, Source},
    },
    world::{LogFile, Opened},
};

/// What a checkpoint said, until its file is found.
type Resume = Vec<(FileKey, FileCheckpoint)>;

impl Worker {
    /// Brings a group up to date with its directory.
    pub(super) fn apply_snapshot(&mut self, snapshot: Snapshot) {
        let now = self.clock.now();
        let number = self.group_number(&snapshot, now);
        let mut resume = snapshot.resume;
        if let Some(group) = self.groups.get_mut(&number) {
            resume.append(&mut group.resume);
        }
        for file in self.group_files(number) {
            if let Some(file) = self.files.get_mut(&file) {
                file.is_present = false;
            }
        }
        // Plain files come first, so that a `.gz` beside its plain original is recognised.
        let mut found = snapshot.files;
        found.sort_by_key(|file| LogName::parse(&file.name).is_none_or(|name| name.compressed));
        let unopened = unopened_archives(&found);
        for file in found {
            self.take_file(number, file, snapshot.start_at, &mut resume, now);
        }
        self.keep_what_may_be_archived(number, &unopened);
        self.end_parked(number, now);
        self.put_in_order(number);
        crate::failpoint::hit("snapshot_taken");
        self.count_missed(&snapshot.missed, &resume);
        if snapshot.is_complete {
            self.withdraw(resume);
        } else if let Some(group) = self.groups.get_mut(&number) {
            // One of them may be of a file that can't be opened now.
            group.resume = resume;
        }
        let is_gone = |id: &u32| self.files.get(id).is_some_and(|file| !file.is_present);
        let gone: Vec<u32> = self.group_files(number).into_iter().filter(is_gone).collect();
        self.attention.ending.extend(gone);
        self.assess(number);
        self.forget_vanished(number);
        self.activate(number, now);
    }

    fn group_number(&mut self, snapshot: &Snapshot, now: Instant) -> u32 {
        if let Some(number) = self.numbers.get(&snapshot.key) {
            return *number;
        }
        let number = self.new_number();
        let place = snapshot.key.receiver;
        let receiver = (&self.config.receiver_names[place], &self.config.config.receivers[place]);
        let record_uid = self.config.config.thyme.record_uid;
        let group = Group::new(Arc::clone(&snapshot.key), receiver, record_uid, now);
        if group.lacks_metadata {
            self.report_refused_path(&group.path(), now);
        }
        self.groups.insert(number, Box::new(group));
        self.numbers.insert(Arc::clone(&snapshot.key), number);
        number
    }

    /// A path that looks like one of the kubelet's gives no attributes: whoever reads the records would
    /// not find out why.
    fn report_refused_path(&mut self, path: &Path, now: Instant) {
        self.metrics.refused_paths.increment();
        if self.last_path_said.is_none_or(|last| now >= last + COMPLAINT_INTERVAL) {
            self.last_path_said = Some(now);
            tracing::warn!(
                ?path,
                "no attributes are taken from a path that has the kubelet's form: a name in it is \
                 none that Kubernetes allows"
            );
        }
    }

    fn new_number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn group_files(&self, number: u32) -> Vec<u32> {
        self.groups.get(&number).map_or_else(Vec::new, |group| group.files.clone())
    }

    /// Recognises a file of the directory, or begins it.
    fn take_file(
        &mut self,
        number: u32,
        found: FoundFile,
        start_at: StartAt,
        resume: &mut Resume,
        now: Instant,
    ) {
        let Some(name) = LogName::parse(&found.name) else { return };
        let (plain, compressed): (Arc<OsStr>, _) = (name.plain.into(), name.compressed);
        if let Some(id) = self.recognise(number, &found, &plain, compressed) {
            self.adopt(id, found.opened, compressed);
            return;
        }
        let start_at = if found.is_old { start_at } else { StartAt::Beginning };
        let Some(opened) = found.opened else { return };
        if compressed && let Some(id) = self.recognise_archive(number, &opened, &plain) {
            self.adopt(id, Some(opened), compressed);
            return;
        }
        // Discovery reports a file once: it is followed even if it can't be read now.
        let head = head_of(&*opened.file, compressed).unwrap_or_else(|error| {
            self.metrics.file_errors.increment();
            tracing::warn!(file = ?found.name, %error, "cannot read the head of a log file");
            Head::default()
        });
        let resumed = take_checkpoint(resume, &opened, &plain, compressed);
        let is_live = self.groups.get(&number).is_some_and(|group| *group.key.live == *plain);
        let file = match resumed {
            Some((key, checkpoint)) => {
                let file = self.resume_file(number, opened, plain, key, &checkpoint);
                TailedFile { head: checkpoint.head(), ..file }
            }
            None => self.begin_file(number, opened, plain, is_live, start_at),
        };
        let head = if head.bytes > file.head.bytes { head } else { file.head };
        let mut file = TailedFile { head, charge: found.charge, is_compressed: compressed, ..file };
        if compressed {
            file.source = file.source.map(into_archive);
        }
        if file.is_finished() {
            file.source = None;
            file.charge = Charge::default();
        }
        self.insert_file(number, file, now);
    }

    /// Whether it is a file that the group has: the same inode, or the archive of a known name.
    fn recognise(
        &mut self,
        number: u32,
        found: &FoundFile,
        plain: &Arc<OsStr>,
        compressed: bool,
    ) -> Option<u32> {
        for id in self.group_files(number) {
            let Some(file) = self.files.get_mut(&id) else { continue };
            let is_renamed = found.is_renamed && file.inode == found.inode;
            if (is_renamed || is_that_file(file, found.inode, plain, compressed))
                && may_be_closed_file(file, found.opened.as_ref(), compressed)
            {
                file.is_present = true;
                file.is_compressed = compressed;
                file.name.clone_from(plain);
                crate::failpoint::hit("file_recognised");
                return Some(id);
            }
        }
        None
    }

    /// Whether an archive is what an open file of the group was rotated and compressed to before
    /// its directory was looked at again.
    fn recognise_archive(
        &mut self,
        number: u32,
        opened: &Opened,
        plain: &Arc<OsStr>,
    ) -> Option<u32> {
        let group = self.groups.get(&number)?;
        let live = Arc::clone(&group.key.live);
        for id in self.group_files(number) {
            let Some(file) = self.files.get_mut(&id) else { continue };
            if file.is_present || file.name != live {
                continue;
            }
            let (head, bytes) = match &file.source {
                Some(Source::Plain(open)) => {
                    (Head::read(&**open, HEAD_BYTES_MAX).unwrap_or(file.head), HEAD_BYTES_MAX)
                }
                // One of which nothing was read is begun anew, at no loss.
                None if file.head.bytes > 0 => (file.head, file.head.bytes as usize),
                _ => continue,
            };
            let found = Archive::head(&*opened.file, bytes);
            if found.is_ok_and(|found| found == head) {
                file.is_present = true;
                file.is_compressed = true;
                file.name.clone_from(plain);
                return Some(id);
            }
        }
        None
    }

    fn resume_file(
        &mut self,
        number: u32,
        opened: Opened,
        name: Arc<OsStr>,
        key: FileKey,
        checkpoint: &FileCheckpoint,
    ) -> TailedFile {
        let bytes = opened.bytes;
        let mut file = new_file(key, number, opened, name);
        crate::failpoint::hit("file_resumed");
        file.offset = checkpoint.offset;
        file.acknowledged = Acknowledged::new(checkpoint.offset, &checkpoint.beyond);
        (file.uid, file.former_uid) = (checkpoint.uid, checkpoint.former_uid);
        // A plain file that has grown since had a late writer. (An archive is shorter than what
        // it holds.)
        if checkpoint.finished && bytes <= checkpoint.offset {
            file.finished_at = Some(self.clock.now());
        }
        file
    }

    fn begin_file(
        &mut self,
        number: u32,
        opened: Opened,
        name: Arc<OsStr>,
        is_live: bool,
        start_at: StartAt,
    ) -> TailedFile {
        let offset = match start_at {
            StartAt::Beginning => 0,
            StartAt::End if is_live => last_line_end(&*opened.file, opened.bytes).unwrap_or(0),
            StartAt::End => 0,
        };
        let mut file = new_file(self.keys.next(), number, opened, name);
        file.offset = offset;
        file.acknowledged = Acknowledged::new(offset, &[]);
        if start_at == StartAt::End && !is_live {
            file.finished_at = Some(self.clock.now());
        }
        file
    }

    fn insert_file(&mut self, number: u32, file: TailedFile, now: Instant) {
        let id = self.new_number();
        let Some(group) = self.groups.get_mut(&number) else { return };
        group.files.push(id);
        let checkpoint = (file.key, Some(file.checkpoint(group)));
        if file.is_finished() {
            self.attention.ending.insert(id);
        }
        self.files.insert(id, Box::new(file));
        group.last_growth = now;
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.publish([checkpoint]);
        }
    }

    /// Counts files that are gone and could not be opened. What is known of one by a checkpoint is
    /// counted with that.
    fn count_missed(&self, missed: &[(Inode, u64)], resume: &Resume) {
        let is_known = |inode: Inode| resume.iter().any(|(_, one)| one.inode == inode.inode);
        for (inode, bytes) in missed.iter().filter(|(inode, bytes)| *bytes > 0 && !is_known(*inode))
        {
            self.metrics.lost_files.increment();
            self.metrics.lost(LossReason::NotOpened).add(*bytes);
            tracing::warn!(?inode, bytes, "a log file was deleted before it could be opened");
        }
    }

    /// Puts a group's files in the order in which they are read, once all of them have their names: one
    /// that was live may be known by its archive alone, after a newer one was found.
    fn put_in_order(&mut self, number: u32) {
        let files = &self.files;
        if let Some(group) = self.groups.get_mut(&number) {
            let live = Arc::clone(&group.key.live);
            let order =
                |id: &u32| files.get(id).map(|file| (reading_order(&file.name, &live), file.key));
            group.files.sort_by_cached_key(order);
        }
    }

    /// Checkpoints whose files are gone: what they had not acknowledged can't be read any more.
    fn withdraw(&mut self, resume: Resume) {
        for (key, checkpoint) in resume {
            if checkpoint.is_unread() {
                self.metrics.lost_files.increment();
                tracing::warn!(
                    directory = ?checkpoint.directory, name = ?checkpoint.name,
                    "a log file was deleted while no agent ran; its unread rest is lost"
                );
            }
            if let Some(checkpoints) = &self.checkpoints {
                checkpoints.publish([(key, None)]);
            }
        }
    }

    /// Makes the group be polled from now on.
    pub(super) fn activate(&mut self, number: u32, now: Instant) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        if std::mem::take(&mut group.is_watched) {
            self.idle.disarm(number);
        }
        group.next_poll = now;
        if group.turn != Turn::Ready && !group.files.is_empty() {
            group.turn = Turn::Ready;
            self.attention.unwatched.remove(&number);
            self.schedule.enqueue(number);
        }
    }
}

/// Names, without `.gz`, of archives that could not be opened.
fn unopened_archives(found: &[FoundFile]) -> Vec<OsString> {
    let unopened = found.iter().filter(|file| file.opened.is_none());
    let names = unopened.filter_map(|file| LogName::parse(&file.name));
    names.filter(|name| name.compressed).map(|name| name.plain.to_owned()).collect()
}

/// Whether a file of the group is the one that was found under a plain name, or compressed.
///
/// An open file keeps its inode. One that was closed, and then compressed, has lost it, perhaps to
/// another file of the same directory: it is known by its name, which no longer changes.
fn is_that_file(file: &TailedFile, inode: Inode, plain: &OsStr, compressed: bool) -> bool {
    let is_same_inode = file.inode == inode;
    let is_same_name = *file.name == *plain;
    (is_same_name && (is_same_inode || compressed))
        || (is_same_inode && (file.source.is_some() || file.is_parked))
}

/// Whether a file that was opened anew may be the one that was closed, as far as its first bytes say:
/// its directory may have been replaced, and all in it has old names and perhaps old numbers.
fn may_be_closed_file(file: &TailedFile, opened: Option<&Opened>, compressed: bool) -> bool {
    let Some(opened) = opened.filter(|_| file.source.is_none()) else { return true };
    if compressed {
        Archive::head(&*opened.file, file.head.bytes as usize).is_ok_and(|head| head == file.head)
    } else {
        opened.bytes >= file.offset && file.head.matches(&*opened.file).unwrap_or(false)
    }
}

fn new_file(key: FileKey, group: u32, opened: Opened, name: Arc<OsStr>) -> TailedFile {
    TailedFile {
        key,
        group,
        name,
        inode: opened.inode,
        head: Head::default(),
        source: Some(Source::Plain(opened.file)),
        offset: 0,
        acknowledged: Acknowledged::default(),
        continuation: None,
        is_present: true,
        is_at_risk: false,
        end_since: None,
        rest_bytes: 0,
        finished_at: None,
        uid: None,
        former_uid: None,
        is_parked: false,
        is_compressed: false,
        missed_bytes: 0,
        charge: Charge::default(),
    }
}

pub(super) fn into_archive(source: Source) -> Source {
    match source {
        Source::Plain(file) => Source::Archive(Box::new(Archive::new(file))),
        archive @ Source::Archive(_) => archive,
    }
}

fn head_of(file: &dyn LogFile, compressed: bool) -> io::Result<Head> {
    if compressed { Archive::head(file, HEAD_BYTES_MAX) } else { Head::read(file, HEAD_BYTES_MAX) }
}

/// The checkpoint of a file that was found: by inode and head, or, of an archive, by name and head,
/// or by head alone when it was still live at the last checkpoint.
///
/// A reboot or a remount may give all files of a disk another device. So it decides only between two
/// checkpoints that would do otherwise; but on another device an empty head is no sign.
fn take_checkpoint(
    resume: &mut Resume,
    opened: &Opened,
    plain: &Arc<OsStr>,
    compressed: bool,
) -> Option<(FileKey, FileCheckpoint)> {
    let has_head = |checkpoint: &FileCheckpoint| {
        let head = checkpoint.head();
        if compressed {
            Archive::head(&*opened.file, head.bytes as usize).is_ok_and(|found| found == head)
        } else {
            head.matches(&*opened.file).unwrap_or(false)
        }
    };
    let position = if compressed {
        let by_name = resume.iter().position(|(_, one)| one.name == *plain && has_head(one));
        by_name.or_else(|| {
            resume
                .iter()
                .position(|(_, one)| one.name == one.live && one.head_bytes > 0 && has_head(one))
        })
    } else {
        let has_inode = |one: &FileCheckpoint| one.inode == opened.inode.inode && has_head(one);
        let same = |one: &FileCheckpoint| one.device == opened.inode.device && has_inode(one);
        let moved = |one: &FileCheckpoint| one.head_bytes > 0 && has_inode(one);
        let by_device = resume.iter().position(|(_, one)| same(one));
        by_device.or_else(|| resume.iter().position(|(_, one)| moved(one)))
    };
    Some(resume.swap_remove(position?))
}

/// Where the last complete line of a file ends: what `start_at: end` begins with.
fn last_line_end(file: &dyn LogFile, bytes: u64) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let start = bytes.saturating_sub(READ_BYTES as u64);
    let read = file.read_at(&mut buffer, start)?;
    let end = memchr::memrchr(b'\n', &buffer[..read]);
    Ok(end.map_or(bytes, |newline| start + newline as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: Inode = Inode { device: 1, inode: 7 };
    const OTHER: Inode = Inode { device: 1, inode: 8 };

    fn file(name: &str) -> TailedFile {
        let opened =
            Opened { file: Box::new(tempfile::tempfile().unwrap()), inode: NUMBER, bytes: 0 };
        new_file(1, 1, opened, Arc::from(OsStr::new(name)))
    }

    /// Scenario: row 5. A file was read to its end, closed and compressed; a later live file got its
    /// inode, and both are in the directory. Meanwhile another is still open, and is renamed.
    /// Guarantees: the closed one is its archive and not the live file, which would take its place,
    /// so that a restart would read the archive again; the open one is known under its new name.
    #[test]
    fn an_inode_that_was_used_again_is_another_file() {
        let plain = OsStr::new("0.log.20260101-000000");
        let mut closed = file("0.log.20260101-000000");
        closed.source = None;
        assert!(is_that_file(&closed, OTHER, plain, true));
        assert!(is_that_file(&closed, NUMBER, plain, false));
        assert!(!is_that_file(&closed, NUMBER, OsStr::new("0.log"), false));
        assert!(!is_that_file(&closed, NUMBER, OsStr::new("0.log.20260101-000010"), false));
        let open = file("0.log");
        assert!(is_that_file(&open, NUMBER, plain, false));
        assert!(!is_that_file(&open, OTHER, OsStr::new("0.log"), false));
    }

    /// Scenario: row 38. A directory is replaced, and its new file has the name and the number of one
    /// that was read, closed and not settled: with other first bytes, or shorter.
    /// Guarantees: it is another file. One that begins alike is the same, and so is its archive.
    #[test]
    fn a_closed_file_is_known_by_its_first_bytes_too() {
        let opened = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, content).unwrap();
            Opened { file: Box::new(file), inode: NUMBER, bytes: content.len() as u64 }
        };
        let mut closed = file("0.log");
        (closed.source, closed.offset, closed.head) = (None, 9, Head::of(b"one\ntwo\n\n"));
        for (content, is_same) in [
            (&b"one\ntwo\n\n"[..], true),
            (b"one\ntwo\n\nmore", true),
            (b"two\none\n\n", false),
            (b"one\n", false),
        ] {
            assert_eq!(may_be_closed_file(&closed, Some(&opened(content)), false), is_same);
            let mut archive =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut archive, content).unwrap();
            let archive = archive.finish().unwrap();
            assert_eq!(may_be_closed_file(&closed, Some(&opened(&archive)), true), is_same);
        }
        assert!(may_be_closed_file(&closed, None, false));
    }
}
