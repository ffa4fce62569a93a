//! The buckets of a single process, and the recipients of a rolling period.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{EARLIER, HOUR, Line, Rates, Reservation, SENDERS, Wanted, bucket::Bucket, slowed, throttled};
use crate::campaign::{CampaignId, Phone, Rate};

/// Number of campaigns from which full buckets are removed.
const CAMPAIGNS: usize = 1_000;

/// The buckets of an account.
pub(super) struct Buckets {
    inner: Mutex<Inner>,
    /// Time of creation.
    begun: Instant,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { inner: Mutex::default(), begun: Instant::now() }
    }
}

#[derive(Default)]
struct Inner {
    requests: Option<Bucket>,
    /// Bucket of each sender number.
    messages: HashMap<Phone, Bucket>,
    campaigns: HashMap<CampaignId, Bucket>,
    /// Throttled flows.
    flows: HashMap<String, Throttled>,
    recipients: Recipients,
    /// Time before which nothing goes out, as the provider demanded.
    paused_until: Option<Instant>,
    /// Time at which the account was slowed, and the share of its rate that was left.
    slowed: Option<(Instant, f64)>,
}

/// Throttled flow.
struct Throttled {
    /// Doublings of its rate, and the time of the last one.
    doublings: u32,
    since: Instant,
    /// Messages sent since then.
    count: u32,
    bucket: Bucket,
}

impl Throttled {
    fn new(doublings: u32) -> Option<Self> {
        let rate: Rate = format!("{}/h,burst=1", throttled(doublings)?).parse().ok()?;
        Some(Self { doublings, since: Instant::now(), count: 0, bucket: Bucket::new(rate, 1.0)? })
    }
}

/// Returns a bucket with the current rate; creates it if necessary.
fn kept(bucket: &mut Option<Bucket>, rate: Rate, share: f64, now: u64) -> Option<&Bucket> {
    if let Some(known) = bucket {
        known.change(rate, share, now);
    } else {
        *bucket = Bucket::new(rate, share);
    }
    bucket.as_ref()
}

/// Gives the bucket of a key the current rate; creates it if necessary.
fn kept_of<K: std::hash::Hash + Eq + Clone>(
    buckets: &mut HashMap<K, Bucket>,
    key: &K,
    rate: Rate,
    share: f64,
    now: u64,
) {
    if let Some(known) = buckets.get_mut(key) {
        known.change(rate, share, now);
    } else if let Some(new) = Bucket::new(rate, share) {
        buckets.insert(key.clone(), new);
    }
}

