//! Extractors of handlers. A request that cannot be read gets a problem document.

use std::error::Error;

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::{StatusCode, Uri};
use axum::{body::Bytes, http::request::Parts};
use opentelemetry::context::FutureExt;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::super::{access::Caller, problem::Problem};
use super::Api;
use crate::campaign::CampaignId;
use crate::dispatch::JOB_LIMIT;
use crate::ledger::{Campaign, LedgerError, listing};

/// The parameters of a query. A parameter without a value counts as missing.
pub(in crate::http) struct Params<T>(pub(in crate::http) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let given = form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty());
        let given = form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
        let uri: Result<Uri, _> = format!("/?{given}").parse();
        let uri = uri.map_err(|_| Problem::bad_request("the query is too long"))?;
        let query = Query::<T>::try_from_uri(&uri);
        query.map(|Query(params)| Self(params)).map_err(|error| {
            let what = error.source().map(ToString::to_string).unwrap_or_default();
            Problem::bad_request(format!(
                "cannot read the query: {what}; see /api/v1/openapi.json for its parameters"
            ))
        })
    }
}

/// The caller that the guard has authenticated.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let who = parts.extensions.get::<Self>().cloned();
        who.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "authentication required"))
    }
}

/// A JSON body; the default of `T` if it is empty or null.
pub(super) struct Document<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Document<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = body(request, state).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        let document = serde_json::from_slice::<Option<T>>(&bytes);
        document.map(|document| Self(document.unwrap_or_default())).map_err(|error| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("cannot read the body: {error}"))
        })
    }
}

/// Reads a body, up to the size limit of its route.
pub(super) async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let bytes = Bytes::from_request(request, state).await;
    bytes.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {} MiB; put the recipients into a file", JOB_LIMIT >> 20),
        ),
        status => Problem::new(status, "the body is incomplete"),
    })
}

/// Returns the campaign that a path names.
pub(in crate::http) async fn campaign(api: &Api, id: &str) -> Result<Campaign, Problem> {
    let none = || Problem::not_found(format!("there is no campaign {:?}", crate::campaign::visible(id)));
    let id: CampaignId = id.parse().map_err(|_| none())?;
    let found = listing::look_at(api.ledger()?, &id).await?;
    found.ok_or(LedgerError::NoCampaign(id)).map_err(Problem::from)
}

/// Runs work to its end even if the client disconnects, because partial work would be worse than none.
pub(in crate::http) async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work.with_current_context()).await.map_err(|error| Problem::away(error.to_string()))?
}

/// Returns the number of items of a page, if it is within bounds.
pub(super) fn limit(asked: Option<usize>, usual: usize, most: usize) -> Result<usize, Problem> {
    match asked.unwrap_or(usual) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(Problem::bad_request(format!("limit must be from 1 to {most}"))),
    }
}
