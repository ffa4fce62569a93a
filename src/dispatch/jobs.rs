//! Takes jobs and control documents from the queue.
//!
//! A job is acknowledged after it is registered. A job that cannot be read or is refused is dead-lettered unchanged, with the
//! reason and its place in the job.

use std::{sync::Arc, time::Duration};

use opentelemetry::context::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::document_order::{Document, take_in_order};
use super::{Context, LoadedJob, Refusal, arrivals::sort, control, prepare, register};
use crate::campaign::{CampaignId, Job, Problem, control::Control, text::shortened};
use crate::ledger::{Ledger, LedgerError};
use crate::queue::rabbitmq::{Broker, JobDelivery};
use crate::queue::{Postponed, QueueError};
use crate::runtime;
use crate::traces;

/// Size limit of a job, in bytes: a list of a hundred thousand recipients.
pub const JOB_LIMIT: usize = 16 << 20;
/// Maximum number of documents in flight; the broker keeps the others for other workers.
pub(super) const CONCURRENCY: u16 = 16;
/// Size limit of the reason of a refusal, in bytes.
const LONGEST_ERROR: usize = 2_048;
/// Name in the audit log for documents without one.
const QUEUE: &str = "the queue";
/// Delay before a failed operation is tried again.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longest delay between attempts.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// How long a job waits for its account, in milliseconds: longer than a new configuration needs to reach all workers.
const LONGEST_WAIT_MS: i64 = 3_600_000;
/// Bounds of a delay, which is about as long as the job has waited so far.
const SHORTEST_DELAY: Duration = Duration::from_secs(5);
const LONGEST_DELAY: Duration = Duration::from_mins(1);

/// The reason why a document was not carried out.
enum JobError {
    /// The document is refused for good.
    Refused { error: String, pointer: String },
    /// The document is tried again later.
    Later(String),
    /// The job waits until a worker can send from its account.
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
            Refusal::Audience(error) if error.lacks_room() => Self::Later(error.to_string()),
            _ => Self::Refused { error: refusal.to_text(), pointer: refusal.pointer().into() },
        }
    }
}

impl From<LedgerError> for JobError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Away(_) | LedgerError::Storage(_) => Self::Later(error.to_string()),
            _ => Self::Refused { error: error.to_string(), pointer: "/id".into() },
        }
    }
}

/// Takes jobs and control documents until it is stopped.
///
/// Each registered campaign is passed to this worker's supervisors, with its prepared job.
pub async fn take_jobs<L: Ledger>(
    ledger: &L,
    broker: &Broker,
    context: &Context,
    registered: &mpsc::Sender<(CampaignId, Arc<LoadedJob>)>,
    stop: &CancellationToken,
) {
    let intake = Intake { ledger, broker, context, registered, stop };
    let mut waiting = broker.jobs(CONCURRENCY);
    let document = |delivery: &JobDelivery| Document::from_data(&delivery.data);
    let take = |delivery| take_or_log(&intake, delivery);
    tokio::join!(sort(&intake), take_in_order(async || waiting.next().await, document, take, stop));
}

/// The dependencies of taking documents.
pub(super) struct Intake<'i, L> {
    pub(super) ledger: &'i L,
    pub(super) broker: &'i Broker,
    pub(super) context: &'i Context,
    pub(super) registered: &'i mpsc::Sender<(CampaignId, Arc<LoadedJob>)>,
    pub(super) stop: &'i CancellationToken,
}

