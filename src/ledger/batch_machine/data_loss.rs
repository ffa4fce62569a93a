//! A batch of which the ledger lost writes: they are restored from a journal, or its messages are in doubt.

use std::{cmp::Ordering, collections::BTreeMap};

use super::BatchMachine;
use crate::campaign::{DoubtCause, MessageState};
use crate::ledger::Outcome;
use crate::ledger::record::{BatchRecord, Message};

impl BatchMachine<'_> {
    /// Marks pending messages that were never claimed, as far as the ledger knows, as in doubt.
    ///
    /// The ledger lost recent writes, so another worker may have sent them.
    pub(in crate::ledger) fn mark_unreported_in_doubt(&mut self, places: &[u8]) {
        for place in places {
            if let Some(message) = self.record.message(*place).copied()
                && message.state == MessageState::Pending
                && message.attempts == 0
            {
                let outcome = Outcome::InDoubt(DoubtCause::DataLoss.into());
                self.apply(*place, Message { attempts: 1, ..message }, &outcome, None);
            }
        }
    }

    /// Restores lost writes: a record that was written, and the SIDs of its messages by position.
    ///
    /// Messages whose present state is later stay as they are. Returns the number of messages that changed.
    pub(in crate::ledger) fn restore(&mut self, known: &BatchRecord, sids: &BTreeMap<u8, String>) -> u64 {
        let mut restored = 0;
        for (place, then) in known.each() {
            let Some(now) = self.record.message(place).copied().filter(|now| is_later(then, now)) else {
                continue;
            };
            restored += 1;
            let (was, is) = (self.record.code(&now).to_owned(), known.code(then).to_owned());
            for (message, word, by) in [(&now, &was, -1), (then, &is, 1)] {
                if matches!(message.state, MessageState::Rejected | MessageState::Skipped) {
                    self.count(message.state.as_str(), word.clone(), by);
                }
            }
            self.moved[now.state as usize] -= 1;
            self.moved[then.state as usize] += 1;
            let mut kept = now.kept;
            if kept && then.state == MessageState::Accepted {
                self.change.payloads.insert(place, None);
                kept = false;
            }
            self.record.set(place, Message { kept, ..*then }, &is);
            if then.state.is_open() {
                if !now.state.is_open() {
                    self.write_outcome(place, None);
                }
            } else {
                let sid = sids.get(&place).filter(|_| then.state == MessageState::Accepted);
                self.write_outcome(place, Some((then.state, sid.cloned().unwrap_or(is))));
            }
            if then.state == MessageState::Sending && !self.change.claimed.contains(&then.claim) {
                self.change.claimed.push(then.claim);
            }
        }
        self.record.replay |= known.replay && restored > 0;
        restored
    }
}

/// Returns whether the state `then`, which the ledger may have lost, is later than the state `now`.
fn is_later(then: &Message, now: &Message) -> bool {
    // The provider's result of an attempt outranks a doubt about the same attempt, whenever that was written.
    match then.attempts.cmp(&now.attempts) {
        Ordering::Greater => now.state != MessageState::Accepted,
        Ordering::Less => false,
        Ordering::Equal => match (then.state, now.state) {
            (_, MessageState::Accepted)
            | (MessageState::Sending | MessageState::InDoubt, MessageState::Rejected) => false,
            // Not if it is pending: an operator may have requeued it since.
            (MessageState::Accepted, MessageState::Pending) => then.at > now.at,
            (MessageState::Accepted, _)
            | (MessageState::Rejected, MessageState::Sending | MessageState::InDoubt) => true,
            _ => then.at > now.at,
        },
    }
}
