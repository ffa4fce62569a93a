//! A draft: an unfinished job, and what is known of its audience. A draft is never sent: sending submits a job made from it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::super::access::Caller;
use super::super::super::api::extract::finish;
use super::super::super::problem::Problem;
use super::super::Dashboard;
use super::super::skipped::SkippedExample;
use crate::campaign::{Job, PhoneParser};
use crate::ledger::{CampaignDrafts, LARGEST_DRAFT, MOST_DRAFTS};

/// Maximum length of the name's part of a campaign ID, in characters.
const SLUG: usize = 40;
/// Maximum number of tests in a draft.
const TESTS: usize = 10;

/// A default country that would make unreadable numbers valid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Suggestion {
    /// ISO 3166 code of two letters.
    pub(super) region: String,
    /// Number of phone numbers that would be valid.
    pub(super) valid: usize,
    /// Number of phone numbers that were tried.
    pub(super) tried: usize,
    /// Whether the numbers begin with the country's calling code and only lack the `+`.
    pub(super) is_certain: bool,
}

/// A draft, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CampaignDraft {
    /// Key of the draft.
    #[serde(skip)]
    pub(super) id: String,
    /// Name of the person who changed it last.
    pub(super) by: String,
    /// Time of the last change.
    pub(super) updated_at: Timestamp,
    /// The unfinished job.
    pub(super) job: Value,
    /// Messages of other kinds that were typed before, by kind; for JSON its text.
    #[serde(default)]
    pub(super) other_messages: BTreeMap<String, Value>,
    /// Columns of the audience.
    pub(super) columns: Vec<String>,
    /// Number of rows.
    pub(super) rows: u64,
    /// Number of recipients.
    pub(super) people: u64,
    /// Number of skipped rows, by code of the reason.
    pub(super) skipped: BTreeMap<String, u64>,
    /// The first skipped rows.
    #[serde(default)]
    pub(super) skipped_examples: Vec<SkippedExample>,
    /// Notes on the audience, for the person.
    #[serde(default)]
    pub(super) notes: Vec<String>,
    /// The default country that would make most unreadable numbers valid.
    #[serde(default)]
    pub(super) suggestion: Option<Suggestion>,
    /// Phone column.
    #[serde(default)]
    pub(super) phone_column: String,
    /// Whether the default country was assumed and not confirmed yet.
    #[serde(default)]
    pub(super) is_assumed: bool,
    /// Sample rows, as recipients of a job, with the number as `phone`.
    pub(super) sample: Vec<Map<String, Value>>,
    /// Whether the audience was read with the current settings.
    pub(super) is_read: bool,
    /// Time zone of the schedule's times.
    pub(super) zone: String,
    /// Campaign IDs of its tests, the newest first.
    pub(super) tests: Vec<String>,
}

impl CampaignDraft {
    /// Begins a draft of a campaign with a name and an audience.
    pub(super) fn new(by: &str, name: &str, path: &str) -> Self {
        let id = Uuid::now_v7().simple().to_string();
        let job = json!({ "version": 1, "id": campaign_id(name, &id), "name": name,
            "audience": { "csv": { "path": path } } });
        Self {
            id,
            by: by.into(),
            updated_at: Timestamp::now(),
            job,
            other_messages: BTreeMap::new(),
            columns: Vec::new(),
            rows: 0,
            people: 0,
            skipped: BTreeMap::new(),
            skipped_examples: Vec::new(),
            notes: Vec::new(),
            suggestion: None,
            is_assumed: false,
            phone_column: String::new(),
            sample: Vec::new(),
            is_read: false,
            zone: String::new(),
            tests: Vec::new(),
        }
    }

    /// Parses a stored draft. Returns `None` for the format of another version.
    pub(super) fn read(id: &str, json: &str) -> Option<Self> {
        let draft: Self = serde_json::from_str(json).ok()?;
        Some(Self { id: id.to_owned(), ..draft })
    }

    /// Reads the draft of an address.
    pub(super) async fn find(dashboard: &Dashboard, id: &str) -> Result<Self, Problem> {
        let none = || Problem::not_found("this draft was already sent or deleted");
        if id.len() > 40 {
            return Err(none());
        }
        let json = dashboard.api.ledger()?.draft(id).await?;
        json.and_then(|json| Self::read(id, &json)).ok_or_else(none)
    }

