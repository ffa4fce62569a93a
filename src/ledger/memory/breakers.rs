//! Breakers in memory.

use jiff::Timestamp;

use super::Memory;
use crate::ledger::{Breaker, Breakers, Clock, FIRST_PROBE, LAST_PROBE, LedgerError, OpenBreaker};

/// An open breaker. Times are milliseconds since 1970.
pub(super) struct Open {
    reason: String,
    since: i64,
    probe_at: Option<i64>,
    /// Delay of the probe after the next one, in milliseconds.
    wait: i64,
}

impl Breakers for Memory {
    async fn open_breaker(
        &self,
        breaker: &Breaker,
        reason: String,
        probes: bool,
    ) -> Result<bool, LedgerError> {
        let (now, wait) = (self.now(), FIRST_PROBE.as_millis() as i64);
        let mut state = self.state.lock();
        let key = (breaker.account.clone(), breaker.code());
        if let Some(open) = state.breakers.get_mut(&key) {
            open.reason = reason;
            return Ok(false);
        }
        let open = Open { reason, since: now, probe_at: probes.then(|| now + wait), wait: wait * 2 };
        state.breakers.insert(key, open);
        Ok(true)
    }

    async fn breaker(&self, breaker: &Breaker) -> Result<Option<OpenBreaker>, LedgerError> {
        let now = self.now();
        let open = |open: &Open| OpenBreaker {
            reason: open.reason.clone(),
            since: Timestamp::from_millisecond(open.since).unwrap_or_default(),
            probe_at: open.probe_at.and_then(|at| Timestamp::from_millisecond(at).ok()),
            probe_is_due: open.probe_at.is_some_and(|at| at <= now),
        };
        Ok(self.state.lock().breakers.get(&(breaker.account.clone(), breaker.code())).map(open))
    }

    async fn half_open(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        let now = self.now();
        let mut state = self.state.lock();
        let open = state.breakers.get_mut(&(breaker.account.clone(), breaker.code()));
        let Some(open) = open.filter(|open| open.probe_at.is_some_and(|at| at <= now)) else {
            return Ok(false);
        };
        open.probe_at = Some(now + open.wait);
        open.wait = (open.wait * 2).min(LAST_PROBE.as_millis() as i64);
        Ok(true)
    }

    async fn close_breaker(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        Ok(self.state.lock().breakers.remove(&(breaker.account.clone(), breaker.code())).is_some())
    }
}
