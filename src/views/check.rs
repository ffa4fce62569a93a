//! What a check of a job and its audience found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::values::{ValueWarnings, placeholders};
use crate::campaign::content::warnings;
use crate::campaign::problem::{listed, place};
use crate::campaign::schedule::Opening;
use crate::campaign::{CampaignId, Columns, Job, PhoneParser, Price, Problem, Recipient, SkipReason};
use crate::dispatch::{Account, DispatchError, Planner, Prepared, forecast};
use crate::egress::EgressPolicy;

/// How many numbers that can't be read are looked at for what would help.
const UNREAD: usize = 200;
/// How many skipped rows are listed; all are counted.
const LISTED: usize = 20;

/// All of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Checked {
    /// The campaign's id, where the job names one.
    #[schema(required = true)]
    pub id: Option<String>,
    /// What was found of the audience that its owner should know, a sentence each.
    #[schema(value_type = Vec<String>)]
    pub notes: Vec<Note>,
    /// The columns, and what a placeholder calls each.
    pub columns: Vec<ColumnView>,
    /// The column that the numbers are taken from.
    pub phone_column: String,
    /// The region in which most numbers that can't be read could be, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_region: Option<String>,
    /// How many rows the audience has.
    pub rows: u64,
    /// How many of them are sent to.
    pub recipients: u64,
    /// Skipped rows by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// The first of the skipped rows.
    pub problems: Vec<RowProblem>,
    /// What the message holds and will hardly show as meant, with its place in the job.
    pub warnings: Vec<Warning>,
    /// The first messages.
    pub messages: Vec<Rendered>,
    /// What sending will take.
    pub forecast: ForecastView,
}

/// Something that the owner of an audience should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Of the file and how it is read.
    Audience(String),
    /// Most numbers that can't be read would be valid in a region.
    Region {
        /// The two letters of ISO 3166.
        region: String,
        /// How many would be valid.
        valid: usize,
        /// How many were tried.
        tried: usize,
        /// How many can't be read.
        invalid: u64,
        /// Whether they begin with the region's calling code and only lack the `+`.
        is_certain: bool,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audience(note) => f.write_str(note),
            Self::Region { region, valid, tried, invalid, .. } => {
                write!(f, "{valid} of ")?;
                if *invalid > *tried as u64 {
                    write!(f, "the first {tried} of ")?;
                }
                write!(f, "{invalid} numbers that can't be read would be valid with default_region {region}")
            }
        }
    }
}

impl Serialize for Note {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Something of a job that is no reason to refuse it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Warning {
    /// Its place in the job, a JSON pointer.
    pub pointer: String,
    /// What may go wrong.
    pub detail: String,
}

impl Warning {
    /// Returns the place and what may go wrong there, in words only.
    pub fn plain(&self) -> String {
        format!("{}: {}", place(&self.pointer), self.detail)
    }
}

/// A column of the audience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ColumnView {
    /// As the file has it.
    pub name: String,
    /// As a placeholder has it: `First Name` is `First_Name`.
    pub identifier: String,
}

/// A row that is not sent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RowProblem {
    /// The row, from 1.
    pub row: u64,
    /// Why.
    #[schema(value_type = String)]
    pub reason: crate::campaign::SkipReason,
    /// The same in words.
    pub detail: String,
}

/// A message as its recipient would get it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Rendered {
    /// The row, from 1.
    pub row: u64,
    /// The number.
    pub recipient: String,
    /// The content, as the provider gets it.
    pub content: Value,
}

/// What sending will take.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ForecastView {
    /// How many requests.
    pub requests: u64,
    /// How long the limits make it take at the least, in seconds.
    pub duration_s: f64,
    /// The same, exactly.
    #[serde(skip)]
    pub duration: Duration,
    /// What the messages cost, where the account has a price list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceView>,
}

