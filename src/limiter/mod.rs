//! Token buckets, taken from all at once for each send.
//!
//! Two things are counted apart, because providers count them apart: requests, and messages. The
//! limiter delays; it never fails a message. In one process the buckets are governor's; for a fleet
//! they are in Redis, where one script takes from all of them by reservation (`shared.rs`).
//!
//! Whoever sends asks in two lines: first among the senders of its campaign, then, one of each
//! campaign, among those of its account. So a small campaign never waits behind a big one, and a
//! campaign that waits for its own limit holds nobody up.

mod concurrency;
mod process;
mod shared;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, watch};
use tokio::time::sleep;

use crate::campaign::{BATCH_LIMIT, CampaignId, Phone, Rate};
use crate::redis_client::{RedisClient, RedisClientError};
pub use concurrency::Concurrency;
use process::{Bucket, Buckets};
use shared::{Asker, Gathered};

/// A wait that is longer is told instead of waited for: the batch must not be held so long.
pub const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// An account is never slowed to less of its rate.
const LEAST_SHARE: f64 = 0.1;
/// Over how long a throttled flow's messages are counted.
const HOUR: Duration = Duration::from_hours(1);
/// What `WhatsApp` lets a throttled flow send in an hour (document 004).
const THROTTLED: u32 = 10;
/// How often that may double: after that it is more than a sender number's own limit.
const DOUBLINGS: u32 = 15;
/// For so long a throttled flow that is not sent is remembered.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);
/// A slowed account gets a tenth of its rate back after each of these.
const STEP: Duration = Duration::from_secs(10);

/// What an account is allowed; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Requests of the account.
    pub requests: Option<Rate>,
    /// Messages of each sender number.
    pub messages: Option<Rate>,
    /// Unique recipients of the account in a moving span of time.
    pub recipients: Option<Rate>,
}

/// The buckets of an account, and the places for its requests under way.
pub struct AccountLimits {
    name: String,
    rates: watch::Sender<Rates>,
    /// How many requests may be under way at once.
    pub concurrency: Concurrency,
    turn: Mutex<()>,
    /// Whether the shared buckets had room for all that this worker has under way when it last asked: then
    /// nobody waits for anybody, and they are asked without standing in line.
    has_room: AtomicBool,
    buckets: Backend,
}

/// Where buckets are.
enum Backend {
    Process(Box<Buckets>),
    Shared(RedisClient),
}

/// The bucket of a campaign.
pub struct CampaignLimits {
    id: CampaignId,
    /// The flow that its messages open, which may be throttled.
    flow: Option<String>,
    rate: Option<Rate>,
    turn: Mutex<()>,
    bucket: Option<Bucket>,
    /// The keys of its buckets where they are shared, once they are known; and who asks for them together.
    keys: OnceLock<[String; 6]>,
    gathered: Gathered,
}

/// What a sender is told.
#[derive(Debug)]
pub enum Admission {
    /// It may send now, and holds a place for its request until this is dropped.
    Granted(OwnedSemaphorePermit),
    /// It is not its turn for so long.
    Deferred(Duration),
    /// The flow is throttled: only a single message can be asked for.
    OneByOne,
}

/// How many messages a batch may have, so that a full one fits each bucket's burst.
pub fn batch_size(campaign: Option<Rate>, account: Rates) -> usize {
    let bursts = [campaign, account.messages].into_iter().flatten().map(|rate| rate.burst().get() as usize);
    let recipients = account.recipients.map(|rate| rate.count() as usize);
    bursts.chain(recipients).fold(BATCH_LIMIT, usize::min).max(1)
}

impl AccountLimits {
    /// The limits of an account that sends from this process alone.
    pub fn new(rates: Rates, concurrency: Concurrency) -> Self {
        Self::with(String::new(), rates, concurrency, Backend::Process(Box::default()))
    }

    /// The limits of an account that many workers share.
    pub fn shared(name: &str, rates: Rates, concurrency: Concurrency, server: RedisClient) -> Self {
        Self::with(name.into(), rates, concurrency, Backend::Shared(server))
    }

    fn with(name: String, rates: Rates, concurrency: Concurrency, buckets: Backend) -> Self {
        Self {
            name,
            rates: watch::Sender::new(rates),
            turn: Mutex::default(),
            has_room: AtomicBool::new(false),
            concurrency,
            buckets,
        }
    }

    /// What the account is allowed now.
    pub fn rates(&self) -> Rates {
        *self.rates.borrow()
    }

