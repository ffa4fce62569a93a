//! Tells others of reports, after the ledger has them. A broker that is slow must not keep a provider
//! from telling how far messages came; what people answered is told for certain.

use tokio::sync::mpsc;

use crate::dispatch::Events;
use crate::queue::QueueError;
use crate::queue::rabbitmq::Event;

/// How many events wait to be told; beyond that they are not, as the ledger has the facts.
const WAITING: usize = 50_000;
/// How many are told together.
const TOGETHER: usize = 500;

/// Tells events.
#[derive(Clone)]
pub(super) struct EventPublisher {
    events: Events,
    waiting: mpsc::Sender<Event>,
}

impl EventPublisher {
    pub(super) fn start(events: &Events) -> Self {
        let (waiting, mut receiver) = mpsc::channel(WAITING);
        let publisher = Self { events: events.clone(), waiting };
        let events = events.clone();
        tokio::spawn(async move {
            let mut together = Vec::new();
            while receiver.recv_many(&mut together, TOGETHER).await > 0 {
                events.publish(&together).await;
                together.clear();
            }
        });
        publisher
    }

    /// Tells events; when it returns, the broker has them.
    pub(super) async fn publish_confirmed(&self, events: &[Event]) -> Result<(), QueueError> {
        self.events.publish_confirmed(events).await
    }

    /// Tells events some time.
    pub(super) fn publish(&self, events: Vec<Event>) {
        for event in events {
            if self.waiting.try_send(event).is_err() {
                metrics::counter!("flowcast_events_lost_total").increment(1);
            }
        }
    }
}
