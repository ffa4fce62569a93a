//! Reports of providers: from an address that proves itself into the ledger, and then to whoever wants to
//! know. A provider is answered when the ledger has its report, and not before.
//!
//! Nothing here sends a message, and nothing that is not sealed by one of our keys changes anything.

mod collector;
mod http;
mod publisher;
mod stop_words;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use parking_lot::Mutex;
use serde_json::Value;

use crate::campaign::codes::{self, Effect};
use crate::campaign::delivery::{Delivery, News, ReplyContent, Report};
use crate::campaign::job::StopWhen;
use crate::campaign::notice::Notice;
use crate::campaign::rules::is_template;
use crate::campaign::{CampaignId, Job, MessageRef, Phone, Subject};
use crate::dispatch::{Account, Accounts, Events, OfJob};
use crate::forward::Forward;
use crate::ledger::{
    Answer, Breaker, Ledger, LedgerError, MessageReport, OptOutSource, ReportEffect, Suppress,
};
use crate::ledger::{listing, replies, transitions};
use crate::queue::QueueError;
use collector::Collector;
pub use http::{Slot, router};
use publisher::EventPublisher;
pub use stop_words::StopWords;

/// Takes reports in.
#[derive(Clone)]
pub struct Reports<L: Ledger> {
    ledger: L,
    accounts: Accounts,
    publisher: EventPublisher,
    collector: Collector,
    forward: Forward,
    stop_words: Arc<StopWords>,
    /// Whether other workers open addresses that this one does not, and when that was asked.
    others_keys: Arc<tokio::sync::Mutex<Option<(Instant, bool)>>>,
    /// One search for a SID at a time.
    sid_searches: Arc<tokio::sync::Mutex<()>>,
    /// What the jobs of campaigns say.
    known: Arc<Mutex<HashMap<CampaignId, CampaignFacts>>>,
}

/// What a campaign's job says that matters here.
#[derive(Clone, Debug, Default)]
struct CampaignFacts {
    /// The account that sends it.
    account: String,
    /// Where its reports are handed on to.
    status_callback: Option<String>,
    /// What its reports give back, with placeholders.
    custom_data: Option<String>,
    /// The flow that its messages open.
    flow: Option<String>,
    /// The number that they are sent from.
    from: Option<Phone>,
    /// How many rejections are too many.
    stop_when: Option<StopWhen>,
}

/// How many batches are searched for a SID at most, two million messages, and how many are read at a time.
const SEARCHED_BATCHES: u32 = 20_000;
const SEARCHED_TOGETHER: usize = 100;

/// How often a worker says which keys it has, and for how long it is known which others have.
const KEYS_TOLD: Duration = Duration::from_mins(1);
const KEYS_KNOWN: Duration = Duration::from_secs(5);

/// Says again and again which keys a worker has, as long as it takes reports.
async fn tell_keys<L: Ledger>(
    ledger: L,
    accounts: Accounts,
    alive: Weak<Mutex<HashMap<CampaignId, CampaignFacts>>>,
) {
    let mut changes = accounts.changes();
    while alive.strong_count() > 0 {
        if let Err(error) = ledger.callback_key_names(key_names(&accounts)).await {
            tracing::debug!("the names of callback keys were not told: {error}");
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(KEYS_TOLD) => {}
        }
    }
}

/// The names of the keys that a worker opens addresses with, each behind its account's.
fn key_names(accounts: &Accounts) -> Vec<String> {
    let of = |(name, account): &(String, Arc<Account>)| {
        let keys = account.callbacks.as_ref().map(|callbacks| callbacks.key_names()).unwrap_or_default();
        keys.into_iter().map(|key| format!("{name} {key}")).collect::<Vec<_>>()
    };
    accounts.usable().iter().flat_map(of).collect()
}

/// How many campaigns' jobs are remembered.
const REMEMBERED: usize = 1000;

/// An address that is one of ours.
pub struct Address {
    name: String,
    account: Arc<Account>,
    subject: Subject,
}

/// What became of a callback.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The ledger has it.
    Done,
    /// The provider looks whether somebody is there; it wants this back.
    Challenge(String),
    /// The body is no JSON.
    Unreadable,
}

