//! One-shot watches on idle files. A growing file is polled, since a watch on it would cost an
//! event a write, here and in the application; an idle one costs nothing until its first write,
//! which takes the watch away.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crossbeam_channel::Sender;
use notify::{Config, Event, EventKindMask, INotifyWatcher, RecursiveMode, Watcher};

use crate::metrics::Metrics;

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The idle file that was watched under this path was written to.
    File(PathBuf),
    /// Events were lost: any file may have been written to.
    All,
}

/// Watches of one worker.
pub struct IdleWatch {
    /// `None` where the operating system has no instance left; idle files are polled then.
    watcher: Option<INotifyWatcher>,
    /// Keeps the channel open: without an instance nobody else does, and a closed one is always
    /// ready, so that the worker would never sleep.
    _woken: Sender<Woken>,
    /// Paths that are watched, and whose they are.
    watched: HashMap<PathBuf, u32>,
}

impl IdleWatch {
    /// Watches that report to `woken`, which must be unbounded or never full for long.
    pub fn new(woken: Sender<Woken>, metrics: Arc<Metrics>) -> Self {
        let kept = woken.clone();
        let handler = move |event: notify::Result<Event>| {
            metrics.file_events.increment();
            // A worker that has ended needs no more events.
            match event {
                Ok(event) if !event.need_rescan() => {
                    for path in event.paths {
                        let _ended = woken.send(Woken::File(path));
                    }
                }
                _ => {
                    let _ended = woken.send(Woken::All);
                }
            }
        };
        let config = Config::default().with_event_kinds(EventKindMask::MODIFY_DATA);
        let watcher = INotifyWatcher::new(handler, config)
            .inspect_err(|error| {
                tracing::warn!(%error, "no inotify instance for idle files: they are polled");
            })
            .ok();
        Self { watcher, _woken: kept, watched: HashMap::new() }
    }

    /// No watches: idle files are polled.
    pub fn none(woken: Sender<Woken>) -> Self {
        Self { watcher: None, _woken: woken, watched: HashMap::new() }
    }

    /// Watches an idle file; `false` when that isn't possible and it must be polled.
    pub fn arm(&mut self, path: &Path, group: u32) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let armed = watcher.watch(path, RecursiveMode::NonRecursive).is_ok();
        if armed {
            self.watched.insert(path.to_owned(), group);
        }
        armed
    }

    /// Takes the watch away and says whose it was.
    pub fn disarm(&mut self, path: &Path) -> Option<u32> {
        let group = self.watched.remove(path)?;
        if let Some(watcher) = &mut self.watcher {
            // The kernel takes the watch of a deleted file away by itself.
            let _already_gone = watcher.unwatch(path);
        }
        Some(group)
    }

    /// Takes all watches away and says whose they were.
    pub fn disarm_all(&mut self) -> Vec<u32> {
        let paths: Vec<PathBuf> = self.watched.keys().cloned().collect();
        paths.iter().filter_map(|path| self.disarm(path)).collect()
    }
}
