//! What each writer has written: kept while writing, shown and stored as JSON lines. A line counts
//! once the `write` that holds it has returned, never before.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thyme_core::cri::Stream;
use thyme_core::manifest::ManifestLine;

use crate::container::Tally;

/// The counts of all writers of a run.
#[derive(Debug)]
pub struct Manifest {
    run: u32,
    /// Writer ids by container and stream.
    writers: Vec<[u32; 2]>,
    /// Log files by container, where there are any.
    paths: Vec<String>,
    /// What was written, by container. Locked once a batch, so that a reader sees whole batches.
    written: Mutex<Vec<Tally>>,
}

impl Manifest {
    /// A manifest of containers that have written nothing.
    pub fn new(run: u32, writers: Vec<[u32; 2]>) -> Self {
        let written = Mutex::new(vec![Tally::default(); writers.len()]);
        Self { run, writers, paths: Vec::new(), written }
    }

    /// Says which log file each container writes, below the directory of all pods.
    #[must_use]
    pub fn with_paths(mut self, paths: Vec<String>) -> Self {
        self.paths = paths;
        self
    }

    /// Adds what was written to a container's output.
    pub fn add(&self, container: usize, tally: &Tally) {
        let written = &mut self.lock()[container];
        for stream in 0..2 {
            written.lines[stream] += tally.lines[stream];
            written.body_bytes[stream] += tally.body_bytes[stream];
        }
    }

    /// One line for each writer that wrote something.
    pub fn lines(&self) -> Vec<ManifestLine> {
        let written = self.lock().clone();
        let mut lines = Vec::new();
        for (container, tally) in written.iter().enumerate() {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let index = stream.index();
                if tally.lines[index] > 0 {
                    lines.push(ManifestLine {
                        run: self.run,
                        writer: self.writers[container][index],
                        stream: stream.as_str().to_owned(),
                        first: 0,
                        last: tally.lines[index] - 1,
                        lines: tally.lines[index],
                        bytes: tally.body_bytes[index],
                        path: self.paths.get(container).cloned(),
                    });
                }
            }
        }
        lines
    }

    /// The manifest as JSON lines.
    pub fn to_json_lines(&self) -> Vec<u8> {
        json_lines(&self.lines())
    }

    /// Writes the manifest to a file in one step: readers see the old one or the new one.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        fs::write(&temporary, self.to_json_lines())?;
        fs::rename(&temporary, path)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tally>> {
        // Counts are whole after every statement, so a panic elsewhere doesn't spoil them.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Manifest lines as JSON, one a line.
pub fn json_lines(lines: &[ManifestLine]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).expect("numbers and a name are valid JSON");
        text.write_all(b"\n").expect("writing to memory succeeds");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: two containers, of which one writes on one stream only.
    /// Guarantees: writers that wrote have a line with exact numbers, others none; the file holds
    /// the same and no temporary one stays.
    #[test]
    fn lines_and_file() {
        let paths = ["a", "b", "c"].map(|pod| format!("{pod}/app/0.log"));
        let manifest = Manifest::new(9, vec![[0, 1], [2, 3], [4, 5]]).with_paths(paths.into());
        manifest.add(0, &Tally { lines: [2, 1], body_bytes: [20, 11] });
        manifest.add(0, &Tally { lines: [1, 0], body_bytes: [9, 0] });
        manifest.add(2, &Tally { lines: [0, 4], body_bytes: [0, 44] });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifest.jsonl");
        manifest.store(&path).unwrap();
        let stored = fs::read_to_string(&path).unwrap();
        let expected = "\
            {\"run\":9,\"writer\":0,\"stream\":\"stdout\",\"first\":0,\"last\":2,\"lines\":3,\"bytes\":29,\"path\":\"a/app/0.log\"}\n\
            {\"run\":9,\"writer\":1,\"stream\":\"stderr\",\"first\":0,\"last\":0,\"lines\":1,\"bytes\":11,\"path\":\"a/app/0.log\"}\n\
            {\"run\":9,\"writer\":5,\"stream\":\"stderr\",\"first\":0,\"last\":3,\"lines\":4,\"bytes\":44,\"path\":\"c/app/0.log\"}\n";
        assert_eq!(stored, expected);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
