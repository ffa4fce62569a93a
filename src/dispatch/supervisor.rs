//! Attends to one campaign in this worker: runs its senders and its planner while it may be sent,
//! and, where this worker holds its lease, completes it and tells others of it.
//!
//! It looks at the campaign a few times a second and does what its state asks for. Whatever it
//! needs to know is in the ledger, so any worker can go on where another one ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::intake::template;
use super::planning::{Planning, Publish};
use super::sender::{Sending, State};
use super::{Accounts, DispatchError, Prepared};
use crate::campaign::job::OnInDoubt;
use crate::campaign::{CampaignId, CampaignState, Columns, Job, Opening};
use crate::ledger::{Campaign, Counts, Decision, Lease, Ledger, LedgerError, Suppressed};
use crate::limiter::CampaignLimits;
use crate::queue::{Queue, QueueError};

/// How often a campaign is looked at when nothing rings.
const TICK: Duration = Duration::from_millis(250);
/// How long the broker may keep a look waiting.
const BROKER: Duration = Duration::from_secs(3);
/// How long senders rest after something failed under them.
const REST: Duration = Duration::from_secs(1);

/// What all attendants of a worker share.
#[derive(Clone)]
pub struct Context {
    /// The accounts that it can send from.
    pub accounts: Accounts,
    /// The folder of audiences.
    pub root: Option<PathBuf>,
    /// Where events go.
    pub events: Events,
}

/// What a look found.
#[derive(PartialEq, Eq)]
enum Found {
    /// It is to be looked at again.
    More,
    /// There is nothing to do for it any more.
    Nothing,
}

/// One campaign in this worker.
pub(super) struct CampaignSupervisor<L: Ledger, Q: Queue> {
    pub(super) id: CampaignId,
    pub(super) ledger: L,
    pub(super) queue: Q,
    pub(super) context: Context,
    pub(super) stop: CancellationToken,
    /// Whether it ends when the campaign does not run any more, as for a person at a terminal.
    ends: bool,
    pub(super) wake_up: Arc<Notify>,
    known: Option<CampaignJob>,
    pub(super) prepared: Option<Arc<Prepared>>,
    pub(super) sending: Option<Senders<L, Q>>,
    pub(super) planning: Option<PlanningTask>,
    pub(super) publish: Publish,
    /// The numbers that must never be messaged.
    suppressed: Arc<RwLock<Arc<Suppressed>>>,
    /// The batches that this worker has queued again, and since which decision.
    pub(super) replayed: BTreeMap<u32, u64>,
    /// Since when it stands still with nothing queued, and where.
    pub(super) still: Option<(Instant, Counts)>,
    shown: Option<String>,
    expired_once: bool,
    rest_until: Option<Instant>,
}

/// A job and its audience's columns, read once.
pub(super) struct CampaignJob {
    pub(super) job: Arc<Job>,
    pub(super) columns: Columns,
}

