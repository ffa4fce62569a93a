//! The command line: one file a command. Results go to stdout, everything else to stderr.

mod callback_endpoint;
mod campaigns;
mod check;
mod completions;
mod control;
mod dead;
mod doctor;
mod explain;
mod line_format;
mod look;
mod man;
mod migrate;
mod open;
mod progress;
mod recover;
mod reloading;
mod report;
mod responses;
mod run;
mod sandbox;
mod schema;
mod status;
mod submit;
mod suppress;
mod text;
mod worker;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::audience::AudienceError;
use crate::campaign::control::Action;
use crate::campaign::visible_lines;
use crate::config::{Config, ConfigError};
use crate::dispatch::{DispatchError, Refusal};
use crate::ledger::LedgerError;
use crate::queue::QueueError;

/// Dispatches `WhatsApp` campaigns in bulk. A message is never silently lost and never sent twice.
#[derive(Parser)]
#[command(name = "flowcast", version = env!("FLOWCAST_VERSION"), about, max_term_width = 100)]
#[command(after_help = "Exit status: 0 done; 1 something outside failed; 2 bad usage, job or configuration;
3 the campaign ended, or stopped, with messages rejected, in doubt or pending. A campaign that is not there is 2.
With --json an error is a line on stderr: {\"error\":{\"kind\":…,\"status\":…,\"message\":…}}.")]
pub(crate) struct Args {
    /// The configuration file, else the one that `FLOWCAST_CONFIG` names, else `./flowcast.toml`
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "The configuration file, else $FLOWCAST_CONFIG, else ./flowcast.toml where there is one"
    )]
    config: Option<PathBuf>,
    /// Print results as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Log more: -v what is done, -vv all of it
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet", help = "Log more; -vv all of it")]
    verbose: u8,
    /// Log warnings and errors alone
    #[arg(short, long, global = true)]
    quiet: bool,
    /// The embedded store; the commands that have one take it in any place
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    store: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send a campaign from this machine, or go on with it where it stood
    Run(run::Run),
    /// Take jobs from the queue and send them, as one of as many workers as wanted
    Worker(worker::Worker),
    /// Put a job on the queue
    Submit(submit::Submit),
    /// Check a job and its audience without sending
    Check(check::Check),
    /// List the campaigns
    Campaigns(open::Store),
    /// Show a campaign in full
    Status(status::Status),
    /// Write a line for every message
    Report(report::Report),
    /// Write what people answered
    Responses(responses::Responses),
    /// Look after the numbers that must never be messaged
    Suppress(suppress::Suppress),
    /// Send the rejected messages of a campaign again
    Retry(control::Retry),
    /// Decide what becomes of a campaign's messages in doubt
    Resolve(control::Resolve),
    /// Show what the ledger has forgotten of a campaign, and have what may have been sent be in doubt
    Recover(recover::Recover),
    /// Move the campaigns of a store to the fleet's Redis, in the middle of a campaign too
    Migrate(migrate::Migrate),
    /// Stop a campaign until it is resumed
    Pause(control::CampaignArgs),
    /// Go on with a campaign that is paused or held
    Resume(control::CampaignArgs),
    /// End a campaign; what is not sent yet never is
    Cancel(control::CampaignArgs),
    /// Look at jobs that could not be read or were refused
    Dead(dead::Dead),
    /// Check the configuration, the servers and the credentials, and say what to change
    Doctor(doctor::Doctor),
    /// Say what a code means and what to do
    Explain(explain::Explain),
    /// Start a provider to try things on
    Sandbox(sandbox::Sandbox),
    /// Print the JSON Schema of a document
    Schema(schema::Schema),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Write the manual pages into a folder
    Man(man::Man),
}

impl Command {
    /// Whether it has anything to do with a store.
    fn takes_store(&self) -> bool {
        match self {
            Self::Run(_)
            | Self::Worker(_)
            | Self::Submit(_)
            | Self::Campaigns(_)
            | Self::Status(_)
            | Self::Report(_)
            | Self::Responses(_)
            | Self::Suppress(_)
            | Self::Retry(_)
            | Self::Resolve(_)
            | Self::Recover(_)
            | Self::Migrate(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Cancel(_) => true,
            Self::Check(_)
            | Self::Dead(_)
            | Self::Doctor(_)
            | Self::Explain(_)
            | Self::Sandbox(_)
            | Self::Schema(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
        }
    }
}

/// How a command ends when it does not do what was asked.
pub(crate) enum Failure {
    /// The job, the configuration or the command line is wrong: 2.
    Usage(String),
    /// What was named is not there: 2.
    NotFound(String),
    /// Something outside failed: 1.
    Outside(String),
    /// Whoever read our output has gone: nothing more to say.
    ReaderGone,
}

type Outcome = Result<ExitCode, Failure>;

/// The campaign ended, or stopped, with messages rejected, in doubt or pending.
const UNSETTLED: u8 = 3;

/// Runs the command that the command line asks for.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let as_json = args.json;
    crate::telemetry::start(match (args.quiet, args.verbose) {
        (true, _) => Some("flowcast=warn"),
        (_, 0) => None,
        (_, 1) => Some("flowcast=debug"),
        _ => Some("flowcast=trace"),
    });
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(fault) => return fail(Failure::Outside(format!("can't start: {fault}")), as_json),
    };
    let result = runtime.block_on(traced(args));
    // A blocking read may still wait for its file; nothing hangs on it any more.
    runtime.shutdown_background();
    result.unwrap_or_else(|failure| fail(failure, as_json))
}

