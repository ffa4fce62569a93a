//! The last steps: a check of all of it, a test to one's own number, and the send, which wants the number of
//! people typed.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::context;
use serde_json::Value;

use super::super::super::access::Who;
use super::super::super::api::campaigns::{submit, with_prepared};
use super::super::super::problem::Problem;
use super::super::campaigns::{skip_meaning, skip_title};
use super::super::extract::Fields;
use super::super::phone::phone;
use super::super::render::{Look, clock};
use super::super::{Dashboard, words};
use super::draft::Draft;
use super::message::obstacles;
use super::{errors, step_page};
use crate::campaign::{CampaignId, Job, Opening, PhoneParser, Schedule, SkipReason, thousands};
use crate::ledger::{CampaignDrafts, listing};
use crate::views::check::{Checked, Note, Warning, check as checked};

/// How many people's phones are shown.
const SHOWN: usize = 3;

/// Checks all of a draft; what is wrong with it is on the page.
pub(super) async fn check(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
) -> Result<Html<String>, Problem> {
    let draft = Draft::find(&dashboard, &id).await?;
    let own = match all_of_it(&dashboard, &draft).await {
        Ok((job, found)) => {
            let schedule = &job.schedule;
            let zone = zone_of(&draft, schedule);
            let now = Timestamp::now();
            let starts = start_of(schedule, now);
            let end = schedule.end_of(now, found.forecast.duration);
            let clock = |at: Timestamp| clock(at, &zone);
            let skipped = found.skipped.iter().map(|(reason, count)| {
                let known: Option<SkipReason> = reason.parse().ok();
                let rows = found.problems.iter().filter(|row| row.reason.as_str() == *reason);
                let rows: Vec<String> = rows.take(10).map(|row| row.row.to_string()).collect();
                context! { title => known.map_or_else(|| (*reason).to_owned(), skip_title), count => *count, meaning => known.map(skip_meaning), rows => rows.join(", ") }
            });
            let phones = found.messages.iter().map(|message| {
                context! { recipient => message.recipient.clone(), html => phone(&message.content) }
            });
            context! {
                rows => found.rows,
                people => found.recipients,
                skipped => skipped.collect::<Vec<_>>(),
                phones => phones.collect::<Vec<_>>(),
                duration => words::span(found.forecast.duration),
                price => found.forecast.price.as_ref().map(|price| context! {
                    amount => price.amount.clone(), currency => price.currency.clone(), unpriced => price.unpriced,
                }),
                starts => starts.map(clock),
                outside_hours => starts.is_some_and(|at| schedule.start_at.is_none_or(|start| start < at)),
                start_has_passed => schedule.start_at.is_some_and(|start| start < now),
                ends => end.map(clock),
                expires => schedule.expires_at.map(clock),
                limit => job.limits.messages.map(|rate| rate.to_string()),
                notes => found.notes.iter().filter(|note| matches!(note, Note::Audience(_))).map(ToString::to_string).collect::<Vec<_>>(),
                warnings => found.warnings.iter().map(Warning::plain).collect::<Vec<_>>(),
                obstacles => if found.recipients == 0 {
                    let address = format!("/new/{}/audience", draft.id);
                    vec![context! { text => "No one would get a message. See the skipped rows.", address }]
                } else {
                    Vec::new()
                },
            }
        }
        Err(problem) if problem.status().is_client_error() => {
            let found = obstacles(&draft, &problem).into_iter();
            let found = found.map(|one| context! { text => one.text, address => one.address });
            context! { people => 0, obstacles => found.collect::<Vec<_>>(), is_broken => true }
        }
        Err(problem) => return Err(problem),
    };
    Ok(step_page(&look, &who, &draft, "check", "new_check.html", own))
}

/// The zone in which the times of a draft are shown.
fn zone_of(draft: &Draft, schedule: &Schedule) -> TimeZone {
    let own = schedule.timezone().cloned();
    own.unwrap_or_else(|| TimeZone::get(&draft.zone).unwrap_or(TimeZone::UTC))
}

/// When a campaign that is sent now starts, if not at once.
fn start_of(schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
    match schedule.at(now) {
        Opening::Opens(at) => Some(at),
        Opening::Open { .. } | Opening::Expired => None,
    }
}

async fn all_of_it(dashboard: &Dashboard, draft: &Draft) -> Result<(Job, Checked), Problem> {
    let job = draft.whole()?;
    let found = with_prepared(&dashboard.api, job.clone(), |prepared, account| {
        Ok(checked(&prepared, account, SHOWN)?)
    });
    Ok((job, found.await?))
}

pub(super) async fn show_test(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
) -> Result<Html<String>, Problem> {
    let draft = Draft::find(&dashboard, &id).await?;
    test_page(&dashboard, &who, &look, &draft, "", None).await
}

