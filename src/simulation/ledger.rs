//! The ledger in memory behind a bad network: commands and replies are delayed or lost, and a command without a reply is
//! repeated, as the Redis client does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Broken;
use super::node::Node;
use crate::campaign::notice::{Notice, NoticeSubject};
use crate::campaign::{CampaignId, CampaignState, MessageRef, Phone, SkipReason};
use crate::ledger::claims;
use crate::ledger::{
    Audit, AuditEntry, AuditPage, BatchUpdate, Batches, Breaker, Breakers, Campaign, CampaignChanges,
    CampaignDrafts, Campaigns, CasOutcome, Checkpoint, Clock, Lease, Ledger, LedgerError, ListEntry, Memory,
    NewCampaign, Notices, OpenBreaker, OptOut, OutcomeTexts, Plan, PlannedBatch, PlannedSoFar, Plans, Point,
    ReportLine, Reporting, SentMessages, Series, Sessions, SkippedRow, StoredBatch, StoredJob, StoredNotice,
    Suppress, Suppression, SuppressionUpdate,
};

/// A ledger behind a network.
#[derive(Clone)]
pub(super) struct Remote {
    pub(super) inner: Memory,
    pub(super) node: Arc<Node>,
}

impl Remote {
    /// Returns whether a command or a reply is lost.
    fn is_lost(&self) -> bool {
        self.node.world.goes_wrong(self.node.world.faults.loses, 0.004)
    }

    fn breaks(&self, rule: Broken) -> bool {
        self.node.world.faults.broken == Some(rule)
    }
}

/// Repeats a command until there is a reply.
macro_rules! ask {
    ($remote:ident, $ledger:ident => $question:expr) => {{
        loop {
            $remote.node.hop().await;
            if !$remote.is_lost() {
                let $ledger = &$remote.inner;
                let answer = $question.await;
                $remote.node.hop().await;
                if !$remote.is_lost() {
                    break answer;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }};
}

impl Clock for Remote {
    fn now(&self) -> i64 {
        self.inner.now() + self.node.drift()
    }
}

impl Ledger for Remote {
    async fn callback_key(&self) -> Result<String, LedgerError> {
        self.inner.callback_key().await
    }
}

impl Campaigns for Remote {
    fn is_shared(&self) -> bool {
        true
    }

    async fn register(&self, new: NewCampaign) -> Result<(Campaign, bool), LedgerError> {
        ask!(self, ledger => ledger.register(new.clone()))
    }

    async fn campaign(&self, id: &CampaignId) -> Result<Option<Campaign>, LedgerError> {
        ask!(self, ledger => ledger.campaign(id))
    }

    async fn open(&self, id: &CampaignId) -> Result<u64, LedgerError> {
        ask!(self, ledger => ledger.open(id))
    }

    async fn ids_before(
        &self,
        before: Option<&(CampaignId, i64)>,
        count: usize,
    ) -> Result<Vec<CampaignId>, LedgerError> {
        ask!(self, ledger => ledger.ids_before(before, count))
    }

    async fn changes(&self, known: u64) -> Result<CampaignChanges, LedgerError> {
        ask!(self, ledger => ledger.changes(known))
    }

    async fn job(&self, id: &CampaignId) -> Result<StoredJob, LedgerError> {
        ask!(self, ledger => ledger.job(id))
    }

    async fn activate(&self, id: &CampaignId) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.activate(id))
    }

    async fn touch(&self, id: &CampaignId) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.touch(id))
    }

    async fn present(&self) -> Result<BTreeSet<u32>, LedgerError> {
        ask!(self, ledger => ledger.present())
    }

    async fn depart(&self) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.depart())
    }

    async fn swap_campaign(
        &self,
        known: CampaignState,
        settled: bool,
        after: Campaign,
    ) -> Result<bool, LedgerError> {
        ask!(self, ledger => ledger.swap_campaign(known, settled, after.clone()))
    }

    async fn published(&self, id: &CampaignId, state: CampaignState) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.published(id, state))
    }

    async fn heartbeat(&self, id: &CampaignId, held: u64) -> Result<Lease, LedgerError> {
        ask!(self, ledger => ledger.heartbeat(id, held))
    }

    async fn release(&self, id: &CampaignId) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.release(id))
    }

    async fn remove(&self, id: &CampaignId) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.remove(id))
    }
}

