//! The connections to the broker: made, kept, made anew.
//!
//! Two of them: a broker that is short of memory or disk stops reading from a connection that
//! publishes, and nothing that was taken could be acknowledged on it any more. What is published
//! counts only when the broker has confirmed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::QueueError;
use super::consuming::Trouble;
use super::topology::Missing;
use super::{addresses, tls, topology};
use crate::connection_slot::ConnectionSlot;

/// Seconds between heartbeats: a worker that is frozen is known to be after twice that.
const HEARTBEAT: u16 = 10;
/// How often it is looked whether a connection still stands.
const LOOK: Duration = Duration::from_millis(500);
/// Time for connecting and the handshake.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// A confirm that takes longer, while nothing blocks, is one that was lost.
const CONFIRM: Duration = Duration::from_secs(10);
/// How long it may take to delete a queue that does not answer: RabbitMQ itself waits five seconds for it.
const DELETE: Duration = Duration::from_secs(15);
/// How long it may take to close connections.
const CLOSE: Duration = Duration::from_secs(2);
/// How long a person waits for the broker.
const SHORT: Duration = Duration::from_secs(5);
/// The first wait before something is tried again, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The first wait where the broker has refused a message: mostly its queue was just being made.
const REFUSED: Duration = Duration::from_millis(10);

/// The broker, as a worker or a command sees it. Clones share the connections.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
    link: ConnectionSlot<Link, QueueError>,
}

struct Shared {
    /// The nodes, of which any will do.
    nodes: Vec<AMQPUri>,
    /// Which of them is tried first the next time.
    next: AtomicUsize,
    /// Whether to wait for the broker as long as it takes.
    patient: bool,
    is_here: AtomicBool,
    /// What keeps jobs from being taken.
    intake: Trouble,
    unconfirmed: AtomicBool,
}

impl Shared {
    /// Connects. A patient caller waits until it works.
    async fn open(&self) -> Result<Link, QueueError> {
        let since = Instant::now();
        let mut wait = WAITS.0;
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
            let is_news = self.is_here.swap(false, Ordering::Relaxed) || wait == WAITS.0;
            // A person is told in the end, and once.
            if is_news && self.patient {
                tracing::warn!("RabbitMQ is away: {why}");
            } else {
                tracing::debug!("RabbitMQ is still away: {why}");
            }
            if !self.patient && since.elapsed() > SHORT {
                return Err(QueueError::Failed(format!(
                    "is away: {why}; is RabbitMQ running, and is amqp.url right?"
                )));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAITS.1);
        }
    }

    /// Connects to the first node that works, from the one behind the last on.
    async fn open_any(&self) -> Result<Link, QueueError> {
        let nodes = &self.nodes;
        let mut faults = Vec::new();
        for _ in nodes {
            let nth = self.next.fetch_add(1, Ordering::Relaxed) % nodes.len();
            let Some(node) = nodes.get(nth) else { continue };
            match open(node).await {
                Ok(link) => return Ok(link),
                Err(refused @ QueueError::Refused(_)) => return Err(refused),
                Err(passing) => faults.push((nth, passing.why().to_owned())),
            }
        }
        faults.sort_unstable();
        let text = match &faults[..] {
            [(_, fault)] => fault.clone(),
            _ => faults
                .iter()
                .filter_map(|(nth, fault)| Some((&nodes.get(*nth)?.authority, fault)))
                .map(|(node, fault)| format!("{}:{} {fault}", node.host, node.port))
                .collect::<Vec<_>>()
                .join("; "),
        };
        Err(QueueError::Failed(text))
    }
}

/// Clears a flag when what it is about is over.
struct ClearOnDrop<'a>(&'a AtomicBool);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Two connections that live.
#[derive(Clone)]
pub(super) struct Link {
    publishing: Arc<Connection>,
    consuming: Arc<Connection>,
    publisher: Channel,
}

