//! Transitions of campaigns from state to state.
//!
//! The legal transitions are in `campaign/state.rs`; what else changes with them is decided here, on the campaign as a
//! value. The backend writes it if the state is still the one that was read.

use jiff::Timestamp;

use super::{Breaker, Campaign, Campaigns, Counts, LedgerError, campaigns::ClaimAdmission};
use crate::campaign::{CampaignId, CampaignState, Reason, job::StopWhen};

impl Campaign {
    /// Returns the campaign in another state, or with another reason in the same state.
    ///
    /// `None` if the transition is illegal. `now` is the ledger's time.
    fn moved(&self, to: CampaignState, reason: Option<Reason>, now: Timestamp) -> Option<Self> {
        if self.state != to && !self.state.can_become(to) {
            return None;
        }
        let mut after = Self { state: to, reason, suspended_by: None, ..self.clone() };
        if to == CampaignState::Running {
            if self.state != to {
                // An operator accepted these: they do not count for `stop_when` again.
                let Counts { accepted, rejected, in_doubt, .. } = self.counts;
                after.forgiven = (rejected, accepted + rejected + in_doubt);
            }
            after.started_at.get_or_insert(now);
            after.finished_at = None;
        } else if to.is_over() {
            after.finished_at.get_or_insert(now);
        }
        Some(after)
    }

    /// Returns why a running campaign must be held by its job's `stop_when`, if it must.
    ///
    /// Messages from before an operator resumed it do not count.
    pub fn too_many_rejected(&self, stop_when: StopWhen) -> Option<Reason> {
        let Counts { accepted, rejected, in_doubt, .. } = self.counts;
        let settled = (accepted + rejected + in_doubt).saturating_sub(self.forgiven.1);
        let rejected = rejected.saturating_sub(self.forgiven.0);
        let is_reached = self.state == CampaignState::Running && stop_when.is_reached(rejected, settled);
        is_reached.then_some(Reason::TooManyRejected { rejected, settled, limit: stop_when.rejected_percent })
    }

    /// Returns which claims the campaign admits.
    pub(super) fn admits(&self) -> ClaimAdmission {
        ClaimAdmission::for_state(self.state, self.suspended_by.is_some())
    }
}

/// Changes a campaign by compare-and-swap, until no other writer interferes.
///
/// A change to `None` writes nothing. Returns whether something was written.
///
/// # Errors
///
/// If the campaign does not exist, and the errors of `change`.
pub async fn change<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    settled: bool,
    change: impl Fn(&Campaign) -> Result<Option<Campaign>, LedgerError> + Send,
) -> Result<bool, LedgerError> {
    loop {
        let found = ledger.campaign(id).await?;
        let known = found.ok_or_else(|| LedgerError::NoCampaign(id.clone()))?;
        let Some(after) = change(&known)? else { return Ok(false) };
        if after.state != known.state {
            // It must be active until its new state is published.
            ledger.activate(id).await?;
        }
        if ledger.swap_campaign(known.state, settled, after.clone()).await? {
            if after.state != known.state {
                // Also makes it active again if a worker that published the state before has just deactivated it.
                ledger.touch(id).await?;
            }
            return Ok(true);
        }
    }
}

/// Moves a campaign to another state; a move to its own state only changes the reason.
///
/// # Errors
///
/// If the transition is illegal.
pub async fn change_state<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    to: CampaignState,
    reason: Option<Reason>,
) -> Result<(), LedgerError> {
    let moved = |campaign: &Campaign| {
        let after = campaign.moved(to, reason.clone(), ledger.time());
        let illegal = || LedgerError::IllegalMove { id: id.clone(), from: campaign.state, to };
        Ok(Some(after.ok_or_else(illegal)?))
    };
    change(ledger, id, false, moved).await.map(drop)
}

/// Moves a campaign if it is still in the state that a worker saw.
///
/// So a late worker does not undo a pause, and does not restart a campaign that has ended.
pub async fn move_from<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    from: CampaignState,
    to: CampaignState,
    reason: Option<Reason>,
) -> Result<(), LedgerError> {
    let moved = |campaign: &Campaign| {
        let is_there = campaign.state == from;
        Ok(campaign.moved(to, reason.clone(), ledger.time()).filter(|_| is_there))
    };
    change(ledger, id, false, moved).await.map(drop)
}

/// Sets what a running campaign waits for. In other states it keeps its reason.
pub async fn set_reason<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    reason: Option<Reason>,
) -> Result<(), LedgerError> {
    let changed = |campaign: &Campaign| {
        let runs = campaign.state == CampaignState::Running;
        Ok(runs.then(|| Campaign { reason: reason.clone(), ..campaign.clone() }))
    };
    change(ledger, id, false, changed).await.map(drop)
}

