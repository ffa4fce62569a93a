//! The buckets of one process: governor's, and the recipients of a moving day.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::{Instant, sleep_until};

use super::{HOUR, Rates, slowed, throttled, wait_exactly};
use crate::campaign::{Phone, Rate};

type Governor = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<std::time::Instant>>;

/// The clock by which everything here sleeps, too.
#[derive(Clone)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        Instant::now().into_std()
    }
}

/// A bucket. Its callers ask in turn, so that nobody starves.
pub(super) struct Bucket {
    governor: Governor,
    rate: Rate,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Option<Self> {
        let quota = Quota::with_period(rate.period())?.allow_burst(rate.burst());
        Some(Self { governor: RateLimiter::direct_with_clock(quota, TokioClock), rate })
    }

    /// What it allows.
    #[cfg(test)]
    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Waits for `count` tokens. More than the burst are taken in portions, so that governor's
    /// "insufficient capacity" can't happen whoever asks.
    pub(super) async fn take(&self, count: u32) {
        let mut left = count;
        while let Some(portion) = NonZeroU32::new(left.min(self.rate.burst().get())) {
            match self.governor.check_n(portion) {
                Ok(Ok(())) => left -= portion.get(),
                Ok(Err(not_yet)) => wait_exactly(not_yet.earliest_possible()).await,
                // Unreachable: a portion is never above the burst.
                Err(_) => return,
            }
        }
    }
}

/// The buckets of an account.
#[derive(Default)]
pub(super) struct Buckets {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    requests: Option<Arc<Bucket>>,
    /// One for each sender number.
    messages: HashMap<Phone, Arc<Bucket>>,
    /// Flows that are throttled.
    flows: HashMap<String, Throttled>,
    recipients: Recipients,
    /// Nothing goes out before this moment: the provider said so.
    paused_until: Option<Instant>,
    /// Since when, and to which share of its rate, the account was slowed.
    slowed: Option<(Instant, f64)>,
}

/// A flow that is throttled.
struct Throttled {
    /// How often its rate has doubled, and since when it has this one.
    doublings: u32,
    since: Instant,
    /// How many messages went out since then.
    count: u32,
    bucket: Arc<Bucket>,
}

impl Throttled {
    fn new(doublings: u32) -> Option<Self> {
        let rate: Rate = format!("{}/h,burst=1", throttled(doublings)?).parse().ok()?;
        Some(Self { doublings, since: Instant::now(), count: 0, bucket: Arc::new(Bucket::new(rate)?) })
    }
}

impl Buckets {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all of an account's buckets; `Err` says for how long none of it can go out.
    pub(super) async fn take(&self, rates: Rates, from: Phone, recipients: &[Phone]) -> Result<(), Duration> {
        loop {
            while let Some(until) = self.pause() {
                sleep_until(until).await;
            }
            if let Some(rate) = rates.recipients {
                self.inner().recipients.take(rate, recipients)?;
            }
            let (messages, requests, share) = {
                let mut inner = self.inner();
                let messages = rates.messages.and_then(|rate| {
                    let known = inner.messages.get(&from).filter(|bucket| bucket.rate == rate).cloned();
                    known.or_else(|| {
                        let bucket = Arc::new(Bucket::new(rate)?);
                        inner.messages.insert(from, bucket.clone());
                        Some(bucket)
                    })
                });
                let requests = rates.requests.and_then(|rate| {
                    let known = inner.requests.clone().filter(|bucket| bucket.rate == rate);
                    known.or_else(|| {
                        inner.requests = Some(Arc::new(Bucket::new(rate)?));
                        inner.requests.clone()
                    })
                });
                let share = inner.slowed.map_or(1.0, |(since, share)| slowed(share, since.elapsed()));
                (messages, requests, share)
            };
            // A slowed account's tokens cost more: governor's own rate can't be changed.
            let cost = |count: usize| (count as f64 / share).ceil() as u32;
            if let Some(bucket) = messages {
                bucket.take(cost(recipients.len())).await;
            }
            if let Some(bucket) = requests {
                bucket.take(cost(1)).await;
            }
            // A pause that began meanwhile makes these tokens stale: kept until its end, they would
            // all go out at once beside the fresh ones.
            if self.pause().is_none() {
                return Ok(());
            }
        }
    }

