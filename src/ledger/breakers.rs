//! Circuit breakers: what suspends campaigns together, because their account is refused or a flow is
//! blocked.

use std::time::Duration;

use jiff::Timestamp;

use super::{LedgerError, Store};
use crate::campaign::Phone;

/// What suspends campaigns together when it is open.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Breaker {
    /// The account.
    pub account: String,
    /// How much of it.
    pub scope: BreakerScope,
}

/// How much of an account a breaker suspends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BreakerScope {
    /// All of it.
    Account,
    /// What is sent from a number of it.
    Sender(Phone),
    /// What sends flows, whichever, from a number of it.
    SenderFlows(Phone),
    /// What uses a flow.
    Flow(String),
}

impl Breaker {
    /// The breaker of a whole account.
    pub fn account(account: impl Into<String>) -> Self {
        Self { account: account.into(), scope: BreakerScope::Account }
    }

    /// That of a flow.
    pub fn flow(account: impl Into<String>, flow: impl Into<String>) -> Self {
        Self { account: account.into(), scope: BreakerScope::Flow(flow.into()) }
    }

    /// As it stands beside its account: `account`, `sender NUMBER`, `flows NUMBER`, or `flow ID`.
    pub fn word(&self) -> String {
        match &self.scope {
            BreakerScope::Account => "account".into(),
            BreakerScope::Sender(number) => format!("sender {}", number.digits()),
            BreakerScope::SenderFlows(number) => format!("flows {}", number.digits()),
            BreakerScope::Flow(flow) => format!("flow {flow}"),
        }
    }

    /// The same read again.
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

    /// Whether it is tried again by itself: a flow that `WhatsApp` has blocked is not, because it must not be sent.
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

/// Why a breaker is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBreaker {
    /// Why, and what to do.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When it is next tried whether it still has to be; `None` for one that is not tried again by itself.
    pub probe_at: Option<Timestamp>,
    /// Whether that time has come, by the ledger's clock.
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
        let number = || "+912248931479".parse().unwrap();
        let others =
            [BreakerScope::Account, BreakerScope::Sender(number()), BreakerScope::SenderFlows(number())];
        let flows = ["1323", "a b  c", "", "account"].map(|flow| BreakerScope::Flow(flow.into()));
        for scope in others.into_iter().chain(flows) {
            let breaker = Breaker { account: "main".into(), scope };
            assert_eq!(Breaker::read("main", &breaker.word()), Some(breaker));
        }
        assert_eq!(Breaker::read("main", "sender x"), None);
        assert_eq!(Breaker::read("main", "other"), None);
    }
}
