//! No body of a callback makes any provider's reader panic, and what it reads is bounded.
#![no_main]

use std::sync::LazyLock;

use flowcast::provider::{Credentials, PROVIDERS, Provider};
use libfuzzer_sys::fuzz_target;

static ALL: LazyLock<Vec<Box<dyn Provider>>> = LazyLock::new(|| {
    let credentials = || Credentials {
        account_sid: "a".into(),
        api_key: "k".to_string().into(),
        api_token: "t".to_string().into(),
        callback_fields: Default::default(),
    };
    let open = |kind: &&'static flowcast::provider::Kind| {
        (kind.open)(&kind.regions[0].1.parse().unwrap(), &credentials()).unwrap()
    };
    PROVIDERS.iter().map(open).collect()
});

fuzz_target!(|body: &[u8]| {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else { return };
    for provider in ALL.iter() {
        // A body of a MiB has room for so many reports and no more.
        assert!(provider.reports(&json).len() <= body.len());
    }
});
