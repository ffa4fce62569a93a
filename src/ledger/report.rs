//! What became of every row, a part at a time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::LedgerError;
use super::batches::{Batches, Listed, PAGE, StoredBatch};
use super::deliveries::{Deliveries, Response, UNDELIVERED};
use crate::campaign::delivery::Progress;
use crate::campaign::{CampaignId, MessageState, text, time};

/// A line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportLine {
    /// The number; of a skipped row what stands in its place.
    pub recipient: String,
    /// The row of the audience, from 1.
    pub row: u64,
    /// The batch, where it is in one.
    pub batch: Option<u32>,
    /// The state.
    pub state: MessageState,
    /// The provider's id of the message.
    pub sid: Option<String>,
    /// The provider's code, or the reason of a skipped row.
    pub code: Option<String>,
    /// The text to the code.
    pub detail: Option<String>,
    /// How often it was claimed.
    pub attempts: u32,
    /// What the delivery reports say.
    pub delivery: Option<String>,
    /// The last change.
    #[serde(serialize_with = "time::serialize_option")]
    pub updated_at: Option<Timestamp>,
    /// What the provider calls the last request of its batch: its support asks for it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Returns the JSON Schema of a report's line (2020-12). The columns of CSV are its properties, in this order, without
/// `request_id`.
pub fn report_schema() -> Value {
    let property = |name: &str, kind: Value, about: &str, example: Value| {
        let mut property =
            json!({ "title": text::titled(name), "description": about, "examples": [example] });
        if let (Some(property), Value::Object(kind)) = (property.as_object_mut(), kind) {
            property.extend(kind);
        }
        (name.to_owned(), property)
    };
    let text_or_null = || json!({ "type": ["string", "null"] });
    let deliveries = json!({ "enum": [null, "sent", "delivered", "read", "failed"] });
    let properties = [
        property(
            "recipient",
            json!({ "type": "string" }),
            "The number; of a skipped row what stands in its place.",
            json!("+919876543210"),
        ),
        property(
            "row",
            json!({ "type": "integer", "minimum": 1 }),
            "The row of the audience, from 1.",
            json!(18),
        ),
        property(
            "batch",
            json!({ "type": ["integer", "null"], "minimum": 0 }),
            "The batch, from 0; null of a skipped row.",
            json!(0),
        ),
        property("state", json!({ "enum": MessageState::ALL }), "The state.", json!("accepted")),
        property("sid", text_or_null(), "The provider's id of the message.", json!("wamid.1")),
        property(
            "code",
            text_or_null(),
            "The provider's code, or the reason of a skipped row.",
            json!("131026"),
        ),
        property(
            "detail",
            text_or_null(),
            "The text to the code, and what to do.",
            json!("Message undeliverable"),
        ),
        property(
            "attempts",
            json!({ "type": "integer", "minimum": 0 }),
            "How often it was claimed for sending.",
            json!(1),
        ),
        property("delivery", deliveries, "What the delivery reports say.", json!("delivered")),
        property(
            "updated_at",
            json!({ "type": ["string", "null"], "format": "date-time" }),
            "The last change, in UTC.",
            json!("2026-11-01T03:30:00.000Z"),
        ),
        property(
            "request_id",
            text_or_null(),
            "What the provider calls the last request of its batch.",
            json!("9f1c"),
        ),
    ];
    let required: Vec<&str> =
        properties.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "request_id").collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:flowcast:schema:report:1",
        "title": "Report line",
        "description": "What became of one message, or of one row that was skipped. New fields may be added.",
        "type": "object",
        "required": required,
        "properties": properties.iter().cloned().collect::<Map<_, _>>(),
    })
}

impl ReportLine {
    /// Adds what reports say of the message.
    fn deliver(&mut self, progress: &Progress, text: impl Fn(&str) -> Option<String>) {
        self.delivery = progress.state.map(|state| state.as_str().to_owned());
        if let Some(code) = progress.failure() {
            self.code = Some(code.to_owned()).filter(|code| !code.is_empty());
            self.detail = text(code).filter(|text| !text.is_empty());
        }
    }
}

/// Where a report goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next batch.
    batch: u32,
    /// The next skipped row, in the order in which they were planned.
    skipped: u64,
}

/// A part of a report, in the order of the audience's rows.
#[derive(Clone, Debug, Default)]
pub struct ReportPage {
    /// Its lines.
    pub lines: Vec<ReportLine>,
    /// Where it goes on, `None` at the end.
    pub next: Option<Cursor>,
}

/// A part of what people answered, in the order of the audience's rows.
#[derive(Clone, Debug, Default)]
pub struct ResponsePage {
    /// The answers.
    pub responses: Vec<Response>,
    /// The batch from which it goes on, `None` at the end.
    pub next: Option<u32>,
}

/// Texts of a campaign, by kind and word.
pub type Texts = BTreeMap<(String, String), String>;

/// Reads what is kept of a campaign's rows.
pub trait Reporting: Batches {
    /// How many batches are written down, those that were claimed before their checkpoint among them.
    ///
    /// # Errors
    ///
    /// When there is no such campaign, or it is being removed.
    fn written(&self, id: &CampaignId) -> impl Future<Output = Result<u32, LedgerError>> + Send;

    /// The SIDs of batches' accepted messages, by place.
    fn sids(
        &self,
        batches: &[Option<StoredBatch>],
    ) -> impl Future<Output = Result<Vec<BTreeMap<u8, String>>, LedgerError>> + Send;

    /// What the provider calls the last request of each batch that it answered.
    fn requests(
        &self,
        id: &CampaignId,
        numbers: &[u32],
    ) -> impl Future<Output = Result<Vec<Option<String>>, LedgerError>> + Send;

