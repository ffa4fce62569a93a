//! A small registered campaign for unit tests of the engine.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{Account, LoadedJob, prepare, register};
use crate::audience::Audiences;
use crate::campaign::{CampaignId, Job};
use crate::ledger::{Access, Sqlite, UnmovedStore};
use crate::limiter::{AccountLimits, Concurrency, Rates};
use crate::provider::{Credentials, PROVIDERS, Transport};

/// A registered campaign with its dependencies.
pub(super) struct Registered {
    pub(super) ledger: Sqlite,
    pub(super) id: CampaignId,
    pub(super) account: Arc<Account>,
    pub(super) prepared: Arc<LoadedJob>,
    _folder: tempfile::TempDir,
}

/// Returns the account `main`, whose provider is unreachable.
fn account() -> Arc<Account> {
    let url = "http://127.0.0.1:1".parse().unwrap();
    let credentials = Credentials {
        account_sid: "a".into(),
        api_key: "k".into(),
        api_token: "t".into(),
        ..Credentials::default()
    };
    let provider = (PROVIDERS[0].open)(&url, &credentials).unwrap();
    let transport = Transport::new(Duration::from_secs(1), false).unwrap();
    let limits = AccountLimits::new(Rates::default(), Concurrency::fixed(1));
    Arc::new(Account::new(PROVIDERS[0], provider, transport, limits, None))
}

/// Returns a prepared job whose message needs the column `name`, if its audience has one.
pub(super) fn prepared(audience: &Value) -> Arc<LoadedJob> {
    let body = if audience.to_string().contains("\"name\"") { "Hello {{ name }}" } else { "x" };
    let job = json!({
        "version": 1, "id": "c1", "account": "main", "from": "+912248931479",
        "audience": audience,
        "message": { "type": "text", "text": { "body": body } },
    });
    let job = Job::read(job.to_string().as_bytes()).unwrap();
    Arc::new(prepare(job, &Audiences::default(), &account()).unwrap())
}

/// Registers a campaign of two recipients and the account `main` in a store of its own.
pub(super) async fn registered() -> Registered {
    let prepared =
        prepared(&json!({ "recipients": [{ "phone": "+919876543210" }, { "phone": "+919876543211" }] }));
    let folder = tempfile::tempdir().unwrap();
    let ledger = Sqlite::open(&folder.path().join("flowcast.db"), Access::Send).unwrap();
    let id =
        register(&ledger, &prepared, false, false, "a test", &UnmovedStore::default()).await.unwrap().0.id;
    Registered { ledger, id, account: account(), prepared, _folder: folder }
}
