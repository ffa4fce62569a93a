//! A new campaign, a question at a time: who gets it, what they get, when and how fast; then a check of all of
//! it, a test to one's own number, and the send. Until then it is a draft, and nothing of it goes out.
//!
//! A draft is a job that grows. What is asked is what a job may hold, and what is wrong is what a check says.

mod audience;
mod draft;
mod form;
mod kinds;
mod message;

mod send;
mod when;

use axum::Router;
use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::{Value as Shown, context};
use serde_json::Value;

use super::super::access::Who;
use super::super::api::audiences::{Arrival, NameError, Taken, all, check_name, name_of_upload, take_in};
use super::super::api::extract::campaign;
use super::super::problem::Problem;
use super::extract::Fields;
use super::render::{Look, page_of};
use super::{Dashboard, words};
use crate::audience::Encoding;
use crate::campaign::{CampaignId, Job, PhoneParser};
use crate::ledger::{CampaignDrafts, CampaignFilter, Campaigns, listing};
use crate::routing::{get, post};
use draft::Draft;

/// How many audiences are offered to be picked.
const PICKED: usize = 50;
/// How many campaigns are looked at for sender numbers.
const LOOKED_AT: usize = 50;
/// Maximum length of a campaign's name, in characters.
const NAME: usize = 100;

pub(super) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/new/{draft}/audience", get(audience::show).merge(post(audience::save)))
        .route("/new/{draft}/message", get(message::show).merge(post(message::save)))
        .route("/new/{draft}/preview", post(message::preview))
        .route("/new/{draft}/when", get(when::show).merge(post(when::save)))
        .route("/new/{draft}/check", get(send::check))
        .route("/new/{draft}/test", get(send::show_test).merge(post(send::test)))
        .route("/new/{draft}/send", get(send::confirm).merge(post(send::send)))
        .route("/new/{draft}/remove", post(remove))
}

/// The steps, as they stand on top of each.
const STEPS: [(&str, &str); 6] = [
    ("audience", "Audience"),
    ("message", "Message"),
    ("when", "Schedule"),
    ("check", "Review"),
    ("test", "Test"),
    ("send", "Send"),
];

/// The step in which a field of a job is filled in, and the field's place on its page.
fn steps_of(pointer: &str) -> (&'static str, String) {
    match pointer.split('/').nth(1).unwrap_or_default() {
        "audience" => ("audience", "#phone".into()),
        "account" | "from" => ("message", format!("#{}", pointer.trim_start_matches('/'))),
        "message" if pointer != "/message" => ("message", format!("#{pointer}")),
        "" | "message" => ("message", String::new()),
        _ => ("when", String::new()),
    }
}

/// A page of a step.
fn step_page(look: &Look, who: &Who, draft: &Draft, step: &str, template: &str, own: Shown) -> Html<String> {
    let here = STEPS.iter().position(|(name, _)| *name == step).unwrap_or_default();
    let steps = STEPS.iter().enumerate().map(|(nth, (name, title))| {
        context! { name => *name, title => *title, is_here => nth == here, is_done => nth < here }
    });
    let title = format!("{}: {}", draft.name(), STEPS[here].1);
    let frame = context! {
        draft => draft.id.clone(),
        name => draft.name(),
        step => STEPS[here].1,
        nth => here + 1,
        steps => steps.collect::<Vec<_>>(),
    };
    page_of(look, Some(who), template, &title, context! { ..own, ..frame })
}

/// Where a step of a draft is.
fn address(draft: &Draft, step: &str) -> Redirect {
    Redirect::to(&format!("/new/{}/{step}", draft.id))
}

/// A number that campaigns were sent from.
struct SenderNumber {
    account: String,
    number: String,
}

/// The numbers of the most recent campaigns, the newest first.
async fn senders(dashboard: &Dashboard) -> Result<Vec<SenderNumber>, Problem> {
    let ledger = dashboard.api.ledger()?;
    let latest = listing::page(ledger, &CampaignFilter::default(), None, LOOKED_AT).await?;
    let mut senders: Vec<SenderNumber> = Vec::new();
    for campaign in &latest.campaigns {
        // One that was just removed has no job any more; that keeps no new one from being made.
        let Ok(facts) = dashboard.facts.of(ledger, &campaign.id).await else { continue };
        let number = facts.from.clone();
        let account = &campaign.account;
        if !senders.iter().any(|known| known.number == number && known.account == *account) {
            senders.push(SenderNumber { account: account.clone(), number });
        }
    }
    Ok(senders)
}

