//! How many requests of an account may be under way at once, and the slots for them.
//!
//! Where the account does not say it, the limit is found: it grows while senders wait for a slot and
//! the provider answers as quickly as ever, and falls back when answers come late or are failures.
//! Growing never sends faster than the buckets allow; that is theirs alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The most that a limit grows to: each is a connection with most providers.
const MOST: usize = 512;
/// The shortest time that is judged: fewer answers tell nothing.
const WINDOW: Duration = Duration::from_millis(50);
/// The quickest answer is forgotten after one or two of these: a provider may have become slower.
const MEMORY: Duration = Duration::from_mins(5);
/// So much later an answer may be for reasons of this machine.
const NOISE: Duration = Duration::from_millis(2);

/// The slots for requests under way.
#[derive(Debug)]
pub struct Concurrency {
    slots: Arc<Semaphore>,
    limit: AtomicUsize,
    /// Whether a sender had to wait for a slot since the last judgement.
    was_short: AtomicBool,
    /// What is known of the answers, where the limit is to be found.
    answers: Mutex<Option<Answers>>,
}

/// The answers since the last judgement, and the quickest of late.
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
    /// As many as the account says.
    pub fn fixed(limit: usize) -> Self {
        let slots = Arc::new(Semaphore::new(limit));
        Self {
            slots,
            limit: AtomicUsize::new(limit),
            was_short: AtomicBool::new(false),
            answers: Mutex::default(),
        }
    }

    /// At least so many, and more where that is of use.
    pub fn found_from(least: usize) -> Self {
        Self { answers: Mutex::new(Some(Answers::new(least))), ..Self::fixed(least) }
    }

    /// From now on it is this limit, or found from the least. Where it falls, slots in use are given up as they become
    /// free, before anybody else has one.
    pub fn change(&self, fixed: Option<usize>, least: usize) {
        let mut answers = self.answers();
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

    fn answers(&self) -> MutexGuard<'_, Option<Answers>> {
        self.answers.lock()
    }

    /// How many may be under way now.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether the limit stays as it is.
    pub fn is_fixed(&self) -> bool {
        self.answers().is_none()
    }

    /// How many may ever be under way.
    pub fn most(&self) -> usize {
        if self.is_fixed() { self.limit() } else { MOST.max(self.limit()) }
    }

    /// Waits for a slot; `None` never comes, as the slots are never closed.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Some(slot);
        }
        self.was_short.store(true, Ordering::Relaxed);
        self.slots.clone().acquire_owned().await.ok()
    }

    /// A request was answered after so long; it went well if the provider took it in as it should.
    pub fn answered(&self, latency: Duration, went_well: bool) {
        let mut answers = self.answers();
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
            // Slots in use stay until a later judgement.
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

    /// The limit that follows from the answers since the last judgement.
    fn judge(&mut self, limit: usize, was_short: bool, now: Instant) -> usize {
        if now > self.rotated + MEMORY {
            self.rotated = now;
            self.quickest_before = std::mem::replace(&mut self.quickest, Duration::MAX);
        }
        // A single slow answer, or those that had to connect first, are no sign.
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
            limit.max((limit + limit.div_ceil(2)).min(MOST))
        } else {
            limit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(150);

    /// What comes of so many rounds in which all slots were in use.
    fn after(concurrency: &Concurrency, rounds: usize, latency: impl Fn(usize) -> (Duration, bool)) -> usize {
        for _ in 0..rounds {
            let limit = concurrency.limit();
            let (latency, went_well) = latency(limit);
            concurrency.was_short.store(true, Ordering::Relaxed);
            if let Some(answers) = &mut *concurrency.answers() {
                answers.since = Instant::now().checked_sub(WINDOW).unwrap();
            }
            for _ in 0..limit {
                concurrency.answered(latency, went_well);
            }
        }
        concurrency.limit()
    }

    #[tokio::test]
    async fn a_limit_that_falls_counts_before_anybody_else_has_a_slot() {
        let limit = Concurrency::fixed(3);
        let held = [limit.slot().await, limit.slot().await];
        limit.change(Some(1), 8);
        assert_eq!((limit.limit(), limit.is_fixed()), (1, true));
        let next = tokio::spawn({
            let slots = limit.slots.clone();
            async move { slots.acquire_owned().await }
        });
        // The third slot was free and is gone; one of those in use is given up.
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
        assert_eq!((limit.limit(), limit.most()), (4, MOST));
    }

    #[test]
    fn it_grows_while_answers_come_as_quickly_and_only_where_slots_are_short() {
        let found = Concurrency::found_from(8);
        assert_eq!(after(&found, 3, |_| (FAST, true)), 27);
        assert_eq!(after(&found, 30, |_| (FAST, true)), MOST);
        let idle = Concurrency::found_from(8);
        for _ in 0..1000 {
            idle.answered(FAST, true);
        }
        assert_eq!(idle.limit(), 8);
        let fixed = Concurrency::fixed(8);
        assert_eq!(after(&fixed, 30, |_| (FAST, true)), 8);
    }

    #[test]
    fn it_stays_where_more_at_once_are_only_answered_later() {
        // A provider that works at 40 at once, each for 150 ms.
        let found = Concurrency::found_from(8);
        let limit = after(&found, 50, |limit| (FAST * limit.max(40) as u32 / 40, true));
        assert!((40..=80).contains(&limit), "{limit}");
    }

    #[test]
    fn failures_take_it_back_to_where_it_began() {
        let found = Concurrency::found_from(8);
        assert_eq!(after(&found, 30, |_| (FAST, true)), MOST);
        assert_eq!(after(&found, 30, |_| (FAST, false)), 8);
    }

    #[tokio::test]
    async fn slots_in_use_are_taken_back_when_they_are_free() {
        let found = Concurrency::found_from(2);
        assert_eq!(after(&found, 3, |_| (FAST, true)), 8);
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(found.slot().await);
        }
        assert_eq!(after(&found, 5, |_| (FAST * 10, true)), 8);
        held.clear();
        assert_eq!(after(&found, 5, |_| (FAST * 10, true)), 2);
        assert_eq!(found.slots.available_permits(), 2);
    }
}
