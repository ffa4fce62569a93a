//! Campaigns: registered once, moved from state to state, looked after by one worker at a time.
//!
//! The legal moves are `campaign/state.rs`'s; what else changes with a move is decided here. A backend
//! keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;

use super::{Breaker, DeliveryCounts, LedgerError, Store};
use crate::campaign::delivery::{STEPS, Times};
use crate::campaign::job::StopWhen;
use crate::campaign::{CampaignId, CampaignState, Reason};

/// How long a worker holds the lease of a campaign after its last heartbeat for it.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long a worker counts as there after it last said so. Longer than [`LEASE`]: when others see that
/// it has gone, its leases have run out.
pub const PRESENCE: Duration = Duration::from_secs(12);

/// A campaign that asks to be registered.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct NewCampaign {
    /// Its id.
    pub id: CampaignId,
    /// Whether the job named the id, rather than being given one.
    pub named: bool,
    /// What people call it.
    pub name: Option<String>,
    /// Whether a campaign without a name may be one that is known: then its content finds it.
    pub again: bool,
    /// The account that sends it.
    pub account: String,
    /// The job's digest: the same job has the same.
    pub fingerprint: String,
    /// The job itself, a JSON text.
    pub job: String,
    /// The audience's columns, so that its batches can be sent where the audience is not.
    pub columns: Vec<String>,
    /// The digest of the audience's bytes.
    pub audience: String,
    /// How many rows the audience has.
    pub rows: u64,
    /// How many messages a full batch has. Fixed here, so that a later plan cuts the same batches.
    pub batch_size: usize,
    /// Whether it goes to a sandbox: a rehearsal, which the real campaign replaces.
    pub rehearsal: bool,
    /// Who submitted it.
    #[serde(default)]
    pub created_by: String,
}

/// A campaign as the ledger knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// What people call it.
    pub name: Option<String>,
    /// The account that sends it.
    pub account: String,
    /// Where it stands.
    pub state: CampaignState,
    /// The state that was last published as an event.
    pub published: Option<CampaignState>,
    /// How many states were published, at the least: it tells an event of one apart from that of the same state before.
    pub announced: u64,
    /// Why it is held, or what a running one waits for.
    pub reason: Option<Reason>,
    /// The breaker that suspends it with others, where one does.
    pub suspended_by: Option<Breaker>,
    /// How many messages were rejected and settled before it last began to run: what a person has let
    /// pass is not counted against it again.
    pub forgiven: (u64, u64),
    /// Whether the whole audience is planned; until then `counts.total` still grows.
    pub planned: bool,
    /// Messages and skipped rows by state.
    pub counts: Counts,
    /// Skipped rows by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Rejected messages by the provider's code.
    pub rejected: BTreeMap<String, u64>,
    /// The text to each code of rejected messages.
    pub texts: BTreeMap<String, String>,
    /// Messages settled a second, over the last ten seconds.
    pub rate: f64,
    /// How many messages have come how far after the provider took them.
    pub delivery: DeliveryCounts,
    /// Messages that could not be delivered, by the provider's code; `texts` has the texts.
    pub undelivered: BTreeMap<String, u64>,
    /// How long each step took.
    pub took: [Times; STEPS.len()],
    /// The digest of the audience's bytes.
    pub audience: String,
    /// How many rows the audience has.
    pub rows: u64,
    /// How many messages a full batch has.
    pub batch_size: usize,
    /// When it was last asked to be paused or cancelled, in microseconds since 1970: what was asked for before does not undo
    /// that. 0 where it never was, and where nothing is asked for by way of a queue.
    pub stop_asked_at: i64,
    /// Messages of batches below this number that nobody has claimed, as far as the ledger knows, may have been sent
    /// all the same: they are in doubt. 0 unless the ledger went back and a person said so.
    pub doubt_below: u32,
    /// Whether it went to a sandbox.
    pub rehearsal: bool,
    /// Who submitted it; not known of those that an earlier version registered.
    pub created_by: Option<String>,
    /// When it was registered.
    pub submitted_at: Timestamp,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    /// When it completed or was cancelled.
    pub finished_at: Option<Timestamp>,
}

