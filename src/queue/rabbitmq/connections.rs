//! The connections to the broker: opened, checked and closed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{sync::Arc, time::Duration};

use lapin::{Channel, Connection, ConnectionProperties, options::ConfirmSelectOptions, uri::AMQPUri};
use tokio::time::Instant;

use super::{broker::answered, consuming::ConsumerHealth, tls, topology};
use crate::backoff::Backoff;
use crate::queue::QueueError;

/// The interval between heartbeats, in seconds. The broker detects a frozen worker after two intervals.
const HEARTBEAT: u16 = 10;
/// The timeout for connecting, and for a response.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// The timeout for closing connections.
pub(super) const CLOSE: Duration = Duration::from_secs(2);
/// The time for which a command waits for the broker.
pub(super) const SHORT: Duration = Duration::from_secs(5);
/// The delays before a connection is tried again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), MAX_RETRY_DELAY);
/// The longest delay before an operation is tried again.
pub(super) const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The state that all clones of a [`super::Broker`] share.
pub(super) struct BrokerState {
    /// The nodes of the cluster; one connection to any of them is enough.
    pub(super) nodes: Vec<AMQPUri>,
    /// The index of the node that is tried first the next time.
    pub(super) next: AtomicUsize,
    /// Whether to wait for the broker forever.
    pub(super) patient: bool,
    pub(super) is_here: AtomicBool,
    /// The health of the consumer of jobs.
    pub(super) intake: ConsumerHealth,
    pub(super) unconfirmed: AtomicBool,
}

impl BrokerState {
    /// Connects. A patient caller waits for the broker.
    pub(super) async fn open(&self) -> Result<ConnectionPair, QueueError> {
        let since = Instant::now();
        let mut retry = RETRY;
        loop {
            let why = match self.open_any().await {
                Ok(link) => {
                    if !self.is_here.swap(true, Ordering::Relaxed) && self.patient {
                        tracing::info!("connected to RabbitMQ");
                    }
                    return Ok(link);
                }
                Err(refused @ QueueError::Refused(_)) => return Err(refused),
                Err(passing) => passing.why().to_owned(),
            };
            let is_news = self.is_here.swap(false, Ordering::Relaxed) || retry.is_first();
            // An impatient caller reports the error itself.
            if is_news && self.patient {
                tracing::warn!(error = why, "RabbitMQ is unreachable");
            } else {
                tracing::debug!(error = why, "RabbitMQ is still unreachable");
            }
            if !self.patient && since.elapsed() > SHORT {
                return Err(QueueError::Failed(format!(
                    "is unreachable: {why}; is RabbitMQ running, and is amqp.url correct?"
                )));
            }
            tokio::time::sleep(retry.next_delay()).await;
        }
    }

    /// Connects to the first node that accepts it, starting after the last one tried.
    async fn open_any(&self) -> Result<ConnectionPair, QueueError> {
        let nodes = &self.nodes;
        let mut errors = Vec::new();
        for _ in nodes {
            let nth = self.next.fetch_add(1, Ordering::Relaxed) % nodes.len();
            let Some(node) = nodes.get(nth) else { continue };
            match open(node).await {
                Ok(link) => return Ok(link),
                Err(refused @ QueueError::Refused(_)) => return Err(refused),
                Err(passing) => errors.push((nth, passing.why().to_owned())),
            }
        }
        errors.sort_unstable();
        let text = match &errors[..] {
            [(_, error)] => error.clone(),
            _ => errors
                .iter()
                .filter_map(|(nth, error)| Some((&nodes.get(*nth)?.authority, error)))
                .map(|(node, error)| format!("{}:{} {error}", node.host, node.port))
                .collect::<Vec<_>>()
                .join("; "),
        };
        Err(QueueError::Failed(text))
    }
}

/// A pair of open connections, and the channel that publishes.
#[derive(Clone)]
pub(super) struct ConnectionPair {
    pub(super) publishing: Arc<Connection>,
    pub(super) consuming: Arc<Connection>,
    pub(super) publisher: Channel,
}

impl ConnectionPair {
    pub(super) fn lives(&self) -> bool {
        self.publishing.status().connected()
            && self.consuming.status().connected()
            && self.publisher.status().connected()
    }

    /// Closes both connections. lapin leaves a connection open after its last handle is dropped.
    pub(super) async fn close(self) {
        let closing = async {
            let _ = self.consuming.close(200, "done".into()).await;
            let _ = self.publishing.close(200, "done".into()).await;
        };
        let _ = tokio::time::timeout(CLOSE, closing).await;
    }
}

/// Opens a connection to a node.
pub(super) async fn connect(node: &AMQPUri, name: &str) -> Result<Connection, QueueError> {
    let mut uri = node.clone();
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connected = answered(tls::connect(uri, properties)).await?;
    connected.map_err(|error| {
        QueueError::Failed(if error.is_amqp_error() {
            format!("refused the connection: {error}; are user, password and virtual host correct?")
        } else {
            error.to_string()
        })
    })
}

/// Opens both connections to a node, and declares exchanges and queues.
async fn open(node: &AMQPUri) -> Result<ConnectionPair, QueueError> {
    let connect = async |name: &str| connect(node, name).await.map(Arc::new);
    let publishing = connect("flowcast publishing").await?;
    let declaring = async {
        topology::declare(&publishing.create_channel().await?).await?;
        let publisher = publishing.create_channel().await?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok((publisher, connect("flowcast taking").await?))
    };
    // On a connection that breaks an answer may never arrive.
    let declared = tokio::time::timeout(CONNECT * 2, declaring).await;
    match declared.unwrap_or_else(|_| Err(QueueError::Silent)) {
        Ok((publisher, consuming)) => Ok(ConnectionPair { publishing, consuming, publisher }),
        Err(error) => {
            let _ = tokio::time::timeout(CLOSE, publishing.close(200, "declaration failed".into())).await;
            Err(error)
        }
    }
}
