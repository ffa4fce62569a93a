//! `flowcast responses`: what people answered, one column a form field.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::lines::LineFormat;
use super::open::on_ledger;
use super::{Failure, Outcome, open};
use crate::campaign::CampaignId;
use crate::campaign::delivery::ReplyContent;
use crate::config::Config;
use crate::ledger::{Access, Ledger, Response};

/// Write what people answered.
#[derive(Args)]
pub(super) struct Responses {
    /// The campaign's id
    id: String,
    #[command(flatten)]
    written: LineFormat,
    #[command(flatten)]
    store: open::Store,
}

/// The columns before those of the form.
const FIRST: [&str; 5] = ["recipient", "row", "batch", "at", "reply"];

pub(super) async fn main(responses: Responses, config: &Config, json: bool) -> Outcome {
    let opened = responses.store.open(config, Access::Read).await?;
    on_ledger!(opened, ledger => write(&responses, &ledger, json).await)
}

async fn write(responses: &Responses, ledger: &impl Ledger, json: bool) -> Outcome {
    let id = open::campaign(ledger, &responses.id).await?.id;
    let mut columns = BTreeSet::new();
    // The header names every field, and no more answers are in memory than a page.
    if responses.written.is_csv(json) {
        for_each(ledger, &id, |response| {
            columns.extend(parts(response).1.into_iter().map(|(name, _)| name));
            Ok(())
        })
        .await?;
    }
    // A field that is called as one of ours is told apart.
    let named =
        |name: &String| if FIRST.contains(&name.as_str()) { format!("field.{name}") } else { name.clone() };
    let header = FIRST.iter().map(ToString::to_string).chain(columns.iter().map(named));
    let mut lines = responses.written.begin(json, header)?;
    for_each(ledger, &id, |response| lines.write(&line(response), || fields(response, &columns))).await?;
    lines.end()?;
    Ok(ExitCode::SUCCESS)
}

/// Does something with each answer, in the order of the audience.
async fn for_each(
    ledger: &impl Ledger,
    id: &CampaignId,
    mut with: impl FnMut(&Response) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut next = Some(0);
    while let Some(from) = next {
        let page = ledger.responses(id, from).await?;
        page.responses.iter().try_for_each(&mut with)?;
        next = page.next;
    }
    Ok(())
}

fn at(response: &Response) -> String {
    Timestamp::from_millisecond(response.at).unwrap_or_default().to_string()
}

fn line(response: &Response) -> Value {
    let (reply, fields) = parts(response);
    json!({
        "recipient": response.recipient.to_string(), "row": response.row, "batch": response.batch,
        "at": at(response), "reply": reply, "fields": fields,
    })
}

/// A person's words, and the fields of a form.
fn parts(response: &Response) -> (Option<String>, serde_json::Map<String, Value>) {
    match &response.content {
        ReplyContent::Flow(fields) => (None, fields.clone()),
        ReplyContent::Text(text) => (Some(text.clone()), serde_json::Map::new()),
        ReplyContent::Other(kind) => (Some(format!("({kind})")), serde_json::Map::new()),
    }
}

/// The fields of a line, in the order of the header.
fn fields(response: &Response, columns: &BTreeSet<String>) -> Vec<String> {
    let (reply, form) = parts(response);
    let first = [
        response.recipient.to_string(),
        response.row.to_string(),
        response.batch.to_string(),
        at(response),
        reply.unwrap_or_default(),
    ];
    let others = columns.iter().map(|name| match form.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    });
    first.into_iter().chain(others).map(|text| harmless(&text)).collect()
}

/// What a person wrote is opened in a spreadsheet: a text that one would run as a formula is made none.
fn harmless(text: &str) -> String {
    let is_number = text.trim_start_matches('+').bytes().all(|byte| byte.is_ascii_digit());
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) && !is_number {
        format!("'{text}")
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_made_a_text() {
        assert_eq!(harmless("=HYPERLINK(\"x\")"), "'=HYPERLINK(\"x\")");
        assert_eq!((harmless("@x"), harmless("-1+2")), ("'@x".into(), "'-1+2".into()));
        assert_eq!(
            (harmless("+919876543210"), harmless("monday")),
            ("+919876543210".into(), "monday".into())
        );
    }
}
