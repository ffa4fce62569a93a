//! How a campaign is written down in Redis: the names of its keys, and what stands in them.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::campaign::{CampaignId, CampaignState, MessageState, Phone};
use crate::ledger::{Barrier, Outcome, PlannedBatch, SkippedRow};

/// A message's bytes in a batch's meta, and the digest before them (`batch.lua`).
const HEAD: usize = 8;
const ENTRY: usize = 20;

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
    pub(super) fn again(&self) -> String {
        self.key("again")
    }

    /// Which worker holds how many batches.
    pub(super) fn workers(&self) -> String {
        self.key("workers")
    }

    pub(super) fn batch(&self, number: u32) -> String {
        self.key(format_args!("batch:{number}"))
    }

    pub(super) fn meta(&self, number: u32) -> String {
        self.key(format_args!("meta:{number}"))
    }

    /// What reports say of a batch's messages.
    pub(super) fn deliveries(&self, number: u32) -> String {
        self.key(format_args!("deliveries:{number}"))
    }

    /// What people answered to a batch's messages.
    pub(super) fn responses(&self, number: u32) -> String {
        self.key(format_args!("responses:{number}"))
    }

    /// What people decided, and when.
    pub(super) fn decisions(&self) -> String {
        self.key("decisions")
    }

    /// The answers that others were not told of yet.
    pub(super) fn untold(&self) -> String {
        self.key("untold")
    }

    pub(super) fn payload(&self, number: u32) -> String {
        self.key(format_args!("payload:{number}"))
    }

    /// Those that are there once a campaign.
    pub(super) fn whole(&self) -> [String; 11] {
        [
            self.campaign(),
            self.job(),
            self.open(),
            self.claims(),
            self.skipped(),
            self.texts(),
            self.failed(),
            self.again(),
            self.workers(),
            self.decisions(),
            self.untold(),
        ]
    }
}

/// The key of a barrier. It shares the hash tag of its account's buckets.
pub(super) fn barrier_key(barrier: &Barrier) -> String {
    let account = &barrier.account;
    match &barrier.flow {
        None => format!("flowcast:{{account:{account}}}:held"),
        // A job may call its flow whatever it likes; the reason says which it is.
        Some(flow) => {
            let digest = blake3::hash(flow.as_bytes()).to_hex();
            format!("flowcast:{{account:{account}}}:held:flow:{}", &digest[..16])
        }
    }
}

/// The legal moves as the scripts look for them: `from>to;` each.
fn moves<S: Copy>(all: &[S], name: fn(S) -> &'static str, legal: fn(S, S) -> bool) -> String {
    let mut text = String::new();
    for from in all {
        for to in all.iter().filter(|to| legal(*from, **to)) {
            text += &format!("{}>{};", name(*from), name(*to));
        }
    }
    text
}

pub(super) fn moves_of_messages() -> &'static str {
    static MOVES: LazyLock<String> =
        LazyLock::new(|| moves(MessageState::ALL, MessageState::as_str, MessageState::can_become));
    &MOVES
}

pub(super) fn moves_of_campaigns() -> &'static str {
    static MOVES: LazyLock<String> =
        LazyLock::new(|| moves(CampaignState::ALL, CampaignState::as_str, CampaignState::can_become));
    &MOVES
}

/// A digest of whom a batch goes to.
pub(super) fn digest(batch: &PlannedBatch) -> [u8; HEAD] {
    let mut hasher = blake3::Hasher::new();
    for (row, phone) in &batch.recipients {
        hasher.update(&row.to_be_bytes()).update(&phone.digits().to_be_bytes());
    }
    let mut digest = [0; HEAD];
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// A new batch's meta.
pub(super) fn meta(batch: &PlannedBatch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + ENTRY * batch.recipients.len());
    bytes.extend(digest(batch));
    for (row, phone) in &batch.recipients {
        bytes.extend(&phone.digits().to_be_bytes()[1..]);
        bytes.extend(&row.to_be_bytes()[2..]);
        bytes.extend([0; 7]);
    }
    bytes
}

/// A message as its batch's meta has it.
pub(super) struct Entry {
    pub(super) phone: Option<Phone>,
    pub(super) row: u64,
    pub(super) attempts: u32,
    /// Milliseconds since 1970; 0 when it was never touched.
    pub(super) at: i64,
}

/// The messages of a batch's meta, in their order.
pub(super) fn entries(meta: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    meta.get(HEAD..).unwrap_or_default().chunks_exact(ENTRY).map(move |entry| Entry {
        phone: Phone::from_digits(number(&entry[..7])),
        row: number(&entry[7..13]),
        attempts: u32::from(entry[13]),
        at: i64::try_from(number(&entry[14..])).unwrap_or_default(),
    })
}

/// What stands behind an outcome's state, and the text that is kept once for all who share it.
pub(super) fn words(outcome: &Outcome) -> (String, String) {
    match outcome {
        Outcome::Accepted { sid } => (sid.clone(), String::new()),
        Outcome::Rejected { code, detail } => (code.clone(), detail.clone()),
        // A doubt has no code. Its text is known by its digest.
        Outcome::InDoubt { detail } => {
            (blake3::hash(detail.as_bytes()).to_hex()[..8].to_owned(), detail.clone())
        }
        Outcome::Released => (String::new(), String::new()),
        Outcome::Skipped { reason, detail } => (reason.as_str().into(), detail.clone()),
    }
}

/// A skipped row as a line of its list.
pub(super) fn skipped_line(row: &SkippedRow, now: jiff::Timestamp) -> String {
    json!([row.row, row.recipient, row.reason, row.detail, now.as_millisecond()]).to_string()
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

    #[test]
    fn the_scripts_are_told_the_legal_moves() {
        assert!(moves_of_messages().contains("pending>sending;"));
        assert!(!moves_of_messages().contains("accepted>"));
        assert!(moves_of_campaigns().contains("completed>running;"));
        assert!(!moves_of_campaigns().contains("cancelled>"));
    }

    #[test]
    fn a_batchs_meta_is_read_as_it_was_written() {
        let recipients = vec![
            (1, "+919876543210".parse().unwrap()),
            (10_000_000, "+1987654321012345".parse().unwrap_or("+123456789012345".parse().unwrap())),
        ];
        let batch = PlannedBatch { campaign: "c".parse().unwrap(), number: 3, recipients };
        let read: Vec<_> = entries(&meta(&batch)).map(|entry| (entry.row, entry.phone.unwrap())).collect();
        assert_eq!(read, batch.recipients);
    }
}
