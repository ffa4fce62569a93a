//! The results of a campaign as a file: its audience, with the outcome of each row. The file is streamed and never stored.

use std::fs::File;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::tz::TimeZone;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, Sender};
use tokio_util::io::ReaderStream;
use tokio_util::task::AbortOnDropHandle;

use super::super::api::extract::{Params, campaign};
use super::super::problem::Problem;
use super::Dashboard;
use crate::audience::{Audience, Scan};
use crate::campaign::delivery::{Delivery, FLOW_TOKEN};
use crate::campaign::{CampaignId, Job, MessageState};
use crate::dispatch::{Refusal, scan_audience};
use crate::ledger::{AnyLedger, Campaign, Campaigns, Cursor, LedgerError};
use crate::ledger::{report_page, response_page};
use crate::views::replies;
use crate::views::results::{self, Format, Only, ResultChunk, SHEET_ROWS};

/// Number of parts of the ledger that are read ahead of the audience.
const AHEAD: usize = 2;
/// Limits how many result files are written at once. Each occupies a thread while it waits for the ledger, which may need threads
/// of its own.
static WRITERS: Semaphore = Semaphore::const_new(2);

#[derive(Deserialize)]
pub(super) struct ResultsParams {
    /// Message state of the rows to include.
    state: Option<MessageState>,
    /// Delivery state of the rows to include.
    delivery: Option<Delivery>,
    /// The reader's time zone, for a campaign without sending hours.
    zone: Option<String>,
}

impl ResultsParams {
    /// Returns the time zone of a workbook.
    ///
    /// It is that of the campaign's sending hours, else the reader's, else UTC.
    fn zone(&self, job: &Job) -> TimeZone {
        let own = job.schedule.timezone().cloned();
        let readers = || TimeZone::get(self.zone.as_deref()?).ok();
        own.or_else(readers).unwrap_or(TimeZone::UTC)
    }

    /// Returns the suffix of the file name, which names the filters.
    fn suffix(&self) -> String {
        let delivery = self.delivery.map(|state| match state {
            Delivery::Failed => "not-delivered",
            other => other.as_str(),
        });
        let words = [self.state.map(|state| state.to_string()), delivery.map(str::to_owned)];
        words.into_iter().flatten().map(|word| format!("-{word}")).collect()
    }
}

pub(super) async fn csv(
    dashboard: State<Dashboard>,
    id: Path<String>,
    asked: Params<ResultsParams>,
) -> Result<Response, Problem> {
    file(&dashboard, &id, &asked.0, false).await
}

pub(super) async fn xlsx(
    dashboard: State<Dashboard>,
    id: Path<String>,
    asked: Params<ResultsParams>,
) -> Result<Response, Problem> {
    file(&dashboard, &id, &asked.0, true).await
}

