//! Problem documents (RFC 9457): errors that a person or a program can act on.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::campaign::problem::{Excess, Problem as JobProblem, location, step};
use crate::campaign::text::shortened;
use crate::dispatch::{DispatchError, Refusal};
use crate::ledger::LedgerError;

/// Media type of problem documents.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// Maximum length of a detail, in bytes: it may quote the request.
const LONGEST_DETAIL: usize = 4_096;

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// The kind of problem; `about:blank` if the status says everything.
    r#type: &'static str,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and what to do.
    detail: String,
    /// The errors of a job, by place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<PointedError>,
}

/// An error of a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct PointedError {
    /// A JSON pointer into the job; empty for the whole job.
    pointer: String,
    /// What is wrong, and what is expected.
    detail: String,
    /// The missing field of the object at the pointer, if that is the problem.
    #[serde(skip)]
    missing: Option<&'static str>,
    /// How long a text is that is too long.
    #[serde(skip)]
    excess: Option<Excess>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Problem").into();
        let detail = shortened(&detail.into(), LONGEST_DETAIL).into_owned();
        Self { r#type: "about:blank", title, status: status.as_u16(), detail, errors: Vec::new() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// Returns the detail for a page, without JSON pointers.
    pub(super) fn to_text(&self) -> Cow<'_, str> {
        if self.errors.is_empty() {
            return Cow::Borrowed(&self.detail);
        }
        let lines = self.errors.iter().map(|error| format!("{}: {}", location(&error.pointer), error.detail));
        shortened(&lines.collect::<Vec<_>>().join("\n"), LONGEST_DETAIL).into_owned().into()
    }

    /// Returns the pointers and details of a job's errors.
    pub(super) fn errors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.errors.iter().map(|error| (&*error.pointer, &*error.detail))
    }

    /// Returns the pointers of a job's missing required fields.
    pub(super) fn missing(&self) -> impl Iterator<Item = String> {
        self.errors.iter().filter_map(|error| Some(step(&error.pointer, error.missing?)))
    }

    /// Returns the pointers and details of a job's errors, without missing fields.
    pub(super) fn mistakes(&self) -> impl Iterator<Item = (&str, &str, Option<Excess>)> {
        let present = self.errors.iter().filter(|error| error.missing.is_none());
        present.map(|error| (&*error.pointer, &*error.detail, error.excess))
    }

    /// Returns the HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn away(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        // The dashboard renders it as a page.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        let status = match &error {
            LedgerError::NoCampaign(_) => StatusCode::NOT_FOUND,
            LedgerError::OtherContent(_)
            | LedgerError::NotARehearsal(_)
            | LedgerError::InStore { .. }
            | LedgerError::InFleet(_)
            | LedgerError::Ended { .. }
            | LedgerError::IllegalMove { .. }
            | LedgerError::OtherPlan(..)
            | LedgerError::StalePlan(_) => StatusCode::CONFLICT,
            LedgerError::NoPlace => StatusCode::BAD_REQUEST,
            LedgerError::Storage(_)
            | LedgerError::Away(_)
            | LedgerError::NoStore(_)
            | LedgerError::InUse(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(error = %error, "cannot answer a request");
        }
        Self::new(status, error.to_string())
    }
}

impl From<Vec<JobProblem>> for Problem {
    fn from(problems: Vec<JobProblem>) -> Self {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let pointed = |problem: JobProblem| PointedError {
            pointer: problem.pointer,
            detail: problem.message,
            missing: problem.missing,
            excess: problem.excess,
        };
        Self {
            errors: problems.into_iter().map(pointed).collect(),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, lines.join("\n"))
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Problems(problems) => problems.into(),
            Refusal::Audience(error) if error.is_outside_failure() => Self::away(error.to_string()),
            Refusal::Audience(error) => vec![JobProblem::new(error.pointer(), error.to_string())].into(),
        }
    }
}

impl From<DispatchError> for Problem {
    fn from(error: DispatchError) -> Self {
        match error {
            DispatchError::Ledger(error) => error.into(),
            DispatchError::Audience(error) => Refusal::Audience(error).into(),
            DispatchError::Queue(_) | DispatchError::Job(..) | DispatchError::Task(_) => {
                tracing::error!(error = %error, "cannot answer a request");
                Self::away(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_the_place_in_words_and_a_program_also_gets_the_pointer() {
        let problem: Problem =
            vec![JobProblem::new("/limits/messages", "a limit of 0 allows nothing")].into();
        assert_eq!(problem.to_text(), "limits messages: a limit of 0 allows nothing");
        assert_eq!(problem.detail, "limits messages: a limit of 0 allows nothing (/limits/messages)");
        assert_eq!(problem.errors().next(), Some(("/limits/messages", "a limit of 0 allows nothing")));
    }
}
