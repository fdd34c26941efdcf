//! Settlements: the budget gets its bytes back, the books are balanced, checkpoints move.

use super::Worker;
use crate::{
    checkpoint::Change,
    queue::{FileRange, Settled},
};

impl Worker {
    /// Books the end of a request.
    pub(super) fn settle(&mut self, settled: Settled) {
        let Settled { request, acknowledged_records, dead_lettered_records, dropped } = settled;
        let (records, bytes) = (request.records, request.source_bytes);
        self.outstanding_requests -= 1;
        if self.outstanding_requests == 0 {
            self.state.set_waiting(false);
        }
        self.outstanding_bytes -= request.token.charged_bytes;
        self.metrics.queue_requests.add_gauge(-1);
        self.metrics.queued_request.add(-(records as i64), -(bytes as i64));
        // The source bytes of a part of the records are their share of the request's; what is
        // acknowledged takes the rest, so that the sum is exact.
        let share = |part: u64| {
            let share = u128::from(bytes) * u128::from(part) / u128::from(records.max(1));
            i64::try_from(share).unwrap_or(i64::MAX)
        };
        let mut rest = bytes as i64;
        if dead_lettered_records > 0 {
            let part = share(dead_lettered_records);
            rest -= part;
            self.metrics.dead_lettered.add(dead_lettered_records as i64, part);
        }
        for (reason, part_records) in dropped {
            let part =
                if acknowledged_records == 0 && part_records + dead_lettered_records == records {
                    rest
                } else {
                    share(part_records)
                };
            rest -= part;
            self.metrics.dropped(reason).add(part_records as i64, part);
        }
        self.metrics.acknowledged.add(acknowledged_records as i64, rest);
        self.acknowledge(&request.token.ranges);
        drop(request.body);
        self.encoder.recycle(request.token.buffer);
        self.hand_over();
    }

    /// Moves the checkpoints of files whose bytes are settled.
    pub(super) fn acknowledge(&mut self, ranges: &[FileRange]) {
        let mut touched: Vec<u32> = Vec::new();
        for range in ranges {
            let Some(file) = self.files.get_mut(&range.file) else { continue };
            file.acknowledged.add(range.start, range.end);
            if touched.last() != Some(&range.file) {
                touched.push(range.file);
            }
        }
        crate::failpoint::hit("settlement_booked");
        touched.sort_unstable();
        touched.dedup();
        self.publish(&touched);
    }

    /// Leaves the present state of these files for the checkpoint thread, in one go.
    pub(super) fn publish(&self, files: &[u32]) {
        let Some(checkpoints) = &self.checkpoints else { return };
        let changes = files.iter().filter_map(|id| -> Option<Change> {
            let file = self.files.get(id)?;
            let group = self.groups.get(&file.group)?;
            Some((file.key, Some(file.checkpoint(&group.key))))
        });
        checkpoints.publish(changes);
        crate::failpoint::hit("settlement_published");
    }
}