/// How many messages are in which state. The total is always the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// All rows so far.
    pub total: u64,
    /// Not sent yet.
    pub pending: u64,
    /// Claimed.
    pub sending: u64,
    /// Taken by the provider.
    pub accepted: u64,
    /// Refused by it.
    pub rejected: u64,
    /// One of the two.
    pub in_doubt: u64,
    /// Rows that are not sent.
    pub skipped: u64,
}

impl Counts {
    /// What is still to be done.
    pub fn open(&self) -> u64 {
        self.pending + self.sending
    }
}

/// A campaign's job as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// The JSON text.
    pub job: String,
    /// The audience's columns.
    pub columns: Vec<String>,
}

/// What workers must look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CampaignChanges {
    /// The campaigns.
    pub ids: Vec<CampaignId>,
    /// The version to ask with next.
    pub version: u64,
}

/// What a worker learns with its heartbeat for a campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Whether this worker holds it: it plans, completes and publishes.
    pub leads: bool,
    /// How many batches all workers have taken and are not done with.
    pub held: u64,
    /// What the ledger may have forgotten: nothing is sent before that is clear.
    pub gap: Option<Gap>,
}

/// The ledger is another one than it was — it was started again, a replica has taken over, a backup was restored —
/// and may have forgotten the last of what it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// When the ledger last heard of the campaign before, as it is now.
    pub from: Option<Timestamp>,
    /// When it was noticed; nothing was claimed since.
    pub to: Option<Timestamp>,
    /// The workers that have not said yet that what they have written is there: session, and when it was last heard.
    pub silent: Vec<(u32, Timestamp)>,
    /// Whether the whole ledger was emptied while workers ran: what is there is what those wrote again that still ran.
    pub emptied: bool,
}

impl Campaign {
    /// The campaign in another state, or with another reason in its own; `None` where that is no legal
    /// move. `now` is the ledger's clock.
    fn moved(&self, to: CampaignState, reason: Option<Reason>, now: Timestamp) -> Option<Self> {
        if self.state != to && !self.state.can_become(to) {
            return None;
        }
        let mut after = Self { state: to, reason, suspended_by: None, ..self.clone() };
        if to == CampaignState::Running {
            if self.state != to {
                // What a person has let pass is not counted against it again.
                let Counts { accepted, rejected, in_doubt, .. } = self.counts;
                after.forgiven = (rejected, accepted + rejected + in_doubt);
            }
            after.started_at.get_or_insert(now);
            after.finished_at = None;
        } else if to.is_over() {
            after.finished_at.get_or_insert(now);
        }
        Some(after)
    }

    /// Why a running campaign is to be held by its job's `stop_when`, if it is. What a person has let pass by resuming
    /// it is not counted again.
    pub fn too_many_rejected(&self, stop_when: StopWhen) -> Option<Reason> {
        let Counts { accepted, rejected, in_doubt, .. } = self.counts;
        let settled = (accepted + rejected + in_doubt).saturating_sub(self.forgiven.1);
        let rejected = rejected.saturating_sub(self.forgiven.0);
        let is_reached = self.state == CampaignState::Running && stop_when.is_reached(rejected, settled);
        is_reached.then_some(Reason::TooManyRejected { rejected, settled, limit: stop_when.rejected_percent })
    }

    /// For what claims of its messages are admitted.
    pub(super) fn admits(&self) -> Admits {
        Admits::of(self.state, self.suspended_by.is_some())
    }
}

/// For what a campaign admits claims. It is kept beside the state, so that a backend need not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admits {
    All,
    Probes,
    None,
}

impl Admits {
    pub(super) fn of(state: CampaignState, is_suspended: bool) -> Self {
        match state {
            CampaignState::Running => Self::All,
            CampaignState::Held if is_suspended => Self::Probes,
            _ => Self::None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Probes => "probes",
            Self::None => "none",
        }
    }
}

