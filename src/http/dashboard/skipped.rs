//! Skipped rows, as the pages show them: the reason, its meaning, and the first rows.

use minijinja::{Value, context};

use crate::campaign::SkipReason;
use crate::campaign::text::titled;

/// Maximum number of row numbers that a reason names.
const ROWS_NAMED: usize = 10;

/// Returns the rows that are skipped for a reason, for a template.
///
/// `rows` are their numbers, as far as they are known.
pub(super) fn skipped_rows(reason: &str, count: u64, rows: impl Iterator<Item = u64>) -> Value {
    let known: Option<SkipReason> = reason.parse().ok();
    let rows: Vec<String> = rows.take(ROWS_NAMED).map(|row| row.to_string()).collect();
    let title = known.map_or_else(|| reason.to_owned(), |reason| titled(reason.as_str()));
    context! { title, count, meaning => known.map(meaning), rows => rows.join(", ") }
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
