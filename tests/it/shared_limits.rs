//! Exact limits that all workers share: buckets in Redis, several connections, real time.

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

/// A reservation of tokens from a bucket; times are in seconds of Redis' clock.
struct Reservation {
    tokens: f64,
    reserved_at: f64,
    /// Seconds in which the bucket gains a token, by the tokens of this reservation.
    period: f64,
    /// Seconds in which the bucket gains a token, as the bucket stores it.
    stored_period: f64,
    /// Capacity of the bucket.
    burst: f64,
    /// Time at which the bucket will be full again.
    full: f64,
}

/// Returns the arguments in a line of `MONITOR`, which are quoted strings with escaped quotes.
fn parse_arguments(line: &str) -> Vec<String> {
    let (mut arguments, mut argument, mut is_escaped) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match (&mut argument, c) {
            (None, '"') => argument = Some(String::new()),
            (Some(_), '"') if !is_escaped => arguments.extend(argument.take()),
            (Some(argument), c) => {
                argument.push(c);
                is_escaped = c == '\\' && !is_escaped;
            }
            _ => {}
        }
    }
    arguments
}

/// A Redis of its own, whose `MONITOR` shows the commands of the limiter.
struct MonitoredRedis {
    store: RedisStore,
    monitor: BufReader<TcpStream>,
    full: f64,
}

impl MonitoredRedis {
    async fn start() -> Self {
        let process = RedisProcess::start("");
        let mut monitor = BufReader::new(TcpStream::connect(("127.0.0.1", process.port)).await.unwrap());
        monitor.write_all(b"MONITOR\r\n").await.unwrap();
        let mut response = String::new();
        monitor.read_line(&mut response).await.unwrap();
        assert_eq!(response.trim_end(), "+OK");
        Self { store: RedisStore::at(process.url(), process), monitor, full: 0.0 }
    }

    /// Returns the next reservation from a bucket. `tokens` is the index of the script's argument with their number, see
    /// `reserve.lua`.
    async fn reservation(&mut self, bucket: &str, tokens: usize) -> Reservation {
        let mut reserved = 0.0;
        loop {
            let mut line = String::new();
            self.monitor.read_line(&mut line).await.unwrap();
            let arguments = parse_arguments(&line);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let number = |argument: &str| argument.parse::<f64>().unwrap();
            // The client sends the script's text to a server that does not know the script yet.
            if arguments[0].eq_ignore_ascii_case("EVALSHA") || arguments[0].eq_ignore_ascii_case("EVAL") {
                let keys = number(arguments[2]) as usize;
                reserved = arguments.get(2 + keys + tokens).map_or(0.0, |argument| number(argument));
            } else if arguments[0] == "SET" && arguments[1].contains(bucket) {
                // The time at which the bucket is full again, with the period and the burst for which it was computed.
                let stored: Vec<f64> = arguments[2].split(' ').map(number).collect();
                let (full, stored_period, burst) = (stored[0] / 1e6, stored[1] / 1e6, stored[2]);
                // The key of a bucket expires a second after the bucket is full.
                let reserved_at = full - (number(arguments[4]) - 1000.0) / 1e3;
                // The tokens since then are those of this reservation.
                let free = self.full.max(reserved_at);
                self.full = full;
                return Reservation {
                    tokens: reserved,
                    reserved_at,
                    period: (full - free) / reserved,
                    stored_period,
                    burst,
                    full,
                };
            }
        }
    }
}

/// A bucket in the output of `MONITOR`.
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
    fn new((key, argument): (&'static str, usize), per_second: f64, burst: f64) -> Self {
        Self { key, argument, per_second, burst }
    }
}

