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
    group::{Group, TailedFile, Turn, reading_place, rotated_at},
    late,
    withdrawn::{Begun, Resume},
};
use crate::{
    checkpoint::{FileCheckpoint, FileKey},
    config::StartAt,
    discover::{FoundFile, Snapshot, pattern::LogName},
    encode::EncodeError,
    limits::{COMPLAINT_INTERVAL, READ_BYTES},
    tail::{
        acknowledge::Acknowledged,
        ending::Endings,
        identity::{Front, HEAD_BYTES_MAX, Head, Inode},
        source::{Archive, Source},
    },
    world::{LogFile, Opened},
};

impl Worker {
    /// Brings a group up to date with its directory.
    pub(super) fn apply_snapshot(&mut self, snapshot: Snapshot) -> Result<(), EncodeError> {
        let now = self.clock.now();
        let number = self.group_number(&snapshot, now);
        let mut resume = snapshot.resume;
        if let Some(group) = self.groups.get_mut(&number) {
            group.is_partly_seen = !snapshot.is_complete;
            resume.append(&mut group.resume);
        }
        let before: Vec<(u32, Arc<OsStr>, bool)> = self
            .group_files(number)
            .into_iter()
            .filter_map(|id| {
                let file = self.files.get_mut(&id)?;
                let was_present = std::mem::replace(&mut file.is_present, false);
                Some((id, Arc::clone(&file.name), was_present))
            })
            .collect();
        // Plain files come first, so that a `.gz` beside its plain original is recognised.
        let mut found = snapshot.files;
        found.sort_by_key(|file| LogName::parse(&file.name).is_none_or(|name| name.compressed));
        let unopened = unopened_archives(&found);
        // Where a new file comes among the known ones depends on which of them are still there.
        let (known, fresh): (Vec<_>, Vec<_>) = found
            .into_iter()
            .map(|file| (self.known_as(number, &file), file))
            .partition(|(known, _)| known.is_some());
        for (id, file) in known {
            self.note_compressed(id, file);
        }
        let keys = self.keys_for(&fresh);
        let mut begun = Vec::new();
        for (key, (_, file)) in keys.into_iter().zip(fresh) {
            let place = (number, key);
            begun.extend(self.take_file(place, file, snapshot.start_at, &mut resume, now));
        }
        self.keep_what_may_be_archived(number, &unopened);
        self.look_at_parked(number);
        if snapshot.is_complete {
            self.end_parked(number, now);
        }
        crate::failpoint::hit("snapshot_taken");
        self.count_missed(number, &snapshot.missed, &snapshot.key.live, &mut resume);
        self.forget_empty(&mut resume, begun);
        if snapshot.is_complete {
            self.withdraw(number, resume, now);
        } else if let Some(group) = self.groups.get_mut(&number) {
            // One of them may be of a file that can't be opened now.
            group.resume = resume;
        }
        self.publish_moved(&before);
        let is_gone = |id: &u32| self.files.get(id).is_some_and(|file| !file.is_present);
        let gone: Vec<u32> = self.group_files(number).into_iter().filter(is_gone).collect();
        if snapshot.is_replaced {
            self.end_with(number, gone.last().copied())?;
        }
        self.attention.ending.extend(gone);
        self.assess(number);
        self.forget_vanished(number);
        self.activate(number, now);
        Ok(())
    }

