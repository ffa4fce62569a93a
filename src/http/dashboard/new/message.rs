//! The second step: the message, in a form out of the rules or as JSON, with the phone beside it.

use std::collections::{BTreeSet, HashMap};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use minijinja::{Value as Shown, context};
use serde_json::{Value, json};

use super::super::super::access::Who;
use super::super::super::api::accounts::all as all_accounts;
use super::super::super::api::campaigns::with_prepared;
use super::super::super::problem::Problem;
use super::super::extract::Fields;
use super::super::phone::phone;
use super::super::render::{Look, serialized};
use super::super::{Dashboard, words};
use super::draft::Draft;
use super::form::{ELLIPSIS, Filled, Making, SOME_ADDRESS, complete, label, missing};
use super::kinds::{JSON, about, kind_of, kinds};
use super::{address, errors, left_for, senders, step_page, steps_of};
use crate::campaign::content::CONTENT;
use crate::campaign::problem::Excess;
use crate::campaign::{Columns, thousands};
use crate::views::check::check;

/// Where the message stands in a job.
const MESSAGE: &str = "/message";
/// A sender for a preview, which needs none.
const SOME_NUMBER: &str = "+10000000000";
/// The tags that the kind decides.
const FIXED: [&str; 2] = ["/message/type", "/message/interactive/type"];

/// What the page asks for besides the message.
#[derive(Default)]
struct Asked {
    kind: String,
    /// What was written by hand.
    json: Option<String>,
    add: String,
    errors: Vec<(String, String)>,
    /// Whether a sender number was asked for that is none of those that are known.
    has_other_sender: bool,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
) -> Result<Html<String>, Problem> {
    let draft = Draft::find(&dashboard, &id).await?;
    let kind = draft.job.get("message").map_or("text", kind_of).to_owned();
    page(&dashboard, &who, &look, draft, Asked { kind, ..Asked::default() }).await
}

async fn page(
    dashboard: &Dashboard,
    who: &Who,
    look: &Look,
    mut draft: Draft,
    asked: Asked,
) -> Result<Html<String>, Problem> {
    let known = kinds();
    let starter = known.iter().find(|kind| kind.name == asked.kind).map(|kind| kind.message.clone());
    // Of a kind, all that it begins with is asked for.
    let message = match draft.job.get("message").filter(|message| kind_of(message) == asked.kind) {
        Some(message) => Some(starter.map_or_else(|| message.clone(), |starter| over(starter, message))),
        None => starter,
    };
    let form = |errors: &HashMap<String, String>| {
        Making { errors, add: &asked.add, fixed: &FIXED }.form(&CONTENT, message.as_ref(), MESSAGE)
    };
    let mut errors_of = asked.errors.clone();
    if asked.kind != JSON {
        let names = form(&HashMap::new()).names();
        for (field, _) in &mut errors_of {
            // An object of one text is shown as that text.
            let only = format!("{field}/text");
            if names.contains(&only) {
                *field = only;
            }
        }
    }
    let by_field: HashMap<String, String> = errors_of.iter().cloned().collect();
    let form = (asked.kind != JSON).then(|| form(&by_field));
    let json = asked.json.unwrap_or_else(|| {
        let message =
            draft.job.get("message").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        serde_json::to_string_pretty(&message).unwrap_or_default()
    });
    let backing = dashboard.api.backing()?;
    let usable = backing.context.accounts.usable();
    // With a choice it is made by the person.
    let only = usable.first().filter(|_| usable.len() == 1).map(|(name, _)| name.as_str());
    let chosen =
        Some(draft.text("/account")).filter(|account| !account.is_empty()).or(only).unwrap_or_default();
    let chosen = chosen.to_owned();
    let mut senders = senders(dashboard).await?;
    senders.retain(|sender| chosen.is_empty() || sender.account == chosen);
    if draft.text("/from").is_empty() && !chosen.is_empty() && !asked.has_other_sender {
        // The number that was used last is the likeliest. It is kept with the form, where it can be changed.
        draft.set("from", senders.first().map(|sender| sender.number.as_str().into()));
    }
    let mut numbers: Vec<String> = Vec::new();
    for sender in senders {
        if !numbers.contains(&sender.number) {
            numbers.push(sender.number);
        }
    }
    let accounts = all_accounts(&dashboard.api).await?;
    let preview = preview_of(dashboard, &draft, &asked.kind).await?;
    let named = draft.columns.iter().filter(|name| !name.is_empty());
    let identifiers = named.map(|name| Columns::identifier(name));
    let own = context! {
        about => about(&asked.kind),
        kind => asked.kind,
        kinds => known.iter().map(|kind| context! { name => kind.name, title => kind.title }).collect::<Vec<_>>(),
        form => form.map(serialized),
        json,
        accounts => serialized(accounts),
        account => chosen,
        from => draft.text("/from"),
        is_other_sender => asked.has_other_sender || !numbers.iter().any(|number| number == draft.text("/from")),
        senders => numbers,
        rehearses => backing.context.rehearses,
        columns => identifiers.collect::<Vec<_>>(),
        errors => errors(errors_of.iter().map(|(field, detail)| (&**field, &**detail))),
    };
    Ok(step_page(look, who, &draft, "message", "new_message.html", context! { ..own, ..preview }))
}

