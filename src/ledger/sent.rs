//! An index of recent messages by recipient: it finds the message of a reply that quotes none.
//!
//! An entry is written concurrently with the request and before its response is recorded, so that no request waits for
//! it and it exists before a recipient can reply. Nothing is written for an account that does not match replies. The
//! index proves nothing: the caller reads the records of the messages that it returns.

use std::time::Duration;

use super::{LedgerFuture, Reporting};
use crate::campaign::{CampaignId, MessageRef, Phone};

/// Recent messages, by account and number.
///
/// An entry is found for `within` after it was written, and deleted soon after that. A campaign has one entry per number.
pub trait SentMessages: Reporting {
    /// Writes entries for messages of a batch that are sent now: recipient and position.
    fn note_sent(
        &self,
        account: &str,
        within: Duration,
        campaign: &CampaignId,
        batch: u32,
        messages: &[(Phone, u8)],
    ) -> impl LedgerFuture<()>;

    /// Returns the recent messages to a number, in no order.
    fn sent_to(&self, account: &str, within: Duration, phone: Phone) -> impl LedgerFuture<Vec<MessageRef>>;
}
