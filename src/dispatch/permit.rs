//! Waits for a permit: a request needs an open window and tokens of all buckets before its messages are claimed.

use std::time::Duration;

use futures_util::future::{self, Either};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::DispatchError;
use super::sender::{LONG_WAIT, SenderContext};
use crate::campaign::{Opening, Phone, Reason};
use crate::ledger::{Ledger, LedgerError};
use crate::limiter::{Admission, LONGEST_WAIT};
use crate::queue::{Queue, QueuedBatch};

/// Longest time until a deferred batch asks again, because a limit may have been raised.
const LONGEST_DEFERRAL: Duration = Duration::from_mins(5);

/// The result of waiting for a permit.
pub(super) enum SendPermit {
    Now(OwnedSemaphorePermit),
    /// Denied for this long: the batch goes back to the queue until then.
    Later(Duration),
    /// Granted only for one message at a time: the flow is throttled.
    OneByOne,
    /// Granted only for the first of these together, then for the others: a limit leaves no more.
    Parts(Vec<u8>, Vec<u8>),
    Expired,
    Stopped,
}

impl<L: Ledger, Q: Queue> SenderContext<L, Q> {
    /// Waits for the buckets within the window.
    ///
    /// Tokens that are granted after the window closed are not used: they must not add to those of the next window.
    pub(super) async fn wait_for_permit(
        &self,
        queued: &QueuedBatch,
        set: &[u8],
    ) -> Result<SendPermit, DispatchError> {
        let is_open = || self.job.schedule.at(self.ledger.time());
        match is_open() {
            Opening::Open { .. } => {}
            Opening::Expired => return Ok(SendPermit::Expired),
            Opening::Opens(_) => {
                self.halt();
                return Ok(SendPermit::Stopped);
            }
        }
        // WhatsApp counts recipients, whatever the spelling of their number.
        let person = |index: &u8| Some(queued.batch.recipient(usize::from(*index))?.phone.person());
        let recipients: Vec<Phone> = set.iter().filter_map(person).collect();
        let admission = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(SendPermit::Stopped),
            admission = self.wait_for_buckets(&recipients) => admission?,
        };
        match (admission, is_open()) {
            (_, Opening::Expired) => Ok(SendPermit::Expired),
            (_, Opening::Opens(_)) => {
                self.halt();
                Ok(SendPermit::Stopped)
            }
            (Admission::Deferred(wait), _) => {
                let asked_again = wait.clamp(LONGEST_WAIT, LONGEST_DEFERRAL);
                {
                    // Set before the reason, so that another sender's success does not remove it.
                    let until = Instant::now() + asked_again;
                    let mut delayed_until = self.state.delayed_until.lock();
                    *delayed_until = (*delayed_until).max(Some(until));
                }
                let due = self.ledger.time() + wait;
                let throttled = self.state.throttled().map(|why| why.to_string());
                self.show_reason(Some(Reason::Limits { due: Some(due), throttled })).await?;
                Ok(SendPermit::Later(asked_again))
            }
            (Admission::OneByOne, _) => Ok(SendPermit::OneByOne),
            (Admission::Only(places), _) => {
                let first: Vec<u8> = places.iter().filter_map(|place| set.get(*place).copied()).collect();
                let rest = set.iter().copied().filter(|index| !first.contains(index)).collect();
                Ok(SendPermit::Parts(first, rest))
            }
            (Admission::Granted(place), _) => Ok(SendPermit::Now(place)),
        }
    }

    /// Waits for the buckets. The campaign's status shows a long wait.
    async fn wait_for_buckets(&self, recipients: &[Phone]) -> Result<Admission, DispatchError> {
        let taking = std::pin::pin!(self.account.limits.acquire(&self.limits, self.job.from, recipients));
        // Both are polled together: the reservation may hold a lock that writing the reason needs.
        let showing = std::pin::pin!(async {
            tokio::time::sleep(LONG_WAIT).await;
            self.show_reason(Some(Reason::Limits { due: None, throttled: None })).await
        });
        let taken = match future::select(taking, showing).await {
            Either::Left((taken, _)) => taken,
            Either::Right((shown, taking)) => {
                shown?;
                taking.await
            }
        };
        Ok(taken.map_err(LedgerError::from)?)
    }
}
