//! The buckets of a fleet, in Redis. One script takes from all buckets of a send at once: it says when the send is due, and
//! the tokens are taken for that moment, or how long it has to wait. Times are the server's, in microseconds.
//!
//! The keys of an account share its hash tag `{account:NAME}`, which no campaign's id can be.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use super::{Asked, DOUBLINGS, EARLIER, HOUR, LEAST_SHARE, Line, REMEMBERED, STEP, THROTTLED, Wanted};
use crate::campaign::Rate;
use crate::redis_client::{Arg, RedisClient, RedisClientError, Script};

static RESERVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("reserve.lua")));
static THROTTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("throttle.lua")));
static SLOW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("slow.lua")));

/// Requests of a campaign that want their tokens at the same time, and ask for them together. Each ask
/// waits for the one before it, so what has gathered meanwhile goes with the next.
#[derive(Default)]
pub(super) struct Gathered {
    waiting: parking_lot::Mutex<Vec<Waiting>>,
    asking: Mutex<()>,
}

/// How many messages a request has, and where its answer goes.
type Waiting = (usize, oneshot::Sender<Result<Asked, RedisClientError>>);

/// Who asks, and for what.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) server: &'a RedisClient,
    pub(super) account: &'a str,
    pub(super) wanted: Wanted<'a>,
    pub(super) concurrency: usize,
}

