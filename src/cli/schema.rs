//! `flowcast schema`: the JSON Schema of a document, for editors and for other programs.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{Failure, Outcome, print};
use crate::campaign::event_schema;
use crate::campaign::job::job_schema;
use crate::config::config_schema;
use crate::ledger::report_schema;

/// Print the JSON Schema of a document.
#[derive(Args)]
pub(super) struct Schema {
    /// Which document
    document: Document,
}

#[derive(Clone, Copy, ValueEnum)]
enum Document {
    /// What asks for a campaign
    Job,
    /// `flowcast.toml`
    Config,
    /// What is published when something happens
    Event,
    /// A line of `report --format jsonl`
    Report,
}

pub(super) fn main(schema: &Schema) -> Outcome {
    let value = match schema.document {
        Document::Job => job_schema(),
        Document::Config => config_schema(),
        Document::Event => event_schema(),
        Document::Report => report_schema(),
    };
    let text = serde_json::to_string_pretty(&value).map_err(|fault| Failure::Outside(fault.to_string()))?;
    print(&format!("{text}\n"))?;
    Ok(ExitCode::SUCCESS)
}
