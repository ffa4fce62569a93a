//! One request: its messages are claimed and rendered, it is posted, and the outcomes are recorded, in that order.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::after_response::{AfterResponse, DecisionInputs, decide};
use super::{DispatchError, TRIES, sender::SenderContext};
use crate::campaign::job::OnInDoubt;
use crate::ledger::{BatchWriter, ClaimPurpose, Ledger, Outcome};
use crate::provider::{Failure, HttpResponse, RequestBody, Scope, classify};
use crate::queue::{Queue, QueuedBatch};
use crate::traces;

/// The result for some messages of a batch.
pub(super) enum SendResult {
    /// The response's follow-up, the number of messages requested, and those that are still open.
    ///
    /// The permit is kept until the follow-up is done, so that no further request meets the same condition.
    Answered { asked: usize, next: AfterResponse, open: Vec<u8>, permit: Option<OwnedSemaphorePermit> },
    /// The messages are delayed for this long.
    Delayed(Vec<u8>, Duration),
    /// The messages need a permit each.
    OneByOne(Vec<u8>),
    /// The messages need two permits.
    Parts(Vec<u8>, Vec<u8>),
    /// The campaign is no longer running.
    Stopped,
}

impl SendResult {
    /// Returns the result for messages of which none had to be sent.
    pub(super) fn nothing(asked: usize) -> Self {
        Self::Answered { asked, next: AfterResponse::Done, open: Vec::new(), permit: None }
    }
}

impl<L: Ledger, Q: Queue> SenderContext<L, Q> {
    /// Claims, sends and records some messages.
    pub(super) async fn send_set(
        &self,
        queued: &QueuedBatch,
        writer: &BatchWriter<L>,
        set: Vec<u8>,
        purpose: ClaimPurpose,
        permit: OwnedSemaphorePermit,
    ) -> Result<SendResult, DispatchError> {
        let asked = set.len();
        // If this process dies after the claim, these messages are in doubt.
        let claim = writer.claim(set, purpose).await?;
        if !claim.running {
            self.halt();
            return Ok(SendResult::Stopped);
        }
        let claimed = &claim.messages;
        if claimed.is_empty() {
            return Ok(SendResult::nothing(asked));
        }
        let body = match self.render(queued, claimed) {
            Ok(body) => body,
            Err(reason) => {
                let outcomes = claimed.iter().map(|index| (*index, Outcome::Released).into()).collect();
                writer.record(claim.token, outcomes).await?;
                let next = AfterResponse::Hold { scope: Scope::Campaign, reason };
                return Ok(SendResult::Answered { asked, next, open: Vec::new(), permit: Some(permit) });
            }
        };
        let (response, latency) = self.post(queued, claimed, claim.start_by, body).await;
        let provider = &self.account.provider;
        let request = response.as_ref().ok().and_then(|reply| provider.request_id(reply));
        let known_as = response.as_ref().ok().and_then(|reply| provider.recipient(reply));
        let response = response.map(|reply| classify(&reply, provider.parse(&reply, claimed.len())));
        let inputs = DecisionInputs {
            resend: self.job.on_in_doubt == OnInDoubt::Resend,
            gives_up: queued.attempt + 1 >= TRIES && self.state.has_recent_success(),
        };
        let decision = decide(response, claimed, inputs);
        let (next, open) = (decision.next, decision.again);
        let went_well = matches!(next, AfterResponse::Done);
        self.account.limits.concurrency.answered(latency, went_well);
        let is = |state: fn(&Outcome) -> bool| decision.outcomes.iter().any(|(_, outcome)| state(outcome));
        let taken = is(|outcome| matches!(outcome, Outcome::Accepted { .. }));
        let rejected = is(|outcome| matches!(outcome, Outcome::Rejected { .. }));
        if let (Some(number), [index], true) = (known_as, claimed.as_slice(), taken) {
            self.note_other_number(queued, *index, number).await;
        }
        if let Some(request) = &request {
            // The first thing that a provider's support asks for.
            let all = claimed.len();
            if went_well && !rejected {
                tracing::debug!(request, messages = all, "request answered");
            } else {
                tracing::info!(request, messages = all, "request failed or was partly rejected");
            }
        }
        // The permit is kept until the outcomes are recorded, so a crash leaves at most as many requests in doubt as may be
        // in flight.
        self.record(queued, writer, &claim, decision.outcomes, request).await?;
        let permit = (!went_well).then_some(permit);

        if !matches!(next, AfterResponse::InDoubt(_)) {
            self.state.doubts.store(0, Ordering::Relaxed);
        }
        if taken {
            self.state.note_accepted();
            self.account.note_accepted();
            self.show_reason(None).await?;
        }
        Ok(SendResult::Answered { asked, next, open, permit })
    }

    /// Renders a request's messages, or returns why the campaign must be held.
    fn render(&self, queued: &QueuedBatch, claimed: &[u8]) -> Result<RequestBody, String> {
        let mut body = RequestBody::new(self.account.kind, self.state.body_bytes.load(Ordering::Relaxed));
        for index in claimed {
            if let Some(recipient) = queued.batch.recipient(usize::from(*index))
                && let Err(skip) = body.message(|out| self.template.render(&recipient, out))
            {
                // The planner rendered this message, so this is a bug in flowcast.
                return Err(format!(
                    "cannot render row {}, which was rendered when it was planned: {}",
                    recipient.row, skip.detail
                ));
            }
        }
        Ok(body)
    }

    /// Posts a request and indexes its messages in parallel. Returns the response and its latency.
    async fn post(
        &self,
        queued: &QueuedBatch,
        claimed: &[u8],
        start_by: Option<Instant>,
        body: RequestBody,
    ) -> (Result<HttpResponse, Failure>, Duration) {
        let request = self.account.provider.request(self.endpoint.clone(), body);
        self.state.body_bytes.fetch_max(request.body.len(), Ordering::Relaxed);

        let begun = Instant::now();
        let traced = traces::request(&self.job.account, &self.endpoint, claimed.len());
        // Parallel to the request, so that it adds no latency; complete before the outcomes are recorded.
        let sending = async {
            let response = self.account.transport.post(request, start_by).await;
            (response, begun.elapsed())
        };
        let ((response, latency), noted) = tokio::join!(sending, self.note_sent(queued, claimed));
        if let Err(error) = noted {
            tracing::warn!(
                campaign = %self.id, error = %error,
                "could not index sent messages; replies without a reference may not be matched"
            );
        }
        traced.end(match &response {
            Ok(reply) => Ok(reply.status),
            Err(Failure::NotSent(_)) => Err("not_sent"),
            Err(Failure::MayBeSent(_)) => Err("in_doubt"),
        });
        let account = self.job.account.clone();
        metrics::histogram!("flowcast_request_duration_seconds", "account" => account).record(latency);
        (response, latency)
    }
}
