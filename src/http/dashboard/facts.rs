//! What a campaign's job says of it. A job never changes, so it is read once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::super::problem::Problem;
use super::phone::phone;
use super::words::plain;
use crate::campaign::rules::is_template;
use crate::campaign::{CampaignId, Job, Rate, counted, visible_lines};
use crate::dispatch::Accounts;
use crate::ledger::{AnyLedger, Campaign, Campaigns};
use crate::views::check::Rendered;

/// How many campaigns are known at once.
const MOST: usize = 2000;
/// The longest job that is shown, in bytes.
const SHOWN: usize = 20_000;

/// What a page needs of a job.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Facts {
    /// The number that it is sent from.
    pub(super) from: String,
    /// Where its people come from.
    audience: String,
    /// The path of the uploaded file that it is, if it is one.
    #[serde(skip)]
    pub(super) file: Option<String>,
    /// The campaign's own limit.
    limit: Option<String>,
    #[serde(skip)]
    own: Option<Rate>,
    /// The zone of its clock.
    pub(super) zone: Option<String>,
    /// The document, without its list of recipients.
    job: String,
    /// The message as a phone shows it, with its placeholders, and whether it has any.
    #[serde(skip)]
    pub(super) phone: String,
    #[serde(skip)]
    pub(super) has_placeholders: bool,
    /// The message of the first recipient, once the audience was read for it; nothing where it is another one by now.
    #[serde(skip)]
    pub(super) first: OnceCell<Option<Rendered>>,
    /// The number that it goes to, where there is one alone in the job itself, as in a test.
    pub(super) only_recipient: Option<String>,
}

impl Facts {
    fn of(text: &str) -> Option<Self> {
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
        if shown.len() > SHOWN {
            shown = "too long to be shown here".into();
        }
        Some(Self {
            from: job.from.to_string(),
            file: text("/audience/csv/path"),
            audience: plain(&audience),
            limit: job.limits.messages.map(|rate| rate.to_string()),
            own: job.limits.messages,
            zone: text("/schedule/window/timezone"),
            job: shown,
            phone: phone(&job.document["message"]),
            has_placeholders: is_template(&job.document["message"].to_string()),
            first: OnceCell::new(),
            only_recipient: recipients.and_then(|list| match list.as_slice() {
                [only] => only["phone"].as_str().map(plain),
                _ => None,
            }),
        })
    }

    /// How many messages a second may go out at most, by the campaign's limit and its account's.
    pub(super) fn most(&self, campaign: &Campaign, accounts: &Accounts) -> Option<f64> {
        let account = accounts.get(&campaign.account).ok();
        let theirs = account.and_then(|account| account.limits.rates().messages);
        [self.own, theirs].into_iter().flatten().map(Rate::per_second).reduce(f64::min)
    }
}

/// The facts of the campaigns that were looked at of late.
#[derive(Default)]
pub(super) struct KnownFacts(Mutex<HashMap<CampaignId, Arc<Facts>>>);

impl KnownFacts {
    /// A campaign's facts.
    pub(super) async fn of(&self, ledger: &AnyLedger, id: &CampaignId) -> Result<Arc<Facts>, Problem> {
        if let Some(known) = self.0.lock().get(id) {
            return Ok(known.clone());
        }
        let stored = ledger.job(id).await?;
        let unread = || Problem::not_found("the campaign's job can't be read");
        let facts = Arc::new(Facts::of(&stored.job).ok_or_else(unread)?);
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(id.clone(), facts.clone());
        Ok(facts)
    }
}
