//! Ctrl-C and its like, as values: whoever waits, waits here, and learns at once that the run
//! should stop. Nothing is cleaned up in a signal handler; the stack unwinds by ordinary returns.

use crate::error::{Error, Result};
use std::{
    fmt, io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// A signal that ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`.
    Terminate,
    /// The terminal went away.
    HangUp,
}

impl StopSignal {
    /// What a shell reports for a process that this signal ended.
    pub fn exit_code(self) -> u8 {
        128 + match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
            Self::HangUp => 1,
        }
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
        })
    }
}

/// The receiving end of the signals.
#[derive(Debug)]
pub struct Interrupt {
    signals: Receiver<StopSignal>,
    /// Keeps the channel open where no handler feeds it.
    _silent: Option<Sender<StopSignal>>,
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP for the rest of the process.
    pub fn install() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        // The handlers are in place when this function returns, not when the thread gets to run.
        let (mut interrupt, mut terminate, mut hang_up) = {
            let _context = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        let (sender, signals) = mpsc::channel();
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async move {
                loop {
                    let stop = tokio::select! {
                        _ = interrupt.recv() => StopSignal::Interrupt,
                        _ = terminate.recv() => StopSignal::Terminate,
                        _ = hang_up.recv() => StopSignal::HangUp,
                    };
                    if sender.send(stop).is_err() {
                        return;
                    }
                }
            });
        })?;
        Ok(Self { signals, _silent: None })
    }

    /// An interrupt that never comes.
    pub fn never() -> Self {
        let (sender, signals) = mpsc::channel();
        Self { signals, _silent: Some(sender) }
    }

    /// Sleeps; a signal ends the sleep with [`Error::Interrupted`].
    pub fn pause(&self, duration: Duration) -> Result<()> {
        match self.signals.recv_timeout(duration) {
            Ok(stop) => Err(Error::Interrupted(stop)),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            // The thread never ends while this receiver lives.
            Err(RecvTimeoutError::Disconnected) => unreachable!("the signals' thread ended"),
        }
    }
}
