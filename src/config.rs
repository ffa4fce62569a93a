//! The configuration: `flowcast.toml`, each key overridden by the environment.
//!
//! It is read once and handed on in parts; no module sees more of it than it needs.

mod schema;

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use figment::error::Kind as Fault;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use url::Url;

pub use self::schema::config_schema;
pub use crate::campaign::Span as Time;
use crate::campaign::problem::nearest;
use crate::campaign::rules::is_link;
use crate::campaign::{EventName, PriceList, Rate};
use crate::provider::transport::REQUEST_TIMEOUT;
use crate::provider::{Credentials, Kind, PROVIDERS, kind};

/// Where the configuration is looked for when nothing names a file.
const DEFAULT_FILE: &str = "flowcast.toml";

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
    pub store: Store,
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

/// What is set in a configuration: the names of its keys as `http.listen`, with digests of their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, blake3::Hash>);

impl Settings {
    fn of(tables: &Value) -> Self {
        fn add(value: &Value, name: &str, to: &mut BTreeMap<String, blake3::Hash>) {
            if let Value::Dict(_, dict) = value {
                for (key, value) in dict {
                    add(value, &if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, to);
                }
            } else {
                let json = serde_json::to_vec(value).unwrap_or_default();
                to.insert(name.to_owned(), blake3::hash(&json));
            }
        }
        let mut all = BTreeMap::new();
        add(tables, "", &mut all);
        Self(all)
    }

    /// The names of those that are others in `now`, or in one of both alone.
    pub fn changed<'s>(&'s self, now: &'s Self) -> impl Iterator<Item = &'s str> {
        let is_other = |(name, digest): &(&String, &blake3::Hash)| now.0.get(*name) != Some(*digest);
        let gone = self.0.iter().filter(is_other).map(|(name, _)| name.as_str());
        gone.chain(now.0.keys().filter(|name| !self.0.contains_key(*name)).map(String::as_str))
    }
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
pub struct Store {
    /// Path of the store's file.
    #[schemars(example = json!("flowcast.db"))]
    pub path: PathBuf,
}

impl Default for Store {
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
    #[schemars(example = json!("https://flowcast.example.com"))]
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
    /// Keys that seal the addresses of reports: the first key seals, every key opens. To replace a key, insert the
    /// new key before it, and remove the old key when its campaigns have ended. Without any, the ledger creates a
    /// key and keeps it.
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
#[serde(deny_unknown_fields)]
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

/// A list of events, none of which would never come.
fn event_patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let wanted = Vec::<String>::deserialize(deserializer)?;
    let known = EventName::patterns();
    if let Some(unknown) = wanted.iter().find(|wanted| !known.contains(*wanted)) {
        let near = nearest(unknown, known.iter().map(String::as_str));
        return Err(serde::de::Error::custom(format!("there are no events {unknown:?}{near}")));
    }
    Ok(wanted)
}

fn web_address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = text.parse().ok().filter(|_| is_link(&text));
    url.ok_or_else(|| serde::de::Error::custom("must be an http:// or https:// address"))
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
    #[schemars(example = json!("https://api.example.com"))]
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

/// For how long after a message an answer that names none is taken for one to it, unless an account says otherwise.
pub const ANSWERS_WITHIN: Duration = Duration::from_hours(72);

fn three_days() -> Time {
    Time(ANSWERS_WITHIN)
}

/// A time, or `0s` for none.
fn answers_within<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "0s" => Ok(Time(Duration::ZERO)),
        text => text
            .parse()
            .map_err(|fault| serde::de::Error::custom(format!("{fault}; 0s is for keeping nothing"))),
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

/// A provider by its name.
fn provider<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static Kind, D::Error> {
    let name = String::deserialize(deserializer)?;
    kind(&name).ok_or_else(|| {
        let near = nearest(&name, PROVIDERS.iter().map(|kind| kind.name));
        serde::de::Error::custom(format!("the provider {name:?} is unknown{near}"))
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
    /// Maximum number of unique recipients of the account in a rolling 24 hours. The default is no limit.
    #[schemars(example = json!("10000/d"))]
    pub recipients: Option<Rate>,
}

/// A secret: the text itself, `{ file = "…" }` for the content of a file, or `{ env = "…" }` for an environment
/// variable. Logs never show it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "must be the text itself, { file = \"…\" } or { env = \"…\" }"
)]
pub enum Secret {
    /// The secret itself.
    Plain(#[schemars(with = "String")] SecretString),
    /// A file that contains the secret.
    File {
        /// Path of the file.
        #[schemars(example = json!("/run/secrets/token"))]
        file: PathBuf,
    },
    /// An environment variable that contains the secret.
    Env {
        /// Name of the variable.
        #[schemars(example = json!("EXOTEL_TOKEN"))]
        env: String,
    },
}

/// A configuration that can't be used; it names the key, where it came from and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Secret {
    /// Reads the secret that stands at `key` of the configuration.
    ///
    /// # Errors
    ///
    /// When its file or variable is not there, or it is empty.
    pub fn read(&self, key: &str) -> Result<SecretString, ConfigError> {
        use secrecy::ExposeSecret;
        let secret = match self {
            Self::Plain(secret) => secret.clone(),
            Self::File { file } => {
                let text = std::fs::read_to_string(file)
                    .map_err(|fault| ConfigError(format!("{key}: can't read {}: {fault}", file.display())))?;
                text.trim_end_matches(['\r', '\n']).to_string().into()
            }
            Self::Env { env } => std::env::var(env)
                .map(SecretString::from)
                .map_err(|_| ConfigError(format!("{key}: the variable {env} is not set")))?,
        };
        if secret.expose_secret().is_empty() {
            return Err(ConfigError(format!("{key} is empty")));
        }
        Ok(secret)
    }
}

impl AccountConfig {
    /// The provider's address, by region or by itself.
    ///
    /// # Errors
    ///
    /// When it is neither given nor known.
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

