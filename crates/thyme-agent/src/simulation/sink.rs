//! The sink and the network before it: every kind of answer, at any time, and a memory of all that
//! it took.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use prost::Message as _;

use super::{
    plan::Mood,
    refusals::Refusals,
    truth::{Line, Piece},
    world::{Shared, World},
};
use crate::{
    export::simulated::{Answer, Network},
    parse::suffix::{CHUNK_OFFSET_ATTRIBUTE, MALFORMED_ATTRIBUTE, PARTIAL_ATTRIBUTE},
    world::Clock,
};

/// Answers that may be a request's own fault, in a row; more would make the exporter suspect it.
const FAULTS_IN_A_ROW_MAX: u32 = 5;

/// The sink's memory.
#[derive(Debug, Default)]
pub(super) struct SinkState {
    mood: Option<Mood>,
    mood_until: u64,
    /// Attempts whose answer is on its way: when it is there, and what it is.
    answers: BTreeMap<u64, (u64, Answer, i64)>,
    /// Attempts so far, each with its number.
    pub(super) attempts: u64,
    times_reachable: u64,
    faults_in_a_row: HashMap<Piece, u32>,
    pub(super) refusals: Refusals,
}

/// The records of a message, each as the pieces that it consists of.
type Records = Vec<Vec<Piece>>;

fn lines_of(records: &Records) -> Vec<usize> {
    records.iter().flatten().map(|piece| piece.line).collect()
}

impl World {
    fn mood(&mut self) -> Mood {
        if !self.faults {
            self.sink.times_reachable += u64::from(self.sink.mood != Some(Mood::Good));
            self.sink.mood = Some(Mood::Good);
            return Mood::Good;
        }
        if let Some(mood) = self.sink.mood
            && self.now < self.sink.mood_until
        {
            return mood;
        }
        let mood = self.chance.pick(&self.plan.moods);
        if self.sink.mood.replace(mood) == Some(Mood::Unreachable) && mood != Mood::Unreachable {
            self.sink.times_reachable += 1;
        }
        let milliseconds = self.chance.between(1, self.plan.mood_ms_max);
        self.sink.mood_until = self.now + milliseconds * 1_000_000;
        mood
    }

    /// Decodes a message; `None` when it is none, which fails the run.
    fn read_message(&mut self, message: &[u8], is_arriving: bool) -> Records {
        match ExportLogsServiceRequest::decode(message) {
            Ok(request) => {
                let mut records = Vec::new();
                for resource_logs in request.resource_logs {
                    let attributes = resource_logs.resource.unwrap_or_default().attributes;
                    let identity = identity_of(&attributes);
                    for record in
                        resource_logs.scope_logs.into_iter().flat_map(|one| one.log_records)
                    {
                        match self.read_record(&identity, &record, is_arriving) {
                            Ok(pieces) => records.push(pieces),
                            Err(error) => self.truth.fail(|| format!("{error}: {record:?}")),
                        }
                    }
                }
                records
            }
            Err(error) => {
                self.truth.fail(|| format!("a message that can't be decoded: {error}"));
                Vec::new()
            }
        }
    }

    /// What a message consists of.
    pub(super) fn pieces_of(&mut self, message: &[u8]) -> Vec<Piece> {
        self.read_message(message, false).into_iter().flatten().collect()
    }

