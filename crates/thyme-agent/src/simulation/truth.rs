//! What was written, what arrived, and what may be missing. A run fails by what stands here.
//!
//! Every body says which line it belongs to and where in it, so that any piece of it that arrives
//! is recognised without knowing how the agent cut or joined lines.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use opentelemetry_proto::tonic::logs::v1::LogRecord;

use super::tree::ContentId;
use crate::limits::{PARTIAL_LINE_WAIT, UNTERMINATED_LINE_WAIT};

/// Length of one block of a body: six digits of its line, five of its place, and a separator.
pub(super) const BLOCK_BYTES: usize = 12;

/// A piece of a body at least this long contains a whole block.
pub(super) const PIECE_BYTES_MIN: usize = 2 * BLOCK_BYTES;

/// How a byte came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coming {
    /// In which life of the agent.
    generation: u32,
    /// Whether the agent never got the answer.
    is_uncertain: bool,
}

/// Which bytes of a body were seen, and how they came last.
#[derive(Clone, Debug, Default)]
struct Seen {
    bytes: Vec<Option<Coming>>,
    count: usize,
    /// Of an empty body.
    at_all: Option<Coming>,
}

impl Seen {
    fn is_whole(&self, body: &[u8]) -> bool {
        self.at_all.is_some() && self.count >= body.len()
    }

    /// How bytes of a piece came before.
    fn comings(&self, piece: &Piece) -> impl Iterator<Item = Coming> {
        let known = self.bytes.len();
        let bytes = &self.bytes[piece.start.min(known)..piece.end.min(known)];
        let empty = self.at_all.filter(|_| piece.start == piece.end);
        bytes.iter().flatten().copied().chain(empty)
    }

    fn add(&mut self, piece: &Piece, coming: Coming) {
        self.at_all = Some(coming);
        if self.bytes.len() < piece.end {
            self.bytes.resize(piece.end, None);
        }
        for byte in &mut self.bytes[piece.start..piece.end] {
            self.count += usize::from(byte.replace(coming).is_none());
        }
    }
}

/// Why a line may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excuse {
    /// Its file was deleted before the agent could open it: while it did not run, most of the time.
    NeverOpened,
    /// Its file was deleted, and the agent ended before the sink or the spool had all of it.
    EndedBefore,
    /// Its file was cut.
    Cut,
    /// Its file had been read to its end and closed, and was deleted before anybody looked again.
    Late,
}

/// How many excuses there are.
pub(super) const EXCUSES: usize = 4;

/// One physical line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) container: usize,
    /// 0 stdout, 1 stderr, 2 neither: a line that isn't CRI.
    pub(super) stream: usize,
    /// What its records must hold: what stands behind the tags, or all of it.
    pub(super) body: Vec<u8>,
    pub(super) time_unix_nano: u64,
    /// Whether it was written as the fragment of a longer one.
    pub(super) is_partial: bool,
    /// Where it stands.
    pub(super) content: Option<ContentId>,
    /// Lines of its stream before and after it.
    pub(super) before: Option<usize>,
    pub(super) next: Option<usize>,
    /// When it was written, in nanoseconds of the run.
    pub(super) written_at: u64,
    /// Its end was written after its beginning, but soon enough that it is one record.
    must_be_whole: bool,
    /// Lives of the agent that had ended when it was begun.
    begun_after_lives: u32,
    /// Whether it has left the queue, or a part of it.
    was_sent: bool,
    /// What the sink has taken.
    arrived: Seen,
    /// What the exporter has settled in this life of the agent.
    settled: Seen,
    /// It was written to a file that had been rotated before.
    pub(super) is_late: bool,
    /// Its beginning and its end stand in two files.
    pub(super) is_torn: bool,
    /// It may be missing, and why.
    pub(super) excuse: Option<Excuse>,
    /// The sink said that it does not take it.
    pub(super) is_refused: bool,
    /// It came under the name of a file that was rotated before it was found.
    pub(super) is_renamed: bool,
    /// A checkpoint on disk says that it has arrived.
    is_kept: bool,
}

impl Line {
    pub(super) fn has_arrived(&self) -> bool {
        self.arrived.is_whole(&self.body)
    }
}

/// A piece of a line within a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Piece {
    pub(super) line: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The truth.
