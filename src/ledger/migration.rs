//! Moves the campaigns of an embedded store to a fleet's Redis, in the middle of a campaign too.
//!
//! All that takes long comes first and starts nothing: the keys of each campaign but its hash, without which nobody sees it.
//! Then the store is marked, and from that moment no worker opens it. Only then do the campaigns begin in Redis. Killed at
//! any moment, it is done by running it again: before the mark the store has everything, after it Redis does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::redis::Redis;
use super::{
    Act, Batches, Breaker, Breakers, Campaign, CampaignDrafts, Ledger, LedgerError, Point, Sqlite, Suppress,
    Suppression, SuppressionUpdate,
};
use super::{claims, listing};
use crate::campaign::{CampaignId, Phone};

/// How many batches are read and written together.
const TOGETHER: usize = 64;
/// The same for suppressed numbers.
const NUMBERS: usize = 10_000;

/// All that a store keeps of a campaign, without its batches.
pub(super) struct WholeCampaign {
    pub(super) campaign: Campaign,
    pub(super) fingerprint: String,
    pub(super) job: String,
    /// A JSON list.
    pub(super) columns: String,
    /// Batches, rows and digest of its checkpoint.
    pub(super) plan: (u32, u64, String),
    /// Counters, by kind and word.
    pub(super) tallies: Vec<(String, String, u64)>,
    /// Texts, by kind and word.
    pub(super) texts: Vec<(String, String, String)>,
    /// The skipped rows: row, recipient, reason, detail, and when.
    pub(super) skipped: Vec<(u64, String, String, String, i64)>,
    pub(super) points: Vec<Point>,
    pub(super) acts: Vec<Act>,
    /// To whom messages went lately: number, batch, place, and when.
    pub(super) sent: Vec<(Phone, u32, u8, i64)>,
}

impl WholeCampaign {
    /// Tells it apart from a campaign of the same id that did not come from this store.
    pub(super) fn origin(&self) -> String {
        let at = self.campaign.submitted_at.as_millisecond();
        let text = format!("{} {at} {}", self.campaign.id, self.fingerprint);
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }
}

/// All that a store keeps of a batch.
pub(super) struct WholeBatch {
    pub(super) number: u32,
    pub(super) plan: Vec<u8>,
    pub(super) record: Option<Vec<u8>>,
    pub(super) sids: BTreeMap<u8, String>,
    pub(super) request: Option<String>,
    pub(super) is_open: bool,
    pub(super) is_failed: bool,
    /// When it was decided that it is queued again, if it is to be.
    pub(super) replay: Option<u64>,
    pub(super) payloads: Vec<(u8, String)>,
    pub(super) deliveries: Option<Vec<u8>>,
    /// What people answered: its key, JSON, and whether others were told.
    pub(super) responses: Vec<(String, String, bool)>,
}

/// What was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The campaigns that the fleet has now.
    pub campaigns: Vec<CampaignId>,
    /// How many messages they have.
    pub messages: u64,
    /// How many of those a worker that was killed had claimed: they are in doubt.
    pub in_doubt: u64,
    /// How many numbers came onto the fleet's list of suppressed ones.
    pub suppressed: u64,
    /// How many unfinished campaigns of the dashboard.
    pub drafts: u64,
    /// Rehearsals that stay where they are: they have sent nothing.
    pub rehearsals: u64,
}

/// Moves what a store has. `within` says of an account for how long answers find their message by the number.
///
/// # Errors
///
/// [`LedgerError::InFleet`] where the fleet has campaigns of the same ids that are others, and when one of the two ledgers can't be
/// used. Nothing is lost then: it can be done again.
pub async fn migrate(
    store: &Sqlite,
    fleet: &Redis,
    except: &[CampaignId],
    within: impl Fn(&str) -> Duration,
) -> Result<Moved, LedgerError> {
    let mut moved = Moved::default();
    let mut campaigns = Vec::new();
    for campaign in listing::all(store).await? {
        if campaign.rehearsal {
            moved.rehearsals += 1;
        } else if !except.contains(&campaign.id) {
            campaigns.push(campaign.id);
        }
    }
    // The oldest first, so that the fleet has them in their order.
    campaigns.reverse();
    let mut strangers = Vec::new();
    for id in &campaigns {
        let origin = store.whole(id).await?.origin();
        if fleet.origin(id).await?.is_some_and(|known| known != origin) {
            strangers.push(id.to_string());
        }
    }
    if !strangers.is_empty() {
        return Err(LedgerError::InFleet(strangers.join(", ")));
    }
    let is_marked = store.is_marked_as_moved().await?;
    for id in &campaigns {
        if !is_marked {
            // Nobody sends from the store: what is claimed was claimed by a process that is dead.
            moved.in_doubt += claims::expire(store, id, false).await?;
        }
        let whole = store.whole(id).await?;
        moved.messages += whole.campaign.counts.total;
        if fleet.origin(id).await?.is_some() {
            // It began, and goes on by itself.
            continue;
        }
        fleet.keep_whole(&whole, within(&whole.campaign.account)).await?;
        let numbers = store.listed(id, super::Listed::All).await?;
        for some in numbers.chunks(TOGETHER) {
            fleet.keep_batches(id, store.whole_batches(id, some).await?).await?;
        }
    }
    if let Some(SuppressionUpdate::Whole(list)) = store.suppressed(0).await? {
        let numbers: Vec<Phone> = list.numbers.iter().filter_map(Phone::from_digits).collect();
        for some in numbers.chunks(NUMBERS) {
            let added = store.opt_outs(some).await?;
            moved.suppressed += fleet.suppress(some.to_vec(), Suppress::Add, None).await?;
            fleet.keep_opt_outs(some.iter().copied().zip(added)).await?;
        }
    }
    for (account, word, reason) in store.open_breakers().await? {
        if let Some(breaker) = Breaker::read(&account, &word) {
            fleet.open_breaker(&breaker, reason, breaker.probes()).await?;
        }
    }
    if !is_marked {
        // Moved once: the fleet may have removed it since.
        for (account, about, stored) in store.notices().await? {
            fleet.keep_notice(&account, &about, &stored).await?;
        }
    }
    for (name, draft) in store.drafts().await? {
        if fleet.draft(&name).await?.is_none() {
            fleet.keep_draft(&name, draft).await?;
            moved.drafts += 1;
        }
    }
    fleet.keep_callback_key(&store.callback_key().await?).await?;
    store.mark_as_moved().await?;
    for id in &campaigns {
        let whole = store.whole(id).await?;
        let last = store.listed(id, super::Listed::All).await?.last().map_or(0, |last| last + 1);
        if !fleet.begin(&whole, last).await? {
            return Err(LedgerError::InFleet(id.to_string()));
        }
    }
    moved.campaigns = campaigns;
    Ok(moved)
}
