//! Notices: what a provider reports about a template or a sender number, until it reports that it has cleared.
//!
//! A notice is only shown: it holds no campaign.

use jiff::Timestamp;

use super::{Clock, LedgerFuture};
use crate::campaign::notice::{KeptNotice, Notice, NoticeSubject};

/// A notice that has not cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredNotice {
    /// The notice.
    pub notice: KeptNotice,
    /// Time of its first report.
    pub since: Timestamp,
}

impl StoredNotice {
    /// Returns whether it equals a notice.
    pub(super) fn is(&self, notice: &Notice) -> bool {
        matches!(&self.notice, KeptNotice::Notice(known) if known == notice)
    }
}

/// The notices, shared by all workers. All writes are atomic and durable when they return.
pub trait Notices: Clock {
    /// Stores a notice and replaces the one of the same subject. A repeated notice keeps its time.
    fn store_notice(&self, account: &str, notice: &Notice) -> impl LedgerFuture<()>;

    /// Removes the notice of a subject, if there is one.
    fn clear_notice(&self, account: &str, about: &NoticeSubject) -> impl LedgerFuture<()>;

    /// Returns the notice of a subject, if there is one.
    fn notice(&self, account: &str, about: &NoticeSubject) -> impl LedgerFuture<Option<StoredNotice>>;
}
