//! Receives callbacks: writes delivery reports and replies to the ledger, then publishes and forwards them.
//!
//! A provider gets a response only after the ledger has its report. Nothing here ever sends a message, and a request to a URL
//! that is not sealed with one of our keys never changes anything.

mod campaign_facts;
mod collector;
mod http;
mod keys;
mod matching;
mod opt_out;
mod publisher;
mod stop_words;

use std::{collections::HashMap, sync::Arc, time::Instant};

use axum::http::HeaderMap;
use parking_lot::Mutex;
use serde_json::Value;

use crate::campaign::codes::{self, Effect};
use crate::campaign::delivery::{Delivery, DeliveryReport, DeliveryUpdate};
use crate::campaign::{CampaignId, MessageRef, Subject, notice::Notice, rules::is_template};
use crate::dispatch::{Account, Accounts, Events, OfJob};
use crate::forward::Forward;
use crate::ledger::{Breaker, Ledger, LedgerError, MessageReport, ReportEffect, transitions};
use crate::queue::QueueError;
use campaign_facts::CampaignFacts;
use collector::Collector;
pub use http::{Slot, router};
use keys::report_keys;
use publisher::EventPublisher;
pub use stop_words::StopWords;

/// Receives callbacks for a ledger.
#[derive(Clone)]
pub struct Reports<L: Ledger> {
    ledger: L,
    accounts: Accounts,
    publisher: EventPublisher,
    collector: Collector,
    forward: Forward,
    stop_words: Arc<StopWords>,
    /// Whether other workers have keys that this one lacks, and when that was checked.
    others_keys: Arc<tokio::sync::Mutex<Option<(Instant, bool)>>>,
    /// Allows one search for a SID at a time.
    sid_searches: Arc<tokio::sync::Mutex<()>>,
    /// The cached facts of campaigns' jobs.
    known: Arc<Mutex<HashMap<CampaignId, CampaignFacts>>>,
}

/// A callback URL that is sealed with one of our keys.
pub struct CallbackAddress {
    name: String,
    account: Arc<Account>,
    subject: Subject,
}

/// The result of a callback.
#[derive(Debug, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// The ledger has the callback's reports.
    Done,
    /// The provider verifies the URL and expects this text as the response.
    Challenge(String),
    /// The body is not valid JSON.
    Unreadable,
}

