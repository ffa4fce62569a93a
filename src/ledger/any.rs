//! The ledger that a process is configured to use, so that code that works on a ledger is compiled once.
//!
//! It decides nothing: it delegates each call. A provided method that a backend overrides must be delegated as well
//! (`tests/it/architecture.rs` checks that).

use std::collections::{BTreeMap, BTreeSet};
use std::{ops::Range, time::Duration};

use super::{
    Audit, AuditEntry, AuditPage, BatchUpdate, Batches, Breaker, Breakers, Campaign, CampaignChanges,
    CampaignDrafts, Campaigns, CasOutcome, Checkpoint, Clock, Lease, Ledger, LedgerError, ListEntry,
    LostWrites, NewCampaign, Notices, OpenBreaker, OptOut, OutcomeTexts, Plan, PlannedBatch, PlannedSoFar,
    Plans, Point, Redis, ReportLine, Reporting, SentMessages, Series, Sessions, SkippedRow, Sqlite,
    StoredBatch, StoredJob, StoredNotice, Suppress, Suppression, SuppressionUpdate,
};
use crate::campaign::notice::{Notice, NoticeSubject};
use crate::campaign::{CampaignId, CampaignState, MessageRef, Phone, SkipReason};

/// The ledger that a process is configured to use.
#[derive(Clone)]
pub enum AnyLedger {
    /// The store of one machine.
    Embedded(Sqlite),
    /// The ledger of a fleet.
    Fleet(Redis),
}

macro_rules! delegate {
    () => {};
    (async fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $output:ty; $($more:tt)*) => {
        async fn $name(&self $(, $argument: $type)*) -> $output {
            match self {
                Self::Embedded(ledger) => ledger.$name($($argument),*).await,
                Self::Fleet(ledger) => ledger.$name($($argument),*).await,
            }
        }
        delegate! { $($more)* }
    };
    (fn $name:ident(&self) -> $output:ty; $($more:tt)*) => {
        fn $name(&self) -> $output {
            match self {
                Self::Embedded(ledger) => ledger.$name(),
                Self::Fleet(ledger) => ledger.$name(),
            }
        }
        delegate! { $($more)* }
    };
}

impl Campaigns for AnyLedger {
    delegate! {
        fn is_shared(&self) -> bool;
        async fn register(&self, new: NewCampaign) -> Result<(Campaign, bool), LedgerError>;
        async fn campaign(&self, id: &CampaignId) -> Result<Option<Campaign>, LedgerError>;
        async fn open(&self, id: &CampaignId) -> Result<u64, LedgerError>;
        async fn ids_before(
            &self, before: Option<&(CampaignId, i64)>, count: usize
        ) -> Result<Vec<CampaignId>, LedgerError>;
        async fn changes(&self, known: u64) -> Result<CampaignChanges, LedgerError>;
        async fn job(&self, id: &CampaignId) -> Result<StoredJob, LedgerError>;
        async fn activate(&self, id: &CampaignId) -> Result<(), LedgerError>;
        async fn touch(&self, id: &CampaignId) -> Result<(), LedgerError>;
        async fn present(&self) -> Result<BTreeSet<u32>, LedgerError>;
        async fn depart(&self) -> Result<(), LedgerError>;
        async fn swap_campaign(
            &self, known: CampaignState, settled: bool, after: Campaign
        ) -> Result<bool, LedgerError>;
        async fn published(&self, id: &CampaignId, state: CampaignState) -> Result<(), LedgerError>;
        async fn heartbeat(&self, id: &CampaignId, held: u64) -> Result<Lease, LedgerError>;
        async fn gap(&self, id: &CampaignId) -> Result<Option<LostWrites>, LedgerError>;
        async fn close_gap(&self, id: &CampaignId) -> Result<(), LedgerError>;
        async fn release(&self, id: &CampaignId) -> Result<(), LedgerError>;
        async fn remove(&self, id: &CampaignId) -> Result<(), LedgerError>;
    }
}

impl Plans for AnyLedger {
    delegate! {
        async fn plan(&self, id: &CampaignId) -> Result<Plan, LedgerError>;
        async fn checkpoint(
            &self, id: &CampaignId, after: u64, checkpoint: Checkpoint, batches: Vec<PlannedBatch>, skipped: Vec<SkippedRow>
        ) -> Result<(), LedgerError>;
        async fn count_unplanned(
            &self, id: &CampaignId, known: PlannedSoFar, rows: u64, reason: SkipReason
        ) -> Result<bool, LedgerError>;
    }
}

