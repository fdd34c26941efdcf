//! Files that are deleted, or about to be: what neither the sink nor the disk has of them goes to the
//! spool, before anything else is read.
//!
//! An archive that the kubelet removes at one of its next rotations is *at risk*; a file without a
//! name is there only as long as this process holds it open, and what was read of one that is truncated
//! only as long as this process runs. All are *urgent* until every byte of them is settled or kept. What of
//! an urgent file is under way to the sink is *secured*: the spool gets a copy, which the next start would
//! send.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::{
    Worker,
    group::{TailedFile, Turn},
    turn::Progress,
};
use crate::{
    config::Compression,
    discover::pattern::LogName,
    encode::EncodeError,
    limits::COMPLAINT_INTERVAL,
    metrics::LossReason,
    queue::{FileRange, Request, Rest, Settlement, Span, Token},
    spool::{Covered, SpoolMessage},
    tail::{
        acknowledge::Acknowledged,
        source::{Archive, Source},
    },
};

/// A request that the exporter has, as far as a copy of it needs.
#[derive(Debug)]
pub(super) struct UnderWay {
    body: Vec<Bytes>,
    body_bytes: usize,
    uncompressed_bytes: usize,
    records: u64,
    source_bytes: u64,
    pub(super) spans: Arc<[Span]>,
    /// Places of the records that are settled.
    pub(super) settled: Acknowledged,
    /// Places of those that are not in the body any more.
    left_out: Acknowledged,
    /// The same of the copy that the spool was given, if it was.
    copied_without: Option<Acknowledged>,
    /// Whether that has it, as the exporter is shown.
    in_spool: Arc<AtomicBool>,
}

impl UnderWay {
    pub(super) fn new(request: &Request) -> Self {
        Self {
            body: request.body.clone(),
            body_bytes: request.body_bytes,
            uncompressed_bytes: request.uncompressed_bytes,
            records: request.records,
            source_bytes: request.source_bytes,
            spans: Arc::clone(&request.token.spans),
            settled: request.settled.clone(),
            left_out: Acknowledged::default(),
            copied_without: None,
            in_spool: Arc::clone(&request.token.in_spool),
        }
    }

    /// Only so much of it is left.
    pub(super) fn shrink(&mut self, rest: Rest) {
        let Rest { body, body_bytes, uncompressed_bytes, records, source_bytes, spans, left_out } =
            rest;
        let (settled, copied_without) = (left_out.clone(), self.copied_without.take());
        let in_spool = Arc::clone(&self.in_spool);
        *self = Self {
            body,
            body_bytes,
            uncompressed_bytes,
            records,
            source_bytes,
            spans,
            settled,
            left_out,
            copied_without,
            in_spool,
        };
    }

    /// Whether the spool has a copy.
    pub(super) fn note_copy(&self, is_there: bool) {
        self.in_spool.store(is_there, Ordering::Relaxed);
    }

    /// A copy for the spool.
    pub(super) fn copy(
        &mut self,
        number: u64,
        compression: Compression,
        reply: Sender<Settlement>,
        files: &Files,
    ) -> Request {
        let covers = covers(&self.spans, files);
        self.copied_without = Some(self.left_out.clone());
        Request {
            body: self.body.clone(),
            body_bytes: self.body_bytes,
            uncompressed_bytes: self.uncompressed_bytes,
            records: self.records,
            source_bytes: self.source_bytes,
            compression,
            reply,
            settled: self.settled.without(&self.left_out),
            token: Token { number, covers, ..Token::default() },
        }
    }
}

type Files = crate::world::HashMap<u32, Box<TailedFile>>;

/// What spans cover, by the numbers that files have in checkpoints.
fn covers(spans: &[Span], files: &Files) -> Vec<Covered> {
    let mut covers: Vec<Covered> = Vec::new();
    for Span { range: FileRange { file, start, end }, .. } in spans {
        let Some(key) = files.get(file).map(|file| file.key) else { continue };
        match covers.last_mut() {
            Some((last, _, until)) if *last == key && until == start => *until = *end,
            _ => covers.push((key, *start, *end)),
        }
    }
    covers
}

