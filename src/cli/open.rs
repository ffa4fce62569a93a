//! Opens what several commands use: the ledger, the broker, the job, the accounts.

use std::path::{Path, PathBuf};
use std::{io::Read, sync::Arc};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::{Failure, callback_endpoint::CallbackEndpoint};
use crate::audience::Audiences;
use crate::campaign::{Callbacks, CampaignId, Job, Rate, problem::nearest};
use crate::config::{self, ANSWERS_WITHIN, AccountConfig, Config};
use crate::dispatch::{Account, Accounts};
use crate::ledger::{Access, AnyLedger, Campaign, Ledger, Redis, Sqlite, listing};
use crate::limiter::{AccountLimits, Concurrency, Rates};
use crate::provider::{Credentials, Kind, PROVIDERS, Transport, transport::REQUEST_TIMEOUT};
use crate::queue::rabbitmq::Broker;
use crate::redis_client::{RedisClient, RedisClientError, RetryPolicy};

/// Default limit of a sender number, as `WhatsApp` sets it.
const MESSAGES: &str = "80/s";

/// The store or ledger that a command uses.
#[derive(Args)]
pub(super) struct StoreArgs {
    /// Embedded store to use instead of the configured ledger
    #[arg(long, global = true, display_order = 100, value_name = "FILE")]
    store: Option<PathBuf>,
}

impl StoreArgs {
    pub(super) fn path<'a>(&'a self, config: &'a Config) -> &'a Path {
        self.store.as_deref().unwrap_or(&config.store.path)
    }

    /// Returns the option as on the command line, for commands that are suggested.
    pub(super) fn flag(&self) -> String {
        self.store.as_ref().map(|path| format!(" --store {}", path.display())).unwrap_or_default()
    }

    /// Opens the fleet's ledger if one is configured and no store is named, else the store.
    pub(super) async fn open(&self, config: &Config, access: Access) -> Result<AnyLedger, Failure> {
        match &config.redis {
            Some(redis) if self.store.is_none() => {
                let server = redis_server(redis, RetryPolicy::Short).await?;
                Ok(AnyLedger::Fleet(Redis::on(server, REQUEST_TIMEOUT)))
            }
            _ => Ok(AnyLedger::Embedded(Sqlite::open(self.path(config), access)?)),
        }
    }
}

/// Connects to the configured Redis.
pub(super) async fn redis_server(redis: &config::Redis, policy: RetryPolicy) -> Result<RedisClient, Failure> {
    let url = redis.url.read("redis.url")?;
    RedisClient::connect(&url, policy).await.map_err(|error| match error {
        RedisClientError::Address(_) => Failure::Usage(format!("Redis {error}")),
        error => Failure::Outside(format!("Redis: {error}")),
    })
}

/// Connects to the configured broker.
pub(super) async fn broker(config: &Config, patient: bool) -> Result<Broker, Failure> {
    let Some(amqp) = &config.amqp else {
        let text = "no broker is configured: set amqp.url in the configuration, or FLOWCAST_AMQP__URL";
        return Err(Failure::Usage(text.into()));
    };
    Ok(Broker::connect(&amqp.url.read("amqp.url")?, patient).await?)
}

/// Returns the campaign with an id, or an error that names the nearest id.
pub(super) async fn campaign(ledger: &impl Ledger, id: &str) -> Result<Campaign, Failure> {
    let known = campaign_id(id)?;
    if let Some(campaign) = listing::look_at(ledger, &known).await? {
        return Ok(campaign);
    }
    let campaigns = listing::all(ledger).await?;
    let near = nearest(id, campaigns.iter().take(10).map(|campaign| campaign.id.as_str()));
    Err(Failure::NotFound(format!("there is no campaign {id:?}{near}")))
}

pub(super) fn campaign_id(id: &str) -> Result<CampaignId, Failure> {
    id.parse().map_err(|error| Failure::Usage(format!("{id:?}: {error}")))
}

/// Reads a job file; `-` is standard input.
pub(super) fn job(path: &Path) -> Result<Job, Failure> {
    let shown = path.display();
    let read = if path == Path::new("-") {
        let mut json = Vec::new();
        std::io::stdin().lock().read_to_end(&mut json).map(|_| json)
    } else {
        std::fs::read(path)
    };
    let json = read.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::Usage(format!("no such file: {shown}")),
        _ => Failure::Usage(format!("cannot read {shown}: {error}")),
    })?;
    Job::read(&json).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| format!("{shown}: {problem}")).collect();
        Failure::Usage(lines.join("\n"))
    })
}

