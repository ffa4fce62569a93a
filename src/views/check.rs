//! The check of a job and its audience: messages, problems, warnings and a forecast, without sending.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::values::{ValueWarnings, placeholders};
use crate::campaign::content::warnings;
use crate::campaign::problem::{listed, location};
use crate::campaign::schedule::Opening;
use crate::campaign::{
    Batch, CampaignId, Columns, Job, Phone, PhoneParser, Price, Problem, Recipient, SkipReason,
};
use crate::dispatch::{Account, DispatchError, LoadedJob, Planner, forecast};
use crate::egress::EgressPolicy;
use crate::ledger::SkippedRow;

/// Maximum number of invalid phone numbers for which a region is sought.
const MAX_UNPARSED: usize = 200;
/// Maximum number of skipped rows that are listed; all are counted.
const MAX_PROBLEMS: usize = 20;

/// The result of a check.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Checked {
    /// The campaign's id, if the job has one.
    #[schema(required = true)]
    pub id: Option<String>,
    /// Notes about the audience, a sentence each.
    #[schema(value_type = Vec<String>)]
    pub notes: Vec<Note>,
    /// The columns, with their names in placeholders.
    pub columns: Vec<ColumnView>,
    /// The column with the phone numbers.
    pub phone_column: String,
    /// A `default_region` with which most invalid numbers would be valid, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_region: Option<String>,
    /// Number of rows of the audience.
    pub rows: u64,
    /// Number of rows that are sent to.
    pub recipients: u64,
    /// Skipped rows by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// The first skipped rows.
    pub problems: Vec<RowProblem>,
    /// Likely mistakes in the job, with their places.
    pub warnings: Vec<Warning>,
    /// The first messages.
    pub messages: Vec<Rendered>,
    /// Requests, duration and price.
    pub forecast: ForecastView,
}

/// A note about an audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// About the file and how it is read.
    Audience(String),
    /// Most invalid numbers would be valid in a region.
    Region {
        /// The region's ISO 3166 code, e.g. `IN`.
        region: String,
        /// Number of tried numbers that would be valid.
        valid: usize,
        /// Number of tried numbers.
        tried: usize,
        /// Number of invalid numbers.
        invalid: u64,
        /// Whether they begin with the region's calling code and lack only the `+`.
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
                write!(f, "{invalid} invalid phone numbers would be valid with default_region {region}")
            }
        }
    }
}

impl Serialize for Note {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A likely mistake in a job that does not refuse it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Warning {
    /// A JSON pointer into the job.
    pub pointer: String,
    /// The possible problem.
    pub detail: String,
}

impl Warning {
    /// Returns the place and the possible problem in words.
    pub fn to_text(&self) -> String {
        format!("{}: {}", location(&self.pointer), self.detail)
    }
}

/// A column of the audience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ColumnView {
    /// Name in the file.
    pub name: String,
    /// Name in placeholders: `First Name` becomes `First_Name`.
    pub identifier: String,
}

/// A skipped row.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RowProblem {
    /// Row number, from 1.
    pub row: u64,
    /// Why it is skipped.
    #[schema(value_type = String)]
    pub reason: crate::campaign::SkipReason,
    /// The reason in words.
    pub detail: String,
    /// The recipient's number as the audience has it; for pages only.
    #[serde(skip)]
    pub recipient: String,
}

/// A message with its recipient's values.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Rendered {
    /// Row number, from 1.
    pub row: u64,
    /// The recipient's number.
    pub recipient: String,
    /// The content as sent to the provider.
    pub content: Value,
}

/// Requests, duration and price of a campaign.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ForecastView {
    /// Number of requests.
    pub requests: u64,
    /// Minimum duration because of the limits, in seconds.
    pub duration_s: f64,
    /// The exact duration.
    #[serde(skip)]
    pub duration: Duration,
    /// The price, if the account has a price list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceView>,
}

/// The price of messages by an account's price list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PriceView {
    /// The sum, e.g. `1,234.50`.
    pub amount: String,
    /// The sum as a number.
    pub value: f64,
    /// The currency, e.g. `INR`.
    pub currency: String,
    /// Number of messages without a price in the list; they are not in the sum.
    pub unpriced: u64,
}

/// Returns likely mistakes in a job outside of its message.
fn job_warnings(job: &Job) -> Vec<Problem> {
    let mut found = Vec::new();
    if job.schedule.at(Timestamp::now()) == Opening::Expired {
        let why = match job.schedule.expires_at {
            Some(at) if at <= Timestamp::now() => "is in the past; nothing would be sent",
            _ => "is before the window opens; nothing would be sent",
        };
        found.push(Problem::new("/schedule/expires_at", why));
    }
    let inside = |url: &String| EgressPolicy { allow_private: false }.admitted(url).is_none();
    if job.status_callback.as_ref().is_some_and(inside) {
        let why = "is a private address or contains a user name; reports are forwarded to a private address only if \
                   callbacks.forward_to_private is set, and never to a URL with a user name";
        found.push(Problem::new("/status_callback", why));
    }
    found
}

