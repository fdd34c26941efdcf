//! What rotated files are called. The kubelet gives names that no pattern matches; loggers and
//! logrotate give names that it may match too, so that one file is found under several names.

use super::{
    kubelet::at_second,
    tree::ContentId,
    world::{World, unix_nanos},
};

/// How a rotation names files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// `0.log` becomes `0.log.DATE`, and may be compressed.
    Kubelet,
    /// `0.log` becomes `0-DATE.log`, which the pattern matches.
    Dated,
    /// `0.log` becomes `0.log.1` and `0.log.1` becomes `0.log.2`; the pattern matches all of them.
    Numbered,
}

impl Naming {
    /// The pattern of a receiver's files in their directories.
    pub(super) fn pattern(self) -> &'static str {
        if self == Self::Numbered { "*.log*" } else { "*.log" }
    }

    /// Whether rotated files have names that the pattern matches.
    pub(super) fn is_matched(self) -> bool {
        self != Self::Kubelet
    }

    /// What the names of a live file's archives begin with.
    pub(super) fn prefix(self, live: &str) -> String {
        match self {
            Self::Kubelet | Self::Numbered => format!("{live}."),
            Self::Dated => format!("{}-", live.strip_suffix(".log").expect("as it was made")),
        }
    }

    /// The name of a live file that is rotated in this second.
    pub(super) fn rotated(self, live: &str, second: u64) -> String {
        let prefix = self.prefix(live);
        match self {
            Self::Kubelet => format!("{prefix}{}", at_second(second)),
            Self::Dated => format!("{prefix}{}.log", at_second(second)),
            Self::Numbered => format!("{prefix}1"),
        }
    }
}

/// Whether a name is a live file's.
fn is_live(name: &str) -> bool {
    name.strip_suffix(".log").is_some_and(|stem| stem.bytes().all(|byte| byte.is_ascii_digit()))
}

impl World {
    /// The archive that a numbered chain moves next, so that the live file's new name gets free.
    pub(super) fn shift_chain(&mut self, directory: &str, live: &str) -> Option<(String, String)> {
        let name = |number: usize| format!("{live}.{number}");
        let is_there = |number: &usize| self.file_at(&format!("{directory}/{}", name(*number)));
        let last = (1..).take_while(|number| is_there(number).is_some()).last()?;
        Some((name(last), name(last + 1)))
    }

    /// The agent opens a content under a name that is not its live file's.
    pub(super) fn note_name(&mut self, content: ContentId, name: &str) {
        if !self.plan.naming.is_matched() {
            return;
        }
        if is_live(name) {
            self.tree.contents[content].opened_live_in = Some(self.generation);
        } else if self.tree.contents[content].opened_live_in != Some(self.generation) {
            // Nobody can know that it was the live file before: it is read as a log of its own.
            self.truth.forget_order();
        }
    }

    /// Whether a line may come under the name of a file that was rotated before it was found.
    pub(super) fn may_be_renamed(&self, line: usize) -> bool {
        let one = &self.truth.lines[line];
        let Some(content) = one.content else { return false };
        let is_known = self.tree.contents[content].opened_live_in == Some(self.generation);
        self.plan.naming.is_matched() && !is_known && self.truth.may_be_unread(line, false)
    }

    /// Whether a line may come under the name of another file of its directory: nothing is known of births, and
    /// its file has a number that another one had there before.
    pub(super) fn may_be_taken_for_another(&self, line: usize, identity: &str) -> bool {
        let one = &self.truth.lines[line];
        let own = &self.kubelet.containers[one.container].identity;
        let container = |identity: &str| identity.rsplit_once('/').map(|(name, _)| name.to_owned());
        container(own) == container(identity) && self.tree.may_be_another(one.content)
    }

    /// The second of a run.
    pub(super) fn second(&self) -> u64 {
        unix_nanos(self.now) / 1_000_000_000
    }
}
