//! The layout of a campaign in Redis: names of keys and fields, and the format of lines. It sends no command.

use serde_json::{Value, json};

use crate::campaign::CampaignId;
use crate::ledger::{Breaker, BreakerScope, SkippedRow, change::Counter};

/// Field of a campaign that is being removed.
pub(super) const REMOVED: &str = "removed";

/// The keys of a campaign. The id in braces is the hash tag: all keys are on one node of a cluster.
pub(super) struct Keys<'i>(pub(super) &'i CampaignId);

impl Keys<'_> {
    fn key(&self, rest: impl std::fmt::Display) -> String {
        format!("flowcast:{{{}}}:{rest}", self.0)
    }

    fn numbered(&self, kind: &str, number: u32) -> String {
        self.key(format_args!("{kind}:{number}"))
    }

    pub(super) fn campaign(&self) -> String {
        self.key("campaign")
    }

    pub(super) fn job(&self) -> String {
        self.key("job")
    }

    /// Numbers of the batches with open messages.
    pub(super) fn open(&self) -> String {
        self.key("open")
    }

    /// The claims, by their deadlines.
    pub(super) fn claims(&self) -> String {
        self.key("claims")
    }

    /// The skipped rows, in order.
    pub(super) fn skipped(&self) -> String {
        self.key("skipped")
    }

    /// The text of each code, reason and doubt.
    pub(super) fn texts(&self) -> String {
        self.key("texts")
    }

    /// Numbers of the batches with rejected messages or messages in doubt.
    pub(super) fn failed(&self) -> String {
        self.key("failed")
    }

    /// Numbers of the batches to requeue, with the time of the decision.
    pub(super) fn replays(&self) -> String {
        self.key("replays")
    }

    /// The campaign's workers, with the number of batches that each holds.
    pub(super) fn workers(&self) -> String {
        self.key("workers")
    }

    /// Number of messages settled in a second since 1970.
    pub(super) fn tick(&self, second: i64) -> String {
        self.key(format_args!("tick:{second}"))
    }

    /// The outcomes of a batch's messages, by phone number, for other systems.
    pub(super) fn batch(&self, number: u32) -> String {
        self.numbered("batch", number)
    }

    /// A batch's recipients.
    pub(super) fn plan(&self, number: u32) -> String {
        self.numbered("plan", number)
    }

    /// A batch's record.
    pub(super) fn record(&self, number: u32) -> String {
        self.numbered("record", number)
    }

    /// Delivery progress of a batch's messages.
    pub(super) fn deliveries(&self, number: u32) -> String {
        self.numbered("deliveries", number)
    }

    /// Replies to a batch's messages.
    pub(super) fn responses(&self, number: u32) -> String {
        self.numbered("responses", number)
    }

    /// The campaign's audit log.
    pub(super) fn audit(&self) -> String {
        self.key("audit")
    }

    /// Written to check whether the server accepts writes; expires after a millisecond.
    pub(super) fn probe(&self) -> String {
        self.key("probe")
    }

    /// The points of the campaign's chart.
    pub(super) fn series(&self) -> String {
        self.key("series")
    }

    /// Keys of the replies that are not published yet.
    pub(super) fn unpublished(&self) -> String {
        self.key("unpublished")
    }

    /// The provider's id of the last request of each batch.
    pub(super) fn requests(&self) -> String {
        self.key("requests")
    }

    pub(super) fn payload(&self, number: u32) -> String {
        self.numbered("payload", number)
    }

    /// Time of its removal, stored as long as journals may contain it.
    pub(super) fn forgotten(&self) -> String {
        self.key("forgotten")
    }

    /// Returns the keys of a batch.
    pub(super) fn of_batch(&self, number: u32) -> [String; 6] {
        ["plan", "record", "batch", "payload", "deliveries", "responses"]
            .map(|kind| self.numbered(kind, number))
    }

    /// Returns the keys that exist once per campaign.
    pub(super) fn whole(&self) -> [String; 13] {
        [
            self.campaign(),
            self.job(),
            self.open(),
            self.claims(),
            self.skipped(),
            self.texts(),
            self.failed(),
            self.replays(),
            self.workers(),
            self.audit(),
            self.series(),
            self.unpublished(),
            self.requests(),
        ]
    }
}

/// Returns the key of a breaker. It shares the hash tag of its account's buckets.
pub(super) fn breaker_key(breaker: &Breaker) -> String {
    let scope = match &breaker.scope {
        BreakerScope::Account => String::new(),
        BreakerScope::Sender(number) => format!(":sender:{}", number.digits()),
        BreakerScope::SenderFlows(number) => format!(":flows:{}", number.digits()),
        // A job may use any name of a Flow; the reason contains the name.
        BreakerScope::Flow(flow) => format!(":flow:{}", &blake3::hash(flow.as_bytes()).to_hex()[..16]),
    };
    format!("flowcast:{{account:{}}}:breaker{scope}", breaker.account)
}

/// Returns the key of an account's notices. It shares the hash tag of the account's breakers.
pub(super) fn notices_key(account: &str) -> String {
    format!("flowcast:{{account:{account}}}:notices")
}

/// Returns the field of a counter or a text: its kind, and its code if it has one.
pub(super) fn field((kind, word): &Counter) -> String {
    field_of(kind, word)
}

pub(super) fn field_of(kind: &str, word: &str) -> String {
    if word.is_empty() { kind.to_owned() } else { format!("{kind}:{word}") }
}

/// Returns the line of a skipped row.
pub(super) fn skipped_line(row: &SkippedRow, now: i64) -> String {
    json!([row.row, row.recipient, row.reason, row.detail, now]).to_string()
}

/// Reads the line of a skipped row: row, recipient, reason, detail, time.
pub(super) fn read_skipped(line: &str) -> Option<(u64, String, String, String, i64)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |at: usize| line[at].as_str().map(str::to_owned);
    Some((line[0].as_u64()?, text(1)?, text(2)?, text(3)?, line[4].as_i64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_campaign_are_in_one_slot_for_every_valid_id() {
        let id = "diwali-2026".parse().unwrap();
        assert_eq!(Keys(&id).batch(7), "flowcast:{diwali-2026}:batch:7");
        assert!(Keys(&id).whole().iter().all(|key| key.starts_with("flowcast:{diwali-2026}:")));
        for hostile in ["a}:job", "{x}", "a:b", "a b", "a\r\nFLUSHALL"] {
            assert!(hostile.parse::<CampaignId>().is_err());
        }
    }
}
