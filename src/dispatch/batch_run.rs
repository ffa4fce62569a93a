//! One run through the unsent messages of a batch, and the follow-up to each response.
//!
//! Requests go out one after the other, or many at the same time if each takes only one message.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::stream::FuturesUnordered;

use super::sender::{SenderContext, until_given_up};
use super::{
    DispatchError, RETRY, TRIES, after_response::AfterResponse, in_flight::InFlight, permit::SendPermit,
    request::SendResult,
};
use crate::campaign::{Doubt, Reason, SkipReason};
use crate::ledger::{BatchWriter, ClaimPurpose, EXPIRED, Ledger, PlannedBatch};
use crate::limiter::batch_size;
use crate::provider::Scope;
use crate::queue::{Queue, QueuedBatch};

/// Number of requests in a row with an unknown outcome after which the campaign is held.
///
/// Something between flowcast and the provider is broken, and every further request would be another doubt.
const MAX_DOUBTS: u32 = 5;
/// Number of failures in a row after which no further request of the batch begins.
const MAX_FAILURES: usize = 3;

/// One run through the unsent messages of a batch.
#[derive(Default)]
struct BatchRun {
    /// The messages of each request that is still to be sent, the next one last.
    sets: Vec<Vec<u8>>,
    /// The messages that are retried later.
    again: Vec<u8>,
    /// Delay until the retry.
    wait: Duration,
    /// Whether any message was settled.
    settled: bool,
    /// The most recent temporary failure.
    failed: Option<String>,
    /// Number of temporary failures in a row.
    failures: usize,
    is_limited: bool,
    proceed: Proceed,
    broken: Option<DispatchError>,
}

/// Whether further requests of a batch begin.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Proceed {
    #[default]
    Continue,
    /// Not now: the unsent messages are delayed.
    Defer,
    /// The campaign is no longer running: the batch is requeued unchanged.
    Return,
}

impl BatchRun {
    fn new(sets: impl DoubleEndedIterator<Item = Vec<u8>>) -> Self {
        Self { sets: sets.rev().collect(), ..Self::default() }
    }

    /// Returns the messages of the next request, if one may begin.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.proceed == Proceed::Continue { self.sets.pop() } else { None }
    }

    /// Delays the requests that have not begun.
    fn later(&mut self) {
        if self.proceed == Proceed::Continue {
            self.proceed = Proceed::Defer;
        }
    }

    /// Takes the messages that are not settled, in ascending order.
    fn left(&mut self) -> Vec<u8> {
        let mut left = std::mem::take(&mut self.again);
        left.extend(self.sets.drain(..).flatten());
        left.sort_unstable();
        left
    }
}

impl<L: Ledger, Q: Queue> SenderContext<L, Q> {
    /// Sends the unsent messages of a batch.
    ///
    /// A batch that is abandoned on the way is requeued when its receipt is dropped.
    pub(super) async fn send_batch(
        &self,
        mut queued: QueuedBatch,
        receipt: Q::Receipt,
    ) -> Result<(), DispatchError> {
        let at_once = self.account.at_once(queued.batch.len());
        let writer = BatchWriter::new(&self.ledger, PlannedBatch::from(&queued.batch));
        if queued.batch.number < self.doubt_below {
            let (left, open) = writer.doubt(queued.left).await?;
            queued.left = left;
            self.wake_if_finished(open);
        }
        let mut run = BatchRun::new(queued.left.chunks(self.portion()).map(<[u8]>::to_vec));
        {
            let mut in_flight = InFlight::new(FuturesUnordered::new());
            loop {
                while in_flight.len() < at_once
                    && let Some(set) = run.next()
                {
                    in_flight.futures.push(self.send_with_permit(&queued, &writer, set));
                }
                // Requests in flight are always finished: a claim without a record becomes a doubt.
                let Some(sent) = in_flight.next().await else { break };
                if let Err(error) = in_flight.poll_while(self.follow(&mut run, sent, at_once)).await {
                    run.broken.get_or_insert(error);
                    run.proceed = Proceed::Return;
                }
            }
        }
        if let Some(error) = run.broken {
            return Err(error);
        }
        if run.proceed == Proceed::Return {
            return Ok(());
        }
        if run.settled {
            // The next failure counts as the first one.
            queued.attempt = 0;
        }
        if let Some(detail) = run.failed.take() {
            queued.attempt += 1;
            if queued.attempt >= TRIES {
                return self.hold(Reason::TriesFailed { tries: TRIES, detail }).await;
            }
            run.wait = run.wait.max(RETRY.delay_after(queued.attempt - 1));
            self.show_reason(Some(Reason::Retrying { attempt: queued.attempt + 1, of: TRIES, detail }))
                .await?;
        }
        let left = run.left();
        if left.is_empty() {
            // Acknowledged after the ledger has every outcome.
            self.queue.acknowledge(receipt).await?;
        } else {
            queued.left = left;
            let delaying = self.queue.delay(receipt, queued, run.wait);
            until_given_up(&self.stop, delaying).await.transpose()?;
        }
        Ok(())
    }

