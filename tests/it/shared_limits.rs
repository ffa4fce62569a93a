//! One exact limit for all workers: buckets in Redis, several connections, real time.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use flowcast::campaign::{Phone, Rate};
use flowcast::limiter::{AccountLimits, Admission, CampaignLimits, Concurrency, Rates};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::servers::{RedisProcess, RedisStore, redis_store};
use crate::support::first_seed_of_commit;

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

/// What a script took from a bucket, in seconds of Redis' clock.
struct Reservation {
    tokens: f64,
    asked_at: f64,
    /// How long the bucket takes to get one of them back, by what was taken and by what is written.
    period: f64,
    told: f64,
    /// How many it holds.
    burst: f64,
    /// When the bucket will be full again.
    full: f64,
}

/// The words of a line of `MONITOR`, which stand in quotes, with quotes in them escaped.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_escaped) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match (&mut word, c) {
            (None, '"') => word = Some(String::new()),
            (Some(_), '"') if !is_escaped => words.extend(word.take()),
            (Some(word), c) => {
                word.push(c);
                is_escaped = c == '\\' && !is_escaped;
            }
            _ => {}
        }
    }
    words
}

/// A Redis of its own, whose `MONITOR` tells what the limiter does with it.
struct Watched {
    store: RedisStore,
    monitor: BufReader<TcpStream>,
    full: f64,
}

impl Watched {
    async fn start() -> Self {
        let process = RedisProcess::start("");
        let mut monitor = BufReader::new(TcpStream::connect(("127.0.0.1", process.port)).await.unwrap());
        monitor.write_all(b"MONITOR\r\n").await.unwrap();
        let mut said = String::new();
        monitor.read_line(&mut said).await.unwrap();
        assert_eq!(said.trim_end(), "+OK");
        Self { store: RedisStore::at(process.url(), process), monitor, full: 0.0 }
    }

