//! Which message a recipient replies to.

use std::time::Duration;

use super::{LedgerError, SentMessages};
use crate::campaign::{CampaignId, MessageRef, MessageState, Phone};

/// What an answer says of the message that it is to.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// Whose answer it is.
    pub phone: Phone,
    /// The SID of the message, where it is named.
    pub sid: Option<&'a str>,
    /// Whether it is a form that was filled in.
    pub is_form: bool,
}

/// The message that somebody answers: the one with the SID that they name, else the last one that went to them
/// within that time, of the campaigns that are meant. A message that was never tried, or was refused, is none.
pub async fn find_message<L: SentMessages, F: Future<Output = Result<bool, LedgerError>> + Send>(
    ledger: &L,
    account: &str,
    within: Duration,
    answer: Answer<'_>,
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
        // Whose message it is decides what was noted: the provider may know the person under another number.
        let known = stored.iter().flatten().find_map(|stored| stored.record.message(place).copied());
        let Some(known) = known else { continue };
        if known.attempts == 0 || matches!(known.state, MessageState::Rejected | MessageState::Skipped) {
            continue;
        }
        if let Some(named) = answer.sid {
            let sids = ledger.sids(&stored).await?;
            match sids.first().and_then(|sids| sids.get(&place)) {
                Some(sid) if sid == named => return Ok(Some(message)),
                // They answered something else. A form is kept all the same: nobody else asks for it.
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
