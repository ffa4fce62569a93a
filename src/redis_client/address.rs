//! Addresses of Redis: a server, nodes of a cluster, or sentinels that name the master.

use std::time::Duration;

use redis::cluster::ClusterClientBuilder;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, TlsMode,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{ANSWER, CONNECT, RedisClientError, connection::Connection};

/// Timeout for the error that a server sends on its own.
const REFUSAL: Duration = Duration::from_millis(500);
/// Timeout for sentinels to name the master.
const MASTER_TIMEOUT: Duration = Duration::from_secs(5);
/// Default port of a sentinel.
const SENTINEL: u16 = 26379;
/// Prefixes of sentinel addresses, and the schemes of the servers that they name.
const SENTINELS: [(&str, &str); 2] = [("redis+sentinel://", "redis"), ("rediss+sentinel://", "rediss")];

/// Checked address.
pub(super) enum Address {
    /// A server, or nodes of a cluster.
    Nodes(Vec<SecretString>),
    /// Sentinels, and the name of the master.
    Sentinels {
        /// Addresses of the sentinels.
        sentinels: Vec<String>,
        /// Name of the master.
        service: String,
        /// Settings of the connection to the master.
        node: Box<SentinelNodeConnectionInfo>,
    },
}

/// The form of an address.
const FORM: &str =
    "the form is redis://user:password@host:6379/0, or rediss:// with TLS; nodes are separated by commas";

impl Address {
    /// Parses an address: of a server, of nodes separated by commas, or
    /// `redis+sentinel://user:password@host:26379,host:26379/service/0`.
    pub(super) fn read(text: &SecretString) -> Result<Self, RedisClientError> {
        let text = text.expose_secret().trim();
        for (start, scheme) in SENTINELS {
            if let Some(rest) = text.strip_prefix(start) {
                return Self::sentinels(rest, scheme).map_err(RedisClientError::Address);
            }
        }
        let nodes: Vec<SecretString> = text.split(',').map(|node| node.trim().to_owned().into()).collect();
        for node in &nodes {
            // The library's error says less than the form.
            Client::open(node.expose_secret()).map_err(|_| RedisClientError::Address(FORM.into()))?;
        }
        Ok(Self::Nodes(nodes))
    }

    fn sentinels(rest: &str, scheme: &str) -> Result<Self, String> {
        let form = "sentinels are named as redis+sentinel://host:26379,host:26379/service/0";
        let (who, rest) = rest.rsplit_once('@').map_or(("", rest), |(who, rest)| (who, rest));
        let mut parts = rest.trim_end_matches('/').split('/');
        let hosts = parts.next().unwrap_or_default();
        let service = parts.next().filter(|service| !service.is_empty()).ok_or(form)?;
        let database = parts.next().unwrap_or("0");
        if parts.next().is_some() {
            return Err(form.into());
        }
        let sentinels: Vec<String> = hosts
            .split(',')
            .map(|host| {
                let host = host.trim();
                // An IPv6 address has colons of its own, within brackets.
                let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                if has_port { format!("redis://{host}/") } else { format!("redis://{host}:{SENTINEL}/") }
            })
            .collect();
        for sentinel in &sentinels {
            Client::open(sentinel.as_str()).map_err(|_| form)?;
        }
        let who = if who.is_empty() { String::new() } else { format!("{who}@") };
        let master = format!("{scheme}://{who}master:6379/{database}");
        let master = master.as_str().into_connection_info().map_err(|_| form)?;
        let mut node =
            SentinelNodeConnectionInfo::default().set_redis_connection_info(master.redis_settings().clone());
        if scheme == "rediss" {
            node = node.set_tls_mode(TlsMode::Secure);
        }
        Ok(Self::Sentinels { sentinels, service: service.into(), node: Box::new(node) })
    }

    /// Connects to the first node that answers and its cluster, or to the master.
    ///
    /// Sentinels name the master.
    pub(super) async fn open(&self) -> Result<Connection, RedisError> {
        match self {
            Self::Nodes(nodes) => open_nodes(nodes).await,
            Self::Sentinels { sentinels, service, node } => {
                let client = master(sentinels, service, node).await?;
                let one = client.get_multiplexed_async_connection_with_config(&config()).await;
                Ok(Connection::One(one?))
            }
        }
    }