/// What messages cost by an account's price list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PriceView {
    /// The sum, as `1,234.50`.
    pub amount: String,
    /// The same as a number.
    pub value: f64,
    /// What it is in, as `INR`.
    pub currency: String,
    /// How many messages go where the list has no price; they are not in the sum.
    pub unpriced: u64,
}

/// What is doubtful of a job beside its message.
fn of_job(job: &Job) -> Vec<Problem> {
    let mut found = Vec::new();
    if job.schedule.at(Timestamp::now()) == Opening::Expired {
        let why = match job.schedule.expires_at {
            Some(at) if at <= Timestamp::now() => "has passed: nothing would be sent",
            _ => "is before the window opens: nothing would be sent",
        };
        found.push(Problem::new("/schedule/expires_at", why));
    }
    let inside = |url: &String| EgressPolicy { allow_private: false }.admitted(url).is_none();
    if job.status_callback.as_ref().is_some_and(inside) {
        let why = "is an address inside a network, or has a user name in it: no report is handed on to it, unless \
                   callbacks.allow_private is set";
        found.push(Problem::new("/status_callback", why));
    }
    found
}

fn column_views(columns: &Columns) -> Vec<ColumnView> {
    let named = columns.names().iter().filter(|name| !name.is_empty());
    named.map(|name| ColumnView { name: name.clone(), identifier: Columns::identifier(name) }).collect()
}

/// The region in which most numbers that can't be read would be valid, with the note that says so.
fn region_for(
    prepared: &Prepared,
    unread: &[String],
    invalid: u64,
    recipients: u64,
) -> Option<(String, Note)> {
    let unread: Vec<&str> = unread.iter().map(String::as_str).collect();
    let certain = PhoneParser::region_without_plus(&unread);
    let is_certain = certain.is_some();
    let (region, valid) = certain.or_else(|| PhoneParser::best_region(&unread, Some(prepared.job.from)))?;
    let known = prepared.settings.default_region.as_deref();
    let is_better = match known {
        Some(known) if known == region => false,
        // In place of a region that reads more people it would lose them.
        Some(_) => valid as u64 > recipients,
        None => true,
    };
    let tried = unread.len();
    (is_better && valid * 2 > tried)
        .then(|| (region.clone(), Note::Region { region, valid, tried, invalid, is_certain }))
}

