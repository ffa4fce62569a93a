//! What may become of the messages of a batch. Every ledger asks here, and only here.
//!
//! Pure: a record goes in with what somebody wants or has seen; a record comes out, with what changes
//! beside it. A backend writes both at once, if the record is still the one that went in.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::deliveries::{
    Changes, Deliveries, MessageReport, ReportEffect, Response, UNDELIVERED, proves_taken,
};
use super::record::{BatchRecord, Message};
use super::{ABANDONED, Decision, LedgerError, Outcome, PlannedBatch, Recorded};
use crate::campaign::codes::is_unsent;
use crate::campaign::delivery::News;
use crate::campaign::{DoubtCause, MessageState, SkipReason};

/// What is said of [`ABANDONED`] messages.
const ABANDONED_TEXT: &str = "was in doubt, and a person gave it up; it may have been delivered";
/// What is said of a message that was pending when its campaign was cancelled.
const CANCELLED: &str = "the campaign was cancelled first";
pub(crate) const EXPIRED: &str = "the campaign's expires_at passed first";
/// The code of people who get enough marketing already. For so long it would be refused again, so a
/// retry takes such messages then only by this name.
const RESTING: (&str, Duration) = ("131049", Duration::from_hours(24));

/// A counter of a campaign: its kind, and a word that tells it from others of its kind. The counters of
/// states have no word.
pub(super) type Counter = (&'static str, String);

/// What is written together with a record.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// The revision of the record that it was made from.
    pub(super) known: u32,
    /// The record as it is after; `None` where it stays.
    pub(super) record: Option<BatchRecord>,
    /// By how much the campaign's counters move.
    pub(super) counters: BTreeMap<Counter, i64>,
    /// What stands beside the number of a message from now on: state and word; `None` for one that has
    /// no outcome any more. By place, each once.
    pub(super) outcomes: Vec<(u8, Option<(MessageState, String)>)>,
    /// Whether no message of the batch had an outcome before, and each has a number of its own.
    pub(super) are_first: bool,
    /// Texts that are kept once a campaign, by kind and word.
    pub(super) texts: BTreeMap<Counter, String>,
    /// Values that are kept, or let go, by message.
    pub(super) payloads: BTreeMap<u8, Option<String>>,
    /// Claims that hold messages from now on, and such that hold none any more.
    pub(super) claimed: Vec<u64>,
    pub(super) released: Vec<u64>,
    /// Where it changes: whether the batch is open, has failures, is to be queued again.
    pub(super) open: Option<bool>,
    pub(super) failed: Option<bool>,
    pub(super) replay: Option<bool>,
    /// Whether a message is pending again that was settled, by the late word of its claim: then its campaign must
    /// not have ended, because nobody would send it.
    pub(super) reopens: bool,
    /// What the provider calls the last request of the batch that it answered.
    pub(super) request: Option<String>,
    /// How many messages were settled, for the rate.
    pub(super) settled: u64,
    /// The progress of its messages: as it was read, and as it is now.
    pub(super) deliveries: Option<(Vec<u8>, Vec<u8>)>,
    /// Answers of people, by key, JSON.
    pub(super) responses: Vec<(String, String)>,
}

impl Change {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.record.is_none() && self.deliveries.is_none() && self.responses.is_empty()
    }
}

/// A batch whose record is being changed.
pub(super) struct Draft<'b> {
    batch: &'b PlannedBatch,
    before: BatchRecord,
    record: BatchRecord,
    change: Change,
    /// By how much the counters of states move, in the order of [`MessageState::ALL`].
    moved: [i64; MessageState::ALL.len()],
    /// The ledger's clock, in milliseconds since 1970.
    now: i64,
    /// Whether the campaign has ended: nothing of it is sent again but by a person's word.
    has_ended: bool,
}

impl<'b> Draft<'b> {
    pub(super) fn new(batch: &'b PlannedBatch, record: BatchRecord, now: i64) -> Self {
        let change = Change { known: record.revision, ..Change::default() };
        Self {
            batch,
            before: record.clone(),
            record,
            change,
            moved: [0; MessageState::ALL.len()],
            now,
            has_ended: false,
        }
    }

    /// The same, of a campaign that has ended.
    pub(super) fn of_ended(self) -> Self {
        Self { has_ended: true, ..self }
    }

