//! Accounts: their limits, what of them is used, and what holds them. Never a secret.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::problem::Problem;
use super::Api;
use super::refusals::OnList;
use crate::campaign::{CampaignState, Rate, time};
use crate::ledger::{Breaker, Breakers, CampaignFilter, Campaigns, on_ledger};

/// How many running campaigns are looked at for what is used.
const RUNNING: usize = 1000;

/// An account at a provider.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct AccountView {
    /// Its name in the configuration.
    name: String,
    /// Its provider; null where the account can't be used.
    provider: Option<&'static str>,
    /// What the provider allows it.
    limits: Limits,
    /// What of them is used now.
    used: Used,
    /// Why it is held, if it is.
    held: Option<Held>,
    /// Why it can't be used, if it can't.
    problem: Option<String>,
}

/// Limits as the configuration has them, `80/s` and the like; null is none.
#[derive(Default, Serialize, ToSchema)]
struct Limits {
    /// Requests of the account.
    requests: Option<String>,
    /// Messages of each sender number.
    messages: Option<String>,
    /// Unique recipients of the account.
    recipients: Option<String>,
}

/// What is used now.
#[derive(Default, Serialize, ToSchema)]
struct Used {
    /// Messages a second of all its campaigns, over the last ten seconds.
    messages_per_second: f64,
    /// How many of its campaigns run.
    running: u64,
    /// How many requests this worker may have under way at once.
    concurrency: Option<u64>,
}

/// What holds an account.
#[derive(Serialize, ToSchema)]
struct Held {
    /// Why, and what to do.
    reason: String,
    /// Since when.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
}

/// All accounts.
#[derive(Serialize, ToSchema)]
pub(super) struct AccountList {
    /// By name.
    items: Vec<AccountView>,
}

/// Lists the accounts.
#[utoipa::path(get, path = "/accounts", tag = "accounts", responses((status = 200, body = AccountList), OnList))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<AccountList>, Problem> {
    Ok(Json(AccountList { items: all(&api).await? }))
}

/// All accounts, by name.
pub(in crate::http) async fn all(api: &Api) -> Result<Vec<AccountView>, Problem> {
    let backing = api.backing()?;
    let filter = CampaignFilter { state: Some(CampaignState::Running), ..CampaignFilter::default() };
    let running = on_ledger!(&backing.ledger, ledger => ledger.page(&filter, None, RUNNING).await?).campaigns;
    let mut items = Vec::new();
    for (name, account) in backing.context.accounts.all() {
        let breaker = Breaker::account(name);
        let held = on_ledger!(&backing.ledger, ledger => ledger.breaker(&breaker).await?);
        let own = running.iter().filter(|campaign| campaign.account == *name);
        let rate = own.clone().fold(0.0, |sum, campaign| sum + campaign.rate);
        let known = account.as_ref().ok();
        let rates = known.map(|account| account.limits.rates()).unwrap_or_default();
        let text = |rate: Option<Rate>| rate.map(|rate| rate.to_string());
        items.push(AccountView {
            name: name.clone(),
            provider: known.map(|account| account.kind.name),
            limits: Limits {
                requests: text(rates.requests),
                messages: text(rates.messages),
                recipients: text(rates.recipients),
            },
            used: Used {
                messages_per_second: (rate * 10.0).round() / 10.0,
                running: own.count() as u64,
                concurrency: known.map(|account| account.limits.concurrency.limit() as u64),
            },
            held: held.map(|held| Held { reason: held.reason, since: held.since }),
            problem: account.as_ref().err().cloned(),
        });
    }
    Ok(items)
}
