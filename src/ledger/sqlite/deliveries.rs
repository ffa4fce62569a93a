//! Reports in the embedded store: read, gathered and written in one transaction.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::batch_row::{self, BatchRow};
use super::campaign_row::{key, tally};
use super::settle::{Hand, settle};
use super::time;
use crate::campaign::delivery::News;
use crate::campaign::{CampaignId, MessageState};
use crate::ledger::deliveries::{Changes, Deliveries, UNDELIVERED, proves_taken};
use crate::ledger::{Heard, Learnt, LedgerError, Outcome, Recorded, Response, ResponsePage};

/// What is kept of a batch's reports.
pub(super) fn kept(connection: &Connection, batch: i64) -> Result<Deliveries, LedgerError> {
    let kept: Option<Vec<u8>> = connection
        .prepare_cached("SELECT kept FROM delivery WHERE batch = ?1")?
        .query_row([batch], |row| row.get(0))
        .optional()?;
    Ok(Deliveries::read(&kept.unwrap_or_default()))
}

pub(super) fn hear(
    transaction: &Transaction<'_>,
    id: &CampaignId,
    batch: u32,
    heard: &[Heard],
) -> Result<Vec<Option<Learnt>>, LedgerError> {
    let Ok(campaign) = key(transaction, id) else { return Ok(vec![None; heard.len()]) };
    let Some(mut row) = BatchRow::read(transaction, campaign, batch)? else {
        return Ok(vec![None; heard.len()]);
    };
    let at = batch_row::key(campaign, batch);
    let (mut deliveries, mut changes) = (kept(transaction, at)?, Changes::default());
    let (mut settled, mut learnt) = (Vec::new(), Vec::new());
    for report in heard {
        let place = report.message;
        let found = row.recipients().get(usize::from(place)).copied();
        let meant = found.filter(|(_, phone)| report.is_of(*phone));
        let (Some((row_number, recipient)), Some(state)) = (meant, row.state(place)) else {
            learnt.push(None);
            continue;
        };
        let mut news = Learnt { recipient, row: row_number, message: place, settled: false, is_news: false };
        // By an earlier report of the same moment.
        let is_settled = settled.iter().any(|settled: &Recorded| settled.message == place);
        if !is_settled && proves_taken(state, row.attempts(place), &report.news) {
            let sid = report.sid.clone().unwrap_or_default();
            settled.push((place, Outcome::Accepted { sid }).into());
            news.settled = true;
        } else if !is_settled && state != MessageState::Accepted {
            learnt.push(None);
            continue;
        }
        let accepted_at = if news.settled || is_settled { 0 } else { row.at(place) };
        news.is_news = deliveries.hear(report, accepted_at, &mut changes) || news.settled;
        if let News::Reply(reply) = &report.news {
            let response = Response::new(&news, batch, report.at, reply);
            let json = serde_json::to_string(&response)
                .map_err(|fault| LedgerError::Storage(format!("can't keep an answer: {fault}")))?;
            let answer = reply.key(batch, place);
            transaction
                .prepare_cached("INSERT OR IGNORE INTO response (batch, id, response) VALUES (?1, ?2, ?3)")?
                .execute(params![at, answer, json])?;
            news.is_news = transaction
                .prepare_cached("SELECT NOT told FROM response WHERE batch = ?1 AND id = ?2")?
                .query_row(params![at, answer], |row| row.get(0))?;
        }
        learnt.push(Some(news));
    }
    if learnt.iter().all(Option::is_none) {
        return Ok(learnt);
    }
    if !settled.is_empty() {
        settle(transaction, campaign, &mut row, settled, Hand::Sender)?;
        row.write(transaction, None, None)?;
    }
    transaction
        .prepare_cached("INSERT OR REPLACE INTO delivery (batch, kept) VALUES (?1, ?2)")?
        .execute(params![at, deliveries.bytes()])?;
    for ((kind, word), by) in changes.counters {
        let text = if kind == UNDELIVERED { changes.texts.get(&word) } else { None };
        tally(transaction, campaign, kind, &word, by, text.map_or("", String::as_str))?;
    }
    Ok(learnt)
}

pub(super) fn told(
    transaction: &Transaction<'_>,
    id: &CampaignId,
    batch: u32,
    answer: &str,
) -> Result<(), LedgerError> {
    transaction
        .prepare_cached("UPDATE response SET told = 1 WHERE batch = ?1 AND id = ?2")?
        .execute(params![batch_row::key(key(transaction, id)?, batch), answer])?;
    Ok(())
}

/// Answers to the messages of some batches.
pub(super) fn responses(
    connection: &Connection,
    id: &CampaignId,
    from: u32,
) -> Result<ResponsePage, LedgerError> {
    const PAGE: u32 = 100;
    let campaign = key(connection, id)?;
    let (from, end) = (batch_row::key(campaign, from), batch_row::key(campaign, from.saturating_add(PAGE)));
    let mut statement =
        connection.prepare_cached("SELECT response FROM response WHERE batch >= ?1 AND batch < ?2")?;
    let kept = statement.query_map([from, end], |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let next: Option<i64> = connection
        .prepare_cached("SELECT min(batch) FROM response WHERE batch >= ?1 AND batch < ?2")?
        .query_row([end, batch_row::key(campaign + 1, 0)], |row| row.get(0))?;
    let next = next.and_then(|key| u32::try_from(key & 0xffff_ffff).ok());
    Ok(ResponsePage { responses: Response::in_order(&kept), next })
}

/// Since when the oldest doubt of a campaign stands.
pub(super) fn oldest_doubt(
    connection: &Connection,
    id: &CampaignId,
) -> Result<Option<jiff::Timestamp>, LedgerError> {
    const PAGE: usize = 100;
    let campaign = key(connection, id)?;
    let (mut oldest, mut next) = (None, Some(0));
    while let Some(from) = next {
        let page = BatchRow::page(connection, campaign, from, PAGE)?;
        next = page.last().filter(|_| page.len() == PAGE).map(|last| last.number() + 1);
        let doubts = page
            .iter()
            .flat_map(|row| row.messages_in(MessageState::InDoubt).into_iter().map(|place| row.at(place)));
        oldest = oldest.into_iter().chain(doubts).min();
    }
    Ok(oldest.map(time))
}