    /// Claims messages: those that are pending are this claim's now. Returns the places that it holds;
    /// asked for again, they are the same.
    pub(super) fn claim(&mut self, token: u64, places: &[u8]) -> Vec<u8> {
        let mut granted = Vec::with_capacity(places.len());
        for place in places {
            let Some(message) = self.record.message(*place).copied() else { continue };
            match message.state {
                MessageState::Pending => {
                    let attempts = message.attempts.saturating_add(1);
                    let claimed = Message { attempts, claim: token, ..message };
                    self.put(*place, claimed, MessageState::Sending, "");
                    granted.push(*place);
                }
                MessageState::Sending if message.claim == token => granted.push(*place),
                _ => {}
            }
        }
        if !granted.is_empty() && !self.change.claimed.contains(&token) {
            // Also where nothing changes: the claim holds anew.
            self.change.claimed.push(token);
        }
        granted
    }

    /// Takes in what a sender has seen. What is not legal by now changes nothing.
    pub(super) fn settle(&mut self, token: u64, outcomes: &[Recorded]) {
        for Recorded { message: place, outcome, payload } in outcomes {
            let Some(message) = self.record.message(*place).copied() else { continue };
            let (from, to) = (message.state, outcome.state());
            let is_own = token != 0 && message.claim == token;
            let legal = from.can_become(to)
                && match (from, to) {
                    // Back to pending on proof, and only for the claim that has it; a doubt not in a campaign that has
                    // ended, where it would wait for ever.
                    (MessageState::Sending, MessageState::Pending) => is_own,
                    (MessageState::InDoubt, MessageState::Pending) => is_own && !self.has_ended,
                    // A person's decision, and no sender's.
                    (_, MessageState::Pending) | (MessageState::Pending, MessageState::InDoubt) => false,
                    // Evidence of an earlier try; what was never claimed was never taken.
                    (MessageState::Pending, MessageState::Accepted) => message.attempts > 0,
                    // What another claim is sending by now is not settled by what an old one was told,
                    // but for one thing: that the provider took it.
                    (MessageState::Sending, MessageState::Accepted) => true,
                    (MessageState::Sending, _) => is_own,
                    _ => true,
                };
            if legal {
                self.change.reopens |= !from.is_open() && to.is_open();
                self.apply(*place, message, outcome, payload.as_deref());
                self.change.settled += u64::from(from.is_open() && !to.is_open());
            }
        }
    }

    /// Takes in what the provider calls the request whose answer was seen.
    pub(super) fn answered_by(&mut self, request: Option<&str>) {
        if let Some(request) = request {
            self.change.request = Some(request.to_owned());
        }
    }

    /// What a claim that ran out was sending is in doubt, or pending again where the job says so. Returns
    /// how many messages that were.
    pub(super) fn expire(&mut self, token: u64, resend: bool, cause: DoubtCause) -> u64 {
        let outcome = if resend { Outcome::Released } else { Outcome::InDoubt(cause.into()) };
        let is_meant = |message: &Message| message.state == MessageState::Sending && message.claim == token;
        let expired = self.places(|_, message| is_meant(message));
        for (place, message) in &expired {
            self.apply(*place, *message, &outcome, None);
            if !resend && let Some(doubt) = self.record.message(*place).copied() {
                // Its worker may come back with proof.
                let word = self.record.word(&doubt).to_owned();
                self.record.set(*place, Message { claim: token, ..doubt }, &word);
            }
        }
        self.record.replay |= resend && !expired.is_empty();
        expired.len() as u64
    }

