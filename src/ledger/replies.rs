//! Finds the message that a recipient replies to. It only reads.

use std::time::Duration;

use super::{LedgerError, SentMessages};
use crate::campaign::{CampaignId, MessageRef, MessageState, Phone};

/// A reply, as far as it identifies a message.
#[derive(Clone, Copy)]
pub struct ReplyTarget<'a> {
    /// The sender of the reply.
    pub phone: Phone,
    /// SID of the message, if the reply quotes it.
    pub sid: Option<&'a str>,
    /// Whether it is a completed form.
    pub is_form: bool,
}

/// Returns the message that a reply belongs to, among the campaigns for which `is_meant` is true.
///
/// It is the message with the quoted SID, or else the last one sent to the number within `within`. A message that was
/// never sent or was rejected is ignored.
pub async fn find_message<L: SentMessages, F: Future<Output = Result<bool, LedgerError>> + Send>(
    ledger: &L,
    account: &str,
    within: Duration,
    answer: ReplyTarget<'_>,
    is_meant: impl Fn(CampaignId) -> F + Send + Sync,
) -> Result<Option<MessageRef>, LedgerError> {
    let since = ledger.now().saturating_sub(i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
    let mut last: Option<(i64, MessageRef)> = None;
    let mut noted = Vec::new();
    for phone in answer.phone.spellings() {
        noted.extend(ledger.sent_to(account, within, phone).await?);
    }
    for message in noted {
        if !is_meant(message.campaign.clone()).await? {
            continue;
        }
        let place = message.index;
        let stored = ledger.load(&message.campaign, &[message.batch]).await?;
        // The recipient is not compared: the provider may report the recipient under another number.
        let known = stored.iter().flatten().find_map(|stored| stored.record.message(place).copied());
        let Some(known) = known else { continue };
        if known.attempts == 0 || matches!(known.state, MessageState::Rejected | MessageState::Skipped) {
            continue;
        }
        if let Some(named) = answer.sid {
            let sids = ledger.sids(&stored).await?;
            match sids.first().and_then(|sids| sids.get(&place)) {
                Some(sid) if sid == named => return Ok(Some(message)),
                // The reply quotes another message. A form is accepted anyway: only flowcast asks for it.
                Some(_) if !answer.is_form => continue,
                _ => {}
            }
        }
        if known.at >= since && last.as_ref().is_none_or(|(at, _)| known.at > *at) {
            last = Some((known.at, message));
        }
    }
    Ok(last.map(|(_, message)| message))
}
