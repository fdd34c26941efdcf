//! Directories that are replaced under their names: what stands there now is read at once, and what
//! was read before to its end. No scan comes within these tests.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nop_collector::Fault;
use rustix::process::Signal;

use crate::{
    namespace::Namespace,
    node::{Node, append, compress, cri, rotate, wait_until},
    program::{Program, Setup, program},
};

/// Longest time until a new file is open, on two busy cores; a scan would take an hour.
const AT_ONCE: Duration = Duration::from_secs(20);

fn without_scans(yaml: &str) -> String {
    yaml.replace("scan_interval: 1s", "scan_interval: 1h")
}

/// The next `count` lines, sorted.
fn texts(node: &Node, count: usize) -> Vec<String> {
    let start = std::time::Instant::now();
    let mut texts: Vec<_> = node.wait_records(count).iter().map(|record| record.text()).collect();
    assert!(start.elapsed() < AT_ONCE, "it took {:?}", start.elapsed());
    texts.sort();
    texts
}

/// Scenario: row 38. In turn the directory of a container, of a pod, the root of the pattern and the
/// directory above it are removed and made again at once under the same name, with a new file each
/// time; then each is moved away and another put in its place, while a line is written to the file
/// that was moved.
/// Guarantees: the new file is read at once, and the old one to its end; nothing comes twice, and
/// nothing counts as lost.
#[test]
fn a_replaced_directory_is_followed_at_once() {
    let node = Node::new();
    let logs = node.path("logs");
    let container = logs.join("pods/ns_a_11111111-2222-3333-4444-555555555555/app");
    let pods = logs.join("pods");
    let yaml = without_scans(&node.yaml("compression: zstd", "workers: 1"));
    let agent = node.start_yaml(
        &yaml.replace(&node.path("pods").display().to_string(), &pods.display().to_string()),
    );
    let live = container.join("0.log");
    let write = |text: &str| {
        fs::create_dir_all(&container).unwrap();
        append(&live, cri(text));
    };
    write("first");
    assert_eq!(texts(&node, 1), ["first"]);
    for depth in [0, 1, 2, 3] {
        let directory = container.ancestors().nth(depth).unwrap();
        for number in 0..3 {
            append(&live, cri("last words"));
            fs::remove_dir_all(directory).unwrap();
            write(&format!("made {number} at {depth}"));
            assert_eq!(texts(&node, 2), ["last words", &format!("made {number} at {depth}")]);
        }
        for number in 0..3 {
            let aside = node.path(&format!("aside-{depth}-{number}"));
            fs::rename(directory, &aside).unwrap();
            write(&format!("moved {number} at {depth}"));
            append(&aside.join(live.strip_prefix(directory).unwrap()), cri("last words"));
            assert_eq!(texts(&node, 2), ["last words", &format!("moved {number} at {depth}")]);
        }
    }
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty(), "something came twice");
}

/// Scenario: row 38. A directory on the way to a pattern's root is a symbolic link, and it is switched
/// to other directories and back; at last it is missing for a while.
/// Guarantees: what it leads to is read at once; what was read before does not come again as long as
/// it is open.
#[test]
fn a_switched_link_is_followed_at_once() {
    let node = Node::new();
    let log_of = |side: &str| {
        let directory = node.path(side).join("pods/ns_a_11111111-2222-3333-4444-555555555555/app");
        fs::create_dir_all(&directory).unwrap();
        directory.join("0.log")
    };
    for side in ["one", "two", "three"] {
        append(&log_of(side), cri(side));
    }
    let switch = |side: &str| {
        symlink(node.path(side), node.path("fresh")).unwrap();
        fs::rename(node.path("fresh"), node.path("logs")).unwrap();
    };
    switch("one");
    let yaml = without_scans(&node.yaml("compression: zstd", "workers: 1"));
    let through = node.path("logs/pods").display().to_string();
    let agent = node.start_yaml(&yaml.replace(&node.path("pods").display().to_string(), &through));
    assert_eq!(texts(&node, 1), ["one"]);
    switch("two");
    assert_eq!(texts(&node, 1), ["two"]);
    fs::remove_file(node.path("logs")).unwrap();
    switch("three");
    assert_eq!(texts(&node, 1), ["three"]);
    append(&log_of("three"), cri("more"));
    assert_eq!(texts(&node, 1), ["more"]);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty());
}

