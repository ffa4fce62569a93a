//! A campaign's status, as the command line and the API show it.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::campaign::{CampaignState, time};
use crate::ledger::{Campaign, Counts, DeliveryCounts};

/// The status of a campaign.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Status {
    /// Id of the campaign.
    pub id: String,
    /// Name for people.
    #[schema(required = true)]
    pub name: Option<String>,
    /// State of the campaign.
    pub state: CampaignState,
    /// Why the campaign is held, or what it waits for.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// Whether the whole audience is planned; until then the total grows.
    pub planned: bool,
    /// Messages by state; the total is the sum of the others.
    pub counts: Counts,
    /// Skipped rows by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Rejected messages by the provider's code.
    pub rejected: BTreeMap<String, u64>,
    /// Accepted messages by delivery state.
    pub delivery: DeliveryCounts,
    /// Settled messages per second, over the last ten seconds.
    pub rate: f64,
    /// Time remaining at that rate, in seconds.
    #[schema(required = true)]
    pub eta_s: Option<u64>,
    /// When the campaign was registered.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub submitted_at: Timestamp,
    /// When it first ran.
    #[serde(serialize_with = "time::serialize_option")]
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub started_at: Option<Timestamp>,
    /// When it completed or was cancelled.
    #[serde(serialize_with = "time::serialize_option")]
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub finished_at: Option<Timestamp>,
    /// The account that it is sent from.
    pub account: String,
    /// Whether it is sent to a sandbox only.
    pub sandbox: bool,
    /// Who submitted it: a token's name, a user at a host, or the way it was submitted; null if an earlier version
    /// registered it.
    #[schema(required = true)]
    pub created_by: Option<String>,
}

impl From<&Campaign> for Status {
    fn from(campaign: &Campaign) -> Self {
        Self {
            id: campaign.id.to_string(),
            name: campaign.name.clone(),
            state: campaign.state,
            reason: campaign.reason.as_ref().map(ToString::to_string),
            planned: campaign.planned,
            counts: campaign.counts,
            skipped: campaign.skipped.clone(),
            rejected: campaign.rejected.clone(),
            delivery: campaign.delivery,
            rate: (campaign.rate * 10.0).round() / 10.0,
            eta_s: eta(campaign).map(|eta| eta.as_secs_f64().ceil() as u64),
            submitted_at: campaign.submitted_at,
            started_at: campaign.started_at,
            finished_at: campaign.finished_at,
            account: campaign.account.clone(),
            sandbox: campaign.rehearsal,
            created_by: campaign.created_by.clone(),
        }
    }
}

/// Returns the time remaining at the current rate.
pub fn eta(campaign: &Campaign) -> Option<Duration> {
    if campaign.state != CampaignState::Running || campaign.rate <= 0.0 {
        return None;
    }
    let counts = &campaign.counts;
    let total = if campaign.planned { counts.total } else { campaign.rows.max(counts.total) };
    let left = total.saturating_sub(counts.total - counts.open());
    Some(Duration::from_secs_f64((left as f64 / campaign.rate).min(1e9)))
}
