//! The kubelet and its containers: who writes, rotates, compresses and deletes log files, in the
//! kubelet's order of steps (kubernetes/kubernetes, `pkg/kubelet/logs/container_log_manager.go`),
//! with anything between two steps.

use std::io::Write;

use thyme_core::cri::TimestampWriter;

use super::{
    plan::ROOT,
    rotation::Naming,
    tree::NodeId,
    truth::{BLOCK_BYTES, PIECE_BYTES_MIN, make_body},
    world::{World, unix_nanos},
};

/// A pod's directory.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) directory: String,
    /// Its containers' directories.
    pub(super) containers: Vec<String>,
    pub(super) is_going: bool,
    pub(super) is_gone: bool,
}

/// Where the rotation of a log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing to do.
    Idle,
    /// Surplus archives go, then earlier ones are compressed, then the live file is renamed.
    Begun,
    /// An archive is being written, of this plain file.
    Compressing { plain: String, temporary: NodeId },
    /// It has its name; the plain file goes.
    Compressed { plain: String },
    /// The live file has its new name; the container still writes to it.
    Renamed,
}

/// A container's one run, with its own live file.
#[derive(Debug)]
pub(super) struct Container {
    pod: usize,
    pub(super) directory: String,
    /// `uid/container/restart`, as its records say it.
    pub(super) identity: String,
    pub(super) live: String,
    node: NodeId,
    /// The file that was rotated last, its name, and in which streams it ends within a line.
    rotated: Option<(NodeId, String, [bool; 2])>,
    stage: Stage,
    /// Second of the last rotation, which is its archive's name.
    rotated_at: u64,
    /// Fragments of an open record that are still to come, by stream.
    fragments_left: [u64; 2],
    /// Whether the stream's last line was a fragment that goes on.
    is_midway: [bool; 2],
    /// The rest of a line whose beginning is written.
    rest: Option<(usize, Vec<u8>)>,
    /// The live file was truncated, and the agent has not looked since.
    is_truncated: bool,
    has_ended: bool,
}

/// All of a node's containers.
#[derive(Debug, Default)]
pub(super) struct Kubelet {
    pub(super) pods: Vec<Pod>,
    pub(super) containers: Vec<Container>,
    last_time: u64,
    /// Log bytes written in all.
    pub(super) written_bytes: u64,
}

/// Does one thing.
pub(super) fn act(world: &mut World) {
    let plan = &world.plan;
    let weights = [
        20,
        plan.rotate_weight,
        plan.pod_weight,
        plan.restart_weight,
        plan.truncate_weight,
        plan.late_weight,
        plan.replace_weight,
        plan.deny_weight,
    ];
    let mut at = world.chance.below(weights.iter().sum());
    let mut action = 0;
    while at >= weights[action] {
        at -= weights[action];
        action += 1;
    }
    let living = world.kubelet.pods.iter().filter(|pod| !pod.is_gone).count() as u64;
    if living == 0 || (action == 2 && living < world.plan.pods_max && world.chance.one_in(2)) {
        world.begin_pod();
        return;
    }
    if action == 2 {
        world.end_pod();
        return;
    }
    if action == 6 {
        // What nobody reads is lost, and tells little.
        let odds = if world.is_up { 8 } else { 200 };
        if world.chance.one_in(odds) {
            world.replace_directory();
        }
        return;
    }
    let Some(container) = world.pick_container() else { return };
    if action == 7 {
        world.deny(container);
        return;
    }
    match action {
        0 => world.write_lines(container),
        1 => world.rotate(container),
        3 => world.restart(container),
        4 => world.truncate(container),
        _ => world.write_late(container),
    }
}

