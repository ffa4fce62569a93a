//! The engine's sources of randomness and of threads that may block. A simulation replaces them, so that a seed determines the
//! run. Wall-clock time comes from the ledger (`Store::time`), elapsed time from tokio (`tokio::time::Instant`).

use std::time::Duration;

use tokio::task::JoinHandle;

/// Returns a poll interval; a simulation polls less often.
pub(crate) fn often(every: Duration) -> Duration {
    #[cfg(test)]
    if simulated::is_on() {
        return every * 5;
    }
    every
}

/// Returns a random number from 0 to below 1.
pub(crate) fn chance() -> f64 {
    #[cfg(test)]
    if let Some(simulated) = simulated::chance() {
        return simulated;
    }
    rand::random()
}

/// Returns a random index below `count`.
pub(crate) fn one_of(count: usize) -> usize {
    (chance() * count as f64) as usize
}

/// Runs blocking work on a thread for it.
pub(crate) fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if simulated::is_on() {
        return tokio::spawn(async { work() });
    }
    tokio::task::spawn_blocking(work)
}

/// Time and randomness of a simulation, for the thread that it runs on.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::{Cell, RefCell};

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use tokio::time::Instant;

    thread_local! {
        static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
        static CHANCE: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
    }

    /// Start of every simulation, in milliseconds since 1970.
    pub(crate) const EPOCH: i64 = 1_800_000_000_000;

    /// Starts a simulation on this thread, whose runtime has paused its time.
    pub(crate) fn begin(seed: u64) {
        BEGUN.set(Some(Instant::now()));
        CHANCE.set(Some(SmallRng::seed_from_u64(seed)));
    }

    /// Ends the simulation.
    pub(crate) fn end() {
        BEGUN.set(None);
        CHANCE.set(None);
    }

    pub(crate) fn is_on() -> bool {
        BEGUN.get().is_some()
    }

    /// Returns the true time of the simulation, in milliseconds since 1970.
    pub(crate) fn true_time() -> Option<i64> {
        Some(EPOCH + BEGUN.get()?.elapsed().as_millis() as i64)
    }

    pub(super) fn chance() -> Option<f64> {
        CHANCE.with_borrow_mut(|chance| chance.as_mut().map(RngExt::random))
    }
}
