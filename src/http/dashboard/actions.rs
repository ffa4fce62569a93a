//! Actions on a campaign. Irreversible ones are confirmed first, with the number of messages; for many messages the person
//! types the number. The action itself is the API's.

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::context;
use serde::Deserialize;

use super::super::access::Caller;
use super::super::api::campaigns::act as act_on;
use super::super::api::extract::{Params, campaign};
use super::super::problem::Problem;
use super::extract::Fields;
use super::render::{Viewer, page_of, unprocessable};
use super::{Dashboard, captions};
use crate::campaign::control;
use crate::campaign::{HumanDuration, counted, thousands};
use crate::ledger::Campaign;

/// Number of messages from which the person must type it to confirm.
const CONFIRM_FROM: u64 = 1000;

/// An action, as addresses name it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ActionKind {
    Pause,
    Resume,
    Cancel,
    Retry,
    Resend,
    GiveUp,
}

#[derive(Default, Deserialize)]
pub(super) struct ActionFilter {
    /// Code of the rejected messages to retry; all of them if omitted.
    code: Option<String>,
}

/// The question that confirms an action: what it does, and to how many messages.
struct Confirmation {
    title: String,
    text: String,
    button: String,
    messages: u64,
}

fn question(what: ActionKind, campaign: &Campaign, code: Option<&str>) -> Option<Confirmation> {
    let counts = &campaign.counts;
    let (messages, title, text, button) = match what {
        ActionKind::Pause | ActionKind::Resume => return None,
        ActionKind::Cancel => {
            let left = captions::unsent(campaign);
            (
                left,
                "Cancel this campaign?".into(),
                format!(
                    "{} will never be sent. Messages already on their way can’t be stopped. You can’t undo this.",
                    counted(left, "message")
                ),
                "Cancel the campaign".into(),
            )
        }
        ActionKind::Retry => {
            let messages = match code {
                Some(code) => campaign.rejected.get(code).copied().unwrap_or_default(),
                // Messages that a person marked as failed may have been delivered: only their own code retries them.
                None => {
                    counts.rejected
                        - campaign.rejected.get(crate::ledger::ABANDONED).copied().unwrap_or_default()
                }
            };
            let with = code.map(|code| format!(" with {code}")).unwrap_or_default();
            (
                messages,
                format!("Retry {} that failed{with}?", counted(messages, "message")),
                "The provider rejected them, so they were not delivered. They’ll be sent unchanged. If the cause isn’t fixed, \
                 they’ll fail again."
                    .into(),
                format!("Send to {}", people(messages)),
            )
        }
        ActionKind::Resend => (
            counts.in_doubt,
            "Resend the messages in doubt?".into(),
            format!("{} in doubt. Anyone who did get it will get it twice.", are(counts.in_doubt, "message")),
            format!("Send to {}", people(counts.in_doubt)),
        ),
        ActionKind::GiveUp => (
            counts.in_doubt,
            "Mark the messages in doubt as failed?".into(),
            format!("{} will be marked as failed and not sent again.", counted(counts.in_doubt, "message")),
            format!("Mark {} as failed", counted(counts.in_doubt, "message")),
        ),
    };
    Some(Confirmation { title, text, button, messages })
}

fn people(number: u64) -> String {
    if number == 1 { "1 person".into() } else { format!("{} people", thousands(number)) }
}

fn are(number: u64, what: &str) -> String {
    format!("{} {}", counted(number, what), if number == 1 { "is" } else { "are" })
}

/// Asks for confirmation of an action.
pub(super) async fn confirm(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    Path((id, what)): Path<(String, ActionKind)>,
    Params(which): Params<ActionFilter>,
) -> Result<Response, Problem> {
    let campaign = campaign(&dashboard.api, &id).await?;
    Ok(ask(&look, &who, &campaign, what, &which, "")?.into_response())
}

fn ask(
    look: &Viewer,
    who: &Caller,
    campaign: &Campaign,
    what: ActionKind,
    which: &ActionFilter,
    error: &str,
) -> Result<Html<String>, Problem> {
    let none = || Problem::not_found("there’s nothing to confirm here");
    let question = question(what, campaign, which.code.as_deref()).ok_or_else(none)?;
    let own = context! {
        id => campaign.id.as_str(),
        name => captions::name(campaign),
        what => code(what),
        code => which.code.clone(),
        text => question.text,
        button => question.button,
        messages => question.messages,
        is_typed => question.messages >= CONFIRM_FROM,
        is_nothing => question.messages == 0,
        asks_age => matches!(what, ActionKind::Resend | ActionKind::GiveUp),
        error,
    };
    Ok(page_of(look, Some(who), "confirm.html", &question.title, own))
}

fn code(what: ActionKind) -> &'static str {
    match what {
        ActionKind::Pause => "pause",
        ActionKind::Resume => "resume",
        ActionKind::Cancel => "cancel",
        ActionKind::Retry => "retry",
        ActionKind::Resend => "resend",
        ActionKind::GiveUp => "give-up",
    }
}

/// Performs an action, and redirects to the campaign, which shows what was done.
pub(super) async fn act(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    Path((id, what)): Path<(String, ActionKind)>,
    fields: Fields,
) -> Result<Response, Problem> {
    let known = campaign(&dashboard.api, &id).await?;
    let which = ActionFilter { code: Some(fields.get("code").to_owned()).filter(|code| !code.is_empty()) };
    let again = |error: &str| Ok(unprocessable(ask(&look, &who, &known, what, &which, error)?));
    if let Some(question) = question(what, &known, which.code.as_deref()) {
        if fields.get("confirmed") != "yes" {
            return Ok(ask(&look, &who, &known, what, &which, "")?.into_response());
        }
        // The number may have changed since: the person confirms the number that the page showed.
        let expected = fields.number("expected").unwrap_or_default();
        if question.messages >= CONFIRM_FROM && fields.number("typed").ok() != Some(expected) {
            return again("Type the number shown above to confirm. Nothing was done.");
        }
    }
    let older_than = match fields.get("older_than") {
        "" => None,
        text => match text.parse::<HumanDuration>() {
            Ok(span) => Some(span),
            Err(_) => return again("Enter a time such as 30min or 2h. Nothing was done."),
        },
    };
    let action = match what {
        ActionKind::Pause => control::Action::Pause,
        ActionKind::Resume => control::Action::Resume,
        ActionKind::Cancel => control::Action::Cancel,
        ActionKind::Retry => control::Action::Retry { codes: which.code.iter().cloned().collect() },
        ActionKind::Resend => control::Action::Resolve { resend: true, older_than },
        ActionKind::GiveUp => control::Action::Resolve { resend: false, older_than },
    };
    let logged = action.code();
    let (_, messages) = act_on(&dashboard.api, &who, known.id.as_str(), action).await?;
    let asks_again = matches!(what, ActionKind::Retry | ActionKind::Resend | ActionKind::GiveUp);
    if asks_again && messages == 0 {
        let error = match older_than {
            Some(span) => format!("Nothing to do: no message has been in doubt for {span} or more."),
            None => "Nothing to do: another person or a delivery report was faster.".into(),
        };
        let campaign = campaign(&dashboard.api, known.id.as_str()).await?;
        return Ok(unprocessable(ask(&look, &who, &campaign, what, &which, &error)?));
    }
    Ok(Redirect::to(&format!("/campaigns/{}?done={logged}", known.id)).into_response())
}
