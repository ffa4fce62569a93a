//! The state machine of a batch's record: every rule about the state of a message.
//!
//! It is pure: a record and an event go in, a [`Change`] comes out. A backend writes the change if the record is still
//! the one that went in. The rules are in `batch_machine/`, by kind of event; this file has what they share.

mod data_loss;
pub(super) mod decisions;
mod reports;
mod sending;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::record::{BatchRecord, Message};
use super::{Outcome, PlannedBatch, change::Change};
use crate::campaign::MessageState;

/// A batch whose record is being changed.
pub(super) struct BatchMachine<'b> {
    batch: &'b PlannedBatch,
    before: BatchRecord,
    record: BatchRecord,
    change: Change,
    /// Changes of the counters of states, in the order of [`MessageState::ALL`].
    moved: [i64; MessageState::ALL.len()],
    /// The ledger's time, in milliseconds since 1970.
    now: i64,
    /// Whether the campaign has ended: messages are sent again only if an operator decides so.
    has_ended: bool,
}

impl<'b> BatchMachine<'b> {
    pub(super) fn new(batch: &'b PlannedBatch, record: BatchRecord, now: i64) -> Self {
        let change = Change { known: record.revision, ..Change::default() };
        let moved = [0; MessageState::ALL.len()];
        Self { batch, before: record.clone(), record, change, moved, now, has_ended: false }
    }

    /// Marks the campaign as ended.
    pub(super) fn of_ended(self) -> Self {
        Self { has_ended: true, ..self }
    }

    /// Returns the change to write.
    pub(super) fn finish(mut self) -> Change {
        let moved = |after: bool, before: bool| (after != before).then_some(after);
        let (claims, held) = (self.record.claims(), self.before.claims());
        self.change.released = held.difference(&claims).copied().collect();
        self.change.are_first = !self.change.outcomes.is_empty()
            && self.before.messages.iter().all(|message| message.state.is_open())
            && self.batch.are_distinct();
        self.change.open = moved(self.record.is_open(), self.before.is_open());
        self.change.failed = moved(self.record.is_failed(), self.before.is_failed());
        self.record.replay &= self.record.is_open();
        // A batch that was decided about again is listed again.
        let mut changes = self.record.messages.iter().zip(&self.before.messages);
        let is_new =
            changes.any(|(after, before)| after.state == MessageState::Pending && !before.state.is_open());
        self.change.replay = match (self.record.replay, self.before.replay) {
            (true, false) => Some(true),
            (true, true) if is_new => Some(true),
            (false, true) => Some(false),
            _ => None,
        };
        for (state, by) in MessageState::ALL.iter().zip(self.moved) {
            self.count(state.as_str(), String::new(), by);
        }
        self.change.counters.retain(|_, by| *by != 0);
        if self.record != self.before || !self.change.claimed.is_empty() {
            self.record.revision = self.before.revision.wrapping_add(1).max(1);
            self.change.record = Some(self.record);
        }
        self.change
    }

    fn places(&self, is_meant: impl Fn(&BatchRecord, &Message) -> bool) -> Vec<(u8, Message)> {
        let meant = self.record.each().filter(|(_, message)| is_meant(&self.record, message));
        meant.map(|(place, message)| (place, *message)).collect()
    }

    /// Applies an outcome to a message, with counters, texts and stored values.
    fn apply(&mut self, place: u8, message: Message, outcome: &Outcome, payload: Option<&str>) {
        let to = outcome.state();
        let (word, text): (String, Cow<'_, str>) = match outcome {
            Outcome::Accepted { sid } => (sid.clone(), "".into()),
            Outcome::Rejected { code, detail } if code.is_empty() => ("unknown".into(), detail.into()),
            Outcome::Rejected { code, detail } => (code.clone(), detail.into()),
            // One text is stored for each code, so it must be true of all messages with the code.
            Outcome::InDoubt(doubt) => (doubt.cause.code().into_owned(), doubt.cause.to_string().into()),
            Outcome::Released => (String::new(), "".into()),
            Outcome::Skipped { reason, detail } => (reason.as_str().into(), detail.into()),
        };
        if message.state == MessageState::Rejected {
            let code = self.record.code(&message).to_owned();
            self.count(MessageState::Rejected.as_str(), code, -1);
        }
        if matches!(to, MessageState::Rejected | MessageState::Skipped) {
            self.count(to.as_str(), word.clone(), 1);
        }
        if !text.is_empty() {
            self.change.texts.entry((to.as_str(), word.clone())).or_insert_with(|| text.into_owned());
        }
        let mut kept = message.kept;
        match (to, payload) {
            (MessageState::Rejected | MessageState::InDoubt, Some(payload)) => {
                self.change.payloads.insert(place, Some(payload.to_owned()));
                kept = true;
            }
            (MessageState::Accepted | MessageState::Skipped, _) if kept => {
                self.change.payloads.insert(place, None);
                kept = false;
            }
            _ => {}
        }
        let changed = Message { claim: 0, kept, ..message };
        // SIDs are not part of the record.
        self.set_state(place, changed, to, if to == MessageState::Accepted { "" } else { &word });
        if to == MessageState::Pending {
            // A message that is released from a claim has no outcome to remove.
            if message.state != MessageState::Sending {
                self.write_outcome(place, None);
            }
        } else {
            self.write_outcome(place, Some((to, word)));
        }
    }

    fn write_outcome(&mut self, place: u8, outcome: Option<(MessageState, String)>) {
        let outcomes = &mut self.change.outcomes;
        match outcomes.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(at) => outcomes[at].1 = outcome,
            Err(at) => outcomes.insert(at, (place, outcome)),
        }
    }

    fn set_state(&mut self, place: u8, message: Message, to: MessageState, word: &str) {
        self.moved[message.state as usize] -= 1;
        self.moved[to as usize] += 1;
        self.record.set(place, Message { state: to, at: self.now, ..message }, word);
    }

    fn count(&mut self, kind: &'static str, word: String, by: i64) {
        *self.change.counters.entry((kind, word)).or_default() += by;
    }
}
