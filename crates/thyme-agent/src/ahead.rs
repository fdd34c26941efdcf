//! A clock of a test's own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::world::{Clock, real::SystemClock};

/// A clock that is as far ahead of the system's as it was advanced.
#[derive(Clone, Default)]
pub(crate) struct Ahead(Arc<Mutex<Duration>>);

impl Ahead {
    pub(crate) fn by(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for Ahead {
    fn now(&self) -> Instant {
        Instant::now() + self.by()
    }

    fn unix_nanos(&self) -> u64 {
        SystemClock.unix_nanos() + self.by().as_nanos() as u64
    }
}
