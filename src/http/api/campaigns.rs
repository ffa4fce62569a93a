//! Campaigns: sent, listed, shown, and what people do to them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::access::Who;
use super::super::problem::Problem;
use super::Api;
use super::extract::{Document, Params, body, campaign, finish, limit};
use super::refusals::{OnCampaign, OnJob, OnList};
use crate::campaign::control::{Action, Control};
use crate::campaign::problem::Problem as JobProblem;
use crate::campaign::{CampaignState, Job, Span};
use crate::dispatch::{self, Account, Prepared};
use crate::ledger::{Campaign, CampaignFilter, listing};
use crate::views::check::{Checked, check};
use crate::views::status::Status;

/// How many messages a check shows.
const SHOWN: usize = 3;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CreateParams {
    /// Check the job and its audience; nothing is registered.
    #[serde(default)]
    check: bool,
}

/// Sends a campaign, or finds the one that the job already is.
///
/// A job with an `id` may be handed in as often as wanted: it is one campaign. With `check` nothing is registered, and the
/// answer says what would be sent.
#[utoipa::path(
    post, path = "/campaigns", tag = "campaigns", operation_id = "createCampaign", params(CreateParams),
    request_body(content = Object, description = "A job", content_type = "application/json"),
    responses(
        (status = 200, description = "The same job again, with the status of its campaign; or what a check found",
         body = StatusOrChecked),
        (status = 201, description = "Registered", body = Status,
         headers(("Location" = String, description = "Where the campaign is"))),
        OnJob,
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    who: Who,
    Params(asked): Params<CreateParams>,
    request: Request,
) -> Result<Response, Problem> {
    let bytes = body(request, &api).await?;
    let job = Job::read(&bytes)?;
    if asked.check {
        let checked = with_prepared(&api, job, |prepared, account| Ok(check(&prepared, account, SHOWN)?));
        return Ok(Json(checked.await?).into_response());
    }
    let (campaign, is_new) = submit(&api, &who, job).await?;
    let status = Json(Status::from(&campaign));
    if !is_new {
        return Ok(status.into_response());
    }
    let place = format!("{}/campaigns/{}", super::BASE, campaign.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], status).into_response())
}

/// Checks a job against its audience and its account, and does something with what comes out.
pub(in crate::http) async fn with_prepared<T: Send + 'static>(
    api: &Api,
    job: Job,
    work: impl FnOnce(Prepared, &Account) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let context = api.backing()?.context.clone();
    let account =
        context.accounts.get(&job.account).map_err(|fault| vec![JobProblem::new("/account", fault)])?;
    let prepare = move || work(dispatch::prepare(job, &context.audiences, &account)?, &account);
    // Each of them reads its audience: the others wait.
    let turn = api.backing()?.intake.acquire().await;
    let done = tokio::task::spawn_blocking(prepare).await;
    drop(turn);
    done.map_err(|fault| Problem::away(fault.to_string()))?
}

/// Registers a job, or finds the campaign that it already is; returns also whether it is new.
pub(in crate::http) async fn submit(api: &Api, who: &Who, job: Job) -> Result<(Campaign, bool), Problem> {
    let prepared = with_prepared(api, job, |prepared, _| Ok(Arc::new(prepared))).await?;
    let (ledger, who) = (api.ledger()?.clone(), who.name.clone());
    let context = api.backing()?.context.clone();
    let registered = finish(async move {
        let registered =
            dispatch::register(&ledger, &prepared, context.rehearses, false, &who, &context.unmoved).await?;
        Ok(registered)
    });
    registered.await
}

/// For the description alone.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes two answers")]
pub(super) enum StatusOrChecked {
    Status(Box<Status>),
    Checked(Box<Checked>),
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Those in this state.
    state: Option<CampaignState>,
    /// Those whose id or name has this text in it.
    q: Option<String>,
    /// Those of this account.
    account: Option<String>,
    /// How many.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// Where the page before said that it goes on.
    cursor: Option<String>,
}

