//! Opt-outs: a reply with a stop word adds its sender to the suppression list.

use super::{CallbackError, Reports};
use crate::campaign::{MessageRef, Phone, Subject};
use crate::dispatch::Events;
use crate::ledger::{Ledger, LedgerError, OptOut, OptOutSource, ReportEffect, Suppress};

impl<L: Ledger> Reports<L> {
    /// Returns the numbers that a stop word suppresses: the recipient's, and the sender's if it differs.
    ///
    /// An opt-out counts even if its message is unknown. But a reply at the URL of a known message that does not match that
    /// message suppresses no number.
    pub(super) async fn authenticate(
        &self,
        subject: &Subject,
        effects: Option<&ReportEffect>,
        said: Option<Phone>,
    ) -> Result<Vec<Phone>, LedgerError> {
        if let Some(effects) = effects {
            let other = said.filter(|said| said.person() != effects.recipient.person());
            return Ok([effects.recipient].into_iter().chain(other).collect());
        }
        let is_known = match subject {
            Subject::Message(message) => self.ledger.campaign(&message.campaign).await?.is_some(),
            Subject::Account => false,
        };
        Ok(said.filter(|_| !is_known).into_iter().collect())
    }

    /// Adds numbers to the suppression list and publishes it.
    pub(super) async fn opt_out(
        &self,
        account: &str,
        people: Vec<Phone>,
        message: Option<&MessageRef>,
        answer: &str,
    ) -> Result<(), CallbackError> {
        if people.is_empty() {
            return Ok(());
        }
        let added = OptOut { at: self.ledger.now(), source: OptOutSource::Reply };
        if self.ledger.suppress(people.clone(), Suppress::Add, Some(added)).await? > 0 {
            tracing::info!(account, "recipient opted out with a stop word; number suppressed");
            metrics::counter!("flowcast_suppressed_total").increment(1);
        }
        // Published even if the number was on the list: this process may have died before it was published.
        let now = self.ledger.time();
        let suppressed = |person| Events::suppressed(now, account, person, message, answer);
        let events: Vec<_> = people.into_iter().map(suppressed).collect();
        Ok(self.publisher.events.publish_confirmed(&events).await?)
    }
}