#[derive(Debug, Default)]
pub(super) struct Truth {
    ///
    /// Each is there once for each receiver, one after the other: what comes of one says nothing about
    /// the others.
    pub(super) lines: Vec<Line>,
    /// How many receivers read the same files.
    receivers: usize,
    by_time: HashMap<u64, usize>,
    last_of_stream: HashMap<(usize, usize), usize>,
    /// Containers whose directories are gone: nothing goes on with their last lines.
    ended: BTreeSet<usize>,
    /// The first promise that was broken.
    pub(super) failure: Option<String>,
    /// Lines settled since the worker's last step, and since the last checkpoint.
    settled: Vec<usize>,
    published: Vec<usize>,
    /// Lines of checkpoints that are on disk: of the newest, and of the newest synced one.
    saved: Vec<usize>,
    synced: Vec<usize>,
    /// The last line that was sent for the first time, by container and stream.
    sent_last: HashMap<(usize, usize, usize), usize>,
    /// Lines of checkpoints of earlier lives that no sync has followed.
    kept_unsynced: Vec<usize>,
    /// Lines that the spool held when the agent ended last.
    in_spool: BTreeSet<usize>,
    /// Those of them that it would send, as far as they have not arrived.
    will_be_sent: BTreeSet<usize>,
    /// Whether a life of the agent has ended.
    has_restarted: bool,
    /// How many have.
    lives_ended: u32,
    /// What is in the checkpoints of this life of the agent may be withdrawn.
    distrusts_checkpoints: bool,
    /// Whether the order is not promised.
    has_no_order: bool,
    /// Lines that arrived once more.
    pub(super) duplicates: u64,
    /// Records that arrived, the same ones again included.
    pub(super) records: u64,
    /// No duplicate is excused any more.
    pub(super) is_calm: bool,
}

/// A body of `bytes` bytes that says whose it is.
pub(super) fn make_body(line: usize, bytes: usize, separator: u8) -> Vec<u8> {
    use std::io::Write;
    let mut body = Vec::with_capacity(bytes + BLOCK_BYTES);
    let mut block = 0;
    while body.len() < bytes {
        write!(body, "{line:06x}{block:05x}").expect("memory doesn't fail");
        body.push(separator);
        block += 1;
    }
    body.truncate(bytes);
    body
}

impl Truth {
    pub(super) fn new(receivers: usize) -> Self {
        Self { receivers, ..Self::default() }
    }

    /// The last line of a container's stream, as the first receiver has it.
    pub(super) fn last_of(&self, container: usize, stream: usize) -> Option<usize> {
        self.last_of_stream.get(&(container, stream)).copied()
    }

    /// A line as each receiver has it.
    pub(super) fn twins(&self, line: usize) -> std::ops::Range<usize> {
        line..line + self.receivers
    }

    /// The receiver that has this line.
    pub(super) fn receiver_of(&self, line: usize) -> usize {
        line % self.receivers
    }

