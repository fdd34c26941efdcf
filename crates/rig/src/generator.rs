//! log-generator as a process: it plays the node, and its manifest says what was written.

use crate::{
    cli::{LineKind, LoadOptions},
    error::{Error, Result, io_error},
    http,
    process::{Ended, Process},
    tree::Tree,
    usage::Usage,
};
use rustix::process::Signal;
use serde::Deserialize;
use std::{ffi::OsString, fs, net::SocketAddr, path::Path, time::Duration};
use thyme_core::manifest::ManifestLine;

const NAME: &str = "log-generator";

/// Sums of a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Lines.
    pub lines: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl Written {
    /// Adds up a manifest's lines.
    pub fn from_manifest(manifest: &[u8]) -> Result<Self> {
        let mut written = Self::default();
        for line in serde_json::Deserializer::from_slice(manifest).into_iter::<ManifestLine>() {
            let line = line.map_err(|error| Error::Answer {
                name: NAME,
                detail: format!("manifest: {error}"),
            })?;
            written.lines += line.lines;
            written.bytes += line.bytes;
        }
        Ok(written)
    }
}

/// What it says at its end, as far as it is needed here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Account {
    /// From the first to the last line.
    pub elapsed_seconds: f64,
    /// Most lines that were due and not yet written: the machine did not keep up.
    pub late_lines_max: u64,
}

/// A log-generator, running or ended.
#[derive(Debug)]
pub struct Generator {
    process: Process,
    admin: Option<SocketAddr>,
}

#[derive(Deserialize)]
struct Announcement {
    admin: SocketAddr,
}

impl Generator {
    /// Starts writing into the tree; without a duration until it is stopped.
    pub fn spawn(
        program: &Path,
        tree: &Tree,
        load: &LoadOptions,
        duration: Option<Duration>,
    ) -> Result<Self> {
        let arguments = arguments(tree, load, duration);
        let process = Process::spawn(NAME, program, &arguments, &tree.children())?;
        Ok(Self { process, admin: None })
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
        let Some(admin) = self.admin else { return Ok(None) };
        match http::request(admin, "GET", "/manifest", &[]).and_then(http::Response::ok) {
            Ok(manifest) => Written::from_manifest(&manifest).map(Some),
            Err(_ending) => Ok(None),
        }
    }

    /// Asks it to end: it writes each writer's last line, and the manifest.
    pub fn stop(&self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Whether it has ended as it should; any other end is an error.
    pub fn poll(&mut self) -> Result<Option<Ended>> {
        match self.process.poll()? {
            Some(ended) if ended.status.success() => Ok(Some(ended)),
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

/// Reads the manifest that an ended generator left.
pub fn read_manifest(tree: &Tree) -> Result<Vec<u8>> {
    let path = tree.manifest();
    fs::read(&path).map_err(io_error(format!("reading {}", path.display())))
}

fn parse<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T> {
    serde_json::from_str(line)
        .map_err(|error| Error::Answer { name: NAME, detail: format!("{error} in {line:?}") })
}

fn arguments(tree: &Tree, load: &LoadOptions, duration: Option<Duration>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    add("--out", tree.pods().into());
    add("--manifest", tree.manifest().into());
    add("--admin", "127.0.0.1:0".into());
    add("--pods", load.pods.to_string().into());
    add("--rate", load.rate.to_string().into());
    add("--kind", LineKind::name(load.lines).into());
    if let Some(duration) = duration {
        add("--duration", format!("{}ms", duration.as_millis()).into());
    }
    if let Some(size) = load.rotate_size {
        add("--rotate-size", size.to_string().into());
    }
    if let Some(files) = load.rotate_files {
        add("--rotate-files", files.to_string().into());
    }
    if let Some(interval) = load.rotate_interval {
        add("--rotate-interval", format!("{}ms", interval.as_millis()).into());
    }
    if let Some(seed) = load.seed {
        add("--seed", seed.to_string().into());
    }
    arguments
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
