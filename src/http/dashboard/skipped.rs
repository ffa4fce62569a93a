//! Skipped rows, as the pages show them: the reason, its meaning, and the first rows.

use minijinja::{Value, context};
use serde::{Deserialize, Serialize};

use super::captions;
use crate::campaign::SkipReason;
use crate::campaign::text::titled;
use crate::views::check::RowProblem;

/// Maximum number of rows that a reason shows.
const ROWS_SHOWN: usize = 10;
/// Maximum length of a shown value, in characters.
const VALUE_CHARS: usize = 40;

/// A skipped row of an audience.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SkippedExample {
    /// Row number, from 1, without the header.
    row: u64,
    /// Code of the reason.
    reason: String,
    /// What is wrong: the value of the phone column, or a sentence.
    what: String,
}

impl From<&RowProblem> for SkippedExample {
    fn from(problem: &RowProblem) -> Self {
        let what = match problem.reason {
            SkipReason::InvalidNumber | SkipReason::Duplicate | SkipReason::Suppressed => &problem.recipient,
            _ => &problem.detail,
        };
        let what = captions::without_markup(what).chars().take(VALUE_CHARS).collect();
        Self { row: problem.row, reason: problem.reason.to_string(), what }
    }
}

/// Returns the rows that are skipped for a reason, for a template.
///
/// Rows are numbered as in a spreadsheet program, where the header is row 1.
pub(super) fn skipped_rows(reason: &str, count: u64, examples: &[SkippedExample]) -> Value {
    let known: Option<SkipReason> = reason.parse().ok();
    let rows = examples.iter().filter(|row| row.reason == reason).take(ROWS_SHOWN);
    let rows = rows.map(|row| context! { number => row.row + 1, what => row.what.clone() });
    let title = match known {
        Some(SkipReason::Suppressed) => "Opted out".into(),
        Some(known) => titled(known.as_str()),
        None => reason.to_owned(),
    };
    context! { title, count, meaning => known.map(meaning), rows => rows.collect::<Vec<_>>() }
}

/// Returns what a reason means to the person who made the audience.
fn meaning(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::InvalidNumber => "not a valid phone number",
        SkipReason::Duplicate => "duplicate of an earlier row",
        SkipReason::Suppressed => "the person asked not to be messaged",
        SkipReason::MissingVariable => "a value that the message needs is empty",
        SkipReason::InvalidContent => "with this row's values the message would be too long or not valid",
        SkipReason::Expired => "the campaign ended before it was sent",
        SkipReason::Cancelled => "the campaign was cancelled before it was sent",
    }
}
