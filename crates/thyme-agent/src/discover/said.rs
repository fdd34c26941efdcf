//! What a start says of the files that it found, once for each receiver: an `include` that matches nothing is
//! the commonest mistake, and looks like a pipeline with nothing to do.

use std::sync::Arc;

use super::{GroupKey, scan::Scanner};

/// Which receivers have not said what they read.
pub(super) struct Unsaid {
    receivers: Vec<Receiver>,
}

struct Receiver {
    number: usize,
    /// How many positions the state has of its files.
    positions: usize,
    /// Whether it was said that it has no file.
    is_said_to_be_empty: bool,
}

impl Unsaid {
    /// Of all receivers, by how many positions the state has of each.
    pub(super) fn new(positions: impl IntoIterator<Item = usize>) -> Self {
        let receiver =
            |(number, positions)| Receiver { number, positions, is_said_to_be_empty: false };
        Self { receivers: positions.into_iter().enumerate().map(receiver).collect() }
    }

    /// After a look at everything: says of each receiver what it reads, as soon as that is anything, and once
    /// that it is nothing yet.
    pub(super) fn say(&mut self, scanner: &Scanner, names: &[Arc<str>]) {
        self.receivers.retain_mut(|receiver| {
            let (files, directories) = files_of(scanner, receiver.number);
            let (name, positions) = (&names[receiver.number], receiver.positions);
            if files > 0 {
                tracing::info!(receiver = %name, files, directories, positions, "found log files");
            } else if !receiver.is_said_to_be_empty {
                receiver.is_said_to_be_empty = true;
                tracing::warn!(receiver = %name, positions, "no file matches `include` yet");
            }
            files == 0
        });
    }
}

/// How many files a receiver has, and in how many directories.
fn files_of(scanner: &Scanner, receiver: usize) -> (usize, usize) {
    let is_its = |key: &GroupKey| key.receiver == receiver;
    let in_one = scanner.known.values().map(|known| {
        let groups = known.groups.iter().filter(|(key, _)| is_its(key));
        groups.map(|(_, group)| group.files.len()).sum::<usize>()
    });
    in_one.filter(|files| *files > 0).fold((0, 0), |(files, n), more| (files + more, n + 1))
}
