//! What people answered, one column a form field.

use std::collections::BTreeSet;
use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::lines::{Lines, harmless};
use crate::campaign::CampaignId;
use crate::campaign::delivery::ReplyContent;
use crate::ledger::{Ledger, LedgerError, Response};

/// The columns before those of the form.
const FIRST: [&str; 5] = ["recipient", "row", "batch", "at", "reply"];

/// The fields of a campaign's form, as far as people filled them in: the columns behind the first.
///
/// # Errors
///
/// The ledger's.
pub async fn columns(ledger: &impl Ledger, id: &CampaignId) -> Result<BTreeSet<String>, LedgerError> {
    // No more answers are in memory than a page.
    let (mut columns, mut next) = (BTreeSet::new(), Some(0));
    while let Some(from) = next {
        let page = ledger.responses(id, from).await?;
        columns.extend(page.responses.iter().flat_map(|response| parts(response).1).map(|(name, _)| name));
        next = page.next;
    }
    Ok(columns)
}

/// The names of all columns.
pub fn header(columns: &BTreeSet<String>) -> Vec<String> {
    // A field that is called as one of ours is told apart.
    let named =
        |name: &String| if FIRST.contains(&name.as_str()) { format!("field.{name}") } else { name.clone() };
    FIRST.iter().map(ToString::to_string).chain(columns.iter().map(named)).collect()
}

/// Writes answers, in a CSV with these columns behind the first.
///
/// # Errors
///
/// The writer's.
pub fn write<W: Write>(
    lines: &mut Lines<W>,
    page: &[Response],
    columns: &BTreeSet<String>,
) -> io::Result<()> {
    page.iter().try_for_each(|response| lines.write(&line(response), || fields(response, columns)))
}

fn at(response: &Response) -> String {
    Timestamp::from_millisecond(response.at).unwrap_or_default().to_string()
}

fn line(response: &Response) -> Value {
    let (reply, fields) = parts(response);
    json!({
        "recipient": response.recipient.to_string(), "row": response.row, "batch": response.batch,
        "at": at(response), "reply": reply, "fields": fields, "details": response.details,
    })
}

/// A person's words, and the fields of a form.
pub(super) fn parts(response: &Response) -> (Option<String>, serde_json::Map<String, Value>) {
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
    first.into_iter().chain(others).map(harmless).collect()
}
