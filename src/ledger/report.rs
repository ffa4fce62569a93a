//! Reports: the state of every row and the replies, page by page.
//!
//! It only reads, and renders nothing but JSON: views render the lines.

use std::{collections::BTreeMap, ops::Range};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::batches::{Batches, PAGE, StoredBatch};
use super::deliveries::{Deliveries, Response, UNDELIVERED};
use super::{LedgerError, LedgerFuture, record::Message};
use crate::campaign::{CampaignId, DoubtCause, MessageState, Phone, delivery::Progress, text, time};

/// A line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportLine {
    /// The number; in a skipped row the text in its place.
    pub recipient: String,
    /// The row of the audience, from 1.
    pub row: u64,
    /// The batch, if it is in one.
    pub batch: Option<u32>,
    /// The state.
    pub state: MessageState,
    /// The provider's id of the message.
    pub sid: Option<String>,
    /// The provider's code, or the reason of a skipped row.
    pub code: Option<String>,
    /// The text of the code.
    pub detail: Option<String>,
    /// Number of claims.
    pub attempts: u32,
    /// The delivery state, as delivery reports say.
    pub delivery: Option<String>,
    /// Time of the last change.
    #[serde(serialize_with = "time::serialize_option")]
    pub updated_at: Option<Timestamp>,
    /// The provider's id of the last request of its batch; its support asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Returns the JSON Schema of a report's line (2020-12). The columns of CSV are its properties, in this order, without
/// `request_id`.
pub fn report_schema() -> Value {
    let property = |(name, kind, about, example): (&str, Value, &str, Value)| {
        let mut property =
            json!({ "title": text::titled(name), "description": about, "examples": [example] });
        if let (Some(property), Value::Object(kind)) = (property.as_object_mut(), kind) {
            property.extend(kind);
        }
        (name.to_owned(), property)
    };
    let number = |least: u64| json!({ "type": "integer", "minimum": least });
    let number_or_null = json!({ "type": ["integer", "null"], "minimum": 0 });
    let (string, string_or_null) = (json!({ "type": "string" }), || json!({ "type": ["string", "null"] }));
    let time_or_null = json!({ "type": ["string", "null"], "format": "date-time" });
    let deliveries = json!({ "enum": [null, "sent", "delivered", "read", "failed"] });
    let properties = [
        ("recipient", string, "The number; in a skipped row the text in its place.", "+919876543210".into()),
        ("row", number(1), "The row of the audience, from 1.", 18.into()),
        ("batch", number_or_null, "The batch, from 0; null for a skipped row.", 0.into()),
        ("state", json!({ "enum": MessageState::ALL }), "The state.", "accepted".into()),
        ("sid", string_or_null(), "The provider's id of the message.", "wamid.1".into()),
        ("code", string_or_null(), "The provider's code, or the reason of a skipped row.", "131026".into()),
        ("detail", string_or_null(), "The text of the code, and what to do.", "Message undeliverable".into()),
        ("attempts", number(0), "Number of claims for sending.", 1.into()),
        ("delivery", deliveries, "The delivery state, as delivery reports say.", "delivered".into()),
        ("updated_at", time_or_null, "Time of the last change, in UTC.", "2026-11-01T03:30:00.000Z".into()),
        (
            "request_id",
            string_or_null(),
            "The provider's id of the last request of its batch.",
            "9f1c".into(),
        ),
    ];
    let required: Vec<&str> =
        properties.iter().map(|(name, ..)| *name).filter(|name| *name != "request_id").collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:flowcast:schema:report:1",
        "title": "Report line",
        "description": "The state of one message, or one skipped row. New fields may be added.",
        "type": "object",
        "required": required,
        "properties": properties.map(property).into_iter().collect::<Map<_, _>>(),
    })
}

impl ReportLine {
    /// Returns the line of a skipped row. `at` is in milliseconds since 1970.
    pub(super) fn skipped(row: u64, recipient: String, reason: String, detail: String, at: i64) -> Self {
        Self {
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
            request_id: None,
        }
    }

