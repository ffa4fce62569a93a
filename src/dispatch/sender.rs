//! Senders: for each batch wait for the buckets, claim, send, record, acknowledge — in that order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{self, Either};
use opentelemetry::context::FutureExt;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use url::Url;

use super::answer_decision::{DecisionInputs, FollowUp, decide};
use super::events::{Events, OfJob};
use super::{Account, DispatchError, TRIES, replay};
use crate::campaign::job::OnInDoubt;
use crate::campaign::{
    CampaignId, Job, MessageState, Opening, Phone, Reason, Recipient, SkipReason, Template,
};
use crate::ledger::transitions;
use crate::ledger::{BatchWriter, Claim, Ledger, LedgerError, Outcome, Purpose, Recorded, Suppressed};
use crate::limiter::{Admission, CampaignLimits, LONGEST_WAIT};
use crate::provider::{Failure, Provider, RequestBody, Scope, classify};
use crate::queue::{Queue, QueuedBatch};
use crate::traces::{self, Trace};

/// A provider that took a message within this time works: longer than all tries of another take.
const OF_LATE: Duration = Duration::from_mins(1);
/// For so long the status says that a flow was throttled.
const THROTTLED: Duration = Duration::from_hours(24);
/// What is put off is asked for again after this time at the latest: a limit may have been raised.
const ASKED_AGAIN: Duration = Duration::from_mins(5);
/// A wait for tokens that is longer is told in the campaign's status; and a worker that is stopped
/// waits no longer for the broker.
pub(super) const LONG_WAIT: Duration = Duration::from_secs(3);

/// What all senders of a campaign in this worker share.
pub(super) struct Sending<L, Q> {
    pub(super) id: CampaignId,
    pub(super) trace: Trace,
    pub(super) ledger: L,
    pub(super) queue: Q,
    pub(super) account: Arc<Account>,
    pub(super) job: Arc<Job>,
    pub(super) template: Template,
    pub(super) limits: CampaignLimits,
    /// Where its requests go.
    pub(super) endpoint: Url,
    /// The flow that its messages open, where it is the same for all.
    pub(super) flow: Option<String>,
    pub(super) events: Events,
    /// The numbers that must never be messaged, as they are now.
    pub(super) suppressed: Arc<RwLock<Suppressed>>,
    /// Cancelled: nothing new begins, what is under way is finished.
    pub(super) stop: CancellationToken,
    /// Rung when the campaign may have come to its end, or has stopped by itself.
    pub(super) wake_up: Arc<Notify>,
    /// Messages of batches below this number that nobody has claimed may have been sent all the same.
    pub(super) doubt_below: u32,
    pub(super) state: State,
}

/// What changes while a campaign is sent.
#[derive(Default)]
pub(super) struct State {
    /// Whether the whole audience is planned: then the campaign may end with any record.
    pub(super) planned: AtomicBool,
    /// How many bytes the longest body of a request had: room for the next one.
    body_bytes: AtomicUsize,
    /// Requests in a row whose outcome nobody knows.
    pub(super) doubts: AtomicU32,
    /// When the provider last took a message of the campaign.
    taken_at: Mutex<Option<Instant>>,
    /// What the campaign waits for, as it was last told.
    note: Mutex<Option<Reason>>,
    /// Until when a batch is put off because of a limit; so long the status says so.
    put_off: Mutex<Option<Instant>>,
    /// What was said of the flow when the provider throttled it, and when.
    throttled: Mutex<Option<(Instant, Reason)>>,
    /// How many answers were recorded.
    answers: AtomicU64,
    /// How many of them were there when the counts were last judged; held while they are.
    judged: tokio::sync::Mutex<u64>,
    /// What made a sender give up.
    broken: Mutex<Option<DispatchError>>,
}

impl State {
    /// The provider took a message.
    fn went_well(&self) {
        *self.taken_at.lock() = Some(Instant::now());
    }

    /// Whether the provider takes messages of the campaign these days.
    fn others_go_well(&self) -> bool {
        let taken_at = *self.taken_at.lock();
        taken_at.is_some_and(|at| at.elapsed() < OF_LATE)
    }

    /// Why the campaign's flow is slow, as long as it may be.
    fn throttled(&self) -> Option<Reason> {
        let throttled = self.throttled.lock().clone();
        throttled.filter(|(at, _)| at.elapsed() < THROTTLED).map(|(_, why)| why)
    }

    /// What made a sender give up, if one did.
    pub(super) fn broken(&self) -> Option<DispatchError> {
        self.broken.lock().take()
    }
}

