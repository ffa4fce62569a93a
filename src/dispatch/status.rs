//! The reason in a campaign's status: what it waits for, or why it is held.

use std::time::Duration;

use tokio::time::Instant;

use super::{DispatchError, supervisor::CampaignSupervisor};
use crate::campaign::{Job, Reason, notice::KeptNotice};
use crate::ledger::{Campaign, Ledger, transitions};
use crate::queue::Queue;

/// Interval between lookups of the provider's notices about templates and numbers.
const NOTICE_INTERVAL: Duration = Duration::from_secs(5);

impl<L: Ledger, Q: Queue> CampaignSupervisor<L, Q> {
    /// Returns the provider's notice about what the campaign uses, cached for [`NOTICE_INTERVAL`].
    pub(super) async fn notice(&mut self, job: &Job) -> Result<Option<KeptNotice>, DispatchError> {
        if let Some((at, known)) = &self.noticed
            && at.elapsed() < NOTICE_INTERVAL
        {
            return Ok(known.clone());
        }
        let mut found = None;
        for about in job.noticed() {
            if let Some(stored) = self.ledger.notice(&job.account, &about).await? {
                found = Some(stored.notice);
            }
        }
        self.noticed = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    /// Holds the campaign for every worker.
    pub(super) async fn hold(&self, reason: Reason) -> Result<(), DispatchError> {
        tracing::warn!(campaign = %self.id, "campaign held: {reason}");
        self.wake_up.notify_one();
        Ok(transitions::hold(&self.ledger, &self.id, reason).await?)
    }

    /// Updates the reason in the campaign's status when it changes.
    pub(super) async fn show_wait(
        &mut self,
        campaign: &Campaign,
        waits_for: Option<Reason>,
    ) -> Result<(), DispatchError> {
        if waits_for == self.shown {
            return Ok(());
        }
        // A reason that another worker has written since is kept.
        if waits_for.is_some() || campaign.reason == self.shown {
            transitions::set_reason(&self.ledger, &self.id, waits_for.clone()).await?;
        }
        self.shown = waits_for;
        Ok(())
    }
}
