//! The index of recent messages in memory.

use std::{collections::BTreeMap, time::Duration};

use super::Memory;
use crate::campaign::{CampaignId, MessageRef, Phone};
use crate::ledger::{Clock, LedgerError, SentMessages};

impl SentMessages for Memory {
    async fn note_sent(
        &self,
        account: &str,
        within: Duration,
        campaign: &CampaignId,
        batch: u32,
        messages: &[(Phone, u8)],
    ) -> Result<(), LedgerError> {
        let now = self.now();
        let mut state = self.state.lock();
        for (phone, index) in messages {
            let message = MessageRef { campaign: campaign.clone(), batch, index: *index };
            let of_number = state.sent.entry((account.to_owned(), *phone)).or_default();
            of_number.retain(|_, (_, at)| is_recent(*at, now, within));
            of_number.insert(campaign.clone(), (message, now));
        }
        Ok(())
    }

    async fn sent_to(
        &self,
        account: &str,
        within: Duration,
        phone: Phone,
    ) -> Result<Vec<MessageRef>, LedgerError> {
        let now = self.now();
        let state = self.state.lock();
        let of_number = state.sent.get(&(account.to_owned(), phone)).into_iter().flat_map(BTreeMap::values);
        let recent = of_number.filter(|(_, at)| is_recent(*at, now, within));
        Ok(recent.map(|(message, _)| message.clone()).collect())
    }
}

fn is_recent(at: i64, now: i64, within: Duration) -> bool {
    u128::try_from(now - at).is_ok_and(|ago| ago <= within.as_millis()) || at > now
}
