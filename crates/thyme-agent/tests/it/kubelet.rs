//! Containers that write stamped lines, and a kubelet that rotates, compresses and deletes their
//! files, on one thread of this process: every line is known, and so is every file's end.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nop_collector::Running;
use thyme_core::{
    manifest::ManifestLine,
    stamp::{STAMP_BYTES, Stamp},
};

use crate::node::{Node, compress};

/// Size from which a live file is rotated.
const ROTATE_BYTES: u64 = 32 * 1024;

/// Files of a container, the live one included, as `containerLogMaxFiles`.
const FILES_MAX: usize = 5;

/// Pause between two bursts of a container.
const BURST_INTERVAL: Duration = Duration::from_millis(4);

/// The run in all stamps.
const RUN: u32 = 7;

/// A container's directory: that of the writers' numbers `2 * pod` and one more.
pub(crate) fn container_of(node: &Node, pod: u32) -> PathBuf {
    node.container(&format!("pod-{pod}"))
}

/// Where the line with this number of a writer stands: file, offset and text of each fragment, as far
/// as the files are there.
pub(crate) fn places_of(node: &Node, writer: u32, sequence: u64) -> Vec<String> {
    let mut names: Vec<PathBuf> = fs::read_dir(container_of(node, writer / 2))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // The live file is the youngest.
    names.sort_by_key(|path| (path.ends_with("0.log"), path.clone()));
    let stream = if writer.is_multiple_of(2) { " stdout " } else { " stderr " };
    let (mut body, mut places) = (Vec::new(), Vec::new());
    for path in names {
        let mut offset = 0;
        for line in read(&path).split_inclusive(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(line);
            if let Some((_, rest)) = text.split_once(stream) {
                let (tag, fragment) = rest.split_at(2);
                body.extend_from_slice(fragment.trim_end().as_bytes());
                places.push(format!("{} at {offset}: {}", path.display(), text.trim_end()));
                if tag == "F " {
                    let stamp = Stamp::find(&body);
                    if stamp.is_some_and(|one| (one.writer, one.sequence) == (writer, sequence)) {
                        return places;
                    }
                    body.clear();
                    places.clear();
                }
            }
            offset += line.len();
        }
    }
    Vec::new()
}

/// A file's content, decompressed; nothing where it is gone by now.
fn read(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap_or_default();
    if path.extension().is_none_or(|extension| extension != "gz") {
        return bytes;
    }
    let mut content = Vec::new();
    // What can be read of one that is being written.
    let _cut = flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut content);
    content
}

/// What was done to the files.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) compressed: AtomicU64,
    pub(crate) deleted: AtomicU64,
    /// How often an archive stayed because the sink did not have it.
    pub(crate) spared: AtomicU64,
}

/// Writing until it is stopped.
pub(crate) struct Kubelet {
    stop: Arc<AtomicBool>,
    pub(crate) deeds: Arc<Deeds>,
    thread: Option<JoinHandle<Vec<ManifestLine>>>,
}

impl Kubelet {
    /// Begins to write for so many pods. The node must outlive this.
    pub(crate) fn start(node: &Arc<Node>, pods: u32) -> Self {
        let (stop, deeds) = (Arc::new(AtomicBool::new(false)), Arc::new(Deeds::default()));
        let (stopped, done, node) = (Arc::clone(&stop), Arc::clone(&deeds), Arc::clone(node));
        let mut containers: Vec<_> = (0..pods).map(|pod| Container::new(&node, pod)).collect();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for container in &mut containers {
                    container.burst();
                    container.rotate_if_large(&node.collector, &done);
                }
                std::thread::sleep(BURST_INTERVAL);
            }
            containers.iter_mut().flat_map(Container::finish).collect()
        });
        Self { stop, deeds, thread: Some(thread) }
    }

    /// Stops writing; the manifest of all lines.
    pub(crate) fn stop(&mut self) -> Vec<ManifestLine> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A container with two streams, each a writer of the manifest.
struct Container {
    directory: PathBuf,
    live: File,
    /// Number of the stdout's writer; the stderr's is one more.
    writer: u32,
    /// Next sequence number of each stream.
    next: [u64; 2],
    bytes: [u64; 2],
    /// The rest of a line of stdout whose beginning has been written.
    open: Option<Vec<u8>>,
    bursts: u64,
    /// What a rotated file is called next: the kubelet's second, only faster.
    second: u32,
    /// By archive, the sequence numbers that its lines lie below.
    ends: HashMap<PathBuf, [u64; 2]>,
}

impl Container {
    fn new(node: &Node, pod: u32) -> Self {
        let directory = container_of(node, pod);
        let live = open_live(&directory);
        Self {
            directory,
            live,
            writer: pod * 2,
            next: [0; 2],
            bytes: [0; 2],
            open: None,
            bursts: 0,
            second: 0,
            ends: HashMap::new(),
        }
    }

