//! `flowcast check`: checks a job and its audience without sending.

use std::{fmt::Write, path::PathBuf};

use clap::Args;

use super::callback_endpoint::CallbackEndpoint;
use super::text::duration;
use super::{Failure, Outcome, line, look, open, print, whole_number, write_line};
use crate::campaign::{content::preview, counted, problem::listed, thousands, visible};
use crate::config::Config;
use crate::dispatch::{Account, LoadedJob, prepare};
use crate::provider::PROVIDERS;
use crate::views::check::{self as checked, Checked, Rendered};

/// Check a job and its audience without sending.
#[derive(Args)]
pub(super) struct Check {
    /// JSON file with the job; - for standard input
    job: PathBuf,
    /// Number of messages to show, as recipients would see them
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = whole_number::<usize>)]
    rows: usize,
    /// Fetch the media of these messages, and warn about files that may not be delivered
    #[arg(long)]
    look: bool,
}

pub(super) async fn main(check: &Check, config: &Config, json: bool) -> Outcome {
    let job = open::job(&check.job)?;
    // Without a configured account, the job's account cannot be compared with one.
    if config.accounts.is_empty() {
        write_line(&format!(
            "no account is configured: the job is checked as if {:?} were an account of {} without limits",
            job.account, PROVIDERS[0].name
        ));
    }
    let account = if config.accounts.is_empty() {
        let nowhere = "http://127.0.0.1:9".parse();
        let nowhere = nowhere.map_err(|error| Failure::Outside(format!("{error}")))?;
        open::Destination::Sandbox(nowhere).open(config, &job.account, None, None)?
    } else {
        open::account(config, &job.account, CallbackEndpoint::in_shape(config)?.as_ref())?
    };
    let prepared = prepare(job, &open::audiences_beside(config, &check.job)?, &account)?;
    let mut checked = checked::check(&prepared, &account, &|_| false, check.rows)?;
    if check.look {
        checked.warnings.extend(look::fetch_media(&checked.messages).await.map_err(Failure::Outside)?);
    }
    print(&if json { line(&checked)? } else { as_text(&prepared, &account, &checked) })
}

fn as_text(prepared: &LoadedJob, account: &Account, found: &Checked) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    for Rendered { row, recipient, content } in &found.messages {
        line(format!("row {row}, to {recipient}"));
        for part in preview(content) {
            line(format!("  | {}", visible(&part)));
        }
        line(String::new());
    }
    for note in &found.notes {
        line(format!("note: {}", visible(&note.to_string())));
    }
    line(format!("numbers     {}", visible(&found.phone_column)));
    let named = found.columns.iter().map(|column| format!("{{{{ {} }}}}", column.identifier));
    line(format!("columns     {}", visible(&listed(named.collect::<Vec<_>>().iter().map(String::as_str)))));
    line(format!("rows        {:>12}", thousands(found.rows)));
    line(format!("recipients  {:>12}", thousands(found.recipients)));
    line(format!("skipped     {:>12}", thousands(found.skipped.values().sum())));
    for (reason, count) in &found.skipped {
        line(format!("  {reason:<18}{:>4}", thousands(*count)));
    }
    for skipped in &found.problems {
        line(format!("  row {}: {}: {}", skipped.row, skipped.reason, visible(&skipped.detail)));
    }
    let listed = found.problems.len() as u64;
    let more = found.skipped.values().sum::<u64>() - listed;
    if more > 0 {
        line(format!("  and {} more", thousands(more)));
    }
    for warning in &found.warnings {
        line(format!("warning: {} ({})", visible(&warning.to_text()), visible(&warning.pointer)));
    }
    line(String::new());
    let job = &prepared.job;
    let limits: Vec<String> = [
        ("the job's messages", job.limits.messages),
        ("the sender number's messages", account.limits.rates().messages),
        ("the account's requests", account.limits.rates().requests),
    ]
    .into_iter()
    .filter_map(|(what, rate)| Some(format!("{what} {}", rate?)))
    .collect();
    let by = if limits.is_empty() { "no limits".into() } else { format!("limits: {}", limits.join(", ")) };
    line(format!(
        "forecast: {} of up to {} in {} ({by})",
        counted(found.forecast.requests, "request"),
        counted(prepared.batch_size as u64, "message"),
        duration(found.forecast.duration),
    ));
    if let Some(price) = &found.forecast.price {
        let without = match price.unpriced {
            0 => String::new(),
            count => format!(", and {} without a price", counted(count, "message")),
        };
        line(format!(
            "price: {} {} by the account's price list{without}",
            visible(&price.currency),
            price.amount
        ));
    }
    text
}
