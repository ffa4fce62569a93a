//! Tells others of reports, after the ledger has them: a broker that is slow must not keep a provider.

use tokio::sync::mpsc;

use crate::dispatch::Events;
use crate::queue::rabbitmq::Event;

/// How many events wait to be told; beyond that they are not, as the ledger has the facts.
const WAITING: usize = 50_000;
/// How many are told together.
const TOGETHER: usize = 500;

/// Tells events some time.
#[derive(Clone)]
pub(super) struct Teller(mpsc::Sender<Event>);

impl Teller {
    pub(super) fn start(events: Events) -> Self {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut together = Vec::new();
            while receiver.recv_many(&mut together, TOGETHER).await > 0 {
                events.tell(&together).await;
                together.clear();
            }
        });
        Self(sender)
    }

    pub(super) fn tell(&self, events: Vec<Event>) {
        for event in events {
            if self.0.try_send(event).is_err() {
                metrics::counter!("flowcast_events_lost_total").increment(1);
            }
        }
    }
}