fn column_views(columns: &Columns) -> Vec<ColumnView> {
    let named = columns.names().iter().filter(|name| !name.is_empty());
    named.map(|name| ColumnView { name: name.clone(), identifier: Columns::identifier(name) }).collect()
}

/// Returns the region in which most invalid numbers would be valid, with its note.
fn suggest_region(
    prepared: &LoadedJob,
    unread: &[String],
    invalid: u64,
    recipients: u64,
) -> Option<(String, Note)> {
    let unread: Vec<&str> = unread.iter().map(String::as_str).collect();
    let certain = PhoneParser::region_without_plus(&unread);
    let is_certain = certain.is_some();
    let (region, valid) = certain.or_else(|| PhoneParser::best_region(&unread, Some(prepared.job.from)))?;
    let known = prepared.settings.default_region.as_deref();
    // It must not replace a region with which more numbers are valid.
    let is_better = known.is_none_or(|known| known != region && valid as u64 > recipients);
    let tried = unread.len();
    (is_better && valid * 2 > tried)
        .then(|| (region.clone(), Note::Region { region, valid, tried, invalid, is_certain }))
}

/// What a check collects while it plans the campaign.
struct Findings<'a> {
    prepared: &'a LoadedJob,
    account: &'a Account,
    /// Whether a number is on the suppression list.
    is_suppressed: &'a dyn Fn(Phone) -> bool,
    /// Maximum number of rendered messages.
    max_messages: usize,
    rows: u64,
    recipients: u64,
    skipped: BTreeMap<&'static str, u64>,
    problems: Vec<RowProblem>,
    /// The first phone numbers that could not be parsed.
    unparsed: Vec<String>,
    messages: Vec<Rendered>,
    price: Price,
    unpriced: u64,
    values: ValueWarnings<'a>,
}

impl<'a> Findings<'a> {
    fn new(
        prepared: &'a LoadedJob,
        account: &'a Account,
        is_suppressed: &'a dyn Fn(Phone) -> bool,
        max_messages: usize,
    ) -> Self {
        Self {
            prepared,
            account,
            is_suppressed,
            max_messages,
            rows: 0,
            recipients: 0,
            skipped: BTreeMap::new(),
            problems: Vec::new(),
            unparsed: Vec::new(),
            messages: Vec::new(),
            price: Price::default(),
            unpriced: 0,
            values: ValueWarnings::new(prepared),
        }
    }

    fn add_skipped(&mut self, line: SkippedRow) {
        if line.reason == SkipReason::InvalidNumber && self.unparsed.len() < MAX_UNPARSED {
            self.unparsed.push(line.recipient.clone());
        }
        *self.skipped.entry(line.reason.as_str()).or_default() += 1;
        if self.problems.len() < MAX_PROBLEMS {
            let SkippedRow { row, reason, detail, recipient, .. } = line;
            self.problems.push(RowProblem { row, reason, detail, recipient });
        }
    }

    fn add_batch(&mut self, batch: &Batch) {
        self.values.see(batch);
        for recipient in batch.recipients() {
            if (self.is_suppressed)(recipient.phone) {
                let (row, recipient) = (recipient.row, recipient.phone.to_string());
                let (reason, detail) = (SkipReason::Suppressed, "on the suppression list".into());
                self.add_skipped(SkippedRow { row, recipient, reason, detail });
                continue;
            }
            self.recipients += 1;
            match self.account.prices.as_ref().map(|list| list.for_phone(recipient.phone)) {
                Some(Some(one)) => self.price += one,
                Some(None) => self.unpriced += 1,
                None => {}
            }
            if self.messages.len() < self.max_messages {
                self.messages.extend(rendered(self.prepared, &recipient));
            }
        }
    }

    fn audience_notes(&self) -> Vec<Note> {
        let prepared = self.prepared;
        let notes = prepared.scan.notes(prepared.settings.hidden_rows);
        let mut notes: Vec<Note> = notes.into_iter().map(Note::Audience).collect();
        if !prepared.other_phone_columns.is_empty() {
            let others = prepared.other_phone_columns.iter().map(String::as_str);
            notes.push(Note::Audience(format!(
                "the phone numbers are read from the column {:?}, not from {}; set \"phone\" to use another column",
                prepared.phone_column,
                listed(others)
            )));
        }
        notes
    }

