//! The worker: asks once for all campaigns which have changed, supervises those that need it, and drains
//! when it is stopped.
//!
//! A campaign that waits — for its start, for its window, for a person — has no supervisor: it costs one
//! entry where the moment is known, and nothing else. It gets one when it changes, when its moment has
//! come, and when a worker has gone that may have looked after it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::supervisor::{CampaignSupervisor, Rest};
use super::{Context, DispatchError, LoopProgress, Prepared};
use crate::campaign::CampaignId;
use crate::ledger::{Breaker, CLOCK_SKEW, Campaign, Ledger, LedgerError};
use crate::queue::{Local, Queue};
use crate::runtime;

/// How often the ledger is asked which campaigns have changed.
const POLL: Duration = Duration::from_millis(50);
/// How often a worker says that it is there.
const PRESENT: Duration = Duration::from_secs(1);
/// How long a campaign that has ended is remembered: longer than a worker takes to hear of it.
const OVER: Duration = Duration::from_mins(2);
/// How long the worker rests after the ledger failed under it.
const REST: Duration = Duration::from_secs(1);
/// How many campaigns are looked at for the first time at once.
const LOOKS: usize = 64;
/// How often a round through all campaigns begins, and how many are looked at in a second: in case that
/// somebody was ended between a change and saying so.
const ROUND: Duration = Duration::from_secs(30);
const A_SECOND: usize = 4;
/// A campaign of so many batches is sent by the worker that leads it alone, from its memory: a queue on
/// the broker costs more than they do.
const FEW_BATCHES: u64 = 4;

/// Campaigns that this worker has just registered, with what it knows of them.
pub type Registered = mpsc::Receiver<(CampaignId, Arc<Prepared>)>;

/// Supervises all campaigns until it is stopped; what is in flight then is finished and recorded. Each round
/// of its loop is counted in `progress`.
///
/// # Errors
///
/// When the embedded ledger fails. One that is shared is waited for.
pub async fn work<L: Ledger, Q: Queue>(
    ledger: &L,
    home: &Q::Home,
    context: &Context,
    mut registered: Registered,
    progress: &LoopProgress,
    stop: &CancellationToken,
) -> Result<(), DispatchError> {
    let mut worker = Worker::<L, Q> {
        ledger: ledger.clone(),
        home: home.clone(),
        context: context.clone(),
        stop: stop.clone(),
        supervised: HashMap::new(),
        tasks: JoinSet::new(),
        queued: VecDeque::new(),
        looks: Arc::new(Semaphore::new(LOOKS)),
        due: BTreeSet::new(),
        suspended: BTreeMap::new(),
        version: 0,
        round: VecDeque::new(),
        next_round: Instant::now() + ROUND,
        over: VecDeque::new(),
        others: BTreeSet::new(),
        is_off: false,
    };
    // Before anything is sent, it is known to whom never to.
    while let Err(fault) = context.follow_suppressed(ledger).await {
        if !ledger.is_shared() {
            return Err(fault);
        }
        tracing::error!("{fault}");
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(REST) => {}
        }
    }
    let mut accounts = context.accounts.changes();
    let mut poll = tokio::time::interval(runtime::often(POLL));
    let mut present = tokio::time::interval(PRESENT);
    for interval in [&mut poll, &mut present] {
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let done = loop {
        progress.advance();
        let looked = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            // First what comes seldom, so that nothing keeps it waiting for long.
            _ = present.tick() => worker.see_others().await,
            _ = poll.tick() => worker.follow().await,
            // Never closed while the context is there. What waits for an account may be sent now.
            Ok(()) = accounts.changed() => {
                worker.version = 0;
                Ok(())
            }
            Some((id, prepared)) = registered.recv() => {
                worker.look_at(id, Some(prepared));
                Ok(())
            }
            Some(ended) = worker.tasks.join_next() => match ended {
                Ok((id, rest)) => worker.put_aside(id, rest),
                Err(fault) => Err(DispatchError::Task(fault.to_string())),
            },
            Ok(permit) = worker.looks.clone().acquire_owned(), if !worker.queued.is_empty() => {
                worker.supervise_next(permit);
                Ok(())
            }
        };
        match looked {
            Ok(()) => {}
            Err(fault) if ledger.is_shared() => {
                tracing::error!("{fault}");
                // It may come back with less than it had.
                worker.version = 0;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(REST) => {}
                }
            }
            Err(fault) => {
                stop.cancel();
                break Err(fault);
            }
        }
    };
    progress.end();
    while worker.tasks.join_next().await.is_some() {}
    // Told last: the others take over what is left.
    if let Err(fault) = ledger.depart().await {
        tracing::warn!("{fault}");
    }
    done
}

