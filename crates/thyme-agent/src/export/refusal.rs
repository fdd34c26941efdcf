//! What becomes of a part of a request that the sink does not want: halved, set aside, or given up.
//! One rule for whatever it says: **a refused request is halved, and a single record that is refused
//! is given up only where the sink refuses it alone, accepts something that is sent after that, and
//! refuses it alone again**, for its word is worth nothing before.
//!
//! - So it is with *too large* (413, words about size) and *rejected* (400, 422, INVALID_ARGUMENT).
//! - In both cases at most [`GIVEN_UP_IN_A_ROW_MAX`] records are given up in a row; then it must
//!   accept something again.
//! - *Suspect* (failed alone, see `delivery`): halved, and a record is held. It is given up where it can be
//!   the cause of each failure and failed so often ([`FAULTS_ALONE_MIN`]), or where what waits aside is near
//!   a bound and it is [proved](super::aside::Proof) that the sink takes others and not this one.
//!
//! What may not be given up is held. A record that was refused alone is tried again as soon as
//! another part of its request was accepted. A request that holds something else goes aside: its
//! consumer takes the next one, which may be the evidence. Aside, all that a request holds is tried
//! once there is evidence, else one part of it, one in each interval for the whole exporter.
//!
//! Once single records are all that is left of a request, and the sink has accepted others meanwhile, its
//! owner gets its share of the budget back, and its body goes: what is held is bounded here.
//!
//! What it costs: of a request of `n` records at most `2n - 1` attempts are refused, and so many only
//! where the sink refuses each of them and accepts others, and one more for each record that is given
//! up; `k` refused records among many cost about `2k log2(n/k)`. Where it accepts nothing at all, a request has [`PROBES_MAX`] attempts at once, and
//! from then on at most three in each interval, whatever waits.
//!
//! [`GIVEN_UP_IN_A_ROW_MAX`]: super::limits::GIVEN_UP_IN_A_ROW_MAX
//! [`FAULTS_ALONE_MIN`]: super::limits::FAULTS_ALONE_MIN

use std::{collections::VecDeque, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::{
    account::Account,
    aside::{Place, Proof},
    bisect::Part,
    delivery::{Delivery, Sink},
    evidence::{Evidence, Moment},
    limits::{PROBES_MAX, REFUSALS_ALONE_MIN},
    outcome::Quote,
    retry::Backoff,
    slot::Slot,
    warnings::Topic,
};
use crate::{config::RetryConfig, queue::DropReason};

/// Why a sink does not want a part as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is too large.
    TooLarge,
    /// Something of it is wrong.
    Rejected,
    /// It failed alone.
    Suspect,
    /// It failed while it was tried aside.
    Failed,
}

/// A refusal.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: Why,
    /// What the sink said.
    pub(super) said: Quote,
    /// Whether, before this attempt, the sink had accepted something that was sent after the refusal
    /// of this request that asked for evidence last.
    pub(super) is_proved: bool,
}

/// How the attempts to send a request have gone.
#[derive(Debug)]
pub(super) struct Course<'a> {
    /// The first one; that others had to go first is not held against it.
    pub(super) begun: Option<Instant>,
    /// Waits after failures; a time-out's go on for its halves.
    pub(super) backoff: Backoff,
    /// A part of it was suspected: the others have less credit.
    pub(super) is_on_trial: bool,
    /// It no longer keeps a consumer busy, or waits as if it did not.
    pub(super) is_aside: bool,
    /// The next part to be sent can't be halved.
    pub(super) is_indivisible: bool,
    /// When a part of it was refused last for its size with "not now".
    pub(super) refused_for_now_at: Option<Moment>,
    /// When a part of it was refused first, or since when new evidence is needed.
    refused_at: Option<Moment>,
    /// Refusals without evidence.
    probes: u32,
    /// What is neither sent nor given up.
    held: VecDeque<Part>,
    /// What the sink said of the last one.
    said: Quote,
    /// Before the first attempt.
    since: Moment,
    /// The right to be tried in parts while nothing is accepted; until something is.
    pub(super) scout: Option<OwnedSemaphorePermit>,
    slot: &'a mut Slot,
    place: Place,
    /// Waits between looks at what is held.
    patience: Backoff,
}

impl<'a> Course<'a> {
    pub(super) fn new(
        retry: &RetryConfig,
        slot: &'a mut Slot,
        place: Place,
        since: Moment,
    ) -> Self {
        Self {
            begun: None,
            backoff: Backoff::new(retry),
            is_on_trial: false,
            is_aside: false,
            is_indivisible: false,
            refused_for_now_at: None,
            refused_at: None,
            probes: 0,
            held: VecDeque::new(),
            said: Quote::default(),
            since,
            scout: None,
            slot,
            place,
            patience: Backoff::new(retry),
        }
    }

    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the sink has accepted something that was sent after the first refusal, or the last
    /// one that asked for new evidence.
    pub(super) fn is_proved(&self, evidence: &Evidence) -> bool {
        self.refused_at.is_some_and(|at| evidence.has_accepted_since(at))
    }

