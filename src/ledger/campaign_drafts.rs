//! Drafts of campaigns in the dashboard: stored until they are submitted or discarded. Nothing is sent from them.
//!
//! `batch_machine.rs` is something else: the state machine of a batch.

use super::{Clock, LedgerError};

/// Maximum number of drafts.
pub const MOST_DRAFTS: usize = 200;
/// Maximum size of a draft, in bytes.
pub const LARGEST_DRAFT: usize = 64 << 10;

/// The drafts of all users. Only the dashboard interprets their content.
pub trait CampaignDrafts: Clock {
    /// Returns all drafts: name and content, in no order.
    fn drafts(&self) -> impl Future<Output = Result<Vec<(String, String)>, LedgerError>> + Send;

    /// Returns the names of all drafts.
    fn draft_names(&self) -> impl Future<Output = Result<Vec<String>, LedgerError>> + Send;

    /// Returns a draft, if it exists.
    fn draft(&self, name: &str) -> impl Future<Output = Result<Option<String>, LedgerError>> + Send;

    /// Stores a draft and replaces the one with the same name.
    fn keep_draft(&self, name: &str, draft: String) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Removes a draft.
    fn remove_draft(&self, name: &str) -> impl Future<Output = Result<(), LedgerError>> + Send;
}
