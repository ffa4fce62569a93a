//! The tasks of the worker that holds a campaign's lease: it plans the campaign, requeues retried messages, replaces
//! batches that the broker lost, and completes the campaign.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use opentelemetry::context::FutureExt;
use tokio::time::Instant;

use super::plan_pipeline::{AHEAD, PlanContext, Planning, PublishScope};
use super::supervisor::{CampaignSupervisor, PlanningTask, within};
use super::{DispatchError, Refusal, prepare, replay};
use crate::campaign::{Job, Reason};
use crate::ledger::{Campaign, Counts, Lease, Ledger, replays, series, transitions};
use crate::queue::Queue;
use crate::runtime;
use crate::traces::{self, TraceHandle};

/// How long pending messages may be in no queue before their batches count as lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// Delay before planning is tried again after a full disk.
const PLAN_RETRY_DELAY: Duration = Duration::from_secs(5);

impl<L: Ledger, Q: Queue> CampaignSupervisor<L, Q> {
    /// Leads a campaign that is running, or suspended by a breaker.
    pub(super) async fn lead(
        &mut self,
        campaign: &Campaign,
        job: &Arc<Job>,
        can_send: bool,
        lease: &Lease,
    ) -> Result<(), DispatchError> {
        // Planning may have ended after the campaign was read: the next tick knows whether all is planned.
        let has_ended = self.reap_planning().await?;
        let counts = campaign.counts;
        let is_settled = campaign.planned && counts.open() == 0;
        series::sample(&self.ledger, &self.id, &mut self.points, &counts, is_settled).await?;
        if let Some(stop_when) = job.stop_when
            && campaign.too_many_rejected(stop_when).is_some()
            && transitions::judge(&self.ledger, &self.id, stop_when).await?
        {
            // The worker that recorded the last response died before it judged the counts.
            self.wake_up.notify_one();
            return Ok(());
        }
        if is_settled
            && self.planning.is_none()
            && transitions::complete(&self.ledger, &self.id, job.stop_when).await?
        {
            self.wake_up.notify_one();
            return Ok(());
        }
        let is_unplanned =
            !campaign.planned || (self.publish == PublishScope::Unsettled && counts.open() > 0);
        let is_due = self.plans_at.as_ref().is_none_or(|(at, _)| *at <= Instant::now());
        if !has_ended && self.planning.is_none() && is_unplanned && can_send && is_due {
            if campaign.planned && self.kept().await? >= counts.pending {
                // All pending messages can be requeued from their stored values.
                self.publish = PublishScope::News;
            } else {
                self.plans_at = None;
                self.start_planning(campaign, job);
            }
        }
        if self.sending.is_some() {
            self.queue_replays().await?;
            self.watch_for_loss(counts, lease).await?;
        }
        Ok(())
    }

    /// Starts planning in a task of its own.
    fn start_planning(&mut self, campaign: &Campaign, job: &Arc<Job>) {
        let stop = self.stop.child_token();
        let (id, ledger, queue, context) =
            (self.id.clone(), self.ledger.clone(), self.queue.clone(), self.context.clone());
        let (prepared, job, wake_up) = (self.prepared.clone(), job.clone(), self.wake_up.clone());
        let (batch_size, audience, publish) = (campaign.batch_size, campaign.audience.clone(), self.publish);
        let stopped = stop.clone();
        let traced = TraceHandle::for_campaign(&self.id, campaign.submitted_at).plan();
        let task = tokio::spawn(async move {
            let planning = async {
                let prepared = if let Some(prepared) = prepared {
                    prepared
                } else {
                    let account = context.accounts.get(&job.account).map_err(DispatchError::Task)?;
                    let audiences = context.audiences.clone();
                    let prepared = runtime::blocking(move || prepare((*job).clone(), &audiences, &account));
                    match prepared.await.map_err(|error| DispatchError::Task(error.to_string()))? {
                        Ok(prepared) => Arc::new(prepared),
                        Err(Refusal::Audience(error)) if error.lacks_room() => {
                            return Ok(Planning::Later(error.to_string()));
                        }
                        Err(refusal) => {
                            let detail = refusal.to_string();
                            return Ok(Planning::Impossible(Reason::Unplannable { detail }));
                        }
                    }
                };
                if prepared.scan.digest != audience {
                    return Ok(Planning::Impossible(Reason::AudienceChanged { planned: false }));
                }
                PlanContext { ledger, queue, id, prepared, batch_size, publish, stop: stopped }.plan().await
            };
            let planned = planning.with_context(traced.clone()).await;
            if planned.is_err() {
                traces::failed(&traced);
            }
            wake_up.notify_one();
            planned
        });
        self.planning = Some(PlanningTask { stop, task });
    }

