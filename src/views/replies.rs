//! The replies to a campaign, with a column for each form field.

use std::collections::BTreeSet;
use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::lines::LineWriter;
use crate::campaign::{CampaignId, delivery::ReplyContent, time::rfc3339};
use crate::ledger::{Ledger, LedgerError, Response, response_page};

/// The columns before those of the form fields.
const FIRST: [&str; 5] = ["recipient", "row", "batch", "at", "reply"];

/// Maximum number of fields with their own column. A sender can reply with any number of fields.
const FIELDS: usize = 500;
/// The column with all other fields, as JSON.
const OTHERS: &str = "other_fields";

/// The columns of the form fields.
#[derive(Debug, Default)]
pub struct Columns {
    fields: BTreeSet<String>,
    /// Whether there are more fields than columns.
    has_others: bool,
}

impl Columns {
    /// Returns the names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str).chain(self.has_others.then_some(OTHERS))
    }

    /// Removes a field.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.fields.remove(name);
        self
    }

    /// Returns the values of a form, in the order of the columns.
    pub(super) fn values(&self, mut form: Map<String, Value>) -> Vec<String> {
        let mut values: Vec<String> = self
            .fields
            .iter()
            .map(|name| match form.remove(name) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text,
                Some(other) => other.to_string(),
            })
            .collect();
        if self.has_others {
            values.push(if form.is_empty() { String::new() } else { Value::Object(form).to_string() });
        }
        values
    }

    fn add(&mut self, fields: impl Iterator<Item = String>) {
        for name in fields {
            if self.fields.len() < FIELDS {
                self.fields.insert(name);
            } else {
                self.has_others |= !self.fields.contains(&name);
            }
        }
    }
}

/// Returns columns for the form fields of all replies to a campaign.
///
/// # Errors
///
/// The ledger's.
pub async fn columns(ledger: &impl Ledger, id: &CampaignId) -> Result<Columns, LedgerError> {
    // Only one page of replies is in memory.
    let (mut columns, mut next) = (Columns::default(), Some(0));
    while let Some(from) = next {
        let page = response_page(ledger, id, from).await?;
        columns.add(page.responses.iter().flat_map(|reply| parts(reply).1).map(|(name, _)| name));
        next = page.next;
    }
    Ok(columns)
}

fn is_ours(name: &str) -> bool {
    FIRST.contains(&name) || name == OTHERS
}

/// Returns the names of all columns.
pub fn header(columns: &Columns) -> Vec<String> {
    // A field with the name of a fixed column gets a prefix.
    let named = |name: &String| if is_ours(name) { format!("field.{name}") } else { name.clone() };
    let others = columns.has_others.then(|| OTHERS.to_owned());
    FIRST.iter().map(ToString::to_string).chain(columns.fields.iter().map(named)).chain(others).collect()
}

/// Writes replies; in a CSV, with the columns of the form fields after the fixed ones.
///
/// # Errors
///
/// The writer's.
pub fn write<W: Write>(lines: &mut LineWriter<W>, page: &[Response], columns: &Columns) -> io::Result<()> {
    page.iter().try_for_each(|reply| lines.write(&line(reply), || fields(reply, columns)))
}

fn at(reply: &Response) -> String {
    rfc3339(Timestamp::from_millisecond(reply.at).unwrap_or_default())
}

fn line(reply: &Response) -> Value {
    let (text, fields) = parts(reply);
    json!({
        "recipient": reply.recipient.to_string(), "row": reply.row, "batch": reply.batch,
        "at": at(reply), "reply": text, "fields": fields, "details": reply.details,
    })
}

/// Returns the text and the form fields of a reply.
pub(super) fn parts(reply: &Response) -> (Option<String>, Map<String, Value>) {
    match &reply.content {
        ReplyContent::Flow(fields) => (None, fields.clone()),
        ReplyContent::Text(text) => (Some(text.clone()), Map::new()),
        ReplyContent::Other(kind) => (Some(format!("({kind})")), Map::new()),
    }
}

/// Returns the fields of a line, in the order of the header.
fn fields(reply: &Response, columns: &Columns) -> Vec<String> {
    let (text, form) = parts(reply);
    let first = [reply.recipient.to_string(), reply.row.to_string(), reply.batch.to_string(), at(reply)];
    first.into_iter().chain(text.or(Some(String::new()))).chain(columns.values(form)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::lines::Format;
    use super::*;

    #[test]
    fn fields_beyond_the_maximum_share_one_column() {
        let answer = |nth: usize| {
            let fields = (0..20_000).map(|field| (format!("f{:05}", field * 10 + nth), json!(field)));
            Response {
                recipient: "+919876543210".parse().unwrap(),
                row: 1,
                batch: 0,
                message: 0,
                at: 0,
                content: ReplyContent::Flow(fields.collect()),
                details: std::collections::BTreeMap::default(),
            }
        };
        let page = [answer(0), answer(1)];
        let mut columns = Columns::default();
        for reply in &page {
            columns.add(parts(reply).1.into_iter().map(|(name, _)| name));
        }
        let header = header(&columns);
        assert_eq!(
            (header.len(), header.last().map(String::as_str)),
            (FIRST.len() + FIELDS + 1, Some(OTHERS))
        );
        let mut lines = LineWriter::new(Format::Csv, Vec::new());
        write(&mut lines, &page, &columns).unwrap();
        let csv = lines.end().unwrap();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&csv[..]);
        for (record, others) in reader.records().zip([20_000 - FIELDS, 20_000]) {
            let record = record.unwrap();
            let rest: Map<String, Value> = serde_json::from_str(record.iter().next_back().unwrap()).unwrap();
            assert_eq!(rest.len(), others, "nothing is lost");
        }
    }
}
