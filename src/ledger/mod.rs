//! The ledger: the state of every message.
//!
//! A message's state is written before its request (the claim) and after the response (the record). A message that is
//! between the two when its worker dies becomes in doubt. The ledger stores states and counts; it sends nothing, renders
//! nothing and knows no provider.
//!
//! There is one trait for each topic: [`Campaigns`], [`Plans`], [`Batches`], [`Breakers`], [`Notices`], [`Suppression`],
//! [`Reporting`], [`SentMessages`], [`Audit`], [`Series`], [`CampaignDrafts`], [`Sessions`]; [`Ledger`] is all of them.
//! A trait holds what a backend must store. What is decided is a function over the traits, once for all backends:
//! `claims.rs`, `decisions.rs`, `evidence.rs`, `replays.rs`, `doubts.rs`, `transitions.rs`, `listing.rs`, `replies.rs`.
//! The rules for a message are in `batch_machine.rs`: they apply outcomes and decisions (`outcome.rs`) to a batch's record
//! as a value (`record.rs`); delivery progress is in `deliveries.rs`. A backend stores bytes and replaces them by
//! compare-and-swap. All backends pass one suite (`tests/it/ledger.rs`).

mod any;
mod audit;
mod batch_machine;
mod batches;
mod breakers;
mod campaign_drafts;
mod campaigns;
mod change;
pub mod claims;
pub mod decisions;
mod deliveries;
pub mod doubts;
mod error;
pub mod evidence;
pub mod listing;
mod memory;
mod migration;
mod notices;
mod outcome;
mod plans;
mod record;
mod redis;
pub mod replays;
pub mod replies;
mod report;
mod sent;
pub mod series;
mod sessions;
mod sqlite;
mod suppression;
mod throughput;
pub mod transitions;
mod unmoved;
mod writer;

use std::time::Duration;

use jiff::Timestamp;

use crate::campaign::CampaignId;

pub use self::redis::{Redis, RetryPolicy};
pub use any::AnyLedger;
pub use audit::{Audit, AuditEntry, AuditPage};
pub(crate) use batch_machine::decisions::EXPIRED;
pub use batches::{ABANDONED, BatchUpdate, Batches, CasOutcome, ClaimPurpose, ListEntry, StoredBatch};
pub use breakers::{Breaker, BreakerScope, Breakers, FIRST_PROBE, LAST_PROBE, OpenBreaker};
pub use campaign_drafts::{CampaignDrafts, LARGEST_DRAFT, MOST_DRAFTS};
pub use campaigns::{
    Campaign, CampaignChanges, Campaigns, Counts, LEASE, Lease, LostWrites, NewCampaign, PRESENCE, StoredJob,
};
pub use claims::{BatchWrite, Claim, WriteOutcome};
pub use decisions::skip_unplanned;
pub use deliveries::{DeliveryCounts, MessageReport, ReportEffect, Response};
pub use error::LedgerError;
pub use listing::{CampaignFilter, CampaignPage};
pub use memory::{ClockFn, Memory};
pub use migration::{Moved, migrate};
pub use notices::{Notices, StoredNotice};
pub use outcome::{Decision, Outcome, RecordOutcome};
pub use plans::{Checkpoint, Plan, PlannedBatch, PlannedSoFar, Plans, SkippedRow};
pub use record::BatchRecord;
pub use replays::Replay;
pub use replies::ReplyTarget;
pub use report::{
    Cursor, OutcomeTexts, ReportLine, ReportPage, Reporting, ResponsePage, report_page, report_schema,
    response_page,
};
pub use sent::SentMessages;
pub use series::{MOST_POINTS, Point, Series};
pub use sessions::Sessions;
pub use sqlite::{Access, Sqlite};
pub use suppression::{OptOut, OptOutSource, Suppress, Suppressed, Suppression, SuppressionUpdate};
pub use unmoved::UnmovedStore;
pub use writer::BatchWriter;

/// Clock skew above which a machine's clock is reported.
pub const CLOCK_SKEW: Duration = Duration::from_secs(2);

/// The clock of a ledger.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Returns the ledger's time, in milliseconds since 1970.
    fn now(&self) -> i64;

    /// Returns the ledger's time.
    ///
    /// Schedules and published times use it, because the clock of a worker's machine may be wrong.
    fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now()).unwrap_or_default()
    }
}

/// A call of a ledger: the future of its result.
pub trait LedgerFuture<T>: Future<Output = Result<T, LedgerError>> + Send {}

impl<T, F: Future<Output = Result<T, LedgerError>> + Send> LedgerFuture<T> for F {}

/// A ledger with all its topics.
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
    /// Returns the key that signs callback URLs if none is configured.
    ///
    /// The first call creates it; it is the same for all workers from then on.
    fn callback_key(&self) -> impl LedgerFuture<String>;

    /// Returns the callback keys of stores that were moved to this ledger.
    fn further_callback_keys(&self) -> impl LedgerFuture<Vec<String>> {
        std::future::ready(Ok(Vec::new()))
    }

    /// Records the names of this worker's callback keys, and returns those of all workers.
    ///
    /// Each name follows the name of its account. A name is kept for seven days after a worker last recorded it.
    fn callback_key_names(&self, own: Vec<String>) -> impl LedgerFuture<Vec<String>> {
        // The default is for a ledger with one worker.
        std::future::ready(Ok(own))
    }

    /// Records which id a job without an id got, by the job's fingerprint.
    ///
    /// It is recorded before the campaign is registered, so that a redelivered job finds the same campaign.
    fn reserve_id(&self, _fingerprint: &str, _id: &CampaignId) -> impl LedgerFuture<()> {
        // The default is for a ledger without a job queue.
        std::future::ready(Ok(()))
    }

    /// Returns why no claims are granted, if they are not.
    fn health_error(&self) -> Option<String> {
        None
    }

    /// Returns why the store rejects writes to a campaign, if it does.
    ///
    /// It asks the store, for callers that do not write themselves.
    fn write_error(&self, _: &CampaignId) -> impl LedgerFuture<Option<String>> {
        async { Ok(None) }
    }
}

/// Returns a new callback key: 32 random bytes in hexadecimal digits.
fn new_key() -> String {
    crate::campaign::text::hex(&rand::random::<[u8; 32]>())
}
