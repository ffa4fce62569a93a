//! A change of a batch: what a backend writes together with the record, all of it or nothing.
//!
//! `batch_machine.rs` makes changes. This file decides nothing and stores nothing.

use std::collections::BTreeMap;

use super::record::BatchRecord;
use crate::campaign::MessageState;

/// A counter of a campaign: its kind, and its code. The counters of states have no code.
pub(super) type Counter = (&'static str, String);

/// A change of a batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// Revision of the record that the change was made from.
    pub(super) known: u32,
    /// The new record; `None` if it is unchanged.
    pub(super) record: Option<BatchRecord>,
    /// Changes of the campaign's counters.
    pub(super) counters: BTreeMap<Counter, i64>,
    /// New outcomes by position, each position once: state and code; `None` if the message has no outcome any more.
    pub(super) outcomes: Vec<(u8, Option<(MessageState, String)>)>,
    /// Whether no message of the batch had an outcome before, and all numbers are distinct.
    pub(super) are_first: bool,
    /// Texts, by kind and code; a campaign stores each once.
    pub(super) texts: BTreeMap<Counter, String>,
    /// Values to store, or with `None` to delete, by position.
    pub(super) payloads: BTreeMap<u8, Option<String>>,
    /// Tokens of the claims that hold messages from now on.
    pub(super) claimed: Vec<u64>,
    /// Tokens of the claims that hold no messages any more.
    pub(super) released: Vec<u64>,
    /// Whether the batch has open messages, if that changes.
    pub(super) open: Option<bool>,
    /// Whether the batch has rejected messages or messages in doubt, if that changes.
    pub(super) failed: Option<bool>,
    /// Whether the batch must be requeued, if that changes.
    pub(super) replay: Option<bool>,
    /// Whether a late result of its claim makes a settled message pending again: its campaign must not have ended,
    /// because no worker would send the message.
    pub(super) reopens: bool,
    /// The provider's id of the last request of the batch that it answered.
    pub(super) request: Option<String>,
    /// Number of messages settled, for the rate.
    pub(super) settled: u64,
    /// Delivery progress of the messages: as it was read, and as it is now.
    pub(super) deliveries: Option<(Vec<u8>, Vec<u8>)>,
    /// Replies of recipients: key and JSON.
    pub(super) responses: Vec<(String, String)>,
}

impl Change {
    /// Returns whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.record.is_none() && self.deliveries.is_none() && self.responses.is_empty()
    }
}