    /// A flow is throttled: messages that open it go out at 10 an hour, for every worker and campaign of the account.
    /// When an hour's worth has gone out in an hour or more and nothing has said so again, they may be twice as
    /// many: `WhatsApp` says when a flow is throttled, and never when it no longer is. Returns whether that is news.
    ///
    /// # Errors
    ///
    /// When Redis refuses.
    pub async fn throttle(&self, flow: &str) -> Result<bool, RedisClientError> {
        match &self.buckets {
            Backend::Process(buckets) => Ok(buckets.throttle(flow)),
            Backend::Shared(server) => shared::throttle(server, &self.name, flow).await,
        }
    }

    /// Changes what the account is allowed; also who waits by now keeps to it.
    pub fn set_rates(&self, rates: Rates) {
        self.rates.send_replace(rates);
    }

    /// Takes over whom the account wrote to before this process began, and how long ago. Buckets that
    /// are shared know it themselves.
    pub fn remember(&self, recipients: Vec<(Phone, Duration)>) {
        if let Backend::Process(buckets) = &self.buckets {
            buckets.remember(recipients);
        }
    }

    /// Waits until one request with messages of the campaign to these recipients may go out.
    ///
    /// May be dropped at any point: at the worst some tokens are spent for nothing.
    ///
    /// # Errors
    ///
    /// When Redis refuses. As long as it is away, this waits.
    pub async fn take(
        &self,
        campaign: &CampaignLimits,
        from: Phone,
        recipients: &[Phone],
    ) -> Result<Admission, RedisClientError> {
        let has_room = || self.has_room.load(Ordering::Relaxed);
        let _campaign = if has_room() { None } else { Some(campaign.turn.lock().await) };
        if let Backend::Process(buckets) = &self.buckets {
            if let Some(flow) = &campaign.flow
                && let Some(bucket) = buckets.flow(flow)
            {
                if recipients.len() > 1 {
                    return Ok(Admission::OneByOne);
                }
                bucket.take(1).await;
                buckets.sent_of(flow);
            }
            if let Some(bucket) = &campaign.bucket {
                bucket.take(u32::try_from(recipients.len()).unwrap_or(u32::MAX)).await;
            }
        }
        loop {
            // Never closed, so there is always a place some time.
            let Some(place) = self.concurrency.slot().await else {
                return Ok(Admission::Deferred(STEP));
            };
            let turn = if has_room() { None } else { Some(self.turn.lock().await) };
            let wait = match &self.buckets {
                Backend::Process(buckets) => {
                    let mut news = self.rates.subscribe();
                    tokio::select! {
                        biased;
                        taken = buckets.take(self.rates(), from, recipients) => match taken {
                            Ok(()) => return Ok(Admission::Granted(place)),
                            Err(wait) => return Ok(Admission::Deferred(wait)),
                        },
                        _ = news.changed() => continue,
                    }
                }
                Backend::Shared(server) => {
                    let asker = Asker {
                        server,
                        account: &self.name,
                        rates: self.rates(),
                        campaign,
                        from,
                        concurrency: self.concurrency.limit(),
                    };
                    let reserved = match turn {
                        Some(_) => asker.reserve(recipients).await?,
                        None => asker.reserve_together(recipients).await?,
                    };
                    let has_room = matches!(reserved, shared::Reserved::At(_, true));
                    self.has_room.store(has_room, Ordering::Relaxed);
                    match reserved {
                        shared::Reserved::At(due, _) => {
                            wait_exactly(due).await;
                            return Ok(Admission::Granted(place));
                        }
                        shared::Reserved::Later(wait) => wait,
                        shared::Reserved::OneByOne => return Ok(Admission::OneByOne),
                    }
                }
            };
            // The campaign's own limit is what it waits for: the account's turn goes to others.
            drop((turn, place));
            if wait > LONGEST_WAIT {
                return Ok(Admission::Deferred(wait));
            }
            sleep(wait.saturating_sub(shared::EARLIER)).await;
        }
    }

    /// The provider answered that it is too much: nothing goes out for a while, for any worker, and
    /// then at half the rate, which recovers step by step.
    ///
    /// # Errors
    ///
    /// When Redis refuses.
    pub async fn slow_down(&self, wait: Duration) -> Result<(), RedisClientError> {
        match &self.buckets {
            Backend::Process(buckets) => buckets.slow_down(wait),
            Backend::Shared(server) => shared::slow_down(server, &self.name, wait).await?,
        }
        Ok(())
    }
}

impl CampaignLimits {
    /// A campaign's own limit of messages, and the flow that it shares a limit with.
    pub fn new(id: CampaignId, flow: Option<String>, messages: Option<Rate>) -> Self {
        let bucket = messages.and_then(Bucket::new);
        Self {
            id,
            flow,
            rate: messages,
            turn: Mutex::default(),
            bucket,
            keys: OnceLock::new(),
            gathered: Gathered::default(),
        }
    }
}

