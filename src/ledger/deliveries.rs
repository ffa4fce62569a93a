//! Delivery progress of a batch's messages, as delivery reports say. A ledger stores the bytes and the counters.
//!
//! It decides what a report changes; whether it proves that the provider accepted a message is decided here, too, and
//! applied in `batch_machine/reports.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::change::Counter;
use crate::campaign::delivery::{
    Delivery, DeliveryUpdate, Progress, Reply, ReplyContent, STEPS, StageTimings,
};
use crate::campaign::{MessageState, Phone, codes::is_unsent};

/// A delivery report or a reply, for one message of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageReport {
    /// The message's position in the batch.
    pub message: u8,
    /// The provider's id of the message.
    pub sid: Option<String>,
    /// Time of the event, in milliseconds since 1970.
    pub at: i64,
    /// What happened.
    pub update: DeliveryUpdate,
}

impl MessageReport {
    /// Returns whether it is a reply.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self.update, DeliveryUpdate::Reply(_))
    }
}

/// The effect of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportEffect {
    /// The recipient.
    pub recipient: Phone,
    /// The recipient's row of the audience.
    pub row: u64,
    /// The message's position in the batch.
    pub message: u8,
    /// Whether the report proved that the provider accepted the message.
    pub settled: bool,
    /// Whether it must be published: not for a repeated report; for a reply until it is published.
    pub is_news: bool,
}

/// Accepted messages by their last delivery state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DeliveryCounts {
    /// Sent, not delivered yet.
    pub sent: u64,
    /// Delivered to a device.
    pub delivered: u64,
    /// Read by the recipient.
    pub read: u64,
    /// Not delivered.
    pub failed: u64,
    /// Replied to, in any of the states above.
    pub replied: u64,
}

/// Kind of the counters of messages by delivery state.
pub(super) const DELIVERY: &str = "delivery";
/// Kind of the counters of messages not delivered, by code.
pub(super) const UNDELIVERED: &str = "undelivered";
/// Kind of the counters of messages by step and duration.
pub(super) const TOOK: &str = "took";

/// Changes by reports.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Changes of counters.
    pub(super) counters: BTreeMap<Counter, i64>,
    /// Text of each code of messages not delivered.
    pub(super) texts: BTreeMap<String, String>,
}

/// Delivery progress of a batch's messages, by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deliveries(Vec<Progress>);

/// The stored form: times are relative to the earliest, so that a message takes a few bytes.
#[derive(Serialize, Deserialize)]
struct Kept {
    base: i64,
    messages: Vec<(u8, bool, [u32; 4], String)>,
}

impl Deliveries {
    /// Reads the stored form; bytes that cannot be read are treated as empty.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let Ok(kept) = postcard::from_bytes::<Kept>(bytes) else { return Self::default() };
        let message = |(state, replied, at, code): (u8, bool, [u32; 4], String)| Progress {
            state: state.checked_sub(1).and_then(|nth| Delivery::ALL.get(usize::from(nth))).copied(),
            replied,
            at: at.map(|distance| if distance == 0 { 0 } else { kept.base + i64::from(distance) - 1 }),
            code,
        };
        Self(kept.messages.into_iter().map(message).collect())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let times = self.0.iter().flat_map(|progress| progress.at).filter(|at| *at > 0);
        let base = times.min().unwrap_or_default();
        // Relative times end after 49 days; later times are stored as that.
        let distance = |at: i64| if at == 0 { 0 } else { u32::try_from(at - base + 1).unwrap_or(u32::MAX) };
        let message = |progress: &Progress| {
            let state = progress.state.map_or(0, |state| state as u8 + 1);
            (state, progress.replied, progress.at.map(distance), progress.code.clone())
        };
        let kept = Kept { base, messages: self.0.iter().map(message).collect() };
        postcard::to_stdvec(&kept).unwrap_or_default()
    }

    pub(super) fn for_message(&self, message: u8) -> Option<&Progress> {
        self.0.get(usize::from(message))
    }

    /// Resets the progress of a message that is sent again. The provider had accepted it at `accepted_at`.
    pub(super) fn forget(&mut self, message: u8, accepted_at: i64, changes: &mut Changes) {
        if let Some(progress) = self.0.get_mut(usize::from(message)) {
            let before = std::mem::take(progress);
            changes.add(&before, accepted_at, -1);
        }
    }

    /// Applies a report for a message that the provider accepted at `accepted_at` (0: unknown).
    ///
    /// Returns whether it changed anything.
    pub(super) fn apply(&mut self, report: &MessageReport, accepted_at: i64, changes: &mut Changes) -> bool {
        let place = usize::from(report.message);
        if self.0.len() <= place {
            self.0.resize(place + 1, Progress::default());
        }
        let before = self.0[place].clone();
        let after = &mut self.0[place];
        match &report.update {
            DeliveryUpdate::Delivery { state, code, text } => {
                let code = code.as_deref().unwrap_or_default();
                after.step(*state, report.at, code);
                if *state == Delivery::Failed && !text.is_empty() {
                    changes.texts.entry(code.into()).or_insert_with(|| text.clone());
                }
            }
            DeliveryUpdate::Reply(_) => after.reply(report.at),
        }
        changes.add(&before, accepted_at, -1);
        changes.add(after, accepted_at, 1);
        before != *after
    }
}