/// The agent is away while containers write, and their logs are rotated some times.
pub(super) fn act_alone(world: &mut World) {
    for _ in 0..world.chance.between(1, 3) {
        world.now += world.chance.between(1, 3) * 1_000_000_000;
        for container in 0..world.kubelet.containers.len() {
            if !world.is_running(container) || !world.chance.one_in(2) {
                continue;
            }
            world.write_lines(container);
            world.rotate(container);
            while world.kubelet.containers[container].stage != Stage::Idle {
                world.rotate(container);
            }
        }
    }
}

/// Writes what was begun, so that the truth is whole.
pub(super) fn finish(world: &mut World) {
    for container in 0..world.kubelet.containers.len() {
        if !world.is_running(container) {
            continue;
        }
        world.kubelet.containers[container].is_truncated = false;
        while world.kubelet.containers[container].stage != Stage::Idle {
            world.rotate(container);
        }
        world.write_rest(container);
    }
}

/// A second as the kubelet writes it into a name.
pub(super) fn at_second(second: u64) -> String {
    let time = jiff::Timestamp::from_second(second as i64).expect("a time of this century");
    time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d-%H%M%S").to_string()
}

impl World {
    fn begin_pod(&mut self) {
        let pod = self.kubelet.pods.len();
        let uid = format!("00000000-0000-0000-0000-{pod:012}");
        let directory = format!("{ROOT}/default_app-{pod}_{uid}");
        self.make_directory(&directory);
        self.kubelet.pods.push(Pod {
            directory: directory.clone(),
            containers: Vec::new(),
            is_going: false,
            is_gone: false,
        });
        for number in 0..self.chance.between(1, 2) {
            let container = format!("{directory}/c{number}");
            self.make_directory(&container);
            self.kubelet.pods[pod].containers.push(container.clone());
            self.begin_container(pod, &container, format!("{uid}/c{number}"), 0);
        }
    }

    pub(super) fn begin_container(
        &mut self,
        pod: usize,
        directory: &str,
        name: String,
        restart: u64,
    ) {
        let live = format!("{restart}.log");
        let content = self.new_content();
        let node = self.make_file(&format!("{directory}/{live}"), Some(content));
        self.kubelet.containers.push(Container {
            pod,
            directory: directory.to_owned(),
            identity: format!("{name}/{restart}"),
            live,
            node,
            rotated: None,
            stage: Stage::Idle,
            rotated_at: 0,
            fragments_left: [0; 2],
            is_midway: [false; 2],
            rest: None,
            is_truncated: false,
            has_ended: false,
        });
    }

    /// A container's files go.
    pub(super) fn end_container(&mut self, container: usize) {
        self.forget_rest(container);
        self.truth.container_ended(container);
        let one = &mut self.kubelet.containers[container];
        one.has_ended = true;
        one.rotated = None;
        one.stage = Stage::Idle;
    }

    fn is_running(&self, container: usize) -> bool {
        let container = &self.kubelet.containers[container];
        !container.has_ended && !self.kubelet.pods[container.pod].is_going
    }

    fn pick_container(&mut self) -> Option<usize> {
        let running: Vec<usize> =
            (0..self.kubelet.containers.len()).filter(|one| self.is_running(*one)).collect();
        if running.is_empty() { None } else { Some(running[self.chance.place(running.len())]) }
    }

    fn write_lines(&mut self, container: usize) {
        if self.kubelet.containers[container].is_truncated {
            let node = &self.tree.nodes[self.kubelet.containers[container].node];
            if !node.was_reread() {
                return;
            }
            self.kubelet.containers[container].is_truncated = false;
        }
        if self.kubelet.containers[container].rest.is_some() {
            self.write_rest(container);
            return;
        }
        for _ in 0..self.chance.between(1, 5) {
            self.write_line(container);
            if self.kubelet.containers[container].rest.is_some() {
                return;
            }
        }
    }

