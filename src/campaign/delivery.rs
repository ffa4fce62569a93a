//! The life of a message after its provider accepted it: delivery states and replies, merged from reports in any
//! order, with repetitions.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{digest::digest, id::MessageRef, phone::Phone};

super::state::words! {
    /// The delivery state of a message. States are ordered and only advance: a delivery that is reported after a failure
    /// is real, because a recipient may have several devices.
    #[derive(PartialOrd, Ord)]
    pub enum Delivery {
        /// On its way to the recipient.
        Sent = "sent",
        /// It could not be delivered.
        Failed = "failed",
        /// On a device of the recipient.
        Delivered = "delivered",
        /// The recipient has opened it.
        Read = "read",
    }
}

/// A report on a message.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryReport {
    /// The message, if the report's body names it. The callback address may name it too.
    pub message: Option<MessageRef>,
    /// The recipient's number, if the body has it.
    pub recipient: Option<Phone>,
    /// The sender number, if the body has it: the one that the recipient replied to.
    pub sender: Option<Phone>,
    /// The provider's id of the message.
    pub sid: Option<String>,
    /// The job's `custom_data`, if the body returns it.
    pub custom_data: Option<String>,
    /// Time of the event, in milliseconds since 1970, if the report has it.
    pub at: Option<i64>,
    /// The event.
    pub update: DeliveryUpdate,
}

/// An event of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryUpdate {
    /// A delivery state was reached.
    Delivery {
        /// The state.
        state: Delivery,
        /// The provider's code of a failure.
        code: Option<String>,
        /// The provider's text.
        text: String,
    },
    /// The recipient replied.
    Reply(Reply),
}

/// A reply of a recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The provider's id of the reply, which may be reported more than once.
    pub id: String,
    /// The content.
    pub content: ReplyContent,
    /// Further details, by the documents' names: [`DETAILS`].
    pub details: BTreeMap<String, String>,
}

/// Details of a reply: the recipient's name, the flow's id (document 003), the text and name of a form's message
/// (document 004).
pub const DETAILS: [&str; 4] = ["profile_name", "flow_id", "body", "name"];

/// The field of a form that returns the flow token; the recipient did not fill it in.
pub const FLOW_TOKEN: &str = "flow_token";

impl Reply {
    /// Returns the identity of a reply in its campaign. Exotel reports a form in two ways (documents 001 and 003)
    /// with different ids: the same fields are the same reply.
    pub fn key(&self, batch: u32, message: u8) -> String {
        let ReplyContent::Flow(fields) = &self.content else { return self.id.clone() };
        let mut fields = fields.clone();
        // One of the two has the token among its fields.
        fields.remove(FLOW_TOKEN);
        let digest = digest(&Value::Object(fields)).to_hex();
        format!("{batch}.{message}:{}", &digest[..32])
    }
}

/// The content of a reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyContent {
    /// The fields of a form.
    Flow(serde_json::Map<String, Value>),
    /// A text, or the title of a selected button or row.
    Text(String),
    /// Any other type.
    Other(String),
}

/// The delivery progress of a message. Any order and repetition of reports gives the same result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The delivery state.
    pub state: Option<Delivery>,
    /// Whether the recipient has replied.
    pub replied: bool,
    /// Time at which each step was first reached (sent, delivered, read, answered), in milliseconds; 0 for never.
    pub at: [i64; 4],
    /// The code of the failure.
    pub code: String,
}

/// Stored names of the steps after a message was accepted, in order; the last one is a reply.
pub const STEPS: [&str; 4] = ["sent", "delivered", "read", "answered"];

impl Progress {
    /// Records a step; `at` is its time, `code` the code of a failure.
    pub fn step(&mut self, state: Delivery, at: i64, code: &str) {
        self.state = self.state.max(Some(state));
        match state {
            Delivery::Sent => self.first(0, at),
            Delivery::Delivered => self.first(1, at),
            Delivery::Read => self.first(2, at),
            // Of several codes the same one is kept, whatever the order.
            Delivery::Failed => {
                if !code.is_empty() && (self.code.is_empty() || code < self.code.as_str()) {
                    self.code = code.into();
                }
            }
        }
    }

    /// Records a reply.
    pub fn reply(&mut self, at: i64) {
        self.replied = true;
        self.first(3, at);
    }

    fn first(&mut self, step: usize, at: i64) {
        if self.at[step] == 0 || at < self.at[step] {
            self.at[step] = at.max(1);
        }
    }

