//! What a worker says to the spool, and the way there. What the spool answers are settlements.

use std::{sync::Arc, time::Instant};

use crossbeam_channel::Sender;

use super::SpoolStatus;
use crate::{queue::Request, tail::acknowledge::Acknowledged};

/// What a worker says to the spool.
#[derive(Debug)]
pub enum SpoolMessage {
    /// Take this request over. A copy of it that is held already becomes the request: it is never
    /// forgotten before the other is on disk, and nothing is written twice.
    Keep {
        /// It; `token.number` is the worker's number of it.
        request: Request,
        /// Which worker.
        worker: usize,
    },
    /// Hold a copy of this request, which the exporter has.
    Secure {
        /// It; `token.number` is the worker's number of it.
        request: Request,
        /// Which worker.
        worker: usize,
    },
    /// So much of the request of this worker with this number is settled: the copy counts for the rest.
    Advance {
        /// Which worker.
        worker: usize,
        /// Its number of the request.
        number: u64,
        /// Places of the settled records.
        settled: Acknowledged,
    },
    /// The request of this worker with this number has ended: its copy is not needed any more.
    Forget {
        /// Which worker.
        worker: usize,
        /// Its number of the request.
        number: u64,
    },
    /// The agent stops: send nothing more, and end when the workers have, at this time at the
    /// latest.
    Stop(Instant),
}

/// A worker's way to the spool.
#[derive(Clone, Debug)]
pub struct SpoolLink {
    /// Where its messages go; never full.
    pub messages: Sender<SpoolMessage>,
    /// What the spool shows of itself.
    pub status: Arc<SpoolStatus>,
    /// Which worker it is.
    pub worker: usize,
}
