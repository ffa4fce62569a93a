//! The index of recent messages in Redis: many small hashes for each slice of time, which expire.
//!
//! They are small so that the server stores each in its compact form.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use super::Redis;
use crate::campaign::{CampaignId, MessageRef, Phone};
use crate::ledger::{Clock, LedgerError, SentMessages};
use crate::redis_client::Script;

static NOTE_SENT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("note_sent.lua")));

/// Number of slices of the time in which messages are found; each slice expires as a whole.
const SLICES: i64 = 4;
/// Number of hashes of a slice. With up to 512 messages each, Redis' bound for the compact form, a slice holds 8
/// million messages of an account in it.
const SHARDS: u64 = 1 << 14;
/// Number of fields read with one command.
const PAGE: u64 = 1000;

/// Returns the length of a slice, in milliseconds.
pub(super) fn slice(within: Duration) -> i64 {
    (i64::try_from(within.as_millis()).unwrap_or(i64::MAX) / SLICES).max(1)
}

/// Returns the retention of a slice, in milliseconds: the last one is read until the whole time has passed after its end.
pub(super) fn lasts(within: Duration) -> u64 {
    slice(within).saturating_mul(SLICES + 2).unsigned_abs()
}

/// Returns the key of a number's hash in a slice. It shares the hash tag of its account's buckets.
pub(super) fn key(account: &str, slice: i64, phone: Phone) -> String {
    // The last digits of numbers differ most.
    format!("flowcast:{{account:{account}}}:sent:{slice}:{}", phone.digits() % SHARDS)
}

impl SentMessages for Redis {
    async fn note_sent(
        &self,
        account: &str,
        within: Duration,
        campaign: &CampaignId,
        batch: u32,
        messages: &[(Phone, u8)],
    ) -> Result<(), LedgerError> {
        let length = slice(within);
        let now = self.now() / length;
        let mut shards: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for (phone, place) in messages {
            let note = (format!("{}:{campaign}", phone.digits()), format!("{batch}.{place}"));
            shards.entry(key(account, now, *phone)).or_default().push(note);
        }
        let keys: Vec<String> = shards.keys().cloned().collect();
        let mut args = vec![lasts(within).to_string()];
        for notes in shards.into_values() {
            args.push(notes.len().to_string());
            args.extend(notes.into_iter().flat_map(|(field, value)| [field, value]));
        }
        Ok(self.client.run(&NOTE_SENT, &keys, args).await?)
    }

    async fn sent_to(
        &self,
        account: &str,
        within: Duration,
        phone: Phone,
    ) -> Result<Vec<MessageRef>, LedgerError> {
        let last = self.now() / slice(within);
        let field = format!("{}:", phone.digits());
        let mut found = Vec::new();
        for slice in last - SLICES..=last {
            let mut cursor = 0_u64;
            loop {
                let scan = (key(account, slice, phone), cursor, "MATCH", format!("{field}*"), "COUNT", PAGE);
                let (next, page): (u64, Vec<(String, String)>) =
                    self.client.command(redis::cmd("HSCAN").arg(scan)).await?;
                // An entry that was written again in a later slice names the same message.
                found.extend(page.iter().filter_map(|(known, place)| {
                    format!("{}.{place}", known.strip_prefix(&field)?).parse::<MessageRef>().ok()
                }));
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(found)
    }
}