/// The step that a form was left for, where it was not sent by a button of its own.
fn left_for(fields: &Fields) -> Option<&'static str> {
    let wanted = fields.get("do").strip_prefix("go:")?;
    STEPS.iter().map(|(name, _)| *name).find(|name| *name == wanted)
}

/// What is wrong, each with the field that it belongs to.
fn errors<'e>(each: impl IntoIterator<Item = (&'e str, &'e str)>) -> Shown {
    let each = each.into_iter().map(|(field, detail)| context! { field, detail });
    Shown::from(each.collect::<Vec<_>>())
}

/// The audience files of all drafts.
pub(super) async fn draft_paths(dashboard: &Dashboard) -> Result<Vec<String>, Problem> {
    let kept = dashboard.api.ledger()?.drafts().await?;
    let drafts = kept.iter().filter_map(|(id, json)| Draft::read(id, json));
    Ok(drafts.map(|draft| draft.text("/audience/csv/path").to_owned()).collect())
}

/// What a test is of: its draft, or the campaign that was sent after it.
pub(super) async fn of_test(dashboard: &Dashboard, test: &CampaignId) -> Result<Shown, Problem> {
    let Some(id) = test.tested() else { return Ok(context! {}) };
    let ledger = dashboard.api.ledger()?;
    let kept = ledger.drafts().await?;
    let mut drafts = kept.iter().filter_map(|(id, json)| Draft::read(id, json));
    if let Some(draft) = drafts.find(|draft| draft.text("/id") == id) {
        return Ok(context! { draft => draft.id });
    }
    let Ok(id) = id.parse::<CampaignId>() else { return Ok(context! {}) };
    let sent = listing::look_at(ledger, &id).await?;
    Ok(context! { campaign => sent.map(|campaign| campaign.id.to_string()) })
}

/// The first question: what it is called, and whom it goes to. Beside it the drafts that are there.
pub(super) async fn begin(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
) -> Result<Html<String>, Problem> {
    first(&dashboard, &who, &look, "", &[]).await
}

/// The drafts, the last changed first.
pub(super) async fn drafts(dashboard: &Dashboard) -> Result<Vec<Shown>, Problem> {
    let kept = dashboard.api.ledger()?.drafts().await?;
    let mut drafts: Vec<Draft> = kept.iter().filter_map(|(id, json)| Draft::read(id, json)).collect();
    drafts.sort_by_key(|draft| std::cmp::Reverse(draft.updated_at));
    let drafts = drafts.iter().map(|draft| {
        context! { id => draft.id.clone(), name => draft.name(), by => draft.by.clone(), at => draft.updated_at.to_string(),
            people => draft.people, step => draft.next_step() }
    });
    Ok(drafts.collect())
}

async fn first(
    dashboard: &Dashboard,
    who: &Who,
    look: &Look,
    name: &str,
    wrong: &[(&str, String)],
) -> Result<Html<String>, Problem> {
    let (files, no_root) = match all(&dashboard.api).await {
        Ok(files) => (files, None),
        Err(problem) => (Vec::new(), Some(problem.plain().into_owned())),
    };
    let files = files.iter().take(PICKED).map(|file| {
        context! { path => file.path.clone(), bytes => file.bytes, at => file.uploaded_at.to_string() }
    });
    let own = context! {
        drafts => drafts(dashboard).await?,
        files => files.collect::<Vec<_>>(),
        no_root,
        name,
        errors => errors(wrong.iter().map(|(field, detail)| (*field, &**detail))),
    };
    Ok(page_of(look, Some(who), "new.html", "New campaign", own))
}

