//! A connection to a server or to a cluster.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr};
use redis::{Cmd, RedisError, RedisFuture, Value, cluster_async::ClusterConnection};

/// Timeout for replicas, in milliseconds.
const REPLICAS: u32 = 500;
/// Number of slots of a cluster.
const SLOTS: u16 = 16384;

/// Connection to a server or to a cluster.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

impl Connection {
    /// Runs a command, and waits until some replicas have what it wrote.
    ///
    /// Returns the answer, and the number of replicas that have it.
    ///
    /// Both are sent in one pipeline, because `WAIT` only covers the writes of its own connection.
    pub(super) async fn replicate(
        &mut self,
        command: Cmd,
        keys: &[String],
        replicas: u32,
    ) -> Result<Value, RedisError> {
        let mut both = redis::pipe();
        both.add_command(command).cmd("WAIT").arg(replicas).arg(REPLICAS);
        let answers = match self {
            Self::One(connection) => connection.req_packed_commands(&both, 0, 2).await?,
            Self::Cluster(connection) => {
                let slot = hash_slot(keys.first().map_or("", String::as_str));
                let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
                connection.route_pipeline(both, 0, 2, route).await?
            }
        };
        Value::Array(answers).extract_error()
    }
}

/// Returns the slot of a key in a cluster: that of its hash tag, if it has one.
fn hash_slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(hashed.as_bytes()) % SLOTS
}
