//! Makes the outputs of a plan: a container of lines, and the stdout or the pod's file that takes
//! them. Knows what a pod's name, writers and share of the lines are; writes nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::container::{Container, ContainerOptions, Framing};
use crate::corpus::pod_writers;
use crate::generate::Output;
use crate::line::LineMaker;
use crate::line::vocabulary::Vocabulary;
use crate::names::live_path;
use crate::options::{Plan, Pods};
use crate::rate::share;
use crate::rotate::RotatedLog;
use crate::sink::{LiveFile, Sink};

/// What all outputs of a plan have in common.
#[derive(Debug)]
pub struct OutputMaker {
    plan: Plan,
    vocabulary: Arc<Vocabulary>,
}

/// A log file that can't be made.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct CreateError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl OutputMaker {
    /// Prepares the words that all lines are made of.
    pub fn new(plan: &Plan) -> Self {
        Self { plan: plan.clone(), vocabulary: Arc::new(Vocabulary::new(plan.seed)) }
    }

    /// The process's stdout, as the only writer.
    ///
    /// # Errors
    /// What the system says.
    pub fn stdout(&self, writer: u32) -> io::Result<Output> {
        let options = ContainerOptions {
            run: self.plan.run,
            writers: [writer; 2],
            stderr_share: 0.0,
            lines: self.plan.pace.lines(),
            framing: Framing::Raw,
        };
        let container = Container::new(&options, self.bodies(u64::from(writer)));
        Ok(Output { container, sink: Sink::stdout()? })
    }

    /// Makes the directory and the file of pod number `index`.
    ///
    /// # Errors
    /// Names the file.
    pub fn pod(&self, pods: &Pods, index: u32) -> Result<(Output, RotatedLog), CreateError> {
        let path = live_path(&pods.root, &pods.namespace, self.plan.seed, index);
        let file = LiveFile::create(&path, pods.rotate_between_partials)
            .map_err(|source| CreateError { path: path.clone(), source })?;
        let log = RotatedLog { live: path, reopen: file.reopen_flag() };
        let options = ContainerOptions {
            run: self.plan.run,
            writers: pod_writers(index),
            stderr_share: pods.stderr_share,
            lines: self.pod_lines(pods, index),
            framing: pods.framing,
        };
        let container = Container::new(&options, self.bodies(u64::from(index)));
        Ok((Output { container, sink: Sink::Pod(file) }, log))
    }

    /// How many lines pod number `index` writes in all, if that is known.
    pub fn pod_lines(&self, pods: &Pods, index: u32) -> Option<u64> {
        let lines = self.plan.pace.lines()?;
        Some(share(lines, u64::from(pods.count), 0, u64::from(index)))
    }

    fn bodies(&self, stream: u64) -> LineMaker {
        let Plan { kind, size, seed, .. } = self.plan;
        LineMaker::new(kind, size, seed, stream, Arc::clone(&self.vocabulary))
    }
}
