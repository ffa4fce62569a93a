//! A result of many lines, written as it is read: CSV for spreadsheets, JSON lines for programs.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::campaign::text::is_invisible;
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
    pub fn header<T: AsRef<str>>(&mut self, names: impl IntoIterator<Item = T>) -> io::Result<()> {
        match self {
            Self::Csv(writer) => {
                let shown = names.into_iter().map(|name| cell(name.as_ref()));
                writer.write_record(shown).map_err(cause)
            }
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
                writer.write_record(fields.iter().map(|field| cell(field))).map_err(cause)
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

/// Returns a text of others as a spreadsheet may show it: nothing in it hides what follows, or is run as a formula.
pub fn cell(text: &str) -> String {
    harmless(&visible_lines(text)).into_owned()
}

/// The same for a cell that is a text whatever it looks like, as in a workbook.
pub(super) fn plain_cell(text: &str) -> String {
    visible_lines(text).into_owned()
}

/// The writer's own error out of the CSV library's, so that a reader who has gone is known as one.
fn cause(fault: csv::Error) -> io::Error {
    match fault.into_kind() {
        csv::ErrorKind::Io(fault) => fault,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// What others wrote is opened in a spreadsheet: a text that one would run as a formula is made none.
///
/// A formula begins with one of a few signs, behind what a spreadsheet may take away: spaces, line breaks, signs that show
/// nothing. It may begin within a text as well, where a spreadsheet that separates its columns by semicolons or tabs cuts
/// what is between commas.
fn harmless(text: &str) -> Cow<'_, str> {
    let mut starts = Vec::new();
    let mut may_begin = true;
    for (at, character) in text.char_indices() {
        match character {
            ';' | '\t' | '\n' | '\r' => may_begin = true,
            _ if character.is_whitespace() || is_invisible(character) => {}
            '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠' if may_begin => {
                // Written before the sign itself, so that nothing stands between the two.
                starts.push(at);
                may_begin = false;
            }
            // A quote that begins a text would be taken away.
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
        // At the beginning it stands before all of the text, and makes it one; behind a separator another cell begins.
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

/// A number is no formula, whatever its sign: those of recipients stay as they are.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_made_a_text() {
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
    fn every_field_and_column_is_made_harmless() {
        let mut lines = Lines::new(Format::Csv, Vec::new());
        lines.header(["=1", "b"]).unwrap();
        lines.write(&serde_json::json!({}), || vec!["＝2".into(), "\u{1b}c;=3".into()]).unwrap();
        assert_eq!(String::from_utf8(lines.end().unwrap()).unwrap(), "'=1,b\n'＝2,\\u001bc;'=3\n");
    }
}
