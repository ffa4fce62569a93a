//! Whether a worker is alive and ready, from what its connections and its loop last did. It never sends a request to a
//! server: a health check must not wait.

use std::sync::Arc;
use std::time::Duration;

use crate::dispatch::LoopProgress;
use parking_lot::{Mutex, MutexGuard};

/// How often the worker's loop is looked at.
pub(super) const LOOP_INTERVAL: Duration = Duration::from_secs(1);
/// Looks in a row without progress after which the loop counts as stalled: 30 s.
const STALL_LOOKS: u32 = 30;
/// Name of the loop among the parts of a worker.
const LOOP: &str = "loop";

/// A server that must be available, by its name.
type Check = (&'static str, Box<dyn Fn() -> bool + Send + Sync>);

/// The parts that a worker needs to be alive and ready.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Watched>>);

/// The loop that must make progress, and the steps of what it may wait for.
struct WorkLoop {
    progress: LoopProgress,
    recovery_steps: Box<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Default)]
struct Watched {
    /// `None` until it is connected.
    checks: Option<Vec<Check>>,
    work_loop: Option<WorkLoop>,
    /// The rounds of the loop and the steps of the ledger's recovery at the last look.
    seen: (Option<u64>, u64),
    /// How many looks have found no progress since.
    idle_looks: u32,
}

impl Watched {
    fn is_stalled(&self) -> bool {
        self.idle_looks >= STALL_LOOKS
    }
}

impl Health {
    /// Adds a server that must be available for the worker to be ready.
    pub fn check(&self, name: &'static str, is_here: impl Fn() -> bool + Send + Sync + 'static) {
        self.watched().checks.get_or_insert_default().push((name, Box::new(is_here)));
    }

    /// Sets the loop that must make progress for the worker to be alive. `recovery_steps` grows while the ledger, for
    /// which the loop may wait, recovers.
    pub fn watch_loop(
        &self,
        progress: LoopProgress,
        recovery_steps: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.watched().work_loop = Some(WorkLoop { progress, recovery_steps: Box::new(recovery_steps) });
    }

    /// Checks the loop's progress; called every [`LOOP_INTERVAL`]. A loop that waits for a ledger that recovers counts
    /// as alive. Looks are counted and not time: while a process is frozen, neither its loop nor this advances.
    pub(super) fn look_at_loop(&self) {
        let mut watched = self.watched();
        let now = watched
            .work_loop
            .as_ref()
            .map_or((None, 0), |watched| (watched.progress.rounds(), (watched.recovery_steps)()));
        if now.0.is_none() || now != watched.seen {
            if watched.is_stalled() {
                tracing::info!("the worker's loop makes progress again");
            }
            watched.seen = now;
            watched.idle_looks = 0;
            return;
        }
        watched.idle_looks = watched.idle_looks.saturating_add(1);
        if watched.idle_looks == STALL_LOOKS {
            tracing::error!(
                "the worker's loop has made no progress for {STALL_LOOKS} s; /healthz fails until it does"
            );
        }
    }

    /// Returns whether the loop has made no progress for 30 s although the ledger does not recover.
    pub(super) fn is_stalled(&self) -> bool {
        self.watched().is_stalled()
    }

    /// Returns the names of the parts that are unavailable, or `None` before anything is connected.
    pub(super) fn missing(&self) -> Option<Vec<&'static str>> {
        let checks = self.look()?.into_iter().filter(|(_, is_here)| !is_here);
        Some(checks.map(|(name, _)| name).collect())
    }

    /// Returns each part, the loop among them, and whether it is available.
    pub(super) fn look(&self) -> Option<Vec<(&'static str, bool)>> {
        let watched = self.watched();
        let servers = watched.checks.as_ref()?.iter().map(|(name, is_here)| (*name, is_here()));
        Some(servers.chain([(LOOP, !watched.is_stalled())]).collect())
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn look(health: &Health, times: u32) {
        (0..times).for_each(|_| health.look_at_loop());
    }

    #[test]
    fn a_loop_is_stalled_after_thirty_looks_without_progress() {
        let (health, progress) = (Health::default(), LoopProgress::default());
        health.check("redis", || true);
        let steps = Arc::new(AtomicU64::new(0));
        let recovering = steps.clone();
        health.watch_loop(progress.clone(), move || recovering.load(Ordering::Relaxed));
        look(&health, 2 * STALL_LOOKS);
        assert!(!health.is_stalled(), "it has not begun");
        progress.advance();
        look(&health, STALL_LOOKS);
        assert!(!health.is_stalled(), "one look is the one that saw it move");
        assert_eq!(health.missing().unwrap(), [""; 0]);
        look(&health, 1);
        assert!(health.is_stalled());
        assert_eq!(health.missing().unwrap(), [LOOP]);
        progress.advance();
        look(&health, 1);
        assert!(!health.is_stalled());
        look(&health, STALL_LOOKS);
        assert!(health.is_stalled());
        steps.fetch_add(1, Ordering::Relaxed);
        look(&health, 1);
        assert!(!health.is_stalled(), "it waits for the ledger");
        progress.end();
        look(&health, 2 * STALL_LOOKS);
        assert!(!health.is_stalled(), "it has ended");
    }
}
