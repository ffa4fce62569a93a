//! The configuration: `flowcast.toml`, each key overridden by the environment.
//!
//! It is read once and passed on in parts; no module gets more of it than it needs.

mod account;
mod environment;
mod loading;
mod schema;
mod secret;
mod settings;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use url::Url;

pub use self::account::{ANSWERS_WITHIN, AccountConfig, CallbackHeader, Limits};
pub use self::schema::config_schema;
pub use self::secret::Secret;
pub use self::settings::Settings;
pub use crate::campaign::HumanDuration as Time;
use crate::campaign::{EventName, price::number, problem::nearest, rules::is_link};

/// All of it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// RabbitMQ, the broker of a fleet.
    #[schemars(example = json!({ "url": "amqp://guest:guest@127.0.0.1:5672/%2f" }))]
    pub amqp: Option<Address>,
    /// Redis, the ledger of a fleet. Without it, the ledger is the embedded store.
    #[schemars(example = json!({ "url": "redis://127.0.0.1:6379/0" }))]
    pub redis: Option<Redis>,
    /// Settings of a worker.
    #[schemars(example = json!({ "grace": "40s" }))]
    pub worker: Worker,
    /// The embedded store, which is the ledger without `redis`.
    #[schemars(example = json!({ "path": "flowcast.db" }))]
    pub store: StoreConfig,
    /// The HTTP server of a worker.
    #[schemars(example = json!({ "listen": "127.0.0.1:8080" }))]
    pub http: Http,
    /// Delivery reports from providers, and webhooks.
    #[schemars(example = json!({ "keys": [{ "env": "CALLBACK_KEY" }] }))]
    pub callbacks: CallbackConfig,
    /// Sources of audiences.
    #[schemars(example = json!({ "root": "audiences" }))]
    pub audiences: Audiences,
    /// Events that are published by HTTP.
    #[schemars(example = json!({ "webhooks": [{ "url": "https://example.com/events" }] }))]
    pub events: EventsConfig,
    /// Accounts at providers, by name: credentials and limits.
    #[schemars(example = json!({ "main": { "provider": "exotel", "region": "mumbai", "account_sid": "example1", "api_key": { "env": "EXOTEL_KEY" }, "api_token": { "env": "EXOTEL_TOKEN" } } }))]
    pub accounts: BTreeMap<String, AccountConfig>,
    #[serde(skip)]
    settings: Settings,
}

/// The URL of a server, which may contain credentials.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// URL of RabbitMQ, e.g. `amqp://guest:guest@127.0.0.1:5672/%2f`. Commas separate the nodes of a cluster.
    #[schemars(example = json!("amqp://guest:guest@127.0.0.1:5672/%2f"))]
    pub url: Secret,
}

/// Redis, the ledger of a fleet.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// URL of Redis, e.g. `redis://user:password@127.0.0.1:6379/0`, or `rediss://` with TLS. Commas separate the
    /// nodes of a cluster. With Sentinel: `redis+sentinel://user:password@host:26379,host:26379/service/0`.
    #[schemars(example = json!("redis://127.0.0.1:6379/0"))]
    pub url: Secret,
    /// Number of replicas that must have a claim before its request is sent.
    #[serde(default, deserialize_with = "replicas")]
    #[schemars(schema_with = "schema::replicas", example = json!(1))]
    pub replicas: u32,
    /// Time for which a campaign is kept after it has ended.
    #[serde(default = "thirty_days")]
    #[schemars(example = json!("30d"))]
    pub keep_for: Time,
}

fn thirty_days() -> Time {
    Time(Duration::from_hours(30 * 24))
}

/// Settings of a worker.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Maximum time for which a worker that is stopped finishes the requests in flight.
    #[schemars(example = json!("40s"))]
    pub grace: Time,
}

impl Default for Worker {
    fn default() -> Self {
        Self { grace: Time(Duration::from_secs(40)) }
    }
}

/// The embedded store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Path of the store's file.
    #[schemars(example = json!("flowcast.db"))]
    pub path: PathBuf,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { path: "flowcast.db".into() }
    }
}

/// The HTTP server of a worker.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port on which the worker listens.
    #[schemars(example = json!("127.0.0.1:8080"))]
    pub listen: String,
    /// Public URL of the worker, to which providers send their reports. Without it, flowcast receives no reports.
    #[serde(deserialize_with = "optional_web_address")]
    #[schemars(schema_with = "schema::web_address", example = json!("https://flowcast.example.com"))]
    pub public_url: Option<Url>,
    /// Tokens of the API and the dashboard. Without any, both answer on loopback only.
    #[schemars(example = json!([{ "name": "reports", "role": "viewer", "token": { "env": "REPORTS_TOKEN" } }]), extend("default" = json!([])))]
    pub tokens: Vec<Token>,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8080".into(), public_url: None, tokens: Vec::new() }
    }
}