    /// Handles the result of planning, if it has ended. Returns whether it has.
    async fn reap_planning(&mut self) -> Result<bool, DispatchError> {
        let Some(planning) = self.planning.take_if(|planning| planning.task.is_finished()) else {
            return Ok(false);
        };
        self.wake_up.notify_one();
        let planned = planning.task.await.map_err(|error| DispatchError::Task(error.to_string()))?;
        match planned {
            Ok(Planning::Complete) => {
                self.publish = PublishScope::News;
                self.prepared = None;
            }
            Ok(Planning::Stopped) => {}
            Ok(Planning::Impossible(reason)) => self.hold(reason).await?,
            Ok(Planning::Later(reason)) => self.plan_later(reason),
            Err(DispatchError::Audience(error)) if error.lacks_room() => self.plan_later(error.to_string()),
            Err(DispatchError::Audience(error)) => {
                self.hold(Reason::Unplannable { detail: error.to_string() }).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Postpones planning: the error may be temporary.
    fn plan_later(&mut self, reason: String) {
        tracing::warn!(campaign = %self.id, error = reason, "cannot plan the campaign now; trying again");
        self.plans_at = Some((Instant::now() + PLAN_RETRY_DELAY, reason));
    }

    /// Stops planning and waits until it has ended.
    pub(super) async fn stop_planning(&mut self) {
        if let Some(planning) = self.planning.take() {
            planning.stop.cancel();
            let _ = planning.task.await;
        }
    }

    /// Requeues messages that an operator retries or resends, if their values are stored.
    async fn queue_replays(&mut self) -> Result<(), DispatchError> {
        let batches = replays::due(&self.ledger, &self.id, self.replayed.clone()).await?;
        if batches.is_empty() || within(self.queue.waiting()).await? >= AHEAD {
            return Ok(());
        }
        let Some(senders) = &self.sending else { return Ok(()) };
        let width = senders.sending.template.columns().len();
        let queued: Vec<_> = batches.iter().filter_map(|batch| replay::batch(batch, width)).collect();
        within(self.queue.publish(queued)).await?;
        self.replayed.extend(batches.iter().map(|batch| (batch.batch.number, batch.since)));
        self.wake_up.notify_one();
        Ok(())
    }

    /// Plans batches again that the queue has lost.
    ///
    /// They are lost if messages are pending while no batch is queued or held by a worker and no message is claimed. A batch
    /// that was not lost finds nothing left to claim.
    async fn watch_for_loss(&mut self, counts: Counts, lease: &Lease) -> Result<(), DispatchError> {
        let idle = counts.pending > 0 && counts.sending == 0 && lease.held == 0;
        if !idle || within(self.queue.waiting()).await? > 0 {
            self.still = None;
            return Ok(());
        }
        match self.still {
            Some((since, then)) if then == counts && since.elapsed() >= LOST_AFTER => {}
            Some((_, then)) if then == counts => return Ok(()),
            _ => {
                self.still = Some((Instant::now(), counts));
                return Ok(());
            }
        }
        tracing::warn!(campaign = %self.id, messages = counts.pending, "pending messages are in no queue; planning them again");
        metrics::counter!("flowcast_messages_replanned_total").increment(counts.pending);
        self.still = None;
        self.stop_planning().await;
        self.replayed.clear();
        // Stored values are requeued without reading the audience.
        if self.kept().await? < counts.pending {
            self.publish = PublishScope::Unsettled;
        }
        self.wake_up.notify_one();
        Ok(())
    }

    /// Returns how many pending messages can be requeued from their stored values.
    async fn kept(&self) -> Result<u64, DispatchError> {
        let mut kept = 0;
        let mut known = BTreeMap::new();
        loop {
            let page = replays::due(&self.ledger, &self.id, known.clone()).await?;
            if page.is_empty() {
                return Ok(kept);
            }
            kept += page.iter().map(|batch| batch.payloads.len() as u64).sum::<u64>();
            known.extend(page.iter().map(|batch| (batch.batch.number, batch.since)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio_util::sync::CancellationToken;

    use super::super::fixtures::registered;
    use super::super::{Accounts, Context, Events};
    use super::*;
    use crate::audience::Audiences;
    use crate::ledger::Campaigns;
    use crate::queue::Local;

    #[tokio::test]
    async fn planning_that_ends_after_the_campaign_was_read_is_not_started_again() {
        let known = registered().await;
        let accounts = Accounts::new(BTreeMap::from([("main".to_owned(), Ok(known.account.clone()))]));
        let context = Context::new(accounts, Audiences::default(), Events::default(), false);
        let (queue, stop) = (Local::open(&(), &known.id, 1), CancellationToken::new());
        let mut supervisor = CampaignSupervisor::new(
            known.id.clone(),
            known.ledger.clone(),
            queue,
            context,
            Arc::default(),
            stop.clone(),
        )
        .with(Some(known.prepared.clone()));
        // Read before planning ended, so nothing is planned yet.
        let campaign = known.ledger.campaign(&known.id).await.unwrap().unwrap();
        assert!(!campaign.planned);
        let task = tokio::spawn(async { Ok(Planning::Complete) });
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
        supervisor.planning = Some(PlanningTask { stop, task });
        let job = Arc::new(known.prepared.job.clone());
        let lease = Lease { leads: true, ..Lease::default() };
        supervisor.lead(&campaign, &job, true, &lease).await.unwrap();
        assert!(supervisor.planning.is_none(), "the audience would be read again");
    }
}
