//! A result of many lines, written as it is read: CSV for spreadsheets, JSON lines for programs.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Failure;
use crate::campaign::visible_lines;

/// How lines are written.
#[derive(Args)]
pub(super) struct LineFormat {
    /// How the lines are written; CSV, or with --json JSON lines
    #[arg(long)]
    format: Option<Format>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

pub(super) enum Lines {
    Csv(Box<csv::Writer<io::Stdout>>),
    Json(BufWriter<io::Stdout>),
}

impl LineFormat {
    /// Whether they are for a spreadsheet.
    pub(super) fn is_csv(&self, json: bool) -> bool {
        matches!((self.format, json), (Some(Format::Csv), _) | (None, false))
    }

    /// Begins the lines. A CSV's header stands there also when no line follows.
    pub(super) fn begin<T: AsRef<[u8]>>(
        &self,
        json: bool,
        header: impl IntoIterator<Item = T>,
    ) -> Result<Lines, Failure> {
        if !self.is_csv(json) {
            return Ok(Lines::Json(BufWriter::new(io::stdout())));
        }
        let mut writer = csv::Writer::from_writer(io::stdout());
        writer.write_record(header).map_err(cause)?;
        Ok(Lines::Csv(Box::new(writer)))
    }
}

impl Lines {
    /// Writes a line: what it is to a program, and the fields that a person sees of it.
    pub(super) fn write(
        &mut self,
        line: &impl Serialize,
        fields: impl FnOnce() -> Vec<String>,
    ) -> Result<(), Failure> {
        match self {
            Self::Csv(writer) => {
                let fields = fields();
                let shown = fields.iter().map(|field| visible_lines(field));
                writer.write_record(shown.map(Cow::into_owned)).map_err(cause)?;
            }
            Self::Json(writer) => {
                let line = serde_json::to_string(line).map_err(io::Error::from)?;
                writeln!(writer, "{}", visible_lines(&line))?;
            }
        }
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), Failure> {
        match self {
            Self::Csv(writer) => writer.flush()?,
            Self::Json(writer) => writer.flush()?,
        }
        Ok(())
    }
}

/// The writer's own error out of the CSV library's, so that a reader who has gone is known as one.
fn cause(fault: csv::Error) -> io::Error {
    match fault.into_kind() {
        csv::ErrorKind::Io(fault) => fault,
        other => io::Error::other(format!("{other:?}")),
    }
}
