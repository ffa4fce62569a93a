//! What several commands open: the ledger, the broker, the job, the accounts.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

use super::Failure;
use super::callback_endpoint::CallbackEndpoint;
use crate::audience::Audiences;
use crate::campaign::problem::nearest;
use crate::campaign::{Callbacks, CampaignId, Job, Rate};
use crate::config::{self, ANSWERS_WITHIN, AccountConfig, Config};
use crate::dispatch::{Account, Accounts};
use crate::http;
use crate::ledger::{Access, AnyLedger, Campaign, Ledger, Redis, Sqlite};
use crate::limiter::{AccountLimits, Concurrency, Rates};
use crate::provider::transport::REQUEST_TIMEOUT;
use crate::provider::{Credentials, Kind, PROVIDERS, Transport};
use crate::queue::rabbitmq::Broker;
use crate::redis_client::{RedisClient, RetryPolicy};

/// What `WhatsApp` lets a sender number send, unless the account says otherwise.
const MESSAGES: &str = "80/s";
/// How often it is looked whether the configuration has changed.
const LOOK: Duration = Duration::from_secs(2);

/// Where campaigns are kept.
#[derive(Args)]
pub(super) struct Store {
    /// The store, else `store.path` of the configuration
    #[arg(
        long,
        value_name = "FILE",
        help = "The embedded store, else Redis where it is configured, else store.path"
    )]
    store: Option<PathBuf>,
}

impl Store {
    pub(super) fn path<'a>(&'a self, config: &'a Config) -> &'a Path {
        self.store.as_deref().unwrap_or(&config.store.path)
    }

    /// The flag as the command line has it, to say a command again.
    pub(super) fn flag(&self) -> String {
        self.store.as_ref().map(|path| format!(" --store {}", path.display())).unwrap_or_default()
    }

    /// The same to change what needs no campaign: a store is made if there is none.
    pub(super) async fn open_or_make(&self, config: &Config) -> Result<AnyLedger, Failure> {
        self.open(config, Access::Create).await
    }

    /// Opens the fleet's ledger where there is one, else the store.
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

/// The configured Redis.
pub(super) async fn redis_server(redis: &config::Redis, policy: RetryPolicy) -> Result<RedisClient, Failure> {
    let url = redis.url.read("redis.url")?;
    RedisClient::connect(&url, policy).await.map_err(|fault| Failure::Outside(format!("Redis: {fault}")))
}

/// The configured broker.
pub(super) async fn broker(config: &Config, patient: bool) -> Result<Broker, Failure> {
    let Some(amqp) = &config.amqp else {
        let text = "there is no broker: set amqp.url in the configuration, or FLOWCAST_AMQP__URL";
        return Err(Failure::Usage(text.into()));
    };
    Ok(Broker::connect(&amqp.url.read("amqp.url")?, patient).await?)
}

/// A campaign that a person names.
pub(super) async fn campaign(ledger: &impl Ledger, id: &str) -> Result<Campaign, Failure> {
    let known = campaign_id(id)?;
    if let Some(campaign) = ledger.look_at(&known).await? {
        return Ok(campaign);
    }
    let campaigns = ledger.campaigns().await?;
    let near = nearest(id, campaigns.iter().take(10).map(|campaign| campaign.id.as_str()));
    Err(Failure::NotFound(format!("there is no campaign {id:?} in this store{near}")))
}

pub(super) fn campaign_id(id: &str) -> Result<CampaignId, Failure> {
    id.parse().map_err(|fault| Failure::Usage(format!("{id:?}: {fault}")))
}

/// Reads a job file; `-` is the standard input.
pub(super) fn job(path: &Path) -> Result<Job, Failure> {
    let shown = path.display();
    let read = if path == Path::new("-") {
        let mut json = Vec::new();
        std::io::stdin().lock().read_to_end(&mut json).map(|_| json)
    } else {
        std::fs::read(path)
    };
    let json = read.map_err(|fault| match fault.kind() {
        std::io::ErrorKind::NotFound => Failure::Usage(format!("no such file: {shown}")),
        _ => Failure::Usage(format!("can't read {shown}: {fault}")),
    })?;
    Job::read(&json).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| format!("{shown}: {problem}")).collect();
        Failure::Usage(lines.join("\n"))
    })
}

/// Where audiences may come from, as the configuration says it.
pub(super) fn audiences(config: &Config) -> Result<Audiences, Failure> {
    audiences_below(config, config.audiences.root.as_deref())
}