    /// Adds the delivery progress.
    fn deliver(&mut self, progress: &Progress, text: impl Fn(&str) -> Option<String>) {
        self.delivery = progress.state.map(|state| state.as_str().to_owned());
        if let Some(code) = progress.failure() {
            self.code = Some(code.to_owned()).filter(|code| !code.is_empty());
            self.detail = text(code).filter(|text| !text.is_empty());
        }
    }
}

/// The position of the next page of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next batch.
    batch: u32,
    /// The next skipped row, in the order of planning.
    skipped: u64,
}

/// A page of a report, in the order of the audience's rows.
#[derive(Clone, Debug, Default)]
pub struct ReportPage {
    /// Its lines.
    pub lines: Vec<ReportLine>,
    /// Cursor of the next page, `None` at the end.
    pub next: Option<Cursor>,
}

/// A page of replies, in the order of the audience's rows.
#[derive(Clone, Debug, Default)]
pub struct ResponsePage {
    /// The replies.
    pub responses: Vec<Response>,
    /// First batch of the next page, `None` at the end.
    pub next: Option<u32>,
}

/// Texts of a campaign, by kind and code.
pub type OutcomeTexts = BTreeMap<(String, String), String>;

/// What a backend stores of a campaign's rows besides their records.
pub trait Reporting: Batches {
    /// Returns the number of stored batches, including those claimed before their checkpoint.
    ///
    /// # Errors
    ///
    /// If the campaign does not exist, or is being removed.
    fn written(&self, id: &CampaignId) -> impl LedgerFuture<u32>;

    /// Returns the SIDs of batches' accepted messages, by position.
    fn sids(&self, batches: &[Option<StoredBatch>]) -> impl LedgerFuture<Vec<BTreeMap<u8, String>>>;

    /// Returns the provider's id of the last answered request of each batch.
    fn requests(&self, id: &CampaignId, numbers: &[u32]) -> impl LedgerFuture<Vec<Option<String>>>;

    /// Returns the texts of a campaign, by kind and code.
    fn texts(&self, id: &CampaignId) -> impl LedgerFuture<OutcomeTexts>;

    /// Returns rows that were skipped by the plan: from a position in their order up to a row of the audience.
    fn skipped(&self, id: &CampaignId, from: u64, to: u64) -> impl LedgerFuture<Vec<ReportLine>>;

    /// Returns the replies to messages of a range of batches, JSON.
    fn answers(&self, id: &CampaignId, numbers: Range<u32>) -> impl LedgerFuture<Vec<String>>;

    /// Records that a reply was published, by its key.
    fn answer_published(&self, id: &CampaignId, batch: u32, answer: String) -> impl LedgerFuture<()>;
}

/// Returns a page of a report: a line for each message and each skipped row.
///
/// # Errors
///
/// If the campaign does not exist, also if it was removed in the middle of the call: the page would be incomplete.
pub async fn report_page<L: Reporting>(
    ledger: &L,
    id: &CampaignId,
    from: Cursor,
) -> Result<ReportPage, LedgerError> {
    let written = ledger.written(id).await?;
    let end = written.min(from.batch.saturating_add(PAGE));
    let numbers: Vec<u32> = (from.batch..end).collect();
    let texts = ledger.texts(id).await?;
    let batches = ledger.load(id, &numbers).await?;
    let (sids, kept) = (ledger.sids(&batches).await?, ledger.deliveries(id, &numbers).await?);
    let requests = ledger.requests(id, &numbers).await?;
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
    // Skipped rows are between the messages, so the page contains them up to its last row.
    let last = if is_last { u64::MAX } else { lines.last().map_or(u64::MAX, |line| line.row) };
    let skipped = ledger.skipped(id, from.skipped, last).await?;
    let next = from.skipped + skipped.len() as u64;
    lines.extend(skipped);
    lines.sort_by_key(|line| line.row);
    ledger.written(id).await?;
    let next = (!is_last).then_some(Cursor { batch: end, skipped: next });
    Ok(ReportPage { lines, next })
}

