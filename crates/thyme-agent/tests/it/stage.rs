//! A node whose kubelet writes, rotates, compresses and deletes while agents come and go.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use nop_collector::report::Report;

use crate::{
    kubelet::Kubelet,
    node::{Node, wait_until},
    program::{DEADLINE, Program, Setup},
};

/// The node, its kubelet, and the agents' configuration.
pub(crate) struct Stage {
    pub(crate) node: Arc<Node>,
    kubelet: Kubelet,
    pub(crate) config: PathBuf,
}

impl Stage {
    pub(crate) fn new(pods: u32, setup: &Setup) -> Self {
        let node = Arc::new(Node::without_copies());
        let kubelet = Kubelet::start(&node, pods);
        let config = setup.write(&node);
        Self { node, kubelet, config }
    }

    /// Archives that the kubelet has deleted.
    pub(crate) fn deleted(&self) -> u64 {
        self.kubelet.deeds.deleted.load(Ordering::Relaxed)
    }

    fn received(&self) -> u64 {
        self.node.collector.report().received
    }

    /// Waits until so many more lines have come.
    pub(crate) fn wait_for_more(&self, lines: u64, agent: &mut Program) {
        let wanted = self.received() + lines;
        self.wait(&format!("{lines} more lines come"), agent, |_| self.received() >= wanted);
    }

    /// Waits until the oldest of as many archives as the kubelet keeps has not arrived: no agent
    /// runs, and whatever it will read of them first is at risk.
    pub(crate) fn wait_for_archives_at_risk(&self) {
        let spared = || self.kubelet.deeds.spared.load(Ordering::Relaxed);
        let wanted = spared() + 10;
        wait_until("archives are at risk", || spared() >= wanted);
    }

    /// Whether there is anything in the spool.
    pub(crate) fn has_spooled(&self) -> bool {
        let Ok(names) = fs::read_dir(self.node.path("state/spool")) else { return false };
        let segments = names.filter_map(|name| name.ok().filter(|name| is_segment(&name.path())));
        segments.filter_map(|segment| segment.metadata().ok()).any(|one| one.len() > 0)
    }

    pub(crate) fn wait(
        &self,
        expected: &str,
        agent: &mut Program,
        mut holds: impl FnMut(&mut Program) -> bool,
    ) {
        let start = Instant::now();
        while !holds(agent) {
            let report = self.node.collector.report();
            let log = agent.log();
            assert!(start.elapsed() < DEADLINE, "never: {expected}; {report:?} {log:#?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Waits until archives have been compressed and deleted, stops writing, waits until all lines
    /// of the manifest have come to this last agent, and stops it in good order.
    pub(crate) fn end(self, mut agent: Program) -> Report {
        let deeds = Arc::clone(&self.kubelet.deeds);
        self.wait("archives are deleted", &mut agent, |_| self.deleted() >= 2);
        assert!(deeds.compressed.load(Ordering::Relaxed) >= 2);
        let collector = &self.node.collector;
        let manifest = self.kubelet.stop();
        let lines: u64 = manifest.iter().map(|line| line.lines).sum();
        collector.add_manifest(manifest).unwrap();
        let start = Instant::now();
        while collector.report().lost > 0 && start.elapsed() < DEADLINE {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let log = agent.stop();
        let report = collector.report();
        assert_eq!((report.lost, report.received), (0, lines), "{report:?} {log:#?}");
        assert!(report.exact);
        report
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "segment")
}
