//! `POST /callbacks/{account}/{capability}`.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

use super::{Reports, Taken};
use crate::ledger::Ledger;

/// The longest body.
const BODY: usize = 1 << 20;

/// Where reports are taken in; empty until the ledger is there.
pub type Slot<L> = Arc<OnceLock<Reports<L>>>;

/// The route of reports. A provider that comes before the ledger is there is to come again.
pub fn router<L: Ledger>(reports: Slot<L>) -> Router {
    Router::new()
        .route("/callbacks/{account}/{capability}", post(take::<L>).get(verify::<L>))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(reports)
}

async fn take<L: Ledger>(
    State(reports): State<Slot<L>>,
    Path((account, capability)): Path<(String, String)>,
    request: Request,
) -> Response {
    let Some(reports) = reports.get() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "not connected yet; come again");
    };
    // The same for an account that is not there as for a seal that is not ours.
    let Some(address) = reports.open(&account, &capability) else {
        return problem(StatusCode::NOT_FOUND, "no such address");
    };
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(fault) => return problem(fault.status(), &fault.body_text()),
    };
    match reports.take(&address, &body).await {
        Ok(Taken::Done) => StatusCode::OK.into_response(),
        Ok(Taken::Challenge(challenge)) => Json(json!({ "challenge": challenge })).into_response(),
        Ok(Taken::Unreadable) => problem(StatusCode::BAD_REQUEST, "the body is no JSON"),
        Err(fault) => {
            tracing::error!("a report can't be kept, and must come again: {fault}");
            problem(StatusCode::SERVICE_UNAVAILABLE, "can't be kept now; come again")
        }
    }
}

/// Meta asks before it sends anything: it wants its challenge back. Its verify token proves no more
/// than the address itself does.
async fn verify<L: Ledger>(
    State(reports): State<Slot<L>>,
    Path((account, capability)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let challenge = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "hub.challenge");
    let is_ours = reports.get().is_some_and(|reports| reports.open(&account, &capability).is_some());
    match challenge.filter(|_| is_ours) {
        Some((_, challenge)) => {
            ([(header::CONTENT_TYPE, "text/plain")], challenge.into_owned()).into_response()
        }
        None => problem(StatusCode::NOT_FOUND, "no such address"),
    }
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({ "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
