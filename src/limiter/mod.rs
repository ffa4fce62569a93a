//! Token buckets within one process: governor's, taken from all at once for each send.
//!
//! Two things are counted apart, because providers count them apart: requests, and messages. The
//! limiter delays; it never fails a message.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use governor::clock::MonotonicClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::{Instant, sleep, sleep_until};

use crate::campaign::{BATCH_LIMIT, Rate};

type Governor = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// A bucket. Whoever asks first is served first, so that nobody starves.
struct Bucket {
    governor: Governor,
    burst: NonZeroU32,
    turn: tokio::sync::Mutex<()>,
}

impl Bucket {
    fn new(rate: Rate) -> Option<Self> {
        let quota = Quota::with_period(rate.period())?.allow_burst(rate.burst());
        let governor = RateLimiter::direct_with_clock(quota, MonotonicClock);
        Some(Self { governor, burst: rate.burst(), turn: tokio::sync::Mutex::new(()) })
    }

    /// Waits for `count` tokens. More than the burst are taken in portions, so that governor's
    /// "insufficient capacity" can't happen whoever asks.
    async fn take(&self, count: u32) {
        let _turn = self.turn.lock().await;
        let mut left = count;
        while let Some(portion) = NonZeroU32::new(left.min(self.burst.get())) {
            match self.governor.check_n(portion) {
                Ok(Ok(())) => left -= portion.get(),
                Ok(Err(not_yet)) => wait_exactly(not_yet.earliest_possible()).await,
                // Unreachable: a portion is never above the burst.
                Err(_) => return,
            }
        }
    }
}

/// Waits until a moment, to the microsecond. A timer counts whole milliseconds and comes late by up
/// to one; where a batch fills the burst that lateness is lost for good, so the last millisecond is
/// spent asking. Only the first in turn does so.
async fn wait_exactly(until: std::time::Instant) {
    sleep(until.saturating_duration_since(std::time::Instant::now()).saturating_sub(TIMER)).await;
    while std::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
}

/// The grain of the runtime's timer.
const TIMER: Duration = Duration::from_millis(1);

/// The buckets of an account.
#[derive(Default)]
pub struct AccountLimits {
    requests: Option<Bucket>,
    messages: Option<Bucket>,
    /// Nothing goes out before this moment: the provider said so.
    paused_until: Mutex<Option<Instant>>,
}

/// The bucket of a campaign.
#[derive(Default)]
pub struct CampaignLimits {
    messages: Option<Bucket>,
}

/// How many messages a batch may have, so that a full one fits each bucket's burst.
pub fn batch_size(messages: impl IntoIterator<Item = Option<Rate>>) -> usize {
    let bursts = messages.into_iter().flatten().map(|rate| rate.burst().get() as usize);
    bursts.fold(BATCH_LIMIT, usize::min)
}

impl AccountLimits {
    /// Limits of requests and messages; `None` is no limit.
    pub fn new(requests: Option<Rate>, messages: Option<Rate>) -> Self {
        Self {
            requests: requests.and_then(Bucket::new),
            messages: messages.and_then(Bucket::new),
            paused_until: Mutex::default(),
        }
    }

    /// Waits until one request with `count` messages of the campaign may go out.
    ///
    /// May be dropped at any point: at the worst some tokens are spent for nothing.
    pub async fn take(&self, campaign: &CampaignLimits, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        loop {
            while let Some(until) = self.pause() {
                sleep_until(until).await;
            }
            if let Some(bucket) = &campaign.messages {
                bucket.take(count).await;
            }
            if let Some(bucket) = &self.messages {
                bucket.take(count).await;
            }
            if let Some(bucket) = &self.requests {
                bucket.take(1).await;
            }
            // A pause that began meanwhile makes these tokens stale: kept until its end, they would
            // all go out at once beside the fresh ones.
            if self.pause().is_none() {
                return;
            }
        }
    }

    /// Lets nothing go out for a while, because the provider answered that it is too much.
    pub fn pause_for(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut paused = self.paused_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *paused = Some(paused.map_or(until, |known| known.max(until)));
    }

    /// Until when nothing goes out, where that is to come.
    fn pause(&self) -> Option<Instant> {
        let paused = *self.paused_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        paused.filter(|until| *until > Instant::now())
    }
}

