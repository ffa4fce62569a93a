//! Accounts at providers: credentials and limits.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use url::Url;

use super::{ConfigError, Secret, Time, optional_web_address, schema, whole_number};
use crate::campaign::{PriceList, Rate, problem::nearest};
use crate::provider::{Credentials, Kind, PROVIDERS, kind, transport::REQUEST_TIMEOUT};

/// An account at a provider.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    /// Name of the provider.
    #[serde(deserialize_with = "provider")]
    #[schemars(schema_with = "schema::providers")]
    #[schemars(example = json!("exotel"))]
    pub provider: &'static Kind,
    /// Region of the provider, which decides the host: `singapore` or `mumbai` with Exotel; `in`, `ap` or `eu` with
    /// Kaleyra; `global` with Meta, where it is the default.
    #[schemars(example = json!("mumbai"))]
    pub region: Option<String>,
    /// URL of the provider's API, instead of a region.
    #[serde(default, deserialize_with = "optional_web_address")]
    #[schemars(schema_with = "schema::web_address", example = json!("https://api.example.com"))]
    pub base_url: Option<Url>,
    /// Id of the account at the provider, which every provider requires; with Meta, the id of the phone number.
    #[schemars(example = json!("example1"))]
    pub account_sid: Option<String>,
    /// API key: required with Exotel and Kaleyra.
    #[schemars(example = json!({ "env": "EXOTEL_KEY" }))]
    pub api_key: Option<Secret>,
    /// Token of the API key with Exotel, or access token with Meta: required with both.
    #[schemars(example = json!({ "env": "EXOTEL_TOKEN" }))]
    pub api_token: Option<Secret>,
    /// Limits of the account.
    #[serde(default)]
    #[schemars(example = json!({ "requests": "200/min", "messages": "80/s" }))]
    pub limits: Limits,
    /// Names of the fields of callbacks, if the provider's customer chooses them (Kaleyra). Each value is a name or a
    /// JSON pointer. The keys, with their default values: `ref` (`ref`), `custom_data` (`ref1`), `id` (`message_id`),
    /// `status` (`status`), `recipient` (`recipient`), `at` (`timestamp`), `code` (`code`) and `text` (`message`).
    #[serde(default)]
    #[schemars(example = json!({ "ref": "ref1", "status": "/data/status" }))]
    pub callback_fields: BTreeMap<String, String>,
    /// Id of the callback profile that receives the reports of sent messages (Kaleyra). Each message names it.
    #[schemars(example = json!("IN1234"))]
    pub callback_profile_id: Option<String>,
    /// Header of the provider's callbacks, if its customer can add one (Kaleyra). A callback without the header is
    /// refused.
    #[schemars(example = json!({ "name": "X-Callback-Key", "value": { "env": "CALLBACK_HEADER" } }))]
    pub callback_header: Option<CallbackHeader>,
    /// Secret with which the provider signs its callbacks (Meta: the app's secret). A callback without a valid
    /// signature is refused.
    #[schemars(example = json!({ "env": "META_APP_SECRET" }))]
    pub app_secret: Option<Secret>,
    /// Time after a message within which a reply that names no message is matched to it by the phone number. With
    /// `0s`, such a reply is never matched, and flowcast keeps no data for matching.
    #[serde(default = "three_days", deserialize_with = "answers_within")]
    #[schemars(schema_with = "schema::answers_within", example = json!("3d"))]
    pub answers_within: Time,
    /// Prices of messages, for the forecast of a campaign.
    #[schemars(example = json!({ "currency": "INR", "per_message": { "91": 0.88, "other": 6.0 } }))]
    pub prices: Option<PriceList>,
    /// Maximum number of requests in flight. Without it, the worker tunes the number itself.
    #[serde(default, deserialize_with = "concurrency")]
    #[schemars(schema_with = "schema::concurrency", example = json!(20))]
    pub concurrency: Option<NonZeroU16>,
    /// Timeout of a request. Messages of a request without a response are then in doubt.
    #[serde(default = "half_a_minute")]
    #[schemars(example = json!("30s"))]
    pub timeout: Time,
}

/// Default time within which a reply that names no message is matched by its number.
pub const ANSWERS_WITHIN: Duration = Duration::from_hours(72);

fn three_days() -> Time {
    Time(ANSWERS_WITHIN)
}

/// Reads a time, or `0s` for off.
fn answers_within<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "0s" => Ok(Time(Duration::ZERO)),
        text => {
            text.parse().map_err(|error| serde::de::Error::custom(format!("{error}; use 0s to turn it off")))
        }
    }
}

