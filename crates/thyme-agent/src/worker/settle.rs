//! Settlements: the budget gets its bytes back, the books are balanced, checkpoints move.

use std::{sync::Arc, time::Instant};

use super::Worker;
use crate::{
    checkpoint::{Change, FileKey},
    encode::EncodeError,
    limits::LENGTH_INTERVAL,
    queue::{FileRange, Request, SetAside, Settled, SettledPart, Settlement},
};

impl Worker {
    /// Books what became of a request.
    pub(super) fn take_settlement(&mut self, settlement: Settlement) {
        match settlement {
            Settlement::Part(part) => self.settle_part(part),
            Settlement::Aside(aside) => self.set_aside(aside),
            Settlement::Ended(settled) => self.settle(settled),
            Settlement::Kept(request) => self.give_to_spool(request),
            Settlement::Secured(number) => {
                // It may have ended meanwhile; then its bytes are acknowledged.
                if let Some(request) = self.under_way.get(&number) {
                    request.note_copy(true);
                    let spans = Arc::clone(&request.spans);
                    self.acknowledge(spans.iter().map(|span| span.range));
                }
            }
            Settlement::CopyLost(number) => self.secure_again(number),
        }
    }

    /// Books the end of a part of a request: what the settled records alone cover is done.
    fn settle_part(&mut self, part: SettledPart) {
        let (records, bytes) = (part.records as i64, part.source_bytes as i64);
        let together = self.metrics.together();
        self.metrics.queued_request.add(-records, -bytes);
        self.metrics.book_part(&part);
        drop(together);
        self.acknowledge(part.ranges());
        self.advance_copy(part.number, part.settled);
    }

    /// What is left of a request is the exporter's to hold: others may take its place, also where it was
    /// meant for the spool, which had no room.
    fn set_aside(&mut self, aside: SetAside) {
        let SetAside { number, to_spool, charged_bytes, rest, .. } = aside;
        if to_spool {
            self.spool_pending_requests -= 1;
            self.spool_pending_bytes -= charged_bytes;
            self.outstanding_requests += 1;
            self.state.set_waiting(true);
        } else {
            self.outstanding_bytes -= charged_bytes;
        }
        self.aside_requests += 1;
        if let Some(under_way) = self.under_way.get_mut(&number) {
            under_way.shrink(rest);
        }
    }

    /// Books the end of a request.
    fn settle(&mut self, settled: Settled) {
        let request = &settled.request;
        let (records, bytes) = request.unsettled();
        let (records, bytes) = (records as i64, bytes as i64);
        self.metrics.queue_requests.add_gauge(-1);
        let together = self.metrics.together();
        self.metrics.queued_request.add(-records, -bytes);
        self.metrics.book_end(&settled);
        drop(together);
        let request = settled.request;
        self.forget_copy(request.token.number);
        self.release(request);
        self.hand_over();
    }

    /// The spool has the request on disk: that counts as settled, and the spool books its end.
    fn give_to_spool(&mut self, request: Request) {
        let (records, bytes) = (request.records as i64, request.source_bytes as i64);
        let together = self.metrics.together();
        self.metrics.queued_request.add(-records, -bytes);
        self.metrics.queued_spool.add(records, bytes);
        drop(together);
        self.release(request);
    }

    /// Takes the budget back, acknowledges, and uses the memory again.
    fn release(&mut self, request: Request) {
        let token = request.token;
        if token.to_spool {
            self.spool_pending_requests -= 1;
            self.spool_pending_bytes -= token.charged_bytes;
        } else {
            self.outstanding_requests -= 1;
            self.outstanding_bytes -= token.charged_bytes;
            self.aside_requests -= usize::from(token.is_aside);
            if self.outstanding_requests == 0 {
                self.state.set_waiting(false);
            }
        }
        self.acknowledge(token.spans.iter().map(|span| span.range));
        drop(request.body);
        self.encoder.recycle(token.buffer);
    }

    /// Moves the checkpoints of files whose bytes are settled.
    pub(super) fn acknowledge(&mut self, ranges: impl IntoIterator<Item = FileRange>) {
        let mut touched: Vec<u32> = Vec::new();
        for range in ranges {
            let Some(file) = self.files.get_mut(&range.file) else { continue };
            file.acknowledged.add(range.start, range.end);
            file.endings.forget_before(file.acknowledged.prefix());
            if touched.last() != Some(&range.file) {
                touched.push(range.file);
            }
        }
        crate::failpoint::hit("settlement_booked");
        touched.sort_unstable();
        touched.dedup();
        self.publish(&touched);
    }

    /// The agent ends: the next one is to know how much of each file is left.
    pub(super) fn publish_unsettled(&mut self) {
        let mut unsettled = Vec::new();
        for (id, file) in &mut self.files {
            // What is gone has been counted.
            if !file.is_present {
                continue;
            }
            file.look_again();
            if file.unsettled_bytes() > 0 {
                unsettled.push(*id);
            }
        }
        self.publish(&unsettled);
    }

    /// Notes that more of a file is known than its checkpoint says. An acknowledgement says so in a moment;
    /// where none comes, [`Worker::publish_lengths`] does.
    pub(super) fn note_growth(&mut self, id: u32) {
        if let Some(file) = self.files.get_mut(&id)
            && !std::mem::replace(&mut file.is_growth_noted, true)
        {
            self.attention.grown.push(id);
        }
    }

    /// Files that have grown, and of which nothing was acknowledged in [`LENGTH_INTERVAL`]: should they be
    /// deleted while no agent runs, the next one knows how much is lost.
    pub(super) fn publish_lengths(&mut self, now: Instant) -> Result<(), EncodeError> {
        if self.attention.next_length_look.is_some_and(|next| now < next) {
            return Ok(());
        }
        self.attention.next_length_look = Some(now + LENGTH_INTERVAL);
        self.look_at_overdue(now)?;
        let grown = std::mem::take(&mut self.attention.grown);
        let lengths = grown.into_iter().filter_map(|id| {
            let file = self.files.get_mut(&id)?;
            file.is_growth_noted = false;
            Some((id, file.length))
        });
        let noted: Vec<_> = lengths.collect();
        let due = std::mem::replace(&mut self.attention.grown_before, noted);
        let is_behind = |(id, length): &(u32, u64)| {
            self.files.get(id).is_some_and(|file| file.published_length < *length)
        };
        let behind: Vec<u32> = due.iter().filter(|one| is_behind(one)).map(|one| one.0).collect();
        if !behind.is_empty() {
            self.publish(&behind);
        }
        Ok(())
    }

    /// Leaves the present state of a file that stands in the place of another, in one go.
    pub(super) fn publish_instead_of(&mut self, former: FileKey, id: u32) {
        let Self { checkpoints: Some(checkpoints), files, groups, .. } = self else { return };
        let Some(file) = files.get_mut(&id) else { return };
        let Some(group) = groups.get(&file.group) else { return };
        file.published_length = file.length;
        checkpoints.publish([(former, None), (file.key, Some(file.checkpoint(group)))]);
    }

    /// Leaves the present state of these files for the checkpoint thread, in one go.
    pub(super) fn publish(&mut self, files: &[u32]) {
        let Self { checkpoints: Some(checkpoints), files: tailed, groups, .. } = self else {
            return;
        };
        let changes = files.iter().filter_map(|id| -> Option<Change> {
            let file = tailed.get_mut(id)?;
            let group = groups.get(&file.group)?;
            file.published_length = file.length;
            Some((file.key, Some(file.checkpoint(group))))
        });
        checkpoints.publish(changes);
        crate::failpoint::hit("settlement_published");
    }
}