impl Plans for Remote {
    async fn plan(&self, id: &CampaignId) -> Result<Plan, LedgerError> {
        ask!(self, ledger => ledger.plan(id))
    }

    async fn checkpoint(
        &self,
        id: &CampaignId,
        after: u64,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.checkpoint(id, after, checkpoint.clone(), batches.clone(), skipped.clone()))
    }

    async fn count_unplanned(
        &self,
        id: &CampaignId,
        known: PlannedSoFar,
        rows: u64,
        reason: SkipReason,
    ) -> Result<bool, LedgerError> {
        ask!(self, ledger => ledger.count_unplanned(id, known, rows, reason))
    }
}

impl Batches for Remote {
    fn token(&self) -> u64 {
        self.inner.token()
    }

    fn claims_run_out(&self) -> bool {
        true
    }

    async fn load(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Option<StoredBatch>>, LedgerError> {
        ask!(self, ledger => ledger.load(id, numbers))
    }

    async fn update_batch(&self, swap: BatchUpdate<'_>) -> Result<CasOutcome, LedgerError> {
        if swap.is_claim() && self.breaks(Broken::ClaimBeforeRequest) {
            self.node.hop().await;
            self.inner.swap_late(swap, Duration::from_millis(5));
            return Ok(CasOutcome::Done { open: 1, responses: Vec::new() });
        }
        let is_forced = self.breaks(Broken::VersionCheck);
        let swapped = ask!(self, ledger => ledger.swap(swap, is_forced))?;
        self.node.world.log(|| format!("worker {}: {}: {swapped:?}", self.node.number, swap.shown()));
        Ok(swapped)
    }

    async fn due_claims(&self, id: &CampaignId) -> Result<Vec<(u64, u32)>, LedgerError> {
        if self.breaks(Broken::ExpiredIsInDoubt) {
            ask!(self, ledger => claims::expire(ledger, id, true))?;
        }
        ask!(self, ledger => ledger.due_claims(id))
    }

    async fn forget_claim(&self, id: &CampaignId, token: u64, batch: u32) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.forget_claim(id, token, batch))
    }

    async fn listed(&self, id: &CampaignId, listed: ListEntry) -> Result<Vec<u32>, LedgerError> {
        ask!(self, ledger => ledger.listed(id, listed))
    }

    async fn replays(&self, id: &CampaignId) -> Result<BTreeMap<u32, u64>, LedgerError> {
        ask!(self, ledger => ledger.replays(id))
    }

    async fn payloads(
        &self,
        id: &CampaignId,
        numbers: &[u32],
    ) -> Result<Vec<BTreeMap<u8, String>>, LedgerError> {
        ask!(self, ledger => ledger.payloads(id, numbers))
    }

    async fn deliveries(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Vec<u8>>, LedgerError> {
        ask!(self, ledger => ledger.deliveries(id, numbers))
    }
}

impl Breakers for Remote {
    async fn open_breaker(
        &self,
        breaker: &Breaker,
        reason: String,
        probes: bool,
    ) -> Result<bool, LedgerError> {
        ask!(self, ledger => ledger.open_breaker(breaker, reason.clone(), probes))
    }

    async fn breaker(&self, breaker: &Breaker) -> Result<Option<OpenBreaker>, LedgerError> {
        ask!(self, ledger => ledger.breaker(breaker))
    }

    async fn half_open(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        ask!(self, ledger => ledger.half_open(breaker))
    }

    async fn close_breaker(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        ask!(self, ledger => ledger.close_breaker(breaker))
    }
}

impl Notices for Remote {
    async fn store_notice(&self, account: &str, notice: &Notice) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.store_notice(account, notice))
    }

    async fn clear_notice(&self, account: &str, about: &NoticeSubject) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.clear_notice(account, about))
    }

    async fn notice(
        &self,
        account: &str,
        about: &NoticeSubject,
    ) -> Result<Option<StoredNotice>, LedgerError> {
        ask!(self, ledger => ledger.notice(account, about))
    }
}