/// The same for a job that lies in a file: where no root is configured, its own folder is one.
pub(super) fn audiences_beside(config: &Config, job: &Path) -> Result<Audiences, Failure> {
    let own = match job.parent() {
        Some(folder) if folder != Path::new("") => folder.to_string_lossy(),
        _ => ".".into(),
    };
    audiences_below(config, Some(config.audiences.root.as_deref().unwrap_or(&own)))
}

/// The same below a root.
pub(super) fn audiences_below(config: &Config, root: Option<&str>) -> Result<Audiences, Failure> {
    let audiences = Audiences::new(root, &config.audiences.allow).map_err(Failure::Usage)?;
    Ok(audiences.with_columns(config.audiences.columns))
}

/// Where an account's buckets are: in this process, or in a fleet's Redis.
pub(super) type Shared<'s> = Option<&'s RedisClient>;

/// The configured account of a job.
pub(super) fn account(
    config: &Config,
    name: &str,
    shared: Shared<'_>,
    endpoint: Option<&CallbackEndpoint>,
) -> Result<Account, Failure> {
    let Some(account) = config.accounts.get(name) else {
        let near = if config.accounts.is_empty() {
            format!("; describe it under [accounts.{name}] in flowcast.toml, or try the job with --sandbox")
        } else {
            nearest(name, config.accounts.keys().map(String::as_str))
        };
        return Err(Failure::Usage(format!("the account {name:?} is not configured{near} (/account)")));
    };
    let credentials = account.credentials(name)?;
    let address = account.address(name)?;
    let callbacks = endpoint.map(|endpoint| endpoint.at(name)).transpose()?;
    ready(account.provider, &credentials, &address, name, Some(account), shared, callbacks)
}

/// All configured accounts. One that can't be used is no reason not to work for the others.
pub(super) fn accounts(config: &Config, shared: Shared<'_>, endpoint: Option<&CallbackEndpoint>) -> Accounts {
    let open = |name: &String| {
        let opened =
            account(config, name, shared, endpoint).map(Arc::new).map_err(|failure| failure.to_string());
        if let Err(fault) = &opened {
            tracing::warn!("an account can't be used: {fault}");
        }
        (name.clone(), opened)
    };
    Accounts::new(config.accounts.keys().map(open).collect())
}

/// One account alone.
pub(super) fn only(name: &str, account: &Arc<Account>) -> Accounts {
    Accounts::new(HashMap::from([(name.to_owned(), Ok(account.clone()))]))
}

/// An account at a sandbox. One that is configured keeps its provider and its limits, so that a
/// rehearsal takes as long as the real campaign; one that is not has none.
pub(super) fn sandbox_account(
    config: &Config,
    name: &str,
    address: &Url,
    endpoint: Option<&CallbackEndpoint>,
) -> Result<Account, Failure> {
    let account = config.accounts.get(name);
    let kind = account.map_or(PROVIDERS[0], |account| account.provider);
    let credentials = Credentials {
        account_sid: "sandbox".into(),
        api_key: "key".into(),
        api_token: "token".into(),
        ..Credentials::default()
    };
    let callbacks = endpoint.map(|endpoint| endpoint.at(name)).transpose()?;
    ready(kind, &credentials, address, name, account, None, callbacks)
}

/// All configured accounts at a sandbox; where none is configured, one of the name `main`.
pub(super) fn sandbox_accounts(
    config: &Config,
    address: &Url,
    endpoint: Option<&CallbackEndpoint>,
) -> Result<Accounts, Failure> {
    let mut names: Vec<&str> = config.accounts.keys().map(String::as_str).collect();
    if names.is_empty() {
        names.push("main");
    }
    let open = |name: &str| {
        let account = sandbox_account(config, name, address, endpoint)?;
        Ok((name.to_owned(), Ok(Arc::new(account))))
    };
    Ok(Accounts::new(names.into_iter().map(open).collect::<Result<_, Failure>>()?))
}

