//! The times at which a campaign starts and expires, and until which it needs no supervisor.

use jiff::Timestamp;

use super::DispatchError;
use super::supervisor::{CampaignSupervisor, Idle};
use crate::campaign::{CampaignState, Opening, Reason, SkipReason};
use crate::ledger::{Campaign, Decision, Ledger, decisions, skip_unplanned, transitions};
use crate::queue::Queue;

impl<L: Ledger, Q: Queue> CampaignSupervisor<L, Q> {
    /// Returns until when a campaign needs no supervisor, or `None` if it needs one now.
    pub(super) async fn waits(&mut self, campaign: &Campaign) -> Result<Option<Idle>, DispatchError> {
        if !self.is_idle(campaign) {
            return Ok(None);
        }
        let now = self.ledger.time();
        let expires = self.expires_at(campaign).await?;
        Ok(match campaign.state {
            _ if expires.is_some_and(|at| at <= now) => None,
            CampaignState::Paused | CampaignState::Held if campaign.suspended_by.is_none() => {
                Some(expires.map_or(Idle::UntilItChanges, Idle::Until))
            }
            CampaignState::Scheduled => match self.load_job().await?.job.schedule.at(now) {
                Opening::Opens(at) if campaign.reason == Some(Reason::Start { opens: at }) => {
                    Some(Idle::Until(at))
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// Returns when the unsent messages of a paused or held campaign expire.
    async fn expires_at(&mut self, campaign: &Campaign) -> Result<Option<Timestamp>, DispatchError> {
        match campaign.state {
            CampaignState::Paused | CampaignState::Held => Ok(self.load_job().await?.job.schedule.expires_at),
            _ => Ok(None),
        }
    }

    /// Expires the unsent messages of a paused or held campaign. Returns whether it did.
    pub(super) async fn expire(&mut self, campaign: &Campaign) -> Result<bool, DispatchError> {
        let now = self.ledger.time();
        if self.expires_at(campaign).await?.is_none_or(|at| at > now) {
            return Ok(false);
        }
        self.stop_planning().await;
        if !self.idle().await? {
            return Ok(false);
        }
        let messages = decisions::decide(&self.ledger, &self.id, Decision::Expire).await?
            + skip_unplanned(&self.ledger, &self.id, SkipReason::Expired).await?;
        tracing::info!(campaign = %self.id, messages, state = %campaign.state, "expired");
        // Messages in flight or in doubt can still be settled.
        transitions::complete_expired(&self.ledger, &self.id).await?;
        self.wake_up.notify_one();
        Ok(true)
    }

    /// Waits for the campaign's start, then sets it running.
    pub(super) async fn wait_for_start(&mut self, campaign: &Campaign) -> Result<(), DispatchError> {
        let now = self.ledger.time();
        let (state, reason) = match self.load_job().await?.job.schedule.at(now) {
            Opening::Opens(at) => (CampaignState::Scheduled, Some(Reason::Start { opens: at })),
            Opening::Open { .. } | Opening::Expired => (CampaignState::Running, None),
        };
        if (state, &reason) != (campaign.state, &campaign.reason) {
            transitions::move_from(&self.ledger, &self.id, campaign.state, state, reason).await?;
        }
        if state == CampaignState::Running {
            self.wake_up.notify_one();
        }
        Ok(())
    }
}
