//! Reports and replies, streamed page by page from the ledger, so that only one page is in memory.

use std::{io, sync::Arc};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::problem::Problem;
use super::extract::{Params, campaign};
use super::{Api, refusals::OnOne};
use crate::campaign::{CampaignId, MessageState};
use crate::ledger::{Cursor, LedgerError, report_page, response_page};
use crate::views::lines::{Format, LineWriter};
use crate::views::{replies, report};

const CSV: &str = "text/csv; charset=utf-8";
const JSONL: &str = "application/x-ndjson";

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ReportParams {
    /// Only messages in this state.
    state: Option<MessageState>,
}

/// Streams the report as CSV.
///
/// A line for each message and each skipped row, in the order of the audience. A response that breaks off is incomplete.
#[utoipa::path(
    get, path = "/campaigns/{id}/report.csv", tag = "reports", operation_id = "getReportCsv",
    params(("id" = String, Path, description = "The campaign's id"), ReportParams),
    responses((status = 200, description = "The lines", body = String, content_type = "text/csv"), OnOne)
)]
pub(in crate::http) async fn report_csv(
    State(api): State<Api>,
    Path(id): Path<String>,
    Params(asked): Params<ReportParams>,
) -> Result<Response, Problem> {
    report(&api, &id, Format::Csv, asked.state).await
}

/// Streams the report as JSON lines.
///
/// A line for each message and each skipped row, in the order of the audience. A response that breaks off is incomplete.
#[utoipa::path(
    get, path = "/campaigns/{id}/report.jsonl", tag = "reports", operation_id = "getReportJsonLines",
    params(("id" = String, Path, description = "The campaign's id"), ReportParams),
    responses((status = 200, description = "The lines", body = String, content_type = "application/x-ndjson"), OnOne)
)]
pub(in crate::http) async fn report_jsonl(
    State(api): State<Api>,
    Path(id): Path<String>,
    Params(asked): Params<ReportParams>,
) -> Result<Response, Problem> {
    report(&api, &id, Format::Jsonl, asked.state).await
}

/// Streams the replies as CSV.
///
/// A line for each reply, with a column for each form field.
#[utoipa::path(
    get, path = "/campaigns/{id}/responses.csv", tag = "reports", operation_id = "getResponsesCsv",
    params(("id" = String, Path, description = "The campaign's id")),
    responses((status = 200, description = "The replies", body = String, content_type = "text/csv"), OnOne)
)]
pub(in crate::http) async fn responses_csv(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    replies(&api, &id, Format::Csv).await
}

/// Streams the replies as JSON lines.
///
/// A line for each reply, with the form fields by name.
#[utoipa::path(
    get, path = "/campaigns/{id}/responses.jsonl", tag = "reports", operation_id = "getResponsesJsonLines",
    params(("id" = String, Path, description = "The campaign's id")),
    responses((status = 200, description = "The replies", body = String, content_type = "application/x-ndjson"), OnOne)
)]
pub(in crate::http) async fn responses_jsonl(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    replies(&api, &id, Format::Jsonl).await
}

/// Returns a response whose body is written page by page.
///
/// If the ledger fails in between, the body breaks off, so that the client sees that it is incomplete.
fn streamed(
    format: Format,
    id: &CampaignId,
    what: &str,
    pages: impl Stream<Item = Result<Bytes, LedgerError>> + Send + 'static,
) -> Response {
    let (media_type, ending) = match format {
        Format::Csv => (CSV, "csv"),
        Format::Jsonl => (JSONL, "jsonl"),
    };
    // A campaign's id has no characters that need escaping in the header.
    let name = format!("attachment; filename=\"{id}-{what}.{ending}\"");
    let headers = [(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_DISPOSITION, name)];
    (headers, Body::from_stream(pages)).into_response()
}

/// Returns the lines of a page.
fn written(
    format: Format,
    write: impl FnOnce(&mut LineWriter<Vec<u8>>) -> io::Result<()>,
) -> Result<Bytes, LedgerError> {
    let mut lines = LineWriter::new(format, Vec::new());
    let written = write(&mut lines).and_then(|()| lines.end());
    written.map(Bytes::from).map_err(|error| LedgerError::Storage(format!("cannot write the lines: {error}")))
}

async fn report(
    api: &Api,
    id: &str,
    format: Format,
    state: Option<MessageState>,
) -> Result<Response, Problem> {
    let campaign = campaign(api, id).await?;
    let (ledger, id) = (api.ledger()?.clone(), campaign.id.clone());
    let pages = stream::try_unfold(Some(Cursor::default()), move |cursor| {
        let (ledger, id) = (ledger.clone(), id.clone());
        async move {
            let Some(from) = cursor else { return Ok(None) };
            let page = report_page(&ledger, &id, from).await?;
            let lines = written(format, |lines| {
                if from == Cursor::default() {
                    lines.header(report::HEADER)?;
                }
                report::write(lines, page.lines, state)
            });
            Ok(Some((lines?, page.next)))
        }
    });
    Ok(streamed(format, &campaign.id, "report", pages))
}

async fn replies(api: &Api, id: &str, format: Format) -> Result<Response, Problem> {
    let campaign = campaign(api, id).await?;
    let (ledger, id) = (api.ledger()?.clone(), campaign.id.clone());
    let columns = match format {
        Format::Csv => replies::columns(&ledger, &id).await?,
        Format::Jsonl => replies::Columns::default(),
    };
    let columns = Arc::new(columns);
    let pages = stream::try_unfold(Some(0), move |cursor| {
        let (ledger, id, columns) = (ledger.clone(), id.clone(), columns.clone());
        async move {
            let Some(from) = cursor else { return Ok(None) };
            let page = response_page(&ledger, &id, from).await?;
            let lines = written(format, |lines| {
                if from == 0 {
                    lines.header(replies::header(&columns))?;
                }
                replies::write(lines, &page.responses, &columns)
            });
            Ok(Some((lines?, page.next)))
        }
    });
    Ok(streamed(format, &campaign.id, "responses", pages))
}
