//! Sorts documents as they arrive: pauses and cancellations are taken at once, other documents are queued behind those that wait.
//!
//! A document that stops messages never waits for one that takes long.

use futures_util::{FutureExt, future, stream::FuturesUnordered};

use super::jobs::{CONCURRENCY, Intake, RETRY_DELAY, take_or_log};
use super::{in_flight::InFlight, sender::until_given_up};
use crate::campaign::control::Control;
use crate::ledger::Ledger;

/// Maximum number and total size, in bytes, of documents that are sorted together.
const SORTED_AT_ONCE: u16 = 32;
const SORTED_BYTES: usize = 32 << 20;
/// Size limit of a control document, in bytes.
const LONGEST_CONTROL: usize = 256 << 10;

/// How a document is taken.
enum Arrival {
    /// At once: a pause or a cancellation of a known campaign.
    Urgent,
    /// At once: a job without an id, because a copy of it in another queue could become a second campaign.
    Nameless,
    /// In order.
    Other,
}

impl Arrival {
    async fn from_delivery(ledger: &impl Ledger, data: &[u8]) -> Self {
        /// The only fields that are kept of a long document.
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
            // A document about an unknown campaign waits for the jobs before it.
            Some(Ok(control)) if control.action.is_urgent() => match ledger.campaign(&control.id).await {
                Ok(Some(_)) => Self::Urgent,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// Sorts documents until it is stopped, and takes the urgent ones. The others are queued in their order.
pub(super) async fn sort<L: Ledger>(intake: &Intake<'_, L>) {
    let Intake { ledger, broker, stop, .. } = *intake;
    let mut arrivals = broker.arrivals(SORTED_AT_ONCE);
    let mut nameless = InFlight::new(FuturesUnordered::new());
    let mut last = 0;
    loop {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(()) = nameless.next() => continue,
            next = arrivals.next(), if nameless.len() < usize::from(CONCURRENCY) => next,
        };
        let (mut urgent, mut others) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(arrival) = next.take() {
            let mut arrival = match arrival {
                Ok(arrival) => arrival,
                Err(error) => {
                    tracing::error!(error = %error, "could not read documents; trying again");
                    nameless.poll_while(tokio::time::sleep(RETRY_DELAY)).await;
                    break;
                }
            };
            // Increases with every document, also within a millisecond.
            last = (ledger.now() * 1_000).max(last + 1);
            arrival.read_at = Some(last);
            match nameless.poll_while(Arrival::from_delivery(ledger, &arrival.data)).await {
                _ if arrival.is_malformed() => urgent.push(arrival),
                Arrival::Urgent => urgent.push(arrival),
                Arrival::Nameless => {
                    nameless.futures.push(take_or_log(intake, arrival));
                }
                Arrival::Other => others.push(arrival),
            }
            let bytes: usize = others.iter().map(|other| other.data.len()).sum();
            let is_full = urgent.len() + others.len() >= usize::from(SORTED_AT_ONCE)
                || nameless.len() >= usize::from(CONCURRENCY)
                || bytes > SORTED_BYTES;
            if !is_full {
                next = arrivals.next().now_or_never();
            }
        }
        let urgent = urgent.into_iter().map(|one| take_or_log(intake, one));
        let queueing = until_given_up(stop, async {
            if let Err(error) = broker.let_wait(others).await {
                tracing::error!(error = %error, "could not queue documents; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        });
        nameless.poll_while(future::join(queueing, future::join_all(urgent))).await;
    }
    while nameless.next().await.is_some() {}
}
