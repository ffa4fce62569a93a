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
use super::form::{Filled, Making, missing};
use super::kinds::{JSON, about, kind_of, kinds};
use super::{address, errors, senders, step_page};
use crate::campaign::Columns;
use crate::campaign::content::CONTENT;
use crate::views::check::check;

/// Where the message stands in a job.
const MESSAGE: &str = "/message";
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
    draft: Draft,
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
    let senders: BTreeSet<String> =
        senders(dashboard).await?.into_iter().map(|sender| sender.number).collect();
    let usable = backing.context.accounts.usable();
    // With a choice it is made by the person.
    let only = usable.first().filter(|_| usable.len() == 1).map(|(name, _)| name.as_str());
    let chosen =
        Some(draft.text("/account")).filter(|account| !account.is_empty()).or(only).unwrap_or_default();
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
        senders,
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

/// What stands in a preview for a text that is not written yet, and for an address.
const ELLIPSIS: &str = "…";
const SOME_ADDRESS: &str = "https://example.com/";
/// How often a preview is repaired at the most: a message has so many fields that can be missing one behind the other.
const REPAIRS: usize = 12;

/// The message as far as it is written, as the phones of some people would show it, and what is missing of it.
async fn preview_of(dashboard: &Dashboard, draft: &Draft, kind: &str) -> Result<Shown, Problem> {
    let mut draft = draft.clone();
    let usable = dashboard.api.backing()?.context.accounts.usable();
    let mut account = usable.first().map(|(name, _)| Value::from(name.as_str()));
    if draft.text("/account").is_empty() && usable.len() == 1 {
        draft.set("account", account.take());
    }
    if draft.job.get("message").is_none() {
        draft.set("message", starter(kind));
    }
    let mut to_do = Vec::new();
    // A preview needs no sender.
    for (field, detail) in wrong(dashboard, &draft).await {
        match field.as_str() {
            "account" => draft.set("account", account.take()),
            "from" => draft.set("from", Some("+10000000000".into())),
            _ => continue,
        }
        to_do.push(detail);
    }
    let mut phones = Vec::new();
    let mut repaired: HashMap<String, usize> = HashMap::new();
    for _ in 0..REPAIRS {
        let problem = match phones_of(dashboard, &draft).await {
            Ok(found) => {
                phones = found;
                break;
            }
            Err(problem) if problem.status().is_client_error() => problem,
            Err(problem) => return Err(problem),
        };
        let mut is_repaired = false;
        for (pointer, detail) in described(&problem) {
            let tried = repaired.entry(pointer.clone()).or_default();
            // What a filler brings about is not the person's.
            if *tried == 0 {
                to_do.push(detail);
            }
            *tried += 1;
            let fillers = [json!(ELLIPSIS), json!(SOME_ADDRESS), json!("0"), json!({ "screen": ELLIPSIS })];
            is_repaired |= repair(&mut draft.job, &pointer, fillers.into_iter().nth(*tried - 1));
        }
        if !is_repaired {
            break;
        }
    }
    Ok(context! { phones, to_do })
}

/// Puts a filler where something of the message is missing or wrong, or takes it away. Returns whether it could.
fn repair(job: &mut Value, pointer: &str, filler: Option<Value>) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/').filter(|(parent, _)| parent.starts_with(MESSAGE))
    else {
        return false;
    };
    match (job.pointer_mut(parent), filler) {
        (Some(Value::Object(object)), Some(filler)) => {
            object.insert(name.into(), filler);
            true
        }
        (Some(Value::Object(object)), None) => object.shift_remove(name).is_some(),
        _ => false,
    }
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
    for (name, field) in [("account", "account"), ("from", "from")] {
        let value = fields.get(field).replace([' ', '-'], "");
        let value = if field == "account" { fields.get(field).to_owned() } else { value };
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
    let mistakes =
        problem.mistakes().map(|(pointer, detail)| (pointer.to_owned(), words::as_sentence(detail)));
    missing.chain(mistakes).collect()
}

/// What is wrong with a message, by field.
async fn wrong(dashboard: &Dashboard, draft: &Draft) -> Vec<(String, String)> {
    let problem = match draft.to(&draft.sample, "preview", "preview") {
        Err(problem) => problem,
        Ok(job) => match with_prepared(&dashboard.api, job, |_, _| Ok(())).await {
            Ok(()) => return Vec::new(),
            Err(problem) => problem,
        },
    };
    let found = described(&problem);
    if found.is_empty() { vec![(MESSAGE.into(), words::as_sentence(&problem.plain()))] } else { found }
        .into_iter()
        .map(|(field, detail)| match field.as_str() {
            "/account" | "/from" => (field[1..].to_owned(), detail),
            _ => (field, detail),
        })
        .collect()
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
    if fields.get("do") != "next" {
        return Ok(page(&dashboard, &who, &look, draft, asked).await?.into_response());
    }
    if asked.errors.is_empty() {
        asked.errors = wrong(&dashboard, &draft).await;
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
