//! Messages that are being sent: they are claimed, their outcomes are recorded, or their claim expires.

use super::BatchMachine;
use crate::campaign::{DoubtCause, MessageState};
use crate::ledger::{Outcome, RecordOutcome, record::Message};

impl BatchMachine<'_> {
    /// Claims pending messages. Returns the positions of the messages that the claim holds.
    ///
    /// It is idempotent: called again with the same token, it returns the same positions.
    pub(in crate::ledger) fn claim(&mut self, token: u64, places: &[u8]) -> Vec<u8> {
        let mut granted = Vec::with_capacity(places.len());
        for place in places {
            let Some(message) = self.record.message(*place).copied() else { continue };
            match message.state {
                MessageState::Pending => {
                    let attempts = message.attempts.saturating_add(1);
                    let claimed = Message { attempts, claim: token, ..message };
                    self.set_state(*place, claimed, MessageState::Sending, "");
                    granted.push(*place);
                }
                MessageState::Sending if message.claim == token => granted.push(*place),
                _ => {}
            }
        }
        if !granted.is_empty() && !self.change.claimed.contains(&token) {
            // Also if nothing changes: the claim gets a new deadline.
            self.change.claimed.push(token);
        }
        granted
    }

    /// Applies the outcomes that a sender saw. One that is not legal in the present state changes nothing.
    pub(in crate::ledger) fn settle(&mut self, token: u64, outcomes: &[RecordOutcome]) {
        for RecordOutcome { message: place, outcome, payload } in outcomes {
            let Some(message) = self.record.message(*place).copied() else { continue };
            let (from, to) = (message.state, outcome.state());
            let is_own = token != 0 && message.claim == token;
            let legal = from.can_become(to)
                && match (from, to) {
                    // Back to pending needs proof from the claim that holds the message; a doubt stays in a campaign
                    // that has ended, where a pending message would never be sent.
                    (MessageState::Sending, MessageState::Pending) => is_own,
                    (MessageState::InDoubt, MessageState::Pending) => is_own && !self.has_ended,
                    // Only an operator decides this.
                    (_, MessageState::Pending) | (MessageState::Pending, MessageState::InDoubt) => false,
                    // Evidence of an earlier attempt; a message that was never claimed was never accepted.
                    (MessageState::Pending, MessageState::Accepted) => message.attempts > 0,
                    // An old claim does not settle a message that another claim is sending, unless the provider
                    // accepted it.
                    (MessageState::Sending, MessageState::Accepted) => true,
                    (MessageState::Sending, _) => is_own,
                    _ => true,
                };
            if legal {
                self.change.reopens |= !from.is_open() && to.is_open();
                self.apply(*place, message, outcome, payload.as_deref());
                self.change.settled += u64::from(from.is_open() && !to.is_open());
            }
        }
    }

    /// Sets the provider's id of the answered request.
    pub(in crate::ledger) fn answered_by(&mut self, request: Option<&str>) {
        if let Some(request) = request {
            self.change.request = Some(request.to_owned());
        }
    }

    /// Expires a claim: its messages become in doubt, or with `resend` pending.
    ///
    /// Returns the number of messages.
    pub(in crate::ledger) fn expire(&mut self, token: u64, resend: bool, cause: DoubtCause) -> u64 {
        let outcome = if resend { Outcome::Released } else { Outcome::InDoubt(cause.into()) };
        let is_meant = |message: &Message| message.state == MessageState::Sending && message.claim == token;
        let expired = self.places(|_, message| is_meant(message));
        for (place, message) in &expired {
            self.apply(*place, *message, &outcome, None);
            if !resend && let Some(doubt) = self.record.message(*place).copied() {
                // The token stays: its worker may come back with proof.
                let word = self.record.code(&doubt).to_owned();
                self.record.set(*place, Message { claim: token, ..doubt }, &word);
            }
        }
        self.record.replay |= resend && !expired.is_empty();
        expired.len() as u64
    }
}
