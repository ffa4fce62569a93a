//! `POST` and `GET /callbacks/{account}/{capability}`.

use std::sync::{Arc, OnceLock};

use axum::extract::{DefaultBodyLimit, FromRequest, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, body::Bytes};
use serde_json::{Map, Value, json};

use super::{CallbackAddress, CallbackOutcome, Reports};
use crate::ledger::Ledger;
use crate::routing::{get, post};

/// Size limit of a body, in bytes: Meta sends up to 3 MiB.
const MAX_BODY_BYTES: usize = 4 << 20;

/// The receiver of callbacks; empty until the ledger is connected.
pub type Slot<L> = Arc<OnceLock<Reports<L>>>;

/// Returns the route of callbacks. Until the ledger is connected, providers are told to try again.
pub fn router<L: Ledger>(reports: Slot<L>) -> Router {
    Router::new()
        .route("/callbacks/{account}/{capability}", post(receive::<L>).merge(get(take_query::<L>)))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(reports)
}

async fn receive<L: Ledger>(
    State(reports): State<Slot<L>>,
    Path((account, capability)): Path<(String, String)>,
    request: Request,
) -> Response {
    let Some(reports) = reports.get() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "not connected yet; try again");
    };
    let Some(address) = reports.open(&account, &capability) else {
        return refuse_unknown(reports).await;
    };
    let headers = request.headers().clone();
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(error) => return problem(error.status(), &error.body_text()),
    };
    answer(reports, &address, &headers, &body).await
}

async fn answer<L: Ledger>(
    reports: &Reports<L>,
    address: &CallbackAddress,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    if !reports.proves(address, headers, body) {
        return problem(
            StatusCode::FORBIDDEN,
            "the callback lacks the configured header or a valid signature",
        );
    }
    match reports.receive(address, body).await {
        Ok(CallbackOutcome::Done) => StatusCode::OK.into_response(),
        Ok(CallbackOutcome::Challenge(challenge)) => Json(json!({ "challenge": challenge })).into_response(),
        Ok(CallbackOutcome::Unreadable) => problem(StatusCode::BAD_REQUEST, "the body is not valid JSON"),
        Err(error) => {
            tracing::error!(error = %error, "cannot store a report; the provider must send it again");
            problem(StatusCode::SERVICE_UNAVAILABLE, "cannot store the report now; try again")
        }
    }
}

/// Processes a report in query parameters, as a profile of Kaleyra may send it, or answers Meta's verification request.
///
/// Meta's verify token is ignored, because it proves no more than the URL itself.
async fn take_query<L: Ledger>(
    State(reports): State<Slot<L>>,
    Path((account, capability)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(reports) = reports.get() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "not connected yet; try again");
    };
    let Some(address) = reports.open(&account, &capability) else {
        return refuse_unknown(reports).await;
    };
    let query = query.unwrap_or_default();
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name == "hub.challenge" {
            return ([(header::CONTENT_TYPE, "text/plain")], value.into_owned()).into_response();
        }
        fields.insert(name.into_owned(), value.into_owned().into());
    }
    answer(reports, &address, &headers, Value::Object(fields).to_string().as_bytes()).await
}

/// Returns the same response for an unknown account as for an invalid seal.
async fn refuse_unknown<L: Ledger>(reports: &Reports<L>) -> Response {
    if reports.refuse().await {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "this worker has no key for the URL; try again");
    }
    problem(StatusCode::NOT_FOUND, "unknown callback URL")
}

/// Returns a problem document (RFC 9457).
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({ "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
