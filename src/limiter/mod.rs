//! Token buckets, taken from all at once for each send.
//!
//! Two things are counted apart, because providers count them apart: requests, and messages. The
//! limiter delays; it never fails a message. In one process the buckets are governor's; for a fleet
//! they are in Redis, where one script takes from all of them (`shared.rs`).
//!
//! Tokens are taken for a moment at most 20 ms ahead. A send that has to wait longer takes none and asks again, so that
//! a limit that changes, a pause and the wait for another bucket never leave tokens behind that are worth nothing.
//!
//! A sender asks in lines: among the senders of its campaign, then, one of each campaign, among those of its sender
//! number, then among those of its account. It leaves the lines behind the one whose bucket it waits for: a campaign that
//! waits for its own limit, or a number that waits for its own, holds nobody else up.

mod bucket;
mod concurrency;
mod process;
mod shared;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::campaign::{BATCH_LIMIT, CampaignId, Phone, Rate};
use crate::redis_client::{RedisClient, RedisClientError};
use crate::runtime::chance;
pub use concurrency::Concurrency;
use process::Buckets;
use shared::{Asker, Gathered};

/// A wait that is longer is told instead of waited for: the batch must not be held so long.
pub const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Of this many sender numbers and more, those that nobody uses now are forgotten.
const SENDERS: usize = 1_000;
/// So long before its moment a send takes its tokens.
const EARLIER: Duration = Duration::from_millis(20);
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

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named =
            [("requests", self.requests), ("messages", self.messages), ("recipients", self.recipients)];
        let limits: Vec<String> =
            named.iter().filter_map(|(name, rate)| Some(format!("{name} {}", (*rate)?))).collect();
        f.write_str(if limits.is_empty() { "none" } else { "" })?;
        f.write_str(&limits.join(", "))
    }
}

/// The buckets of an account, and the places for its requests under way.
pub struct AccountLimits {
    name: String,
    rates: watch::Sender<Rates>,
    /// How many requests may be under way at once.
    pub concurrency: Concurrency,
    turn: Mutex<()>,
    /// The line of each sender number.
    senders: parking_lot::Mutex<HashMap<Phone, Arc<Mutex<()>>>>,
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
    /// Only some of them can be asked for together, these places of the recipients: a limit leaves no more.
    Only(Vec<usize>),
}

/// What a send wants tokens for.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    rates: Rates,
    campaign: &'w CampaignLimits,
    from: Phone,
    recipients: &'w [Phone],
}

/// What the buckets answer.
#[derive(Clone)]
enum Asked {
    /// The tokens are taken; the send is due then. Whether as many more as a worker has under way could go out at once,
    /// too.
    At(Instant, bool),
    /// No token was taken; it has to wait so long, in this line.
    Later(Duration, Line),
    /// No token was taken; so many recipients had their message that none of these can for so long.
    Full(Duration),
    /// No token was taken; only one message can be asked for.
    OneByOne,
    /// No token was taken; these can be asked for.
    Only(Vec<usize>),
}

/// Whose bucket a send waits for, the narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    Campaign,
    Sender,
    Account,
}

