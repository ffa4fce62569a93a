//! Senders: for each batch wait for the buckets, claim, send, record, acknowledge — in that order.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::backoff::{TRIES, backoff};
use super::events::Events;
use super::verdict::{Circumstances, Next, judge};
use super::{Account, DispatchError, again};
use crate::campaign::job::OnInDoubt;
use crate::campaign::{CampaignId, CampaignState, Job, Opening, Phone, SkipReason, Template};
use crate::ledger::{Claim, Ledger, LedgerError, Outcome, PlannedBatch, Recorded};
use crate::limiter::{CampaignLimits, LONGEST_WAIT, Turn, batch_size};
use crate::provider::{Provider, Scope, prove};
use crate::queue::{Queue, QueuedBatch};

/// After so many requests in a row whose outcome nobody knows, a campaign is held: something
/// between us and the provider is broken, and every further request would be a doubt more.
const DOUBTS: u32 = 5;
/// After so many failures in a row within a batch nothing more of it is begun.
const FAILURES: usize = 3;
/// A provider that took a message within this time works: longer than all tries of another take.
const OF_LATE: Duration = Duration::from_mins(1);
/// A wait for tokens that is longer is told in the campaign's status; and a worker that is stopped
/// waits no longer for the broker.
const LONG_WAIT: Duration = Duration::from_secs(3);

/// What all senders of a campaign in this worker share.
pub(super) struct Sending<L, Q> {
    pub(super) id: CampaignId,
    pub(super) ledger: L,
    pub(super) queue: Q,
    pub(super) account: Arc<Account>,
    pub(super) job: Arc<Job>,
    pub(super) template: Template,
    pub(super) limits: CampaignLimits,
    pub(super) events: Events,
    /// Cancelled: nothing new begins, what is under way is finished.
    pub(super) stop: CancellationToken,
    /// Rung when the campaign may have come to its end, or has stopped by itself.
    pub(super) bell: Arc<Notify>,
    pub(super) state: State,
}

/// What changes while a campaign is sent.
#[derive(Default)]
pub(super) struct State {
    /// Whether the whole audience is planned: then the campaign may end with any record.
    pub(super) planned: AtomicBool,
    /// Requests in a row whose outcome nobody knows.
    doubts: AtomicU32,
    /// When the provider last took a message of the campaign.
    taken_at: Mutex<Option<Instant>>,
    /// What the campaign waits for, as it was last told.
    note: Mutex<Option<String>>,
    /// Until when a batch is put off because of a limit; so long the status says so.
    put_off: Mutex<Option<Instant>>,
    /// What made a sender give up.
    broken: Mutex<Option<DispatchError>>,
}

impl State {
    /// The provider took a message.
    fn went_well(&self) {
        *self.taken_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the provider takes messages of the campaign these days.
    fn others_go_well(&self) -> bool {
        let taken_at = *self.taken_at.lock().unwrap_or_else(PoisonError::into_inner);
        taken_at.is_some_and(|at| at.elapsed() < OF_LATE)
    }

    /// What made a sender give up, if one did.
    pub(super) fn broken(&self) -> Option<DispatchError> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether it is a sender's turn.
enum Mine {
    Now(tokio::sync::OwnedSemaphorePermit),
    /// Not for so long: the batch is not held meanwhile.
    Later(Duration),
    Expired,
    Stopped,
}

/// What became of some messages of a batch.
enum Sent {
    /// What follows from the answer, how many were asked for, and which of them are still open.
    Answered { asked: usize, next: Next, open: Vec<u8> },
    /// They are not sent for so long.
    PutOff(Vec<u8>, Duration),
    /// The campaign does not run any more.
    Stopped,
}

/// One way through what is left of a batch.
#[derive(Default)]
struct Round {
    /// What is still to be sent, the next one last.
    sets: Vec<Vec<u8>>,
    /// What is to be tried again later.
    again: Vec<u8>,
    /// And how long to wait until then.
    wait: Duration,
    /// Whether something was settled.
    settled: bool,
    /// The last passing failure.
    failed: Option<String>,
    /// How many such failures came in a row.
    failures: usize,
    is_limited: bool,
    goes: Goes,
    broken: Option<DispatchError>,
}

/// Whether more of a batch is begun.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Goes {
    #[default]
    On,
    /// Not now: what is left waits for a while.
    Later,
    /// The campaign does not run any more: the batch goes back as it is.
    Back,
}

impl Round {
    fn new(sets: impl DoubleEndedIterator<Item = Vec<u8>>) -> Self {
        Self { sets: sets.rev().collect(), ..Self::default() }
    }