/// Whether it is a sender's turn.
pub(super) enum SendDecision {
    Now(OwnedSemaphorePermit),
    /// Not for so long: the batch is not held meanwhile.
    Later(Duration),
    /// Only one message at a time: the flow is throttled.
    OneByOne,
    /// Only the first of these together, and then the others: a limit leaves no more.
    Parts(Vec<u8>, Vec<u8>),
    Expired,
    Stopped,
}

/// What became of some messages of a batch.
pub(super) enum SendResult {
    /// What follows from the answer, how many were asked for, and which of them are still open. Where
    /// something is to be done about it, the slot is kept until then: with as many slots as requests
    /// under way, no further one meets the same.
    Answered { asked: usize, next: FollowUp, open: Vec<u8>, slot: Option<OwnedSemaphorePermit> },
    /// They are not sent for so long.
    PutOff(Vec<u8>, Duration),
    /// They must be asked for one by one.
    OneByOne(Vec<u8>),
    /// They must be asked for in two parts.
    Parts(Vec<u8>, Vec<u8>),
    /// The campaign does not run any more.
    Stopped,
}

impl<L: Ledger, Q: Queue> Sending<L, Q> {
    /// Sends batches until it is stopped.
    pub(super) async fn send_batches(&self) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                next = self.queue.next() => next,
            };
            let sent = match next {
                Ok((batch, receipt)) => {
                    let traced = self.trace.batch(batch.batch.number, batch.left.len(), batch.attempt);
                    let span = tracing::info_span!(
                        "batch", campaign = %self.id, batch = batch.batch.number, trace_id = traces::trace_id(&traced),
                    );
                    let sent = self.send_batch(batch, receipt);
                    let sent = sent.with_context(traced.clone()).instrument(span).await;
                    if sent.is_err() {
                        traces::failed(&traced);
                    }
                    sent
                }
                Err(fault) => Err(fault.into()),
            };
            if let Err(fault) = sent {
                self.state.broken.lock().get_or_insert(fault);
                return self.halt();
            }
        }
    }

    /// Begins nothing new, and tells so.
    pub(super) fn halt(&self) {
        self.stop.cancel();
        self.wake_up.notify_one();
    }

    /// Stops the campaign, for every worker, with the reason.
    pub(super) async fn hold(&self, reason: Reason) -> Result<(), DispatchError> {
        tracing::warn!(campaign = %self.id, "held: {reason}");
        let held = transitions::hold(&self.ledger, &self.id, reason).await;
        self.halt();
        Ok(held?)
    }

    /// The provider said that it is too much: slows the account for every worker. Returns for how long
    /// nothing goes out.
    pub(super) async fn slow_down(&self, retry_after: Option<Duration>) -> Result<Duration, DispatchError> {
        let pause = self.account.pause(retry_after);
        self.account.limits.slow_down(pause).await.map_err(LedgerError::from)?;
        Ok(pause)
    }

    /// The flow is throttled: slows every campaign of the account that uses it.
    pub(super) async fn throttle(&self, detail: String) -> Result<(), DispatchError> {
        let Some(flow) = &self.flow else { return Ok(()) };
        if self.account.limits.throttle(flow).await.map_err(LedgerError::from)? {
            self.events
                .publish(&[Events::throttled(self.ledger.time(), &self.job.account, flow, &detail)])
                .await;
        }
        let note = Reason::Throttled { flow: flow.clone(), detail };
        *self.state.throttled.lock() = Some((Instant::now(), note.clone()));
        self.note(Some(note)).await
    }

    /// Waits for the buckets, within the window. Tokens that come when it has closed are not used:
    /// yesterday's must not go out beside today's.
    pub(super) async fn wait_for_turn(
        &self,
        queued: &QueuedBatch,
        set: &[u8],
    ) -> Result<SendDecision, DispatchError> {
        let is_open = || self.job.schedule.at(self.ledger.time());
        match is_open() {
            Opening::Open { .. } => {}
            Opening::Expired => return Ok(SendDecision::Expired),
            Opening::Opens(_) => {
                self.halt();
                return Ok(SendDecision::Stopped);
            }
        }
        // WhatsApp counts people, whatever their spelling.
        let person = |index: &u8| Some(queued.batch.recipient(usize::from(*index))?.phone.person());
        let recipients: Vec<Phone> = set.iter().filter_map(person).collect();
        let turn = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(SendDecision::Stopped),
            turn = self.wait_for_buckets(&recipients) => turn?,
        };
        match (turn, is_open()) {
            (_, Opening::Expired) => Ok(SendDecision::Expired),
            (_, Opening::Opens(_)) => {
                self.halt();
                Ok(SendDecision::Stopped)
            }
            (Admission::Deferred(wait), _) => {
                let asked_again = wait.clamp(LONGEST_WAIT, ASKED_AGAIN);
                {
                    // First, so that no other sender's success takes the note back.
                    let until = Instant::now() + asked_again;
                    let mut put_off = self.state.put_off.lock();
                    *put_off = put_off.map_or(Some(until), |known| Some(known.max(until)));
                }
                let due = self.ledger.time() + wait;
                let throttled = self.state.throttled().map(|why| why.to_string());
                self.note(Some(Reason::Limits { due: Some(due), throttled })).await?;
                Ok(SendDecision::Later(asked_again))
            }
            (Admission::OneByOne, _) => Ok(SendDecision::OneByOne),
            (Admission::Only(places), _) => {
                let first: Vec<u8> = places.iter().filter_map(|place| set.get(*place).copied()).collect();
                let rest = set.iter().copied().filter(|index| !first.contains(index)).collect();
                Ok(SendDecision::Parts(first, rest))
            }
            (Admission::Granted(place), _) => Ok(SendDecision::Now(place)),
        }
    }

    /// Waits for the buckets, and tells so in the campaign's status when it takes long.
    async fn wait_for_buckets(&self, recipients: &[Phone]) -> Result<Admission, DispatchError> {
        let turn = std::pin::pin!(self.account.limits.take(&self.limits, self.job.from, recipients));
        // Told beside it: while it is not polled, nobody has what it holds, and this may need that itself.
        let telling = std::pin::pin!(async {
            tokio::time::sleep(LONG_WAIT).await;
            self.note(Some(Reason::Limits { due: None, throttled: None })).await
        });
        let taken = match future::select(turn, telling).await {
            Either::Left((taken, _)) => taken,
            Either::Right((told, turn)) => {
                told?;
                turn.await
            }
        };
        Ok(taken.map_err(LedgerError::from)?)
    }

    /// Claims, sends and records some messages.
    pub(super) async fn send_set(
        &self,
        queued: &QueuedBatch,
        writer: &BatchWriter<L>,
        set: Vec<u8>,
        purpose: Purpose,
        slot: OwnedSemaphorePermit,
    ) -> Result<SendResult, DispatchError> {
        let batch = &queued.batch;
        let asked = set.len();
        // Claim before request: if this process dies from here on, these messages are in doubt.
        let claim = writer.claim(set, purpose).await?;
        if !claim.running {
            self.halt();
            return Ok(SendResult::Stopped);
        }
        let claimed = &claim.messages;
        if claimed.is_empty() {
            return Ok(SendResult::Answered { asked, next: FollowUp::Done, open: Vec::new(), slot: None });
        }
        let provider: &dyn Provider = &*self.account.provider;
        let mut body = RequestBody::new(self.account.kind, self.state.body_bytes.load(Ordering::Relaxed));
        for index in claimed {
            if let Some(recipient) = batch.recipient(usize::from(*index))
                && let Err(skip) = body.message(|out| self.template.render(&recipient, out))
            {
                // The plan has rendered this very message; that it fails now is a fault of ours.
                let outcomes = claimed.iter().map(|index| (*index, Outcome::Released).into()).collect();
                writer.record(claim.token, outcomes).await?;
                let reason =
                    format!("row {} could be planned and not rendered: {}", recipient.row, skip.detail);
                let next = FollowUp::Hold { scope: Scope::Campaign, reason };
                return Ok(SendResult::Answered { asked, next, open: Vec::new(), slot: Some(slot) });
            }
        }
        let request = provider.request(self.endpoint.clone(), body);
        self.state.body_bytes.fetch_max(request.body.len(), Ordering::Relaxed);

        let begun = Instant::now();
        let traced = traces::request(&self.job.account, &self.endpoint, claimed.len());
        // Noted beside the request, so that nobody waits for it; what is recorded is noted.
        let sending = async {
            let answer = self.account.transport.post(request, claim.start_by).await;
            (answer, begun.elapsed())
        };
        let ((answer, latency), noted) = tokio::join!(sending, self.note_sent(queued, claimed));
        if let Err(fault) = noted {
            tracing::warn!("answers that name no message may not find theirs: {fault}");
        }
        traced.end(match &answer {
            Ok(reply) => Ok(reply.status),
            Err(Failure::NotSent(_)) => Err("not_sent"),
            Err(Failure::MayBeSent(_)) => Err("in_doubt"),
        });
        let account = self.job.account.clone();
        metrics::histogram!("flowcast_request_duration_seconds", "account" => account).record(latency);
        let request = answer.as_ref().ok().and_then(|reply| provider.request_id(reply));
        let known_as = answer.as_ref().ok().and_then(|reply| provider.recipient(reply));
        let answer = answer.map(|reply| {
            let said = provider.parse(&reply, claimed.len());
            classify(&reply, said)
        });
        let around = DecisionInputs {
            resend: self.job.on_in_doubt == OnInDoubt::Resend,
            gives_up: queued.attempt + 1 >= TRIES && self.state.others_go_well(),
        };
        let decision = decide(answer, claimed, around);
        let (next, open) = (decision.next, decision.again);
        let went_well = matches!(next, FollowUp::Done);
        self.account.limits.concurrency.answered(latency, went_well);
        let is = |state: fn(&Outcome) -> bool| decision.outcomes.iter().any(|(_, outcome)| state(outcome));
        let taken = is(|outcome| matches!(outcome, Outcome::Accepted { .. }));
        let rejected = is(|outcome| matches!(outcome, Outcome::Rejected { .. }));
        if let (Some(number), [index], true) = (known_as, claimed.as_slice(), taken) {
            self.note_other_number(queued, *index, number).await;
        }
        if let Some(request) = &request {
            // What a provider's support asks for first.
            let all = claimed.len();
            if went_well && !rejected {
                tracing::debug!("request {request} of {all} messages was answered");
            } else {
                tracing::info!("request {request} of {all} messages did not go well");
            }
        }
        // Record after answer. The slot is kept until then: what a death leaves in doubt is never more
        // than as many requests as may be under way.
        self.record(queued, writer, &claim, decision.outcomes, request).await?;
        let slot = (!went_well).then_some(slot);

        if !matches!(next, FollowUp::InDoubt(_)) {
            self.state.doubts.store(0, Ordering::Relaxed);
        }
        if taken {
            self.state.went_well();
            self.account.went_well();
            self.note(None).await?;
        }
        Ok(SendResult::Answered { asked, next, open, slot })
    }

    /// Notes to whom messages go, where the account wants answers found by their number.
    async fn note_sent(&self, queued: &QueuedBatch, claimed: &[u8]) -> Result<(), LedgerError> {
        let Some(within) = self.account.answers_within else { return Ok(()) };
        let phone = |index: &u8| Some((queued.batch.recipient(usize::from(*index))?.phone, *index));
        let messages: Vec<(Phone, u8)> = claimed.iter().filter_map(phone).collect();
        let (account, number) = (&self.job.account, queued.batch.number);
        self.ledger.note_sent(account, within, &self.id, number, &messages).await
    }

    /// Notes a message under the number by which the provider knows its recipient, where that is another one: answers come
    /// from it.
    async fn note_other_number(&self, queued: &QueuedBatch, index: u8, number: Phone) {
        let Some(within) = self.account.answers_within else { return };
        let recipient = queued.batch.recipient(usize::from(index));
        if recipient.is_none_or(|recipient| recipient.phone.person() == number.person()) {
            return;
        }
        let (account, batch) = (&self.job.account, queued.batch.number);
        if let Err(error) = self.ledger.note_sent(account, within, &self.id, batch, &[(number, index)]).await
        {
            tracing::warn!(campaign = %self.id, %error, "answers from the recipient's other number may not find their message");
        }
    }

    /// The job's `custom_data` as it went out.
    fn custom_data(&self, recipient: &Recipient<'_>) -> Option<String> {
        let text = self.job.custom_data.as_ref()?;
        let Some(sent) = self.template.text_at("/custom_data", recipient) else { return Some(text.clone()) };
        // Meta has one field for both.
        let reference = format!("{} ", recipient.message_ref());
        Some(sent.strip_prefix(&reference).map(str::to_owned).unwrap_or(sent))
    }

    /// Records outcomes, with what is needed to send the failed ones again; then tells others.
    async fn record(
        &self,
        queued: &QueuedBatch,
        writer: &BatchWriter<L>,
        claim: &Claim,
        outcomes: Vec<(u8, Outcome)>,
        request: Option<String>,
    ) -> Result<(), DispatchError> {
        let (batch, now) = (&queued.batch, self.ledger.time());
        let mut counts = [0_u64; MESSAGES.len()];
        let mut events = Vec::new();
        let mut recorded = Vec::with_capacity(outcomes.len());
        for (message, outcome) in outcomes {
            if let Some(nth) = MESSAGES.iter().position(|state| *state == outcome.state()) {
                counts[nth] += 1;
            }
            let failed = matches!(outcome, Outcome::Rejected { .. } | Outcome::InDoubt(_));
            let recipient = batch.recipient(usize::from(message)).filter(|_| failed);
            if let Some(recipient) = recipient.filter(|_| self.events.are_published()) {
                let custom_data = self.custom_data(&recipient);
                let job = OfJob { account: &self.job.account, custom_data: custom_data.as_deref() };
                events.extend(Events::failed(now, job, &recipient, &outcome));
            }
            let payload =
                recipient.map(|recipient| replay::payload(&recipient, self.template.columns().len()));
            recorded.push(Recorded { message, outcome, payload });
        }
        let open = writer.record_answer(claim.token, recorded, request).await?;
        // Before anything that could complete the campaign.
        self.stop_when_too_many().await?;
        for (state, count) in MESSAGES.iter().zip(counts).filter(|(_, count)| *count > 0) {
            let account = self.job.account.clone();
            metrics::counter!("flowcast_messages_total", "account" => account, "state" => state.as_str())
                .increment(count);
            if *state == MessageState::InDoubt {
                metrics::counter!("flowcast_messages_in_doubt_total", "reason" => "no_clear_response")
                    .increment(count);
            }
        }
        // Told after the ledger has it.
        self.events.publish(&events).await;
        self.wake_at_the_end(open);
        Ok(())
    }

    /// The campaign may have come to its end.
    pub(super) fn wake_at_the_end(&self, open: u64) {
        if open == 0 && self.state.planned.load(Ordering::Relaxed) {
            self.wake_up.notify_one();
        }
    }

    /// Judges by the campaign's counts, after an answer was recorded, whether too many messages are rejected. Answers
    /// that were recorded before somebody else began to judge are judged with theirs.
    async fn stop_when_too_many(&self) -> Result<(), DispatchError> {
        let Some(stop_when) = self.job.stop_when else { return Ok(()) };
        let nth = self.state.answers.fetch_add(1, Ordering::SeqCst) + 1;
        let mut judged = self.state.judged.lock().await;
        if *judged >= nth {
            return Ok(());
        }
        let answers = self.state.answers.load(Ordering::SeqCst);
        if transitions::judge(&self.ledger, &self.id, stop_when).await? {
            tracing::warn!(campaign = %self.id, "held: stop_when is reached");
            self.halt();
        }
        *judged = answers;
        Ok(())
    }

    /// What is left of some messages when those to numbers that must never be messaged are skipped. Asked
    /// just before the claim: whoever says STOP while a campaign is sent gets nothing more of it.
    pub(super) async fn without_suppressed(
        &self,
        queued: &QueuedBatch,
        writer: &BatchWriter<L>,
        set: Vec<u8>,
    ) -> Result<Vec<u8>, DispatchError> {
        let (suppressed, set): (Vec<u8>, Vec<u8>) = {
            let list = self.suppressed.read();
            set.into_iter().partition(|index| {
                let recipient = queued.batch.recipient(usize::from(*index));
                recipient.is_some_and(|recipient| list.contains(recipient.phone))
            })
        };
        if !suppressed.is_empty() {
            self.skip(writer, suppressed, SkipReason::Suppressed, "asked for no more messages").await?;
        }
        Ok(set)
    }

    /// Messages that are never sent, for a reason that came after they were planned.
    pub(super) async fn skip(
        &self,
        writer: &BatchWriter<L>,
        set: Vec<u8>,
        reason: SkipReason,
        detail: &str,
    ) -> Result<(), DispatchError> {
        let outcome = Outcome::Skipped { reason, detail: detail.into() };
        let outcomes = set.into_iter().map(|index| (index, outcome.clone()).into()).collect();
        let open = writer.record(0, outcomes).await?;
        self.wake_at_the_end(open);
        Ok(())
    }

    /// Tells in the campaign's status what it waits for, when that changes.
    pub(super) async fn note(&self, note: Option<Reason>) -> Result<(), DispatchError> {
        // The supervisor shows what keeps the ledger or the queue from working, which matters more.
        if self.ledger.trouble().or_else(|| self.queue.trouble()).is_some() {
            // Afterwards it is written again.
            *self.state.note.lock() = None;
            return Ok(());
        }
        let put_off = *self.state.put_off.lock();
        if note.is_none() && put_off.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        {
            let mut known = self.state.note.lock();
            if *known == note {
                return Ok(());
            }
            known.clone_from(&note);
        }
        if let Some(note) = &note {
            tracing::debug!("{note}");
        } else {
            tracing::debug!("sending again");
        }
        Ok(transitions::note(&self.ledger, &self.id, note).await?)
    }
}

/// The states of which messages are counted in the metrics.
const MESSAGES: [MessageState; 4] =
    [MessageState::Accepted, MessageState::Rejected, MessageState::InDoubt, MessageState::Pending];