/// Returns the places that audiences may come from, as configured.
pub(super) fn audiences(config: &Config) -> Result<Audiences, Failure> {
    audiences_below(config, config.audiences.root.as_deref())
}

/// Returns the places for a job in a file; without a configured root its folder is the root.
pub(super) fn audiences_beside(config: &Config, job: &Path) -> Result<Audiences, Failure> {
    let own = match job.parent() {
        Some(folder) if folder != Path::new("") => folder.to_string_lossy(),
        _ => ".".into(),
    };
    audiences_below(config, Some(config.audiences.root.as_deref().unwrap_or(&own)))
}

/// Returns the places with another root.
pub(super) fn audiences_below(config: &Config, root: Option<&str>) -> Result<Audiences, Failure> {
    let audiences = Audiences::new(root, &config.audiences.allow).map_err(Failure::Usage)?;
    Ok(audiences.with_columns(config.audiences.columns))
}

/// The destination of the requests of a process.
pub(super) enum Destination {
    /// The providers. The token buckets of accounts are in this process, or in the fleet's Redis.
    Providers(Option<RedisClient>),
    /// A sandbox at this address.
    Sandbox(Url),
}

impl Destination {
    /// Returns the names of the accounts: the configured ones, or `main` for a sandbox without any.
    pub(super) fn names(&self, config: &Config) -> Vec<String> {
        match self {
            Self::Sandbox(_) if config.accounts.is_empty() => vec!["main".into()],
            _ => config.accounts.keys().cloned().collect(),
        }
    }

    /// Opens an account.
    ///
    /// If `known` was opened with the same settings, it is returned; else the new account shares its limits.
    pub(super) fn open(
        &self,
        config: &Config,
        name: &str,
        endpoint: Option<&CallbackEndpoint>,
        known: Option<&Arc<Account>>,
    ) -> Result<Arc<Account>, Failure> {
        let callbacks = endpoint.map(|endpoint| endpoint.at(name)).transpose()?;
        let opening = match self {
            Self::Providers(shared) => {
                let Some(account) = config.accounts.get(name) else {
                    return Err(not_configured(config, name));
                };
                Opening {
                    kind: account.provider,
                    credentials: account.credentials(name)?,
                    address: account.address(name)?,
                    account: Some(account),
                    shared: shared.as_ref(),
                    callbacks,
                }
            }
            // A configured account keeps its provider and its limits, so that a rehearsal takes as long as the real
            // campaign. An account that is not configured has no limits.
            Self::Sandbox(address) => {
                let account = config.accounts.get(name);
                Opening {
                    kind: account.map_or(PROVIDERS[0], |account| account.provider),
                    credentials: Credentials {
                        account_sid: "sandbox".into(),
                        api_key: "key".into(),
                        api_token: "token".into(),
                        ..Credentials::default()
                    },
                    address: address.clone(),
                    account,
                    shared: None,
                    callbacks,
                }
            }
        };
        opening.account(name, known)
    }

    /// Opens all accounts. An account that cannot be used does not affect the others.
    pub(super) fn accounts(&self, config: &Config, endpoint: Option<&CallbackEndpoint>) -> Accounts {
        let open = |name: String| {
            let opened = self.open(config, &name, endpoint, None).map_err(|failure| failure.to_string());
            if let Err(error) = &opened {
                tracing::warn!(account = name, %error, "account cannot be used");
            }
            (name, opened)
        };
        Accounts::new(self.names(config).into_iter().map(open).collect())
    }
}

/// Opens the configured account of a job, for commands that send nothing.
pub(super) fn account(
    config: &Config,
    name: &str,
    endpoint: Option<&CallbackEndpoint>,
) -> Result<Arc<Account>, Failure> {
    Destination::Providers(None).open(config, name, endpoint, None)
}

fn not_configured(config: &Config, name: &str) -> Failure {
    let near = if config.accounts.is_empty() {
        format!(
            "; add it under [accounts.{name}] in flowcast.toml, or test the job with `flowcast run JOB --sandbox`"
        )
    } else {
        nearest(name, config.accounts.keys().map(String::as_str))
    };
    Failure::Usage(format!("the account {name:?} is not configured{near} (/account)"))
}

/// The settings that an account is opened with.
struct Opening<'o> {
    kind: &'static Kind,
    credentials: Credentials,
    address: Url,
    account: Option<&'o AccountConfig>,
    shared: Option<&'o RedisClient>,
    callbacks: Option<Arc<Callbacks>>,
}