impl TailedFile {
    /// Whether it is deleted, was truncated, or is about to be deleted, while not every byte of it is settled or kept.
    pub(super) fn is_urgent(&self) -> bool {
        (self.is_at_risk || !self.is_present) && !(self.is_finished() && self.is_settled())
    }

    /// Bytes that only this file has, as far as that is known.
    fn bytes_at_risk(&mut self) -> u64 {
        self.look_again();
        self.unsettled_bytes()
    }
}

impl Worker {
    /// Notes which archives of a group the kubelet removes next, and whether the group is urgent.
    pub(super) fn assess(&mut self, number: u32) {
        let ids = self.group_files(number);
        let is_archive = |id: &u32| {
            self.files.get(id).is_some_and(|file| {
                let name = LogName::parse(&file.name);
                file.is_present && name.is_some_and(|name| name.rotated_at.is_some())
            })
        };
        let archives: Vec<u32> = ids.iter().copied().filter(is_archive).collect();
        // The kubelet keeps `containerLogMaxFiles - 1` archives. From one less on, the oldest are
        // taken out of its way.
        let safe = self.config.config.thyme.container_log_max_files.saturating_sub(3);
        let at_risk = archives.len().saturating_sub(safe);
        let mut is_urgent = false;
        for id in ids {
            let Some(file) = self.files.get_mut(&id) else { continue };
            file.is_at_risk = archives[..at_risk].contains(&id);
            is_urgent |= file.is_urgent();
        }
        if is_urgent && !self.urgent.contains(&number) {
            self.urgent.push(number);
        }
    }

