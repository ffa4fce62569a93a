//! `flowcast migrate`: from the store of one machine to the ledger of a fleet.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Failure, Outcome, open, print, write_line};
use crate::campaign::counted;
use crate::config::{ANSWERS_WITHIN, Config};
use crate::ledger::{Access, Redis, Sqlite, migrate};
use crate::provider::transport::REQUEST_TIMEOUT;
use crate::redis_client::RetryPolicy;

/// Move the campaigns of a store to the fleet's Redis, in the middle of a campaign too.
#[derive(Args)]
pub(super) struct Migrate {
    /// The store, else store.path of the configuration
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Leave this campaign in the store; may be given more than once
    #[arg(long, value_name = "ID")]
    except: Vec<String>,
}

pub(super) async fn main(command: &Migrate, config: &Config, as_json: bool) -> Outcome {
    let Some(redis) = &config.redis else {
        let text = "there is no fleet's ledger: set redis.url in the configuration, or FLOWCAST_REDIS__URL";
        return Err(Failure::Usage(text.into()));
    };
    let except = command.except.iter().map(|id| open::campaign_id(id)).collect::<Result<Vec<_>, _>>()?;
    let path = command.store.as_deref().unwrap_or(&config.store.path);
    let store = Sqlite::open(path, Access::Move)?;
    let fleet = Redis::on(open::redis_server(redis, RetryPolicy::Short).await?, REQUEST_TIMEOUT);
    let within = |account: &str| {
        config.accounts.get(account).map_or(ANSWERS_WITHIN, |account| account.answers_within.0)
    };
    let moved = migrate(&store, &fleet, &except, within).await?;
    // Closed, its file is whole.
    drop(store);
    let kept = put_aside(path).map_err(|error| {
        Failure::Outside(format!("all was moved, but {} can't be renamed: {error}", path.display()))
    })?;
    if as_json {
        let document = json!({
            "campaigns": moved.campaigns, "messages": moved.messages, "in_doubt": moved.in_doubt,
            "suppressed": moved.suppressed, "drafts": moved.drafts, "rehearsals": moved.rehearsals, "store": kept,
        });
        print(&format!("{document}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (campaigns, messages) = (moved.campaigns.len() as u64, moved.messages);
    print(&format!(
        "moved {} with {}, and {}\n",
        counted(campaigns, "campaign"),
        counted(messages, "message"),
        counted(moved.suppressed, "suppressed number")
    ))?;
    if moved.in_doubt > 0 {
        let doubts = counted(moved.in_doubt, "message");
        write_line(&format!("{doubts} in doubt: they were being sent when the worker of the store ended"));
    }
    if moved.rehearsals > 0 {
        write_line(&format!("{} stay in the store", counted(moved.rehearsals, "rehearsal")));
    }
    write_line(&format!("the store is {} now; keep it until the campaigns have ended", kept.display()));
    write_line("workers that run already open the addresses of its callbacks within seconds");
    Ok(ExitCode::SUCCESS)
}

/// Renames a store that was moved. Returns what it is called then.
fn put_aside(path: &Path) -> std::io::Result<PathBuf> {
    let named = |nth: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(if nth == 0 { ".moved".to_owned() } else { format!(".moved-{nth}") });
        PathBuf::from(name)
    };
    let free = (0..1_000).map(named).find(|name| !name.exists()).unwrap_or_else(|| named(0));
    std::fs::rename(path, &free)?;
    // Where another process has the store open, some of it may still be in the file beside it.
    let log = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        PathBuf::from(name)
    };
    if log(path).exists() {
        std::fs::rename(log(path), log(&free))?;
    }
    Ok(free)
}
