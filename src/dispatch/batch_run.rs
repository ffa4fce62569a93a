//! One run of a batch, through what is left of it: request by request, or many at once where each takes but
//! one message; and what is done about each answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;

use super::answer_decision::FollowUp;
use super::sender::{LONG_WAIT, SendDecision, SendResult, Sending};
use super::under_way::UnderWay;
use super::{DispatchError, RETRY, TRIES};
use crate::campaign::{Doubt, Reason, SkipReason};
use crate::ledger::{BatchWriter, EXPIRED, Ledger, PlannedBatch, Purpose};
use crate::limiter::batch_size;
use crate::provider::Scope;
use crate::queue::{Queue, QueuedBatch};

/// After so many requests in a row whose outcome nobody knows, a campaign is held: something
/// between us and the provider is broken, and every further request would be a doubt more.
const DOUBTS: u32 = 5;
/// After so many failures in a row within a batch nothing more of it is begun.
const FAILURES: usize = 3;

/// One run of a batch, through what is left of it.
#[derive(Default)]
struct BatchRun {
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
    proceed: Proceed,
    broken: Option<DispatchError>,
}

/// Whether more of a batch is begun.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Proceed {
    #[default]
    Continue,
    /// Not now: what is left waits for a while.
    Defer,
    /// The campaign does not run any more: the batch goes back as it is.
    Return,
}

impl BatchRun {
    fn new(sets: impl DoubleEndedIterator<Item = Vec<u8>>) -> Self {
        Self { sets: sets.rev().collect(), ..Self::default() }
    }

