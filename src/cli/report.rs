//! `flowcast report`: a line for every message and every skipped row, in the order of the audience.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::open::on_ledger;
use super::{Failure, Outcome, open};
use crate::campaign::{MessageState, codes};
use crate::config::Config;
use crate::ledger::{Access, Cursor, Ledger, ReportLine};

/// Write a line for every message.
#[derive(Args)]
pub(super) struct Report {
    /// The campaign's id
    id: String,
    /// How the lines are written; CSV, or with --json JSON lines
    #[arg(long)]
    format: Option<Format>,
    /// Only messages in this state
    #[arg(long, value_name = "S")]
    state: Option<MessageState>,
    #[command(flatten)]
    store: open::Store,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

pub(super) async fn main(report: Report, config: &Config, json: bool) -> Outcome {
    let opened = report.store.open(config, Access::Read).await?;
    on_ledger!(opened, ledger => write(&report, &ledger, json).await)
}

async fn write(report: &Report, ledger: &impl Ledger, json: bool) -> Outcome {
    let id = open::campaign(ledger, &report.id).await?.id;
    let format = report.format.unwrap_or(if json { Format::Jsonl } else { Format::Csv });
    let mut lines = match format {
        Format::Csv => Lines::Csv(Box::new(csv::Writer::from_writer(io::stdout()))),
        Format::Jsonl => Lines::Json(BufWriter::new(io::stdout())),
    };
    lines.begin()?;
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let page = ledger.report(&id, from).await?;
        for line in page.lines {
            if report.state.is_none_or(|state| line.state == state) {
                lines.write(&explained(line))?;
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
        *detail = format!("{detail}{gap}{}", known.summary());
    }
    line
}

enum Lines {
    Csv(Box<csv::Writer<io::Stdout>>),
    Json(BufWriter<io::Stdout>),
}

impl Lines {
    /// The header stands there also when no line follows.
    fn begin(&mut self) -> Result<(), Failure> {
        const HEADER: [&str; 10] = [
            "recipient",
            "row",
            "batch",
            "state",
            "sid",
            "code",
            "detail",
            "attempts",
            "delivery",
            "updated_at",
        ];
        if let Self::Csv(writer) = self {
            writer.write_record(HEADER).map_err(cause)?;
        }
        Ok(())
    }

    fn write(&mut self, line: &ReportLine) -> Result<(), Failure> {
        match self {
            Self::Csv(writer) => {
                let number =
                    |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                let record = [
                    line.recipient.clone(),
                    line.row.to_string(),
                    number(line.batch),
                    line.state.to_string(),
                    text(&line.sid),
                    text(&line.code),
                    text(&line.detail),
                    line.attempts.to_string(),
                    text(&line.delivery),
                    line.updated_at.map(|at| at.to_string()).unwrap_or_default(),
                ];
                writer.write_record(record).map_err(cause)?;
            }
            Self::Json(writer) => {
                serde_json::to_writer(&mut *writer, line).map_err(io::Error::from)?;
                writer.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        match self {
            Self::Csv(writer) => writer.flush()?,
            Self::Json(writer) => writer.flush()?,
        }
        Ok(())
    }
}

/// The writer's own error out of the CSV library's, so that a reader who has gone is known as one.
pub(super) fn cause(fault: csv::Error) -> io::Error {
    match fault.into_kind() {
        csv::ErrorKind::Io(fault) => fault,
        other => io::Error::other(format!("{other:?}")),
    }
}