/// Delivery reports from providers, which arrive at `http.public_url`, and webhooks.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallbackConfig {
    /// Keys that seal the addresses of reports: the first key seals, every key opens. To replace a key, add the new
    /// key after it, then move it before the old key, and remove the old key when its campaigns have ended. Without any,
    /// the ledger creates a key and keeps it.
    #[schemars(example = json!([{ "env": "CALLBACK_KEY" }]), extend("default" = json!([])))]
    pub keys: Vec<Secret>,
    /// Key that signs webhooks, and the reports that are forwarded to a job's `status_callback`. Without it, they
    /// are not signed.
    #[schemars(example = json!({ "file": "/run/secrets/signing-key" }))]
    pub signing_key: Option<Secret>,
    /// Whether reports may be forwarded to private addresses, e.g. of a local network.
    #[schemars(example = json!(true))]
    pub forward_to_private: bool,
    /// Words that put a recipient who replies with one of them on the suppression list. The default is STOP,
    /// STOPALL, STOP ALL, UNSUBSCRIBE, CANCEL, END, QUIT and OPT OUT.
    #[schemars(example = json!(["STOP", "UNSUBSCRIBE"]))]
    pub stop_words: Option<Vec<String>>,
}

/// A token of the API.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table with name, role and token")]
pub struct Token {
    /// Name of the holder, which the audit log shows.
    #[schemars(example = json!("reports"))]
    pub name: String,
    /// Rights of the holder: a viewer may read everything, an operator may do everything.
    #[schemars(example = json!("viewer"))]
    pub role: Role,
    /// Token that the client sends.
    #[schemars(example = json!({ "env": "REPORTS_TOKEN" }))]
    pub token: Secret,
}

/// The rights of a token's holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May read everything.
    Viewer,
    /// May do everything.
    Operator,
}

/// Events that are published by HTTP, in addition to the queues that are bound to `flowcast.events`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// Webhooks: URLs to which events are sent.
    #[schemars(example = json!([{ "url": "https://example.com/events" }]), extend("default" = json!([])))]
    pub webhooks: Vec<Webhook>,
}

/// A URL to which events are sent. `docs/reference/events.md` describes the bodies; `callbacks.signing_key` signs them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// URL, http or https.
    #[serde(deserialize_with = "web_address")]
    #[schemars(schema_with = "schema::web_address", example = json!("https://example.com/events"))]
    pub url: Url,
    /// Names of events; `campaign.*` stands for all events of a kind, `*` for all events.
    #[serde(default = "Webhook::campaigns", deserialize_with = "event_patterns")]
    #[schemars(schema_with = "schema::event_patterns", example = json!(["campaign.*", "message.rejected"]))]
    pub events: Vec<String>,
}

impl Webhook {
    fn campaigns() -> Vec<String> {
        vec!["campaign.*".into()]
    }
}

/// Reads a list of events, all of which exist.
fn event_patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let wanted = Vec::<String>::deserialize(deserializer)?;
    let known = EventName::patterns();
    if let Some(unknown) = wanted.iter().find(|wanted| !known.contains(*wanted)) {
        let near = nearest(unknown, known.iter().map(String::as_str));
        return Err(serde::de::Error::custom(format!("unknown events {unknown:?}{near}")));
    }
    Ok(wanted)
}

fn web_address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = text.parse().ok().filter(|_| is_link(&text));
    url.ok_or_else(|| serde::de::Error::custom("must be an http:// or https:// address"))
}

/// Reads the URL of a server, if it is set.
fn optional_web_address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    web_address(deserializer).map(Some)
}

/// Sources of audiences.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audiences {
    /// Folder or bucket of the files: a path, `s3://bucket/folder`, `gs://…` or `az://…`. The default of `run` and
    /// `check` is the folder of the job's file.
    #[schemars(example = json!("audiences"))]
    pub root: Option<String>,
    /// URL prefixes that a job may use in `audience.csv.url`.
    #[schemars(example = json!(["https://example.com/lists/"]))]
    pub allow: Vec<String>,
    /// Maximum number of columns of an audience.
    #[schemars(example = json!(1000))]
    pub columns: usize,
}

impl Default for Audiences {
    fn default() -> Self {
        Self { root: None, allow: Vec::new(), columns: crate::campaign::Columns::USUAL_LIMIT }
    }
}

/// Error of the configuration, with the key, its source and a hint.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn whole_number<'de, T: Deserialize<'de> + FromStr, D: Deserializer<'de>>(
    deserializer: D,
    range: &str,
) -> Result<T, D::Error> {
    let wrong = || serde::de::Error::custom(format!("must be a whole number from {range}"));
    number(deserializer).ok_or_else(wrong)
}

fn replicas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    whole_number(deserializer, "0 to 4294967295")
}
