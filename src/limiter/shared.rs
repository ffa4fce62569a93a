//! The buckets of a fleet, in Redis.
//!
//! One script takes from all buckets of a send in one step. It returns either the time at which the send is due, with its
//! tokens taken, or how long the send has to wait. Times are the server's, in microseconds.
//!
//! The keys of an account share the hash tag `{account:NAME}`, which is never a campaign's id.

use std::{sync::LazyLock, time::Duration};

use tokio::time::Instant;

use super::{
    DOUBLINGS, EARLIER, HOUR, LEAST_SHARE, Line, Reservation, STEP, THROTTLE_RETENTION, THROTTLED_PER_HOUR,
    Wanted,
};
use crate::campaign::Rate;
use crate::micro_batch::MicroBatch;
use crate::redis_client::{RedisClient, RedisClientError, Script};

static RESERVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("reserve.lua")));
static THROTTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("throttle.lua")));
static SLOW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("slow.lua")));

/// Requests of a campaign that ask for their tokens together, each as its count of messages.
pub(super) type PendingReservations = MicroBatch<(), usize, Result<Reservation, RedisClientError>>;

/// Send that asks for its tokens.
#[derive(Clone, Copy)]
pub(super) struct ReservationBatcher<'a> {
    pub(super) server: &'a RedisClient,
    pub(super) account: &'a str,
    pub(super) wanted: Wanted<'a>,
    pub(super) concurrency: usize,
}

impl ReservationBatcher<'_> {
    /// Takes the tokens of a request from all buckets of its account and campaign.
    pub(super) async fn ask(&self) -> Result<Reservation, RedisClientError> {
        self.ask_for(1, self.wanted.recipients.len()).await
    }

    /// Takes them together with other requests of the campaign.
    ///
    /// Where recipients are limited, each request asks separately.
    pub(super) async fn ask_together(&self) -> Result<Reservation, RedisClientError> {
        let Wanted { rates, campaign, recipients, .. } = self.wanted;
        if rates.recipients.is_some() {
            return self.ask().await;
        }
        let burst = |rate: Option<Rate>| rate.map_or(usize::MAX, |rate| rate.burst().get() as usize);
        let most = burst(rates.messages).min(burst(campaign.rate));
        // As many as fit every burst: they may all go out at once.
        let fitting = |counts: &mut dyn Iterator<Item = &usize>| {
            let mut messages = 0;
            let fits = |count: &&usize| {
                messages += **count;
                messages <= most
            };
            counts.take(burst(rates.requests)).take_while(fits).count()
        };
        loop {
            let ask = |(), counts: Vec<usize>| async move {
                ((), vec![self.ask_for(counts.len(), counts.iter().sum()).await; counts.len()])
            };
            // Without an answer, the sender that asked for all was dropped.
            if let Some(asked) = campaign.gathered.submit(recipients.len(), true, fitting, ask).await {
                return asked;
            }
        }
    }

    async fn ask_for(&self, requests: usize, messages: usize) -> Result<Reservation, RedisClientError> {
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

        let bucket = |rate: Option<Rate>| (period(rate), burst(rate));
        let buckets = (bucket(rates.requests), bucket(rates.messages), bucket(campaign.rate));
        let times = (EARLIER.as_micros() as u64, STEP.as_micros() as u64, LEAST_SHARE.to_string());
        let (count, per) =
            rates.recipients.map_or((0, 0), |rate| (rate.count(), rate.per().as_micros() as u64));
        let flow = (campaign.flow.is_some(), HOUR.as_micros() as u64, THROTTLED_PER_HOUR, DOUBLINGS);
        let retention = THROTTLE_RETENTION.as_millis() as u64;
        let numbers = recipients.iter().filter(|_| rates.recipients.is_some());
        let numbers: Vec<u64> = numbers.map(|phone| phone.digits()).collect();
        let args = (messages, buckets, times, count, per, flow, concurrency, requests, retention, numbers);
        let answer: Vec<u64> = server.run(&RESERVE, keys, args).await?;
        let [kind, wait, what, back, some @ ..] = answer.as_slice() else {
            return Err(RedisClientError::Refused("returned too few values for a rate limit".into()));
        };
        if *back > 0 {
            let seconds = Duration::from_micros(*back).as_secs_f64();
            tracing::warn!(account, seconds, "Redis' clock went back; rate limits follow it");
        }
        let wait = Duration::from_micros(*wait);
        Ok(match kind {
            1 => Reservation::At(Instant::now() + wait, *what == 1),
            2 => Reservation::OneByOne,
            3 => Reservation::Only(some.iter().map(|place| *place as usize).collect()),
            4 => Reservation::Full(wait),
            _ => Reservation::Later(
                wait,
                [Line::Campaign, Line::Sender, Line::Account][(*what as usize).min(2)],
            ),
        })
    }
}

/// Returns the key of a flow.
///
/// Jobs may use any name for a flow, so the key contains a digest.
fn flow_key(account: &str, flow: &str) -> String {
    format!("flowcast:{{account:{account}}}:flow:{}", &blake3::hash(flow.as_bytes()).to_hex()[..16])
}

/// Throttles a flow for all workers; returns whether it was not throttled before.
pub(super) async fn throttle(
    server: &RedisClient,
    account: &str,
    flow: &str,
) -> Result<bool, RedisClientError> {
    let retention = THROTTLE_RETENTION.as_millis() as u64;
    Ok(server.run::<u64>(&THROTTLE, &[flow_key(account, flow)], retention).await? == 1)
}

/// Pauses an account for all workers, then reduces its rate.
pub(super) async fn slow_down(
    server: &RedisClient,
    account: &str,
    wait: Duration,
) -> Result<(), RedisClientError> {
    let key = format!("flowcast:{{account:{account}}}:state");
    let args = (wait.as_micros() as u64, STEP.as_micros() as u64, LEAST_SHARE.to_string());
    server.run(&SLOW, &[key], args).await
}
