//! What a person, or a control document, does to a campaign. All of it is a change in the ledger;
//! workers see it there.

use crate::campaign::control::{Action, Control};
use crate::campaign::{CampaignId, CampaignState, SkipReason, Span, counted};
use crate::ledger::{Act, Campaign, Decision, Ledger, LedgerError, skip_unplanned};
use crate::ledger::{decisions, transitions};

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The campaign's state now.
    pub state: CampaignState,
    /// How many messages it was done for.
    pub messages: u64,
}

/// Does what is asked.
///
/// # Errors
///
/// When there is no such campaign, or it is in a state in which that can't be done.
pub async fn control(ledger: &impl Ledger, control: &Control) -> Result<Done, LedgerError> {
    let id = &control.id;
    // What comes up while this is done was not meant: nobody has seen it.
    let said = ledger.now();
    let until = |older_than: &Option<Span>| {
        said.saturating_sub(
            older_than.map_or(0, |span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX)),
        )
    };
    let asked_at = control.asked_at.unwrap_or(said.saturating_mul(1_000));
    let campaign = find(ledger, id).await?;
    // What stops messages was read ahead of what was asked for before it.
    let is_undone = match campaign.state {
        CampaignState::Paused => control.action == Action::Resume,
        CampaignState::Cancelled => control.action != Action::Cancel,
        _ => false,
    };
    if is_undone && control.asked_at.is_some_and(|at| at < campaign.stop_asked_at) {
        let who = control.by.as_deref().unwrap_or("somebody");
        let detail = format!("asked for it before it was {}: nothing was done", campaign.state);
        ledger.log(Act::new(who, control.action.word(), Some(id), &detail)).await?;
        return Ok(Done { state: campaign.state, messages: 0 });
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
    let who = control.by.as_deref().unwrap_or("somebody");
    ledger.log(Act::new(who, control.action.word(), Some(id), &detail(control, messages))).await?;
    // Also where its state stays what it was, workers have to look at it.
    ledger.touch(id).await?;
    Ok(Done { state: find(ledger, id).await?.state, messages })
}

/// What was done, in words.
fn detail(control: &Control, messages: u64) -> String {
    let messages = counted(messages, "message");
    let aged = |older_than: &Option<Span>| match older_than {
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
            format!("marked {messages} in doubt{} as failed", aged(older_than))
        }
    }
}

pub(super) async fn find(ledger: &impl Ledger, id: &CampaignId) -> Result<Campaign, LedgerError> {
    ledger.campaign(id).await?.ok_or_else(|| LedgerError::NoCampaign(id.clone()))
}

pub(super) async fn resume(ledger: &impl Ledger, campaign: &Campaign) -> Result<(), LedgerError> {
    if let Some(breaker) = &campaign.suspended_by {
        // All that it holds goes on: whoever resumes one has mended what they share.
        ledger.close_breaker(breaker).await?;
    }
    match campaign.state {
        CampaignState::Running | CampaignState::Scheduled => Ok(()),
        // Its start may still be to come; a worker sees to it.
        CampaignState::Paused | CampaignState::Held if campaign.started_at.is_none() => {
            transitions::change_state(ledger, &campaign.id, CampaignState::Scheduled, None).await
        }
        CampaignState::Completed if campaign.counts.open() == 0 => Err(LedgerError::IllegalMove {
            id: campaign.id.clone(),
            from: campaign.state,
            to: CampaignState::Running,
        }),
        _ => transitions::change_state(ledger, &campaign.id, CampaignState::Running, None).await,
    }
}

/// A completed campaign that has something to send again runs again; one that is paused or held
/// stays so until it is resumed.
async fn wake(ledger: &impl Ledger, id: &CampaignId) -> Result<(), LedgerError> {
    let campaign = find(ledger, id).await?;
    if campaign.state == CampaignState::Completed && campaign.counts.open() > 0 {
        transitions::change_state(ledger, id, CampaignState::Running, None).await?;
    }
    Ok(())
}

fn refuse_if_cancelled(campaign: &Campaign) -> Result<(), LedgerError> {
    if campaign.state == CampaignState::Cancelled {
        return Err(LedgerError::IllegalMove {
            id: campaign.id.clone(),
            from: campaign.state,
            to: CampaignState::Running,
        });
    }
    Ok(())
}
