//! The buckets of a fleet, in Redis. One script takes from all buckets of a send at once, by
//! reservation: it says when the send is due, and the tokens are taken for that moment. Times are
//! the server's, in microseconds.
//!
//! The keys of an account share its hash tag `{account:NAME}`, which no campaign's id can be.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{CampaignLimits, LEAST_SHARE, LONGEST_WAIT, Rates, STEP};
use crate::campaign::{Phone, Rate};
use crate::redis_server::{Arg, Fault, RedisServer, Script};

/// A campaign whose own limit lies so much further off than the account's asks again, so early.
pub(super) const EARLIER: Duration = Duration::from_millis(20);

/// What the script says.
pub(super) enum Reserved {
    /// The tokens are taken; the send is due then.
    At(Instant),
    /// No token was taken; it is to be asked for again after this.
    Later(Duration),
}

static RESERVE: LazyLock<Script> = LazyLock::new(|| Script::new(&[include_str!("reserve.lua")]));
static SLOW: LazyLock<Script> = LazyLock::new(|| Script::new(&[include_str!("slow.lua")]));

/// Takes the tokens of one request from all buckets of its account and campaign.
pub(super) async fn reserve(
    server: &RedisServer,
    account: &str,
    rates: Rates,
    campaign: &CampaignLimits,
    from: Phone,
    recipients: &[Phone],
) -> Result<Reserved, Fault> {
    let key = |rest: String| format!("flowcast:{{account:{account}}}:{rest}");
    let keys = [
        key("state".into()),
        key("requests".into()),
        key(format!("messages:{from}")),
        key(format!("campaign:{}", campaign.id)),
        key("recipients".into()),
    ];
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
        (recipients.len() as u64).into(),
        Arg::from(&periods[0]),
        burst(rates.requests).into(),
        Arg::from(&periods[1]),
        burst(rates.messages).into(),
        Arg::from(&periods[2]),
        burst(campaign.rate).into(),
        (EARLIER.as_micros() as u64).into(),
        (LONGEST_WAIT.as_micros() as u64).into(),
        (STEP.as_micros() as u64).into(),
        Arg::from(&least),
        rates.recipients.map_or(0, |rate| u64::from(rate.count())).into(),
        rates.recipients.map_or(0, |rate| rate.per().as_micros() as u64).into(),
    ];
    args.extend(numbers.iter().map(Arg::from));
    let (granted, wait): (u64, u64) = server.run(&RESERVE, &keys, &args).await?;
    let wait = Duration::from_micros(wait);
    Ok(if granted == 1 { Reserved::At(Instant::now() + wait) } else { Reserved::Later(wait) })
}

/// Pauses an account for every worker, and slows it for the time after.
pub(super) async fn slow_down(server: &RedisServer, account: &str, wait: Duration) -> Result<(), Fault> {
    let key = format!("flowcast:{{account:{account}}}:state");
    let least = LEAST_SHARE.to_string();
    let args = [Arg::from(wait.as_micros() as u64), Arg::from(STEP.as_micros() as u64), Arg::from(&least)];
    server.run::<u64>(&SLOW, &[key], &args).await?;
    Ok(())
}
