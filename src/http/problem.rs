//! Problem documents (RFC 9457): what went wrong, said so that a person or a program can act on it.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::campaign::problem::{Excess, Problem as JobProblem, place, step};
use crate::campaign::text::shortened;
use crate::dispatch::{DispatchError, Refusal};
use crate::ledger::LedgerError;

/// The media type.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// The longest detail, in bytes: what is asked for may be quoted in it.
const LONGEST_DETAIL: usize = 4_096;

/// A problem.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// What kind of problem; `about:blank` is one that the status says all of.
    r#type: &'static str,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What went wrong, and what to do.
    detail: String,
    /// Of a job: each thing that is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<PointedError>,
}

/// One thing that is wrong with a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct PointedError {
    /// A JSON pointer into the job; empty for the whole of it.
    pointer: String,
    /// What is wrong and what would be right.
    detail: String,
    /// The field of the object there that is missing, where that is the problem.
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

    /// Returns what went wrong and what to do, without JSON pointers: what a page shows.
    pub(super) fn plain(&self) -> Cow<'_, str> {
        if self.errors.is_empty() {
            return Cow::Borrowed(&self.detail);
        }
        let lines = self.errors.iter().map(|error| format!("{}: {}", place(&error.pointer), error.detail));
        shortened(&lines.collect::<Vec<_>>().join("\n"), LONGEST_DETAIL).into_owned().into()
    }

    /// Of a job: where it is wrong, and how.
    pub(super) fn errors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.errors.iter().map(|error| (&*error.pointer, &*error.detail))
    }

    /// Of a job: the pointers of required fields that are missing.
    pub(super) fn missing(&self) -> impl Iterator<Item = String> {
        self.errors.iter().filter_map(|error| Some(step(&error.pointer, error.missing?)))
    }

    /// Of a job: where it is wrong, and how, without what is only missing.
    pub(super) fn mistakes(&self) -> impl Iterator<Item = (&str, &str, Option<Excess>)> {
        let present = self.errors.iter().filter(|error| error.missing.is_none());
        present.map(|error| (&*error.pointer, &*error.detail, error.excess))
    }

    /// The HTTP status.
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
        // For whoever makes a page of it.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<LedgerError> for Problem {
    fn from(fault: LedgerError) -> Self {
        let status = match &fault {
            LedgerError::NoCampaign(_) => StatusCode::NOT_FOUND,
            LedgerError::OtherContent(_)
            | LedgerError::NotARehearsal(_)
            | LedgerError::InStore { .. }
            | LedgerError::InFleet(_)
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
            tracing::error!("a request can't be answered: {fault}");
        }
        Self::new(status, fault.to_string())
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
            Refusal::Audience(fault) if fault.is_outside_failure() => Self::away(fault.to_string()),
            Refusal::Audience(fault) => vec![JobProblem::new(fault.pointer(), fault.to_string())].into(),
        }
    }
}

impl From<DispatchError> for Problem {
    fn from(fault: DispatchError) -> Self {
        match fault {
            DispatchError::Ledger(fault) => fault.into(),
            DispatchError::Audience(fault) => Refusal::Audience(fault).into(),
            DispatchError::Queue(_) | DispatchError::Job(..) | DispatchError::Task(_) => {
                tracing::error!("a request can't be answered: {fault}");
                Self::away(fault.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_words_and_a_program_gets_the_pointer_too() {
        let problem: Problem =
            vec![JobProblem::new("/limits/messages", "a limit of 0 can never be met")].into();
        assert_eq!(problem.plain(), "limits messages: a limit of 0 can never be met");
        assert_eq!(problem.detail, "limits messages: a limit of 0 can never be met (/limits/messages)");
        assert_eq!(problem.errors().next(), Some(("/limits/messages", "a limit of 0 can never be met")));
    }
}