    /// Does what a person decided. Returns for how many messages.
    pub(super) fn decide(&mut self, decision: &Decision) -> u64 {
        let (from, outcome) = match decision {
            Decision::Retry(_) => (MessageState::Rejected, Outcome::Released),
            Decision::Resend { .. } => (MessageState::InDoubt, Outcome::Released),
            Decision::Abandon { .. } => (
                MessageState::InDoubt,
                Outcome::Rejected { code: ABANDONED.into(), detail: ABANDONED_TEXT.into() },
            ),
            Decision::Cancel => (
                MessageState::Pending,
                Outcome::Skipped { reason: SkipReason::Cancelled, detail: CANCELLED.into() },
            ),
            Decision::Expire => (
                MessageState::Pending,
                Outcome::Skipped { reason: SkipReason::Expired, detail: EXPIRED.into() },
            ),
            Decision::Doubt => (MessageState::Pending, Outcome::InDoubt(DoubtCause::DataLoss.into())),
        };
        let now = self.now;
        let is_meant = |record: &BatchRecord, message: &Message| {
            let ago = Duration::from_millis(u64::try_from(now - message.at).unwrap_or_default());
            message.state == from
                && match decision {
                    Decision::Retry(codes) => is_retried(record.word(message), ago, codes),
                    Decision::Resend { until } | Decision::Abandon { until } => message.at <= *until,
                    Decision::Cancel | Decision::Expire | Decision::Doubt => true,
                }
        };
        let decided = self.places(is_meant);
        for (place, message) in &decided {
            // It may have been sent once more: evidence of that settles it, and it is later than the try before.
            let attempts = message.attempts.saturating_add(u8::from(*decision == Decision::Doubt));
            self.apply(*place, Message { attempts, ..*message }, &outcome, None);
        }
        self.record.replay |= outcome == Outcome::Released && !decided.is_empty();
        decided.len() as u64
    }

    /// Takes those that the provider took and a report failed, with a code of a retry that says they were not sent on,
    /// back to pending; nothing of their progress stays. `before` is what is kept of the batch's. Returns how many.
    pub(super) fn retry_unsent(&mut self, decision: &Decision, before: &[u8]) -> u64 {
        let Decision::Retry(codes) = decision else { return 0 };
        let mut deliveries = Deliveries::read(before);
        let failed = |place: u8| deliveries.of(place)?.failure().map(str::to_owned);
        let is_meant =
            |place: u8| failed(place).is_some_and(|code| is_unsent(&code) && codes.contains(&code));
        let meant: Vec<(u8, Message)> = self
            .record
            .each()
            .filter(|(place, message)| message.state == MessageState::Accepted && is_meant(*place))
            .map(|(place, message)| (place, *message))
            .collect();
        if meant.is_empty() {
            return 0;
        }
        let mut changes = Changes::default();
        for (place, message) in &meant {
            deliveries.forget(*place, message.at, &mut changes);
            self.apply(*place, *message, &Outcome::Released, None);
        }
        self.record.replay = true;
        self.change.deliveries = Some((before.to_vec(), deliveries.bytes()));
        for (counter, by) in changes.counters {
            *self.change.counters.entry(counter).or_default() += by;
        }
        meant.len() as u64
    }

    /// Those of some messages that nobody has claimed yet, as far as the ledger knows, are in doubt: it came back
    /// older than it was, and somebody may have sent them meanwhile.
    pub(super) fn doubt_untouched(&mut self, places: &[u8]) {
        for place in places {
            if let Some(message) = self.record.message(*place).copied()
                && message.state == MessageState::Pending
                && message.attempts == 0
            {
                let outcome = Outcome::InDoubt(DoubtCause::DataLoss.into());
                self.apply(*place, Message { attempts: 1, ..message }, &outcome, None);
            }
        }
    }

    /// Takes in what the batch was like at a time that the ledger has forgotten: its record, and the SIDs of its
    /// messages by place. What is later by now stays as it is. Returns how many messages changed.
    pub(super) fn restore(&mut self, known: &BatchRecord, sids: &BTreeMap<u8, String>) -> u64 {
        let mut restored = 0;
        for (place, then) in known.each() {
            let Some(now) = self.record.message(place).copied().filter(|now| is_later(then, now)) else {
                continue;
            };
            restored += 1;
            let (was, is) = (self.record.word(&now).to_owned(), known.word(then).to_owned());
            for (message, word, by) in [(&now, &was, -1), (then, &is, 1)] {
                if matches!(message.state, MessageState::Rejected | MessageState::Skipped) {
                    self.count(message.state.as_str(), word.clone(), by);
                }
            }
            self.moved[now.state as usize] -= 1;
            self.moved[then.state as usize] += 1;
            let mut kept = now.kept;
            if kept && then.state == MessageState::Accepted {
                self.change.payloads.insert(place, None);
                kept = false;
            }
            self.record.set(place, Message { kept, ..*then }, &is);
            if then.state.is_open() {
                if !now.state.is_open() {
                    self.write_outcome(place, None);
                }
            } else {
                let sid = sids.get(&place).filter(|_| then.state == MessageState::Accepted);
                self.write_outcome(place, Some((then.state, sid.cloned().unwrap_or(is))));
            }
            if then.state == MessageState::Sending && !self.change.claimed.contains(&then.claim) {
                self.change.claimed.push(then.claim);
            }
        }
        self.record.replay |= known.replay && restored > 0;
        restored
    }

