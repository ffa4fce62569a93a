//! Breakers in Redis: a hash for each, by the server's clock.

use std::sync::LazyLock;

use super::{Redis, layout::breaker_key};
use crate::ledger::{Breaker, Breakers, FIRST_PROBE, LAST_PROBE, LedgerError, OpenBreaker};
use crate::redis_client::Script;

static OPEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("open_breaker.lua")));
static READ: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("breaker.lua")));
static HALF_OPEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("half_open.lua")));

impl Breakers for Redis {
    async fn open_breaker(
        &self,
        breaker: &Breaker,
        reason: String,
        probes: bool,
    ) -> Result<bool, LedgerError> {
        let wait = if probes { FIRST_PROBE.as_micros() as u64 } else { 0 };
        Ok(self.client.run::<u64>(&OPEN, &[breaker_key(breaker)], (reason, wait)).await? == 1)
    }

    async fn breaker(&self, breaker: &Breaker) -> Result<Option<OpenBreaker>, LedgerError> {
        let known: Vec<String> = self.client.run_packed(&READ, &[breaker_key(breaker)], &[]).await?;
        let [reason, since, due, probe_at] = &known[..] else { return Ok(None) };
        let time = |text: &str| jiff::Timestamp::from_millisecond(text.parse().ok()?).ok();
        let (reason, since) = (reason.clone(), time(since).unwrap_or_default());
        let probe_at = time(probe_at).filter(|at| at.as_millisecond() > 0);
        Ok(Some(OpenBreaker { reason, since, probe_at, probe_is_due: due == "1" }))
    }

    async fn half_open(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        let longest = LAST_PROBE.as_micros() as u64;
        Ok(self.client.run::<u64>(&HALF_OPEN, &[breaker_key(breaker)], longest).await? == 1)
    }

    async fn close_breaker(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        Ok(self.client.command::<u64>(redis::cmd("DEL").arg(breaker_key(breaker))).await? == 1)
    }
}