/// Returns a page of replies, beginning with a batch.
///
/// # Errors
///
/// As [`report_page`].
pub async fn response_page<L: Reporting>(
    ledger: &L,
    id: &CampaignId,
    from: u32,
) -> Result<ResponsePage, LedgerError> {
    let written = ledger.written(id).await?;
    let end = written.min(from.saturating_add(PAGE));
    if from >= end {
        return Ok(ResponsePage::default());
    }
    let responses = Response::in_order(&ledger.answers(id, from..end).await?);
    ledger.written(id).await?;
    Ok(ResponsePage { responses, next: (end < written).then_some(end) })
}

/// Returns the lines of a batch's messages.
pub(super) fn batch_lines(
    stored: &StoredBatch,
    sids: &BTreeMap<u8, String>,
    deliveries: &Deliveries,
    texts: &OutcomeTexts,
) -> Vec<ReportLine> {
    let StoredBatch { batch, record } = stored;
    let text = |kind: &str, word: &str| texts.get(&(kind.to_owned(), word.to_owned())).cloned();
    let line = |((place, message), (row, phone)): ((u8, &Message), &(u64, Phone))| {
        let (state, word) = (message.state, record.code(message));
        let coded = matches!(state, MessageState::Rejected | MessageState::Skipped);
        // If the text of a doubt is not stored, it is made from the code, unless an earlier version wrote a digest.
        let cause = || DoubtCause::from_code(word).filter(|_| state == MessageState::InDoubt);
        let mut line = ReportLine {
            recipient: phone.to_string(),
            row: *row,
            batch: Some(batch.number),
            state,
            sid: sids.get(&place).filter(|sid| state == MessageState::Accepted && !sid.is_empty()).cloned(),
            code: coded.then(|| word.to_owned()),
            detail: text(state.as_str(), word)
                .filter(|text| !text.is_empty())
                .or_else(|| cause().map(|cause| cause.to_string())),
            attempts: u32::from(message.attempts),
            delivery: None,
            updated_at: (message.at > 0).then(|| Timestamp::from_millisecond(message.at).unwrap_or_default()),
            request_id: None,
        };
        if let Some(progress) = deliveries.for_message(place) {
            line.deliver(progress, |code| text(UNDELIVERED, code));
        }
        line
    };
    record.each().zip(&batch.recipients).map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::campaign::CampaignState;
    use crate::ledger::change::Change;
    use crate::ledger::record::BatchRecord;
    use crate::ledger::{
        Access, BatchUpdate, CasOutcome, ClaimPurpose, Decision, Ledger, Memory, NewCampaign, Outcome,
        PlannedBatch, RecordOutcome, Sqlite, claims, decisions, doubts, transitions,
    };

    /// Digest and text of a doubt, as earlier versions wrote them.
    const EARLIER: (&str, &str) = ("9c0e41aa", "error sending request: operation timed out");

    fn id() -> CampaignId {
        "c1".parse().unwrap()
    }

    fn batch() -> PlannedBatch {
        let recipient = |row| (row, Phone::from_digits(919_800_000_000 + row).unwrap());
        PlannedBatch { campaign: id(), number: 0, recipients: (1..=3).map(recipient).collect() }
    }

    /// Writes a running campaign whose first message was put in doubt by an earlier version.
    async fn kept_by_an_earlier_version(ledger: &impl Ledger) {
        let new = NewCampaign {
            id: id(),
            named: true,
            name: None,
            again: true,
            account: "main".into(),
            fingerprint: "f".into(),
            job: "{}".into(),
            columns: vec!["phone".into()],
            audience: "a".into(),
            rows: 3,
            batch_size: 3,
            rehearsal: false,
            created_by: String::new(),
        };
        ledger.register(new).await.unwrap();
        transitions::change_state(ledger, &id(), CampaignState::Running, None).await.unwrap();
        let batch = batch();
        let (word, text) = (EARLIER.0.to_owned(), EARLIER.1.to_owned());
        let mut record = BatchRecord::new(batch.recipients.len());
        let doubt = Message {
            state: MessageState::InDoubt,
            attempts: 1,
            at: 1_700_000_000_000,
            ..*record.message(0).unwrap()
        };
        record.set(0, doubt, &word);
        record.revision = 1;
        let change = Change {
            record: Some(record),
            counters: [(("pending", String::new()), -1), (("in_doubt", String::new()), 1)].into(),
            outcomes: vec![(0, Some((MessageState::InDoubt, word.clone())))],
            texts: [(("in_doubt", word), text)].into(),
            failed: Some(true),
            ..Change::default()
        };
        let swapped =
            ledger.update_batch(BatchUpdate { batch: &batch, purpose: None, change: &change }).await.unwrap();
        assert!(matches!(swapped, CasOutcome::Done { .. }), "{swapped:?}");
    }

    async fn digests_of_earlier_versions_are_shown_beside_codes(ledger: &impl Ledger) {
        kept_by_an_earlier_version(ledger).await;
        let claim = claims::claim(ledger, batch(), vec![1, 2], ClaimPurpose::Send).await.unwrap();
        let doubt = |cause: DoubtCause| Outcome::InDoubt(cause.into());
        let outcomes: Vec<RecordOutcome> = vec![
            (1, doubt(DoubtCause::ConnectionLost)).into(),
            (2, doubt(DoubtCause::HttpStatus(502))).into(),
        ];
        claims::record(ledger, &id(), 0, claim.token, outcomes).await.unwrap();
        let expected = [EARLIER.1, "the connection broke before the provider responded", "HTTP 502"];
        let shown = |lines: &[ReportLine]| -> Vec<_> {
            assert!(lines.iter().all(|line| line.state == MessageState::InDoubt && line.code.is_none()));
            lines.iter().map(|line| line.detail.clone().unwrap_or_default()).collect()
        };
        assert_eq!(shown(&report_page(ledger, &id(), Cursor::default()).await.unwrap().lines), expected);
        assert_eq!(shown(&doubts::first(ledger, &id(), 10).await.unwrap()), expected);
        let texts = ledger.texts(&id()).await.unwrap();
        for word in [EARLIER.0, "connection_lost", "http_502"] {
            assert!(texts.contains_key(&("in_doubt".to_owned(), word.to_owned())), "{word}: {texts:?}");
        }
        // A decision includes all of them.
        assert_eq!(decisions::decide(ledger, &id(), Decision::Resend { until: i64::MAX }).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn doubts_of_earlier_versions_keep_their_text() {
        let clock = || 1_700_000_100_000;
        let memory = Memory::new(Arc::new(clock), Duration::from_mins(1));
        digests_of_earlier_versions_are_shown_beside_codes(&memory).await;
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&folder.path().join("flowcast.db"), Access::Send).unwrap();
        digests_of_earlier_versions_are_shown_beside_codes(&sqlite).await;
    }

    #[test]
    fn a_doubt_whose_text_is_gone_is_shown_by_its_code() {
        let batch = batch();
        let mut record = BatchRecord::new(batch.recipients.len());
        let message = *record.message(0).unwrap();
        let in_state = |state| Message { state, ..message };
        record.set(0, in_state(MessageState::InDoubt), "http_502");
        record.set(1, in_state(MessageState::InDoubt), EARLIER.0);
        record.set(2, in_state(MessageState::Rejected), "http_502");
        let stored = StoredBatch { batch, record };
        let lines = batch_lines(&stored, &BTreeMap::new(), &Deliveries::default(), &OutcomeTexts::new());
        let details: Vec<_> = lines.iter().map(|line| line.detail.as_deref()).collect();
        assert_eq!(details, [Some("HTTP 502"), None, None]);
    }
}
