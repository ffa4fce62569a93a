//! The last steps: the review, a test to one's own number, and the send, which requires the number of recipients typed.
//!
//! The campaign is submitted as the draft has it, with the code behind the API. A test is a campaign of its own.

use axum::response::{Html, IntoResponse, Redirect, Response};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::{Value as Shown, context};
use serde_json::Value;

use super::super::super::api::campaigns::{check_job, submit};
use super::super::super::problem::Problem;
use super::super::captions;
use super::super::countries::country;
use super::super::extract::Fields;
use super::super::phone::phone;
use super::super::render::{clock, unprocessable};
use super::super::skipped::{SkippedExample, skipped_rows};
use super::draft::CampaignDraft;
use super::kinds::{kind_of, needs_conversation};
use super::obstacles::{obstacles, warned};
use super::page::{DraftPage, errors};
use crate::campaign::{CampaignId, Job, Opening, PhoneParser, Schedule, thousands};
use crate::ledger::{CampaignDrafts, listing};
use crate::views::check::{Checked, Note};

/// Number of recipients whose phones are shown.
const PREVIEWED_RECIPIENTS: usize = 3;

/// Checks a whole draft and shows the forecast, or why it cannot be sent.
pub(super) async fn check(page: DraftPage) -> Result<Html<String>, Problem> {
    let own = match check_all(&page).await {
        Ok((job, found)) => {
            let rehearses = page.dashboard.api.backing()?.context.rehearses;
            context! { rehearses, ..forecast(&page.draft, &job, &found) }
        }
        Err(problem) if problem.status().is_client_error() => {
            let found = obstacles(&page.draft, &problem).into_iter();
            let found = found.map(|one| context! { text => one.text, address => one.address });
            context! { people => 0, obstacles => found.collect::<Vec<_>>(), is_broken => true }
        }
        Err(problem) => return Err(problem),
    };
    Ok(page.render("check", "new_check.html", own))
}

/// Returns what the review shows of a valid draft, for its template.
fn forecast(draft: &CampaignDraft, job: &Job, found: &Checked) -> Shown {
    let schedule = &job.schedule;
    let zone = zone_of(draft, schedule);
    let now = Timestamp::now();
    let starts = start_of(schedule, now);
    let end = schedule.end_of(now, found.forecast.duration);
    let clock = |at: Timestamp| clock(at, &zone);
    let examples: Vec<SkippedExample> = found.problems.iter().map(SkippedExample::from).collect();
    let skipped = found.skipped.iter().map(|(reason, count)| skipped_rows(reason, *count, &examples));
    let phones = found.messages.iter().map(|message| {
        context! { recipient => message.recipient.clone(), html => phone(&message.content) }
    });
    let notes = found.notes.iter().filter(|note| matches!(note, Note::Audience(_)));
    let no_recipients = (found.recipients == 0).then(|| {
        let address = format!("/new/{}/audience", draft.id);
        context! { text => "No one would get a message. See the skipped rows.", address }
    });
    context! {
        rows => found.rows,
        people => found.recipients,
        skipped => skipped.collect::<Vec<_>>(),
        phones => phones.collect::<Vec<_>>(),
        duration => captions::span(found.forecast.duration),
        price => found.forecast.price.as_ref().map(|price| context! {
            amount => price.amount.clone(), currency => price.currency.clone(), unpriced => price.unpriced,
        }),
        starts => starts.map(clock),
        outside_hours => starts.is_some_and(|at| schedule.start_at.is_none_or(|start| start < at)),
        start_has_passed => schedule.start_at.is_some_and(|start| start < now),
        ends => end.map(clock),
        expires => schedule.expires_at.map(clock),
        limit => job.limits.messages.map(|rate| rate.to_string()),
        notes => notes.map(ToString::to_string).collect::<Vec<_>>(),
        mistakes => found.warnings.iter().map(warned).collect::<Vec<_>>(),
        from => draft.text("/from"),
        account => draft.text("/account"),
        file => draft.text("/audience/csv/path"),
        needs_conversation => needs_conversation(kind_of(&draft.job["message"])),
        obstacles => no_recipients.into_iter().collect::<Vec<_>>(),
    }
}

/// Returns the zone that the times of a draft are shown in.
fn zone_of(draft: &CampaignDraft, schedule: &Schedule) -> TimeZone {
    let own = schedule.timezone().cloned();
    own.unwrap_or_else(|| TimeZone::get(&draft.zone).unwrap_or(TimeZone::UTC))
}

/// Returns when a campaign that is submitted now starts; `None` for at once.
fn start_of(schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
    match schedule.at(now) {
        Opening::Opens(at) => Some(at),
        Opening::Open { .. } | Opening::Expired => None,
    }
}

/// Checks a whole draft: every row of its audience with its message.
async fn check_all(page: &DraftPage) -> Result<(Job, Checked), Problem> {
    let job = page.draft.whole()?;
    let found = check_job(&page.dashboard.api, job.clone(), PREVIEWED_RECIPIENTS).await?;
    Ok((job, found))
}

