//! Circuit breakers: they suspend campaigns together, because the provider refuses an account or blocks a Flow.
//!
//! When a breaker opens and closes is decided in `dispatch`; this is what a backend stores.

use std::time::Duration;

use jiff::Timestamp;

use super::{Clock, LedgerFuture};
use crate::campaign::Phone;

/// A circuit breaker: while it is open, it suspends the campaigns of its scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Breaker {
    /// The account.
    pub account: String,
    /// The part of the account that it suspends.
    pub scope: BreakerScope,
}

/// The part of an account that a breaker suspends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BreakerScope {
    /// The whole account.
    Account,
    /// Messages from a sender number.
    Sender(Phone),
    /// Messages with any Flow from a sender number.
    SenderFlows(Phone),
    /// Messages with a Flow.
    Flow(String),
}

impl Breaker {
    /// Returns the breaker of a whole account.
    pub fn account(account: impl Into<String>) -> Self {
        Self { account: account.into(), scope: BreakerScope::Account }
    }

    /// Returns the breaker of a Flow.
    pub fn flow(account: impl Into<String>, flow: impl Into<String>) -> Self {
        Self { account: account.into(), scope: BreakerScope::Flow(flow.into()) }
    }

    /// Returns the stored scope: `account`, `sender NUMBER`, `flows NUMBER`, or `flow ID`.
    pub fn code(&self) -> String {
        match &self.scope {
            BreakerScope::Account => "account".into(),
            BreakerScope::Sender(number) => format!("sender {}", number.digits()),
            BreakerScope::SenderFlows(number) => format!("flows {}", number.digits()),
            BreakerScope::Flow(flow) => format!("flow {flow}"),
        }
    }

    /// Reads a stored scope.
    pub fn read(account: &str, word: &str) -> Option<Self> {
        let number = |digits: &str| Phone::from_digits(digits.parse().ok()?);
        let scope = match word.split_once(' ') {
            Some(("flow", flow)) => BreakerScope::Flow(flow.to_owned()),
            Some(("sender", digits)) => BreakerScope::Sender(number(digits)?),
            Some(("flows", digits)) => BreakerScope::SenderFlows(number(digits)?),
            None if word == "account" => BreakerScope::Account,
            _ => return None,
        };
        Some(Self { account: account.into(), scope })
    }

    /// Returns whether it is probed: a Flow that `WhatsApp` blocked is not, because it must not be sent.
    pub fn probes(&self) -> bool {
        !matches!(self.scope, BreakerScope::Flow(_))
    }
}

impl std::fmt::Display for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let account = &self.account;
        match &self.scope {
            BreakerScope::Account => write!(f, "account {account}"),
            BreakerScope::Sender(number) => write!(f, "sender number {number} of account {account}"),
            BreakerScope::SenderFlows(number) => write!(f, "every flow from {number} of account {account}"),
            BreakerScope::Flow(flow) => write!(f, "flow {flow} of account {account}"),
        }
    }
}

/// An open breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBreaker {
    /// Why it is open, and what to do.
    pub reason: String,
    /// Time when it opened.
    pub since: Timestamp,
    /// Time of the next probe; `None` if it is not probed.
    pub probe_at: Option<Timestamp>,
    /// Whether a probe is due, by the ledger's clock.
    pub probe_is_due: bool,
}

/// Delay of the first probe, a single request.
pub const FIRST_PROBE: Duration = Duration::from_secs(5);
/// Maximum delay between probes; delays double up to it.
pub const LAST_PROBE: Duration = Duration::from_mins(15);

/// The breakers, shared by all workers. All writes are atomic and durable when they return.
pub trait Breakers: Clock {
    /// Opens a breaker, or changes the reason of an open one. Returns whether it was closed.
    ///
    /// With `probes` it is probed.
    fn open_breaker(&self, breaker: &Breaker, reason: String, probes: bool) -> impl LedgerFuture<bool>;

    /// Returns a breaker, if it is open.
    fn breaker(&self, breaker: &Breaker) -> impl LedgerFuture<Option<OpenBreaker>>;

    /// Takes a due probe of a breaker; the delay until the next one doubles. Only one caller gets it.
    fn half_open(&self, breaker: &Breaker) -> impl LedgerFuture<bool>;

    /// Closes a breaker. Returns whether it was open.
    fn close_breaker(&self, breaker: &Breaker) -> impl LedgerFuture<bool>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_breaker_is_read_with_any_name_of_a_flow() {
        let number = || "+912248931479".parse().unwrap();
        let others =
            [BreakerScope::Account, BreakerScope::Sender(number()), BreakerScope::SenderFlows(number())];
        let flows = ["1323", "a b  c", "", "account"].map(|flow| BreakerScope::Flow(flow.into()));
        for scope in others.into_iter().chain(flows) {
            let breaker = Breaker { account: "main".into(), scope };
            assert_eq!(Breaker::read("main", &breaker.code()), Some(breaker));
        }
        assert_eq!(Breaker::read("main", "sender x"), None);
        assert_eq!(Breaker::read("main", "other"), None);
    }
}
