//! `flowcast recover`: shows which writes the ledger lost, and marks messages that may have been sent in that time as in
//! doubt.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Failure, Outcome, open, operator, print, write_line};
use crate::campaign::{CampaignState, Job, counted, time::rfc3339};
use crate::config::Config;
use crate::dispatch::{Recovered, may_have_been_sent, recover_campaign, recover_restored};
use crate::ledger::{Access, Campaign, Ledger, LostWrites, listing};

/// Mark messages as in doubt after the ledger lost recent writes.
#[derive(Args)]
pub(super) struct Recover {
    /// Campaign id [default with --restored: all campaigns]
    #[arg(required_unless_present = "restored")]
    id: Option<String>,
    #[command(flatten)]
    store: open::StoreArgs,
    /// Show the lost writes and what would be marked, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// The ledger is a restored backup, so every pending message may have been sent
    #[arg(long)]
    restored: bool,
}

pub(super) async fn main(command: Recover, config: &Config, as_json: bool) -> Outcome {
    let ledger = command.store.open(config, Access::Change).await?;
    match &command.id {
        Some(id) => recover_in(&command, id, config, as_json, &ledger).await,
        None => recover_all(&command, as_json, &ledger).await,
    }
}

/// Recovers all campaigns of a ledger that was restored from a backup.
async fn recover_all(command: &Recover, as_json: bool, ledger: &impl Ledger) -> Outcome {
    let mut all = Vec::new();
    for campaign in listing::all(ledger).await? {
        let id = campaign.id.clone();
        if command.dry_run {
            if may_have_been_sent(&campaign) {
                let messages = campaign.counts.open();
                if !as_json {
                    print(&format!("campaign {id}: {} may have been sent\n", unsent(&campaign)))?;
                }
                all.push(json!({ "id": id, "state": campaign.state, "messages": messages }));
            }
            continue;
        }
        if let Some(done) = recover_restored(ledger, &id, &operator()).await? {
            if !as_json {
                print(&format!("campaign {id}: {}, {}\n", done.state, marked(&campaign, &done)))?;
            }
            all.push(json!({ "id": id, "state": done.state, "messages": done.messages }));
        }
    }
    if as_json {
        let key = if command.dry_run { "would_recover" } else { "recovered" };
        print(&format!("{}\n", json!({ key: all })))?;
    } else if all.is_empty() {
        print("no campaign in this ledger has messages left to send, apart from rehearsals\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn recover_in(
    command: &Recover,
    id: &str,
    config: &Config,
    as_json: bool,
    ledger: &impl Ledger,
) -> Outcome {
    let campaign = open::campaign(ledger, id).await?;
    let id = &campaign.id;
    let gap = ledger.gap(id).await?;
    if gap.is_none() && !command.restored {
        if as_json {
            print(&format!("{}\n", json!({ "id": id, "gap": null })))?;
        } else {
            print(&format!("campaign {id}: no lost writes are known\n"))?;
            write_line("if the ledger was restored from a backup, add --restored");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if campaign.state == CampaignState::Cancelled {
        let text = format!("campaign {id} is cancelled: none of its messages will be sent");
        return Err(Failure::Usage(text));
    }
    if command.restored && campaign.rehearsal {
        let text = format!("campaign {id} is a rehearsal: none of its messages was really sent");
        return Err(Failure::Usage(text));
    }
    if let Some(gap) = &gap
        && !as_json
    {
        print(&describe(id.as_str(), gap))?;
    }
    let done = if command.dry_run {
        None
    } else if command.restored {
        recover_restored(ledger, id, &operator()).await?
    } else {
        let stored = ledger.job(id).await?;
        let job = Job::read(stored.job.as_bytes()).ok();
        let rate = open::max_rate(config, &campaign.account, job.as_ref());
        let known = gap.as_ref().filter(|gap| !gap.emptied);
        Some(recover_campaign(ledger, id, known, rate, &operator()).await?)
    };
    if as_json {
        print(&format!("{}\n", as_document(id.as_str(), gap.as_ref(), done.as_ref())))?;
    } else {
        print_done(command, &campaign, done.as_ref())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the lost writes and what was recovered, as JSON.
fn as_document(id: &str, gap: Option<&LostWrites>, done: Option<&Recovered>) -> Value {
    let time = |at: Option<Timestamp>| at.map(rfc3339);
    let gap = gap.map(|gap| {
        let silent: Vec<_> = gap
            .silent
            .iter()
            .map(|(worker, at)| json!({ "worker": worker.to_string(), "last_heard_at": rfc3339(*at) }))
            .collect();
        json!({ "from": time(gap.from), "to": time(gap.to), "silent": silent })
    });
    let done = done.map(|done| json!({ "state": done.state, "messages": done.messages }));
    json!({ "id": id, "gap": gap, "recovered": done })
}

/// Prints what was recovered, or with `--dry-run` what would be.
fn print_done(command: &Recover, campaign: &Campaign, done: Option<&Recovered>) -> Result<(), Failure> {
    let id = &campaign.id;
    match done {
        None if !command.dry_run => {
            print(&format!("campaign {id}: no messages left to send\n"))?;
        }
        None => {
            if command.restored && !may_have_been_sent(campaign) {
                return print(&format!("campaign {id}: no messages left to send\n")).map(drop);
            }
            print(&format!("{} may have been sent\n", unsent(campaign)))?;
            write_line(&format!(
                "to mark them as in doubt and continue with the rest: flowcast recover {id}{}{}",
                if command.restored { " --restored" } else { "" },
                command.store.flag()
            ));
        }
        Some(done) => {
            print(&format!("campaign {id}: {}, {}\n", done.state, marked(campaign, done)))?;
            if !campaign.planned {
                write_line(&if done.below == u32::MAX {
                    "messages of rows that are not planned yet will be in doubt once they are planned"
                        .to_owned()
                } else {
                    format!("messages of batches below {} will be in doubt once they are planned", done.below)
                });
            }
            write_line(&format!(
                "delivery reports settle messages in doubt; to resend or abandon the others: flowcast resolve {id}{}",
                command.store.flag()
            ));
        }
    }
    Ok(())
}

/// Describes the messages that are in doubt now.
fn marked(campaign: &Campaign, done: &Recovered) -> String {
    match done.messages {
        0 if campaign.planned => "no message had to be marked as in doubt".into(),
        count => format!("{} in doubt because they may have been sent", counted(count, "message")),
    }
}

/// Describes the messages that have no outcome yet.
fn unsent(campaign: &Campaign) -> String {
    let planned = counted(campaign.counts.open(), "pending message");
    if campaign.planned { planned } else { format!("{planned} and the rows that are not planned yet") }
}

/// Describes the lost writes.
fn describe(id: &str, gap: &LostWrites) -> String {
    let time = |at: Option<Timestamp>| at.map_or_else(|| "an unknown time".into(), |at| format!("{at:.0}"));
    let mut text = format!(
        "campaign {id}: the ledger may have lost the writes between {} and {}\n",
        time(gap.from),
        time(gap.to)
    );
    for (worker, at) in &gap.silent {
        text +=
            &format!("  worker {worker} has not reported what it sent; its last heartbeat was at {at:.0}\n");
    }
    text
}