    pub(super) fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(what());
        }
    }

    /// A line is being written.
    pub(super) fn add(
        &mut self,
        container: usize,
        stream: usize,
        (written_at, time_unix_nano): (u64, u64),
        body: Vec<u8>,
        is_partial: bool,
    ) -> usize {
        let line = self.lines.len();
        if stream < 2 {
            assert!(self.by_time.insert(time_unix_nano, line).is_none(), "times are unique");
        }
        let before = self.last_of_stream.insert((container, stream), line);
        if let Some(before) = before {
            for receiver in 0..self.receivers {
                self.lines[before + receiver].next = Some(line + receiver);
            }
        }
        self.lines.extend((0..self.receivers).map(|receiver| Line {
            container,
            stream,
            body: body.clone(),
            time_unix_nano,
            is_partial,
            content: None,
            before: before.map(|before| before + receiver),
            next: None,
            written_at,
            must_be_whole: false,
            begun_after_lives: self.lives_ended,
            was_sent: false,
            arrived: Seen::default(),
            settled: Seen::default(),
            is_late: false,
            is_torn: false,
            excuse: None,
            is_refused: false,
            is_renamed: false,
            is_kept: false,
        }));
        line
    }

    /// Which lines a receiver's record consists of; an error when nobody wrote it.
    pub(super) fn pieces_of(
        &self,
        receiver: usize,
        time_unix_nano: u64,
        body: &[u8],
    ) -> Result<Vec<Piece>, String> {
        let of_time = self.by_time.get(&time_unix_nano).map(|line| line + receiver);
        if body.is_empty() {
            // The newline of a line that left before the agent was killed.
            let none = || {
                if time_unix_nano == 0 { Ok(Vec::new()) } else { Err("an empty record".to_owned()) }
            };
            return of_time.map_or_else(none, |line| self.follow(line, 0, body));
        }
        if let Some(line) = of_time
            && self.lines[line].body.is_empty()
        {
            return self.follow(line, 0, body);
        }
        let places = 0..BLOCK_BYTES.min(body.len());
        let found = places.filter_map(|at| self.block_at(body, at)).next();
        let (line, start) = found.ok_or_else(|| "a record that nobody wrote".to_owned())?;
        self.follow(line + receiver, start, body)
    }

    /// The line of the first receiver and the offset in it at which `body` begins, if a block begins at `at`.
    fn block_at(&self, body: &[u8], at: usize) -> Option<(usize, usize)> {
        let text = std::str::from_utf8(body.get(at..at + 11)?).ok()?;
        let line = usize::from_str_radix(&text[..6], 16).ok()?;
        let block = usize::from_str_radix(&text[6..], 16).ok()?;
        let start = (block * BLOCK_BYTES).checked_sub(at)?;
        let whole = &self.lines.get(line)?.body;
        let length = body.len().min(whole.len().checked_sub(start)?);
        (whole[start..start + length] == body[..length]).then_some((line, start))
    }

    /// The pieces of a body that begins in a line and goes on with those that follow it.
    fn follow(&self, line: usize, start: usize, body: &[u8]) -> Result<Vec<Piece>, String> {
        let (mut line, mut start, mut rest) = (line, start, body);
        let mut pieces = Vec::new();
        loop {
            let whole = &self.lines[line].body[start..];
            let length = whole.len().min(rest.len());
            if whole[..length] != rest[..length] {
                return Err(format!("line {line} arrived with other bytes than it has"));
            }
            pieces.push(Piece { line, start, end: start + length });
            rest = &rest[length..];
            if rest.is_empty() {
                return Ok(pieces);
            }
            if self.has_no_order
                && let Some(next) = self.block_at(rest, 0)
            {
                // A file that could not be opened in time leaves a gap.
                (line, start) = (next.0 + self.receiver_of(line), next.1);
                continue;
            }
            if !self.lines[line].is_partial {
                return Err(format!("what follows line {line} was joined to it"));
            }
            line = self.next_fragment(line, rest)?;
            start = 0;
        }
    }

    /// The line that goes on with a fragment. What nobody could read, because its file was truncated,
    /// or came and went while no agent ran, leaves a gap that nobody can know of; and what the sink
    /// refused may be the middle of what it took.
    fn next_fragment(&self, mut line: usize, rest: &[u8]) -> Result<usize, String> {
        loop {
            line =
                self.lines[line].next.ok_or_else(|| "a record with bytes behind it".to_owned())?;
            let next = &self.lines[line];
            let length = next.body.len().min(rest.len());
            let may_be_left_out = next.excuse.is_some() || next.is_refused;
            // An empty line has no bytes to be known by: these are of one behind it.
            let is_it = length > 0 && next.body[..length] == rest[..length];
            if !may_be_left_out || is_it {
                return Ok(line);
            }
        }
    }

    /// A container's directory is gone.
    pub(super) fn container_ended(&mut self, container: usize) {
        self.ended.insert(container);
    }

    /// The end of a line is written whose beginning was there before.
    pub(super) fn ended(&mut self, line: usize, now: u64) {
        // What a life has seen of it may end with that life.
        let is_one_life = self.lines[line].begun_after_lives == self.lives_ended;
        for line in self.twins(line) {
            let ended = &mut self.lines[line];
            let pause = u128::from(now - ended.written_at);
            ended.must_be_whole = is_one_life && pause < UNTERMINATED_LINE_WAIT.as_nanos();
            if ended.must_be_whole && ended.was_sent {
                self.fail(|| {
                    format!("line {line} left, and its end came {pause} ns after its beginning")
                });
            }
        }
    }

    /// A line whose end came soon enough is one record.
    fn check_whole(&mut self, pieces: &[Piece]) {
        let is_cut = |piece: &&Piece| {
            let line = &self.lines[piece.line];
            line.must_be_whole && (piece.start, piece.end) != (0, line.body.len())
        };
        if let Some(piece) = pieces.iter().find(is_cut) {
            self.fail(|| format!("a line was cut while it was being written: {piece:?}"));
        }
    }

    /// A record that ends with a fragment must say that more follows, or that it was waited for.
    pub(super) fn check_end(
        &mut self,
        pieces: &[Piece],
        is_marked: [bool; 2],
        now: u64,
        record: &LogRecord,
    ) {
        let [is_chunk, is_partial] = is_marked;
        self.check_whole(pieces);
        let Some(last) = pieces.last() else { return };
        let line = &self.lines[last.line];
        // What was lost with its directory nobody waits for.
        let goes_on = line.next.is_some_and(|next| self.lines[next].excuse.is_none());
        // After a restart the rest may have arrived already.
        let waited = self.has_restarted
            || (!goes_on && self.ended.contains(&line.container))
            || self.has_no_order
            || u128::from(now - line.written_at) >= PARTIAL_LINE_WAIT.as_nanos();
        if line.is_partial && !is_chunk && !(is_partial && waited) {
            let written_at = line.written_at;
            self.fail(|| {
                format!(
                    "a record ends with line {}, but it goes on: marks {is_marked:?}, written at \
                     {written_at}, now {now}: {record:?}",
                    last.line
                )
            });
        }
    }

    /// A line goes to a file whose successor may have been read: it comes when it comes.
    pub(super) fn is_late(&mut self, line: usize) {
        for line in self.twins(line) {
            self.lines[line].is_late = true;
            self.lines[line].was_sent = true;
        }
    }

    /// Whether no checkpoint says that it has arrived, so that the agent may take it for unread.
    /// Where `is_spool_known`, what the spool held when the last life ended is none of it.
    pub(super) fn may_be_unread(&self, line: usize, is_spool_known: bool) -> bool {
        let is_spooled = is_spool_known && self.will_be_sent.contains(&line);
        !self.lines[line].is_kept && !is_spooled
    }

    /// Of the bytes that were written of a line, those that have come to nowhere: neither to the sink, nor to
    /// what the spool sends next. Where a piece has come, at least what of the body has not.
    pub(super) fn lost_bytes(&self, line: usize, written: u64) -> u64 {
        let one = &self.lines[line];
        if one.has_arrived() || one.is_refused || self.will_be_sent.contains(&line) {
            0
        } else if one.arrived.at_all.is_none() {
            written
        } else {
            written.min((one.body.len() - one.arrived.count) as u64)
        }
    }

    /// A request leaves the queue: lines do so in order, the first time.
    pub(super) fn sent_first(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            let receiver = self.receiver_of(piece.line);
            let line = &mut self.lines[piece.line];
            if std::mem::replace(&mut line.was_sent, true) {
                continue;
            }
            let of = (line.container, line.stream, receiver);
            let before = self.sent_last.insert(of, piece.line);
            // What the spool held goes first, whatever was read before it.
            let has_order = !self.has_no_order && self.in_spool.is_empty();
            if has_order && before.is_some_and(|before| before > piece.line) {
                let before = before.unwrap_or_default();
                self.fail(|| format!("line {} was sent after line {before} of {of:?}", piece.line));
            }
        }
    }

    /// The sink took these pieces; `may_come_again` says of a line whether its file may be taken for another.
    pub(super) fn arrived(
        &mut self,
        pieces: &[Piece],
        (generation, is_uncertain): (u32, bool),
        may_come_again: impl Fn(&Line) -> bool,
    ) {
        self.records += 1;
        let is_calm = self.is_calm;
        for piece in pieces {
            let line = &mut self.lines[piece.line];
            let is_kept = line.is_kept;
            let before: Vec<Coming> = line.arrived.comings(piece).collect();
            line.arrived.add(piece, Coming { generation, is_uncertain });
            if !before.is_empty() {
                self.duplicates += 1;
                // A request may be in the spool although no checkpoint says so.
                let was_in_spool = self.in_spool.contains(&piece.line) || may_come_again(line);
                let is_excused = |coming: &Coming| {
                    let is_old = coming.generation != generation && !is_kept;
                    let is_excused = is_old || was_in_spool || self.distrusts_checkpoints;
                    coming.is_uncertain || (is_excused && !is_calm)
                };
                if let Some(coming) = before.iter().find(|coming| !is_excused(coming)) {
                    self.fail(|| {
                        format!(
                            "{piece:?} came twice without a reason: in life {generation}, before \
                             {coming:?}, in a checkpoint: {is_kept}"
                        )
                    });
                }
            }
        }
    }

    /// A request with these pieces is settled.
    pub(super) fn settled(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            let line = &mut self.lines[piece.line];
            line.settled.add(piece, Coming { generation: 0, is_uncertain: false });
            self.note_settled(piece.line);
        }
    }

    /// A line that is settled, and those that go on with it. With a fragment of its record that is not,
    /// a line comes again.
    fn note_settled(&mut self, line: usize) {
        let is_whole = |line: usize| {
            let line = &self.lines[line];
            line.settled.is_whole(&line.body)
        };
        let goes_on_with = |line: usize| {
            let before = self.lines[line].before?;
            self.lines[before].is_partial.then_some(before)
        };
        let mut before = goes_on_with(line);
        while let Some(fragment) = before {
            if !is_whole(fragment) {
                return;
            }
            before = goes_on_with(fragment);
        }
        let mut settled = Vec::new();
        let mut next = Some(line);
        while let Some(line) = next.filter(|line| is_whole(*line)) {
            settled.push(line);
            next = self.lines[line].next.filter(|_| self.lines[line].is_partial);
        }
        self.settled.extend(settled);
    }

    /// The workers have taken all settlements and left their checkpoints.
    pub(super) fn published(&mut self) {
        self.published.append(&mut self.settled);
    }

    /// A checkpoint with all that was published is on disk.
    pub(super) fn saved(&mut self, is_synced: bool) {
        self.saved.append(&mut self.published);
        if is_synced {
            self.synced.append(&mut self.saved);
            self.kept_unsynced.clear();
        }
    }

    /// The agent's life is over; `power` when the disk has lost what wasn't synced.
    /// With `used_spool`, requests may come again although their lines are in a checkpoint.
    pub(super) fn life_ended(&mut self, power: bool, used_spool: bool) {
        self.has_restarted = true;
        self.lives_ended += 1;
        let mut kept = std::mem::take(&mut self.synced);
        let saved = std::mem::take(&mut self.saved);
        if power {
            // The disk goes back to what was synced last.
            for line in std::mem::take(&mut self.kept_unsynced) {
                self.lines[line].is_kept = false;
            }
        } else {
            self.kept_unsynced.extend(&saved);
            kept.extend(saved);
        }
        if used_spool || std::mem::take(&mut self.distrusts_checkpoints) {
            kept.clear();
        }
        for line in kept {
            self.lines[line].is_kept = true;
        }
        // A copy in the spool overtakes what was read before it and not copied.
        if used_spool || !self.in_spool.is_empty() {
            self.sent_last.clear();
        }
        self.settled.clear();
        self.published.clear();
        for line in &mut self.lines {
            if line.settled.at_all.is_some() {
                line.settled = Seen::default();
            }
        }
    }

    /// Order is not promised any more, for a reason that is no fault of the agent.
    pub(super) fn forget_order(&mut self) {
        self.has_no_order = true;
    }

    /// A checkpoint could not be trusted, for a reason that is no fault: duplicates are excused.
    pub(super) fn forget_checkpoints(&mut self) {
        self.distrusts_checkpoints = true;
        for line in &mut self.lines {
            line.is_kept = false;
        }
    }

    /// The line may be missing, unless it has arrived.
    pub(super) fn excuse(&mut self, line: usize, why: Excuse) {
        let line = &mut self.lines[line];
        if line.excuse.is_none() && !line.has_arrived() {
            line.excuse = Some(why);
        }
    }

    /// What the spool holds at the end of a life, and what of that it will send in the next.
    pub(super) fn spool_holds(&mut self, all: &[Piece], to_be_sent: &[Piece]) {
        self.in_spool = all.iter().map(|piece| piece.line).collect();
        let mut seen: BTreeMap<usize, Seen> = BTreeMap::new();
        for piece in to_be_sent {
            let arrived = &self.lines[piece.line].arrived;
            let coming = Coming { generation: 0, is_uncertain: false };
            seen.entry(piece.line).or_insert_with(|| arrived.clone()).add(piece, coming);
        }
        let is_whole = |(line, seen): &(usize, Seen)| seen.is_whole(&self.lines[*line].body);
        self.will_be_sent = seen.into_iter().filter(is_whole).map(|(line, _)| line).collect();
    }

    /// The line's file can't be read any more.
    pub(super) fn excuse_unless_in_spool(&mut self, line: usize, why: Excuse) {
        if !self.will_be_sent.contains(&line) {
            self.excuse(line, why);
        }
    }

    /// Whether the sink took this piece of a line, alone or with others.
    pub(super) fn has_come(&self, piece: &Piece) -> bool {
        self.lines[piece.line].arrived.comings(piece).next().is_some()
    }

    /// Lines that have to arrive and have not, so far.
    pub(super) fn missing(&self) -> impl Iterator<Item = usize> {
        let lines = self.lines.iter().enumerate();
        let is_missing =
            |line: &Line| !(line.has_arrived() || line.excuse.is_some() || line.is_refused);
        lines.filter(move |(_, line)| is_missing(line)).map(|(number, _)| number)
    }

    /// Lines that are missing with an excuse, by what it is.
    pub(super) fn excused(&self) -> [u64; EXCUSES] {
        let mut excused = [0; EXCUSES];
        for line in self.lines.iter().filter(|line| !line.has_arrived()) {
            if let Some(why) = line.excuse {
                excused[why as usize] += 1;
            }
        }
        excused
    }
}
