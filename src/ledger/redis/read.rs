//! What is read back from Redis: campaigns, plans, reports.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use roaring::RoaringBitmap;

use super::layout::{Keys, entries, read_skipped};
use crate::campaign::{CampaignId, CampaignState, MessageState};
use crate::ledger::deliveries::{self, Deliveries, TOOK, UNDELIVERED};
use crate::ledger::rate::rate;
use crate::ledger::{
    Again, Barrier, Campaign, Checkpoint, Counts, Cursor, LedgerError, Plan, PlannedBatch, ReportLine,
    ReportPage, Response, ResponsePage,
};
use crate::redis_server::RedisServer;

/// How many batches, or skipped rows, a page of a report has.
const PAGE: u32 = 100;

/// A campaign's hash.
struct Fields(HashMap<String, String>);

impl Fields {
    fn text(&self, field: &str) -> Option<String> {
        self.0.get(field).filter(|text| !text.is_empty()).cloned()
    }

    fn number(&self, field: &str) -> u64 {
        self.0.get(field).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    fn time(&self, field: &str) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.0.get(field)?.parse().ok()?).ok()
    }

    fn state(&self, field: &str) -> Option<CampaignState> {
        self.0.get(field)?.parse().ok()
    }

    /// The counts by code or reason.
    fn tally(&self, of: &str) -> BTreeMap<String, u64> {
        let fields = self.0.iter().filter_map(|(field, count)| {
            let word = field.strip_prefix(of)?.strip_prefix(':')?;
            Some((word.to_owned(), count.parse().ok()?))
        });
        fields.filter(|(_, count)| *count > 0).collect()
    }

    /// The counts of settled messages by second.
    fn ticks(&self) -> impl Iterator<Item = (i64, u64)> {
        let ticks = self.0.iter().filter(|(field, _)| field.starts_with("tick:"));
        ticks.filter_map(|(_, tick)| {
            let (at, count) = tick.split_once(' ')?;
            Some((at.parse().ok()?, count.parse().ok()?))
        })
    }

    /// Messages settled a second, of late.
    fn rate(&self, now: Timestamp) -> f64 {
        let started_at = self.time("started_at").unwrap_or(now);
        rate(self.ticks(), started_at.as_millisecond(), now.as_millisecond())
    }
}

pub(super) async fn campaign(server: &RedisServer, id: &CampaignId) -> Result<Option<Campaign>, LedgerError> {
    let mut pipe = redis::pipe();
    pipe.hgetall(Keys(id).campaign()).hgetall(Keys(id).texts());
    let (fields, texts): (HashMap<String, String>, HashMap<String, String>) = server.pipeline(&pipe).await?;
    let fields = Fields(fields);
    let Some(state) = fields.state("state") else { return Ok(None) };
    let mut counts = Counts {
        total: 0,
        pending: fields.number("pending"),
        sending: fields.number("sending"),
        accepted: fields.number("accepted"),
        rejected: fields.number("rejected"),
        in_doubt: fields.number("in_doubt"),
        skipped: fields.number("skipped"),
    };
    counts.total = counts.open() + counts.accepted + counts.rejected + counts.in_doubt + counts.skipped;
    let rejected = fields.tally("rejected");
    let text = |code: &String| texts.get(&format!("rejected:{code}")).cloned().unwrap_or_default();
    Ok(Some(Campaign {
        id: id.clone(),
        name: fields.text("name"),
        account: fields.text("account").unwrap_or_default(),
        state,
        announced: fields.state("announced"),
        reason: fields.text("reason"),
        held_by: fields
            .text("held_by")
            .and_then(|word| Barrier::read(&fields.text("account").unwrap_or_default(), &word)),
        forgiven: (fields.number("forgiven_rejected"), fields.number("forgiven_settled")),
        planned: fields.number("planned") == 1,
        counts,
        skipped: fields.tally("skipped"),
        texts: {
            let undelivered = fields.tally(UNDELIVERED);
            let why =
                |code: &String| texts.get(&format!("{UNDELIVERED}:{code}")).cloned().unwrap_or_default();
            let failed = undelivered.keys().map(|code| (code.clone(), why(code)));
            failed.chain(rejected.keys().map(|code| (code.clone(), text(code)))).collect()
        },
        rejected,
        rate: if state == CampaignState::Running { fields.rate(Timestamp::now()) } else { 0.0 },
        audience: fields.text("audience").unwrap_or_default(),
        rows: fields.number("rows"),
        batch_size: usize::try_from(fields.number("batch_size")).unwrap_or(1),
        rehearsal: fields.number("rehearsal") == 1,
        delivery: deliveries::counts(|kind, word| fields.number(&format!("{kind}:{word}"))),
        undelivered: fields.tally(UNDELIVERED),
        took: deliveries::times(fields.tally(TOOK).iter().map(|(word, count)| (word.as_str(), *count))),
        submitted_at: fields.time("submitted_at").unwrap_or_default(),
        started_at: fields.time("started_at"),
        finished_at: fields.time("finished_at"),
    }))
}

