//! A draft: a job that somebody still works on, and what is known of its audience.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::super::access::Who;
use super::super::super::api::extract::finish;
use super::super::super::problem::Problem;
use super::super::Dashboard;
use crate::campaign::Job;
use crate::ledger::{CampaignDrafts, LARGEST_DRAFT, MOST_DRAFTS};

/// How many characters of a campaign's name its id has.
const SLUG: usize = 40;
/// The most tests that are remembered.
const TESTS: usize = 10;

/// A country in which unreadable numbers would be valid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Suggestion {
    /// The two letters of ISO 3166.
    pub(super) region: String,
    /// How many numbers would be valid, of how many that were tried.
    pub(super) valid: usize,
    pub(super) tried: usize,
    /// Whether they begin with the country's calling code and only lack the `+`.
    pub(super) is_certain: bool,
}

/// A draft.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Draft {
    /// Its name among the drafts.
    #[serde(skip)]
    pub(super) id: String,
    /// Who began it.
    pub(super) by: String,
    /// When it was last changed.
    pub(super) updated_at: Timestamp,
    /// The job so far.
    pub(super) job: Value,
    /// What was typed for messages of other kinds, by kind; of what is written by hand its text.
    #[serde(default)]
    pub(super) other_messages: BTreeMap<String, Value>,
    /// The audience's columns.
    pub(super) columns: Vec<String>,
    /// How many rows it has, and how many people that are.
    pub(super) rows: u64,
    pub(super) people: u64,
    /// Why rows are no people: how many of each reason, and the first of them.
    pub(super) skipped: BTreeMap<String, u64>,
    pub(super) problems: Vec<(u64, String, String)>,
    /// What was found of it that its owner should know.
    #[serde(default)]
    pub(super) notes: Vec<String>,
    /// The country in which most unreadable numbers would be valid.
    #[serde(default)]
    pub(super) suggestion: Option<Suggestion>,
    /// The column that the numbers are taken from.
    #[serde(default)]
    pub(super) phone_column: String,
    /// Whether the default country was chosen here, and by nobody yet.
    #[serde(default)]
    pub(super) is_assumed: bool,
    /// Some rows, as recipients of a job, with the number as `phone`.
    pub(super) sample: Vec<Map<String, Value>>,
    /// Whether the audience can be read as it is.
    pub(super) is_read: bool,
    /// The zone in which its times are typed.
    pub(super) zone: String,
    /// The campaigns that were tests of it.
    pub(super) tests: Vec<String>,
}

impl Draft {
    /// A draft of a campaign with a name and an audience.
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
            problems: Vec::new(),
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

    /// A draft as it is kept; `None` where another version kept something else.
    pub(super) fn read(id: &str, json: &str) -> Option<Self> {
        let draft: Self = serde_json::from_str(json).ok()?;
        Some(Self { id: id.to_owned(), ..draft })
    }

    /// The draft that an address names.
    pub(super) async fn find(dashboard: &Dashboard, id: &str) -> Result<Self, Problem> {
        let none = || Problem::not_found("this draft was already sent or deleted");
        if id.len() > 40 {
            return Err(none());
        }
        let json = dashboard.api.ledger()?.draft(id).await?;
        json.and_then(|json| Self::read(id, &json)).ok_or_else(none)
    }

    /// Keeps it as it is now.
    pub(super) async fn keep(&mut self, dashboard: &Dashboard, who: &Who) -> Result<(), Problem> {
        self.updated_at = Timestamp::now();
        who.name.as_ref().clone_into(&mut self.by);
        let too_large = |detail: &str| Problem::new(axum::http::StatusCode::PAYLOAD_TOO_LARGE, detail);
        let mut json = serde_json::to_string(self).unwrap_or_default();
        if json.len() > LARGEST_DRAFT {
            // Rows with very long values: the pages do without.
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

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        self.text("/name")
    }

    /// A text of the job; empty where there is none.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.job.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets a field of the job, or takes it away.
    pub(super) fn set(&mut self, field: &str, value: Option<Value>) {
        let Some(job) = self.job.as_object_mut() else { return };
        match value {
            Some(value) => job.insert(field.into(), value),
            None => job.shift_remove(field),
        };
    }

    /// The step that is to be done next.
    pub(super) fn next_step(&self) -> &'static str {
        if !self.is_read || self.people == 0 {
            "audience"
        } else if self.job.get("message").is_none() || self.job.get("from").is_none() {
            "message"
        } else {
            "check"
        }
    }

    /// The job as it is, or what is wrong with it.
    pub(super) fn whole(&self) -> Result<Job, Problem> {
        Ok(Job::read(self.job.to_string().as_bytes())?)
    }

    /// The same message to other people: some rows, or one's own number with the values of the first row.
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

    /// Remembers a test.
    pub(super) fn tested(&mut self, id: &str) {
        self.tests.insert(0, id.to_owned());
        self.tests.truncate(TESTS);
    }
}

/// An id that people recognise: the name's plain letters, and some of the draft's.
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
    fn a_campaign_has_an_id_that_people_recognise() {
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