    /// Returns the duration of each step, in milliseconds, since the nearest known step before it; `accepted_at` is
    /// when the provider accepted the message.
    pub fn stage_times(&self, accepted_at: i64) -> [Option<u64>; 4] {
        let mut before = accepted_at;
        self.at.map(|at| {
            if at == 0 {
                return None;
            }
            let took = (before > 0).then(|| u64::try_from(at - before).ok()).flatten();
            before = at;
            took
        })
    }

    /// Returns the code of a message that failed and was never delivered.
    pub fn failure(&self) -> Option<&str> {
        (self.state == Some(Delivery::Failed)).then_some(self.code.as_str())
    }
}

/// A histogram of the durations of a step. The number of counters is fixed: each covers durations up to 19 % longer
/// than the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageTimings(pub BTreeMap<u16, u64>);

/// Counters per doubling of the duration.
const PER_DOUBLING: f64 = 4.0;

impl StageTimings {
    /// Returns the counter of a duration in milliseconds.
    pub fn bucket(milliseconds: u64) -> u16 {
        ((milliseconds as f64 + 1.0).log2() * PER_DOUBLING).floor() as u16
    }

    /// Returns a quantile, in milliseconds: 0.5 is the median.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.0.values().sum();
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        // The middle of the counter's range.
        let middle = |bucket: u16| 2_f64.powf((f64::from(bucket) + 0.5) / PER_DOUBLING) - 1.0;
        bucket.map(|(bucket, _)| middle(*bucket).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report() -> impl Strategy<Value = (u8, i64, &'static str)> {
        (0..5_u8, 1..2_000_i64, prop::sample::select(vec!["", "131026", "30016"]))
    }

    fn gather<'r>(reports: impl IntoIterator<Item = &'r (u8, i64, &'static str)>) -> Progress {
        let mut progress = Progress::default();
        for (kind, at, code) in reports {
            match Delivery::ALL.get(usize::from(*kind)) {
                Some(state) => progress.step(*state, *at, code),
                None => progress.reply(*at),
            }
        }
        progress
    }

    proptest! {
        #[test]
        fn any_order_and_repetition_of_reports_ends_in_the_same_state(
            (reports, again) in prop::collection::vec(report(), 1..12).prop_flat_map(|reports| {
                // Each at least once, some repeatedly, in any order.
                let more = prop::collection::vec(prop::sample::select(reports.clone()), 0..30);
                let all = more.prop_map({
                    let reports = reports.clone();
                    move |more| [reports.clone(), more].concat()
                });
                (Just(reports), all.prop_shuffle())
            }),
        ) {
            prop_assert_eq!(gather(&again), gather(&reports));
        }

        #[test]
        fn a_state_never_moves_down(reports in prop::collection::vec(report(), 1..12)) {
            let mut progress = Progress::default();
            for (kind, at, code) in reports {
                let before = progress.state;
                if let Some(state) = Delivery::ALL.get(usize::from(kind)) {
                    progress.step(*state, at, code);
                }
                prop_assert!(progress.state >= before);
            }
        }
    }

    #[test]
    fn a_delivery_after_a_failure_is_real_and_a_failure_after_a_delivery_is_not() {
        for order in [[Delivery::Failed, Delivery::Delivered], [Delivery::Delivered, Delivery::Failed]] {
            let mut progress = Progress::default();
            for state in order {
                progress.step(state, 5, "30013");
            }
            assert_eq!((progress.state, progress.failure()), (Some(Delivery::Delivered), None));
        }
    }

    #[test]
    fn a_step_takes_the_time_since_the_one_before_it_that_is_known() {
        let mut progress = Progress::default();
        progress.step(Delivery::Read, 9_000, "");
        progress.step(Delivery::Sent, 2_000, "");
        assert_eq!(progress.stage_times(1_500), [Some(500), None, Some(7_000), None]);
        progress.step(Delivery::Delivered, 3_000, "");
        progress.reply(10_000);
        assert_eq!(progress.stage_times(1_500), [Some(500), Some(1_000), Some(6_000), Some(1_000)]);
        // Different clocks never give a negative duration.
        assert_eq!(progress.stage_times(2_500)[0], None);
    }

    #[test]
    fn quantiles_are_near_the_exact_values() {
        let mut times = StageTimings::default();
        for time in 1..=1000_u64 {
            *times.0.entry(StageTimings::bucket(time)).or_default() += 1;
        }
        let near = |share, expected: f64| {
            let found = times.quantile(share).unwrap() as f64;
            assert!((found / expected - 1.0).abs() < 0.2, "{found} for {expected}");
        };
        near(0.5, 500.0);
        near(0.95, 950.0);
        assert_eq!(StageTimings::default().quantile(0.5), None);
        let once = StageTimings(BTreeMap::from([(StageTimings::bucket(0), 1)]));
        assert_eq!(once.quantile(0.95), Some(0));
    }
}