impl Link {
    fn lives(&self) -> bool {
        self.publishing.status().connected()
            && self.consuming.status().connected()
            && self.publisher.status().connected()
    }

    /// Closes both: lapin leaves a connection open that nobody holds any more.
    async fn close(self) {
        let closing = async {
            let _ = self.consuming.close(200, "done".into()).await;
            let _ = self.publishing.close(200, "done".into()).await;
        };
        let _ = tokio::time::timeout(CLOSE, closing).await;
    }
}

/// A message to be published.
pub(super) struct Message {
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) payload: Vec<u8>,
    pub(super) properties: BasicProperties,
    /// Whether it is an error that no queue takes it.
    pub(super) mandatory: bool,
}

/// A message that survives the broker.
pub(super) fn lasting() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// The same of JSON.
pub(super) fn json_properties() -> BasicProperties {
    lasting().with_content_type("application/json".into())
}

/// Why something was not published.
pub(super) enum Unpublished {
    /// No queue takes it.
    Nowhere,
    Failed(QueueError),
}

impl Broker {
    /// Connects and declares what there must be. A `patient` caller waits until the broker is there.
    ///
    /// # Errors
    ///
    /// When the address is none, the broker refuses, or a queue is there with other arguments.
    pub async fn connect(uri: &SecretString, patient: bool) -> Result<Self, QueueError> {
        // Installed once for the process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nodes = addresses::read(uri.expose_secret())?;
        let shared = Shared {
            // A queue's leader is mostly where it was declared: workers spread over the nodes, and so do
            // the leaders.
            next: AtomicUsize::new(rand::random_range(0..nodes.len())),
            nodes,
            patient,
            is_here: AtomicBool::new(false),
            intake: Trouble::default(),
            unconfirmed: AtomicBool::new(false),
        };
        let broker = Self { shared: Arc::new(shared), link: ConnectionSlot::default() };
        broker.link().await?;
        Ok(broker)
    }

    /// Whether the connection to the broker stands.
    pub fn is_here(&self) -> bool {
        self.shared.is_here.load(Ordering::Relaxed)
    }

    /// Whether its queue of jobs has this process as a consumer, as far as it takes any.
    pub fn takes_jobs(&self) -> bool {
        self.shared.intake.get().is_none()
    }

    /// What keeps jobs from being taken; whoever takes them says it here.
    pub(super) fn intake(&self) -> Trouble {
        self.shared.intake.clone()
    }

