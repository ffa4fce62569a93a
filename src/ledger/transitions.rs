//! How campaigns move from state to state.
//!
//! The legal moves are those of `campaign/state.rs`; what else changes with a move is decided here, on the campaign as a
//! value. The backend writes it if the state is still the one that was read.

use jiff::Timestamp;

use super::campaigns::Admits;
use super::{Breaker, Campaign, Campaigns, Counts, LedgerError};
use crate::campaign::job::StopWhen;
use crate::campaign::{CampaignId, CampaignState, Reason};

impl Campaign {
    /// The campaign in another state, or with another reason in its own; `None` where that is no legal
    /// move. `now` is the ledger's clock.
    fn moved(&self, to: CampaignState, reason: Option<Reason>, now: Timestamp) -> Option<Self> {
        if self.state != to && !self.state.can_become(to) {
            return None;
        }
        let mut after = Self { state: to, reason, suspended_by: None, ..self.clone() };
        if to == CampaignState::Running {
            if self.state != to {
                // What a person has let pass is not counted against it again.
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

    /// Why a running campaign is to be held by its job's `stop_when`, if it is. What a person has let pass by resuming
    /// it is not counted again.
    pub fn too_many_rejected(&self, stop_when: StopWhen) -> Option<Reason> {
        let Counts { accepted, rejected, in_doubt, .. } = self.counts;
        let settled = (accepted + rejected + in_doubt).saturating_sub(self.forgiven.1);
        let rejected = rejected.saturating_sub(self.forgiven.0);
        let is_reached = self.state == CampaignState::Running && stop_when.is_reached(rejected, settled);
        is_reached.then_some(Reason::TooManyRejected { rejected, settled, limit: stop_when.rejected_percent })
    }

    /// For what claims of its messages are admitted.
    pub(super) fn admits(&self) -> Admits {
        Admits::of(self.state, self.suspended_by.is_some())
    }
}

/// Changes a campaign, again as often as somebody else was quicker. `None` changes nothing. Returns
/// whether something was changed.
///
/// # Errors
///
/// When there is no such campaign, and what the change says.
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
            // Whatever its new state, somebody must look after it until that is published.
            ledger.activate(id).await?;
        }
        if ledger.swap_campaign(known.state, settled, after.clone()).await? {
            if after.state != known.state {
                // Puts it back, too, where a worker that was just done with the state before
                // has taken it off.
                ledger.touch(id).await?;
            }
            return Ok(true);
        }
    }
}

/// Moves a campaign to another state; to its own state it only changes the reason.
///
/// # Errors
///
/// When that is no legal move.
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

/// Moves a campaign from the state in which a worker has seen it. One that somebody else has moved meanwhile stays
/// as it is: a worker that comes late undoes no pause, and wakes nothing that has ended.
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

/// Says what a running campaign waits for. One that does not run by now keeps its reason.
pub async fn note<L: Campaigns>(
    ledger: &L,
    id: &CampaignId,
    note: Option<Reason>,
) -> Result<(), LedgerError> {
    let noted = |campaign: &Campaign| {
        let runs = campaign.state == CampaignState::Running;
        Ok(runs.then(|| Campaign { reason: note.clone(), ..campaign.clone() }))
    };
    change(ledger, id, false, noted).await.map(drop)
}

/// Holds a running campaign whose counts are what its job's `stop_when` forbids. Returns whether it did. To be asked
/// after every change of the counts that an answer or a report made.
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

/// Completes a running campaign that is planned to its end and has nothing open, unless `stop_when` holds it.
/// Returns whether it did.
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

/// Completes a paused or held campaign of which nothing is left, because it has expired.
pub async fn complete_expired<L: Campaigns>(ledger: &L, id: &CampaignId) -> Result<bool, LedgerError> {
    let completed = |campaign: &Campaign| {
        let Campaign { state, planned, counts, .. } = campaign;
        let stands = matches!(state, CampaignState::Paused | CampaignState::Held);
        let is_done = stands && *planned && counts.open() == 0;
        let reason = Some(Reason::Expired);
        Ok(campaign.moved(CampaignState::Completed, reason, ledger.time()).filter(|_| is_done))
    };
    change(ledger, id, true, completed).await
}

/// Pauses or cancels a campaign for a person, or notes that this was asked for once more.
///
/// # Errors
///
/// When it is over.
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

/// Has the messages of batches below a number be in doubt that nobody has claimed yet, as far as the ledger
/// knows.
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

/// Holds a campaign that runs, or says why one that is held is. One that a person has paused, or that has ended
/// meanwhile, stays as it is.
pub async fn hold<L: Campaigns>(ledger: &L, id: &CampaignId, reason: Reason) -> Result<(), LedgerError> {
    let held = |campaign: &Campaign| {
        let goes_on = matches!(campaign.state, CampaignState::Running | CampaignState::Held);
        Ok(campaign.moved(CampaignState::Held, Some(reason.clone()), ledger.time()).filter(|_| goes_on))
    };
    change(ledger, id, false, held).await.map(drop)
}

/// Suspends a campaign that runs, together with others, until its breaker is closed again.
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
