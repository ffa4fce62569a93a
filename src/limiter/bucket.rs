//! A token bucket: governor's, queried for any time, and with a rate that may change.
//!
//! Times are nanoseconds since the buckets of the process were created. It never waits and reads no clock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{num::NonZeroU32, sync::Arc};

use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos};

use crate::campaign::Rate;

/// Token bucket; a new one is full.
pub(super) struct Bucket {
    limiter: RateLimiter<NotKeyed, Level, Moment, NoOpMiddleware<Nanos>>,
    level: Level,
    moment: Moment,
    quota: Quota,
}

/// Time for which governor is queried.
#[derive(Clone, Default)]
struct Moment(Arc<AtomicU64>);

impl Clock for Moment {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// Time at which the bucket is full again. It changes when tokens are taken, not when it is queried.
#[derive(Clone, Default)]
struct Level(Arc<(AtomicU64, AtomicBool)>);

impl StateStore for Level {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (full, is_taken) = &*self.0;
        let (answer, after) = judge(Some(full.load(Ordering::Relaxed).into()))?;
        if is_taken.load(Ordering::Relaxed) {
            full.store(after.as_u64(), Ordering::Relaxed);
        }
        Ok(answer)
    }
}

impl Bucket {
    /// Creates a full bucket with a share of a rate.
    pub(super) fn new(rate: Rate, share: f64) -> Option<Self> {
        Some(Self::at(quota(rate, share)?, Level::default()))
    }

    fn at(quota: Quota, level: Level) -> Self {
        let moment = Moment::default();
        let limiter = RateLimiter::new(quota, level.clone(), moment.clone());
        Self { limiter, level, moment, quota }
    }

    /// Returns the tokens of a full bucket.
    pub(super) fn burst(&self) -> u32 {
        self.quota.burst_size().get()
    }

    /// Changes the rate.
    ///
    /// The bucket keeps its tokens, as far as they fit the new burst, and gains none.
    pub(super) fn change(&mut self, rate: Rate, share: f64, now: u64) {
        let Some(quota) = quota(rate, share).filter(|quota| *quota != self.quota) else { return };
        let period = |quota: Quota| quota.replenish_interval().as_nanos().max(1) as f64;
        let missing = self.full().saturating_sub(now) as f64 / period(self.quota);
        let tokens = (f64::from(self.burst()) - missing).min(f64::from(quota.burst_size().get()));
        let full = now + ((f64::from(quota.burst_size().get()) - tokens) * period(quota)).ceil() as u64;
        self.level.0.0.store(full, Ordering::Relaxed);
        *self = Self::at(quota, self.level.clone());
    }

    /// Returns the earliest time from `now` on at which it has `count` tokens.
    ///
    /// A count above the burst is reduced to the burst.
    pub(super) fn due(&self, count: u32, now: u64) -> u64 {
        match self.check(count, now, false) {
            Some(Err(due)) => due,
            Some(Ok(())) | None => now,
        }
    }

    /// Takes tokens at a time at which it has them.
    pub(super) fn consume(&self, count: u32, at: u64) {
        self.check(count, at, true);
    }

    /// Whether it is full at a time, and so like a new one.
    pub(super) fn is_full(&self, now: u64) -> bool {
        self.full() <= now
    }

    fn full(&self) -> u64 {
        self.level.0.0.load(Ordering::Relaxed)
    }

    fn check(&self, count: u32, at: u64, takes: bool) -> Option<Result<(), u64>> {
        self.moment.0.store(at, Ordering::Relaxed);
        self.level.0.1.store(takes, Ordering::Relaxed);
        let count = NonZeroU32::new(count.min(self.burst()))?;
        let answer = self.limiter.check_n(count).ok()?;
        Some(answer.map_err(|not_yet| not_yet.earliest_possible().as_u64()))
    }
}

fn quota(rate: Rate, share: f64) -> Option<Quota> {
    let period = rate.period().div_f64(share);
    Some(Quota::with_period(period)?.allow_burst(rate.burst()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_query_takes_no_tokens() {
        let bucket = Bucket::new(rate("10/s"), 1.0).unwrap();
        assert_eq!([bucket.due(10, 0), bucket.due(10, 0)], [0, 0]);
        bucket.consume(10, 0);
        assert_eq!([bucket.due(1, 0), bucket.due(10, 0)], [SECOND / 10, SECOND]);
        assert!(!bucket.is_full(SECOND - 1) && bucket.is_full(SECOND));
    }

    #[test]
    fn a_change_of_rate_keeps_the_tokens_and_adds_none() {
        let mut bucket = Bucket::new(rate("80/s"), 1.0).unwrap();
        bucket.consume(60, 0);
        // Twenty are left, of which a burst of ten holds ten.
        bucket.change(rate("10/s"), 1.0, 0);
        assert_eq!([bucket.due(10, 0), bucket.burst().into()], [0, 10]);
        bucket.consume(10, 0);
        bucket.change(rate("80/s"), 1.0, 0);
        assert_eq!(bucket.due(1, 0), SECOND / 80);
        // Half the rate, and then all of it again.
        bucket.change(rate("80/s"), 0.5, SECOND / 2);
        assert_eq!(bucket.due(41, SECOND / 2), SECOND / 2 + SECOND / 40);
        for _ in 0..100 {
            bucket.change(rate("79/s,burst=80"), 1.0, SECOND / 2);
            bucket.change(rate("80/s"), 1.0, SECOND / 2);
        }
        assert!(bucket.due(41, SECOND / 2) > SECOND / 2);
    }
}
