//! Shows the progress of a campaign: a live bar on a terminal, otherwise a line every ten seconds. It reads the ledger;
//! the engine does not know it.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::{text::duration, write_line};
use crate::campaign::{CampaignId, thousands, visible};
use crate::ledger::{Campaign, Ledger};
use crate::views::status::eta;

/// Interval between updates of the bar.
const DRAW: Duration = Duration::from_millis(200);
/// Interval between lines without a terminal.
const LINE: Duration = Duration::from_secs(10);

/// Shows a campaign's progress until `done` is cancelled.
pub(super) async fn show(ledger: &impl Ledger, id: &CampaignId, done: &CancellationToken) {
    let on_terminal = std::io::stderr().is_terminal();
    let bar = if on_terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
        bar.set_style(style);
    }
    let mut ticks = tokio::time::interval(if on_terminal { DRAW } else { LINE });
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is immediate, when there is no progress yet.
    ticks.tick().await;
    loop {
        tokio::select! {
            () = done.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let Ok(Some(campaign)) = ledger.campaign(id).await else { continue };
        let counts = &campaign.counts;
        let line = line(&campaign);
        bar.set_length(campaign.rows.max(counts.total));
        bar.set_position(counts.total - counts.open());
        bar.set_message(line.clone());
        if !on_terminal {
            write_line(&line);
        }
    }
    bar.finish_and_clear();
}

fn line(campaign: &Campaign) -> String {
    let counts = &campaign.counts;
    let mut line = format!(
        "accepted {}  rejected {}  in doubt {}  {} messages/s",
        thousands(counts.accepted),
        thousands(counts.rejected),
        thousands(counts.in_doubt),
        thousands(campaign.rate.round() as u64),
    );
    if let Some(left) = eta(campaign) {
        line += &format!("  {} left", duration(left));
    }
    if let Some(reason) = &campaign.reason {
        line += &format!("  ({})", visible(&reason.to_string()));
    }
    line
}
