//! `flowcast status`: shows one campaign in full, once or until it ends.

use std::time::{Duration, Instant};
use std::{io::IsTerminal, process::ExitCode};

use clap::Args;
use jiff::Timestamp;

use super::text::{duration, summary};
use super::{Failure, Outcome, clear, line, open, print};
use crate::campaign::{thousands, visible};
use crate::config::Config;
use crate::ledger::{Access, Campaign, Ledger, LedgerError, doubts, listing};
use crate::views::status::{Status as StatusView, eta};

/// Maximum number of audit entries that are shown.
const MAX_ENTRIES: usize = 20;
/// Interval between updates of a watched campaign.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Timeout for a watched campaign to appear.
const APPEARS: Duration = Duration::from_secs(10);

/// Show a campaign in full.
#[derive(Args)]
pub(super) struct Status {
    /// Campaign id
    id: String,
    /// Update every second until the campaign ends
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    store: open::StoreArgs,
}

pub(super) async fn main(status: Status, config: &Config, json: bool) -> Outcome {
    let opened = status.store.open(config, Access::Read).await?;
    let shown = show(&status, &opened, config.http.public_url.is_some(), json).await;
    match shown {
        Err(Failure::NotFound(why)) => Err(Failure::NotFound(match refusal(config, &status.id).await {
            Some(error) => format!("{why}; a job with this id was refused: {error} (flowcast dead list)"),
            None => why,
        })),
        shown => shown,
    }
}

/// Returns why a job with an id was refused, if one is in the dead-letter queue.
async fn refusal(config: &Config, id: &str) -> Option<String> {
    config.amqp.as_ref()?;
    let broker = open::broker(config, false).await.ok()?;
    let (buried, _) = broker.buried(super::dead::MAX_LISTED).await.ok()?;
    broker.close().await;
    let refused = buried.iter().rev().find(|job| super::dead::id(job).as_deref() == Some(id))?;
    Some(refused.error.lines().next().unwrap_or_default().to_owned())
}

/// Finds the campaign. A watched one may appear a moment later, because a worker is just taking its job.
async fn first(status: &Status, ledger: &impl Ledger) -> Result<Campaign, Failure> {
    let start = Instant::now();
    loop {
        match open::campaign(ledger, &status.id).await {
            Err(Failure::NotFound(_)) if status.watch && start.elapsed() < APPEARS => {
                tokio::time::sleep(POLL_INTERVAL / 4).await;
            }
            found => return found,
        }
    }
}

async fn show(status: &Status, ledger: &impl Ledger, gets_reports: bool, json: bool) -> Outcome {
    let mut campaign = first(status, ledger).await?;
    print(&text(&campaign, json)?)?;
    if !json {
        print(&audit_lines(ledger, &campaign, gets_reports).await?)?;
    }
    while status.watch && !campaign.state.is_over() {
        tokio::time::sleep(POLL_INTERVAL).await;
        let gone = || Failure::from(LedgerError::NoCampaign(campaign.id.clone()));
        let now = listing::look_at(ledger, &campaign.id).await?.ok_or_else(gone)?;
        // A terminal shows the new state in place of the old; a file gets each change.
        if std::io::stdout().is_terminal() && !json {
            clear()?;
        } else if now == campaign {
            continue;
        }
        campaign = now;
        print(&text(&campaign, json)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the messages in doubt and the audit entries.
async fn audit_lines(
    ledger: &impl Ledger,
    campaign: &Campaign,
    gets_reports: bool,
) -> Result<String, Failure> {
    let mut text = String::new();
    if campaign.counts.in_doubt > 0
        && let Some(since) = doubts::oldest(ledger, &campaign.id).await?
    {
        let age = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
        let (waiting, then) = if gets_reports {
            (", waiting for delivery reports", "if no report arrives")
        } else {
            ("", "without http.public_url no delivery report arrives")
        };
        text += &format!(
            "\n  {} in doubt{waiting}, the oldest for {} (since {since:.0})\n  \
             {then}: flowcast resolve {} --resend (or --abandon), e.g. with --older-than 2h\n",
            thousands(campaign.counts.in_doubt),
            duration(age),
            campaign.id,
        );
    }
    let acts = ledger.acts(Some(&campaign.id), None, MAX_ENTRIES).await?.acts;
    if !acts.is_empty() {
        let lines: Vec<_> = acts.iter().rev().map(|act| visible(&act.to_string()).into_owned()).collect();
        text += &format!("\n  {}\n", lines.join("\n  "));
    }
    Ok(text)
}

fn text(campaign: &Campaign, json: bool) -> Result<String, Failure> {
    if json {
        return line(&StatusView::from(campaign));
    }
    let mut text = summary(campaign);
    if let Some(left) = eta(campaign) {
        text += &format!("\n  {:.0} messages/s, {} left\n", campaign.rate, duration(left));
    }
    Ok(text)
}