    /// A flow is throttled, from now on. Returns whether it was not before.
    pub(super) fn throttle(&self, flow: &str) -> bool {
        let mut inner = self.inner();
        match inner.flows.get_mut(flow) {
            // The bucket stays: said again, it allows no message more.
            Some(known) if known.doublings == 0 => {
                (known.since, known.count) = (Instant::now(), 0);
                false
            }
            _ => Throttled::new(0).is_some_and(|new| inner.flows.insert(flow.into(), new).is_none()),
        }
    }

    /// The bucket of a flow, if it is throttled. Whoever takes it sends a message.
    pub(super) fn flow(&self, flow: &str) -> Option<Arc<Bucket>> {
        let mut inner = self.inner();
        let known = inner.flows.get_mut(flow)?;
        if known.since.elapsed() >= HOUR && Some(known.count) >= throttled(known.doublings) {
            let Some(more) = Throttled::new(known.doublings + 1) else {
                inner.flows.remove(flow);
                return None;
            };
            *known = more;
        }
        Some(known.bucket.clone())
    }

    /// A message of a throttled flow goes out.
    pub(super) fn sent_of(&self, flow: &str) {
        if let Some(known) = self.inner().flows.get_mut(flow) {
            known.count = known.count.saturating_add(1);
        }
    }

    /// Takes over whom the account wrote to, and how long ago.
    pub(super) fn remember(&self, mut recipients: Vec<(Phone, Duration)>) {
        recipients.sort_unstable_by_key(|(_, ago)| std::cmp::Reverse(*ago));
        let (mut inner, now) = (self.inner(), Instant::now());
        for (phone, ago) in recipients {
            // A machine that started later than that has no such moment; then it counts from its start.
            let at = now.checked_sub(ago).unwrap_or(now);
            inner.recipients.last.insert(phone, at);
            inner.recipients.order.push_back((at, phone));
        }
    }

    /// Lets nothing go out for a while, and then less for a while.
    pub(super) fn slow_down(&self, wait: Duration) {
        let mut inner = self.inner();
        let now = Instant::now();
        let paused = inner.paused_until.is_some_and(|until| until > now);
        let until = now + wait;
        inner.paused_until = Some(inner.paused_until.map_or(until, |known| known.max(until)));
        // A storm of answers slows once.
        if !paused {
            let share = inner.slowed.map_or(1.0, |(since, share)| slowed(share, since.elapsed()));
            inner.slowed = Some((until, (share / 2.0).max(super::LEAST_SHARE)));
        }
    }

    /// Until when nothing goes out, where that is to come.
    fn pause(&self) -> Option<Instant> {
        self.inner().paused_until.filter(|until| *until > Instant::now())
    }
}

/// Whom an account wrote to of late. It grows to the limit of recipients and no further.
#[derive(Default)]
struct Recipients {
    last: HashMap<Phone, Instant>,
    /// In the order of time; entries that were renewed since are stale.
    order: VecDeque<(Instant, Phone)>,
}

impl Recipients {
    fn take(&mut self, rate: Rate, recipients: &[Phone]) -> Result<(), Duration> {
        let (now, span) = (Instant::now(), rate.per());
        while let Some((at, phone)) = self.order.front().copied() {
            if self.last.get(&phone) == Some(&at) {
                if now.duration_since(at) < span {
                    break;
                }
                self.last.remove(&phone);
            }
            self.order.pop_front();
        }
        let new = recipients.iter().filter(|phone| !self.last.contains_key(phone)).count();
        let over = (self.last.len() + new).saturating_sub(rate.count() as usize);
        if let Some(nth) = over.checked_sub(1) {
            let fresh = |(at, phone): &&(Instant, Phone)| self.last.get(phone) == Some(at);
            let at = self.order.iter().filter(fresh).nth(nth).map_or(now, |(at, _)| *at);
            return Err((at + span).duration_since(now).max(Duration::from_secs(1)));
        }
        for phone in recipients {
            self.last.insert(*phone, now);
            self.order.push_back((now, *phone));
        }
        Ok(())
    }
}
