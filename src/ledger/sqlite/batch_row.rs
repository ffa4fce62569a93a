//! A batch as one row: its recipients, and what became of each message, in a few bytes a message.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{signed, time};
use crate::campaign::{MessageState, Phone};
use crate::ledger::{LedgerError, Outcome, ReportLine};

/// A batch's key.
pub(super) fn key(campaign: i64, number: u32) -> i64 {
    (campaign << 32) | i64::from(number)
}

/// Recipients as bytes: row and digits, 8 bytes each, little-endian.
pub(super) fn recipients(recipients: &[(u64, Phone)]) -> Vec<u8> {
    recipients
        .iter()
        .flat_map(|(row, phone)| [row.to_le_bytes(), phone.digits().to_le_bytes()])
        .flatten()
        .collect()
}

/// What became of one message.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    state: MessageState,
    attempts: u32,
    /// SID, code, reason or the text of a doubt, by the state.
    text: String,
    /// Milliseconds since 1970; 0 when it was never claimed.
    at: i64,
}

static UNTOUCHED: Entry = Entry { state: MessageState::Pending, attempts: 0, text: String::new(), at: 0 };

/// A batch, read from its row.
pub(super) struct BatchRow {
    key: i64,
    recipients: Vec<(u64, Phone)>,
    /// Empty as long as nothing was recorded.
    entries: Vec<Entry>,
    claimed: Vec<u8>,
}

const COLUMNS: &str = "SELECT key, recipients, messages, claimed FROM batch";

impl BatchRow {
    pub(super) fn read(
        connection: &Connection,
        campaign: i64,
        number: u32,
    ) -> Result<Option<Self>, LedgerError> {
        let mut statement = connection.prepare_cached(&format!("{COLUMNS} WHERE key = ?1"))?;
        Ok(statement.query_row([key(campaign, number)], Self::from_row).optional()?)
    }