pub(super) async fn plan(server: &RedisServer, id: &CampaignId) -> Result<Plan, LedgerError> {
    let mut pipe = redis::pipe();
    pipe.hgetall(Keys(id).campaign()).smembers(Keys(id).open());
    let (fields, open): (HashMap<String, String>, Vec<u32>) = server.pipeline(&pipe).await?;
    let fields = Fields(fields);
    if fields.state("state").is_none() {
        return Err(LedgerError::NoCampaign(id.clone()));
    }
    let checkpoint = Checkpoint {
        batches: u32::try_from(fields.number("plan_batches")).unwrap_or_default(),
        rows: fields.number("plan_rows"),
        digest: fields.text("plan_digest").unwrap_or_default(),
        complete: fields.number("planned") == 1,
    };
    // A batch that was claimed and settled before the checkpoint that passes it is in no set; it is
    // published again, and finds nothing to claim.
    let mut settled = RoaringBitmap::new();
    settled.insert_range(0..checkpoint.batches);
    for number in open {
        settled.remove(number);
    }
    Ok(Plan { checkpoint, settled })
}

/// How many batches are written down, those that were claimed before their checkpoint among them.
pub(super) async fn written(server: &RedisServer, id: &CampaignId) -> Result<u32, LedgerError> {
    let count: Option<u32> =
        server.command(redis::cmd("HGET").arg(Keys(id).campaign()).arg("batches")).await?;
    Ok(count.unwrap_or_default())
}

/// Batches with their metas and states.
async fn batches(
    server: &RedisServer,
    id: &CampaignId,
    numbers: &[u32],
) -> Result<Vec<(Vec<u8>, HashMap<String, String>)>, LedgerError> {
    let mut pipe = redis::pipe();
    for number in numbers {
        pipe.get(Keys(id).meta(*number)).hgetall(Keys(id).batch(*number));
    }
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let answers: Vec<redis::Value> = server.pipeline(&pipe).await?;
    let damaged = |fault: redis::ParsingError| LedgerError::Storage(format!("has a damaged batch: {fault}"));
    let mut all = Vec::with_capacity(numbers.len());
    let mut answers = answers.into_iter();
    while let (Some(meta), Some(states)) = (answers.next(), answers.next()) {
        let meta: Option<Vec<u8>> = redis::FromRedisValue::from_redis_value(meta).map_err(damaged)?;
        let states = redis::FromRedisValue::from_redis_value(states).map_err(damaged)?;
        all.push((meta.unwrap_or_default(), states));
    }
    Ok(all)
}

pub(super) async fn again(
    server: &RedisServer,
    id: &CampaignId,
    wanted: &[(u32, u64)],
) -> Result<Vec<Again>, LedgerError> {
    let numbers: Vec<u32> = wanted.iter().map(|(number, _)| *number).collect();
    let mut pipe = redis::pipe();
    for number in &numbers {
        pipe.hgetall(Keys(id).payload(*number));
    }
    let kept: Vec<BTreeMap<u8, String>> =
        if numbers.is_empty() { Vec::new() } else { server.pipeline(&pipe).await? };
    let read = batches(server, id, &numbers).await?;
    let mut all = Vec::with_capacity(numbers.len());
    for (((number, since), (meta, states)), mut payloads) in wanted.iter().zip(read).zip(kept) {
        let entries: Vec<_> = entries(&meta).collect();
        payloads.retain(|place, _| {
            let phone = entries.get(usize::from(*place)).and_then(|entry| entry.phone);
            phone.is_some_and(|phone| states.get(&phone.to_string()).is_some_and(|state| state == "pending"))
        });
        let recipients = entries.iter().filter_map(|entry| Some((entry.row, entry.phone?))).collect();
        all.push(Again {
            batch: PlannedBatch { campaign: id.clone(), number: *number, recipients },
            since: *since,
            payloads,
        });
    }
    Ok(all)
}

/// Since when the oldest doubt of some batches stands.
pub(super) async fn oldest_doubt(
    server: &RedisServer,
    id: &CampaignId,
    numbers: &[u32],
) -> Result<Option<Timestamp>, LedgerError> {
    let mut oldest: Option<i64> = None;
    for some in numbers.chunks(PAGE as usize) {
        for (meta, states) in batches(server, id, some).await? {
            for entry in entries(&meta) {
                let phone = entry.phone.map(|phone| phone.to_string()).unwrap_or_default();
                if states.get(&phone).is_some_and(|value| value.starts_with("in_doubt")) {
                    oldest = Some(oldest.map_or(entry.at, |known| known.min(entry.at)));
                }
            }
        }
    }
    Ok(oldest.and_then(|at| Timestamp::from_millisecond(at).ok()))
}

