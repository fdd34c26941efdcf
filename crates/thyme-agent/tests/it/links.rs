//! Symbolic links in the place of log files, as cri-dockerd and `/var/log/containers` have them. No scan
//! comes within these tests.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::node::{Node, Record, append, compress, cri, wait_until};

/// Longest time until what a link leads to is read, on two busy cores; a scan would take an hour.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A container of docker's.
struct Docker {
    directory: PathBuf,
    id: String,
}

impl Docker {
    fn new(node: &Node, number: u32) -> Self {
        let id = format!("{number:064x}");
        let directory = node.path("docker/containers").join(&id);
        fs::create_dir_all(&directory).unwrap();
        Self { directory, id }
    }

    fn log(&self) -> PathBuf {
        self.directory.join(format!("{}-json.log", self.id))
    }

    fn rotated(&self, number: u32, extension: &str) -> PathBuf {
        self.directory.join(format!("{}-json.log.{number}{extension}", self.id))
    }

    fn write(&self, text: &str) {
        append(&self.log(), json(text));
    }

    /// As moby's `loggerutil` does with `max-file: 3`: the oldest is removed, the others move up, the
    /// live one becomes `.1`.
    fn rotate(&self) {
        let _none_yet = fs::remove_file(self.rotated(2, ""));
        let _none_yet = fs::remove_file(self.rotated(2, ".gz"));
        for extension in ["", ".gz"] {
            let _none_yet = fs::rename(self.rotated(1, extension), self.rotated(2, extension));
        }
        fs::rename(self.log(), self.rotated(1, "")).unwrap();
        fs::write(self.log(), "").unwrap();
    }
}

fn json(text: &str) -> String {
    format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05.5Z\"}}\n")
}

/// The configuration without scans, with links allowed to lead into these directories.
fn yaml(node: &Node, link_roots: &[&str]) -> String {
    let roots: Vec<_> = link_roots.iter().map(|one| node.path(one).display().to_string()).collect();
    let thyme = format!("workers: 1, link_roots: [{}]", roots.join(", "));
    node.yaml("compression: zstd", &thyme).replace("scan_interval: 1s", "scan_interval: 1h")
}

fn records(node: &Node, count: usize) -> Vec<Record> {
    let start = Instant::now();
    let records = node.wait_records(count);
    assert!(start.elapsed() < AT_ONCE, "it took {:?}", start.elapsed());
    records
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

/// Where the records say that they come from.
fn origin(record: &Record) -> (&str, &str) {
    (&record.attributes["log.file.path"], &record.resource["k8s.pod.name"])
}

/// Scenario: row 64. A node with cri-dockerd: the kubelet's `0.log` is a link to docker's file. Docker
/// rotates that file six times, and compresses some; lines are written right before each rotation and
/// right after it. The container starts again with `1.log`; then the agent does.
/// Guarantees: each line comes once, in its order, with the pod's attributes and the path of the link;
/// no scan is needed; nothing counts as lost.
#[test]
fn dockers_file_behind_a_link_is_read_over_its_rotations() {
    let node = Node::new();
    let container = node.container("a");
    let docker = Docker::new(&node, 1);
    docker.write("line 0");
    let live = container.join("0.log");
    symlink(docker.log(), &live).unwrap();
    let yaml = yaml(&node, &["docker/containers"]);
    let agent = node.start_yaml(&yaml);
    let first = records(&node, 1);
    assert_eq!(origin(&first[0]), (&*live.display().to_string(), "a"));
    for round in 0..6 {
        docker.write(&format!("before {round}"));
        docker.rotate();
        docker.write(&format!("after {round}"));
        let found = texts(&records(&node, 2));
        assert_eq!(found, [format!("before {round}"), format!("after {round}")]);
        if round % 2 == 0 {
            compress(&docker.rotated(1, ""));
        }
    }
    let restarted = Docker::new(&node, 2);
    restarted.write("again");
    symlink(restarted.log(), container.join("1.log")).unwrap();
    assert_eq!(texts(&records(&node, 1)), ["again"]);
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.lost_files.get(), metrics.refused_files.get()), (0, 0));
    docker.write("meanwhile");
    let agent = node.start_yaml(&yaml);
    assert_eq!(texts(&records(&node, 1)), ["meanwhile"]);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty(), "something came twice");
}