/// Asserts that three workers with four senders each share a bucket exactly.
///
/// In any window at most rate × t + burst is due, every available token is used, and nothing is sent before it is due. The
/// test checks reservations, because the time at which a sender wakes depends on the machine.
async fn assert_shared_exactly(bucket: Bucket, rates: Rates, own: Option<Rate>, count: u64, weight: f64) {
    const SENDS: usize = 150;
    let mut redis = MonitoredRedis::start().await;
    let (sent, mut times) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..3 {
        let limits = Arc::new((limits(&redis.store, rates).await, campaign(own)));
        for _ in 0..4 {
            let (limits, sent) = (limits.clone(), sent.clone());
            tokio::spawn(async move {
                loop {
                    let recipients = phones(0, count);
                    let admission = limits.0.acquire(&limits.1, recipients[0], &recipients).await.unwrap();
                    assert!(matches!(admission, Admission::Granted(_)));
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
        // The time of the reservation is known in milliseconds.
        let is_exact = (reserved.period - period).abs() * reserved.tokens < 0.002;
        assert!(is_exact, "a token took {} s, and not {period}", reserved.period);
        let at = reserved.reserved_at.max(reserved.full - bucket.burst * period);
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
    assert!(late[SENDS / 10] < 0.05, "even the first tenth is {} s late", late[SENDS / 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_share_one_limit_of_messages() {
    let rates = Rates { messages: rate("400/s,burst=40"), ..Rates::default() };
    assert_shared_exactly(Bucket::new(MESSAGES, 400.0, 40.0), rates, None, 20, 20.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_share_one_limit_of_requests_with_a_burst_of_one() {
    let rates = Rates { requests: rate("30/s,burst=1"), ..Rates::default() };
    assert_shared_exactly(Bucket::new(REQUESTS, 30.0, 1.0), rates, None, 100, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_share_a_campaigns_own_limit() {
    let rates = Rates { messages: rate("10000/s"), ..Rates::default() };
    let own = rate("300/s,burst=30");
    assert_shared_exactly(Bucket::new(CAMPAIGN, 300.0, 30.0), rates, own, 10, 10.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_one_per_second_defers_instead_of_waiting() {
    let store = redis_store();
    let limits = limits(&store, Rates { requests: rate("10/h"), ..Rates::default() }).await;
    let acquire = async || limits.acquire(&campaign(None), phones(0, 1)[0], &phones(0, 1)).await.unwrap();
    assert!(matches!(acquire().await, Admission::Granted(_)));
    let Admission::Deferred(wait) = acquire().await else { panic!("the second is due in six minutes") };
    assert!(wait > Duration::from_secs(355) && wait <= Duration::from_mins(6), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slowdown_applies_to_all_workers_and_recovers() {
    let mut redis = MonitoredRedis::start().await;
    let rates = Rates { requests: rate("20/s,burst=1"), ..Rates::default() };
    let (one, two) = (limits(&redis.store, rates).await, limits(&redis.store, rates).await);
    let acquire = async |limits: &AccountLimits| {
        let start = Instant::now();
        let admission = limits.acquire(&campaign(None), phones(0, 1)[0], &phones(0, 1)).await.unwrap();
        assert!(matches!(admission, Admission::Granted(_)));
        start.elapsed()
    };
    acquire(&one).await;
    one.slow_down(Duration::from_millis(700)).await.unwrap();
    assert!(acquire(&two).await >= Duration::from_millis(650), "the other worker must wait too");
    for _ in 0..2 {
        redis.reservation(REQUESTS.0, REQUESTS.1).await;
    }
    // The rate is halved.
    acquire(&two).await;
    let slow = redis.reservation(REQUESTS.0, REQUESTS.1).await.stored_period;
    assert!((slow - 0.1).abs() < 0.002, "{slow} s");
    let server = redis.store.server().await;
    let mut recovered = redis::cmd("HSET");
    recovered.arg("flowcast:{account:main}:state").arg("slowed_at").arg(1);
    let _: u64 = server.command(&recovered).await.unwrap();
    acquire(&two).await;
    let whole = redis.reservation(REQUESTS.0, REQUESTS.1).await.stored_period;
    assert!((whole - 0.05).abs() < 0.002, "{whole} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_flow_is_limited_for_all_workers_and_doubles_after_an_hours_worth() {
    let store = redis_store();
    let (one, two) = (limits(&store, Rates::default()).await, limits(&store, Rates::default()).await);
    let flow = |id: &str, flow: &str| CampaignLimits::new(id.parse().unwrap(), Some(flow.into()), None);
    let (first, second, other) = (flow("c1", "1323 :}{"), flow("c2", "1323 :}{"), flow("c3", "9"));
    let recipients = phones(0, 2);
    let acquire = async |limits: &AccountLimits, campaign: &CampaignLimits, count: usize| {
        limits.acquire(campaign, recipients[0], &recipients[..count]).await.unwrap()
    };
    assert!(matches!(acquire(&one, &first, 2).await, Admission::Granted(_)));
    assert!(one.throttle("1323 :}{").await.unwrap());
    assert!(!two.throttle("1323 :}{").await.unwrap());
    assert!(matches!(acquire(&two, &second, 2).await, Admission::OneByOne));
    assert!(matches!(acquire(&two, &second, 1).await, Admission::Granted(_)));
    // Ten per hour for both campaigns together, at any worker.
    for (limits, campaign) in [(&one, &first), (&two, &second)] {
        let Admission::Deferred(wait) = acquire(limits, campaign, 1).await else {
            panic!("the message must wait")
        };
        assert!(wait > Duration::from_secs(350) && wait <= Duration::from_mins(6), "{wait:?}");
    }
    assert!(matches!(acquire(&one, &other, 2).await, Admission::Granted(_)));
    // The stored time is moved back by an hour: the limit doubles if an hour's worth was sent without another throttling, and
    // otherwise stays.
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
        assert!(matches!(acquire(&one, &first, 1).await, Admission::Granted(_)));
        // The time at which the next message is due.
        let full: f64 = server.command(redis::cmd("HGET").arg(&key[0]).arg("full")).await.unwrap();
        let wait = full / 1e6 - now.0;
        assert!((wait - seconds).abs() < 5.0, "{wait} s after {count} messages");
    }
    // Another throttling restarts the limit, and after 14 doublings the flow has no limit.
    assert!(!two.throttle("1323 :}{").await.unwrap());
    let doublings: u32 = server.command(redis::cmd("HGET").arg(&key[0]).arg("doublings")).await.unwrap();
    assert_eq!(doublings, 0);
    let mut last = redis::cmd("HSET");
    last.arg(&key[0]).arg("doublings").arg(14);
    let _: u64 = server.command(&last).await.unwrap();
    age(10 << 14).await;
    assert!(matches!(acquire(&one, &first, 2).await, Admission::Granted(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_recipients_of_a_rolling_day_are_counted_for_all_workers() {
    let store = redis_store();
    let rates = Rates { recipients: rate("10/d"), ..Rates::default() };
    let (one, two) = (limits(&store, rates).await, limits(&store, rates).await);
    let acquire = async |limits: &AccountLimits, from, count| {
        let recipients = phones(from, count);
        match limits.acquire(&campaign(None), recipients[0], &recipients).await.unwrap() {
            Admission::Granted(_) => Duration::ZERO,
            Admission::Deferred(wait) => wait,
            Admission::OneByOne => panic!("no flow is throttled"),
            // Encodes the number of admitted recipients.
            Admission::Only(admitted) => Duration::from_secs(1_000_000 + admitted.len() as u64),
        }
    };
    let cut = |count: u64| Duration::from_secs(1_000_000 + count);
    assert_eq!(acquire(&one, 0, 6).await, Duration::ZERO);
    // A batch is cut to the rest of the limit, which is then used up.
    assert_eq!(acquire(&two, 6, 100).await, cut(4));
    assert_eq!(acquire(&two, 6, 4).await, Duration::ZERO);
    // Recipients of the last 24 hours count once.
    assert_eq!(acquire(&two, 0, 10).await, Duration::ZERO);
    assert_eq!(acquire(&one, 9, 2).await, cut(1));
    let is_a_day = |wait: Duration| wait > Duration::from_secs(86_390) && wait <= Duration::from_secs(86_401);
    let wait = acquire(&one, 10, 1).await;
    assert!(is_a_day(wait), "{wait:?}");
    // A lowered limit admits no new recipients until enough have left the window, but still admits earlier ones.
    one.set_rates(Rates { recipients: rate("3/d"), ..Rates::default() });
    let wait = acquire(&one, 10, 10).await;
    assert!(is_a_day(wait), "{wait:?}");
    assert_eq!(acquire(&one, 5, 10).await, cut(5));
    one.set_rates(rates);
    // The stored times are moved back by a day.
    let server = store.server().await;
    let key = "flowcast:{account:main}:recipients";
    let all: Vec<String> = server.command(redis::cmd("ZRANGE").arg(key).arg(0).arg(-1)).await.unwrap();
    for recipient in all {
        let mut earlier = redis::cmd("ZINCRBY");
        earlier.arg(key).arg("-86400000000").arg(recipient);
        let _: f64 = server.command(&earlier).await.unwrap();
    }
    assert_eq!(acquire(&one, 10, 10).await, Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_waits_for_its_own_limit_delays_no_other() {
    let store = redis_store();
    let limits = Arc::new(limits(&store, Rates { requests: rate("1000/s"), ..Rates::default() }).await);
    let slow = Arc::new(campaign(rate("6/min,burst=1")));
    let recipients = phones(0, 1);
    limits.acquire(&slow, recipients[0], &recipients).await.unwrap();
    let waiting = {
        let (limits, slow, recipients) = (limits.clone(), slow.clone(), recipients.clone());
        tokio::spawn(async move { limits.acquire(&slow, recipients[0], &recipients).await.map(drop) })
    };
    tokio::task::yield_now().await;
    let start = Instant::now();
    for _ in 0..10 {
        let other = CampaignLimits::new("c2".parse().unwrap(), None, None);
        assert!(matches!(
            limits.acquire(&other, recipients[0], &recipients).await.unwrap(),
            Admission::Granted(_)
        ));
    }
    assert!(start.elapsed() < Duration::from_secs(5) && !waiting.is_finished());
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_waits_for_its_own_limit_delays_no_other() {
    let store = redis_store();
    let rates = Rates { requests: rate("1000/s"), messages: rate("20/s,burst=5"), ..Rates::default() };
    let limits = Arc::new(limits(&store, rates).await);
    let numbers = phones(0, 2);
    // Ten campaigns wait for the first number.
    let busy: Vec<_> = (0..10)
        .map(|nth| {
            let (limits, from, recipients) = (limits.clone(), numbers[0], phones(10, 5));
            tokio::spawn(async move {
                let own = CampaignLimits::new(format!("busy{nth}").parse().unwrap(), None, None);
                loop {
                    limits.acquire(&own, from, &recipients).await.unwrap();
                }
            })
        })
        .collect();
    let own = CampaignLimits::new("other".parse().unwrap(), None, None);
    let (recipients, start) = (phones(20, 5), Instant::now());
    for _ in 0..9 {
        assert!(matches!(
            limits.acquire(&own, numbers[1], &recipients).await.unwrap(),
            Admission::Granted(_)
        ));
    }
    // Forty messages after the burst take two seconds; behind those of the first number they would take three times as long.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1_950) && took < Duration::from_secs(4), "{took:?}");
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_whose_clock_goes_back_stalls_no_limit() {
    let store = redis_store();
    let rates = Rates { requests: rate("20/s,burst=2"), messages: rate("100/s"), ..Rates::default() };
    let limits = limits(&store, rates).await;
    let recipients = phones(0, 10);
    let acquire = async || limits.acquire(&campaign(None), recipients[0], &recipients).await.unwrap();
    acquire().await;
    limits.slow_down(Duration::from_millis(300)).await.unwrap();
    // All stored times are an hour ahead of the server's clock.
    let server = store.server().await;
    for key in ["requests", "messages:+919800000000"] {
        let key = format!("flowcast:{{account:main}}:{key}");
        let stored: String = server.command(redis::cmd("GET").arg(&key)).await.unwrap();
        let (full, rest) = stored.split_once(' ').unwrap();
        let later = format!("{} {rest}", full.parse::<f64>().unwrap() + 3.6e9);
        let _: String = server.command(redis::cmd("SET").arg(&key).arg(later)).await.unwrap();
    }
    for field in ["paused_until", "slowed_at", "paused_at"] {
        let mut later = redis::cmd("HINCRBYFLOAT");
        later.arg("flowcast:{account:main}:state").arg(field).arg("3600000000");
        let _: f64 = server.command(&later).await.unwrap();
    }
    let start = Instant::now();
    assert!(matches!(acquire().await, Admission::Granted(_)));
    let took = start.elapsed();
    // The pause keeps its length, and at worst the buckets are empty.
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(2), "{took:?}");
}

/// Three workers share limits that change at random times. A checker computes every window from the reservations in Redis,
/// because the time at which a sender wakes depends on the machine.
#[tokio::test(flavor = "multi_thread")]
async fn no_window_exceeds_a_shared_limit_while_it_changes() {
    let mut random = SmallRng::seed_from_u64(first_seed_of_commit());
    let mut random_rate = || -> Rate {
        let count: u32 = random.random_range(20..400);
        format!("{count}/s,burst={}", random.random_range(20..60)).parse().unwrap()
    };
    let mut redis = MonitoredRedis::start().await;
    let rates = |rate: Rate| Rates { messages: Some(rate), ..Rates::default() };
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Arc::new(limits(&redis.store, rates(random_rate())).await));
    }
    let mut tasks = Vec::new();
    for (nth, limits) in workers.iter().enumerate() {
        let limits = limits.clone();
        tasks.push(tokio::spawn(async move {
            let own = CampaignLimits::new(format!("c{nth}").parse().unwrap(), None, None);
            let recipients = phones(0, 20);
            loop {
                limits.acquire(&own, recipients[0], &recipients).await.unwrap();
            }
        }));
    }
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let rate = random_rate();
        for limits in &workers {
            limits.set_rates(rates(rate));
        }
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    // A last command marks the end of the reservations.
    let mut end = redis::cmd("SET");
    end.arg("flowcast:{account:main}:messages:0").arg("0 1 1").arg("PX").arg(1000);
    let _: String = redis.store.server().await.command(&end).await.unwrap();
    let mut reservations = Vec::new();
    loop {
        let reserved = redis.reservation(MESSAGES.0, MESSAGES.1).await;
        if reserved.full == 0.0 {
            break;
        }
        reservations.push((
            reserved.reserved_at.max(reserved.full - reserved.burst * reserved.stored_period),
            reserved,
        ));
    }
    assert!(reservations.len() > 20, "{}", reservations.len());
    for first in 0..reservations.len() {
        let (mut sum, mut allowed) = (0.0, reservations[first].1.burst);
        for nth in first..reservations.len() {
            if nth > first {
                // Between the two, either rate may have been valid.
                let (before, now) = (&reservations[nth - 1], &reservations[nth]);
                allowed += (now.0 - before.0 + 0.002) / now.1.stored_period.min(before.1.stored_period);
            }
            sum += reservations[nth].1.tokens;
            assert!(sum <= allowed + 1e-6, "{sum} from the {first}th to the {nth}th, allowed {allowed}");
        }
    }
}