    /// Puts the records that were refused alone to what is to be sent, if the sink has accepted
    /// something that was sent after that; returns whether there are any.
    pub(super) fn try_again_alone(&mut self, evidence: &Evidence, parts: &mut Vec<Part>) -> bool {
        if !self.is_proved(evidence) {
            return false;
        }
        let held = std::mem::take(&mut self.held);
        let (alone, held): (VecDeque<_>, _) = held.into_iter().partition(|part| part.refusals > 0);
        self.held = held;
        let is_any = !alone.is_empty();
        parts.extend(alone.into_iter().rev());
        is_any
    }

    /// Whether it waits beside those that consumers are busy with.
    pub(super) const fn is_beside(&self) -> bool {
        self.slot.is_released()
    }

    /// Others take its place.
    pub(super) fn step_aside(&mut self) {
        self.slot.release();
        self.place.step_aside();
    }

    /// A part of it has come to its end.
    pub(super) fn let_go(&mut self, part: &Part) {
        if part.is_held {
            self.place.subtract(part.memory_bytes());
        }
    }

    fn hold(&mut self, mut part: Part, said: Quote) {
        self.said = said;
        // What has more than one gets smaller, or is given up as single records.
        if part.records <= 1 && !part.is_held {
            part.is_held = true;
            self.place.add(part.memory_bytes());
        }
        self.held.push_back(part);
    }
}

impl<S: Sink> Delivery<S> {
    /// Halves what was refused, or gives it up, or holds it.
    pub(super) async fn take_refusal(
        &self,
        mut part: Part,
        refusal: Refusal,
        parts: &mut Vec<Part>,
        course: &mut Course<'_>,
        account: &mut Account<'_>,
    ) {
        let Refusal { why, said, is_proved } = refusal;
        course.refused_at.get_or_insert_with(|| self.evidence.now());
        let has_failed = matches!(why, Why::Failed | Why::Suspect);
        let is_known = is_proved || why == Why::Suspect;
        course.probes += u32::from(!is_known);
        let may_be_halved = if has_failed {
            is_known && self.aside.has_room()
        } else {
            course.probes <= PROBES_MAX
        };
        if part.records > 1 && (may_be_halved || is_proved && !has_failed) {
            if why == Why::Rejected {
                self.warn_of_search(&part, &said);
            }
            if let Some((first, second)) = self.bisector.halve(&part).await {
                parts.extend([second, first]);
                return;
            }
            // That it can't be halved would be our own fault.
        } else if part.records > 1 {
            return course.hold(part, said);
        }
        let is_sure = match why {
            Why::TooLarge | Why::Rejected if part.refusals == 0 => {
                // What the sink accepted before proves nothing about this record.
                course.refused_at = Some(self.evidence.now());
                part.refusals = 1;
                false
            }
            Why::TooLarge | Why::Rejected => {
                part.refusals += u32::from(is_proved);
                is_proved && part.refusals >= REFUSALS_ALONE_MIN
            }
            Why::Suspect | Why::Failed => part.proof.is_sure(),
        };
        if has_failed
            && !is_sure
            && part.proof.may_give_way(self.sink.now())
            && let Some(limit) = self.aside.reached(&self.metrics, account.is_in_spool())
        {
            self.warn_of_giving_way(&part, &said, limit);
            account.drop_part(DropReason::NeverTaken, &part);
            return course.let_go(&part);
        }
        if !is_sure {
            return course.hold(part, said);
        }
        if !self.evidence.may_give_up(part.records) {
            course.refused_at = Some(self.evidence.now());
            return course.hold(part, said);
        }
        self.give_up(&part, why, &said, account);
        course.let_go(&part);
    }

    fn give_up(&self, part: &Part, why: Why, said: &Quote, account: &mut Account<'_>) {
        match why {
            Why::TooLarge => {
                self.warn_of_dead_letter(part, said);
                account.dead_letter(part);
            }
            Why::Rejected | Why::Suspect | Why::Failed => {
                self.warn_of_rejection(part, said);
                account.drop_part(DropReason::Rejected, part);
            }
        }
    }

    /// Gives the request's owner back what it does not need for what is held, if that is little, and others
    /// are accepted. Returns the bytes that the owner holds of it from now on, beside the parts.
    pub(super) async fn set_aside(
        &self,
        course: &mut Course<'_>,
        account: &mut Account<'_>,
        rest: &mut Vec<Part>,
    ) -> usize {
        let is_little = course.held.iter().all(|part| part.records <= 1) && self.aside.has_room();
        let (is_new, mut owner_bytes) = (!account.is_set_aside(), 0);
        if is_new {
            if !is_little || !self.evidence.has_accepted_since(course.since) {
                return 0;
            }
            course.held = course.held.iter().map(Part::apart).collect();
            course.held.make_contiguous().sort_by_key(|part| part.first);
            let Some(joined) = self.bisector.join(course.held.make_contiguous()).await else {
                return 0;
            };
            if course.held.len() > 1 {
                owner_bytes = joined.memory_bytes();
                course.place.add(owner_bytes);
            }
            account.set_aside(joined);
        }
        // What was cut from the request would keep its body.
        if is_new || rest.len() != course.held.len() {
            *rest = course.held.iter().cloned().collect();
            rest.sort_by_key(|part| part.first);
        }
        owner_bytes
    }