    fn write_line(&mut self, container: usize) {
        let stream = self.chance.place(2);
        let left = self.kubelet.containers[container].fragments_left[stream];
        let plan = &self.plan;
        let (partial_odds, malformed_odds) = (plan.partial_odds, plan.malformed_odds);
        let unterminated_odds = plan.unterminated_odds;
        if left > 0 {
            self.kubelet.containers[container].fragments_left[stream] = left - 1;
            self.write_cri(container, stream, left > 1);
        } else if self.chance.one_in(partial_odds) {
            let left = self.chance.between(1, 4);
            self.kubelet.containers[container].fragments_left[stream] = left;
            self.write_cri(container, stream, true);
        } else if self.chance.one_in(malformed_odds) {
            let body = self.new_body();
            let body = if body.is_empty() { self.body_of(PIECE_BYTES_MIN) } else { body };
            let time = (self.now, 0);
            let line = self.truth.add(container, 2, time, body.clone(), false);
            self.append(container, line, &body);
            self.append(container, line, b"\n");
        } else if self.chance.one_in(unterminated_odds) {
            self.write_beginning(container, stream);
        } else {
            self.write_cri(container, stream, false);
        }
    }

    /// Bytes of a body that can be cut anywhere and be recognised.
    fn new_body(&mut self) -> Vec<u8> {
        let max = self.plan.config.receivers[0].max_log_size_bytes as u64;
        let bytes = if self.chance.one_in(self.plan.long_odds) {
            self.chance.between(max.min(5_000), (4 * max).min(12_000))
        } else if self.can_have_empty_lines() && self.chance.one_in(25) {
            0
        } else {
            self.chance.between(PIECE_BYTES_MIN as u64, 200)
        };
        let rest = bytes % max;
        let is_recognised = rest == 0 || rest >= PIECE_BYTES_MIN as u64;
        self.body_of((if is_recognised { bytes } else { bytes - rest }) as usize)
    }

    /// An empty line that was joined to one before a gap could not be recognised.
    fn can_have_empty_lines(&self) -> bool {
        self.plan.truncate_weight == 0 && !self.plan.naming.is_matched()
    }

    /// Whether the last line of a stream stands in the container's file.
    fn has_line_in_file(&self, container: usize, stream: usize) -> bool {
        let content = self.tree.nodes[self.kubelet.containers[container].node].content;
        let last = self.truth.last_of(container, stream);
        last.is_some_and(|last| self.truth.lines[last].content == content)
    }

    fn body_of(&mut self, bytes: usize) -> Vec<u8> {
        let separator = self.chance.pick(&[b'.', b'.', b'.', b' ', b'\r', 0, 0xff]);
        make_body(self.truth.lines.len(), bytes, separator)
    }

    /// A time that no other line has.
    fn new_time(&mut self) -> (u64, u64) {
        self.kubelet.last_time = unix_nanos(self.now).max(self.kubelet.last_time + 1);
        (self.now, self.kubelet.last_time)
    }

    fn head(&mut self, stream: usize, time_unix_nano: u64, is_partial: bool) -> Vec<u8> {
        let mut head = Vec::new();
        TimestampWriter::default().write(time_unix_nano, &mut head);
        let stream = ["stdout", "stderr"][stream];
        write!(head, " {stream} {} ", if is_partial { "P" } else { "F" }).expect("memory");
        head
    }

    fn write_cri(&mut self, container: usize, stream: usize, is_partial: bool) {
        let mut body = self.new_body();
        // An empty fragment could not be told from none.
        let is_fragment = is_partial || self.kubelet.containers[container].is_midway[stream];
        if body.is_empty() && is_fragment {
            body = self.body_of(PIECE_BYTES_MIN);
        }
        // Nor could an empty line that is joined to one in front of a gap, which ends where a file begins.
        if body.is_empty() && !self.has_line_in_file(container, stream) {
            body = make_body(self.truth.lines.len(), PIECE_BYTES_MIN, b'.');
        }
        self.kubelet.containers[container].is_midway[stream] = is_partial;
        let time = self.new_time();
        let line = self.truth.add(container, stream, time, body.clone(), is_partial);
        let mut bytes = self.head(stream, time.1, is_partial);
        bytes.extend_from_slice(&body);
        bytes.push(b'\n');
        self.append(container, line, &bytes);
    }

