//! The funnel of a campaign: how many of its accepted messages were sent, delivered, read and replied to. The counts come from
//! `ledger/deliveries.rs`.

use std::time::Duration;

use crate::campaign::delivery::STEPS;
use crate::ledger::Campaign;

/// Names of the steps, as users see them. [`STEPS`] has the stored names.
const NAMES: [&str; STEPS.len()] = ["sent", "delivered", "read", "replied"];

/// The funnel of a campaign.
pub struct Funnel {
    /// Messages that the provider accepted.
    pub accepted: u64,
    /// The steps after acceptance, in order.
    pub steps: [FunnelStep; STEPS.len()],
    /// Accepted messages that were not delivered.
    pub failed: u64,
}

/// A step of the funnel.
pub struct FunnelStep {
    /// The name, e.g. `delivered`.
    pub name: &'static str,
    /// Messages that reached at least this step.
    pub count: u64,
    /// Median and 95th percentile of the time from the previous step, if known.
    pub times: Option<[Duration; 2]>,
}

impl Funnel {
    /// Returns whether no delivery report and no reply has arrived yet.
    pub fn is_empty(&self) -> bool {
        self.failed == 0 && self.steps.iter().all(|step| step.count == 0)
    }
}

impl From<&Campaign> for Funnel {
    fn from(campaign: &Campaign) -> Self {
        let delivery = campaign.delivery;
        // The counters are of the last state of each message; a reply is counted separately.
        let delivered = delivery.delivered + delivery.read;
        let counts = [delivery.sent + delivered, delivered, delivery.read, delivery.replied];
        let steps = std::array::from_fn(|nth| {
            let time = |share| campaign.took[nth].quantile(share).map(Duration::from_millis);
            FunnelStep {
                name: NAMES[nth],
                count: counts[nth],
                times: time(0.5).zip(time(0.95)).map(|(median, most)| [median, most]),
            }
        });
        Self { accepted: campaign.counts.accepted, steps, failed: delivery.failed }
    }
}
