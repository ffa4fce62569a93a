//! The ledger: what became of every message.
//!
//! A message's state is written before its request (the claim) and after its answer (the record).
//! Whatever lies between the two when a worker dies is in doubt. Ledgers keep states and counts;
//! they send nothing, render nothing and know no provider.
//!
//! A seam for each thing that is kept: [`Campaigns`], [`Plans`], [`Batches`], [`Breakers`],
//! [`Notices`], [`Suppression`], [`Reporting`], [`SentMessages`], [`Audit`], [`Series`], [`CampaignDrafts`],
//! [`Sessions`]; [`Ledger`] is all of them. What may become of a message is decided in
//! `draft.rs`, on a batch's record as a value (`record.rs`); how far messages come after that in
//! `deliveries.rs`. A backend keeps bytes and swaps them if nobody else has. All of them pass one suite
//! (`tests/it/ledger.rs`).

mod any;
mod audit;
mod batches;
mod breakers;
mod campaigns;
pub mod claims;
pub mod decisions;
mod deliveries;
pub mod doubts;
mod draft;
mod drafts;
mod error;
pub mod evidence;
pub mod listing;
mod memory;
mod migration;
mod notices;
mod plans;
mod rate;
mod record;
mod redis;
pub mod replays;
pub mod replies;
mod report;
mod sent;
mod series;
mod sessions;
mod sqlite;
mod suppression;
pub mod transitions;
mod unmoved;
mod writer;

use std::time::Duration;

use jiff::Timestamp;

use crate::campaign::CampaignId;

pub use self::redis::{Redis, RetryPolicy};
pub use any::AnyLedger;
pub use audit::{Act, ActPage, Audit};
pub use batches::{ABANDONED, Batches, Listed, StoredBatch, Swap, Swapped};
pub use breakers::{Breaker, BreakerScope, Breakers, FIRST_PROBE, LAST_PROBE, OpenBreaker};
pub use campaigns::{
    Campaign, CampaignChanges, Campaigns, Counts, Gap, LEASE, Lease, NewCampaign, PRESENCE, StoredJob,
};
pub use claims::{BatchWrite, Claim, Outcome, Purpose, Recorded, Written};
pub use decisions::Decision;
pub use deliveries::{DeliveryCounts, MessageReport, ReportEffect, Response};
pub(crate) use draft::EXPIRED;
pub use drafts::{CampaignDrafts, LARGEST_DRAFT, MOST_DRAFTS};
pub use error::LedgerError;
pub use listing::{CampaignFilter, CampaignPage};
pub use memory::{Clock, Memory};
pub use migration::{Moved, migrate};
pub use notices::{Notices, StoredNotice};
pub use plans::{Checkpoint, Plan, PlannedBatch, PlannedSoFar, Plans, SkippedRow, skip_unplanned};
pub use record::BatchRecord;
pub use replays::Replay;
pub use replies::Answer;
pub use report::{
    Cursor, ReportLine, ReportPage, Reporting, ResponsePage, Texts, report_page, report_schema, response_page,
};
pub use sent::SentMessages;
pub use series::{MOST_POINTS, Point, Series};
pub use sessions::Sessions;
pub use sqlite::{Access, Sqlite};
pub use suppression::{OptOut, OptOutSource, Suppress, Suppressed, Suppression, SuppressionUpdate};
pub use unmoved::UnmovedStore;
pub use writer::BatchWriter;

/// A machine's clock that is further from the ledger's is worth a word.
pub const CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Where a ledger keeps things.
pub trait Store: Clone + Send + Sync + 'static {
    /// Its clock, in milliseconds since 1970.
    fn now(&self) -> i64;

    /// The same as a time. Schedules, and whatever others are told, go by it: the clock of a worker's own machine
    /// may be wrong.
    fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now()).unwrap_or_default()
    }
}

/// A record of every message.
pub trait Ledger:
    Campaigns
    + Plans
    + Batches
    + Breakers
    + Notices
    + Suppression
    + SentMessages
    + Audit
    + Series
    + CampaignDrafts
    + Sessions
{
    /// The key that seals the addresses of reports where none is configured: made when it is first asked
    /// for, the same for all workers ever after.
    fn callback_key(&self) -> impl Future<Output = Result<String, LedgerError>> + Send;

    /// Keys that open addresses of reports besides those that are configured or made here: of stores that were moved.
    fn further_callback_keys(&self) -> impl Future<Output = Result<Vec<String>, LedgerError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Says which keys a worker opens addresses with, by their names, each behind its account's name; and returns those that any
    /// worker has said in the last seven days.
    fn callback_key_names(
        &self,
        own: Vec<String>,
    ) -> impl Future<Output = Result<Vec<String>, LedgerError>> + Send {
        // One worker is alone with its ledger.
        std::future::ready(Ok(own))
    }

    /// Remembers the id that a job without one is given before it is registered, by the job's fingerprint: delivered again, it is
    /// that campaign.
    fn reserve_id(
        &self,
        _fingerprint: &str,
        _id: &CampaignId,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send {
        // On one machine no jobs are delivered.
        std::future::ready(Ok(()))
    }

    /// What keeps claims from being granted, for whoever asks why nothing is sent.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// What keeps a campaign from being written to, as the store says when it is asked; for whoever does not write.
    fn write_trouble(
        &self,
        _: &CampaignId,
    ) -> impl Future<Output = Result<Option<String>, LedgerError>> + Send {
        async { Ok(None) }
    }
}

/// A new key for callbacks: 32 random bytes in hexadecimal digits.
fn new_key() -> String {
    crate::campaign::text::hex(&rand::random::<[u8; 32]>())
}