    /// What is not on the broker yet, or not any more. Declares nothing.
    ///
    /// # Errors
    ///
    /// When no node takes a connection.
    pub async fn missing(uri: &SecretString) -> Result<Missing, QueueError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut fault = QueueError::Silent;
        for node in addresses::read(uri.expose_secret())? {
            match connect(&node, "flowcast doctor").await {
                Ok(connection) => {
                    let missing = answered(topology::missing(&connection)).await?;
                    let _ = tokio::time::timeout(CLOSE, connection.close(200, "done".into())).await;
                    return missing;
                }
                Err(refused) => fault = refused,
            }
        }
        Err(fault)
    }

    /// What keeps messages from being published, if anything.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.link.is(|link| link.publishing.status().blocked()) {
            return Some("the broker takes no messages, because it is short of memory or disk".into());
        }
        if !self.is_here() {
            return Some(match self.shared.nodes.len() {
                1 => "the broker can't be reached".into(),
                count => format!(
                    "none of RabbitMQ's {count} nodes takes connections; more than half of a cluster's nodes must \
                     be there"
                ),
            });
        }
        self.shared.unconfirmed.load(Ordering::Relaxed).then(|| {
            "the broker does not confirm what is published, as it is while most of a queue's nodes are away; a queue \
             that is stuck is made anew by itself; if it stays, look at the broker's log"
                .into()
        })
    }

    /// A channel of its own to take messages on.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        let link = self.link().await?;
        answered(link.consuming.create_channel()).await?.map_err(|fault| failed(&fault))
    }

    /// The connections, made anew if they are gone.
    pub(super) async fn link(&self) -> Result<Link, QueueError> {
        let open = |useless: Option<Link>| {
            let shared = self.shared.clone();
            async move {
                // One of the two may still stand, with consumers on it that nobody would end.
                if let Some(link) = useless {
                    tokio::spawn(link.close());
                }
                shared.open().await
            }
        };
        let (_, link) = self.link.get(Link::lives, open).await?;
        Ok(link)
    }

    /// Publishes messages, together; when it returns, the broker has all of them. What it did not
    /// confirm is published again.
    pub(super) async fn publish(&self, messages: &[Message]) -> Result<(), Unpublished> {
        let longest = messages.iter().map(|message| header_size(&message.properties)).max();
        // What was stopped while it waited for a confirm is not waited for any more.
        let _over = ClearOnDrop(&self.shared.unconfirmed);
        let mut left: Vec<&Message> = messages.iter().collect();
        let mut wait = REFUSED;
        let since = Instant::now();
        loop {
            let link = self.link().await.map_err(Unpublished::Failed)?;
            // The broker would end the connection over it, each time.
            let most = link.publishing.configuration().frame_max() as usize;
            if let Some(longest) = longest.filter(|longest| *longest > most) {
                let text =
                    format!("takes no message whose headers have {longest} bytes; the most are {most}");
                return Err(Unpublished::Failed(QueueError::Failed(text)));
            }
            let mut confirms = Vec::with_capacity(left.len());
            let publishing = async {
                for message in &left {
                    confirms.push((*message, publish_one(&link.publisher, message).await?));
                }
                Ok::<(), lapin::Error>(())
            };
            // While the broker blocks, this waits; a person does not. What was not published when it ends
            // is published again.
            if self.shared.patient {
                let _ = while_connected(&link.publishing, publishing).await;
            } else {
                let _ = tokio::time::timeout(SHORT, publishing).await;
            }
            let mut failures = left.split_off(confirms.len());
            for (message, confirm) in confirms {
                match self.confirmed(&link, confirm).await {
                    Some(Confirmation::Ack(None) | Confirmation::NotRequested) => {}
                    Some(Confirmation::Ack(Some(_))) => return Err(Unpublished::Nowhere),
                    // The broker said that it has it not, or nothing: sent again, it may have it twice.
                    Some(Confirmation::Nack(_)) | None => failures.push(message),
                }
            }
            if failures.is_empty() {
                return Ok(());
            }
            // A queue that was just made refuses for a moment.
            if since.elapsed() > CONFIRM / 2 {
                self.shared.unconfirmed.store(true, Ordering::Relaxed);
            }
            if !self.shared.patient && since.elapsed() > SHORT {
                let trouble = self.trouble().unwrap_or_else(|| "the broker does not confirm".into());
                return Err(Unpublished::Failed(QueueError::Failed(format!("is in trouble: {trouble}"))));
            }
            left = failures;
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAITS.1);
        }
    }

    /// Waits for a confirm, and notices meanwhile when the broker blocks.
    async fn confirmed(&self, link: &Link, confirm: lapin::PublisherConfirm) -> Option<Confirmation> {
        let mut confirm = std::pin::pin!(confirm);
        // Of many that were published together most are confirmed by the time that it is asked.
        if let Some(done) = (&mut confirm).now_or_never() {
            self.shared.unconfirmed.store(false, Ordering::Relaxed);
            return done.ok();
        }
        let mut unblocked = Instant::now();
        loop {
            if let Ok(done) = tokio::time::timeout(LOOK, &mut confirm).await {
                self.shared.unconfirmed.store(false, Ordering::Relaxed);
                return done.ok();
            }
            if link.publishing.status().blocked() {
                if !self.shared.patient {
                    return None;
                }
                unblocked = Instant::now();
            }
            if !link.publishing.status().connected() {
                return None;
            }
            if unblocked.elapsed() > CONFIRM {
                tracing::warn!("RabbitMQ does not confirm what was published; it is published again");
                self.shared.unconfirmed.store(true, Ordering::Relaxed);
                // A quorum queue that is just coming back may never confirm on this connection.
                // Others who waited on it may have made another one by now.
                let is_ours = |kept: &mut Link| Arc::ptr_eq(&kept.publishing, &link.publishing);
                if let Some(link) = self.link.take_if(is_ours) {
                    tokio::spawn(link.close());
                }
                return None;
            }
        }
    }

    /// Deletes a campaign's queue that has not answered for long, if the broker confirms what is published to another
    /// one: a queue that was just made when its node was killed never answers again. What was in it is missed, and
    /// planned again. Returns whether it did.
    pub(super) async fn delete_stuck(&self, queue: &str) -> Result<bool, QueueError> {
        // A channel of its own: one on which something goes to a stuck queue does not answer either.
        let channel = self.channel().await?;
        // What comes there goes at once.
        let probe = Message {
            exchange: topology::ENDED.into(),
            key: String::new(),
            payload: Vec::new(),
            properties: lasting(),
            mandatory: false,
        };
        let confirmed = async {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            publish_one(&channel, &probe).await?.await
        };
        if !matches!(answered(confirmed).await, Ok(Ok(Confirmation::Ack(_)))) {
            return Ok(false);
        }
        let deleting = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        let silent = |_| QueueError::Silent;
        let deleted = tokio::time::timeout(DELETE, deleting).await.map_err(silent)?;
        deleted.map(|_| true).map_err(|fault| failed(&fault))
    }

    /// How many messages wait in a queue. One that is not there holds nothing.
    pub(super) async fn waiting(&self, queue: &str) -> Result<u64, QueueError> {
        let channel = self.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        // The channel is closed by the answer that there is none.
        let declared = answered(channel.queue_declare(queue.into(), options, FieldTable::default())).await?;
        match declared {
            Ok(queue) => Ok(u64::from(queue.message_count())),
            Err(fault) if fault.is_amqp_soft_error() => Ok(0),
            Err(fault) => Err(failed(&fault)),
        }
    }

    /// Declares what there must be, where it is gone.
    pub(super) async fn declare_all(&self) -> Result<(), QueueError> {
        let link = self.link().await?;
        let declaring = async {
            let channel = link.publishing.create_channel().await.map_err(|fault| failed(&fault))?;
            let declared = topology::declare(&channel).await;
            let _ = channel.close(200, "done".into()).await;
            declared
        };
        answered(declaring).await?
    }

    /// Declares a campaign's queue.
    pub(super) async fn declare(&self, campaign: &crate::campaign::CampaignId) -> Result<(), QueueError> {
        let link = self.link().await?;
        let declaring = async {
            let channel = link.publishing.create_channel().await.map_err(|fault| failed(&fault))?;
            let declared = topology::declare_campaign(&channel, campaign).await;
            let _ = channel.close(200, "done".into()).await;
            declared
        };
        answered(declaring).await?
    }

    /// The nodes of the address, as `host:port`, each with its version, as it says when a connection begins,
    /// or with why it can't be reached. Over TLS the version is not told.
    pub async fn nodes(&self) -> Vec<(String, Result<Option<String>, String>)> {
        let asked = self.shared.nodes.iter().map(async |node| {
            let place = format!("{}:{}", node.authority.host, node.authority.port);
            let told = tokio::time::timeout(CONNECT, version(node)).await;
            (place, told.unwrap_or_else(|_| Err("does not answer".into())))
        });
        futures_util::future::join_all(asked).await
    }

    /// Closes the connections; what was taken and is not acknowledged goes back.
    pub async fn close(&self) {
        if let Some(link) = self.link.close() {
            link.close().await;
        }
    }
}

