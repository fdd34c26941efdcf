//! The right to bring a request to its end, of which there are `num_consumers`. A request that can
//! only wait gives it back, so that others go on: there are a few more tasks than rights.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::ASIDE_REQUESTS_MAX;

/// All rights of an exporter.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    consumers: usize,
}

/// One right, until it is released or dropped.
#[derive(Debug)]
pub(super) struct Slot(Option<OwnedSemaphorePermit>);

impl Slots {
    pub(super) fn new(consumers: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(consumers)), consumers }
    }

    /// Tasks that take requests, and may have one aside.
    pub(super) const fn tasks(&self) -> usize {
        self.consumers + ASIDE_REQUESTS_MAX
    }

    /// Waits for a right; first come, first served.
    pub(super) async fn take(&self) -> Slot {
        // It is never closed.
        Slot(Arc::clone(&self.free).acquire_owned().await.ok())
    }
}

impl Slot {
    /// Whether it was given back.
    pub(super) const fn is_released(&self) -> bool {
        self.0.is_none()
    }

    /// Gives the right back.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }
}
