//! To whom messages went lately: an answer that names no message finds its own by its number.
//!
//! It is noted beside the request and before its answer is recorded, so that nobody waits for it and whoever can
//! answer is known. Where an account wants no answers found, nothing is noted. It is an index and proves nothing:
//! what it names is looked up in the records.

use std::time::Duration;

use super::{LedgerError, Reporting};
use crate::campaign::{CampaignId, MessageRef, Phone};

/// The messages of late, by account and number. Each is known for `within` after it was noted, and is forgotten
/// soon after that; a campaign's only message to a number is known once.
pub trait SentMessages: Reporting {
    /// Notes to whom messages of a batch are sent now, each with its place in it.
    fn note_sent(
        &self,
        account: &str,
        within: Duration,
        campaign: &CampaignId,
        batch: u32,
        messages: &[(Phone, u8)],
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// The messages to a number that were noted lately, in no order.
    fn sent_to(
        &self,
        account: &str,
        within: Duration,
        phone: Phone,
    ) -> impl Future<Output = Result<Vec<MessageRef>, LedgerError>> + Send;
}
