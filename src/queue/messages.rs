//! Other messages than batches: postponed jobs, dead letters and reports to forward.

use crate::campaign::CampaignId;

/// The data of a postponed job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// The time at which it was first postponed, in milliseconds since 1970.
    pub since: i64,
    /// The id under which a job without an id is registered, so that a duplicate does not become a second campaign.
    pub id: CampaignId,
}

/// A job in the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The body of the job.
    pub data: Vec<u8>,
    /// The reason why it was refused.
    pub error: String,
    /// The JSON pointer to the place in the job.
    pub pointer: String,
}

impl DeadLetter {
    /// Returns a name that is derived from its content, because its position in the queue changes.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.error.as_bytes()).update(b"\n").update(&self.data);
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// An action on dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterAction {
    /// Moves them to the queue of jobs.
    Requeue,
    /// Deletes them.
    Discard,
}

/// A report to forward.
#[derive(Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The id, which is the same at each attempt.
    pub id: String,
    /// The URL of the receiver.
    pub url: String,
    /// The body, as the provider sent it.
    pub body: Vec<u8>,
    /// The number of attempts so far.
    pub tries: u32,
}
