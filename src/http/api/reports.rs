//! Reports and replies, streamed page by page from the ledger, so that only one page is in memory.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::problem::Problem;
use super::Api;
use super::extract::{Params, campaign};
use super::refusals::OnOne;
use crate::campaign::{CampaignId, MessageState};
use crate::ledger::{AnyLedger, Cursor, LedgerError};
use crate::ledger::{report_page, response_page};
use crate::views::lines::{Format, LineWriter};
use crate::views::{report, responses};

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
    let id = campaign(&api, &id).await?.id;
    Ok(streamed(
        Format::Csv,
        &id,
        "report",
        report_pages(api.ledger()?.clone(), id.clone(), Format::Csv, asked.state),
    ))
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
    let id = campaign(&api, &id).await?.id;
    let pages = report_pages(api.ledger()?.clone(), id.clone(), Format::Jsonl, asked.state);
    Ok(streamed(Format::Jsonl, &id, "report", pages))
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
    let id = campaign(&api, &id).await?.id;
    let ledger = api.ledger()?.clone();
    let columns = responses::columns(&ledger, &id).await?;
    let pages = response_pages(ledger, id.clone(), Format::Csv, columns);
    Ok(streamed(Format::Csv, &id, "responses", pages))
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
    let id = campaign(&api, &id).await?.id;
    let pages =
        response_pages(api.ledger()?.clone(), id.clone(), Format::Jsonl, responses::Columns::default());
    Ok(streamed(Format::Jsonl, &id, "responses", pages))
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

fn written(error: &std::io::Error) -> LedgerError {
    LedgerError::Storage(format!("cannot write the lines: {error}"))
}

fn report_pages(
    ledger: AnyLedger,
    id: CampaignId,
    format: Format,
    state: Option<MessageState>,
) -> impl Stream<Item = Result<Bytes, LedgerError>> + Send {
    stream::try_unfold(Some(Cursor::default()), move |cursor| {
        let (ledger, id) = (ledger.clone(), id.clone());
        async move {
            let Some(from) = cursor else { return Ok(None) };
            let page = report_page(&ledger, &id, from).await?;
            let mut lines = LineWriter::new(format, Vec::new());
            let write = |lines: &mut LineWriter<Vec<u8>>| {
                if from == Cursor::default() {
                    lines.header(report::HEADER)?;
                }
                report::write(lines, page.lines, state)
            };
            write(&mut lines).map_err(|error| written(&error))?;
            Ok(Some((lines.end().map_err(|error| written(&error))?.into(), page.next)))
        }
    })
}

fn response_pages(
    ledger: AnyLedger,
    id: CampaignId,
    format: Format,
    columns: responses::Columns,
) -> impl Stream<Item = Result<Bytes, LedgerError>> + Send {
    let columns = std::sync::Arc::new(columns);
    stream::try_unfold(Some(0), move |cursor| {
        let (ledger, id, columns) = (ledger.clone(), id.clone(), columns.clone());
        async move {
            let Some(from) = cursor else { return Ok(None) };
            let page = response_page(&ledger, &id, from).await?;
            let mut lines = LineWriter::new(format, Vec::new());
            let write = |lines: &mut LineWriter<Vec<u8>>| {
                if from == 0 {
                    lines.header(responses::header(&columns))?;
                }
                responses::write(lines, &page.responses, &columns)
            };
            write(&mut lines).map_err(|error| written(&error))?;
            Ok(Some((lines.end().map_err(|error| written(&error))?.into(), page.next)))
        }
    })
}