pub(super) struct Senders<L, Q> {
    pub(super) sending: Arc<Sending<L, Q>>,
    pub(super) tasks: JoinSet<()>,
    /// Whether they only look whether what holds the campaign still does.
    pub(super) probe: bool,
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
            known: None,
            prepared: None,
            sending: None,
            planning: None,
            // A queue of this process alone is empty now, whatever is planned.
            publish: if Q::LASTS { Publish::News } else { Publish::Unsettled },
            suppressed: Arc::default(),
            replayed: BTreeMap::new(),
            still: None,
            shown: None,
            expired_once: false,
            rest_until: None,
        }
    }

    /// Ends when the campaign does not run any more. Its audience is read already.
    pub(super) fn until_it_stops(mut self, prepared: Arc<Prepared>) -> Self {
        self.ends = true;
        self.prepared = Some(prepared);
        self
    }

    /// Attends until there is nothing to do any more, or it is stopped; then what is under way is
    /// finished and recorded first.
    pub(super) async fn supervise(mut self) -> Result<(), DispatchError> {
        let stop = self.stop.clone();
        let done = loop {
            let ticked = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                look = self.tick() => look,
            };
            match ticked {
                Ok(Found::Nothing) => break Ok(()),
                Ok(Found::More) => {}
                // Others send from this ledger too; what failed here may work in a moment.
                Err(fault) if L::SHARED => {
                    tracing::error!(campaign = %self.id, "{fault}");
                    tokio::time::sleep(REST).await;
                }
                Err(fault) => break Err(fault),
            }
            let wake_up = self.wake_up.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                () = wake_up.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        };
        self.stop_planning().await;
        if let Some(mut senders) = self.sending.take() {
            senders.sending.stop.cancel();
            while senders.tasks.join_next().await.is_some() {}
            if let (Ok(()), Some(fault)) = (&done, senders.sending.state.broken())
                && !L::SHARED
            {
                return Err(fault);
            }
        }
        self.queue.close().await;
        self.ledger.release(&self.id).await?;
        done
    }

    async fn tick(&mut self) -> Result<Found, DispatchError> {
        let Some(campaign) = self.ledger.campaign(&self.id).await? else { return Ok(Found::Nothing) };
        let attendance = self.ledger.heartbeat(&self.id, self.queue.held()).await?;
        let known = self.suppressed.read().unwrap_or_else(PoisonError::into_inner).version;
        if let Some(update) = self.ledger.suppressed(known).await? {
            let mut list = self.suppressed.write().unwrap_or_else(PoisonError::into_inner);
            Arc::make_mut(&mut list).apply(update);
        }
        if attendance.leads && (L::SHARED || !self.expired_once) {
            self.expire_claims().await?;
            self.expired_once = true;
        }
        if !attendance.leads {
            self.stop_planning().await;
        }
        match campaign.state {
            CampaignState::Running => {
                self.run(&campaign, attendance).await?;
                if attendance.leads {
                    self.publish_state(&campaign).await?;
                }
                Ok(Found::More)
            }
            CampaignState::Held if campaign.suspended_by.is_some() && !self.ends => {
                self.stand_by(&campaign, attendance).await?;
                if attendance.leads {
                    self.publish_state(&campaign).await?;
                }
                Ok(Found::More)
            }
            CampaignState::Scheduled => {
                self.wait_for_start(&campaign).await?;
                if attendance.leads {
                    self.publish_state(&campaign).await?;
                }
                Ok(Found::More)
            }
            _ => {
                self.stop_planning().await;
                if !self.rest().await? {
                    return Ok(Found::More);
                }
                if self.ends {
                    return Ok(Found::Nothing);
                }
                if !attendance.leads {
                    return Ok(Found::More);
                }
                if matches!(campaign.state, CampaignState::Completed | CampaignState::Cancelled) {
                    return self.end(&campaign).await;
                }
                self.publish_state(&campaign).await?;
                Ok(Found::More)
            }
        }
    }

    /// What a worker that has gone was sending is in doubt, or sent again where the job says so.
    async fn expire_claims(&mut self) -> Result<(), DispatchError> {
        let resend = self.known().await?.job.on_in_doubt == OnInDoubt::Resend;
        let expired = self.ledger.expire_claims(&self.id, resend).await?;
        if expired > 0 && !resend {
            tracing::warn!(campaign = %self.id, "{expired} messages were under way when their worker ended: they are in doubt");
            metrics::counter!("flowcast_claims_expired_total").increment(expired);
        }
        Ok(())
    }

    /// Waits for the campaign's start.
    async fn wait_for_start(&mut self, campaign: &Campaign) -> Result<(), DispatchError> {
        let (state, reason) = match self.known().await?.job.schedule.at(Timestamp::now()) {
            Opening::Opens(at) => (CampaignState::Scheduled, Some(format!("its schedule opens at {at}"))),
            Opening::Open { .. } | Opening::Expired => (CampaignState::Running, None),
        };
        if (state, &reason) != (campaign.state, &campaign.reason) {
            self.change_state(state, reason).await?;
        }
        if state == CampaignState::Running {
            self.wake_up.notify_one();
        }
        Ok(())
    }

    /// Moves the campaign, unless somebody else has moved it meanwhile.
    pub(super) async fn change_state(
        &self,
        to: CampaignState,
        reason: Option<String>,
    ) -> Result<(), DispatchError> {
        match self.ledger.change_state(&self.id, to, reason).await {
            Ok(()) | Err(LedgerError::IllegalMove { .. }) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn run(&mut self, campaign: &Campaign, attendance: Lease) -> Result<(), DispatchError> {
        let (job, opening) = {
            let job = self.known().await?.job.clone();
            let opening = job.schedule.at(Timestamp::now());
            (job, opening)
        };
        if self.is_suspended(&job, attendance).await? {
            return Ok(());
        }
        let account = self.context.accounts.get(&job.account);
        let mut waits_for = None;
        match (opening, &account) {
            (Opening::Opens(at), _) => {
                self.rest().await?;
                waits_for = Some(format!("outside its sending window, which opens at {at}"));
            }
            (_, Err(fault)) => {
                self.rest().await?;
                // Another worker may know the account; the one that leads says what it lacks.
                waits_for = Some(format!("waits for a worker that can send from its account: {fault}"))
                    .filter(|_| attendance.leads);
            }
            (_, Ok(_)) => self.send(&job, campaign.batch_size).await?,
        }
        if let Some(trouble) = self.queue.trouble() {
            waits_for = Some(format!("waits: {trouble}"));
        }
        self.show_wait(campaign, waits_for).await?;
        if !attendance.leads {
            return Ok(());
        }
        self.lead(campaign, &job, account.is_ok(), attendance).await
    }

    pub(super) async fn hold(&self, reason: String) -> Result<(), DispatchError> {
        tracing::warn!(campaign = %self.id, "held: {reason}");
        self.wake_up.notify_one();
        self.change_state(CampaignState::Held, Some(reason)).await
    }

    /// Says what the campaign waits for, when that changes.
    pub(super) async fn show_wait(
        &mut self,
        campaign: &Campaign,
        waits_for: Option<String>,
    ) -> Result<(), DispatchError> {
        if waits_for == self.shown {
            return Ok(());
        }
        // What another has said meanwhile is not taken back.
        if waits_for.is_some() || campaign.reason == self.shown {
            self.ledger.note(&self.id, waits_for.clone()).await?;
        }
        self.shown = waits_for;
        Ok(())
    }

    pub(super) async fn known(&mut self) -> Result<&CampaignJob, DispatchError> {
        if self.known.is_none() {
            let stored = self.ledger.job(&self.id).await?;
            let job = Job::read(stored.job.as_bytes()).map_err(|problems| {
                let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                DispatchError::Job(self.id.clone(), text)
            })?;
            self.known = Some(CampaignJob { job: Arc::new(job), columns: Columns::new(stored.columns) });
        }
        self.known.as_ref().ok_or_else(|| DispatchError::Task("a job that was read is gone".into()))
    }

    /// Has senders at work.
    async fn send(&mut self, job: &Arc<Job>, batch_size: usize) -> Result<(), DispatchError> {
        if self.rest_until.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        if let Some(senders) = &mut self.sending {
            if !senders.probe && !senders.sending.stop.is_cancelled() {
                return Ok(());
            }
            // They stopped by themselves, or were there for a probe.
            if !self.rest().await? {
                return Ok(());
            }
        }
        let sending = self.sending(job).await?;
        let mut tasks = JoinSet::new();
        for _ in 0..sending.account.senders(batch_size) {
            let sending = sending.clone();
            tasks.spawn(async move { sending.send_batches().await });
        }
        self.sending = Some(Senders { sending, tasks, probe: false });
        Ok(())
    }

    /// What senders of the campaign share.
    pub(super) async fn sending(&mut self, job: &Arc<Job>) -> Result<Arc<Sending<L, Q>>, DispatchError> {
        let account = self.context.accounts.get(&job.account).map_err(DispatchError::Task)?;
        let columns = &self.known().await?.columns;
        let template = template(job, columns, &account).map_err(|problems| {
            let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            DispatchError::Job(self.id.clone(), text)
        })?;
        Ok(Arc::new(Sending {
            id: self.id.clone(),
            ledger: self.ledger.clone(),
            queue: self.queue.clone(),
            account,
            job: job.clone(),
            template,
            limits: CampaignLimits::new(self.id.clone(), job.flow(), job.limits.messages),
            flow: job.flow(),
            events: self.context.events.clone(),
            suppressed: self.suppressed.clone(),
            stop: self.stop.child_token(),
            wake_up: self.wake_up.clone(),
            state: State::default(),
        }))
    }

    /// Stops the senders. Returns whether the last of them is done.
    pub(super) async fn rest(&mut self) -> Result<bool, DispatchError> {
        let Some(senders) = &mut self.sending else { return Ok(true) };
        senders.sending.stop.cancel();
        while let Some(ended) = senders.tasks.try_join_next() {
            ended.map_err(|fault| DispatchError::Task(fault.to_string()))?;
        }
        if !senders.tasks.is_empty() {
            return Ok(false);
        }
        let broken = senders.sending.state.broken();
        self.sending = None;
        self.queue.close().await;
        if let Some(fault) = broken {
            self.rest_until = Some(Instant::now() + REST);
            return Err(fault);
        }
        Ok(true)
    }

    /// Tells others of the campaign's state, once it is in the ledger.
    pub(super) async fn publish_state(&mut self, campaign: &Campaign) -> Result<(), DispatchError> {
        if campaign.published == Some(campaign.state) {
            return Ok(());
        }
        if let Some(broker) = &self.context.events.0 {
            within(broker.publish_events(&[Events::state(campaign)])).await?;
        }
        Ok(self.ledger.published(&self.id, campaign.state).await?)
    }

    /// Clears up behind a campaign that has ended.
    async fn end(&mut self, campaign: &Campaign) -> Result<Found, DispatchError> {
        if campaign.state == CampaignState::Cancelled && campaign.counts.pending > 0 {
            self.ledger.decide(&self.id, Decision::Cancel).await?;
            return Ok(Found::More);
        }
        if campaign.counts.sending > 0 {
            // Another worker finishes it, or its claim runs out.
            return Ok(Found::More);
        }
        within(self.queue.remove()).await?;
        self.publish_state(campaign).await?;
        // A retry may have woken it meanwhile.
        let now = self.ledger.campaign(&self.id).await?;
        Ok(if now.is_some_and(|now| now.state != campaign.state) { Found::More } else { Found::Nothing })
    }
}

/// What is asked of the broker must not keep a look waiting for long.
pub(super) async fn within<T>(asked: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
    tokio::time::timeout(BROKER, asked)
        .await
        .unwrap_or_else(|_| Err(QueueError("does not answer; what waits for it is tried again".into())))
}
