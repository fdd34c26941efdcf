//! A request's account: where its records went. The end of a part is told at once, with the places of
//! its records, so that neither a restart nor a panic sends them again; the end of the last part is
//! the request's. It must not decide what ends.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;

use super::bisect::Part;
use crate::queue::{
    DropReason, Request, Rest, SetAside, Settled, SettledPart, Settlement, Span, unsettled,
};

/// Where records went.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) acknowledged: u64,
    pub(super) dead_lettered: u64,
    pub(super) dropped: Vec<(DropReason, u64)>,
}

/// The account of a request that is under way.
#[derive(Debug)]
pub(super) struct Account<'a> {
    request: &'a mut Request,
    /// What has not been told.
    tally: Tally,
}

impl<'a> Account<'a> {
    pub(super) fn new(request: &'a mut Request) -> Self {
        Self { request, tally: Tally::default() }
    }

    pub(super) const fn request(&self) -> &Request {
        self.request
    }

    /// All of a part's records but so many were taken; those are dropped.
    pub(super) fn take_all_but(&mut self, dropped: u64, reason: DropReason, part: &Part) {
        let records = self.untold(part);
        let dropped = dropped.min(records);
        self.tally.acknowledged += records - dropped;
        self.note_dropped(reason, dropped);
        self.end(part);
    }

    /// A part is dropped.
    pub(super) fn drop_part(&mut self, reason: DropReason, part: &Part) {
        let records = self.untold(part);
        self.note_dropped(reason, records);
        self.end(part);
    }

    /// A part is a dead letter.
    pub(super) fn dead_letter(&mut self, part: &Part) {
        self.tally.dead_lettered += self.untold(part);
        self.end(part);
    }

    /// Whether the request's owner was given back what it has in the budget.
    pub(super) const fn is_set_aside(&self) -> bool {
        self.request.token.is_aside
    }

    /// Whether the request takes room in the spool until it ends.
    pub(super) fn is_in_spool(&self) -> bool {
        self.request.token.in_spool.load(Ordering::Relaxed)
    }

    /// What is left of the request is in these bytes, and held elsewhere: its body is let go of.
    pub(super) fn set_aside(&mut self, rest: Part) {
        let request = &mut *self.request;
        let token = &mut request.token;
        let (left_out, spans) = (request.settled.clone(), &token.spans);
        // What no record of covers anything ends with the request.
        let is_left =
            |span: &&Span| span.start == span.end || !left_out.contains(span.start, span.end);
        token.spans = spans.iter().filter(is_left).copied().collect();
        let (_, source_bytes) =
            unsettled(request.records, request.source_bytes, request.settled.count());
        let aside = SetAside {
            number: token.number,
            to_spool: std::mem::take(&mut token.to_spool),
            charged_bytes: std::mem::take(&mut token.charged_bytes),
            body_bytes: std::mem::take(&mut request.body_bytes),
            rest: Rest {
                body: rest.body,
                body_bytes: rest.body_bytes,
                uncompressed_bytes: rest.uncompressed_bytes,
                records: rest.records,
                source_bytes,
                spans: Arc::clone(&token.spans),
                left_out,
            },
        };
        token.is_aside = true;
        token.buffer = Bytes::new();
        request.body = Vec::new();
        // An owner that is gone has no budget any more.
        request.reply.send(Settlement::Aside(aside)).ok();
    }

    /// Where the records went of which no part has told.
    pub(super) fn close(self) -> Tally {
        self.tally
    }

    fn note_dropped(&mut self, reason: DropReason, records: u64) {
        if records == 0 {
            return;
        }
        match self.tally.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += records,
            None => self.tally.dropped.push((reason, records)),
        }
    }

    /// Records of a part whose end has not been told: all, but where a part can't be cut where one
    /// that was settled before ends.
    fn untold(&self, part: &Part) -> u64 {
        let before = self.request.settled.count();
        let mut settled = self.request.settled.clone();
        settled.add(part.first, part.first + part.records);
        settled.count() - before
    }

    /// A part has come to its end.
    fn end(&mut self, part: &Part) {
        let request = &mut *self.request;
        let places = part.first..part.first + part.records;
        let mut settled = request.settled.clone();
        settled.add(places.start, places.end);
        if settled.count() >= request.records {
            return;
        }
        let (records_before, bytes_before) = request.unsettled();
        let left = unsettled(request.records, request.source_bytes, settled.count());
        request.settled = settled.clone();
        let Tally { acknowledged, dead_lettered, dropped } = std::mem::take(&mut self.tally);
        let told = SettledPart {
            number: request.token.number,
            spans: request.token.spans.clone(),
            places,
            settled,
            records: records_before - left.0,
            source_bytes: bytes_before - left.1,
            acknowledged_records: acknowledged,
            dead_lettered_records: dead_lettered,
            dropped,
        };
        // An owner that is gone has nothing to account for any more.
        request.reply.send(Settlement::Part(told)).ok();
    }
}

/// The end of a request whose untold records went there.
pub(super) fn settle(request: Request, tally: Tally) -> Settled {
    let Tally { acknowledged, dead_lettered, dropped } = tally;
    let dropped_records: u64 = dropped.iter().map(|(_, records)| records).sum();
    debug_assert_eq!(acknowledged + dead_lettered + dropped_records, request.unsettled().0);
    Settled {
        request,
        acknowledged_records: acknowledged,
        dead_lettered_records: dead_lettered,
        dropped,
    }
}
