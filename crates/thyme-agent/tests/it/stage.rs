//! A node whose kubelet writes, rotates, compresses and deletes while agents come and go.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use nop_collector::report::Report;

use crate::{
    kubelet::{Kubelet, places_of},
    node::{Node, wait_until},
    program::{DEADLINE, Program, Setup},
};

/// How many missing lines of a writer a failure shows.
const MISSING_SHOWN: usize = 3;

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

    pub(crate) fn received(&self) -> u64 {
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
            if start.elapsed() >= DEADLINE {
                panic!("never: {expected}; {}", self.account(agent));
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// What a failure is to say: what arrived, what is missing and where it stands, and what the agent
    /// says of itself.
    fn account(&self, agent: &mut Program) -> String {
        let missing = self.missing();
        let report = self.node.collector.report();
        let metrics = agent.metrics();
        format!("{report:?} missing {missing:#?} {:#?} {metrics:#?}", agent.log())
    }

    /// The first lines of each writer that have not arrived before others of it.
    fn missing(&self) -> Vec<(u32, u64, Vec<String>)> {
        let streams = self.node.collector.report_with_intervals().streams_detail.unwrap();
        let gaps = streams.iter().flat_map(|stream| {
            let begin = stream.intervals.first().map(|first| 0..first.0);
            let between = stream.intervals.windows(2).map(|pair| pair[0].1 + 1..pair[1].0);
            let sequences = begin.into_iter().chain(between).flatten().take(MISSING_SHOWN);
            sequences.map(|sequence| (stream.writer, sequence))
        });
        gaps.map(|(writer, one)| (writer, one, places_of(&self.node, writer, one))).collect()
    }

    /// Waits until archives have been compressed and deleted, stops writing, waits until all lines
    /// of the manifest have come to this last agent, and stops it in good order.
    pub(crate) fn end(mut self, mut agent: Program) -> Report {
        let deeds = Arc::clone(&self.kubelet.deeds);
        self.wait("archives are deleted", &mut agent, |_| self.deleted() >= 2);
        assert!(deeds.compressed.load(Ordering::Relaxed) >= 2);
        let collector = &self.node.collector;
        let manifest = self.kubelet.stop();
        let lines: u64 = manifest.iter().map(|line| line.lines).sum();
        collector.add_manifest(manifest).unwrap();
        let start = Instant::now();
        while collector.report().lost != Some(0) && start.elapsed() < DEADLINE {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let report = collector.report();
        let is_whole = |report: &Report| (report.lost, report.received) == (Some(0), lines);
        assert!(is_whole(&report), "of {lines} lines: {}", self.account(&mut agent));
        let log = agent.stop();
        let report = collector.report();
        assert!(is_whole(&report), "{report:?} {log:#?}");
        assert!(report.exact);
        report
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "segment")
}