/// A part of the campaigns.
#[derive(Serialize, ToSchema)]
pub(super) struct CampaignList {
    /// The newest first.
    items: Vec<Status>,
    /// The cursor of the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// Lists campaigns, the newest first.
///
/// A cursor stays right while campaigns are registered.
#[utoipa::path(
    get, path = "/campaigns", tag = "campaigns", operation_id = "listCampaigns", params(ListParams),
    responses(
        (status = 200, description = "A page of campaigns", body = CampaignList),
        OnList,
    )
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

/// Shows a campaign.
///
/// As `flowcast status --json` prints it.
#[utoipa::path(
    get, path = "/campaigns/{id}", tag = "campaigns", operation_id = "getCampaign", params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The status", body = Status),
        OnCampaign,
    )
)]
pub(super) async fn show(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Status>, Problem> {
    Ok(Json(Status::from(&campaign(&api, &id).await?)))
}

/// Does something to a campaign; returns its status after it, and for how many messages it was done.
pub(in crate::http) async fn act(
    api: &Api,
    who: &Who,
    id: &str,
    action: Action,
) -> Result<(Status, u64), Problem> {
    let known = campaign(api, id).await?;
    let control = Control { id: known.id.clone(), action, by: Some(who.name.to_string()), asked_at: None };
    let ledger = api.ledger()?.clone();
    let done = finish(async move { Ok(dispatch::control(&ledger, &control).await?) });
    let done = done.await?;
    Ok((Status::from(&campaign(api, id).await?), done.messages))
}

/// Stops a campaign until it is resumed: nothing more goes out, what is under way is finished.
///
/// Nothing more of it is sent until it is resumed; requests that have gone out are finished.
#[utoipa::path(
    post, path = "/campaigns/{id}/pause", tag = "campaigns", operation_id = "pauseCampaign",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The status after it", body = Status),
        OnCampaign,
    )
)]
pub(super) async fn pause(
    State(api): State<Api>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(act(&api, &who, &id, Action::Pause).await?.0))
}

/// Goes on with a campaign that is paused or held.
///
/// One that is paused or held goes on; what held it and others is tried again, too.
#[utoipa::path(
    post, path = "/campaigns/{id}/resume", tag = "campaigns", operation_id = "resumeCampaign",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The status after it", body = Status),
        OnCampaign,
    )
)]
pub(super) async fn resume(
    State(api): State<Api>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(act(&api, &who, &id, Action::Resume).await?.0))
}

/// Ends a campaign; what is not sent yet never is.
///
/// Messages that are not sent yet are skipped, for good; requests that have gone out are finished.
#[utoipa::path(
    post, path = "/campaigns/{id}/cancel", tag = "campaigns", operation_id = "cancelCampaign",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The status after it", body = Status),
        OnCampaign,
    )
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(act(&api, &who, &id, Action::Cancel).await?.0))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryBody {
    /// Only those that were rejected with one of these codes (132069: also those that a report failed with it); all
    /// rejected ones without it.
    #[serde(default)]
    codes: Vec<String>,
}

/// For how many messages something was done.
#[derive(Serialize, ToSchema)]
pub(super) struct Messages {
    messages: u64,
}

/// Sends rejected messages again.
///
/// All of them, or those with some codes. People who get enough marketing already (131049) are taken by that code alone
/// for a day.
#[utoipa::path(
    post, path = "/campaigns/{id}/retry", tag = "campaigns", operation_id = "retryCampaign",
    params(("id" = String, Path, description = "Its id")), request_body = Option<RetryBody>,
    responses(
        (status = 200, description = "How many messages are sent again", body = Messages),
        OnCampaign,
    )
)]
pub(super) async fn retry(
    State(api): State<Api>,
    who: Who,
    Path(id): Path<String>,
    Document(asked): Document<RetryBody>,
) -> Result<Json<Messages>, Problem> {
    let (_, messages) = act(&api, &who, &id, Action::Retry { codes: asked.codes }).await?;
    Ok(Json(Messages { messages }))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResolveBody {
    /// Whether they are sent again: whoever got one may get a second. Without it they are given up.
    #[schema(required = true, nullable = false)]
    resend: Option<bool>,
    /// Only those that have been in doubt for so long, as `30min` or `2h`.
    #[schema(value_type = Option<String>)]
    older_than: Option<Span>,
}

/// Decides what becomes of messages in doubt.
///
/// Whether the provider has them is not known: sent again, a person may get a second one; given up, they count as rejected.
#[utoipa::path(
    post, path = "/campaigns/{id}/resolve", tag = "campaigns", operation_id = "resolveCampaign",
    params(("id" = String, Path, description = "Its id")), request_body = ResolveBody,
    responses(
        (status = 200, description = "How many messages it is about", body = Messages),
        OnCampaign,
    )
)]
pub(super) async fn resolve(
    State(api): State<Api>,
    who: Who,
    Path(id): Path<String>,
    Document(asked): Document<ResolveBody>,
) -> Result<Json<Messages>, Problem> {
    let missing =
        || vec![JobProblem::new("/resend", "is missing: true sends them again, false gives them up")];
    let resend = asked.resend.ok_or_else(missing)?;
    let (_, messages) =
        act(&api, &who, &id, Action::Resolve { resend, older_than: asked.older_than }).await?;
    Ok(Json(Messages { messages }))
}
