//! How a command that writes many lines is told to write them.

use std::io::{BufWriter, Stdout, stdout};

use clap::{Args, ValueEnum};

use crate::views::lines::{Format, Lines};

/// How lines are written.
#[derive(Args)]
pub(super) struct LineFormat {
    /// How the lines are written; CSV, or with --json JSON lines
    #[arg(long)]
    format: Option<Named>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Named {
    Csv,
    Jsonl,
}

impl LineFormat {
    /// The format; with `json` by default JSON lines.
    pub(super) fn of(&self, json: bool) -> Format {
        match (self.format, json) {
            (Some(Named::Csv), _) | (None, false) => Format::Csv,
            (Some(Named::Jsonl), _) | (None, true) => Format::Jsonl,
        }
    }

    /// Lines to stdout.
    pub(super) fn lines(&self, json: bool) -> Lines<BufWriter<Stdout>> {
        Lines::new(self.of(json), BufWriter::new(stdout()))
    }
}