impl Opening<'_> {
    fn account(self, name: &str, known: Option<&Arc<Account>>) -> Result<Arc<Account>, Failure> {
        let digest = self.digest();
        let fixed =
            self.account.and_then(|account| account.concurrency).map(|limit| usize::from(limit.get()));
        let least = usize::from(self.kind.concurrency);
        if let Some(known) = known {
            known.limits.concurrency.change(fixed, least);
            // The same account keeps its connections.
            if known.opened_with == Some(digest) {
                return Ok(known.clone());
            }
        }
        let Self { kind, credentials, address, account, shared, callbacks } = self;
        let provider = (kind.open)(&address, &credentials)
            .map_err(|error| Failure::Usage(format!("accounts.{name}: {error}")))?;
        let is_here = match address.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let timeout = account.map_or(REQUEST_TIMEOUT, |account| account.timeout.0);
        let transport = Transport::new(timeout, !is_here).map_err(Failure::Outside)?;
        let limits = if let Some(known) = known {
            known.limits.clone()
        } else {
            let concurrency = fixed.map_or_else(|| Concurrency::adaptive(least), Concurrency::fixed);
            let rates = rates(account);
            Arc::new(match shared {
                Some(server) => AccountLimits::shared(name, rates, concurrency, server.clone()),
                None => AccountLimits::new(rates, concurrency),
            })
        };
        let mut opened = Account::new(kind, provider, transport, limits, callbacks);
        opened.prices = account.and_then(|account| account.prices.clone());
        // Without a callback URL no replies arrive.
        let within = account.map_or(ANSWERS_WITHIN, |account| account.answers_within.0);
        opened.answers_within = Some(within).filter(|within| opened.callbacks.is_some() && !within.is_zero());
        opened.opened_with = Some(digest);
        Ok(Arc::new(opened))
    }

    /// Returns a digest of all settings except the limits, which change while the account is open.
    fn digest(&self) -> blake3::Hash {
        let Self { kind, credentials, address, account, shared: _, callbacks } = self;
        let Credentials {
            account_sid,
            api_key,
            api_token,
            callback_fields,
            callback_profile_id,
            callback_header,
            app_secret,
        } = credentials;
        let header = callback_header.as_ref().map(|(name, value)| (name, value.expose_secret()));
        let callbacks = callbacks.as_ref().map(|callbacks| (callbacks.base(), callbacks.key_names()));
        let account = account.map(|account| (&account.prices, account.answers_within, account.timeout));
        let text = format!(
            "{:?}",
            (
                (
                    kind.name,
                    address.as_str(),
                    account_sid,
                    api_key.expose_secret(),
                    api_token.expose_secret()
                ),
                (callback_fields, callback_profile_id, header),
                (app_secret.as_ref().map(ExposeSecret::expose_secret), account, callbacks),
            )
        );
        blake3::hash(text.as_bytes())
    }
}

/// Returns the limits of a configured account; the defaults are the provider's.
pub(super) fn rates(account: Option<&AccountConfig>) -> Rates {
    let Some(AccountConfig { limits, provider, .. }) = account else { return Rates::default() };
    Rates {
        requests: limits.requests.or_else(|| provider.requests?.parse().ok()),
        messages: limits.messages.or_else(|| MESSAGES.parse().ok()),
        recipients: limits.recipients,
    }
}

/// Returns the highest rate that the account and the job of a campaign allow.
pub(super) fn max_rate(config: &Config, account: &str, job: Option<&Job>) -> Option<Rate> {
    let own = job.and_then(|job| job.limits.messages);
    let all = rates(config.accounts.get(account)).messages;
    own.into_iter().chain(all).max_by_key(|rate| rate.period())
}

/// Adds the recipients of earlier processes to the account's limit of recipients.
///
/// In a fleet the shared token buckets have them already.
pub(super) async fn remember_recipients(
    ledger: &AnyLedger,
    name: &str,
    account: &Account,
    rates: Rates,
) -> Result<(), Failure> {
    if let (AnyLedger::Embedded(ledger), Some(rate)) = (ledger, rates.recipients) {
        account.limits.cache(ledger.recipients(name, rate.per()).await?);
    }
    Ok(())
}

/// Returns the users of the API and the dashboard: name, role and token of each.
pub(super) fn tokens(config: &Config) -> Result<Vec<(String, config::Role, SecretString)>, Failure> {
    let token = |(nth, token): (usize, &config::Token)| {
        Ok((token.name.clone(), token.role, token.token.read(&format!("http.tokens.{nth}.token"))?))
    };
    config.http.tokens.iter().enumerate().map(token).collect()
}
