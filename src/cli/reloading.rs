//! Takes over what changes in the configuration while a worker or a `run` is at work: accounts with their limits, the keys
//! of callbacks, tokens. Of all else it says that it takes effect with a start. What can't be used changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Failure;
use super::callback_endpoint::CallbackEndpoint;
use super::open::{self, Destination};
use crate::config::{Config, Settings};
use crate::dispatch::{Account, Accounts, Opened};
use crate::http;
use crate::ledger::AnyLedger;

/// How often the configuration and the files of its secrets are read. What is read twice counts: a file that is being written
/// may be there in part.
const LOOK: Duration = Duration::from_secs(1);
/// What is taken over, by the beginnings of names.
const FOLLOWED: [&str; 4] = ["accounts.", "callbacks.keys", "http.public_url", "http.tokens"];

/// Accounts that were taken out, by name.
type Gone = BTreeMap<String, Arc<Account>>;

/// What follows the configuration of a process.
pub(super) struct Reloading {
    /// The configuration's file, where there is one.
    pub(super) file: Option<PathBuf>,
    /// What is replaced.
    pub(super) accounts: Accounts,
    /// The one account that is used, where it is one alone.
    pub(super) only: Option<String>,
    /// Where requests go to.
    pub(super) destination: Destination,
    /// The ledger, which knows whom was written to and may keep the key of callbacks.
    pub(super) ledger: AnyLedger,
    /// The HTTP side of a worker; `None` where there is none.
    pub(super) http: Option<HttpSide>,
}

/// What of a worker's HTTP side follows the configuration.
pub(super) struct HttpSide {
    /// Who may use it.
    pub(super) access: http::Access,
    /// Where reports come to when the configuration does not say it.
    pub(super) public_url: Option<Url>,
}

impl Reloading {
    /// Follows the configuration until it is stopped. It has the ledger open until the task ends.
    pub(super) fn start(self, config: &Config, stop: CancellationToken) -> JoinHandle<()> {
        let mut known = config.settings();
        tokio::spawn(async move {
            let (mut read_before, mut said) = (Ok(known.clone()), Vec::new());
            let mut gone = BTreeMap::new();
            while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
                let loaded = Config::load(self.file.as_deref()).map_err(|error| error.to_string());
                let read = loaded.as_ref().map(Config::settings).map_err(Clone::clone);
                if read != std::mem::replace(&mut read_before, read.clone()) {
                    continue;
                }
                let errors = match loaded {
                    Ok(config) => {
                        let now = config.settings();
                        say_what_waits(&known, &now);
                        known = now;
                        self.take_over(&config, &mut gone).await
                    }
                    Err(error) => vec![error],
                };
                // Once, and again when it is another.
                for error in errors.iter().filter(|error| !said.contains(*error)) {
                    tracing::error!(
                        "what the configuration says now can't be used, and stays as it was: {error}"
                    );
                }
                said = errors;
            }
        })
    }

    /// Takes over what is followed; returns what of it can't be used.
    async fn take_over(&self, config: &Config, gone: &mut Gone) -> Vec<String> {
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
            Ok(endpoint) => self.take_over_accounts(config, endpoint.as_ref(), gone, &mut errors).await,
            // A ledger that is away is told elsewhere.
            Err(Failure::Outside(_)) => {}
            Err(failure) => errors.push(failure.to_string()),
        }
        errors
    }

    /// Where reports come to by now.
    async fn endpoint(&self, config: &Config) -> Result<Option<CallbackEndpoint>, Failure> {
        let Some(http) = &self.http else { return Ok(None) };
        let public_url = config.http.public_url.as_ref().or(http.public_url.as_ref());
        CallbackEndpoint::of(config, public_url, &self.ledger).await
    }

    async fn take_over_accounts(
        &self,
        config: &Config,
        endpoint: Option<&CallbackEndpoint>,
        gone: &mut Gone,
        errors: &mut Vec<String>,
    ) {
        let before = self.accounts.all();
        let mut now = BTreeMap::<String, Opened>::new();
        let mut has_changed = false;
        let names = self.only.clone().map_or_else(|| self.destination.names(config), |name| vec![name]);
        for name in names {
            let known = before.get(&name).and_then(|known| known.as_ref().ok());
            // One that comes back has the limits that it had.
            let earlier = known.or_else(|| gone.get(&name));
            let opened = match self.destination.open(config, &name, endpoint, earlier) {
                Ok(opened) => self.limit(config, &name, &opened, earlier.is_none()).await.map(|()| opened),
                Err(failure) => Err(failure),
            };
            let taken = match (opened, known) {
                (Ok(opened), Some(known)) if Arc::ptr_eq(&opened, known) => Ok(opened),
                (Ok(opened), _) => {
                    let how = match before.get(&name) {
                        None => "is there",
                        Some(Ok(_)) => "has changed",
                        Some(Err(_)) => "can be used",
                    };
                    tracing::info!(account = name, "an account {how} now");
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
            tracing::warn!(account = name, "an account was taken out; its campaigns wait");
            gone.extend(before[name].as_ref().ok().map(|account| (name.clone(), account.clone())));
            has_changed = true;
        }
        if has_changed {
            self.accounts.replace(now);
            http::count_from_zero(&self.accounts);
        }
    }

    /// Has an account keep to its limits of now, which it shares with the one that it was before.
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

/// Says which settings have changed that take effect with a start alone.
fn say_what_waits(before: &Settings, now: &Settings) {
    let waits = |name: &&str| !FOLLOWED.iter().any(|followed| name.starts_with(followed));
    let names: Vec<&str> = before.changed(now).filter(waits).collect();
    if !names.is_empty() {
        tracing::warn!("changed, and takes effect when this is started again: {}", names.join(", "));
    }
}
