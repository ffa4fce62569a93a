//! What several commands open: the store, the job, the account.

use std::path::{Path, PathBuf};

use clap::Args;
use url::{Host, Url};

use super::Failure;
use crate::campaign::problem::nearest;
use crate::campaign::{CampaignId, Job};
use crate::config::{AccountConfig, Config, ProviderName};
use crate::dispatch::Account;
use crate::ledger::{Access, Campaign, Ledger, Sqlite};
use crate::provider::exotel::Exotel;
use crate::provider::transport::REQUEST_TIMEOUT;
use crate::provider::{Provider, Transport};

/// Where campaigns are kept.
#[derive(Args)]
pub(super) struct Store {
    /// The store, else `store.path` of the configuration
    #[arg(long, value_name = "FILE", help = "The store, else store.path of the configuration")]
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

    /// Opens the store to look into it.
    pub(super) fn read(&self, config: &Config) -> Result<Sqlite, Failure> {
        Ok(Sqlite::open(self.path(config), Access::Read)?)
    }
}

/// A campaign that a person names.
pub(super) async fn campaign(ledger: &Sqlite, id: &str) -> Result<Campaign, Failure> {
    let known: CampaignId = id.parse().map_err(|fault| Failure::Usage(format!("{id:?}: {fault}")))?;
    if let Some(campaign) = ledger.campaign(&known).await? {
        return Ok(campaign);
    }
    let campaigns = ledger.campaigns().await?;
    let near = nearest(id, campaigns.iter().take(10).map(|campaign| campaign.id.as_str()));
    Err(Failure::Usage(format!("there is no campaign {id:?} in this store{near}")))
}

/// Reads a job file.
pub(super) fn job(path: &Path) -> Result<Job, Failure> {
    let shown = path.display();
    let json = std::fs::read(path).map_err(|fault| match fault.kind() {
        std::io::ErrorKind::NotFound => Failure::Usage(format!("no such file: {shown}")),
        _ => Failure::Usage(format!("can't read {shown}: {fault}")),
    })?;
    Job::read(&json).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| format!("{shown}: {problem}")).collect();
        Failure::Usage(lines.join("\n"))
    })
}

/// The folder below which a job's audience must be: the configured one, else the job's own.
pub(super) fn audience_root(config: &Config, job: &Path) -> PathBuf {
    let own = || match job.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    config.audiences.root.clone().unwrap_or_else(own)
}

/// The configured account of a job.
pub(super) fn account(config: &Config, name: &str) -> Result<Account, Failure> {
    let Some(account) = config.accounts.get(name) else {
        let near = if config.accounts.is_empty() {
            format!("; describe it under [accounts.{name}] in flowcast.toml, or try the job with --sandbox")
        } else {
            nearest(name, config.accounts.keys().map(String::as_str))
        };
        return Err(Failure::Usage(format!("/account: the account {name:?} is not configured{near}")));
    };
    if account.provider == ProviderName::Kaleyra {
        return Err(Failure::Usage(format!("accounts.{name}: Kaleyra can't be used yet")));
    }
    let sid = account.account_sid.as_deref().filter(|sid| !sid.is_empty());
    let sid = sid.ok_or_else(|| Failure::Usage(format!("accounts.{name}.account_sid is missing")))?;
    let key = account.credential(name, "api_key", account.api_key.as_ref())?;
    let token = account.credential(name, "api_token", account.api_token.as_ref())?;
    let address = account.address(name)?;
    let provider = Exotel::new(&address, sid, &key, &token)
        .map_err(|fault| Failure::Usage(format!("accounts.{name}: {fault}")))?;
    ready(Box::new(provider), &address, Some(account))
}

/// An account at a sandbox. One that is configured keeps its limits, so that a rehearsal takes as
/// long as the real campaign; one that is not has none.
pub(super) fn sandbox_account(config: &Config, name: &str, address: &Url) -> Result<Account, Failure> {
    let provider = Exotel::new(address, "sandbox", &"key".into(), &"token".into()).map_err(Failure::Usage)?;
    ready(Box::new(provider), address, config.accounts.get(name))
}

fn ready(
    provider: Box<dyn Provider>,
    address: &Url,
    account: Option<&AccountConfig>,
) -> Result<Account, Failure> {
    let is_here = match address.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let transport = Transport::new(REQUEST_TIMEOUT, !is_here).map_err(Failure::Outside)?;
    // Exotel's and WhatsApp's own limits, unless the account says otherwise.
    let by_default = |text: &str| account.and_then(|_| text.parse().ok());
    let limits = account.map(|account| account.limits).unwrap_or_default();
    if limits.recipients.is_some() {
        tracing::warn!("limits.recipients is not kept by this version; split the audience by days yourself");
    }
    let requests = limits.requests.or_else(|| by_default("200/min"));
    let messages = limits.messages.or_else(|| by_default("80/s"));
    let concurrency = account.map_or(8, |account| usize::from(account.concurrency.get()));
    Ok(Account::new(provider, transport, requests, messages, concurrency))
}
