//! `flowcast report`: one line per message and per skipped row, in the order of the audience.

use std::process::ExitCode;

use clap::Args;

use super::{Outcome, line_format::LineFormat, open};
use crate::campaign::MessageState;
use crate::config::Config;
use crate::ledger::{Access, Cursor, report_page};
use crate::views::report;

/// Export the messages of a campaign, one line each.
#[derive(Args)]
pub(super) struct ReportArgs {
    /// Campaign id
    id: String,
    #[command(flatten)]
    written: LineFormat,
    /// Only messages in this state
    #[arg(long, value_name = "S", value_parser = states())]
    state: Option<MessageState>,
    #[command(flatten)]
    store: open::StoreArgs,
}

/// Parses a state; completions and errors list all of them.
fn states() -> impl clap::builder::TypedValueParser<Value = MessageState> {
    use clap::builder::TypedValueParser;
    let words = MessageState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>();
    clap::builder::PossibleValuesParser::new(words).try_map(|word| word.parse())
}

pub(super) async fn main(asked: ReportArgs, config: &Config, json: bool) -> Outcome {
    let ledger = asked.store.open(config, Access::Read).await?;
    let id = open::campaign(&ledger, &asked.id).await?.id;
    let mut lines = asked.written.lines(json);
    lines.header(report::HEADER)?;
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let page = report_page(&ledger, &id, from).await?;
        report::write(&mut lines, page.lines, asked.state)?;
        cursor = page.next;
    }
    lines.end()?;
    Ok(ExitCode::SUCCESS)
}
