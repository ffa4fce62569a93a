//! Breakers: stop every campaign that uses a refused account, sender number or flow.
//!
//! A breaker is in the ledger, so it applies to every worker and survives restarts. While it is open, a probe request is
//! sent after exponentially growing delays; the first accepted one closes it and resumes every campaign behind it.

use std::{sync::Arc, time::Duration};

use opentelemetry::context::FutureExt;
use tokio::task::JoinSet;

use super::supervisor::{CampaignSupervisor, Idle};
use super::{
    DispatchError, Events, after_response::AfterResponse, permit::SendPermit, request::SendResult,
    sender::SenderContext, sender_pool::SenderPool,
};
use crate::campaign::{CampaignState, Job, Reason};
use crate::ledger::transitions;
use crate::ledger::{
    BatchWriter, Breaker, BreakerScope, Campaign, ClaimPurpose, Lease, Ledger, PlannedBatch,
};
use crate::provider::Scope;
use crate::queue::Queue;

/// Timeout for a probe to get a batch.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the breakers that can suspend a job's campaign.
pub(super) fn breakers(job: &Job) -> impl Iterator<Item = Breaker> {
    let of = |scope| Breaker { account: job.account.clone(), scope };
    let flows = job.sends_flows().then_some(BreakerScope::SenderFlows(job.from));
    let scopes = [BreakerScope::Account, BreakerScope::Sender(job.from)].into_iter().chain(flows);
    scopes.chain(job.flow().map(BreakerScope::Flow)).map(of)
}

fn reason(breaker: &Breaker, why: &str) -> Reason {
    Reason::Breaker { breaker: breaker.to_string(), retries: breaker.probes(), detail: why.to_owned() }
}

impl<L: Ledger, Q: Queue> SenderContext<L, Q> {
    /// Returns the breaker of a scope, or `None` if only the campaign is concerned.
    fn breaker(&self, scope: Scope) -> Option<Breaker> {
        let scope = match scope {
            Scope::Sender => BreakerScope::Sender(self.job.from),
            Scope::Flows if self.job.sends_flows() => BreakerScope::SenderFlows(self.job.from),
            Scope::Account | Scope::Flows => BreakerScope::Account,
            Scope::Flow => BreakerScope::Flow(self.flow.clone()?),
            Scope::Campaign => return None,
        };
        Some(Breaker { account: self.job.account.clone(), scope })
    }

    /// Opens the breaker of a scope, or holds only the campaign.
    pub(super) async fn trip_breaker(&self, scope: Scope, why: String) -> Result<(), DispatchError> {
        let Some(breaker) = self.breaker(scope) else {
            return self.hold(Reason::Refused { detail: why }).await;
        };
        // The breaker first: a crash in between then leaves no campaign suspended for ever.
        let is_new = self.ledger.open_breaker(&breaker, why.clone(), breaker.probes()).await?;
        if is_new {
            tracing::error!(campaign = %self.id, %breaker, reason = why, "breaker opened");
            metrics::counter!("flowcast_breaker_opened_total", "account" => breaker.account.clone())
                .increment(1);
            self.events.publish(&[Events::breaker(self.ledger.time(), &breaker, Some(&why))]).await;
        }
        transitions::suspend(&self.ledger, &self.id, &breaker, reason(&breaker, &why)).await?;
        self.halt();
        Ok(())
    }

    /// Sends one request, which shows whether a breaker can be closed.
    pub(super) async fn probe(&self, breaker: &Breaker) -> Result<(), DispatchError> {
        // A batch that is not sent is requeued when its receipt is dropped.
        let Ok(next) = tokio::time::timeout(PROBE_TIMEOUT, self.queue.next()).await else { return Ok(()) };
        let (queued, _receipt) = next?;
        let Some(set) = queued.left.chunks(self.portion()).next().map(<[u8]>::to_vec) else { return Ok(()) };
        let traced = self.trace.batch(queued.batch.number, set.len(), queued.attempt);
        let SendPermit::Now(permit) = self.wait_for_permit(&queued, &set).await? else { return Ok(()) };
        let writer = BatchWriter::new(&self.ledger, PlannedBatch::from(&queued.batch));
        let set = self.without_suppressed(&queued, &writer, set).await?;
        if !self.ledger.half_open(breaker).await? {
            return Ok(());
        }
        tracing::info!(campaign = %self.id, %breaker, "sending a probe");
        let SendResult::Answered { asked, next, open, permit: _permit } =
            self.send_set(&queued, &writer, set, ClaimPurpose::Probe, permit).with_context(traced).await?
        else {
            return Ok(());
        };
        let settled = open.len() < asked;
        match next {
            AfterResponse::Hold { scope, reason: why } if scope != Scope::Campaign => {
                self.ledger.open_breaker(breaker, why.clone(), breaker.probes()).await?;
                // The refusal may now concern another scope: then both breakers are open.
                match self.breaker(scope) {
                    Some(other) if other != *breaker => self.trip_breaker(scope, why).await,
                    _ => Ok(()),
                }
            }
            AfterResponse::Limited { scope: Scope::Account, retry_after, .. } => {
                self.slow_down(retry_after).await.map(drop)
            }
            // The provider checked the message, so the account works, whatever the result.
            AfterResponse::Done if settled => self.close(breaker).await,
            AfterResponse::Halves | AfterResponse::Hold { scope: Scope::Campaign, .. }
                if matches!(breaker.scope, BreakerScope::Account | BreakerScope::Sender(_)) =>
            {
                self.close(breaker).await
            }
            _ => Ok(()),
        }
    }

