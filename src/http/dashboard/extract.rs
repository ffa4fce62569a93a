//! Extractors of the pages. Text from a form is only trimmed: the code that uses a field validates it.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use url::form_urlencoded;

use super::super::problem::Problem;
use super::render::Viewer;

impl<S: Send + Sync> FromRequestParts<S> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// The fields of a submitted form, in their order. A name may occur more than once.
pub(super) struct Fields(pub(super) Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = axum::body::Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| Problem::new(error.status(), error.body_text()))?;
        let pairs = form_urlencoded::parse(&bytes);
        // Browsers submit line breaks as CR LF; a message has LF.
        Ok(Self(pairs.map(|(name, value)| (name.into_owned(), value.replace("\r\n", "\n"))).collect()))
    }
}

impl Fields {
    /// Returns a field's trimmed value; empty if the field is missing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// Returns all trimmed values of a field.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// Returns a number, typed with or without separators, e.g. `18,412`.
    pub(super) fn number(&self, name: &str) -> Result<u64, Problem> {
        let digits: String =
            self.get(name).chars().filter(|c| !matches!(c, ',' | ' ' | '.' | '\u{a0}')).collect();
        digits.parse().map_err(|_| {
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the number is missing: type the number shown above",
            )
        })
    }
}