/// Takes a document. An error of the broker is logged, followed by a delay.
pub(super) async fn take_or_log<L: Ledger>(intake: &Intake<'_, L>, delivery: JobDelivery) {
    if let Err(error) = take_job(intake, delivery).await {
        tracing::error!(error = %error, "could not take a document");
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

async fn take_job<L: Ledger>(intake: &Intake<'_, L>, delivery: JobDelivery) -> Result<(), QueueError> {
    let Intake { broker, stop, .. } = *intake;
    let mut wait = RETRY_DELAY;
    loop {
        let done = if delivery.is_malformed() {
            Err(JobError::Refused {
                error: "was delivered ten times, and its worker ended each time".into(),
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
            Ok(()) => {
                delivery.acknowledge().await;
                return Ok(());
            }
            Err(JobError::Refused { error, pointer }) => {
                return refuse(broker, delivery, &error, &pointer).await;
            }
            Err(JobError::Later(reason)) => {
                tracing::error!(error = reason, "cannot take a job now; trying again");
                // Not requeued, because the broker counts that, and the job would be dead-lettered after ten times.
                if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                    delivery.give_back().await;
                    return Ok(());
                }
                wait = (wait * 2).min(MAX_RETRY_DELAY);
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
    tracing::warn!("job refused: {error}");
    metrics::counter!("flowcast_jobs_dead_lettered_total").increment(1);
    broker.dead_letter(delivery, &error, pointer).await
}

/// Defers a job whose account cannot be used here: another worker may have the account, or this one may soon.
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
    if id.is_none() && delivery.postponed.is_none() && delivery.redelivered {
        // It may be waiting under the id that it was given then; under another id it would be sent twice.
        let error = format!(
            "{reason}; the job has no id and was delivered before, so a copy may be waiting under a generated id; \
             requeue the job only if no such campaign starts within an hour"
        );
        return refuse(broker, delivery, &error, POINTER).await;
    }
    let postponed = match &delivery.postponed {
        // Anyone can set headers: a time in the future would make the job wait for ever.
        Some(Postponed { since, id }) => Postponed { since: (*since).min(now), id: id.clone() },
        None => match Uuid::now_v7().to_string().parse() {
            Ok(id) => Postponed { since: now, id },
            Err(error) => return refuse(broker, delivery, &error.to_string(), "").await,
        },
    };
    let waited = now.saturating_sub(postponed.since);
    if waited >= LONGEST_WAIT_MS {
        return refuse(broker, delivery, &format!("{reason}; the job waited for an hour"), POINTER).await;
    }
    let wait = Duration::from_millis(waited.unsigned_abs()).clamp(SHORTEST_DELAY, LONGEST_DELAY);
    // Before the copy is published, because the original may be delivered again to a worker that has the account.
    if id.is_none()
        && delivery.postponed.is_none()
        && let Err(error) = ledger.reserve_id(fingerprint, &postponed.id).await
    {
        tracing::error!(%error, "could not reserve an id for a deferred job");
        delivery.give_back().await;
        return Ok(());
    }
    let job = id.as_ref().unwrap_or(&postponed.id);
    tracing::warn!(%job, "a job waits until a worker can send from its account, at most an hour: {reason}");
    metrics::counter!("flowcast_jobs_deferred_total").increment(1);
    broker.postpone(delivery, wait, &postponed).await
}

async fn read<L: Ledger>(intake: &Intake<'_, L>, delivery: &JobDelivery) -> Result<(), JobError> {
    let Intake { ledger, context, registered, .. } = *intake;
    if delivery.data.len() > JOB_LIMIT {
        let error = format!(
            "is {} bytes long, and a job has at most {JOB_LIMIT}; put the recipients into a file",
            delivery.data.len()
        );
        return Err(JobError::Refused { error, pointer: String::new() });
    }
    if let Some(document) = Control::read(&delivery.data) {
        let mut document = document?;
        document.asked_at = delivery.read_at;
        // flowcast cannot verify the name in a document, so the audit log shows where it came from.
        document.by = Some(match document.by {
            Some(by) => format!("{by} ({QUEUE})"),
            None => QUEUE.into(),
        });
        let done = control(ledger, &document).await?;
        tracing::info!(
            campaign = %document.id, action = document.action.code(), messages = done.messages, state = %done.state,
            "control document carried out"
        );
        return Ok(());
    }
    let mut job = Job::read(&delivery.data)?;
    let account = context.accounts.get(&job.account).map_err(|reason| JobError::Waits {
        reason,
        id: job.id.clone(),
        fingerprint: job.fingerprint(),
    })?;
    if let (None, Some(postponed)) = (&job.id, &delivery.postponed) {
        job.id = Some(postponed.id.clone());
    }
    let audiences = context.audiences.clone();
    let prepared = runtime::blocking(move || prepare(job, &audiences, &account)).await;
    let prepared = Arc::new(prepared.map_err(|error| JobError::Later(error.to_string()))??);
    let (campaign, _) =
        register(ledger, &prepared, false, delivery.redelivered, QUEUE, &context.unmoved).await?;
    tracing::info!(campaign = %campaign.id, rows = campaign.rows, "campaign registered");
    // If the channel is full, the worker finds the campaign in the ledger a moment later.
    let _ = registered.try_send((campaign.id, prepared));
    Ok(())
}
