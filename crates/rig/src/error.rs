//! What can go wrong while a run is set up and driven. A lost line is no error: it is a verdict.

use crate::{http::HttpError, interrupt::StopSignal};
use std::{io, net::SocketAddr, path::PathBuf, process::ExitStatus, time::Duration};

/// Shorthand of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run did not come to a verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user, or whoever runs this, asked to stop.
    #[error("stopped by {0}")]
    Interrupted(StopSignal),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A binary of this workspace is not there.
    #[error("{} is not there; `cargo build --release --bins` builds it", path.display())]
    NotBuilt {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A child ended although the run still needed it.
    #[error("{name} ended early ({status}); its last log lines:\n{log}")]
    EndedEarly {
        /// Which child.
        name: &'static str,
        /// Its exit code or signal.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A child did not come up, or did not end, in time.
    #[error("{name} {what} within {limit:?}; its last log lines:\n{log}")]
    TooSlow {
        /// Which child.
        name: &'static str,
        /// What it failed to do.
        what: &'static str,
        /// How long it had.
        limit: Duration,
        /// The end of its log.
        log: String,
    },
    /// A child said something that is not understood.
    #[error("{name} answered what is not understood: {detail}")]
    Answer {
        /// Which child.
        name: &'static str,
        /// What was wrong.
        detail: String,
    },
    /// An admin port did not answer as it should.
    #[error("{method} http://{address}{path}: {source}")]
    Http {
        /// Request method.
        method: &'static str,
        /// The admin port.
        address: SocketAddr,
        /// Path and query.
        path: String,
        /// Why.
        source: HttpError,
    },
    /// The logs would not fit.
    #[error(
        "too little disk space: the run may need {} MiB under {}, {} MiB are free; \
         a smaller RATE or DURATION, or --tmp on another disk, helps",
        needed >> 20, path.display(), free >> 20
    )]
    DiskSpace {
        /// The base directory.
        path: PathBuf,
        /// Estimate, in bytes.
        needed: u64,
        /// What is free for this user, in bytes.
        free: u64,
    },
    /// The options contradict each other or cannot be read.
    #[error("{0}")]
    Usage(String),
}

/// Turns an I/O error into ours; `what` says what was tried.
pub fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}
