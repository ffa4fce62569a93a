//! The limit of an account's requests in flight, and the permits for them.
//!
//! An account without a configured limit gets an adaptive one: it grows while senders wait for a permit and the provider
//! answers as quickly as before, and shrinks when answers are late or are failures. It never raises the send rate above
//! what the buckets allow.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Maximum of an adaptive limit: with most providers each request in flight needs a connection.
const MAX_CONCURRENCY: usize = 512;
/// Shortest period that is evaluated: fewer answers say nothing.
const WINDOW: Duration = Duration::from_millis(50);
/// Period of the lowest latency. It is discarded after one or two of these, as a provider may have become slower.
const MEMORY: Duration = Duration::from_mins(5);
/// Delay of an answer that this machine may cause.
const NOISE: Duration = Duration::from_millis(2);

/// Permits for requests in flight.
#[derive(Debug)]
pub struct Concurrency {
    slots: Arc<Semaphore>,
    limit: AtomicUsize,
    /// Whether a sender had to wait for a permit since the last evaluation.
    was_short: AtomicBool,
    /// Latencies, where the limit is adaptive.
    answers: Mutex<Option<Answers>>,
}

/// Answers since the last evaluation, and the lowest latency recently.
#[derive(Debug)]
struct Answers {
    least: usize,
    since: Instant,
    latencies: Vec<Duration>,
    has_failed: bool,
    quickest: Duration,
    quickest_before: Duration,
    rotated: Instant,
}

impl Concurrency {
    /// Creates a fixed limit.
    pub fn fixed(limit: usize) -> Self {
        let slots = Arc::new(Semaphore::new(limit));
        Self {
            slots,
            limit: AtomicUsize::new(limit),
            was_short: AtomicBool::new(false),
            answers: Mutex::default(),
        }
    }

    /// Creates an adaptive limit with a minimum.
    pub fn adaptive(least: usize) -> Self {
        Self { answers: Mutex::new(Some(Answers::new(least))), ..Self::fixed(least) }
    }

    /// Changes the limit to a fixed one, or to an adaptive one with a minimum.
    ///
    /// When it falls, permits in use are removed as they are released, before another sender gets one.
    pub fn change(&self, fixed: Option<usize>, least: usize) {
        let mut answers = self.answers.lock();
        let limit = self.limit();
        match (fixed, &mut *answers) {
            (None, Some(known)) if known.least == least => {}
            (None, _) => *answers = Some(Answers::new(least)),
            (Some(next), _) => {
                *answers = None;
                self.limit.store(next, Ordering::Relaxed);
                self.slots.add_permits(next.saturating_sub(limit));
                let fewer = limit.saturating_sub(next);
                let forgotten = self.slots.forget_permits(fewer);
                let (slots, left) =
                    (self.slots.clone(), u32::try_from(fewer - forgotten).unwrap_or(u32::MAX));
                if left > 0 {
                    tokio::spawn(async move {
                        slots.acquire_many_owned(left).await.map(OwnedSemaphorePermit::forget)
                    });
                }
            }
        }
    }

    /// Returns the current limit.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether the limit is fixed.
    pub fn is_fixed(&self) -> bool {
        self.answers.lock().is_none()
    }

    /// Returns the highest value that the limit may reach.
    pub fn most(&self) -> usize {
        if self.is_fixed() { self.limit() } else { MAX_CONCURRENCY.max(self.limit()) }
    }

    /// Waits for a permit. `None` is never returned, as the semaphore is never closed.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Some(slot);
        }
        self.was_short.store(true, Ordering::Relaxed);
        self.slots.clone().acquire_owned().await.ok()
    }

    /// Reports the latency of an answer, and whether the provider accepted the request.
    pub fn answered(&self, latency: Duration, went_well: bool) {
        let mut answers = self.answers.lock();
        let Some(answers) = &mut *answers else { return };
        answers.has_failed |= !went_well;
        answers.latencies.push(latency);
        let limit = self.limit();
        let now = Instant::now();
        if answers.latencies.len() < limit || now < answers.since + WINDOW {
            return;
        }
        let was_short = self.was_short.swap(false, Ordering::Relaxed);
        let next = answers.judge(limit, was_short, now);
        if next > limit {
            self.slots.add_permits(next - limit);
            self.limit.store(next, Ordering::Relaxed);
        } else if next < limit {
            // Permits in use stay until a later evaluation.
            let forgotten = self.slots.forget_permits(limit - next);
            self.limit.store(limit - forgotten, Ordering::Relaxed);
        }
    }
}

