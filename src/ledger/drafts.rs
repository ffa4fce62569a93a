//! Campaigns that somebody still works on: kept until they are sent or thrown away. Nothing is sent from
//! them. `draft.rs` is something else: it judges batches.

use super::{LedgerError, Store};

/// The most drafts that are kept.
pub const MOST_DRAFTS: usize = 200;
/// The largest draft, in bytes.
pub const LARGEST_DRAFT: usize = 64 << 10;

/// The drafts of all people. What is in one is for the pages alone to know.
pub trait CampaignDrafts: Store {
    /// All drafts, by their names, in no order.
    fn drafts(&self) -> impl Future<Output = Result<Vec<(String, String)>, LedgerError>> + Send;

    /// The names of all drafts, without what is in them.
    fn draft_names(&self) -> impl Future<Output = Result<Vec<String>, LedgerError>> + Send;

    /// A draft.
    fn draft(&self, name: &str) -> impl Future<Output = Result<Option<String>, LedgerError>> + Send;

    /// Keeps a draft in place of the one of its name.
    fn keep_draft(&self, name: &str, draft: String) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Forgets a draft.
    fn remove_draft(&self, name: &str) -> impl Future<Output = Result<(), LedgerError>> + Send;
}
