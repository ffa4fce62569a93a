//! Senders: for each batch wait for the buckets, claim, send, record, acknowledge — in that order.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::backoff::{TRIES, backoff};
use super::gate::{self, Passed};
use super::verdict::{Next, judge};
use super::{Account, DispatchError, Prepared};
use crate::campaign::job::OnInDoubt;
use crate::campaign::{CampaignId, CampaignState, Opening, SkipReason};
use crate::ledger::{Ledger, Outcome, PlannedBatch};
use crate::limiter::CampaignLimits;
use crate::provider::Provider;
use crate::queue::{Queue, QueuedBatch};

/// After so many requests in a row whose outcome nobody knows, a campaign is held: something
/// between us and the provider is broken, and every further request would be a doubt more.
const DOUBTS: u32 = 5;
/// A wait for tokens that is longer is told in the campaign's status.
const LONG_WAIT: Duration = Duration::from_secs(3);

/// What all senders of a campaign share.
pub(super) struct Sending<L, Q> {
    pub(super) id: CampaignId,
    pub(super) ledger: L,
    pub(super) queue: Q,
    pub(super) account: Arc<Account>,
    pub(super) prepared: Arc<Prepared>,
    pub(super) limits: CampaignLimits,
    pub(super) control: Control,
    pub(super) doubts: AtomicU32,
}

/// How senders and planner are stopped, and why.
pub(super) struct Control {
    /// Cancelled: nothing new begins, what is under way is finished.
    pub(super) stop: CancellationToken,
    /// Batches that are published and not acknowledged.
    pub(super) outstanding: tokio::sync::watch::Sender<u64>,
    why: Mutex<Option<Why>>,
    note: Mutex<Option<String>>,
}

/// Why sending stopped by itself.
#[derive(Debug)]
pub(super) enum Why {
    Held(String),
    Broken(DispatchError),
}

impl Control {
    pub(super) fn new(stop: CancellationToken) -> Self {
        let outstanding = tokio::sync::watch::Sender::new(0);
        Self { stop, outstanding, why: Mutex::default(), note: Mutex::default() }
    }