    /// Writes some lines of both streams at once; some of them in fragments, the last of which is
    /// written with the next burst. The cut goes through the stamp: a line that leaves in pieces is
    /// missing.
    fn burst(&mut self) {
        let mut text = self.open.take().unwrap_or_default();
        for number in 0..8 {
            let body = self.body(usize::from(number % 4 == 3), false);
            let stream = if number % 4 == 3 { "stderr" } else { "stdout" };
            text.extend(cri(stream, "F", &body));
        }
        if self.bursts.is_multiple_of(3) {
            let body = self.body(0, false);
            let (first, rest) = body.split_at(body.len() - STAMP_BYTES / 2);
            text.extend(cri("stdout", "P", first));
            self.open = Some(cri("stdout", "F", rest));
        }
        self.bursts += 1;
        self.live.write_all(&text).unwrap();
    }

    /// Ends the open line, and writes the last one of each stream.
    fn finish(&mut self) -> Vec<ManifestLine> {
        let mut text = self.open.take().unwrap_or_default();
        for (stream, name) in ["stdout", "stderr"].into_iter().enumerate() {
            let body = self.body(stream, true);
            text.extend(cri(name, "F", &body));
        }
        self.live.write_all(&text).unwrap();
        let line = |stream: usize, name: &str| ManifestLine {
            run: RUN,
            writer: self.writer + stream as u32,
            stream: name.to_owned(),
            first: 0,
            last: self.next[stream] - 1,
            lines: self.next[stream],
            bytes: self.bytes[stream],
            path: None,
        };
        vec![line(0, "stdout"), line(1, "stderr")]
    }

    /// The next body of a stream, 60 to 260 bytes, which ends in its stamp.
    fn body(&mut self, stream: usize, end: bool) -> Vec<u8> {
        let sequence = self.next[stream];
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let stamp = Stamp {
            run: RUN,
            writer: self.writer + stream as u32,
            sequence,
            time_unix_nano: u64::try_from(time.as_nanos()).unwrap(),
            end,
        };
        let mut text = [0; STAMP_BYTES];
        stamp.write(&mut text);
        let mut body = vec![b'x'; 4 + (sequence as usize * 37) % 200];
        body.extend_from_slice(b" stamp=");
        body.extend_from_slice(&text);
        self.next[stream] += 1;
        self.bytes[stream] += body.len() as u64;
        body
    }

    /// The kubelet's steps: delete what is too much, compress what is plain, rename, reopen.
    ///
    /// What is too much is deleted only when the sink has it: while no agent runs, or before it has
    /// caught up, nobody could save it, and that is no promise. The live file grows meanwhile.
    fn rotate_if_large(&mut self, sink: &Running, deeds: &Deeds) {
        if self.live.metadata().unwrap().len() < ROTATE_BYTES {
            return;
        }
        let archives = self.archives();
        let surplus = archives.len().saturating_sub(FILES_MAX - 2);
        for archive in &archives[..surplus] {
            if !self.has_arrived(archive, sink) {
                deeds.spared.fetch_add(1, Ordering::Relaxed);
                return;
            }
            fs::remove_file(archive).unwrap();
            deeds.deleted.fetch_add(1, Ordering::Relaxed);
        }
        for archive in &archives[surplus..] {
            if archive.extension().is_none_or(|extension| extension != "gz") {
                let ends = self.ends.remove(archive).unwrap();
                self.ends.insert(compress(archive), ends);
                deeds.compressed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.second += 1;
        let (minutes, seconds) = (self.second / 60, self.second % 60);
        let rotated = self.directory.join(format!("0.log.20260101-00{minutes:02}{seconds:02}"));
        fs::rename(self.directory.join("0.log"), &rotated).unwrap();
        // The runtime still writes to the old file until it has reopened its log.
        self.burst();
        self.ends.insert(rotated, self.next);
        self.live = open_live(&self.directory);
    }

    /// Oldest first.
    fn archives(&self) -> Vec<PathBuf> {
        let mut archives: Vec<PathBuf> = fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().as_encoded_bytes().starts_with(b"0.log."))
            .collect();
        archives.sort();
        archives
    }

    fn has_arrived(&self, archive: &Path, sink: &Running) -> bool {
        let streams = sink.report_with_intervals().streams_detail.unwrap();
        self.ends[archive].iter().zip(self.writer..).all(|(end, writer)| {
            let stream = streams.iter().find(|one| (one.run, one.writer) == (RUN, writer));
            let first = stream.and_then(|stream| stream.intervals.first());
            first.is_some_and(|&(first, last)| first == 0 && last + 1 >= *end)
        })
    }
}

fn open_live(directory: &Path) -> File {
    OpenOptions::new().append(true).create_new(true).open(directory.join("0.log")).unwrap()
}

fn cri(stream: &str, tag: &str, body: &[u8]) -> Vec<u8> {
    let mut line = format!("2026-01-02T03:04:05.678901234Z {stream} {tag} ").into_bytes();
    line.extend_from_slice(body);
    line.push(b'\n');
    line
}
