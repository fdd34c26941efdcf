//! Makes corpora: finished CRI files of pods, the same bytes for the same options, times included.
//! Shares everything with the live generator but its clock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thyme_core::manifest::ManifestLine;
use thyme_core::splitmix::scramble;

use crate::container::{Container, ContainerOptions, Framing, Tally, Window};
use crate::limits::{CLOCK_LINES_MAX, PODS_MAX, WRITE_BYTES_MAX};
use crate::line::buffer::Buffer;
use crate::line::vocabulary::Vocabulary;
use crate::line::{Kind, LineMaker, SizeRange};
use crate::manifest::Manifest;
use crate::names::{live_path, relative_paths};
use crate::rate::share;
use crate::sink::{LiveFile, Sink, WriteError};

/// What a corpus holds.
#[derive(Clone, Debug)]
pub struct CorpusOptions {
    /// What the lines look like.
    pub kind: Kind,
    /// Their sizes, as [`LineMaker::new`] takes them.
    pub size: Option<SizeRange>,
    /// Pods, each with one container and one file.
    pub pods: u32,
    /// Lines in all, dealt out evenly.
    pub lines: u64,
    /// Lines a second over all pods, as the times in the lines tell it; at least 1.
    pub rate: u64,
    /// Time of the first line, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// What texts, names and the run id follow from.
    pub seed: u64,
    /// Namespace in the pods' directories.
    pub namespace: String,
    /// Share of lines on stderr, from 0 to 1.
    pub stderr_share: f64,
    /// Longest content of one CRI line, in bytes.
    pub partial_bytes_max: usize,
}

impl CorpusOptions {
    /// That many lines of a kind in that many pods, otherwise as the generator's defaults, written at
    /// 50,000 lines a second from the beginning of 2026.
    pub fn new(kind: Kind, pods: u32, lines: u64) -> Self {
        Self {
            kind,
            size: None,
            pods,
            lines,
            rate: 50_000,
            start_unix_nano: 1_767_225_600_000_000_000,
            seed: 1,
            namespace: "load".to_owned(),
            stderr_share: 0.0,
            partial_bytes_max: 16_384,
        }
    }
}

/// A corpus that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// The files, by pod.
    pub files: Vec<PathBuf>,
    /// What each writer wrote.
    pub manifest: Vec<ManifestLine>,
    /// Bytes of all files.
    pub file_bytes: u64,
}

/// Why there is no corpus.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// Nothing to write for, or too much.
    #[error("a corpus has 1 to {PODS_MAX} pods, a rate, and content in each CRI line")]
    Options,
    /// A file is there already; lines are not added to it.
    #[error("{0}: exists already")]
    Exists(PathBuf),
    /// A file or directory can't be made.
    #[error("{path}: {source}")]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes a corpus below `directory`, which plays `/var/log/pods`.
///
/// # Errors
/// Options without meaning, files that exist, and what the system says.
pub fn write_corpus(directory: &Path, options: &CorpusOptions) -> Result<Corpus, CorpusError> {
    let pods = u64::from(options.pods);
    if !(1..=PODS_MAX).contains(&options.pods)
        || options.rate == 0
        || options.partial_bytes_max == 0
    {
        return Err(CorpusError::Options);
    }
    let vocabulary = Arc::new(Vocabulary::new(options.seed));
    let writers: Vec<[u32; 2]> = (0..options.pods).map(pod_writers).collect();
    let run = scramble(options.seed) as u32;
    let paths = relative_paths(&options.namespace, options.seed, options.pods);
    let manifest = Manifest::new(run, writers.clone()).with_paths(paths);
    let mut corpus = Corpus { files: Vec::new(), manifest: Vec::new(), file_bytes: 0 };
    let mut buffer = Buffer::default();
    for index in 0..options.pods {
        let bodies = LineMaker::new(
            options.kind,
            options.size,
            options.seed,
            u64::from(index),
            Arc::clone(&vocabulary),
        );
        let lines = share(options.lines, pods, 0, u64::from(index));
        let container = ContainerOptions {
            run,
            writers: writers[index as usize],
            stderr_share: options.stderr_share,
            lines: Some(lines),
            framing: Framing::Cri { partial_bytes_max: options.partial_bytes_max },
        };
        let path = live_path(directory, &options.namespace, options.seed, index);
        let mut sink = create(&path)?;
        let mut clock = Clock::new(options, lines);
        let mut container = Container::new(&container, bodies);
        while clock.lines_left > 0 {
            let tally = fill(&mut container, &mut clock, &mut buffer);
            sink.write(buffer.written())?;
            manifest.add(index as usize, &tally);
            corpus.file_bytes += buffer.len() as u64;
        }
        corpus.files.push(path);
    }
    corpus.manifest = manifest.lines();
    Ok(corpus)
}

