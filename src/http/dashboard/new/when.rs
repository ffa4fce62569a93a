//! The schedule step: speed, start, end, sending hours, and automatic pausing. All of it is optional.

use axum::response::{Html, IntoResponse, Response};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use minijinja::context;
use serde_json::{Map, Value, json};

use super::super::super::problem::Problem;
use super::super::extract::Fields;
use super::super::render::unprocessable;
use super::draft::CampaignDraft;
use super::page::{DraftPage, errors, left_for};
use crate::campaign::{Opening, Schedule};

const DAYS: [(&str, &str); 7] = [
    ("mon", "Mon"),
    ("tue", "Tue"),
    ("wed", "Wed"),
    ("thu", "Thu"),
    ("fri", "Fri"),
    ("sat", "Sat"),
    ("sun", "Sun"),
];

type Errors = Vec<(&'static str, String)>;

pub(super) async fn show(page: DraftPage) -> Html<String> {
    render(&page, &Vec::new())
}

fn render(page: &DraftPage, wrong: &Errors) -> Html<String> {
    let draft = &page.draft;
    let zone = if draft.zone.is_empty() { "Asia/Kolkata" } else { &draft.zone };
    let local = |pointer: &str| -> String {
        let at = draft.text(pointer).parse::<Timestamp>().ok();
        let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
        at.map_or_else(String::new, |at| at.to_zoned(zone).strftime("%Y-%m-%dT%H:%M").to_string())
    };
    // Abbreviations and aliases of the time zone database are not offered.
    let mut zones: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    zones.retain(|name| name == "UTC" || (name.contains('/') && !name.starts_with("Etc/")));
    let days = draft.job.pointer("/schedule/window/days").and_then(Value::as_array);
    let days = DAYS.map(|(name, title)| {
        let is_on = days.is_none_or(|days| days.iter().any(|day| day == name));
        context! { name, title, is_on }
    });
    let context = page.dashboard.api.backing().ok().map(|backing| &backing.context);
    let account = context.and_then(|context| context.accounts.get(draft.text("/account")).ok());
    let number = |pointer: &str| draft.job.pointer(pointer).and_then(Value::as_u64);
    let own = context! {
        limit => draft.text("/limits/messages").trim_end_matches("/s"),
        account_limit => account.and_then(|account| account.limits.rates().messages).map(|rate| rate.to_string()),
        start_at => local("/schedule/start_at"),
        expires_at => local("/schedule/expires_at"),
        zone,
        zones,
        from => draft.text("/schedule/window/from"),
        to => draft.text("/schedule/window/to"),
        days => days.to_vec(),
        stop => number("/stop_when/rejected_percent"),
        after => number("/stop_when/after"),
        errors => errors(wrong.iter().map(|(field, detail)| (*field, &**detail))),
    };
    page.render("when", "new_when.html", own)
}

/// Parses a typed time in a zone.
fn moment(text: &str, zone: &TimeZone) -> Option<Zoned> {
    text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok()
}

fn fill(draft: &mut CampaignDraft, fields: &Fields) -> Errors {
    let mut wrong = Errors::new();
    let limit = fields.get("limit");
    let limit = if limit.is_empty() || limit.contains('/') { limit.to_owned() } else { format!("{limit}/s") };
    draft.set(
        "limits",
        Some(limit).filter(|limit| !limit.is_empty()).map(|limit| json!({ "messages": limit })),
    );
    fields.get("zone").clone_into(&mut draft.zone);
    let zone = TimeZone::get(&draft.zone).unwrap_or_else(|_| {
        wrong.push(("zone", CHOOSE_ZONE.into()));
        TimeZone::UTC
    });
    let mut schedule = Map::new();
    for field in ["start_at", "expires_at"] {
        let text = fields.get(field);
        if text.is_empty() {
            continue;
        }
        match moment(text, &zone) {
            Some(at) => {
                schedule.insert(field.into(), at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().into());
            }
            None => wrong.push((field, "Enter a date and a time.".into())),
        }
    }
    let (from, to, days) = (fields.get("from"), fields.get("to"), fields.all("days"));
    if days.is_empty() {
        wrong.push(("days", "Choose at least one day.".into()));
    }
    let is_some_days = days.len() < DAYS.len();
    if !from.is_empty() || !to.is_empty() || is_some_days {
        let mut window = json!({ "from": from, "to": to, "timezone": draft.zone });
        if from.is_empty() || to.is_empty() {
            let field = if from.is_empty() { "from" } else { "to" };
            wrong.push((field, "Enter both times of the sending hours, for example 09:00 and 18:00.".into()));
        }
        if is_some_days {
            window["days"] = days.into();
        }
        schedule.insert("window".into(), window);
    }
    draft.set("schedule", (!schedule.is_empty()).then_some(Value::Object(schedule)));
    let number = |field: &'static str, wrong: &mut Errors| match fields.get(field) {
        "" => None,
        text => text.parse::<u64>().map_err(|_| wrong.push((field, wording(field).into()))).ok(),
    };
    let (stop, after) = (number("stop", &mut wrong), number("after", &mut wrong));
    let stop = stop.map(|percent| match after {
        Some(after) => json!({ "rejected_percent": percent, "after": after }),
        None => json!({ "rejected_percent": percent }),
    });
    draft.set("stop_when", stop);
    wrong
}