/// Connects to a node.
async fn connect(node: &AMQPUri, name: &str) -> Result<Connection, QueueError> {
    let mut uri = node.clone();
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connected = answered(tls::connect(uri, properties)).await?;
    connected.map_err(|fault| {
        QueueError::Failed(if fault.is_amqp_error() {
            format!("refused the connection: {fault}; are user, password and virtual host right?")
        } else {
            fault.to_string()
        })
    })
}

/// How many bytes the properties of a message take at the most; they share one frame.
fn header_size(properties: &BasicProperties) -> usize {
    /// What stands there beside the headers: short strings of at most 255 bytes.
    const OTHERS: usize = 4_096;
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    let size =
        |value: &AMQPValue| if let AMQPValue::LongString(text) = value { text.as_bytes().len() } else { 16 };
    OTHERS + headers.map(|(name, value)| name.as_str().len() + 8 + size(value)).sum::<usize>()
}

/// Connects to a node and declares.
async fn open(node: &AMQPUri) -> Result<Link, QueueError> {
    let connect = async |name: &str| connect(node, name).await.map(Arc::new);
    let publishing = connect("flowcast publishing").await?;
    let declaring = async {
        let passing = |fault: lapin::Error| failed(&fault);
        let channel = publishing.create_channel().await.map_err(passing)?;
        topology::declare(&channel).await?;
        let publisher = publishing.create_channel().await.map_err(passing)?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await.map_err(passing)?;
        Ok((publisher, connect("flowcast taking").await?))
    };
    // On a connection that dies in the midst of it an answer may never come.
    let declared = tokio::time::timeout(CONNECT * 2, declaring).await;
    match declared.unwrap_or_else(|_| Err(QueueError::Silent)) {
        Ok((publisher, consuming)) => Ok(Link { publishing, consuming, publisher }),
        Err(fault) => {
            let _ = tokio::time::timeout(CLOSE, publishing.close(200, "not of use".into())).await;
            Err(fault)
        }
    }
}

