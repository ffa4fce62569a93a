//! A result of many lines, written as it is read: CSV for spreadsheets, JSON lines for programs.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::campaign::visible_lines;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For spreadsheets.
    Csv,
    /// A JSON document a line.
    Jsonl,
}

/// Lines on their way to a writer.
pub enum Lines<W: Write> {
    /// For spreadsheets.
    Csv(Box<csv::Writer<W>>),
    /// A JSON document a line.
    Jsonl(W),
}

impl<W: Write> Lines<W> {
    /// Lines to a writer.
    pub fn new(format: Format, writer: W) -> Self {
        match format {
            Format::Csv => Self::Csv(Box::new(csv::Writer::from_writer(writer))),
            Format::Jsonl => Self::Jsonl(writer),
        }
    }

    /// Writes the names of a CSV's columns. They stand there also when no line follows.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn header<T: AsRef<[u8]>>(&mut self, names: impl IntoIterator<Item = T>) -> io::Result<()> {
        match self {
            Self::Csv(writer) => writer.write_record(names).map_err(cause),
            Self::Jsonl(_) => Ok(()),
        }
    }

    /// Writes a line: what it is to a program, and the fields that a person sees of it.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn write(&mut self, line: &impl Serialize, fields: impl FnOnce() -> Vec<String>) -> io::Result<()> {
        match self {
            Self::Csv(writer) => {
                let fields = fields();
                let shown = fields.iter().map(|field| visible_lines(field));
                writer.write_record(shown.map(Cow::into_owned)).map_err(cause)
            }
            Self::Jsonl(writer) => {
                let line = serde_json::to_string(line).map_err(io::Error::from)?;
                writeln!(writer, "{}", visible_lines(&line))
            }
        }
    }

    /// Flushes what is written, and returns the writer.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn end(self) -> io::Result<W> {
        match self {
            Self::Csv(writer) => writer.into_inner().map_err(csv::IntoInnerError::into_error),
            Self::Jsonl(mut writer) => writer.flush().map(|()| writer),
        }
    }
}

/// The writer's own error out of the CSV library's, so that a reader who has gone is known as one.
fn cause(fault: csv::Error) -> io::Error {
    match fault.into_kind() {
        csv::ErrorKind::Io(fault) => fault,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// What others wrote is opened in a spreadsheet: a text that one would run as a formula is made none.
pub fn harmless(text: String) -> String {
    let is_number = text.trim_start_matches('+').bytes().all(|byte| byte.is_ascii_digit());
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) && !is_number { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_made_a_text() {
        let harmless = |text: &str| harmless(text.into());
        assert_eq!(harmless("=HYPERLINK(\"x\")"), "'=HYPERLINK(\"x\")");
        assert_eq!((harmless("@x"), harmless("-1+2")), ("'@x".into(), "'-1+2".into()));
        assert_eq!(
            (harmless("+919876543210"), harmless("monday")),
            ("+919876543210".into(), "monday".into())
        );
    }
}
