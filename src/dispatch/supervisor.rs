//! Supervises one campaign in this worker: runs its senders while it may be sent and, in the worker that holds its lease,
//! also plans it, completes it and publishes its states.
//!
//! It ticks once a second, or at once when it is notified, and does what the campaign's state requires. It ends when there
//! is nothing to do, and returns when there may be something again. It never keeps state that another worker would need:
//! that is in the ledger, so any worker can continue where another one ended.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::plan_pipeline::{Planning, PublishScope};
use super::{Context, DispatchError, LoadedJob, sender_pool::SenderPool};
use crate::campaign::job::OnInDoubt;
use crate::campaign::notice::KeptNotice;
use crate::campaign::{CampaignId, CampaignState, Columns, Job, Opening, Reason, SkipReason};
use crate::ledger::{Breaker, Campaign, Counts, Decision, Lease, Ledger, LostWrites, Point, skip_unplanned};
use crate::ledger::{claims, decisions};
use crate::queue::{Queue, QueueError};

/// Interval between ticks when nothing notifies the supervisor.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout for the broker within a tick.
const BROKER_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout for workers that must confirm their writes after the ledger lost recent ones.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(15);
/// Delay before senders start again after an error.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How far this worker has been involved in a campaign.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Involvement {
    No,
    /// The ledger has a heartbeat of this worker.
    Supervised,
    /// The worker has run senders.
    Sends,
}

/// How long a campaign needs no supervisor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Until(Timestamp),
    UntilClosed(Breaker),
    UntilItChanges,
    /// The campaign has ended, and its queue was removed.
    Over,
}

/// The supervisor of one campaign in this worker.
pub(super) struct CampaignSupervisor<L: Ledger, Q: Queue> {
    pub(super) id: CampaignId,
    pub(super) ledger: L,
    pub(super) queue: Q,
    pub(super) context: Context,
    pub(super) stop: CancellationToken,
    /// Whether it ends as soon as the campaign stops running, as for `flowcast run`.
    ends: bool,
    /// Notified by this campaign's tasks.
    pub(super) wake_up: Arc<Notify>,
    /// Notified by the worker when the campaign has changed.
    changed: Arc<Notify>,
    known: Option<CampaignJob>,
    pub(super) prepared: Option<Arc<LoadedJob>>,
    pub(super) sending: Option<SenderPool<L, Q>>,
    pub(super) planning: Option<PlanningTask>,
    pub(super) publish: PublishScope,
    /// Batches that this worker has requeued, each with the version of the decision.
    pub(super) replayed: BTreeMap<u32, u64>,
    /// When pending messages were first found in no queue, with the counts at that time.
    pub(super) still: Option<(Instant, Counts)>,
    /// Progress over time, if this worker leads the campaign.
    pub(super) points: Option<Vec<Point>>,
    /// The provider's most recent notice, and when it was looked up.
    pub(super) noticed: Option<(Instant, Option<KeptNotice>)>,
    /// The reason that this supervisor last wrote to the status.
    pub(super) shown: Option<Reason>,
    pub(super) involved: Involvement,
    expired_once: bool,
    pub(super) rest_until: Option<Instant>,
    /// When planning is tried again, and why it was postponed, e.g. a full disk.
    pub(super) plans_at: Option<(Instant, String)>,
}

/// A job and its audience's columns, read once from the ledger.
pub(super) struct CampaignJob {
    pub(super) job: Arc<Job>,
    pub(super) columns: Columns,
}

pub(super) struct PlanningTask {
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<Result<Planning, DispatchError>>,
}

