//! Watches on directories: something was made, moved or deleted in them.

use std::{collections::HashMap, path::Path, sync::Arc};

use crossbeam_channel::{Sender, TrySendError};
use rustix::fs::inotify::WatchFlags;

use crate::{
    inotify::{Notice, Watch, Watches},
    metrics::Metrics,
};

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DirectoryEvent {
    /// Look at this directory again.
    Changed(Arc<Path>),
    /// Events were lost: look at everything.
    Lost,
}

/// The watches of discovery.
pub(super) struct DirectoryWatch {
    /// `None` where the operating system has no instance left; scans find everything then.
    watches: Option<Watches<Arc<Path>>>,
    watched: HashMap<Arc<Path>, Watch>,
    /// Keeps the channel open: without an instance nobody else does, and a closed one is always
    /// ready.
    _events: Sender<DirectoryEvent>,
    /// Whether it was said that a watch can't be had.
    complained: bool,
}

impl DirectoryWatch {
    pub(super) fn new(events: Sender<DirectoryEvent>, metrics: Arc<Metrics>) -> Self {
        let kept = events.clone();
        let handler = move |notice| {
            metrics.directory_events.increment();
            let event = match notice {
                Notice::Changed(directory) => DirectoryEvent::Changed(directory),
                Notice::Lost => DirectoryEvent::Lost,
            };
            // A full channel loses events, which a scan of everything makes good.
            if let Err(TrySendError::Full(_)) = events.try_send(event) {
                while events.is_full() {
                    std::thread::yield_now();
                }
                let _ended = events.send(DirectoryEvent::Lost);
            }
        };
        let mask = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        let watches = Watches::new("directory-watch", mask, handler)
            .inspect_err(|error| {
                tracing::warn!(%error, "no inotify instance: new files are found by scans only");
            })
            .ok();
        Self { watches, watched: HashMap::new(), _events: kept, complained: false }
    }

    /// No watches at all: scans find everything.
    pub(super) fn none(events: Sender<DirectoryEvent>) -> Self {
        Self { watches: None, watched: HashMap::new(), _events: events, complained: true }
    }

    /// Watches a directory; `false` when that isn't possible, and scans have to find its changes.
    pub(super) fn add(&mut self, directory: &Path) -> bool {
        let Some(watches) = &self.watches else { return false };
        let path: Arc<Path> = directory.into();
        match watches.add(directory, Arc::clone(&path)) {
            Ok(watch) => {
                self.watched.insert(path, watch);
                true
            }
            Err(error) => {
                if directory.exists() && !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(
                        %error, "no watch on a directory: its new files are found by scans only"
                    );
                }
                false
            }
        }
    }

    /// Forgets a directory that is gone.
    pub(super) fn remove(&mut self, directory: &Path) {
        let removed = self.watched.remove_entry(directory);
        if let (Some(watches), Some((path, watch))) = (&self.watches, removed) {
            watches.remove(watch, &path);
        }
    }
}
