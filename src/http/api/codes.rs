//! The codes of reports: what they mean, and what to do.

use axum::{Json, extract::Path};

use super::super::problem::Problem;
use super::refusals::{OnList, OnOne};
use crate::campaign::codes::{self, CODES};
use crate::campaign::visible;
use crate::views::codes::{CodeView, near};

/// Lists all codes.
///
/// The codes of Meta, the providers and flowcast.
#[utoipa::path(get, path = "/codes", tag = "codes", operation_id = "listCodes", responses((status = 200, description = "All codes", body = Vec<CodeView>), OnList))]
pub(super) async fn list() -> Json<Vec<CodeView>> {
    Json(CODES.iter().map(CodeView::from).collect())
}

/// Explains a code; several sources may use the same one.
///
/// What the code means, what flowcast does, and what a person can do.
#[utoipa::path(
    get, path = "/codes/{code}", tag = "codes", operation_id = "explainCode", params(("code" = String, Path, description = "The code, as in a report")),
    responses((status = 200, description = "The meanings of the code", body = Vec<CodeView>), OnOne)
)]
pub(super) async fn show(Path(code): Path<String>) -> Result<Json<Vec<CodeView>>, Problem> {
    let found: Vec<CodeView> = codes::explain(&code).into_iter().map(CodeView::from).collect();
    if found.is_empty() {
        let near = near(&code);
        return Err(Problem::not_found(format!("unknown code {:?}{near}", visible(&code))));
    }
    Ok(Json(found))
}
