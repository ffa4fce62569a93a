//! The sandbox's own record of accepted messages, independent of what the client believes.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// An accepted message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedMessage {
    /// The id of the message.
    pub sid: String,
    /// The recipient.
    pub to: String,
    /// The custom data of the message.
    pub custom_data: Option<String>,
}

pub(super) struct Record {
    remember: bool,
    inner: Mutex<RecordState>,
}

#[derive(Default)]
struct RecordState {
    accepted: u64,
    rejected: u64,
    answers: BTreeMap<u16, u64>,
    taken: Vec<AcceptedMessage>,
    /// How often each message was accepted, by recipient and custom data.
    times: HashMap<(String, Option<String>), u64>,
}

impl Record {
    pub(super) fn new(remember: bool) -> Self {
        Self { remember, inner: Mutex::default() }
    }

    pub(super) fn accepted(&self, sid: &str, to: &str, custom_data: Option<&str>) {
        let mut inner = self.inner.lock();
        inner.accepted += 1;
        if self.remember {
            let custom_data = custom_data.map(str::to_owned);
            *inner.times.entry((to.into(), custom_data.clone())).or_default() += 1;
            inner.taken.push(AcceptedMessage { sid: sid.into(), to: to.into(), custom_data });
        }
    }

    pub(super) fn rejected(&self) {
        self.inner.lock().rejected += 1;
    }

    pub(super) fn answered(&self, status: u16) {
        *self.inner.lock().answers.entry(status).or_default() += 1;
    }

    pub(super) fn count(&self) -> u64 {
        self.inner.lock().accepted
    }

    pub(super) fn taken(&self) -> Vec<AcceptedMessage> {
        self.inner.lock().taken.clone()
    }

    pub(super) fn stats(&self) -> Value {
        let inner = self.inner.lock();
        let answers: BTreeMap<String, u64> =
            inner.answers.iter().map(|(status, count)| (status.to_string(), *count)).collect();
        let mut stats = json!({ "accepted": inner.accepted, "rejected": inner.rejected, "answers": answers });
        if self.remember {
            stats["messages"] = json!(inner.times.len());
            stats["sent_twice"] = json!(inner.times.values().filter(|times| **times > 1).count());
        }
        stats
    }
}