/// Holds a running campaign if its counts reach the limit of its job's `stop_when`. Returns whether it did.
///
/// To be called after each response or report that changes the counts.
pub async fn judge<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    stop_when: StopWhen,
) -> Result<bool, LedgerError> {
    let held = |campaign: &Campaign| {
        let reason = campaign.too_many_rejected(stop_when);
        Ok(reason.and_then(|reason| campaign.moved(CampaignState::Held, Some(reason), ledger.time())))
    };
    change(ledger, id, false, held).await
}

/// Completes a running campaign that is fully planned and has no open messages. Returns whether it did.
///
/// If the counts reach the limit of `stop_when`, the campaign is held instead.
pub async fn complete<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    stop_when: Option<StopWhen>,
) -> Result<bool, LedgerError> {
    if let Some(stop_when) = stop_when
        && judge(ledger, id, stop_when).await?
    {
        return Ok(false);
    }
    let completed = |campaign: &Campaign| {
        let Campaign { state, planned, counts, .. } = campaign;
        let is_held = stop_when.is_some_and(|stop| campaign.too_many_rejected(stop).is_some());
        let done = *state == CampaignState::Running && *planned && counts.open() == 0 && !is_held;
        Ok(campaign.moved(CampaignState::Completed, None, ledger.time()).filter(|_| done))
    };
    change(ledger, id, true, completed).await
}

/// Completes a paused or held campaign that has expired and has no open messages.
pub async fn complete_expired<L: Campaigns>(ledger: &L, id: &CampaignId) -> Result<bool, LedgerError> {
    let completed = |campaign: &Campaign| {
        let Campaign { state, planned, counts, .. } = campaign;
        let is_stopped = matches!(state, CampaignState::Paused | CampaignState::Held);
        let is_done = is_stopped && *planned && counts.open() == 0;
        let reason = Some(Reason::Expired);
        Ok(campaign.moved(CampaignState::Completed, reason, ledger.time()).filter(|_| is_done))
    };
    change(ledger, id, true, completed).await
}

/// Pauses or cancels a campaign for an operator, or records the time of a repeated request.
///
/// # Errors
///
/// If the campaign has ended.
pub async fn stop<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    to: CampaignState,
    asked_at: i64,
) -> Result<(), LedgerError> {
    let stopped = |campaign: &Campaign| {
        let stop_asked_at = campaign.stop_asked_at.max(asked_at);
        if campaign.state == to {
            return Ok(Some(Campaign { stop_asked_at, ..campaign.clone() }));
        }
        let after = campaign.moved(to, Some(Reason::Person { state: to }), ledger.time());
        let illegal = || LedgerError::IllegalMove { id: id.clone(), from: campaign.state, to };
        Ok(Some(Campaign { stop_asked_at, ..after.ok_or_else(illegal)? }))
    };
    change(ledger, id, false, stopped).await.map(drop)
}

/// Marks unclaimed messages of batches below a number as in doubt.
pub async fn mark_in_doubt_below<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    below: u32,
) -> Result<(), LedgerError> {
    let changed = |campaign: &Campaign| {
        let doubt_below = campaign.doubt_below.max(below);
        Ok(Some(Campaign { doubt_below, ..campaign.clone() }))
    };
    change(ledger, id, false, changed).await.map(drop)
}

/// Holds a running campaign, or changes the reason of a held one. Other states are unchanged.
pub async fn hold<L: Campaigns>(ledger: &L, id: &CampaignId, reason: Reason) -> Result<(), LedgerError> {
    let held = |campaign: &Campaign| {
        let may_hold = matches!(campaign.state, CampaignState::Running | CampaignState::Held);
        Ok(campaign.moved(CampaignState::Held, Some(reason.clone()), ledger.time()).filter(|_| may_hold))
    };
    change(ledger, id, false, held).await.map(drop)
}

/// Suspends a running campaign until its breaker is closed.
pub async fn suspend<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    breaker: &Breaker,
    reason: Reason,
) -> Result<(), LedgerError> {
    let suspended = |campaign: &Campaign| {
        let runs = campaign.state == CampaignState::Running;
        let held = campaign.moved(CampaignState::Held, Some(reason.clone()), ledger.time());
        let held = held.map(|held| Campaign { suspended_by: Some(breaker.clone()), ..held });
        Ok(held.filter(|_| runs))
    };
    change(ledger, id, false, suspended).await.map(drop)
}