impl Asker<'_> {
    /// Takes the tokens of one request from all buckets of its account and campaign.
    pub(super) async fn ask(&self) -> Result<Asked, RedisClientError> {
        self.ask_for(1, self.wanted.recipients.len()).await
    }

    /// The same together with others of the campaign that ask now. Where recipients are limited each asks
    /// for itself.
    pub(super) async fn ask_together(&self) -> Result<Asked, RedisClientError> {
        let Wanted { rates, campaign, recipients, .. } = self.wanted;
        if rates.recipients.is_some() {
            return self.ask().await;
        }
        let Gathered { waiting, asking } = &campaign.gathered;
        let stand_in_line = || {
            let (sender, answer) = oneshot::channel();
            waiting.lock().push((recipients.len(), sender));
            answer
        };
        let mut answer = stand_in_line();
        loop {
            let turn = tokio::select! {
                biased;
                answered = &mut answer => {
                    if let Ok(asked) = answered {
                        return asked;
                    }
                    // Whoever asked for all has been given up.
                    answer = stand_in_line();
                    continue;
                }
                turn = asking.lock() => turn,
            };
            // Whoever is ready to ask as well goes along.
            tokio::task::yield_now().await;
            let (all, messages) = self.some_of(&mut waiting.lock());
            let asked = self.ask_for(all.len(), messages).await;
            for (_, sender) in all {
                // A sender that has given up wants no answer.
                let _ = sender.send(asked.clone());
            }
            // Only now: whoever is next finds its answer first, if it was among these.
            drop(turn);
        }
    }

    /// Takes as many as fit every burst: they may all go out at once.
    fn some_of(&self, waiting: &mut Vec<Waiting>) -> (Vec<Waiting>, usize) {
        let burst = |rate: Option<Rate>| rate.map_or(usize::MAX, |rate| rate.burst().get() as usize);
        let Wanted { rates, campaign, .. } = self.wanted;
        let most = burst(rates.messages).min(burst(campaign.rate));
        waiting.retain(|(_, sender)| !sender.is_closed());
        let mut messages = 0;
        let mut fits = |(count, _): &Waiting| {
            messages += count;
            messages <= most
        };
        let count = waiting.iter().take(burst(rates.requests)).take_while(|each| fits(each)).count().max(1);
        let all: Vec<Waiting> = waiting.drain(..count.min(waiting.len())).collect();
        let messages = all.iter().map(|(messages, _)| messages).sum();
        (all, messages)
    }

    async fn ask_for(&self, requests: usize, messages: usize) -> Result<Asked, RedisClientError> {
        let Self { server, account, concurrency, .. } = *self;
        let Wanted { rates, campaign, from, recipients } = self.wanted;
        // A campaign has one account and one sender number.
        let keys = campaign.keys.get_or_init(|| {
            let key = |rest: String| format!("flowcast:{{account:{account}}}:{rest}");
            [
                key("state".into()),
                key("requests".into()),
                key(format!("messages:{from}")),
                key(format!("campaign:{}", campaign.id)),
                key("recipients".into()),
                flow_key(account, campaign.flow.as_deref().unwrap_or_default()),
            ]
        });
        let period =
            |rate: Option<Rate>| rate.map_or("0".into(), |rate| format!("{:.6}", 1e6 / rate.per_second()));
        let burst = |rate: Option<Rate>| rate.map_or(0, |rate| u64::from(rate.burst().get()));
        let periods = [period(rates.requests), period(rates.messages), period(campaign.rate)];
        let numbers: Vec<String> = match rates.recipients {
            Some(_) => recipients.iter().map(|phone| phone.digits().to_string()).collect(),
            None => Vec::new(),
        };
        let least = LEAST_SHARE.to_string();
        let mut args: Vec<Arg> = vec![
            (messages as u64).into(),
            Arg::from(&periods[0]),
            burst(rates.requests).into(),
            Arg::from(&periods[1]),
            burst(rates.messages).into(),
            Arg::from(&periods[2]),
            burst(campaign.rate).into(),
            (EARLIER.as_micros() as u64).into(),
            (STEP.as_micros() as u64).into(),
            Arg::from(&least),
            rates.recipients.map_or(0, |rate| u64::from(rate.count())).into(),
            rates.recipients.map_or(0, |rate| rate.per().as_micros() as u64).into(),
        ];
        args.extend([Arg::from(campaign.flow.is_some()), (HOUR.as_micros() as u64).into()]);
        args.extend([Arg::from(u64::from(THROTTLED)), u64::from(DOUBLINGS).into()]);
        args.extend([Arg::from(concurrency as u64), Arg::from(requests as u64)]);
        args.push(Arg::from(REMEMBERED.as_millis() as u64));
        args.extend(numbers.iter().map(Arg::from));
        let answer: Vec<u64> = server.run(&RESERVE, keys, &args).await?;
        let [kind, wait, what, back, some @ ..] = answer.as_slice() else {
            return Err(RedisClientError::Refused("answered a limit with too little".into()));
        };
        if *back > 0 {
            let seconds = Duration::from_micros(*back).as_secs_f64();
            tracing::warn!(account, "Redis' clock went back by {seconds:.1} s; limits follow it");
        }
        let wait = Duration::from_micros(*wait);
        Ok(match kind {
            1 => Asked::At(Instant::now() + wait, *what == 1),
            2 => Asked::OneByOne,
            3 => Asked::Only(some.iter().map(|place| *place as usize).collect()),
            4 => Asked::Full(wait),
            _ => Asked::Later(wait, [Line::Campaign, Line::Sender, Line::Account][(*what as usize).min(2)]),
        })
    }
}

/// A flow may be called whatever a job likes, so its key has a digest of that.
fn flow_key(account: &str, flow: &str) -> String {
    format!("flowcast:{{account:{account}}}:flow:{}", &blake3::hash(flow.as_bytes()).to_hex()[..16])
}

/// Slows a flow for every worker. Returns whether it was not slowed before.
pub(super) async fn throttle(
    server: &RedisClient,
    account: &str,
    flow: &str,
) -> Result<bool, RedisClientError> {
    let args = [Arg::from(REMEMBERED.as_millis() as u64)];
    let is_new: u64 = server.run(&THROTTLE, &[flow_key(account, flow)], &args).await?;
    Ok(is_new == 1)
}

/// Pauses an account for every worker, and slows it for the time after.
pub(super) async fn slow_down(
    server: &RedisClient,
    account: &str,
    wait: Duration,
) -> Result<(), RedisClientError> {
    let key = format!("flowcast:{{account:{account}}}:state");
    let least = LEAST_SHARE.to_string();
    let args = [Arg::from(wait.as_micros() as u64), Arg::from(STEP.as_micros() as u64), Arg::from(&least)];
    server.run::<u64>(&SLOW, &[key], &args).await?;
    Ok(())
}
