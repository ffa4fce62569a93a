//! The error responses that the `OpenAPI` document lists for each operation.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::IntoResponses;
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};

use super::super::problem::MEDIA_TYPE;

type Responses = BTreeMap<String, RefOr<Response>>;

fn refusals(statuses: &[StatusCode]) -> Responses {
    let refusal = |status: &StatusCode| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let description = status.canonical_reason().unwrap_or_default();
        let response = ResponseBuilder::new().description(description).content(MEDIA_TYPE, content).build();
        (status.as_u16().to_string(), RefOr::T(response))
    };
    statuses.iter().map(refusal).collect()
}

/// Of every operation: an unknown parameter, an invalid token, an insufficient role, unavailable servers.
const ALWAYS: [StatusCode; 4] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// Errors of an operation on a list.
pub(super) struct OnList;

impl IntoResponses for OnList {
    fn responses() -> Responses {
        refusals(&ALWAYS)
    }
}

/// Errors of an operation that reads one item.
pub(super) struct OnOne;

impl IntoResponses for OnOne {
    fn responses() -> Responses {
        refusals(&[&ALWAYS[..], &[StatusCode::NOT_FOUND]].concat())
    }
}

/// Errors of an action on a campaign.
pub(super) struct OnCampaign;

impl IntoResponses for OnCampaign {
    fn responses() -> Responses {
        let more = [
            StatusCode::NOT_FOUND,
            StatusCode::CONFLICT,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ];
        refusals(&[&ALWAYS[..], &more].concat())
    }
}

/// Errors of submitting a job, an audience or numbers.
pub(super) struct OnJob;

impl IntoResponses for OnJob {
    fn responses() -> Responses {
        let more = [StatusCode::CONFLICT, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        refusals(&[&ALWAYS[..], &more].concat())
    }
}
