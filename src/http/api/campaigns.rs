//! Campaigns: submitting, listing, showing and controlling them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::{access::Caller, problem::Problem};
use super::Api;
use super::extract::{Document, Params, body, campaign, finish, limit};
use super::refusals::{OnCampaign, OnJob, OnList};
use crate::campaign::control::{Action, Control};
use crate::campaign::{CampaignState, HumanDuration, Job, Phone, problem::Problem as JobProblem};
use crate::dispatch::{self, Account, LoadedJob};
use crate::ledger::{Campaign, CampaignFilter, listing};
use crate::views::check::{Checked, check};
use crate::views::status::Status;

/// Number of messages that a check shows.
const PREVIEWED_MESSAGES: usize = 3;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CreateParams {
    /// Whether to only check the job and its audience, without registering it.
    #[serde(default)]
    check: bool,
}

/// Submits a job as a campaign.
///
/// A job with an `id` may be submitted repeatedly: it is one campaign. With `check` nothing is registered, and the response
/// says what would be sent.
#[utoipa::path(
    post, path = "/campaigns", tag = "campaigns", operation_id = "createCampaign", params(CreateParams),
    request_body(content = Object, description = "A job", content_type = "application/json"),
    responses(
        (status = 200, description = "The status, if the job was already registered; or the result of a check",
         body = StatusOrChecked),
        (status = 201, description = "Registered", body = Status,
         headers(("Location" = String, description = "Path of the campaign"))),
        OnJob,
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    who: Caller,
    Params(asked): Params<CreateParams>,
    request: Request,
) -> Result<Response, Problem> {
    let bytes = body(request, &api).await?;
    let job = Job::read(&bytes)?;
    if asked.check {
        return Ok(Json(check_job(&api, job, PREVIEWED_MESSAGES).await?).into_response());
    }
    let (campaign, is_new) = submit(&api, &who, job).await?;
    let status = Json(Status::from(&campaign));
    if !is_new {
        return Ok(status.into_response());
    }
    let place = format!("{}/campaigns/{}", super::BASE, campaign.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], status).into_response())
}

/// Checks a job against its audience and its account, and runs `work` with the result.
pub(in crate::http) async fn with_prepared<T: Send + 'static>(
    api: &Api,
    job: Job,
    work: impl FnOnce(LoadedJob, &Account) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let context = api.backing()?.context.clone();
    let account =
        context.accounts.get(&job.account).map_err(|error| vec![JobProblem::new("/account", error)])?;
    let prepare = move || work(dispatch::prepare(job, &context.audiences, &account)?, &account);
    // Each check reads a whole audience, so their number is limited.
    let turn = api.backing()?.intake.acquire().await;
    let done = tokio::task::spawn_blocking(prepare).await;
    drop(turn);
    done.map_err(|error| Problem::away(error.to_string()))?
}

/// Returns whether a number is on the suppression list, as the list is now.
pub(in crate::http) async fn suppression(
    api: &Api,
) -> Result<impl Fn(Phone) -> bool + Send + use<>, Problem> {
    let backing = api.backing()?;
    let context = backing.context.clone();
    context.follow_suppressed(&backing.ledger).await?;
    Ok(move |phone| context.is_suppressed(phone))
}

/// Checks a job and its audience, and renders the first `shown` messages.
pub(in crate::http) async fn check_job(api: &Api, job: Job, shown: usize) -> Result<Checked, Problem> {
    let is_suppressed = suppression(api).await?;
    with_prepared(api, job, move |prepared, account| Ok(check(&prepared, account, &is_suppressed, shown)?))
        .await
}

/// Registers a job, or finds its campaign; also returns whether it is new.
pub(in crate::http) async fn submit(api: &Api, who: &Caller, job: Job) -> Result<(Campaign, bool), Problem> {
    let prepared = with_prepared(api, job, |prepared, _| Ok(Arc::new(prepared))).await?;
    let (ledger, who) = (api.ledger()?.clone(), who.name.clone());
    let context = api.backing()?.context.clone();
    let registering = async move {
        Ok(dispatch::register(&ledger, &prepared, context.rehearses, false, &who, &context.unmoved).await?)
    };
    finish(registering).await
}

/// The two bodies of a response, for the `OpenAPI` document.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes two responses")]
pub(super) enum StatusOrChecked {
    Status(Box<Status>),
    Checked(Box<Checked>),
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only campaigns in this state.
    state: Option<CampaignState>,
    /// Only campaigns whose id or name contains this text.
    q: Option<String>,
    /// Only campaigns of this account.
    account: Option<String>,
    /// Maximum number of items.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// The `next` of the previous page.
    cursor: Option<String>,
}

/// A page of campaigns.
#[derive(Serialize, ToSchema)]
pub(super) struct CampaignList {
    /// Campaigns, newest first.
    items: Vec<Status>,
    /// The cursor of the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// Lists campaigns, newest first.
///
/// A cursor stays valid while campaigns are registered.
#[utoipa::path(
    get, path = "/campaigns", tag = "campaigns", operation_id = "listCampaigns", params(ListParams),
    responses((status = 200, description = "A page of campaigns", body = CampaignList), OnList)
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(asked): Params<ListParams>,
) -> Result<Json<CampaignList>, Problem> {
    let limit = limit(asked.limit, 50, 200)?;
    let filter = CampaignFilter { state: asked.state, text: asked.q, account: asked.account, tests: None };
    let from = asked.cursor.as_deref();
    let page = listing::page(api.ledger()?, &filter, from, limit).await?;
    Ok(Json(CampaignList { items: page.campaigns.iter().map(Status::from).collect(), next: page.next }))
}

