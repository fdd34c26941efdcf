//! Records that end within a line: a chain of fragments may be cut for few reasons, and everywhere else it
//! is one record.

use super::{
    rotation::Naming,
    truth::{Line, Piece},
    world::World,
};

/// Memory for open lines, in bytes, that the lines of a run never use up.
const PARTIAL_BYTES_ENOUGH: usize = 1 << 20;

impl World {
    /// A record that leaves as a piece of a longer one, without having been waited for, needs a reason.
    pub(super) fn check_cut(&mut self, pieces: &[Piece]) {
        if let Some(next) = self.cut_before(pieces) {
            self.truth.fail(|| {
                format!("{pieces:?} left as a piece for no reason: line {next} goes on with it")
            });
        }
    }

    /// The line before which a record was cut, if nothing is known why.
    fn cut_before(&self, pieces: &[Piece]) -> Option<usize> {
        let (first, last) = (pieces.first()?, pieces.last()?);
        let line = |number: usize| &self.truth.lines[number];
        let is_whole = last.end == line(last.line).body.len();
        let next = line(last.line).next.filter(|_| line(last.line).is_partial && is_whole)?;
        // What follows a piece has been cut already.
        let is_first =
            first.start == 0 && line(first.line).before.is_none_or(|one| !line(one).is_partial);
        let lines = || pieces.iter().map(|piece| piece.line).chain([next]).map(line);
        let bytes: usize = lines().map(|line| line.body.len()).sum();
        let is_short = bytes <= self.plan.config.receivers[0].max_log_size_bytes;
        let is_readable =
            lines().all(|line| !line.is_late && line.excuse.is_none() && self.has_name(line));
        // After a restart the rest may have arrived already, or be in the spool.
        let is_unread = !line(next).has_arrived()
            && !line(next).is_refused
            && self.truth.may_be_unread(next, true);
        let is_next = self.stand_side_by_side(line(last.line), line(next));
        (is_first && is_short && is_readable && is_unread && is_next && self.cuts_nothing())
            .then_some(next)
    }

    fn has_name(&self, line: &Line) -> bool {
        line.content.is_some_and(|content| self.tree.contents[content].names > 0)
    }

    /// Whether two lines of a container stand in one file, or in two between which it has written to none.
    fn stand_side_by_side(&self, line: &Line, next: &Line) -> bool {
        let (Some(from), Some(to)) = (line.content, next.content) else { return false };
        let is_of_container = |content: usize| {
            let lines = &self.tree.contents[content].lines;
            lines.iter().any(|(_, one)| self.truth.lines[*one].container == line.container)
        };
        !(from + 1..to).any(is_of_container)
    }

    /// Whether nothing happens in this run that cuts lines anywhere.
    fn cuts_nothing(&self) -> bool {
        let plan = &self.plan;
        let is_read_once = plan.truncate_weight + plan.replace_weight + plan.deny_weight == 0;
        let has_room = plan.config.thyme.partial_bytes_max >= PARTIAL_BYTES_ENOUGH;
        is_read_once && has_room && plan.tree_fault_odds == 0 && plan.naming == Naming::Kubelet
    }
}
