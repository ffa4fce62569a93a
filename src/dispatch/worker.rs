//! The worker: asks the ledger which campaigns have changed, supervises those that need it, and drains when it is stopped.
//!
//! A campaign that waits for its start, its window or an operator has no supervisor: it costs at most one entry with the
//! time at which it is checked again. It gets a supervisor when it changes, at that time, and when a worker is gone that may
//! have supervised it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::supervisor::{CampaignSupervisor, Idle};
use super::{Context, DispatchError, LoadedJob, LoopProgress};
use crate::campaign::CampaignId;
use crate::ledger::{Breaker, CLOCK_SKEW, Campaign, Ledger, LedgerError};
use crate::queue::{Local, Queue};
use crate::runtime;

/// Interval between queries for changed campaigns.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Interval between presence heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long an ended campaign is remembered: longer than other workers take to notice its end.
const ENDED_RETENTION: Duration = Duration::from_mins(2);
/// Delay after an error of the ledger.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Maximum number of supervisors in their first tick.
const MAX_FIRST_TICKS: usize = 64;
/// Interval between full rescans, which catch changes whose notification was lost because a process died.
const RESCAN_INTERVAL: Duration = Duration::from_secs(30);
/// Number of campaigns per second during a rescan.
const RESCAN_PER_SECOND: usize = 4;
/// Largest number of batches that only the leading worker sends, from memory: a queue on the broker would cost more.
const FEW_BATCHES: u64 = 4;

/// Campaigns that this worker has just registered, with their prepared jobs.
pub type Registered = mpsc::Receiver<(CampaignId, Arc<LoadedJob>)>;

/// Supervises all campaigns until it is stopped. Counts each round of its loop in `progress`.
///
/// Requests in flight are finished and recorded before it returns.
///
/// # Errors
///
/// Returns an error if the embedded ledger fails. After an error of a shared ledger it tries again.
pub async fn work<L: Ledger, Q: Queue>(
    ledger: &L,
    home: &Q::Home,
    context: &Context,
    mut registered: Registered,
    progress: &LoopProgress,
    stop: &CancellationToken,
) -> Result<(), DispatchError> {
    if !read_suppressed(ledger, context, stop).await? {
        return Ok(());
    }
    let mut worker = Worker::<L, Q>::new(ledger, home, context, stop);
    let mut accounts = context.accounts.changes();
    let mut poll = tokio::time::interval(runtime::often(POLL_INTERVAL));
    let mut present = tokio::time::interval(HEARTBEAT_INTERVAL);
    for interval in [&mut poll, &mut present] {
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let done = loop {
        progress.advance();
        let looked = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            // The rare events first, so that frequent ones cannot delay them.
            _ = present.tick() => worker.check_presence().await,
            _ = poll.tick() => worker.follow().await,
            // Campaigns that wait for an account may be sent now. The context keeps the channel open.
            Ok(()) = accounts.changed() => {
                worker.version = 0;
                Ok(())
            }
            Some((id, prepared)) = registered.recv() => {
                worker.check(id, Some(prepared));
                Ok(())
            }
            Some(ended) = worker.tasks.join_next() => match ended {
                Ok((id, rest)) => worker.schedule_check(id, rest),
                Err(error) => Err(DispatchError::Task(error.to_string())),
            },
            Ok(permit) = worker.first_ticks.clone().acquire_owned(), if !worker.queued.is_empty() => {
                worker.supervise_next(permit);
                Ok(())
            }
        };
        match looked {
            Ok(()) => {}
            Err(error) if ledger.is_shared() => {
                tracing::error!(error = %error, "could not follow the campaigns; trying again");
                // The ledger may come back without its most recent writes.
                worker.version = 0;
                stop.run_until_cancelled(tokio::time::sleep(RETRY_DELAY)).await;
            }
            Err(error) => {
                stop.cancel();
                break Err(error);
            }
        }
    };
    progress.end();
    while worker.tasks.join_next().await.is_some() {}
    // Last: from now on other workers take over its campaigns.
    if let Err(error) = ledger.depart().await {
        tracing::warn!(error = %error, "could not report the end of this worker");
    }
    done
}