/// Which campaigns are listed.
#[derive(Clone, Debug, Default)]
pub struct CampaignFilter {
    /// Those in this state.
    pub state: Option<CampaignState>,
    /// Those whose id or name has this text in it, whatever the case.
    pub text: Option<String>,
    /// Those of this account.
    pub account: Option<String>,
    /// Only tests, or everything but tests.
    pub tests: Option<bool>,
}

impl CampaignFilter {
    fn lets_through(&self, campaign: &Campaign) -> bool {
        let has = |text: &str| {
            let wanted = text.to_lowercase();
            let name = campaign.name.as_deref().unwrap_or_default().to_lowercase();
            name.contains(&wanted) || campaign.id.as_str().to_lowercase().contains(&wanted)
        };
        self.state.is_none_or(|state| campaign.state == state)
            && self.tests.is_none_or(|tests| campaign.id.is_test() == tests)
            && self.account.as_ref().is_none_or(|account| campaign.account == *account)
            && self.text.as_deref().is_none_or(has)
    }
}

/// A part of the campaigns, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CampaignPage {
    /// The campaigns.
    pub campaigns: Vec<Campaign>,
    /// Where it goes on, `None` at the end.
    pub next: Option<String>,
}

/// A page out of campaigns in no order, behind a place.
fn page_of(mut found: Vec<Campaign>, behind: Option<&(CampaignId, i64)>, limit: usize) -> CampaignPage {
    let place = |campaign: &Campaign| (campaign.submitted_at.as_millisecond(), campaign.id.clone());
    if let Some((id, at)) = behind {
        found.retain(|campaign| place(campaign) < (*at, id.clone()));
    }
    found.sort_by_cached_key(|campaign| std::cmp::Reverse(place(campaign)));
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more).map(place);
    CampaignPage { campaigns: found, next: last.map(|(at, id)| format!("{at}.{id}")) }
}

/// How many campaigns are read at once where many are.
const READ: usize = 64;
/// How many are read at the least to find those that a filter lets through.
const READ_AHEAD: usize = 64;

/// The campaign behind which a page goes on, and when it was registered.
fn read_place(place: &str) -> Option<(CampaignId, i64)> {
    let (at, id) = place.split_once('.')?;
    Some((id.parse().ok()?, at.parse().ok()?))
}

fn now(ledger: &impl Store) -> Timestamp {
    Timestamp::from_millisecond(ledger.now()).unwrap_or_default()
}

/// The campaigns that there are. All writes are atomic and durable when they return.
pub trait Campaigns: Store {
    /// Whether another process can take over from this one while it runs.
    fn is_shared(&self) -> bool;

    /// Registers a campaign, or finds it as it is.
    ///
    /// A rehearsal gives way to the real campaign of the same id. A job without an id that may be
    /// known from before is found by its content. Returns also whether it is new.
    ///
    /// # Errors
    ///
    /// When the id is taken by other content.
    fn register(
        &self,
        new: NewCampaign,
    ) -> impl Future<Output = Result<(Campaign, bool), LedgerError>> + Send;

    /// A campaign, as it is now.
    fn campaign(&self, id: &CampaignId)
    -> impl Future<Output = Result<Option<Campaign>, LedgerError>> + Send;

    /// How many messages of a campaign are open. Cheaper than all of the campaign.
    fn open(&self, id: &CampaignId) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// The ids of campaigns, the newest first: so many of those that were registered before one. That one is
    /// named with the moment of its registration, in milliseconds since 1970, for when it is forgotten: then those
    /// of the same moment may come again, and none is left out.
    fn ids_before(
        &self,
        before: Option<&(CampaignId, i64)>,
        count: usize,
    ) -> impl Future<Output = Result<Vec<CampaignId>, LedgerError>> + Send;