    /// What the provider needs to know its customer by.
    ///
    /// # Errors
    ///
    /// When something is missing, with how to give it.
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

impl Config {
    /// The file that the configuration is read from, if any: `file`, else `FLOWCAST_CONFIG`, else
    /// `./flowcast.toml` where there is one.
    pub fn file(file: Option<&Path>) -> Option<PathBuf> {
        let named = || std::env::var_os("FLOWCAST_CONFIG").map(PathBuf::from);
        let usual = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file());
        file.map(Path::to_path_buf).or_else(named).or_else(usual)
    }

    /// Reads the configuration: `file`, else `FLOWCAST_CONFIG`, else `./flowcast.toml` where there is
    /// one; then the environment.
    ///
    /// # Errors
    ///
    /// When a file that was named is not there, or a key is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = Self::file(file) {
            if !path.is_file() {
                return Err(ConfigError(format!("no such configuration file: {}", path.display())));
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        let figment = figment.merge(Environment);
        let config: Self = figment.extract().map_err(|error| ConfigError(explain(error)))?;
        let tables: Dict = figment.extract().map_err(|error| ConfigError(explain(error)))?;
        let tables = Value::from(tables);
        if let Some(place) = list_for_table(&tables, &mut Vec::new()) {
            return Err(ConfigError(format!("{place}: must be a table or a value, and is a list")));
        }
        Ok(Self { settings: Settings::of(&tables), ..config })
    }

    /// Tells of variables that look as if they were meant to be read here, and are not.
    pub fn warn_of_misspelt_variables(file: Option<&Path>) {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let text = Self::file(file).and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        for (name, meant) in names.filter_map(|name| Some((name.clone(), misspelt(&name)?))) {
            // It may hold a secret that the file names.
            if !text.contains(&name) {
                tracing::warn!(
                    "the variable {name} is not read: a table and its key have two underscores between them, as {meant}"
                );
            }
        }
    }

