//! Carries out an operator's action or a control document. Each is a change in the ledger, where workers see it.

use crate::campaign::control::{Action, Control};
use crate::campaign::{CampaignId, CampaignState, HumanDuration, SkipReason, counted};
use crate::ledger::{AuditEntry, Campaign, Decision, Ledger, LedgerError, skip_unplanned};
use crate::ledger::{decisions, transitions};

/// The result of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlOutcome {
    /// The campaign's state now.
    pub state: CampaignState,
    /// Number of messages that the action changed.
    pub messages: u64,
}

/// Carries out an action.
///
/// # Errors
///
/// Returns an error if the campaign does not exist or its state does not allow the action.
pub async fn control(ledger: &impl Ledger, control: &Control) -> Result<ControlOutcome, LedgerError> {
    let id = &control.id;
    // The action does not apply to doubts that arise while it is carried out.
    let now = ledger.now();
    let until = |older_than: &Option<HumanDuration>| {
        now.saturating_sub(older_than.map_or(0, |span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX)))
    };
    let asked_at = control.asked_at.unwrap_or(now.saturating_mul(1_000));
    let campaign = find(ledger, id).await?;
    // Pauses and cancellations are taken before documents that were published earlier.
    let is_undone = match campaign.state {
        CampaignState::Paused => control.action == Action::Resume,
        CampaignState::Cancelled => control.action != Action::Cancel,
        _ => false,
    };
    if is_undone && control.asked_at.is_some_and(|at| at < campaign.stop_asked_at) {
        let who = control.by.as_deref().unwrap_or("unknown");
        let action = control.action.code();
        let detail = format!("requested {action} before the campaign was {}: ignored", campaign.state);
        ledger.log(AuditEntry::new(who, action, Some(id), &detail)).await?;
        return Ok(ControlOutcome { state: campaign.state, messages: 0 });
    }
    let messages = match &control.action {
        Action::Pause => {
            transitions::stop(ledger, id, CampaignState::Paused, asked_at).await?;
            0
        }
        Action::Resume => {
            resume(ledger, &campaign).await?;
            0
        }
        Action::Cancel => {
            transitions::stop(ledger, id, CampaignState::Cancelled, asked_at).await?;
            let planned = decisions::decide(ledger, id, Decision::Cancel).await?;
            planned + skip_unplanned(ledger, id, SkipReason::Cancelled).await?
        }
        Action::Retry { codes } => {
            refuse_if_cancelled(&campaign)?;
            let messages = decisions::decide(ledger, id, Decision::Retry(codes.clone())).await?;
            wake(ledger, id).await?;
            messages
        }
        Action::Resolve { resend: true, older_than } => {
            refuse_if_cancelled(&campaign)?;
            let messages =
                decisions::decide(ledger, id, Decision::Resend { until: until(older_than) }).await?;
            wake(ledger, id).await?;
            messages
        }
        Action::Resolve { resend: false, older_than } => {
            decisions::decide(ledger, id, Decision::Abandon { until: until(older_than) }).await?
        }
    };
    let who = control.by.as_deref().unwrap_or("unknown");
    ledger.log(AuditEntry::new(who, control.action.code(), Some(id), &detail(control, messages))).await?;
    // Workers must check the campaign even if its state is unchanged.
    ledger.touch(id).await?;
    Ok(ControlOutcome { state: find(ledger, id).await?.state, messages })
}

/// Returns the text of the audit entry.
fn detail(control: &Control, messages: u64) -> String {
    let messages = counted(messages, "message");
    let aged = |older_than: &Option<HumanDuration>| match older_than {
        Some(span) => format!(" for {span} or more"),
        None => String::new(),
    };
    match &control.action {
        Action::Pause => "paused the campaign".into(),
        Action::Resume => "resumed the campaign".into(),
        Action::Cancel => format!("cancelled the campaign: {messages} not sent"),
        Action::Retry { codes } if codes.is_empty() => format!("retried {messages} that failed"),
        Action::Retry { codes } => format!("retried {messages} that failed with {}", codes.join(", ")),
        Action::Resolve { resend: true, older_than } => {
            format!("resent {messages} in doubt{}", aged(older_than))
        }
        Action::Resolve { resend: false, older_than } => {
            format!("marked as failed: {messages} in doubt{}", aged(older_than))
        }
    }
}

/// Returns a campaign, or an error if it does not exist.
pub(super) async fn find(ledger: &impl Ledger, id: &CampaignId) -> Result<Campaign, LedgerError> {
    ledger.campaign(id).await?.ok_or_else(|| LedgerError::NoCampaign(id.clone()))
}

/// Resumes a campaign, and closes the breaker that suspends it.
pub(super) async fn resume(ledger: &impl Ledger, campaign: &Campaign) -> Result<(), LedgerError> {
    if let Some(breaker) = &campaign.suspended_by {
        // Resumes every campaign behind the breaker: the operator has fixed their common cause.
        ledger.close_breaker(breaker).await?;
    }
    match campaign.state {
        CampaignState::Running | CampaignState::Scheduled => Ok(()),
        // Its start may be in the future, which a worker checks.
        CampaignState::Paused | CampaignState::Held if campaign.started_at.is_none() => {
            transitions::change_state(ledger, &campaign.id, CampaignState::Scheduled, None).await
        }
        CampaignState::Completed if campaign.counts.open() == 0 => Err(cannot_run(campaign)),
        _ => transitions::change_state(ledger, &campaign.id, CampaignState::Running, None).await,
    }
}

/// Sets a completed campaign running if it has open messages again. A paused or held one stays as it is.
async fn wake(ledger: &impl Ledger, id: &CampaignId) -> Result<(), LedgerError> {
    let campaign = find(ledger, id).await?;
    if campaign.state == CampaignState::Completed && campaign.counts.open() > 0 {
        transitions::change_state(ledger, id, CampaignState::Running, None).await?;
    }
    Ok(())
}

fn refuse_if_cancelled(campaign: &Campaign) -> Result<(), LedgerError> {
    if campaign.state == CampaignState::Cancelled { Err(cannot_run(campaign)) } else { Ok(()) }
}

fn cannot_run(campaign: &Campaign) -> LedgerError {
    let (id, state) = (campaign.id.clone(), campaign.state);
    match state {
        CampaignState::Cancelled | CampaignState::Completed => LedgerError::Ended { id, state },
        from => LedgerError::IllegalMove { id, from, to: CampaignState::Running },
    }
}
