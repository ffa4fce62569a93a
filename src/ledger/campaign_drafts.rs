//! Drafts of campaigns in the dashboard: stored until they are submitted or discarded. Nothing is sent from them.
//!
//! `batch_machine.rs` is something else: the state machine of a batch.

use super::{Clock, LedgerFuture};

/// Maximum number of drafts.
pub const MOST_DRAFTS: usize = 200;
/// Maximum size of a draft, in bytes.
pub const LARGEST_DRAFT: usize = 64 << 10;

/// The drafts of all users. Only the dashboard interprets their content.
pub trait CampaignDrafts: Clock {
    /// Returns all drafts: name and content, in no order.
    fn drafts(&self) -> impl LedgerFuture<Vec<(String, String)>>;

    /// Returns the names of all drafts.
    fn draft_names(&self) -> impl LedgerFuture<Vec<String>>;

    /// Returns a draft, if it exists.
    fn draft(&self, name: &str) -> impl LedgerFuture<Option<String>>;

    /// Stores a draft and replaces the one with the same name.
    fn keep_draft(&self, name: &str, draft: String) -> impl LedgerFuture<()>;

    /// Removes a draft.
    fn remove_draft(&self, name: &str) -> impl LedgerFuture<()>;
}