/// Reads the suppression list, before anything is sent. Returns `false` if the worker was stopped first.
async fn read_suppressed<L: Ledger>(
    ledger: &L,
    context: &Context,
    stop: &CancellationToken,
) -> Result<bool, DispatchError> {
    while let Err(error) = context.follow_suppressed(ledger).await {
        if !ledger.is_shared() {
            return Err(error);
        }
        tracing::error!(error = %error, "could not read the suppression list; trying again");
        if stop.run_until_cancelled(tokio::time::sleep(RETRY_DELAY)).await.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The state of a worker.
struct Worker<L: Ledger, Q: Queue> {
    ledger: L,
    home: Q::Home,
    context: Context,
    stop: CancellationToken,
    /// The campaigns that have a supervisor or will soon get one, with its notification.
    supervised: HashMap<CampaignId, Arc<Notify>>,
    tasks: JoinSet<(CampaignId, Result<Idle, DispatchError>)>,
    /// The campaigns that get a supervisor next.
    queued: VecDeque<(CampaignId, Option<Arc<LoadedJob>>)>,
    /// Permits for first ticks.
    first_ticks: Arc<Semaphore>,
    /// The waiting campaigns, by the time at which they are checked again.
    due: BTreeSet<(Timestamp, CampaignId)>,
    /// The campaigns that wait for a breaker to close.
    suspended: BTreeMap<Breaker, BTreeSet<CampaignId>>,
    /// The version up to which changes are known.
    version: u64,
    /// The campaigns that are left in this rescan.
    rescan: VecDeque<CampaignId>,
    /// When the next rescan begins.
    next_rescan: Instant,
    /// The campaigns that ended recently in this worker, each with the time.
    over: VecDeque<(Instant, CampaignId)>,
    /// The workers that had a recent heartbeat at the last check.
    others: BTreeSet<u32>,
    /// Whether this machine's clock differed from the ledger's at the last check.
    clock_differs: bool,
}

impl<L: Ledger, Q: Queue> Worker<L, Q> {
    fn new(ledger: &L, home: &Q::Home, context: &Context, stop: &CancellationToken) -> Self {
        Self {
            ledger: ledger.clone(),
            home: home.clone(),
            context: context.clone(),
            stop: stop.clone(),
            supervised: HashMap::new(),
            tasks: JoinSet::new(),
            queued: VecDeque::new(),
            first_ticks: Arc::new(Semaphore::new(MAX_FIRST_TICKS)),
            due: BTreeSet::new(),
            suspended: BTreeMap::new(),
            version: 0,
            rescan: VecDeque::new(),
            next_rescan: Instant::now() + RESCAN_INTERVAL,
            over: VecDeque::new(),
            others: BTreeSet::new(),
            clock_differs: false,
        }
    }

    /// Checks the campaigns that have changed and those that are due.
    async fn follow(&mut self) -> Result<(), DispatchError> {
        self.context.follow_suppressed(&self.ledger).await?;
        let changes = self.ledger.changes(self.version).await?;
        self.version = changes.version;
        for id in changes.ids {
            self.check(id, None);
        }
        let now = self.ledger.time();
        while self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, id)) = self.due.pop_first()
        {
            self.check(id, None);
        }
        metrics::gauge!("flowcast_campaigns_supervised").set(self.supervised.len() as f64);
        Ok(())
    }

    /// Logs when this machine's clock starts or stops to differ from the ledger's.
    fn check_clock(&mut self) {
        let ahead = Timestamp::now().duration_since(self.ledger.time()).as_secs_f64();
        let clock_differs = ahead.abs() > CLOCK_SKEW.as_secs_f64();
        if clock_differs && !self.clock_differs {
            let (by, how) = (ahead.abs(), if ahead > 0.0 { "ahead of" } else { "behind" });
            tracing::warn!(
                "this machine's clock is {by:.1} s {how} the ledger's, which campaigns use; run an NTP client on both"
            );
        } else if self.clock_differs && !clock_differs {
            tracing::info!("this machine's clock agrees with the ledger's again");
        }
        self.clock_differs = clock_differs;
    }

    /// Sends a heartbeat, and checks all campaigns if another worker is gone.
    async fn check_presence(&mut self) -> Result<(), DispatchError> {
        let others = self.ledger.present().await?;
        self.check_clock();
        if !self.others.is_subset(&others) {
            tracing::info!("a worker is gone; the others take over its campaigns");
            self.version = 0;
            self.remove_queues();
        }
        self.others = others;
        self.rescan().await?;
        self.check_breakers().await
    }

    /// Removes the queues of recently ended campaigns again.
    ///
    /// A worker that is gone may have declared one just before it noticed the end.
    fn remove_queues(&mut self) {
        self.over.retain(|(at, id)| at.elapsed() < ENDED_RETENTION && !self.supervised.contains_key(id));
        for (_, id) in &self.over {
            let (ledger, queue, id) = (self.ledger.clone(), Q::open(&self.home, id, 1), id.clone());
            tokio::spawn(async move {
                // An operator may have retried its messages.
                let is_over = ledger.campaign(&id).await?.is_none_or(|campaign| campaign.state.is_over());
                if is_over && let Err(error) = queue.remove().await {
                    tracing::debug!(campaign = %id, %error, "could not remove the queue again");
                }
                Ok::<_, LedgerError>(())
            });
        }
    }

    /// Continues the rescan of all campaigns.
    async fn rescan(&mut self) -> Result<(), DispatchError> {
        if self.rescan.is_empty() && self.next_rescan <= Instant::now() {
            self.rescan = self.ledger.changes(0).await?.ids.into();
            self.next_rescan = Instant::now() + RESCAN_INTERVAL;
        }
        for id in self.rescan.drain(..self.rescan.len().min(RESCAN_PER_SECOND)).collect::<Vec<_>>() {
            self.check(id, None);
        }
        Ok(())
    }

    /// Checks each breaker once for all campaigns behind it. When a probe is due, one of them sends it.
    async fn check_breakers(&mut self) -> Result<(), DispatchError> {
        let breakers: Vec<Breaker> = self.suspended.keys().cloned().collect();
        for breaker in breakers {
            match self.ledger.breaker(&breaker).await? {
                Some(open) if open.probe_is_due => {
                    // A random one, because one without pending messages cannot send a probe.
                    let campaigns = self.suspended.get(&breaker);
                    let nth = runtime::one_of(campaigns.map_or(1, BTreeSet::len));
                    if let Some(id) = campaigns.and_then(|all| all.iter().nth(nth).cloned()) {
                        self.check(id, None);
                    }
                }
                Some(_) => {}
                None => {
                    let all = self.suspended.remove(&breaker).unwrap_or_default();
                    for id in all {
                        self.check(id, None);
                    }
                }
            }
        }
        self.suspended.retain(|_, campaigns| !campaigns.is_empty());
        Ok(())
    }

    /// Notifies a campaign's supervisor, or queues the campaign for one.
    fn check(&mut self, id: CampaignId, prepared: Option<Arc<LoadedJob>>) {
        if let Some(wake_up) = self.supervised.get(&id) {
            wake_up.notify_one();
        } else {
            self.supervised.insert(id.clone(), Arc::default());
            self.queued.push_back((id, prepared));
        }
    }

    /// Starts a supervisor for the next campaign. It holds the permit during its first tick.
    fn supervise_next(&mut self, permit: OwnedSemaphorePermit) {
        let Some((id, prepared)) = self.queued.pop_front() else { return };
        let wake_up = self.supervised.entry(id.clone()).or_default().clone();
        let (ledger, home, context) = (self.ledger.clone(), self.home.clone(), self.context.clone());
        let stop = self.stop.child_token();
        self.tasks.spawn(async move {
            let supervised = async {
                let Some(campaign) = ledger.campaign(&id).await? else { return Ok(Idle::UntilItChanges) };
                if campaign.rehearsal != context.rehearses {
                    // A rehearsal goes only to a sandbox, and nothing else does.
                    tracing::info!(
                        campaign = %id, rehearsal = campaign.rehearsal,
                        "campaign ignored: a worker with --sandbox sends only rehearsals, and a worker without it sends none"
                    );
                    return Ok(Idle::UntilItChanges);
                }
                let ahead = ahead(&context, campaign.batch_size);
                if Q::DURABLE && is_small(&campaign) {
                    let queue = Local::open(&(), &id, ahead);
                    let new = CampaignSupervisor::new(id.clone(), ledger, queue, context, wake_up, stop);
                    new.with(prepared).supervise(Some(permit)).await
                } else {
                    let queue = Q::open(&home, &id, ahead);
                    let new = CampaignSupervisor::new(id.clone(), ledger, queue, context, wake_up, stop);
                    new.with(prepared).supervise(Some(permit)).await
                }
            };
            let rest = AssertUnwindSafe(Box::pin(supervised)).catch_unwind().await;
            let rest = rest.unwrap_or_else(|_| Err(DispatchError::Task("a supervisor panicked".into())));
            (id, rest)
        });
    }

    /// Remembers when a campaign is checked again.
    fn schedule_check(
        &mut self,
        id: CampaignId,
        rest: Result<Idle, DispatchError>,
    ) -> Result<(), DispatchError> {
        let wake_up = self.supervised.remove(&id);
        let has_changed = wake_up.is_some_and(|wake_up| wake_up.notified().now_or_never().is_some());
        match rest {
            Ok(_) if has_changed => self.check(id, None),
            Ok(Idle::Until(at)) => {
                self.due.insert((at, id));
            }
            Ok(Idle::UntilClosed(breaker)) => {
                self.suspended.entry(breaker).or_default().insert(id);
            }
            Ok(Idle::UntilItChanges) => {}
            Ok(Idle::Over) => {
                self.over.retain(|(at, _)| at.elapsed() < ENDED_RETENTION);
                self.over.push_back((Instant::now(), id));
            }
            Err(error) if self.ledger.is_shared() => {
                tracing::error!(campaign = %id, error = %error, "supervisor failed; trying again");
                self.due.insert((self.ledger.time() + RETRY_DELAY, id));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Returns whether a campaign has at most [`FEW_BATCHES`] batches.
fn is_small(campaign: &Campaign) -> bool {
    campaign.rows.div_ceil(campaign.batch_size.max(1) as u64) <= FEW_BATCHES
}

/// Returns how many batches the broker delivers ahead, for any account.
fn ahead(context: &Context, batch_size: usize) -> usize {
    context.accounts.usable().iter().map(|(_, account)| account.ahead(batch_size)).max().unwrap_or(1)
}