    /// Takes in what reports say of messages: how far they came, and that the provider took what is not
    /// known to be taken. Returns what each changed, `None` of a message that there is not.
    pub(super) fn report(
        &mut self,
        reports: &[MessageReport],
        before: &[u8],
    ) -> Result<Vec<Option<ReportEffect>>, LedgerError> {
        let mut deliveries = Deliveries::read(before);
        let mut changes = Changes::default();
        let mut effects = Vec::with_capacity(reports.len());
        for report in reports {
            let place = report.message;
            let found = self.batch.recipients.get(usize::from(place)).copied();
            let (Some((row, recipient)), Some(message)) = (found, self.record.message(place).copied()) else {
                effects.push(None);
                continue;
            };
            let settles = proves_taken(message.state, u32::from(message.attempts), &report.news);
            if settles {
                let sid = report.sid.clone().unwrap_or_default();
                self.settle(0, &[(place, Outcome::Accepted { sid }).into()]);
            } else if message.state != MessageState::Accepted {
                effects.push(None);
                continue;
            }
            // When the provider took it is not known of one that only a report has settled.
            let was_accepted = self.before.message(place).is_some_and(|m| m.state == MessageState::Accepted);
            let accepted_at = if was_accepted { message.at } else { 0 };
            let is_news = deliveries.take(report, accepted_at, &mut changes) || settles;
            let effect = ReportEffect { recipient, row, message: place, settled: settles, is_news };
            if let News::Reply(reply) = &report.news {
                let response = Response::new(&effect, self.batch.number, report.at, reply);
                let json = serde_json::to_string(&response)
                    .map_err(|fault| LedgerError::Storage(format!("can't keep an answer: {fault}")))?;
                self.change.responses.push((reply.key(self.batch.number, place), json));
            }
            effects.push(Some(effect));
        }
        if effects.iter().any(Option::is_some) {
            self.change.deliveries = Some((before.to_vec(), deliveries.bytes()));
            for (counter, by) in changes.counters {
                *self.change.counters.entry(counter).or_default() += by;
            }
            for (code, text) in changes.texts {
                self.change.texts.entry((UNDELIVERED, code)).or_insert(text);
            }
        }
        Ok(effects)
    }

    /// What is to be written.
    pub(super) fn finish(mut self) -> Change {
        let moved = |after: bool, before: bool| (after != before).then_some(after);
        let (claims, held) = (self.record.claims(), self.before.claims());
        self.change.released = held.difference(&claims).copied().collect();
        self.change.are_first = !self.change.outcomes.is_empty()
            && self.before.messages.iter().all(|message| message.state.is_open())
            && self.batch.are_distinct();
        self.change.open = moved(self.record.is_open(), self.before.is_open());
        self.change.failed = moved(self.record.is_failed(), self.before.is_failed());
        self.record.replay &= self.record.is_open();
        // Decided anew, it is told anew.
        let is_new = self.record.messages != self.before.messages
            && self
                .record
                .messages
                .iter()
                .zip(&self.before.messages)
                .any(|(after, before)| after.state == MessageState::Pending && !before.state.is_open());
        self.change.replay = match (self.record.replay, self.before.replay) {
            (true, false) => Some(true),
            (true, true) if is_new => Some(true),
            (false, true) => Some(false),
            _ => None,
        };
        for (state, by) in MessageState::ALL.iter().zip(self.moved) {
            self.count(state.as_str(), String::new(), by);
        }
        self.change.counters.retain(|_, by| *by != 0);
        if self.record != self.before || !self.change.claimed.is_empty() {
            self.record.revision = self.before.revision.wrapping_add(1).max(1);
            self.change.record = Some(self.record);
        }
        self.change
    }

    fn places(&self, is_meant: impl Fn(&BatchRecord, &Message) -> bool) -> Vec<(u8, Message)> {
        let meant = self.record.each().filter(|(_, message)| is_meant(&self.record, message));
        meant.map(|(place, message)| (place, *message)).collect()
    }

