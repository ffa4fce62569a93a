//! The URLs that providers send reports to: the public address, and the keys for the capabilities in the URLs.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::Failure;
use crate::campaign::Callbacks;
use crate::config::Config;
use crate::ledger::Ledger;

/// The callback URLs of all accounts.
pub(super) struct CallbackEndpoint {
    public_url: Url,
    keys: Vec<SecretString>,
}

impl CallbackEndpoint {
    /// Returns the callback URLs below a public address, or `None` without an address.
    ///
    /// The keys are the configured ones, or else the one that the ledger keeps, and those of stores that were moved.
    pub(super) async fn open(
        config: &Config,
        public_url: Option<&Url>,
        ledger: &impl Ledger,
    ) -> Result<Option<Self>, Failure> {
        let Some(mut endpoint) = Self::configured(config, public_url)? else { return Ok(None) };
        if endpoint.keys.is_empty() {
            endpoint.keys.push(ledger.callback_key().await?.into());
        }
        endpoint.keys.extend(ledger.further_callback_keys().await?.into_iter().map(SecretString::from));
        Ok(Some(endpoint))
    }

    /// Returns callback URLs for checking a job.
    ///
    /// Without a configured key they have the right length, but no worker accepts them.
    pub(super) fn in_shape(config: &Config) -> Result<Option<Self>, Failure> {
        let endpoint = Self::configured(config, config.http.public_url.as_ref())?;
        Ok(endpoint.map(|mut endpoint| {
            if endpoint.keys.is_empty() {
                endpoint.keys.push("no address opens with this".into());
            }
            endpoint
        }))
    }

    fn configured(config: &Config, public_url: Option<&Url>) -> Result<Option<Self>, Failure> {
        let Some(public_url) = public_url.cloned() else { return Ok(None) };
        let keys = config.callbacks.keys.iter().enumerate();
        let keys = keys.map(|(nth, key)| key.read(&format!("callbacks.keys[{nth}]")));
        Ok(Some(Self { public_url, keys: keys.collect::<Result<_, _>>()? }))
    }

    /// Returns the callback URL of an account.
    pub(super) fn at(&self, account: &str) -> Result<Arc<Callbacks>, Failure> {
        let keys: Vec<&str> = self.keys.iter().map(ExposeSecret::expose_secret).collect();
        let callbacks = Callbacks::new(&self.public_url, account, &keys);
        callbacks
            .map(Arc::new)
            .map_err(|error| Failure::Usage(format!("http.public_url and callbacks.keys: {error}")))
    }
}
