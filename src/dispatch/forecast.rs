//! Forecasts a campaign's requests and duration from its limits.

use std::time::Duration;

use crate::campaign::Rate;

use super::Account;

/// The forecast of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Number of requests.
    pub requests: u64,
    /// Shortest duration that the limits allow.
    pub duration: Duration,
}

/// Returns the forecast for `messages` messages in batches of `batch_size`.
pub fn forecast(messages: u64, batch_size: usize, campaign: Option<Rate>, account: &Account) -> Forecast {
    let requests = messages.div_ceil(batch_size.max(1) as u64);
    let takes = |count: u64, rate: Option<Rate>| {
        let Some(rate) = rate else { return Duration::ZERO };
        let waited = count.saturating_sub(u64::from(rate.burst().get()));
        Duration::from_secs_f64(waited as f64 / rate.per_second())
    };
    let duration = takes(messages, campaign)
        .max(takes(messages, account.limits.rates().messages))
        .max(takes(requests, account.limits.rates().requests));
    Forecast { requests, duration }
}