    /// What is set, to tell later what has changed.
    pub fn settings(&self) -> Settings {
        self.settings.clone()
    }
}

/// The keys that are lists, with the tables around them.
const LISTS: [&str; 6] = [
    "callbacks.keys",
    "callbacks.stop_words",
    "http.tokens",
    "audiences.allow",
    "events.webhooks",
    "events.webhooks.events",
];

/// Where a list stands that should not: serde would read it as a table's values in their order.
fn list_for_table(value: &Value, path: &mut Vec<String>) -> Option<String> {
    let items = match value {
        Value::Array(_, items) => items,
        Value::Dict(_, dict) => {
            return dict.iter().find_map(|(key, value)| {
                path.push(key.clone());
                let found = list_for_table(value, path);
                path.pop();
                found
            });
        }
        _ => return None,
    };
    let is_list = LISTS.contains(&path.join(".").as_str());
    if !is_list || items.iter().any(|item| matches!(item, Value::Array(..))) {
        return Some(path.join("."));
    }
    items.iter().find_map(|item| list_for_table(item, path))
}

/// The tables of the configuration.
const TABLES: [&str; 9] =
    ["AMQP", "REDIS", "STORE", "HTTP", "AUDIENCES", "ACCOUNTS", "WORKER", "CALLBACKS", "EVENTS"];

/// What a variable should be called that names a key with one underscore: `FLOWCAST_REDIS_URL`.
fn misspelt(name: &str) -> Option<String> {
    let key = name.strip_prefix("FLOWCAST_").filter(|key| !key.contains("__"))?;
    let (table, rest) = key.split_once('_').filter(|(table, _)| TABLES.contains(table))?;
    Some(format!("FLOWCAST_{table}__{rest}"))
}

/// Figment's error, with the key, its source and the nearest name.
fn explain(fault: figment::Error) -> String {
    let each = |fault: figment::Error| {
        let from = fault.metadata.as_ref().map(|metadata| match &metadata.source {
            Some(source) => format!("{source}: "),
            None => format!("{}: ", metadata.name),
        });
        let key = if fault.path.is_empty() { String::new() } else { format!("{}: ", fault.path.join(".")) };
        let what = match &fault.kind {
            Fault::UnknownField(name, known) => {
                format!("unknown key {name:?}{}", nearest(name, known.iter().copied()))
            }
            kind => kind.to_string(),
        };
        format!("{}{key}{what}", from.unwrap_or_default())
    };
    fault.into_iter().map(each).collect::<Vec<_>>().join("\n")
}

/// `FLOWCAST_REDIS__URL` is `redis.url`. A value stays the text that it is: a token of digits is no
/// number. Lists and tables are written as in TOML.
struct Environment;

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment variables FLOWCAST_…")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (name, value) in std::env::vars() {
            let Some(key) = name.strip_prefix("FLOWCAST_").filter(|key| key.contains("__")) else { continue };
            let value = match value.trim_start().chars().next() {
                // Parsed as TOML is; what can't be is a text again.
                Some('[' | '{') => value.parse().unwrap_or_else(|_| Value::from(value.clone())),
                _ => Value::from(value),
            };
            let path = key.to_lowercase().replace("__", ".");
            let nested = figment::util::nest(&path, value);
            if let Value::Dict(_, dict) = nested {
                merge(&mut root, dict);
            }
        }
        Ok(Profile::Default.collect(root))
    }
}

fn merge(into: &mut Dict, from: Dict) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Dict(_, known)), Value::Dict(_, more)) => merge(known, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// A number, or a text that holds one: the environment knows only texts.
fn number<'de, T: Deserialize<'de> + FromStr, D: Deserializer<'de>>(
    deserializer: D,
    range: &str,
) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        Number(T),
        Text(String),
    }
    let wrong = || serde::de::Error::custom(format!("must be a whole number from {range}"));
    match Either::deserialize(deserializer).map_err(|_| wrong())? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.trim().parse().map_err(|_| wrong()),
    }
}

fn concurrency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU16>, D::Error> {
    number(deserializer, "1 to 65535").map(Some)
}

