//! `flowcast check`: all of a job and its audience, without sending.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::callback_endpoint::CallbackEndpoint;
use super::text::duration;
use super::{Failure, Outcome, open, print, write_line};
use crate::campaign::content::preview;
use crate::campaign::{CampaignId, counted, thousands, visible};
use crate::config::Config;
use crate::dispatch::{Account, Forecast, Planner, Prepared, forecast, prepare};
use crate::ledger::SkippedRow;
use crate::provider::PROVIDERS;

/// How many skipped rows are listed; all are counted.
const LISTED: usize = 20;

/// Check a job and its audience without sending.
#[derive(Args)]
pub(super) struct Check {
    /// The job, a JSON file
    job: PathBuf,
    /// How many messages to show as a person would see them
    #[arg(long, value_name = "N", default_value_t = 3)]
    rows: usize,
}

/// What a check found.
#[derive(Default)]
struct Found {
    rows: u64,
    messages: u64,
    reasons: BTreeMap<&'static str, u64>,
    skipped: Vec<SkippedRow>,
    shown: Vec<(u64, String, Value)>,
}

pub(super) fn main(check: &Check, config: &Config, json: bool) -> Outcome {
    let job = open::job(&check.job)?;
    // With no account at all there is nothing to hold the job's account against.
    if config.accounts.is_empty() {
        write_line(&format!(
            "the account {:?} is not configured, nor is any other: checked as one at {} without limits",
            job.account, PROVIDERS[0].name
        ));
    }
    let account = if config.accounts.is_empty() {
        let nowhere = "http://127.0.0.1:9".parse();
        let nowhere = nowhere.map_err(|fault| Failure::Outside(format!("{fault}")))?;
        open::sandbox_account(config, &job.account, &nowhere)?
    } else {
        open::account(config, &job.account, None, CallbackEndpoint::in_shape(config)?.as_ref())?
    };
    let prepared = prepare(job, Some(&open::audience_root(config, &check.job)), &account)?;
    let found = walk(&prepared, check.rows)?;
    let job = &prepared.job;
    let forecast = forecast(found.messages, prepared.batch_size, job.limits.messages, &account);
    print(&if json {
        as_json(&prepared, &found, forecast)
    } else {
        as_text(&prepared, &account, &found, forecast)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Plans the whole campaign and keeps the first of everything.
fn walk(prepared: &Prepared, shown: usize) -> Result<Found, Failure> {
    let id: Result<CampaignId, _> = prepared.job.id.clone().map_or_else(|| "check".parse(), Ok);
    let id = id.map_err(|fault| Failure::Usage(fault.to_string()))?;
    let mut planner = Planner::new(prepared, id, prepared.batch_size)?;
    let mut found = Found::default();
    while let Some(step) = planner.next_batch()? {
        found.rows = step.checkpoint.rows;
        for line in step.skipped {
            *found.reasons.entry(line.reason.as_str()).or_default() += 1;
            if found.skipped.len() < LISTED {
                found.skipped.push(line);
            }
        }
        let Some(batch) = step.batch else { continue };
        found.messages += batch.len() as u64;
        for recipient in batch.recipients().take(shown - found.shown.len()) {
            let mut bytes = Vec::new();
            let rendered = prepared.template.render(&recipient, &mut bytes);
            let message = rendered.ok().and_then(|()| serde_json::from_slice::<Value>(&bytes).ok());
            if let Some(message) = message {
                found.shown.push((recipient.row, recipient.phone.to_string(), message["content"].clone()));
            }
        }
    }
    Ok(found)
}

fn as_json(prepared: &Prepared, found: &Found, forecast: Forecast) -> String {
    let problem =
        |line: &SkippedRow| json!({ "row": line.row, "reason": line.reason, "detail": line.detail });
    let shown = |(row, recipient, content): &(u64, String, Value)| json!({ "row": row, "recipient": recipient, "content": content });
    let value = json!({
        "id": prepared.job.id,
        "rows": found.rows,
        "recipients": found.messages,
        "skipped": found.reasons,
        "problems": found.skipped.iter().map(problem).collect::<Vec<_>>(),
        "messages": found.shown.iter().map(shown).collect::<Vec<_>>(),
        "forecast": { "requests": forecast.requests, "duration_s": forecast.duration.as_secs_f64().ceil() },
    });
    format!("{value}\n")
}

fn as_text(prepared: &Prepared, account: &Account, found: &Found, forecast: Forecast) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    for (row, recipient, content) in &found.shown {
        line(format!("row {row}, to {recipient}"));
        for part in preview(content) {
            line(format!("  | {}", visible(&part)));
        }
        line(String::new());
    }
    line(format!("rows        {:>12}", thousands(found.rows)));
    line(format!("recipients  {:>12}", thousands(found.messages)));
    line(format!("skipped     {:>12}", thousands(found.reasons.values().sum())));
    for (reason, count) in &found.reasons {
        line(format!("  {reason:<18}{:>4}", thousands(*count)));
    }
    for skipped in &found.skipped {
        line(format!("  row {}: {}: {}", skipped.row, skipped.reason, visible(&skipped.detail)));
    }
    let listed = found.skipped.len() as u64;
    let more = found.reasons.values().sum::<u64>() - listed;
    if more > 0 {
        line(format!("  and {} more", thousands(more)));
    }
    line(String::new());
    let job = &prepared.job;
    let limits: Vec<String> = [
        ("the job's messages", job.limits.messages),
        ("the account's messages", account.limits.rates().messages),
        ("the account's requests", account.limits.rates().requests),
    ]
    .into_iter()
    .filter_map(|(what, rate)| Some(format!("{what} {}", rate?)))
    .collect();
    let by = if limits.is_empty() { "no limits are set".into() } else { format!("by {}", limits.join(", ")) };
    line(format!(
        "forecast: {} of up to {}, {} ({by})",
        counted(forecast.requests, "request"),
        counted(prepared.batch_size as u64, "message"),
        duration(forecast.duration),
    ));
    text
}