    /// Which campaigns have changed since version `known`, of those that workers must look after: those
    /// that have not ended, and those whose end was not published. With 0, all of them. Costs nothing
    /// for those that have not changed.
    fn changes(&self, known: u64) -> impl Future<Output = Result<CampaignChanges, LedgerError>> + Send;

    /// A campaign's job.
    fn job(&self, id: &CampaignId) -> impl Future<Output = Result<StoredJob, LedgerError>> + Send;

    /// Puts a campaign among those that are looked after.
    fn activate(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Puts a campaign among those that have changed, so that every worker looks at it.
    fn touch(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Says that this worker is there, which counts for [`PRESENCE`], and returns the sessions of all
    /// that are.
    fn present(&self) -> impl Future<Output = Result<BTreeSet<u32>, LedgerError>> + Send;

    /// Says that this worker is gone.
    fn depart(&self) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Writes what of a campaign moves with its state — the state, its reason and what suspends it, what
    /// is forgiven, when it started and ended — if the state is still the one that is `known`; with
    /// `settled` only if it is planned to its end and has nothing open. Returns whether it did.
    fn swap_campaign(
        &self,
        known: CampaignState,
        settled: bool,
        after: Campaign,
    ) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Writes down that a state was published as an event.
    fn published(
        &self,
        id: &CampaignId,
        state: CampaignState,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Says that this worker looks after a campaign and holds so many of its batches. It must be said
    /// again within [`LEASE`], or the worker counts as gone.
    fn heartbeat(
        &self,
        id: &CampaignId,
        held: u64,
    ) -> impl Future<Output = Result<Lease, LedgerError>> + Send;

    /// What the ledger may have forgotten of a campaign, as far as that is not clear yet.
    fn gap(&self, id: &CampaignId) -> impl Future<Output = Result<Option<Gap>, LedgerError>> + Send {
        let _ = id;
        std::future::ready(Ok(None))
    }

    /// The gap is closed: a person has decided what becomes of what may have been sent in it.
    fn close_gap(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send {
        let _ = id;
        std::future::ready(Ok(()))
    }

    /// Says that this worker does not look after a campaign any more.
    fn release(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Forgets a campaign.
    fn remove(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// All campaigns, the newest first.
    fn campaigns(&self) -> impl Future<Output = Result<Vec<Campaign>, LedgerError>> + Send {
        async move { self.read_each(self.ids_before(None, usize::MAX).await?).await }
    }

    /// Campaigns as they are now, without those that are gone.
    fn read_each(
        &self,
        ids: Vec<CampaignId>,
    ) -> impl Future<Output = Result<Vec<Campaign>, LedgerError>> + Send {
        async move {
            let each = stream::iter(ids).map(|id| async move { self.campaign(&id).await }).buffered(READ);
            each.try_filter_map(|campaign| async move { Ok(campaign) }).try_collect().await
        }
    }

    /// Some of the campaigns that a filter lets through, the newest first, from where a page before says that
    /// it goes on. Campaigns that are registered meanwhile change nothing of what follows.
    ///
    /// # Errors
    ///
    /// When `from` is no place that a page before named.
    fn page(
        &self,
        filter: &CampaignFilter,
        from: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<CampaignPage, LedgerError>> + Send {
        async move {
            let mut before = from.map(|place| read_place(place).ok_or(LedgerError::NoPlace)).transpose()?;
            if filter.state.is_some_and(|state| !state.is_over()) {
                // Those that are looked after are few, however many have ended.
                let mut found = self.read_each(self.changes(0).await?.ids).await?;
                found.retain(|campaign| filter.lets_through(campaign));
                return Ok(page_of(found, before.as_ref(), limit));
            }
            let mut page = CampaignPage::default();
            loop {
                let ids = self.ids_before(before.as_ref(), READ_AHEAD.max(limit + 1)).await?;
                let Some(last) = ids.last().cloned() else { return Ok(page) };
                for campaign in self.read_each(ids).await? {
                    let place = (campaign.id.clone(), campaign.submitted_at.as_millisecond());
                    if filter.lets_through(&campaign) {
                        if page.campaigns.len() == limit {
                            page.next = before.map(|(id, at)| format!("{at}.{id}"));
                            return Ok(page);
                        }
                        page.campaigns.push(campaign);
                    }
                    before = Some(place);
                }
                // It may be one that is listed and not there.
                let at = before.map_or_else(|| self.now(), |(_, at)| at);
                before = Some((last, at));
            }
        }
    }

    /// Changes a campaign, again as often as somebody else was quicker. `None` changes nothing. Returns
    /// whether something was changed.
    ///
    /// # Errors
    ///
    /// When there is no such campaign, and what the change says.
    fn change_campaign(
        &self,
        id: &CampaignId,
        settled: bool,
        change: impl Fn(&Campaign) -> Result<Option<Campaign>, LedgerError> + Send,
    ) -> impl Future<Output = Result<bool, LedgerError>> + Send {
        async move {
            loop {
                let found = self.campaign(id).await?;
                let known = found.ok_or_else(|| LedgerError::NoCampaign(id.clone()))?;
                let Some(after) = change(&known)? else { return Ok(false) };
                if after.state != known.state {
                    // Whatever its new state, somebody must look after it until that is published.
                    self.activate(id).await?;
                }
                if self.swap_campaign(known.state, settled, after.clone()).await? {
                    if after.state != known.state {
                        // Puts it back, too, where a worker that was just done with the state before
                        // has taken it off.
                        self.touch(id).await?;
                    }
                    return Ok(true);
                }
            }
        }
    }

    /// Moves a campaign to another state; to its own state it only changes the reason.
    ///
    /// # Errors
    ///
    /// When that is no legal move.
    fn change_state(
        &self,
        id: &CampaignId,
        to: CampaignState,
        reason: Option<Reason>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send {
        async move {
            let moved = |campaign: &Campaign| {
                let after = campaign.moved(to, reason.clone(), now(self));
                let illegal = || LedgerError::IllegalMove { id: id.clone(), from: campaign.state, to };
                Ok(Some(after.ok_or_else(illegal)?))
            };
            self.change_campaign(id, false, moved).await.map(drop)
        }
    }

    /// Moves a campaign from the state in which a worker has seen it. One that somebody else has moved meanwhile stays
    /// as it is: a worker that comes late undoes no pause, and wakes nothing that has ended.
    fn move_from(
        &self,
        id: &CampaignId,
        from: CampaignState,
        to: CampaignState,
        reason: Option<Reason>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send {
        async move {
            let moved = |campaign: &Campaign| {
                let is_there = campaign.state == from;
                Ok(campaign.moved(to, reason.clone(), now(self)).filter(|_| is_there))
            };
            self.change_campaign(id, false, moved).await.map(drop)
        }
    }

    /// Says what a running campaign waits for. One that does not run by now keeps its reason.
    fn note(
        &self,
        id: &CampaignId,
        note: Option<Reason>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send {
        async move {
            let noted = |campaign: &Campaign| {
                let runs = campaign.state == CampaignState::Running;
                Ok(runs.then(|| Campaign { reason: note.clone(), ..campaign.clone() }))
            };
            self.change_campaign(id, false, noted).await.map(drop)
        }
    }

    /// Holds a running campaign whose counts are what its job's `stop_when` forbids. Returns whether it did. To be asked
    /// after every change of the counts that an answer or a report made.
    fn judge(
        &self,
        id: &CampaignId,
        stop_when: StopWhen,
    ) -> impl Future<Output = Result<bool, LedgerError>> + Send {
        async move {
            let held = |campaign: &Campaign| {
                let reason = campaign.too_many_rejected(stop_when);
                Ok(reason.and_then(|reason| campaign.moved(CampaignState::Held, Some(reason), now(self))))
            };
            self.change_campaign(id, false, held).await
        }
    }

    /// Completes a running campaign that is planned to its end and has nothing open, unless `stop_when` holds it.
    /// Returns whether it did.
    fn complete(
        &self,
        id: &CampaignId,
        stop_when: Option<StopWhen>,
    ) -> impl Future<Output = Result<bool, LedgerError>> + Send {
        async move {
            if let Some(stop_when) = stop_when
                && self.judge(id, stop_when).await?
            {
                return Ok(false);
            }
            let completed = |campaign: &Campaign| {
                let Campaign { state, planned, counts, .. } = campaign;
                let is_held = stop_when.is_some_and(|stop| campaign.too_many_rejected(stop).is_some());
                let done = *state == CampaignState::Running && *planned && counts.open() == 0 && !is_held;
                Ok(campaign.moved(CampaignState::Completed, None, now(self)).filter(|_| done))
            };
            self.change_campaign(id, true, completed).await
        }
    }

    /// Completes a paused or held campaign of which nothing is left, because it has expired.
    fn complete_expired(&self, id: &CampaignId) -> impl Future<Output = Result<bool, LedgerError>> + Send {
        async move {
            let completed = |campaign: &Campaign| {
                let Campaign { state, planned, counts, .. } = campaign;
                let stands = matches!(state, CampaignState::Paused | CampaignState::Held);
                let is_done = stands && *planned && counts.open() == 0;
                let reason = Some(Reason::Expired);
                Ok(campaign.moved(CampaignState::Completed, reason, now(self)).filter(|_| is_done))
            };
            self.change_campaign(id, true, completed).await
        }
    }

    /// Pauses or cancels a campaign for a person, or notes that this was asked for once more.
    ///
    /// # Errors
    ///
    /// When it is over.
    fn stop(
        &self,
        id: &CampaignId,
        to: CampaignState,
        asked_at: i64,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send {
        async move {
            let stopped = |campaign: &Campaign| {
                let stop_asked_at = campaign.stop_asked_at.max(asked_at);
                if campaign.state == to {
                    return Ok(Some(Campaign { stop_asked_at, ..campaign.clone() }));
                }
                let after = campaign.moved(to, Some(Reason::Person { state: to }), now(self));
                let illegal = || LedgerError::IllegalMove { id: id.clone(), from: campaign.state, to };
                Ok(Some(Campaign { stop_asked_at, ..after.ok_or_else(illegal)? }))
            };
            self.change_campaign(id, false, stopped).await.map(drop)
        }
    }

    /// Has the messages of batches below a number be in doubt that nobody has claimed yet, as far as the ledger
    /// knows.
    fn doubt_below(
        &self,
        id: &CampaignId,
        below: u32,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send {
        async move {
            let changed = |campaign: &Campaign| {
                let doubt_below = campaign.doubt_below.max(below);
                Ok(Some(Campaign { doubt_below, ..campaign.clone() }))
            };
            self.change_campaign(id, false, changed).await.map(drop)
        }
    }

    /// Holds a campaign that runs, or says why one that is held is. One that a person has paused, or that has ended
    /// meanwhile, stays as it is.
    fn hold(&self, id: &CampaignId, reason: Reason) -> impl Future<Output = Result<(), LedgerError>> + Send {
        async move {
            let held = |campaign: &Campaign| {
                let goes_on = matches!(campaign.state, CampaignState::Running | CampaignState::Held);
                Ok(campaign.moved(CampaignState::Held, Some(reason.clone()), now(self)).filter(|_| goes_on))
            };
            self.change_campaign(id, false, held).await.map(drop)
        }
    }

    /// Suspends a campaign that runs, together with others, until its breaker is closed again.
    fn suspend(
        &self,
        id: &CampaignId,
        breaker: &Breaker,
        reason: Reason,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send {
        async move {
            let suspended = |campaign: &Campaign| {
                let runs = campaign.state == CampaignState::Running;
                let held = campaign.moved(CampaignState::Held, Some(reason.clone()), now(self));
                let held = held.map(|held| Campaign { suspended_by: Some(breaker.clone()), ..held });
                Ok(held.filter(|_| runs))
            };
            self.change_campaign(id, false, suspended).await.map(drop)
        }
    }
}
