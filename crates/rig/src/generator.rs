//! log-generator as a process, one or several: it plays the node, and its manifest says what was
//! written.

use crate::{
    cli::LoadOptions,
    error::{Error, Result, io_error},
    http,
    process::{Ended, Process},
    tree::Tree,
    usage::Usage,
};
use rustix::process::Signal;
use serde::Deserialize;
use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    ops::Add,
    path::{Path, PathBuf},
    time::Duration,
};
use thyme_core::manifest::ManifestLine;

/// What the generator is called where there is only one.
pub const NAME: &str = "log-generator";

/// Sums of a manifest, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Lines.
    pub lines: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl Add for Written {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { lines: self.lines + other.lines, bytes: self.bytes + other.bytes }
    }
}

impl Written {
    /// Adds up a manifest's lines.
    pub fn from_manifest(manifest: &[u8]) -> Result<Self> {
        let mut written = Self::default();
        for line in manifest_lines(manifest)? {
            written.lines += line.lines;
            written.bytes += line.bytes;
        }
        Ok(written)
    }
}

/// Reads a manifest.
pub fn manifest_lines(manifest: &[u8]) -> Result<Vec<ManifestLine>> {
    let lines = serde_json::Deserializer::from_slice(manifest).into_iter();
    let lines: std::result::Result<Vec<_>, serde_json::Error> = lines.collect();
    lines.map_err(|error| Error::Answer { name: NAME, detail: format!("manifest: {error}") })
}

/// What it says at its end, as far as it is needed here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Account {
    /// From the first to the last line.
    pub elapsed_seconds: f64,
    /// Most lines that were due and not yet written: the machine did not keep up.
    pub late_lines_max: u64,
}

/// What one log-generator is told to write. A run with several has several groups of pods, each with
/// its own rate and its own run in the stamps.
#[derive(Clone, Debug)]
pub struct Task {
    /// Names its outputs and its manifest; unique among the tasks of a run.
    pub name: &'static str,
    /// The run in its stamps, where the figures of this task are asked for; else by chance.
    pub run: Option<u32>,
    /// What names and texts follow from; else by chance. The same seed is the same pods.
    pub seed: Option<u64>,
    /// How many pods.
    pub pods: u32,
    /// Lines per second, all pods together; 0 is as fast as possible.
    pub rate: u64,
    /// Lines in all, if they end it.
    pub lines: Option<u64>,
    /// How long it writes; without this and `lines` until it is stopped.
    pub duration: Option<Duration>,
    /// How long each pod lives, and how long its directory stays after that; without it pods stay.
    pub lifetime: Option<(Duration, Duration)>,
    /// Files kept for each container.
    pub rotate_files: u32,
}

impl Task {
    /// The load that the options describe.
    pub fn new(load: &LoadOptions, duration: Option<Duration>) -> Self {
        Self {
            name: NAME,
            run: None,
            seed: load.seed,
            pods: load.pods,
            rate: load.rate,
            lines: None,
            duration,
            lifetime: None,
            rotate_files: load.rotate_files,
        }
    }

    fn arguments(&self, tree: &Tree, load: &LoadOptions) -> Vec<OsString> {
        let millis = |duration: Duration| format!("{}ms", duration.as_millis()).into();
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        add("--out", tree.pods().into());
        add("--manifest", tree.manifest(self.name).into());
        add("--admin", "127.0.0.1:0".into());
        add("--pods", self.pods.to_string().into());
        add("--rate", self.rate.to_string().into());
        add("--kind", load.kind.name().into());
        if let Some(run) = self.run {
            add("--run", run.to_string().into());
        }
        if let Some(seed) = self.seed {
            add("--seed", seed.to_string().into());
        }
        if let Some(lines) = self.lines {
            add("--lines", lines.to_string().into());
        }
        if let Some(duration) = self.duration {
            add("--duration", millis(duration));
        }
        if let Some((lifetime, removed_after)) = self.lifetime {
            // Files of pods that come and go are not rotated.
            add("--lifetime", millis(lifetime));
            add("--removed-after", millis(removed_after));
        } else {
            add("--rotate-size", load.rotate_size.to_string().into());
            add("--rotate-files", self.rotate_files.to_string().into());
            add("--rotate-interval", millis(load.rotate_interval));
        }
        arguments
    }
}

