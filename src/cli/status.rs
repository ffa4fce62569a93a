//! `flowcast status`: one campaign in full, once or until it ends.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;

use super::text::{duration, summary};
use super::{Failure, Outcome, clear, line, open, print};
use crate::campaign::{thousands, visible};
use crate::config::Config;
use crate::ledger::{Access, Campaign, Ledger, LedgerError};
use crate::ledger::{doubts, listing};
use crate::views::status::{Status as StatusView, eta};

/// How many of the last acts of people are shown.
const SHOWN: usize = 20;
/// How often a watched campaign is shown.
const LOOK: Duration = Duration::from_secs(1);

/// How long a watched campaign is waited for that is not there yet.
const APPEARS: Duration = Duration::from_secs(10);

/// Show a campaign in full.
#[derive(Args)]
pub(super) struct Status {
    /// The campaign's id
    id: String,
    /// Show it again each second until it ends
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    store: open::Store,
}

pub(super) async fn main(status: Status, config: &Config, json: bool) -> Outcome {
    let opened = status.store.open(config, Access::Read).await?;
    let shown = show(&status, &opened, json).await;
    match shown {
        Err(Failure::NotFound(why)) => Err(Failure::NotFound(match refusal(config, &status.id).await {
            Some(error) => format!("{why}; a job of that id was refused: {error} (flowcast dead list)"),
            None => why,
        })),
        shown => shown,
    }
}

/// Why a job of an id was refused, where one lies among the dead ones.
async fn refusal(config: &Config, id: &str) -> Option<String> {
    config.amqp.as_ref()?;
    let broker = open::broker(config, false).await.ok()?;
    let (buried, _) = broker.buried(super::dead::LISTED).await.ok()?;
    broker.close().await;
    let refused = buried.iter().rev().find(|job| super::dead::id(job).as_deref() == Some(id))?;
    Some(refused.error.lines().next().unwrap_or_default().to_owned())
}

/// Finds the campaign; one that is watched may be a moment away, because a worker is just taking its job.
async fn first(status: &Status, ledger: &impl Ledger) -> Result<Campaign, Failure> {
    let start = Instant::now();
    loop {
        match open::campaign(ledger, &status.id).await {
            Err(Failure::NotFound(_)) if status.watch && start.elapsed() < APPEARS => {
                tokio::time::sleep(LOOK / 4).await;
            }
            found => return found,
        }
    }
}

async fn show(status: &Status, ledger: &impl Ledger, json: bool) -> Outcome {
    let mut campaign = first(status, ledger).await?;
    print(&text(&campaign, json)?)?;
    if !json {
        print(&history(ledger, &campaign).await?)?;
    }
    while status.watch && !campaign.state.is_over() {
        tokio::time::sleep(LOOK).await;
        let gone = || Failure::from(LedgerError::NoCampaign(campaign.id.clone()));
        let now = listing::look_at(ledger, &campaign.id).await?.ok_or_else(gone)?;
        // A terminal shows the newest in the place of the one before; a file gets what is new.
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

/// What waits for an answer, and what people did.
async fn history(ledger: &impl Ledger, campaign: &Campaign) -> Result<String, Failure> {
    let mut text = String::new();
    if campaign.counts.in_doubt > 0
        && let Some(since) = doubts::oldest(ledger, &campaign.id).await?
    {
        let age = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
        text += &format!(
            "\n  {} in doubt await a callback, the oldest for {} (since {since:.0});\n  without one: flowcast resolve {} --resend or --abandon, with --older-than 2h only those\n",
            thousands(campaign.counts.in_doubt),
            duration(age),
            campaign.id,
        );
    }
    let acts = ledger.acts(Some(&campaign.id), None, SHOWN).await?.acts;
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