    fn group_number(&mut self, snapshot: &Snapshot, now: Instant) -> u32 {
        let opened = snapshot.files.iter().filter_map(|file| file.opened.as_ref());
        let through = opened.filter_map(|opened| opened.through.as_deref()).next();
        if let Some(number) = self.numbers.get(&snapshot.key) {
            let waits = self.groups.get_mut(number).filter(|group| group.files.is_empty());
            if let (Some(group), Some(path)) = (waits, through) {
                group.take_metadata_of(path);
            }
            return *number;
        }
        let number = self.new_number();
        let place = snapshot.key.receiver;
        let receiver = (&self.config.receiver_names[place], &self.config.config.receivers[place]);
        let record_uid = self.config.config.thyme.record_uid;
        let mut group = Group::new(Arc::clone(&snapshot.key), receiver, record_uid, now);
        if let Some(path) = through {
            group.take_metadata_of(path);
        }
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

    /// A number in checkpoints for each file that may be begun. They go up in the order of reading: if
    /// the file that is live now vanishes, its gap is placed by them.
    fn keys_for(&self, fresh: &[(Option<u32>, FoundFile)]) -> Vec<FileKey> {
        let age = |at: &usize| {
            let time = rotated_at(&fresh[*at].1.name);
            (time.is_none(), time)
        };
        let mut order: Vec<usize> = (0..fresh.len()).collect();
        order.sort_by_key(age);
        let mut keys = vec![0; fresh.len()];
        for at in order {
            keys[at] = self.keys.next();
        }
        keys
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
        (number, key): (u32, FileKey),
        found: FoundFile,
        start_at: StartAt,
        resume: &mut Resume,
        now: Instant,
    ) -> Option<Begun> {
        let name = LogName::parse(&found.name)?;
        let (plain, compressed): (Arc<OsStr>, _) = (name.plain.into(), name.compressed);
        if let Some(id) = self.recognise(number, &found, &plain, compressed) {
            self.note_compressed(Some(id), found);
            return None;
        }
        let passed_over = found.old_bytes.filter(|_| start_at == StartAt::End);
        let opened = found.opened?;
        if compressed && let Some(id) = self.recognise_archive(number, &opened, &plain) {
            self.note_compressed(Some(id), FoundFile { opened: Some(opened), ..found });
            return None;
        }
        // Discovery reports a file once: it is followed even if it can't be read now.
        let head = head_of(&*opened.file, compressed).unwrap_or_else(|error| {
            self.metrics.file_errors.increment();
            tracing::warn!(file = ?found.name, %error, "cannot read the head of a log file");
            Head::default()
        });
        let resumed = take_checkpoint(resume, &opened, &plain, compressed);
        let begun = match (&resumed, compressed) {
            (None, true) => Some(Begun::Archive),
            (None, false) => Some(Begun::Plain(opened.inode.device)),
            (Some(_), _) => None,
        };
        let is_live = self.groups.get(&number).is_some_and(|group| *group.key.live == *plain);
        let file = match resumed {
            Some((key, checkpoint)) => {
                self.resume_file(number, opened, (plain, compressed), key, &checkpoint)
            }
            None => {
                self.begin_file((number, key), opened, (plain, compressed), is_live, passed_over)
            }
        };
        let head = file.head.longest(head);
        let (born, charge) = (found.born, found.charge);
        let mut file = TailedFile { head, born, charge, is_compressed: compressed, ..file };
        if compressed {
            if !file.is_finished() {
                let holds = file.source.as_ref().map(|one| late::archived_bytes(one.file()));
                file.length = holds.and_then(Result::ok).unwrap_or(0).max(file.offset);
            }
            file.source = file.source.map(into_archive);
        }
        if file.is_finished() {
            file.source = None;
            file.charge = Charge::default();
        }
        self.insert_file(number, file, now);
        begun
    }

    /// The file that it is, if the group has it.
    fn known_as(&mut self, number: u32, found: &FoundFile) -> Option<u32> {
        let name = LogName::parse(&found.name)?;
        self.recognise(number, found, &name.plain.into(), name.compressed)
    }

    /// What was recognised may have been compressed since the last look.
    fn note_compressed(&mut self, id: Option<u32>, found: FoundFile) {
        let compressed = LogName::parse(&found.name).is_some_and(|name| name.compressed);
        let Some(id) = id else { return };
        let Some(file) = self.files.get_mut(&id) else { return };
        // One that goes on, and was closed when it was hidden, is opened as a parked one is.
        file.is_parked |= file.source.is_none() && !file.is_finished();
        if file.is_parked {
            self.attention.closed.remove(&id);
            self.adopt(id, found.opened, compressed);
        } else if compressed {
            self.take_archive_of(id, found.opened);
        } else if file.source.is_none() {
            // It may have been out of sight, and its writer may be late all the same.
            self.attention.closed.insert(id);
        }
    }

    /// Files that were renamed or removed since the last look: whoever starts next knows them by what
    /// their checkpoints say now, or how much of them is gone.
    fn publish_moved(&mut self, before: &[(u32, Arc<OsStr>, bool)]) {
        let mut moved = Vec::new();
        for (id, name, was_present) in before {
            let Some(file) = self.files.get_mut(id) else { continue };
            if file.name != *name || file.is_present != *was_present {
                file.look_again();
                moved.push(*id);
            }
        }
        if !moved.is_empty() {
            self.publish(&moved);
        }
    }

    /// Whether it is a file that the group has: the same inode, or the archive of a known name.
    fn recognise(
        &mut self,
        number: u32,
        found: &FoundFile,
        plain: &Arc<OsStr>,
        compressed: bool,
    ) -> Option<u32> {
        let live = self.groups.get(&number).map(|group| Arc::clone(&group.key.live))?;
        // Of two files that have had one name the younger has it: a directory was replaced within the
        // second that an archive is named after.
        for id in self.group_files(number).into_iter().rev() {
            let Some(file) = self.files.get_mut(&id) else { continue };
            let is_renamed = found.is_renamed && file.has_number(found.inode, found.born);
            if (is_renamed || is_that_file(file, (found.inode, found.born), plain, compressed))
                && may_be_that_file(file, found.opened.as_ref(), compressed)
            {
                file.is_present = true;
                file.is_compressed = compressed;
                file.name.clone_from(plain);
                if !compressed && *plain == live && (file.is_finished() || file.is_late) {
                    // It was only hidden, and goes on.
                    (file.finished_at, file.end_since, file.is_late) = (None, None, false);
                }
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
                // One of which nothing was read is begun anew, at no loss. A parked one that has grown would
                // count as lost.
                None if file.head.bytes > 0 || file.is_parked => {
                    (file.head, file.head.bytes as usize)
                }
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
        (name, compressed): (Arc<OsStr>, bool),
        key: FileKey,
        checkpoint: &FileCheckpoint,
    ) -> TailedFile {
        let offset = if is_taken_as_read(checkpoint) {
            let archived = compressed.then(|| late::archived_bytes(&*opened.file));
            archived.map_or(opened.bytes, Result::unwrap_or_default)
        } else {
            checkpoint.offset
        };
        let is_whole = checkpoint.finished
            && if compressed {
                // Also one that was read as an archive: it may have been cut off, and written on.
                !late::holds_more(&*opened.file, offset)
            } else {
                opened.bytes == offset
            };
        let is_another = !compressed && is_rewritten(&opened, checkpoint);
        let mut file = new_file(key, number, opened, name);
        crate::failpoint::hit("file_resumed");
        if is_another {
            self.metrics.truncated_files.increment();
            tracing::warn!(
                file = ?file.name, read = checkpoint.offset,
                "a log file was truncated while no agent ran: it is read anew"
            );
            file.former_uid = checkpoint.uid.or(checkpoint.former_uid);
            return file;
        }
        file.head = checkpoint.head();
        file.endings = Endings::resumed(offset, checkpoint.ending());
        file.offset = offset;
        // What was read of it may go on with a line of the file before it, which is read again.
        file.skipped_from = 0;
        file.acknowledged = Acknowledged::new(offset, &checkpoint.beyond);
        (file.uid, file.former_uid) = (checkpoint.uid, checkpoint.former_uid);
        // One that holds more had a late writer; a live one was only hidden.
        let group = self.groups.get(&number);
        let is_live = !compressed && group.is_some_and(|group| *group.key.live == *file.name);
        let was_finished = checkpoint.finished && !is_live;
        if was_finished && is_whole {
            file.length = file.offset;
            file.finished_at = Some(self.clock.now());
        }
        file.is_late = was_finished && !is_whole;
        file
    }

    fn begin_file(
        &self,
        (number, key): (u32, FileKey),
        opened: Opened,
        (name, compressed): (Arc<OsStr>, bool),
        is_live: bool,
        passed_over: Option<u64>,
    ) -> TailedFile {
        let offset = match passed_over {
            None => 0,
            // What is taken as read is remembered as read: what is written to it later is not.
            Some(_) if compressed => late::archived_bytes(&*opened.file).unwrap_or(0),
            // It was cut since.
            Some(bytes) if bytes > opened.bytes => 0,
            Some(bytes) if is_live => last_line_end(&*opened.file, bytes).unwrap_or(0),
            Some(bytes) => bytes,
        };
        let is_passed_over = passed_over.is_some() && (compressed || offset == opened.bytes);
        let mut file = new_file(key, number, opened, name);
        file.offset = offset;
        file.skipped_from = offset;
        file.acknowledged = Acknowledged::new(offset, &[]);
        if is_passed_over && (compressed || !is_live) {
            file.length = offset;
            file.finished_at = Some(self.clock.now());
        }
        file
    }

    pub(super) fn insert_file(&mut self, number: u32, file: TailedFile, now: Instant) {
        self.insert_file_from(self.restored_below, number, file, now);
    }

    /// The same, where what is live and a gap comes behind all whose keys are below `newest_from`.
    pub(super) fn insert_file_from(
        &mut self,
        newest_from: FileKey,
        number: u32,
        mut file: TailedFile,
        now: Instant,
    ) {
        let id = self.new_number();
        let Some(group) = self.groups.get_mut(&number) else { return };
        let known: Vec<_> = group.files.iter().filter_map(|id| self.files.get(id)).collect();
        let is_live = file.name == group.key.live;
        let has_no_time = is_live && file.is_gap || !is_live && rotated_at(&file.name).is_none();
        let place = if has_no_time {
            // Nobody knows when it was rotated: it was found after these, and before those. What was live when the
            // life before ended was the newest then, also where it had the number of one that was found earlier.
            let newest_from = if is_live { newest_from } else { 0 };
            let mut keys = known.iter().map(|other| other.key);
            keys.position(|key| key > file.key && key >= newest_from).unwrap_or(known.len())
        } else {
            reading_place(&file.name, &group.key.live, known.iter().map(|file| &***file))
        };
        // Found when those behind it had been begun: what it ends with does not go on where they are.
        file.is_late |= !file.is_finished() && known[place..].iter().any(|other| other.is_begun());
        group.files.insert(place, id);
        file.published_length = file.length;
        let checkpoint = (file.key, Some(file.checkpoint(group)));
        if file.is_finished() {
            self.attention.ending.insert(id);
            // Its writer may be late all the same.
            if file.is_present && !file.is_compressed {
                self.attention.closed.insert(id);
            }
        }
        self.files.insert(id, Box::new(file));
        group.last_growth = now;
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.publish([checkpoint]);
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
/// another file of the same directory: it is known by its name, which no longer changes, and by when it
/// came to be.
fn is_that_file(
    file: &TailedFile,
    (inode, born): (Inode, Option<u64>),
    plain: &OsStr,
    compressed: bool,
) -> bool {
    if file.is_gap {
        return false;
    }
    let is_same_inode = file.has_number(inode, born);
    let is_same_name = *file.name == *plain;
    let is_born_so = file.born.is_some() && file.born == born;
    let may_have_moved = is_born_so || rotated_at(&file.name).is_none();
    // An archive that was found first has the number of the plain file that stands beside it no more.
    (is_same_name && (is_same_inode || compressed || file.is_compressed))
        || (is_same_inode && (file.source.is_some() || file.is_parked && may_have_moved))
}

/// Whether a file that was opened anew may be the one that the group has, as far as its first bytes say:
/// its directory may have been replaced, and all in it has old names and perhaps old numbers.
fn may_be_that_file(file: &TailedFile, opened: Option<&Opened>, compressed: bool) -> bool {
    let Some(opened) = opened else { return true };
    match &file.source {
        // The number of an open file is no other's; its archive has a number of its own.
        Some(Source::Plain(open)) if compressed => may_be_archive_of(&**open, opened),
        Some(Source::Archive(_)) if !compressed => {
            file.head.bytes > 0 && file.head.matches(&*opened.file).unwrap_or(true)
        }
        Some(_) => true,
        None if compressed => Archive::head(&*opened.file, file.head.bytes as usize)
            .is_ok_and(|head| head == file.head),
        None => {
            // Of an empty one nothing says so: it is begun anew, at no loss.
            let is_known = file.head.bytes > 0 || file.is_parked;
            let has_all = opened.bytes >= file.offset;
            is_known && has_all && file.head.matches(&*opened.file).unwrap_or(false)
        }
    }
}

/// Whether an archive begins as a file does that is open. What can't be read is known by its name.
fn may_be_archive_of(open: &dyn LogFile, archive: &Opened) -> bool {
    let Ok(head) = Archive::head(&*archive.file, HEAD_BYTES_MAX) else { return true };
    // The file may have been written to since it was compressed.
    head.matches(open).unwrap_or(true)
}

pub(super) fn new_file(key: FileKey, group: u32, opened: Opened, name: Arc<OsStr>) -> TailedFile {
    // It may have been cut since it was opened: what it held then may be known by a checkpoint, too.
    let length = opened.file.state().map_or(opened.bytes, |state| state.bytes);
    TailedFile {
        key,
        group,
        name,
        inode: opened.inode,
        born: None,
        head: Head::default(),
        front: Front::default(),
        source: Some(Source::Plain(opened.file)),
        offset: 0,
        acknowledged: Acknowledged::default(),
        skipped_from: 0,
        endings: Endings::default(),
        length,
        published_length: 0,
        is_growth_noted: false,
        modified_unix_nanos: 0,
        continuation: None,
        is_present: true,
        is_at_risk: false,
        end_since: None,
        rest_bytes: 0,
        finished_at: None,
        is_late: false,
        is_last: false,
        is_gap: false,
        uid: None,
        former_uid: None,
        is_parked: false,
        is_compressed: false,
        is_awaited: false,
        cut_at: None,
        charge: Charge::default(),
    }
}

/// Whether a plain file is another one than was read, though it begins alike.
fn is_rewritten(opened: &Opened, checkpoint: &FileCheckpoint) -> bool {
    let ending = checkpoint.ending();
    opened.bytes < checkpoint.offset
        || !ending.matches(&*opened.file, checkpoint.offset).unwrap_or(true)
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
        // It was read as its archive last, which stands beside it: a rotated name is no other file's.
        let is_beside = |one: &FileCheckpoint| {
            one.name == *plain && one.name != one.live && one.head_bytes > 0 && has_head(one)
        };
        let by_device = resume.iter().position(|(_, one)| same(one));
        let by_inode = by_device.or_else(|| resume.iter().position(|(_, one)| moved(one)));
        by_inode.or_else(|| resume.iter().position(|(_, one)| is_beside(one)))
    };
    Some(resume.swap_remove(position?))
}

/// Whether an older agent noted a rotated file that had content as finished at 0: with `start_at: end`
/// it took it as read, and did not write down up to where. An empty one has no head.
fn is_taken_as_read(checkpoint: &FileCheckpoint) -> bool {
    let FileCheckpoint { finished, offset, beyond, head_bytes, .. } = checkpoint;
    *finished && *offset == 0 && beyond.is_empty() && *head_bytes > 0
}

/// Where the last complete line of a file ends: what `start_at: end` begins with.
fn last_line_end(file: &dyn LogFile, bytes: u64) -> io::Result<u64> {
    let start = bytes.saturating_sub(READ_BYTES as u64);
    // What was written since is to be read.
    let mut buffer = vec![0; (bytes - start) as usize];
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
        let opened = Opened {
            file: Box::new(tempfile::tempfile().unwrap()),
            inode: NUMBER,
            bytes: 0,
            through: None,
        };
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
        assert!(is_that_file(&closed, (OTHER, None), plain, true));
        assert!(is_that_file(&closed, (NUMBER, None), plain, false));
        assert!(!is_that_file(&closed, (NUMBER, None), OsStr::new("0.log"), false));
        assert!(!is_that_file(&closed, (NUMBER, None), OsStr::new("0.log.20260101-000010"), false));
        let open = file("0.log");
        assert!(is_that_file(&open, (NUMBER, None), plain, false));
        assert!(!is_that_file(&open, (OTHER, None), OsStr::new("0.log"), false));
    }

    /// Scenario: row 1. Files of a group are found in any order; the one that was live was rotated
    /// and removed between two looks, so that its name is that of the live file that is found then.
    /// Guarantees: what is found after it comes after it, so that lines of an older file are not
    /// read after those of a younger one, and joined to them; the rest is in the order of rotation.
    #[test]
    fn a_file_that_was_rotated_and_removed_between_two_looks_keeps_its_place() {
        let mut removed = file("0.log");
        removed.is_present = false;
        let mut order = vec![file("0.log.20260101-000000"), removed];
        let names = ["0.log", "0.log.20260101-000020", "0.log.20260101-000010"];
        for name in names {
            let place = reading_place(OsStr::new(name), OsStr::new("0.log"), order.iter());
            order.insert(place, file(name));
        }
        let order: Vec<_> = order.iter().map(|file| (&*file.name, file.is_present)).collect();
        let expected = [
            ("0.log.20260101-000000", true),
            ("0.log", false),
            ("0.log.20260101-000010", true),
            ("0.log.20260101-000020", true),
            ("0.log", true),
        ];
        assert_eq!(order, expected.map(|(name, is_present)| (OsStr::new(name), is_present)));
    }

    /// Scenario: row 38. A directory is replaced, and its new file has the name and the number of one
    /// that was read, closed and not settled: with other first bytes, or shorter.
    /// Guarantees: it is another file. One that begins alike is the same, and so is its archive.
    #[test]
    fn a_closed_file_is_known_by_its_first_bytes_too() {
        let opened = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, content).unwrap();
            Opened {
                file: Box::new(file),
                inode: NUMBER,
                bytes: content.len() as u64,
                through: None,
            }
        };
        let mut closed = file("0.log");
        (closed.source, closed.offset, closed.head) = (None, 9, Head::of(b"one\ntwo\n\n"));
        for (content, is_same) in [
            (&b"one\ntwo\n\n"[..], true),
            (b"one\ntwo\n\nmore", true),
            (b"two\none\n\n", false),
            (b"one\n", false),
        ] {
            assert_eq!(may_be_that_file(&closed, Some(&opened(content)), false), is_same);
            let mut archive =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut archive, content).unwrap();
            let archive = archive.finish().unwrap();
            assert_eq!(may_be_that_file(&closed, Some(&opened(&archive)), true), is_same);
        }
        assert!(may_be_that_file(&closed, None, false));
    }