/// A document with another one's values in place of its own.
fn over(mut base: Value, values: &Value) -> Value {
    if let (Some(base), Some(values)) = (base.as_object_mut(), values.as_object()) {
        for (name, value) in values {
            let own = base.shift_remove(name).unwrap_or_default();
            base.insert(name.clone(), over(own, value));
        }
        return Value::Object(std::mem::take(base));
    }
    values.clone()
}

/// The message that the form of a kind sends before anything is filled in.
fn starter(kind: &str) -> Option<Value> {
    let kind = kinds().into_iter().find(|known| known.name == kind)?;
    let making = Making { errors: &HashMap::new(), add: "", fixed: &FIXED };
    let values = making.form(&CONTENT, Some(&kind.message), MESSAGE).values();
    Filled { values: &values, remove: "" }.value(&CONTENT, MESSAGE).or(Some(kind.message))
}

/// How often a preview is repaired at the most.
const REPAIRS: usize = 12;

/// The message as far as it is written, as the phones of some people would show it, and what is left to do.
async fn preview_of(dashboard: &Dashboard, draft: &Draft, kind: &str) -> Result<Shown, Problem> {
    let found = look_over(dashboard, draft, kind).await?;
    let to_do: Vec<String> = found.wrong.into_iter().map(|(_, detail)| detail).collect();
    Ok(context! { phones => found.phones, to_do })
}

/// What a look at an unfinished message finds.
#[derive(Default)]
struct Found {
    /// What is wrong, by field.
    wrong: Vec<(String, String)>,
    /// The message on the phones of some people, with fillers where it is not written yet.
    phones: Vec<Shown>,
}

async fn look_over(dashboard: &Dashboard, draft: &Draft, kind: &str) -> Result<Found, Problem> {
    let mut found = Found::default();
    let mut draft = draft.clone();
    let usable = dashboard.api.backing()?.context.accounts.usable();
    let account = usable.first().map(|(name, _)| Value::from(name.as_str()));
    if draft.text("/account").is_empty() {
        if usable.len() > 1 {
            found.wrong.push(("account".into(), missing("/account")));
        }
        draft.set("account", account);
    }
    if draft.text("/from").is_empty() {
        found.wrong.push(("from".into(), missing("/from")));
        draft.set("from", Some(SOME_NUMBER.into()));
    }
    let written = draft.job.get("message").cloned().or_else(|| starter(kind));
    if written.is_none() {
        found.wrong.push((MESSAGE.into(), missing(MESSAGE)));
        return Ok(found);
    }
    let mut empty = Vec::new();
    draft.set("message", Some(complete(&CONTENT, written.as_ref(), MESSAGE, &mut empty)));
    found.wrong.extend(empty.iter().map(|pointer| (pointer.clone(), missing(pointer))));
    let mut repaired = BTreeSet::new();
    for _ in 0..REPAIRS {
        let problem = match phones_of(dashboard, &draft).await {
            Ok(phones) => {
                found.phones = phones;
                break;
            }
            Err(problem) if problem.status().is_client_error() => problem,
            Err(problem) => return Err(problem),
        };
        let mut is_repaired = false;
        let mut described = described(&problem);
        if described.is_empty() {
            described.push((MESSAGE.into(), words::as_sentence(&problem.plain())));
        }
        for (pointer, detail) in described {
            if !repaired.insert(pointer.clone()) {
                continue;
            }
            if !empty.contains(&pointer) {
                let field = if pointer.starts_with(MESSAGE) {
                    pointer.as_str()
                } else {
                    pointer.trim_start_matches('/')
                };
                found.wrong.push((field.to_owned(), detail));
            }
            is_repaired |= repair(&mut draft.job, &pointer);
        }
        if !is_repaired {
            break;
        }
    }
    Ok(found)
}