async fn test_page(
    dashboard: &Dashboard,
    who: &Who,
    look: &Look,
    draft: &Draft,
    number: &str,
    error: Option<String>,
) -> Result<Html<String>, Problem> {
    let ids: Vec<CampaignId> = draft.tests.iter().filter_map(|id| id.parse().ok()).collect();
    let ledger = dashboard.api.ledger()?;
    let mut tests = Vec::new();
    for test in &listing::read_each(ledger, ids).await? {
        let (code, text) = test
            .rejected
            .keys()
            .next()
            .map_or(("", ""), |code| (code.as_str(), test.texts.get(code).map_or("", String::as_str)));
        let facts = dashboard.facts.of(ledger, &test.id).await?;
        tests.push(context! { id => test.id.as_str(), sentence => words::sentence(test, &[], &words::Known::default()),
            is_over => test.state.is_over(), at => test.submitted_at.to_string(), code, text,
            number => facts.only_recipient.clone() });
    }
    let rehearses = dashboard.api.backing()?.context.rehearses;
    let own = context! { kind => "test", tests, number, rehearses, errors => errors(error.as_deref().map(|detail| ("number", detail))) };
    Ok(step_page(look, who, draft, "test", "new_send.html", own))
}

/// Sends the message to one number, with the values of the first row.
pub(super) async fn test(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Problem> {
    let mut draft = Draft::find(&dashboard, &id).await?;
    let typed = fields.get("number");
    let refuse = async |draft: &Draft, error: String| {
        let page = test_page(&dashboard, &who, &look, draft, typed, Some(error)).await?;
        Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
    };
    let Ok(number) = PhoneParser::international(typed) else {
        return refuse(&draft, "Enter your number with the country code, for example +919876543210.".into())
            .await;
    };
    let mut values = draft.sample.first().cloned().unwrap_or_default();
    values.insert("phone".into(), Value::from(number.to_string()));
    let nth = draft.tests.len() + 1;
    let apart = (Timestamp::now().as_second() % 100_000) as u32;
    let Ok(test) = CampaignId::of_test(draft.text("/id"), nth, apart) else {
        return refuse(&draft, "The test can’t be sent: the campaign’s ID is too long.".into()).await;
    };
    let name = format!("Test: {}", draft.name());
    let sent = match draft.to(&[values], test.as_str(), &name) {
        Ok(job) => submit(&dashboard.api, &who, job).await,
        Err(problem) => Err(problem),
    };
    match sent {
        Ok((campaign, _)) => {
            draft.tested(campaign.id.as_str());
            draft.keep(&dashboard, &who).await?;
            Ok(super::address(&draft, "test").into_response())
        }
        Err(problem) if problem.status().is_client_error() => {
            let found = obstacles(&draft, &problem).into_iter().map(|one| one.text).collect::<Vec<_>>();
            refuse(&draft, format!("The test can’t be sent. {}", found.join(" "))).await
        }
        Err(problem) => Err(problem),
    }
}

pub(super) async fn confirm(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let draft = Draft::find(&dashboard, &id).await?;
    let (job, found) = match all_of_it(&dashboard, &draft).await {
        // The review names what is missing, each with a link to it.
        Err(problem) if problem.status().is_client_error() => {
            return Ok(super::address(&draft, "check").into_response());
        }
        found => found?,
    };
    let page = send_page(&dashboard, &who, &look, &draft, &job, found.recipients, None)?;
    Ok(page.into_response())
}

fn send_page(
    dashboard: &Dashboard,
    who: &Who,
    look: &Look,
    draft: &Draft,
    job: &Job,
    people: u64,
    error: Option<&str>,
) -> Result<Html<String>, Problem> {
    let rehearses = dashboard.api.backing()?.context.rehearses;
    let own = context! {
        kind => "send",
        people,
        from => draft.text("/from"),
        account => draft.text("/account"),
        starts => start_of(&job.schedule, Timestamp::now()).map(|at| clock(at, &zone_of(draft, &job.schedule))),
        rehearses,
        errors => errors(error.map(|detail| ("typed", detail))),
    };
    Ok(step_page(look, who, draft, "send", "new_send.html", own))
}

/// Submits the campaign, if the number that was typed is the number of its people.
pub(super) async fn send(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Problem> {
    let draft = Draft::find(&dashboard, &id).await?;
    let (job, found) = match all_of_it(&dashboard, &draft).await {
        Err(problem) if problem.status().is_client_error() => {
            return Ok(super::address(&draft, "check").into_response());
        }
        found => found?,
    };
    if fields.number("typed").ok() != Some(found.recipients) || found.recipients == 0 {
        let error = format!("Type {} to confirm. Nothing has been sent.", thousands(found.recipients));
        let page = send_page(&dashboard, &who, &look, &draft, &job, found.recipients, Some(&error))?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let (campaign, _) = submit(&dashboard.api, &who, job).await?;
    dashboard.api.ledger()?.remove_draft(&draft.id).await?;
    Ok(Redirect::to(&format!("/campaigns/{}?done=submit", campaign.id)).into_response())
}