    /// Stops for a reason; the first one counts.
    pub(super) fn stop_for(&self, why: Why) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.stop.cancel();
    }

    /// Whether it stopped because the campaign is held.
    pub(super) fn is_held(&self) -> bool {
        matches!(*self.why.lock().unwrap_or_else(PoisonError::into_inner), Some(Why::Held(_)))
    }

    pub(super) fn why(&self) -> Option<Why> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<L: Ledger, Q: Queue> Sending<L, Q> {
    /// Sends batches until it is stopped.
    pub(super) async fn send_batches(&self) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.control.stop.cancelled() => return,
                next = self.queue.next() => next,
            };
            let sent = match next {
                Ok((batch, receipt)) => self.send_batch(batch, receipt).await,
                Err(fault) => Err(fault.into()),
            };
            if let Err(fault) = sent {
                return self.control.stop_for(Why::Broken(fault));
            }
        }
    }

    /// Sends what is left of a batch. A batch that is given up in between goes back to the queue
    /// when its receipt is dropped.
    async fn send_batch(&self, mut queued: QueuedBatch, receipt: Q::Receipt) -> Result<(), DispatchError> {
        let portion = self.prepared.batch_size.max(1);
        let mut sets: Vec<Vec<u8>> = queued.left.chunks(portion).rev().map(<[u8]>::to_vec).collect();
        let mut again = Vec::new();
        let mut wait = Duration::ZERO;
        while let Some(set) = sets.pop() {
            match self.wait_for_turn(set.len()).await {
                Passed::Open => {}
                Passed::Stopped => return Ok(()),
                Passed::Expired => {
                    self.expire(&queued, set).await?;
                    continue;
                }
            }
            let asked = set.len();
            let (next, open) = self.send_set(&queued, set).await?;
            if open.len() < asked {
                // Something was settled: what fails next is a first failure again.
                queued.attempt = 0;
            }
            match next {
                Next::Done => {}
                Next::Halves => {
                    let (first, second) = open.split_at(open.len() / 2);
                    sets.extend([second.to_vec(), first.to_vec()]);
                    continue;
                }
                Next::Limited { retry_after, detail } => {
                    let pause = self.account.slow_down(retry_after);
                    wait = wait.max(pause);
                    let seconds = pause.as_secs_f64().ceil();
                    self.note(Some(format!("the provider limits the rate, on in {seconds} s: {detail}")))
                        .await?;
                }
                Next::Later { detail } => {
                    queued.attempt += 1;
                    if queued.attempt >= TRIES {
                        let reason = format!("{TRIES} tries in a row failed, the last: {detail}");
                        self.control.stop_for(Why::Held(reason));
                        return Ok(());
                    }
                    wait = wait.max(backoff(queued.attempt - 1));
                    let nth = queued.attempt + 1;
                    self.note(Some(format!("try {nth} of {TRIES} follows: {detail}"))).await?;
                }
                Next::InDoubt { detail } => {
                    if self.doubts.fetch_add(1, Ordering::Relaxed) + 1 >= DOUBTS {
                        let reason = format!(
                            "the outcome of {DOUBTS} requests in a row is unknown, of the last because: {detail}"
                        );
                        self.control.stop_for(Why::Held(reason));
                    }
                    wait = wait.max(if open.is_empty() { Duration::ZERO } else { backoff(queued.attempt) });
                }
                Next::Hold { reason } => {
                    self.control.stop_for(Why::Held(reason));
                    return Ok(());
                }
            }
            let waits = !open.is_empty();
            again.extend(open);
            if waits {
                // The rest of the batch would meet the same; it waits along.
                again.extend(sets.drain(..).flatten());
            }
        }
        if again.is_empty() {
            // Acknowledged only now, after the ledger has every outcome.
            self.queue.acknowledge(receipt).await?;
            self.control.outstanding.send_modify(|count| *count -= 1);
        } else {
            queued.left = again;
            self.queue.delay(receipt, queued, wait).await?;
        }
        Ok(())
    }

    /// Waits for the window, then for the buckets. A window that closes meanwhile is waited for
    /// before the buckets are asked anew: tokens of yesterday must not go out beside today's.
    async fn wait_for_turn(&self, count: usize) -> Passed {
        let schedule = &self.prepared.job.schedule;
        let closed = |at| async move {
            // What it waits for is told as well as it can be; a ledger that fails is met at the claim.
            let _ = self.note(Some(format!("outside its sending window, which opens at {at}"))).await;
        };
        loop {
            let passed = gate::pass(schedule, &self.control.stop, closed).await;
            if passed != Passed::Open {
                return passed;
            }
            tokio::select! {
                biased;
                () = self.control.stop.cancelled() => return Passed::Stopped,
                () = self.wait_for_buckets(count) => {}
            }
            if matches!(schedule.at(Timestamp::now()), Opening::Open { .. }) {
                return Passed::Open;
            }
        }
    }

    /// Waits for the buckets, and tells so in the campaign's status when it takes long.
    async fn wait_for_buckets(&self, count: usize) {
        let mut turn = std::pin::pin!(self.account.limits.take(&self.limits, count));
        if tokio::time::timeout(LONG_WAIT, &mut turn).await.is_err() {
            let _ = self.note(Some("waits for its limits".into())).await;
            turn.await;
        }
    }

    /// Claims, sends and records some messages. Returns what follows, and those still open.
    async fn send_set(&self, queued: &QueuedBatch, set: Vec<u8>) -> Result<(Next, Vec<u8>), DispatchError> {
        let batch = &queued.batch;
        // Claim before request: if this process dies from here on, these messages are in doubt.
        let claimed = self.ledger.claim(PlannedBatch::from(batch), set).await?;
        if claimed.is_empty() {
            return Ok((Next::Done, Vec::new()));
        }
        let provider: &dyn Provider = &*self.account.provider;
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(claimed.len());
        for index in &claimed {
            if let Some(recipient) = batch.recipient(usize::from(*index))
                && let Err(skip) = self.prepared.template.render(&recipient, &mut bytes)
            {
                // The plan has rendered this very message; that it fails now is a fault of ours.
                let outcomes = claimed.iter().map(|index| (*index, Outcome::Released)).collect();
                self.ledger.record(&self.id, batch.number, outcomes).await?;
                let reason =
                    format!("row {} could be planned and not rendered: {}", recipient.row, skip.detail);
                return Ok((Next::Hold { reason }, Vec::new()));
            }
            ends.push(bytes.len());
        }
        let mut start = 0;
        let messages: Vec<&[u8]> =
            ends.iter().map(|end| &bytes[std::mem::replace(&mut start, *end)..*end]).collect();
        let request = provider.request(&messages);
        drop(bytes);

        let answer = self.account.transport.post(request).await;
        let answer = answer.map(|reply| provider.read(&reply, claimed.len()));
        let resend = self.prepared.job.on_in_doubt == OnInDoubt::Resend;
        let verdict = judge(answer, &claimed, resend);
        let (next, again) = (verdict.next, verdict.again);
        let taken = verdict.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Accepted { .. }));
        let rejected =
            verdict.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Rejected { .. }));
        // Record after answer.
        self.ledger.record(&self.id, batch.number, verdict.outcomes).await?;

        if !matches!(next, Next::InDoubt { .. }) {
            self.doubts.store(0, Ordering::Relaxed);
        }
        if taken {
            self.account.went_well();
            self.note(None).await?;
        }
        if rejected {
            self.stop_when_too_many().await?;
        }
        Ok((next, again))
    }

    /// The job says how many rejections are too many.
    async fn stop_when_too_many(&self) -> Result<(), DispatchError> {
        let Some(stop_when) = self.prepared.job.stop_when else { return Ok(()) };
        let Some(campaign) = self.ledger.campaign(&self.id).await? else { return Ok(()) };
        let counts = campaign.counts;
        let settled = counts.accepted + counts.rejected + counts.in_doubt;
        if stop_when.is_reached(counts.rejected, settled) {
            let reason = format!(
                "{} of {settled} messages were rejected, and stop_when says {} %",
                counts.rejected, stop_when.rejected_percent
            );
            self.control.stop_for(Why::Held(reason));
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
        let outcomes = set.into_iter().map(|index| (index, outcome.clone())).collect();
        Ok(self.ledger.record(&self.id, queued.batch.number, outcomes).await?)
    }

    /// Tells in the campaign's status what it waits for, when that changes.
    async fn note(&self, note: Option<String>) -> Result<(), DispatchError> {
        {
            let mut known = self.control.note.lock().unwrap_or_else(PoisonError::into_inner);
            if *known == note {
                return Ok(());
            }
            known.clone_from(&note);
        }
        tracing::debug!(campaign = %self.id, "{}", note.as_deref().unwrap_or("sending again"));
        Ok(self.ledger.change_state(&self.id, CampaignState::Running, note).await?)
    }
}
