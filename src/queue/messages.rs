//! Other messages than batches: postponed jobs, dead letters and reports to forward.

use crate::campaign::CampaignId;

/// Data of a postponed job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// Time at which it was first postponed, in milliseconds since 1970.
    pub since: i64,
    /// Id under which a job without an id is registered, so that a duplicate becomes no second campaign.
    pub id: CampaignId,
}

/// Job in the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Body of the job.
    pub data: Vec<u8>,
    /// Reason why it was refused.
    pub error: String,
    /// JSON pointer to the place in the job.
    pub pointer: String,
}

impl DeadLetter {
    /// Returns a name from its content, because its position in the queue changes.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.error.as_bytes()).update(b"\n").update(&self.data);
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// Action on dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterAction {
    /// Move to the queue of jobs.
    Requeue,
    /// Delete.
    Discard,
}

/// Report to forward.
#[derive(Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// Id, the same at each attempt.
    pub id: String,
    /// URL of the receiver.
    pub url: String,
    /// Body, as the provider sent it.
    pub body: Vec<u8>,
    /// Attempts so far.
    pub tries: u32,
}
