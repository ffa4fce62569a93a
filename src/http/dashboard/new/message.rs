//! The message step: the account, the sender number, and the message, in a form or as JSON, with a preview on a phone.
//!
//! A draft keeps an unfinished message. Only the step to the schedule requires a valid one.

use std::collections::HashMap;

use axum::response::{Html, IntoResponse, Response};
use minijinja::context;
use serde_json::Value;

use super::super::super::api::accounts::all as all_accounts;
use super::super::super::problem::Problem;
use super::super::extract::Fields;
use super::super::render::{serialized, unprocessable};
use super::draft::CampaignDraft;
use super::form::{FormContext, FormValues};
use super::kinds::{JSON, about, kind_of, kinds, needs_conversation};
use super::obstacles::MESSAGE;
use super::page::{DraftPage, errors, left_for};
use super::preview::{look_over, preview_of};
use super::senders;
use crate::campaign::content::CONTENT;
use crate::campaign::{Columns, PhoneParser};

/// The sender number that the sandbox starts with.
const SANDBOX_SENDER: &str = "+912248931479";
/// JSON pointers of the choices that the kind of message makes.
pub(super) const FIXED_TAGS: [&str; 2] = ["/message/type", "/message/interactive/type"];

/// The input of the page besides the draft.
#[derive(Default)]
pub(super) struct MessageQuery {
    pub(super) kind: String,
    /// The text of the JSON editor.
    json: Option<String>,
    /// JSON pointer of the list that gets one more item; empty for none.
    add: String,
    /// Error messages, each with its field.
    errors: Vec<(String, String)>,
    /// Whether the person wants a sender number that is not offered.
    has_other_sender: bool,
    /// Whether the draft was just saved on request.
    is_saved: bool,
}

pub(super) async fn show(page: DraftPage) -> Result<Html<String>, Problem> {
    let kind = page.draft.job.get("message").map_or("text", kind_of).to_owned();
    render(page, MessageQuery { kind, ..MessageQuery::default() }).await
}