/// What a worker knows of all campaigns.
struct Worker<L: Ledger, Q: Queue> {
    ledger: L,
    home: Q::Home,
    context: Context,
    stop: CancellationToken,
    /// The campaigns with a supervisor, or soon to have one, and what wakes it.
    supervised: HashMap<CampaignId, Arc<Notify>>,
    tasks: JoinSet<(CampaignId, Result<Rest, DispatchError>)>,
    /// Those that are to be looked at next.
    queued: VecDeque<(CampaignId, Option<Arc<Prepared>>)>,
    looks: Arc<Semaphore>,
    /// When campaigns that wait are to be looked at again.
    due: BTreeSet<(Timestamp, CampaignId)>,
    /// The campaigns that wait until their breaker is closed.
    suspended: BTreeMap<Breaker, BTreeSet<CampaignId>>,
    /// The version of the changes that were seen last.
    version: u64,
    /// Those that are still to be looked at in this round through all, and when the next one begins.
    round: VecDeque<CampaignId>,
    next_round: Instant,
    /// The campaigns that have ended recently here, and when.
    over: VecDeque<(Instant, CampaignId)>,
    /// The workers that were there when it was looked last.
    others: BTreeSet<u32>,
    /// Whether this machine's clock was another than the ledger's when it was looked last.
    is_off: bool,
}

