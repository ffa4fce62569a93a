//! What a person decides about messages: retry, resend, give up, cancel.
//!
//! A decision changes records only; what is to be sent again goes to the queue by `replays.rs`.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::batches::WINDOW;
use super::draft::Draft;
use super::{Batches, LedgerError, Listed, Swap, Swapped};
use crate::campaign::CampaignId;
use crate::campaign::codes::is_unsent;

/// Which messages a person decides about, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Rejected ones are sent again; with codes, those with one of them, and those that a report failed with one that
    /// says they were not sent on ([`codes::is_unsent`](crate::campaign::codes::is_unsent)).
    Retry(Vec<String>),
    /// Those in doubt are sent again.
    Resend {
        /// Since this time at the latest, in milliseconds since 1970: nobody has seen a doubt that came up later.
        until: i64,
    },
    /// Those in doubt count as rejected, under [`ABANDONED`].
    Abandon {
        /// Since this time at the latest, in milliseconds since 1970.
        until: i64,
    },
    /// Pending ones are skipped, because the campaign was cancelled.
    Cancel,
    /// Pending ones are skipped, because the campaign's `expires_at` has passed while nothing of it was sent.
    Expire,
    /// Pending ones are in doubt, because the ledger came back older than it was.
    Doubt,
}

impl Decision {
    /// Whether it is also about messages that the provider took and a report failed.
    fn is_of_unsent(&self) -> bool {
        matches!(self, Self::Retry(codes) if codes.iter().any(|code| is_unsent(code)))
    }
}

/// Does what a person decided; returns for how many messages. Those that are to be sent again
/// are pending then, and their batches among [`replays::due`](super::replays::due).
pub async fn decide<L: Batches>(ledger: &L, id: &CampaignId, decision: Decision) -> Result<u64, LedgerError> {
    let listed = match decision {
        Decision::Cancel | Decision::Expire | Decision::Doubt => Listed::Open,
        _ if decision.is_of_unsent() => Listed::All,
        _ => Listed::Failed,
    };
    let batches = ledger.listed(id, listed).await?;
    let decide = batches.into_iter().map(|number| decide_batch(ledger, id, number, &decision));
    let window = stream::iter(decide).buffer_unordered(WINDOW);
    window.try_fold(0, |sum, done| async move { Ok(sum + done) }).await
}

/// Does what a person decided for one batch, again as often as somebody else was quicker.
async fn decide_batch(
    ledger: &impl Batches,
    id: &CampaignId,
    number: u32,
    decision: &Decision,
) -> Result<u64, LedgerError> {
    loop {
        let Some(stored) = ledger.load(id, &[number]).await?.pop().flatten() else { return Ok(0) };
        let known =
            if decision.is_of_unsent() { ledger.deliveries(id, &[number]).await?.pop() } else { None };
        let mut draft = Draft::new(&stored.batch, stored.record, ledger.now());
        let decided = draft.decide(decision) + draft.retry_unsent(decision, &known.unwrap_or_default());
        let change = draft.finish();
        let swap = Swap { batch: &stored.batch, purpose: None, change: &change };
        if change.is_empty() || matches!(ledger.swap_batch(swap).await?, Swapped::Done { .. }) {
            return Ok(decided);
        }
    }
}