    /// Scenario: row 38. A file was read and closed while it was empty; its directory is replaced, and
    /// a file in the new one has its name and its number.
    /// Guarantees: that is another file: an empty head is the head of any. One that waits for a
    /// descriptor, and of which nothing was read, is still the same.
    #[test]
    fn a_closed_empty_file_is_not_the_next_one_of_its_number() {
        let mut closed = file("0.log");
        (closed.source, closed.offset, closed.head) = (None, 0, Head::default());
        let content = tempfile::tempfile().unwrap();
        let opened = Opened { file: Box::new(content), inode: NUMBER, bytes: 9, through: None };
        assert!(!may_be_that_file(&closed, Some(&opened), false));
        closed.is_parked = true;
        assert!(may_be_that_file(&closed, Some(&opened), false));
    }

    /// Scenario: row 38. Two files have had one name, one of them of a directory that was replaced, and
    /// both are open; an archive of that name comes. Another one can't be decompressed.
    /// Guarantees: it is the one that begins as it does, also if that was written to since; what can't be
    /// read is known by its name.
    #[test]
    fn an_archive_of_an_open_file_begins_as_it_does() {
        let opened = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, content).unwrap();
            let bytes = content.len() as u64;
            Opened { file: Box::new(file), inode: OTHER, bytes, through: None }
        };
        let name = || Arc::from(OsStr::new("0.log.20260101-000000"));
        let older = new_file(1, 1, opened(b"one\n"), name());
        let younger = new_file(2, 1, opened(b"two\nthree\n"), name());
        let mut archive = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut archive, b"two\n").unwrap();
        let archive = opened(&archive.finish().unwrap());
        assert!(!may_be_that_file(&older, Some(&archive), true));
        assert!(may_be_that_file(&younger, Some(&archive), true));
        assert!(may_be_that_file(&older, Some(&opened(b"no gzip")), true));
        // Found first, and read: its plain file could not be opened then.
        let mut found = new_file(3, 1, archive, name());
        (found.is_compressed, found.head) = (true, Head::of(b"two\n"));
        found.source = found.source.map(into_archive);
        assert!(is_that_file(&found, (NUMBER, None), &name(), false));
        assert!(may_be_that_file(&found, Some(&opened(b"two\nthree\n")), false));
        assert!(!may_be_that_file(&found, Some(&opened(b"one\n")), false));
    }

    /// Scenario: row 43. Two checkpoints are of files with one number, on this device and on another one; all
    /// devices have another number now; a checkpoint on another device is of a file that was empty.
    /// Guarantees: the device decides between two that would do, in whatever order they stand, and else
    /// nothing; an empty head is no sign on another device.
    #[test]
    fn the_device_decides_between_two_checkpoints_only() {
        let checkpoint = |device: u64, content: &[u8]| {
            let head = Head::of(content);
            let checkpoint = format!(
                r#"{{"receiver": "file_log", "directory": "/logs", "live": "0.log", "name": "0.log",
                "device": {device}, "inode": {}, "head_bytes": {}, "head_crc32": {}, "offset": 4}}"#,
                NUMBER.inode, head.bytes, head.crc32
            );
            serde_json::from_str::<FileCheckpoint>(&checkpoint).unwrap()
        };
        let taken = |checkpoints: &[FileCheckpoint]| {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, b"one\ntwo\n").unwrap();
            let opened = Opened { file: Box::new(file), inode: NUMBER, bytes: 8, through: None };
            let mut resume: Resume = (0..).zip(checkpoints.iter().cloned()).collect();
            let name = Arc::from(OsStr::new("0.log"));
            take_checkpoint(&mut resume, &opened, &name, false).map(|(_, one)| one.device)
        };
        let (here, there) = (checkpoint(NUMBER.device, b"one\n"), checkpoint(9, b"one\n"));
        assert_eq!(taken(&[here.clone(), there.clone()]), Some(NUMBER.device));
        assert_eq!(taken(&[there.clone(), here]), Some(NUMBER.device));
        assert_eq!(taken(&[there]), Some(9));
        assert_eq!(taken(&[checkpoint(9, b"")]), None);
        assert_eq!(taken(&[checkpoint(NUMBER.device, b"")]), Some(NUMBER.device));
    }

    /// Scenario: row 5. A file was read to its end as its archive, which has a number of its own; when the
    /// agent starts again, the plain file still stands beside it.
    /// Guarantees: it goes on with that checkpoint, and is not read again. A live file, one of another
    /// name and one that begins otherwise do not.
    #[test]
    fn a_plain_file_beside_its_archive_has_its_checkpoint() {
        let rotated: Arc<OsStr> = Arc::from(OsStr::new("0.log.20260101-000000"));
        let live: Arc<OsStr> = Arc::from(OsStr::new("0.log"));
        let takes = |content: &[u8], of: &Arc<OsStr>, name: &Arc<OsStr>| {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, content).unwrap();
            let bytes = content.len() as u64;
            let opened = Opened { file: Box::new(file), inode: NUMBER, bytes, through: None };
            let head = Head::of(b"one\ntwo\n");
            let checkpoint = FileCheckpoint {
                receiver: Arc::from("file_log"),
                directory: Arc::from(Path::new("/logs")),
                name: Arc::clone(of),
                live: Arc::clone(&live),
                inode: OTHER.inode,
                device: OTHER.device,
                head_bytes: head.bytes,
                head_crc32: head.crc32,
                tail_bytes: 0,
                tail_crc32: 0,
                length: 8,
                offset: 8,
                beyond: Vec::new(),
                finished: true,
                uid: None,
                former_uid: None,
                others: None,
            };
            take_checkpoint(&mut vec![(1, checkpoint)], &opened, name, false).is_some()
        };
        assert!(takes(b"one\ntwo\n", &rotated, &rotated));
        assert!(!takes(b"one\nsix\n", &rotated, &rotated));
        assert!(!takes(b"one\ntwo\n", &rotated, &live));
        assert!(!takes(b"one\ntwo\n", &live, &live));
    }
}
