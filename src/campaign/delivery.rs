//! What becomes of a message after its provider took it: delivery states, replies, and how reports of
//! them are gathered into one truth, whatever their order and repetition.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::digest;
use super::id::MessageRef;
use super::phone::Phone;

/// How far a message has come. The order is the one in which it moves, and it only moves up: a
/// delivery that is reported after a failure is real, because a person may have several devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// On its way to the person.
    Sent,
    /// It could not be delivered.
    Failed,
    /// On a device of the person.
    Delivered,
    /// The person has opened it.
    Read,
}

super::state::words!(Delivery, Sent = "sent", Failed = "failed", Delivered = "delivered", Read = "read",);

/// What a report says of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The message, where the report's body says which. The address that it came to may say it too.
    pub message: Option<MessageRef>,
    /// The person's number, where the body has it.
    pub recipient: Option<Phone>,
    /// The number that it was sent from, where the body has it: the one that the person has answered.
    pub sender: Option<Phone>,
    /// The provider's id of the message.
    pub sid: Option<String>,
    /// The job's `custom_data`, where the body gives it back.
    pub custom_data: Option<String>,
    /// When it happened, in milliseconds since 1970; `None` where the report does not say.
    pub at: Option<i64>,
    /// What happened.
    pub news: News,
}

/// What happened to a message.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It came so far.
    Delivery {
        /// How far.
        state: Delivery,
        /// Why it failed: the provider's code.
        code: Option<String>,
        /// The provider's text.
        text: String,
    },
    /// The person answered.
    Reply(Reply),
}

/// An answer of a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The provider's id of the answer: the same one comes more than once.
    pub id: String,
    /// What is in it.
    pub content: ReplyContent,
    /// What the provider says beside it, by the documents' own names: [`DETAILS`].
    pub details: BTreeMap<String, String>,
}

/// What may be said beside an answer: the person's name, the flow's id (document 003), and what a form's bubble
/// shows and is called (document 004).
pub const DETAILS: [&str; 4] = ["profile_name", "flow_id", "body", "name"];

/// The field of a form's answer that comes back as it was sent: nobody answered it.
pub const FLOW_TOKEN: &str = "flow_token";

impl Reply {
    /// What an answer to a message is known by in its campaign. Exotel tells of a form in two ways
    /// (documents 001 and 003), each with an id of its own: the same fields are the same answer.
    pub fn key(&self, batch: u32, message: u8) -> String {
        let ReplyContent::Flow(fields) = &self.content else { return self.id.clone() };
        let mut fields = fields.clone();
        // One of the two has the token among the fields.
        fields.remove(FLOW_TOKEN);
        let digest = digest(&Value::Object(fields)).to_hex();
        format!("{batch}.{message}:{}", &digest[..32])
    }
}

/// What a person answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyContent {
    /// A form that was filled in: its fields.
    Flow(serde_json::Map<String, Value>),
    /// Words, or the title of a button or a row that was chosen.
    Text(String),
    /// Something else: its type.
    Other(String),
}

/// How far a message has come, and when. Reports in any order and any number end in the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How far.
    pub state: Option<Delivery>,
    /// Whether the person has answered.
    pub replied: bool,
    /// When each step was first reached: sent, delivered, read, answered; milliseconds, 0 for never.
    pub at: [i64; 4],
    /// Why it failed.
    pub code: String,
}

/// The steps after the provider took a message, in their order.
pub const STEPS: [&str; 4] = ["sent", "delivered", "read", "answered"];

impl Progress {
    /// Takes in a step; `at` is when, `code` why it failed.
    pub fn step(&mut self, state: Delivery, at: i64, code: &str) {
        self.state = self.state.max(Some(state));
        match state {
            Delivery::Sent => self.first(0, at),
            Delivery::Delivered => self.first(1, at),
            Delivery::Read => self.first(2, at),
            // Of several reasons the same one stays, whichever came first.
            Delivery::Failed => {
                if !code.is_empty() && (self.code.is_empty() || code < self.code.as_str()) {
                    self.code = code.into();
                }
            }
        }
    }

    /// Takes in an answer.
    pub fn reply(&mut self, at: i64) {
        self.replied = true;
        self.first(3, at);
    }

    fn first(&mut self, step: usize, at: i64) {
        if self.at[step] == 0 || at < self.at[step] {
            self.at[step] = at.max(1);
        }
    }

    /// How long each step took, in milliseconds, since the nearest step before it that is known;
    /// `accepted_at` is when the provider took the message.
    pub fn took(&self, accepted_at: i64) -> [Option<u64>; 4] {
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

    /// The code of a message that could not be delivered and never was.
    pub fn failure(&self) -> Option<&str> {
        (self.state == Some(Delivery::Failed)).then_some(self.code.as_str())
    }
}

/// How many messages took how long for a step. A few counters, whatever the number of messages: each
/// is for times up to 19 % longer than the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times(pub BTreeMap<u16, u64>);

/// Four counters for each doubling.
const PER_DOUBLING: f64 = 4.0;

impl Times {
    /// The counter of a time in milliseconds.
    pub fn bucket(milliseconds: u64) -> u16 {
        ((milliseconds as f64 + 1.0).log2() * PER_DOUBLING).floor() as u16
    }

    /// The time that a share of all stayed below, in milliseconds: 0.5 for the median.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.0.values().sum();
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        // The middle of what the counter stands for.
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
                // Each at least once, some of them again, in any order.
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
        assert_eq!(progress.took(1_500), [Some(500), None, Some(7_000), None]);
        progress.step(Delivery::Delivered, 3_000, "");
        progress.reply(10_000);
        assert_eq!(progress.took(1_500), [Some(500), Some(1_000), Some(6_000), Some(1_000)]);
        // Clocks that differ give no time below nothing.
        assert_eq!(progress.took(2_500)[0], None);
    }

    #[test]
    fn quantiles_are_near_what_they_stand_for() {
        let mut times = Times::default();
        for time in 1..=1000_u64 {
            *times.0.entry(Times::bucket(time)).or_default() += 1;
        }
        let near = |share, expected: f64| {
            let found = times.quantile(share).unwrap() as f64;
            assert!((found / expected - 1.0).abs() < 0.2, "{found} for {expected}");
        };
        near(0.5, 500.0);
        near(0.95, 950.0);
        assert_eq!(Times::default().quantile(0.5), None);
        let once = Times(BTreeMap::from([(Times::bucket(0), 1)]));
        assert_eq!(once.quantile(0.95), Some(0));
    }
}