    /// Returns the number of messages per request, by the current limits.
    pub(super) fn portion(&self) -> usize {
        let account = &self.account;
        batch_size(self.job.limits.messages, account.limits.rates()).min(account.kind.per_request)
    }

    /// Waits for a permit and sends some messages of a batch.
    async fn send_with_permit(
        &self,
        queued: &QueuedBatch,
        writer: &BatchWriter<L>,
        set: Vec<u8>,
    ) -> Result<SendResult, DispatchError> {
        match self.wait_for_permit(queued, &set).await? {
            SendPermit::Now(place) => {
                let set = self.without_suppressed(queued, writer, set).await?;
                if set.is_empty() {
                    return Ok(SendResult::nothing(0));
                }
                self.send_set(queued, writer, set, ClaimPurpose::Send, place).await
            }
            SendPermit::Stopped => Ok(SendResult::Stopped),
            SendPermit::Expired => {
                self.skip(writer, set, SkipReason::Expired, EXPIRED).await?;
                Ok(SendResult::nothing(0))
            }
            SendPermit::Later(time) => Ok(SendResult::Delayed(set, time)),
            // A permit for one message takes long, so settled messages must not wait for one.
            SendPermit::OneByOne => Ok(SendResult::OneByOne(writer.pending(set).await?)),
            SendPermit::Parts(first, rest) => Ok(SendResult::Parts(first, rest)),
        }
    }

    /// Applies the follow-up of a response to the batch and, where it concerns others, to the account.
    async fn follow(
        &self,
        run: &mut BatchRun,
        sent: Result<SendResult, DispatchError>,
        at_once: usize,
    ) -> Result<(), DispatchError> {
        let (asked, next, open, _permit) = match sent? {
            SendResult::Stopped => {
                run.proceed = Proceed::Return;
                return Ok(());
            }
            SendResult::Delayed(set, time) => {
                run.again.extend(set);
                run.wait = run.wait.max(time);
                run.later();
                return Ok(());
            }
            SendResult::OneByOne(set) => {
                run.sets.extend(set.into_iter().rev().map(|message| vec![message]));
                return Ok(());
            }
            SendResult::Parts(first, rest) => {
                run.sets.extend([rest, first]);
                return Ok(());
            }
            SendResult::Answered { asked, next, open, permit } => (asked, next, open, permit),
        };
        if open.len() < asked {
            run.settled = true;
            run.failures = 0;
        }
        match next {
            AfterResponse::Done => {}
            AfterResponse::Halves => {
                let (first, second) = open.split_at(open.len() / 2);
                run.sets.extend([second.to_vec(), first.to_vec()]);
                return Ok(());
            }
            AfterResponse::Limited { scope: Scope::Flow, detail, .. } if self.flow.is_some() => {
                self.throttle(detail).await?;
                run.later();
            }
            AfterResponse::Limited { retry_after, detail, .. } => {
                // Many 429s of the same burst are one reason to wait.
                if !run.is_limited {
                    run.is_limited = true;
                    let pause = self.slow_down(retry_after).await?;
                    run.wait = run.wait.max(pause);
                    let seconds = pause.as_secs_f64().ceil() as u64;
                    self.show_reason(Some(Reason::RateLimited { seconds, detail })).await?;
                }
                run.later();
            }
            AfterResponse::Later { detail } => {
                run.failed = Some(detail);
                run.failures += 1;
                // One failure does not delay the other requests; after several in a row they would fail too.
                if run.failures >= at_once.min(MAX_FAILURES) {
                    run.later();
                }
            }
            AfterResponse::InDoubt(doubt) => self.follow_doubt(run, doubt, &open, at_once).await?,
            AfterResponse::Hold { scope, reason } => {
                run.proceed = Proceed::Return;
                self.trip_breaker(scope, reason).await?;
            }
        }
        run.again.extend(open);
        Ok(())
    }

    /// Counts a request whose outcome is unknown, and holds the campaign after too many in a row.
    async fn follow_doubt(
        &self,
        run: &mut BatchRun,
        Doubt { cause, detail }: Doubt,
        open: &[u8],
        at_once: usize,
    ) -> Result<(), DispatchError> {
        tracing::info!(campaign = %self.id, cause = %cause.code(), detail, "outcome of a request unknown");
        let doubts = MAX_DOUBTS * u32::try_from(at_once).unwrap_or(u32::MAX);
        if self.state.doubts.fetch_add(1, Ordering::Relaxed) + 1 >= doubts {
            self.hold(Reason::Doubts { requests: doubts, detail }).await?;
        }
        if !open.is_empty() {
            run.wait = run.wait.max(RETRY.delay_after(0));
            // The rest of the batch would probably meet the same, so it waits too.
            if at_once == 1 {
                run.later();
            }
        }
        Ok(())
    }
}