/// Puts a filler where something is wrong. Returns whether it could.
fn repair(job: &mut Value, pointer: &str) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return false };
    let filler = match pointer {
        "/from" => json!(SOME_NUMBER),
        _ if !parent.starts_with(MESSAGE) => return false,
        _ if name == "flow_action_payload" => json!({ "screen": ELLIPSIS }),
        _ if job.pointer(pointer).and_then(Value::as_str).is_some_and(|text| text.contains("://")) => {
            json!(SOME_ADDRESS)
        }
        _ => json!(ELLIPSIS),
    };
    let Some(Value::Object(object)) = job.pointer_mut(parent) else { return false };
    object.insert(name.into(), filler);
    true
}

async fn phones_of(dashboard: &Dashboard, draft: &Draft) -> Result<Vec<Shown>, Problem> {
    let count = draft.sample.len();
    let job = draft.to(&draft.sample, "preview", "preview")?;
    let checked =
        with_prepared(&dashboard.api, job, move |prepared, account| Ok(check(&prepared, account, count)?));
    let messages = checked.await?.messages;
    let shown = |message: &crate::views::check::Rendered| {
        let html = phone(&message.content).replace(SOME_ADDRESS, ELLIPSIS);
        context! { recipient => message.recipient.clone(), html }
    };
    Ok(messages.iter().map(shown).collect())
}

/// Takes what was filled in over into the draft.
fn fill(draft: &mut Draft, fields: &Fields) -> Asked {
    let kind = fields.get("kind").to_owned();
    let mut asked = Asked { kind, ..Asked::default() };
    // One that is typed counts, else one that is chosen.
    let typed = fields.get("from").replace([' ', '-'], "");
    let (known, is_offered) =
        (fields.get("known_from"), fields.0.iter().any(|(name, _)| name == "known_from"));
    asked.has_other_sender = is_offered && (known.is_empty() || !typed.is_empty());
    // Numbers are offered of one account; of another one the page offers others.
    let before = draft.text("/account");
    let is_other_account = !before.is_empty() && before != fields.get("account");
    let from = match typed.is_empty() {
        true if is_other_account => String::new(),
        true => known.to_owned(),
        false => typed,
    };
    for (name, value) in [("account", fields.get("account").to_owned()), ("from", from)] {
        draft.set(name, Some(value).filter(|value| !value.is_empty()).map(Value::from));
    }
    let what = fields.get("do");
    // The kind that the form is of; another one may have been chosen in it.
    let shown =
        Some(fields.get("form_kind")).filter(|kind| !kind.is_empty()).unwrap_or(&asked.kind).to_owned();
    if shown == JSON {
        let text = fields.get("json");
        match serde_json::from_str::<Value>(text) {
            // A whole job may be pasted: its message is what counts.
            Ok(value) => {
                let message = value.get("message").filter(|message| message.is_object()).cloned();
                draft.set("message", Some(message.unwrap_or(value)));
            }
            Err(_) if shown != asked.kind => {}
            Err(fault) => asked.errors.push(("json".into(), format!("This isn’t valid JSON: {fault}."))),
        }
    } else {
        let values: HashMap<String, String> =
            fields.0.iter().filter(|(name, _)| name.starts_with(MESSAGE)).cloned().collect();
        let remove = what.strip_prefix("remove:").unwrap_or_default();
        draft.set("message", Filled { values: &values, remove }.value(&CONTENT, MESSAGE));
        what.strip_prefix("add:").unwrap_or_default().clone_into(&mut asked.add);
    }
    if shown == asked.kind {
        asked.json = (shown == JSON).then(|| fields.get("json").to_owned());
        return asked;
    }
    // Another kind begins with what was typed for it before; what was typed for this one is kept.
    let typed =
        if shown == JSON { Some(fields.get("json").into()) } else { draft.job.get("message").cloned() };
    let before = draft.other_messages.remove(&asked.kind);
    draft.other_messages.extend(typed.map(|typed| (shown, typed)));
    if asked.kind == JSON {
        // Else it begins with the message of the form.
        asked.json = before.as_ref().and_then(Value::as_str).map(str::to_owned);
    } else {
        draft.set("message", before);
    }
    asked
}

