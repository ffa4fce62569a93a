//! Reports of providers: from an address that proves itself into the ledger, and then to whoever wants to
//! know. A provider is answered when the ledger has its report, and not before.
//!
//! Nothing here sends a message, and nothing that is not sealed by one of our keys changes anything.

mod collector;
mod forward;
mod http;
mod stop_words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::Value;

use crate::campaign::delivery::{News, Report};
use crate::campaign::{CampaignId, Job, MessageRef, Phone, Subject};
use crate::dispatch::{Accounts, Events};
use crate::ledger::{Heard, Ledger, LedgerError, Suppress};
use collector::Collector;
pub use forward::Forward;
pub use http::{Slot, router};
pub use stop_words::StopWords;

/// Takes reports in.
#[derive(Clone)]
pub struct Reports<L: Ledger> {
    ledger: L,
    accounts: Accounts,
    events: Events,
    collector: Collector,
    forward: Forward,
    stop_words: Arc<StopWords>,
    /// Where the reports of a campaign are handed on to, as its job says.
    wanted: Arc<Mutex<HashMap<CampaignId, Option<String>>>>,
}

/// How many campaigns' addresses are remembered.
const REMEMBERED: usize = 1000;

/// What became of a callback.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The ledger has it.
    Done,
    /// The provider looks whether somebody is there; it wants this back.
    Challenge(String),
    /// The address is not one of ours.
    Unknown,
    /// The body is no JSON.
    Unreadable,
}

impl<L: Ledger> Reports<L> {
    /// Takes reports in for a ledger, of these accounts.
    pub fn new(ledger: &L, accounts: &Accounts, events: &Events, forward: Forward, words: StopWords) -> Self {
        Self {
            ledger: ledger.clone(),
            accounts: accounts.clone(),
            events: events.clone(),
            collector: Collector::start(ledger.clone()),
            forward,
            stop_words: Arc::new(words),
            wanted: Arc::default(),
        }
    }

    /// Whether an address is one of ours.
    pub fn knows(&self, account: &str, capability: &str) -> bool {
        self.subject(account, capability).is_some()
    }

    fn subject(&self, account: &str, capability: &str) -> Option<Subject> {
        self.accounts.get(account).ok()?.callbacks.as_ref()?.open(capability)
    }

    /// Takes in the body of a callback to an account and a capability.
    ///
    /// # Errors
    ///
    /// When the ledger can't be written: the provider is to come again.
    pub async fn take(&self, account: &str, capability: &str, body: &[u8]) -> Result<Taken, LedgerError> {
        let Some(subject) = self.subject(account, capability) else {
            metrics::counter!("flowcast_callbacks_total", "result" => "forged").increment(1);
            return Ok(Taken::Unknown);
        };
        let Ok(json) = serde_json::from_slice::<Value>(body) else {
            metrics::counter!("flowcast_callbacks_total", "result" => "unreadable").increment(1);
            return Ok(Taken::Unreadable);
        };
        if json["type"] == "verification"
            && let Some(challenge) = json["challenge"].as_str()
        {
            return Ok(Taken::Challenge(challenge.into()));
        }
        let Ok(known) = self.accounts.get(account) else { return Ok(Taken::Unknown) };
        let reports = known.provider.reports(&json);
        if reports.is_empty() {
            tracing::debug!("a callback of account {account} reports nothing that is known");
            metrics::counter!("flowcast_callbacks_total", "result" => "nothing").increment(1);
            return Ok(Taken::Done);
        }
        let mut concerned: Vec<Option<CampaignId>> = Vec::new();
        let all =
            futures_util::future::try_join_all(reports.iter().map(|report| self.learn(&subject, report)));
        for message in all.await? {
            concerned.push(message.map(|message| message.campaign));
        }
        self.hand_on(&concerned, body).await;
        Ok(Taken::Done)
    }

    /// Takes in one report. Returns the message that it is about, if there is one.
    async fn learn(&self, subject: &Subject, report: &Report) -> Result<Option<MessageRef>, LedgerError> {
        // An address of one message speaks of that message alone, whatever the body says.
        let message = match subject {
            Subject::Message(message) => Some(message.clone()),
            Subject::Account => report.message.clone(),
        };
        let now = Timestamp::now().as_millisecond();
        let learnt = match &message {
            Some(message) => {
                let heard = Heard {
                    message: message.index,
                    recipient: report.recipient,
                    sid: report.sid.clone(),
                    // A clock that runs ahead makes no report of tomorrow.
                    at: report.at.unwrap_or(now).clamp(1, now),
                    news: report.news.clone(),
                };
                self.collector.hear(message.campaign.clone(), message.batch, heard).await?
            }
            None => None,
        };
        // Who says STOP is never written to again, whether or not it is known what they answered.
        let person = learnt.as_ref().map(|learnt| learnt.recipient);
        let person = person.or(report.recipient.filter(|_| *subject == Subject::Account));
        if let (Some(person), News::Reply(reply)) = (person, &report.news)
            && self.stop_words.is_one(&reply.content)
        {
            self.stop(person, message.as_ref()).await?;
        }
        let Some(learnt) = learnt else {
            metrics::counter!("flowcast_callbacks_total", "result" => "unmatched").increment(1);
            return Ok(None);
        };
        metrics::counter!("flowcast_callbacks_total", "result" => "taken").increment(1);
        if let Some(message) = message.as_ref().filter(|_| learnt.is_news) {
            let at = report.at.unwrap_or(now);
            let (events, told) = (self.events.clone(), Events::news(message, &learnt, &report.news, at));
            // The ledger has it; a broker that is slow must not keep the provider.
            tokio::spawn(async move { events.tell(&told).await });
        }
        Ok(message)
    }

    async fn stop(&self, person: Phone, message: Option<&MessageRef>) -> Result<(), LedgerError> {
        if self.ledger.suppress(vec![person], Suppress::Add).await? > 0 {
            tracing::info!("somebody has answered with a stop word and is never written to again");
            metrics::counter!("flowcast_suppressed_total").increment(1);
            let (events, told) = (self.events.clone(), Events::suppressed(person, message));
            tokio::spawn(async move { events.tell(&[told]).await });
        }
        Ok(())
    }

    /// Hands a body on to the address that its campaign's job names. A body that concerns several
    /// addresses goes to none of them: it would tell one of the other's recipients.
    async fn hand_on(&self, concerned: &[Option<CampaignId>], body: &[u8]) {
        let mut address: Option<String> = None;
        for campaign in concerned {
            let wanted = match campaign {
                Some(campaign) => self.wanted(campaign).await,
                None => None,
            };
            match (wanted, &address) {
                (Some(url), None) if campaign == &concerned[0] => address = Some(url),
                (Some(url), Some(known)) if url == *known => {}
                (None, None) => {}
                _ => return,
            }
        }
        if let Some(url) = address {
            self.forward.send(url, body.to_vec());
        }
    }

    /// Where a campaign's reports are handed on to.
    async fn wanted(&self, campaign: &CampaignId) -> Option<String> {
        let known = || self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wanted) = known().get(campaign) {
            return wanted.clone();
        }
        let stored = self.ledger.job(campaign).await.ok()?;
        let wanted = Job::read(stored.job.as_bytes()).ok()?.status_callback;
        let mut known = known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(campaign.clone(), wanted.clone());
        wanted
    }
}
