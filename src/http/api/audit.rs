//! The audit log: what people did by the command line, the queue, the API or the dashboard.

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::problem::Problem;
use super::extract::{Params, limit};
use super::{Api, refusals::OnList};
use crate::campaign::{CampaignId, time};
use crate::ledger::{Audit, AuditEntry};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only actions on this campaign.
    campaign: Option<String>,
    /// Maximum number of items.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// The `next` of the previous page.
    cursor: Option<String>,
}

/// An action of a person.
#[derive(Serialize, ToSchema)]
pub(super) struct ActView {
    /// When it was done.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Who did it: a token's name, a user at a host, or the way it was submitted.
    who: String,
    /// The action, in one word.
    what: String,
    /// The campaign, if the action concerns one.
    #[schema(required = true)]
    campaign: Option<String>,
    /// Description of the action.
    detail: String,
}

impl From<AuditEntry> for ActView {
    fn from(act: AuditEntry) -> Self {
        let campaign = act.campaign.map(|id| id.to_string());
        Self { at: act.at, who: act.who, what: act.what, campaign, detail: act.detail }
    }
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub(super) struct Acts {
    /// Actions, newest first.
    items: Vec<ActView>,
    /// The cursor of the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// Lists the actions of people, newest first.
///
/// By the command line, the queue, the API or the dashboard.
#[utoipa::path(
    get, path = "/audit", tag = "audit", operation_id = "listAudit", params(ListParams), responses((status = 200, description = "A page of the audit log", body = Acts), OnList)
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(asked): Params<ListParams>,
) -> Result<Json<Acts>, Problem> {
    let limit = limit(asked.limit, 50, 200)?;
    let wrong = |error| Problem::bad_request(format!("invalid campaign id: {error}"));
    let id = asked.campaign.map(|id| id.parse::<CampaignId>().map_err(wrong)).transpose()?;
    let from = asked.cursor.as_deref();
    let page = api.ledger()?.acts(id.as_ref(), from, limit).await?;
    Ok(Json(Acts { items: page.acts.into_iter().map(ActView::from).collect(), next: page.next }))
}
