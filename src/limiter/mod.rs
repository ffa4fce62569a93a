//! Rate limits: token buckets, from all of which each send takes its tokens in one step.
//!
//! Requests and messages are counted separately, because providers count them separately. The limiter delays; it never
//! fails a message. In a single process the buckets are governor's (`process.rs`); a fleet keeps them in Redis, where one
//! script takes from all of them (`shared.rs`).
//!
//! Tokens are taken at most 20 ms before they are due. A send that has to wait longer takes none and asks again later.
//! So no token is wasted when a limit changes, the account pauses or another bucket makes the send wait.
//!
//! A sender queues for three locks in order: with the senders of its campaign, then (one sender per campaign) with those of
//! its sender number, then with those of its account. It releases the locks after the one whose bucket it waits for: a
//! campaign or a number that waits for its own limit delays no other.

mod account;
mod bucket;
mod concurrency;
mod process;
mod shared;
#[cfg(test)]
mod tests;

use std::{sync::OnceLock, time::Duration};

use tokio::sync::{Mutex, OwnedSemaphorePermit};
use tokio::time::Instant;

use crate::campaign::{BATCH_LIMIT, CampaignId, Phone, Rate};
pub use account::AccountLimits;
pub use concurrency::Concurrency;
use shared::PendingReservations;

/// Longest wait inside the limiter. A longer one is returned to the sender, so that it does not hold its batch.
pub const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Number of sender numbers from which unused ones are removed.
const SENDERS: usize = 1_000;
/// Time before its tokens are due at which a send takes them.
const EARLIER: Duration = Duration::from_millis(20);
/// Smallest share of its rate to which an account is slowed.
const LEAST_SHARE: f64 = 0.1;
/// Period over which the messages of a throttled flow are counted.
const HOUR: Duration = Duration::from_hours(1);
/// Messages an hour that `WhatsApp` allows a throttled flow (document 004).
const THROTTLED_PER_HOUR: u32 = 10;
/// Doublings of that limit, after which it exceeds the limit of a sender number.
const DOUBLINGS: u32 = 15;
/// Time for which a throttled flow is kept after its last message.
const THROTTLE_RETENTION: Duration = Duration::from_hours(7 * 24);
/// Interval after which a slowed account gets back a tenth of its rate.
const STEP: Duration = Duration::from_secs(10);

/// Rate limits of an account; `None` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Requests of the account.
    pub requests: Option<Rate>,
    /// Messages of each sender number.
    pub messages: Option<Rate>,
    /// Unique recipients of the account in a rolling period.
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

/// Limits of a campaign.
pub struct CampaignLimits {
    id: CampaignId,
    /// Flow that its messages open, which may be throttled.
    flow: Option<String>,
    rate: Option<Rate>,
    turn: Mutex<()>,
    /// Keys of its shared buckets, once known, and the requests that ask for their tokens together.
    keys: OnceLock<[String; 6]>,
    gathered: PendingReservations,
}

/// Answer to a sender.
#[derive(Debug)]
pub enum Admission {
    /// The sender may send now, and holds a permit for its request until this is dropped.
    Granted(OwnedSemaphorePermit),
    /// Not before this delay.
    Deferred(Duration),
    /// The flow is throttled: ask for one message at a time.
    OneByOne,
    /// A limit leaves room for only some of the recipients: ask for those at these indexes.
    Only(Vec<usize>),
}

/// Send that wants tokens.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    rates: Rates,
    campaign: &'w CampaignLimits,
    from: Phone,
    recipients: &'w [Phone],
}

/// Answer of the buckets.
#[derive(Clone)]
enum Reservation {
    /// The tokens are taken, and the send is due at this time. The flag says whether the buckets also have room for as many
    /// more requests as the worker has in flight.
    At(Instant, bool),
    /// No token was taken; the sender waits for this time, in this line.
    Later(Duration, Line),
    /// No token was taken: the limit of recipients is used up, for this time.
    Full(Duration),
    /// No token was taken: ask for one message at a time.
    OneByOne,
    /// No token was taken: ask for the recipients at these indexes.
    Only(Vec<usize>),
}

/// Owner of the bucket that a send waits for, the narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    Campaign,
    Sender,
    Account,
}

/// Returns the largest batch size that fits the burst of each bucket.
pub fn batch_size(campaign: Option<Rate>, account: Rates) -> usize {
    let bursts = [campaign, account.messages].into_iter().flatten().map(|rate| rate.burst().get() as usize);
    bursts.fold(BATCH_LIMIT, usize::min).max(1)
}

impl CampaignLimits {
    /// Creates the limits of a campaign: its own rate, and that of its flow.
    pub fn new(id: CampaignId, flow: Option<String>, messages: Option<Rate>) -> Self {
        Self {
            id,
            flow,
            rate: messages,
            turn: Mutex::default(),
            keys: OnceLock::new(),
            gathered: PendingReservations::default(),
        }
    }
}

/// Returns the messages an hour of a throttled flow after some doublings.
///
/// `None` means that it is no longer limited.
fn throttled(doublings: u32) -> Option<u32> {
    (doublings < DOUBLINGS).then(|| THROTTLED_PER_HOUR << doublings)
}

/// Returns an account's share of its rate some time after it was slowed to `share`.
fn slowed(share: f64, since: Duration) -> f64 {
    let steps = (since.as_secs() / STEP.as_secs()) as f64;
    (share + steps * 0.1).min(1.0)
}