/// Returns a campaign's status.
///
/// The same document as `flowcast status --json` prints.
#[utoipa::path(
    get, path = "/campaigns/{id}", tag = "campaigns", operation_id = "getCampaign", params(("id" = String, Path, description = "The campaign's id")),
    responses((status = 200, description = "The status", body = Status), OnCampaign)
)]
pub(super) async fn show(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Status>, Problem> {
    Ok(Json(Status::from(&campaign(&api, &id).await?)))
}

/// Performs an action on a campaign; returns its new status and the number of affected messages.
pub(in crate::http) async fn act(
    api: &Api,
    who: &Caller,
    id: &str,
    action: Action,
) -> Result<(Status, u64), Problem> {
    let known = campaign(api, id).await?;
    let control = Control { id: known.id.clone(), action, by: Some(who.name.to_string()), asked_at: None };
    let ledger = api.ledger()?.clone();
    let done = finish(async move { Ok(dispatch::control(&ledger, &control).await?) }).await?;
    Ok((Status::from(&campaign(api, id).await?), done.messages))
}

/// Pauses a campaign until it is resumed.
///
/// No more messages are sent until it is resumed; requests in flight are completed.
#[utoipa::path(
    post, path = "/campaigns/{id}/pause", tag = "campaigns", operation_id = "pauseCampaign",
    params(("id" = String, Path, description = "The campaign's id")),
    responses((status = 200, description = "The new status", body = Status), OnCampaign)
)]
pub(super) async fn pause(api: State<Api>, who: Caller, id: Path<String>) -> Result<Json<Status>, Problem> {
    Ok(Json(act(&api, &who, &id, Action::Pause).await?.0))
}

/// Resumes a paused or held campaign.
///
/// If a breaker holds it and other campaigns, the breaker is probed again, too.
#[utoipa::path(
    post, path = "/campaigns/{id}/resume", tag = "campaigns", operation_id = "resumeCampaign",
    params(("id" = String, Path, description = "The campaign's id")),
    responses((status = 200, description = "The new status", body = Status), OnCampaign)
)]
pub(super) async fn resume(api: State<Api>, who: Caller, id: Path<String>) -> Result<Json<Status>, Problem> {
    Ok(Json(act(&api, &who, &id, Action::Resume).await?.0))
}

/// Cancels a campaign; unsent messages are never sent.
///
/// Unsent messages are skipped; requests in flight are completed.
#[utoipa::path(
    post, path = "/campaigns/{id}/cancel", tag = "campaigns", operation_id = "cancelCampaign",
    params(("id" = String, Path, description = "The campaign's id")),
    responses((status = 200, description = "The new status", body = Status), OnCampaign)
)]
pub(super) async fn cancel(api: State<Api>, who: Caller, id: Path<String>) -> Result<Json<Status>, Problem> {
    Ok(Json(act(&api, &who, &id, Action::Cancel).await?.0))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryBody {
    /// Only messages that were rejected with one of these codes (132069: also those whose report failed with it); all
    /// rejected messages by default.
    #[serde(default)]
    codes: Vec<String>,
}

/// The number of affected messages.
#[derive(Serialize, ToSchema)]
pub(super) struct Messages {
    /// Affected messages.
    messages: u64,
}

/// Sends rejected messages again.
///
/// All of them, or those with certain codes. Messages rejected with 131049 (the recipient gets too much marketing) within the
/// last day are only included if that code is listed.
#[utoipa::path(
    post, path = "/campaigns/{id}/retry", tag = "campaigns", operation_id = "retryCampaign",
    params(("id" = String, Path, description = "The campaign's id")), request_body = Option<RetryBody>,
    responses((status = 200, description = "The number of messages that are sent again", body = Messages), OnCampaign)
)]
pub(super) async fn retry(
    State(api): State<Api>,
    who: Caller,
    Path(id): Path<String>,
    Document(asked): Document<RetryBody>,
) -> Result<Json<Messages>, Problem> {
    let (_, messages) = act(&api, &who, &id, Action::Retry { codes: asked.codes }).await?;
    Ok(Json(Messages { messages }))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResolveBody {
    /// Whether to send the messages again; some recipients may get two. If false, the messages are abandoned.
    #[schema(required = true, nullable = false)]
    resend: Option<bool>,
    /// Only messages that have been in doubt for at least this time, e.g. `30min` or `2h`.
    #[schema(value_type = Option<String>)]
    older_than: Option<HumanDuration>,
}

/// Resolves messages in doubt.
///
/// The provider may have accepted them. If they are sent again, some recipients may get two; if they are abandoned, they count
/// as rejected.
#[utoipa::path(
    post, path = "/campaigns/{id}/resolve", tag = "campaigns", operation_id = "resolveCampaign",
    params(("id" = String, Path, description = "The campaign's id")), request_body = ResolveBody,
    responses((status = 200, description = "The number of resolved messages", body = Messages), OnCampaign)
)]
pub(super) async fn resolve(
    State(api): State<Api>,
    who: Caller,
    Path(id): Path<String>,
    Document(asked): Document<ResolveBody>,
) -> Result<Json<Messages>, Problem> {
    let missing =
        || vec![JobProblem::new("/resend", "missing; true sends the messages again, false abandons them")];
    let resend = asked.resend.ok_or_else(missing)?;
    let (_, messages) =
        act(&api, &who, &id, Action::Resolve { resend, older_than: asked.older_than }).await?;
    Ok(Json(Messages { messages }))
}
