//! Dashboard sessions that were ended before they expired, so that every worker rejects copies of their cookies.
//!
//! Other sessions are not stored: they are signed cookies.

use super::{Clock, LedgerError};

/// Ended sessions, by digest.
pub trait Sessions: Clock {
    /// Ends a session, and stores that until `ends`, when it would have expired, in milliseconds since 1970.
    fn end_session(&self, digest: &str, ends: i64) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Returns whether a session was ended.
    fn is_session_ended(&self, digest: &str) -> impl Future<Output = Result<bool, LedgerError>> + Send;
}