impl Batches for AnyLedger {
    delegate! {
        fn token(&self) -> u64;
        fn claims_run_out(&self) -> bool;
        async fn load(
            &self, id: &CampaignId, numbers: &[u32]
        ) -> Result<Vec<Option<StoredBatch>>, LedgerError>;
        async fn update_batch(&self, swap: BatchUpdate<'_>) -> Result<CasOutcome, LedgerError>;
        async fn compare(&self, id: &CampaignId) -> Result<bool, LedgerError>;
        async fn due_claims(&self, id: &CampaignId) -> Result<Vec<(u64, u32)>, LedgerError>;
        async fn forget_claim(&self, id: &CampaignId, token: u64, batch: u32) -> Result<(), LedgerError>;
        async fn listed(&self, id: &CampaignId, listed: ListEntry) -> Result<Vec<u32>, LedgerError>;
        async fn replays(&self, id: &CampaignId) -> Result<BTreeMap<u32, u64>, LedgerError>;
        async fn payloads(
            &self, id: &CampaignId, numbers: &[u32]
        ) -> Result<Vec<BTreeMap<u8, String>>, LedgerError>;
        async fn deliveries(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Vec<u8>>, LedgerError>;
    }
}

impl Breakers for AnyLedger {
    delegate! {
        async fn open_breaker(
            &self, breaker: &Breaker, reason: String, probes: bool
        ) -> Result<bool, LedgerError>;
        async fn breaker(&self, breaker: &Breaker) -> Result<Option<OpenBreaker>, LedgerError>;
        async fn half_open(&self, breaker: &Breaker) -> Result<bool, LedgerError>;
        async fn close_breaker(&self, breaker: &Breaker) -> Result<bool, LedgerError>;
    }
}

impl Notices for AnyLedger {
    delegate! {
        async fn store_notice(&self, account: &str, notice: &Notice) -> Result<(), LedgerError>;
        async fn clear_notice(&self, account: &str, about: &NoticeSubject) -> Result<(), LedgerError>;
        async fn notice(&self, account: &str, about: &NoticeSubject) -> Result<Option<StoredNotice>, LedgerError>;
    }
}

impl Suppression for AnyLedger {
    delegate! {
        async fn suppress(
            &self,
            numbers: Vec<Phone>,
            how: Suppress,
            added: Option<OptOut>
        ) -> Result<u64, LedgerError>;
        async fn opt_outs(&self, numbers: &[Phone]) -> Result<Vec<Option<OptOut>>, LedgerError>;
        async fn suppressed(&self, known: u64) -> Result<Option<SuppressionUpdate>, LedgerError>;
    }
}

impl Reporting for AnyLedger {
    delegate! {
        async fn written(&self, id: &CampaignId) -> Result<u32, LedgerError>;
        async fn sids(
            &self, batches: &[Option<StoredBatch>]
        ) -> Result<Vec<BTreeMap<u8, String>>, LedgerError>;
        async fn requests(
            &self, id: &CampaignId, numbers: &[u32]
        ) -> Result<Vec<Option<String>>, LedgerError>;
        async fn texts(&self, id: &CampaignId) -> Result<OutcomeTexts, LedgerError>;
        async fn skipped(&self, id: &CampaignId, from: u64, to: u64) -> Result<Vec<ReportLine>, LedgerError>;
        async fn answers(&self, id: &CampaignId, numbers: Range<u32>) -> Result<Vec<String>, LedgerError>;
        async fn answer_published(
            &self, id: &CampaignId, batch: u32, answer: String
        ) -> Result<(), LedgerError>;
    }
}

impl SentMessages for AnyLedger {
    delegate! {
        async fn note_sent(
            &self, account: &str, within: Duration, campaign: &CampaignId, batch: u32, messages: &[(Phone, u8)]
        ) -> Result<(), LedgerError>;
        async fn sent_to(
            &self, account: &str, within: Duration, phone: Phone
        ) -> Result<Vec<MessageRef>, LedgerError>;
    }
}

impl Audit for AnyLedger {
    delegate! {
        async fn log(&self, act: AuditEntry) -> Result<(), LedgerError>;
        async fn acts(
            &self, campaign: Option<&CampaignId>, from: Option<&str>, limit: usize
        ) -> Result<AuditPage, LedgerError>;
    }
}

impl Series for AnyLedger {
    delegate! {
        async fn points(&self, id: &CampaignId) -> Result<Vec<Point>, LedgerError>;
        async fn write_points(
            &self, id: &CampaignId, points: Vec<Point>, all: bool
        ) -> Result<(), LedgerError>;
    }
}

impl CampaignDrafts for AnyLedger {
    delegate! {
        async fn drafts(&self) -> Result<Vec<(String, String)>, LedgerError>;
        async fn draft_names(&self) -> Result<Vec<String>, LedgerError>;
        async fn draft(&self, name: &str) -> Result<Option<String>, LedgerError>;
        async fn keep_draft(&self, name: &str, draft: String) -> Result<(), LedgerError>;
        async fn remove_draft(&self, name: &str) -> Result<(), LedgerError>;
    }
}

impl Sessions for AnyLedger {
    delegate! {
        async fn end_session(&self, digest: &str, ends: i64) -> Result<(), LedgerError>;
        async fn is_session_ended(&self, digest: &str) -> Result<bool, LedgerError>;
    }
}

impl Clock for AnyLedger {
    delegate! {
        fn now(&self) -> i64;
    }
}

impl Ledger for AnyLedger {
    delegate! {
        async fn callback_key(&self) -> Result<String, LedgerError>;
        async fn further_callback_keys(&self) -> Result<Vec<String>, LedgerError>;
        async fn callback_key_names(&self, own: Vec<String>) -> Result<Vec<String>, LedgerError>;
        async fn reserve_id(&self, fingerprint: &str, id: &CampaignId) -> Result<(), LedgerError>;
        fn health_error(&self) -> Option<String>;
        async fn write_error(&self, id: &CampaignId) -> Result<Option<String>, LedgerError>;
    }
}