/// How many messages a batch may have, so that a full one fits each bucket's burst.
pub fn batch_size(campaign: Option<Rate>, account: Rates) -> usize {
    let bursts = [campaign, account.messages].into_iter().flatten().map(|rate| rate.burst().get() as usize);
    bursts.fold(BATCH_LIMIT, usize::min).max(1)
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
            senders: parking_lot::Mutex::default(),
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
        if let Backend::Process(buckets) = &self.buckets {
            buckets.change(rates);
        }
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
        let sender = self.sender(from);
        let (mut in_campaign, mut in_sender, mut in_account, mut place) = (None, None, None, None);
        let mut changes = self.rates.subscribe();
        loop {
            let has_room = self.has_room.load(Ordering::Relaxed);
            if !has_room {
                if in_campaign.is_none() {
                    in_campaign = Some(campaign.turn.lock().await);
                }
                if in_sender.is_none() {
                    in_sender = Some(sender.lock().await);
                }
            }
            if place.is_none() {
                // Never closed, so there is always a place some time.
                place = Some(match self.concurrency.slot().await {
                    Some(place) => place,
                    None => return Ok(Admission::Deferred(STEP)),
                });
            }
            if !has_room && in_account.is_none() {
                in_account = Some(self.turn.lock().await);
            }
            let wanted = Wanted { rates: *changes.borrow_and_update(), campaign, from, recipients };
            let asked = match &self.buckets {
                Backend::Process(buckets) => buckets.ask(&wanted),
                Backend::Shared(server) => {
                    let asker =
                        Asker { server, account: &self.name, wanted, concurrency: self.concurrency.limit() };
                    if has_room { asker.ask_together().await? } else { asker.ask().await? }
                }
            };
            self.has_room.store(matches!(asked, Asked::At(_, true)), Ordering::Relaxed);
            let (wait, line) = match (asked, place.take()) {
                (Asked::At(due, _), Some(granted)) => {
                    // Others of the account need not wait until then; those of the number would come after it anyway.
                    drop(in_account.take());
                    wait_exactly(due).await;
                    return Ok(Admission::Granted(granted));
                }
                (Asked::Full(wait), _) => return Ok(Admission::Deferred(wait)),
                (Asked::OneByOne, _) => return Ok(Admission::OneByOne),
                (Asked::Only(some), _) => return Ok(Admission::Only(some)),
                (Asked::Later(wait, line), kept) => {
                    // What the whole account waits for is waited for in all lines, in their order.
                    place = kept.filter(|_| line == Line::Account);
                    (wait, line)
                }
                (Asked::At(..), None) => continue,
            };
            // In one process a wait of any length ends at once when a limit is raised.
            if wait > LONGEST_WAIT && matches!(self.buckets, Backend::Shared(_)) {
                return Ok(Admission::Deferred(wait));
            }
            if line < Line::Account {
                drop(in_account.take());
            }
            if line < Line::Sender {
                drop(in_sender.take());
            }
            // Workers that wait for the same moment ask one after the other, in no order that favours one.
            let before = EARLIER.mul_f64(0.5 + chance() / 2.0);
            tokio::select! {
                biased;
                // Never closed while this is borrowed.
                _ = changes.changed() => {}
                () = sleep(wait.saturating_sub(before)) => {}
            }
        }
    }

    /// The line of a sender number.
    fn sender(&self, from: Phone) -> Arc<Mutex<()>> {
        let mut senders = self.senders.lock();
        // Jobs name numbers as they like: those in whose lines nobody is are forgotten.
        if senders.len() >= SENDERS {
            senders.retain(|_, line| Arc::strong_count(line) > 1);
        }
        senders.entry(from).or_default().clone()
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
        Self {
            id,
            flow,
            rate: messages,
            turn: Mutex::default(),
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
/// spent asking. Only the first of a sender number does so.
async fn wait_exactly(until: Instant) {
    sleep_until(until.checked_sub(TIMER).unwrap_or(until)).await;
    let mut now = Instant::now();
    while now < until {
        tokio::task::yield_now().await;
        let before = std::mem::replace(&mut now, Instant::now());
        if now == before {
            // A clock that stands still, as in a simulation, is moved on by sleeping alone.
            return sleep_until(until).await;
        }
    }
}

/// The grain of the runtime's timer.
const TIMER: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

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
        // A batch is cut to what a limit of recipients leaves, and not smaller from the start.
        assert_eq!(batch_size(None, Rates { recipients: rate("40/d"), ..Rates::default() }), 100);
    }

    /// In any window: at most rate × t + burst. And the rate is used: 97 % of it at the least. The
    /// bursts are worth a fifth of a second, so that a machine that stands still for less loses nothing.
    async fn measure(
        limits: AccountLimits,
        campaign: CampaignLimits,
        count: usize,
        sends: usize,
    ) -> Measured {
        let limits = std::sync::Arc::new((limits, campaign));
        let start = std::time::Instant::now();
        let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let watch = std::thread::spawn({
            let is_over = is_over.clone();
            move || standstill(&is_over)
        });
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
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        Measured { times: all, standstill: watch.join().unwrap() }
    }

    /// When permits were taken, in seconds, and for how long the machine stood still meanwhile.
    struct Measured {
        times: Vec<f64>,
        standstill: f64,
    }

    /// Returns for how many seconds a thread that only wants to sleep a little did not run.
    fn standstill(is_over: &std::sync::atomic::AtomicBool) -> f64 {
        const NAP: Duration = Duration::from_millis(2);
        let mut lost = Duration::ZERO;
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            let asleep = std::time::Instant::now();
            std::thread::sleep(NAP);
            let late = asleep.elapsed().saturating_sub(NAP);
            if late > NAP {
                lost += late;
            }
        }
        lost.as_secs_f64()
    }

    fn assert_exact(measured: &Measured, weight: f64, per_second: f64, burst: f64) {
        let Measured { times, standstill } = measured;
        for from in 0..times.len() {
            for to in from..times.len() {
                let sent = (to - from + 1) as f64 * weight;
                // The clock is read after the token is taken, and a busy machine may stand still in
                // between, so a window may seem shorter than it was.
                let allowed = per_second * (times[to] - times[from] + 0.1 + standstill) + burst;
                assert!(sent <= allowed, "{sent} in {} s, allowed {allowed}", times[to] - times[from]);
            }
        }
        let took = (times[times.len() - 1] - standstill).max(f64::EPSILON);
        let used = (times.len() as f64 * weight - burst) / per_second / took;
        assert!(used >= 0.97, "only {used} of the rate was used, {standstill} s of standstill not counted");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn messages_keep_their_rate_exactly() {
        let measured = measure(account(None, rate("400/s,burst=80")), campaign(None), 20, 60).await;
        assert_exact(&measured, 20.0, 400.0, 80.0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_are_another_bucket() {
        let measured = measure(account(rate("40/s,burst=8"), None), campaign(None), 100, 100).await;
        assert_exact(&measured, 1.0, 40.0, 8.0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_campaign_has_a_limit_of_its_own() {
        let campaign = campaign(rate("300/s,burst=60"));
        let measured = measure(account(None, rate("10000/s")), campaign, 10, 72).await;
        assert_exact(&measured, 10.0, 300.0, 60.0);
    }

    #[tokio::test]
    async fn more_than_the_burst_is_cut_to_it() {
        let limits = account(None, rate("1000/s,burst=10"));
        let cut = limits.take(&campaign(None), phones(1)[0], &phones(100)).await.unwrap();
        assert!(matches!(cut, Admission::Only(some) if some == (0..10).collect::<Vec<_>>()));
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
        let hourly = || buckets.hourly("f1");
        let send = |count| buckets.sent_of("f1", count);
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

    #[tokio::test(start_paused = true)]
    async fn a_pause_does_not_save_up_what_waits_for_it() {
        let limits = Arc::new(account(rate("20/s,burst=1"), None));
        take(&limits, &campaign(None), 1).await;
        // Four wait for a token each when the pause begins.
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let limits = limits.clone();
                tokio::spawn(async move {
                    take(&limits, &campaign(None), 1).await;
                    Instant::now()
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
        // At half the rate.
        assert!(times[3] - times[0] >= Duration::from_millis(290), "{times:?}");
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
            // So many of them.
            Admission::Only(some) => 1_000_000 + some.len() as u64,
        };
        assert_eq!(ask(&all[..6]).await, 0);
        tokio::time::advance(Duration::from_secs(1000)).await;
        // A batch is cut to what is left, and a limit is used up.
        assert_eq!(ask(&all[6..12]).await, 1_000_004);
        assert_eq!(ask(&all[6..10]).await, 0);
        // Those who were written to today count once.
        assert_eq!(ask(&all[..10]).await, 0);
        assert_eq!(ask(&all[9..11]).await, 1_000_001);
        assert_eq!(ask(&all[10..11]).await, 86_400);
        // Lowered, it admits nobody new until enough have left.
        limits.set_rates(Rates { recipients: rate("4/d"), ..Rates::default() });
        assert_eq!(ask(&all[10..20]).await, 86_400);
        tokio::time::advance(Duration::from_hours(24)).await;
        assert_eq!(ask(&all[10..20]).await, 1_000_004);
        limits.set_rates(Rates { recipients: rate("10/d"), ..Rates::default() });
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

    #[tokio::test(start_paused = true)]
    async fn a_number_that_waits_for_its_own_limit_holds_no_other_up() {
        let limits = Arc::new(account(rate("1000/s"), rate("2/s,burst=2")));
        let all = phones(4);
        // The first number has ten batches in line, for five seconds each.
        for nth in 0..10 {
            let (limits, all) = (limits.clone(), all.clone());
            let own = CampaignLimits::new(format!("c{nth}").parse().unwrap(), None, None);
            tokio::spawn(async move { limits.take(&own, all[0], &all[..2]).await.map(drop) });
        }
        tokio::task::yield_now().await;
        let start = Instant::now();
        let other = campaign(None);
        for _ in 0..6 {
            let taken = limits.take(&other, all[1], &all[2..]).await.unwrap();
            assert!(matches!(taken, Admission::Granted(_)));
        }
        let took = start.elapsed().as_secs_f64();
        assert!((4.99..5.05).contains(&took), "its whole rate, beside a busy one: {took}");
    }

    #[tokio::test(start_paused = true)]
    async fn limits_change_while_they_are_waited_for() {
        let limits = Arc::new(account(rate("1/h"), None));
        take(&limits, &campaign(None), 1).await;
        let waiting = {
            let limits = limits.clone();
            tokio::spawn(async move { take(&limits, &campaign(None), 1).await })
        };
        tokio::task::yield_now().await;
        limits.set_rates(Rates { requests: rate("1000/s"), ..Rates::default() });
        let start = Instant::now();
        waiting.await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
    }
}
