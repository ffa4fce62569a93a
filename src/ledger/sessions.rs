//! Sessions of the dashboard that were ended before their time: what a copy of their cookie would open stays closed at
//! every worker. Sessions themselves are sealed cookies, and kept nowhere.

use super::{LedgerError, Store};

/// Sessions that were ended, by their digests.
pub trait Sessions: Store {
    /// Ends a session that would end by itself at `ends`, in milliseconds since 1970; until then it is remembered.
    fn end_session(&self, digest: &str, ends: i64) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Whether a session was ended.
    fn is_session_ended(&self, digest: &str) -> impl Future<Output = Result<bool, LedgerError>> + Send;
}