/// Scenario: row 38. A file system is mounted over the root of the pattern, which raises no event, a
/// pod writes there, and it is unmounted again.
/// Guarantees: what is mounted is read at once, and what comes to light again too.
#[test]
fn a_mount_over_a_root_is_followed_at_once() {
    const TEST: &str = "a_mount_over_a_root_is_followed_at_once";
    let Some(namespace) = Namespace::new(TEST, "true") else { return };
    let node = Node::new();
    append(&node.container("below").join("0.log"), cri("below"));
    let config = Setup::default().write(&node);
    fs::write(&config, without_scans(&fs::read_to_string(&config).unwrap())).unwrap();
    let mut command = namespace.command(Path::new(program().get_program()));
    let mut agent = Program::spawn(command.arg("--config").arg(&config));
    assert_eq!(texts(&node, 1), ["below"]);
    let run = |script: &str| {
        let mut command = namespace.command(Path::new("sh"));
        assert!(command.args(["-ec", script]).status().unwrap().success(), "{script}");
    };
    let pods = node.path("pods").display().to_string();
    let pod = format!("{pods}/ns_above_11111111-2222-3333-4444-666666666666/app");
    let line = cri("above");
    run(&format!(
        "mount -t tmpfs above '{pods}'; mkdir -p '{pod}'; printf %s '{line}' >'{pod}/0.log'"
    ));
    assert_eq!(texts(&node, 1), ["above"]);
    run(&format!("umount -l '{pods}'"));
    append(&node.container("below").join("0.log"), cri("below again"));
    assert_eq!(texts(&node, 1), ["below again"]);
    assert_eq!(agent.metric("thyme_files_lost"), 0);
    agent.stop();
}

/// Scenario: row 38. A file system is mounted over the directory of a pod, then another one over that; both
/// are unmounted.
/// Guarantees: what stands there is read at once each time, though no watch tells of it.
#[test]
fn a_mount_beneath_a_root_is_followed_at_once() {
    const TEST: &str = "a_mount_beneath_a_root_is_followed_at_once";
    let Some(namespace) = Namespace::new(TEST, "true") else { return };
    let node = Node::new();
    let container = node.container("a");
    append(&container.join("0.log"), cri("below"));
    let config = Setup::default().write(&node);
    fs::write(&config, without_scans(&fs::read_to_string(&config).unwrap())).unwrap();
    let mut command = namespace.command(Path::new(program().get_program()));
    let mut agent = Program::spawn(command.arg("--config").arg(&config));
    assert_eq!(texts(&node, 1), ["below"]);
    let run = |script: &str| {
        let mut command = namespace.command(Path::new("sh"));
        assert!(command.args(["-ec", script]).status().unwrap().success(), "{script}");
    };
    let pod = container.parent().unwrap().display().to_string();
    for text in ["above", "over that"] {
        let line = cri(text);
        run(&format!(
            "mount -t tmpfs above '{pod}'; mkdir '{pod}/app'; printf %s '{line}' >'{pod}/app/0.log'"
        ));
        assert_eq!(texts(&node, 1), [text]);
    }
    run(&format!("umount -l '{pod}'; umount -l '{pod}'"));
    append(&container.join("0.log"), cri("below again"));
    assert_eq!(texts(&node, 1), ["below again"]);
    assert_eq!(agent.metric("thyme_files_lost"), 0);
    agent.stop();
}

/// Whether the process has this file open.
fn has_open(process: u32, path: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let mut open = descriptors.filter_map(|one| fs::read_link(one.unwrap().path()).ok());
    open.any(|link| link == path)
}

/// One pod that is removed and made again, over and over, as a static pod of the same UID is.
struct StaticPod {
    container: PathBuf,
    written: u32,
    rotations: u32,
}

impl StaticPod {
    fn write(&mut self) {
        for _ in 0..10 {
            append(&self.container.join("0.log"), cri(&format!("line {}", self.written)));
            self.written += 1;
        }
    }

    fn is_followed(&self, agent: &Program) -> bool {
        has_open(agent.pid(), &self.container.join("0.log"))
    }
}