    /// Returns a client for each server; with sentinels, one for the master.
    pub(super) async fn each(&self) -> Vec<Result<Client, RedisError>> {
        match self {
            Self::Nodes(nodes) => nodes.iter().map(|node| Client::open(node.expose_secret())).collect(),
            Self::Sentinels { sentinels, service, node } => vec![master(sentinels, service, node).await],
        }
    }
}

/// Returns the settings of a connection.
pub(super) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER))
}

/// Returns the master that sentinels name and that confirms to be it.
async fn master(
    sentinels: &[String],
    service: &str,
    node: &SentinelNodeConnectionInfo,
) -> Result<Client, RedisError> {
    // Queried each time: an isolated sentinel may name an earlier master.
    let mut asked = Sentinel::build(sentinels.to_vec())?;
    let named = tokio::time::timeout(MASTER_TIMEOUT, asked.async_master_for(service, Some(node))).await;
    named.unwrap_or_else(|_| Err((ErrorKind::Io, "no sentinel knows a master that responds").into()))
}

async fn open_nodes(nodes: &[SecretString]) -> Result<Connection, RedisError> {
    let mut last = None;
    for node in nodes {
        let client = Client::open(node.expose_secret())?;
        match client.get_multiplexed_async_connection_with_config(&config()).await {
            Ok(mut one) => {
                let info: String = redis::cmd("INFO").arg("cluster").query_async(&mut one).await?;
                if !info.contains("cluster_enabled:1") {
                    return Ok(Connection::One(one));
                }
                let nodes: Vec<&str> = nodes.iter().map(ExposeSecret::expose_secret).collect();
                let client = ClusterClientBuilder::new(nodes)
                    .connection_timeout(CONNECT)
                    .response_timeout(ANSWER)
                    .retries(3)
                    .build()?;
                return Ok(Connection::Cluster(client.get_async_connection().await?));
            }
            Err(error) => last = Some(refusal(&client).await.unwrap_or(error)),
        }
    }
    Err(last.unwrap_or_else(|| (ErrorKind::InvalidClientConfig, "no address").into()))
}

/// Returns the error with which a server refuses a connection before it closes it.
///
/// A server does so in protected mode, or when it has reached its maximum of clients. Commands then fail with a broken pipe.
pub(super) async fn refusal(client: &Client) -> Option<RedisError> {
    let ConnectionAddr::Tcp(host, port) = client.get_connection_info().addr() else { return None };
    let asked = async {
        let mut stream = TcpStream::connect((host.as_str(), *port)).await.ok()?;
        let mut said = vec![0; 512];
        let length = stream.read(&mut said).await.ok()?;
        said.truncate(length);
        Some(said)
    };
    let said = tokio::time::timeout(REFUSAL, asked).await.ok()??;
    let said = String::from_utf8_lossy(said.strip_prefix(b"-")?).into_owned();
    // The first sentence is the error; the others explain how to configure Redis.
    let first = said.lines().next().unwrap_or_default().split(". ").next().unwrap_or_default();
    Some((ErrorKind::Io, "the server refuses the connection", first.to_owned()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Address, String> {
        Address::read(&text.to_owned().into()).map_err(|error| error.to_string())
    }

    #[test]
    fn sentinels_are_parsed_with_their_service_database_and_password() {
        let Ok(Address::Sentinels { sentinels, service, node }) =
            read("redis+sentinel://worker:p%40ss@a:26380,b,[::1]:26381/campaigns/2")
        else {
            panic!("no sentinels")
        };
        assert_eq!(sentinels, ["redis://a:26380/", "redis://b:26379/", "redis://[::1]:26381/"]);
        assert_eq!(service, "campaigns");
        assert!(!format!("{node:?}").contains("p@ss"));
        assert!(matches!(read("redis+sentinel://a/x"), Ok(Address::Sentinels { .. })));
    }

    #[test]
    fn an_invalid_address_is_refused_without_its_password() {
        for text in [
            "redis+sentinel://:s3cret@a",
            "redis+sentinel://:s3cret@a/",
            "redis+sentinel://:s3cret@a/x/0/y",
            "redis+sentinel://:s3cret@a/x/none",
            "redis+sentinel://:s3cret@/x",
            "http://:s3cret@a",
        ] {
            let refused = read(text).err().unwrap_or_else(|| panic!("{text} is read"));
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }
}