impl<L: Ledger, Q: Queue> Worker<L, Q> {
    /// Looks at what has changed, and at what is due.
    async fn follow(&mut self) -> Result<(), DispatchError> {
        self.context.follow_suppressed(&self.ledger).await?;
        let changes = self.ledger.changes(self.version).await?;
        self.version = changes.version;
        for id in changes.ids {
            self.look_at(id, None);
        }
        let now = self.ledger.time();
        while self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, id)) = self.due.pop_first()
        {
            self.look_at(id, None);
        }
        metrics::gauge!("flowcast_campaigns_supervised").set(self.supervised.len() as f64);
        Ok(())
    }

    /// Says when this machine's clock is another than the ledger's, which campaigns go by.
    fn see_clock(&mut self) {
        let ahead = Timestamp::now().duration_since(self.ledger.time()).as_secs_f64();
        let is_off = ahead.abs() > CLOCK_SKEW.as_secs_f64();
        if is_off && !self.is_off {
            let (by, how) = (ahead.abs(), if ahead > 0.0 { "ahead of" } else { "behind" });
            tracing::warn!(
                "this machine's clock is {by:.1} s {how} the ledger's, which campaigns go by; run an NTP client on both"
            );
        } else if self.is_off && !is_off {
            tracing::info!("this machine's clock agrees with the ledger's again");
        }
        self.is_off = is_off;
    }

    /// Says that it is there; whatever a worker looked after that has gone is looked at.
    async fn see_others(&mut self) -> Result<(), DispatchError> {
        let others = self.ledger.present().await?;
        self.see_clock();
        if !self.others.is_subset(&others) {
            tracing::info!("a worker has gone; the others look after its campaigns");
            self.version = 0;
            self.remove_queues();
        }
        self.others = others;
        self.go_round().await?;
        self.look_at_breakers().await
    }

    /// Removes the queues of campaigns that have ended recently once more: a worker that has gone may have made one again just
    /// before it heard of the end.
    fn remove_queues(&mut self) {
        self.over.retain(|(at, id)| at.elapsed() < OVER && !self.supervised.contains_key(id));
        for (_, id) in &self.over {
            let (ledger, queue, id) = (self.ledger.clone(), Q::open(&self.home, id, 1), id.clone());
            tokio::spawn(async move {
                // Another worker may have it sent again.
                let is_over = ledger.campaign(&id).await?.is_none_or(|campaign| campaign.state.is_over());
                if is_over && let Err(error) = queue.remove().await {
                    tracing::debug!(campaign = %id, "its queue was not removed again: {error}");
                }
                Ok::<_, LedgerError>(())
            });
        }
    }

    /// Goes on with the round through all campaigns.
    async fn go_round(&mut self) -> Result<(), DispatchError> {
        if self.round.is_empty() && self.next_round <= Instant::now() {
            self.round = self.ledger.changes(0).await?.ids.into();
            self.next_round = Instant::now() + ROUND;
        }
        for id in self.round.drain(..self.round.len().min(A_SECOND)).collect::<Vec<_>>() {
            self.look_at(id, None);
        }
        Ok(())
    }

    /// Looks at what holds campaigns up: once for all that it holds. When it is time to try whether it
    /// still must, one of them does.
    async fn look_at_breakers(&mut self) -> Result<(), DispatchError> {
        let breakers: Vec<Breaker> = self.suspended.keys().cloned().collect();
        for breaker in breakers {
            match self.ledger.breaker(&breaker).await? {
                Some(open) if open.probe_is_due => {
                    // Any of them: one that has nothing to send can't try.
                    let campaigns = self.suspended.get(&breaker);
                    let nth = runtime::one_of(campaigns.map_or(1, BTreeSet::len));
                    if let Some(id) = campaigns.and_then(|all| all.iter().nth(nth).cloned()) {
                        self.look_at(id, None);
                    }
                }
                Some(_) => {}
                None => {
                    let all = self.suspended.remove(&breaker).unwrap_or_default();
                    for id in all {
                        self.look_at(id, None);
                    }
                }
            }
        }
        self.suspended.retain(|_, campaigns| !campaigns.is_empty());
        Ok(())
    }

    /// Has a campaign looked at, once more where it already is.
    fn look_at(&mut self, id: CampaignId, prepared: Option<Arc<Prepared>>) {
        if let Some(wake_up) = self.supervised.get(&id) {
            wake_up.notify_one();
        } else {
            self.supervised.insert(id.clone(), Arc::default());
            self.queued.push_back((id, prepared));
        }
    }

    /// Gives the next campaign a supervisor. The permit is its until it has looked once.
    fn supervise_next(&mut self, permit: OwnedSemaphorePermit) {
        let Some((id, prepared)) = self.queued.pop_front() else { return };
        let wake_up = self.supervised.entry(id.clone()).or_default().clone();
        let (ledger, home, context) = (self.ledger.clone(), self.home.clone(), self.context.clone());
        let stop = self.stop.child_token();
        self.tasks.spawn(async move {
            let supervised = async {
                let Some(campaign) = ledger.campaign(&id).await? else { return Ok(Rest::UntilItChanges) };
                if campaign.rehearsal != context.rehearses {
                    // What was meant for a sandbox is never really sent, nor the other way round.
                    let kind = if campaign.rehearsal { "a rehearsal" } else { "no rehearsal" };
                    tracing::info!(campaign = %id, "left alone: it is {kind}");
                    return Ok(Rest::UntilItChanges);
                }
                if Q::LASTS && is_small(&campaign) {
                    let queue = Local::open(&(), &id, ahead(&context, campaign.batch_size));
                    CampaignSupervisor::new(id.clone(), ledger, queue, context, wake_up, stop)
                        .with(prepared)
                        .supervise(Some(permit))
                        .await
                } else {
                    let queue = Q::open(&home, &id, ahead(&context, campaign.batch_size));
                    CampaignSupervisor::new(id.clone(), ledger, queue, context, wake_up, stop)
                        .with(prepared)
                        .supervise(Some(permit))
                        .await
                }
            };
            let rest = AssertUnwindSafe(Box::pin(supervised)).catch_unwind().await;
            let rest = rest.unwrap_or_else(|_| Err(DispatchError::Task("ended by itself".into())));
            (id, rest)
        });
    }

    /// Remembers when a campaign is to be looked at again.
    fn put_aside(&mut self, id: CampaignId, rest: Result<Rest, DispatchError>) -> Result<(), DispatchError> {
        let wake_up = self.supervised.remove(&id);
        let has_changed = wake_up.is_some_and(|wake_up| wake_up.notified().now_or_never().is_some());
        match rest {
            Ok(_) if has_changed => self.look_at(id, None),
            Ok(Rest::Until(at)) => {
                self.due.insert((at, id));
            }
            Ok(Rest::UntilClosed(breaker)) => {
                self.suspended.entry(breaker).or_default().insert(id);
            }
            Ok(Rest::UntilItChanges) => {}
            Ok(Rest::Over) => {
                self.over.retain(|(at, _)| at.elapsed() < OVER);
                self.over.push_back((Instant::now(), id));
            }
            Err(fault) if self.ledger.is_shared() => {
                tracing::error!(campaign = %id, "{fault}");
                self.due.insert((self.ledger.time() + REST, id));
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}

/// Whether a campaign has a few batches only.
fn is_small(campaign: &Campaign) -> bool {
    campaign.rows.div_ceil(campaign.batch_size.max(1) as u64) <= FEW_BATCHES
}

/// The broker hands over so many batches ahead at the most, for any account.
fn ahead(context: &Context, batch_size: usize) -> usize {
    context.accounts.usable().iter().map(|(_, account)| account.ahead(batch_size)).max().unwrap_or(1)
}
