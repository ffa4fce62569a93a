//! Limits, compared with a checker that knows nothing of their implementation: it adds up every window of time.
//!
//! Limits change at random times, the provider asks to slow down, and several sender numbers and campaigns want more than
//! they get. No bucket may grant more than its rate and burst, and each must grant all it has.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowcast::campaign::{Phone, Rate};
use flowcast::limiter::{AccountLimits, Admission, CampaignLimits, Concurrency, Rates};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::support::first_seed_of_commit;

/// Time after a change of a limit within which a send that was admitted before may go out, in seconds.
const GRACE: f64 = 0.021;

/// A limit over time: the second from which each rate applies.
type History = Vec<(f64, Rate)>;

/// Returns the rate and burst in force at a time.
fn rate_at(history: &History, time: f64) -> Rate {
    history.iter().rev().find(|(from, _)| *from <= time).map_or(history[0].1, |(_, rate)| *rate)
}

/// Returns the tokens that are refilled between two times.
fn refilled(history: &History, from: f64, to: f64) -> f64 {
    let ends = history.iter().skip(1).map(|(at, _)| *at).chain([f64::INFINITY]);
    let of = |((begins, rate), ends): (&(f64, Rate), f64)| {
        (to.min(ends) - from.max(*begins)).max(0.0) * rate.per_second()
    };
    history.iter().zip(ends).map(of).sum()
}

/// Returns the tokens allowed on top around a change: sends admitted just before it may go out just after it.
fn grace_tokens(history: &History, time: f64) -> f64 {
    let (now, before) = (rate_at(history, time), rate_at(history, time - GRACE));
    if now == before { 0.0 } else { before.per_second().max(now.per_second()) * GRACE }
}

/// Asserts that no window of sends (seconds, tokens) has more tokens than the burst and what was refilled.
fn assert_windows(name: &str, sends: &[(f64, f64)], history: &History) {
    for (first, (begin, _)) in sends.iter().enumerate() {
        let (now, before) = (rate_at(history, *begin), rate_at(history, begin - GRACE));
        let burst = f64::from(now.burst().get().max(before.burst().get()));
        // The runtime's timer has a granularity of 1 ms.
        let tolerance = now.per_second() * 0.001 + grace_tokens(history, *begin);
        let mut sum = 0.0;
        for (time, tokens) in &sends[first..] {
            sum += tokens;
            let allowed = burst + refilled(history, *begin, *time) + tolerance + grace_tokens(history, *time);
            assert!(
                sum <= allowed + 1e-6,
                "{name}: {sum} from {begin} to {time}, allowed {allowed:.2} by {history:?}"
            );
        }
    }
}

/// Whether a limit was used up between two times, except for the tokens left at the end. If a send needs tokens of two
/// similarly tight buckets, each of them is full at times while the send waits for the other; a starved sender gets at most a
/// third.
fn is_used(sends: &[(f64, f64)], history: &History, from: f64, to: f64) -> bool {
    let sent: f64 = sends.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, tokens)| tokens).sum();
    sent + f64::from(rate_at(history, from).burst().get()) > 0.7 * refilled(history, from, to)
}

/// The admitted sends: second, sender number, campaign, number of messages.
type Sends = Arc<Mutex<Vec<(f64, usize, usize, usize)>>>;

/// Returns a random limit. Its burst is worth at least a twentieth of a second, or one message.
fn random_rate(random: &mut SmallRng) -> Rate {
    let count: u32 = random.random_range(5..200);
    let burst = random.random_range(1.max(count / 20)..=count);
    format!("{count}/s,burst={burst}").parse().unwrap()
}

/// Sends a campaign from a number for ever, in batches of random size.
async fn send_forever(
    limits: Arc<AccountLimits>,
    campaign: CampaignLimits,
    (sender, nth): (usize, usize),
    sends: Sends,
    start: Instant,
) {
    let from = Phone::from_digits(912_248_931_479 + sender as u64).unwrap();
    let mut random = SmallRng::seed_from_u64((sender * 100 + nth) as u64);
    loop {
        let count = random.random_range(1..=100);
        let mut recipients: Vec<Phone> =
            (0..count).map(|nth| Phone::from_digits(919_800_000_000 + nth).unwrap()).collect();
        while !recipients.is_empty() {
            match limits.acquire(&campaign, from, &recipients).await.unwrap() {
                Admission::Granted(_) => {
                    sends.lock().unwrap().push((
                        start.elapsed().as_secs_f64(),
                        sender,
                        nth,
                        recipients.len(),
                    ));
                    break;
                }
                Admission::Only(some) => recipients = some.iter().map(|index| recipients[*index]).collect(),
                Admission::Deferred(wait) => sleep(wait).await,
                Admission::OneByOne => unreachable!("no flow is throttled"),
            }
        }
    }
}