    /// Closes a breaker.
    async fn close(&self, breaker: &Breaker) -> Result<(), DispatchError> {
        if self.ledger.close_breaker(breaker).await? {
            tracing::info!(campaign = %self.id, %breaker, "breaker closed");
            self.events.publish(&[Events::breaker(self.ledger.time(), breaker, None)]).await;
        }
        self.wake_up.notify_one();
        Ok(())
    }
}

impl<L: Ledger, Q: Queue> CampaignSupervisor<L, Q> {
    /// Suspends a running campaign if one of its breakers is open. Returns whether one is.
    pub(super) async fn is_suspended(&mut self, job: &Job, lease: &Lease) -> Result<bool, DispatchError> {
        // Concurrently, because every tick reads all of them.
        let breakers: Vec<Breaker> = breakers(job).collect();
        let asked = breakers.iter().map(|breaker| self.ledger.breaker(breaker));
        let holds = futures_util::future::try_join_all(asked).await?;
        for (breaker, hold) in breakers.into_iter().zip(holds) {
            if let Some(hold) = hold {
                self.idle().await?;
                if lease.leads {
                    let reason = reason(&breaker, &hold.reason);
                    transitions::suspend(&self.ledger, &self.id, &breaker, reason).await?;
                    self.wake_up.notify_one();
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Supervises a suspended campaign: plans it, sends probes when they are due, and resumes it when the breaker closes.
    ///
    /// Returns how long the campaign needs no supervisor, or `None` if it needs another tick.
    pub(super) async fn wait_for_leadership(
        &mut self,
        campaign: &Campaign,
        lease: &Lease,
    ) -> Result<Option<Idle>, DispatchError> {
        let Some(breaker) = &campaign.suspended_by else { return Ok(None) };
        let hold = self.ledger.breaker(breaker).await?;
        let ended = self.sending.as_mut().is_none_or(|senders| {
            while senders.tasks.try_join_next().is_some() {}
            !senders.probe || senders.tasks.is_empty()
        });
        // A probe in flight is finished; other senders are stopped.
        let rests = ended && self.idle().await?;
        let Some(hold) = hold else {
            if lease.leads && rests {
                let (held, running) = (CampaignState::Held, CampaignState::Running);
                transitions::move_from(&self.ledger, &self.id, held, running, None).await?;
                self.wake_up.notify_one();
            }
            return Ok(None);
        };
        if !lease.leads || !rests {
            let waits = rests && self.is_idle(campaign);
            return Ok(waits.then(|| Idle::UntilClosed(breaker.clone())));
        }
        let job = self.load_job().await?.job.clone();
        let can_send = self.context.accounts.get(&job.account).is_ok();
        self.lead(campaign, &job, can_send, lease).await?;
        let has_some = campaign.counts.pending > 0;
        if hold.probe_is_due && has_some && can_send {
            let sending = self.sending(campaign, &job).await?;
            let (mut tasks, of, breaker) = (JoinSet::new(), Arc::clone(&sending), breaker.clone());
            tasks.spawn(async move {
                if let Err(error) = of.probe(&breaker).await {
                    tracing::error!(campaign = %of.id, error = %error, "probe failed");
                }
            });
            self.sending = Some(SenderPool { sending, tasks, probe: true });
        }
        let waits = self.is_idle(campaign) && (campaign.planned || !can_send);
        Ok(waits.then(|| Idle::UntilClosed(breaker.clone())))
    }
}
