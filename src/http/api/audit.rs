//! What people did, whichever way.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::problem::Problem;
use super::Api;
use super::extract::{Params, limit};
use super::refusals::OnList;
use crate::campaign::{CampaignId, time};
use crate::ledger::{Act, Audit};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Those to this campaign.
    campaign: Option<String>,
    /// How many.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// Where the page before said that it goes on.
    cursor: Option<String>,
}

/// An act of a person.
#[derive(Serialize, ToSchema)]
pub(super) struct ActView {
    /// When.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Who: a token's name, a user at a host, or the way it came.
    who: String,
    /// What, one word.
    what: String,
    /// To which campaign, if to one.
    #[schema(required = true)]
    campaign: Option<String>,
    /// The same in words.
    detail: String,
}

impl From<Act> for ActView {
    fn from(act: Act) -> Self {
        let campaign = act.campaign.map(|id| id.to_string());
        Self { at: act.at, who: act.who, what: act.what, campaign, detail: act.detail }
    }
}

/// A part of the log.
#[derive(Serialize, ToSchema)]
pub(super) struct Acts {
    /// The newest first.
    items: Vec<ActView>,
    /// The cursor of the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// Lists what people did, the newest first.
///
/// By the command line, the queue, the API or the dashboard.
#[utoipa::path(
    get, path = "/audit", tag = "audit", operation_id = "listAudit", params(ListParams), responses((status = 200, description = "A page of the log", body = Acts), OnList)
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(asked): Params<ListParams>,
) -> Result<Json<Acts>, Problem> {
    let limit = limit(asked.limit, 50, 200)?;
    let wrong = |fault| Problem::bad_request(format!("campaign: {fault}"));
    let id = asked.campaign.map(|id| id.parse::<CampaignId>().map_err(wrong)).transpose()?;
    let from = asked.cursor.as_deref();
    let page = api.ledger()?.acts(id.as_ref(), from, limit).await?;
    Ok(Json(Acts { items: page.acts.into_iter().map(ActView::from).collect(), next: page.next }))
}
