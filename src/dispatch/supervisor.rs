//! One campaign in this worker: runs its senders and its planner while it may be sent, and, where this
//! worker holds its lease, completes it and publishes its states.
//!
//! It ticks now and then, and at once when something wakes it, and does what the campaign's state asks for.
//! Where there is nothing to do it ends, and says when there may be. Whatever it needs to know is in the
//! ledger, so any worker can go on where another one ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::RwLock;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::intake::template;
use super::planning::{Planning, Publish};
use super::sender::{Sending, State};
use super::{Account, Accounts, DispatchError, Prepared};
use crate::audience::Audiences;
use crate::campaign::job::OnInDoubt;
use crate::campaign::notice::KeptNotice;
use crate::campaign::{CampaignId, CampaignState, Columns, Job, Opening, Phone, Reason, SkipReason, counted};
use crate::ledger::{
    Breaker, Campaign, Counts, Decision, Gap, Lease, Ledger, Point, Suppress, Suppressed, UnmovedStore,
    skip_unplanned,
};
use crate::ledger::{claims, decisions, transitions};
use crate::limiter::CampaignLimits;
use crate::queue::{Queue, QueueError};
use crate::traces::Trace;

/// How often a campaign is looked at when nothing wakes its supervisor.
const TICK: Duration = Duration::from_secs(1);
/// How long the broker may keep a tick waiting.
const BROKER: Duration = Duration::from_secs(3);
/// How often it is looked up what providers say of templates and numbers.
const NOTICES: Duration = Duration::from_secs(5);
/// How long it is waited for workers that do not say what they wrote before the ledger went back.
const SILENT: Duration = Duration::from_secs(15);
/// How long senders rest after something failed under them.
const REST: Duration = Duration::from_secs(1);

/// What all supervisors of a worker share.
#[derive(Clone)]
pub struct Context {
    /// The accounts that it can send from.
    pub accounts: Accounts,
    /// Where audiences may come from.
    pub audiences: Audiences,
    /// Where events go.
    pub events: Events,
    /// Whether it sends to a sandbox: then rehearsals and nothing else, and without it never one.
    pub rehearses: bool,
    /// A store of this machine beside the fleet's ledger: what it has is not begun again.
    pub unmoved: UnmovedStore,
    /// The numbers that must never be messaged.
    suppressed: Arc<RwLock<Suppressed>>,
}

impl Context {
    /// A context that knows no suppressed numbers yet.
    pub fn new(accounts: Accounts, audiences: Audiences, events: Events, rehearses: bool) -> Self {
        Self {
            accounts,
            audiences,
            events,
            rehearses,
            unmoved: UnmovedStore::default(),
            suppressed: Arc::default(),
        }
    }

    /// Takes over what has changed in the list of suppressed numbers.
    ///
    /// # Errors
    ///
    /// The ledger's.
    pub async fn follow_suppressed(&self, ledger: &impl Ledger) -> Result<(), DispatchError> {
        let known = self.suppressed.read().version;
        if let Some(update) = ledger.suppressed(known).await? {
            if update.version() < known {
                return self.write_suppressed_again(ledger).await;
            }
            let mut list = self.suppressed.write();
            // Who has asked at the same time may have taken over more than this by now.
            if list.version == known {
                list.apply(update);
            }
        }
        Ok(())
    }

    /// The ledger has forgotten some of the list, or all of it: it came back older than it was, or was emptied. Who said
    /// STOP is never written to again, whatever a store forgets.
    async fn write_suppressed_again(&self, ledger: &impl Ledger) -> Result<(), DispatchError> {
        let known: Vec<Phone> = {
            let list = self.suppressed.read();
            list.numbers.iter().filter_map(Phone::from_digits).collect()
        };
        let again = ledger.suppress(known, Suppress::Add, None).await?;
        tracing::warn!(
            "the ledger had forgotten {} that are suppressed: they are on its list again",
            counted(again, "number")
        );
        if let Some(whole) = ledger.suppressed(0).await? {
            self.suppressed.write().apply(whole);
        }
        Ok(())
    }

