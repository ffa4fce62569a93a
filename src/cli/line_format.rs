//! The format of commands that write one line per record.

use std::io::{BufWriter, Stdout, stdout};

use clap::{Args, ValueEnum};

use crate::views::lines::{Format, LineWriter};

/// The format of lines.
#[derive(Args)]
pub(super) struct LineFormat {
    /// Format of the lines [default: csv, with --json: jsonl]
    #[arg(long)]
    format: Option<Named>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Named {
    Csv,
    Jsonl,
}

impl LineFormat {
    /// Returns the format; the default is CSV, with `json` JSON lines.
    pub(super) fn for_output(&self, json: bool) -> Format {
        match (self.format, json) {
            (Some(Named::Csv), _) | (None, false) => Format::Csv,
            (Some(Named::Jsonl), _) | (None, true) => Format::Jsonl,
        }
    }

    /// Returns a writer of lines to stdout.
    pub(super) fn lines(&self, json: bool) -> LineWriter<BufWriter<Stdout>> {
        LineWriter::new(self.for_output(json), BufWriter::new(stdout()))
    }
}
