//! Delivery reports: what they prove about a batch's messages.

use super::BatchMachine;
use crate::campaign::{MessageState, delivery::DeliveryUpdate};
use crate::ledger::deliveries::{
    Changes, Deliveries, MessageReport, ReportEffect, Response, UNDELIVERED, proves_taken,
};
use crate::ledger::{LedgerError, Outcome};

impl BatchMachine<'_> {
    /// Applies delivery reports: delivery progress, and that the provider accepted a message.
    ///
    /// Returns the effect of each report, `None` if there is no such message or the report proves nothing.
    pub(in crate::ledger) fn report(
        &mut self,
        reports: &[MessageReport],
        before: &[u8],
    ) -> Result<Vec<Option<ReportEffect>>, LedgerError> {
        let mut deliveries = Deliveries::read(before);
        let mut changes = Changes::default();
        let mut effects = Vec::with_capacity(reports.len());
        for report in reports {
            let place = report.message;
            let found = self.batch.recipients.get(usize::from(place)).copied();
            let (Some((row, recipient)), Some(message)) = (found, self.record.message(place).copied()) else {
                effects.push(None);
                continue;
            };
            let settles = proves_taken(message.state, u32::from(message.attempts), &report.update);
            if settles {
                let sid = report.sid.clone().unwrap_or_default();
                self.settle(0, &[(place, Outcome::Accepted { sid }).into()]);
            } else if message.state != MessageState::Accepted {
                effects.push(None);
                continue;
            }
            // The time of acceptance is unknown if only a report proves it.
            let was_accepted = self.before.message(place).is_some_and(|m| m.state == MessageState::Accepted);
            let accepted_at = if was_accepted { message.at } else { 0 };
            let is_news = deliveries.apply(report, accepted_at, &mut changes) || settles;
            let effect = ReportEffect { recipient, row, message: place, settled: settles, is_news };
            if let DeliveryUpdate::Reply(reply) = &report.update {
                let response = Response::new(&effect, self.batch.number, report.at, reply);
                let json = serde_json::to_string(&response)
                    .map_err(|error| LedgerError::Storage(format!("cannot save a reply: {error}")))?;
                self.change.responses.push((reply.key(self.batch.number, place), json));
            }
            effects.push(Some(effect));
        }
        if effects.iter().any(Option::is_some) {
            self.change.deliveries = Some((before.to_vec(), deliveries.bytes()));
            for (counter, by) in changes.counters {
                *self.change.counters.entry(counter).or_default() += by;
            }
            for (code, text) in changes.texts {
                self.change.texts.entry((UNDELIVERED, code)).or_insert(text);
            }
        }
        Ok(effects)
    }
}
