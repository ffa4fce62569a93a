//! What a person does about a ledger that came back older than it was: what may have been sent by workers that
//! nobody can ask any more is in doubt, and the campaign goes on.

use std::time::Duration;

use super::control::{find, resume};
use super::planning::AHEAD;
use crate::campaign::{CampaignId, CampaignState, Rate, counted};
use crate::ledger::{Act, Campaign, Decision, Gap, Ledger, LedgerError};
use crate::ledger::{decisions, transitions};

/// Batches may have been published so many ahead of what the ledger knows, beside those that were sent.
const PUBLISHED: u64 = AHEAD + 64;
/// What clocks may differ by, and what a burst adds.
const MARGIN: Duration = Duration::from_secs(10);

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// How many messages are in doubt now.
    pub messages: u64,
    /// Messages of batches below this number that are still to be planned are in doubt as soon as they are.
    pub below: u32,
    /// The campaign's state now.
    pub state: CampaignState,
}

/// Has all messages be in doubt that may have been sent in a gap, and lets the campaign go on. `rate` is the most that
/// its account sends; without one, or without a gap that is known, it may be the whole campaign.
///
/// # Errors
///
/// When there is no such campaign, or something is being sent.
pub async fn recover(
    ledger: &impl Ledger,
    id: &CampaignId,
    gap: Option<&Gap>,
    rate: Option<Rate>,
    by: &str,
) -> Result<Recovered, LedgerError> {
    let campaign = find(ledger, id).await?;
    let batches = ledger.plan(id).await?.checkpoint.batches;
    let below = below(&campaign, batches, gap, rate);
    // First: whatever becomes of this process, nothing of it is sent.
    transitions::mark_in_doubt_below(ledger, id, below).await?;
    let messages = decisions::decide(ledger, id, Decision::Doubt).await?;
    ledger.close_gap(id).await?;
    if campaign.state == CampaignState::Held {
        resume(ledger, &campaign).await?;
    }
    let detail = format!("recovered it: {} in doubt that may have been sent", counted(messages, "message"));
    ledger.log(Act::new(by, "recover", Some(id), &detail)).await?;
    ledger.touch(id).await?;
    Ok(Recovered { messages, below, state: find(ledger, id).await?.state })
}

/// The same of a campaign in a backup: all that is pending in it may have been sent since it was made. One that runs is paused
/// meanwhile. `None` where nothing of it can be sent any more.
///
/// # Errors
///
/// As [`recover`].
pub async fn recover_restored(
    ledger: &impl Ledger,
    id: &CampaignId,
    by: &str,
) -> Result<Option<Recovered>, LedgerError> {
    let campaign = find(ledger, id).await?;
    let is_settled = campaign.planned && campaign.counts.open() == 0;
    if campaign.rehearsal || campaign.state == CampaignState::Cancelled || is_settled {
        return Ok(None);
    }
    let was_running = campaign.state == CampaignState::Running;
    if was_running {
        transitions::change_state(ledger, id, CampaignState::Paused, None).await?;
    }
    let mut recovered = recover(ledger, id, None, None, by).await?;
    if was_running {
        resume(ledger, &find(ledger, id).await?).await?;
        recovered.state = find(ledger, id).await?.state;
    }
    Ok(Some(recovered))
}

/// Below which number batches may have been sent that the ledger does not know.
fn below(campaign: &Campaign, planned: u32, gap: Option<&Gap>, rate: Option<Rate>) -> u32 {
    let known = gap.and_then(|gap| Some(gap.to?.duration_since(gap.from?)));
    let seconds = known.and_then(|time| Duration::try_from(time).ok()).map(|time| time + MARGIN);
    let (Some(seconds), Some(rate)) = (seconds, rate) else { return u32::MAX };
    let sent = (seconds.as_secs_f64() / rate.period().as_secs_f64()).ceil() + f64::from(rate.burst().get());
    let sent = if sent.is_finite() && sent < u32::MAX.into() { sent as u64 } else { return u32::MAX };
    let batches = sent.div_ceil(campaign.batch_size.max(1) as u64);
    u32::try_from(u64::from(planned) + PUBLISHED + batches).unwrap_or(u32::MAX)
}
