//! The facts of campaigns' jobs that callbacks need, cached.

use super::Reports;
use crate::campaign::{CampaignId, Job, Phone, job::StopWhen};
use crate::ledger::{Ledger, LedgerError};

/// Maximum number of cached campaigns.
const MAX_CACHED: usize = 1000;

/// The facts of a campaign's job that callbacks need.
#[derive(Clone, Debug, Default)]
pub(super) struct CampaignFacts {
    /// The account that sends the campaign.
    pub(super) account: String,
    /// The URL that reports are forwarded to.
    pub(super) status_callback: Option<String>,
    /// The data that reports return, with placeholders.
    pub(super) custom_data: Option<String>,
    /// The flow that the messages open.
    pub(super) flow: Option<String>,
    /// The number that the messages are sent from.
    pub(super) from: Option<Phone>,
    /// The job's limit of rejected messages.
    pub(super) stop_when: Option<StopWhen>,
}

impl<L: Ledger> Reports<L> {
    /// Returns the facts of a campaign's job, or empty ones if the campaign was removed.
    pub(super) async fn campaign_facts(&self, campaign: &CampaignId) -> Result<CampaignFacts, LedgerError> {
        let jobs = || self.known.lock();
        if let Some(known) = jobs().get(campaign) {
            return Ok(known.clone());
        }
        let stored = match self.ledger.job(campaign).await {
            Err(LedgerError::NoCampaign(_)) => return Ok(CampaignFacts::default()),
            stored => stored?,
        };
        let known = if let Ok(job) = Job::read(stored.job.as_bytes()) {
            CampaignFacts {
                flow: job.flow(),
                from: Some(job.from),
                stop_when: job.stop_when,
                account: job.account,
                status_callback: job.status_callback,
                custom_data: job.custom_data,
            }
        } else {
            // An older version of flowcast accepted the job, and this one does not: its reports are still processed.
            let stored = self.ledger.campaign(campaign).await?;
            let account = stored.map(|campaign| campaign.account).unwrap_or_default();
            CampaignFacts { account, ..CampaignFacts::default() }
        };
        let mut jobs = jobs();
        if jobs.len() >= MAX_CACHED {
            jobs.clear();
        }
        jobs.insert(campaign.clone(), known.clone());
        Ok(known)
    }
}