impl Changes {
    fn add(&mut self, progress: &Progress, accepted_at: i64, by: i64) {
        let mut count = |kind, word: &str| *self.counters.entry((kind, word.to_owned())).or_default() += by;
        if let Some(state) = progress.state {
            count(DELIVERY, state.as_str());
        }
        if progress.replied {
            count(DELIVERY, "replied");
        }
        if let Some(code) = progress.failure() {
            count(UNDELIVERED, code);
        }
        for (step, took) in STEPS.iter().zip(progress.stage_times(accepted_at)) {
            if let Some(took) = took {
                count(TOOK, &format!("{step}:{}", StageTimings::bucket(took)));
            }
        }
        self.counters.retain(|_, by| *by != 0);
    }
}

/// Returns whether a report proves that the provider accepted a message that is not in state accepted.
///
/// A failure proves nothing for a rejected message, because it may report the rejection. A failure as not sent on proves
/// nothing for a pending message, because it is the reason why the message is sent again.
pub(super) fn proves_taken(state: MessageState, attempts: u32, update: &DeliveryUpdate) -> bool {
    let (failed, was_unsent) = match update {
        DeliveryUpdate::Delivery { state: Delivery::Failed, code, .. } => {
            (true, code.as_deref().is_some_and(is_unsent))
        }
        _ => (false, false),
    };
    match state {
        MessageState::InDoubt | MessageState::Sending => true,
        MessageState::Pending => attempts > 0 && !was_unsent,
        MessageState::Rejected => !failed,
        MessageState::Accepted | MessageState::Skipped => false,
    }
}

/// Returns the counts of deliveries from their counters.
pub(super) fn counts(counter: impl Fn(&str, &str) -> u64) -> DeliveryCounts {
    let count = |word| counter(DELIVERY, word);
    DeliveryCounts {
        sent: count("sent"),
        delivered: count("delivered"),
        read: count("read"),
        failed: count("failed"),
        replied: count("replied"),
    }
}

/// Returns the durations of each step from its counters `step:bucket`.
pub(super) fn times<'w>(counters: impl Iterator<Item = (&'w str, u64)>) -> [StageTimings; STEPS.len()] {
    let mut times: [StageTimings; STEPS.len()] = Default::default();
    for (word, count) in counters {
        let Some((step, bucket)) = word.split_once(':') else { continue };
        let step = STEPS.iter().position(|known| *known == step);
        if let (Some(step), Ok(bucket)) = (step, bucket.parse()) {
            times[step].0.insert(bucket, count);
        }
    }
    times
}

/// A reply of a recipient, as it is stored and exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// The recipient.
    pub recipient: Phone,
    /// The recipient's row of the audience.
    pub row: u64,
    /// The batch of the message replied to.
    pub batch: u32,
    /// The message's position in the batch.
    pub message: u8,
    /// Time of the reply, in milliseconds since 1970.
    pub at: i64,
    /// The reply.
    pub content: ReplyContent,
    /// Further facts of the provider, by [`DETAILS`](crate::campaign::delivery::DETAILS).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl Response {
    /// Returns stored replies in the order of the audience.
    pub(super) fn in_order(kept: &[String]) -> Vec<Self> {
        let mut all: Vec<Self> = kept.iter().filter_map(|json| serde_json::from_str(json).ok()).collect();
        all.sort_by_key(|response| (response.row, response.at));
        all
    }

    pub(super) fn new(effect: &ReportEffect, batch: u32, at: i64, reply: &Reply) -> Self {
        Self {
            recipient: effect.recipient,
            row: effect.row,
            batch,
            message: effect.message,
            at,
            content: reply.content.clone(),
            details: reply.details.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(message: u8, state: usize, at: i64) -> MessageReport {
        let update = match Delivery::ALL.get(state) {
            Some(state) => {
                DeliveryUpdate::Delivery { state: *state, code: Some("131026".into()), text: "why".into() }
            }
            None => DeliveryUpdate::Reply(Reply {
                id: "r".into(),
                content: ReplyContent::Text("yes".into()),
                details: BTreeMap::new(),
            }),
        };
        MessageReport { message, sid: None, at, update }
    }

    proptest! {
        #[test]
        fn counters_match_the_messages_for_reports_in_any_order(
            reports in prop::collection::vec((0..4_u8, 0..5_usize, 1_000..9_000_i64), 0..30),
        ) {
            let mut counters = BTreeMap::<Counter, i64>::new();
            let mut deliveries = Deliveries::default();
            for (message, state, at) in &reports {
                let mut changes = Changes::default();
                // Storing and reading does not change it.
                deliveries = Deliveries::read(&deliveries.bytes());
                deliveries.apply(&report(*message, *state, *at), 900, &mut changes);
                for (counter, by) in changes.counters {
                    *counters.entry(counter).or_default() += by;
                }
            }
            counters.retain(|_, count| *count != 0);
            let mut expected = Changes::default();
            deliveries.0.iter().for_each(|progress| expected.add(progress, 900, 1));
            prop_assert_eq!(counters, expected.counters);
        }
    }

    #[test]
    fn a_message_takes_a_few_bytes() {
        let mut deliveries = Deliveries::default();
        let mut changes = Changes::default();
        let start = 1_790_000_000_000;
        for message in 0..100 {
            for (state, after) in [(0, 900), (2, 2_100), (3, 3_600_000)] {
                deliveries.apply(&report(message, state, start + after), start, &mut changes);
            }
        }
        assert!(deliveries.bytes().len() < 1_500, "{}", deliveries.bytes().len());
        assert_eq!(Deliveries::read(&deliveries.bytes()), deliveries);
        assert_eq!(Deliveries::read(b"damaged"), Deliveries::default());
    }
}