/// Why a callback can't be kept now.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// The ledger can't be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Others are to have it, and the broker does not take it.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl<L: Ledger> Reports<L> {
    /// Takes reports in for a ledger, of these accounts.
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
        tokio::spawn(tell_keys(
            reports.ledger.clone(),
            reports.accounts.clone(),
            Arc::downgrade(&reports.known),
        ));
        reports
    }

    /// Whether an address that this worker can't open may be one of a worker with other keys: keys are being replaced, or an
    /// account is new. The provider is to come again then.
    pub async fn may_be_anothers(&self) -> bool {
        let mut known = self.others_keys.lock().await;
        if let Some((asked, answer)) = *known
            && asked.elapsed() < KEYS_KNOWN
        {
            return answer;
        }
        let own = key_names(&self.accounts);
        // A ledger that can't be asked may know of such.
        let all = self.ledger.callback_key_names(Vec::new()).await;
        let answer = all.map_or(true, |all| all.iter().any(|name| !own.contains(name)));
        *known = Some((Instant::now(), answer));
        answer
    }

    /// The address of a callback to an account and a capability, if it is one of ours. Nothing is read
    /// from a stranger before this.
    pub fn open(&self, account: &str, capability: &str) -> Option<Address> {
        let known = self.accounts.get(account).ok();
        known.and_then(|known| {
            let subject = known.callbacks.as_ref()?.open(capability)?;
            Some(Address { name: account.into(), account: known, subject })
        })
    }

    /// Counts a callback to an address that is none, and tells whether it is to come again.
    pub async fn refuse(&self) -> bool {
        let comes_again = self.may_be_anothers().await;
        let result = if comes_again { "unknown_key" } else { "forged" };
        metrics::counter!("flowcast_callbacks_total", "result" => result).increment(1);
        comes_again
    }

    /// Whether a callback to an address is its provider's own, as far as that can be told.
    pub fn proves(&self, address: &Address, headers: &HeaderMap, body: &[u8]) -> bool {
        let is_own = address.account.provider.proves(headers, body);
        if !is_own {
            metrics::counter!("flowcast_callbacks_total", "result" => "forged").increment(1);
        }
        is_own
    }

    /// Takes in the body of a callback.
    ///
    /// # Errors
    ///
    /// When it can't be kept now: the provider is to come again.
    pub async fn take(&self, address: &Address, body: &[u8]) -> Result<Taken, CallbackError> {
        let Ok(json) = serde_json::from_slice::<Value>(body) else {
            metrics::counter!("flowcast_callbacks_total", "result" => "unreadable").increment(1);
            return Ok(Taken::Unreadable);
        };
        if json["type"] == "verification"
            && let Some(challenge) = json["challenge"].as_str()
        {
            return Ok(Taken::Challenge(challenge.into()));
        }
        let notices = address.account.provider.notices(&json);
        for notice in &notices {
            self.heed(&address.name, notice, body).await?;
        }
        let reports = address.account.provider.reports(&json);
        if reports.is_empty() && !notices.is_empty() {
            return Ok(Taken::Done);
        }
        if reports.is_empty() {
            tracing::debug!("a callback of account {} reports nothing that is known", address.name);
            metrics::counter!("flowcast_callbacks_total", "result" => "no_report").increment(1);
            // Whoever wants to have the reports may know what it is.
            if let Subject::Message(message) = &address.subject {
                self.hand_on(&[Some(message.campaign.clone())], body).await?;
            }
            return Ok(Taken::Done);
        }
        let learning = reports.iter().map(|report| self.learn(address, report));
        let effects = futures_util::future::try_join_all(learning).await?;
        let concerned: Vec<_> = effects.into_iter().map(|message| Some(message?.campaign)).collect();
        self.hand_on(&concerned, body).await?;
        Ok(Taken::Done)
    }

    /// Remembers what a provider says of a template or a number until it says better, and tells others. The
    /// campaigns that use it say so in their status.
    async fn heed(&self, account: &str, notice: &Notice, body: &[u8]) -> Result<(), CallbackError> {
        metrics::counter!("flowcast_callbacks_total", "result" => "notice").increment(1);
        tracing::warn!("account {account}: {notice}");
        if notice.is_bad() {
            self.ledger.store_notice(account, notice).await?;
        } else {
            self.ledger.clear_notice(account, &notice.about).await?;
        }
        let told = blake3::hash(body).to_hex();
        let event = Events::notice(self.ledger.time(), account, notice, &told);
        Ok(self.publisher.publish_confirmed(&[event]).await?)
    }

    /// Takes in one report. Returns the message that it is about, if there is one.
    async fn learn(&self, address: &Address, report: &Report) -> Result<Option<MessageRef>, CallbackError> {
        let mut message = self.named(address, report).await?;
        let now = self.ledger.now();
        let mut effects = self.apply(message.as_ref(), report, now).await?;
        if effects.is_none()
            && address.subject == Subject::Account
            && let Some(answered) = self.answered(address, report).await?
        {
            effects = self.apply(Some(&answered), report, now).await?;
            message = Some(answered);
        }
        if let News::Reply(reply) = &report.news
            && effects.as_ref().is_none_or(|effects| effects.is_news)
            && self.stop_words.is_one(&reply.content)
        {
            let people = self.who_says_so(&address.subject, effects.as_ref(), report.recipient).await?;
            self.stop(&address.name, people, message.as_ref(), &reply.id).await?;
        }
        let Some(effects) = effects else {
            metrics::counter!("flowcast_callbacks_total", "result" => "unmatched").increment(1);
            return Ok(None);
        };
        metrics::counter!("flowcast_callbacks_total", "result" => "accepted").increment(1);
        if effects.settled
            && let Some(message) = &message
            && let Some(stop_when) = self.known(&message.campaign).await?.stop_when
            && transitions::judge(&self.ledger, &message.campaign, stop_when).await?
        {
            tracing::warn!(campaign = %message.campaign, "held: stop_when is reached");
        }
        if let Some(message) = message.as_ref().filter(|_| effects.is_news) {
            let at = report.at.unwrap_or(now);
            let events = if self.publisher.is_of_use() {
                // A text with placeholders is known as far as the report has it.
                let custom_data = self.known(&message.campaign).await?.custom_data;
                let custom_data = custom_data.and_then(|text| {
                    if is_template(&text) { report.custom_data.clone() } else { Some(text) }
                });
                let job = OfJob { account: &address.name, custom_data: custom_data.as_deref() };
                Events::news(message, job, &effects, report, at)
            } else {
                Vec::new()
            };
            if let News::Reply(reply) = &report.news {
                // Told before it is marked as told, and that before the provider is answered: whoever
                // waits for a booking gets it also when we die in between, as the provider comes again.
                self.publisher.publish_confirmed(&events).await?;
                let answer = reply.key(message.batch, message.index);
                self.ledger.answer_published(&message.campaign, message.batch, answer).await?;
            } else {
                self.publisher.publish(events);
                self.check_flow(address, &message.campaign, &report.news).await?;
            }
        }
        Ok(message)
    }

    /// The message that a report names, as far as the address may speak of it: one of a single message of that alone,
    /// whatever the body says, and one of an account of that account's messages alone. A reference can be guessed, and who
    /// has one account's address is nobody to the others.
    async fn named(&self, address: &Address, report: &Report) -> Result<Option<MessageRef>, LedgerError> {
        let message = match (&address.subject, &report.message) {
            (Subject::Message(message), _) => return Ok(Some(message.clone())),
            (Subject::Account, None) => return Ok(None),
            (Subject::Account, Some(message)) => message,
        };
        if self.known(&message.campaign).await?.account == address.name {
            return Ok(Some(message.clone()));
        }
        metrics::counter!("flowcast_callbacks_total", "result" => "other_account").increment(1);
        Ok(None)
    }

    /// Takes a report of a message into the ledger; `None` where there is no such message.
    async fn apply(
        &self,
        message: Option<&MessageRef>,
        report: &Report,
        now: i64,
    ) -> Result<Option<ReportEffect>, LedgerError> {
        let Some(message) = message else { return Ok(None) };
        let report = MessageReport {
            message: message.index,
            // An answer names the message that it answers, where it names any.
            sid: report.sid.clone(),
            // A clock that runs ahead makes no report of tomorrow.
            at: report.at.unwrap_or(now).clamp(1, now),
            news: report.news.clone(),
        };
        self.collector.apply(message.campaign.clone(), message.batch, report).await
    }

    /// The message that an answer at an account's address is to, where the body does not say so: as the webhook of a
    /// number tells it (document 004), with the SID of the message, or with nothing but the number.
    async fn answered(&self, address: &Address, report: &Report) -> Result<Option<MessageRef>, LedgerError> {
        let (Some(within), News::Reply(reply)) = (address.account.answers_within, &report.news) else {
            return Ok(None);
        };
        let phone = match (report.recipient, report.sid.as_deref()) {
            (Some(phone), _) => phone,
            // Somebody who is known by a user id, and not by a number, names the message by its SID alone.
            (None, Some(sid)) => {
                let _turn = self.sid_searches.lock().await;
                return self.with_sid(&address.name, within, sid).await;
            }
            (None, None) => return Ok(None),
        };
        // What went out from another number was not answered here.
        let is_meant = async |campaign: CampaignId| {
            let known = self.known(&campaign).await?;
            Ok(report.sender.is_none_or(|number| known.from.is_none_or(|from| from == number)))
        };
        let is_form = matches!(reply.content, ReplyContent::Flow(_));
        let answer = Answer { phone, sid: report.sid.as_deref(), is_form };
        let found = replies::find_message(&self.ledger, &address.name, within, answer, is_meant).await?;
        // From a number that nobody wrote to it may be an answer to what another program sent: such come in great numbers, so one
        // is searched for at a time, and none waits for another.
        match (found, report.sid.as_deref(), self.sid_searches.try_lock()) {
            (None, Some(sid), Ok(_turn)) => self.with_sid(&address.name, within, sid).await,
            (found, ..) => Ok(found),
        }
    }

    /// The message with a SID among those that an account sent within a time. There is no index of SIDs, because it would cost
    /// each message and such answers are rare: the records are read, newest campaigns first. One search at a time.
    async fn with_sid(
        &self,
        account: &str,
        within: Duration,
        sid: &str,
    ) -> Result<Option<MessageRef>, LedgerError> {
        let since = self.ledger.time() - within;
        let mut left = SEARCHED_BATCHES;
        for campaign in listing::all(&self.ledger).await? {
            let is_recent = campaign.finished_at.is_none_or(|at| at >= since);
            if campaign.account != account || !is_recent {
                continue;
            }
            let written = self.ledger.written(&campaign.id).await?.min(left);
            left -= written;
            let numbers: Vec<u32> = (0..written).collect();
            for numbers in numbers.chunks(SEARCHED_TOGETHER) {
                let stored = self.ledger.load(&campaign.id, numbers).await?;
                let sids = self.ledger.sids(&stored).await?;
                let found = numbers.iter().zip(sids).find_map(|(batch, sids)| {
                    sids.iter().find(|(_, known)| *known == sid).map(|(index, _)| (*batch, *index))
                });
                if let Some((batch, index)) = found {
                    return Ok(Some(MessageRef { campaign: campaign.id, batch, index }));
                }
            }
        }
        Ok(None)
    }

    /// Whose stop word it is: the person's that was written to, and the number's that wrote, where that is another one. Who
    /// says STOP is never written to again, whether or not it is known what they answered; but the address of one message
    /// that is known, and to which this is no answer, stops nobody.
    async fn who_says_so(
        &self,
        subject: &Subject,
        effects: Option<&ReportEffect>,
        said: Option<Phone>,
    ) -> Result<Vec<Phone>, LedgerError> {
        if let Some(effects) = effects {
            let other = said.filter(|said| said.person() != effects.recipient.person());
            return Ok([effects.recipient].into_iter().chain(other).collect());
        }
        let is_known = match subject {
            Subject::Message(message) => self.ledger.campaign(&message.campaign).await?.is_some(),
            Subject::Account => false,
        };
        Ok(said.filter(|_| !is_known).into_iter().collect())
    }

    /// A flow that is throttled or blocked may be seen only here: the provider took the message, and
    /// `WhatsApp` did not.
    async fn check_flow(&self, address: &Address, id: &CampaignId, news: &News) -> Result<(), LedgerError> {
        let News::Delivery { state: Delivery::Failed, code: Some(code), text } = news else { return Ok(()) };
        let Some(known) = codes::of_meta_handed_on(code) else { return Ok(()) };
        if !matches!(known.effect, Effect::SlowFlow | Effect::HoldFlow) {
            return Ok(());
        }
        let Some(flow) = self.known(id).await?.flow else { return Ok(()) };
        if known.effect == Effect::SlowFlow {
            if address.account.limits.throttle(&flow).await? {
                self.publisher.publish(vec![Events::throttled(
                    self.ledger.time(),
                    &address.name,
                    &flow,
                    text,
                )]);
            }
            return Ok(());
        }
        let breaker = Breaker::flow(&address.name, flow);
        let reason = format!("{code}: {text}; {}", known.remedy);
        if self.ledger.open_breaker(&breaker, reason.clone(), false).await? {
            tracing::error!("{breaker} is held: {reason}");
            self.publisher.publish(vec![Events::breaker(self.ledger.time(), &breaker, Some(&reason))]);
        }
        Ok(())
    }

    async fn stop(
        &self,
        account: &str,
        people: Vec<Phone>,
        message: Option<&MessageRef>,
        answer: &str,
    ) -> Result<(), CallbackError> {
        if people.is_empty() {
            return Ok(());
        }
        if self.ledger.suppress(people.clone(), Suppress::Add, Some(OptOutSource::Reply)).await? > 0 {
            tracing::info!("somebody has answered with a stop word and is never written to again");
            metrics::counter!("flowcast_suppressed_total").increment(1);
        }
        // Also when the number was on the list: we may have died before others were told.
        let now = self.ledger.time();
        let suppressed = |person| Events::suppressed(now, account, person, message, answer);
        let events: Vec<_> = people.into_iter().map(suppressed).collect();
        Ok(self.publisher.publish_confirmed(&events).await?)
    }

    /// Hands a body on to the address that its campaign's job names. A body that concerns several
    /// addresses goes to none of them: it would tell one of the other's recipients.
    async fn hand_on(&self, concerned: &[Option<CampaignId>], body: &[u8]) -> Result<(), CallbackError> {
        let mut address: Option<String> = None;
        for campaign in concerned {
            let wanted = match campaign {
                Some(campaign) => self.known(campaign).await?.status_callback,
                None => None,
            };
            match (wanted, &address) {
                (Some(url), None) if campaign == &concerned[0] => address = Some(url),
                (Some(url), Some(known)) if url == *known => {}
                (None, None) => {}
                _ => return Ok(()),
            }
        }
        match address {
            Some(url) => {
                // What a provider sends again is the same.
                let id = format!("rep_{}", &blake3::hash(body).to_hex()[..32]);
                Ok(self.forward.send(id, url, body.to_vec()).await?)
            }
            None => Ok(()),
        }
    }

    /// What a campaign's job says; nothing where it is forgotten.
    async fn known(&self, campaign: &CampaignId) -> Result<CampaignFacts, LedgerError> {
        let jobs = || self.known.lock();
        if let Some(known) = jobs().get(campaign) {
            return Ok(known.clone());
        }
        let stored = match self.ledger.job(campaign).await {
            Err(LedgerError::NoCampaign(_)) => return Ok(CampaignFacts::default()),
            stored => stored?,
        };
        let known = match Job::read(stored.job.as_bytes()) {
            Ok(job) => CampaignFacts {
                flow: job.flow(),
                from: Some(job.from),
                stop_when: job.stop_when,
                account: job.account,
                status_callback: job.status_callback,
                custom_data: job.custom_data,
            },
            // One that an older flowcast took and this one would not: its reports count all the same.
            Err(_) => CampaignFacts {
                account: self
                    .ledger
                    .campaign(campaign)
                    .await?
                    .map(|campaign| campaign.account)
                    .unwrap_or_default(),
                ..CampaignFacts::default()
            },
        };
        let mut jobs = jobs();
        if jobs.len() >= REMEMBERED {
            jobs.clear();
        }
        jobs.insert(campaign.clone(), known.clone());
        Ok(known)
    }
}
