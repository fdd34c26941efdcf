//! Watches on directories: something was made, moved or deleted in them, or they are gone
//! themselves. The kernel's answer to a watch on a path is what says whether the directory there is
//! the one that was watched before.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

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
    /// The watch that a path had at its last look. The kernel may have taken it away since.
    watched: HashMap<Arc<Path>, Watch>,
    /// Set when events found no room.
    has_lost: Arc<AtomicBool>,
    /// Keeps the channel open: without an instance nobody else does, and a closed one is always
    /// ready.
    _events: Sender<DirectoryEvent>,
    /// Whether it was said that a watch can't be had.
    complained: bool,
}

impl DirectoryWatch {
    pub(super) fn new(events: Sender<DirectoryEvent>, metrics: Arc<Metrics>) -> Self {
        let kept = events.clone();
        let has_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&has_lost);
        let handler = move |notice| {
            metrics.directory_events.increment();
            let event = match notice {
                Notice::Changed(directory) => DirectoryEvent::Changed(directory),
                Notice::Lost => DirectoryEvent::Lost,
            };
            // A full channel loses events, which a look at everything makes good. It must not hold
            // this thread up, which ends before the channel does.
            if let Err(TrySendError::Full(_)) = events.try_send(event) {
                lost.store(true, Ordering::Release);
                // Either there is room again, or what fills the channel will wake discovery.
                let _full_or_ended = events.try_send(DirectoryEvent::Lost);
            }
        };
        let mask = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let watches = Watches::new("directory-watch", mask, handler)
            .inspect_err(|error| {
                tracing::warn!(%error, "no inotify instance: new files are found by scans only");
            })
            .ok();
        Self { watches, watched: HashMap::new(), has_lost, _events: kept, complained: false }
    }

    /// No watches at all: scans find everything.
    pub(super) fn none(events: Sender<DirectoryEvent>) -> Self {
        let has_lost = Arc::default();
        Self { watches: None, watched: HashMap::new(), has_lost, _events: events, complained: true }
    }

    /// Whether events were lost since it was asked last.
    pub(super) fn has_lost_events(&self) -> bool {
        self.has_lost.swap(false, Ordering::Acquire)
    }

    /// Whether a path was watched at its last look.
    pub(super) fn is_watched(&self, directory: &Path) -> bool {
        self.watched.contains_key(directory)
    }

    /// Watches what stands under a path now, at each look: the kernel gives the same watch for the
    /// same directory, however often it is asked. `true` when another one was watched before.
    pub(super) fn renew(&mut self, directory: &Arc<Path>) -> bool {
        let Some(watches) = &self.watches else { return false };
        let before = match watches.add(directory, Arc::clone(directory)) {
            Ok(watch) => {
                let before = self.watched.insert(Arc::clone(directory), watch);
                before.filter(|before| *before != watch)
            }
            Err(error) => {
                if directory.exists() && !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(
                        %error, "no watch on a directory: its new files are found by scans only"
                    );
                }
                self.watched.remove(directory)
            }
        };
        // A directory that was moved away keeps its watch, which would tell under a wrong path.
        before.inspect(|before| watches.remove(*before, directory)).is_some()
    }

    /// Forgets a directory that is gone.
    pub(super) fn remove(&mut self, directory: &Path) {
        let removed = self.watched.remove_entry(directory);
        if let (Some(watches), Some((path, watch))) = (&self.watches, removed) {
            watches.remove(watch, &path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, time::Duration};

    /// Scenario: more events than the channel holds while nobody takes them; then the watches are
    /// dropped, as at a shutdown.
    /// Guarantees: their thread ends, and that events were lost is known.
    #[test]
    fn a_full_channel_holds_no_shutdown_up() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, events) = crossbeam_channel::bounded(2);
        let mut watch = DirectoryWatch::new(sender, Arc::default());
        watch.renew(&directory.path().into());
        for name in 0..100 {
            fs::write(directory.path().join(name.to_string()), "").unwrap();
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !watch.has_lost_events() {
            assert!(std::time::Instant::now() < deadline, "no event was lost");
            std::thread::yield_now();
        }
        assert!(events.is_full());
        let (ended, end) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            drop(watch);
            ended.send(()).unwrap();
        });
        assert!(end.recv_timeout(Duration::from_secs(60)).is_ok(), "the thread does not end");
    }
}
