//! `flowcast schema`: prints the JSON Schema of a document, for editors and for other programs.

use clap::{Args, ValueEnum};

use super::{Failure, Outcome, print};
use crate::campaign::{event_schema, job::job_schema};
use crate::config::config_schema;
use crate::ledger::report_schema;

/// Print the JSON Schema of a document.
#[derive(Args)]
pub(super) struct Schema {
    /// Document whose schema is printed
    document: Document,
}

#[derive(Clone, Copy, ValueEnum)]
enum Document {
    /// A job, the JSON document that describes a campaign
    Job,
    /// The configuration, flowcast.toml
    Config,
    /// An event that flowcast publishes
    Event,
    /// A line of flowcast report --format jsonl
    Report,
}

pub(super) fn main(schema: &Schema) -> Outcome {
    let value = match schema.document {
        Document::Job => job_schema(),
        Document::Config => config_schema(),
        Document::Event => event_schema(),
        Document::Report => report_schema(),
    };
    let text = serde_json::to_string_pretty(&value).map_err(|error| Failure::Outside(error.to_string()))?;
    print(&format!("{text}\n"))
}