fn half_a_minute() -> Time {
    Time(REQUEST_TIMEOUT)
}

/// A header of callbacks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallbackHeader {
    /// Name of the header.
    #[schemars(example = json!("X-Callback-Key"))]
    pub name: String,
    /// Value of the header.
    #[schemars(example = json!({ "env": "CALLBACK_HEADER" }))]
    pub value: Secret,
}

/// Reads the name of a provider.
fn provider<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static Kind, D::Error> {
    let name = String::deserialize(deserializer)?;
    kind(&name).ok_or_else(|| {
        let near = nearest(&name, PROVIDERS.iter().map(|kind| kind.name));
        serde::de::Error::custom(format!("unknown provider {name:?}{near}"))
    })
}

/// Limits of an account, each in the form `80/s`, `200/min`, `10/h` or `10000/d`, optionally with a burst:
/// `80/s,burst=100`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Maximum rate of the account's requests. The default is 200/min with Exotel, and no limit with other providers.
    #[schemars(example = json!("200/min"))]
    pub requests: Option<Rate>,
    /// Maximum rate of messages for each sender number. The default is 80/s.
    #[schemars(example = json!("80/s"))]
    pub messages: Option<Rate>,
    /// Maximum number of unique recipients of the account in a rolling period, e.g. 24 hours with `10000/d`. The default is
    /// no limit.
    #[schemars(example = json!("10000/d"))]
    pub recipients: Option<Rate>,
}

impl AccountConfig {
    /// Returns the provider's URL, from `base_url` or the region.
    ///
    /// # Errors
    ///
    /// When neither is set, or the region is unknown.
    pub fn address(&self, name: &str) -> Result<Url, ConfigError> {
        let regions = self.provider.regions;
        let known = || regions.iter().map(|(known, _)| *known);
        let address = match (&self.base_url, &self.region, regions) {
            (Some(url), ..) => return Ok(url.clone()),
            (None, Some(region), _) => regions.iter().find(|(known, _)| known == region),
            (None, None, [only]) => Some(only),
            (None, None, _) => {
                let known = known().collect::<Vec<_>>().join(", ");
                return Err(ConfigError(format!("accounts.{name} needs region ({known}) or base_url")));
            }
        };
        let address = address.and_then(|(_, address)| address.parse().ok());
        address.ok_or_else(|| {
            let region = self.region.as_deref().unwrap_or_default();
            let near = nearest(region, known());
            ConfigError(format!(
                "accounts.{name}.region {region:?} is unknown to {}{near}",
                self.provider.name
            ))
        })
    }

    /// Returns the credentials.
    ///
    /// # Errors
    ///
    /// When a credential is missing, with how to set it.
    pub fn credentials(&self, name: &str) -> Result<Credentials, ConfigError> {
        let needs = |key: &str| self.provider.needs.contains(&key);
        let missing = |key: &str| {
            let variable = format!("FLOWCAST_ACCOUNTS__{}__{}", name.to_uppercase(), key.to_uppercase());
            ConfigError(format!(
                "accounts.{name}.{key} is missing: set it in the configuration, or as {variable}"
            ))
        };
        let secret = |key: &str, secret: &Option<Secret>| match secret {
            _ if !needs(key) => Ok(SecretString::from("")),
            Some(secret) => secret.read(&format!("accounts.{name}.{key}")),
            None => Err(missing(key)),
        };
        let account_sid = self.account_sid.clone().unwrap_or_default();
        if needs("account_sid") && account_sid.is_empty() {
            return Err(missing("account_sid"));
        }
        Ok(Credentials {
            account_sid,
            api_key: secret("api_key", &self.api_key)?,
            api_token: secret("api_token", &self.api_token)?,
            callback_fields: self.callback_fields.clone(),
            callback_profile_id: self.callback_profile_id.clone(),
            callback_header: {
                let header = self.callback_header.as_ref().map(|header| {
                    let value = header.value.read(&format!("accounts.{name}.callback_header.value"))?;
                    Ok::<_, ConfigError>((header.name.clone(), value))
                });
                header.transpose()?
            },
            app_secret: {
                let key = format!("accounts.{name}.app_secret");
                self.app_secret.as_ref().map(|secret| secret.read(&key)).transpose()?
            },
        })
    }
}

fn concurrency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU16>, D::Error> {
    whole_number(deserializer, "1 to 65535").map(Some)
}
