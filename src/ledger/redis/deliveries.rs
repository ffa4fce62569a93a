//! Reports in Redis: read, gathered, and written if nothing has changed in between.

use std::collections::{BTreeMap, HashMap};

use redis::FromRedisValue;

use super::Redis;
use super::layout::{Keys, entries};
use super::scripts::SCRIPTS;
use crate::campaign::delivery::News;
use crate::campaign::{CampaignId, MessageState};
use crate::ledger::deliveries::{Changes, Deliveries, UNDELIVERED, proves_taken};
use crate::ledger::{Heard, Learnt, Ledger, LedgerError, Outcome, Response};
use crate::redis_server::Arg;

/// What a report found of its message.
struct Found {
    learnt: Learnt,
    accepted_at: i64,
    state: MessageState,
    attempts: u32,
}

impl Redis {
    pub(super) async fn take_reports(
        &self,
        id: &CampaignId,
        batch: u32,
        heard: &[Heard],
    ) -> Result<Vec<Option<Learnt>>, LedgerError> {
        let keys = Keys(id);
        // Which report settled a message: the first that proves it, also when all is read again.
        let mut settled_by = BTreeMap::<u8, usize>::new();
        loop {
            let Some((meta, states, before)) = self.read_batch(id, batch, heard).await? else {
                return Ok(vec![None; heard.len()]);
            };
            let found: Vec<Option<Found>> = heard.iter().map(|report| find(report, &meta, &states)).collect();

            let mut changes = Changes::default();
            let mut deliveries = Deliveries::read(&before);
            let (mut settled, mut learnt, mut responses) = (Vec::new(), Vec::new(), Vec::new());
            for (nth, (report, found)) in heard.iter().zip(found).enumerate() {
                let Some(Found { learnt: mut news, accepted_at, state, attempts }) = found else {
                    learnt.push(None);
                    continue;
                };
                let is_settled = settled_by.contains_key(&report.message);
                if !is_settled && proves_taken(state, attempts, &report.news) {
                    let sid = report.sid.clone().unwrap_or_default();
                    settled.push((report.message, Outcome::Accepted { sid }).into());
                    settled_by.insert(report.message, nth);
                } else if !is_settled && state != MessageState::Accepted {
                    learnt.push(None);
                    continue;
                }
                news.settled = settled_by.get(&report.message) == Some(&nth);
                news.is_news = deliveries.hear(report, accepted_at, &mut changes) || news.settled;
                if let News::Reply(reply) = &report.news {
                    let response = Response::new(&news, batch, report.at, reply);
                    let json = serde_json::to_string(&response)
                        .map_err(|fault| LedgerError::Storage(format!("can't keep an answer: {fault}")))?;
                    responses.push((learnt.len(), reply.key(batch, report.message), json));
                }
                learnt.push(Some(news));
            }
            if !settled.is_empty() {
                // First, so that nobody sends it meanwhile.
                self.record(id, batch, 0, settled).await?;
            }
            let after = deliveries.bytes();
            let mut args = vec![
                Arg::Bytes(&before),
                Arg::Bytes(if learnt.iter().any(Option::is_some) { &after } else { &before }),
            ];
            let counters: Vec<(String, i64)> = changes
                .counters
                .into_iter()
                .map(|((kind, word), by)| (format!("{kind}:{word}"), by))
                .collect();
            args.push((counters.len() as u64).into());
            let steps: Vec<String> = counters.iter().map(|(_, by)| by.to_string()).collect();
            for ((field, _), by) in counters.iter().zip(&steps) {
                args.extend([Arg::from(field), Arg::from(by)]);
            }
            let texts: Vec<(String, String)> = changes
                .texts
                .into_iter()
                .map(|(code, text)| (format!("{UNDELIVERED}:{code}"), text))
                .collect();
            args.push((texts.len() as u64).into());
            args.extend(texts.iter().flat_map(|(field, text)| [Arg::from(field), Arg::from(text)]));
            args.extend(responses.iter().flat_map(|(_, id, json)| [Arg::from(id), Arg::from(json)]));
            let names =
                [keys.campaign(), keys.deliveries(batch), keys.texts(), keys.responses(batch), keys.untold()];
            let written: Vec<u64> = self.server.run(&SCRIPTS.deliver, &names, &args).await?;
            let Some((1, new)) = written.split_first() else { continue };
            for ((place, ..), new) in responses.iter().zip(new) {
                if let Some(Some(news)) = learnt.get_mut(*place) {
                    news.is_news = *new == 1;
                }
            }
            return Ok(learnt);
        }
    }
}

/// A batch's meta, the states of some of its messages by number, and its deliveries.
type Read = (Vec<u8>, HashMap<String, String>, Vec<u8>);

impl Redis {
    /// Reads what reports need to know of a batch. Most name their person: then no more is read than
    /// that person's state.
    async fn read_batch(
        &self,
        id: &CampaignId,
        batch: u32,
        heard: &[Heard],
    ) -> Result<Option<Read>, LedgerError> {
        let keys = Keys(id);
        let named: Option<Vec<String>> =
            heard.iter().map(|report| report.recipient.map(|phone| phone.to_string())).collect();
        let mut pipe = redis::pipe();
        pipe.get(keys.meta(batch)).get(keys.deliveries(batch));
        match &named {
            Some(named) => pipe.cmd("HMGET").arg(keys.batch(batch)).arg(named),
            None => pipe.hgetall(keys.batch(batch)),
        };
        let answers: Vec<redis::Value> = self.server.pipeline(&pipe).await?;
        let [meta, before, states]: [redis::Value; 3] =
            answers.try_into().map_err(|_| LedgerError::Storage("answered too little".into()))?;
        let damaged =
            |fault: redis::ParsingError| LedgerError::Storage(format!("has a damaged batch: {fault}"));
        let meta: Option<Vec<u8>> = FromRedisValue::from_redis_value(meta).map_err(damaged)?;
        let before: Option<Vec<u8>> = FromRedisValue::from_redis_value(before).map_err(damaged)?;
        let states = match named {
            Some(named) => {
                let values: Vec<Option<String>> =
                    FromRedisValue::from_redis_value(states).map_err(damaged)?;
                if values.iter().any(Option::is_none) {
                    // Some number is not written as ours: the batch's places tell whose message it is.
                    self.server.command(redis::cmd("HGETALL").arg(keys.batch(batch))).await?
                } else {
                    named.into_iter().zip(values.into_iter().flatten()).collect()
                }
            }
            None => FromRedisValue::from_redis_value(states).map_err(damaged)?,
        };
        Ok(meta.map(|meta| (meta, states, before.unwrap_or_default())))
    }
}

/// The message of a report, if it is the one that the report means.
fn find(heard: &Heard, meta: &[u8], states: &HashMap<String, String>) -> Option<Found> {
    let entry = entries(meta).nth(usize::from(heard.message))?;
    let recipient = entry.phone?;
    if !heard.is_of(recipient) {
        return None;
    }
    let value = states.get(&recipient.to_string())?;
    let state: MessageState = value.split(' ').next()?.parse().ok()?;
    let learnt = Learnt { recipient, row: entry.row, message: heard.message, settled: false, is_news: false };
    let accepted_at = if state == MessageState::Accepted { entry.at } else { 0 };
    Some(Found { learnt, accepted_at, state, attempts: entry.attempts })
}
