//! Moves messages of a batch, with the campaign's counters: what senders saw, what a person decided.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::batch_row::{self, BatchRow};
use super::campaign_row::{shift, tally, tick};
use super::{now, unsigned};
use crate::campaign::{MessageState, SkipReason};
use crate::ledger::{ABANDONED, ABANDONED_TEXT, Decision, LedgerError, Outcome, Recorded, is_retried};

/// Who moves messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hand {
    /// A sender, by what it saw: a message that was rejected stays so.
    Sender,
    /// A person.
    Person,
}

/// Applies outcomes to a batch and the campaign's counters, as far as they are legal moves.
pub(super) fn settle(
    transaction: &Transaction<'_>,
    key: i64,
    row: &mut BatchRow,
    outcomes: Vec<Recorded>,
    hand: Hand,
) -> Result<(), LedgerError> {
    let mut moves = BTreeMap::<(MessageState, MessageState), usize>::new();
    let mut tallies = BTreeMap::<(&str, String), (i64, String)>::new();
    let at = batch_row::key(key, row.number());
    // Asked once: hardly any batch has something kept, and a command for each message would be slow.
    let kept: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM payload WHERE batch = ?1)")?
        .query_row([at], |row| row.get(0))?;
    for Recorded { message, outcome, payload } in outcomes {
        let from = row.state(message);
        if hand == Hand::Sender && outcome == Outcome::Released && from != Some(MessageState::Sending) {
            continue;
        }
        let before = row.code(message).to_owned();
        let Some(from) = row.settle(message, &outcome, now()) else { continue };
        *moves.entry((from, outcome.state())).or_default() += 1;
        if from == MessageState::Rejected {
            tallies.entry(("rejected", before)).or_default().0 -= 1;
        }
        if let Some(payload) = payload {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO payload VALUES (?1, ?2, ?3)")?
                .execute(params![at, message, payload])?;
        } else if kept && matches!(outcome.state(), MessageState::Accepted | MessageState::Skipped) {
            transaction
                .prepare_cached("DELETE FROM payload WHERE batch = ?1 AND message = ?2")?
                .execute(params![at, message])?;
        }
        let (kind, word, detail) = match outcome {
            Outcome::Rejected { code, detail } => ("rejected", code, detail),
            Outcome::Skipped { reason, detail } => ("skipped", reason.as_str().into(), detail),
            _ => continue,
        };
        let (count, text) = tallies.entry((kind, word)).or_default();
        *count += 1;
        if text.is_empty() {
            *text = detail;
        }
    }
    let ended = |(from, to): &(MessageState, MessageState)| from.is_open() && !to.is_open();
    let settled: usize = moves.iter().filter(|(moved, _)| ended(moved)).map(|(_, count)| count).sum();
    if hand == Hand::Sender && settled > 0 {
        tick(transaction, key, settled)?;
    }
    for ((from, to), count) in moves {
        shift(transaction, key, Some(from), to, count)?;
    }
    for ((kind, word), (count, detail)) in tallies {
        tally(transaction, key, kind, &word, count, &detail)?;
    }
    Ok(())
}

/// Does what a person decided for one batch; returns for how many messages.
pub(super) fn decide_batch(
    transaction: &Transaction<'_>,
    key: i64,
    row: &mut BatchRow,
    decision: &Decision,
) -> Result<u64, LedgerError> {
    let (state, outcome) = match decision {
        Decision::Retry(_) => (MessageState::Rejected, Outcome::Released),
        Decision::Resend { .. } => (MessageState::InDoubt, Outcome::Released),
        Decision::Abandon { .. } => (
            MessageState::InDoubt,
            Outcome::Rejected { code: ABANDONED.into(), detail: ABANDONED_TEXT.into() },
        ),
        Decision::Cancel => (
            MessageState::Pending,
            Outcome::Skipped {
                reason: SkipReason::Cancelled,
                detail: "the campaign was cancelled first".into(),
            },
        ),
    };
    let mut messages = row.messages_in(state);
    let now_is = now();
    let ago = |message: u8| Duration::from_millis(unsigned(now_is - row.at(message)));
    if let Decision::Retry(codes) = decision {
        messages.retain(|message| is_retried(row.code(*message), ago(*message), codes));
    }
    messages.retain(|message| ago(*message) >= decision.older_than());
    if messages.is_empty() {
        return Ok(0);
    }
    let count = messages.len() as u64;
    let again = outcome == Outcome::Released;
    let outcomes = messages.into_iter().map(|message| (message, outcome.clone()).into()).collect();
    settle(transaction, key, row, outcomes, Hand::Person)?;
    row.write(transaction, None, None)?;
    if again {
        transaction
            .prepare_cached("UPDATE batch SET again = max(again + 1, ?2) WHERE key = ?1")?
            .execute([batch_row::key(key, row.number()), now()])?;
    }
    Ok(count)
}
