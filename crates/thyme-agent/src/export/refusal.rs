//! What becomes of a part of a request that the sink does not want: halved, set aside, or given up.
//! One rule for whatever it says: **a refused request is halved, and a single record that is refused
//! is given up only where the sink refuses it alone, accepts something that is sent after that, and
//! refuses it alone again**, for its word is worth nothing before.
//!
//! - So it is with *too large* (413, words about size) and *rejected* (400, 422, INVALID_ARGUMENT).
//! - In both cases at most [`GIVEN_UP_IN_A_ROW_MAX`] records are given up in a row; then it must
//!   accept something again.
//! - *Suspect* (failed alone, see `delivery`): others were accepted already.
//!
//! What may not be given up is held. A record that was refused alone is tried again as soon as
//! another part of its request was accepted. A request that holds something else goes aside: its
//! consumer takes the next one, which may be the evidence. Aside, one request at a time is tried: all that it holds
//! once there is evidence, else one part of it, one in each interval for the whole exporter.
//!
//! What it costs: of a request of `n` records at most `2n - 1` attempts are refused, and so many only
//! where the sink refuses each of them and accepts others, and one more for each record that is given
//! up; `k` refused records among many cost about `2k log2(n/k)`. Where it accepts nothing at all, a request has [`PROBES_MAX`] attempts at once, and
//! from then on at most three in each interval, whatever waits.
//!
//! [`GIVEN_UP_IN_A_ROW_MAX`]: super::limits::GIVEN_UP_IN_A_ROW_MAX

use std::{
    collections::VecDeque,
    sync::PoisonError,
    time::{Duration, Instant},
};

use tokio::sync::SemaphorePermit;

use super::{
    account::Account,
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
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// It is too large.
    TooLarge(Quote),
    /// Something of it is wrong.
    Rejected(Quote),
    /// It failed alone.
    Suspect {
        /// Whether a single record may be given up for that.
        is_sure: bool,
        said: Quote,
    },
    /// It failed while it was tried aside.
    Failed(Quote),
}

/// A refusal.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: Why,
    /// Whether, before this attempt, the sink had accepted something that was sent after the refusal
    /// of this request that asked for evidence last.
    pub(super) is_proved: bool,
}

/// How the attempts to send a request have gone.
#[derive(Debug)]
pub(super) struct Course {
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
    held: VecDeque<(Part, Quote)>,
    /// Waits between looks at what is held.
    patience: Backoff,
}

impl Course {
    pub(super) fn new(retry: &RetryConfig) -> Self {
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
        let (alone, held): (VecDeque<_>, _) = held.into_iter().partition(|one| one.0.refusals > 0);
        self.held = held;
        let is_any = !alone.is_empty();
        parts.extend(alone.into_iter().rev().map(|(part, _)| part));
        is_any
    }
}

impl<S: Sink> Delivery<S> {
    /// Halves what was refused, or gives it up, or holds it.
    pub(super) async fn take_refusal(
        &self,
        mut part: Part,
        refusal: Refusal,
        parts: &mut Vec<Part>,
        course: &mut Course,
        account: &mut Account<'_>,
    ) {
        let Refusal { why, is_proved } = refusal;
        if let Why::Failed(_) = why {
            return course.hold(part, why);
        }
        course.refused_at.get_or_insert_with(|| self.evidence.now());
        let is_known = is_proved || matches!(why, Why::Suspect { .. });
        course.probes += u32::from(!is_known);
        if part.records > 1 && (is_known || course.probes <= PROBES_MAX) {
            if let Why::Rejected(said) = &why {
                self.warn_of_search(&part, said);
            }
            if let Some((first, second)) = self.bisector.halve(&part).await {
                parts.extend([second, first]);
                return;
            }
            // That it can't be halved would be our own fault.
        } else if part.records > 1 {
            return course.hold(part, why);
        }
        let is_sure = match &why {
            Why::TooLarge(_) | Why::Rejected(_) if part.refusals == 0 => {
                // What the sink accepted before proves nothing about this record.
                course.refused_at = Some(self.evidence.now());
                part.refusals = 1;
                false
            }
            Why::TooLarge(_) | Why::Rejected(_) => {
                part.refusals += u32::from(is_proved);
                is_proved && part.refusals >= REFUSALS_ALONE_MIN
            }
            Why::Suspect { is_sure, .. } => *is_sure,
            Why::Failed(_) => false,
        };
        if !is_sure {
            return course.hold(part, why);
        }
        if !self.evidence.may_give_up(part.records) {
            course.refused_at = Some(self.evidence.now());
            return course.hold(part, why);
        }
        self.give_up(&part, &why, account);
    }

    fn give_up(&self, part: &Part, why: &Why, account: &mut Account<'_>) {
        match why {
            Why::TooLarge(said) => {
                self.warn_of_dead_letter(part, said);
                account.dead_letter(part);
            }
            Why::Rejected(said) | Why::Suspect { said, .. } | Why::Failed(said) => {
                self.warn_of_rejection(part, said);
                account.drop_part(DropReason::Rejected, part);
            }
        }
    }

    /// Waits until something that is held may be tried, and puts it to what is to be sent. What it
    /// returns is the right to try; with it, nobody else aside does.
    pub(super) async fn wait_aside(
        &self,
        parts: &mut Vec<Part>,
        course: &mut Course,
        account: &mut Account<'_>,
        slot: &mut Slot,
    ) -> Option<SemaphorePermit<'_>> {
        // With one consumer, order is kept on arrival, but for records that were refused alone.
        if self.consumers > 1 || course.held.iter().all(|(part, _)| part.records <= 1) {
            slot.release();
        }
        course.is_aside = true;
        loop {
            let wait = course.patience.next(self.sink.chance());
            let begun = course.begun.unwrap_or_else(|| self.sink.now());
            if self.is_used_up(begun, wait) {
                for (part, said) in course.held.drain(..) {
                    self.warn_of_refusal_given_up(&part, &said);
                    account.drop_part(DropReason::RetryElapsed, &part);
                }
                return None;
            }
            self.warn_of_refusing(course);
            self.sink.sleep(wait).await;
            // It is never closed.
            let turn = self.aside.acquire().await.ok();
            if course.is_proved(&self.evidence) {
                parts.extend(course.held.drain(..).rev().map(|(part, _)| part));
                return turn;
            }
            if self.may_probe(wait) {
                course.probes = PROBES_MAX - 1;
                parts.extend(course.held.pop_front().map(|(part, _)| part));
                return turn;
            }
        }
    }

    /// Whether nobody has tried without evidence for so long.
    fn may_probe(&self, wait: Duration) -> bool {
        let now = self.sink.now();
        let mut probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = probed.is_none_or(|last| now.saturating_duration_since(last) >= wait);
        if is_due {
            *probed = Some(now);
        }
        is_due
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

    fn warn_of_refusing(&self, course: &Course) {
        let Some((_, said)) = course.held.front() else { return };
        let records: u64 = course.held.iter().map(|(part, _)| part.records).sum();
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

impl Course {
    fn hold(&mut self, part: Part, why: Why) {
        let (Why::TooLarge(said)
        | Why::Rejected(said)
        | Why::Suspect { said, .. }
        | Why::Failed(said)) = why;
        self.held.push_back((part, said));
    }
}
