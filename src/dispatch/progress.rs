//! The progress of a worker's loop. It only counts rounds; the health check decides when a loop has stalled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counter of the rounds of a worker's loop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LoopProgress(Arc<AtomicU64>);

impl LoopProgress {
    /// Returns the number of rounds so far, or `None` while the loop does not run.
    pub fn rounds(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|rounds| *rounds > 0)
    }

    /// Counts a round.
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Marks the loop as ended.
    pub(crate) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
