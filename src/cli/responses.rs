//! `flowcast responses`: the replies of recipients, with one column per form field.

use std::process::ExitCode;

use clap::Args;

use super::{Outcome, line_format::LineFormat, open};
use crate::config::Config;
use crate::ledger::{Access, response_page};
use crate::views::{lines::Format, replies};

/// Export the replies of recipients, one line each.
#[derive(Args)]
pub(super) struct Responses {
    /// Campaign id
    id: String,
    #[command(flatten)]
    written: LineFormat,
    #[command(flatten)]
    store: open::StoreArgs,
}

pub(super) async fn main(asked: Responses, config: &Config, json: bool) -> Outcome {
    let ledger = asked.store.open(config, Access::Read).await?;
    let id = open::campaign(&ledger, &asked.id).await?.id;
    let (mut lines, mut columns) = (asked.written.lines(json), replies::Columns::default());
    if asked.written.for_output(json) == Format::Csv {
        columns = replies::columns(&ledger, &id).await?;
        lines.header(replies::header(&columns))?;
    }
    let mut next = Some(0);
    while let Some(from) = next {
        let page = response_page(&ledger, &id, from).await?;
        replies::write(&mut lines, &page.responses, &columns)?;
        next = page.next;
    }
    lines.end()?;
    Ok(ExitCode::SUCCESS)
}