    fn read_record(
        &mut self,
        identity: &str,
        record: &LogRecord,
        is_arriving: bool,
    ) -> Result<Vec<Piece>, String> {
        let body = match record.body.as_ref().and_then(|body| body.value.as_ref()) {
            Some(Value::StringValue(text)) => text.as_bytes(),
            Some(Value::BytesValue(bytes)) => bytes,
            _ => return Err("a body of another kind".to_owned()),
        };
        let attribute = |key: &str| {
            let found = record.attributes.iter().find(|one| one.key == key);
            found.map(|one| one.value.clone().and_then(|value| value.value))
        };
        // Only the second receiver says so.
        let receiver = usize::from(attribute("log.file.name").is_some());
        let pieces = self.truth.pieces_of(receiver, record.time_unix_nano, body)?;
        let Some(first) = pieces.first() else { return Ok(pieces) };
        let line = &self.truth.lines[first.line];
        // What the spool has of it has come under that name before.
        let is_rotated =
            *identity == identity_of(&[]) && (line.is_renamed || self.may_be_renamed(first.line));
        let is_renamed = is_rotated || self.may_be_taken_for_another(first.line, identity);
        if self.kubelet.containers[line.container].identity != *identity && !is_renamed {
            return Err(format!("line {} is not one of {identity}", first.line));
        }
        self.truth.lines[first.line].is_renamed |= is_rotated;
        let line = &self.truth.lines[first.line];
        let is_malformed = attribute(MALFORMED_ATTRIBUTE).is_some();
        if !is_malformed {
            let name = ["stdout", "stderr", ""][line.stream];
            if attribute("log.iostream") != Some(Some(Value::StringValue(name.to_owned()))) {
                return Err(format!("line {} has another stream", first.line));
            }
            if record.time_unix_nano != line.time_unix_nano {
                return Err(format!("line {} has another time", first.line));
            }
        } else if line.stream < 2 && first.start == 0 {
            return Err(format!("line {} was taken for no line", first.line));
        }
        if is_arriving {
            let marks =
                [CHUNK_OFFSET_ATTRIBUTE, PARTIAL_ATTRIBUTE].map(|key| attribute(key).is_some());
            self.truth.check_end(&pieces, marks, self.now, record);
            if marks[0] {
                self.check_cut(&pieces);
            }
        }
        Ok(pieces)
    }

    /// The sink takes these records.
    fn take(&mut self, records: &Records, is_uncertain: bool) {
        let tree = &self.tree;
        let may_come_again = |line: &Line| tree.may_be_another(line.content);
        for record in records {
            self.truth.arrived(record, (self.generation, is_uncertain), may_come_again);
        }
    }

    /// What becomes of an attempt, and how long that takes.
    fn decide(&mut self, records: &Records, message_bytes: usize) -> (Answer, Duration) {
        let soon = self.chance.milliseconds(1, 30);
        let mood = self.mood();
        if let Some(answer) = self.refusal(mood, records, message_bytes) {
            return (answer, soon);
        }
        if self.faults && self.chance.one_in(self.plan.partial_success_odds) && mood == Mood::Good {
            let kept = self.chance.place(records.len() + 1);
            self.take(&records[..kept].to_vec(), false);
            self.refuse(&records[kept..]);
            let rejected_records = (records.len() - kept) as u64;
            if rejected_records > 0 && self.chance.one_in(2) {
                return (Answer::RejectedInPart { rejected_records }, soon);
            }
            if kept > 0 {
                self.note_acceptance();
            }
            return (Answer::Accepted { rejected_records }, soon);
        }
        let first = records.iter().flatten().next().copied();
        let is_bad = mood != Mood::Good && !self.chance.one_in(self.plan.exception_odds);
        if is_bad && let Some(answer) = self.bad_answer(mood, first, records) {
            self.note_failure(records);
            return answer;
        }
        if let Some(answer) = self.slow_answer(records, message_bytes) {
            if answer.0 == Answer::TimedOut {
                self.note_failure(records);
            }
            return answer;
        }
        self.take(records, false);
        self.note_acceptance();
        let slow = if mood == Mood::Slow { self.chance.milliseconds(100, 20_000) } else { soon };
        (Answer::Accepted { rejected_records: 0 }, slow)
    }

    /// The sink's word that it does not want a request as it is. Once all is calm somebody has
    /// mended what was wrong: while everything that is under way is refused, nothing is given up,
    /// and nothing else is read.
    fn refusal(&mut self, mood: Mood, records: &Records, message_bytes: usize) -> Option<Answer> {
        if !self.faults {
            return None;
        }
        let is_too_large = self.plan.sink_bytes_max.is_some_and(|max| message_bytes > max);
        if is_too_large || mood == Mood::Narrow {
            self.note_refusal(records);
            self.note_failure(records);
            let is_for_now = self.chance.one_in(2);
            return Some(if is_for_now { Answer::TooLargeForNow } else { Answer::TooLarge });
        }
        let rejects = mood == Mood::Refusing || self.is_poisonous(records);
        if rejects || self.chance.one_in(self.plan.reject_odds) {
            self.note_refusal(records);
            return Some(Answer::Rejected);
        }
        None
    }

