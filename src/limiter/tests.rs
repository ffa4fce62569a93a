use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::process::Buckets;
use super::{
    AccountLimits, Admission, CampaignLimits, Concurrency, DOUBLINGS, HOUR, Rates, batch_size, slowed,
};
use crate::campaign::{Phone, Rate};

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
    let turn = limits.acquire(campaign, phones(1)[0], &phones(count)).await.unwrap();
    assert!(matches!(turn, Admission::Granted(_)));
}

fn rate(text: &str) -> Option<Rate> {
    text.parse().ok()
}

#[test]
fn a_batch_is_no_larger_than_the_smallest_burst() {
    let messages = |text: &str| Rates { messages: rate(text), ..Rates::default() };
    assert_eq!(batch_size(None, Rates::default()), 100);
    assert_eq!(batch_size(rate("1000/s"), Rates::default()), 100);
    assert_eq!(batch_size(rate("80/s"), messages("500/s,burst=30")), 30);
    assert_eq!(batch_size(rate("10/h"), Rates::default()), 1);
    // A batch is cut to the rest of the limit of recipients only when it is sent.
    assert_eq!(batch_size(None, Rates { recipients: rate("40/d"), ..Rates::default() }), 100);
}

/// Sends as fast as the limits allow, and returns when each permit was granted.
///
/// The bursts are worth a fifth of a second, so that a machine that stalls for less loses nothing.
async fn measure(limits: AccountLimits, campaign: CampaignLimits, count: usize, sends: usize) -> Measured {
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

/// Times at which permits were granted, and how long the machine stalled, in seconds.
struct Measured {
    times: Vec<f64>,
    standstill: f64,
}

/// Returns for how many seconds a thread that sleeps briefly was not scheduled.
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

/// Asserts that each window has at most rate × t + burst sends, and that at least
/// 97 % of the rate is used.
fn assert_exact(measured: &Measured, weight: f64, per_second: f64, burst: f64) {
    let Measured { times, standstill } = measured;
    for from in 0..times.len() {
        for to in from..times.len() {
            let sent = (to - from + 1) as f64 * weight;
            // The clock is read after the token is taken, and a busy machine may stall in
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
async fn requests_have_a_bucket_of_their_own() {
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
    let cut = limits.acquire(&campaign(None), phones(1)[0], &phones(100)).await.unwrap();
    assert!(matches!(cut, Admission::Only(some) if some == (0..10).collect::<Vec<_>>()));
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_provider_is_kept() {
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
async fn a_throttled_flow_doubles_after_an_hours_worth_and_restarts_when_throttled_again() {
    let buckets = Buckets::default();
    let hourly = || buckets.hourly("f1");
    let send = |count| buckets.sent_of("f1", count);
    assert_eq!(hourly(), None);
    assert!(buckets.throttle("f1"));
    // Idle hours change nothing, nor does an hour's worth before the hour is over.
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
async fn a_throttled_flow_slows_only_its_campaigns_and_one_message_at_a_time() {
    let limits = account(None, None);
    let flow = |id: &str, flow: &str| CampaignLimits::new(id.parse().unwrap(), Some(flow.into()), None);
    let (first, second, other) = (flow("c1", "f1"), flow("c2", "f1"), flow("c3", "f2"));
    assert!(limits.throttle("f1").await.unwrap());
    assert!(!limits.throttle("f1").await.unwrap());
    let all = phones(2);
    assert!(matches!(limits.acquire(&first, all[0], &all).await.unwrap(), Admission::OneByOne));
    take(&limits, &first, 1).await;
    // The next message is due in six minutes, for either campaign.
    for waits in [&first, &second] {
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, limits.acquire(waits, all[0], &all[..1])).await.is_err());
    }
    take(&limits, &other, 100).await;
    take(&limits, &campaign(None), 100).await;
}

#[tokio::test(start_paused = true)]
async fn senders_that_wait_during_a_pause_keep_the_rate_after_it() {
    let limits = Arc::new(account(rate("20/s,burst=1"), None));
    take(&limits, &campaign(None), 1).await;
    // Four senders wait for a token when the pause starts.
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
async fn unique_recipients_are_counted_in_a_rolling_day() {
    let limits =
        AccountLimits::new(Rates { recipients: rate("10/d"), ..Rates::default() }, Concurrency::fixed(1));
    let (campaign, all) = (campaign(None), phones(20));
    let ask = async |who: &[Phone]| match limits.acquire(&campaign, all[0], who).await.unwrap() {
        Admission::Granted(_) => 0,
        Admission::Deferred(wait) => wait.as_secs(),
        Admission::OneByOne => panic!(),
        Admission::Only(some) => 1_000_000 + some.len() as u64,
    };
    assert_eq!(ask(&all[..6]).await, 0);
    tokio::time::advance(Duration::from_secs(1000)).await;
    // A batch is cut to the rest of the limit, which is then used up.
    assert_eq!(ask(&all[6..12]).await, 1_000_004);
    assert_eq!(ask(&all[6..10]).await, 0);
    // Recipients that were messaged today count once.
    assert_eq!(ask(&all[..10]).await, 0);
    assert_eq!(ask(&all[9..11]).await, 1_000_001);
    assert_eq!(ask(&all[10..11]).await, 86_400);
    // A lowered limit admits no new recipient until enough have expired.
    limits.set_rates(Rates { recipients: rate("4/d"), ..Rates::default() });
    assert_eq!(ask(&all[10..20]).await, 86_400);
    tokio::time::advance(Duration::from_hours(24)).await;
    assert_eq!(ask(&all[10..20]).await, 1_000_004);
    limits.set_rates(Rates { recipients: rate("10/d"), ..Rates::default() });
    tokio::time::advance(Duration::from_hours(24)).await;
    assert_eq!(ask(&all[10..20]).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_campaign_that_waits_for_its_own_limit_delays_no_other() {
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
async fn a_number_that_waits_for_its_own_limit_delays_no_other() {
    let limits = Arc::new(account(rate("1000/s"), rate("2/s,burst=2")));
    let all = phones(4);
    // The first number has ten batches waiting.
    for nth in 0..10 {
        let (limits, all) = (limits.clone(), all.clone());
        let own = CampaignLimits::new(format!("c{nth}").parse().unwrap(), None, None);
        tokio::spawn(async move { limits.acquire(&own, all[0], &all[..2]).await.map(drop) });
    }
    tokio::task::yield_now().await;
    let start = Instant::now();
    let other = campaign(None);
    for _ in 0..6 {
        let taken = limits.acquire(&other, all[1], &all[2..]).await.unwrap();
        assert!(matches!(taken, Admission::Granted(_)));
    }
    let took = start.elapsed().as_secs_f64();
    assert!((4.99..5.05).contains(&took), "a busy number must not slow another: {took}");
}

#[tokio::test(start_paused = true)]
async fn limits_change_while_senders_wait() {
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