/// Scenario: row 64. `/var/log/containers/*.log` is included: one link leads to the kubelet's file,
/// which is rotated by rename; another to the kubelet's link to docker's file; a third is made before
/// what it leads to, and switched to another file later.
/// Guarantees: all are read, with the attributes of the pod that the kubelet's path names and the path
/// of the link in `/var/log/containers`; a switched link's new file is read at once, and each line
/// comes once.
#[test]
fn links_in_var_log_containers_are_followed() {
    let node = Node::new();
    let links = node.path("containers");
    fs::create_dir_all(&links).unwrap();
    let docker = Docker::new(&node, 1);
    let (plain, linked) = (node.container("plain"), node.container("linked"));
    append(&plain.join("0.log"), cri("plain"));
    docker.write("linked");
    symlink(docker.log(), linked.join("0.log")).unwrap();
    let link = |pod: &str, target: &Path| {
        let fresh = links.join("fresh");
        symlink(target, &fresh).unwrap();
        fs::rename(fresh, links.join(format!("{pod}_ns_app-0123.log"))).unwrap();
    };
    link("plain", &plain.join("0.log"));
    link("linked", &linked.join("0.log"));
    link("late", &node.path("pods/ns_late_1/app/0.log"));
    let include = format!("{}/*/*/*.log", node.path("pods").display());
    let yaml = yaml(&node, &["docker/containers", "pods"])
        .replace(&include, &format!("{}/*.log", links.display()));
    let agent = node.start_yaml(&yaml);
    let mut found = records(&node, 2);
    found.sort_by_key(Record::text);
    assert_eq!(texts(&found), ["linked", "plain"]);
    for (record, pod) in found.iter().zip(["linked", "plain"]) {
        let path = links.join(format!("{pod}_ns_app-0123.log")).display().to_string();
        assert_eq!(origin(record), (&*path, pod));
        assert_eq!(record.resource["k8s.container.name"], "app");
    }
    let late = node.path("pods/ns_late_1/app");
    fs::create_dir_all(&late).unwrap();
    append(&late.join("0.log"), cri("late"));
    let found = records(&node, 1);
    assert_eq!((found[0].text(), origin(&found[0]).1), ("late".to_owned(), "late"));
    // The kubelet rotates, the link stays.
    append(&plain.join("0.log"), cri("before"));
    fs::rename(plain.join("0.log"), plain.join("0.log.20260101-000000")).unwrap();
    append(&plain.join("0.log"), cri("after"));
    assert_eq!(texts(&records(&node, 2)), ["before", "after"]);
    append(&late.join("1.log"), cri("switched"));
    link("late", &late.join("1.log"));
    assert_eq!(texts(&records(&node, 1)), ["switched"]);
    let (_, metrics) = agent.stop();
    assert_eq!((metrics.lost_files.get(), metrics.refused_files.get()), (0, 0));
    assert!(node.take_records().is_empty(), "something came twice");
}

/// Scenario: row 64. In the directory of a pod, links to a secret, to a FIFO, out by `..`, and to a
/// file of docker's while no directory is named for links; beside them its log, which is excluded under
/// the name of one link. Later a link is switched to what may be read.
/// Guarantees: each link is refused and counted, nothing of what they lead to leaves, the rest is read;
/// and so is the switched link.
#[test]
fn links_that_may_not_be_followed_are_counted() {
    let node = Node::new();
    let container = node.container("a");
    let docker = Docker::new(&node, 1);
    docker.write("docker's");
    append(&container.join("0.log"), cri("own"));
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.log");
    append(&secret, cri("secret"));
    let fifo = node.path("pods/fifo.log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let hostile = [
        ("1.log", secret.clone()),
        ("2.log", fifo),
        ("3.log", PathBuf::from("../app/0.log")),
        ("4.log", docker.log()),
        ("5.log", node.path("pods")),
    ];
    for (name, target) in &hostile {
        symlink(target, container.join(name)).unwrap();
    }
    symlink(container.join("0.log"), container.join("excluded.log")).unwrap();
    let start = "    start_at: beginning";
    let exclude =
        format!("    exclude: ['{}/*/*/excluded.log']\n{start}", node.path("pods").display());
    let agent = node.start_yaml(&yaml(&node, &[]).replace(start, &exclude));
    assert_eq!(texts(&records(&node, 1)), ["own"]);
    wait_until("all are refused", || agent.metrics.refused_files.get() == hostile.len() as u64);
    append(&container.join("6.log"), cri("six"));
    fs::remove_file(container.join("1.log")).unwrap();
    symlink(container.join("6.log"), container.join("1.log")).unwrap();
    // By its own path, and by the link.
    assert_eq!(texts(&records(&node, 2)), ["six", "six"]);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.refused_files.get(), hostile.len() as u64);
    assert!(node.take_records().is_empty());
}
