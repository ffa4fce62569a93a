//! `flowcast status`: one campaign in full.

use std::process::ExitCode;

use clap::Args;

use super::text::{duration, eta, status_json, summary};
use super::{Outcome, open, print};
use crate::config::Config;

/// Show a campaign in full.
#[derive(Args)]
pub(super) struct Status {
    /// The campaign's id
    id: String,
    #[command(flatten)]
    store: open::Store,
}

pub(super) async fn main(status: Status, config: &Config, json: bool) -> Outcome {
    let ledger = status.store.read(config)?;
    let campaign = open::campaign(&ledger, &status.id).await?;
    let text = if json {
        format!("{}\n", status_json(&campaign))
    } else {
        let mut text = summary(&campaign);
        if let Some(left) = eta(&campaign) {
            text += &format!("\n  {:.0} messages/s, {} left\n", campaign.rate, duration(left));
        }
        text
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
