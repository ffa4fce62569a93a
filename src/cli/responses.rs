//! `flowcast responses`: the replies of recipients, with one column per form field.

use std::process::ExitCode;

use clap::Args;

use super::line_format::LineFormat;
use super::{Outcome, open};
use crate::config::Config;
use crate::ledger::response_page;
use crate::ledger::{Access, Ledger};
use crate::views::lines::Format;
use crate::views::responses;

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

pub(super) async fn main(responses: Responses, config: &Config, json: bool) -> Outcome {
    let opened = responses.store.open(config, Access::Read).await?;
    write(&responses, &opened, json).await
}

async fn write(asked: &Responses, ledger: &impl Ledger, json: bool) -> Outcome {
    let id = open::campaign(ledger, &asked.id).await?.id;
    let (mut lines, mut columns) = (asked.written.lines(json), responses::Columns::default());
    if asked.written.for_output(json) == Format::Csv {
        columns = responses::columns(ledger, &id).await?;
        lines.header(responses::header(&columns))?;
    }
    let mut next = Some(0);
    while let Some(from) = next {
        let page = response_page(ledger, &id, from).await?;
        responses::write(&mut lines, &page.responses, &columns)?;
        next = page.next;
    }
    lines.end()?;
    Ok(ExitCode::SUCCESS)
}
