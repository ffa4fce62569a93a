//! Takes jobs and control documents from the queue. A job is registered, then acknowledged; one that
//! can't be read or is refused goes to the dead ones, whole, with the reason and where it lies.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, future};
use opentelemetry::context::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::sender::LONG_WAIT;
use super::{Context, Prepared, Refusal, control, prepare, register, under_way};
use crate::campaign::control::Control;
use crate::campaign::text::shortened;
use crate::campaign::{CampaignId, Job, Problem};
use crate::ledger::{Ledger, LedgerError};
use crate::queue::rabbitmq::{Broker, JobDelivery};
use crate::queue::{PutOff, QueueError};
use crate::traces;

/// The longest job, in bytes: a list of a hundred thousand recipients.
pub const JOB_LIMIT: usize = 16 << 20;
/// So many jobs are taken in at once; the broker keeps the others for other workers.
const AT_ONCE: u16 = 16;
/// Arrivals that are sorted together: their number and their bytes.
const SORTED_AT_ONCE: u16 = 32;
const SORTED_BYTES: usize = 32 << 20;
/// The longest control document, in bytes.
const LONGEST_CONTROL: usize = 256 << 10;
/// The longest reason of a refusal, in bytes.
const LONGEST_ERROR: usize = 2_048;
/// Who did what came without a name.
const QUEUE: &str = "the queue";
/// A wait before something that failed outside is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest.
const SELDOM: Duration = Duration::from_secs(30);
/// How long a job waits for its account, in milliseconds: longer than a new configuration takes to reach all workers.
const LONGEST_WAIT_MS: i64 = 3_600_000;
/// It is tried again after about as long as it has waited by now, within these bounds.
const SHORTEST_PUT_OFF: Duration = Duration::from_secs(5);
const LONGEST_PUT_OFF: Duration = Duration::from_mins(1);

/// Why a document is not done.
enum JobError {
    /// It never will be.
    Refused { error: String, pointer: String },
    /// It may be later.
    Later(String),
    /// It may be when this worker, or another one, can send from its account.
    Waits { reason: String, id: Option<CampaignId>, fingerprint: String },
}

impl From<Vec<Problem>> for JobError {
    fn from(problems: Vec<Problem>) -> Self {
        Refusal::Problems(problems).into()
    }
}

impl From<Refusal> for JobError {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::Audience(fault) if fault.lacks_room() => Self::Later(fault.to_string()),
            _ => Self::Refused { error: refusal.plain(), pointer: refusal.pointer().into() },
        }
    }
}

impl From<LedgerError> for JobError {
    fn from(fault: LedgerError) -> Self {
        match fault {
            LedgerError::Away(_) | LedgerError::Storage(_) => Self::Later(fault.to_string()),
            _ => Self::Refused { error: fault.to_string(), pointer: "/id".into() },
        }
    }
}

/// Takes jobs and control documents until it is stopped. Each campaign is handed to this worker's supervisors
/// with what is known of it.
pub async fn take_jobs<L: Ledger>(
    ledger: &L,
    broker: &Broker,
    context: &Context,
    registered: &mpsc::Sender<(CampaignId, Arc<Prepared>)>,
    stop: &CancellationToken,
) {
    let intake = Intake { ledger, broker, context, registered, stop };
    tokio::join!(sort(&intake), take_waiting(&intake));
}

/// What jobs are taken with.
struct Intake<'i, L> {
    ledger: &'i L,
    broker: &'i Broker,
    context: &'i Context,
    registered: &'i mpsc::Sender<(CampaignId, Arc<Prepared>)>,
    stop: &'i CancellationToken,
}

/// How an arrival is dealt with.
enum Arrival {
    /// At once: a pause or a cancellation of a campaign that is known.
    Urgent,
    /// At once, too: a job without an id. Put behind others it could be there twice, and be two campaigns.
    Nameless,
    /// In its turn.
    Other,
}