    /// Waits until something that is held may be tried, and puts it to what is to be sent. What it
    /// returns is the right to try.
    pub(super) async fn wait_aside(
        &self,
        parts: &mut Vec<Part>,
        course: &mut Course<'_>,
        account: &mut Account<'_>,
    ) -> Option<SemaphorePermit<'_>> {
        // With one consumer, order is kept on arrival, but for records that were refused alone.
        if self.consumers > 1 || course.held.iter().all(|part| part.records <= 1) {
            course.step_aside();
        }
        course.is_aside = true;
        loop {
            let wait = course.patience.next(self.sink.chance());
            let begun = course.begun.unwrap_or_else(|| self.sink.now());
            if self.is_used_up(begun, wait) {
                for part in std::mem::take(&mut course.held) {
                    self.warn_of_refusal_given_up(&part, &course.said);
                    account.drop_part(DropReason::RetryElapsed, &part);
                    course.let_go(&part);
                }
                course.place.leave_line();
                return None;
            }
            self.warn_of_refusing(course);
            self.sink.sleep(wait).await;
            let turn = self.aside.turn().await;
            if course.is_proved(&self.evidence) {
                // That others are accepted shows what the right was to find out.
                course.scout = None;
                course.place.leave_line();
                parts.extend(course.held.drain(..).rev());
                return turn;
            }
            if course.place.may_probe(self.sink.now(), wait) {
                course.probes = PROBES_MAX - 1;
                parts.extend(course.held.pop_front());
                return turn;
            }
        }
    }

    fn warn_of_search(&self, part: &Part, said: &Quote) {
        self.warnings.about(Topic::Halved, |suppressed| {
            tracing::warn!(
                exporter = self.id,
                records = part.records,
                %said,
                suppressed,
                "the sink refuses a request: halved to find the records that it means"
            );
        });
    }

    fn warn_of_refusing(&self, course: &Course<'_>) {
        let said = &course.said;
        let records: u64 = course.held.iter().map(|part| part.records).sum();
        if course.held.iter().any(|part| part.proof.is_alone()) {
            return self.warnings.about(Topic::Held, |suppressed| {
                tracing::warn!(
                    exporter = self.id,
                    records,
                    %said,
                    suppressed,
                    "the sink does not take these records, and accepts others: they are kept aside, and \
                     tried again"
                );
            });
        }
        if course.held.iter().all(|part| part.proof != Proof::default()) {
            // What failed is said with each attempt.
            return;
        }
        self.warnings.about(Topic::Refusing, |suppressed| {
            let what = if self.evidence.has_accepted() {
                "the sink refuses records, and has accepted nothing since: they are kept, and tried \
                 again"
            } else {
                "the sink refuses everything, and has accepted nothing since the start of the \
                 agent: look at the exporter's endpoint, headers and auth. Everything is kept"
            };
            tracing::error!(exporter = self.id, records, %said, suppressed, "{what}");
        });
    }

    fn warn_of_giving_way(&self, part: &Part, said: &Quote, limit: &str) {
        self.warnings.about(Topic::GaveWay, |suppressed| {
            tracing::warn!(
                exporter = self.id,
                records = part.records,
                limit,
                %said,
                suppressed,
                "records dropped: the sink has never taken them while it took others, and what waits \
                 like them is about to use a limit up"
            );
        });
    }

    fn warn_of_refusal_given_up(&self, part: &Part, said: &Quote) {
        self.warnings.about(Topic::GivenUp, |suppressed| {
            tracing::error!(
                exporter = self.id,
                records = part.records,
                %said,
                suppressed,
                "records dropped: refused, and retry_on_failure allows no further attempt"
            );
        });
    }

    fn warn_of_rejection(&self, part: &Part, said: &Quote) {
        self.warnings.about(Topic::Rejected, |suppressed| {
            tracing::error!(
                exporter = self.id,
                records = part.records,
                %said,
                suppressed,
                "records dropped: the sink rejects them, and accepts others"
            );
        });
    }

    fn warn_of_dead_letter(&self, part: &Part, said: &Quote) {
        self.warnings.about(Topic::DeadLettered, |suppressed| {
            tracing::error!(
                exporter = self.id,
                records = part.records,
                uncompressed_bytes = part.uncompressed_bytes,
                %said,
                suppressed,
                "too large for the sink even alone: given up as a dead letter"
            );
        });
    }
}