/// Takes the audience in and begins a draft.
pub(super) async fn create(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    mut form: Multipart,
) -> Result<Response, Problem> {
    let wrong = |detail: String| Problem::bad_request(format!("the form: {detail}"));
    let (mut name, mut pick, mut uploaded) = (String::new(), String::new(), None);
    let mut encoding = String::new();
    while let Some(field) = form.next_field().await.map_err(|fault| wrong(fault.body_text()))? {
        match field.name() {
            Some("name") => {
                field.text().await.map_err(|fault| wrong(fault.body_text()))?.trim().clone_into(&mut name);
            }
            Some("encoding") => encoding = field.text().await.map_err(|fault| wrong(fault.body_text()))?,
            Some("pick") => pick = field.text().await.map_err(|fault| wrong(fault.body_text()))?,
            Some("file") if field.file_name().is_some_and(|name| !name.is_empty()) => {
                let file = name_of_upload(field.file_name().unwrap_or_default());
                if check_name(&file) == Err(NameError::Ending) {
                    let wrong = [("file", format!("{file} isn’t a .csv or .xlsx file."))];
                    let page = first(&dashboard, &who, &look, &name, &wrong).await?;
                    return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
                }
                let read_as = Encoding::named(&encoding).unwrap_or_default();
                let arrival = Arrival { name: file, taken: Taken::Rename, encoding: read_as };
                match take_in(&dashboard.api, &who, arrival, field).await {
                    Ok((file, _)) => uploaded = Some(file.path),
                    Err(problem) if problem.status().is_client_error() => {
                        let wrong = [("file", format!("{}.", problem.plain()))];
                        let page = first(&dashboard, &who, &look, &name, &wrong).await?;
                        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
                    }
                    Err(problem) => return Err(problem),
                }
            }
            _ => {}
        }
    }
    let mut missing = Vec::new();
    if name.is_empty() || name.chars().count() > NAME {
        missing.push(("name", format!("Give the campaign a name, of at most {NAME} characters.")));
    }
    let path = uploaded.unwrap_or(pick);
    if path.is_empty() {
        missing.push(("file", "Choose a file, or an uploaded one.".into()));
    }
    if !missing.is_empty() {
        let page = first(&dashboard, &who, &look, &name, &missing).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let mut draft = Draft::new(&who.name, &name, &path);
    if Encoding::named(&encoding).is_some() {
        draft.job["audience"]["csv"]["encoding"] = encoding.into();
    }
    // Numbers without a code are most likely of the country that the most recent campaign was sent from.
    let country = senders(&dashboard).await?.first().and_then(|sender| sender.number.parse().ok());
    if let Some(region) = country.and_then(PhoneParser::region) {
        draft.job["audience"]["csv"]["default_region"] = region.into();
    }
    audience::inspect_new(&dashboard, &mut draft).await?;
    draft.keep(&dashboard, &who).await?;
    Ok(address(&draft, "audience").into_response())
}

/// Begins a draft with everything that a campaign was sent with, but for its times.
pub(super) async fn duplicate(
    State(dashboard): State<Dashboard>,
    who: Who,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Result<Response, Problem> {
    let campaign = campaign(&dashboard.api, &id).await?;
    let ledger = dashboard.api.ledger()?;
    let stored = ledger.job(&campaign.id).await?;
    let job = Job::read(stored.job.as_bytes())?;
    let Some(path) = job.document.pointer("/audience/csv/path").and_then(Value::as_str) else {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "only a campaign with an uploaded audience can be duplicated",
        ));
    };
    let name: String = format!("Copy of {}", words::name(&campaign)).chars().take(NAME).collect();
    let mut draft = Draft::new(&who.name, &name, path);
    for field in ["account", "from", "audience", "message", "limits", "stop_when"] {
        draft.set(field, job.document.get(field).cloned());
    }
    audience::inspect_new(&dashboard, &mut draft).await?;
    draft.keep(&dashboard, &who).await?;
    Ok(address(&draft, "audience").into_response())
}

async fn remove(
    State(dashboard): State<Dashboard>,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Result<Response, Problem> {
    let draft = Draft::find(&dashboard, &id).await?;
    dashboard.api.ledger()?.remove_draft(&draft.id).await?;
    Ok(Redirect::to("/new").into_response())
}