impl Suppression for Remote {
    async fn suppress(
        &self,
        numbers: Vec<Phone>,
        how: Suppress,
        added: Option<OptOut>,
    ) -> Result<u64, LedgerError> {
        ask!(self, ledger => ledger.suppress(numbers.clone(), how, added.clone()))
    }

    async fn opt_outs(&self, numbers: &[Phone]) -> Result<Vec<Option<OptOut>>, LedgerError> {
        ask!(self, ledger => ledger.opt_outs(numbers))
    }

    async fn suppressed(&self, known: u64) -> Result<Option<SuppressionUpdate>, LedgerError> {
        ask!(self, ledger => ledger.suppressed(known))
    }
}

impl SentMessages for Remote {
    async fn note_sent(
        &self,
        account: &str,
        within: Duration,
        campaign: &CampaignId,
        batch: u32,
        messages: &[(Phone, u8)],
    ) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.note_sent(account, within, campaign, batch, messages))
    }

    async fn sent_to(
        &self,
        account: &str,
        within: Duration,
        phone: Phone,
    ) -> Result<Vec<MessageRef>, LedgerError> {
        ask!(self, ledger => ledger.sent_to(account, within, phone))
    }
}

impl Reporting for Remote {
    async fn written(&self, id: &CampaignId) -> Result<u32, LedgerError> {
        ask!(self, ledger => ledger.written(id))
    }

    async fn sids(&self, batches: &[Option<StoredBatch>]) -> Result<Vec<BTreeMap<u8, String>>, LedgerError> {
        ask!(self, ledger => ledger.sids(batches))
    }

    async fn requests(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Option<String>>, LedgerError> {
        ask!(self, ledger => ledger.requests(id, numbers))
    }

    async fn texts(&self, id: &CampaignId) -> Result<OutcomeTexts, LedgerError> {
        ask!(self, ledger => ledger.texts(id))
    }

    async fn skipped(&self, id: &CampaignId, from: u64, to: u64) -> Result<Vec<ReportLine>, LedgerError> {
        ask!(self, ledger => ledger.skipped(id, from, to))
    }

    async fn answers(
        &self,
        id: &CampaignId,
        numbers: std::ops::Range<u32>,
    ) -> Result<Vec<String>, LedgerError> {
        ask!(self, ledger => ledger.answers(id, numbers.clone()))
    }

    async fn answer_published(&self, id: &CampaignId, batch: u32, answer: String) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.answer_published(id, batch, answer.clone()))
    }
}

impl Audit for Remote {
    async fn log(&self, act: AuditEntry) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.log(act.clone()))
    }

    async fn acts(
        &self,
        campaign: Option<&CampaignId>,
        from: Option<&str>,
        limit: usize,
    ) -> Result<AuditPage, LedgerError> {
        ask!(self, ledger => ledger.acts(campaign, from, limit))
    }
}

impl Series for Remote {
    async fn points(&self, id: &CampaignId) -> Result<Vec<Point>, LedgerError> {
        ask!(self, ledger => ledger.points(id))
    }

    async fn write_points(&self, id: &CampaignId, points: Vec<Point>, all: bool) -> Result<(), LedgerError> {
        ask!(self, ledger => ledger.write_points(id, points.clone(), all))
    }
}

impl CampaignDrafts for Remote {
    async fn drafts(&self) -> Result<Vec<(String, String)>, LedgerError> {
        self.inner.drafts().await
    }

    async fn draft_names(&self) -> Result<Vec<String>, LedgerError> {
        self.inner.draft_names().await
    }

    async fn draft(&self, name: &str) -> Result<Option<String>, LedgerError> {
        self.inner.draft(name).await
    }

    async fn keep_draft(&self, name: &str, draft: String) -> Result<(), LedgerError> {
        self.inner.keep_draft(name, draft).await
    }

    async fn remove_draft(&self, name: &str) -> Result<(), LedgerError> {
        self.inner.remove_draft(name).await
    }
}

impl Sessions for Remote {
    async fn end_session(&self, digest: &str, ends: i64) -> Result<(), LedgerError> {
        self.inner.end_session(digest, ends).await
    }

    async fn is_session_ended(&self, digest: &str) -> Result<bool, LedgerError> {
        self.inner.is_session_ended(digest).await
    }
}
