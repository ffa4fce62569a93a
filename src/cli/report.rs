//! `flowcast report`: a line for every message and every skipped row, in the order of the audience.

use std::process::ExitCode;

use clap::Args;

use super::lines::LineFormat;
use super::open::on_ledger;
use super::{Outcome, open};
use crate::campaign::{MessageState, codes, visible};
use crate::config::Config;
use crate::ledger::{Access, Cursor, Ledger, ReportLine};

/// Write a line for every message.
#[derive(Args)]
pub(super) struct Report {
    /// The campaign's id
    id: String,
    #[command(flatten)]
    written: LineFormat,
    /// Only messages in this state
    #[arg(long, value_name = "S")]
    state: Option<MessageState>,
    #[command(flatten)]
    store: open::Store,
}

const HEADER: [&str; 10] =
    ["recipient", "row", "batch", "state", "sid", "code", "detail", "attempts", "delivery", "updated_at"];

pub(super) async fn main(report: Report, config: &Config, json: bool) -> Outcome {
    let opened = report.store.open(config, Access::Read).await?;
    on_ledger!(opened, ledger => write(&report, &ledger, json).await)
}

async fn write(report: &Report, ledger: &impl Ledger, json: bool) -> Outcome {
    let id = open::campaign(ledger, &report.id).await?.id;
    let mut lines = report.written.begin(json, HEADER)?;
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let page = ledger.report(&id, from).await?;
        for line in page.lines {
            if report.state.is_none_or(|state| line.state == state) {
                let line = explained(line);
                lines.write(&line, || fields(&line))?;
            }
        }
        cursor = page.next;
    }
    lines.end()?;
    Ok(ExitCode::SUCCESS)
}

/// The provider's text, and what is known of its code.
fn explained(mut line: ReportLine) -> ReportLine {
    let failed = line.state == MessageState::Rejected || line.delivery.as_deref() == Some("failed");
    let code = line.code.as_deref().filter(|_| failed);
    let known = code.and_then(|code| codes::reported(code, line.detail.as_deref().unwrap_or_default()));
    if let Some(known) = known {
        let detail = line.detail.get_or_insert_default();
        let gap = if detail.is_empty() { "" } else { " — " };
        *detail = format!("{detail}{gap}{}", known.beside(detail));
    }
    line
}

/// The fields of a line, in the order of the header.
fn fields(line: &ReportLine) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    vec![
        visible(&line.recipient).into_owned(),
        line.row.to_string(),
        line.batch.map(|batch| batch.to_string()).unwrap_or_default(),
        line.state.to_string(),
        visible(&text(&line.sid)).into_owned(),
        visible(&text(&line.code)).into_owned(),
        visible(&text(&line.detail)).into_owned(),
        line.attempts.to_string(),
        text(&line.delivery),
        line.updated_at.map(|at| at.to_string()).unwrap_or_default(),
    ]
}