fn replicas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    number(deserializer, "0 to 4294967295")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn load(toml: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flowcast.toml");
        std::fs::write(&path, toml).unwrap();
        Config::load(Some(&path))
            .map_err(|fault| ConfigError(fault.0.replace(&folder.path().display().to_string(), "")))
    }

    #[test]
    fn a_variable_with_one_underscore_is_told_from_others() {
        assert_eq!(misspelt("FLOWCAST_REDIS_URL").as_deref(), Some("FLOWCAST_REDIS__URL"));
        assert_eq!(misspelt("FLOWCAST_HTTP_PUBLIC_URL").as_deref(), Some("FLOWCAST_HTTP__PUBLIC_URL"));
        for right in ["FLOWCAST_REDIS__URL", "FLOWCAST_TOKEN", "FLOWCAST_LOG", "FLOWCAST_CONFIG", "REDIS_URL"]
        {
            assert_eq!(misspelt(right), None, "{right}");
        }
    }

    #[test]
    fn a_webhook_asks_for_events_that_there_are() {
        let webhook = |events: &str| {
            load(&format!("[events]\nwebhooks = [{{ url = \"https://example.com\", events = {events} }}]"))
        };
        assert!(webhook(r#"["*", "message.*", "flow.completed"]"#).is_ok());
        for (wrong, meant) in
            [("campain.*", "campaign.*"), ("message.x.*", ""), ("campaign", "campaign.*"), ("mess*", "")]
        {
            let error = webhook(&format!("[{wrong:?}]")).unwrap_err().to_string();
            assert!(
                error.contains(&format!("there are no events {wrong:?}")) && error.contains(meant),
                "{error}"
            );
        }
    }

    #[test]
    fn the_contracts_example_is_read() {
        let config = load(
            r#"
            [amqp]
            url = "amqp://guest:guest@127.0.0.1:5672/%2f"
            [redis]
            url = "redis://127.0.0.1:6379/0"
            [store]
            path = "x.db"
            [http]
            listen = "127.0.0.1:8080"
            public_url = "https://campaigns.example.com"
            tokens = [{ name = "marketing", role = "operator", token = { env = "FLOWCAST_TOKEN" } }]
            [audiences]
            root = "audiences"
            allow = ["https://files.example.com/"]
            [accounts.main]
            provider = "exotel"
            region = "mumbai"
            account_sid = "acme1"
            api_key = "key1"
            api_token = "token1"
            limits = { requests = "200/min", messages = "80/s", recipients = "10000/d" }
            concurrency = 8
            [accounts.kaleyra]
            provider = "kaleyra"
            region = "in"
            account_sid = "HXAP1600000097IN"
            api_key = "x"
            "#,
        )
        .unwrap();
        let main = &config.accounts["main"];
        assert_eq!(main.address("main").unwrap().as_str(), "https://api.in.exotel.com/");
        assert_eq!(main.concurrency.map(NonZeroU16::get), Some(8));
        let kaleyra = &config.accounts["kaleyra"];
        assert_eq!(kaleyra.address("kaleyra").unwrap().as_str(), "https://api.in.kaleyra.io/");
        assert_eq!(kaleyra.credentials("kaleyra").unwrap().account_sid, "HXAP1600000097IN");
        assert!(!format!("{config:?}").contains("token1"));
        assert!(!format!("{config:?}").contains("guest"));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_file_and_the_nearest() {
        let fault = load("[accounts.main]\nprovider = \"exotel\"\nacount_sid = \"x\"").unwrap_err().0;
        assert!(fault.contains("flowcast.toml: accounts.main"), "{fault}");
        assert!(fault.contains("unknown key \"acount_sid\"; did you mean \"account_sid\"?"), "{fault}");
        let fault =
            load("[accounts.main]\nprovider = \"exotel\"\nlimits = { messages = \"0/s\" }").unwrap_err().0;
        assert!(
            fault.contains("accounts.main.limits.messages") && fault.contains("can never be met"),
            "{fault}"
        );
    }

    #[test]
    fn answers_are_found_for_three_days_for_another_time_or_not_at_all() {
        let within = |line: &str| {
            let config = load(&format!("[accounts.main]\nprovider = \"exotel\"\n{line}"));
            config.map(|config| config.accounts["main"].answers_within.0)
        };
        assert_eq!(within("").unwrap(), Duration::from_hours(72));
        assert_eq!(within("answers_within = \"2h\"").unwrap(), Duration::from_hours(2));
        assert_eq!(within("answers_within = \"0s\"").unwrap(), Duration::ZERO);
        let fault = within("answers_within = \"soon\"").unwrap_err().0;
        assert!(fault.contains("accounts.main.answers_within") && fault.contains("0s"), "{fault}");
    }

    #[test]
    fn a_provider_or_a_region_that_is_not_known_names_the_nearest() {
        let fault = load("[accounts.main]\nprovider = \"kaleira\"").unwrap_err().0;
        assert!(fault.contains("the provider \"kaleira\" is unknown; did you mean \"kaleyra\"?"), "{fault}");
        let config = load("[accounts.main]\nprovider = \"kaleyra\"\nregion = \"mumbai\"").unwrap();
        assert_eq!(
            config.accounts["main"].address("main").unwrap_err().0,
            "accounts.main.region \"mumbai\" is unknown to kaleyra; known here: in, ap, eu"
        );
    }

    #[test]
    fn times_have_their_defaults() {
        let config = load("[redis]\nurl = \"redis://x\"\n[worker]\ngrace = \"5s\"").unwrap();
        assert_eq!(
            (config.worker.grace, config.redis.unwrap().keep_for),
            (Time(Duration::from_secs(5)), thirty_days())
        );
    }

    #[test]
    fn a_missing_credential_says_how_to_give_it() {
        let config = load("[accounts.main]\nprovider = \"exotel\"\naccount_sid = \"a\"").unwrap();
        let fault = config.accounts["main"].credentials("main").err().unwrap().0;
        assert_eq!(
            fault,
            "accounts.main.api_key is missing: set it in the configuration, or as FLOWCAST_ACCOUNTS__MAIN__API_KEY"
        );
        let env = Secret::Env { env: "FLOWCAST_NO_SUCH".into() };
        assert_eq!(env.read("k").unwrap_err().0, "k: the variable FLOWCAST_NO_SUCH is not set");
    }

    #[test]
    fn numbers_may_be_texts_as_in_the_environment() {
        let with = |replicas: &str| load(&format!("[redis]\nurl = \"redis://h\"\nreplicas = {replicas}\n"));
        for replicas in ["2", "\"2\""] {
            assert_eq!(with(replicas).unwrap().redis.unwrap().replicas, 2);
        }
        for replicas in ["-1", "\"two\"", "[]"] {
            let fault = with(replicas).unwrap_err().to_string();
            assert!(fault.contains("redis.replicas") && fault.contains("whole number from 0"), "{fault}");
        }
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(Secret::File { file: file.clone() }.read("k").unwrap().expose_secret(), "s3cret");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(Secret::File { file }.read("k").unwrap_err().0, "k is empty");
    }
}
