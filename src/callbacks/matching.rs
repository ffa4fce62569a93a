//! Finds the message that a report or a reply belongs to.

use std::time::Duration;

use super::{CallbackAddress, Reports};
use crate::campaign::delivery::{DeliveryReport, DeliveryUpdate, ReplyContent};
use crate::campaign::{CampaignId, MessageRef, Subject};
use crate::ledger::{Ledger, LedgerError, ReplyTarget, listing, replies};

/// Maximum number of batches searched for a SID, i.e. two million messages, and number of batches per read.
const SEARCHED_BATCHES: u32 = 20_000;
const SEARCHED_TOGETHER: usize = 100;

impl<L: Ledger> Reports<L> {
    /// Returns the message that a report names, if its URL permits it.
    ///
    /// The URL of a message permits only that message, whatever the body says. The URL of an account permits only that
    /// account's messages, because references can be guessed.
    pub(super) async fn named_message(
        &self,
        address: &CallbackAddress,
        report: &DeliveryReport,
    ) -> Result<Option<MessageRef>, LedgerError> {
        let message = match (&address.subject, &report.message) {
            (Subject::Message(message), _) => return Ok(Some(message.clone())),
            (Subject::Account, None) => return Ok(None),
            (Subject::Account, Some(message)) => message,
        };
        if self.campaign_facts(&message.campaign).await?.account == address.name {
            return Ok(Some(message.clone()));
        }
        metrics::counter!("flowcast_callbacks_total", "result" => "other_account").increment(1);
        Ok(None)
    }

    /// Returns the message that a reply without a reference belongs to.
    ///
    /// The webhook of a number (document 004) reports such replies with the message's SID, or only with the number.
    pub(super) async fn replied_message(
        &self,
        address: &CallbackAddress,
        report: &DeliveryReport,
    ) -> Result<Option<MessageRef>, LedgerError> {
        let (Some(within), DeliveryUpdate::Reply(reply)) = (address.account.answers_within, &report.update)
        else {
            return Ok(None);
        };
        let phone = match (report.recipient, report.sid.as_deref()) {
            (Some(phone), _) => phone,
            // A recipient with a user id instead of a number: only the SID identifies the message.
            (None, Some(sid)) => {
                let _turn = self.sid_searches.lock().await;
                return self.message_with_sid(&address.name, within, sid).await;
            }
            (None, None) => return Ok(None),
        };
        // A reply belongs to a message from the number that received it.
        let is_meant = async |campaign: CampaignId| {
            let known = self.campaign_facts(&campaign).await?;
            Ok(report.sender.is_none_or(|number| known.from.is_none_or(|from| from == number)))
        };
        let is_form = matches!(reply.content, ReplyContent::Flow(_));
        let answer = ReplyTarget { phone, sid: report.sid.as_deref(), is_form };
        let found = replies::find_message(&self.ledger, &address.name, within, answer, is_meant).await?;
        // A reply from an unknown number may belong to another program's message. There may be many, so only one is searched
        // for at a time, and the others do not wait for it.
        match (found, report.sid.as_deref(), self.sid_searches.try_lock()) {
            (None, Some(sid), Ok(_turn)) => self.message_with_sid(&address.name, within, sid).await,
            (found, ..) => Ok(found),
        }
    }

    /// Returns the message with a SID that an account sent within a time.
    ///
    /// It reads the records, newest campaigns first: such replies are rare, and an index of SIDs would cost memory for every
    /// message. Callers hold the lock for one search at a time.
    async fn message_with_sid(
        &self,
        account: &str,
        within: Duration,
        sid: &str,
    ) -> Result<Option<MessageRef>, LedgerError> {
        let since = self.ledger.time() - within;
        let mut left = SEARCHED_BATCHES;
        for campaign in listing::all(&self.ledger).await? {
            let is_recent = campaign.finished_at.is_none_or(|at| at >= since);
            if campaign.account != account || !is_recent {
                continue;
            }
            let written = self.ledger.written(&campaign.id).await?.min(left);
            left -= written;
            let numbers: Vec<u32> = (0..written).collect();
            for numbers in numbers.chunks(SEARCHED_TOGETHER) {
                let stored = self.ledger.load(&campaign.id, numbers).await?;
                let sids = self.ledger.sids(&stored).await?;
                let found = numbers.iter().zip(sids).find_map(|(batch, sids)| {
                    sids.iter().find(|(_, known)| *known == sid).map(|(index, _)| (*batch, *index))
                });
                if let Some((batch, index)) = found {
                    return Ok(Some(MessageRef { campaign: campaign.id, batch, index }));
                }
            }
        }
        Ok(None)
    }
}
