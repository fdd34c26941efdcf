//! What can go wrong before there is a verdict. A lost line is no error: it is a verdict.

use std::{io, path::PathBuf, time::Duration};

use rig::interrupt::StopSignal;

/// Shorthand of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run did not come to a verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user, or whoever runs this, asked to stop.
    #[error("stopped by {0}")]
    Interrupted(StopSignal),
    /// Programs that are needed aren't there.
    #[error("not found on PATH: {}. {hint}", names.join(", "))]
    ToolsMissing {
        /// Which.
        names: Vec<String>,
        /// Where to read how to get them.
        hint: &'static str,
    },
    /// A program can't be started.
    #[error("{command}: {source}")]
    Start {
        /// The command line.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// A program failed.
    #[error("{command}: {status}{}", indented(message))]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines that it printed on standard error.
        message: String,
    },
    /// A program took too long.
    #[error("{command}: no end after {}", humantime::format_duration(*after))]
    TooLong {
        /// The command line.
        command: String,
        /// How long it was given.
        after: Duration,
    },
    /// A program's answer isn't what was expected.
    #[error("{command}: {problem}")]
    Answer {
        /// The command line.
        command: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something that was waited for did not happen.
    #[error("after {}: {what}", humantime::format_duration(*after))]
    Waited {
        /// How long.
        after: Duration,
        /// What is still wrong.
        what: String,
    },
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something about the operator's side must be changed first.
    #[error("{0}")]
    Refused(String),
}

/// What a program printed stands below the message, set apart from it.
fn indented(message: &str) -> String {
    message.lines().map(|line| format!("\n    {line}")).collect()
}

/// Makes an [`Error::File`] of an I/O error.
pub fn file_error(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { path, source }
}

impl From<rig::error::Error> for Error {
    fn from(error: rig::error::Error) -> Self {
        match error {
            rig::error::Error::Interrupted(signal) => Self::Interrupted(signal),
            other => Self::Refused(other.to_string()),
        }
    }
}
