//! The two corpora: finished CRI files of 20 pods, the same bytes each time they are made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use log_generator::{CorpusOptions, Kind, write_corpus};

/// Pods of a corpus.
pub const PODS: u32 = 20;

/// A corpus on disk.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// What its lines look like.
    pub name: &'static str,
    /// Directory laid out as `/var/log/pods`.
    pub directory: PathBuf,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Its lines.
    pub lines: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Which lines, and how many.
pub const CORPORA: [(&str, Kind, u64); 2] =
    [("random", Kind::Random, 2_000_000), ("mixed", Kind::Mixed, 4_000_000)];

impl Corpus {
    /// The corpus of that name in `base`, made if it isn't there; `scale` divides its lines.
    pub fn prepare(
        base: &Path,
        (name, kind, lines): (&'static str, Kind, u64),
        scale: u64,
    ) -> anyhow::Result<Self> {
        let lines = lines / scale;
        let directory = base.join(format!("{name}-{lines}"));
        let done = directory.with_extension("done");
        if !done.exists() {
            if directory.exists() {
                fs::remove_dir_all(&directory).with_context(|| place("removing", &directory))?;
            }
            fs::create_dir_all(&directory).with_context(|| place("making", &directory))?;
            write_corpus(&directory, &CorpusOptions::new(kind, PODS, lines))?;
            fs::write(&done, "").with_context(|| place("writing", &done))?;
        }
        let mut files = Vec::new();
        collect(&directory, &mut files)?;
        files.sort();
        let mut bytes = 0;
        for file in &files {
            bytes += fs::metadata(file)?.len();
        }
        Ok(Self { name, directory, files, lines, bytes })
    }

    /// Reads all of it once, so that no run pays for the disk.
    pub fn warm(&self) -> anyhow::Result<()> {
        for file in &self.files {
            let read = std::io::copy(&mut fs::File::open(file)?, &mut std::io::sink())?;
            anyhow::ensure!(read > 0, "{} is empty", file.display());
        }
        Ok(())
    }
}

fn place(doing: &str, path: &Path) -> String {
    format!("{doing} {}", path.display())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
