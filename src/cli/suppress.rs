//! `flowcast suppress`: the numbers that must never be messaged.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Outcome, open, operator, print, write_line};
use crate::audience::{self, AudienceError, Source};
use crate::campaign::{Phone, PhoneParser};
use crate::campaign::{counted, thousands};
use crate::config::Config;
use crate::ledger::{Act, Ledger, Suppress as Change, Suppressed, on_ledger};

/// Look after the numbers that must never be messaged.
#[derive(Args)]
pub(super) struct Suppress {
    #[command(subcommand)]
    what: SuppressCommand,
    #[command(flatten)]
    store: open::Store,
}

#[derive(Subcommand)]
enum SuppressCommand {
    /// Put numbers on the list
    Add {
        /// Numbers in international form, as +919876543210
        #[arg(required = true, value_parser = PhoneParser::international)]
        numbers: Vec<Phone>,
    },
    /// Take numbers off the list
    Remove {
        /// Numbers in international form, as +919876543210
        #[arg(required = true, value_parser = PhoneParser::listed)]
        numbers: Vec<Phone>,
    },
    /// Print the list
    List,
    /// Put the numbers of a CSV file on the list
    Import {
        /// The file
        file: PathBuf,
        /// The column of the numbers; without it one that is called as such columns are
        #[arg(long, value_name = "COLUMN")]
        phone: Option<String>,
        /// The region of numbers without a country code, as IN
        #[arg(long, value_name = "REGION")]
        default_region: Option<String>,
    },
}

pub(super) async fn main(suppress: Suppress, config: &Config, json: bool) -> Outcome {
    // There may be no campaign yet: the list comes first.
    let opened = suppress.store.open_or_make(config).await?;
    on_ledger!(opened, ledger => run(suppress.what, &ledger, json).await)
}

async fn run(what: SuppressCommand, ledger: &impl Ledger, json: bool) -> Outcome {
    let (done, word) = match what {
        SuppressCommand::Add { numbers } => (ledger.suppress(numbers, Change::Add).await?, "added"),
        SuppressCommand::Remove { numbers } => (
            ledger.suppress(numbers.into_iter().flat_map(Phone::spellings).collect(), Change::Remove).await?,
            "removed",
        ),
        SuppressCommand::Import { file, phone, default_region } => {
            (ledger.suppress(read(file, phone, default_region)?, Change::Add).await?, "added")
        }
        SuppressCommand::List => {
            let mut list = Suppressed::default();
            if let Some(update) = ledger.suppressed(0).await? {
                list.apply(update);
            }
            let numbers = list.numbers.iter().map(|digits| format!("+{digits}"));
            let text = if json {
                format!("{}\n", json!(numbers.collect::<Vec<_>>()))
            } else {
                numbers.map(|number| format!("{number}\n")).collect()
            };
            print(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let detail = format!("{word} {} (suppressed numbers)", counted(done, "number"));
    ledger.log(Act::new(&operator(), "suppress", None, &detail)).await?;
    print(&if json {
        format!("{}\n", json!({ word: done }))
    } else {
        format!("{} {word}\n", thousands(done))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The numbers of a file; rows without one are told and left out.
fn read(file: PathBuf, phone: Option<String>, default_region: Option<String>) -> Result<Vec<Phone>, Failure> {
    let read = audience::numbers(&Source::File(file), phone, default_region);
    let (numbers, left_out) = read.map_err(|fault| match fault {
        // The audience's own words name a place in a job.
        AudienceError::NoPhoneColumn { name, fault } => {
            Failure::Usage(format!("{name}: {fault}; name the column of the numbers with --phone"))
        }
        fault => fault.into(),
    })?;
    if left_out > 0 {
        write_line(&format!(
            "{} rows hold no number that could be read, or one that was there before",
            thousands(left_out)
        ));
    }
    Ok(numbers)
}
