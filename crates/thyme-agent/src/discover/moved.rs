//! What is gone from its directory, and may be in another one: a log file was moved there, or had a second name
//! there. It is read under that name, so nothing of it is lost. Workers know one directory of it only: they
//! hand over what they miss, and what is nowhere else is counted as lost here.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    sync::Arc,
};

use super::{
    known::is_archive,
    scan::{Place, Scanner},
};
use crate::{
    checkpoint::FileCheckpoint,
    config::StartAt,
    metrics::{LossReason, Metrics},
    tail::{
        ending::Ending,
        identity::{Head, may_be_one},
    },
    world::HashMap,
};

/// A file that is gone, with bytes that nobody has read.
#[derive(Debug)]
pub struct Gone {
    /// Which receiver read it, by its place in the configuration.
    pub receiver: usize,
    /// Where it was.
    pub directory: Arc<Path>,
    /// Its name there.
    pub name: Arc<OsStr>,
    /// `st_ino`.
    pub inode: u64,
    /// When its inode came to be, where that is known.
    pub born: Option<u64>,
    /// Hash of its first bytes.
    pub head: Head,
    /// How far it was read, and what stood in front of that.
    pub ending: (u64, Ending),
    /// How long it was known to be.
    pub length: u64,
    /// So many bytes of it are lost.
    pub lost_bytes: u64,
    /// Why.
    pub reason: LossReason,
    /// What the log says of that.
    pub said: &'static str,
}

impl Gone {
    /// What a checkpoint knows of a file that went while no agent ran.
    pub fn of(receiver: usize, checkpoint: &FileCheckpoint) -> Self {
        Self {
            receiver,
            directory: Arc::clone(&checkpoint.directory),
            name: Arc::clone(&checkpoint.name),
            inode: checkpoint.inode,
            born: None,
            head: checkpoint.head(),
            ending: (checkpoint.offset, checkpoint.ending()),
            length: checkpoint.length,
            lost_bytes: checkpoint.lost_bytes(),
            reason: LossReason::NoAgent,
            said: "a log file was deleted while no agent ran; its unread rest is lost",
        }
    }

    /// Counts it as lost, and says so.
    pub fn count(&self, metrics: &Metrics) {
        metrics.lost_files.increment();
        metrics.lost(self.reason).add(self.lost_bytes);
        let Self { directory, name, lost_bytes: bytes, said, .. } = self;
        tracing::warn!(?directory, ?name, bytes, "{said}");
    }
}

/// Where a file may be: its directory, its name, and where in which pattern that stands.
type Candidate = (Arc<Path>, OsString, Place);

impl Scanner {
    /// Takes those away that are in another directory now, where their receiver knows them.
    pub(super) fn leave_out_moved(&mut self, gone: &mut Vec<Gone>) {
        if gone.is_empty() {
            return;
        }
        let mut candidates: HashMap<(usize, u64), Vec<Candidate>> = HashMap::default();
        for one in &*gone {
            candidates.entry((one.receiver, one.inode)).or_default();
        }
        for (directory, known) in &self.known {
            for (key, group) in &known.groups {
                let place = known.places.iter().find(|place| place.0 == key.receiver);
                let Some(place) = place.copied() else { continue };
                for file in group.files.iter().filter(|file| !is_archive(&file.name)) {
                    if let Some(all) = candidates.get_mut(&(key.receiver, file.inode.inode)) {
                        all.push((Arc::clone(directory), file.name.clone(), place));
                    }
                }
            }
        }
        gone.retain(|one| {
            let candidates = candidates.get(&(one.receiver, one.inode)).into_iter().flatten();
            // What stands in its own directory was compared there.
            let mut elsewhere = candidates.filter(|(directory, ..)| *directory != one.directory);
            let Some((directory, name, _)) = elsewhere.find(|there| self.is_there(one, there))
            else {
                return true;
            };
            tracing::info!(
                from = ?one.directory.join(&*one.name), to = ?directory.join(name),
                "a log file is in another directory now; it is read there, so nothing of it is lost"
            );
            false
        });
    }

    /// Whether a file is that one, as far as it can be compared. Where that can't be done, it is none.
    fn is_there(&mut self, gone: &Gone, (directory, name, place): &Candidate) -> bool {
        let root = &self.sources[place.0].patterns[place.1].root;
        let relative = directory.strip_prefix(root).unwrap_or(Path::new("")).join(name);
        let Ok(Some(opened)) = self.tree.open(root, &relative) else { return false };
        let born = opened.file.born_unix_nanos();
        // A number alone says nothing: it is another file's later.
        let is_comparable = gone.head.bytes > 0 || (gone.born.is_some() && born.is_some());
        let (offset, ending) = gone.ending;
        let is_passed_over = self.start_at(gone.receiver) == StartAt::End && self.is_old(&opened);
        opened.inode.inode == gone.inode
            && opened.bytes >= gone.length
            && is_comparable
            && !is_passed_over
            && may_be_one(gone.born, born)
            && gone.head.matches(&*opened.file).unwrap_or(false)
            && ending.matches(&*opened.file, offset).unwrap_or(false)
    }
}