const CHOOSE_ZONE: &str = "Choose a time zone from the list.";

/// Returns the error message of a field.
fn wording(field: &str) -> &'static str {
    match field {
        "limit" => "Enter a number, for example 80.",
        "start_at" | "expires_at" => "Enter a date and a time.",
        "zone" => CHOOSE_ZONE,
        "stop" => "Enter a percentage from 1 to 100.",
        "after" => "Enter a whole number, for example 100.",
        _ => "Enter both times of the sending hours, for example 09:00 and 18:00.",
    }
}

/// Returns the errors of a start and an end that are valid times.
fn misplaced(schedule: &Schedule, now: Timestamp) -> Errors {
    let mut wrong = Errors::new();
    if schedule.start_at.is_some_and(|start| start < now) {
        wrong.push(("start_at", "This time has passed. Leave the start empty to send now.".into()));
    }
    match (schedule.start_at, schedule.expires_at) {
        (Some(start), Some(end)) if end <= start => {
            wrong.push(("expires_at", "The end must be after the start.".into()));
        }
        (_, Some(end)) if end <= now => wrong.push(("expires_at", "This time has passed.".into())),
        _ if schedule.at(now) == Opening::Expired => {
            wrong.push((
                "expires_at",
                "The end is before the sending hours begin: nothing would be sent.".into(),
            ));
        }
        _ => {}
    }
    wrong
}

/// Returns the page's field for a JSON pointer of the job.
fn field_of(pointer: &str) -> &'static str {
    match pointer {
        _ if pointer.starts_with("/limits") => "limit",
        "/schedule/start_at" => "start_at",
        "/schedule/expires_at" => "expires_at",
        "/schedule/window/to" => "to",
        "/schedule/window/timezone" => "zone",
        _ if pointer.starts_with("/schedule/window/days") => "days",
        "/stop_when/after" => "after",
        _ if pointer.starts_with("/schedule/window") => "from",
        _ if pointer.starts_with("/stop_when") => "stop",
        _ => "",
    }
}

pub(super) async fn save(mut page: DraftPage, fields: Fields) -> Result<Response, Problem> {
    let mut wrong = fill(&mut page.draft, &fields);
    let schedule = page.draft.job.get("schedule").cloned().unwrap_or_else(|| json!({}));
    if let Ok(schedule) = serde_json::from_value::<Schedule>(schedule) {
        wrong.extend(misplaced(&schedule, Timestamp::now()));
    }
    if let Err(problem) = page.draft.whole() {
        for field in problem.errors().map(|(pointer, _)| field_of(pointer)) {
            let is_said = |known: &str| {
                known == field || (matches!(known, "from" | "to") && matches!(field, "from" | "to"))
            };
            if !field.is_empty() && !wrong.iter().any(|(known, _)| is_said(known)) {
                wrong.push((field, wording(field).into()));
            }
        }
    }
    if wrong.is_empty() {
        page.keep().await?;
        return Ok(page.redirect(left_for(&fields).unwrap_or("check")).into_response());
    }
    Ok(unprocessable(render(&page, &wrong)))
}
