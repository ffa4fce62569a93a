//! Circuit breakers: what suspends campaigns together, because their account is refused or a flow is
//! blocked.

use std::time::Duration;

use jiff::Timestamp;

use super::{LedgerError, Store};

/// What suspends campaigns together when it is open: their account, or a flow that they use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Breaker {
    /// The account.
    pub account: String,
    /// The flow, where it is not the whole account.
    pub flow: Option<String>,
}

impl Breaker {
    /// As it stands beside its account: `account`, or `flow ID`.
    pub(super) fn word(&self) -> String {
        self.flow.as_ref().map_or_else(|| "account".into(), |flow| format!("flow {flow}"))
    }

    /// The same read again.
    pub(super) fn read(account: &str, word: &str) -> Option<Self> {
        let flow = match word.split_once(' ') {
            Some(("flow", flow)) => Some(flow.to_owned()),
            None if word == "account" => None,
            _ => return None,
        };
        Some(Self { account: account.into(), flow })
    }
}

impl std::fmt::Display for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.flow {
            Some(flow) => write!(f, "flow {flow} of account {}", self.account),
            None => write!(f, "account {}", self.account),
        }
    }
}

/// Why a breaker is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBreaker {
    /// Why, and what to do.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Whether it is time to try whether it still has to be.
    pub probe_is_due: bool,
}

/// After so long an account that is held is first tried again, with one request.
pub const FIRST_PROBE: Duration = Duration::from_secs(5);
/// The waits between tries double up to this.
pub const LAST_PROBE: Duration = Duration::from_mins(15);

/// The breakers of all workers. All writes are atomic and durable when they return.
pub trait Breakers: Store {
    /// Opens a breaker, or says why one that is open still is. With `probes` it is tried again by itself.
    /// Returns whether it was closed.
    fn open_breaker(
        &self,
        breaker: &Breaker,
        reason: String,
        probes: bool,
    ) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Why a breaker is open, if it is.
    fn breaker(
        &self,
        breaker: &Breaker,
    ) -> impl Future<Output = Result<Option<OpenBreaker>, LedgerError>> + Send;

    /// Takes the turn to try whether a breaker must still be open; the next comes after twice the time.
    /// Only one caller gets it.
    fn half_open(&self, breaker: &Breaker) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Closes a breaker. Returns whether it was open.
    fn close_breaker(&self, breaker: &Breaker) -> impl Future<Output = Result<bool, LedgerError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_reads_back_whatever_a_job_calls_its_flow() {
        for flow in [None, Some("1323"), Some("a b  c"), Some(""), Some("account")] {
            let breaker = Breaker { account: "main".into(), flow: flow.map(str::to_owned) };
            assert_eq!(Breaker::read("main", &breaker.word()), Some(breaker));
        }
        assert_eq!(Breaker::read("main", "other"), None);
    }
}
