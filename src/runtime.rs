//! What the engine takes from its surroundings: chance, and threads that may block. A simulation hands in its own,
//! and then one seed is one run. The time of day is the ledger's (`Store::time`), and time that only passes is tokio's
//! (`tokio::time::Instant`).

use std::time::Duration;

use tokio::task::JoinHandle;

/// How often to look at something that may have changed. In a simulation, where nobody waits, that is seldom.
pub(crate) fn often(every: Duration) -> Duration {
    #[cfg(test)]
    if simulated::is_on() {
        return every * 5;
    }
    every
}

/// A number from 0 to below 1, by chance.
pub(crate) fn chance() -> f64 {
    #[cfg(test)]
    if let Some(simulated) = simulated::chance() {
        return simulated;
    }
    rand::random()
}

/// One of so many, by chance.
pub(crate) fn one_of(count: usize) -> usize {
    (chance() * count as f64) as usize
}

/// Does what may block on a thread for that.
pub(crate) fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if simulated::is_on() {
        return tokio::spawn(async { work() });
    }
    tokio::task::spawn_blocking(work)
}

/// A simulation's time and chance, for the thread that it runs on.
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

    /// When every simulation begins.
    pub(crate) const EPOCH: i64 = 1_800_000_000_000;

    /// Begins a simulation on this thread, whose runtime's time is paused.
    pub(crate) fn begin(seed: u64) {
        BEGUN.set(Some(Instant::now()));
        CHANCE.set(Some(SmallRng::seed_from_u64(seed)));
    }

    /// Ends it.
    pub(crate) fn end() {
        BEGUN.set(None);
        CHANCE.set(None);
    }

    pub(crate) fn is_on() -> bool {
        BEGUN.get().is_some()
    }

    /// The time as it is, in milliseconds since 1970.
    pub(crate) fn true_time() -> Option<i64> {
        Some(EPOCH + BEGUN.get()?.elapsed().as_millis() as i64)
    }

    pub(super) fn chance() -> Option<f64> {
        CHANCE.with_borrow_mut(|chance| chance.as_mut().map(RngExt::random))
    }
}