    /// A line whose end comes later.
    fn write_beginning(&mut self, container: usize, stream: usize) {
        let max = self.plan.config.receivers[0].max_log_size_bytes;
        let is_recognised =
            |bytes: usize| bytes.is_multiple_of(max) || bytes % max >= PIECE_BYTES_MIN;
        let whole = self.body_of(8 * BLOCK_BYTES);
        let cut = self.chance.between(PIECE_BYTES_MIN as u64, 5 * BLOCK_BYTES as u64) as usize;
        if ![whole.len(), cut, whole.len() - cut].into_iter().all(is_recognised) {
            return;
        }
        let time = self.new_time();
        let line = self.truth.add(container, stream, time, whole.clone(), false);
        let mut bytes = self.head(stream, time.1, false);
        bytes.extend_from_slice(&whole[..cut]);
        self.append(container, line, &bytes);
        let mut rest = whole[cut..].to_vec();
        rest.push(b'\n');
        self.kubelet.containers[container].rest = Some((line, rest));
    }

    fn write_rest(&mut self, container: usize) {
        if let Some((line, rest)) = self.kubelet.containers[container].rest.take() {
            self.truth.ended(line, self.now);
            self.append(container, line, &rest);
        }
    }

    /// A line that nobody will finish is what was written of it.
    fn forget_rest(&mut self, container: usize) {
        if let Some((line, rest)) = self.kubelet.containers[container].rest.take() {
            for line in self.truth.twins(line) {
                let body = &mut self.truth.lines[line].body;
                body.truncate(body.len() + 1 - rest.len());
            }
        }
    }

    fn append(&mut self, container: usize, line: usize, bytes: &[u8]) {
        self.append_to(self.kubelet.containers[container].node, container, line, bytes);
    }

    fn append_to(&mut self, node: NodeId, container: usize, line: usize, bytes: &[u8]) {
        let node = &mut self.tree.nodes[node];
        node.bytes.extend_from_slice(bytes);
        node.modified_at = unix_nanos(self.now).max(node.modified_at + 1);
        let end = node.bytes.len() as u64;
        let content = node.content.expect("live files have a content");
        for line in self.truth.twins(line) {
            self.tree.contents[content].lines.push((end, line));
            let before = self.truth.lines[line].content.replace(content);
            self.truth.lines[line].is_torn |= before.is_some_and(|before| before != content);
        }
        self.kubelet.written_bytes += bytes.len() as u64;
        let path = || {
            format!(
                "{}/{}",
                self.kubelet.containers[container].directory,
                self.kubelet.containers[container].live
            )
        };
        let one = &self.truth.lines[line];
        let kind = (one.stream, if one.is_partial { "P" } else { "F" });
        self.note(|| {
            format!("line {line} {kind:?} {} bytes to {} up to {end}", bytes.len(), path())
        });
    }

    /// One step of a rotation.
    fn rotate(&mut self, container: usize) {
        let one = &self.kubelet.containers[container];
        let (directory, live, node) = (one.directory.clone(), one.live.clone(), one.node);
        let at = |name: &str| format!("{directory}/{name}");
        let second = self.second();
        let next = match one.stage.clone() {
            Stage::Idle => {
                let is_due = second > one.rotated_at && !one.is_truncated;
                if is_due && !self.tree.nodes[node].bytes.is_empty() {
                    Stage::Begun
                } else {
                    return;
                }
            }
            Stage::Begun => return self.prepare_rotation(container),
            Stage::Compressing { plain, temporary } => {
                let content = self.content_at(&at(&plain));
                self.rename(&at(&format!("{plain}.tmp")), &at(&format!("{plain}.gz")));
                self.complete_archive(temporary, content);
                Stage::Compressed { plain }
            }
            Stage::Compressed { plain } => {
                self.unlink(&at(&plain));
                Stage::Begun
            }
            Stage::Renamed => {
                // The runtime goes on with the old file until it has reopened its log.
                self.write_rest(container);
                let content = self.new_content();
                let one = &mut self.kubelet.containers[container];
                if let Some((_, _, ends_midway)) = &mut one.rotated {
                    // It was written to until now.
                    *ends_midway = one.is_midway;
                }
                self.kubelet.containers[container].node = self.make_file(&at(&live), Some(content));
                Stage::Idle
            }
        };
        self.kubelet.containers[container].stage = next;
    }