    /// Up to `limit` batches from a number on.
    pub(super) fn page(
        connection: &Connection,
        campaign: i64,
        from: u32,
        limit: usize,
    ) -> Result<Vec<Self>, LedgerError> {
        let sql = format!("{COLUMNS} WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3");
        let mut statement = connection.prepare_cached(&sql)?;
        let range = params![key(campaign, from), key(campaign + 1, 0), signed(limit as u64)];
        let rows = statement.query_map(range, Self::from_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let damaged = |what: &str| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, what.to_owned().into())
        };
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
        let recipients = row
            .get_ref("recipients")?
            .as_blob()?
            .chunks_exact(16)
            .map(|pair| Some((number(&pair[..8]), Phone::from_digits(number(&pair[8..]))?)))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| damaged("a recipient of a batch is damaged"))?;
        let entries = match row.get_ref("messages")?.as_blob_or_null()? {
            None => Vec::new(),
            Some(bytes) => {
                postcard::from_bytes(bytes).map_err(|_| damaged("the messages of a batch are damaged"))?
            }
        };
        let claimed = row.get_ref("claimed")?.as_blob_or_null()?.unwrap_or_default().to_vec();
        Ok(Self { key: row.get("key")?, recipients, entries, claimed })
    }

    /// Writes claims and entries. `recorded` is the time of a record: by it the
    /// batches of a moving day are found.
    pub(super) fn write(
        &self,
        transaction: &Transaction<'_>,
        session: Option<i64>,
        recorded: Option<i64>,
    ) -> Result<(), LedgerError> {
        let messages = match &self.entries[..] {
            [] => None,
            entries => Some(
                postcard::to_stdvec(entries)
                    .map_err(|fault| LedgerError::Storage(format!("can't write a batch: {fault}")))?,
            ),
        };
        let claimed = (!self.claimed.is_empty()).then_some(&self.claimed[..]);
        let open = (0..self.recipients.len()).filter(|index| self.state_at(*index).is_open()).count();
        transaction
            .prepare_cached(
                "UPDATE batch SET messages = ?2, claimed = ?3, session = coalesce(?4, session), open = ?5,
                   again = CASE WHEN ?5 = 0 THEN 0 ELSE again END,
                   updated_at = coalesce(?6, updated_at) WHERE key = ?1",
            )?
            .execute(params![self.key, messages, claimed, session, signed(open as u64), recorded])?;
        Ok(())
    }

    pub(super) fn number(&self) -> u32 {
        u32::try_from(self.key & 0xffff_ffff).unwrap_or_default()
    }

    pub(super) fn recipients(&self) -> &[(u64, Phone)] {
        &self.recipients
    }

    pub(super) fn claimed(&self) -> &[u8] {
        &self.claimed
    }

    /// A message's state, `None` where there is no such message.
    pub(super) fn state(&self, index: u8) -> Option<MessageState> {
        let index = usize::from(index);
        (index < self.recipients.len()).then(|| self.state_at(index))
    }

    fn state_at(&self, index: usize) -> MessageState {
        if u8::try_from(index).is_ok_and(|index| self.claimed.contains(&index)) {
            return MessageState::Sending;
        }
        self.entries.get(index).map_or(MessageState::Pending, |entry| entry.state)
    }

    /// Marks pending messages as being sent.
    pub(super) fn claim(&mut self, indexes: &[u8]) {
        self.claimed.extend_from_slice(indexes);
    }

    /// When a message last changed, in milliseconds since 1970.
    pub(super) fn at(&self, index: u8) -> i64 {
        self.entries.get(usize::from(index)).map_or(0, |entry| entry.at)
    }

    /// How often a message was claimed and came back.
    pub(super) fn attempts(&self, index: u8) -> u32 {
        self.entries.get(usize::from(index)).map_or(0, |entry| entry.attempts)
    }

    /// The code that a message was rejected with.
    pub(super) fn code(&self, index: u8) -> &str {
        self.entries.get(usize::from(index)).map_or("", |entry| &entry.text)
    }

    /// Who was written to since a time, and how long ago, in milliseconds.
    pub(super) fn written_to(&self, since: i64, now: i64) -> impl Iterator<Item = (Phone, i64)> + '_ {
        let recipients = self.recipients.iter().zip(&self.entries);
        let went_out = move |entry: &Entry| {
            matches!(entry.state, MessageState::Accepted | MessageState::InDoubt) && entry.at > since
        };
        recipients
            .filter(move |(_, entry)| went_out(entry))
            .map(move |((_, phone), entry)| (*phone, (now - entry.at).max(0)))
    }

    /// The messages in a state.
    pub(super) fn messages_in(&self, state: MessageState) -> Vec<u8> {
        let all = (0..self.recipients.len()).filter_map(|index| u8::try_from(index).ok());
        all.filter(|index| self.state(*index) == Some(state)).collect()
    }

    /// Moves a message to its outcome; returns the state it was in, `None` where that is no legal move.
    pub(super) fn settle(&mut self, index: u8, outcome: &Outcome, at: i64) -> Option<MessageState> {
        let from = self.state(index)?;
        let state = outcome.state();
        // What was never claimed was never taken.
        let was_never_claimed = from == MessageState::Pending && self.attempts(index) == 0;
        if !from.can_become(state) || state == MessageState::Accepted && was_never_claimed {
            return None;
        }
        let was_claimed = from == MessageState::Sending;
        self.claimed.retain(|claimed| *claimed != index);
        self.entries.resize(self.recipients.len(), UNTOUCHED.clone());
        let entry = &mut self.entries[usize::from(index)];
        entry.text = match outcome {
            Outcome::Accepted { sid } => sid.clone(),
            Outcome::Rejected { code, .. } => code.clone(),
            Outcome::InDoubt { detail } => detail.clone(),
            Outcome::Skipped { reason, .. } => reason.as_str().into(),
            Outcome::Released => String::new(),
        };
        (entry.state, entry.at) = (state, at);
        entry.attempts += u32::from(was_claimed);
        Some(from)
    }

    /// The report's lines of this batch.
    pub(super) fn lines<'b>(
        &'b self,
        details: &'b BTreeMap<String, String>,
    ) -> impl Iterator<Item = ReportLine> + 'b {
        self.recipients.iter().enumerate().map(move |(index, (row, phone))| {
            let state = self.state_at(index);
            let entry = self.entries.get(index).unwrap_or(&UNTOUCHED);
            let text = || Some(entry.text.clone()).filter(|text| !text.is_empty());
            let coded = matches!(state, MessageState::Rejected | MessageState::Skipped);
            let detail = match state {
                MessageState::InDoubt => text(),
                _ if coded => details.get(&entry.text).cloned(),
                _ => None,
            };
            ReportLine {
                recipient: phone.to_string(),
                row: *row,
                batch: Some(self.number()),
                state,
                sid: text().filter(|_| state == MessageState::Accepted),
                code: text().filter(|_| coded),
                detail: detail.filter(|detail| !detail.is_empty()),
                attempts: entry.attempts + u32::from(state == MessageState::Sending),
                delivery: None,
                updated_at: (entry.at > 0).then(|| time(entry.at)),
            }
        })
    }
}
