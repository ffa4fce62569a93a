//! `flowcast run`: sends a campaign from one machine, without a broker and without Redis.

use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::open::Destination;
use super::reloading::Reloading;
use super::sandbox::{Faults, start_in_process};
use super::text::summary;
use super::{Failure, Outcome, UNSETTLED, line, open, operator, print, progress, write_line};
use crate::audience::Audiences;
use crate::campaign::CampaignState;
use crate::config::Config;
use crate::dispatch::{self, Accounts, Context, End, Events};
use crate::ledger::{Access, AnyLedger, Campaign, Campaigns, LedgerError, Sqlite, UnmovedStore};
use crate::sandbox::Reporting;
use crate::views::status::Status;

/// Send a campaign from this machine, or resume an interrupted one.
#[derive(Args)]
pub(super) struct RunArgs {
    /// JSON file with the job; - for standard input
    job: PathBuf,
    /// Send to a simulated provider in this process; needs no configuration
    #[arg(long)]
    sandbox: bool,
    #[command(flatten)]
    store: open::StoreArgs,
    #[command(flatten)]
    faults: Faults,
}

pub(super) async fn main(run: RunArgs, config: &Config, file: Option<PathBuf>, json: bool) -> Outcome {
    if run.faults.any() && !run.sandbox {
        return Err(Failure::Usage("faults need a sandbox; add --sandbox".into()));
    }
    let job = open::job(&run.job)?;
    let sandbox =
        if run.sandbox { Some(start_in_process(&run.faults, Reporting::default()).await?) } else { None };
    let destination = match &sandbox {
        Some((_, address)) => Destination::Sandbox(address.clone()),
        None => Destination::Providers(None),
    };
    let account = destination.open(config, &job.account, None, None)?;
    let audiences = open::audiences_beside(config, &run.job)?;
    let path = run.store.path(config).to_path_buf();

    // Ctrl-C stops cleanly from here on: nothing has been sent yet, and every result will be recorded.
    let stop = CancellationToken::new();
    tokio::spawn(listen_for_signals(stop.clone(), |text| write_line(&format!("flowcast: {text}"))));

    let name = job.account.clone();
    let prepared = {
        let account = account.clone();
        let prepare = move || dispatch::prepare(job, &audiences, &account);
        let prepared = tokio::task::spawn_blocking(prepare).await;
        Arc::new(prepared.map_err(|error| Failure::Outside(error.to_string()))??)
    };
    let ledger = AnyLedger::Embedded(Sqlite::open(&path, Access::Send)?);
    // A job without an id that runs again is the same campaign: with a new id all of it would be sent again.
    let (campaign, _) = dispatch::register(
        &ledger,
        &prepared,
        sandbox.is_some(),
        true,
        &operator(),
        &UnmovedStore::default(),
    )
    .await?;
    if let Some(note) = prepared.scan.encoding.note() {
        write_line(&format!("the audience is {note}"));
    }
    print_start(&campaign, &path);
    let accounts = Accounts::new(BTreeMap::from([(name.clone(), Ok(account.clone()))]));
    let context = Context::new(accounts.clone(), Audiences::default(), Events::default(), run.sandbox);
    open::remember_recipients(&ledger, &name, &account, account.limits.rates()).await?;
    let done = stop.child_token();
    let reloading =
        Reloading { file, accounts, only: Some(name), destination, ledger: ledger.clone(), http: None }
            .start(config, done.clone());
    let again = resume_command(&run);
    let end = send(&ledger, &context, &prepared, &campaign, &stop, json).await;
    done.cancel();
    // Once every task has closed the store, it is one file.
    let _ = reloading.await;
    let end = end.map_err(|failure| match failure {
        Failure::Outside(text) => {
            Failure::Outside(format!("{text}\nfix the cause, then resume with: {again}"))
        }
        other => other,
    })?;

    let gone = || LedgerError::NoCampaign(campaign.id.clone());
    let campaign = ledger.campaign(&campaign.id).await?.ok_or_else(gone)?;
    print(&if json { line(&Status::from(&campaign))? } else { summary(&campaign) })?;
    print_end(&end, &campaign, &again, &run.store.flag());
    Ok(match end {
        End::AudienceChanged => ExitCode::from(2),
        End::Completed if campaign.counts.rejected + campaign.counts.in_doubt == 0 => ExitCode::SUCCESS,
        _ => ExitCode::from(UNSETTLED),
    })
}

/// Runs the campaign and shows its progress.
async fn send(
    ledger: &AnyLedger,
    context: &Context,
    prepared: &Arc<dispatch::LoadedJob>,
    campaign: &Campaign,
    stop: &CancellationToken,
    json: bool,
) -> Result<End, Failure> {
    let done = CancellationToken::new();
    let shown = {
        let (ledger, id, done) = (ledger.clone(), campaign.id.clone(), done.clone());
        tokio::spawn(async move {
            if !json {
                progress::show(&ledger, &id, &done).await;
            }
        })
    };
    let end = dispatch::run(ledger, context, prepared, campaign, stop).await;
    done.cancel();
    let _ = shown.await;
    Ok(end?)
}

/// Stops cleanly on the first Ctrl-C, SIGTERM or closed terminal, and immediately on a second Ctrl-C or SIGTERM.
pub(super) async fn listen_for_signals(stop: CancellationToken, say: fn(&str)) {
    let (Ok(mut terminated), Ok(mut hung_up)) =
        (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return;
    };
    loop {
        let asked = tokio::select! {
            _ = tokio::signal::ctrl_c() => true,
            _ = terminated.recv() => true,
            // A closing terminal sends more than one SIGHUP, so these are not a second request.
            _ = hung_up.recv() => false,
        };
        if stop.is_cancelled() {
            if !asked {
                continue;
            }
            say("stopped immediately; messages in flight are in doubt");
            std::process::exit(i32::from(UNSETTLED));
        }
        say("stopping; messages in flight are finished first (repeat to stop immediately)");
        stop.cancel();
    }
}

fn print_start(campaign: &Campaign, store: &Path) {
    let counts = &campaign.counts;
    match campaign.state {
        CampaignState::Scheduled if counts.total == 0 => {}
        CampaignState::Completed => write_line(&format!("campaign {} is already completed", campaign.id)),
        _ => write_line(&format!(
            "resuming campaign {} from {}: {} accepted, {} in doubt",
            campaign.id,
            store.display(),
            counts.accepted,
            counts.in_doubt + counts.sending
        )),
    }
}

/// Returns the command that resumes this campaign.
fn resume_command(run: &RunArgs) -> String {
    let sandbox = if run.sandbox { " --sandbox" } else { "" };
    format!("flowcast run {}{sandbox}{}", run.job.display(), run.store.flag())
}

fn print_end(end: &End, campaign: &Campaign, again: &str, store: &str) {
    let (id, counts) = (&campaign.id, &campaign.counts);
    match end {
        End::Completed => {}
        End::Stopped => write_line(&format!("to resume: {again}")),
        End::Held => write_line(&format!("fix the cause, then resume with: {again}")),
        End::AudienceChanged => write_line(&format!(
            "flowcast: the audience has changed since campaign {id} was planned; the campaign is held and nothing more was sent.\n\
             Restore the old file to continue, or give the job a new id to send to the new audience"
        )),
    }
    if counts.rejected + counts.in_doubt > 0 {
        let (which, state) = if counts.in_doubt > 0 {
            ("messages in doubt", "in_doubt")
        } else {
            ("rejected messages", "rejected")
        };
        write_line(&format!("to list the {which}: flowcast report {id} --state {state}{store}"));
    }
}
