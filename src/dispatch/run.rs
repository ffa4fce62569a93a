//! Runs one campaign on one machine, from its current state to its end.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::plan_pipeline::{PlanContext, PublishScope};
use super::{
    Context, DispatchError, LoadedJob, breaker::breakers, control::find, supervisor::CampaignSupervisor,
};
use crate::campaign::{CampaignId, CampaignState, Opening, Reason, job::OnInDoubt};
use crate::ledger::{Campaign, Ledger, claims, transitions};
use crate::queue::{Local, Queue};

/// The result of a run.
#[derive(Debug)]
pub enum End {
    /// Every message is settled.
    Completed,
    /// The campaign was stopped and can be continued.
    Stopped,
    /// The campaign is held, for the reason in its status.
    Held,
    /// The audience differs from the planned one. Nothing was sent.
    AudienceChanged,
}

/// Runs a campaign until it is completed or held, or `stop` is cancelled.
///
/// Requests in flight are finished and recorded before it returns.
///
/// # Errors
///
/// Returns an error if the ledger fails or the audience cannot be read.
pub async fn run<L: Ledger>(
    ledger: &L,
    context: &Context,
    prepared: &Arc<LoadedJob>,
    campaign: &Campaign,
    stop: &CancellationToken,
) -> Result<End, DispatchError> {
    let id = &campaign.id;
    if campaign.state == CampaignState::Cancelled {
        return Ok(End::Completed);
    }
    // No other process sends from this ledger, so an old claim belongs to a process that died.
    let resend = prepared.job.on_in_doubt == OnInDoubt::Resend;
    let expired = claims::expire(ledger, id, resend).await?;
    if expired > 0 && !resend {
        tracing::warn!(campaign = %id, messages = expired, "messages were in flight when flowcast ended; they are in doubt");
    }
    if campaign.audience != prepared.scan.digest {
        let reason = Reason::AudienceChanged { planned: true };
        transitions::change_state(ledger, id, CampaignState::Held, Some(reason)).await?;
        return Ok(End::AudienceChanged);
    }
    let is_done = |campaign: &Campaign| campaign.planned && campaign.counts.open() == 0;
    if campaign.state == CampaignState::Completed && is_done(campaign) && expired == 0 {
        return Ok(End::Completed);
    }
    // An operator who runs it again resumes it from any state.
    for breaker in breakers(&prepared.job) {
        ledger.close_breaker(&breaker).await?;
    }
    let (state, reason) = match prepared.job.schedule.at(ledger.time()) {
        Opening::Opens(at) if campaign.state != CampaignState::Completed => {
            tracing::info!(campaign = %id, start = %at, "waiting for the campaign's start");
            (CampaignState::Scheduled, Some(Reason::Start { opens: at }))
        }
        _ => (CampaignState::Running, None),
    };
    transitions::change_state(ledger, id, state, reason).await?;

    let account = context.accounts.get(&prepared.job.account).map_err(DispatchError::Task)?;
    let queue = Local::open(&(), id, account.ahead(campaign.batch_size));
    let supervisor = CampaignSupervisor::new(
        id.clone(),
        ledger.clone(),
        queue.clone(),
        context.clone(),
        Arc::default(),
        stop.child_token(),
    );
    supervisor.with(Some(prepared.clone())).until_it_stops().supervise(None).await?;
    conclude(ledger, &queue, prepared, id, stop).await
}

/// Completes a campaign if its counts add up, otherwise pauses it or counts the unplanned rows.
async fn conclude<L: Ledger>(
    ledger: &L,
    queue: &Local,
    prepared: &Arc<LoadedJob>,
    id: &CampaignId,
    stop: &CancellationToken,
) -> Result<End, DispatchError> {
    let campaign = find(ledger, id).await?;
    match campaign.state {
        CampaignState::Completed | CampaignState::Cancelled => Ok(End::Completed),
        CampaignState::Held => {
            // So that its counts include the recipients it has not reached.
            count_the_rest(ledger, queue, prepared, &campaign, stop).await?;
            Ok(End::Held)
        }
        CampaignState::Running if transitions::complete(ledger, id, prepared.job.stop_when).await? => {
            Ok(End::Completed)
        }
        CampaignState::Running => {
            transitions::change_state(ledger, id, CampaignState::Paused, Some(Reason::Stopped)).await?;
            Ok(End::Stopped)
        }
        CampaignState::Paused | CampaignState::Scheduled => Ok(End::Stopped),
    }
}

/// Plans a campaign to its end without publishing batches.
async fn count_the_rest<L: Ledger>(
    ledger: &L,
    queue: &Local,
    prepared: &Arc<LoadedJob>,
    campaign: &Campaign,
    stop: &CancellationToken,
) -> Result<(), DispatchError> {
    if campaign.planned {
        return Ok(());
    }
    let plans = PlanContext {
        ledger: ledger.clone(),
        queue: queue.clone(),
        id: campaign.id.clone(),
        prepared: prepared.clone(),
        batch_size: campaign.batch_size,
        publish: PublishScope::Nothing,
        stop: stop.clone(),
    };
    match plans.plan().await {
        // The campaign is already held, perhaps for this error.
        Ok(_) | Err(DispatchError::Audience(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