/// A log-generator, running or ended.
#[derive(Debug)]
pub struct Generator {
    process: Process,
    manifest: PathBuf,
    admin: Option<SocketAddr>,
    /// Set when it has ended: what its manifest says.
    total: Option<Written>,
}

#[derive(Deserialize)]
struct Announcement {
    admin: SocketAddr,
}

impl Generator {
    /// Starts writing into the tree.
    pub fn spawn(program: &Path, tree: &Tree, load: &LoadOptions, task: &Task) -> Result<Self> {
        let arguments = task.arguments(tree, load);
        let process = Process::spawn(task.name, program, &arguments, &tree.children())?;
        Ok(Self { process, manifest: tree.manifest(task.name), admin: None, total: None })
    }

    /// Whether it has said its address, and so has begun.
    pub fn is_up(&mut self) -> Result<bool> {
        if self.admin.is_none()
            && let Some(line) = self.process.first_line()?
        {
            self.admin = Some(parse::<Announcement>(&line)?.admin);
        }
        Ok(self.admin.is_some())
    }

    /// What it said at its end.
    pub fn account(&self) -> Result<Account> {
        parse(&self.process.last_line()?.unwrap_or_default())
    }

    /// What it has written so far; `None` when it cannot be asked, since it is about to end.
    pub fn written(&self) -> Result<Option<Written>> {
        if self.total.is_some() {
            return Ok(self.total);
        }
        let Some(admin) = self.admin else { return Ok(None) };
        match http::request(admin, "GET", "/manifest", &[]).and_then(http::Response::ok) {
            Ok(manifest) => Written::from_manifest(&manifest).map(Some),
            Err(_ending) => Ok(None),
        }
    }

    /// The manifest that it left when it ended.
    pub fn manifest(&self) -> Result<Vec<u8>> {
        fs::read(&self.manifest).map_err(io_error(format!("reading {}", self.manifest.display())))
    }

    /// Asks it to end: it writes each writer's last line, and the manifest.
    pub fn stop(&self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Whether it has ended as it should; any other end is an error.
    pub fn poll(&mut self) -> Result<Option<Ended>> {
        match self.process.poll()? {
            Some(ended) if ended.status.success() => {
                if self.total.is_none() {
                    self.total = Some(Written::from_manifest(&self.manifest()?)?);
                }
                Ok(Some(ended))
            }
            Some(_failed) => self.process.expect_running().map(|()| None),
            None => Ok(None),
        }
    }

    /// What it uses.
    pub fn usage(&self) -> Usage {
        self.process.usage()
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T> {
    serde_json::from_str(line)
        .map_err(|error| Error::Answer { name: NAME, detail: format!("{error} in {line:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: an empty manifest, one of two writers, and a damaged one.
    /// Guarantees: sums, and an error that names the generator.
    #[test]
    fn manifests_are_added_up() {
        assert_eq!(Written::from_manifest(b"").unwrap(), Written::default());
        let line = |writer: u32, last: u64| {
            let lines = last + 1;
            serde_json::to_string(&ManifestLine {
                run: 1,
                writer,
                stream: "stdout".into(),
                first: 0,
                last,
                lines,
                bytes: lines * 100,
                path: None,
            })
            .unwrap()
        };
        let manifest = format!("{}\n{}\n", line(0, 9), line(1, 19));
        let written = Written::from_manifest(manifest.as_bytes()).unwrap();
        assert_eq!(written, Written { lines: 30, bytes: 3000 });
        let error = Written::from_manifest(b"{\"run\":").unwrap_err();
        assert!(error.to_string().contains(NAME), "{error}");
    }
}
