//! The broker, as workers and commands use it: its connections, its health and its queues.
//!
//! There are two connections. A broker that is short of memory or disk stops reading from a connection that publishes, and
//! nothing could be acknowledged on that connection any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};
use secrecy::{ExposeSecret, SecretString};

use super::connections::{BrokerState, CLOSE, CONNECT, ConnectionPair, connect};
use super::{addresses, consuming::ConsumerHealth, topology, topology::Missing};
use crate::campaign::CampaignId;
use crate::queue::QueueError;
use crate::shared_connection::SharedConnection;

/// A client of the broker. Clones share the connections.
#[derive(Clone)]
pub struct Broker {
    pub(super) shared: Arc<BrokerState>,
    pub(super) link: SharedConnection<ConnectionPair, QueueError>,
}

impl Broker {
    /// Connects, and declares exchanges and queues.
    ///
    /// A `patient` caller waits for the broker.
    ///
    /// # Errors
    ///
    /// When the address is invalid, the broker refuses, or a queue exists with other arguments.
    pub async fn connect(uri: &SecretString, patient: bool) -> Result<Self, QueueError> {
        // Installed once for the process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nodes = addresses::read(uri.expose_secret())?;
        let shared = BrokerState {
            // A queue's leader is usually on the node where the queue was declared. Workers choose their node at random, so
            // leaders are spread over the nodes.
            next: AtomicUsize::new(rand::random_range(0..nodes.len())),
            nodes,
            patient,
            is_here: AtomicBool::new(false),
            intake: ConsumerHealth::default(),
            unconfirmed: AtomicBool::new(false),
        };
        let broker = Self { shared: Arc::new(shared), link: SharedConnection::default() };
        broker.link().await?;
        Ok(broker)
    }

    /// Returns whether the broker is connected.
    pub fn is_here(&self) -> bool {
        self.shared.is_here.load(Ordering::Relaxed)
    }

    /// Returns whether this process can consume jobs.
    pub fn takes_jobs(&self) -> bool {
        self.shared.intake.get().is_none()
    }

    /// Returns the health of the consumer of jobs, which that consumer updates.
    pub(super) fn intake(&self) -> ConsumerHealth {
        self.shared.intake.clone()
    }

    /// Returns the exchanges and queues that do not exist. Declares nothing.
    ///
    /// # Errors
    ///
    /// When no node accepts a connection.
    pub async fn missing(uri: &SecretString) -> Result<Missing, QueueError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut error = QueueError::Silent;
        for node in addresses::read(uri.expose_secret())? {
            match connect(&node, "flowcast doctor").await {
                Ok(connection) => {
                    let missing = answered(topology::missing(&connection)).await?;
                    let _ = tokio::time::timeout(CLOSE, connection.close(200, "done".into())).await;
                    return missing;
                }
                Err(refused) => error = refused,
            }
        }
        Err(error)
    }

    /// Returns why messages cannot be published, if they cannot.
    pub(super) fn health_error(&self) -> Option<String> {
        if self.link.matches(|link| link.publishing.status().blocked()) {
            return Some("the broker accepts no messages, because it is short of memory or disk".into());
        }
        if !self.is_here() {
            return Some(match self.shared.nodes.len() {
                1 => "cannot connect to the broker".into(),
                count => format!(
                    "cannot connect to any of the {count} RabbitMQ nodes; a cluster needs a majority of its nodes"
                ),
            });
        }
        self.shared.unconfirmed.load(Ordering::Relaxed).then(|| {
            "the broker does not confirm published messages, e.g. because most of a queue's nodes are down; a stuck queue is \
             recreated automatically; if this persists, check the broker's log"
                .into()
        })
    }

    /// Opens a channel to consume on.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        let link = self.link().await?;
        Ok(answered(link.consuming.create_channel()).await??)
    }

    /// Returns the connections; reopens closed ones.
    pub(super) async fn link(&self) -> Result<ConnectionPair, QueueError> {
        let open = |useless: Option<ConnectionPair>| {
            let shared = self.shared.clone();
            async move {
                // One of the two may still be open, with consumers on it.
                if let Some(link) = useless {
                    tokio::spawn(link.close());
                }
                shared.open().await
            }
        };
        let (_, link) = self.link.get(ConnectionPair::lives, open).await?;
        Ok(link)
    }

    /// Returns the number of messages that wait in a queue; 0 if it does not exist.
    pub(super) async fn waiting(&self, queue: &str) -> Result<u64, QueueError> {
        let channel = self.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        // The broker closes the channel if the queue does not exist.
        let declared = answered(channel.queue_declare(queue.into(), options, FieldTable::default())).await?;
        match declared {
            Ok(queue) => Ok(u64::from(queue.message_count())),
            Err(error) if error.is_amqp_soft_error() => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Declares a campaign's queue, or everything except the queues of campaigns.
    pub(super) async fn declare(&self, campaign: Option<&CampaignId>) -> Result<(), QueueError> {
        let link = self.link().await?;
        let declaring = async {
            let channel = link.publishing.create_channel().await?;
            let declared = match campaign {
                Some(campaign) => topology::declare_campaign(&channel, campaign).await,
                None => topology::declare(&channel).await,
            };
            let _ = channel.close(200, "done".into()).await;
            declared
        };
        answered(declaring).await?
    }

    /// Closes the connections; the broker requeues unacknowledged messages.
    pub async fn close(&self) {
        if let Some(link) = self.link.close() {
            link.close().await;
        }
    }
}

/// Waits for a response of the broker, with a timeout.
pub(super) async fn answered<T>(asked: impl Future<Output = T>) -> Result<T, QueueError> {
    tokio::time::timeout(CONNECT, asked).await.map_err(|_| QueueError::Silent)
}

impl From<lapin::Error> for QueueError {
    fn from(error: lapin::Error) -> Self {
        Self::Failed(format!("failed: {error}"))
    }
}
