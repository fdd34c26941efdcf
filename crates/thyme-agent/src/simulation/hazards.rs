//! What happens to directories: one is replaced under its name, with all that it holds, as a static
//! pod's is that is made anew, or a root by whoever cleans up; one can't be read for a while, or a file
//! in it. And which files a look at them has to find.

use super::{
    kubelet::Pod,
    plan::ROOT,
    tree::{Content, ContentId, parent_of},
    world::World,
};
use crate::limits::ROOT_LOOK_INTERVAL;

/// A look at all directories.
#[derive(Debug)]
pub(super) struct Scan {
    began_at: u64,
    /// Directories that it could not look into, or in which somebody acted meanwhile.
    disturbed: Vec<String>,
}

fn is_beneath(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl World {
    /// The agent begins to look at all directories.
    pub(super) fn scan_begins(&mut self) {
        self.tree.scan = Some(Scan { began_at: self.now, disturbed: Vec::new() });
    }

    /// What the look would show beneath this directory it may not have seen.
    pub(super) fn disturb_scan(&mut self, directory: &str) {
        if let Some(scan) = &mut self.tree.scan {
            scan.disturbed.push(directory.to_owned());
        }
    }

    /// Whether this run's agent may have too few descriptors for all log files.
    pub(super) fn may_lack_descriptors(&self) -> bool {
        self.plan.config.thyme.open_files_max < 100
    }

    /// Whether the agent may open one more file that it never had open.
    pub(super) fn has_room_to_open(&self) -> bool {
        let max = self.plan.config.thyme.open_files_max;
        self.tree.open_files < max - max / 8
    }

    /// The agent was refused a descriptor for this file.
    pub(super) fn waits_for_descriptor(&mut self, path: &str) {
        let Some(node) = self.file_at(path) else { return };
        if let Some(content) = self.tree.nodes[node].content {
            self.tree.contents[content].waits_since = Some(self.now);
        }
    }

    /// Each file that was there before the look began has been opened, unless the look was disturbed,
    /// or the agent has said that some wait for a descriptor.
    pub(super) fn scan_ends(&mut self, is_any_waiting: bool) {
        let Some(scan) = self.tree.scan.take() else { return };
        if self.may_lack_descriptors() && is_any_waiting {
            return;
        }
        let generation = self.generation;
        let contents = self.tree.contents.iter_mut();
        // One for which there was no descriptor is tried again at the next look at roots.
        let look = ROOT_LOOK_INTERVAL.as_nanos() as u64;
        let has_waited =
            |one: &&mut Content| one.waits_since.is_none_or(|since| since + look <= scan.began_at);
        let contents = contents.filter(|one| one.names > 0 && one.born_at < scan.began_at);
        for content in contents.filter(has_waited) {
            let mut disturbed = scan.disturbed.iter();
            if !disturbed.any(|directory| is_beneath(&content.directory, directory)) {
                content.due_in = Some(generation);
            }
        }
    }

    /// Whether this life of the agent can't be blamed for never having opened it.
    pub(super) fn was_too_short(&self, content: ContentId) -> bool {
        !self.is_up || self.tree.contents[content].due_in != Some(self.generation)
    }

    pub(super) fn is_denied(&self, path: &str) -> bool {
        let now = self.now;
        let mut denied = self.tree.denied.iter();
        self.faults && denied.any(|(one, until)| now < *until && is_beneath(path, one))
    }

    /// Whether a directory could not be read at this time, or after it.
    pub(super) fn was_denied(&self, directory: &str, since: u64) -> bool {
        let mut denied = self.tree.denied.iter();
        denied.any(|(one, until)| since < *until && is_beneath(directory, one))
    }

    /// A container's live file, its directory, or one above can't be read for a while; what is open
    /// stays so.
    pub(super) fn deny(&mut self, container: usize) {
        if !self.chance.one_in(8) {
            return;
        }
        let one = &self.kubelet.containers[container];
        let path = match self.chance.below(4) {
            0 => ROOT.to_owned(),
            1 => parent_of(&one.directory).0.to_owned(),
            2 => one.directory.clone(),
            _ => {
                // What can't be opened now is read after what can.
                self.truth.forget_order();
                format!("{}/{}", one.directory, one.live)
            }
        };
        let until = self.now + self.chance.milliseconds(100, 15_000).as_nanos() as u64;
        self.note(|| format!("{path} can't be read until {until}"));
        self.tree.denied.push((path, until));
    }

    /// A directory goes with all that is in it, and at once there is another of its name.
    pub(super) fn replace_directory(&mut self) {
        let pods: Vec<usize> = (0..self.kubelet.pods.len())
            .filter(|pod| !self.kubelet.pods[*pod].is_gone && !self.kubelet.pods[*pod].is_going)
            .collect();
        if pods.is_empty() {
            return;
        }
        let pod = &self.kubelet.pods[pods[self.chance.place(pods.len())]];
        let path = match self.chance.below(6) {
            0 => "/var/log".to_owned(),
            1 => ROOT.to_owned(),
            2 | 3 => pod.directory.clone(),
            _ => pod.containers[self.chance.place(pod.containers.len())].clone(),
        };
        self.note(|| format!("{path} is replaced"));
        for container in 0..self.kubelet.containers.len() {
            if is_beneath(&self.kubelet.containers[container].directory, &path) {
                self.end_container(container);
            }
        }
        let gone = self.directories_beneath(&path);
        for directory in gone.iter().rev() {
            for name in self.files_of(directory) {
                self.unlink(&format!("{directory}/{name}"));
            }
            self.remove_directory(directory);
        }
        for pod in &mut self.kubelet.pods {
            let is_gone = is_beneath(&pod.directory, &path) && pod.is_going;
            pod.is_gone |= is_gone;
        }
        for directory in gone {
            if directory.len() <= ROOT.len() {
                self.make_directory(&directory);
            }
        }
        for pod in 0..self.kubelet.pods.len() {
            let Pod { directory, containers, is_gone, is_going } = &self.kubelet.pods[pod];
            if *is_gone || *is_going {
                continue;
            }
            let (directory, containers) = (directory.clone(), containers.clone());
            if is_beneath(&directory, &path) {
                self.make_directory(&directory);
            }
            for container in containers {
                if is_beneath(&container, &path) {
                    self.make_directory(&container);
                    let (_, uid) = directory.rsplit_once('_').expect("as it was made");
                    let (_, name) = parent_of(&container);
                    self.begin_container(pod, &container, format!("{uid}/{name}"), 0);
                }
            }
        }
    }
}
