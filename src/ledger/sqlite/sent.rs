//! The index of recent messages in the embedded store.

use std::time::Duration;

use rusqlite::{Row, Transaction, params};

use super::{Sqlite, execute, id_of, key, now, signed};
use crate::campaign::{CampaignId, MessageRef, Phone};
use crate::ledger::{LedgerError, SentMessages};

/// Maximum number of expired entries deleted with one write: twice a batch.
const FORGOTTEN: i64 = 200;

/// Returns the time before which entries have expired.
fn since(within: Duration) -> i64 {
    now().saturating_sub(i64::try_from(within.as_millis()).unwrap_or(i64::MAX))
}

impl SentMessages for Sqlite {
    async fn note_sent(
        &self,
        account: &str,
        within: Duration,
        campaign: &CampaignId,
        batch: u32,
        messages: &[(Phone, u8)],
    ) -> Result<(), LedgerError> {
        // A store has campaigns of few accounts: the account is in the campaign's row.
        let _ = account;
        let (campaign, messages) = (campaign.clone(), messages.to_vec());
        let write = move |transaction: &Transaction<'_>| {
            let (campaign, now) = (key(transaction, &campaign)?, now());
            let sql = "DELETE FROM sent WHERE (number, campaign) IN
                 (SELECT number, campaign FROM sent WHERE at < ?1 ORDER BY at LIMIT ?2)";
            execute(transaction, sql, [since(within), FORGOTTEN])?;
            for (phone, place) in &messages {
                let sql = "INSERT OR REPLACE INTO sent (number, campaign, batch, message, at) VALUES (?1, ?2, ?3, ?4, ?5)";
                execute(transaction, sql, params![signed(phone.digits()), campaign, batch, place, now])?;
            }
            Ok(())
        };
        self.store.write(write).await
    }

    async fn sent_to(
        &self,
        account: &str,
        within: Duration,
        phone: Phone,
    ) -> Result<Vec<MessageRef>, LedgerError> {
        let sql = "SELECT campaign.id, batch, message FROM sent JOIN campaign ON campaign.key = sent.campaign
             WHERE number = ?1 AND account = ?2 AND at >= ?3";
        let sent = (signed(phone.digits()), account.to_owned(), since(within));
        let message =
            |row: &Row<'_>| Ok(MessageRef { campaign: id_of(row)?, batch: row.get(1)?, index: row.get(2)? });
        self.store.each_row(sql, sent, message).await
    }
}