impl Buckets {
    fn since_begun(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes the tokens of a request from all of its buckets, or from none.
    ///
    /// They are taken for the time at which all buckets have them.
    pub(super) fn ask(&self, wanted: &Wanted<'_>) -> Reservation {
        let Wanted { rates, campaign, from, recipients } = *wanted;
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let (instant, now) = (Instant::now(), self.since_begun(Instant::now()));
        let count = u32::try_from(recipients.len()).unwrap_or(u32::MAX);

        let share = inner.slowed.map_or(1.0, |(since, share)| slowed(share, since.elapsed()));
        let requests = rates.requests.and_then(|rate| kept(&mut inner.requests, rate, share, now));
        if let Some(rate) = rates.messages {
            if inner.messages.len() >= SENDERS {
                inner.messages.retain(|_, bucket| !bucket.is_full(now));
            }
            kept_of(&mut inner.messages, &from, rate, share, now);
        }
        if let Some(rate) = campaign.rate {
            if inner.campaigns.len() >= CAMPAIGNS {
                inner.campaigns.retain(|_, bucket| !bucket.is_full(now));
            }
            kept_of(&mut inner.campaigns, &campaign.id, rate, 1.0, now);
        }
        let messages = inner.messages.get(&from).filter(|_| rates.messages.is_some());
        let own = inner.campaigns.get(&campaign.id).filter(|_| campaign.rate.is_some());
        let flow = campaign.flow.as_deref().and_then(|flow| of_flow(&mut inner.flows, flow));
        if flow.is_some() && count > 1 {
            return Reservation::OneByOne;
        }
        let bursts = [messages, own].into_iter().flatten().map(Bucket::burst);
        if let Some(burst) = bursts.min().filter(|burst| *burst < count) {
            return Reservation::Only((0..burst as usize).collect());
        }

        let paused = inner.paused_until.map_or(now, |until| self.since_begun(until).max(now));
        let of_account = requests.map_or(now, |bucket| bucket.due(1, now)).max(paused);
        let of_sender = messages.map_or(now, |bucket| bucket.due(count, now));
        let of_flow = flow.as_ref().map_or(now, |flow| flow.bucket.due(1, now));
        let of_campaign = own.map_or(now, |bucket| bucket.due(count, now)).max(of_flow);
        let due = of_account.max(of_sender).max(of_campaign);
        let wait = Duration::from_nanos(due - now);
        if wait > EARLIER {
            let line = match () {
                () if of_account == due => Line::Account,
                () if of_sender == due => Line::Sender,
                () => Line::Campaign,
            };
            return Reservation::Later(wait, line);
        }
        if let Some(rate) = rates.recipients
            && let Some(cut) = inner.recipients.reserve(rate, recipients, instant + wait)
        {
            return cut;
        }
        for (bucket, count) in [(requests, 1), (messages, count), (own, count)] {
            if let Some(bucket) = bucket {
                bucket.consume(count, due);
            }
        }
        if let Some(flow) = flow {
            flow.bucket.consume(1, due);
            flow.count = flow.count.saturating_add(1);
        }
        Reservation::At(instant + wait, false)
    }

    /// Changes the rates of the existing buckets.
    pub(super) fn change(&self, rates: Rates) {
        let mut inner = self.inner.lock();
        let now = self.since_begun(Instant::now());
        let share = inner.slowed.map_or(1.0, |(since, share)| slowed(share, since.elapsed()));
        if let (Some(bucket), Some(rate)) = (&mut inner.requests, rates.requests) {
            bucket.change(rate, share, now);
        }
        for bucket in inner.messages.values_mut() {
            if let Some(rate) = rates.messages {
                bucket.change(rate, share, now);
            }
        }
    }

    /// Throttles a flow; returns whether it was not throttled before.
    pub(super) fn throttle(&self, flow: &str) -> bool {
        let mut inner = self.inner.lock();
        match inner.flows.get_mut(flow) {
            // The bucket stays: a repeated report allows no extra message.
            Some(known) if known.doublings == 0 => {
                (known.since, known.count) = (Instant::now(), 0);
                false
            }
            _ => Throttled::new(0).is_some_and(|new| inner.flows.insert(flow.into(), new).is_none()),
        }
    }

    /// Returns the messages an hour of a flow, if it is throttled.
    #[cfg(test)]
    pub(super) fn hourly(&self, flow: &str) -> Option<u32> {
        of_flow(&mut self.inner.lock().flows, flow).and_then(|known| throttled(known.doublings))
    }

    /// Counts messages of a throttled flow.
    #[cfg(test)]
    pub(super) fn sent_of(&self, flow: &str, count: u32) {
        if let Some(known) = self.inner.lock().flows.get_mut(flow) {
            known.count += count;
        }
    }

    /// Restores recipients, and how long ago each was messaged.
    pub(super) fn cache(&self, recipients: Vec<(Phone, Duration)>) {
        let (mut inner, now) = (self.inner.lock(), Instant::now());
        let known = &mut inner.recipients;
        for (phone, ago) in recipients {
            // A time before the machine started cannot be expressed; it becomes the present.
            let at = now.checked_sub(ago).unwrap_or(now);
            let last = known.last.entry(phone).or_insert(at);
            *last = at.max(*last);
        }
        let mut order: Vec<_> = known.last.iter().map(|(phone, at)| (*at, *phone)).collect();
        order.sort_unstable_by_key(|(at, _)| *at);
        known.order = order.into();
    }

    /// Pauses all sends, then reduces the rate.
    pub(super) fn slow_down(&self, wait: Duration) {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let paused = inner.paused_until.is_some_and(|until| until > now);
        let until = now + wait;
        inner.paused_until = Some(inner.paused_until.map_or(until, |known| known.max(until)));
        // Many 429 answers at a time halve the rate once.
        if !paused {
            let share = inner.slowed.map_or(1.0, |(since, share)| slowed(share, since.elapsed()));
            inner.slowed = Some((until, (share / 2.0).max(super::LEAST_SHARE)));
        }
    }
}

/// Returns a flow, if it is throttled; doubles its rate when that is due.
fn of_flow<'f>(flows: &'f mut HashMap<String, Throttled>, flow: &str) -> Option<&'f mut Throttled> {
    let known = flows.get_mut(flow)?;
    if known.since.elapsed() >= HOUR && Some(known.count) >= throttled(known.doublings) {
        let Some(more) = Throttled::new(known.doublings + 1) else {
            flows.remove(flow);
            return None;
        };
        *known = more;
    }
    flows.get_mut(flow)
}

/// Recipients of an account in the rolling period; at most as many as its limit.
#[derive(Default)]
struct Recipients {
    last: HashMap<Phone, Instant>,
    /// By time, the oldest first; an entry is stale if its recipient has a later one.
    order: VecDeque<(Instant, Phone)>,
}

impl Recipients {
    /// Records that all recipients are messaged at a time.
    ///
    /// If the limit does not allow all of them, records none and returns which fit.
    fn reserve(&mut self, rate: Rate, recipients: &[Phone], at: Instant) -> Option<Reservation> {
        let span = rate.per();
        while let Some((then, phone)) = self.order.front().copied() {
            if self.last.get(&phone) == Some(&then) {
                if at.saturating_duration_since(then) < span {
                    break;
                }
                self.last.remove(&phone);
            }
            self.order.pop_front();
        }
        let (limit, known) = (rate.count() as usize, self.last.len());
        let mut left = limit.saturating_sub(known);
        let mut fits = Vec::with_capacity(recipients.len());
        for (place, phone) in recipients.iter().enumerate() {
            if self.last.contains_key(phone) {
                fits.push(place);
            } else if left > 0 {
                left -= 1;
                fits.push(place);
            }
        }
        if fits.is_empty() {
            // Until there is room for one recipient; after a limit was lowered, several have to expire first.
            let fresh = |(then, phone): &&(Instant, Phone)| self.last.get(phone) == Some(then);
            let leaves = self.order.iter().filter(fresh).nth(known.saturating_sub(limit));
            let room_at = leaves.map_or(at, |(then, _)| *then) + span;
            let wait = room_at.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
            return Some(Reservation::Full(wait));
        }
        if fits.len() < recipients.len() {
            return Some(Reservation::Only(fits));
        }
        for phone in recipients {
            self.last.insert(*phone, at);
            self.order.push_back((at, *phone));
        }
        None
    }
}
