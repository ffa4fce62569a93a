//! Recovers a campaign after the ledger lost recent writes: messages that a lost worker may have sent are in doubt, and the
//! campaign continues.

use std::time::Duration;

use super::control::{find, resume};
use super::plan_pipeline::AHEAD;
use crate::campaign::{CampaignId, CampaignState, Rate, counted};
use crate::ledger::{
    AuditEntry, Campaign, Decision, Ledger, LedgerError, LostWrites, decisions, transitions,
};

/// Maximum number of published batches that the ledger may not know, besides those that were sent.
const MAX_PUBLISHED_AHEAD: u64 = AHEAD + 64;
/// Allowance for clock skew and bursts.
const MARGIN: Duration = Duration::from_secs(10);

/// The result of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Number of messages that are now in doubt.
    pub messages: u64,
    /// Unplanned messages of batches below this number will be in doubt when they are planned.
    pub below: u32,
    /// The campaign's state now.
    pub state: CampaignState,
}

/// Marks messages that may have been sent in a gap as in doubt, and resumes the campaign.
///
/// `rate` is the account's limit. Without a limit or a known gap the whole campaign may be in doubt.
///
/// # Errors
///
/// Returns an error if the campaign does not exist or has messages in flight.
pub async fn recover_campaign(
    ledger: &impl Ledger,
    id: &CampaignId,
    gap: Option<&LostWrites>,
    rate: Option<Rate>,
    by: &str,
) -> Result<Recovered, LedgerError> {
    let campaign = find(ledger, id).await?;
    let batches = ledger.plan(id).await?.checkpoint.batches;
    let below = below(&campaign, batches, gap, rate);
    // First, so that none of these messages is sent if this process dies.
    transitions::mark_in_doubt_below(ledger, id, below).await?;
    let messages = decisions::decide(ledger, id, Decision::Doubt).await?;
    ledger.close_gap(id).await?;
    if campaign.state == CampaignState::Held {
        resume(ledger, &campaign).await?;
    }
    let detail = format!(
        "recovered the campaign: {} that may have been sent are in doubt",
        counted(messages, "message")
    );
    ledger.log(AuditEntry::new(by, "recover", Some(id), &detail)).await?;
    ledger.touch(id).await?;
    Ok(Recovered { messages, below, state: find(ledger, id).await?.state })
}

/// Returns whether messages of a campaign of a backup may have been sent since the backup was made.
///
/// Messages of a rehearsal are never really sent.
pub fn may_have_been_sent(campaign: &Campaign) -> bool {
    let is_settled = campaign.planned && campaign.counts.open() == 0;
    !campaign.rehearsal && campaign.state != CampaignState::Cancelled && !is_settled
}

/// Recovers a campaign of a backup, whose pending messages may have been sent since the backup was made.
///
/// A running campaign is paused during the recovery. Returns `None` unless [`may_have_been_sent`].
///
/// # Errors
///
/// Returns the errors of [`recover_campaign`].
pub async fn recover_restored(
    ledger: &impl Ledger,
    id: &CampaignId,
    by: &str,
) -> Result<Option<Recovered>, LedgerError> {
    let campaign = find(ledger, id).await?;
    if !may_have_been_sent(&campaign) {
        return Ok(None);
    }
    let was_running = campaign.state == CampaignState::Running;
    if was_running {
        transitions::change_state(ledger, id, CampaignState::Paused, None).await?;
    }
    let mut recovered = recover_campaign(ledger, id, None, None, by).await?;
    if was_running {
        resume(ledger, &find(ledger, id).await?).await?;
        recovered.state = find(ledger, id).await?.state;
    }
    Ok(Some(recovered))
}

/// Returns the number below which batches may have been sent without the ledger's knowledge.
fn below(campaign: &Campaign, planned: u32, gap: Option<&LostWrites>, rate: Option<Rate>) -> u32 {
    let known = gap.and_then(|gap| Some(gap.to?.duration_since(gap.from?)));
    let seconds = known.and_then(|time| Duration::try_from(time).ok()).map(|time| time + MARGIN);
    let (Some(seconds), Some(rate)) = (seconds, rate) else { return u32::MAX };
    let sent = (seconds.as_secs_f64() / rate.period().as_secs_f64()).ceil() + f64::from(rate.burst().get());
    let sent = if sent.is_finite() && sent < u32::MAX.into() { sent as u64 } else { return u32::MAX };
    let batches = sent.div_ceil(campaign.batch_size.max(1) as u64);
    u32::try_from(u64::from(planned) + MAX_PUBLISHED_AHEAD + batches).unwrap_or(u32::MAX)
}