    fn content_at(&self, path: &str) -> usize {
        let node = self.file_at(path).expect("the kubelet knows its files");
        self.tree.nodes[node].content.expect("a plain file has a content")
    }

    /// Archives of a container, oldest first.
    fn archives(&self, container: usize) -> Vec<String> {
        let one = &self.kubelet.containers[container];
        let naming = self.plan.naming;
        let prefix = naming.prefix(&one.live);
        let mut names = self.files_of(&one.directory);
        names.retain(|name| name.starts_with(&prefix) && !name.ends_with(".tmp"));
        if naming == Naming::Numbered {
            names.reverse();
        }
        names
    }

    fn prepare_rotation(&mut self, container: usize) {
        let one = &self.kubelet.containers[container];
        let (directory, live) = (one.directory.clone(), one.live.clone());
        let at = |name: &str| format!("{directory}/{name}");
        let archives = self.archives(container);
        if archives.len() > self.plan.files_max - 2 {
            self.unlink(&at(&archives[0]));
            return;
        }
        if self.plan.naming == Naming::Numbered
            && let Some((from, to)) = self.shift_chain(&directory, &live)
        {
            self.rename(&at(&from), &at(&to));
            if let Some((_, name, _)) = &mut self.kubelet.containers[container].rotated
                && *name == from
            {
                *name = to;
            }
            return;
        }
        let plain = archives.iter().find(|name| !name.ends_with(".gz"));
        let next = if let (Some(plain), true) = (plain, self.plan.compresses) {
            let id = self.file_at(&at(plain)).expect("it was listed");
            let mut archive =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            archive.write_all(&self.tree.nodes[id].bytes).expect("memory doesn't fail");
            let temporary = self.make_file(&at(&format!("{plain}.tmp")), None);
            self.tree.nodes[temporary].bytes = archive.finish().expect("memory doesn't fail");
            Stage::Compressing { plain: plain.clone(), temporary }
        } else {
            let second = self.second();
            let rotated = self.plan.naming.rotated(&live, second);
            self.rename(&at(&live), &at(&rotated));
            let one = &mut self.kubelet.containers[container];
            one.rotated = Some((one.node, rotated, one.is_midway));
            self.kubelet.containers[container].rotated_at = second;
            Stage::Renamed
        };
        self.kubelet.containers[container].stage = next;
    }

    /// The container starts again, with a log of its own.
    fn restart(&mut self, container: usize) {
        if self.kubelet.containers[container].stage != Stage::Idle {
            return;
        }
        self.forget_rest(container);
        let one = &mut self.kubelet.containers[container];
        one.has_ended = true;
        let (pod, directory) = (one.pod, one.directory.clone());
        let (name, restart) = one.identity.rsplit_once('/').expect("as it was made");
        let (name, restart) = (name.to_owned(), restart.parse::<u64>().expect("a number") + 1);
        self.begin_container(pod, &directory, name, restart);
    }