/// Plans the whole campaign, sends nothing, and keeps the first of everything: so many messages.
///
/// # Errors
///
/// When the audience can't be read to its end.
pub fn check(prepared: &Prepared, account: &Account, shown: usize) -> Result<Checked, DispatchError> {
    let job = &prepared.job;
    let id = job.id.clone().map_or_else(|| "check".parse::<CampaignId>(), Ok);
    let id = id.map_err(|fault| DispatchError::Task(fault.to_string()))?;
    let mut planner = Planner::new(prepared, id, prepared.batch_size, &CancellationToken::new())?;
    let (mut rows, mut recipients, mut skipped) = (0, 0, BTreeMap::new());
    let (mut problems, mut messages) = (Vec::new(), Vec::new());
    let (mut price, mut unpriced) = (Price::default(), 0);
    let mut unread: Vec<String> = Vec::new();
    let mut values = ValueWarnings::new(prepared);
    while let Some(step) = planner.next_batch()? {
        rows = step.checkpoint.rows;
        for line in step.skipped {
            if line.reason == SkipReason::InvalidNumber && unread.len() < UNREAD {
                unread.push(line.recipient);
            }
            *skipped.entry(line.reason.as_str()).or_default() += 1;
            if problems.len() < LISTED {
                problems.push(RowProblem { row: line.row, reason: line.reason, detail: line.detail });
            }
        }
        let Some(batch) = step.batch else { continue };
        recipients += batch.len() as u64;
        values.see(&batch);
        if let Some(list) = &account.prices {
            for recipient in batch.recipients() {
                match list.of(recipient.phone) {
                    Some(one) => price += one,
                    None => unpriced += 1,
                }
            }
        }
        let first = batch.recipients().take(shown - messages.len());
        messages.extend(first.filter_map(|recipient| rendered(prepared, &recipient)));
    }
    let invalid = skipped.get(SkipReason::InvalidNumber.as_str()).copied().unwrap_or_default();
    let phone_column = prepared.phone_column.clone();
    let notes = prepared.scan.notes(prepared.settings.hidden_rows);
    let mut notes: Vec<Note> = notes.into_iter().map(Note::Audience).collect();
    if !prepared.other_phone_columns.is_empty() {
        let others = prepared.other_phone_columns.iter().map(String::as_str);
        notes.push(Note::Audience(format!(
            "the numbers are taken from the column {phone_column:?}, and not from {}; name another one as \"phone\"",
            listed(others)
        )));
    }
    let suggested_region = region_for(prepared, &unread, invalid, recipients).map(|(region, note)| {
        notes.push(note);
        region
    });
    let forecast = forecast(recipients, prepared.batch_size, job.limits.messages, account);
    Ok(Checked {
        id: job.id.as_ref().map(ToString::to_string),
        notes,
        columns: column_views(&prepared.columns),
        phone_column,
        suggested_region,
        rows,
        recipients,
        skipped,
        problems,
        warnings: of_job(job)
            .into_iter()
            .chain(warnings(&job.message))
            .chain(placeholders(job, &prepared.columns))
            .chain(values.found())
            .map(|found| Warning { pointer: found.pointer, detail: found.message })
            .collect(),
        messages,
        forecast: ForecastView {
            requests: forecast.requests,
            duration_s: forecast.duration.as_secs_f64().ceil(),
            duration: forecast.duration,
            price: account.prices.as_ref().map(|list| PriceView {
                amount: price.to_string(),
                value: price.value(),
                currency: list.currency.clone(),
                unpriced,
            }),
        },
    })
}

/// A message with the values of its recipient.
fn rendered(prepared: &Prepared, recipient: &Recipient<'_>) -> Option<Rendered> {
    let mut bytes = Vec::new();
    prepared.template.render(recipient, &mut bytes).ok()?;
    let message: Value = serde_json::from_slice(&bytes).ok()?;
    let (row, content) = (recipient.row, message["content"].clone());
    Some(Rendered { row, recipient: recipient.phone.to_string(), content })
}

/// The message of the first row that is not skipped.
///
/// # Errors
///
/// When the audience can't be read so far.
pub fn first_message(prepared: &Prepared, id: CampaignId) -> Result<Option<Rendered>, DispatchError> {
    let mut planner = Planner::new(prepared, id, 1, &CancellationToken::new())?;
    while let Some(step) = planner.next_batch()? {
        if let Some(batch) = step.batch {
            return Ok(batch.recipients().find_map(|recipient| rendered(prepared, &recipient)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_that_has_passed_and_an_address_inside_are_warned_of() {
        let places = |schedule: Value, callback: &str| -> Vec<String> {
            let job = json!({
                "version": 1, "account": "main", "from": "+912248931479", "schedule": schedule,
                "status_callback": callback,
                "audience": { "recipients": [{ "phone": "+919876543210" }] },
                "message": { "type": "text", "text": { "body": "x" } },
            });
            let job = Job::read(job.to_string().as_bytes()).unwrap();
            of_job(&job).into_iter().map(|problem| problem.pointer).collect()
        };
        let passed = json!({ "expires_at": "2020-01-01T00:00:00Z" });
        assert_eq!(places(passed, "https://example.com/x"), ["/schedule/expires_at"]);
        for inside in ["http://10.0.0.1/x", "http://[::1]/x", "https://user@example.com/x"] {
            assert_eq!(places(json!({}), inside), ["/status_callback"], "{inside}");
        }
        assert_eq!(places(json!({}), "https://example.com/x"), [""; 0]);
    }
}