    /// The texts of a campaign, by kind and word.
    fn texts(&self, id: &CampaignId) -> impl Future<Output = Result<Texts, LedgerError>> + Send;

    /// Skipped rows that were never messages: from a place in their order up to a row.
    fn skipped(
        &self,
        id: &CampaignId,
        from: u64,
        to: u64,
    ) -> impl Future<Output = Result<Vec<ReportLine>, LedgerError>> + Send;

    /// What people answered to the messages of some batches, JSON.
    fn answers(
        &self,
        id: &CampaignId,
        numbers: std::ops::Range<u32>,
    ) -> impl Future<Output = Result<Vec<String>, LedgerError>> + Send;

    /// Others were told of an answer to a message of a batch, by its key: from now on it is no news.
    fn answer_published(
        &self,
        id: &CampaignId,
        batch: u32,
        answer: String,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// A part of the report: a line for each message and each skipped row.
    ///
    /// # Errors
    ///
    /// When the campaign is gone, also if it went while this was read: what was read is not all of it.
    fn report(
        &self,
        id: &CampaignId,
        from: Cursor,
    ) -> impl Future<Output = Result<ReportPage, LedgerError>> + Send {
        async move {
            let written = self.written(id).await?;
            let end = written.min(from.batch.saturating_add(PAGE));
            let numbers: Vec<u32> = (from.batch..end).collect();
            let texts = self.texts(id).await?;
            let batches = self.load(id, &numbers).await?;
            let (sids, kept) = (self.sids(&batches).await?, self.deliveries(id, &numbers).await?);
            let requests = self.requests(id, &numbers).await?;
            let mut lines = Vec::new();
            for (((stored, sids), kept), request) in batches.iter().zip(&sids).zip(&kept).zip(&requests) {
                if let Some(stored) = stored {
                    let of_batch = batch_lines(stored, sids, &Deliveries::read(kept), &texts);
                    lines.extend(of_batch.into_iter().map(|line| {
                        let request_id = request.clone().filter(|_| line.attempts > 0);
                        ReportLine { request_id, ..line }
                    }));
                }
            }
            let is_last = end == written;
            // Skipped rows stand between the messages, so they are taken up to the page's last row.
            let last = if is_last { u64::MAX } else { lines.last().map_or(u64::MAX, |line| line.row) };
            let skipped = self.skipped(id, from.skipped, last).await?;
            let next = from.skipped + skipped.len() as u64;
            lines.extend(skipped);
            lines.sort_by_key(|line| line.row);
            self.written(id).await?;
            let next = (!is_last).then_some(Cursor { batch: end, skipped: next });
            Ok(ReportPage { lines, next })
        }
    }

    /// Messages in doubt, the first so many in the order of the batches.
    fn in_doubt(
        &self,
        id: &CampaignId,
        most: usize,
    ) -> impl Future<Output = Result<Vec<ReportLine>, LedgerError>> + Send {
        async move {
            let (texts, mut found) = (self.texts(id).await?, Vec::new());
            for numbers in self.listed(id, Listed::Failed).await?.chunks(PAGE as usize) {
                for stored in self.load(id, numbers).await?.iter().flatten() {
                    let lines = batch_lines(stored, &BTreeMap::new(), &Deliveries::default(), &texts);
                    found.extend(lines.into_iter().filter(|line| line.state == MessageState::InDoubt));
                }
                if found.len() >= most {
                    break;
                }
            }
            found.truncate(most);
            Ok(found)
        }
    }

    /// A part of what people answered, from a batch on.
    ///
    /// # Errors
    ///
    /// As [`Reporting::report`].
    fn responses(
        &self,
        id: &CampaignId,
        from: u32,
    ) -> impl Future<Output = Result<ResponsePage, LedgerError>> + Send {
        async move {
            let written = self.written(id).await?;
            let end = written.min(from.saturating_add(PAGE));
            if from >= end {
                return Ok(ResponsePage::default());
            }
            let responses = Response::in_order(&self.answers(id, from..end).await?);
            self.written(id).await?;
            Ok(ResponsePage { responses, next: (end < written).then_some(end) })
        }
    }
}

/// The lines of a batch's messages.
fn batch_lines(
    stored: &StoredBatch,
    sids: &BTreeMap<u8, String>,
    deliveries: &Deliveries,
    texts: &Texts,
) -> Vec<ReportLine> {
    let StoredBatch { batch, record } = stored;
    let text = |kind: &str, word: &str| texts.get(&(kind.to_owned(), word.to_owned())).cloned();
    let line = |((place, message), (row, phone)): (
        (u8, &super::record::Message),
        &(u64, crate::campaign::Phone),
    )| {
        let (state, word) = (message.state, record.word(message));
        let coded = matches!(state, MessageState::Rejected | MessageState::Skipped);
        let mut line = ReportLine {
            recipient: phone.to_string(),
            row: *row,
            batch: Some(batch.number),
            state,
            sid: sids.get(&place).filter(|sid| state == MessageState::Accepted && !sid.is_empty()).cloned(),
            code: coded.then(|| word.to_owned()),
            detail: text(state.as_str(), word).filter(|text| !text.is_empty()),
            attempts: u32::from(message.attempts),
            delivery: None,
            updated_at: (message.at > 0).then(|| Timestamp::from_millisecond(message.at).unwrap_or_default()),
            request_id: None,
        };
        if let Some(progress) = deliveries.of(place) {
            line.deliver(progress, |code| text(UNDELIVERED, code));
        }
        line
    };
    record.each().zip(&batch.recipients).map(line).collect()
}
