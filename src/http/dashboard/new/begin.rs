//! The first page of a new campaign: its name and its audience. It begins a draft, also as a copy of a sent campaign, and
//! sends nothing.

use axum::extract::{Multipart, Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use minijinja::context;
use serde::Deserialize;
use serde_json::Value;

use super::super::super::access::Caller;
use super::super::super::api::audiences::{
    Arrival, NameConflict, NameError, all, check_name, name_of_upload, take_in,
};
use super::super::super::api::extract::{Params, campaign};
use super::super::super::problem::Problem;
use super::super::render::{Viewer, page_of, unprocessable};
use super::super::{Dashboard, captions};
use super::draft::CampaignDraft;
use super::inspection::inspect_new;
use super::page::{address, errors};
use super::{drafts, senders};
use crate::audience::Encoding;
use crate::campaign::{Job, PhoneParser};
use crate::ledger::Campaigns;

/// Maximum number of uploaded audiences to choose from.
const PICKED: usize = 50;
/// Maximum length of a campaign's name, in characters.
const NAME: usize = 100;

#[derive(Default, Deserialize)]
pub(in super::super) struct BeginParams {
    /// Key of the draft whose name or file is changed.
    draft: Option<String>,
}

/// Text fields of the first page.
#[derive(Default)]
struct Begun {
    name: String,
    /// Key of the draft that is changed; empty for a new one.
    draft: String,
}

/// Shows the first page: name and audience, and the existing drafts.
pub(in super::super) async fn begin(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    Params(asked): Params<BeginParams>,
) -> Result<Html<String>, Problem> {
    let begun = match asked.draft {
        Some(id) => {
            let draft = CampaignDraft::find(&dashboard, &id).await?;
            Begun { name: draft.name().to_owned(), draft: draft.id }
        }
        None => Begun::default(),
    };
    first(&dashboard, &who, &look, &begun, &[]).await
}

async fn first(
    dashboard: &Dashboard,
    who: &Caller,
    look: &Viewer,
    begun: &Begun,
    wrong: &[(&str, String)],
) -> Result<Html<String>, Problem> {
    let (files, no_root) = match all(&dashboard.api).await {
        Ok(files) => (files, None),
        Err(problem) => (Vec::new(), Some(problem.to_text().into_owned())),
    };
    let files = files.iter().take(PICKED).map(|file| {
        context! { path => file.path.clone(), bytes => file.bytes, at => file.uploaded_at.to_string() }
    });
    let own = context! {
        drafts => drafts(dashboard).await?,
        files => files.collect::<Vec<_>>(),
        no_root,
        name => begun.name.clone(),
        draft => begun.draft.clone(),
        errors => errors(wrong.iter().map(|(field, detail)| (*field, &**detail))),
    };
    Ok(page_of(look, Some(who), "new.html", "New campaign", own))
}

/// Stores an uploaded audience, and begins a draft or changes one.
pub(in super::super) async fn create(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    mut form: Multipart,
) -> Result<Response, Problem> {
    let wrong = |detail: String| Problem::bad_request(format!("the form: {detail}"));
    let (mut begun, mut pick, mut uploaded) = (Begun::default(), String::new(), None);
    let mut encoding = String::new();
    while let Some(field) = form.next_field().await.map_err(|error| wrong(error.body_text()))? {
        match field.name() {
            Some("name") => {
                let text = field.text().await.map_err(|error| wrong(error.body_text()))?;
                text.trim().clone_into(&mut begun.name);
            }
            Some("draft") => begun.draft = field.text().await.map_err(|error| wrong(error.body_text()))?,
            Some("encoding") => encoding = field.text().await.map_err(|error| wrong(error.body_text()))?,
            Some("pick") => pick = field.text().await.map_err(|error| wrong(error.body_text()))?,
            Some("file") if field.file_name().is_some_and(|name| !name.is_empty()) => {
                let file = name_of_upload(field.file_name().unwrap_or_default());
                if check_name(&file) == Err(NameError::Ending) {
                    let wrong = [("file", format!("{file} isn’t a .csv or .xlsx file."))];
                    let page = first(&dashboard, &who, &look, &begun, &wrong).await?;
                    return Ok(unprocessable(page));
                }
                let read_as = Encoding::named(&encoding);
                let arrival = Arrival { name: file, taken: NameConflict::Rename, encoding: read_as };
                match take_in(&dashboard.api, &who, arrival, field).await {
                    Ok((file, _)) => uploaded = Some(file.path),
                    Err(problem) if problem.status().is_client_error() => {
                        let wrong = [("file", format!("{}.", problem.to_text()))];
                        let page = first(&dashboard, &who, &look, &begun, &wrong).await?;
                        return Ok(unprocessable(page));
                    }
                    Err(problem) => return Err(problem),
                }
            }
            _ => {}
        }
    }
    let mut missing = Vec::new();
    if begun.name.is_empty() || begun.name.chars().count() > NAME {
        missing.push(("name", format!("Give the campaign a name, of at most {NAME} characters.")));
    }
    let path = uploaded.unwrap_or(pick);
    if path.is_empty() && begun.draft.is_empty() {
        missing.push(("file", "Choose a file, or an uploaded one.".into()));
    }
    if !missing.is_empty() {
        let page = first(&dashboard, &who, &look, &begun, &missing).await?;
        return Ok(unprocessable(page));
    }
    let mut draft = draft_of(&dashboard, &who, begun, &path).await?;
    if Encoding::named(&encoding).is_some() {
        draft.job["audience"]["csv"]["encoding"] = encoding.into();
    }
    inspect_new(&dashboard, &mut draft).await?;
    draft.keep(&dashboard, &who).await?;
    Ok(address(&draft, "audience").into_response())
}

/// Returns a new draft, or the draft that is changed with its new name and file.
async fn draft_of(
    dashboard: &Dashboard,
    who: &Caller,
    begun: Begun,
    path: &str,
) -> Result<CampaignDraft, Problem> {
    if !begun.draft.is_empty() {
        let mut draft = CampaignDraft::find(dashboard, &begun.draft).await?;
        draft.set("name", Some(begun.name.into()));
        if !path.is_empty() {
            draft.use_file(path);
        }
        return Ok(draft);
    }
    let mut draft = CampaignDraft::new(&who.name, &begun.name, path);
    // Numbers without a country code are most likely from the country of the most recent sender number.
    let country = senders(dashboard).await?.first().and_then(|sender| sender.number.parse().ok());
    if let Some(region) = country.and_then(PhoneParser::region) {
        draft.job["audience"]["csv"]["default_region"] = region.into();
    }
    Ok(draft)
}

/// Begins a draft with the settings of a sent campaign, except its schedule.
pub(in super::super) async fn duplicate(
    State(dashboard): State<Dashboard>,
    who: Caller,
    Path(id): Path<String>,
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
    let name: String = format!("Copy of {}", captions::name(&campaign)).chars().take(NAME).collect();
    let mut draft = CampaignDraft::new(&who.name, &name, path);
    for field in ["account", "from", "audience", "message", "limits", "stop_when"] {
        draft.set(field, job.document.get(field).cloned());
    }
    inspect_new(&dashboard, &mut draft).await?;
    draft.keep(&dashboard, &who).await?;
    Ok(address(&draft, "audience").into_response())
}
