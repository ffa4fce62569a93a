//! How a campaign is written down in Redis: the names of its keys, and what stands in them.

use serde_json::{Value, json};

use crate::campaign::CampaignId;
use crate::ledger::draft::Counter;
use crate::ledger::{Breaker, BreakerScope, SkippedRow};

/// The field of a campaign that is being removed.
pub(super) const REMOVED: &str = "removed";

/// The keys of a campaign. Its id is in braces: all of them are on one node of a cluster.
pub(super) struct Keys<'i>(pub(super) &'i CampaignId);

impl Keys<'_> {
    fn key(&self, rest: impl std::fmt::Display) -> String {
        format!("flowcast:{{{}}}:{rest}", self.0)
    }

    pub(super) fn campaign(&self) -> String {
        self.key("campaign")
    }

    pub(super) fn job(&self) -> String {
        self.key("job")
    }

    /// The numbers of the batches with open messages.
    pub(super) fn open(&self) -> String {
        self.key("open")
    }

    /// The claims, sorted by their deadlines.
    pub(super) fn claims(&self) -> String {
        self.key("claims")
    }

    /// The rows that were never messages, in their order.
    pub(super) fn skipped(&self) -> String {
        self.key("skipped")
    }

    /// The text to each code, reason and doubt.
    pub(super) fn texts(&self) -> String {
        self.key("texts")
    }

    /// The numbers of the batches with rejected messages or such in doubt.
    pub(super) fn failed(&self) -> String {
        self.key("failed")
    }

    /// The numbers of the batches that are to be queued again, with the time of the decision.
    pub(super) fn replays(&self) -> String {
        self.key("replays")
    }

    /// Which worker holds how many batches.
    pub(super) fn workers(&self) -> String {
        self.key("workers")
    }

    /// How many messages were settled in a second since 1970.
    pub(super) fn tick(&self, second: i64) -> String {
        self.key(format_args!("tick:{second}"))
    }

    /// The outcomes of a batch's messages, by number, for people and other systems.
    pub(super) fn batch(&self, number: u32) -> String {
        self.key(format_args!("batch:{number}"))
    }

    /// Whom a batch goes to.
    pub(super) fn plan(&self, number: u32) -> String {
        self.key(format_args!("plan:{number}"))
    }

    /// What became of a batch's messages.
    pub(super) fn record(&self, number: u32) -> String {
        self.key(format_args!("record:{number}"))
    }

    /// What reports say of a batch's messages.
    pub(super) fn deliveries(&self, number: u32) -> String {
        self.key(format_args!("deliveries:{number}"))
    }

    /// What people answered to a batch's messages.
    pub(super) fn responses(&self, number: u32) -> String {
        self.key(format_args!("responses:{number}"))
    }

    /// What people did, and when.
    pub(super) fn audit(&self) -> String {
        self.key("audit")
    }

    /// How it went over time.
    /// Written to see whether the server takes writes; gone at once.
    pub(super) fn probe(&self) -> String {
        self.key("probe")
    }

    pub(super) fn series(&self) -> String {
        self.key("series")
    }

    /// The answers that were not published yet.
    pub(super) fn unpublished(&self) -> String {
        self.key("unpublished")
    }

    /// What the provider calls the last request of each batch.
    pub(super) fn requests(&self) -> String {
        self.key("requests")
    }

    pub(super) fn payload(&self, number: u32) -> String {
        self.key(format_args!("payload:{number}"))
    }

    /// When it was forgotten, while journals may know of it.
    pub(super) fn forgotten(&self) -> String {
        self.key("forgotten")
    }

    /// Those that are there once a campaign.
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

/// The key of a breaker. It shares the hash tag of its account's buckets.
pub(super) fn breaker_key(breaker: &Breaker) -> String {
    let account = &breaker.account;
    match &breaker.scope {
        BreakerScope::Account => format!("flowcast:{{account:{account}}}:breaker"),
        BreakerScope::Sender(number) => {
            format!("flowcast:{{account:{account}}}:breaker:sender:{}", number.digits())
        }
        BreakerScope::SenderFlows(number) => {
            format!("flowcast:{{account:{account}}}:breaker:flows:{}", number.digits())
        }
        // A job may call its flow whatever it likes; the reason says which it is.
        BreakerScope::Flow(flow) => {
            let digest = blake3::hash(flow.as_bytes()).to_hex();
            format!("flowcast:{{account:{account}}}:breaker:flow:{}", &digest[..16])
        }
    }
}

/// The key of an account's notices. It shares the hash tag of its breakers.
pub(super) fn notices_key(account: &str) -> String {
    format!("flowcast:{{account:{account}}}:notices")
}

/// The field of a counter, or of a text: its kind, and its word where it has one.
pub(super) fn field((kind, word): &Counter) -> String {
    field_of(kind, word)
}

pub(super) fn field_of(kind: &str, word: &str) -> String {
    if word.is_empty() { kind.to_owned() } else { format!("{kind}:{word}") }
}

/// A skipped row as a line of its list.
pub(super) fn skipped_line(row: &SkippedRow, now: i64) -> String {
    json!([row.row, row.recipient, row.reason, row.detail, now]).to_string()
}

/// The line read again: row, recipient, reason, detail, time.
pub(super) fn read_skipped(line: &str) -> Option<(u64, String, String, String, i64)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |at: usize| line[at].as_str().map(str::to_owned);
    Some((line[0].as_u64()?, text(1)?, text(2)?, text(3)?, line[4].as_i64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_has_its_keys_in_one_slot_and_no_id_leaves_it() {
        let id = "diwali-2026".parse().unwrap();
        assert_eq!(Keys(&id).batch(7), "flowcast:{diwali-2026}:batch:7");
        assert!(Keys(&id).whole().iter().all(|key| key.starts_with("flowcast:{diwali-2026}:")));
        for hostile in ["a}:job", "{x}", "a:b", "a b", "a\r\nFLUSHALL"] {
            assert!(hostile.parse::<CampaignId>().is_err());
        }
    }
}
