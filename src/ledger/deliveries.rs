//! How far the messages of a batch have come, as reports say: the logic stands here, and a ledger keeps
//! the bytes and the counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::campaign::codes::is_unsent;
use crate::campaign::delivery::{Delivery, News, Progress, Reply, STEPS, Times};
use crate::campaign::{MessageState, Phone};

/// What a report says of one message of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageReport {
    /// Its place in the batch.
    pub message: u8,
    /// The provider's id of the message.
    pub sid: Option<String>,
    /// When it happened, in milliseconds since 1970.
    pub at: i64,
    /// What happened.
    pub news: News,
}

impl MessageReport {
    /// Whether it is a person's answer.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self.news, News::Reply(_))
    }
}

/// What a report has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportEffect {
    /// Whom the message went to.
    pub recipient: Phone,
    /// Its row.
    pub row: u64,
    /// Its place in the batch.
    pub message: u8,
    /// Whether the message was not known to be taken before.
    pub settled: bool,
    /// Whether that was news: a repeated report is none, and an answer is until others were told of it.
    pub is_news: bool,
}

/// How many messages have come how far, and no further.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DeliveryCounts {
    /// On their way.
    pub sent: u64,
    /// On a device.
    pub delivered: u64,
    /// Opened.
    pub read: u64,
    /// Could not be delivered.
    pub failed: u64,
    /// Answered, whatever the reports say besides.
    pub replied: u64,
}

/// A counter: its kind and its word. A ledger keeps it under a name of its own.
pub(super) type Counter = (&'static str, String);

/// Kinds of counters.
pub(super) const DELIVERY: &str = "delivery";
pub(super) const UNDELIVERED: &str = "undelivered";
pub(super) const TOOK: &str = "took";

/// What changes with some reports.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// By how much each counter moves.
    pub(super) counters: BTreeMap<Counter, i64>,
    /// The text to each code of messages that could not be delivered.
    pub(super) texts: BTreeMap<String, String>,
}

/// The progress of a batch's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deliveries(Vec<Progress>);

/// How it is kept: times as distances from the first, so that a message takes a few bytes.
#[derive(Serialize, Deserialize)]
struct Kept {
    base: i64,
    messages: Vec<(u8, bool, [u32; 4], String)>,
}

impl Deliveries {
    /// Reads what was kept; what can't be read is as if there were nothing.
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
        // Distances end after 49 days; what is later is kept as that.
        let distance = |at: i64| if at == 0 { 0 } else { u32::try_from(at - base + 1).unwrap_or(u32::MAX) };
        let message = |progress: &Progress| {
            let state = progress.state.map_or(0, |state| state as u8 + 1);
            (state, progress.replied, progress.at.map(distance), progress.code.clone())
        };
        let kept = Kept { base, messages: self.0.iter().map(message).collect() };
        postcard::to_stdvec(&kept).unwrap_or_default()
    }

    pub(super) fn of(&self, message: u8) -> Option<&Progress> {
        self.0.get(usize::from(message))
    }

    /// Forgets how far a message came, as if it were still to be sent; the provider took it at `accepted_at`.
    pub(super) fn forget(&mut self, message: u8, accepted_at: i64, changes: &mut Changes) {
        if let Some(progress) = self.0.get_mut(usize::from(message)) {
            let before = std::mem::take(progress);
            changes.add(&before, accepted_at, -1);
        }
    }

    /// Takes in a report of a message that the provider took at `accepted_at` (0: nobody knows when).
    /// Returns whether it was news.
    pub(super) fn take(&mut self, report: &MessageReport, accepted_at: i64, changes: &mut Changes) -> bool {
        let place = usize::from(report.message);
        if self.0.len() <= place {
            self.0.resize(place + 1, Progress::default());
        }
        let before = self.0[place].clone();
        let after = &mut self.0[place];
        match &report.news {
            News::Delivery { state, code, text } => {
                let code = code.as_deref().unwrap_or_default();
                after.step(*state, report.at, code);
                if *state == Delivery::Failed && !text.is_empty() {
                    changes.texts.entry(code.into()).or_insert_with(|| text.clone());
                }
            }
            News::Reply(_) => after.reply(report.at),
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
        for (step, took) in STEPS.iter().zip(progress.took(accepted_at)) {
            if let Some(took) = took {
                count(TOOK, &format!("{step}:{}", Times::bucket(took)));
            }
        }
        self.counters.retain(|_, by| *by != 0);
    }
}

/// Whether a report proves that the provider took a message that is not known to be taken. A failure
/// is no proof for a message that the provider refused: it may report just that. Nor is one that says that it was
/// not sent on, for a message that is to go out again: that is why.
pub(super) fn proves_taken(state: MessageState, attempts: u32, news: &News) -> bool {
    let failed = matches!(news, News::Delivery { state: Delivery::Failed, .. });
    let was_unsent =
        matches!(news, News::Delivery { state: Delivery::Failed, code: Some(code), .. } if is_unsent(code));
    match state {
        MessageState::InDoubt | MessageState::Sending => true,
        MessageState::Pending => attempts > 0 && !was_unsent,
        MessageState::Rejected => !failed,
        MessageState::Accepted | MessageState::Skipped => false,
    }
}

/// The counters read back into what people see.
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

/// The times of each step, out of its counters `step:bucket`.
pub(super) fn times<'w>(counters: impl Iterator<Item = (&'w str, u64)>) -> [Times; STEPS.len()] {
    let mut times: [Times; STEPS.len()] = Default::default();
    for (word, count) in counters {
        let Some((step, bucket)) = word.split_once(':') else { continue };
        let step = STEPS.iter().position(|known| *known == step);
        if let (Some(step), Ok(bucket)) = (step, bucket.parse()) {
            times[step].0.insert(bucket, count);
        }
    }
    times
}

/// An answer of a person, as it is kept and exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Whose it is.
    pub recipient: Phone,
    /// Their row of the audience.
    pub row: u64,
    /// The message that was answered.
    pub batch: u32,
    /// Its place in the batch.
    pub message: u8,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// The answer.
    pub content: crate::campaign::delivery::ReplyContent,
    /// What the provider said beside it, by [`DETAILS`](crate::campaign::delivery::DETAILS).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl Response {
    /// Answers in the order of the audience, from what was kept.
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
        let news = match Delivery::ALL.get(state) {
            Some(state) => News::Delivery { state: *state, code: Some("131026".into()), text: "why".into() },
            None => News::Reply(Reply {
                id: "r".into(),
                content: crate::campaign::delivery::ReplyContent::Text("yes".into()),
                details: BTreeMap::new(),
            }),
        };
        MessageReport { message, sid: None, at, news }
    }

    proptest! {
        #[test]
        fn counters_are_what_the_messages_say_whatever_the_order(
            reports in prop::collection::vec((0..4_u8, 0..5_usize, 1_000..9_000_i64), 0..30),
        ) {
            let mut counters = BTreeMap::<Counter, i64>::new();
            let mut deliveries = Deliveries::default();
            for (message, state, at) in &reports {
                let mut changes = Changes::default();
                // What is kept in between is what was there.
                deliveries = Deliveries::read(&deliveries.bytes());
                deliveries.take(&report(*message, *state, *at), 900, &mut changes);
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
                deliveries.take(&report(message, state, start + after), start, &mut changes);
            }
        }
        assert!(deliveries.bytes().len() < 1_500, "{}", deliveries.bytes().len());
        assert_eq!(Deliveries::read(&deliveries.bytes()), deliveries);
        assert_eq!(Deliveries::read(b"damaged"), Deliveries::default());
    }
}