/// A node's version; none over TLS.
async fn version(node: &AMQPUri) -> Result<Option<String>, String> {
    let asked = async {
        let mut stream = TcpStream::connect((node.authority.host.as_str(), node.authority.port)).await?;
        if node.scheme != AMQPScheme::AMQP {
            return Ok(None);
        }
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        // The first frame is `connection.start`; its table of properties has the version.
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]).min(1 << 16);
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await?;
        let name = b"\x07versionS";
        let Some(at) = frame.windows(name.len()).position(|bytes| bytes == name) else { return Ok(None) };
        let text = frame.get(at + name.len()..).and_then(|rest| {
            let length = usize::from(*rest.get(3)?);
            String::from_utf8(rest.get(4..4 + length)?.to_vec()).ok()
        });
        Ok(text)
    };
    asked.await.map_err(|fault: std::io::Error| fault.to_string())
}

async fn publish_one(channel: &Channel, message: &Message) -> lapin::Result<lapin::PublisherConfirm> {
    let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
    channel
        .basic_publish(
            ShortString::from(message.exchange.as_str()),
            ShortString::from(message.key.as_str()),
            options,
            &message.payload,
            message.properties.clone(),
        )
        .await
}

/// Waits for something as long as the connection stands: on one that dies in the midst of it, an answer
/// may never come.
async fn while_connected<T>(connection: &Connection, asked: impl Future<Output = T>) -> Option<T> {
    let mut asked = std::pin::pin!(asked);
    loop {
        if let Ok(done) = tokio::time::timeout(LOOK, &mut asked).await {
            return Some(done);
        }
        if !connection.status().connected() {
            return None;
        }
    }
}

/// Waits for an answer that a broker gives at once, if it gives any.
pub(super) async fn answered<T>(asked: impl Future<Output = T>) -> Result<T, QueueError> {
    tokio::time::timeout(CONNECT, asked).await.map_err(|_| QueueError::Silent)
}

pub(super) fn failed(fault: &lapin::Error) -> QueueError {
    QueueError::Failed(format!("failed: {fault}"))
}
