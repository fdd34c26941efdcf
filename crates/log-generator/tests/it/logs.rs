//! Reads back what was written, plain and compressed, joins fragments, and counts it as a manifest
//! does: the oracle for the generator's own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use thyme_core::cri::{CriParser, Stream};
use thyme_core::manifest::ManifestLine;
use thyme_core::stamp::Stamp;

/// Every file below a directory, sorted.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// The content of a log file, decompressed.
pub(crate) fn content(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).unwrap();
    if path.extension().is_some_and(|ending| ending == "gz") {
        GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    } else {
        file.read_to_end(&mut bytes).unwrap();
    }
    bytes
}

/// What the lines of one writer add up to.
#[derive(Default)]
struct Seen {
    stream: &'static str,
    lines: u64,
    bytes: u64,
    run: u32,
    ended: bool,
    path: Option<String>,
}

/// Counts lines in the order in which they were written.
#[derive(Default)]
pub(crate) struct Count {
    writers: BTreeMap<u32, Seen>,
}

impl Count {
    /// Counts a whole body; sequences have no gap and nothing follows an end.
    pub(crate) fn body(&mut self, stream: Stream, body: &[u8], path: Option<&str>) {
        let stamp = Stamp::find(body).expect("every line is stamped");
        let seen = self.writers.entry(stamp.writer).or_default();
        assert_eq!(stamp.sequence, seen.lines, "no gap, no repetition");
        assert!(!seen.ended, "nothing follows the end");
        seen.stream = stream.as_str();
        seen.lines += 1;
        seen.bytes += body.len() as u64;
        seen.run = stamp.run;
        seen.ended = stamp.end;
        seen.path = path.map(str::to_owned);
    }

    /// The manifest that these lines make; each writer's last line was stamped so.
    pub(crate) fn manifest(&self) -> Vec<ManifestLine> {
        assert!(self.writers.values().all(|seen| seen.ended), "every writer has its end");
        self.unfinished_manifest()
    }

    /// The same for writers that were cut off.
    pub(crate) fn unfinished_manifest(&self) -> Vec<ManifestLine> {
        let line = |(&writer, seen): (&u32, &Seen)| ManifestLine {
            run: seen.run,
            writer,
            stream: seen.stream.to_owned(),
            first: 0,
            last: seen.lines - 1,
            lines: seen.lines,
            bytes: seen.bytes,
            path: seen.path.clone(),
        };
        self.writers.iter().map(line).collect()
    }
}

/// Counts the lines of a whole tree of pods: in each container the archives by age, then the live
/// file; fragments are joined over the files' ends.
pub(crate) fn count(root: &Path) -> Count {
    let mut containers: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in files(root) {
        containers.entry(path.parent().unwrap().to_owned()).or_default().push(path);
    }
    let mut count = Count::default();
    for (directory, mut files) in containers {
        let live = directory.join("0.log").strip_prefix(root).unwrap().display().to_string();
        // `0.log` sorts before its archives, but is the newest.
        files.rotate_left(1);
        let mut open = [Vec::new(), Vec::new()];
        let mut parser = CriParser::default();
        for path in files {
            let bytes = content(&path);
            for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                let Some(line) = line.strip_suffix(b"\n") else { break };
                let line = parser.parse(line).expect("every line is CRI");
                let body = &mut open[line.stream.index()];
                body.extend_from_slice(line.body);
                if !line.is_partial() {
                    count.body(line.stream, body, Some(&live));
                    body.clear();
                }
            }
        }
    }
    count
}

/// Counts raw lines.
pub(crate) fn count_raw(output: &[u8]) -> Count {
    let mut count = Count::default();
    if let Some(lines) = output.strip_suffix(b"\n") {
        lines.split(|&byte| byte == b'\n').for_each(|line| count.body(Stream::Stdout, line, None));
    }
    count
}
