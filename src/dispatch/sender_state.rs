//! The part of the senders' state that changes while they send.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::DispatchError;
use crate::campaign::Reason;

/// How long an accepted message shows that the provider works: longer than all attempts of another one take.
const RECENT: Duration = Duration::from_mins(1);
/// How long the status shows that a flow was throttled.
const THROTTLED_SHOWN: Duration = Duration::from_hours(24);

/// The state that changes while a campaign is sent.
#[derive(Default)]
pub(super) struct SenderState {
    /// Whether the whole audience is planned: then any outcome may complete the campaign.
    pub(super) planned: AtomicBool,
    /// Size of the longest request body so far, in bytes: the capacity of the next one.
    pub(super) body_bytes: AtomicUsize,
    /// Number of requests in a row whose outcome is unknown.
    pub(super) doubts: AtomicU32,
    /// When the provider last accepted a message of the campaign.
    taken_at: Mutex<Option<Instant>>,
    /// The reason that was last written to the campaign's status.
    pub(super) shown: Mutex<Option<Reason>>,
    /// Until when a limit defers a batch, which the status shows.
    pub(super) delayed_until: Mutex<Option<Instant>>,
    /// When the provider throttled the flow, and the reason.
    pub(super) throttled: Mutex<Option<(Instant, Reason)>>,
    /// Number of recorded responses.
    pub(super) answers: AtomicU64,
    /// Number of recorded responses when the counts were last judged. Locked during the judgement.
    pub(super) judged: tokio::sync::Mutex<u64>,
    /// The error that stopped a sender.
    pub(super) broken: Mutex<Option<DispatchError>>,
}

impl SenderState {
    /// Records that the provider accepted a message.
    pub(super) fn note_accepted(&self) {
        *self.taken_at.lock() = Some(Instant::now());
    }

    /// Returns whether the provider recently accepted a message of the campaign.
    pub(super) fn has_recent_success(&self) -> bool {
        let taken_at = *self.taken_at.lock();
        taken_at.is_some_and(|at| at.elapsed() < RECENT)
    }

    /// Returns the reason if the flow was throttled within [`THROTTLED_SHOWN`].
    pub(super) fn throttled(&self) -> Option<Reason> {
        let throttled = self.throttled.lock().clone();
        throttled.filter(|(at, _)| at.elapsed() < THROTTLED_SHOWN).map(|(_, why)| why)
    }
}
