//! What holds campaigns together, as ledgers keep it.

use std::time::Duration;

use jiff::Timestamp;

/// What holds campaigns together: their account, or a flow that they use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The account.
    pub account: String,
    /// The flow, where it is not the whole account.
    pub flow: Option<String>,
}

impl Barrier {
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

impl std::fmt::Display for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.flow {
            Some(flow) => write!(f, "flow {flow} of account {}", self.account),
            None => write!(f, "account {}", self.account),
        }
    }
}

/// Why a barrier is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_reads_back_whatever_a_job_calls_its_flow() {
        for flow in [None, Some("1323"), Some("a b  c"), Some(""), Some("account")] {
            let barrier = Barrier { account: "main".into(), flow: flow.map(str::to_owned) };
            assert_eq!(Barrier::read("main", &barrier.word()), Some(barrier));
        }
        assert_eq!(Barrier::read("main", "other"), None);
    }
}