pub(super) async fn show_test(page: DraftPage) -> Result<Html<String>, Problem> {
    render_test(&page, "", None).await
}

async fn render_test(page: &DraftPage, number: &str, error: Option<String>) -> Result<Html<String>, Problem> {
    let (draft, dashboard) = (&page.draft, &page.dashboard);
    let ids: Vec<CampaignId> = draft.tests.iter().filter_map(|id| id.parse().ok()).collect();
    let ledger = dashboard.api.ledger()?;
    let mut tests = Vec::new();
    for test in &listing::read_each(ledger, ids).await? {
        let (code, text) = test
            .rejected
            .keys()
            .next()
            .map_or(("", ""), |code| (code.as_str(), test.texts.get(code).map_or("", String::as_str)));
        let facts = dashboard.facts.for_campaign(ledger, &test.id).await?;
        tests.push(context! { id => test.id.as_str(), sentence => captions::sentence_of_test(test), at => test.submitted_at.to_string(), code, text,
            number => facts.only_recipient.clone() });
    }
    let rehearses = dashboard.api.backing()?.context.rehearses;
    let country = draft.region().as_deref().and_then(country).map(|country| country.title.as_str());
    let own = context! { kind => "test", tests, number, country, rehearses, errors => errors(error.as_deref().map(|detail| ("number", detail))) };
    Ok(page.render("test", "new_send.html", own))
}

/// Sends the message to one number, with the values of the first sample row.
pub(super) async fn test(mut page: DraftPage, fields: Fields) -> Result<Response, Problem> {
    let typed = fields.get("number");
    let refuse = async |page: &DraftPage, error: String| {
        Ok(unprocessable(render_test(page, typed, Some(error)).await?))
    };
    let draft = &page.draft;
    let Ok(number) = PhoneParser::new(draft.region().as_deref()).parse(typed) else {
        return refuse(&page, "Enter your number with the country code, for example +919876543210.".into())
            .await;
    };
    let mut values = draft.sample.first().cloned().unwrap_or_default();
    values.insert("phone".into(), Value::from(number.to_string()));
    let nth = draft.tests.len() + 1;
    let apart = (Timestamp::now().as_second() % 100_000) as u32;
    let Ok(test) = CampaignId::of_test(draft.text("/id"), nth, apart) else {
        return refuse(&page, "The test can’t be sent: the campaign’s ID is too long.".into()).await;
    };
    let name = format!("Test: {}", draft.name());
    let sent = match draft.to(&[values], test.as_str(), &name) {
        Ok(job) => submit(&page.dashboard.api, &page.who, job).await,
        Err(problem) => Err(problem),
    };
    match sent {
        Ok((campaign, _)) => {
            page.draft.tested(campaign.id.as_str());
            page.keep().await?;
            Ok(page.redirect("test").into_response())
        }
        Err(problem) if problem.status().is_client_error() => {
            let found = obstacles(draft, &problem).into_iter().map(|one| one.text).collect::<Vec<_>>();
            refuse(&page, format!("The test can’t be sent. {}", found.join(" "))).await
        }
        Err(problem) => Err(problem),
    }
}

pub(super) async fn confirm(page: DraftPage) -> Result<Response, Problem> {
    let (job, found) = match check_all(&page).await {
        // The review names what is missing, each with a link to it.
        Err(problem) if problem.status().is_client_error() => {
            return Ok(page.redirect("check").into_response());
        }
        found => found?,
    };
    Ok(render_send(&page, &job, &found, None)?.into_response())
}

fn render_send(
    page: &DraftPage,
    job: &Job,
    found: &Checked,
    error: Option<&str>,
) -> Result<Html<String>, Problem> {
    let draft = &page.draft;
    let starts = start_of(&job.schedule, Timestamp::now());
    let own = context! {
        kind => "send",
        people => found.recipients,
        from => draft.text("/from"),
        account => draft.text("/account"),
        starts => starts.map(|at| clock(at, &zone_of(draft, &job.schedule))),
        rehearses => page.dashboard.api.backing()?.context.rehearses,
        warnings => found.warnings.iter().map(warned).collect::<Vec<_>>(),
        errors => errors(error.map(|detail| ("typed", detail))),
    };
    Ok(page.render("send", "new_send.html", own))
}

/// Submits the campaign if the typed number is the number of its recipients.
pub(super) async fn send(page: DraftPage, fields: Fields) -> Result<Response, Problem> {
    let (job, found) = match check_all(&page).await {
        Err(problem) if problem.status().is_client_error() => {
            return Ok(page.redirect("check").into_response());
        }
        found => found?,
    };
    if fields.number("typed").ok() != Some(found.recipients) || found.recipients == 0 {
        let error = format!("Type {} to confirm. Nothing has been sent.", thousands(found.recipients));
        return Ok(unprocessable(render_send(&page, &job, &found, Some(&error))?));
    }
    let (campaign, _) = submit(&page.dashboard.api, &page.who, job).await?;
    page.dashboard.api.ledger()?.remove_draft(&page.draft.id).await?;
    Ok(Redirect::to(&format!("/campaigns/{}?done=submit", campaign.id)).into_response())
}