pub(super) async fn report(
    server: &RedisServer,
    id: &CampaignId,
    from: Cursor,
) -> Result<ReportPage, LedgerError> {
    let written = written(server, id).await?;
    let end = written.min(from.batch.saturating_add(PAGE));
    let numbers: Vec<u32> = (from.batch..end).collect();
    let texts: HashMap<String, String> = server.command(redis::cmd("HGETALL").arg(Keys(id).texts())).await?;
    let read = batches(server, id, &numbers).await?;
    let mut pipe = redis::pipe();
    for number in &numbers {
        pipe.get(Keys(id).deliveries(*number));
    }
    let kept: Vec<Option<Vec<u8>>> =
        if numbers.is_empty() { Vec::new() } else { server.pipeline(&pipe).await? };
    let mut lines = Vec::new();
    for ((number, (meta, states)), kept) in numbers.iter().zip(read).zip(kept) {
        let deliveries = Deliveries::read(&kept.unwrap_or_default());
        for (place, entry) in entries(&meta).enumerate() {
            let Some(phone) = entry.phone.map(|phone| phone.to_string()) else { continue };
            let value = states.get(&phone).map_or("pending", String::as_str);
            let mut line = line(*number, phone, value, (entry.row, entry.attempts, entry.at), &texts);
            if let Some(progress) = u8::try_from(place).ok().and_then(|place| deliveries.of(place)) {
                let text = |code: &str| texts.get(&format!("{UNDELIVERED}:{code}")).cloned();
                line.deliver(progress, text);
            }
            lines.push(line);
        }
    }
    let is_last = end == written;
    // Skipped rows stand between the messages, so they are taken up to the page's last row.
    let last = if is_last { u64::MAX } else { lines.last().map_or(u64::MAX, |line| line.row) };
    let skipped = skipped(server, id, from.skipped, last).await?;
    let next = from.skipped + skipped.len() as u64;
    lines.extend(skipped);
    lines.sort_by_key(|line| line.row);
    let next = (!is_last).then_some(Cursor { batch: end, row: last, skipped: next });
    Ok(ReportPage { lines, next })
}

pub(super) async fn responses(
    server: &RedisServer,
    id: &CampaignId,
    from: u32,
) -> Result<ResponsePage, LedgerError> {
    let written = written(server, id).await?;
    let end = written.min(from.saturating_add(PAGE));
    if from >= end {
        return Ok(ResponsePage::default());
    }
    let mut pipe = redis::pipe();
    for number in from..end {
        pipe.cmd("HVALS").arg(Keys(id).responses(number));
    }
    let kept: Vec<Vec<String>> = server.pipeline(&pipe).await?;
    let responses = Response::in_order(&kept.concat());
    Ok(ResponsePage { responses, next: (end < written).then_some(end) })
}

fn line(
    number: u32,
    recipient: String,
    value: &str,
    (row, attempts, at): (u64, u32, i64),
    texts: &HashMap<String, String>,
) -> ReportLine {
    let (state, word) = value.split_once(' ').unwrap_or((value, ""));
    let state = state.parse().unwrap_or(MessageState::Pending);
    let key = if word.starts_with('@') { "in_doubt:@".into() } else { format!("{state}:{word}") };
    let word = || Some(word.to_owned()).filter(|word| !word.is_empty());
    ReportLine {
        recipient,
        row,
        batch: Some(number),
        state,
        sid: word().filter(|_| state == MessageState::Accepted),
        code: word().filter(|_| matches!(state, MessageState::Rejected | MessageState::Skipped)),
        detail: texts.get(&key).filter(|text| !text.is_empty()).cloned(),
        attempts,
        delivery: None,
        updated_at: (at > 0).then(|| Timestamp::from_millisecond(at).unwrap_or_default()),
    }
}

/// Skipped rows from a place in their list up to a row.
async fn skipped(
    server: &RedisServer,
    id: &CampaignId,
    mut from: u64,
    to: u64,
) -> Result<Vec<ReportLine>, LedgerError> {
    let mut all = Vec::new();
    loop {
        let mut ask = redis::cmd("LRANGE");
        ask.arg(Keys(id).skipped()).arg(from).arg(from + 999);
        let page: Vec<String> = server.command(&ask).await?;
        if page.is_empty() {
            return Ok(all);
        }
        from += page.len() as u64;
        for line in &page {
            let Some((row, recipient, reason, detail, at)) = read_skipped(line) else { continue };
            if row > to {
                return Ok(all);
            }
            all.push(ReportLine {
                recipient,
                row,
                batch: None,
                state: MessageState::Skipped,
                sid: None,
                code: Some(reason),
                detail: Some(detail),
                attempts: 0,
                delivery: None,
                updated_at: Timestamp::from_millisecond(at).ok(),
            });
        }
    }
}
