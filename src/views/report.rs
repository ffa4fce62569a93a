//! The report: a line for each message and each skipped row.

use std::io::{self, Write};

use super::lines::LineWriter;
use crate::campaign::{MessageState, codes, time::rfc3339, visible};
use crate::ledger::ReportLine;

/// Names of the columns.
pub const HEADER: [&str; 10] =
    ["recipient", "row", "batch", "state", "sid", "code", "detail", "attempts", "delivery", "updated_at"];

/// Writes all lines, or those in a state.
///
/// # Errors
///
/// The writer's.
pub fn write<W: Write>(
    lines: &mut LineWriter<W>,
    page: Vec<ReportLine>,
    state: Option<MessageState>,
) -> io::Result<()> {
    for line in page.into_iter().filter(|line| state.is_none_or(|state| line.state == state)) {
        let line = explained(line);
        lines.write(&line, || fields(&line))?;
    }
    Ok(())
}

/// Adds the explanation of the code to the provider's text.
pub(super) fn explained(mut line: ReportLine) -> ReportLine {
    let failed = line.state == MessageState::Rejected || line.delivery.as_deref() == Some("failed");
    let code = line.code.as_deref().filter(|_| failed);
    let known = code.and_then(|code| codes::reported(code, line.detail.as_deref().unwrap_or_default()));
    if let Some(known) = known {
        let detail = line.detail.get_or_insert_default();
        let gap = if detail.is_empty() { "" } else { " — " };
        *detail = format!("{detail}{gap}{}", known.with_text(detail));
    }
    line
}

/// Returns the fields of a line, in the order of the header.
fn fields(line: &ReportLine) -> Vec<String> {
    let text = |text: &Option<String>| visible(text.as_deref().unwrap_or_default()).into_owned();
    vec![
        visible(&line.recipient).into_owned(),
        line.row.to_string(),
        line.batch.map(|batch| batch.to_string()).unwrap_or_default(),
        line.state.to_string(),
        text(&line.sid),
        text(&line.code),
        text(&line.detail),
        line.attempts.to_string(),
        text(&line.delivery),
        line.updated_at.map(rfc3339).unwrap_or_default(),
    ]
}