impl Answers {
    fn new(least: usize) -> Self {
        let now = Instant::now();
        Self {
            least,
            since: now,
            latencies: Vec::new(),
            has_failed: false,
            quickest: Duration::MAX,
            quickest_before: Duration::MAX,
            rotated: now,
        }
    }

    /// Returns the limit that follows from the answers since the last evaluation.
    fn judge(&mut self, limit: usize, was_short: bool, now: Instant) -> usize {
        if now > self.rotated + MEMORY {
            self.rotated = now;
            self.quickest_before = std::mem::replace(&mut self.quickest, Duration::MAX);
        }
        // The median ignores a single slow answer, and those that had to connect first.
        let middle = self.latencies.len() / 2;
        let median = *self.latencies.select_nth_unstable(middle).1;
        let quickest = self.latencies.iter().copied().min().unwrap_or(median);
        self.quickest = self.quickest.min(quickest);
        self.latencies.clear();
        self.since = now;
        let best = self.quickest.min(self.quickest_before);
        let has_failed = std::mem::take(&mut self.has_failed);
        if has_failed || median > best * 2 + NOISE * 2 {
            limit.min(self.least.max(limit * 3 / 4))
        } else if was_short && median <= best * 3 / 2 + NOISE {
            limit.max((limit + limit.div_ceil(2)).min(MAX_CONCURRENCY))
        } else {
            limit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(150);

    /// Returns the limit after some rounds in which all permits were in use.
    fn after(concurrency: &Concurrency, rounds: usize, latency: impl Fn(usize) -> (Duration, bool)) -> usize {
        for _ in 0..rounds {
            let limit = concurrency.limit();
            let (latency, went_well) = latency(limit);
            concurrency.was_short.store(true, Ordering::Relaxed);
            if let Some(answers) = &mut *concurrency.answers.lock() {
                answers.since = Instant::now().checked_sub(WINDOW).unwrap();
            }
            for _ in 0..limit {
                concurrency.answered(latency, went_well);
            }
        }
        concurrency.limit()
    }

    #[tokio::test]
    async fn a_lowered_limit_holds_before_another_sender_gets_a_permit() {
        let limit = Concurrency::fixed(3);
        let held = [limit.permit().await, limit.permit().await];
        limit.change(Some(1), 8);
        assert_eq!((limit.limit(), limit.is_fixed()), (1, true));
        let next = tokio::spawn({
            let slots = limit.slots.clone();
            async move { slots.acquire_owned().await }
        });
        // The third permit was free and is removed; one of those in use is removed when it is released.
        let [first, second] = held;
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        drop(second);
        let _only = next.await.unwrap().unwrap();
        assert_eq!(limit.slots.available_permits(), 0);

        limit.change(Some(4), 8);
        assert_eq!((limit.limit(), limit.slots.available_permits()), (4, 3));
        limit.change(None, 8);
        assert!(!limit.is_fixed());
        assert_eq!((limit.limit(), limit.most()), (4, MAX_CONCURRENCY));
    }

    #[test]
    fn it_grows_while_latency_stays_low_and_senders_wait_for_permits() {
        let found = Concurrency::adaptive(8);
        assert_eq!(after(&found, 3, |_| (FAST, true)), 27);
        assert_eq!(after(&found, 30, |_| (FAST, true)), MAX_CONCURRENCY);
        let idle = Concurrency::adaptive(8);
        for _ in 0..1000 {
            idle.answered(FAST, true);
        }
        assert_eq!(idle.limit(), 8);
        let fixed = Concurrency::fixed(8);
        assert_eq!(after(&fixed, 30, |_| (FAST, true)), 8);
    }

    #[test]
    fn it_stops_growing_where_more_requests_in_flight_only_raise_latency() {
        // A provider that handles 40 requests at a time, each for 150 ms.
        let found = Concurrency::adaptive(8);
        let limit = after(&found, 50, |limit| (FAST * limit.max(40) as u32 / 40, true));
        assert!((40..=80).contains(&limit), "{limit}");
    }

    #[test]
    fn failures_reduce_it_to_its_minimum() {
        let found = Concurrency::adaptive(8);
        assert_eq!(after(&found, 30, |_| (FAST, true)), MAX_CONCURRENCY);
        assert_eq!(after(&found, 30, |_| (FAST, false)), 8);
    }

    #[tokio::test]
    async fn permits_in_use_are_removed_when_they_are_released() {
        let found = Concurrency::adaptive(2);
        assert_eq!(after(&found, 3, |_| (FAST, true)), 8);
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(found.permit().await);
        }
        assert_eq!(after(&found, 5, |_| (FAST * 10, true)), 8);
        held.clear();
        assert_eq!(after(&found, 5, |_| (FAST * 10, true)), 2);
        assert_eq!(found.slots.available_permits(), 2);
    }
}
