//! Tells others of reports, after the ledger has them. A broker that is slow must not keep a provider
//! from telling how far messages came; what people answered is told for certain.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::campaign::{Event, EventName};
use crate::dispatch::Events;
use crate::queue::QueueError;

/// How many events wait to be told; beyond that they are not, as the ledger has the facts.
const WAITING: usize = 50_000;
/// How many are told together.
const TOGETHER: usize = 500;

/// For so long it is known whether anybody listens to events of a name.
const KNOWN: Duration = Duration::from_millis(100);

/// To which events about messages somebody listens, and when that was found. There may be thousands of
/// them a second, and the broker drops each that no queue is bound to: they are not even published
/// then. Whoever binds a queue gets them from a tenth of a second later on.
#[derive(Default)]
struct Listeners(HashMap<EventName, (bool, Instant)>);

impl Listeners {
    /// The names among these of which it must be found out.
    fn unknown(&self, events: &[Event]) -> BTreeSet<EventName> {
        let is_known = |name: &EventName| self.0.get(name).is_some_and(|(_, at)| at.elapsed() < KNOWN);
        let names = events.iter().map(|event| event.name);
        names.filter(|name| name.as_str().starts_with("message.") && !is_known(name)).collect()
    }

    fn may_hear(&self, name: EventName) -> bool {
        self.0.get(&name).is_none_or(|(is_heard, _)| *is_heard)
    }
}

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
            let mut listeners = Listeners::default();
            while receiver.recv_many(&mut together, TOGETHER).await > 0 {
                if let Err(fault) = events.tell_webhooks(&together).await {
                    tracing::warn!("events were not handed on: {fault}");
                }
                for name in listeners.unknown(&together) {
                    // The first of its name is published, and tells whether others would be for nobody.
                    let Some(at) = together.iter().position(|event| event.name == name) else { continue };
                    match events.publish_if_heard(&together.remove(at)).await {
                        Ok(is_heard) => drop(listeners.0.insert(name, (is_heard, Instant::now()))),
                        // A broker that is away is not asked for each name.
                        Err(fault) => {
                            tracing::warn!("an event was not published: {fault}");
                            metrics::counter!("flowcast_events_lost_total").increment(1);
                            break;
                        }
                    }
                }
                together.retain(|event| listeners.may_hear(event.name));
                if let Err(fault) = events.publish_to_broker(&together).await {
                    tracing::warn!("{} events were not published: {fault}", together.len());
                }
                together.clear();
            }
        });
        publisher
    }

    /// Whether anybody could be told.
    pub(super) fn is_of_use(&self) -> bool {
        self.events.are_published()
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
