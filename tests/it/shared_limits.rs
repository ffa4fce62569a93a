//! One exact limit for all workers: buckets in Redis, several connections, real time.

use std::time::{Duration, Instant};

use flowcast::campaign::{Phone, Rate};
use flowcast::limiter::{AccountLimits, Admission, CampaignLimits, Concurrency, Rates};

use crate::servers::{RedisStore, redis_store};

fn rate(text: &str) -> Option<Rate> {
    text.parse().ok()
}

fn phones(from: u64, count: u64) -> Vec<Phone> {
    (from..from + count).map(|nth| Phone::from_digits(919_800_000_000 + nth).unwrap()).collect()
}

fn campaign(limit: Option<Rate>) -> CampaignLimits {
    CampaignLimits::new("c1".parse().unwrap(), None, limit)
}

async fn limits(store: &RedisStore, rates: Rates) -> AccountLimits {
    AccountLimits::shared("main", rates, Concurrency::fixed(8), store.server().await)
}

/// Three workers with four senders each; when each of their sends went, in order.
async fn three_workers(rates: Rates, own: Option<Rate>, count: u64, sends: usize) -> Vec<f64> {
    let store = redis_store();
    let start = Instant::now();
    let (sent, mut times) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..3 {
        let limits = std::sync::Arc::new((limits(&store, rates).await, campaign(own)));
        for _ in 0..4 {
            let (limits, sent) = (limits.clone(), sent.clone());
            tokio::spawn(async move {
                loop {
                    let who = phones(0, count);
                    let turn = limits.0.take(&limits.1, who[0], &who).await.unwrap();
                    assert!(matches!(turn, Admission::Granted(_)));
                    if sent.send(start.elapsed().as_secs_f64()).is_err() {
                        return;
                    }
                }
            });
        }
    }
    drop(sent);
    let mut all = Vec::new();
    while all.len() < sends {
        all.push(times.recv().await.unwrap());
    }
    all.sort_by(f64::total_cmp);
    all
}

