//! Campaigns that are held together: because their account is refused, or their flow is blocked.
//!
//! A barrier stands in the ledger, so that every worker keeps to it and a restart forgets nothing. While
//! it is down, one request after ever longer waits tries whether it still has to be; the first that
//! the provider takes lifts it, and every campaign behind it goes on by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::attendant::{Attendant, Senders};
use super::sender::{Mine, Sending, Sent};
use super::verdict::Next;
use super::{DispatchError, Events};
use crate::campaign::{CampaignState, Job};
use crate::ledger::{Attendance, Barrier, Campaign, Ledger, Purpose};
use crate::provider::Scope;
use crate::queue::Queue;

/// How long a probe waits for something to send.
const PATIENCE: Duration = Duration::from_secs(3);

/// What can hold a job's campaign together with others.
pub(super) fn barriers(job: &Job) -> impl Iterator<Item = Barrier> {
    let of = |flow| Barrier { account: job.account.clone(), flow };
    std::iter::once(of(None)).chain(job.flow().map(|flow| of(Some(flow))))
}

fn reason(barrier: &Barrier, why: &str) -> String {
    match barrier.flow {
        None => format!("{barrier} is held, and a worker tries it again by itself: {why}"),
        Some(_) => format!("{barrier} is held: {why}"),
    }
}

impl<L: Ledger, Q: Queue> Sending<L, Q> {
    /// What a scope is here: a flow that is not known is the campaign's own matter.
    fn barrier(&self, scope: Scope) -> Option<Barrier> {
        let account = self.job.account.clone();
        match scope {
            Scope::Account => Some(Barrier { account, flow: None }),
            Scope::Flow => self.flow.clone().map(|flow| Barrier { account, flow: Some(flow) }),
            Scope::Campaign => None,
        }
    }

    /// Nothing of a scope can be sent: holds all that it concerns.
    pub(super) async fn hold_all(&self, scope: Scope, why: String) -> Result<(), DispatchError> {
        let Some(barrier) = self.barrier(scope) else { return self.hold(why).await };
        // First the barrier, then the campaign: whoever dies in between leaves nothing held for ever.
        let probes = barrier.flow.is_none();
        let is_new = self.ledger.close(&barrier, why.clone(), probes).await?;
        if is_new {
            tracing::error!(campaign = %self.id, "{}", reason(&barrier, &why));
            metrics::counter!("flowcast_holds_total", "account" => barrier.account.clone()).increment(1);
            self.events.tell(&[Events::barrier(&barrier, Some(&why))]).await;
        }
        self.ledger.hold_back(&self.id, &barrier, reason(&barrier, &why)).await?;
        self.halt();
        Ok(())
    }

    /// Sends one request, to see whether a barrier must still be down.
    pub(super) async fn probe(&self, barrier: &Barrier) -> Result<(), DispatchError> {
        // What is not sent goes back to the queue with its receipt.
        let Ok(next) = tokio::time::timeout(PATIENCE, self.queue.next()).await else { return Ok(()) };
        let (queued, _receipt) = next?;
        let Some(set) = queued.left.chunks(self.portion()).next().map(<[u8]>::to_vec) else { return Ok(()) };
        let Mine::Now(_place) = self.wait_for_turn(&queued, &set).await? else { return Ok(()) };
        let set = self.without_suppressed(&queued, set).await?;
        if !self.ledger.probe(barrier).await? {
            return Ok(());
        }
        tracing::info!(campaign = %self.id, "tries whether {barrier} works again");
        let Sent::Answered { asked, next, open } = self.send_set(&queued, set, Purpose::Probe).await? else {
            return Ok(());
        };
        let settled = open.len() < asked;
        match next {
            Next::Hold { scope: Scope::Account | Scope::Flow, reason: why } => {
                self.ledger.close(barrier, why, true).await?;
                Ok(())
            }
            Next::Limited { scope: Scope::Account, retry_after, .. } => {
                self.slow_down(retry_after).await.map(drop)
            }
            // The provider has looked at the message: whatever it says of it, the account works.
            Next::Done if settled => self.lift(barrier).await,
            Next::Halves | Next::Hold { scope: Scope::Campaign, .. } if barrier.flow.is_none() => {
                self.lift(barrier).await
            }
            _ => Ok(()),
        }
    }

    async fn lift(&self, barrier: &Barrier) -> Result<(), DispatchError> {
        if self.ledger.lift(barrier).await? {
            tracing::info!(campaign = %self.id, "{barrier} works again");
            self.events.tell(&[Events::barrier(barrier, None)]).await;
        }
        self.bell.notify_one();
        Ok(())
    }
}

impl<L: Ledger, Q: Queue> Attendant<L, Q> {
    /// Whether a campaign that runs must be held with others; then it is.
    pub(super) async fn is_held_back(
        &mut self,
        job: &Job,
        attendance: Attendance,
    ) -> Result<bool, DispatchError> {
        for barrier in barriers(job) {
            if let Some(hold) = self.ledger.hold(&barrier).await? {
                self.rest().await?;
                if attendance.leads {
                    self.ledger.hold_back(&self.id, &barrier, reason(&barrier, &hold.reason)).await?;
                    self.bell.notify_one();
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks after a campaign that is held with others: plans on, tries now and then, and lets it run
    /// when the barrier is up.
    pub(super) async fn stand_by(
        &mut self,
        campaign: &Campaign,
        attendance: Attendance,
    ) -> Result<(), DispatchError> {
        let Some(barrier) = &campaign.held_by else { return Ok(()) };
        let hold = self.ledger.hold(barrier).await?;
        let ended = self.sending.as_mut().is_none_or(|senders| {
            while senders.tasks.try_join_next().is_some() {}
            !senders.probe || senders.tasks.is_empty()
        });
        // A probe that is under way is left to end; whatever else sends is stopped.
        let rests = ended && self.rest().await?;
        let Some(hold) = hold.filter(|_| attendance.leads && rests) else {
            if attendance.leads && rests {
                self.change_state(CampaignState::Running, None).await?;
                self.bell.notify_one();
            }
            return Ok(());
        };
        let job = self.known().await?.job.clone();
        let can_send = self.setting.accounts.get(&job.account).is_ok();
        self.lead(campaign, &job, can_send, attendance).await?;
        let has_some = campaign.counts.pending > 0;
        if hold.probe_is_due && has_some && can_send {
            let sending = self.sending(&job).await?;
            let (mut tasks, of, barrier) = (JoinSet::new(), Arc::clone(&sending), barrier.clone());
            tasks.spawn(async move {
                if let Err(fault) = of.probe(&barrier).await {
                    tracing::error!(campaign = %of.id, "a probe failed: {fault}");
                }
            });
            self.sending = Some(Senders { sending, tasks, probe: true });
        }
        Ok(())
    }
}
