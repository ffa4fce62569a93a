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
use crate::ledger::listing;
use crate::ledger::{Breaker, Breakers, CampaignFilter};

/// How many running campaigns are looked at for what is used.
const RUNNING: usize = 1000;

/// An account at a provider.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct AccountView {
    /// Its name in the configuration.
    name: String,
    /// Its provider; null where the account can't be used.
    #[schema(required = true)]
    provider: Option<&'static str>,
    /// What the provider allows it.
    limits: Limits,
    /// The same in numbers.
    rates: Rates,
    /// What of them is used now.
    used: Used,
    /// Why it is held, if it is.
    #[schema(required = true)]
    held: Option<Held>,
    /// Why it can't be used, if it can't.
    #[schema(required = true)]
    problem: Option<String>,
}

/// Limits as the configuration has them, `80/s` and the like; null is none.
#[derive(Default, Serialize, ToSchema)]
struct Limits {
    /// Requests of the account.
    #[schema(required = true)]
    requests: Option<String>,
    /// Messages of each sender number.
    #[schema(required = true)]
    messages: Option<String>,
    /// Unique recipients of the account.
    #[schema(required = true)]
    recipients: Option<String>,
}

/// Limits in numbers; null is none.
#[derive(Default, Serialize, ToSchema)]
struct Rates {
    /// Requests of the account.
    #[schema(required = true)]
    requests: Option<RateView>,
    /// Messages of each sender number.
    #[schema(required = true)]
    messages: Option<RateView>,
    /// Unique recipients of the account.
    #[schema(required = true)]
    recipients: Option<RateView>,
}

/// A limit: how many in how long.
#[derive(Serialize, ToSchema)]
struct RateView {
    /// How many.
    count: u32,
    /// In how long, in seconds.
    seconds: u64,
    /// How many at once at the most.
    burst: u32,
}

impl From<Rate> for RateView {
    fn from(rate: Rate) -> Self {
        Self { count: rate.count(), seconds: rate.per().as_secs(), burst: rate.burst().get() }
    }
}

/// What is used now.
#[derive(Default, Serialize, ToSchema)]
struct Used {
    /// Messages a second of all its campaigns, over the last ten seconds.
    messages_per_second: f64,
    /// How many of its campaigns run.
    running: u64,
    /// How many requests this worker may have under way at once.
    #[schema(required = true)]
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
///
/// By name, with the limits of each, what of them is used now, and what holds it. Never a secret.
#[utoipa::path(get, path = "/accounts", tag = "accounts", operation_id = "listAccounts", responses((status = 200, description = "The accounts", body = AccountList), OnList))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<AccountList>, Problem> {
    Ok(Json(AccountList { items: all(&api).await? }))
}

/// All accounts, by name.
pub(in crate::http) async fn all(api: &Api) -> Result<Vec<AccountView>, Problem> {
    let backing = api.backing()?;
    let filter = CampaignFilter { state: Some(CampaignState::Running), ..CampaignFilter::default() };
    let running = listing::page(&backing.ledger, &filter, None, RUNNING).await?.campaigns;
    let mut items = Vec::new();
    for (name, account) in backing.context.accounts.all().iter() {
        let breaker = Breaker::account(name);
        let held = backing.ledger.breaker(&breaker).await?;
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
            rates: Rates {
                requests: rates.requests.map(RateView::from),
                messages: rates.messages.map(RateView::from),
                recipients: rates.recipients.map(RateView::from),
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
