//! Publishes events about reports, after the ledger has them.
//!
//! A slow broker must not delay delivery reports, so their events may be lost; replies are confirmed by the broker.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::campaign::{Event, EventName};
use crate::dispatch::Events;

/// Maximum number of queued events; beyond that they are dropped, because the ledger has the facts.
const CHANNEL_CAPACITY: usize = 50_000;
/// Maximum number of events per publication.
const MAX_PER_PUBLICATION: usize = 500;

/// How long it is cached whether a queue is bound to an event's name.
const CACHE_TIME: Duration = Duration::from_millis(100);

/// The message events that a queue is bound to, each with the time of the check.
///
/// There may be thousands of events a second, and the broker drops those that no queue is bound to, so they are not
/// published. A new binding gets events after a tenth of a second at the latest.
#[derive(Default)]
struct Listeners(HashMap<EventName, (bool, Instant)>);

impl Listeners {
    /// Returns the names among these events that must be checked.
    fn unknown(&self, events: &[Event]) -> BTreeSet<EventName> {
        let is_known = |name: &EventName| self.0.get(name).is_some_and(|(_, at)| at.elapsed() < CACHE_TIME);
        let names = events.iter().map(|event| event.name);
        names.filter(|name| name.as_str().starts_with("message.") && !is_known(name)).collect()
    }

    /// Returns whether a queue may be bound to a name.
    fn has_bindings(&self, name: EventName) -> bool {
        self.0.get(&name).is_none_or(|(is_heard, _)| *is_heard)
    }
}

/// Publishes events in the background.
#[derive(Clone)]
pub(super) struct EventPublisher {
    /// The destinations.
    pub(super) events: Events,
    waiting: mpsc::Sender<Event>,
}

impl EventPublisher {
    pub(super) fn start(events: &Events) -> Self {
        let (waiting, mut receiver) = mpsc::channel(CHANNEL_CAPACITY);
        let publisher = Self { events: events.clone(), waiting };
        let events = events.clone();
        tokio::spawn(async move {
            let mut together = Vec::new();
            let mut listeners = Listeners::default();
            while receiver.recv_many(&mut together, MAX_PER_PUBLICATION).await > 0 {
                if let Err(error) = events.publish_webhook_events(&together).await {
                    tracing::warn!(error = %error, "events not forwarded");
                }
                for name in listeners.unknown(&together) {
                    // Publishing the first event of a name shows whether a queue is bound to it.
                    let Some(at) = together.iter().position(|event| event.name == name) else { continue };
                    match events.publish_if_bound(&together.remove(at)).await {
                        Ok(is_heard) => drop(listeners.0.insert(name, (is_heard, Instant::now()))),
                        // The other names are not checked while the broker is unreachable.
                        Err(error) => {
                            tracing::warn!(error = %error, "event not published");
                            metrics::counter!("flowcast_events_lost_total").increment(1);
                            break;
                        }
                    }
                }
                together.retain(|event| listeners.has_bindings(event.name));
                if let Err(error) = events.publish_to_broker(&together).await {
                    tracing::warn!(events = together.len(), error = %error, "events not published");
                }
                together.clear();
            }
        });
        publisher
    }

    /// Queues events for publication, or drops them if the queue is full.
    pub(super) fn publish(&self, events: Vec<Event>) {
        for event in events {
            if self.waiting.try_send(event).is_err() {
                metrics::counter!("flowcast_events_lost_total").increment(1);
            }
        }
    }
}
