//! The page of failure codes: meaning and remedy of each. It is a view of the table in `campaign::codes`.

use axum::response::Html;
use minijinja::context;
use serde::Deserialize;

use super::super::access::Caller;
use super::super::api::extract::Params;
use super::super::problem::Problem;
use super::render::{Viewer, page_of, serialized};
use crate::campaign::codes::CODES;
use crate::views::codes::CodeView;

#[derive(Default, Deserialize)]
pub(super) struct ListParams {
    q: Option<String>,
}

pub(super) async fn list(
    who: Caller,
    look: Viewer,
    Params(asked): Params<ListParams>,
) -> Result<Html<String>, Problem> {
    let wanted = asked.q.as_deref().unwrap_or_default().trim().to_lowercase();
    let has = |code: &CodeView| {
        [code.code, code.also, code.meaning, code.remedy]
            .iter()
            .any(|text| text.to_lowercase().contains(&wanted))
    };
    let found: Vec<CodeView> = CODES.iter().map(CodeView::from).filter(has).collect();
    let own = context! { q => asked.q, all => CODES.len(), codes => serialized(found) };
    Ok(page_of(&look, Some(&who), "codes.html", "Codes", own))
}
