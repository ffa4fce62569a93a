//! Attends to one campaign in this worker: runs its senders and its planner while it may be sent,
//! and, where this worker holds its lease, completes it and tells others of it.
//!
//! It looks at the campaign a few times a second and does what its state asks for. Whatever it
//! needs to know is in the ledger, so any worker can go on where another one ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::intake::template;
use super::planning::{AHEAD, Planning, Plans, Publish};
use super::sender::{Sending, State};
use super::{Accounts, DispatchError, Prepared, again, prepare};
use crate::campaign::job::OnInDoubt;
use crate::campaign::{CampaignId, CampaignState, Columns, Job, Opening};
use crate::ledger::{Attendance, Campaign, Counts, Decision, Ledger, LedgerError};
use crate::limiter::CampaignLimits;
use crate::queue::{Queue, QueueError};

/// How often a campaign is looked at when nothing rings.
const LOOK: Duration = Duration::from_millis(250);
/// After standing still for so long with nothing queued, batches are lost.
const LOST: Duration = Duration::from_secs(5);
/// How long the broker may keep a look waiting.
const BROKER: Duration = Duration::from_secs(3);
/// How long senders rest after something failed under them.
const REST: Duration = Duration::from_secs(1);

/// What all attendants of a worker share.
#[derive(Clone)]
pub struct Setting {
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
pub(super) struct Attendant<L: Ledger, Q: Queue> {
    id: CampaignId,
    ledger: L,
    queue: Q,
    setting: Setting,
    stop: CancellationToken,
    /// Whether it ends when the campaign does not run any more, as for a person at a terminal.
    ends: bool,
    bell: Arc<Notify>,
    known: Option<Known>,
    prepared: Option<Arc<Prepared>>,
    sending: Option<Senders<L, Q>>,
    planning: Option<PlanningTask>,
    publish: Publish,
    /// The batches that this worker has queued again, and since which decision.
    requeued: BTreeMap<u32, u64>,
    /// Since when it stands still with nothing queued, and where.
    still: Option<(Instant, Counts)>,
    told: Option<String>,
    expired_once: bool,
    rest_until: Option<Instant>,
}

/// A job and its audience's columns, read once.
struct Known {
    job: Arc<Job>,
    columns: Columns,
}

struct Senders<L, Q> {
    sending: Arc<Sending<L, Q>>,
    tasks: JoinSet<()>,
}

struct PlanningTask {
    stop: CancellationToken,
    task: JoinHandle<Result<Planning, DispatchError>>,
}

impl<L: Ledger, Q: Queue> Attendant<L, Q> {
    pub(super) fn new(
        id: CampaignId,
        ledger: L,
        queue: Q,
        setting: Setting,
        stop: CancellationToken,
    ) -> Self {
        Self {
            id,
            ledger,
            queue,
            setting,
            stop,
            ends: false,
            bell: Arc::default(),
            known: None,
            prepared: None,
            sending: None,
            planning: None,
            // A queue of this process alone is empty now, whatever is planned.
            publish: if Q::LASTS { Publish::News } else { Publish::Unsettled },
            requeued: BTreeMap::new(),
            still: None,
            told: None,
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
    pub(super) async fn attend(mut self) -> Result<(), DispatchError> {
        let stop = self.stop.clone();
        let done = loop {
            let look = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                look = self.look() => look,
            };
            match look {
                Ok(Found::Nothing) => break Ok(()),
                Ok(Found::More) => {}
                // Others send from this ledger too; what failed here may work in a moment.
                Err(fault) if L::SHARED => {
                    tracing::error!(campaign = %self.id, "{fault}");
                    tokio::time::sleep(REST).await;
                }
                Err(fault) => break Err(fault),
            }
            let bell = self.bell.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                () = bell.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
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
        self.ledger.leave(&self.id).await?;
        done
    }

    async fn look(&mut self) -> Result<Found, DispatchError> {
        let Some(campaign) = self.ledger.campaign(&self.id).await? else { return Ok(Found::Nothing) };
        let attendance = self.ledger.attend(&self.id, self.queue.held()).await?;
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
                    self.announce(&campaign).await?;
                }
                Ok(Found::More)
            }
            CampaignState::Scheduled => {
                self.wait_for_start(&campaign).await?;
                if attendance.leads {
                    self.announce(&campaign).await?;
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
                self.announce(&campaign).await?;
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
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Moves the campaign, unless somebody else has moved it meanwhile.
    async fn change_state(&self, to: CampaignState, reason: Option<String>) -> Result<(), DispatchError> {
        match self.ledger.change_state(&self.id, to, reason).await {
            Ok(()) | Err(LedgerError::IllegalMove { .. }) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn run(&mut self, campaign: &Campaign, attendance: Attendance) -> Result<(), DispatchError> {
        let (job, opening) = {
            let job = self.known().await?.job.clone();
            let opening = job.schedule.at(Timestamp::now());
            (job, opening)
        };
        let account = self.setting.accounts.get(&job.account);
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
        self.tell(campaign, waits_for).await?;
        if !attendance.leads {
            return Ok(());
        }
        self.reap_planning().await?;
        if let Some(senders) = &self.sending {
            senders.sending.state.planned.store(campaign.planned, std::sync::atomic::Ordering::Relaxed);
        }
        let counts = campaign.counts;
        if campaign.planned
            && counts.open() == 0
            && self.planning.is_none()
            && self.ledger.complete(&self.id).await?
        {
            self.bell.notify_one();
            return Ok(());
        }
        let is_unplanned = !campaign.planned || (self.publish == Publish::Unsettled && counts.open() > 0);
        if self.planning.is_none() && is_unplanned && account.is_ok() {
            if campaign.planned && self.kept().await? >= counts.pending {
                // All that is left can be queued from what is kept of it.
                self.publish = Publish::News;
            } else {
                self.start_planning(campaign, &job);
            }
        }
        if self.sending.is_some() {
            self.queue_again().await?;
            self.watch_for_loss(counts, attendance).await?;
        }
        Ok(())
    }

    /// Says what the campaign waits for, when that changes.
    async fn tell(&mut self, campaign: &Campaign, waits_for: Option<String>) -> Result<(), DispatchError> {
        if waits_for == self.told {
            return Ok(());
        }
        // What another has said meanwhile is not taken back.
        if waits_for.is_some() || campaign.reason == self.told {
            self.ledger.note(&self.id, waits_for.clone()).await?;
        }
        self.told = waits_for;
        Ok(())
    }

    async fn known(&mut self) -> Result<&Known, DispatchError> {
        if self.known.is_none() {
            let stored = self.ledger.job(&self.id).await?;
            let job = Job::read(stored.job.as_bytes()).map_err(|problems| {
                let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                DispatchError::Job(self.id.clone(), text)
            })?;
            self.known = Some(Known { job: Arc::new(job), columns: Columns::new(stored.columns) });
        }
        self.known.as_ref().ok_or_else(|| DispatchError::Task("a job that was read is gone".into()))
    }

    /// Has senders at work.
    async fn send(&mut self, job: &Arc<Job>, batch_size: usize) -> Result<(), DispatchError> {
        if self.rest_until.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        if let Some(senders) = &mut self.sending {
            if !senders.sending.stop.is_cancelled() {
                return Ok(());
            }
            // They stopped by themselves.
            if !self.rest().await? {
                return Ok(());
            }
        }
        let account = self.setting.accounts.get(&job.account).map_err(DispatchError::Task)?;
        let columns = &self.known().await?.columns;
        let template = template(job, columns, &account).map_err(|problems| {
            let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            DispatchError::Job(self.id.clone(), text)
        })?;
        let senders = account.senders(batch_size);
        let sending = Arc::new(Sending {
            id: self.id.clone(),
            ledger: self.ledger.clone(),
            queue: self.queue.clone(),
            account,
            job: job.clone(),
            template,
            limits: CampaignLimits::new(self.id.clone(), job.limits.messages),
            events: self.setting.events.clone(),
            stop: self.stop.child_token(),
            bell: self.bell.clone(),
            state: State::default(),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..senders {
            let sending = sending.clone();
            tasks.spawn(async move { sending.send_batches().await });
        }
        self.sending = Some(Senders { sending, tasks });
        Ok(())
    }

    /// Stops the senders. Returns whether the last of them is done.
    async fn rest(&mut self) -> Result<bool, DispatchError> {
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

    fn start_planning(&mut self, campaign: &Campaign, job: &Arc<Job>) {
        let stop = self.stop.child_token();
        let (id, ledger, queue, setting) =
            (self.id.clone(), self.ledger.clone(), self.queue.clone(), self.setting.clone());
        let (prepared, job, bell) = (self.prepared.clone(), job.clone(), self.bell.clone());
        let (batch_size, audience, publish) = (campaign.batch_size, campaign.audience.clone(), self.publish);
        let (stopped, runtime) = (stop.clone(), tokio::runtime::Handle::current());
        let task = tokio::task::spawn_blocking(move || {
            let planned = (|| {
                let prepared = if let Some(prepared) = prepared {
                    prepared
                } else {
                    let account = setting.accounts.get(&job.account).map_err(DispatchError::Task)?;
                    match prepare((*job).clone(), setting.root.as_deref(), &account) {
                        Ok(prepared) => Arc::new(prepared),
                        Err(refusal) => return Ok(Planning::Impossible(refusal.to_string())),
                    }
                };
                if prepared.survey.digest != audience {
                    let reason = "the audience has changed since the campaign was registered";
                    return Ok(Planning::Impossible(reason.into()));
                }
                let (ledger, queue) = (&ledger, &queue);
                Plans {
                    ledger,
                    queue,
                    id: &id,
                    prepared: &prepared,
                    batch_size,
                    publish,
                    stop: &stopped,
                    runtime,
                }
                .plan()
            })();
            bell.notify_one();
            planned
        });
        self.planning = Some(PlanningTask { stop, task });
    }

    /// Looks whether planning has ended, and how.
    async fn reap_planning(&mut self) -> Result<(), DispatchError> {
        let Some(planning) = self.planning.take_if(|planning| planning.task.is_finished()) else {
            return Ok(());
        };
        let planned = planning.task.await.map_err(|fault| DispatchError::Task(fault.to_string()))?;
        match planned {
            Ok(Planning::Complete) => {
                self.publish = Publish::News;
                Ok(())
            }
            Ok(Planning::Stopped) => Ok(()),
            Ok(Planning::Impossible(reason)) => self.hold(reason).await,
            Err(DispatchError::Audience(fault)) => self.hold(fault.to_string()).await,
            Err(fault) => Err(fault),
        }
    }

    async fn hold(&self, reason: String) -> Result<(), DispatchError> {
        tracing::warn!(campaign = %self.id, "held: {reason}");
        self.bell.notify_one();
        self.change_state(CampaignState::Held, Some(reason)).await
    }

    async fn stop_planning(&mut self) {
        if let Some(planning) = self.planning.take() {
            planning.stop.cancel();
            let _ = planning.task.await;
        }
    }

    /// Queues what a person wants sent again, as far as its values are kept.
    async fn queue_again(&mut self) -> Result<(), DispatchError> {
        let batches = self.ledger.again(&self.id, self.requeued.clone()).await?;
        if batches.is_empty() || within(BROKER, self.queue.waiting()).await? >= AHEAD {
            return Ok(());
        }
        let Some(senders) = &self.sending else { return Ok(()) };
        let width = senders.sending.template.columns().len();
        let queued: Vec<_> = batches.iter().filter_map(|batch| again::batch(batch, width)).collect();
        within(BROKER, self.queue.publish(queued)).await?;
        self.requeued.extend(batches.iter().map(|batch| (batch.batch.number, batch.since)));
        self.bell.notify_one();
        Ok(())
    }

    /// Nothing queued, nothing in anybody's hands, nothing claimed, and yet pending: the queue has
    /// lost batches, and they are planned again. A batch that was there all the same finds nothing
    /// left to claim.
    async fn watch_for_loss(&mut self, counts: Counts, attendance: Attendance) -> Result<(), DispatchError> {
        let idle = counts.pending > 0 && counts.sending == 0 && attendance.held == 0;
        if !idle || within(BROKER, self.queue.waiting()).await? > 0 {
            self.still = None;
            return Ok(());
        }
        match self.still {
            Some((since, then)) if then == counts => {
                if since.elapsed() < LOST {
                    return Ok(());
                }
            }
            _ => {
                self.still = Some((Instant::now(), counts));
                return Ok(());
            }
        }
        tracing::warn!(campaign = %self.id, "{} messages are pending and in no queue: they are planned again", counts.pending);
        metrics::counter!("flowcast_lost_messages_total").increment(counts.pending);
        self.still = None;
        self.stop_planning().await;
        self.requeued.clear();
        // What is kept needs no audience.
        if self.kept().await? < counts.pending {
            self.publish = Publish::Unsettled;
        }
        self.bell.notify_one();
        Ok(())
    }

    /// How many pending messages can be sent again from what is kept of them.
    async fn kept(&self) -> Result<u64, DispatchError> {
        let mut kept = 0;
        let mut known = BTreeMap::new();
        loop {
            let page = self.ledger.again(&self.id, known.clone()).await?;
            if page.is_empty() {
                return Ok(kept);
            }
            kept += page.iter().map(|batch| batch.payloads.len() as u64).sum::<u64>();
            known.extend(page.iter().map(|batch| (batch.batch.number, batch.since)));
        }
    }

    /// Tells others of the campaign's state, once it is in the ledger.
    async fn announce(&mut self, campaign: &Campaign) -> Result<(), DispatchError> {
        if campaign.announced == Some(campaign.state) {
            return Ok(());
        }
        if let Some(broker) = &self.setting.events.0 {
            within(BROKER, broker.tell(&[Events::state(campaign)])).await?;
        }
        Ok(self.ledger.announced(&self.id, campaign.state).await?)
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
        within(BROKER, self.queue.remove()).await?;
        self.announce(campaign).await?;
        // A retry may have woken it meanwhile.
        let now = self.ledger.campaign(&self.id).await?;
        Ok(if now.is_some_and(|now| now.state != campaign.state) { Found::More } else { Found::Nothing })
    }
}

/// What is asked of the broker must not keep a look waiting for long.
async fn within<T>(
    time: Duration,
    asked: impl Future<Output = Result<T, QueueError>>,
) -> Result<T, QueueError> {
    tokio::time::timeout(time, asked)
        .await
        .unwrap_or_else(|_| Err(QueueError("does not answer; what waits for it is tried again".into())))
}