/// How many messages of a throttled flow may go out in an hour after so many doublings; `None` once that is no
/// limit to speak of.
fn throttled(doublings: u32) -> Option<u32> {
    (doublings < DOUBLINGS).then(|| THROTTLED << doublings)
}

/// The share of its rate that an account has so long after it was slowed to `share`.
fn slowed(share: f64, since: Duration) -> f64 {
    let steps = (since.as_secs() / STEP.as_secs()) as f64;
    (share + steps * 0.1).min(1.0)
}

/// Waits until a moment, to the microsecond. A timer counts whole milliseconds and comes late by up
/// to one; where a batch fills the burst that lateness is lost for good, so the last millisecond is
/// spent asking. Only the first in turn does so.
async fn wait_exactly(until: std::time::Instant) {
    #[cfg(test)]
    if crate::runtime::simulated::is_on() {
        // Nobody could spend time there by asking.
        return tokio::time::sleep_until(until.into()).await;
    }
    sleep(until.saturating_duration_since(std::time::Instant::now()).saturating_sub(TIMER)).await;
    while std::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
}

/// The grain of the runtime's timer.
const TIMER: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tokio::time::Instant;

    fn phones(count: usize) -> Vec<Phone> {
        (0..count as u64).filter_map(|nth| Phone::from_digits(919_800_000_000 + nth)).collect()
    }

    fn account(requests: Option<Rate>, messages: Option<Rate>) -> AccountLimits {
        AccountLimits::new(Rates { requests, messages, recipients: None }, Concurrency::fixed(100))
    }

    fn campaign(messages: Option<Rate>) -> CampaignLimits {
        CampaignLimits::new("c1".parse().unwrap(), None, messages)
    }

    async fn take(limits: &AccountLimits, campaign: &CampaignLimits, count: usize) {
        let turn = limits.take(campaign, phones(1)[0], &phones(count)).await.unwrap();
        assert!(matches!(turn, Admission::Granted(_)));
    }

    fn rate(text: &str) -> Option<Rate> {
        text.parse().ok()
    }

    #[test]
    fn a_batch_shrinks_to_the_smallest_burst() {
        let messages = |text: &str| Rates { messages: rate(text), ..Rates::default() };
        assert_eq!(batch_size(None, Rates::default()), 100);
        assert_eq!(batch_size(rate("1000/s"), Rates::default()), 100);
        assert_eq!(batch_size(rate("80/s"), messages("500/s,burst=30")), 30);
        assert_eq!(batch_size(rate("10/h"), Rates::default()), 1);
        assert_eq!(batch_size(None, Rates { recipients: rate("40/d"), ..Rates::default() }), 40);
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
                    take(&limits.0, &limits.1, count).await;
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
        let times = measure(account(None, rate("400/s,burst=80")), campaign(None), 20, 60).await;
        assert_exact(&times, 20.0, 400.0, 80.0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_are_another_bucket() {
        let times = measure(account(rate("40/s,burst=8"), None), campaign(None), 100, 100).await;
        assert_exact(&times, 1.0, 40.0, 8.0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_campaign_has_a_limit_of_its_own() {
        let campaign = campaign(rate("300/s,burst=60"));
        let times = measure(account(None, rate("10000/s")), campaign, 10, 72).await;
        assert_exact(&times, 10.0, 300.0, 60.0);
    }

    #[tokio::test]
    async fn more_than_the_burst_waits_and_does_not_fail() {
        let limits = account(None, rate("1000/s,burst=10"));
        let start = Instant::now();
        take(&limits, &campaign(None), 100).await;
        assert!(start.elapsed() >= Duration::from_millis(89));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_says_wait_is_waited_for() {
        let limits = account(None, None);
        limits.slow_down(Duration::from_secs(7)).await.unwrap();
        limits.slow_down(Duration::from_secs(3)).await.unwrap();
        let start = Instant::now();
        take(&limits, &campaign(None), 1).await;
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    #[test]
    fn a_slowed_account_recovers_step_by_step() {
        let share = |seconds| slowed(0.5, Duration::from_secs(seconds));
        for (seconds, expected) in [(0, 0.5), (9, 0.5), (10, 0.6), (25, 0.7), (50, 1.0), (500, 1.0)] {
            assert!((share(seconds) - expected).abs() < 1e-9, "{seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_flow_doubles_after_an_hours_worth_without_a_word_and_begins_anew_with_one() {
        let buckets = Buckets::default();
        let hourly = || buckets.flow("f1").map(|bucket| bucket.rate().count());
        let send = |count| (0..count).for_each(|_| buckets.sent_of("f1"));
        assert_eq!(hourly(), None);
        assert!(buckets.throttle("f1"));
        // Idle hours say nothing, and neither does an hour's worth before the hour is over.
        tokio::time::advance(HOUR * 10).await;
        assert_eq!(hourly(), Some(10));
        send(10);
        assert_eq!(hourly(), Some(20));
        send(20);
        assert_eq!(hourly(), Some(20));
        tokio::time::advance(HOUR).await;
        assert_eq!(hourly(), Some(40));
        assert!(!buckets.throttle("f1"), "it was throttled before");
        assert_eq!(hourly(), Some(10));
        for doublings in 1..DOUBLINGS {
            send(10 << (doublings - 1));
            tokio::time::advance(HOUR).await;
            assert_eq!(hourly(), Some(10 << doublings));
        }
        send(10 << DOUBLINGS);
        tokio::time::advance(HOUR).await;
        assert_eq!(hourly(), None);
    }

    #[tokio::test]
    async fn a_throttled_flow_slows_its_campaigns_alone_and_one_message_at_a_time() {
        let limits = account(None, None);
        let flow = |id: &str, flow: &str| CampaignLimits::new(id.parse().unwrap(), Some(flow.into()), None);
        let (first, second, other) = (flow("c1", "f1"), flow("c2", "f1"), flow("c3", "f2"));
        assert!(limits.throttle("f1").await.unwrap());
        assert!(!limits.throttle("f1").await.unwrap());
        let all = phones(2);
        assert!(matches!(limits.take(&first, all[0], &all).await.unwrap(), Admission::OneByOne));
        take(&limits, &first, 1).await;
        // The next comes in six minutes, for whichever campaign.
        for waits in [&first, &second] {
            let soon = Duration::from_millis(50);
            assert!(tokio::time::timeout(soon, limits.take(waits, all[0], &all[..1])).await.is_err());
        }
        take(&limits, &other, 100).await;
        take(&limits, &campaign(None), 100).await;
    }

    #[tokio::test]
    async fn a_pause_does_not_save_up_what_waits_for_it() {
        let limits = Arc::new(account(rate("20/s,burst=1"), None));
        take(&limits, &campaign(None), 1).await;
        // Four wait for a token each when the pause begins.
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let limits = limits.clone();
                tokio::spawn(async move {
                    take(&limits, &campaign(None), 1).await;
                    std::time::Instant::now()
                })
            })
            .collect();
        tokio::task::yield_now().await;
        limits.slow_down(Duration::from_millis(400)).await.unwrap();
        let mut times = Vec::new();
        for waiter in waiting {
            times.push(waiter.await.unwrap());
        }
        times.sort_unstable();
        assert!(times[3] - times[0] >= Duration::from_millis(60), "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn unique_recipients_are_counted_in_a_moving_day() {
        let limits =
            AccountLimits::new(Rates { recipients: rate("10/d"), ..Rates::default() }, Concurrency::fixed(1));
        let (campaign, all) = (campaign(None), phones(20));
        let ask = async |who: &[Phone]| match limits.take(&campaign, all[0], who).await.unwrap() {
            Admission::Granted(_) => 0,
            Admission::Deferred(wait) => wait.as_secs(),
            Admission::OneByOne => panic!(),
        };
        assert_eq!(ask(&all[..6]).await, 0);
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert_eq!(ask(&all[6..10]).await, 0);
        // Those who were written to today count once.
        assert_eq!(ask(&all[..10]).await, 0);
        assert_eq!(ask(&all[9..11]).await, 86_400);
        tokio::time::advance(Duration::from_hours(24)).await;
        assert_eq!(ask(&all[10..20]).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_campaign_that_waits_for_its_own_limit_holds_nobody_up() {
        let limits = Arc::new(account(rate("1000/s"), None));
        let slow = campaign(rate("1/min"));
        take(&limits, &slow, 1).await;
        let waiting = {
            let limits = limits.clone();
            tokio::spawn(async move { take(&limits, &slow, 1).await })
        };
        tokio::task::yield_now().await;
        let start = Instant::now();
        take(&limits, &campaign(None), 1).await;
        assert!(start.elapsed() < Duration::from_secs(1));
        waiting.abort();
    }

    #[tokio::test]
    async fn limits_change_while_they_are_waited_for() {
        let limits = Arc::new(account(rate("1/h"), None));
        take(&limits, &campaign(None), 1).await;
        let waiting = {
            let limits = limits.clone();
            tokio::spawn(async move { take(&limits, &campaign(None), 1).await })
        };
        tokio::task::yield_now().await;
        limits.set_rates(Rates { requests: rate("1000/s"), ..Rates::default() });
        waiting.await.unwrap();
    }
}