/// Scenario: row 38. The directories of three pods are removed and made again at once, in turn, 30
/// times, with a rotation between; every fourth time the agent stands still meanwhile, so that its
/// events come together. New files and directories get the numbers of old ones, where the file system
/// does that.
/// Guarantees: every file is open before the next is made, without a scan; each line comes once, and
/// nothing counts as lost.
#[test]
fn pods_that_are_replaced_beside_rotations_lose_nothing() {
    let node = Node::new();
    let config = Setup::default().write(&node);
    fs::write(&config, without_scans(&fs::read_to_string(&config).unwrap())).unwrap();
    let mut pods: Vec<StaticPod> = ["a", "b", "c"]
        .iter()
        .map(|pod| {
            let container = fs::canonicalize(node.container(pod)).unwrap();
            StaticPod { container, written: 0, rotations: 0 }
        })
        .collect();
    pods.iter_mut().for_each(StaticPod::write);
    let mut agent = Program::start(&config);
    wait_until("all files are open", || pods.iter().all(|pod| pod.is_followed(&agent)));
    for round in 0..30 {
        let is_throttled = round % 4 == 3;
        if is_throttled {
            agent.signal(Signal::STOP);
            wait_until("all threads stand still", || agent.is_stopped());
        }
        let pod = &mut pods[round % 3];
        pod.write();
        let directory = pod.container.ancestors().nth(round % 2).unwrap();
        fs::remove_dir_all(directory).unwrap();
        fs::create_dir_all(&pod.container).unwrap();
        pod.write();
        if is_throttled {
            // What the kernel would otherwise tell one by one comes at once.
            std::thread::sleep(Duration::from_millis(500));
            agent.signal(Signal::CONT);
        }
        wait_until("the new file is open", || pods[round % 3].is_followed(&agent));
        let other = &mut pods[(round + 1) % 3];
        other.write();
        rotate(&other.container, &format!("20260101-{:06}", other.rotations));
        other.rotations += 1;
        other.write();
        wait_until("the live file is open", || pods[(round + 1) % 3].is_followed(&agent));
    }
    let written = pods.iter().map(|pod| pod.written as usize).sum();
    let mut found = std::collections::BTreeMap::<_, Vec<String>>::new();
    for record in node.wait_records(written) {
        found.entry(record.attributes["log.file.path"].clone()).or_default().push(record.text());
    }
    for pod in &pods {
        let mut of_pod = found.remove(&pod.container.join("0.log").display().to_string()).unwrap();
        let mut expected: Vec<_> =
            (0..pod.written).map(|number| format!("line {number}")).collect();
        of_pod.sort();
        expected.sort();
        assert!(of_pod == expected, "not each line once: {} of {}", of_pod.len(), pod.written);
    }
    for series in ["thyme_files_lost", "thyme_watch_overflows"] {
        assert_eq!(agent.metric(series), 0, "{series}");
    }
    agent.stop();
    assert!(node.take_records().is_empty(), "something came twice");
}

/// Scenario: row 38. The directory of a pod is moved to another name that the pattern matches too, and
/// another one is made in its place.
/// Guarantees: both are read from then on.
#[test]
fn a_directory_that_is_moved_within_the_tree_is_read_in_both_places() {
    let node = Node::new();
    let container = node.container("a");
    append(&container.join("0.log"), cri("first"));
    let agent = node.start_yaml(&without_scans(&node.yaml("compression: zstd", "workers: 1")));
    assert_eq!(texts(&node, 1), ["first"]);
    let moved = node.container("b");
    fs::remove_dir(&moved).unwrap();
    Command::new("mv").arg(&container).arg(&moved).status().unwrap();
    append(&node.container("a").join("0.log"), cri("second"));
    append(&moved.join("0.log"), cri("third"));
    let path = |of: &Path| of.join("0.log").display().to_string();
    let mut seen = Vec::new();
    wait_until("both are read", || {
        seen.extend(
            node.take_records()
                .into_iter()
                .map(|record| (record.text(), record.attributes["log.file.path"].clone())),
        );
        seen.contains(&("second".to_owned(), path(&container)))
            && seen.contains(&("third".to_owned(), path(&moved)))
    });
    agent.stop();
}

/// Scenario: row 38. The sink takes nothing. A file is rotated, its directory is replaced, and within the
/// same second the new file is rotated too, so that both have one name; then this one is compressed. The
/// sink is back, and the agent starts again.
/// Guarantees: the archive is the file that it was made of, and not the older one of its name, whose
/// directory is gone: nothing comes twice, now or after the start, and nothing counts as lost.
#[test]
fn an_archive_is_not_the_file_of_a_replaced_directory_with_its_name() {
    const TIME: &str = "20260101-000000";
    let node = Node::new();
    node.collector.faults().always(Fault::HttpStatus { status: 503, retry_after: None });
    let container = node.container("a");
    let live = container.join("0.log");
    let agent = node.start();
    let mut written = 0;
    let mut write = |text: &str| {
        append(&live, cri(text));
        written += cri(text).len() as i64;
        wait_until("it is read", || agent.metrics.read.get().1 == written);
    };
    write("of the directory that was");
    rotate(&container, TIME);
    write("before it is replaced");
    fs::remove_dir_all(&container).unwrap();
    fs::create_dir(&container).unwrap();
    write("of the directory that is");
    let rotated = rotate(&container, TIME);
    write("after a rotation");
    compress(&rotated);
    rotate(&container, "20260101-000100");
    write("after another one");
    node.collector.faults().clear();
    assert_eq!(node.wait_records(5).len(), 5);
    wait_until("all but the live file are closed", || agent.metrics.open_files.get() == 1);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    let agent = node.start();
    append(&live, cri("after a start"));
    let texts: Vec<_> = node.wait_records(1).iter().map(|record| record.text()).collect();
    assert_eq!(texts, ["after a start"]);
    let (_, metrics) = agent.stop();
    assert_eq!(metrics.lost_files.get(), 0);
    assert!(node.take_records().is_empty(), "something came twice");
}