    /// The next messages to send, if any are to be begun.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.goes == Goes::On { self.sets.pop() } else { None }
    }

    /// Begins nothing more for a while.
    fn later(&mut self) {
        if self.goes == Goes::On {
            self.goes = Goes::Later;
        }
    }

    /// What is not settled, in its order.
    fn left(&mut self) -> Vec<u8> {
        let mut left = std::mem::take(&mut self.again);
        left.extend(self.sets.drain(..).flatten());
        left.sort_unstable();
        left
    }
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
                    let span = tracing::info_span!("batch", campaign = %self.id, batch = batch.batch.number);
                    self.send_batch(batch, receipt).instrument(span).await
                }
                Err(fault) => Err(fault.into()),
            };
            if let Err(fault) = sent {
                self.state.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
                return self.halt();
            }
        }
    }

    /// Begins nothing new, and tells so.
    fn halt(&self) {
        self.stop.cancel();
        self.bell.notify_one();
    }

    /// Stops the campaign, for every worker, with the reason.
    async fn hold(&self, reason: String) -> Result<(), DispatchError> {
        tracing::warn!(campaign = %self.id, "held: {reason}");
        let held = self.ledger.change_state(&self.id, CampaignState::Held, Some(reason)).await;
        self.halt();
        match held {
            // A person was quicker.
            Ok(()) | Err(LedgerError::IllegalMove { .. }) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Sends what is left of a batch, several requests of it at once where each takes but one message.
    /// A batch that is given up in between goes back to the queue when its receipt is dropped.
    async fn send_batch(&self, mut queued: QueuedBatch, receipt: Q::Receipt) -> Result<(), DispatchError> {
        let account = &self.account;
        let at_once = account.at_once(queued.batch.len());
        // Limits may have changed since it was cut.
        let portion =
            batch_size(self.job.limits.messages, account.limits.rates()).min(account.kind.per_request);
        let mut round = Round::new(queued.left.chunks(portion).map(<[u8]>::to_vec));
        {
            let mut under_way = FuturesUnordered::new();
            loop {
                while under_way.len() < at_once
                    && let Some(set) = round.next()
                {
                    under_way.push(self.send_in_turn(&queued, set));
                }
                // What is under way is always finished: a claim whose record is missing is a doubt.
                let Some(sent) = under_way.next().await else { break };
                if let Err(fault) = self.follow(&mut round, sent, at_once).await {
                    round.broken.get_or_insert(fault);
                    round.goes = Goes::Back;
                }
            }
        }
        if let Some(fault) = round.broken {
            return Err(fault);
        }
        if round.goes == Goes::Back {
            return Ok(());
        }
        if round.settled {
            // What fails next is a first failure again.
            queued.attempt = 0;
        }
        if let Some(detail) = round.failed.take() {
            queued.attempt += 1;
            if queued.attempt >= TRIES {
                return self.hold(format!("{TRIES} tries in a row failed, the last: {detail}")).await;
            }
            round.wait = round.wait.max(backoff(queued.attempt - 1));
            let nth = queued.attempt + 1;
            self.note(Some(format!("try {nth} of {TRIES} follows: {detail}"))).await?;
        }
        let left = round.left();
        if left.is_empty() {
            // Acknowledged only now, after the ledger has every outcome.
            self.queue.acknowledge(receipt).await?;
        } else {
            queued.left = left;
            // A worker that is stopped does not wait for a broker that is away: the batch is still the
            // broker's, and comes again.
            let given_up = async {
                self.stop.cancelled().await;
                tokio::time::sleep(LONG_WAIT).await;
            };
            tokio::select! {
                delayed = self.queue.delay(receipt, queued, round.wait) => delayed?,
                () = given_up => {}
            }
        }
        Ok(())
    }

    /// Waits for its turn and sends some messages of a batch.
    async fn send_in_turn(&self, queued: &QueuedBatch, set: Vec<u8>) -> Result<Sent, DispatchError> {
        match self.wait_for_turn(queued, &set).await? {
            Mine::Now(place) => {
                let sent = self.send_set(queued, set).await;
                drop(place);
                sent
            }
            Mine::Stopped => Ok(Sent::Stopped),
            Mine::Expired => {
                self.expire(queued, set).await?;
                Ok(Sent::Answered { asked: 0, next: Next::Done, open: Vec::new() })
            }
            Mine::Later(time) => Ok(Sent::PutOff(set, time)),
        }
    }

    /// Does what an answer asks for, at once as far as it concerns others.
    async fn follow(
        &self,
        round: &mut Round,
        sent: Result<Sent, DispatchError>,
        at_once: usize,
    ) -> Result<(), DispatchError> {
        let (asked, next, open) = match sent? {
            Sent::Stopped => {
                round.goes = Goes::Back;
                return Ok(());
            }
            Sent::PutOff(set, time) => {
                round.again.extend(set);
                round.wait = round.wait.max(time);
                round.later();
                return Ok(());
            }
            Sent::Answered { asked, next, open } => (asked, next, open),
        };
        if open.len() < asked {
            round.settled = true;
            round.failures = 0;
        }
        match next {
            Next::Done => {}
            Next::Halves => {
                let (first, second) = open.split_at(open.len() / 2);
                round.sets.extend([second.to_vec(), first.to_vec()]);
                return Ok(());
            }
            Next::Limited { retry_after, detail, .. } => {
                // Many answers of one storm are one reason to wait.
                if !round.is_limited {
                    round.is_limited = true;
                    let pause = self.account.pause(retry_after);
                    self.account.limits.slow_down(pause).await.map_err(LedgerError::from)?;
                    round.wait = round.wait.max(pause);
                    let seconds = pause.as_secs_f64().ceil();
                    self.note(Some(format!("the provider limits the rate, on in {seconds} s: {detail}")))
                        .await?;
                }
                round.later();
            }
            Next::Later { detail } => {
                round.failed = Some(detail);
                round.failures += 1;
                // One failure among many requests stops no other; some in a row would all fare the same.
                if round.failures >= at_once.min(FAILURES) {
                    round.later();
                }
            }
            Next::InDoubt { detail } => {
                let doubts = DOUBTS * u32::try_from(at_once).unwrap_or(u32::MAX);
                if self.state.doubts.fetch_add(1, Ordering::Relaxed) + 1 >= doubts {
                    let reason = format!(
                        "the outcome of {doubts} requests in a row is unknown, of the last because: {detail}"
                    );
                    self.hold(reason).await?;
                }
                if !open.is_empty() {
                    round.wait = round.wait.max(backoff(0));
                    // The rest of the batch would meet the same; it waits along.
                    if at_once == 1 {
                        round.later();
                    }
                }
            }
            Next::Hold { reason, .. } => {
                round.goes = Goes::Back;
                self.hold(reason).await?;
            }
        }
        round.again.extend(open);
        Ok(())
    }

    /// Waits for the buckets, within the window. Tokens that come when it has closed are not used:
    /// yesterday's must not go out beside today's.
    async fn wait_for_turn(&self, queued: &QueuedBatch, set: &[u8]) -> Result<Mine, DispatchError> {
        let is_open = || self.job.schedule.at(Timestamp::now());
        match is_open() {
            Opening::Open { .. } => {}
            Opening::Expired => return Ok(Mine::Expired),
            Opening::Opens(_) => {
                self.halt();
                return Ok(Mine::Stopped);
            }
        }
        let recipients: Vec<Phone> =
            set.iter().filter_map(|index| Some(queued.batch.recipient(usize::from(*index))?.phone)).collect();
        let turn = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(Mine::Stopped),
            turn = self.wait_for_buckets(&recipients) => turn?,
        };
        match (turn, is_open()) {
            (_, Opening::Expired) => Ok(Mine::Expired),
            (_, Opening::Opens(_)) => {
                self.halt();
                Ok(Mine::Stopped)
            }
            (Turn::Later(wait), _) => {
                {
                    // First, so that no other sender's success takes the note back.
                    let until = Instant::now() + wait;
                    let mut put_off = self.state.put_off.lock().unwrap_or_else(PoisonError::into_inner);
                    *put_off = put_off.map_or(Some(until), |known| Some(known.max(until)));
                }
                let due = Timestamp::now() + wait;
                self.note(Some(format!("waits for its limits; what is put off is due at {due:.0}"))).await?;
                Ok(Mine::Later(wait.max(LONGEST_WAIT)))
            }
            (Turn::Go(place), _) => Ok(Mine::Now(place)),
        }
    }

    /// Waits for the buckets, and tells so in the campaign's status when it takes long.
    async fn wait_for_buckets(&self, recipients: &[Phone]) -> Result<Turn, DispatchError> {
        let mut turn = std::pin::pin!(self.account.limits.take(&self.limits, self.job.from, recipients));
        let taken = if let Ok(taken) = tokio::time::timeout(LONG_WAIT, &mut turn).await {
            taken
        } else {
            self.note(Some("waits for its limits".into())).await?;
            turn.await
        };
        Ok(taken.map_err(LedgerError::from)?)
    }

    /// Claims, sends and records some messages.
    async fn send_set(&self, queued: &QueuedBatch, set: Vec<u8>) -> Result<Sent, DispatchError> {
        let batch = &queued.batch;
        let asked = set.len();
        // Claim before request: if this process dies from here on, these messages are in doubt.
        let claim = self.ledger.claim(PlannedBatch::from(batch), set).await?;
        if !claim.running {
            self.halt();
            return Ok(Sent::Stopped);
        }
        let claimed = &claim.messages;
        if claimed.is_empty() {
            return Ok(Sent::Answered { asked, next: Next::Done, open: Vec::new() });
        }
        let provider: &dyn Provider = &*self.account.provider;
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(claimed.len());
        for index in claimed {
            if let Some(recipient) = batch.recipient(usize::from(*index))
                && let Err(skip) = self.template.render(&recipient, &mut bytes)
            {
                // The plan has rendered this very message; that it fails now is a fault of ours.
                let outcomes = claimed.iter().map(|index| (*index, Outcome::Released).into()).collect();
                self.ledger.record(&self.id, batch.number, claim.token, outcomes).await?;
                let reason =
                    format!("row {} could be planned and not rendered: {}", recipient.row, skip.detail);
                let next = Next::Hold { scope: Scope::Campaign, reason };
                return Ok(Sent::Answered { asked, next, open: Vec::new() });
            }
            ends.push(bytes.len());
        }
        let mut start = 0;
        let messages: Vec<&[u8]> =
            ends.iter().map(|end| &bytes[std::mem::replace(&mut start, *end)..*end]).collect();
        let request = provider.request(self.job.from, &messages);
        drop(bytes);

        let begun = Instant::now();
        let answer = self.account.transport.post(request, claim.start_by).await;
        let account = self.job.account.clone();
        metrics::histogram!("flowcast_request_seconds", "account" => account).record(begun.elapsed());
        let answer = answer.map(|reply| {
            let said = provider.hear(&reply, claimed.len());
            prove(&reply, said)
        });
        let around = Circumstances {
            resend: self.job.on_in_doubt == OnInDoubt::Resend,
            gives_up: queued.attempt + 1 >= TRIES && self.state.others_go_well(),
        };
        let verdict = judge(answer, claimed, around);
        let (next, open) = (verdict.next, verdict.again);
        let is = |state: fn(&Outcome) -> bool| verdict.outcomes.iter().any(|(_, outcome)| state(outcome));
        let taken = is(|outcome| matches!(outcome, Outcome::Accepted { .. }));
        let rejected = is(|outcome| matches!(outcome, Outcome::Rejected { .. }));
        // Record after answer.
        self.record(queued, &claim, verdict.outcomes).await?;

        if !matches!(next, Next::InDoubt { .. }) {
            self.state.doubts.store(0, Ordering::Relaxed);
        }
        if taken {
            self.state.went_well();
            self.account.went_well();
            self.note(None).await?;
        }
        if rejected {
            self.stop_when_too_many().await?;
        }
        Ok(Sent::Answered { asked, next, open })
    }

    /// Records outcomes, with what is needed to send the failed ones again; then tells others.
    async fn record(
        &self,
        queued: &QueuedBatch,
        claim: &Claim,
        outcomes: Vec<(u8, Outcome)>,
    ) -> Result<(), DispatchError> {
        let batch = &queued.batch;
        let mut counts = [0_u64; MESSAGES.len()];
        let mut events = Vec::new();
        let mut recorded = Vec::with_capacity(outcomes.len());
        for (message, outcome) in outcomes {
            if let Some(nth) = MESSAGES.iter().position(|state| *state == outcome.state().as_str()) {
                counts[nth] += 1;
            }
            let failed = matches!(outcome, Outcome::Rejected { .. } | Outcome::InDoubt { .. });
            let recipient = batch.recipient(usize::from(message)).filter(|_| failed);
            events.extend(recipient.and_then(|recipient| self.events.failed(&recipient, &outcome)));
            let payload =
                recipient.map(|recipient| again::payload(&recipient, self.template.columns().len()));
            recorded.push(Recorded { message, outcome, payload });
        }
        let open = self.ledger.record(&self.id, batch.number, claim.token, recorded).await?;
        for (state, count) in MESSAGES.iter().zip(counts).filter(|(_, count)| *count > 0) {
            let account = self.job.account.clone();
            metrics::counter!("flowcast_messages_total", "account" => account, "state" => *state)
                .increment(count);
        }
        // Told after the ledger has it.
        self.events.tell(&events).await;
        self.ring_at_the_end(open);
        Ok(())
    }

    /// The campaign may have come to its end.
    fn ring_at_the_end(&self, open: u64) {
        if open == 0 && self.state.planned.load(Ordering::Relaxed) {
            self.bell.notify_one();
        }
    }

    /// The job says how many rejections are too many.
    async fn stop_when_too_many(&self) -> Result<(), DispatchError> {
        let Some(stop_when) = self.job.stop_when else { return Ok(()) };
        let Some(campaign) = self.ledger.campaign(&self.id).await? else { return Ok(()) };
        let counts = campaign.counts;
        let settled = counts.accepted + counts.rejected + counts.in_doubt;
        if campaign.state == CampaignState::Running && stop_when.is_reached(counts.rejected, settled) {
            let reason = format!(
                "{} of {settled} messages were rejected, and stop_when says {} %",
                counts.rejected, stop_when.rejected_percent
            );
            self.hold(reason).await?;
        }
        Ok(())
    }

    /// Messages whose campaign expired first are never sent.
    async fn expire(&self, queued: &QueuedBatch, set: Vec<u8>) -> Result<(), DispatchError> {
        // An empty claim writes the batch down where the checkpoint has not done so yet.
        self.ledger.claim(PlannedBatch::from(&queued.batch), Vec::new()).await?;
        let outcome = Outcome::Skipped {
            reason: SkipReason::Expired,
            detail: "the campaign's expires_at passed first".into(),
        };
        let outcomes = set.into_iter().map(|index| (index, outcome.clone()).into()).collect();
        let open = self.ledger.record(&self.id, queued.batch.number, 0, outcomes).await?;
        self.ring_at_the_end(open);
        Ok(())
    }

    /// Tells in the campaign's status what it waits for, when that changes.
    async fn note(&self, note: Option<String>) -> Result<(), DispatchError> {
        let put_off = *self.state.put_off.lock().unwrap_or_else(PoisonError::into_inner);
        if note.is_none() && put_off.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        {
            let mut known = self.state.note.lock().unwrap_or_else(PoisonError::into_inner);
            if *known == note {
                return Ok(());
            }
            known.clone_from(&note);
        }
        tracing::debug!("{}", note.as_deref().unwrap_or("sending again"));
        Ok(self.ledger.note(&self.id, note).await?)
    }
}

/// The states of which messages are counted in the metrics.
const MESSAGES: [&str; 4] = ["accepted", "rejected", "in_doubt", "pending"];
