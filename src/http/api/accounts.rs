//! The accounts with their limits, usage and holds. Never a secret.

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::problem::Problem;
use super::{Api, refusals::OnList};
use crate::campaign::{CampaignState, Rate, time};
use crate::ledger::{Breaker, Breakers, CampaignFilter, listing};

/// Maximum number of running campaigns that are counted as usage.
const RUNNING: usize = 1000;

/// An account at a provider.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct AccountView {
    /// Name in the configuration.
    name: String,
    /// Provider; null if the account cannot be used.
    #[schema(required = true)]
    provider: Option<&'static str>,
    /// Configured limits.
    limits: Limits,
    /// The limits in numbers.
    rates: Rates,
    /// Current usage.
    used: Used,
    /// The hold, if the account is held.
    #[schema(required = true)]
    held: Option<Held>,
    /// Why the account cannot be used, if it cannot.
    #[schema(required = true)]
    problem: Option<String>,
}

/// Limits as in the configuration, e.g. `80/s`; null for no limit.
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

/// Limits in numbers; null for no limit.
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

/// A limit in numbers.
#[derive(Serialize, ToSchema)]
struct RateView {
    /// Number allowed in the period.
    count: u32,
    /// The period, in seconds.
    seconds: u64,
    /// Maximum number at once.
    burst: u32,
}

impl From<Rate> for RateView {
    fn from(rate: Rate) -> Self {
        Self { count: rate.count(), seconds: rate.per().as_secs(), burst: rate.burst().get() }
    }
}

/// Current usage of an account.
#[derive(Default, Serialize, ToSchema)]
struct Used {
    /// Messages per second of all its campaigns, over the last ten seconds.
    messages_per_second: f64,
    /// Number of its running campaigns.
    running: u64,
    /// Maximum number of this worker's requests in flight.
    #[schema(required = true)]
    concurrency: Option<u64>,
}

/// The hold of an account.
#[derive(Serialize, ToSchema)]
struct Held {
    /// The reason, and what to do.
    reason: String,
    /// When the hold began.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
}

/// The accounts.
#[derive(Serialize, ToSchema)]
pub(super) struct AccountList {
    /// Sorted by name.
    items: Vec<AccountView>,
}

/// Lists the accounts.
///
/// Sorted by name, with the limits, current usage and hold of each. Never a secret.
#[utoipa::path(get, path = "/accounts", tag = "accounts", operation_id = "listAccounts", responses((status = 200, description = "The accounts", body = AccountList), OnList))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<AccountList>, Problem> {
    Ok(Json(AccountList { items: all(&api).await? }))
}

/// Returns all accounts, sorted by name.
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
