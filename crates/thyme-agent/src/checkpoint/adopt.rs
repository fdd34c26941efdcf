//! Whose checkpoints are: what the state knows is dealt out to the receivers and the exporter that
//! the configuration names now.
//!
//! A receiver that has no position in a file takes that of a receiver that the configuration no
//! longer names, or of an older version of the agent, which knew none. Where two would do, it takes
//! the lesser: records may come twice, none is missed. A position that nobody takes stays: its receiver
//! may be left out for one run only.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{FileCheckpoint, FileKey};
use crate::worker::KeySource;

/// Who there is to own a checkpoint.
pub struct Owners<'a> {
    /// Canonical names of the receivers, in the configuration's order.
    pub receivers: &'a [Arc<str>],
    /// Whether a receiver, by its place in the configuration, reads the live file of that path.
    pub includes: &'a dyn Fn(usize, &Path) -> bool,
    /// Canonical name of the exporter.
    pub sink: &'a str,
}

/// Where a file is, whatever its receiver: directory and inode. Several may have been there, see
/// [`FileCheckpoint::may_be_file_of`].
type Place = (Arc<Path>, u64, u64);

fn place(file: &FileCheckpoint) -> Place {
    (Arc::clone(&file.directory), file.device, file.inode)
}

/// Numbers what the state knows, and gives it to those who read it now. What nobody takes is kept
/// under the name that it has.
pub fn adopt(
    files: Vec<FileCheckpoint>,
    owners: &Owners<'_>,
    keys: &KeySource,
) -> Vec<(FileKey, FileCheckpoint)> {
    let mut former_sinks = BTreeSet::new();
    let mut former_receivers = BTreeSet::new();
    // By place: who has a position, and the checkpoint that it is from.
    let mut owned: HashMap<Place, Vec<(Arc<str>, FileCheckpoint)>> = HashMap::new();
    let mut former: HashMap<Place, Vec<FileCheckpoint>> = HashMap::new();
    let mut files = files;
    for file in &mut files {
        former_sinks.extend(file.go_to(owners.sink));
        if let Some(receiver) = owners.receivers.iter().find(|name| **name == file.receiver) {
            // One name for all of them.
            file.receiver = Arc::clone(receiver);
            owned.entry(place(file)).or_default().push((Arc::clone(receiver), file.clone()));
        } else {
            former.entry(place(file)).or_default().push(file.clone());
        }
    }
    let mut adopted = Vec::with_capacity(files.len());
    for file in files {
        if owners.receivers.contains(&file.receiver) {
            adopted.push((keys.next(), file));
            continue;
        }
        let place = place(&file);
        let path: PathBuf = file.directory.join(&*file.live);
        // Another position in the same file may be the one to begin with.
        let is_least = former[&place]
            .iter()
            .all(|other| file.offset <= other.offset || !other.may_be_file_of(&file));
        let owned = owned.entry(place).or_default();
        let mut is_taken = false;
        for (number, receiver) in owners.receivers.iter().enumerate().filter(|_| is_least) {
            let is_owned =
                owned.iter().any(|(owner, of)| owner == receiver && of.may_be_file_of(&file));
            if !is_owned && (owners.includes)(number, &path) {
                is_taken = true;
                owned.push((Arc::clone(receiver), file.clone()));
                let receiver = Arc::clone(receiver);
                adopted.push((keys.next(), FileCheckpoint { receiver, ..file.clone() }));
            }
        }
        let is_read = || (0..owners.receivers.len()).any(|number| (owners.includes)(number, &path));
        if is_taken && !file.receiver.is_empty() {
            former_receivers.insert(Arc::clone(&file.receiver));
        } else if !is_taken && (!file.receiver.is_empty() || !is_read()) {
            adopted.push((keys.next(), file));
        }
    }
    say(&former_receivers, &former_sinks, owners.sink);
    adopted
}

fn say(former_receivers: &BTreeSet<Arc<str>>, former_sinks: &BTreeSet<String>, sink: &str) {
    for receiver in former_receivers {
        tracing::info!(
            %receiver,
            "the state knows positions of a receiver that the configuration no longer names; those \
             who include its files now go on where it was"
        );
    }
    for former in former_sinks {
        tracing::info!(
            %former, sink,
            "the state knows positions of an exporter that the configuration no longer names; the \
             present one goes on where it was"
        );
    }
}