/// Does what is asked, and tells its traces where somebody wants them.
async fn traced(args: Args) -> Outcome {
    let exporter = crate::traces::start().map_err(Failure::Usage)?;
    let outcome = dispatch(args).await;
    if let Some(exporter) = exporter {
        exporter.end().await;
    }
    outcome
}

async fn dispatch(args: Args) -> Outcome {
    let config = || {
        Config::warn_of_misspelt_variables(args.config.as_deref());
        Config::load(args.config.as_deref()).map_err(Failure::from)
    };
    if args.store.is_some() && !args.command.takes_store() {
        return Err(Failure::Usage("this command has nothing to do with a store; leave --store out".into()));
    }
    match args.command {
        Command::Run(command) => {
            let file = Config::file(args.config.as_deref());
            run::main(command, &config()?, file, args.json).await
        }
        Command::Worker(command) => {
            let file = Config::file(args.config.as_deref());
            Box::pin(worker::main(command, &config()?, file)).await
        }
        Command::Submit(command) => submit::main(command, &config()?, args.json).await,
        Command::Responses(command) => responses::main(command, &config()?, args.json).await,
        Command::Suppress(command) => suppress::main(command, &config()?, args.json).await,
        Command::Retry(command) => control::main(command.parts(), &config()?, args.json).await,
        Command::Resolve(command) => control::main(command.parts(), &config()?, args.json).await,
        Command::Recover(command) => recover::main(command, &config()?, args.json).await,
        Command::Migrate(command) => migrate::main(&command, &config()?, args.json).await,
        Command::Pause(which) => control::main((which, Action::Pause), &config()?, args.json).await,
        Command::Resume(which) => control::main((which, Action::Resume), &config()?, args.json).await,
        Command::Cancel(which) => control::main((which, Action::Cancel), &config()?, args.json).await,
        Command::Doctor(command) => doctor::main(&command, &config()?, args.json).await,
        Command::Dead(command) => dead::main(command, &config()?, args.json).await,
        Command::Check(command) => check::main(&command, &config()?, args.json).await,
        Command::Campaigns(store) => campaigns::main(&store, &config()?, args.json).await,
        Command::Status(command) => status::main(command, &config()?, args.json).await,
        Command::Report(command) => report::main(command, &config()?, args.json).await,
        Command::Explain(command) => explain::main(&command, args.json),
        Command::Sandbox(command) => sandbox::main(command, args.json).await,
        Command::Schema(command) => schema::main(&command),
        Command::Completions(command) => completions::main(&command),
        Command::Man(command) => man::main(&command),
    }
}

fn fail(failure: Failure, as_json: bool) -> ExitCode {
    let (kind, status, message) = match failure {
        Failure::ReaderGone => return ExitCode::SUCCESS,
        Failure::Usage(text) => ("usage", 2, text),
        Failure::NotFound(text) => ("not_found", 2, text),
        Failure::Outside(text) => ("outside", 1, text),
    };
    write_line(&if as_json {
        let error = serde_json::json!({ "kind": kind, "status": status, "message": message });
        serde_json::json!({ "error": error }).to_string()
    } else {
        format!("flowcast: {message}")
    });
    ExitCode::from(status)
}

/// Writes a result to stdout. What came from outside can't control the terminal.
fn print(text: &str) -> Result<(), Failure> {
    write(visible_lines(text).as_bytes())
}

/// A document on a line.
fn line(document: &impl serde::Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(document).map_err(io::Error::from)?;
    Ok(format!("{json}\n"))
}

/// Who is at the keyboard, for those who ask later.
fn operator() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}@{}", user.as_deref().unwrap_or("somebody"), host.trim())
}

/// Clears the terminal.
fn clear() -> Result<(), Failure> {
    write(b"\x1b[2J\x1b[H")
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())?;
    Ok(())
}

/// Tells a person something that is no result. A terminal that is gone stops nothing.
fn write_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible_lines(text));
}

impl From<io::Error> for Failure {
    fn from(fault: io::Error) -> Self {
        if fault.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::Outside(format!("can't write the result: {fault}"))
    }
}

impl From<ConfigError> for Failure {
    fn from(fault: ConfigError) -> Self {
        Self::Usage(fault.to_string())
    }
}

impl From<LedgerError> for Failure {
    fn from(fault: LedgerError) -> Self {
        match fault {
            LedgerError::Storage(_) | LedgerError::InUse(_) | LedgerError::Away(_) => {
                Self::Outside(fault.to_string())
            }
            LedgerError::NoCampaign(_) | LedgerError::NoStore(_) => Self::NotFound(fault.to_string()),
            _ => Self::Usage(fault.to_string()),
        }
    }
}

impl From<QueueError> for Failure {
    fn from(fault: QueueError) -> Self {
        Self::Outside(fault.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(text) | Self::NotFound(text) | Self::Outside(text) => f.write_str(text),
            Self::ReaderGone => f.write_str("the reader has gone"),
        }
    }
}

impl From<AudienceError> for Failure {
    fn from(fault: AudienceError) -> Self {
        if fault.is_outside_failure() {
            return Self::Outside(fault.to_string());
        }
        Self::Usage(fault.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Audience(fault) => fault.into(),
            Refusal::Problems(_) => Self::Usage(refusal.to_string()),
        }
    }
}

impl From<DispatchError> for Failure {
    fn from(fault: DispatchError) -> Self {
        match fault {
            DispatchError::Ledger(fault) => fault.into(),
            DispatchError::Audience(fault) => fault.into(),
            DispatchError::Queue(_) | DispatchError::Task(_) | DispatchError::Job(..) => {
                Self::Outside(fault.to_string())
            }
        }
    }
}
