//! Whether a worker's loop goes round. It only counts; who looks at the count decides what standing still means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a worker's loop has gone round. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct LoopProgress(Arc<AtomicU64>);

impl LoopProgress {
    /// Returns the rounds of the loop so far, or none while it does not run.
    pub fn rounds(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|rounds| *rounds > 0)
    }

    /// Counts a round.
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Marks the loop as one that does not run any more.
    pub(crate) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
