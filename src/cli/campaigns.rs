//! `flowcast campaigns`: one line per campaign, newest first.

use std::fmt::Write;

use super::{Outcome, line, open, print};
use crate::campaign::thousands;
use crate::config::Config;
use crate::ledger::{Access, listing};
use crate::views::status::Status;

pub(super) async fn main(store: &open::StoreArgs, config: &Config, json: bool) -> Outcome {
    let opened = store.open(config, Access::Read).await?;
    let campaigns = listing::all(&opened).await?;
    if json {
        let list: Vec<Status> = campaigns.iter().map(Status::from).collect();
        return print(&line(&list)?);
    }
    let width = campaigns.iter().map(|campaign| campaign.id.as_str().len()).max().unwrap_or(0).max(8);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:width$}  {:10}{:>12}{:>12}{:>10}{:>10}{:>10}{:>10}  SUBMITTED",
        "CAMPAIGN", "STATE", "ROWS", "ACCEPTED", "REJECTED", "IN DOUBT", "SKIPPED", "PENDING"
    );
    for campaign in &campaigns {
        let counts = &campaign.counts;
        let _ = writeln!(
            text,
            "{:width$}  {:10}{:>12}{:>12}{:>10}{:>10}{:>10}{:>10}  {:.0}",
            campaign.id.as_str(),
            campaign.state,
            thousands(counts.total),
            thousands(counts.accepted),
            thousands(counts.rejected),
            thousands(counts.in_doubt),
            thousands(counts.skipped),
            thousands(counts.open()),
            campaign.submitted_at,
        );
    }
    print(&text)
}