/// The reason why a callback cannot be stored now.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The broker did not accept an event or a body to forward.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl<L: Ledger> Reports<L> {
    /// Starts receiving callbacks of these accounts.
    pub fn new(ledger: &L, accounts: &Accounts, events: &Events, forward: Forward, words: StopWords) -> Self {
        let reports = Self {
            others_keys: Arc::default(),
            ledger: ledger.clone(),
            accounts: accounts.clone(),
            publisher: EventPublisher::start(events),
            collector: Collector::start(ledger.clone()),
            forward,
            stop_words: Arc::new(words),
            sid_searches: Arc::default(),
            known: Arc::default(),
        };
        tokio::spawn(report_keys(ledger.clone(), accounts.clone(), Arc::downgrade(&reports.known)));
        reports
    }

    /// Returns the address of a callback URL, if it is sealed with one of our keys. No body is read before this.
    pub fn open(&self, account: &str, capability: &str) -> Option<CallbackAddress> {
        let known = self.accounts.get(account).ok()?;
        let subject = known.callbacks.as_ref()?.open(capability)?;
        Some(CallbackAddress { name: account.into(), account: known, subject })
    }

    /// Counts a callback to an unknown URL. Returns whether the provider should repeat it.
    pub async fn refuse(&self) -> bool {
        let comes_again = self.others_may_have_key().await;
        let result = if comes_again { "unknown_key" } else { "forged" };
        metrics::counter!("flowcast_callbacks_total", "result" => result).increment(1);
        comes_again
    }

    /// Returns whether a callback came from its provider, as far as that can be verified.
    pub fn proves(&self, address: &CallbackAddress, headers: &HeaderMap, body: &[u8]) -> bool {
        let is_own = address.account.provider.proves(headers, body);
        if !is_own {
            metrics::counter!("flowcast_callbacks_total", "result" => "forged").increment(1);
        }
        is_own
    }

    /// Processes the body of a callback.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be stored now: the provider should repeat it.
    pub async fn receive(
        &self,
        address: &CallbackAddress,
        body: &[u8],
    ) -> Result<CallbackOutcome, CallbackError> {
        let Ok(json) = serde_json::from_slice::<Value>(body) else {
            metrics::counter!("flowcast_callbacks_total", "result" => "unreadable").increment(1);
            return Ok(CallbackOutcome::Unreadable);
        };
        if json["type"] == "verification"
            && let Some(challenge) = json["challenge"].as_str()
        {
            return Ok(CallbackOutcome::Challenge(challenge.into()));
        }
        let notices = address.account.provider.notices(&json);
        for notice in &notices {
            self.apply_notice(&address.name, notice, body).await?;
        }
        let reports = address.account.provider.reports(&json);
        if reports.is_empty() && !notices.is_empty() {
            return Ok(CallbackOutcome::Done);
        }
        if reports.is_empty() {
            tracing::debug!(account = address.name, "a callback has no known report");
            metrics::counter!("flowcast_callbacks_total", "result" => "no_report").increment(1);
            // The receiver of forwarded reports may understand it.
            if let Subject::Message(message) = &address.subject {
                self.forward(&[Some(message.campaign.clone())], body).await?;
            }
            return Ok(CallbackOutcome::Done);
        }
        let learning = reports.iter().map(|report| self.record_report(address, report));
        let effects = futures_util::future::try_join_all(learning).await?;
        let concerned: Vec<_> = effects.into_iter().map(|message| Some(message?.campaign)).collect();
        self.forward(&concerned, body).await?;
        Ok(CallbackOutcome::Done)
    }

    /// Stores a notice about a template or a number until the provider clears it, and publishes it.
    ///
    /// The campaigns that use the template or number show it in their status.
    async fn apply_notice(&self, account: &str, notice: &Notice, body: &[u8]) -> Result<(), CallbackError> {
        metrics::counter!("flowcast_callbacks_total", "result" => "notice").increment(1);
        tracing::warn!(account, %notice, "notice from the provider");
        if notice.is_bad() {
            self.ledger.store_notice(account, notice).await?;
        } else {
            self.ledger.clear_notice(account, &notice.about).await?;
        }
        let identity = blake3::hash(body).to_hex();
        let event = Events::notice(self.ledger.time(), account, notice, &identity);
        Ok(self.publisher.events.publish_confirmed(&[event]).await?)
    }

    /// Processes one report. Returns its message, if it is known.
    async fn record_report(
        &self,
        address: &CallbackAddress,
        report: &DeliveryReport,
    ) -> Result<Option<MessageRef>, CallbackError> {
        let mut message = self.named_message(address, report).await?;
        let now = self.ledger.now();
        let mut effects = self.apply(message.as_ref(), report, now).await?;
        if effects.is_none()
            && address.subject == Subject::Account
            && let Some(answered) = self.replied_message(address, report).await?
        {
            effects = self.apply(Some(&answered), report, now).await?;
            message = Some(answered);
        }
        if let DeliveryUpdate::Reply(reply) = &report.update
            && effects.as_ref().is_none_or(|effects| effects.is_news)
            && self.stop_words.is_one(&reply.content)
        {
            let people = self.authenticate(&address.subject, effects.as_ref(), report.recipient).await?;
            self.opt_out(&address.name, people, message.as_ref(), &reply.id).await?;
        }
        let Some(effects) = effects else {
            metrics::counter!("flowcast_callbacks_total", "result" => "unmatched").increment(1);
            return Ok(None);
        };
        metrics::counter!("flowcast_callbacks_total", "result" => "accepted").increment(1);
        if effects.settled
            && let Some(message) = &message
            && let Some(stop_when) = self.campaign_facts(&message.campaign).await?.stop_when
            && transitions::judge(&self.ledger, &message.campaign, stop_when).await?
        {
            tracing::warn!(campaign = %message.campaign, "campaign held: stop_when reached");
        }
        if let Some(message) = message.as_ref().filter(|_| effects.is_news) {
            let at = report.at.unwrap_or(now);
            let events = if self.publisher.events.are_published() {
                // A text with placeholders was rendered, and only the report has the result.
                let custom_data = self.campaign_facts(&message.campaign).await?.custom_data;
                let custom_data = custom_data.and_then(|text| {
                    if is_template(&text) { report.custom_data.clone() } else { Some(text) }
                });
                let job = OfJob { account: &address.name, custom_data: custom_data.as_deref() };
                Events::message_event(message, job, &effects, report, at)
            } else {
                Vec::new()
            };
            if let DeliveryUpdate::Reply(reply) = &report.update {
                // Published, then marked as published, then acknowledged to the provider, which repeats the callback if
                // this process dies in between. So a reply is never lost.
                self.publisher.events.publish_confirmed(&events).await?;
                let answer = reply.key(message.batch, message.index);
                self.ledger.answer_published(&message.campaign, message.batch, answer).await?;
            } else {
                self.publisher.publish(events);
                self.check_flow(address, &message.campaign, &report.update).await?;
            }
        }
        Ok(message)
    }

    /// Writes a report of a message to the ledger. Returns `None` if the message does not exist.
    async fn apply(
        &self,
        message: Option<&MessageRef>,
        report: &DeliveryReport,
        now: i64,
    ) -> Result<Option<ReportEffect>, LedgerError> {
        let Some(message) = message else { return Ok(None) };
        let report = MessageReport {
            message: message.index,
            // The SID in a reply is that of the message it replies to.
            sid: report.sid.clone(),
            // The provider's clock may be ahead: no report is from the future.
            at: report.at.unwrap_or(now).clamp(1, now),
            update: report.update.clone(),
        };
        self.collector.apply(message.campaign.clone(), message.batch, report).await
    }

    /// Slows down or holds a flow if a report says that it is throttled or blocked.
    ///
    /// Only the report shows it if the provider accepted the message and `WhatsApp` did not.
    async fn check_flow(
        &self,
        address: &CallbackAddress,
        id: &CampaignId,
        update: &DeliveryUpdate,
    ) -> Result<(), LedgerError> {
        let DeliveryUpdate::Delivery { state: Delivery::Failed, code: Some(code), text } = update else {
            return Ok(());
        };
        let Some(known) = codes::of_meta_handed_on(code) else { return Ok(()) };
        if !matches!(known.effect, Effect::SlowFlow | Effect::HoldFlow) {
            return Ok(());
        }
        let Some(flow) = self.campaign_facts(id).await?.flow else { return Ok(()) };
        if known.effect == Effect::SlowFlow {
            if address.account.limits.throttle(&flow).await? {
                let event = Events::throttled(self.ledger.time(), &address.name, &flow, text);
                self.publisher.publish(vec![event]);
            }
            return Ok(());
        }
        let breaker = Breaker::flow(&address.name, flow);
        let reason = format!("{code}: {text}; {}", known.remedy);
        if self.ledger.open_breaker(&breaker, reason.clone(), false).await? {
            tracing::error!(%breaker, reason, "breaker opened");
            self.publisher.publish(vec![Events::breaker(self.ledger.time(), &breaker, Some(&reason))]);
        }
        Ok(())
    }

    /// Forwards a body to the `status_callback` of its campaign's job.
    ///
    /// A body for several URLs is forwarded to none of them, because each would get the recipients of the others.
    async fn forward(&self, concerned: &[Option<CampaignId>], body: &[u8]) -> Result<(), CallbackError> {
        let mut address: Option<String> = None;
        for campaign in concerned {
            let wanted = match campaign {
                Some(campaign) => self.campaign_facts(campaign).await?.status_callback,
                None => None,
            };
            match (wanted, &address) {
                (Some(url), None) if campaign == &concerned[0] => address = Some(url),
                (Some(url), Some(known)) if url == *known => {}
                (None, None) => {}
                _ => return Ok(()),
            }
        }
        let Some(url) = address else { return Ok(()) };
        // A repeated callback has the same id.
        let id = format!("rep_{}", &blake3::hash(body).to_hex()[..32]);
        Ok(self.forward.send(id, url, body.to_vec()).await?)
    }
}