    /// A pod goes, file by file.
    fn end_pod(&mut self) {
        let going = self.kubelet.pods.iter().position(|pod| pod.is_going && !pod.is_gone);
        let Some(pod) = going else {
            let living: Vec<usize> = (0..self.kubelet.pods.len())
                .filter(|pod| !self.kubelet.pods[*pod].is_gone)
                .collect();
            let pod = living[self.chance.place(living.len())];
            for container in 0..self.kubelet.containers.len() {
                if self.kubelet.containers[container].pod == pod {
                    self.forget_rest(container);
                    self.truth.container_ended(container);
                }
            }
            self.kubelet.pods[pod].is_going = true;
            return;
        };
        for directory in self.kubelet.pods[pod].containers.clone() {
            if let Some(name) = self.files_of(&directory).first() {
                self.unlink(&format!("{directory}/{name}"));
                return;
            }
        }
        for directory in self.kubelet.pods[pod].containers.clone() {
            self.remove_directory(&directory);
        }
        let directory = self.kubelet.pods[pod].directory.clone();
        self.remove_directory(&directory);
        self.kubelet.pods[pod].is_gone = true;
        for container in 0..self.kubelet.containers.len() {
            if self.kubelet.containers[container].pod == pod {
                self.truth.container_ended(container);
            }
        }
    }

    /// A line goes to the file that was rotated last: whoever wrote it had it open all the time.
    fn write_late(&mut self, container: usize) {
        let one = &self.kubelet.containers[container];
        let Some((node, name, ends_midway)) = one.rotated.clone() else { return };
        let stream = self.chance.place(2);
        let one = &self.kubelet.containers[container];
        let is_midway = one.is_midway[stream] || ends_midway[stream];
        // What nobody has ended goes on in the next file.
        let is_midway = is_midway || !self.tree.nodes[node].bytes.ends_with(b"\n");
        let is_there = self.file_at(&format!("{}/{name}", one.directory)) == Some(node);
        if one.stage != Stage::Idle || one.rest.is_some() || is_midway || !is_there {
            return;
        }
        let body = self.body_of(PIECE_BYTES_MIN);
        let time = self.new_time();
        let line = self.truth.add(container, stream, time, body.clone(), false);
        self.truth.is_late(line);
        let mut bytes = self.head(stream, time.1, false);
        bytes.extend_from_slice(&body);
        bytes.push(b'\n');
        self.append_to(node, container, line, &bytes);
    }

    /// A truncated file is written again at once, up to the length that it had or beyond.
    fn rewrite(&mut self, container: usize, length: usize) {
        let max = self.plan.config.receivers[0].max_log_size_bytes;
        let is_exact = self.chance.one_in(2);
        loop {
            let node = self.kubelet.containers[container].node;
            let left = length.saturating_sub(self.tree.nodes[node].bytes.len());
            if left == 0 {
                return;
            }
            let stream = self.chance.place(2);
            let time = self.new_time();
            let mut bytes = self.head(stream, time.1, false);
            let fits = left.saturating_sub(bytes.len() + 1);
            // What is left behind this line has room for another.
            let wanted = if fits < 220 { fits } else { PIECE_BYTES_MIN };
            let is_good = wanted >= PIECE_BYTES_MIN && wanted <= max;
            let body = self.body_of(if is_exact && is_good { wanted } else { PIECE_BYTES_MIN });
            let line = self.truth.add(container, stream, time, body.clone(), false);
            bytes.extend_from_slice(&body);
            bytes.push(b'\n');
            self.append(container, line, &bytes);
        }
    }

    /// The live file is cut to nothing, as copytruncate does; perhaps it is written anew before
    /// anybody looks.
    fn truncate(&mut self, container: usize) {
        let one = &self.kubelet.containers[container];
        if one.stage != Stage::Idle || one.rest.is_some() || one.is_truncated {
            return;
        }
        let fresh = self.new_content();
        let node = self.kubelet.containers[container].node;
        let length = self.tree.nodes[node].bytes.len();
        self.truncate_file(node, fresh);
        self.kubelet.containers[container].is_midway = [false; 2];
        self.kubelet.containers[container].fragments_left = [0; 2];
        if self.chance.one_in(2) {
            self.rewrite(container, length);
        } else {
            self.kubelet.containers[container].is_truncated = true;
        }
    }
}