    /// What a sink does that is slower the more it gets; what takes too long it may take all the same.
    fn slow_answer(&mut self, records: &Records, bytes: usize) -> Option<(Answer, Duration)> {
        let now = self.now;
        let others = self.sink.answers.values().filter(|(at, ..)| *at > now).count();
        let wait = self.plan.slowness?.of(records.len(), bytes, others + 1);
        let timeout = self.plan.config.exporter.timeout;
        if wait < timeout {
            self.take(records, false);
            self.note_acceptance();
            return Some((Answer::Accepted { rejected_records: 0 }, wait));
        }
        if self.chance.one_in(2) {
            self.take(records, true);
        }
        Some((Answer::TimedOut, timeout))
    }

    fn bad_answer(
        &mut self,
        mood: Mood,
        first: Option<Piece>,
        records: &Records,
    ) -> Option<(Answer, Duration)> {
        let soon = self.chance.milliseconds(1, 30);
        if matches!(mood, Mood::Faulty | Mood::Broken)
            && let Some(first) = first
        {
            let faults = self.sink.faults_in_a_row.entry(first).or_default();
            *faults += 1;
            if *faults > FAULTS_IN_A_ROW_MAX {
                *faults = 0;
                return None;
            }
        }
        if matches!(mood, Mood::Broken | Mood::TimedOut) && self.chance.one_in(2) {
            self.take(records, true);
        }
        let answer = match mood {
            Mood::Good | Mood::Slow | Mood::Refusing | Mood::Narrow => return None,
            Mood::Busy => {
                let retry_after =
                    self.chance.one_in(2).then(|| self.chance.milliseconds(1, 60_000));
                Answer::Busy { retry_after }
            }
            Mood::Unreachable => Answer::Unreachable,
            Mood::Denied => Answer::Denied,
            Mood::Faulty => Answer::Fault,
            Mood::Broken => Answer::Broken,
            Mood::TimedOut => return Some((Answer::TimedOut, self.plan.config.exporter.timeout)),
        };
        Some((answer, soon))
    }
}

/// `uid/container/restart` of a resource.
fn identity_of(attributes: &[KeyValue]) -> String {
    let keys = ["k8s.pod.uid", "k8s.container.name", "k8s.container.restart_count"];
    let value = |key: &str| {
        let found = attributes.iter().find(|one| one.key == *key);
        match found.and_then(|one| one.value.clone()).and_then(|value| value.value) {
            Some(Value::StringValue(text)) => text,
            other => format!("{other:?}"),
        }
    };
    keys.map(value).join("/")
}

/// The network, as the exporter sees it.
#[derive(Debug)]
pub(super) struct SimulatedNetwork(pub(super) Shared);

impl Network for SimulatedNetwork {
    fn taken(&self, message: &[u8]) {
        let mut world = self.0.lock();
        let records = world.read_message(message, false);
        world.note(|| format!("lines {:?} leave the queue", lines_of(&records)));
        for record in records {
            world.truth.sent_first(&record);
        }
    }

    fn begin(&self, message: &[u8]) -> u64 {
        let mut world = self.0.lock();
        let records = world.read_message(message, true);
        world.sink.attempts += 1;
        let (answer, wait) = world.decide(&records, message.len());
        let at = world.now + wait.as_nanos() as u64;
        world.note(|| {
            format!("attempt with lines {:?}: {answer:?} after {wait:?}", lines_of(&records))
        });
        let attempt = world.sink.attempts;
        world.sink.answers.insert(attempt, (at, answer, records.len() as i64));
        attempt
    }

    fn answer(&self, attempt: u64) -> Option<Answer> {
        let mut world = self.0.lock();
        let (at, answer, records) = *world.sink.answers.get(&attempt)?;
        (at <= world.now).then(|| {
            world.sink.answers.remove(&attempt);
            world.heard(&answer, records);
            answer
        })
    }

    fn settled(&self, message: &[u8]) {
        let mut world = self.0.lock();
        let records = world.read_message(message, false);
        world.note(|| format!("lines {:?} are settled", lines_of(&records)));
        world.note_settled(&records);
        for record in records {
            world.truth.settled(&record);
        }
    }

    fn now(&self) -> Instant {
        Clock::now(&self.0)
    }

    fn chance(&self) -> f64 {
        self.0.lock().chance.share()
    }

    fn times_reachable(&self) -> u64 {
        self.0.lock().sink.times_reachable
    }
}