    /// Suppressed numbers as digits, in their order: so many from one on.
    pub fn suppressed_from(&self, first: u64, count: usize) -> Vec<u64> {
        let list = self.suppressed.read();
        let mut numbers = list.numbers.iter();
        numbers.advance_to(first);
        numbers.take(count).collect()
    }

    /// Returns the version of the list of suppressed numbers.
    pub fn suppressed_version(&self) -> u64 {
        self.suppressed.read().version
    }

    /// Whether a person is on the list, in whatever spelling.
    pub fn is_suppressed(&self, phone: Phone) -> bool {
        self.suppressed.read().contains(phone)
    }

    /// Returns suppressed numbers that have these digits somewhere, at most `count` of them, in ascending order. All of a long list
    /// are looked at, which takes a while: not while others wait for the list, nor on a thread that others need.
    pub async fn suppressed_with(&self, digits: String, count: usize) -> Vec<u64> {
        let numbers = self.suppressed.read().numbers.clone();
        let search = move || {
            let has_them = |number: &u64| number.to_string().contains(&digits);
            numbers.iter().filter(has_them).take(count).collect()
        };
        tokio::task::spawn_blocking(search).await.unwrap_or_default()
    }
}

/// What follows a tick.
pub(super) enum Next {
    /// Another one.
    Tick,
    /// The supervisor ends.
    Rest(Rest),
}

/// What this worker has had to do with a campaign.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Involved {
    No,
    /// The ledger knows that it looks after it.
    LooksAfter,
    /// It has had senders.
    Sends,
}

/// Until when nothing is to be done for a campaign.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Until(Timestamp),
    UntilClosed(Breaker),
    UntilItChanges,
    /// It has ended, and what was kept for it outside the ledger is gone.
    Over,
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
    /// Rung by whatever works for it here.
    pub(super) wake_up: Arc<Notify>,
    /// Rung by the worker when the campaign has changed.
    changed: Arc<Notify>,
    known: Option<CampaignJob>,
    pub(super) prepared: Option<Arc<Prepared>>,
    pub(super) sending: Option<Senders<L, Q>>,
    pub(super) planning: Option<PlanningTask>,
    pub(super) publish: Publish,
    /// The batches that this worker has queued again, and since which decision.
    pub(super) replayed: BTreeMap<u32, u64>,
    /// Since when it stands still with nothing queued, and where.
    pub(super) still: Option<(Instant, Counts)>,
    /// How it went so far, where this worker leads it.
    pub(super) points: Option<Vec<Point>>,
    /// What its provider says of what it uses, and when that was looked up.
    noticed: Option<(Instant, Option<KeptNotice>)>,
    shown: Option<Reason>,
    involved: Involved,
    expired_once: bool,
    rest_until: Option<Instant>,
    /// When it is planned again, and why not before: a disk was full.
    pub(super) plans_at: Option<(Instant, String)>,
}

/// A job and its audience's columns, read once.
pub(super) struct CampaignJob {
    pub(super) job: Arc<Job>,
    pub(super) columns: Columns,
}

pub(super) struct Senders<L, Q> {
    pub(super) sending: Arc<Sending<L, Q>>,
    pub(super) tasks: JoinSet<()>,
    /// Whether they only try whether what suspends the campaign still does.
    pub(super) probe: bool,
}