/// Writer ids of a pod's stdout and stderr.
pub(crate) fn pod_writers(index: u32) -> [u32; 2] {
    [2 * index, 2 * index + 1]
}

/// The time of one pod's lines.
struct Clock {
    now: u64,
    nanos_per_line: u64,
    lines_left: u64,
}

impl Clock {
    fn new(options: &CorpusOptions, lines: u64) -> Self {
        Self {
            now: options.start_unix_nano,
            nanos_per_line: u64::from(options.pods) * 1_000_000_000 / options.rate,
            lines_left: lines,
        }
    }
}

/// Fills the buffer once with the next lines.
fn fill(container: &mut Container, clock: &mut Clock, buffer: &mut Buffer) -> Tally {
    let mut tally = Tally::default();
    buffer.clear();
    while clock.lines_left > 0 && buffer.len() < WRITE_BYTES_MAX {
        let lines = clock.lines_left.min(CLOCK_LINES_MAX);
        let window = Window { after: clock.now, until: clock.now + lines * clock.nanos_per_line };
        let composed = container.compose(lines, window, buffer, &mut tally);
        clock.lines_left -= composed;
        clock.now += composed * clock.nanos_per_line;
    }
    tally
}

fn create(path: &Path) -> Result<Sink, CorpusError> {
    if path.exists() {
        return Err(CorpusError::Exists(path.to_owned()));
    }
    LiveFile::create(path, false)
        .map(Sink::Pod)
        .map_err(|source| CorpusError::Create { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use thyme_core::cri::CriParser;
    use thyme_core::stamp::Stamp;

    /// Scenario: the same small corpus twice, in two directories, with both streams in use.
    /// Guarantees: the same names and bytes, all lines there by the manifest, times at the rate.
    #[test]
    fn corpora_are_reproducible() {
        let options =
            CorpusOptions { stderr_share: 0.2, ..CorpusOptions::new(Kind::Mixed, 3, 10_001) };
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let corpora = directories.each_ref().map(|at| write_corpus(at.path(), &options).unwrap());
        assert_eq!(corpora[0].manifest, corpora[1].manifest);
        assert_eq!(corpora[0].manifest.iter().map(|line| line.lines).sum::<u64>(), 10_001);
        let (mut sequences, mut last_time) = ([0; 6], 0);
        for (one, other) in corpora[0].files.iter().zip(&corpora[1].files) {
            assert_eq!(one.strip_prefix(&directories[0]), other.strip_prefix(&directories[1]));
            let bytes = fs::read(one).unwrap();
            assert_eq!(bytes, fs::read(other).unwrap());
            let mut parser = CriParser::default();
            for line in bytes.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n') {
                let line = parser.parse(line).unwrap();
                let stamp = Stamp::find(line.body).unwrap();
                let sequence = &mut sequences[stamp.writer as usize];
                assert_eq!(
                    (stamp.sequence, stamp.time_unix_nano),
                    (*sequence, line.time_unix_nano)
                );
                *sequence += 1;
                last_time = last_time.max(line.time_unix_nano);
            }
        }
        for line in &corpora[0].manifest {
            assert_eq!(line.lines, sequences[line.writer as usize]);
        }
        let took = last_time - options.start_unix_nano;
        assert!((190_000_000..=201_000_000).contains(&took), "{took}");
        let again = write_corpus(directories[0].path(), &options);
        assert!(matches!(again, Err(CorpusError::Exists(_))));
    }
}