    /// The next reservation from a bucket. `tokens` is where the script is told how many, see `reserve.lua`.
    async fn reservation(&mut self, bucket: &str, tokens: usize) -> Reservation {
        let mut taken = 0.0;
        loop {
            let mut line = String::new();
            self.monitor.read_line(&mut line).await.unwrap();
            let words = words(&line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let number = |word: &str| word.parse::<f64>().unwrap();
            // A server that does not know the script yet is sent its text.
            if words[0].eq_ignore_ascii_case("EVALSHA") || words[0].eq_ignore_ascii_case("EVAL") {
                let keys = number(words[2]) as usize;
                taken = words.get(2 + keys + tokens).map_or(0.0, |word| number(word));
            } else if words[0] == "SET" && words[1].contains(bucket) {
                // When it is full again, and the period and burst that this was reckoned with.
                let kept: Vec<f64> = words[2].split(' ').map(number).collect();
                let (full, told, burst) = (kept[0] / 1e6, kept[1] / 1e6, kept[2]);
                // A bucket is kept for a second longer than it takes to be full.
                let asked_at = full - (number(words[4]) - 1000.0) / 1e3;
                // From then on nobody else had taken any.
                let free = self.full.max(asked_at);
                self.full = full;
                return Reservation {
                    tokens: taken,
                    asked_at,
                    period: (full - free) / taken,
                    told,
                    burst,
                    full,
                };
            }
        }
    }
}

/// A bucket, as `MONITOR` shows it.
struct Bucket {
    key: &'static str,
    argument: usize,
    per_second: f64,
    burst: f64,
}

const MESSAGES: (&str, usize) = (":messages:", 1);
const REQUESTS: (&str, usize) = (":requests", 18);
const CAMPAIGN: (&str, usize) = (":campaign:", 1);

impl Bucket {
    fn of((key, argument): (&'static str, usize), per_second: f64, burst: f64) -> Self {
        Self { key, argument, per_second, burst }
    }
}

/// Three workers with four senders each share a bucket exactly: in any window at most rate × t + burst is due, no
/// token is left that somebody had asked for, and nothing is sent before it is due. When senders wake is the machine's
/// affair, so what is held to the limit is what they reserved.
async fn assert_shared_exactly(bucket: Bucket, rates: Rates, own: Option<Rate>, count: u64, weight: f64) {
    const SENDS: usize = 150;
    let mut redis = Watched::start().await;
    let (sent, mut times) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..3 {
        let limits = Arc::new((limits(&redis.store, rates).await, campaign(own)));
        for _ in 0..4 {
            let (limits, sent) = (limits.clone(), sent.clone());
            tokio::spawn(async move {
                loop {
                    let who = phones(0, count);
                    let turn = limits.0.acquire(&limits.1, who[0], &who).await.unwrap();
                    assert!(matches!(turn, Admission::Granted(_)));
                    if sent.send(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()).is_err() {
                        return;
                    }
                }
            });
        }
    }
    drop(sent);
    let mut sends = Vec::new();
    while sends.len() < SENDS {
        sends.push(times.recv().await.unwrap());
    }
    let (period, mut due) = (1.0 / bucket.per_second, Vec::new());
    while due.len() < SENDS {
        let reserved = redis.reservation(bucket.key, bucket.argument).await;
        // The moment of asking is told in milliseconds.
        let is_exact = (reserved.period - period).abs() * reserved.tokens < 0.002;
        assert!(is_exact, "a token took {} s, and not {period}", reserved.period);
        let at = reserved.asked_at.max(reserved.full - bucket.burst * period);
        due.extend(std::iter::repeat_n(at, (reserved.tokens / weight) as usize));
    }
    for from in 0..due.len() {
        for to in from..due.len() {
            let (sent, span) = ((to - from + 1) as f64 * weight, due[to] - due[from]);
            let allowed = bucket.per_second * (span + 0.002) + bucket.burst;
            assert!(sent <= allowed, "{sent} in {span} s, allowed {allowed}");
        }
    }
    sends.sort_by(f64::total_cmp);
    let mut late: Vec<f64> = sends.iter().zip(&due).map(|(sent, due)| sent - due).collect();
    late.sort_by(f64::total_cmp);
    assert!(late[0] > -0.002, "sent {} s before it was due", -late[0]);
    assert!(late[SENDS / 10] < 0.05, "even the punctual are {} s late", late[SENDS / 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_share_one_limit_of_messages() {
    let rates = Rates { messages: rate("400/s,burst=40"), ..Rates::default() };
    assert_shared_exactly(Bucket::of(MESSAGES, 400.0, 40.0), rates, None, 20, 20.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_share_one_limit_of_requests_where_the_burst_is_one() {
    let rates = Rates { requests: rate("30/s,burst=1"), ..Rates::default() };
    assert_shared_exactly(Bucket::of(REQUESTS, 30.0, 1.0), rates, None, 100, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_share_a_campaigns_own_limit() {
    let rates = Rates { messages: rate("10000/s"), ..Rates::default() };
    let own = rate("300/s,burst=30");
    assert_shared_exactly(Bucket::of(CAMPAIGN, 300.0, 30.0), rates, own, 10, 10.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_one_a_second_is_told_and_not_waited_for() {
    let store = redis_store();
    let limits = limits(&store, Rates { requests: rate("10/h"), ..Rates::default() }).await;
    let ask = async || limits.acquire(&campaign(None), phones(0, 1)[0], &phones(0, 1)).await.unwrap();
    assert!(matches!(ask().await, Admission::Granted(_)));
    let Admission::Deferred(wait) = ask().await else { panic!("the second is due in six minutes") };
    assert!(wait > Duration::from_secs(355) && wait <= Duration::from_mins(6), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_worker_is_told_slows_all_and_passes() {
    let mut redis = Watched::start().await;
    let rates = Rates { requests: rate("20/s,burst=1"), ..Rates::default() };
    let (one, two) = (limits(&redis.store, rates).await, limits(&redis.store, rates).await);
    let ask = async |limits: &AccountLimits| {
        let start = Instant::now();
        let turn = limits.acquire(&campaign(None), phones(0, 1)[0], &phones(0, 1)).await.unwrap();
        assert!(matches!(turn, Admission::Granted(_)));
        start.elapsed()
    };
    ask(&one).await;
    one.slow_down(Duration::from_millis(700)).await.unwrap();
    assert!(ask(&two).await >= Duration::from_millis(650), "the other worker waits too");
    for _ in 0..2 {
        redis.reservation(REQUESTS.0, REQUESTS.1).await;
    }
    // Half the rate now.
    ask(&two).await;
    let slow = redis.reservation(REQUESTS.0, REQUESTS.1).await.told;
    assert!((slow - 0.1).abs() < 0.002, "{slow} s");
    let server = redis.store.server().await;
    let mut recovered = redis::cmd("HSET");
    recovered.arg("flowcast:{account:main}:state").arg("slowed_at").arg(1);
    let _: u64 = server.command(&recovered).await.unwrap();
    ask(&two).await;
    let whole = redis.reservation(REQUESTS.0, REQUESTS.1).await.told;
    assert!((whole - 0.05).abs() < 0.002, "{whole} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_flow_is_slowed_for_all_workers_and_doubles_after_an_hours_worth() {
    let store = redis_store();
    let (one, two) = (limits(&store, Rates::default()).await, limits(&store, Rates::default()).await);
    let flow = |id: &str, flow: &str| CampaignLimits::new(id.parse().unwrap(), Some(flow.into()), None);
    let (first, second, other) = (flow("c1", "1323 :}{"), flow("c2", "1323 :}{"), flow("c3", "9"));
    let who = phones(0, 2);
    let take = async |limits: &AccountLimits, campaign: &CampaignLimits, count: usize| {
        limits.acquire(campaign, who[0], &who[..count]).await.unwrap()
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
        match limits.acquire(&campaign(None), who[0], &who).await.unwrap() {
            Admission::Granted(_) => Duration::ZERO,
            Admission::Deferred(wait) => wait,
            Admission::OneByOne => panic!("no flow is throttled"),
            // So many of them.
            Admission::Only(some) => Duration::from_secs(1_000_000 + some.len() as u64),
        }
    };
    let cut = |count: u64| Duration::from_secs(1_000_000 + count);
    assert_eq!(ask(&one, 0, 6).await, Duration::ZERO);
    // A batch is cut to what is left, and the limit is used up.
    assert_eq!(ask(&two, 6, 100).await, cut(4));
    assert_eq!(ask(&two, 6, 4).await, Duration::ZERO);
    // Those who were written to today count once.
    assert_eq!(ask(&two, 0, 10).await, Duration::ZERO);
    assert_eq!(ask(&one, 9, 2).await, cut(1));
    let is_a_day = |wait: Duration| wait > Duration::from_secs(86_390) && wait <= Duration::from_secs(86_401);
    let wait = ask(&one, 10, 1).await;
    assert!(is_a_day(wait), "{wait:?}");
    // Lowered, it admits nobody new until enough have left; whoever was written to is admitted.
    one.set_rates(Rates { recipients: rate("3/d"), ..Rates::default() });
    let wait = ask(&one, 10, 10).await;
    assert!(is_a_day(wait), "{wait:?}");
    assert_eq!(ask(&one, 5, 10).await, cut(5));
    one.set_rates(rates);
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
    let limits = Arc::new(limits(&store, Rates { requests: rate("1000/s"), ..Rates::default() }).await);
    let slow = Arc::new(campaign(rate("6/min,burst=1")));
    let who = phones(0, 1);
    limits.acquire(&slow, who[0], &who).await.unwrap();
    let waiting = {
        let (limits, slow, who) = (limits.clone(), slow.clone(), who.clone());
        tokio::spawn(async move { limits.acquire(&slow, who[0], &who).await.map(drop) })
    };
    tokio::task::yield_now().await;
    let start = Instant::now();
    for _ in 0..10 {
        let other = CampaignLimits::new("c2".parse().unwrap(), None, None);
        assert!(matches!(limits.acquire(&other, who[0], &who).await.unwrap(), Admission::Granted(_)));
    }
    assert!(start.elapsed() < Duration::from_secs(5) && !waiting.is_finished());
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_waits_for_its_own_limit_holds_no_other_up() {
    let store = redis_store();
    let rates = Rates { requests: rate("1000/s"), messages: rate("20/s,burst=5"), ..Rates::default() };
    let limits = Arc::new(limits(&store, rates).await);
    let numbers = phones(0, 2);
    // The first number has ten campaigns in line.
    let busy: Vec<_> = (0..10)
        .map(|nth| {
            let (limits, from, who) = (limits.clone(), numbers[0], phones(10, 5));
            tokio::spawn(async move {
                let own = CampaignLimits::new(format!("busy{nth}").parse().unwrap(), None, None);
                loop {
                    limits.acquire(&own, from, &who).await.unwrap();
                }
            })
        })
        .collect();
    let own = CampaignLimits::new("other".parse().unwrap(), None, None);
    let (who, start) = (phones(20, 5), Instant::now());
    for _ in 0..9 {
        assert!(matches!(limits.acquire(&own, numbers[1], &who).await.unwrap(), Admission::Granted(_)));
    }
    // Forty behind the burst take two seconds; behind the first number's they would take three times that.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1_950) && took < Duration::from_secs(4), "{took:?}");
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_whose_clock_goes_back_stalls_no_limit() {
    let store = redis_store();
    let rates = Rates { requests: rate("20/s,burst=2"), messages: rate("100/s"), ..Rates::default() };
    let limits = limits(&store, rates).await;
    let who = phones(0, 10);
    let take = async || limits.acquire(&campaign(None), who[0], &who).await.unwrap();
    take().await;
    limits.slow_down(Duration::from_millis(300)).await.unwrap();
    // All that the buckets know is an hour later than the server's clock.
    let server = store.server().await;
    for key in ["requests", "messages:+919800000000"] {
        let key = format!("flowcast:{{account:main}}:{key}");
        let kept: String = server.command(redis::cmd("GET").arg(&key)).await.unwrap();
        let (full, rest) = kept.split_once(' ').unwrap();
        let later = format!("{} {rest}", full.parse::<f64>().unwrap() + 3.6e9);
        let _: String = server.command(redis::cmd("SET").arg(&key).arg(later)).await.unwrap();
    }
    for field in ["paused_until", "slowed_at", "paused_at"] {
        let mut later = redis::cmd("HINCRBYFLOAT");
        later.arg("flowcast:{account:main}:state").arg(field).arg("3600000000");
        let _: f64 = server.command(&later).await.unwrap();
    }
    let start = Instant::now();
    assert!(matches!(take().await, Admission::Granted(_)));
    let took = start.elapsed();
    // The pause is as long as it was said to be, and the buckets are empty at the worst.
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(2), "{took:?}");
}

/// Three workers share limits that change at random moments. What they take is held to a checker that reckons every
/// window, by what Redis is told: when machines wake is their affair.
#[tokio::test(flavor = "multi_thread")]
async fn no_window_has_more_than_a_shared_limit_allows_while_it_changes() {
    let mut random = SmallRng::seed_from_u64(first_seed_of_commit());
    let mut some = || -> Rate {
        let count: u32 = random.random_range(20..400);
        format!("{count}/s,burst={}", random.random_range(20..60)).parse().unwrap()
    };
    let mut redis = Watched::start().await;
    let rates = |rate: Rate| Rates { messages: Some(rate), ..Rates::default() };
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Arc::new(limits(&redis.store, rates(some())).await));
    }
    let mut tasks = Vec::new();
    for (nth, limits) in workers.iter().enumerate() {
        let limits = limits.clone();
        tasks.push(tokio::spawn(async move {
            let own = CampaignLimits::new(format!("c{nth}").parse().unwrap(), None, None);
            let who = phones(0, 20);
            loop {
                limits.acquire(&own, who[0], &who).await.unwrap();
            }
        }));
    }
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let rate = some();
        for limits in &workers {
            limits.set_rates(rates(rate));
        }
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    // A last one, so that all before it are there to read.
    let mut end = redis::cmd("SET");
    end.arg("flowcast:{account:main}:messages:0").arg("0 1 1").arg("PX").arg(1000);
    let _: String = redis.store.server().await.command(&end).await.unwrap();
    let mut taken = Vec::new();
    loop {
        let reserved = redis.reservation(MESSAGES.0, MESSAGES.1).await;
        if reserved.full == 0.0 {
            break;
        }
        taken.push((reserved.asked_at.max(reserved.full - reserved.burst * reserved.told), reserved));
    }
    assert!(taken.len() > 20, "{}", taken.len());
    for first in 0..taken.len() {
        let (mut sum, mut allowed) = (0.0, taken[first].1.burst);
        for nth in first..taken.len() {
            if nth > first {
                // Between the two either rate may have been in force.
                let (before, now) = (&taken[nth - 1], &taken[nth]);
                allowed += (now.0 - before.0 + 0.002) / now.1.told.min(before.1.told);
            }
            sum += taken[nth].1.tokens;
            assert!(sum <= allowed + 1e-6, "{sum} from the {first}th to the {nth}th, allowed {allowed}");
        }
    }
}
