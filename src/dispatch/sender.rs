//! Senders: each takes batches from the queue until it is stopped.
//!
//! For each request a sender waits for a permit, claims, sends and records, in that order; then it acknowledges the batch.

use std::{sync::Arc, time::Duration};

use opentelemetry::context::FutureExt;
use parking_lot::RwLock;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use url::Url;

use super::{Account, DispatchError, events::Events, sender_state::SenderState};
use crate::campaign::{CampaignId, Job, Reason, Template};
use crate::ledger::{Ledger, LedgerError, Suppressed, transitions};
use crate::limiter::CampaignLimits;
use crate::queue::Queue;
use crate::traces::{self, TraceHandle};

/// A longer wait for tokens is shown in the campaign's status. A worker that is stopped waits no longer for the broker.
pub(super) const LONG_WAIT: Duration = Duration::from_secs(3);

/// Waits for the broker, but no longer than [`LONG_WAIT`] after the worker is stopped.
///
/// An unreachable broker still has what was to be moved, and delivers it again.
pub(super) async fn until_given_up<T>(stop: &CancellationToken, asked: impl Future<Output = T>) -> Option<T> {
    let given_up = async {
        stop.cancelled().await;
        tokio::time::sleep(LONG_WAIT).await;
    };
    tokio::select! {
        biased;
        answer = asked => Some(answer),
        () = given_up => None,
    }
}

/// The state that all senders of a campaign in this worker share.
pub(super) struct SenderContext<L, Q> {
    pub(super) id: CampaignId,
    pub(super) trace: TraceHandle,
    pub(super) ledger: L,
    pub(super) queue: Q,
    pub(super) account: Arc<Account>,
    pub(super) job: Arc<Job>,
    pub(super) template: Template,
    pub(super) limits: CampaignLimits,
    /// The URL of the campaign's requests.
    pub(super) endpoint: Url,
    /// The flow that the messages open, if it is the same for all.
    pub(super) flow: Option<String>,
    pub(super) events: Events,
    /// The suppression list, which changes while the campaign is sent.
    pub(super) suppressed: Arc<RwLock<Suppressed>>,
    /// When cancelled, no new request begins, and those in flight are finished.
    pub(super) stop: CancellationToken,
    /// Notified when the campaign may be finished or its senders have stopped.
    pub(super) wake_up: Arc<Notify>,
    /// Unclaimed messages of batches below this number may have been sent: they are in doubt.
    pub(super) doubt_below: u32,
    pub(super) state: SenderState,
}

impl<L: Ledger, Q: Queue> SenderContext<L, Q> {
    /// Sends batches until the senders are stopped.
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
                Err(error) => Err(error.into()),
            };
            if let Err(error) = sent {
                self.state.broken.lock().get_or_insert(error);
                return self.halt();
            }
        }
    }

    /// Stops the senders and notifies the supervisor.
    pub(super) fn halt(&self) {
        self.stop.cancel();
        self.wake_up.notify_one();
    }

    /// Holds the campaign for every worker.
    pub(super) async fn hold(&self, reason: Reason) -> Result<(), DispatchError> {
        tracing::warn!(campaign = %self.id, "campaign held: {reason}");
        let held = transitions::hold(&self.ledger, &self.id, reason).await;
        self.halt();
        Ok(held?)
    }

    /// Slows the account down for every worker after a 429. Returns how long it pauses.
    pub(super) async fn slow_down(&self, retry_after: Option<Duration>) -> Result<Duration, DispatchError> {
        let pause = self.account.pause(retry_after);
        self.account.limits.slow_down(pause).await.map_err(LedgerError::from)?;
        Ok(pause)
    }

    /// Throttles the flow for every campaign of the account that uses it.
    pub(super) async fn throttle(&self, detail: String) -> Result<(), DispatchError> {
        let Some(flow) = &self.flow else { return Ok(()) };
        if self.account.limits.throttle(flow).await.map_err(LedgerError::from)? {
            let event = Events::throttled(self.ledger.time(), &self.job.account, flow, &detail);
            self.events.publish(&[event]).await;
        }
        let reason = Reason::Throttled { flow: flow.clone(), detail };
        *self.state.throttled.lock() = Some((Instant::now(), reason.clone()));
        self.show_reason(Some(reason)).await
    }

    /// Updates the reason in the campaign's status when it changes.
    pub(super) async fn show_reason(&self, reason: Option<Reason>) -> Result<(), DispatchError> {
        // The supervisor shows an error of the ledger or the queue, which matters more.
        if self.ledger.health_error().or_else(|| self.queue.health_error()).is_some() {
            // The reason is written again afterwards.
            *self.state.shown.lock() = None;
            return Ok(());
        }
        let delayed_until = *self.state.delayed_until.lock();
        if reason.is_none() && delayed_until.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        {
            let mut shown = self.state.shown.lock();
            if *shown == reason {
                return Ok(());
            }
            shown.clone_from(&reason);
        }
        if let Some(reason) = &reason {
            tracing::debug!(campaign = %self.id, "waits: {reason}");
        } else {
            tracing::debug!(campaign = %self.id, "sending again");
        }
        Ok(transitions::set_reason(&self.ledger, &self.id, reason).await?)
    }
}