    /// Stores the draft, with the person as its last editor.
    pub(super) async fn keep(&mut self, dashboard: &Dashboard, who: &Caller) -> Result<(), Problem> {
        self.updated_at = Timestamp::now();
        who.name.as_ref().clone_into(&mut self.by);
        let too_large = |detail: &str| Problem::new(axum::http::StatusCode::PAYLOAD_TOO_LARGE, detail);
        let mut json = serde_json::to_string(self).unwrap_or_default();
        if json.len() > LARGEST_DRAFT {
            // Sample rows with very long values are dropped: the pages work without them.
            self.sample.truncate(1);
            json = serde_json::to_string(self).unwrap_or_default();
        }
        if json.len() > LARGEST_DRAFT {
            return Err(too_large("the draft is larger than 64 kB; submit such a job through the API"));
        }
        let (ledger, id) = (dashboard.api.ledger()?.clone(), self.id.clone());
        finish(async move {
            let known = ledger.draft_names().await?;
            if known.len() >= MOST_DRAFTS && !known.contains(&id) {
                return Err(Problem::new(
                    axum::http::StatusCode::CONFLICT,
                    "there are too many drafts; delete some that are no longer needed",
                ));
            }
            ledger.keep_draft(&id, json).await?;
            Ok(())
        })
        .await
    }

    /// Returns the campaign's name.
    pub(super) fn name(&self) -> &str {
        self.text("/name")
    }

    /// Returns a text of the job; empty if it is missing.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.job.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Replaces the audience's file. A default country that a person has confirmed stays; one that was assumed from the numbers
    /// of the old file does not.
    pub(super) fn use_file(&mut self, path: &str) {
        let mut csv = json!({ "path": path });
        if let Some(region) = self.job.pointer("/audience/csv/default_region").filter(|_| !self.is_assumed) {
            csv["default_region"] = region.clone();
        }
        self.job["audience"] = json!({ "csv": csv });
        (self.columns, self.is_read, self.is_assumed) = (Vec::new(), false, false);
    }

    /// Returns the country of a typed number without a country code: the audience's, else the sender's.
    pub(super) fn region(&self) -> Option<String> {
        let own = self.text("/audience/csv/default_region");
        let sender = || self.text("/from").parse().ok().and_then(PhoneParser::region);
        if own.is_empty() { sender() } else { Some(own.to_owned()) }
    }

    /// Sets or removes a field of the job.
    pub(super) fn set(&mut self, field: &str, value: Option<Value>) {
        let Some(job) = self.job.as_object_mut() else { return };
        match value {
            Some(value) => job.insert(field.into(), value),
            None => job.shift_remove(field),
        };
    }

    /// Returns the first unfinished step.
    pub(super) fn next_step(&self) -> &'static str {
        if !self.is_read || self.people == 0 {
            "audience"
        } else if self.job.get("message").is_none() || self.job.get("from").is_none() {
            "message"
        } else {
            "check"
        }
    }

    /// Validates the draft as a job.
    pub(super) fn whole(&self) -> Result<Job, Problem> {
        Ok(Job::read(self.job.to_string().as_bytes())?)
    }

    /// Returns a job with the same message for other recipients: sample rows, or the person's own number. It has no schedule.
    pub(super) fn to(&self, recipients: &[Map<String, Value>], id: &str, name: &str) -> Result<Job, Problem> {
        let mut job = self.job.clone();
        job["audience"] = json!({ "recipients": recipients });
        job["id"] = id.into();
        job["name"] = name.into();
        if let Some(job) = job.as_object_mut() {
            for field in ["schedule", "stop_when", "limits"] {
                job.shift_remove(field);
            }
        }
        Ok(Job::read(job.to_string().as_bytes())?)
    }

    /// Records a test.
    pub(super) fn tested(&mut self, id: &str) {
        self.tests.insert(0, id.to_owned());
        self.tests.truncate(TESTS);
    }
}

/// Returns a recognisable campaign ID.
///
/// It has the ASCII letters of the name, and the end of the draft's key.
fn campaign_id(name: &str, draft: &str) -> String {
    let mut slug = String::new();
    for c in name.to_lowercase().chars().filter(|c| c.is_ascii() || c.is_alphanumeric()) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if c.is_ascii() && !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
        if slug.len() >= SLUG {
            break;
        }
    }
    let slug = slug.trim_matches('-');
    let own = &draft[draft.len().saturating_sub(6)..];
    if slug.is_empty() { format!("campaign-{own}") } else { format!("{slug}-{own}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::CampaignId;

    #[test]
    fn a_campaign_id_resembles_the_name() {
        for (name, id) in [
            ("Diwali appointments", "diwali-appointments-abcdef"),
            ("दीवाली", "campaign-abcdef"),
            ("  <b> & ..", "b-abcdef"),
        ] {
            let made = campaign_id(name, "0123456789abcdef");
            assert_eq!(made, id);
            assert!(made.parse::<CampaignId>().is_ok());
        }
        assert!(campaign_id(&"long ".repeat(100), "0123456789abcdef").len() <= SLUG + 7);
    }
}
