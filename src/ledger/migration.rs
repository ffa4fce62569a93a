//! Moves the campaigns of an embedded store to a fleet's Redis, also in the middle of a campaign. It sends nothing.
//!
//! 1. All keys of each campaign are written except its hash. Without the hash no worker sees the campaign.
//! 2. The store is marked as moved. From then on no worker opens it.
//! 3. The hashes are written, and the campaigns continue in Redis.
//!
//! If it is killed, it can be run again: before the mark the store has everything, after the mark Redis has.

use std::{collections::BTreeMap, time::Duration};

use super::{
    AuditEntry, Batches, Breaker, Breakers, Campaign, CampaignDrafts, Ledger, LedgerError, ListEntry, Point,
    Sqlite, Suppress, Suppression, SuppressionUpdate, claims, listing, redis::Redis,
};
use crate::campaign::{CampaignId, Phone};

/// Number of batches read and written with one call.
const TOGETHER: usize = 64;
/// Number of suppressed numbers read and written with one call.
const NUMBERS: usize = 10_000;

/// Everything that a store has of a campaign, except its batches.
pub(super) struct WholeCampaign {
    pub(super) campaign: Campaign,
    pub(super) fingerprint: String,
    pub(super) job: String,
    /// A JSON list.
    pub(super) columns: String,
    /// Batches, rows and digest of its checkpoint.
    pub(super) plan: (u32, u64, String),
    /// Counters: kind, code, count.
    pub(super) tallies: Vec<(String, String, u64)>,
    /// Texts: kind, code, text.
    pub(super) texts: Vec<(String, String, String)>,
    /// Skipped rows: row, recipient, reason, detail, time.
    pub(super) skipped: Vec<(u64, String, String, String, i64)>,
    pub(super) points: Vec<Point>,
    pub(super) acts: Vec<AuditEntry>,
    /// Recent messages: number, batch, position, time.
    pub(super) sent: Vec<(Phone, u32, u8, i64)>,
}

impl WholeCampaign {
    /// Returns a digest that identifies the campaign, unlike its id, across ledgers.
    pub(super) fn origin(&self) -> String {
        let at = self.campaign.submitted_at.as_millisecond();
        let text = format!("{} {at} {}", self.campaign.id, self.fingerprint);
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }
}

/// Everything that a store has of a batch.
pub(super) struct WholeBatch {
    pub(super) number: u32,
    pub(super) plan: Vec<u8>,
    pub(super) record: Option<Vec<u8>>,
    pub(super) sids: BTreeMap<u8, String>,
    pub(super) request: Option<String>,
    pub(super) is_open: bool,
    pub(super) is_failed: bool,
    /// Time of the decision to requeue it, if it must be requeued.
    pub(super) replay: Option<u64>,
    pub(super) payloads: Vec<(u8, String)>,
    pub(super) deliveries: Option<Vec<u8>>,
    /// Replies: key, JSON, whether published.
    pub(super) responses: Vec<(String, String, bool)>,
}

/// The result of a move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The moved campaigns.
    pub campaigns: Vec<CampaignId>,
    /// Number of their messages.
    pub messages: u64,
    /// Number of messages put in doubt, because a killed worker had claimed them.
    pub in_doubt: u64,
    /// Number of numbers added to the fleet's suppression list.
    pub suppressed: u64,
    /// Number of moved campaign drafts of the dashboard.
    pub drafts: u64,
    /// Number of rehearsals, which are not moved: they have sent nothing.
    pub rehearsals: u64,
}

/// Moves a store to a fleet's ledger. `within` returns for how long an account matches replies by number.
///
/// # Errors
///
/// [`LedgerError::InFleet`] if the fleet has other campaigns with the same ids, and the errors of both ledgers. Nothing is
/// lost then: it can be run again.
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
    // Oldest first, so that the fleet lists them in the same order.
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
            // No process sends from the store, so every claim is that of a dead process.
            moved.in_doubt += claims::expire(store, id, false).await?;
        }
        let whole = store.whole(id).await?;
        moved.messages += whole.campaign.counts.total;
        if fleet.origin(id).await?.is_some() {
            // An earlier run has moved it.
            continue;
        }
        fleet.keep_whole(&whole, within(&whole.campaign.account)).await?;
        let numbers = store.listed(id, ListEntry::All).await?;
        for some in numbers.chunks(TOGETHER) {
            fleet.keep_batches(id, store.whole_batches(id, some).await?).await?;
        }
    }
    move_shared(store, fleet, is_marked, &mut moved).await?;
    fleet.keep_callback_key(&store.callback_key().await?).await?;
    store.mark_as_moved().await?;
    for id in &campaigns {
        let whole = store.whole(id).await?;
        let last = store.listed(id, ListEntry::All).await?.last().map_or(0, |last| last + 1);
        if !fleet.begin(&whole, last).await? {
            return Err(LedgerError::InFleet(id.to_string()));
        }
    }
    moved.campaigns = campaigns;
    Ok(moved)
}

/// Moves what campaigns share: suppressed numbers, open breakers, notices, campaign drafts.
async fn move_shared(
    store: &Sqlite,
    fleet: &Redis,
    is_marked: bool,
    moved: &mut Moved,
) -> Result<(), LedgerError> {
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
        // Only before the mark: the fleet may have cleared a moved notice since.
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
    Ok(())
}
