//! Roots that are out of sight: absent, or replaced by a directory without any entry, as where a file
//! system is not mounted for a while. What is known beneath is not gone then, until that lasts for
//! long: should it come back, nothing is read again.

use std::{path::Path, sync::Arc, time::Instant};

use super::scan::{Directory, Known, Scanner, is_absent};
use crate::limits::HIDDEN_TIME_MAX;

impl Known {
    /// The next look reads it, and comes as soon as there is a directory.
    pub(super) fn look_again(&mut self) {
        (self.tried, self.changed_at) = (None, None);
    }
}

impl Scanner {
    /// How many files wait for a descriptor.
    pub(super) fn waiting_files(&self) -> usize {
        let waiting = self.waiting.iter().filter_map(|path| self.known.get(path));
        waiting.map(|known| known.waiting_files).sum()
    }

    /// Whether the root of a path is out of sight, and not for long yet.
    pub(super) fn is_out_of_sight(&mut self, path: &Path) -> bool {
        let above = self.roots.iter().filter(|root| path.starts_with(&root.path));
        let Some(root) = above.max_by_key(|root| root.path.as_os_str().len()) else {
            return false;
        };
        let Some(before) = self.known.get(&root.path).and_then(|known| known.identity) else {
            return false;
        };
        let is_hidden = match self.tree.directory(&root.path) {
            Err(error) => is_absent(&error),
            // The same directory without entries shows that they are gone.
            Ok(state) if state.identity == before => false,
            Ok(_) => self.tree.entries(&root.path).is_ok_and(|entries| entries.is_empty()),
        };
        if !is_hidden {
            return false;
        }
        let (now, root) = (self.clock.now(), Arc::clone(&root.path));
        let since = self.hidden.get(&root).copied().unwrap_or_else(|| {
            tracing::warn!(
                ?root,
                "a log directory is out of sight: what was in it is taken for deleted if that lasts"
            );
            // It is looked at as soon as it is back.
            if let Some(known) = self.known.get_mut(&root) {
                known.look_again();
            }
            self.hidden.insert(root, now);
            now
        });
        now < since + HIDDEN_TIME_MAX
    }

    /// What is known of a directory that shows nothing; `None`, and it is kept, where that proves nothing.
    pub(super) fn unless_out_of_sight(
        &mut self,
        directory: &Directory,
        known: Known,
    ) -> Option<Known> {
        self.known.insert(Arc::clone(&directory.path), known);
        if self.is_out_of_sight(&directory.path) {
            self.doubt(&directory.path);
            return None;
        }
        self.known.remove(&directory.path)
    }

    /// Since when a root is out of sight and not taken for deleted yet; of several, the last one.
    pub(super) fn hidden_since(&self) -> Option<Instant> {
        let now = self.clock.now();
        self.hidden.values().filter(|since| now < **since + HIDDEN_TIME_MAX).max().copied()
    }
}