impl CampaignLimits {
    /// A campaign's own limit of messages.
    pub fn new(messages: Option<Rate>) -> Self {
        Self { messages: messages.and_then(Bucket::new) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Option<Rate> {
        text.parse().ok()
    }

    #[test]
    fn a_batch_shrinks_to_the_smallest_burst() {
        assert_eq!(batch_size([None, None]), 100);
        assert_eq!(batch_size([rate("1000/s"), None]), 100);
        assert_eq!(batch_size([rate("80/s"), rate("500/s,burst=30")]), 30);
        assert_eq!(batch_size([rate("10/h")]), 1);
    }

    /// In any window: at most rate × t + burst. And the rate is used: 97 % of it at the least. The
    /// bursts are worth a fifth of a second, so that a machine that stands still for less loses nothing.
    async fn measure(
        limits: AccountLimits,
        campaign: CampaignLimits,
        count: usize,
        sends: usize,
    ) -> Vec<f64> {
        let limits = std::sync::Arc::new((limits, campaign));
        let start = std::time::Instant::now();
        let (sent, mut times) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..4 {
            let (limits, sent) = (limits.clone(), sent.clone());
            tokio::spawn(async move {
                for _ in 0..sends / 4 {
                    limits.0.take(&limits.1, count).await;
                    sent.send(start.elapsed().as_secs_f64()).unwrap();
                }
            });
        }
        drop(sent);
        let mut all = Vec::new();
        while let Some(time) = times.recv().await {
            all.push(time);
        }
        all.sort_by(f64::total_cmp);
        all
    }

    fn assert_exact(times: &[f64], weight: f64, per_second: f64, burst: f64) {
        for from in 0..times.len() {
            for to in from..times.len() {
                let sent = (to - from + 1) as f64 * weight;
                // The clock is read after the token is taken, and a busy machine may stand still in
                // between, so a window may seem shorter than it was.
                let allowed = per_second * (times[to] - times[from] + 0.1) + burst;
                assert!(sent <= allowed, "{sent} in {} s, allowed {allowed}", times[to] - times[from]);
            }
        }
        let used = (times.len() as f64 * weight - burst) / per_second / times[times.len() - 1];
        assert!(used >= 0.97, "only {used} of the rate was used");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn messages_keep_their_rate_exactly() {
        let times =
            measure(AccountLimits::new(None, rate("400/s,burst=80")), CampaignLimits::default(), 20, 60)
                .await;
        assert_exact(&times, 20.0, 400.0, 80.0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_are_another_bucket() {
        let times =
            measure(AccountLimits::new(rate("40/s,burst=8"), None), CampaignLimits::default(), 100, 100)
                .await;
        assert_exact(&times, 1.0, 40.0, 8.0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_campaign_has_a_limit_of_its_own() {
        let campaign = CampaignLimits::new(rate("300/s,burst=60"));
        let times = measure(AccountLimits::new(None, rate("10000/s")), campaign, 10, 72).await;
        assert_exact(&times, 10.0, 300.0, 60.0);
    }

    #[tokio::test]
    async fn more_than_the_burst_waits_and_does_not_fail() {
        let limits = AccountLimits::new(None, rate("1000/s,burst=10"));
        let start = Instant::now();
        limits.take(&CampaignLimits::default(), 100).await;
        assert!(start.elapsed() >= Duration::from_millis(89));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_says_wait_is_waited_for() {
        let limits = AccountLimits::default();
        limits.pause_for(Duration::from_secs(7));
        limits.pause_for(Duration::from_secs(3));
        let start = Instant::now();
        limits.take(&CampaignLimits::default(), 1).await;
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    #[tokio::test]
    async fn a_pause_does_not_save_up_what_waits_for_it() {
        let limits = std::sync::Arc::new(AccountLimits::new(rate("20/s,burst=1"), None));
        limits.take(&CampaignLimits::default(), 1).await;
        // Four wait for a token each when the pause begins.
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let limits = limits.clone();
                tokio::spawn(async move {
                    limits.take(&CampaignLimits::default(), 1).await;
                    std::time::Instant::now()
                })
            })
            .collect();
        tokio::task::yield_now().await;
        limits.pause_for(Duration::from_millis(400));
        let mut times = Vec::new();
        for waiter in waiting {
            times.push(waiter.await.unwrap());
        }
        times.sort_unstable();
        assert!(times[3] - times[0] >= Duration::from_millis(60), "{times:?}");
    }
}