    /// Moves a message to its outcome, with everything that follows from it.
    fn apply(&mut self, place: u8, message: Message, outcome: &Outcome, payload: Option<&str>) {
        let to = outcome.state();
        let (word, text): (String, Cow<'_, str>) = match outcome {
            Outcome::Accepted { sid } => (sid.clone(), "".into()),
            Outcome::Rejected { code, detail } if code.is_empty() => ("unknown".into(), detail.into()),
            Outcome::Rejected { code, detail } => (code.clone(), detail.into()),
            // Its text is kept once a code, so it says only what is true of all with the code.
            Outcome::InDoubt(doubt) => (doubt.cause.code().into_owned(), doubt.cause.to_string().into()),
            Outcome::Released => (String::new(), "".into()),
            Outcome::Skipped { reason, detail } => (reason.as_str().into(), detail.into()),
        };
        if message.state == MessageState::Rejected {
            let code = self.record.word(&message).to_owned();
            self.count(MessageState::Rejected.as_str(), code, -1);
        }
        if matches!(to, MessageState::Rejected | MessageState::Skipped) {
            self.count(to.as_str(), word.clone(), 1);
        }
        if !text.is_empty() {
            self.change.texts.entry((to.as_str(), word.clone())).or_insert_with(|| text.into_owned());
        }
        let mut kept = message.kept;
        match (to, payload) {
            (MessageState::Rejected | MessageState::InDoubt, Some(payload)) => {
                self.change.payloads.insert(place, Some(payload.to_owned()));
                kept = true;
            }
            (MessageState::Accepted | MessageState::Skipped, _) if kept => {
                self.change.payloads.insert(place, None);
                kept = false;
            }
            _ => {}
        }
        let changed = Message { claim: 0, kept, ..message };
        // SIDs are kept beside the record and not in it.
        self.put(place, changed, to, if to == MessageState::Accepted { "" } else { &word });
        if to == MessageState::Pending {
            // A message that goes back from a claim never had an outcome to take back.
            if message.state != MessageState::Sending {
                self.write_outcome(place, None);
            }
        } else {
            self.write_outcome(place, Some((to, word)));
        }
    }

    fn write_outcome(&mut self, place: u8, outcome: Option<(MessageState, String)>) {
        let outcomes = &mut self.change.outcomes;
        match outcomes.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(at) => outcomes[at].1 = outcome,
            Err(at) => outcomes.insert(at, (place, outcome)),
        }
    }

    fn put(&mut self, place: u8, message: Message, to: MessageState, word: &str) {
        self.moved[message.state as usize] -= 1;
        self.moved[to as usize] += 1;
        self.record.set(place, Message { state: to, at: self.now, ..message }, word);
    }

    fn count(&mut self, kind: &'static str, word: String, by: i64) {
        *self.change.counters.entry((kind, word)).or_default() += by;
    }
}

/// Whether a message as it was `then`, which the ledger may have forgotten, is further than as it is `now`.
fn is_later(then: &Message, now: &Message) -> bool {
    // What the provider said of this very try outlasts what was only feared of it, whenever that was written.
    match then.attempts.cmp(&now.attempts) {
        std::cmp::Ordering::Greater => now.state != MessageState::Accepted,
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => match (then.state, now.state) {
            (_, MessageState::Accepted)
            | (MessageState::Sending | MessageState::InDoubt, MessageState::Rejected) => false,
            // Not over one that is pending: a person may have had it sent again since.
            (MessageState::Accepted, MessageState::Pending) => then.at > now.at,
            (MessageState::Accepted, _)
            | (MessageState::Rejected, MessageState::Sending | MessageState::InDoubt) => true,
            _ => then.at > now.at,
        },
    }
}

