//! What codes mean, and what to do.

use axum::Json;
use axum::extract::Path;

use super::super::problem::Problem;
use super::refusals::{OnList, OnOne};
use crate::campaign::codes::{self, CODES};
use crate::campaign::visible;
use crate::views::codes::{CodeView, near};

/// All codes.
///
/// Those of Meta, of the providers, and flowcast's own.
#[utoipa::path(get, path = "/codes", tag = "codes", operation_id = "listCodes", responses((status = 200, description = "All codes", body = Vec<CodeView>), OnList))]
pub(super) async fn list() -> Json<Vec<CodeView>> {
    Json(CODES.iter().map(CodeView::from).collect())
}

/// What is known of a code; it may be one of several sources.
///
/// What it means, what flowcast does about it, and what a person can do.
#[utoipa::path(
    get, path = "/codes/{code}", tag = "codes", operation_id = "explainCode", params(("code" = String, Path, description = "As a report has it")),
    responses((status = 200, description = "What is known of it", body = Vec<CodeView>), OnOne)
)]
pub(super) async fn show(Path(code): Path<String>) -> Result<Json<Vec<CodeView>>, Problem> {
    let found: Vec<CodeView> = codes::explain(&code).into_iter().map(CodeView::from).collect();
    if found.is_empty() {
        let near = near(&code);
        return Err(Problem::not_found(format!("nothing is known of the code {:?}{near}", visible(&code))));
    }
    Ok(Json(found))
}