    /// Whether the spool would take another request of this worker.
    pub(super) fn has_spool_room(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| {
            !spool.status.is_full()
                && self.spool_pending_bytes < self.config.spool_pending_bytes_max
        })
    }

    /// Whether the spool takes nothing and has nothing: then what was meant for it may go to the
    /// sink, and its order is kept all the same.
    ///
    /// Once the agent stops, the spool sends nothing more that it has: what it does not take may go to
    /// the sink before that, but not before what it was given and passes on.
    pub(super) fn is_spool_useless(&self) -> bool {
        let has_given_all = self.spool_pending_requests == 0;
        self.spool.as_ref().is_none_or(|spool| spool.status.is_full())
            && (self.is_stopping && has_given_all || !self.must_wait_for_spool())
    }

    /// Whether what is in the spool must reach the exporter before anything else is read.
    pub(super) fn must_wait_for_spool(&self) -> bool {
        self.spool
            .as_ref()
            .is_some_and(|spool| self.spool_pending_requests > 0 || spool.status.has_backlog())
    }

    /// Whether the agent stops, and what ends with it can go to the sink alone.
    fn must_go_to_sink(&self) -> bool {
        self.is_stopping && self.is_spool_useless() && !self.is_budget_used()
    }

    /// Takes urgent files to the spool, as far as it has room; at the end, where it has none, those
    /// without a name to the sink. Returns when there will be more to do; now while there is more to
    /// read.
    pub(super) fn rescue(&mut self, now: Instant) -> Result<Option<Instant>, EncodeError> {
        let mut next: Option<Instant> = None;
        let mut at = 0;
        while at < self.urgent.len() && (self.has_spool_room() || self.must_go_to_sink()) {
            let number = self.urgent[at];
            let mut urgent = self.urgent_files(number);
            if urgent.is_empty() {
                self.urgent.swap_remove(at);
                continue;
            }
            at += 1;
            if self.has_spool_room() {
                self.secure(&urgent);
            } else {
                urgent.retain(|id| self.files.get(id).is_some_and(|file| !file.is_present));
                if urgent.is_empty() {
                    continue;
                }
            }
            if let Some(due) = self.rescue_group(number, &urgent, now)? {
                next = Some(next.map_or(due, |other| other.min(due)));
            }
        }
        Ok(next)
    }

    fn urgent_files(&self, number: u32) -> Vec<u32> {
        let is_urgent = |id: &u32| self.files.get(id).is_some_and(|file| file.is_urgent());
        self.group_files(number).into_iter().filter(is_urgent).collect()
    }

    /// Gives the spool copies of the requests under way that cover these files.
    fn secure(&mut self, files: &[u32]) {
        let Some(spool) = &self.spool else { return };
        let compression = self.config.config.exporter.compression;
        for (number, request) in &mut self.under_way {
            let covers = |span: &Span| files.contains(&span.range.file);
            if request.copied_without.is_some() || !request.spans.iter().any(covers) {
                continue;
            }
            let copy = request.copy(*number, compression, self.reply.clone(), &self.files);
            crate::failpoint::hit("request_copied");
            // A spool that has ended ends the pipeline's health, and takes nothing.
            let _ended =
                spool.messages.send(SpoolMessage::Secure { request: copy, worker: spool.worker });
        }
    }

    /// The spool could not read its copy any more, and checkpoints are over what the request covers.
    pub(super) fn secure_again(&mut self, number: u64) {
        let (Some(spool), Some(request)) = (&self.spool, self.under_way.get_mut(&number)) else {
            return;
        };
        request.note_copy(false);
        let compression = self.config.config.exporter.compression;
        let request = request.copy(number, compression, self.reply.clone(), &self.files);
        // A spool that has ended ends the pipeline's health, and takes nothing.
        let _ended = spool.messages.send(SpoolMessage::Secure { request, worker: spool.worker });
    }

    /// The spool has a copy of a request that is settled so far.
    pub(super) fn advance_copy(&mut self, number: u64, settled: Acknowledged) {
        let Some(under_way) = self.under_way.get_mut(&number) else { return };
        if let (Some(spool), Some(left_out)) = (&self.spool, &under_way.copied_without) {
            let (worker, settled) = (spool.worker, settled.without(left_out));
            let _ended = spool.messages.send(SpoolMessage::Advance { worker, number, settled });
        }
        under_way.settled = settled;
    }

    /// Gives a request to the spool.
    pub(super) fn keep(&mut self, mut request: Request) {
        let Some(spool) = &self.spool else { return };
        request.token.covers = covers(&request.token.spans, &self.files);
        self.spool_pending_requests += 1;
        self.spool_pending_bytes += request.token.charged_bytes;
        // A spool that has ended ends the pipeline's health.
        let worker = spool.worker;
        let _ended = spool.messages.send(SpoolMessage::Keep { request, worker });
    }

    /// Gives the spool a request that was meant for the exporter, and that it has not. A copy that the
    /// spool has of it becomes the request: a checkpoint may be over it already.
    pub(super) fn divert(&mut self, mut request: Request) {
        self.under_way.remove(&request.token.number);
        self.outstanding_requests -= 1;
        self.outstanding_bytes -= request.token.charged_bytes;
        self.metrics.queue_requests.add_gauge(-1);
        if self.outstanding_requests == 0 {
            self.state.set_waiting(false);
        }
        request.token.to_spool = true;
        self.keep(request);
    }

    /// The request has ended: a copy of it isn't needed any more.
    pub(super) fn forget_copy(&mut self, number: u64) {
        if let Some(under_way) = self.under_way.remove(&number)
            && under_way.copied_without.is_some()
            && let Some(spool) = &self.spool
        {
            let worker = spool.worker;
            let _ended = spool.messages.send(SpoolMessage::Forget { worker, number });
        }
    }

    /// Reads on in a group whose files are urgent, once, and gives the spool what the open batch has
    /// of them when there is no more to read now.
    fn rescue_group(
        &mut self,
        number: u32,
        urgent: &[u32],
        now: Instant,
    ) -> Result<Option<Instant>, EncodeError> {
        let has_unread =
            urgent.iter().any(|id| self.files.get(id).is_some_and(|file| !file.is_finished()));
        let Some(group) = self.groups.get(&number) else { return Ok(None) };
        let mut due = has_unread.then_some(group.next_poll);
        let has_open_line = urgent.iter().any(|id| group.lines.partials.cover(*id));
        if (has_unread || has_open_line) && group.next_poll <= now {
            match self.read_for_spool(number, now)? {
                Progress::Again => return Ok(Some(now)),
                Progress::At(at) => due = due.map(|_| at),
                Progress::Idle => due = None,
            }
        }
        self.release_open_lines(number, urgent)?;
        let is_in_batch = |id: &u32| self.batch.ranges.iter().any(|range| range.file == *id);
        if urgent.iter().any(is_in_batch) {
            self.batch_goes_to_spool = true;
            self.close_batch()?;
        }
        Ok(due)
    }

    /// One turn of a group whose records go to the spool, with all that is in the open batch.
    fn read_for_spool(&mut self, number: u32, now: Instant) -> Result<Progress, EncodeError> {
        let went_to_spool = std::mem::replace(&mut self.batch_goes_to_spool, true);
        let before = self.batch.source_bytes;
        let requests_before = self.next_request;
        self.is_rescuing = true;
        let progress = self.read_turn(number, now);
        self.is_rescuing = false;
        let has_read = self.batch.source_bytes != before || self.next_request != requests_before;
        self.batch_goes_to_spool = (went_to_spool || has_read) && self.batch.opened_at.is_some();
        // Its usual turn is when this read has put it off to; one that it has now comes all the same.
        if let Some(group) = self.groups.get_mut(&number)
            && group.turn == Turn::Waiting
        {
            match progress {
                Ok(Progress::Idle) => group.turn = Turn::Idle,
                _ => self.schedule.wait_until(group.next_poll, number),
            }
        }
        progress
    }

    /// An open line of files that are gone and read to their end leaves as a piece: its rest, if it
    /// ever comes, follows as another.
    fn release_open_lines(&mut self, number: u32, urgent: &[u32]) -> Result<(), EncodeError> {
        let Some(group) = self.groups.get(&number) else { return Ok(()) };
        let is_held_back = |id: &u32| {
            let file = self.files.get(id);
            file.is_some_and(|file| !file.is_present && file.is_finished())
                && group.lines.partials.cover(*id)
        };
        // What stands in the file behind it is read next.
        let is_at_end = |id: &u32| self.files.get(id).is_some_and(|file| file.end_since.is_some());
        let is_unfinished = |id: &u32| self.files.get(id).is_some_and(|file| !file.is_finished());
        let mut unfinished = group.files.iter().filter(|id| is_unfinished(id));
        let is_caught_up = unfinished.next().is_none_or(is_at_end) && unfinished.next().is_none();
        if is_caught_up && urgent.iter().any(is_held_back) {
            self.flush_open_lines(number)?;
        }
        Ok(())
    }

    /// Keeps deleted files within their budget, and shows how much hangs on them.
    pub(super) fn look_after_deleted(&mut self, now: Instant) {
        let mut held: HashMap<u32, u64> = HashMap::new();
        let (mut at_risk, mut open) = (0, 0);
        for number in self.urgent.clone() {
            for id in self.urgent_files(number) {
                let Some(file) = self.files.get_mut(&id) else { continue };
                at_risk += file.bytes_at_risk();
                if !file.is_present
                    && let Some(Source::Plain(source)) = &file.source
                {
                    let length = source.length().unwrap_or(0);
                    open += length;
                    held.insert(id, length);
                }
            }
        }
        while open > self.config.deleted_files_bytes_max
            && let Some((&id, &length)) = held.iter().max_by_key(|(id, length)| (**length, **id))
        {
            held.remove(&id);
            open -= length;
            self.lose_rest(id, LossReason::DeletedFilesBudget, now);
        }
        self.metrics.bytes_at_risk.set(at_risk);
        self.metrics.deleted_open_bytes.set(open);
        self.urgent.retain(|number| {
            self.groups.get(number).is_some_and(|group| {
                let is_urgent = |id| self.files.get(id).is_some_and(|file| file.is_urgent());
                group.files.iter().any(is_urgent)
            })
        });
    }

    /// Notes which open files have lost their last name since the last look at their directory: nobody
    /// looks there any more.
    pub(super) fn note_deleted(&mut self) {
        self.note_deleted_among(|file| file.source.is_some() || file.unsettled_bytes() > 0);
    }

    /// Notes which open files are deleted, while their directories can't say so.
    pub(super) fn take_deleted(&mut self) {
        let now = self.clock.now();
        for id in self.note_deleted_among(|file| file.source.is_some()) {
            let gone = self.files.get(&id).filter(|file| !file.is_present);
            let Some(group) = gone.map(|file| file.group) else { continue };
            self.attention.ending.insert(id);
            self.activate(group, now);
            self.publish(&[id]);
        }
    }

    fn note_deleted_among(&mut self, is_meant: impl Fn(&TailedFile) -> bool) -> Vec<u32> {
        let may_be_deleted = |file: &TailedFile| {
            let open = file.source.as_ref();
            let is_unlinked = |one: &Source| one.file().state().is_ok_and(|state| !state.has_name);
            is_meant(file) && open.is_none_or(is_unlinked)
        };
        let is_asked = |file: &TailedFile| file.is_present && may_be_deleted(file);
        let mut asked: Vec<u32> =
            self.files.iter().filter(|(_, file)| is_asked(file)).map(|(id, _)| *id).collect();
        asked.sort_unstable();
        for id in asked.iter().copied() {
            let is_open = self.files.get(&id).is_some_and(|file| file.source.is_some());
            if !is_open && !self.is_unlinked(id) {
                continue;
            }
            if let Some(file) = self.files.get_mut(&id) {
                file.look_again();
            }
            let has_archive = self.has_archive(id);
            let Some(file) = self.files.get_mut(&id) else { continue };
            file.is_present = has_archive;
            let group = file.group;
            self.assess(group);
        }
        asked
    }

    /// Whether a deleted file was compressed, or may have been: then the next start reads on in its archive,
    /// or finds that there is none.
    fn has_archive(&mut self, id: u32) -> bool {
        let Some(file) = self.files.get(&id) else { return false };
        let Some(group) = self.groups.get(&file.group) else { return false };
        let known: Vec<_> = group.files.iter().filter_map(|id| self.files.get(id)).collect();
        let is_live = file.name == group.key.live;
        let entries = match self.tree.entries(&group.key.directory) {
            Ok(entries) => entries,
            Err(error) => return error.kind() != io::ErrorKind::NotFound,
        };
        let mut new_archives = Vec::new();
        for entry in &entries {
            let Some(name) = LogName::parse(&entry.name) else { continue };
            if !name.compressed || name.live != &*group.key.live {
                continue;
            }
            if *name.plain == *file.name {
                return true;
            }
            // A live file may have become any archive that nobody knows yet and that begins like it. The name
            // of a file that is gone says nothing: in a directory that was replaced another may have it.
            if is_live && known.iter().all(|one| !one.is_present || *one.name != *name.plain) {
                new_archives.push(entry.name.clone());
            }
        }
        let (head, number) = (file.head, file.group);
        new_archives.iter().any(|name| match self.open_again(number, name) {
            Ok(Some(opened)) => Archive::head(&*opened.file, head.bytes as usize)
                .map_or(true, |found| found == head),
            Ok(None) => false,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        })
    }

    /// The agent ends: what files without a name are known to hold, and neither the sink nor the spool
    /// has, ends with it.
    pub(super) fn lose_deleted(&mut self, now: Instant) {
        let is_gone = |file: &TailedFile| !file.is_present && file.unsettled_bytes() > 0;
        let mut gone: Vec<u32> =
            self.files.iter().filter(|(_, file)| is_gone(file)).map(|(id, _)| *id).collect();
        gone.sort_unstable();
        for id in gone {
            let Some(file) = self.files.get_mut(&id) else { continue };
            file.look_again();
            let (name, bytes) = (Arc::clone(&file.name), file.unsettled_bytes());
            // It is counted once: the next start knows of nothing in it.
            file.length = 0;
            self.count_lost(&name, bytes, LossReason::Shutdown, now);
            self.publish(&[id]);
        }
    }

    /// Closes a file without having read its rest, which is lost, and says so.
    pub(super) fn lose_rest(&mut self, id: u32, reason: LossReason, now: Instant) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let Some(Source::Plain(open)) = &file.source else { return };
        file.length = open.length().unwrap_or(0);
        let lost = file.unread_bytes();
        file.source = None;
        file.finished_at = Some(now);
        file.continuation = None;
        self.attention.ending.insert(id);
        // What was read of it is in requests, and settles or not like any other.
        file.length = file.offset;
        let name = Arc::clone(&file.name);
        if lost > 0 {
            self.count_lost(&name, lost, reason, now);
        }
        // It is counted once: the next start knows of nothing more in it.
        self.publish(&[id]);
    }

    pub(super) fn count_lost(&mut self, name: &OsStr, lost: u64, reason: LossReason, now: Instant) {
        self.metrics.lost_files.increment();
        self.metrics.lost(reason).add(lost);
        if self.last_loss_said.is_none_or(|last| now >= last + COMPLAINT_INTERVAL) {
            self.last_loss_said = Some(now);
            tracing::error!(
                file = ?name, bytes = lost, reason = reason.as_str(),
                "a log file is gone, or was cut, before all of it was read: this much is lost"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        metrics::Metrics,
        spool::{Spool, SpoolLink, SpoolStart},
        tail::descriptors::Descriptors,
        worker::{KeySource, WorkerChannels, WorkerConfig, WorkerState},
        world::{
            StateDisk,
            real::{NodeDisk, NodeLogs, SystemClock},
        },
    };

    const CONFIG: &str = "
receivers: {filelog: {include: [/none/*.log], storage: file_storage}}
exporters: {otlp: {endpoint: 'http://127.0.0.1:1', sending_queue: {storage: file_storage}}}
extensions: {file_storage: {directory: /none}}
service: {extensions: [file_storage], pipelines: {logs: {receivers: [filelog], exporters: [otlp]}}}
";

    type Channel = tokio::sync::mpsc::Receiver<Request>;

    /// A spool, with an exporter that has room for one request and takes none.
    fn spool(disk: &Arc<dyn StateDisk>, bytes_max: u64) -> (Spool, SpoolLink, Channel) {
        let (requests, exporter) = tokio::sync::mpsc::channel(1);
        let start = SpoolStart {
            disk: Arc::clone(disk),
            bytes_max,
            life: 1,
            requests,
            clock: SystemClock::shared(),
            metrics: Arc::default(),
        };
        let (spool, mut links) = Spool::open(start, 1).unwrap();
        (spool, links.remove(0), exporter)
    }

    fn worker(spool: SpoolLink) -> (Worker, Channel) {
        let (requests, exporter) = tokio::sync::mpsc::channel(1);
        let metrics = Arc::new(Metrics::default());
        let channels = WorkerChannels {
            messages: crossbeam_channel::never(),
            requests,
            spool: Some(spool),
            checkpoints: None,
            tree: Box::new(NodeLogs::default()),
            descriptors: Descriptors::new(100, &metrics),
        };
        let config = WorkerConfig::new(&Arc::new(Config::parse(CONFIG, "config").unwrap()));
        let (keys, state) = (Arc::new(KeySource::default()), WorkerState::new(Instant::now()));
        let clock = SystemClock::shared();
        let worker = Worker::new(config, channels, keys, Arc::new(state), metrics, clock, false);
        (worker.unwrap(), exporter)
    }

    /// A request that covers bytes of the file of its number.
    fn request(worker: &Worker, number: u64, to_spool: bool) -> Request {
        let body = Bytes::from(vec![number as u8; 1000]);
        let range = FileRange { file: number as u32, start: 0, end: 100 };
        Request {
            body_bytes: body.len(),
            body: vec![body],
            uncompressed_bytes: 1000,
            records: 1,
            source_bytes: 100,
            compression: Compression::None,
            reply: worker.reply.clone(),
            settled: Acknowledged::default(),
            token: Token {
                number,
                to_spool,
                spans: [Span { range, start: 0, end: 1 }].into(),
                ..Token::default()
            },
        }
    }

    /// Scenario: row 56. The exporter has two requests; the spool gets a copy of one, and later can't read it any
    /// more.
    /// Guarantees: the exporter sees for which request room in the spool comes back when it ends, and for as
    /// long.
    #[test]
    fn a_copy_shows_that_room_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let disk: Arc<dyn StateDisk> = Arc::new(NodeDisk::new(directory.path()));
        let (mut spool, link, _none) = self::spool(&disk, 1_500);
        let (mut worker, mut exporter) = worker(link);
        let shown = [1, 2].map(|number| {
            let request = request(&worker, number, false);
            worker.dispatch(request);
            exporter.try_recv().unwrap().token.in_spool
        });
        let shown = || shown.iter().map(|one| one.load(Ordering::Relaxed)).collect::<Vec<_>>();
        worker.secure(&[2]);
        assert_eq!(shown(), [false, false]);
        spool.step();
        worker.take_settlements();
        assert_eq!(shown(), [false, true]);
        worker.take_settlement(Settlement::CopyLost(2));
        assert_eq!(shown(), [false, false]);
    }

    /// Scenario: row 15. The exporter has no room for a request, and the spool has a copy of it, so that
    /// checkpoints may be over it. Then the request itself goes to the spool, which has no room for
    /// anything more; the agent is killed at once, or after the spool has taken the message.
    /// Guarantees: the next start has it, once: the copy is not forgotten before the request is kept.
    #[test]
    fn a_copy_is_not_forgotten_before_its_request_is_kept() {
        for steps in 0..3 {
            let directory = tempfile::tempdir().unwrap();
            let disk: Arc<dyn StateDisk> = Arc::new(NodeDisk::new(directory.path()));
            let (mut spool, link, _none) = self::spool(&disk, 1500);
            let (mut worker, _exporter) = worker(link);
            for number in 1..3 {
                let request = request(&worker, number, false);
                worker.dispatch(request);
            }
            worker.secure(&[2]);
            spool.step();
            let told: Vec<_> = worker.settled.try_iter().collect();
            assert!(matches!(told[..], [Settlement::Secured(2)]), "{told:?}");
            worker.secure(&[1]);
            spool.step();
            assert!(!worker.has_spool_room());
            let urgent = request(&worker, 3, true);
            worker.dispatch(urgent);
            for _ in 0..steps {
                spool.step();
            }
            worker.take_settlements();
            // Only what has no room is still to be kept.
            assert_eq!(worker.spool_pending_requests, if steps == 0 { 2 } else { 1 });
            drop((spool, worker));
            let (mut spool, _link, mut exporter) = self::spool(&disk, 1500);
            spool.step();
            assert_eq!(exporter.try_recv().unwrap().body.concat(), [2; 1000]);
            spool.step();
            assert!(exporter.try_recv().is_err());
        }
    }
}