    fn warnings(&self) -> Vec<Warning> {
        let job = &self.prepared.job;
        let problems = job_warnings(job)
            .into_iter()
            .chain(warnings(&job.message))
            .chain(placeholders(job, &self.prepared.columns))
            .chain(self.values.found());
        problems.map(|found| Warning { pointer: found.pointer, detail: found.message }).collect()
    }

    fn forecast(&self) -> ForecastView {
        let prepared = self.prepared;
        let forecast =
            forecast(self.recipients, prepared.batch_size, prepared.job.limits.messages, self.account);
        ForecastView {
            requests: forecast.requests,
            duration_s: forecast.duration.as_secs_f64().ceil(),
            duration: forecast.duration,
            price: self.account.prices.as_ref().map(|list| PriceView {
                amount: self.price.to_string(),
                value: self.price.value(),
                currency: list.currency.clone(),
                unpriced: self.unpriced,
            }),
        }
    }
}

/// Plans the whole campaign without sending, and renders the first `shown` messages.
///
/// Recipients for whom `is_suppressed` is true count as skipped, as they will be when the campaign is sent.
///
/// # Errors
///
/// When the audience cannot be read to its end.
pub fn check(
    prepared: &LoadedJob,
    account: &Account,
    is_suppressed: &dyn Fn(Phone) -> bool,
    shown: usize,
) -> Result<Checked, DispatchError> {
    let job = &prepared.job;
    let id = job.id.clone().map_or_else(|| "check".parse::<CampaignId>(), Ok);
    let id = id.map_err(|error| DispatchError::Task(error.to_string()))?;
    let mut planner = Planner::new(prepared, id, prepared.batch_size, &CancellationToken::new())?;
    let mut findings = Findings::new(prepared, account, is_suppressed, shown);
    while let Some(step) = planner.next_batch()? {
        findings.rows = step.checkpoint.rows;
        step.skipped.into_iter().for_each(|line| findings.add_skipped(line));
        if let Some(batch) = step.batch {
            findings.add_batch(&batch);
        }
    }
    let invalid = findings.skipped.get(SkipReason::InvalidNumber.as_str()).copied().unwrap_or_default();
    let region = suggest_region(prepared, &findings.unparsed, invalid, findings.recipients);
    let mut notes = findings.audience_notes();
    let suggested_region = region.map(|(region, note)| {
        notes.push(note);
        region
    });
    Ok(Checked {
        id: job.id.as_ref().map(ToString::to_string),
        notes,
        columns: column_views(&prepared.columns),
        phone_column: prepared.phone_column.clone(),
        suggested_region,
        rows: findings.rows,
        recipients: findings.recipients,
        warnings: findings.warnings(),
        forecast: findings.forecast(),
        skipped: findings.skipped,
        problems: findings.problems,
        messages: findings.messages,
    })
}

/// Renders the message of a recipient.
fn rendered(prepared: &LoadedJob, recipient: &Recipient<'_>) -> Option<Rendered> {
    let mut bytes = Vec::new();
    prepared.template.render(recipient, &mut bytes).ok()?;
    let message: Value = serde_json::from_slice(&bytes).ok()?;
    let (row, content) = (recipient.row, message["content"].clone());
    Some(Rendered { row, recipient: recipient.phone.to_string(), content })
}

/// Returns the message of the first row that is not skipped.
///
/// # Errors
///
/// If the audience cannot be read up to that row.
pub fn first_message(prepared: &LoadedJob, id: CampaignId) -> Result<Option<Rendered>, DispatchError> {
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
    fn an_expired_job_and_a_private_callback_url_are_warned_about() {
        let places = |schedule: Value, callback: &str| -> Vec<String> {
            let job = json!({
                "version": 1, "account": "main", "from": "+912248931479", "schedule": schedule,
                "status_callback": callback,
                "audience": { "recipients": [{ "phone": "+919876543210" }] },
                "message": { "type": "text", "text": { "body": "x" } },
            });
            let job = Job::read(job.to_string().as_bytes()).unwrap();
            job_warnings(&job).into_iter().map(|problem| problem.pointer).collect()
        };
        let passed = json!({ "expires_at": "2020-01-01T00:00:00Z" });
        assert_eq!(places(passed, "https://example.com/x"), ["/schedule/expires_at"]);
        for inside in ["http://10.0.0.1/x", "http://[::1]/x", "https://user@example.com/x"] {
            assert_eq!(places(json!({}), inside), ["/status_callback"], "{inside}");
        }
        assert_eq!(places(json!({}), "https://example.com/x"), [""; 0]);
    }
}