/// Runs an account with two sender numbers and two campaigns each for a minute, and checks its limits.
async fn check_account(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let maybe_rate =
        |random: &mut SmallRng, share: f64| random.random_bool(share).then(|| random_rate(random));
    let mut rates = Rates {
        requests: maybe_rate(&mut random, 0.5),
        messages: Some(random_rate(&mut random)),
        recipients: None,
    };
    let own: Vec<Option<Rate>> = (0..4).map(|_| maybe_rate(&mut random, 0.3)).collect();
    let limits = Arc::new(AccountLimits::new(rates, Concurrency::fixed(100)));
    let (sends, start) = (Sends::default(), Instant::now());
    let mut tasks = Vec::new();
    for (nth, own) in own.iter().enumerate() {
        let campaign = CampaignLimits::new(format!("c{nth}").parse().unwrap(), None, *own);
        tasks.push(tokio::spawn(send_forever(
            limits.clone(),
            campaign,
            (nth / 2, nth),
            sends.clone(),
            start,
        )));
    }
    let (mut requests, mut messages) = (Vec::new(), Vec::new());
    let mut pauses: Vec<(f64, f64)> = Vec::new();
    let record_rates = |rates: &Rates, requests: &mut History, messages: &mut History| {
        let now = start.elapsed().as_secs_f64();
        requests.extend(rates.requests.map(|rate| (now, rate)));
        messages.extend(rates.messages.map(|rate| (now, rate)));
    };
    record_rates(&rates, &mut requests, &mut messages);
    let is_limited = random.random_bool(0.3);
    while start.elapsed() < Duration::from_mins(1) {
        sleep(Duration::from_secs_f64(random.random_range(0.01..10.0))).await;
        if is_limited && random.random_bool(0.3) {
            let pause = random.random_range(0.1..3.0);
            limits.slow_down(Duration::from_secs_f64(pause)).await.unwrap();
            pauses.push((start.elapsed().as_secs_f64(), pause));
        } else {
            let slight = random.random_bool(0.2);
            // Some change by a single message, as an operator does who tries out what the provider accepts.
            rates.messages = rates.messages.map(|known| {
                let slightly = format!("{}/s,burst={}", known.count() ^ 1, known.burst());
                if slight { slightly.parse().unwrap() } else { random_rate(&mut random) }
            });
            rates.requests = rates.requests.map(|_| random_rate(&mut random));
            limits.set_rates(rates);
            record_rates(&rates, &mut requests, &mut messages);
        }
    }
    let ended = start.elapsed().as_secs_f64();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);

    let sends = sends.lock().unwrap().clone();
    let of = |is: &dyn Fn(usize, usize) -> bool| -> Vec<(f64, f64)> {
        sends.iter().filter(|(_, s, c, _)| is(*s, *c)).map(|(at, .., n)| (*at, *n as f64)).collect()
    };
    for (begin, span) in &pauses {
        let early = sends.iter().find(|(at, ..)| *at > begin + GRACE && *at < begin + span - 1e-6);
        assert!(early.is_none(), "seed {seed}: {early:?} in the pause from {begin} for {span} s");
    }
    if !requests.is_empty() {
        let each: Vec<(f64, f64)> = sends.iter().map(|(at, ..)| (*at, 1.0)).collect();
        assert_windows(&format!("seed {seed}, requests"), &each, &requests);
    }
    for sender in 0..2 {
        assert_windows(&format!("seed {seed}, number {sender}"), &of(&|s, _| s == sender), &messages);
    }
    let own_history = |nth: usize| own[nth].map(|rate| vec![(0.0, rate)]);
    for nth in 0..4 {
        if let Some(history) = own_history(nth) {
            assert_windows(&format!("seed {seed}, campaign {nth}"), &of(&|_, c| c == nth), &history);
        }
    }
    if !pauses.is_empty() {
        return;
    }
    // Each number gets all that its limits allow, however busy the other one is.
    let each: Vec<(f64, f64)> = sends.iter().map(|(at, ..)| (*at, 1.0)).collect();
    let ends = messages.iter().skip(1).map(|(at, _)| *at).chain([ended]);
    for ((begin, _), end) in messages.iter().zip(ends).filter(|((begin, _), end)| end - begin > 2.0) {
        if !requests.is_empty() && is_used(&each, &requests, *begin, end) {
            continue;
        }
        for sender in 0..2 {
            let own = |nth: usize| {
                let sends = of(&|_, c| c == nth);
                own_history(nth).is_some_and(|history| is_used(&sends, &history, *begin, end))
            };
            assert!(
                is_used(&of(&|s, _| s == sender), &messages, *begin, end)
                    || (sender * 2..sender * 2 + 2).all(own),
                "seed {seed}: number {sender} must use up a limit from {begin} to {end}: {messages:?} {requests:?}"
            );
        }
    }
}

#[test]
fn no_window_exceeds_a_limit_and_each_number_uses_it_up() {
    let first = first_seed_of_commit();
    let count = std::env::var("FLOWCAST_LIMIT_SEEDS").map_or(60, |count| count.parse().unwrap());
    for seed in first..first + count {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check_account(seed));
    }
}
