//! Watches on directories: something was made, moved or deleted in them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crossbeam_channel::{Sender, TrySendError};
use notify::{Config, Event, EventKindMask, INotifyWatcher, RecursiveMode, Watcher};

use crate::metrics::Metrics;

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DirectoryEvent {
    /// Look at this directory again.
    Changed(PathBuf),
    /// Events were lost: look at everything.
    Lost,
}

/// The watches of discovery.
pub(super) struct DirectoryWatch {
    /// `None` where the operating system has no instance left; scans find everything then.
    watcher: Option<INotifyWatcher>,
    /// Keeps the channel open: without an instance nobody else does, and a closed one is always
    /// ready.
    _events: Sender<DirectoryEvent>,
    /// Whether it was said that a watch can't be had.
    complained: bool,
}

impl DirectoryWatch {
    pub(super) fn new(events: Sender<DirectoryEvent>, metrics: Arc<Metrics>) -> Self {
        let kept = events.clone();
        let handler = move |event: notify::Result<Event>| {
            metrics.directory_events.increment();
            for event in to_events(event) {
                // A full channel loses events, which a scan of everything makes good.
                if let Err(TrySendError::Full(_)) = events.try_send(event) {
                    while events.is_full() {
                        std::thread::yield_now();
                    }
                    let _ended = events.send(DirectoryEvent::Lost);
                }
            }
        };
        let mask = EventKindMask::CREATE | EventKindMask::REMOVE;
        let watcher = INotifyWatcher::new(handler, Config::default().with_event_kinds(mask))
            .inspect_err(|error| {
                tracing::warn!(%error, "no inotify instance: new files are found by scans only");
            })
            .ok();
        Self { watcher, _events: kept, complained: false }
    }

    /// No watches at all: scans find everything.
    pub(super) fn none(events: Sender<DirectoryEvent>) -> Self {
        Self { watcher: None, _events: events, complained: true }
    }

    /// Watches a directory; without a watch it is found to have changed by the next scan.
    pub(super) fn add(&mut self, directory: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive)
            && directory.exists()
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(%error, "no watch on a directory: its new files are found by scans only");
        }
    }

    /// Forgets a directory that is gone.
    pub(super) fn remove(&mut self, directory: &Path) {
        if let Some(watcher) = &mut self.watcher {
            // The kernel takes the watch of a deleted directory away by itself.
            let _already_gone = watcher.unwatch(directory);
        }
    }
}

fn to_events(event: notify::Result<Event>) -> Vec<DirectoryEvent> {
    match event {
        Ok(event) if !event.need_rescan() => event
            .paths
            .iter()
            .filter_map(|path| path.parent())
            .map(|directory| DirectoryEvent::Changed(directory.to_owned()))
            .collect(),
        _ => vec![DirectoryEvent::Lost],
    }
}
