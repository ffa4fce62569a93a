//! Results of many lines, written as they are read: CSV for spreadsheets, JSON lines for programs.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::audience::io_error;
use crate::campaign::{text::is_invisible, visible_lines};

/// The format of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// CSV, for spreadsheets.
    Csv,
    /// One JSON document per line.
    Jsonl,
}

/// Writes lines in a format.
pub enum LineWriter<W: Write> {
    /// CSV, for spreadsheets.
    Csv(Box<csv::Writer<W>>),
    /// One JSON document per line.
    Jsonl(W),
}

impl<W: Write> LineWriter<W> {
    /// Creates it for a writer.
    pub fn new(format: Format, writer: W) -> Self {
        match format {
            Format::Csv => Self::Csv(Box::new(csv::Writer::from_writer(writer))),
            Format::Jsonl => Self::Jsonl(writer),
        }
    }

    /// Writes the names of a CSV's columns, also if no lines follow.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn header<T: AsRef<str>>(&mut self, names: impl IntoIterator<Item = T>) -> io::Result<()> {
        match self {
            Self::Csv(writer) => {
                let shown = names.into_iter().map(|name| cell(name.as_ref()));
                writer.write_record(shown).map_err(io_error)
            }
            Self::Jsonl(_) => Ok(()),
        }
    }

    /// Writes a line: the document as JSON, or the fields as CSV.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn write(&mut self, line: &impl Serialize, fields: impl FnOnce() -> Vec<String>) -> io::Result<()> {
        match self {
            Self::Csv(writer) => {
                let fields = fields();
                writer.write_record(fields.iter().map(|field| cell(field))).map_err(io_error)
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

/// Returns an untrusted text for a spreadsheet: invisible characters are escaped, and no formula is run.
pub fn cell(text: &str) -> String {
    harmless(&visible_lines(text)).into_owned()
}

/// Does the same for a cell that is always text, as in a workbook.
pub(super) fn plain_cell(text: &str) -> String {
    visible_lines(text).into_owned()
}

/// Returns the writer's own error, so that a closed pipe is recognized.
/// Quotes a text that a spreadsheet would run as a formula.
///
/// A formula begins with one of a few characters, after spaces, line breaks and invisible characters that a spreadsheet may drop.
/// It may also begin within a text, because a spreadsheet may split columns at semicolons or tabs instead of commas.
fn harmless(text: &str) -> Cow<'_, str> {
    let mut starts = Vec::new();
    let mut may_begin = true;
    for (at, character) in text.char_indices() {
        match character {
            ';' | '\t' | '\n' | '\r' => may_begin = true,
            _ if character.is_whitespace() || is_invisible(character) => {}
            '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠' if may_begin => {
                // The quote goes directly before this character.
                starts.push(at);
                may_begin = false;
            }
            // A spreadsheet drops a quote at the beginning of a text.
            '"' | '\'' => {}
            _ => may_begin = false,
        }
    }
    if starts.is_empty() || is_number(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + starts.len());
    let mut from = 0;
    for at in starts {
        let before = text.get(..at).unwrap_or_default();
        // At the beginning, a quote before everything makes the whole text a text; after a separator another cell begins.
        if before.chars().all(|c| c.is_whitespace() || is_invisible(c)) {
            out.push('\'');
            if !before.contains(['\t', '\n', '\r']) {
                continue;
            }
        }
        out.push_str(text.get(from..at).unwrap_or_default());
        out.push('\'');
        from = at;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(out)
}

/// Returns whether a text is a number, which is never a formula: phone numbers stay unchanged.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_is_quoted() {
        for (text, safe) in [
            ("=HYPERLINK(\"x\")", "'=HYPERLINK(\"x\")"),
            ("@x", "'@x"),
            ("-1+2", "'-1+2"),
            ("+1 2", "'+1 2"),
            ("＝1+1", "'＝1+1"),
            ("＋1+1", "'＋1+1"),
            ("－1+1", "'－1+1"),
            ("＠x", "'＠x"),
            ("\n=1+1", "'\n'=1+1"),
            ("\t=1+1", "'\t'=1+1"),
            (" =1+1", "' =1+1"),
            ("\u{a0}=1+1", "'\u{a0}=1+1"),
            ("\u{feff}=1+1", "'\u{feff}=1+1"),
            ("\u{200b}=1+1", "'\u{200b}=1+1"),
            ("\u{3000}\u{200b} =1+1", "'\u{3000}\u{200b} =1+1"),
            ("a;=HYPERLINK(1)", "a;'=HYPERLINK(1)"),
            ("a; \u{200b}=1;=2", "a; \u{200b}'=1;'=2"),
            ("a\n=1", "a\n'=1"),
            ("a;\"=1\"", "a;\"'=1\""),
            ("a\t@x", "a\t'@x"),
        ] {
            assert_eq!(harmless(text), safe, "{text:?}");
        }
        for same in [
            "+919876543210",
            "-12.5",
            "monday",
            "a=b",
            "a - b",
            "you@example.com",
            "1;2",
            "",
            "2 + 2",
            "a,=b",
        ] {
            assert!(matches!(harmless(same), Cow::Borrowed(_)), "{same:?}");
        }
    }

    #[test]
    fn formulas_are_quoted_in_all_fields_and_columns() {
        let mut lines = LineWriter::new(Format::Csv, Vec::new());
        lines.header(["=1", "b"]).unwrap();
        lines.write(&serde_json::json!({}), || vec!["＝2".into(), "\u{1b}c;=3".into()]).unwrap();
        assert_eq!(String::from_utf8(lines.end().unwrap()).unwrap(), "'=1,b\n'＝2,\\u001bc;'=3\n");
    }
}
