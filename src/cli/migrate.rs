//! `flowcast migrate`: moves the campaigns of a store to the fleet's ledger.

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

/// Move the campaigns of a store to the fleet's Redis.
#[derive(Args)]
pub(super) struct Migrate {
    /// Store to move [default: store.path of the configuration]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Leave this campaign in the store; repeatable
    #[arg(long, value_name = "ID")]
    except: Vec<String>,
}

pub(super) async fn main(command: &Migrate, config: &Config, as_json: bool) -> Outcome {
    let Some(redis) = &config.redis else {
        let text = "no Redis is configured for the fleet: set redis.url in the configuration, or FLOWCAST_REDIS__URL";
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
    // Closing the store leaves all of it in one file.
    drop(store);
    let kept = rename_moved(path).map_err(|error| {
        Failure::Outside(format!("everything was moved, but {} cannot be renamed: {error}", path.display()))
    })?;
    if as_json {
        let document = json!({
            "campaigns": moved.campaigns, "messages": moved.messages, "in_doubt": moved.in_doubt,
            "suppressed": moved.suppressed, "drafts": moved.drafts, "rehearsals": moved.rehearsals, "store": kept,
        });
        return print(&format!("{document}\n"));
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
        write_line(&format!(
            "{doubts} in doubt, because the store's worker exited while they were in flight"
        ));
    }
    if moved.rehearsals > 0 {
        write_line(&format!("left in the store: {}", counted(moved.rehearsals, "rehearsal")));
    }
    write_line(&format!(
        "the store was renamed to {}; keep it until the campaigns have ended",
        kept.display()
    ));
    write_line("within seconds, running workers accept callbacks for the moved messages");
    Ok(ExitCode::SUCCESS)
}

/// Renames a store that was moved, and returns its new path.
fn rename_moved(path: &Path) -> std::io::Result<PathBuf> {
    let named = |nth: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(if nth == 0 { ".moved".to_owned() } else { format!(".moved-{nth}") });
        PathBuf::from(name)
    };
    let free = (0..1_000).map(named).find(|name| !name.exists()).unwrap_or_else(|| named(0));
    std::fs::rename(path, &free)?;
    // While another process has the store open, part of it may still be in the write-ahead log.
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