impl Arrival {
    async fn of(ledger: &impl Ledger, data: &[u8]) -> Self {
        /// Where a document is long, no more of it is kept.
        #[derive(serde::Deserialize)]
        struct Head {
            id: Option<serde::de::IgnoredAny>,
            control: Option<serde::de::IgnoredAny>,
        }
        match serde_json::from_slice(data) {
            Ok(Head { control: Some(_), .. }) if data.len() <= LONGEST_CONTROL => {}
            Ok(Head { control: None, id: None }) => return Self::Nameless,
            _ => return Self::Other,
        }
        match Control::read(data) {
            // One of a campaign that is not known waits behind the job that it may be about.
            Some(Ok(control)) if control.action.is_urgent() => match ledger.campaign(&control.id).await {
                Ok(Some(_)) => Self::Urgent,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// Reads what is published ahead of what is done: pauses and cancellations at once, all else is put behind what waits for
/// its turn, in its order. What stops messages is never behind what takes long.
async fn sort<L: Ledger>(intake: &Intake<'_, L>) {
    let Intake { ledger, broker, stop, .. } = *intake;
    let mut arrivals = broker.arrivals(SORTED_AT_ONCE);
    let mut nameless = under_way::UnderWay::new(FuturesUnordered::new());
    let mut last = 0;
    loop {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(()) = nameless.next() => continue,
            next = arrivals.next(), if nameless.len() < usize::from(AT_ONCE) => next,
        };
        let (mut urgent, mut others) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(arrival) = next.take() {
            let mut arrival = match arrival {
                Ok(arrival) => arrival,
                Err(fault) => {
                    tracing::error!("{fault}");
                    nameless.beside(tokio::time::sleep(AGAIN)).await;
                    break;
                }
            };
            // In the order in which they came, also within a millisecond.
            last = (ledger.now() * 1_000).max(last + 1);
            arrival.read_at = Some(last);
            match nameless.beside(Arrival::of(ledger, &arrival.data)).await {
                _ if arrival.is_poison() => urgent.push(arrival),
                Arrival::Urgent => urgent.push(arrival),
                Arrival::Nameless => {
                    nameless.futures.push(take_or_tell(intake, arrival));
                }
                Arrival::Other => others.push(arrival),
            }
            let bytes: usize = others.iter().map(|other| other.data.len()).sum();
            let is_full = urgent.len() + others.len() >= usize::from(SORTED_AT_ONCE)
                || nameless.len() >= usize::from(AT_ONCE)
                || bytes > SORTED_BYTES;
            if !is_full {
                next = arrivals.next().now_or_never();
            }
        }
        let urgent = urgent.into_iter().map(|one| take_or_tell(intake, one));
        let waiting = async {
            // A worker that is stopped does not wait for a broker that is away: what it has read comes again.
            let given_up = async {
                stop.cancelled().await;
                tokio::time::sleep(LONG_WAIT).await;
            };
            let put = async {
                if let Err(fault) = broker.let_wait(others).await {
                    tracing::error!("{fault}");
                    tokio::time::sleep(AGAIN).await;
                }
            };
            tokio::select! {
                biased;
                () = put => {}
                () = given_up => {}
            }
        };
        nameless.beside(future::join(waiting, future::join_all(urgent))).await;
    }
    while nameless.next().await.is_some() {}
}

/// Takes one; a failure outside is said and waited out.
async fn take_or_tell<L: Ledger>(intake: &Intake<'_, L>, delivery: JobDelivery) {
    if let Err(fault) = take(intake, delivery).await {
        tracing::error!("{fault}");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Takes what waits for its turn, a few at once. A job is never held for long: its audience is read once, and the rest is
/// the planner's.
async fn take_waiting<L: Ledger>(intake: &Intake<'_, L>) {
    let Intake { broker, stop, .. } = *intake;
    let mut jobs = broker.jobs(AT_ONCE);
    let (mut under_way, mut about) = (FuturesUnordered::new(), UnderWay::default());
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = under_way.next() => {
                about.ends(done);
                continue;
            }
            next = jobs.next(), if under_way.len() < usize::from(AT_ONCE) => next,
        };
        match next {
            Ok(delivery) => {
                let what = Document::of(&delivery);
                // What comes before it may be the job that it is about, or what was asked of the campaign before. What is
                // asked of others need not wait.
                while !about.lets_through(&what)
                    && let Some(done) = under_way.next().await
                {
                    about.ends(done);
                }
                about.begins(&what);
                under_way.push(async move {
                    take_or_tell(intake, delivery).await;
                    what
                });
            }
            Err(fault) => {
                tracing::error!("{fault}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    while under_way.next().await.is_some() {}
}

/// What a delivery is, as far as others must wait for it.
enum Document {
    /// A job, or what can't be read.
    Job,
    /// A control document, and of which campaign.
    Control(CampaignId),
}

impl Document {
    fn of(delivery: &JobDelivery) -> Self {
        match Control::read(&delivery.data) {
            Some(Ok(control)) => Self::Control(control.id),
            _ => Self::Job,
        }
    }
}

/// What is under way.
#[derive(Default)]
struct UnderWay {
    jobs: usize,
    controlled: HashSet<CampaignId>,
}

impl UnderWay {
    fn lets_through(&self, next: &Document) -> bool {
        match next {
            Document::Job => true,
            Document::Control(id) => self.jobs == 0 && !self.controlled.contains(id),
        }
    }

    fn begins(&mut self, document: &Document) {
        match document {
            Document::Job => self.jobs += 1,
            Document::Control(id) => drop(self.controlled.insert(id.clone())),
        }
    }

    fn ends(&mut self, document: Document) {
        match document {
            Document::Job => self.jobs -= 1,
            Document::Control(id) => drop(self.controlled.remove(&id)),
        }
    }
}

async fn take<L: Ledger>(intake: &Intake<'_, L>, delivery: JobDelivery) -> Result<(), QueueError> {
    let Intake { broker, stop, .. } = *intake;
    let mut wait = AGAIN;
    loop {
        let done = if delivery.is_poison() {
            Err(JobError::Refused {
                error: "was delivered ten times and never done; its worker ended each time".into(),
                pointer: String::new(),
            })
        } else {
            let outside = traces::from_outside(delivery.traceparent());
            read(intake, &delivery).with_context(outside).await
        };
        match done {
            Err(JobError::Waits { reason, id, fingerprint }) => {
                return wait_for_account(intake, delivery, &reason, id, &fingerprint).await;
            }
            // Acknowledged after the ledger has it.
            Ok(()) => {
                delivery.acknowledge().await;
                return Ok(());
            }
            Err(JobError::Refused { error, pointer }) => {
                return refuse(broker, delivery, &error, &pointer).await;
            }
            Err(JobError::Later(reason)) => {
                tracing::error!("a job can't be taken now, and is tried again: {reason}");
                // Kept meanwhile: the broker counts what is given back, and after ten times it would be buried.
                if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                    delivery.give_back().await;
                    return Ok(());
                }
                wait = (wait * 2).min(SELDOM);
            }
        }
    }
}

async fn refuse(
    broker: &Broker,
    delivery: JobDelivery,
    error: &str,
    pointer: &str,
) -> Result<(), QueueError> {
    let error = shortened(error, LONGEST_ERROR);
    tracing::warn!("a job is refused: {error}");
    metrics::counter!("flowcast_jobs_dead_lettered_total").increment(1);
    broker.bury(delivery, &error, pointer).await
}

/// Puts a job off whose account can't be used here: another worker may know it already, and this one may soon.
async fn wait_for_account<L: Ledger>(
    intake: &Intake<'_, L>,
    delivery: JobDelivery,
    reason: &str,
    id: Option<CampaignId>,
    fingerprint: &str,
) -> Result<(), QueueError> {
    const POINTER: &str = "/account";
    let Intake { ledger, broker, .. } = *intake;
    let now = ledger.now();
    if id.is_none() && delivery.put_off.is_none() && delivery.redelivered {
        // Under the id that it was given then it may wait already; under another one it would be sent twice.
        let error = format!(
            "{reason}. It has no id and was delivered before, so it may be waiting already under an id that it was given: \
             put it back only if no campaign of it begins within an hour"
        );
        return refuse(broker, delivery, &error, POINTER).await;
    }
    let put_off = match &delivery.put_off {
        // Headers are anybody's: one of tomorrow would have it wait for ever.
        Some(PutOff { since, id }) => PutOff { since: (*since).min(now), id: id.clone() },
        None => match Uuid::now_v7().to_string().parse() {
            Ok(id) => PutOff { since: now, id },
            Err(error) => return refuse(broker, delivery, &error.to_string(), "").await,
        },
    };
    let waited = now.saturating_sub(put_off.since);
    if waited >= LONGEST_WAIT_MS {
        return refuse(broker, delivery, &format!("{reason}. It waited for an hour"), POINTER).await;
    }
    let wait = Duration::from_millis(waited.unsigned_abs()).clamp(SHORTEST_PUT_OFF, LONGEST_PUT_OFF);
    // Before the copy is there: the original may be delivered again, to a worker that knows the account.
    if id.is_none()
        && delivery.put_off.is_none()
        && let Err(error) = ledger.reserve_id(fingerprint, &put_off.id).await
    {
        tracing::error!("{error}");
        delivery.give_back().await;
        return Ok(());
    }
    let job = id.as_ref().unwrap_or(&put_off.id);
    tracing::warn!(%job, "a job waits until a worker can send from its account, for an hour at the most: {reason}");
    metrics::counter!("flowcast_jobs_deferred_total").increment(1);
    broker.put_off(delivery, wait, &put_off).await
}

async fn read<L: Ledger>(intake: &Intake<'_, L>, delivery: &JobDelivery) -> Result<(), JobError> {
    let Intake { ledger, context, registered, .. } = *intake;
    if delivery.data.len() > JOB_LIMIT {
        let error = format!(
            "is {} bytes long, and a job has at most {JOB_LIMIT}; put its recipients into a file",
            delivery.data.len()
        );
        return Err(JobError::Refused { error, pointer: String::new() });
    }
    if let Some(document) = Control::read(&delivery.data) {
        let mut document = document?;
        document.asked_at = delivery.read_at;
        // A name that a document gives itself is nobody's whom flowcast knows.
        document.by = Some(match document.by {
            Some(by) => format!("{by} ({QUEUE})"),
            None => QUEUE.into(),
        });
        let done = control(ledger, &document).await?;
        tracing::info!(campaign = %document.id, "{:?}: {} messages, now {}", document.action, done.messages, done.state);
        return Ok(());
    }
    let mut job = Job::read(&delivery.data)?;
    let account = context.accounts.get(&job.account).map_err(|reason| JobError::Waits {
        reason,
        id: job.id.clone(),
        fingerprint: job.fingerprint(),
    })?;
    if let (None, Some(put_off)) = (&job.id, &delivery.put_off) {
        job.id = Some(put_off.id.clone());
    }
    let audiences = context.audiences.clone();
    let prepared = tokio::task::spawn_blocking(move || prepare(job, &audiences, &account)).await;
    let prepared = Arc::new(prepared.map_err(|fault| JobError::Later(fault.to_string()))??);
    let (campaign, _) =
        register(ledger, &prepared, false, delivery.redelivered, QUEUE, &context.unmoved).await?;
    tracing::info!(campaign = %campaign.id, "registered, {} rows", campaign.rows);
    // Where there is no room, it is found in the ledger a moment later.
    let _ = registered.try_send((campaign.id, prepared));
    Ok(())
}