    /// The next messages to send, if any are to be begun.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.proceed == Proceed::Continue { self.sets.pop() } else { None }
    }

    /// Begins nothing more for a while.
    fn later(&mut self) {
        if self.proceed == Proceed::Continue {
            self.proceed = Proceed::Defer;
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
    /// Sends what is left of a batch, several requests of it at once where each takes but one message.
    /// A batch that is given up in between goes back to the queue when its receipt is dropped.
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
            self.wake_at_the_end(open);
        }
        let mut run = BatchRun::new(queued.left.chunks(self.portion()).map(<[u8]>::to_vec));
        {
            let mut under_way = UnderWay::new(FuturesUnordered::new());
            loop {
                while under_way.len() < at_once
                    && let Some(set) = run.next()
                {
                    under_way.futures.push(self.send_in_turn(&queued, &writer, set));
                }
                // What is under way is always finished: a claim whose record is missing is a doubt.
                let Some(sent) = under_way.next().await else { break };
                if let Err(fault) = under_way.beside(self.follow(&mut run, sent, at_once)).await {
                    run.broken.get_or_insert(fault);
                    run.proceed = Proceed::Return;
                }
            }
        }
        if let Some(fault) = run.broken {
            return Err(fault);
        }
        if run.proceed == Proceed::Return {
            return Ok(());
        }
        if run.settled {
            // What fails next is a first failure again.
            queued.attempt = 0;
        }
        if let Some(detail) = run.failed.take() {
            queued.attempt += 1;
            if queued.attempt >= TRIES {
                return self.hold(Reason::TriesFailed { tries: TRIES, detail }).await;
            }
            run.wait = run.wait.max(RETRY.delay_after(queued.attempt - 1));
            self.note(Some(Reason::Retrying { attempt: queued.attempt + 1, of: TRIES, detail })).await?;
        }
        let left = run.left();
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
                biased;
                delayed = self.queue.delay(receipt, queued, run.wait) => delayed?,
                () = given_up => {}
            }
        }
        Ok(())
    }

    /// How many messages a request takes. Limits may have changed since the batch was cut.
    pub(super) fn portion(&self) -> usize {
        let account = &self.account;
        batch_size(self.job.limits.messages, account.limits.rates()).min(account.kind.per_request)
    }

    /// Waits for its turn and sends some messages of a batch.
    async fn send_in_turn(
        &self,
        queued: &QueuedBatch,
        writer: &BatchWriter<L>,
        set: Vec<u8>,
    ) -> Result<SendResult, DispatchError> {
        match self.wait_for_turn(queued, &set).await? {
            SendDecision::Now(place) => {
                let set = self.without_suppressed(queued, writer, set).await?;
                if set.is_empty() {
                    return Ok(SendResult::Answered {
                        asked: 0,
                        next: FollowUp::Done,
                        open: Vec::new(),
                        slot: None,
                    });
                }
                self.send_set(queued, writer, set, Purpose::Send, place).await
            }
            SendDecision::Stopped => Ok(SendResult::Stopped),
            SendDecision::Expired => {
                self.skip(writer, set, SkipReason::Expired, EXPIRED).await?;
                Ok(SendResult::Answered { asked: 0, next: FollowUp::Done, open: Vec::new(), slot: None })
            }
            SendDecision::Later(time) => Ok(SendResult::PutOff(set, time)),
            // Each waits long for its turn: none is taken for a message that was settled before.
            SendDecision::OneByOne => Ok(SendResult::OneByOne(writer.pending(set).await?)),
            SendDecision::Parts(first, rest) => Ok(SendResult::Parts(first, rest)),
        }
    }

    /// Does what an answer asks for, at once as far as it concerns others.
    async fn follow(
        &self,
        run: &mut BatchRun,
        sent: Result<SendResult, DispatchError>,
        at_once: usize,
    ) -> Result<(), DispatchError> {
        let (asked, next, open, _slot) = match sent? {
            SendResult::Stopped => {
                run.proceed = Proceed::Return;
                return Ok(());
            }
            SendResult::PutOff(set, time) => {
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
            SendResult::Answered { asked, next, open, slot } => (asked, next, open, slot),
        };
        if open.len() < asked {
            run.settled = true;
            run.failures = 0;
        }
        match next {
            FollowUp::Done => {}
            FollowUp::Halves => {
                let (first, second) = open.split_at(open.len() / 2);
                run.sets.extend([second.to_vec(), first.to_vec()]);
                return Ok(());
            }
            FollowUp::Limited { scope: Scope::Flow, detail, .. } if self.flow.is_some() => {
                self.throttle(detail).await?;
                run.later();
            }
            FollowUp::Limited { retry_after, detail, .. } => {
                // Many answers of one storm are one reason to wait.
                if !run.is_limited {
                    run.is_limited = true;
                    let pause = self.slow_down(retry_after).await?;
                    run.wait = run.wait.max(pause);
                    let seconds = pause.as_secs_f64().ceil() as u64;
                    self.note(Some(Reason::RateLimited { seconds, detail })).await?;
                }
                run.later();
            }
            FollowUp::Later { detail } => {
                run.failed = Some(detail);
                run.failures += 1;
                // One failure among many requests stops no other; some in a row would all fare the same.
                if run.failures >= at_once.min(FAILURES) {
                    run.later();
                }
            }
            FollowUp::InDoubt(Doubt { cause, detail }) => {
                tracing::info!(campaign = %self.id, cause = %cause.code(), "outcome of a request unknown: {detail}");
                let doubts = DOUBTS * u32::try_from(at_once).unwrap_or(u32::MAX);
                if self.state.doubts.fetch_add(1, Ordering::Relaxed) + 1 >= doubts {
                    self.hold(Reason::Doubts { requests: doubts, detail }).await?;
                }
                if !open.is_empty() {
                    run.wait = run.wait.max(RETRY.delay_after(0));
                    // The rest of the batch would meet the same; it waits along.
                    if at_once == 1 {
                        run.later();
                    }
                }
            }
            FollowUp::Hold { scope, reason } => {
                run.proceed = Proceed::Return;
                self.hold_all(scope, reason).await?;
            }
        }
        run.again.extend(open);
        Ok(())
    }
}
