//! The command line: one file per command. Results go to stdout, everything else to stderr.

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
use std::{path::PathBuf, process::ExitCode, str::FromStr};

use clap::{Parser, Subcommand};

use crate::audience::AudienceError;
use crate::campaign::{control::Action, visible_lines};
use crate::config::{Config, ConfigError};
use crate::dispatch::{DispatchError, Refusal};
use crate::http::HttpError;
use crate::ledger::LedgerError;
use crate::queue::QueueError;

/// Dispatch `WhatsApp` campaigns in bulk; no silent loss, no duplicates
#[derive(Parser)]
#[command(
    name = "flowcast",
    version = env!("FLOWCAST_VERSION"),
    about = "Dispatch WhatsApp campaigns in bulk; no silent loss, no duplicates",
    max_term_width = 100
)]
#[command(after_help = "Exit status:
  0  done
  1  an external system failed; for doctor, a check failed
  2  invalid usage, job or configuration, or unknown campaign
  3  the campaign ended or stopped with messages rejected, in doubt or pending

With --json, an error is one line on stderr: {\"error\":{\"kind\":…,\"status\":…,\"message\":…}}")]
pub(crate) struct Args {
    /// Configuration file [default: `$FLOWCAST_CONFIG`, else `./flowcast.toml` if it exists]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        display_order = 101,
        help = "Configuration file [default: $FLOWCAST_CONFIG, else ./flowcast.toml if it exists]"
    )]
    config: Option<PathBuf>,
    /// Print results as JSON
    #[arg(long, global = true, display_order = 102)]
    json: bool,
    /// Log more: `-v` for debug, `-vv` for trace
    #[arg(short, long, global = true, display_order = 103, action = clap::ArgAction::Count, conflicts_with = "quiet", help = "Log more: -v for debug, -vv for trace")]
    verbose: u8,
    /// Log only warnings and errors
    #[arg(short, long, global = true, display_order = 104)]
    quiet: bool,
    /// Embedded store; accepted before or after the command
    #[arg(long, global = true, value_name = "FILE", hide = true)]
    store: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send a campaign from this machine, or resume an interrupted one
    Run(run::RunArgs),
    /// Run a worker: it takes jobs from the queue and sends their messages
    Worker(worker::WorkerArgs),
    /// Put a job on the queue
    Submit(submit::Submit),
    /// Check a job and its audience without sending
    Check(check::Check),
    /// List campaigns
    Campaigns(open::StoreArgs),
    /// Show a campaign in full
    Status(status::Status),
    /// Export the messages of a campaign, one line each
    Report(report::ReportArgs),
    /// Export the replies of recipients, one line each
    Responses(responses::Responses),
    /// Manage the suppression list
    Suppress(suppress::Suppress),
    /// Send the rejected messages of a campaign again
    Retry(control::Retry),
    /// Resolve the messages in doubt of a campaign: resend or abandon them
    Resolve(control::Resolve),
    /// Mark messages as in doubt after the ledger lost recent writes
    #[command(
        long_about = "Mark messages as in doubt after the ledger lost recent writes, e.g. in a power failure or because a backup was restored. Shows which writes were lost, and marks only the messages that may have been sent"
    )]
    Recover(recover::Recover),
    /// Move the campaigns of a store to the fleet's Redis
    Migrate(migrate::Migrate),
    /// Pause a campaign until it is resumed
    Pause(control::CampaignArgs),
    /// Resume a campaign that is paused or held
    Resume(control::CampaignArgs),
    /// Cancel a campaign: unsent messages are never sent
    Cancel(control::CampaignArgs),
    /// List, requeue or discard refused jobs (the dead-letter queue)
    Dead(dead::Dead),
    /// Check configuration, servers and credentials; say what to fix
    Doctor(doctor::Doctor),
    /// Explain a code and what to do about it
    Explain(explain::Explain),
    /// Start a simulated provider for testing
    Sandbox(sandbox::Sandbox),
    /// Print the JSON Schema of a document
    Schema(schema::Schema),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Write the manual pages to a folder
    Man(man::Man),
}

impl Command {
    /// Whether the command uses a store.
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

/// The reason why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Invalid job, configuration or command line: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// Unknown name, such as a campaign id: exit status 2.
    #[error("{0}")]
    NotFound(String),
    /// Failure of an external system: exit status 1.
    #[error("{0}")]
    Outside(String),
    /// Closed pipe: the reader of the output has exited.
    #[error("the reader of the output has exited")]
    ReaderGone,
}

type Outcome = Result<ExitCode, Failure>;

/// Exit status of a campaign that ended, or stopped, with messages rejected, in doubt or pending.
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
        Err(error) => return fail(Failure::Outside(format!("cannot start: {error}")), as_json),
    };
    let result = runtime.block_on(traced(args));
    // A blocking read may still wait for its file; its result is not needed any more.
    runtime.shutdown_background();
    result.unwrap_or_else(|failure| fail(failure, as_json))
}

/// Runs the command, and exports its traces if an endpoint is configured.
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
        return Err(Failure::Usage("this command does not use a store; remove --store".into()));
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

/// Parses the value of an option.
fn whole_number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "write a whole number, e.g. 20")
}

/// Writes a result to stdout, with control characters escaped. A command that ends with it has succeeded.
fn print(text: &str) -> Outcome {
    write(visible_lines(text).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a document as one line of JSON.
fn line(document: &impl serde::Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(document).map_err(io::Error::from)?;
    Ok(format!("{json}\n"))
}

/// Returns the user and the host, for the audit log.
fn operator() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}@{}", user.as_deref().unwrap_or("unknown"), host.trim())
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

/// Writes a message to stderr. A closed terminal is not an error.
fn write_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible_lines(text));
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::Outside(format!("cannot write the result: {error}"))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Address(_) => Self::Usage(error.to_string()),
            HttpError::Failed(_) => Self::Outside(error.to_string()),
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Storage(_) | LedgerError::InUse(_) | LedgerError::Away(_) => {
                Self::Outside(error.to_string())
            }
            LedgerError::NoCampaign(_) | LedgerError::NoStore(_) => Self::NotFound(error.to_string()),
            _ => Self::Usage(error.to_string()),
        }
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Address(_) => Self::Usage(error.to_string()),
            QueueError::Refused(_) | QueueError::Failed(_) | QueueError::Silent => {
                Self::Outside(error.to_string())
            }
        }
    }
}

impl From<AudienceError> for Failure {
    fn from(error: AudienceError) -> Self {
        if error.is_outside_failure() {
            return Self::Outside(error.to_string());
        }
        Self::Usage(error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Audience(error) => error.into(),
            Refusal::Problems(_) => Self::Usage(refusal.to_string()),
        }
    }
}

impl From<DispatchError> for Failure {
    fn from(error: DispatchError) -> Self {
        match error {
            DispatchError::Ledger(error) => error.into(),
            DispatchError::Audience(error) => error.into(),
            DispatchError::Queue(_) | DispatchError::Task(_) | DispatchError::Job(..) => {
                Self::Outside(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Args;

    /// Maximum length of a command's summary, in characters.
    const MAX_SUMMARY: usize = 70;

    fn check(command: &clap::Command) {
        let summary = command.get_about().map(ToString::to_string).unwrap_or_default();
        let length = summary.chars().count();
        assert!((1..=MAX_SUMMARY).contains(&length), "{}: {summary:?}", command.get_name());
        command.get_subcommands().for_each(check);
    }

    #[test]
    fn every_command_has_a_summary_that_fits_on_a_line() {
        Args::command().debug_assert();
        check(&Args::command());
    }
}
