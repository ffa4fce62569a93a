//! What the pages show of a campaign's job. A job never changes, so it is read once and cached.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::super::problem::Problem;
use super::captions::without_markup;
use super::phone::phone;
use crate::campaign::rules::is_template;
use crate::campaign::{CampaignId, Job, Rate, counted, visible_lines};
use crate::dispatch::Accounts;
use crate::ledger::{AnyLedger, Campaign, Campaigns};
use crate::views::check::Rendered;

/// Maximum number of campaigns in the cache.
const CACHE_SIZE: usize = 2000;
/// Maximum length of a job that is shown, in bytes.
const MAX_JOB_BYTES: usize = 20_000;

/// The facts of a job that pages show.
#[derive(Clone, Debug, Serialize)]
pub(super) struct JobFacts {
    /// Sender number.
    pub(super) from: String,
    /// Source of the audience: a path, a URL, or a count of recipients in the job.
    audience: String,
    /// Path of the audience file, if it was uploaded.
    #[serde(skip)]
    pub(super) file: Option<String>,
    /// The campaign's own limit, as text.
    limit: Option<String>,
    /// The campaign's own limit.
    #[serde(skip)]
    own: Option<Rate>,
    /// Time zone of the sending hours.
    pub(super) zone: Option<String>,
    /// Job document without its list of recipients.
    job: String,
    /// HTML of the message on a phone, with its placeholders.
    #[serde(skip)]
    pub(super) phone: String,
    /// Whether the message has placeholders.
    #[serde(skip)]
    pub(super) has_placeholders: bool,
    /// Message of the first recipient, once the audience has been read; `None` if the audience has changed since.
    #[serde(skip)]
    pub(super) first: OnceCell<Option<Rendered>>,
    /// The recipient, if the job itself lists a single one, as a test does.
    pub(super) only_recipient: Option<String>,
}

impl JobFacts {
    fn parse(text: &str) -> Option<Self> {
        let job = Job::read(text.as_bytes()).ok()?;
        let mut document = job.document.clone();
        let text = |pointer: &str| job.document.pointer(pointer)?.as_str().map(str::to_owned);
        let recipients = job.document.pointer("/audience/recipients").and_then(Value::as_array);
        let audience = match recipients {
            Some(list) => format!("{} in the job itself", counted(list.len() as u64, "recipient")),
            None => text("/audience/csv/path").or_else(|| text("/audience/csv/url")).unwrap_or_default(),
        };
        if let Some(list) = document.pointer_mut("/audience/recipients") {
            *list = Value::from("…");
        }
        let mut shown =
            visible_lines(&serde_json::to_string_pretty(&document).unwrap_or_default()).into_owned();
        if shown.len() > MAX_JOB_BYTES {
            shown = "too long to be shown here".into();
        }
        Some(Self {
            from: job.from.to_string(),
            file: text("/audience/csv/path"),
            audience: without_markup(&audience),
            limit: job.limits.messages.map(|rate| rate.to_string()),
            own: job.limits.messages,
            zone: text("/schedule/window/timezone"),
            job: shown,
            phone: phone(&job.document["message"]),
            has_placeholders: is_template(&job.document["message"].to_string()),
            first: OnceCell::new(),
            only_recipient: recipients.and_then(|list| match list.as_slice() {
                [only] => only["phone"].as_str().map(without_markup),
                _ => None,
            }),
        })
    }

    /// Returns the campaign's or its account's limit, the lower one, per second.
    pub(super) fn most(&self, campaign: &Campaign, accounts: &Accounts) -> Option<f64> {
        let account = accounts.get(&campaign.account).ok();
        let theirs = account.and_then(|account| account.limits.rates().messages);
        [self.own, theirs].into_iter().flatten().map(Rate::per_second).reduce(f64::min)
    }
}

/// Cache of the facts of recently viewed campaigns.
#[derive(Default)]
pub(super) struct JobCache(Mutex<HashMap<CampaignId, Arc<JobFacts>>>);

impl JobCache {
    /// Returns a campaign's facts.
    pub(super) async fn for_campaign(
        &self,
        ledger: &AnyLedger,
        id: &CampaignId,
    ) -> Result<Arc<JobFacts>, Problem> {
        if let Some(known) = self.0.lock().get(id) {
            return Ok(known.clone());
        }
        let stored = ledger.job(id).await?;
        let unread = || Problem::not_found("the campaign's job can't be read");
        let facts = Arc::new(JobFacts::parse(&stored.job).ok_or_else(unread)?);
        let mut known = self.0.lock();
        if known.len() >= CACHE_SIZE {
            known.clear();
        }
        known.insert(id.clone(), facts.clone());
        Ok(facts)
    }
}