/// Returns the file, once the audience is known to be unchanged.
///
/// The body is cut off if a later step fails.
async fn file(
    dashboard: &Dashboard,
    id: &str,
    asked: &ResultsParams,
    is_workbook: bool,
) -> Result<Response, Problem> {
    let campaign = campaign(&dashboard.api, id).await?;
    let backing = dashboard.api.backing()?;
    let ledger = backing.ledger.clone();
    let job = ledger.job(&campaign.id).await?.job;
    let job =
        Job::read(job.as_bytes()).map_err(|_| Problem::not_found("the campaign's job can't be read"))?;
    let audiences = backing.context.audiences.clone();
    let format = if is_workbook { Format::Xlsx(asked.zone(&job)) } else { Format::Csv };
    // The permit is held until the file is written, also after the reader has disconnected.
    let permit = WRITERS.acquire().await.map_err(|error| Problem::away(error.to_string()))?;
    let opened = tokio::task::spawn_blocking(move || {
        let (source, settings, scan) = scan_audience(&job, &audiences)?;
        Ok::<_, Refusal>((Audience::open(&source, &settings)?, scan))
    });
    let opened = opened.await.map_err(|error| Problem::away(error.to_string()))?;
    let (audience, scan) = opened?;
    check(&campaign, &scan, is_workbook)?;
    let columns = replies::columns(&ledger, &campaign.id).await?.without(FLOW_TOKEN);
    let (parts, received) = mpsc::channel(AHEAD);
    let (id, only) = (campaign.id.clone(), Only { state: asked.state, delivery: asked.delivery });
    let written = async move {
        // Reading is aborted when the reader disconnects, and that ends the writing.
        let read = AbortOnDropHandle::new(tokio::spawn(read(ledger, id, parts)));
        let file = tempfile::tempfile()?;
        let write = move || {
            let _permit = permit;
            results::write(audience, received, &columns, only, format, file)
        };
        let file = tokio::task::spawn_blocking(write).await?.map_err(std::io::Error::other)?;
        read.await?.map_err(std::io::Error::other)?;
        Ok::<File, std::io::Error>(file)
    };
    let body = stream::once(written).map_ok(|file| ReaderStream::new(tokio::fs::File::from_std(file)));
    let (media_type, ending) = if is_workbook {
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx")
    } else {
        ("text/csv; charset=utf-8", "csv")
    };
    // A campaign ID has no character that needs escaping in a header.
    let name = format!("attachment; filename=\"{}-results{}.{ending}\"", campaign.id, asked.suffix());
    let headers = [(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(body.try_flatten().boxed())).into_response())
}

fn check(campaign: &Campaign, scan: &Scan, is_workbook: bool) -> Result<(), Problem> {
    if scan.digest != campaign.audience {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "the audience file has changed since the campaign was made; download the message report instead",
        ));
    }
    if is_workbook && scan.rows >= SHEET_ROWS {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "the audience has more rows than an Excel sheet can hold; download the results as .csv instead",
        ));
    }
    Ok(())
}

/// Sends the report and the answers of a campaign in parts.
///
/// Ends early if the receiver is gone.
async fn read(ledger: AnyLedger, id: CampaignId, parts: Sender<ResultChunk>) -> Result<(), LedgerError> {
    let (mut report, mut answers) = (Some(Cursor::default()), Some(0));
    while let Some(from) = report {
        let page = report_page(&ledger, &id, from).await?;
        let mut part = ResultChunk { lines: page.lines, replies: Vec::new(), is_last: page.next.is_none() };
        // Answers are sent no later than the report line of their message.
        let last = part.lines.iter().filter_map(|line| line.batch).max();
        while let Some(from) = answers.filter(|from| last.is_some_and(|last| *from <= last)) {
            let page = response_page(&ledger, &id, from).await?;
            part.replies.extend(page.responses);
            answers = page.next;
        }
        report = page.next;
        if parts.send(part).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_in_the_zone_of_the_sending_hours_then_in_the_readers_then_in_utc() {
        let job = |schedule: serde_json::Value| {
            let job = json!({
                "version": 1, "account": "main", "from": "+912248931479", "schedule": schedule,
                "audience": { "recipients": [{ "phone": "+919876543210" }] },
                "message": { "type": "text", "text": { "body": "x" } },
            });
            Job::read(job.to_string().as_bytes()).unwrap()
        };
        let zone = |job: &Job, readers: Option<&str>| {
            let asked = ResultsParams { state: None, delivery: None, zone: readers.map(str::to_owned) };
            asked.zone(job).iana_name().unwrap_or("UTC").to_owned()
        };
        let window = json!({ "window": { "from": "09:00", "to": "18:00", "timezone": "Asia/Kolkata" } });
        assert_eq!(zone(&job(window), Some("Europe/Berlin")), "Asia/Kolkata");
        assert_eq!(zone(&job(json!({})), Some("Europe/Berlin")), "Europe/Berlin");
        for none in [None, Some("Nowhere"), Some("../etc/passwd")] {
            assert_eq!(zone(&job(json!({})), none), "UTC");
        }
    }
}
