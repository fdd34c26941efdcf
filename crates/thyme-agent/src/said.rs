//! What is logged on the thread of a test.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing::{
    Dispatch,
    subscriber::{DefaultGuard, NoSubscriber, set_default},
};
use tracing_subscriber::fmt::MakeWriter;

/// What was logged.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Vec<u8>>>);

/// Ends the listening when it is dropped.
pub(crate) struct Listening {
    _here: DefaultGuard,
    /// While there is one subscriber alone, tracing asks whatever thread comes to an event first
    /// whether anybody wants it, and remembers the answer for all: another test's would be no.
    _another: Dispatch,
}

impl Said {
    /// Listens to this thread.
    pub(crate) fn listen(&self) -> Listening {
        let here = tracing_subscriber::fmt().with_writer(self.clone()).with_ansi(false).finish();
        let here = set_default(here);
        Listening { _here: here, _another: Dispatch::new(NoSubscriber::default()) }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Said {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
