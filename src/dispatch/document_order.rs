//! Decides which documents may be taken at the same time.
//!
//! A control document waits for the jobs before it and for the documents before it about the same campaign. Nothing else
//! waits.

use std::collections::HashSet;

use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::in_flight::InFlight;
use super::jobs::{CONCURRENCY, RETRY_DELAY};
use crate::campaign::{CampaignId, control::Control};
use crate::queue::QueueError;

/// Kind of a document, as far as others must wait for it.
pub(super) enum Document {
    /// A job, or an unreadable document.
    Job,
    /// A control document of a campaign.
    Control(CampaignId),
}

impl Document {
    pub(super) fn from_data(data: &[u8]) -> Self {
        match Control::read(data) {
            Some(Ok(control)) => Self::Control(control.id),
            _ => Self::Job,
        }
    }
}

/// The documents in flight.
#[derive(Default)]
struct Documents {
    jobs: usize,
    controlled: HashSet<CampaignId>,
}

impl Documents {
    /// Returns whether a document may be taken while these are in flight.
    fn admit(&self, next: &Document) -> bool {
        match next {
            Document::Job => true,
            Document::Control(id) => self.jobs == 0 && !self.controlled.contains(id),
        }
    }

    fn begin(&mut self, document: &Document) {
        match document {
            Document::Job => self.jobs += 1,
            Document::Control(id) => drop(self.controlled.insert(id.clone())),
        }
    }

    fn end(&mut self, document: Document) {
        match document {
            Document::Job => self.jobs -= 1,
            Document::Control(id) => drop(self.controlled.remove(&id)),
        }
    }
}

/// Takes documents until it is stopped, at most [`CONCURRENCY`] at the same time, then finishes those in flight.
pub(super) async fn take_in_order<D, F: Future<Output = ()>>(
    mut next: impl AsyncFnMut() -> Result<D, QueueError>,
    read: impl Fn(&D) -> Document,
    take: impl Fn(D) -> F,
    stop: &CancellationToken,
) {
    let (mut in_flight, mut documents) = (InFlight::new(FuturesUnordered::new()), Documents::default());
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = in_flight.next() => {
                documents.end(done);
                continue;
            }
            next = next(), if in_flight.len() < usize::from(CONCURRENCY) => next,
        };
        match next {
            Ok(delivery) => {
                let document = read(&delivery);
                while !documents.admit(&document)
                    && let Some(done) = in_flight.next().await
                {
                    documents.end(done);
                }
                documents.begin(&document);
                let taking = take(delivery);
                in_flight.futures.push(async move {
                    taking.await;
                    document
                });
            }
            Err(error) => {
                tracing::error!(error = %error, "could not read documents; trying again");
                in_flight.poll_while(tokio::time::sleep(RETRY_DELAY)).await;
            }
        }
    }
    while in_flight.next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;

    const JOB: &str = r#"{ "version": 1 }"#;

    fn pause(id: &str) -> String {
        format!(r#"{{ "version": 1, "control": "pause", "id": "{id}" }}"#)
    }

    /// Takes documents that need half a second each. Returns when each was done, in milliseconds.
    async fn done_at(deliveries: Vec<Result<String, QueueError>>) -> Vec<u128> {
        let (begun, done, stop) = (Instant::now(), Mutex::new(Vec::new()), CancellationToken::new());
        let mut deliveries = VecDeque::from(deliveries);
        let next = async || {
            if let Some(delivery) = deliveries.pop_front() {
                return delivery;
            }
            stop.cancel();
            std::future::pending().await
        };
        let take = |_: String| async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            done.lock().push(begun.elapsed().as_millis());
        };
        take_in_order(next, |document: &String| Document::from_data(document.as_bytes()), take, &stop).await;
        done.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn documents_in_flight_are_finished_while_the_broker_fails() {
        let failed = Err(QueueError::Failed("closed the connection".into()));
        // Polled only after the pause, the job would be done a second after it began.
        assert_eq!(done_at(vec![Ok(JOB.into()), failed]).await, [500]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_control_document_waits_for_the_jobs_and_the_documents_about_its_campaign_before_it() {
        let documents =
            vec![Ok(JOB.into()), Ok(pause("c1")), Ok(pause("c2")), Ok(pause("c1")), Ok(JOB.into())];
        assert_eq!(done_at(documents).await, [500, 1_000, 1_000, 1_500, 1_500]);
    }
}