/// In any window at most rate × t + burst, and 97 % of the rate used. Senders that wake late on a busy machine cost the
/// same time however long it is measured, so callers measure for ten seconds.
fn assert_exact(times: &[f64], weight: f64, per_second: f64, burst: f64) {
    for from in 0..times.len() {
        for to in from..times.len() {
            let sent = (to - from + 1) as f64 * weight;
            // A busy machine may wake a sender late, so a window may seem shorter than it was.
            let allowed = per_second * (times[to] - times[from] + 0.1) + burst;
            assert!(sent <= allowed, "{sent} in {} s, allowed {allowed}", times[to] - times[from]);
        }
    }
    let span = times[times.len() - 1] - times[0];
    let used = (times.len() as f64 * weight - burst) / per_second / span;
    assert!(used >= 0.97, "only {used} of the rate was used");
    assert!(used <= 1.03, "{used} of the rate was used");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_share_one_limit_of_messages() {
    let rates = Rates { messages: rate("400/s,burst=40"), ..Rates::default() };
    assert_exact(&three_workers(rates, None, 20, 200).await, 20.0, 400.0, 40.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_share_one_limit_of_requests_where_the_burst_is_one() {
    let rates = Rates { requests: rate("20/s,burst=1"), ..Rates::default() };
    assert_exact(&three_workers(rates, None, 100, 200).await, 1.0, 20.0, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_share_a_campaigns_own_limit() {
    let rates = Rates { messages: rate("10000/s"), ..Rates::default() };
    assert_exact(&three_workers(rates, rate("300/s,burst=30"), 10, 300).await, 10.0, 300.0, 30.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_one_a_second_is_told_and_not_waited_for() {
    let store = redis_store();
    let limits = limits(&store, Rates { requests: rate("10/h"), ..Rates::default() }).await;
    let ask = async || limits.take(&campaign(None), phones(0, 1)[0], &phones(0, 1)).await.unwrap();
    assert!(matches!(ask().await, Admission::Granted(_)));
    let Admission::Deferred(wait) = ask().await else { panic!("the second is due in six minutes") };
    assert!(wait > Duration::from_secs(355) && wait <= Duration::from_mins(6), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_worker_is_told_slows_all_and_passes() {
    let store = redis_store();
    let rates = Rates { requests: rate("20/s,burst=1"), ..Rates::default() };
    let (one, two) = (limits(&store, rates).await, limits(&store, rates).await);
    let ask = async |limits: &AccountLimits| {
        let start = Instant::now();
        let turn = limits.take(&campaign(None), phones(0, 1)[0], &phones(0, 1)).await.unwrap();
        assert!(matches!(turn, Admission::Granted(_)));
        start.elapsed()
    };
    ask(&one).await;
    one.slow_down(Duration::from_millis(700)).await.unwrap();
    assert!(ask(&two).await >= Duration::from_millis(650), "the other worker waits too");
    // At half the rate now: 20 requests take 2 s and not one.
    let start = Instant::now();
    for _ in 0..20 {
        ask(&two).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(1_850), "{:?}", start.elapsed());
    let server = store.server().await;
    let mut forget = redis::cmd("HSET");
    forget.arg("flowcast:{account:main}:state").arg("slowed_at").arg(1);
    let _: u64 = server.command(&forget).await.unwrap();
    let start = Instant::now();
    // 5 s; at half the rate it would be 10 s. All at once, so that a busy machine is late for the last one only.
    futures_util::future::join_all((0..100).map(|_| ask(&two))).await;
    assert!(start.elapsed() < Duration::from_millis(9_850), "it recovers: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_flow_is_slowed_for_all_workers_and_doubles_after_an_hours_worth() {
    let store = redis_store();
    let (one, two) = (limits(&store, Rates::default()).await, limits(&store, Rates::default()).await);
    let flow = |id: &str, flow: &str| CampaignLimits::new(id.parse().unwrap(), Some(flow.into()), None);
    let (first, second, other) = (flow("c1", "1323 :}{"), flow("c2", "1323 :}{"), flow("c3", "9"));
    let who = phones(0, 2);
    let take = async |limits: &AccountLimits, campaign: &CampaignLimits, count: usize| {
        limits.take(campaign, who[0], &who[..count]).await.unwrap()
    };
    assert!(matches!(take(&one, &first, 2).await, Admission::Granted(_)));
    assert!(one.throttle("1323 :}{").await.unwrap());
    assert!(!two.throttle("1323 :}{").await.unwrap());
    assert!(matches!(take(&two, &second, 2).await, Admission::OneByOne));
    assert!(matches!(take(&two, &second, 1).await, Admission::Granted(_)));
    // Ten an hour for both campaigns together, whoever asks.
    for (limits, campaign) in [(&one, &first), (&two, &second)] {
        let Admission::Deferred(wait) = take(limits, campaign, 1).await else { panic!("it went out") };
        assert!(wait > Duration::from_secs(350) && wait <= Duration::from_mins(6), "{wait:?}");
    }
    assert!(matches!(take(&one, &other, 2).await, Admission::Granted(_)));
    // Hours later, as the store would see it: with an hour's worth sent and no further word it may be twice as many,
    // and without that it stays.
    let server = store.server().await;
    let key: Vec<String> =
        server.command(redis::cmd("KEYS").arg("flowcast:{account:main}:flow:*")).await.unwrap();
    let now: (f64, f64) = server.command(&redis::cmd("TIME")).await.unwrap();
    let an_hour_ago = format!("{:.0}", (now.0 - 3600.0) * 1e6);
    let age = async |count: u32| {
        let mut age = redis::cmd("HSET");
        age.arg(&key[0]).arg("since").arg(&an_hour_ago).arg("count").arg(count).arg("full").arg(0);
        let _: u64 = server.command(&age).await.unwrap();
    };
    for (count, seconds) in [(9, 360.0), (10, 180.0), (19, 180.0), (20, 90.0)] {
        age(count).await;
        assert!(matches!(take(&one, &first, 1).await, Admission::Granted(_)));
        // When the next one is due.
        let full: f64 = server.command(redis::cmd("HGET").arg(&key[0]).arg("full")).await.unwrap();
        let wait = full / 1e6 - now.0;
        assert!((wait - seconds).abs() < 5.0, "{wait} s after {count} messages");
    }
    // Said again it begins anew; and after so many doublings it is as any other.
    assert!(!two.throttle("1323 :}{").await.unwrap());
    let doublings: u32 = server.command(redis::cmd("HGET").arg(&key[0]).arg("doublings")).await.unwrap();
    assert_eq!(doublings, 0);
    let mut last = redis::cmd("HSET");
    last.arg(&key[0]).arg("doublings").arg(14);
    let _: u64 = server.command(&last).await.unwrap();
    age(10 << 14).await;
    assert!(matches!(take(&one, &first, 2).await, Admission::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_recipients_of_a_moving_day_are_counted_for_all_workers() {
    let store = redis_store();
    let rates = Rates { recipients: rate("10/d"), ..Rates::default() };
    let (one, two) = (limits(&store, rates).await, limits(&store, rates).await);
    let ask = async |limits: &AccountLimits, from, count| {
        let who = phones(from, count);
        match limits.take(&campaign(None), who[0], &who).await.unwrap() {
            Admission::Granted(_) => Duration::ZERO,
            Admission::Deferred(wait) => wait,
            Admission::OneByOne => panic!("no flow is throttled"),
        }
    };
    assert_eq!(ask(&one, 0, 6).await, Duration::ZERO);
    assert_eq!(ask(&two, 6, 4).await, Duration::ZERO);
    // Those who were written to today count once.
    assert_eq!(ask(&two, 0, 10).await, Duration::ZERO);
    let wait = ask(&one, 9, 2).await;
    assert!(wait > Duration::from_secs(86_390) && wait <= Duration::from_secs(86_401), "{wait:?}");
    // A day later, as the store would see it.
    let server = store.server().await;
    let key = "flowcast:{account:main}:recipients";
    let all: Vec<String> = server.command(redis::cmd("ZRANGE").arg(key).arg(0).arg(-1)).await.unwrap();
    for who in all {
        let mut earlier = redis::cmd("ZINCRBY");
        earlier.arg(key).arg("-86400000000").arg(who);
        let _: f64 = server.command(&earlier).await.unwrap();
    }
    assert_eq!(ask(&one, 10, 10).await, Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_waits_for_its_own_limit_holds_no_other_up() {
    let store = redis_store();
    let limits =
        std::sync::Arc::new(limits(&store, Rates { requests: rate("1000/s"), ..Rates::default() }).await);
    let slow = std::sync::Arc::new(campaign(rate("6/min,burst=1")));
    let who = phones(0, 1);
    limits.take(&slow, who[0], &who).await.unwrap();
    let waiting = {
        let (limits, slow, who) = (limits.clone(), slow.clone(), who.clone());
        tokio::spawn(async move { limits.take(&slow, who[0], &who).await.map(drop) })
    };
    tokio::task::yield_now().await;
    let start = Instant::now();
    for _ in 0..10 {
        let other = CampaignLimits::new("c2".parse().unwrap(), None, None);
        assert!(matches!(limits.take(&other, who[0], &who).await.unwrap(), Admission::Granted(_)));
    }
    assert!(start.elapsed() < Duration::from_secs(5) && !waiting.is_finished());
    waiting.abort();
}