/// What is wrong, each with the pointer of its own field.
fn described(problem: &Problem) -> Vec<(String, String)> {
    let missing = problem.missing().map(|pointer| {
        let text = missing(&pointer);
        (pointer, text)
    });
    let mistakes = problem.mistakes().map(|(pointer, detail, excess)| {
        let text = match excess {
            Some(Excess { length, max }) => {
                format!("Too long: {} of {} characters.", thousands(length as u64), thousands(max as u64))
            }
            None => words::as_sentence(detail),
        };
        (pointer.to_owned(), text)
    });
    missing.chain(mistakes).collect()
}

/// Something that keeps a draft from being sent: what to do, and the address of the step and the field where it is done.
pub(super) struct Obstacle {
    pub(super) text: String,
    pub(super) address: String,
}

/// What keeps a draft from being sent, as its pages say it.
pub(super) fn obstacles(draft: &Draft, problem: &Problem) -> Vec<Obstacle> {
    let missing: Vec<String> = problem.missing().collect();
    let mut found = described(problem);
    if found.is_empty() {
        found.push((String::new(), words::as_sentence(&problem.plain())));
    }
    let obstacle = |(pointer, detail): (String, String)| {
        let (step, field) = steps_of(&pointer);
        let text = match pointer.as_str() {
            MESSAGE if missing.contains(&pointer) => "Write the message.".into(),
            "" => detail,
            // What is missing is named in its sentence.
            _ if missing.contains(&pointer) => detail,
            _ => format!("{}: {detail}", label(&pointer)),
        };
        Obstacle { text, address: format!("/new/{}/{step}{field}", draft.id) }
    };
    found.into_iter().map(obstacle).collect()
}

pub(super) async fn save(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Problem> {
    let mut draft = Draft::find(&dashboard, &id).await?;
    let mut asked = fill(&mut draft, &fields);
    draft.keep(&dashboard, &who).await?;
    if let Some(step) = left_for(&fields).filter(|_| asked.errors.is_empty()) {
        return Ok(address(&draft, step).into_response());
    }
    if fields.get("do") != "next" {
        return Ok(page(&dashboard, &who, &look, draft, asked).await?.into_response());
    }
    if asked.errors.is_empty() {
        asked.errors = look_over(&dashboard, &draft, &asked.kind).await?.wrong;
    }
    if asked.errors.is_empty() {
        return Ok(address(&draft, "when").into_response());
    }
    let page = page(&dashboard, &who, &look, draft, asked).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

/// The phones alone, for a page that shows them while somebody types. Nothing is kept.
pub(super) async fn preview(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Html<String>, Problem> {
    let mut draft = Draft::find(&dashboard, &id).await?;
    let asked = fill(&mut draft, &fields);
    let preview = preview_of(&dashboard, &draft, &asked.kind).await?;
    Ok(Html(super::super::render::part("phones.html", preview)))
}