impl<L: Ledger, Q: Queue> Senders<L, Q> {
    /// Has at least so many at work.
    fn begin(&mut self, wanted: usize) {
        for _ in self.tasks.len()..wanted {
            let sending = self.sending.clone();
            self.tasks.spawn(async move { sending.send_batches().await });
        }
    }
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
            // A queue of this process alone is empty now, whatever is planned.
            publish: if Q::LASTS { Publish::News } else { Publish::Unsettled },
            replayed: BTreeMap::new(),
            still: None,
            points: None,
            noticed: None,
            shown: None,
            involved: Involved::No,
            expired_once: false,
            rest_until: None,
            plans_at: None,
        }
    }

    /// Its audience may have been read already.
    pub(super) fn with(mut self, prepared: Option<Arc<Prepared>>) -> Self {
        self.prepared = prepared;
        self
    }

    /// Ends when the campaign does not run any more.
    pub(super) fn until_it_stops(mut self) -> Self {
        self.ends = true;
        self
    }

    /// Does what there is to do for the campaign until there is nothing any more, or it is stopped; then
    /// what is under way is finished and recorded first. The permit is let go after the first tick.
    pub(super) async fn supervise(
        mut self,
        mut first: Option<OwnedSemaphorePermit>,
    ) -> Result<Rest, DispatchError> {
        let stop = self.stop.clone();
        let done = loop {
            let ticked = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(Rest::UntilItChanges),
                next = self.tick() => next,
            };
            first.take();
            match ticked {
                Ok(Next::Rest(rest)) => break Ok(rest),
                Ok(Next::Tick) => {}
                // Others send from this ledger too; what failed here may work in a moment.
                Err(fault) if self.ledger.is_shared() => {
                    tracing::error!(campaign = %self.id, "{fault}");
                    tokio::time::sleep(REST).await;
                }
                Err(fault) => break Err(fault),
            }
            let (wake_up, changed) = (self.wake_up.clone(), self.changed.clone());
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(Rest::UntilItChanges),
                () = changed.notified() => {}
                () = wake_up.notified() => {}
                () = self.senders_end() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        };
        self.stop_planning().await;
        if let Some(mut senders) = self.sending.take() {
            senders.sending.stop.cancel();
            while senders.tasks.join_next().await.is_some() {}
            if let (Ok(_), Some(fault)) = (&done, senders.sending.state.broken())
                && !self.ledger.is_shared()
            {
                return Err(fault);
            }
        }
        self.queue.close().await;
        if self.involved != Involved::No {
            self.ledger.release(&self.id).await?;
        }
        done
    }

    /// Waits until senders that are to end have ended.
    async fn senders_end(&mut self) {
        match &mut self.sending {
            Some(senders) if senders.probe || senders.sending.stop.is_cancelled() => {
                while senders.tasks.join_next().await.is_some() {}
            }
            _ => std::future::pending().await,
        }
    }

    async fn tick(&mut self) -> Result<Next, DispatchError> {
        let Some(campaign) = self.ledger.campaign(&self.id).await? else {
            return Ok(Next::Rest(Rest::UntilItChanges));
        };
        if self.ends {
            self.context.follow_suppressed(&self.ledger).await?;
        } else if let Some(rest) = self.waits(&campaign).await? {
            return Ok(Next::Rest(rest));
        }
        self.involved = self.involved.max(Involved::LooksAfter);
        let lease = self.ledger.heartbeat(&self.id, self.queue.held()).await?;
        let is_sent = campaign.state == CampaignState::Running || campaign.suspended_by.is_some();
        if let Some(gap) = lease.gap.as_ref().filter(|_| is_sent) {
            return self.wait_for_workers(&campaign, gap, lease.leads).await;
        }
        if lease.leads && lease.gap.is_none() && (self.ledger.is_shared() || !self.expired_once) {
            self.expire_claims().await?;
            self.expired_once = true;
        }
        if !lease.leads {
            self.stop_planning().await;
            self.points = None;
            if self.ledger.is_shared() && !Q::LASTS {
                // Only the worker that leads has its batches.
                let has_ended = self.rest().await?;
                self.queue.remove().await?;
                self.publish = Publish::Unsettled;
                return Ok(if has_ended { Next::Rest(Rest::UntilItChanges) } else { Next::Tick });
            }
        }
        if lease.leads && lease.gap.is_none() && self.expire(&campaign).await? {
            return Ok(Next::Tick);
        }
        let next = match campaign.state {
            CampaignState::Running => self.run(&campaign, &lease).await?,
            CampaignState::Held if campaign.suspended_by.is_some() && !self.ends => {
                self.stand_by(&campaign, &lease).await?
            }
            CampaignState::Scheduled => {
                self.wait_for_start(&campaign).await?;
                Next::Tick
            }
            _ => {
                self.stop_planning().await;
                let has_ended = self.rest().await?;
                if self.ends && has_ended {
                    return Ok(Next::Rest(Rest::UntilItChanges));
                }
                if has_ended
                    && lease.leads
                    && matches!(campaign.state, CampaignState::Completed | CampaignState::Cancelled)
                {
                    return self.end(&campaign).await;
                }
                if has_ended && !lease.leads {
                    if campaign.state.is_over() && self.involved == Involved::Sends {
                        // Its queue may be gone already, and may have been made again by senders here.
                        within(self.queue.remove()).await?;
                    }
                    return Ok(Next::Rest(Rest::UntilItChanges));
                }
                Next::Tick
            }
        };
        // Nobody looks after a campaign whose end was published: first all that is under way is settled.
        let is_settled = !campaign.state.is_over() || campaign.counts.open() == 0;
        if lease.leads && is_settled && campaign.published != Some(campaign.state) {
            self.publish_state(&campaign).await?;
            // It may be all that was still to be done.
            self.wake_up.notify_one();
        }
        Ok(next)
    }

    /// The ledger came back older than it was: nothing is sent before every worker has said that what it had written
    /// is there. One that does not say so for long is gone, and may have sent what nobody else knows of.
    async fn wait_for_workers(
        &mut self,
        campaign: &Campaign,
        gap: &Gap,
        leads: bool,
    ) -> Result<Next, DispatchError> {
        self.stop_planning().await;
        self.rest().await?;
        let (now, id) = (self.ledger.now(), &self.id);
        let waited = gap.to.map_or(0, |to| now - to.as_millisecond());
        if gap.emptied {
            if leads {
                self.hold(Reason::Emptied { id: id.clone() }).await?;
            }
            return Ok(Next::Tick);
        }
        let workers = gap.silent.len() as u64;
        if leads && waited > SILENT.as_millis() as i64 && !gap.silent.is_empty() {
            self.hold(Reason::Forgotten { id: id.clone(), workers, from: gap.from }).await?;
        } else {
            self.show_wait(campaign, Some(Reason::Comparing { workers })).await?;
        }
        Ok(Next::Tick)
    }

    /// Until when a campaign waits that nobody has anything to do for.
    async fn waits(&mut self, campaign: &Campaign) -> Result<Option<Rest>, DispatchError> {
        if !self.is_idle(campaign) {
            return Ok(None);
        }
        let now = self.ledger.time();
        let expires = self.expires_at(campaign).await?;
        Ok(match campaign.state {
            _ if expires.is_some_and(|at| at <= now) => None,
            CampaignState::Paused | CampaignState::Held if campaign.suspended_by.is_none() => {
                Some(expires.map_or(Rest::UntilItChanges, Rest::Until))
            }
            CampaignState::Scheduled => match self.known().await?.job.schedule.at(now) {
                Opening::Opens(at) if campaign.reason == Some(Reason::Start { opens: at }) => {
                    Some(Rest::Until(at))
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// When what is left of a paused or held campaign expires, if anything ever does.
    async fn expires_at(&mut self, campaign: &Campaign) -> Result<Option<Timestamp>, DispatchError> {
        match campaign.state {
            CampaignState::Paused | CampaignState::Held => Ok(self.known().await?.job.schedule.expires_at),
            _ => Ok(None),
        }
    }

    /// What is left of a paused or held campaign expires, although nobody resumes it. Returns whether that was done.
    async fn expire(&mut self, campaign: &Campaign) -> Result<bool, DispatchError> {
        let now = self.ledger.time();
        if self.expires_at(campaign).await?.is_none_or(|at| at > now) {
            return Ok(false);
        }
        self.stop_planning().await;
        if !self.rest().await? {
            return Ok(false);
        }
        let messages = decisions::decide(&self.ledger, &self.id, Decision::Expire).await?
            + skip_unplanned(&self.ledger, &self.id, SkipReason::Expired).await?;
        tracing::info!(campaign = %self.id, messages, "expired while {}", campaign.state);
        // What is in flight, or in doubt, can still be settled.
        transitions::complete_expired(&self.ledger, &self.id).await?;
        self.wake_up.notify_one();
        Ok(true)
    }

    /// Whether nothing of a campaign is under way, here or elsewhere.
    pub(super) fn is_idle(&self, campaign: &Campaign) -> bool {
        self.sending.is_none()
            && self.planning.is_none()
            && campaign.counts.sending == 0
            && campaign.published == Some(campaign.state)
    }

    /// What a worker that has gone was sending is in doubt, or sent again where the job says so.
    async fn expire_claims(&mut self) -> Result<(), DispatchError> {
        let resend = self.known().await?.job.on_in_doubt == OnInDoubt::Resend;
        let expired = claims::expire(&self.ledger, &self.id, resend).await?;
        if expired > 0 && !resend {
            tracing::warn!(campaign = %self.id, "{expired} messages were under way when their worker ended: they are in doubt");
            metrics::counter!("flowcast_messages_in_doubt_total", "reason" => "claim_expired")
                .increment(expired);
        }
        Ok(())
    }

    /// Waits for the campaign's start.
    async fn wait_for_start(&mut self, campaign: &Campaign) -> Result<(), DispatchError> {
        let now = self.ledger.time();
        let (state, reason) = match self.known().await?.job.schedule.at(now) {
            Opening::Opens(at) => (CampaignState::Scheduled, Some(Reason::Start { opens: at })),
            Opening::Open { .. } | Opening::Expired => (CampaignState::Running, None),
        };
        if (state, &reason) != (campaign.state, &campaign.reason) {
            transitions::move_from(&self.ledger, &self.id, campaign.state, state, reason).await?;
        }
        if state == CampaignState::Running {
            self.wake_up.notify_one();
        }
        Ok(())
    }

    async fn run(&mut self, campaign: &Campaign, lease: &Lease) -> Result<Next, DispatchError> {
        let (job, opening) = {
            let job = self.known().await?.job.clone();
            let opening = job.schedule.at(self.ledger.time());
            (job, opening)
        };
        if self.is_suspended(&job, lease).await? {
            return Ok(Next::Tick);
        }
        let account = self.context.accounts.get(&job.account);
        let (mut waits_for, mut until) = (None, None);
        match (opening, &account) {
            (Opening::Opens(at), _) => {
                self.rest().await?;
                waits_for = Some(Reason::Window { opens: at });
                until = Some(Rest::Until(at));
            }
            (_, Err(fault)) => {
                self.rest().await?;
                // Another worker may know the account; the one that leads says what it lacks.
                waits_for = lease.leads.then(|| Reason::Account { detail: fault.clone() });
                until = Some(Rest::UntilItChanges);
            }
            (_, Ok(_)) => self.send(&job, campaign).await?,
        }
        if let Some((_, why)) = &self.plans_at {
            waits_for = Some(Reason::Planning { detail: why.clone() });
        }
        let reason = campaign.reason.as_ref();
        if let Some(trouble) = self.ledger.trouble().or_else(|| self.queue.trouble()) {
            if lease.leads && !reason.is_some_and(|reason| reason.tells_of(&trouble)) {
                // A sender of another worker has replaced it by what it waits for.
                self.shown = None;
            }
            waits_for = Some(Reason::Backend { detail: trouble });
        }
        if lease.leads
            && let Some(notice) = self.notice(&job).await?
        {
            if !reason.is_some_and(|reason| reason.passes_on(&notice)) {
                // A sender has said meanwhile what it waits for.
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
        Ok(match until {
            Some(rest) if is_done && !self.ends && self.is_idle(campaign) => Next::Rest(rest),
            _ => Next::Tick,
        })
    }

    /// What the provider says of what the campaign uses, looked up now and then.
    async fn notice(&mut self, job: &Job) -> Result<Option<KeptNotice>, DispatchError> {
        if let Some((at, known)) = &self.noticed
            && at.elapsed() < NOTICES
        {
            return Ok(known.clone());
        }
        let mut found = None;
        for about in job.noticed() {
            if let Some(stored) = self.ledger.notice(&job.account, &about).await? {
                found = Some(stored.notice);
            }
        }
        self.noticed = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    pub(super) async fn hold(&self, reason: Reason) -> Result<(), DispatchError> {
        tracing::warn!(campaign = %self.id, "held: {reason}");
        self.wake_up.notify_one();
        Ok(transitions::hold(&self.ledger, &self.id, reason).await?)
    }

    /// Says what the campaign waits for, when that changes.
    pub(super) async fn show_wait(
        &mut self,
        campaign: &Campaign,
        waits_for: Option<Reason>,
    ) -> Result<(), DispatchError> {
        if waits_for == self.shown {
            return Ok(());
        }
        // What another has said meanwhile is not taken back.
        if waits_for.is_some() || campaign.reason == self.shown {
            transitions::note(&self.ledger, &self.id, waits_for.clone()).await?;
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
    async fn send(&mut self, job: &Arc<Job>, campaign: &Campaign) -> Result<(), DispatchError> {
        if self.rest_until.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        let batches =
            usize::try_from(campaign.rows).unwrap_or(usize::MAX).div_ceil(campaign.batch_size.max(1));
        let wanted = |account: &Account| account.senders(campaign.batch_size).min(batches.max(1));
        if let Some(senders) = &mut self.sending {
            let account = self.context.accounts.get(&job.account).ok();
            let is_same = account.is_some_and(|account| Arc::ptr_eq(&account, &senders.sending.account));
            if is_same && !senders.probe && !senders.sending.stop.is_cancelled() {
                // More requests may be under way than when they began.
                let wanted = wanted(&senders.sending.account);
                senders.begin(wanted);
                return Ok(());
            }
            // They stopped by themselves, were there for a probe, or their account is another one by now.
            if !self.rest().await? {
                return Ok(());
            }
        }
        let sending = self.sending(campaign, job).await?;
        let wanted = wanted(&sending.account);
        let mut senders = Senders { sending, tasks: JoinSet::new(), probe: false };
        senders.begin(wanted);
        self.involved = Involved::Sends;
        self.sending = Some(senders);
        Ok(())
    }

    /// What senders of the campaign share.
    pub(super) async fn sending(
        &mut self,
        campaign: &Campaign,
        job: &Arc<Job>,
    ) -> Result<Arc<Sending<L, Q>>, DispatchError> {
        let account = self.context.accounts.get(&job.account).map_err(DispatchError::Task)?;
        let columns = &self.known().await?.columns;
        let template = template(job, columns, &account).map_err(|problems| {
            let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            DispatchError::Job(self.id.clone(), text)
        })?;
        Ok(Arc::new(Sending {
            id: self.id.clone(),
            trace: Trace::of(&self.id, campaign.submitted_at),
            ledger: self.ledger.clone(),
            queue: self.queue.clone(),
            endpoint: account.provider.endpoint(job.from),
            account,
            job: job.clone(),
            template,
            limits: CampaignLimits::new(self.id.clone(), job.flow(), job.limits.messages),
            flow: job.flow(),
            events: self.context.events.clone(),
            suppressed: self.context.suppressed.clone(),
            stop: self.stop.child_token(),
            wake_up: self.wake_up.clone(),
            doubt_below: campaign.doubt_below,
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
        let events = &self.context.events;
        if events.are_published() {
            let event = [Events::state(self.ledger.time(), campaign)];
            within(events.tell_webhooks(&event)).await?;
            if let Some(broker) = &events.broker {
                within(broker.publish_events(&event)).await?;
            }
        }
        Ok(self.ledger.published(&self.id, campaign.state).await?)
    }

    /// Clears up behind a campaign that has ended.
    async fn end(&mut self, campaign: &Campaign) -> Result<Next, DispatchError> {
        let has_more = campaign.counts.pending > 0 || !campaign.planned;
        if campaign.state == CampaignState::Cancelled && has_more {
            // The process that cancelled it died before it was done.
            decisions::decide(&self.ledger, &self.id, Decision::Cancel).await?;
            skip_unplanned(&self.ledger, &self.id, SkipReason::Cancelled).await?;
            self.wake_up.notify_one();
            return Ok(Next::Tick);
        }
        if campaign.counts.sending > 0 {
            // Another worker finishes it, or its claim runs out.
            return Ok(Next::Tick);
        }
        within(self.queue.remove()).await?;
        self.publish_state(campaign).await?;
        // A retry that wakes it meanwhile also says so.
        Ok(Next::Rest(Rest::Over))
    }
}

/// What is asked of the broker must not keep a tick waiting for long.
pub(super) async fn within<T>(asked: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
    tokio::time::timeout(BROKER, asked).await.unwrap_or_else(|_| {
        Err(QueueError::Failed("does not answer; what waits for it is tried again".into()))
    })
}
