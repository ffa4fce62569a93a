//! Notices: what a provider says of a template or a sender number, until it says better. They hold nothing.

use jiff::Timestamp;

use super::{LedgerError, Store};
use crate::campaign::notice::{KeptNotice, Notice, Noticed};

/// A notice that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredNotice {
    /// What the provider says.
    pub notice: KeptNotice,
    /// Since when it says so.
    pub since: Timestamp,
}

impl StoredNotice {
    /// Whether it is a notice.
    pub(super) fn is(&self, notice: &Notice) -> bool {
        matches!(&self.notice, KeptNotice::Notice(known) if known == notice)
    }
}

/// The notices of all workers. All writes are atomic and durable when they return.
pub trait Notices: Store {
    /// Stores a notice in place of the one before of the same subject. A repeated one keeps its time.
    fn store_notice(
        &self,
        account: &str,
        notice: &Notice,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Removes the notice of a subject, if there is one.
    fn clear_notice(
        &self,
        account: &str,
        about: &Noticed,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Returns the notice of a subject, if there is one.
    fn notice(
        &self,
        account: &str,
        about: &Noticed,
    ) -> impl Future<Output = Result<Option<StoredNotice>, LedgerError>> + Send;
}
