//! The suppression list in Redis: a set, and the recent changes, which workers follow.

use std::sync::LazyLock;

use roaring::RoaringTreemap;

use super::Redis;
use crate::campaign::Phone;
use crate::ledger::suppression::MAX_CHANGES;
use crate::ledger::{LedgerError, OptOut, Suppress, Suppressed, Suppression, SuppressionUpdate};
use crate::redis_client::Script;

/// Key of the numbers. It is the hash tag of the keys below, so that a script finds all of them on one node.
const NUMBERS: &str = "flowcast:suppressed";
/// Key of the number of changes.
const VERSION: &str = "{flowcast:suppressed}:version";
/// Key of the recent changes, by version.
const CHANGES: &str = "{flowcast:suppressed}:changes";
/// Key of when and by whom numbers were added.
const ADDED: &str = "{flowcast:suppressed}:added";
/// Number of numbers read with one command.
const PAGE: u64 = 10_000;

static SUPPRESS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("suppress.lua")));

impl Suppression for Redis {
    async fn suppress(
        &self,
        numbers: Vec<Phone>,
        how: Suppress,
        added: Option<OptOut>,
    ) -> Result<u64, LedgerError> {
        let keys = [NUMBERS, VERSION, CHANGES, ADDED].map(str::to_owned);
        let added = added.map(|added| added.text()).unwrap_or_default();
        let (command, sign) = match how {
            Suppress::Add => ("SADD", "+"),
            Suppress::Remove => ("SREM", "-"),
        };
        let mut changed = 0;
        // In one script: workers would miss a number that was added without a new version.
        for some in numbers.chunks(1000) {
            let digits: Vec<u64> = some.iter().map(|phone| phone.digits()).collect();
            let args = (command, sign, MAX_CHANGES, &added, digits);
            changed += self.client.run::<u64>(&SUPPRESS, &keys, args).await?;
        }
        Ok(changed)
    }

    async fn opt_outs(&self, numbers: &[Phone]) -> Result<Vec<Option<OptOut>>, LedgerError> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let digits: Vec<u64> = numbers.iter().map(|phone| phone.digits()).collect();
        let texts: Vec<Option<String>> =
            self.client.command(redis::cmd("HMGET").arg((ADDED, digits))).await?;
        Ok(texts.into_iter().map(|text| OptOut::read(&text?)).collect())
    }

    async fn suppressed(&self, known: u64) -> Result<Option<SuppressionUpdate>, LedgerError> {
        let version: Option<u64> = self.client.command(redis::cmd("GET").arg(VERSION)).await?;
        let version = version.unwrap_or_default();
        if version == known {
            return Ok(None);
        }
        if known > 0 && known < version {
            let since = (CHANGES, format!("({known}"), "+inf", "BYSCORE");
            let members: Vec<String> = self.client.command(redis::cmd("ZRANGE").arg(since)).await?;
            let changes: Option<Vec<(u64, Phone, bool)>> =
                members.iter().map(|member| read(member)).collect();
            // If the first change is missing, the log was cut since: the whole list is read.
            if let Some(changes) = changes.filter(|all| all.first().is_some_and(|(at, ..)| *at == known + 1))
            {
                let version = changes.last().map_or(version, |(at, ..)| *at);
                let changes = changes.into_iter().map(|(_, phone, is_listed)| (phone, is_listed)).collect();
                return Ok(Some(SuppressionUpdate::Since { version, changes }));
            }
        }
        let (mut numbers, mut cursor) = (RoaringTreemap::new(), 0_u64);
        loop {
            let (next, page): (u64, Vec<u64>) =
                self.client.command(redis::cmd("SSCAN").arg((NUMBERS, cursor, "COUNT", PAGE))).await?;
            numbers.extend(page);
            cursor = next;
            if cursor == 0 {
                return Ok(Some(SuppressionUpdate::Whole(Suppressed { version, numbers })));
            }
        }
    }
}

/// Reads a stored change: its version, the number, and whether the number is on the list after it.
fn read(member: &str) -> Option<(u64, Phone, bool)> {
    let (version, change) = member.split_once(' ')?;
    let is_listed = change.starts_with('+');
    let phone = Phone::from_digits(change.get(1..)?.parse().ok()?)?;
    Some((version.parse().ok()?, phone, is_listed))
}

impl Redis {
    /// Stores when numbers of a moved store's list were added, and by whom. Known entries are unchanged.
    pub(in crate::ledger) async fn keep_opt_outs(
        &self,
        added: impl Iterator<Item = (Phone, Option<OptOut>)>,
    ) -> Result<(), LedgerError> {
        let mut pipe = redis::pipe();
        for (phone, added) in added {
            if let Some(added) = added {
                pipe.cmd("HSETNX").arg(ADDED).arg(phone.digits()).arg(added.text()).ignore();
            }
        }
        if !pipe.is_empty() {
            self.client.pipeline::<()>(&pipe).await?;
        }
        Ok(())
    }
}
