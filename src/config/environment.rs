//! Environment variables as a part of the configuration.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

/// Tables of the configuration.
const TABLES: [&str; 9] =
    ["AMQP", "REDIS", "STORE", "HTTP", "AUDIENCES", "ACCOUNTS", "WORKER", "CALLBACKS", "EVENTS"];

/// Returns the correct name of a variable such as `FLOWCAST_REDIS_URL`.
///
/// That one has a single underscore after its table. An account with an underscore in its name cannot be recognised.
pub(super) fn misspelt(name: &str) -> Option<String> {
    let key = name.strip_prefix("FLOWCAST_").filter(|key| !key.contains("__"))?;
    let (table, rest) = key.split_once('_').filter(|(table, _)| TABLES.contains(table))?;
    // Below `accounts`, the account's name is a table too.
    let rest = if table == "ACCOUNTS" { rest.replacen('_', "__", 1) } else { rest.into() };
    Some(format!("FLOWCAST_{table}__{rest}"))
}

/// Environment variables, e.g. `FLOWCAST_REDIS__URL` for `redis.url`.
///
/// Values stay texts, so a token of digits does not become a number. Lists and tables are written as in TOML.
pub(super) struct Environment;

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment variables FLOWCAST_…")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (name, value) in std::env::vars() {
            let Some(key) = name.strip_prefix("FLOWCAST_").filter(|key| key.contains("__")) else { continue };
            let value = match value.trim_start().chars().next() {
                // Parsed as TOML; an invalid value stays a text.
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
