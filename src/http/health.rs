//! Liveness and readiness of a worker, from the last activity of its connections and its loop. It never sends a request to a
//! server because a health check must not wait.

use std::{sync::Arc, time::Duration};

use crate::dispatch::LoopProgress;
use parking_lot::Mutex;

/// Interval between checks of the worker's loop.
pub(super) const LOOP_INTERVAL: Duration = Duration::from_secs(1);
/// Number of checks in a row without progress after which the loop counts as stalled: 30 s.
const STALL_LOOKS: u32 = 30;
/// Name of the loop among a worker's dependencies.
const LOOP: &str = "loop";

/// Name of a server that must be available, and its check.
type Check = (&'static str, Box<dyn Fn() -> bool + Send + Sync>);

/// The dependencies that a worker needs to be alive and ready.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Watched>>);

/// The loop that must make progress, and the recovery steps of the ledger that it may wait for.
struct WorkLoop {
    progress: LoopProgress,
    recovery_steps: Box<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Default)]
struct Watched {
    /// `None` until the worker is connected.
    checks: Option<Vec<Check>>,
    work_loop: Option<WorkLoop>,
    /// Rounds of the loop and recovery steps of the ledger at the last check.
    seen: (Option<u64>, u64),
    /// Number of checks without progress since then.
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
        self.0.lock().checks.get_or_insert_default().push((name, Box::new(is_here)));
    }

    /// Sets the loop that must make progress for the worker to be alive.
    ///
    /// `recovery_steps` grows while the ledger recovers, which the loop may wait for.
    pub fn watch_loop(
        &self,
        progress: LoopProgress,
        recovery_steps: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.0.lock().work_loop = Some(WorkLoop { progress, recovery_steps: Box::new(recovery_steps) });
    }

    /// Checks the loop's progress; called every [`LOOP_INTERVAL`].
    ///
    /// A loop that waits for a recovering ledger counts as alive. Checks are counted instead of time because a frozen process
    /// runs neither its loop nor these checks.
    pub(super) fn look_at_loop(&self) {
        let mut watched = self.0.lock();
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
        self.0.lock().is_stalled()
    }

    /// Returns the names of unavailable dependencies, or `None` before the worker is connected.
    pub(super) fn missing(&self) -> Option<Vec<&'static str>> {
        let checks = self.look()?.into_iter().filter(|(_, is_here)| !is_here);
        Some(checks.map(|(name, _)| name).collect())
    }

    /// Returns each dependency, including the loop, and whether it is available.
    pub(super) fn look(&self) -> Option<Vec<(&'static str, bool)>> {
        let watched = self.0.lock();
        let servers = watched.checks.as_ref()?.iter().map(|(name, is_here)| (*name, is_here()));
        Some(servers.chain([(LOOP, !watched.is_stalled())]).collect())
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
    fn a_loop_is_stalled_after_thirty_checks_without_progress() {
        let (health, progress) = (Health::default(), LoopProgress::default());
        health.check("redis", || true);
        let steps = Arc::new(AtomicU64::new(0));
        let recovering = steps.clone();
        health.watch_loop(progress.clone(), move || recovering.load(Ordering::Relaxed));
        look(&health, 2 * STALL_LOOKS);
        assert!(!health.is_stalled(), "the loop has not started");
        progress.advance();
        look(&health, STALL_LOOKS);
        assert!(!health.is_stalled(), "the first check sees progress");
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
        assert!(!health.is_stalled(), "the loop waits for the ledger");
        progress.end();
        look(&health, 2 * STALL_LOOKS);
        assert!(!health.is_stalled(), "the loop has ended");
    }
}
