//! State and settings of the servers, for `flowcast doctor`.

use std::collections::HashMap;

use redis::{Client, RedisError};
use secrecy::SecretString;

use super::address::{Address, config, refusal};
use super::{RedisClientError, errors::words};

/// State and settings of a server.
pub struct RedisNode {
    facts: HashMap<String, String>,
    settings: HashMap<String, String>,
    /// Clock of the server.
    pub time: jiff::Timestamp,
}

impl RedisNode {
    /// Returns a value of its `INFO`.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// Returns a setting, if the server allows `CONFIG GET`.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Whether it belongs to a cluster.
    pub fn is_cluster(&self) -> bool {
        self.fact("cluster_enabled") == Some("1")
    }
}

/// Returns the state and settings of each server of an address.
///
/// # Errors
///
/// When the address is invalid.
pub async fn probe_nodes(
    addresses: &SecretString,
) -> Result<Vec<Result<RedisNode, RedisClientError>>, RedisClientError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut nodes = Vec::new();
    for client in Address::read(addresses)?.each().await {
        let asked = match client {
            Ok(client) => ask_node(&client).await,
            Err(error) => Err(error),
        };
        nodes.push(asked.map_err(|error| RedisClientError::Away(words(&error))));
    }
    Ok(nodes)
}

async fn ask_node(client: &Client) -> Result<RedisNode, RedisError> {
    let mut one = match client.get_multiplexed_async_connection_with_config(&config()).await {
        Ok(one) => one,
        Err(error) => return Err(refusal(client).await.unwrap_or(error)),
    };
    let info: String = redis::cmd("INFO").query_async(&mut one).await?;
    let lines = info.lines().filter_map(|line| line.split_once(':'));
    let facts = lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let asked = jiff::Timestamp::now();
    let (seconds, micros): (i64, i32) = redis::cmd("TIME").query_async(&mut one).await?;
    // The answer was created half a round trip ago.
    let half = jiff::Timestamp::now().duration_since(asked) / 2;
    let time = jiff::Timestamp::new(seconds, micros * 1000).unwrap_or_default() + half;
    let mut settings = HashMap::new();
    for name in ["appendfsync", "maxmemory-policy"] {
        // Hosted servers forbid it.
        let asked: Result<HashMap<String, String>, _> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut one).await;
        settings.extend(asked.unwrap_or_default());
    }
    Ok(RedisNode { facts, settings, time })
}
