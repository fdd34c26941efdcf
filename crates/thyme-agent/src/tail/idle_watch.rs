//! One-shot watches on idle files. A growing file is polled, since a watch on it would cost an
//! event a write, here and in the application; an idle one costs nothing until its first write,
//! which takes the watch away.

use std::{collections::HashMap, path::Path, sync::Arc};

use crossbeam_channel::Sender;
use rustix::fs::inotify::WatchFlags;

use crate::{
    inotify::{Notice, Watch, Watches},
    metrics::Metrics,
};

/// What a watch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The idle file that was watched for this group was written to.
    Group(u32),
    /// Events were lost: any file may have been written to.
    All,
}

/// Watches of one worker.
pub struct IdleWatch {
    /// `None` where the operating system has no instance left; idle files are polled then.
    watches: Option<Watches<u32>>,
    /// Groups whose files are watched.
    armed: HashMap<u32, Watch>,
    /// Keeps the channel open: without an instance nobody else does, and a closed one is always
    /// ready, so that the worker would never sleep.
    _woken: Sender<Woken>,
}

impl IdleWatch {
    /// Watches that report to `woken`, which must be unbounded or never full for long.
    pub fn new(woken: Sender<Woken>, metrics: Arc<Metrics>) -> Self {
        let kept = woken.clone();
        let handler = move |notice| {
            metrics.file_events.increment();
            // A worker that has ended needs no more events.
            let _ended = woken.send(match notice {
                Notice::Changed(group) => Woken::Group(group),
                Notice::Lost => Woken::All,
            });
        };
        let events = WatchFlags::MODIFY | WatchFlags::ONESHOT;
        let watches = Watches::new("idle-watch", events, handler)
            .inspect_err(|error| {
                tracing::warn!(%error, "no inotify instance for idle files: they are polled");
            })
            .ok();
        Self { watches, armed: HashMap::new(), _woken: kept }
    }

    /// No watches: idle files are polled.
    pub fn none(woken: Sender<Woken>) -> Self {
        Self { watches: None, armed: HashMap::new(), _woken: woken }
    }

    /// Watches a group's idle file; `false` when that isn't possible and it must be polled.
    pub fn arm(&mut self, path: &Path, group: u32) -> bool {
        let Some(watches) = &self.watches else { return false };
        let Ok(watch) = watches.add(path, group) else { return false };
        self.armed.insert(group, watch);
        true
    }

    /// Takes the watch of a group away, if there is one still.
    pub fn disarm(&mut self, group: u32) {
        if let (Some(watches), Some(watch)) = (&self.watches, self.armed.remove(&group)) {
            watches.remove(watch, &group);
        }
    }

    /// Takes all watches away and says whose they were.
    pub fn disarm_all(&mut self) -> Vec<u32> {
        let groups: Vec<u32> = self.armed.keys().copied().collect();
        groups.iter().for_each(|group| self.disarm(*group));
        groups
    }
}
