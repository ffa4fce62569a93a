//! A campaign on one machine, from wherever it stands to its end.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::gate::{self, Passed};
use super::planning::plan;
use super::sender::{Control, Sending, Why};
use super::{Account, DispatchError, Prepared};
use crate::campaign::job::OnInDoubt;
use crate::campaign::{CampaignId, CampaignState};
use crate::ledger::{Campaign, Ledger, LedgerError};
use crate::limiter::CampaignLimits;
use crate::queue::Local;

/// How many batches are planned ahead for each request under way.
const AHEAD: usize = 4;

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// Every row is settled.
    Completed,
    /// It was stopped from outside and can go on.
    Stopped,
    /// It is held, for the reason that the campaign has.
    Held,
    /// The audience is not the one that was planned. Nothing was sent.
    AudienceChanged,
}

/// Runs a campaign until it is completed, held, or `stop` is cancelled; what is in flight then is
/// finished and recorded.
///
/// # Errors
///
/// When the ledger or the audience fails on the way.
pub async fn run<L: Ledger>(
    ledger: &L,
    account: &Arc<Account>,
    prepared: &Arc<Prepared>,
    campaign: &Campaign,
    stop: &CancellationToken,
) -> Result<End, DispatchError> {
    let id = &campaign.id;
    if campaign.state == CampaignState::Cancelled {
        return Ok(End::Completed);
    }
    let resend = prepared.job.on_in_doubt == OnInDoubt::Resend;
    // Nobody else sends from this ledger, so an old claim is one of a process that died.
    let expired = ledger.expire_claims(id, resend).await?;
    if expired > 0 && !resend {
        tracing::warn!(campaign = %id, "{expired} messages were under way when flowcast ended: they are in doubt");
    }
    if campaign.audience != prepared.survey.digest {
        let reason = "the audience has changed since the campaign was planned";
        ledger.change_state(id, CampaignState::Held, Some(reason.into())).await?;
        return Ok(End::AudienceChanged);
    }
    let is_done = |campaign: &Campaign| campaign.planned && campaign.counts.open() == 0;
    if campaign.state == CampaignState::Completed && is_done(campaign) && expired == 0 {
        return Ok(End::Completed);
    }
    if let Passed::Stopped = wait_for_start(ledger, prepared, campaign, stop).await? {
        return Ok(End::Stopped);
    }
    ledger.change_state(id, CampaignState::Running, None).await?;

    let queue = Local::new(account.concurrency * AHEAD);
    let sending = Arc::new(Sending {
        id: id.clone(),
        ledger: ledger.clone(),
        queue,
        account: account.clone(),
        prepared: prepared.clone(),
        limits: CampaignLimits::new(prepared.job.limits.messages),
        control: Control::new(stop.child_token()),
        doubts: AtomicU32::new(0),
    });
    drive(&sending, campaign.batch_size).await?;

    match sending.control.why() {
        Some(Why::Broken(DispatchError::Audience(fault))) => {
            ledger.change_state(id, CampaignState::Held, Some(fault.to_string())).await?;
            Ok(End::Held)
        }
        Some(Why::Broken(fault)) => Err(fault),
        Some(Why::Held(reason)) => {
            ledger.change_state(id, CampaignState::Held, Some(reason)).await?;
            Ok(End::Held)
        }
        None => conclude(ledger, id, stop.is_cancelled()).await,
    }
}

/// A campaign completes only when its counts add up.
async fn conclude(ledger: &impl Ledger, id: &CampaignId, stopped: bool) -> Result<End, DispatchError> {
    let campaign = ledger.campaign(id).await?.ok_or_else(|| LedgerError::NoCampaign(id.clone()))?;
    let is_open = !campaign.planned || campaign.counts.open() > 0;
    if is_open && stopped {
        let reason = "stopped from the keyboard or by a signal";
        ledger.change_state(id, CampaignState::Paused, Some(reason.into())).await?;
        return Ok(End::Stopped);
    }
    if is_open {
        let reason = format!(
            "{} messages are open although all batches are done; run it again",
            campaign.counts.open()
        );
        ledger.change_state(id, CampaignState::Held, Some(reason)).await?;
        return Ok(End::Held);
    }
    ledger.change_state(id, CampaignState::Completed, None).await?;
    Ok(End::Completed)
}

async fn wait_for_start<L: Ledger>(
    ledger: &L,
    prepared: &Prepared,
    campaign: &Campaign,
    stop: &CancellationToken,
) -> Result<Passed, DispatchError> {
    let closed = |at: jiff::Timestamp| async move {
        tracing::info!(campaign = %campaign.id, "waits until {at}");
        let reason = Some(format!("its schedule opens at {at}"));
        // A ledger that fails here is met again at the next write.
        let _ = ledger.change_state(&campaign.id, CampaignState::Scheduled, reason).await;
    };
    Ok(gate::pass(&prepared.job.schedule, stop, closed).await)
}

/// Plans and sends until everything is acknowledged, or something stops it.
async fn drive<L: Ledger>(sending: &Arc<Sending<L, Local>>, batch_size: usize) -> Result<(), DispatchError> {
    let mut senders = JoinSet::new();
    for _ in 0..sending.account.concurrency {
        let sending = sending.clone();
        senders.spawn(async move { sending.send_batches().await });
    }
    let planner = {
        let (sending, runtime) = (sending.clone(), Handle::current());
        tokio::task::spawn_blocking(move || plan(&sending, batch_size, &runtime))
    };
    let planned = planner.await.map_err(|fault| DispatchError::Task(fault.to_string()));
    match planned {
        Ok(Ok(())) => {
            let mut outstanding = sending.control.outstanding.subscribe();
            tokio::select! {
                () = sending.control.stop.cancelled() => {}
                _ = outstanding.wait_for(|count| *count == 0) => {}
            }
        }
        Ok(Err(fault)) | Err(fault) => sending.control.stop_for(Why::Broken(fault)),
    }
    // Nothing new begins; what is under way is finished and recorded.
    sending.control.stop.cancel();
    let mut failed = Ok(());
    while let Some(sender) = senders.join_next().await {
        if let Err(fault) = sender {
            failed = Err(DispatchError::Task(fault.to_string()));
        }
    }
    failed
}
