//! The names of callback keys: this worker's own, and those of other workers.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Reports, campaign_facts::CampaignFacts};
use crate::campaign::CampaignId;
use crate::dispatch::{Account, Accounts};
use crate::ledger::Ledger;

/// Interval between reports of a worker's keys, and how long the keys of others are cached.
const KEYS_REPORT_INTERVAL: Duration = Duration::from_mins(1);
const KEYS_CACHE_TIME: Duration = Duration::from_secs(5);

/// Reports the worker's keys to the ledger as long as it receives callbacks.
pub(super) async fn report_keys<L: Ledger>(
    ledger: L,
    accounts: Accounts,
    alive: Weak<Mutex<HashMap<CampaignId, CampaignFacts>>>,
) {
    let mut changes = accounts.changes();
    while alive.strong_count() > 0 {
        if let Err(error) = ledger.callback_key_names(key_names(&accounts)).await {
            tracing::debug!(%error, "could not report the names of callback keys");
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(KEYS_REPORT_INTERVAL) => {}
        }
    }
}

/// Returns the names of a worker's callback keys, each after its account's name.
fn key_names(accounts: &Accounts) -> Vec<String> {
    let of = |(name, account): &(String, Arc<Account>)| {
        let keys = account.callbacks.as_ref().map(|callbacks| callbacks.key_names()).unwrap_or_default();
        keys.into_iter().map(|key| format!("{name} {key}")).collect::<Vec<_>>()
    };
    accounts.usable().iter().flat_map(of).collect()
}

impl<L: Ledger> Reports<L> {
    /// Returns whether another worker may have the key of a URL that this worker cannot open.
    ///
    /// That happens while keys are replaced or an account is added. The provider should then repeat the callback.
    pub async fn others_may_have_key(&self) -> bool {
        let mut known = self.others_keys.lock().await;
        if let Some((asked, answer)) = *known
            && asked.elapsed() < KEYS_CACHE_TIME
        {
            return answer;
        }
        let own = key_names(&self.accounts);
        // If the ledger cannot be read, there may be such a worker.
        let all = self.ledger.callback_key_names(Vec::new()).await;
        let answer = all.map_or(true, |all| all.iter().any(|name| !own.contains(name)));
        *known = Some((Instant::now(), answer));
        answer
    }
}