async fn render(mut page: DraftPage, asked: MessageQuery) -> Result<Html<String>, Problem> {
    let (account, numbers) = choose_sender(&mut page, &asked).await?;
    let draft = &page.draft;
    let known = kinds();
    let starter = known.iter().find(|kind| kind.name == asked.kind).map(|kind| kind.message.clone());
    // The form has every field of the kind's starter, also where the message omits it.
    let message = match draft.job.get("message").filter(|message| kind_of(message) == asked.kind) {
        Some(message) => Some(starter.map_or_else(|| message.clone(), |starter| over(starter, message))),
        None => starter,
    };
    let form = |errors: &HashMap<String, String>| {
        FormContext { errors, add: &asked.add, fixed: &FIXED_TAGS }.form(&CONTENT, message.as_ref(), MESSAGE)
    };
    let mut errors_of = asked.errors.clone();
    if asked.kind != JSON {
        let names = form(&HashMap::new()).names();
        for (field, _) in &mut errors_of {
            // An object whose only field is a text is shown as that text.
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
    let accounts = all_accounts(&page.dashboard.api).await?;
    let preview = preview_of(&page.dashboard, draft, &asked.kind).await?;
    let named = draft.columns.iter().filter(|name| !name.is_empty());
    let columns = named.map(|name| context! { name, identifier => Columns::identifier(name) });
    let own = context! {
        about => about(&asked.kind),
        needs_conversation => needs_conversation(&asked.kind),
        is_saved => asked.is_saved,
        kind => asked.kind,
        kinds => known.iter().map(|kind| context! { name => kind.name, title => kind.title }).collect::<Vec<_>>(),
        form => form.map(serialized),
        json,
        accounts => serialized(accounts),
        account,
        from => draft.text("/from"),
        is_other_sender => asked.has_other_sender || !numbers.iter().any(|number| number == draft.text("/from")),
        senders => numbers,
        rehearses => page.dashboard.api.backing()?.context.rehearses,
        columns => columns.collect::<Vec<_>>(),
        errors => errors(errors_of.iter().map(|(field, detail)| (&**field, &**detail))),
    };
    Ok(page.render("message", "new_message.html", context! { ..own, ..preview }))
}

/// Returns the account that is chosen and the sender numbers to offer, the most recently used first. Fills in the sender.
async fn choose_sender(page: &mut DraftPage, asked: &MessageQuery) -> Result<(String, Vec<String>), Problem> {
    let usable = page.dashboard.api.backing()?.context.accounts.usable();
    // With several accounts the person has to choose.
    let only = usable.first().filter(|_| usable.len() == 1).map(|(name, _)| name.as_str());
    let account = Some(page.draft.text("/account")).filter(|account| !account.is_empty());
    let account = account.or(only).unwrap_or_default().to_owned();
    let mut senders = senders(&page.dashboard).await?;
    senders.retain(|sender| account.is_empty() || sender.account == account);
    if page.draft.text("/from").is_empty() && !account.is_empty() && !asked.has_other_sender {
        // The most recently used number is the likeliest, and in the sandbox any number works. The draft keeps it once the form
        // is saved.
        let rehearses = page.dashboard.api.backing()?.context.rehearses;
        let number = senders.first().map(|sender| sender.number.as_str());
        page.draft.set("from", number.or(rehearses.then_some(SANDBOX_SENDER)).map(Value::from));
    }
    let mut numbers: Vec<String> = Vec::new();
    for sender in senders {
        if !numbers.contains(&sender.number) {
            numbers.push(sender.number);
        }
    }
    Ok((account, numbers))
}

/// Returns the base document with the values of another one over its own.
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

/// Puts the submitted form into the draft.
pub(super) fn fill(draft: &mut CampaignDraft, fields: &Fields) -> MessageQuery {
    let kind = fields.get("kind").to_owned();
    let mut asked = MessageQuery { kind, ..MessageQuery::default() };
    // A typed number wins over a chosen one.
    let typed = fields.get("from");
    let typed = PhoneParser::new(draft.region().as_deref())
        .parse(typed)
        .map_or_else(|_| typed.replace([' ', '-'], ""), |number| number.to_string());
    let (known, is_offered) =
        (fields.get("known_from"), fields.0.iter().any(|(name, _)| name == "known_from"));
    asked.has_other_sender = is_offered && (known.is_empty() || !typed.is_empty());
    // The offered numbers belong to the previous account: they do not fit another one.
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
    // The kind that the form was made for; the person may have chosen another one in it.
    let shown =
        Some(fields.get("form_kind")).filter(|kind| !kind.is_empty()).unwrap_or(&asked.kind).to_owned();
    if shown == JSON {
        let text = fields.get("json");
        match serde_json::from_str::<Value>(text) {
            // A pasted job is reduced to its message.
            Ok(value) => {
                let message = value.get("message").filter(|message| message.is_object()).cloned();
                draft.set("message", Some(message.unwrap_or(value)));
            }
            Err(_) if shown != asked.kind => {}
            Err(error) => asked.errors.push(("json".into(), format!("This isn’t valid JSON: {error}."))),
        }
    } else {
        let values: HashMap<String, String> =
            fields.0.iter().filter(|(name, _)| name.starts_with(MESSAGE)).cloned().collect();
        let remove = what.strip_prefix("remove:").unwrap_or_default();
        draft.set("message", FormValues { values: &values, remove }.value(&CONTENT, MESSAGE));
        what.strip_prefix("add:").unwrap_or_default().clone_into(&mut asked.add);
    }
    if shown == asked.kind {
        asked.json = (shown == JSON).then(|| fields.get("json").to_owned());
        return asked;
    }
    // The new kind starts with what was typed for it before. What was typed for the old kind is stored.
    let typed =
        if shown == JSON { Some(fields.get("json").into()) } else { draft.job.get("message").cloned() };
    let before = draft.other_messages.remove(&asked.kind);
    draft.other_messages.extend(typed.map(|typed| (shown, typed)));
    if asked.kind == JSON {
        // Without an earlier text the editor starts with the message of the form.
        asked.json = before.as_ref().and_then(Value::as_str).map(str::to_owned);
    } else {
        draft.set("message", before);
    }
    asked
}

pub(super) async fn save(mut page: DraftPage, fields: Fields) -> Result<Response, Problem> {
    let mut asked = fill(&mut page.draft, &fields);
    page.keep().await?;
    if let Some(step) = left_for(&fields).filter(|_| asked.errors.is_empty()) {
        return Ok(page.redirect(step).into_response());
    }
    if fields.get("do") != "next" {
        asked.is_saved = fields.get("do") == "save" && asked.errors.is_empty();
        return Ok(render(page, asked).await?.into_response());
    }
    if asked.errors.is_empty() {
        asked.errors = look_over(&page.dashboard, &page.draft, &asked.kind).await?.wrong;
    }
    if asked.errors.is_empty() {
        return Ok(page.redirect("when").into_response());
    }
    Ok(unprocessable(render(page, asked).await?))
}