impl<L: Ledger, Q: Queue> CampaignSupervisor<L, Q> {
    pub(super) fn new(
        id: CampaignId,
        ledger: L,
        queue: Q,
        context: Context,
        changed: Arc<Notify>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            id,
            ledger,
            queue,
            context,
            stop,
            ends: false,
            wake_up: Arc::default(),
            changed,
            known: None,
            prepared: None,
            sending: None,
            planning: None,
            // A queue in memory is empty now, however much is planned.
            publish: if Q::DURABLE { PublishScope::News } else { PublishScope::Unsettled },
            replayed: BTreeMap::new(),
            still: None,
            points: None,
            noticed: None,
            shown: None,
            involved: Involvement::No,
            expired_once: false,
            rest_until: None,
            plans_at: None,
        }
    }

    /// Sets the prepared job, if the audience was already read.
    pub(super) fn with(mut self, prepared: Option<Arc<LoadedJob>>) -> Self {
        self.prepared = prepared;
        self
    }

    /// Makes it end as soon as the campaign stops running.
    pub(super) fn until_it_stops(mut self) -> Self {
        self.ends = true;
        self
    }

    /// Supervises the campaign until there is nothing to do or it is stopped.
    ///
    /// Requests in flight are finished and recorded before it returns. The permit is released after the first tick.
    pub(super) async fn supervise(
        mut self,
        mut first: Option<OwnedSemaphorePermit>,
    ) -> Result<Idle, DispatchError> {
        let stop = self.stop.clone();
        let done = loop {
            let ticked = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(Idle::UntilItChanges),
                next = self.tick() => next,
            };
            first.take();
            match ticked {
                Ok(Some(rest)) => break Ok(rest),
                Ok(None) => {}
                // The error may be temporary, and other workers depend on this ledger too.
                Err(error) if self.ledger.is_shared() => {
                    tracing::error!(campaign = %self.id, error = %error, "tick failed; trying again");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                Err(error) => break Err(error),
            }
            let (wake_up, changed) = (self.wake_up.clone(), self.changed.clone());
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(Idle::UntilItChanges),
                () = changed.notified() => {}
                () = wake_up.notified() => {}
                () = self.senders_end() => {}
                () = tokio::time::sleep(TICK_INTERVAL) => {}
            }
        };
        self.stop_planning().await;
        if let Some(mut senders) = self.sending.take() {
            senders.sending.stop.cancel();
            while senders.tasks.join_next().await.is_some() {}
            if let (Ok(_), Some(error)) = (&done, senders.sending.state.broken.lock().take())
                && !self.ledger.is_shared()
            {
                return Err(error);
            }
        }
        self.queue.close().await;
        if self.involved != Involvement::No {
            self.ledger.release(&self.id).await?;
        }
        done
    }

    /// Does once what the campaign's state requires.
    ///
    /// Returns how long the campaign needs no supervisor, or `None` if it needs another tick.
    async fn tick(&mut self) -> Result<Option<Idle>, DispatchError> {
        let Some(campaign) = self.ledger.campaign(&self.id).await? else {
            return Ok(Some(Idle::UntilItChanges));
        };
        if self.ends {
            self.context.follow_suppressed(&self.ledger).await?;
        } else if let Some(rest) = self.waits(&campaign).await? {
            return Ok(Some(rest));
        }
        self.involved = self.involved.max(Involvement::Supervised);
        let lease = self.ledger.heartbeat(&self.id, self.queue.held()).await?;
        let is_sent = campaign.state == CampaignState::Running || campaign.suspended_by.is_some();
        if let Some(gap) = lease.gap.as_ref().filter(|_| is_sent) {
            return self.wait_for_workers(&campaign, gap, lease.leads).await.map(|()| None);
        }
        if lease.leads && lease.gap.is_none() && (self.ledger.is_shared() || !self.expired_once) {
            self.expire_claims().await?;
            self.expired_once = true;
        }
        if !lease.leads {
            self.stop_planning().await;
            self.points = None;
            if self.ledger.is_shared() && !Q::DURABLE {
                // The batches are in the memory of the worker that leads.
                let has_ended = self.idle().await?;
                self.queue.remove().await?;
                self.publish = PublishScope::Unsettled;
                return Ok(has_ended.then_some(Idle::UntilItChanges));
            }
        }
        if lease.leads && lease.gap.is_none() && self.expire(&campaign).await? {
            return Ok(None);
        }
        let next = match campaign.state {
            CampaignState::Running => self.run(&campaign, &lease).await?,
            CampaignState::Held if campaign.suspended_by.is_some() && !self.ends => {
                self.wait_for_leadership(&campaign, &lease).await?
            }
            CampaignState::Scheduled => {
                self.wait_for_start(&campaign).await?;
                None
            }
            _ => {
                self.stop_planning().await;
                let has_ended = self.idle().await?;
                if self.ends && has_ended {
                    return Ok(Some(Idle::UntilItChanges));
                }
                if has_ended
                    && lease.leads
                    && matches!(campaign.state, CampaignState::Completed | CampaignState::Cancelled)
                {
                    return self.end(&campaign).await;
                }
                if has_ended && !lease.leads {
                    if campaign.state.is_over() && self.involved == Involvement::Sends {
                        // Senders of this worker may have declared the queue again after it was removed.
                        within(self.queue.remove()).await?;
                    }
                    return Ok(Some(Idle::UntilItChanges));
                }
                None
            }
        };
        // A campaign whose end was published has no supervisor: messages in flight are settled first.
        let is_settled = !campaign.state.is_over() || campaign.counts.open() == 0;
        if lease.leads && is_settled && campaign.published != Some(campaign.state) {
            self.context.events.publish_state(&self.ledger, &campaign).await?;
            // This may have been the last thing to do.
            self.wake_up.notify_one();
        }
        Ok(next)
    }

    /// Sends nothing until every worker has confirmed its writes, because the ledger lost recent ones.
    ///
    /// A worker that does not confirm them in time is gone, and may have sent messages that no other worker knows of: then
    /// the campaign is held.
    async fn wait_for_workers(
        &mut self,
        campaign: &Campaign,
        gap: &LostWrites,
        leads: bool,
    ) -> Result<(), DispatchError> {
        self.stop_planning().await;
        self.idle().await?;
        let (now, id) = (self.ledger.now(), &self.id);
        let waited = gap.to.map_or(0, |to| now - to.as_millisecond());
        if gap.emptied {
            if leads {
                self.hold(Reason::Emptied { id: id.clone() }).await?;
            }
            return Ok(());
        }
        let workers = gap.silent.len() as u64;
        if leads && waited > CONFIRM_TIMEOUT.as_millis() as i64 && !gap.silent.is_empty() {
            self.hold(Reason::Forgotten { id: id.clone(), workers, from: gap.from }).await?;
        } else {
            self.show_wait(campaign, Some(Reason::Comparing { workers })).await?;
        }
        Ok(())
    }

    /// Returns whether nothing of the campaign is in flight, in this or another worker.
    pub(super) fn is_idle(&self, campaign: &Campaign) -> bool {
        self.sending.is_none()
            && self.planning.is_none()
            && campaign.counts.sending == 0
            && campaign.published == Some(campaign.state)
    }

    /// Marks messages of expired claims as in doubt, or as pending if the job resends them.
    async fn expire_claims(&mut self) -> Result<(), DispatchError> {
        let resend = self.load_job().await?.job.on_in_doubt == OnInDoubt::Resend;
        let expired = claims::expire(&self.ledger, &self.id, resend).await?;
        if expired > 0 && !resend {
            tracing::warn!(campaign = %self.id, messages = expired, "claims expired; their messages are in doubt");
            metrics::counter!("flowcast_messages_in_doubt_total", "reason" => "claim_expired")
                .increment(expired);
        }
        Ok(())
    }

    /// Runs a running campaign's senders within its window and, as the leader, leads it.
    async fn run(&mut self, campaign: &Campaign, lease: &Lease) -> Result<Option<Idle>, DispatchError> {
        let job = self.load_job().await?.job.clone();
        let opening = job.schedule.at(self.ledger.time());
        if self.is_suspended(&job, lease).await? {
            return Ok(None);
        }
        let account = self.context.accounts.get(&job.account);
        let (mut waits_for, mut until) = (None, None);
        match (opening, &account) {
            (Opening::Opens(at), _) => {
                self.idle().await?;
                waits_for = Some(Reason::Window { opens: at });
                until = Some(Idle::Until(at));
            }
            (_, Err(error)) => {
                self.idle().await?;
                // Another worker may have the account; the one that leads reports what it lacks.
                waits_for = lease.leads.then(|| Reason::Account { detail: error.clone() });
                until = Some(Idle::UntilItChanges);
            }
            (_, Ok(_)) => self.send(&job, campaign).await?,
        }
        if let Some((_, why)) = &self.plans_at {
            waits_for = Some(Reason::Planning { detail: why.clone() });
        }
        let reason = campaign.reason.as_ref();
        if let Some(error) = self.ledger.health_error().or_else(|| self.queue.health_error()) {
            if lease.leads && !reason.is_some_and(|reason| reason.mentions(&error)) {
                // A sender of another worker has replaced the reason.
                self.shown = None;
            }
            waits_for = Some(Reason::Backend { detail: error });
        }
        if lease.leads
            && let Some(notice) = self.notice(&job).await?
        {
            if !reason.is_some_and(|reason| reason.passes_on(&notice)) {
                // A sender has replaced the reason.
                self.shown = None;
            }
            waits_for = Some(Reason::Notice { notice, beside: waits_for.map(Box::new) });
        }
        self.show_wait(campaign, waits_for).await?;
        if let Some(senders) = &self.sending {
            senders.sending.state.planned.store(campaign.planned, Ordering::Relaxed);
        }
        if lease.leads {
            self.lead(campaign, &job, account.is_ok(), lease).await?;
        } else if campaign.planned && campaign.counts.open() == 0 {
            // The worker that leads completes it.
            self.ledger.touch(&self.id).await?;
        }
        let is_done = !lease.leads || campaign.planned || account.is_err();
        Ok(until.filter(|_| is_done && !self.ends && self.is_idle(campaign)))
    }

    /// Returns the campaign's job, read from the ledger once.
    pub(super) async fn load_job(&mut self) -> Result<&CampaignJob, DispatchError> {
        if self.known.is_none() {
            let stored = self.ledger.job(&self.id).await?;
            let job = Job::read(stored.job.as_bytes()).map_err(|problems| {
                let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                DispatchError::Job(self.id.clone(), text)
            })?;
            self.known = Some(CampaignJob { job: Arc::new(job), columns: Columns::new(stored.columns) });
        }
        self.known.as_ref().ok_or_else(|| DispatchError::Task("the job that was just read is missing".into()))
    }

    /// Finishes a campaign that has ended: removes its queue and publishes its state.
    async fn end(&mut self, campaign: &Campaign) -> Result<Option<Idle>, DispatchError> {
        let has_more = campaign.counts.pending > 0 || !campaign.planned;
        if campaign.state == CampaignState::Cancelled && has_more {
            // The process that cancelled it died before it had finished.
            decisions::decide(&self.ledger, &self.id, Decision::Cancel).await?;
            skip_unplanned(&self.ledger, &self.id, SkipReason::Cancelled).await?;
            self.wake_up.notify_one();
            return Ok(None);
        }
        if campaign.counts.sending > 0 {
            // Another worker finishes the requests, or their claims expire.
            return Ok(None);
        }
        within(self.queue.remove()).await?;
        self.context.events.publish_state(&self.ledger, campaign).await?;
        // A retry that starts it again also notifies the worker.
        Ok(Some(Idle::Over))
    }
}

/// Limits how long the broker may delay a tick.
pub(super) async fn within<T>(asked: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
    tokio::time::timeout(BROKER_TIMEOUT, asked).await.unwrap_or(Err(QueueError::Silent))
}