fn ready(
    kind: &'static Kind,
    credentials: &Credentials,
    address: &Url,
    name: &str,
    account: Option<&AccountConfig>,
    shared: Shared<'_>,
    callbacks: Option<Arc<Callbacks>>,
) -> Result<Account, Failure> {
    let provider = (kind.open)(address, credentials)
        .map_err(|fault| Failure::Usage(format!("accounts.{name}: {fault}")))?;
    let is_here = match address.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let timeout = account.map_or(REQUEST_TIMEOUT, |account| account.timeout.0);
    let transport = Transport::new(timeout, !is_here).map_err(Failure::Outside)?;
    let concurrency = account.and_then(|account| account.concurrency);
    let concurrency = match concurrency {
        Some(limit) => Concurrency::fixed(usize::from(limit.get())),
        None => Concurrency::found_from(usize::from(kind.concurrency)),
    };
    let rates = rates(account);
    let limits = match shared {
        Some(server) => AccountLimits::shared(name, rates, concurrency, server.clone()),
        None => AccountLimits::new(rates, concurrency),
    };
    let mut opened = Account::new(kind, provider, transport, limits, callbacks);
    opened.prices = account.and_then(|account| account.prices.clone());
    // Without an address for them no answers come.
    let within = account.map_or(ANSWERS_WITHIN, |account| account.answers_within.0);
    opened.answers_within = Some(within).filter(|within| opened.callbacks.is_some() && !within.is_zero());
    Ok(opened)
}

/// What a configured account is allowed: the provider's own limits, unless it says otherwise.
fn rates(account: Option<&AccountConfig>) -> Rates {
    let Some(AccountConfig { limits, provider, .. }) = account else { return Rates::default() };
    Rates {
        requests: limits.requests.or_else(|| provider.requests?.parse().ok()),
        messages: limits.messages.or_else(|| MESSAGES.parse().ok()),
        recipients: limits.recipients,
    }
}

/// The most that is sent of a campaign, as its account and its job allow it.
pub(super) fn most(config: &Config, account: &str, job: Option<&Job>) -> Option<Rate> {
    let own = job.and_then(|job| job.limits.messages);
    let all = rates(config.accounts.get(account)).messages;
    own.into_iter().chain(all).max_by_key(|rate| rate.period())
}

/// A limit of recipients counts also those whom an earlier process wrote to.
pub(super) async fn remember_recipients(ledger: &Sqlite, accounts: &Accounts) -> Result<(), Failure> {
    for (name, account) in accounts.usable() {
        if let Some(rate) = account.limits.rates().recipients {
            account.limits.remember(ledger.recipients(name, rate.per()).await?);
        }
    }
    Ok(())
}

/// Who may use the API and the dashboard: name, role and token of each.
pub(super) fn tokens(config: &Config) -> Result<Vec<(String, http::Role, SecretString)>, Failure> {
    let token = |(nth, token): (usize, &config::Token)| {
        let role = match token.role {
            config::Role::Viewer => http::Role::Viewer,
            config::Role::Operator => http::Role::Operator,
        };
        Ok((token.name.clone(), role, token.token.read(&format!("http.tokens.{nth}.token"))?))
    };
    config.http.tokens.iter().enumerate().map(token).collect()
}

/// Takes over limits and tokens that are changed in the configuration's file, until it is stopped; and says what else would
/// take effect only with a worker that is started again.
pub(super) async fn follow_file(
    file: Option<PathBuf>,
    accounts: Accounts,
    access: Option<http::Access>,
    stop: CancellationToken,
) {
    let Some(file) = file else { return };
    let changed = || std::fs::metadata(&file).and_then(|data| data.modified()).ok();
    let mut known: Option<SystemTime> = changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = changed();
        if now == known || now.is_none() {
            continue;
        }
        known = now;
        match Config::load(Some(&file)) {
            Ok(config) => {
                for (name, account) in accounts.usable() {
                    let Some(changed) = config.accounts.get(name) else { continue };
                    let rates = rates(Some(changed));
                    if rates != account.limits.rates() {
                        tracing::info!(account = name, limits = %rates, before = %account.limits.rates(), "limits changed");
                        account.limits.set_rates(rates);
                    }
                }
                match (&access, tokens(&config)) {
                    (None, _) => {}
                    (Some(access), Ok(tokens)) => {
                        if access.replace(tokens) {
                            tracing::info!("tokens changed");
                        }
                    }
                    (_, Err(failure)) => tracing::error!("the tokens stay as they were: {failure}"),
                }
                let (known, now) = (accounts.all(), &config.accounts);
                let new = now.keys().filter(|name| !known.contains_key(name));
                let gone = known.keys().copied().filter(|name| !now.contains_key(*name));
                let names: Vec<&str> = new.chain(gone).map(String::as_str).collect();
                if !names.is_empty() {
                    tracing::warn!(
                        "accounts were added or taken out ({}): that takes effect when the worker is started again",
                        names.join(", ")
                    );
                }
            }
            Err(fault) => tracing::error!("the configuration has changed and can't be used: {fault}"),
        }
    }
}