/// Whether a retry of these codes takes a message that was rejected with `code` so long ago.
fn is_retried(code: &str, ago: Duration, codes: &[String]) -> bool {
    if codes.is_empty() {
        code != ABANDONED && (code != RESTING.0 || ago >= RESTING.1)
    } else {
        codes.iter().any(|wanted| wanted == code)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::campaign::Phone;
    use crate::campaign::delivery::Delivery;

    const SIZE: u8 = 5;

    /// Something that happens to a batch.
    #[derive(Clone, Debug)]
    enum Event {
        Claim { token: u64, places: Vec<u8> },
        Settle { token: u64, place: u8, outcome: usize },
        Expire { token: u64, resend: bool },
        Decide { decision: usize },
        Doubt { place: u8 },
        Report { place: u8, state: usize },
    }

    fn event() -> impl Strategy<Value = Event> {
        let token = 1..4_u64;
        let place = 0..SIZE + 1;
        prop_oneof![
            3 => (token.clone(), prop::collection::vec(place.clone(), 1..6))
                .prop_map(|(token, places)| Event::Claim { token, places }),
            4 => (0..4_u64, place.clone(), 0..5_usize)
                .prop_map(|(token, place, outcome)| Event::Settle { token, place, outcome }),
            1 => (token, any::<bool>()).prop_map(|(token, resend)| Event::Expire { token, resend }),
            1 => (0..5_usize).prop_map(|decision| Event::Decide { decision }),
            1 => place.clone().prop_map(|place| Event::Doubt { place }),
            1 => (place, 0..4_usize).prop_map(|(place, state)| Event::Report { place, state }),
        ]
    }

    fn outcome(nth: usize) -> Outcome {
        let detail = || "why".to_owned();
        match nth {
            0 => Outcome::Accepted { sid: "s".into() },
            1 => Outcome::Rejected { code: "400".into(), detail: detail() },
            2 => Outcome::InDoubt(DoubtCause::NoResponse.into()),
            3 => Outcome::Released,
            _ => Outcome::Skipped { reason: SkipReason::Expired, detail: detail() },
        }
    }

    fn decision(nth: usize) -> Decision {
        match nth {
            0 => Decision::Retry(Vec::new()),
            1 => Decision::Resend { until: i64::MAX },
            2 => Decision::Abandon { until: i64::MAX },
            3 => Decision::Cancel,
            _ => Decision::Doubt,
        }
    }

    fn batch() -> PlannedBatch {
        let recipient = |row| (row, Phone::from_digits(919_800_000_000 + row).unwrap());
        PlannedBatch {
            campaign: "c".parse().unwrap(),
            number: 0,
            recipients: (1..=u64::from(SIZE)).map(recipient).collect(),
        }
    }

    /// Lets an event happen; returns the places that a claim was granted.
    fn happen(draft: &mut Draft<'_>, event: &Event) -> Vec<u8> {
        match event {
            Event::Claim { token, places } => return draft.claim(*token, places),
            Event::Settle { token, place, outcome: nth } => {
                draft.settle(*token, &[(*place, outcome(*nth)).into()]);
            }
            Event::Expire { token, resend } => drop(draft.expire(*token, *resend, DoubtCause::ClaimExpired)),
            Event::Decide { decision: nth } => drop(draft.decide(&decision(*nth))),
            Event::Doubt { place } => draft.doubt_untouched(&[*place]),
            Event::Report { place, state } => {
                let news = News::Delivery { state: Delivery::ALL[*state], code: None, text: String::new() };
                let report = MessageReport { message: *place, sid: None, at: 5_000, news };
                drop(draft.report(&[report], &[]));
            }
        }
        Vec::new()
    }

    /// How many messages are in each state, and rejected or skipped for what.
    fn counters(record: &BatchRecord) -> BTreeMap<Counter, i64> {
        let mut counters = BTreeMap::new();
        for (_, message) in record.each() {
            let state = message.state.as_str();
            *counters.entry((state, String::new())).or_default() += 1;
            if matches!(message.state, MessageState::Rejected | MessageState::Skipped) {
                *counters.entry((state, record.word(message).to_owned())).or_default() += 1;
            }
        }
        counters
    }

    proptest! {
        #[test]
        fn whatever_happens_no_message_is_lost_or_sent_twice(
            events in prop::collection::vec(event(), 1..60),
        ) {
            let batch = batch();
            let mut record = BatchRecord::new(usize::from(SIZE));
            let mut counted = counters(&record);
            // Whether the provider may have each message because of a request that nobody has cleared.
            let mut may_be_taken = [false; SIZE as usize];
            let (mut is_open, mut is_failed, mut claims) = (true, false, std::collections::BTreeSet::new());
            for (nth, event) in (0..).zip(&events) {
                let before = record.clone();
                let mut draft = Draft::new(&batch, record.clone(), 1_000 + nth);
                let granted = happen(&mut draft, event);
                let change = draft.finish();
                record = change.record.clone().unwrap_or(record);
                prop_assert!(change.record.is_none() || record.revision > before.revision);
                for (((place, after), (_, before)), taken) in
                    record.each().zip(before.each()).zip(&mut may_be_taken)
                {
                    let (from, to) = (before.state, after.state);
                    // Only legal moves, and nothing leaves an end.
                    prop_assert!(from == to || from.can_become(to), "{from} to {to} by {event:?}");
                    prop_assert_eq!(to == MessageState::Sending, after.claim != 0 && to != MessageState::InDoubt);
                    if granted.contains(&place) {
                        // Granted only what nobody may have, or its own claim again.
                        prop_assert!(!*taken || from == MessageState::Sending);
                        *taken = true;
                    }
                    let by_person = matches!(event, Event::Decide { .. } | Event::Expire { resend: true, .. });
                    if to == MessageState::Pending {
                        // Back to pending by proof for its own claim, or by somebody's word.
                        let proven = matches!(event, Event::Settle { token, outcome: 3, .. }
                            if before.claim == *token);
                        prop_assert!(from == to || by_person || proven, "{from} to pending by {event:?}");
                        *taken &= from == to;
                    }
                }
                // The counters are what the messages say.
                let of_states = |kind: &str| kind.parse::<MessageState>().is_ok();
                for (counter, by) in change.counters.iter().filter(|((kind, _), _)| of_states(kind)) {
                    *counted.entry(counter.clone()).or_default() += by;
                }
                counted.retain(|_, count| *count != 0);
                prop_assert_eq!(&counted, &counters(&record));
                // So are the lists.
                is_open = change.open.unwrap_or(is_open);
                is_failed = change.failed.unwrap_or(is_failed);
                prop_assert_eq!((is_open, is_failed), (record.is_open(), record.is_failed()));
                claims.extend(change.claimed.iter().copied());
                change.released.iter().for_each(|token| {
                    claims.remove(token);
                });
                prop_assert_eq!(&claims, &record.claims());
                // What is said twice counts once.
                let mut again = Draft::new(&batch, record.clone(), 2_000);
                if matches!(event, Event::Settle { .. } | Event::Expire { .. }) {
                    happen(&mut again, event);
                    prop_assert!(again.finish().record.is_none());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_the_ledger_has_forgotten_is_restored_from_what_is_known(
            events in prop::collection::vec(event(), 1..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let batch = batch();
            let mut records = vec![BatchRecord::new(usize::from(SIZE))];
            for (nth, event) in (0..).zip(&events) {
                let record = records[records.len() - 1].clone();
                let mut draft = Draft::new(&batch, record.clone(), 1_000 + nth);
                happen(&mut draft, event);
                records.push(draft.finish().record.unwrap_or(record));
            }
            let (known, then) = (&records[records.len() - 1], cut.get(&records));
            let mut draft = Draft::new(&batch, then.clone(), 5_000);
            draft.restore(known, &BTreeMap::new());
            let change = draft.finish();
            let restored = change.record.as_ref().unwrap_or(then);
            let states = |record: &BatchRecord| -> Vec<_> {
                record.each().map(|(_, m)| (m.state, m.attempts, m.claim, m.at)).collect()
            };
            prop_assert_eq!(states(restored), states(known));
            let mut counted = counters(then);
            for (counter, by) in change.counters {
                *counted.entry(counter).or_default() += by;
            }
            counted.retain(|_, count| *count != 0);
            prop_assert_eq!(counted, counters(restored));
            // Restored again, it stays as it is; and what is older changes nothing.
            for known in [known, then] {
                let mut again = Draft::new(&batch, restored.clone(), 6_000);
                prop_assert_eq!(again.restore(known, &BTreeMap::new()), 0);
            }
        }
    }

    #[test]
    fn a_retry_leaves_out_who_would_refuse_it_again() {
        let hours = |count| Duration::from_hours(count);
        assert!(is_retried("400", hours(0), &[]));
        assert!(!is_retried("131049", hours(23), &[]) && is_retried("131049", hours(24), &[]));
        assert!(!is_retried(ABANDONED, hours(99), &[]));
        let named = ["131049".to_string()];
        assert!(is_retried("131049", hours(0), &named) && !is_retried("400", hours(0), &named));
    }
}
