//! Applies changes of the configuration while a worker or `run` is active: accounts with their limits, callback keys and
//! tokens. For every other setting it logs that a restart is needed. Invalid settings change nothing.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::open::{self, Destination};
use super::{Failure, callback_endpoint::CallbackEndpoint};
use crate::config::{Config, Settings};
use crate::dispatch::{Account, Accounts, OpenAccount};
use crate::http;
use crate::ledger::AnyLedger;

/// Interval between reads of the configuration and its secret files. A change counts when it is read twice, because a
/// file may be incomplete while it is written.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Name prefixes of the settings that are applied without a restart.
const RELOADED_PREFIXES: [&str; 4] = ["accounts.", "callbacks.keys", "http.public_url", "http.tokens"];

/// Accounts that were removed, by name.
type RemovedAccounts = BTreeMap<String, Arc<Account>>;

/// Follows the configuration of a process.
pub(super) struct Reloading {
    /// Configuration file, if there is one.
    pub(super) file: Option<PathBuf>,
    /// Accounts to update.
    pub(super) accounts: Accounts,
    /// Name of the only account in use, for `run`.
    pub(super) only: Option<String>,
    /// Destination of requests.
    pub(super) destination: Destination,
    /// Ledger, which has the recipients of earlier processes and may keep the callback key.
    pub(super) ledger: AnyLedger,
    /// HTTP side of a worker; `None` for `run`.
    pub(super) http: Option<HttpSide>,
}

/// The settings of a worker's HTTP side that follow the configuration.
pub(super) struct HttpSide {
    /// Users of the API and the dashboard.
    pub(super) access: http::Access,
    /// Public URL for callbacks if the configuration has none.
    pub(super) public_url: Option<Url>,
}

impl Reloading {
    /// Follows the configuration until it is stopped. The task holds the ledger open until it ends.
    pub(super) fn start(self, config: &Config, stop: CancellationToken) -> JoinHandle<()> {
        let mut known = config.settings();
        tokio::spawn(async move {
            let (mut read_before, mut said) = (Ok(known.clone()), Vec::new());
            let mut removed = BTreeMap::new();
            while stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
                let loaded = Config::load(self.file.as_deref()).map_err(|error| error.to_string());
                let read = loaded.as_ref().map(Config::settings).map_err(Clone::clone);
                if read != std::mem::replace(&mut read_before, read.clone()) {
                    continue;
                }
                let errors = match loaded {
                    Ok(config) => {
                        let now = config.settings();
                        log_needed_restart(&known, &now);
                        known = now;
                        self.apply(&config, &mut removed).await
                    }
                    Err(error) => vec![error],
                };
                // Each error is logged once.
                for error in errors.iter().filter(|error| !said.contains(*error)) {
                    tracing::error!(%error, "the changed configuration is invalid; the previous one stays in effect");
                }
                said = errors;
            }
        })
    }

    /// Applies the settings that are followed; returns the errors of invalid ones.
    async fn apply(&self, config: &Config, removed: &mut RemovedAccounts) -> Vec<String> {
        let mut errors = Vec::new();
        if let Some(http) = &self.http {
            match open::tokens(config) {
                Ok(tokens) => {
                    if http.access.replace(tokens) {
                        tracing::info!("tokens changed");
                    }
                }
                Err(failure) => errors.push(failure.to_string()),
            }
        }
        match self.endpoint(config).await {
            Ok(endpoint) => self.apply_accounts(config, endpoint.as_ref(), removed, &mut errors).await,
            // An unavailable ledger is logged elsewhere.
            Err(Failure::Outside(_)) => {}
            Err(failure) => errors.push(failure.to_string()),
        }
        errors
    }

    /// Returns the current callback URLs.
    async fn endpoint(&self, config: &Config) -> Result<Option<CallbackEndpoint>, Failure> {
        let Some(http) = &self.http else { return Ok(None) };
        let public_url = config.http.public_url.as_ref().or(http.public_url.as_ref());
        CallbackEndpoint::open(config, public_url, &self.ledger).await
    }

    async fn apply_accounts(
        &self,
        config: &Config,
        endpoint: Option<&CallbackEndpoint>,
        removed: &mut RemovedAccounts,
        errors: &mut Vec<String>,
    ) {
        let before = self.accounts.all();
        let mut now = BTreeMap::<String, OpenAccount>::new();
        let mut has_changed = false;
        let names = self.only.clone().map_or_else(|| self.destination.names(config), |name| vec![name]);
        for name in names {
            let known = before.get(&name).and_then(|known| known.as_ref().ok());
            // An account that returns keeps its limits.
            let earlier = known.or_else(|| removed.get(&name));
            let opened = match self.destination.open(config, &name, endpoint, earlier) {
                Ok(opened) => self.limit(config, &name, &opened, earlier.is_none()).await.map(|()| opened),
                Err(failure) => Err(failure),
            };
            let taken = match (opened, known) {
                (Ok(opened), Some(known)) if Arc::ptr_eq(&opened, known) => Ok(opened),
                (Ok(opened), _) => {
                    let how = match before.get(&name) {
                        None => "added",
                        Some(Ok(_)) => "changed",
                        Some(Err(_)) => "usable again",
                    };
                    tracing::info!(account = name, "account {how}");
                    has_changed = true;
                    Ok(opened)
                }
                (Err(failure), known) => {
                    let error = failure.to_string();
                    errors.push(error.clone());
                    has_changed |= !before.contains_key(&name);
                    known.cloned().ok_or(error)
                }
            };
            now.insert(name, taken);
        }
        for name in before.keys().filter(|name| !now.contains_key(*name)) {
            tracing::warn!(account = name, "account removed; its campaigns wait");
            removed.extend(before[name].as_ref().ok().map(|account| (name.clone(), account.clone())));
            has_changed = true;
        }
        if has_changed {
            self.accounts.replace(now);
            http::count_from_zero(&self.accounts);
        }
    }

    /// Sets the limits of an account, which it shares with its earlier version.
    async fn limit(
        &self,
        config: &Config,
        name: &str,
        account: &Account,
        is_new: bool,
    ) -> Result<(), Failure> {
        let (limits, rates) = (&account.limits, open::rates(config.accounts.get(name)));
        let before = limits.rates();
        if rates != before {
            tracing::info!(account = name, limits = %rates, before = %before, "limits changed");
        }
        if rates.recipients.is_some() && (is_new || before.recipients.is_none()) {
            open::remember_recipients(&self.ledger, name, account, rates).await?;
        }
        limits.set_rates(rates);
        Ok(())
    }
}

/// Logs changed settings that need a restart.
fn log_needed_restart(before: &Settings, now: &Settings) {
    let waits = |name: &&str| !RELOADED_PREFIXES.iter().any(|followed| name.starts_with(followed));
    let names: Vec<&str> = before.changed(now).filter(waits).collect();
    if !names.is_empty() {
        tracing::warn!("settings changed that need a restart: {}", names.join(", "));
    }
}
