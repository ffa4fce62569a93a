//! `flowcast suppress`: manages the suppression list, the numbers that must never be messaged.

use std::{io::ErrorKind, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Outcome, open, operator, print, write_line};
use crate::audience::{self, AudienceError, Source, UnreadableRow};
use crate::campaign::{Phone, PhoneError, PhoneParser, counted, thousands};
use crate::config::Config;
use crate::ledger::{
    Access, Audit, AuditEntry, Clock as _, OptOut, OptOutSource, Suppress as Change, Suppressed, Suppression,
};

/// Maximum number of unreadable rows that are named.
const ROWS_NAMED: usize = 20;

/// Manage the suppression list.
#[derive(Args)]
pub(super) struct Suppress {
    #[command(subcommand)]
    what: SuppressCommand,
    #[command(flatten)]
    store: open::StoreArgs,
}

#[derive(Subcommand)]
enum SuppressCommand {
    /// Add numbers to the list
    Add {
        /// Numbers in international form, e.g. +919876543210
        #[arg(required = true, value_parser = international)]
        numbers: Vec<Phone>,
    },
    /// Remove numbers from the list
    Remove {
        /// Numbers in international form, e.g. +919876543210
        #[arg(required = true, value_parser = PhoneParser::listed)]
        numbers: Vec<Phone>,
    },
    /// Print the list
    List,
    /// Add the numbers of a file to the list
    Import {
        /// CSV file or workbook (.xlsx) with the numbers
        file: PathBuf,
        /// Column with the phone numbers [default: detected by name]
        #[arg(long, value_name = "COLUMN")]
        phone: Option<String>,
        /// Region of numbers without a country code, e.g. IN
        #[arg(long, value_name = "REGION", value_parser = region)]
        default_region: Option<String>,
    },
}

pub(super) async fn main(suppress: Suppress, config: &Config, json: bool) -> Outcome {
    // The list may be filled before the first campaign, so the store may not exist yet.
    let ledger = suppress.store.open(config, Access::Create).await?;
    let (numbers, how, word) = match suppress.what {
        SuppressCommand::Add { numbers } => (numbers, Change::Add, "added"),
        SuppressCommand::Remove { numbers } => {
            (numbers.into_iter().flat_map(Phone::spellings).collect(), Change::Remove, "removed")
        }
        SuppressCommand::Import { file, phone, default_region } => {
            (read(file, phone, default_region)?, Change::Add, "added")
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
            return print(&text);
        }
    };
    let at = ledger.time();
    let added = OptOut { at: at.as_millisecond(), source: OptOutSource::Operator(operator()) };
    let done = ledger.suppress(numbers, how, Some(added)).await?;
    let entry = AuditEntry { at, ..AuditEntry::new(&operator(), "suppress", None, &how.summary(done)) };
    ledger.log(entry).await?;
    print(&if json {
        format!("{}\n", json!({ word: done }))
    } else {
        format!("{} {word}\n", thousands(done))
    })
}

/// Parses a region.
fn region(text: &str) -> Result<String, &'static str> {
    let region = text.to_uppercase();
    if PhoneParser::knows_region(&region) {
        Ok(region)
    } else {
        Err("write the two letters of a country, e.g. IN")
    }
}

/// Parses a number, which has no default region.
fn international(text: &str) -> Result<Phone, String> {
    PhoneParser::international(text).map_err(|error| match error {
        PhoneError::NoRegion => "the number has no country code; write it with + and the country code".into(),
        error => error.to_string(),
    })
}

/// Reads the numbers of a file, and prints which rows have none.
fn read(file: PathBuf, phone: Option<String>, default_region: Option<String>) -> Result<Vec<Phone>, Failure> {
    let read = audience::numbers(&Source::File(file), phone, default_region, ROWS_NAMED);
    let list = read.map_err(|error| match error {
        // The error itself names a place in a job.
        AudienceError::NoPhoneColumn { name, error } => {
            Failure::Usage(format!("{name}: {error}; select the column with --phone"))
        }
        AudienceError::Io { name, source } if source.kind() == ErrorKind::NotFound => {
            Failure::Usage(format!("no such file: {name}"))
        }
        error => error.into(),
    })?;
    if list.duplicates > 0 {
        write_line(&format!("{} with the same number as an earlier row", counted(list.duplicates, "row")));
    }
    if list.unreadable > 0 {
        write_line(&format!("{} without a valid number:", counted(list.unreadable, "row")));
        for UnreadableRow { row, reason, .. } in &list.unreadable_rows {
            write_line(&format!("  row {row}: {reason}"));
        }
        let unnamed = list.unreadable - list.unreadable_rows.len() as u64;
        if unnamed > 0 {
            write_line(&format!("  and {} more", thousands(unnamed)));
        }
    }
    Ok(list.numbers)
}
