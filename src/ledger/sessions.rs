//! Dashboard sessions that were ended before they expired, so that every worker rejects copies of their cookies.
//!
//! Other sessions are not stored: they are signed cookies.

use super::{Clock, LedgerFuture};

/// Ended sessions, by digest.
pub trait Sessions: Clock {
    /// Ends a session, and stores that until `ends`, when it would have expired, in milliseconds since 1970.
    fn end_session(&self, digest: &str, ends: i64) -> impl LedgerFuture<()>;

    /// Returns whether a session was ended.
    fn is_session_ended(&self, digest: &str) -> impl LedgerFuture<bool>;
}
